"""A slider moved to its end and back: the run goes on as one that never left. The whole table is `benchmarks/there_and_back.py`."""
import importlib.util
import sys
from pathlib import Path

import pytest
from latentlab.core.registry import families
from latentlab.facade import make_run
from latentlab.train.trainer import Trainer

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # For its own `machine`
spec = importlib.util.spec_from_file_location("there_and_back", BENCHMARKS / "there_and_back.py")
harness = importlib.util.module_from_spec(spec)
sys.modules["there_and_back"] = harness
spec.loader.exec_module(harness)
sys.path.remove(str(BENCHMARKS))
QUIET = {"device": "cpu", "check_every": 10**6, "checkpoint_every": 10**6}


def test_every_live_slider_of_every_family_is_moved_in_some_mode():
    for family in families():
        run = family.experiment()
        moved = {move.path for _, mode in harness.modes(run) for move in harness.moves(mode)}
        assert moved == {path for path, info in run.fields().items() if info.kind == "live"}, family.name


def test_modes_and_strong_values_come_from_the_fields():
    run = make_run("nem", {})
    assert [label for label, _ in harness.modes(run)] == ["penalty kl", "penalty area"]
    found = {(move.name, move.there) for move in harness.moves(run)}
    assert {("kl_scale", 1e-4), ("kl_scale", 1.0), ("jitter", 0), ("jitter", 4), ("fill", "zero"), ("penalty", "area")} <= found
    assert not any(name == "area_scale" for name, _ in found) and ("smoothing", 0.0) not in found


def test_the_interval_is_that_of_one_more_run():
    low, high = harness.interval([1.0, 2.0, 3.0])
    assert (high - low) / 2 == pytest.approx(4.302653 * 1.0 * (4 / 3) ** 0.5, rel=1e-5)  # Student's t for two degrees of freedom
    assert harness.interval([2.0, 2.0]) == (1.99, 2.01)


CASES = {
    "nem, KL scale": ("nem", {"images": 64, "batch": 8}, "model.kl_scale", 1.0, "held_out/area", 0.5),
    "nem, area scale": ("nem", {"images": 64, "batch": 8, "penalty": "area"}, "model.area_scale", 10.0, "held_out/area", 0.5),
    "hvae, decoder scale": ("hvae", {"data": "moons", "points": 2000, "batch": 64, "scale_kind": "fixed"}, "model.decoder_scale", 1e-3,
                            "held_out/elbo", 1.5),
}


@pytest.mark.parametrize("case", [pytest.param(name, marks=pytest.mark.slow) if "nem" in name else name for name in CASES])
def test_the_hardest_sliders_come_back(case, tmp_path):
    "A tenth of the table's size: the figure of the run that left is within a share of that of the run that never did."
    family, changes, path, there, name, share = CASES[case]
    run = make_run(family, {**changes, **QUIET})
    trainer = Trainer(run, folder=tmp_path).fit(60, progress=False)
    start = trainer.checkpoint().rename(tmp_path / "start.ckpt")
    move = harness.Move(path=path, name=path.split(".")[-1], there=there, home=run.fields()[path].value)
    (never,), (away, back) = ([found[name] for found in harness.there_and_back(trainer, start, one, [name], away=50, back=(100,))][-k:]
                              for one, k in ((None, 1), (move, 2)))
    assert abs(away - never) > share * abs(never), "the value is strong"
    assert abs(back - never) < share * abs(never), (never, away, back)
