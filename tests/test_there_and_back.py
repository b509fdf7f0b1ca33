"""A slider moved to its end and back: the run goes on as one that never left. The whole table is `benchmarks/there_and_back.py`."""
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from latentlab.core.registry import families
from latentlab.core.settings import Range
from latentlab.facade import make_run
from latentlab.families.nem import model as nem_model
from latentlab.families.nem.model import NEM
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
    assert [label for label, _ in harness.modes(run)] == [
        f"penalty {penalty}, frontier {whole}" for penalty in ("kl", "area") for whole in (False, True)]
    found = {(move.name, move.there) for move in harness.moves(run)}
    assert {("kl_scale", 1e-4), ("kl_scale", 1.0), ("jitter", 0), ("jitter", 4), ("fill", "zero"), ("penalty", "area")} <= found
    assert not any(name == "area_scale" for name, _ in found) and ("smoothing", 0.0) not in found
    drawn = {move.there for move in harness.moves(make_run("nem", {"frontier": True})) if move.name == "penalty_weight"}
    middle = run.model.penalty_weight.middle
    assert drawn == {Range(0.003, middle, "log"), Range(middle, 0.6, "log")} and not any(name == "penalty_weight" for name, _ in found)


def test_the_interval_is_that_of_one_more_run():
    low, high = harness.interval([1.0, 2.0, 3.0])
    assert (high - low) / 2 == pytest.approx(4.302653 * 1.0 * (4 / 3) ** 0.5, rel=1e-5)  # Student's t for two degrees of freedom
    assert harness.interval([2.0, 2.0]) == (1.99, 2.01)


@pytest.mark.parametrize("mechanism", [NEM.to_probability, torch.sigmoid], ids=["way back", "plain sigmoid"])
def test_kl_scale_there_and_back(mechanism, tmp_path, monkeypatch):
    "The first thing to try: the scale at its upper end empties each mask. It comes back, and with the plain sigmoid it never does."
    monkeypatch.setattr(NEM, "to_probability", staticmethod(mechanism))
    run = make_run("nem", {"images": 64, "batch": 4, "layers": 2, "width": 4, "learning_rate": 0.01, **QUIET})
    trainer = Trainer(run, folder=tmp_path).fit(10, progress=False)
    start = trainer.checkpoint().rename(tmp_path / "start.ckpt")
    move = harness.Move(path="model.kl_scale", name="kl_scale", there=1.0, home=run.get("kl_scale"))
    area = lambda one, back: [found["held_out/area"]
                              for found in harness.there_and_back(trainer, start, one, ["held_out/area"], away=20, back=(back,))]
    if mechanism is torch.sigmoid: return expect_empty(area(move, 20))
    never, moved = area(None, 60), area(move, 60)
    assert moved[0] < 0.01 < 0.3 < never[0], "the value is strong"
    assert abs(moved[1] - never[1]) < 0.15, (never, moved)


def expect_empty(areas): assert max(areas) < 0.01


@pytest.mark.parametrize("glimpsed", [True, False], ids=["glimpse", "no glimpse"])
def test_an_encoder_with_thresholds_there_and_back(glimpsed, tmp_path, monkeypatch):
    "A planted encoder has no slope where everything is hidden: the mask comes back by glimpses, and without them it never does."
    if not glimpsed: monkeypatch.setattr(nem_model, "glimpse", lambda keep, *, generator: keep)
    run = make_run("nem", {"data": "scenes", "encoder": "planted:red", "fill": "mean", "images": 64, "batch": 4, "layers": 2, "width": 4,
                           "learning_rate": 0.01, **QUIET})
    trainer = Trainer(run, folder=tmp_path).fit(40, progress=False)
    start = trainer.checkpoint().rename(tmp_path / "start.ckpt")
    move = harness.Move(path="model.kl_scale", name="kl_scale", there=1.0, home=run.get("kl_scale"))
    areas = [found["held_out/area"] for found in harness.there_and_back(trainer, start, move, ["held_out/area"], away=40, back=(80,))]
    if not glimpsed: return expect_empty(areas)
    assert areas[0] < 0.01 < 0.05 < areas[1], areas


def test_a_survey_that_was_interrupted_goes_on(tmp_path):
    "A finished run is a line; half a line is trained again, and another survey's file is refused."
    run, path, said = make_run("hvae", {"data": "moons", "points": 200, "batch": 16, "hidden": (4,), **QUIET}), tmp_path / "cells.jsonl", []

    def survey(family="hvae"):
        cells = harness.Cells({"family": family}, path)
        return harness.survey(run, ["held_out/elbo"], seeds=1, never=2, only=["beta"], away=2, back=(1, 2), warm=2, cells=cells, say=said.append)

    first = survey()
    assert [row["there"] for row in first] == [0.0, 10.0] and len(said) == 4
    assert json.loads(json.dumps(first)) == first, "the table can be written: `within` is no number of numpy"
    assert survey() == first and len(said) == 4, "all is there"
    path.write_text(path.read_text()[:-40])  # killed while it wrote
    assert survey() == first and len(said) == 5 and "never left" in said[-1]
    with pytest.raises(SystemExit, match="of other family"): survey("nem")


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
