"The display of a hierarchical VAE on made-up views and on a model that trains: what is drawn is sent, every number says what it is of."

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from browser.latent_feeder import LatentFeeder

from latentlab.families.hvae import display as hvae
from latentlab.families.hvae.experiment import HVAERun
from latentlab.families.nem.experiment import NEMRun
from latentlab.panels.display import curve_columns
from latentlab.panels.layout import check_arrays
from latentlab.panels.panel import OPEN, Panel
from latentlab.train.trainer import Trainer

TINY = HVAERun().replace({"data.points": 400, "model.hidden": (8,), "train.check_every": 5, "train.device": "cpu"})


def sent_keys(view: Any) -> set[str]:
    "Names of the arrays of the last frame, those at rest too."
    return {block["key"] for meta in (view.held_meta, view.frame_meta) for block in meta["blocks"]}


@pytest.mark.parametrize(("data", "layers"), [("moons", 1), ("moons", 2), ("moons", 5), ("fashion-mnist", 1), ("fashion-mnist", 3)])
def test_what_the_layout_draws_is_sent(data: str, layers: int) -> None:
    feeder = LatentFeeder(data, layers)
    layout = feeder.display.layout(feeder.last)
    check_arrays(layout, sorted(sent_keys(feeder.view)))
    scatter = next(picture for picture in layout.pictures if picture.kind == "scatter")
    assert [panel.label for panel in scatter.panels] == [f"z{i + 1}" for i in range(layers)] and scatter.panels[-1].prior == "normal"
    assert json.loads(json.dumps(feeder.view.plan, allow_nan=False)) == layout.plain()


def test_a_frame_of_points_is_small_and_one_message() -> None:
    feeder, sizes = LatentFeeder("moons", 2), []
    for _ in range(3): feeder.push()
    feeder.view._send = lambda message, buffers=None: sizes.append((sum(map(len, buffers or [])), "frame_meta" in message["state"]))
    for _ in range(3): feeder.push()
    frames = [size for size, frame in sizes if frame]
    assert len(frames) == 3 and max(frames) < 60_000


def test_every_curve_and_every_number_has_its_name() -> None:
    feeder = LatentFeeder("moons", 2)
    for _ in range(20): feeder.push()
    layout = feeder.display.layout(feeder.last)
    assert {term.name for plot in layout.plots for term in plot.terms} <= set(curve_columns(feeder.last))
    assert "step" in feeder.view.curves_meta["columns"]
    rows = {row.name: row for row in layout.table.rows}
    assert set(feeder.view.frame_meta["table"]) == set(rows) and all("held out" in row.unit and row.help for row in rows.values())


def test_without_an_oracle_there_is_no_line_and_no_gap() -> None:
    feeder = LatentFeeder("fashion-mnist", 2)
    layout = feeder.display.layout(feeder.last)
    assert not any(plot.lines for plot in layout.plots)
    assert "gap" not in {row.name for row in layout.table.rows} and "gap" not in feeder.view.frame_meta["table"]


@pytest.mark.parametrize("field", [np.full((5, 5), -np.inf), np.full((5, 5), 3.0)])
def test_a_flat_or_endless_field_breaks_nothing(field: np.ndarray) -> None:
    levels = hvae.levels_of(field, np.array([0.0, 1, 0, 1]), np.random.default_rng(0).uniform(size=(20, 2)))
    assert levels.shape == (2,) and not np.isnan(hvae.half(field)).any()


def test_contours_hold_what_they_say() -> None:
    rng = np.random.default_rng(1)
    points, extent = rng.normal(size=(3000, 2)), np.array([-4.0, 4, -4, 4])
    axis = np.linspace(-4, 4, 161)
    field = -0.5 * (axis[None] ** 2 + axis[::-1, None] ** 2)
    for share, level in zip((0.9, 0.3), hvae.levels_of(field, extent, points, shares=(0.9, 0.3))):
        assert abs(((-0.5 * (points**2).sum(-1)) >= level).mean() - share) < 0.02


@pytest.fixture
def open_panel() -> Iterator[Callable[..., Panel]]:
    "Opens panels of a tiny run, and closes them."
    yield lambda changes={}: Panel(TINY.replace(changes), name="tiny", threads=1)
    for one in list(OPEN.values()): one.close()


def test_a_model_that_trains(open_panel: Callable[..., Panel]) -> None:
    "Names of the trainer's own record, no empty curve, and the picture of a saved notebook."
    panel = open_panel({"model.layers": 2})
    panel.trainer.stop()
    panel.trainer.fit(12, progress=False)
    panel.tick()
    layout = panel.display.layout(panel.last)
    check_arrays(layout, sorted(sent_keys(panel.view)))
    assert "difference" in sent_keys(panel.view) and panel.view.frame_meta["step"] == 12
    assert {term.name for plot in layout.plots for term in plot.terms} <= set(curve_columns(panel.last))
    assert {"elbo", "iw", "gap"} <= set(panel.view.frame_meta["table"])
    assert panel.view._repr_mimebundle_()[0]["image/png"][:4] == b"\x89PNG"


def test_one_layer_and_no_noise(open_panel: Callable[..., Panel]) -> None:
    "No oracle for curves without noise: no tab, no line, and a sentence that says why."
    panel = open_panel({"data.noise": 0.0})
    assert "difference" not in sent_keys(panel.view) and not panel.display.layout(panel.last).plots[0].lines
    assert any("no density is bounded" in note["text"] and note["loud"] for note in panel.view.notes)


def test_a_trainer_with_data_of_its_own_gets_no_control_over_ours() -> None:
    "Settings of the data would rebuild nothing, so they are not shown; everything about the model still is."
    shown = []
    for trainer in (Trainer(TINY, build=HVAERun.build), Trainer(TINY)):
        panel = Panel(trainer, threads=1)
        shown.append({control["name"] for control in panel.view.schema})
        panel.close()
    assert shown[1] - shown[0] == {"preset", "name", "noise", "points", "start"} and {"layers", "latents", "beta"} <= shown[0]


def test_settings_of_another_family_are_refused_before_anything_is_built() -> None:
    with pytest.raises(ValueError, match="`run` must be HVAERun, or a trainer of one: got NEMRun"): Panel(NEMRun(), family="hvae")
    assert not OPEN


def test_another_number_of_layers_brings_its_lists(open_panel: Callable[..., Panel], unchecked: None) -> None:
    "A list of sizes is no dead end: it is cut to the layers asked for, and a longer list brings its layers."
    panel = open_panel({"latents": (2, 3)})
    cases = ("layers", 1, 1, (2,)), ("latents", "2, 2, 2", 3, (2, 2, 2)), ("layers", 2, 2, (2, 2)), ("kind", "auxiliary", 1, (2,))
    for name, value, layers, latents in cases:
        panel.view._receive(panel.view, dict(kind="set", name=name, value=value), None)
        limit = time.monotonic() + 60
        found = lambda n=name, v=value: (panel.trainer.run.get(n) == v or n == "latents", panel.trainer.run.model.layers,
                                         panel.trainer.run.model.latents)
        while found() != (True, layers, latents) and time.monotonic() < limit: time.sleep(0.01)
        assert found() == (True, layers, latents) and not panel.trainer.notice
