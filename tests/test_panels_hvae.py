"The look of a hierarchical VAE on made-up views and on a model that trains: every key of the plan is sent, every curve exists, every number says what it is of."

import json
import time

import numpy as np
import pytest
from browser.feeder import LatentFeeder

from latentlab.families.hvae.experiment import HVAERun
from latentlab.families.nem.experiment import NEMRun
from latentlab.families.hvae import display as hvae
from latentlab.panels.panel import OPEN
from latentlab.train.trainer import Trainer

TINY = HVAERun().replace({"data.points": 400, "model.hidden": "8", "train.check_every": 5, "train.device": "cpu"})


def keys(plan: dict, what: str) -> set[str]:
    "Keys of arrays that a plan's pictures cannot do without."
    found = {row["key"] for row in plan.get("rows", [])}
    for picture in plan["pictures"]:
        if picture["kind"] == "field": found |= {picture["extent"], *(p["key"] for p in picture["points"]), picture["tabs"][0]["key"], picture["tabs"][0]["levels"]}
        if picture["kind"] == "scatter":
            found |= {panel["key"] for panel in picture["panels"]} | {picture["labels"]} | {p["prior"] for p in picture["panels"] if p.get("prior", "normal") != "normal"}
        if picture["kind"] == "hist": found |= {tab[side] for tab in picture["tabs"] for side in ("inside", "outside")}
        if picture["kind"] == "bars": found |= {picture["key"], picture["active"], picture["total"]}
    return found


@pytest.mark.parametrize(("data", "layers"), [("moons", 1), ("moons", 2), ("moons", 5), ("fashion-mnist", 1), ("fashion-mnist", 3)])
def test_what_the_plan_draws_is_sent(data, layers):
    feeder = LatentFeeder(data, layers)
    sent = {block["key"] for meta in (feeder.view.held_meta, feeder.view.frame_meta) for block in meta["blocks"]}
    assert keys(feeder.view.plan, data) <= sent
    scatter = next(p for p in feeder.view.plan["pictures"] if p["kind"] == "scatter")
    assert [panel["label"] for panel in scatter["panels"]] == [f"z{i + 1}" for i in range(layers)] and scatter["panels"][-1]["prior"] == "normal"
    json.dumps(feeder.view.plan, allow_nan=False)


def test_a_frame_of_points_is_small_and_one_message():
    feeder, sizes = LatentFeeder("moons", 2), []
    for _ in range(3): feeder.push()
    feeder.view._send = lambda message, buffers=None: sizes.append((sum(map(len, buffers or [])), "frame_meta" in message["state"]))
    for _ in range(3): feeder.push()
    frames = [size for size, frame in sizes if frame]
    assert len(frames) == 3 and max(frames) < 60_000


def test_every_curve_and_every_number_has_its_name():
    feeder = LatentFeeder("moons", 2)
    for _ in range(20): feeder.push()
    columns = set(feeder.view.curves_meta["columns"])
    drawn = {term["name"] for plot in hvae.HVAELook().plan(feeder.snapshot())["plots"] for term in plot["terms"]}
    assert {name for name in drawn if not name.startswith("probe_")} <= set(feeder.snapshot().curves.values) and "step" in columns
    rows = {row["name"]: row for row in feeder.view.plan["table"]["rows"]}
    assert set(feeder.view.frame_meta["table"]) == set(rows) and all("held out" in row["unit"] and row["help"] for row in rows.values())


def test_without_an_oracle_there_is_no_line_and_no_gap():
    feeder = LatentFeeder("fashion-mnist", 2)
    assert all(not plot["lines"] for plot in feeder.view.plan["plots"] if "lines" in plot)
    assert "gap" not in {row["name"] for row in feeder.view.plan["table"]["rows"]} and "gap" not in feeder.view.frame_meta["table"]


@pytest.mark.parametrize(("field", "bad"), [(np.full((5, 5), -np.inf), 0), (np.full((5, 5), 3.0), 5)])
def test_a_flat_or_endless_field_breaks_nothing(field, bad):
    levels = hvae.levels_of(field, np.array([0.0, 1, 0, 1]), np.random.default_rng(0).uniform(size=(20, 2)))
    assert levels.shape == (2,) and not np.isnan(hvae.half(field)).any()


