"The display of a hierarchical VAE on made-up views and on a model that trains: what is drawn is sent, every number says what it is of."

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
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


IMAGES = {"data.name": "fashion-mnist", "data.images": 500, "layers": 3, "latents": (8, 4, 2), "hidden": (16,)}


def tell(panel: Panel, source: str, kind: str, value: Any, buffer: bytes | None = None) -> str:
    "An event of the page, and the picture after it; what it was refused with, or nothing."
    refused: list[str] = []
    panel.view.refuse = lambda name, sentence: refused.append(sentence)
    panel.view._receive(panel.view, dict(kind="event", source=source, type=kind, value=value), [buffer] if buffer else None)
    panel.trainer.snapshot(timeout=60)  # the event is a command before it
    panel.tick()
    return refused[0] if refused else ""


def test_what_is_planted_and_painted_is_shown_and_changes_nothing_of_the_run(open_panel: Callable[..., Panel], unchecked: None) -> None:
    "Known places: what is painted on one image is what changed, the maps are told, and the model stays as it was."
    panel = open_panel(IMAGES)
    views, weights = panel.last.views, {name: part.clone() for name, part in panel.trainer.model.state_dict().items()}
    assert not views["changed"].any() and not any("planted or painted" in note["text"] for note in panel.view.notes)
    stroke = np.zeros((28, 28), np.uint8)
    stroke[4:8, 4:24] = 255
    assert tell(panel, "painted", "paint", 3, stroke.tobytes()) == ""
    now = panel.last.views
    assert {int(i) for i in now["changed"].nonzero()[0]} == {3} and (now["changed"][3] <= stroke / 255).all() and now["edit_image"] == 3
    assert np.array_equal(now["in_elbo"], views["in_elbo"]) and not np.array_equal(now["recon0"][3], views["recon0"][3])
    assert np.array_equal(now["recon0"][2], views["recon0"][2]), "an image that was not touched is reconstructed as before"
    assert any("on 1 image." in note["text"] and note["loud"] for note in panel.view.notes)
    assert tell(panel, "plants", "click", 2) == tell(panel, "painted", "turn", 5) == tell(panel, "maps", "click", 0) == ""
    now = panel.last.views
    assert len(set(now["changed"].nonzero()[0])) == 8 and (now["edit_image"], now["edit_map"], now["edit_plant"]) == (5, 0, 2)
    check_arrays(panel.display.layout(panel.last), sorted(sent_keys(panel.view)))
    assert "finds_hidden" not in now and tell(panel, "maps", "click", 5) == "" and panel.last.views["edit_map"] == 5
    assert np.array_equal(panel.last.views["strange"][5], panel.last.views["map_hidden"]), "of all images where it is chosen"
    assert any("hidden ." in note["text"] for note in panel.view.notes), "and how well it finds what was planted is told"
    assert all(torch.equal(part, weights[name]) for name, part in panel.trainer.model.state_dict().items())
    assert panel.trainer.step_count == 0 and panel.trainer.run.diff() == TINY.replace(IMAGES).diff()


def test_a_threshold_or_a_k_that_is_not_there_is_refused_in_words(open_panel: Callable[..., Panel], unchecked: None) -> None:
    panel = open_panel(IMAGES)
    assert tell(panel, "threshold", "slide", 1.0) == "" and abs(panel.last.views["edit_share"] - 0.01) < 1e-6
    marked = (panel.last.views["strange"] > panel.last.views["edit_threshold"]).mean()
    assert tell(panel, "threshold", "slide", 30.0) == ""
    assert (panel.last.views["strange"] > panel.last.views["edit_threshold"]).mean() > marked
    assert "a number from 0.1 to 50: got 80" in tell(panel, "threshold", "slide", 80)
    assert tell(panel, "skipped", "slide", 2) == "" and panel.last.views["edit_k"] == 2
    assert "a whole number from 1 to 2: got 3" in tell(panel, "skipped", "slide", 3)
    assert "an index from 0 to 7: got 8" in tell(panel, "painted", "turn", 8)
    assert "784 bytes" in tell(panel, "painted", "paint", 0, bytes(100))
    one = open_panel(IMAGES | {"layers": 1, "latents": (4,)})
    one.tick()
    assert {name for name in one.last.views if name.startswith("map_")} == {"map_error", "map_cost", "map_hidden"}
    assert tell(one, "maps", "click", 2) == "" and int(one.last.views["edit_map"]) == 5, "the third that it has is the sixth there is"
    assert "usual_hidden" in one.last.views
    assert not any(getattr(part, "name", "") == "skipped" for part in one.display.layout(one.last).pictures)


def test_a_latent_is_moved_and_nothing_else(open_panel: Callable[..., Panel], unchecked: None) -> None:
    "Not moved is the reconstruction from that layer; a layer that is not there, and a latent that is not shown, are refused."
    panel = open_panel(IMAGES)
    for layer in (3, 1, 2):
        assert tell(panel, "layer", "slide", layer) == ""
        views = panel.last.views
        assert views["latent_layer"] == layer and len(views["film_each"]) == {1: 8, 2: 4, 3: 2}[layer]
        np.testing.assert_allclose(views["film_moved"][3], views[f"recon{layer - 1}"][int(views["edit_image"])], atol=1e-5)
        check_arrays(panel.display.layout(panel.last), sorted(sent_keys(panel.view)))
    chosen = views["latent_latent"]
    assert tell(panel, "film_each", "click", 3) == "" and panel.last.views["latent_latent"] != chosen
    assert np.array_equal(panel.last.views["in_elbo"], views["in_elbo"]) and np.array_equal(panel.last.views["recon0"], views["recon0"])
    assert tell(panel, "temperature", "slide", 0.0) == ""
    assert not np.array_equal(panel.last.views["film_more"][2], views["film_more"][2])
    assert "a whole number from 1 to 3: got 4" in tell(panel, "layer", "slide", 4)
    assert "an index from 0 to 3: got 4" in tell(panel, "film_each", "click", 4)


def test_a_layout_rests_while_the_model_trains(open_panel: Callable[..., Panel]) -> None:
    "Each new layout makes all pictures of the page anew: latents in an order that changed with every picture cost two frames of three."
    panel = open_panel({"data.name": "fashion-mnist", "data.images": 500, "layers": 2, "latents": (16, 8), "hidden": (32,), "check_every": 1000})
    panel.pump.stop()
    panel.trainer.start(30).wait()
    panel.push(panel.trainer.snapshot())
    plans: list[Any] = []
    panel.view.observe(plans.append, "plan")
    for _ in range(10):
        panel.trainer.start(3).wait()
        panel.push(panel.trainer.snapshot())
    assert len(plans) <= 2, f"{len(plans)} layouts in ten pictures"