def test_contours_hold_what_they_say():
    rng = np.random.default_rng(1)
    points, extent = rng.normal(size=(3000, 2)), np.array([-4.0, 4, -4, 4])
    axis = np.linspace(-4, 4, 161)
    field = -0.5 * (axis[None] ** 2 + axis[::-1, None] ** 2)
    for share, level in zip((0.9, 0.3), hvae.levels_of(field, extent, points, shares=(0.9, 0.3))):
        assert abs(((-0.5 * (points**2).sum(-1)) >= level).mean() - share) < 0.02


@pytest.fixture
def panel():
    "Opens panels of a tiny run, and closes them."
    yield lambda changes: hvae.HVAEPanel(TINY.replace(changes), name="tiny", threads=1)
    for one in list(OPEN.values()): one.close()


def test_a_model_that_trains(panel):
    "Two layers, then three: names of the trainer's own record, no empty curve, and the picture of a saved notebook."
    shown = panel({"model.layers": 2})
    shown.trainer.stop()
    shown.trainer.fit(12, progress=False)
    shown.tick()
    view, plan = shown.view, shown.view.plan
    sent = {block["key"] for meta in (view.held_meta, view.frame_meta) for block in meta["blocks"]}
    assert keys(plan, "moons") | {"difference"} <= sent and view.frame_meta["step"] == 12
    drawn = {term["name"] for plot in plan["plots"] for term in plot["terms"]}
    assert drawn <= set(hvae_columns(shown)), drawn - set(hvae_columns(shown))
    assert {"elbo", "iw", "gap"} <= set(view.frame_meta["table"])
    assert shown.face.look.still(shown.face.last)[:4] == b"\x89PNG"


def hvae_columns(shown) -> list[str]:
    from latentlab.panels.panel import curve_columns

    return list(curve_columns(shown.face.last))


def test_one_layer_and_no_noise(panel):
    "No oracle for curves without noise: no tab, no line, and a sentence that says why."
    shown = panel({"data.noise": 0.0})
    sent = {block["key"] for meta in (shown.view.held_meta, shown.view.frame_meta) for block in meta["blocks"]}
    assert "difference" not in sent and not shown.view.plan["plots"][0]["lines"]
    assert any("no density is bounded" in note["text"] and note["loud"] for note in shown.view.notes)


def test_a_trainer_with_data_of_its_own_gets_no_control_over_ours():
    "Settings of the data would rebuild nothing, so they are not shown; everything about the model still is."
    own, ours = Trainer(TINY, build=HVAERun.build), Trainer(TINY)
    shown = []
    for trainer in (own, ours):
        panel = hvae.HVAEPanel(trainer, threads=1)
        shown.append({control["name"] for control in panel.view.schema})
        panel.close()
    assert shown[1] - shown[0] == {"name", "noise", "points"} and {"layers", "latents", "beta"} <= shown[0]


def test_settings_of_another_family_are_refused_before_anything_is_built():
    with pytest.raises(ValueError, match="`run` must be HVAERun, or a trainer of one: got NEMRun. Open it with"): hvae.HVAEPanel(NEMRun())
    assert not OPEN


def test_another_number_of_layers_brings_its_lists():
    "A list of sizes is no dead end: it is cut to the layers asked for, and a longer list brings its layers."
    panel = hvae.HVAEPanel(TINY.replace({"latents": "[2, 3]"}), threads=1)
    for name, value, layers, latents in (("layers", 1, 1, "[2]"), ("latents", "2, 2, 2", 3, "2, 2, 2"), ("layers", 2, 2, "[2, 2]"), ("kind", "auxiliary", 1, "[2]")):
        panel.view._receive(panel.view, dict(kind="set", name=name, value=value), None)
        limit = time.monotonic() + 20
        while panel.trainer.run.get(name) != value and time.monotonic() < limit: time.sleep(0.01)
        assert (panel.trainer.run.model.layers, panel.trainer.run.model.latents) == (layers, latents) and not panel.trainer.notice
    panel.close()
