"""The panel without a browser: frames, settings, builds that are refused, events, two panels on one trainer, and an end
after which nothing starts.
"""
import base64
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ipywidgets
import numpy as np
import pytest
import torch
from latentlab.core.model import Setup
from latentlab.core.registry import Family
from latentlab.core.settings import Settings
from latentlab.panels.display import Display
from latentlab.panels.layout import Curve, CurvePlot, Layout, Row, Slider, Strip, Table, TableRow
from latentlab.panels.panel import OPEN, Panel
from latentlab.panels.pump import FramePump
from latentlab.panels.view import Event, image_bytes
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

RUN = MeanRun().replace(device="cpu")


class SquareDisplay(Display):
    "The learnt image, a film of it, and a slider of its own whose value makes the picture brighter."

    def __init__(self): self.light, self.asked, self.threads = 0.0, [], set()

    def layout(self, snapshot):
        slider = Slider(name="light", label="light", low=0.0, high=1.0, value=0.0)
        return Layout(title="mean", rows=(Row(key="level", label="level"),), pictures=(Strip(key="film", label="film", scrub=True), slider))

    def arrays(self, snapshot):
        level = image_bytes(snapshot.views["level"].clip(0, 1))
        return {"level": np.maximum(level, np.uint8(255 * self.light)), "film": np.repeat(level, 5, axis=0)}

    def on_event(self, event, trainer):
        self.asked.append((event.source, event.type, event.value))
        self.threads.add(threading.current_thread().name)
        if event.source == "film" and event.value == 4: raise ValueError("`film` must end before frame 4: got 4. Choose another.")
        if event.source == "film": trainer.set(pull=float(event.value))
        else: self.light = event.value


class SquareFamily(Family):
    "A family that no registry knows."
    def load_display(self): return SquareDisplay()


FAMILY = SquareFamily(name="mean", title="the mean image", experiment=MeanRun, display="tests:SquareDisplay", summary=("loss",),
                      lab="square.ipynb")


@pytest.fixture
def opened() -> Iterator[Callable[..., Panel]]:
    "Opens panels whose messages are kept, and closes what is left."

    def one(run: Settings | Trainer = RUN, **options: Any) -> Panel:
        panel = Panel(run, family=FAMILY, threads=1, **options)
        panel.sent = []
        panel.view.send = lambda content, buffers=None: panel.sent.append(content)
        return panel

    yield one
    for panel in list(OPEN.values()): panel.close()


def say(panel: Panel, **message: Any) -> None: panel.view._receive(panel.view, message, None)


def until(condition: Callable[[], Any], panel: Panel | None = None, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came"
        if panel: panel.tick()
        time.sleep(0.01)


def press_run(panel: Panel, go: threading.Event) -> None:
    go.wait()
    say(panel, kind="command", name="run")


def refusals(panel: Panel) -> list[tuple[str, str]]: return [(m["name"], m["sentence"]) for m in panel.sent if m.get("kind") == "refused"]


def array(panel: Panel, key: str) -> np.ndarray:
    "An array as the page has it."
    for meta, data in ((panel.view.frame_meta, panel.view.frame), (panel.view.held_meta, panel.view.held)):
        for block in meta.get("blocks", []):
            size = int(np.prod(block["shape"]))
            if block["key"] == key:
                return np.frombuffer(bytes(data)[block["offset"]: block["offset"] + size], np.uint8).reshape(block["shape"])
    raise KeyError(key)


def slow_build(seconds: float, begun: list[float]) -> Callable[[Settings, torch.device], Setup]:
    "Builds the example, after a while; all but the first time."

    def build(run: Settings, device: torch.device) -> Setup:
        begun.append(time.monotonic())
        if len(begun) > 1: time.sleep(seconds)
        return run.build(device)

    return build


# Frames --------------------------------------------------------------------------------------------------------------

def test_any_value_that_a_page_sends_is_taken_or_refused_by_name(opened, unchecked):
    panel = opened()
    say(panel, kind="set", name="pull", value="1/8")
    assert panel.trainer.run.get("pull") == 0.125 and refusals(panel) == []
    for value in (10**400, 10**5000, "1/0", float("nan"), [[[]]], {"low": 10**400}, None, b"x", "\ud800"):
        before = len(refusals(panel))
        say(panel, kind="set", name="pull", value=value)
        (name, sentence), = refusals(panel)[before:]
        assert name == "pull" and sentence.startswith(("`pull` must be", "`value` must be")), sentence
    deep = []
    for _ in range(10**5): deep = [deep]
    for message in (dict(kind=deep), dict(kind="set", name=deep, value=1), dict(kind="event", source=deep), dict(kind="alive", visible=deep),
                    dict(kind="event", source="light", type="slide", value=10**400), dict(kind="set", name="pull", value=deep)):
        before = len(refusals(panel))
        say(panel, **message)
        assert len(refusals(panel)) == before + 1 and "must be" in refusals(panel)[-1][1]
    assert panel.trainer.run.get("pull") == 0.125


def test_a_pushed_snapshot_is_one_frame_and_a_tick_draws_only_what_is_new(opened):
    panel = opened()
    before = panel.view.frame_meta["seq"]
    assert not panel.tick() and panel.view.frame_meta["seq"] == before
    panel.push(panel.trainer.snapshot())
    assert panel.view.frame_meta["seq"] == before + 1
    panel.trainer.set(pull=0.5)
    assert panel.tick() and panel.view.values["pull"] == 0.5 and panel.view.frame_meta["values"]["pull"] == 0.5


def test_a_panel_has_its_first_picture_when_a_second_does_not_come_in_time(opened, monkeypatch):
    "A picture of a large encoder takes long: the panel stood without a layout, and showing it was a KeyError."
    monkeypatch.setattr(FramePump, "tick", lambda self: False)
    panel = opened()
    assert panel.view.plan["title"] and panel._repr_mimebundle_()["text/plain"].endswith("step 0")
    panel._still()


def test_nobody_looks_nothing_is_sent(opened):
    panel = opened().run()
    before = panel.view.frame_meta["seq"]
    until(lambda: panel.trainer.step_count > 20)
    time.sleep(0.6)
    assert panel.view.frame_meta["seq"] == before
    say(panel, kind="alive", visible=True)
    until(lambda: panel.view.frame_meta["seq"] > before)


def test_held_out_figures_are_columns_and_lights_are_lit(opened):
    panel = opened()
    panel.trainer.start(10).wait()
    panel.trainer.set(pull=0.1)  # curves travel twice a second at most
    wanted = {"step", "square", "held_out/level", "held_out/error"}
    until(lambda: panel.push(panel.trainer.snapshot()) or wanted <= set(panel.view.curves_meta.get("columns", ())))
    assert [(light["name"], light["level"]) for light in panel.view.checks] == [("range", "ok")]


def test_a_panel_at_rest_shows_its_last_curves(opened):
    "Curves travel twice a second at most while something trains; after a pause no later frame would bring what is new in them."
    panel = opened()
    for steps in (10, 15):
        panel.trainer.start(steps - panel.trainer.step_count).wait()
        panel.push(panel.trainer.snapshot())
        columns = panel.view.curves_meta["columns"]
        table = np.frombuffer(panel.view.curves, np.float32).reshape(len(columns), -1)
        assert table[columns.index("step")].max() == steps - 1 and np.isfinite(table[columns.index("held_out/level")]).sum() > 1
    kept = panel.view.curves
    panel.push(panel.trainer.snapshot())
    assert panel.view.curves is kept, "the same curves are not sent again"


def test_a_picture_without_its_array_says_so_and_training_goes_on(opened, monkeypatch):
    panel = opened().run()
    monkeypatch.setattr(SquareDisplay, "arrays", lambda self, snapshot: {"film": np.zeros((5, 4, 4, 1), np.uint8)})
    say(panel, kind="alive", visible=True)
    until(lambda: "got none for level" in panel.view.status.get("error", ""))
    assert panel.trainer.state == "running" and panel.trainer.error is None


# Settings ------------------------------------------------------------------------------------------------------------

def test_a_live_value_is_in_force_at_once_and_a_bad_one_changes_nothing(opened):
    panel = opened()
    say(panel, kind="set", name="pull", value=2.0)
    assert panel.trainer.run.model.pull == 2.0 and not panel.sent
    say(panel, kind="set", name="pull", value=-1.0)
    [(name, sentence)] = refusals(panel)
    assert name == "pull" and sentence.startswith("`pull` must be at least 0: got -1") and panel.trainer.run.model.pull == 2.0


def test_each_refused_build_comes_back_to_the_control_that_asked(opened):
    "Three builds at once, of which the first and the last fail: two refusals, each with its own value, and the middle one stands."
    panel = opened().run()
    for name, value in (("side", 64), ("noise", 0.3), ("side", 40)): say(panel, kind="set", name=name, value=value)
    until(lambda: len(refusals(panel)) == 2)
    assert [(name, value in sentence) for (name, sentence), value in zip(refusals(panel),
                                                                         ("got 64", "got 40"))] == [("side", True), ("side", True)]
    assert panel.trainer.run.model.noise == 0.3 and panel.trainer.run.model.side == 4 and not panel._waiting
    until(lambda: panel.trainer.state == "running" and panel.trainer.step_count > 0)


def test_a_build_on_its_way_is_said(opened):
    begun = []
    panel = opened(Trainer(RUN, build=slow_build(0.5, begun)))
    say(panel, kind="set", name="noise", value=0.4)
    assert panel.view.status["state"] == "building" and panel.view.status["pending"] == ["noise"]
    until(lambda: panel.view.status["state"] == "idle" and panel.trainer.run.model.noise == 0.4)
    assert panel.view.status["pending"] == []


def test_commands_in_their_order(opened):
    panel = opened()
    say(panel, kind="command", name="run")
    until(lambda: panel.trainer.step_count > 5)
    say(panel, kind="command", name="pause")
    until(lambda: panel.trainer.state == "paused")
    at = panel.trainer.step_count
    say(panel, kind="command", name="step")
    until(lambda: panel.trainer.step_count == at + 1 and panel.trainer.state == "paused")
    say(panel, kind="command", name="rebuild")
    until(lambda: panel.trainer.step_count == 0)
    say(panel, kind="command", name="stop")
    until(lambda: panel.trainer.state == "stopped" and not panel.trainer.busy)
    say(panel, kind="command", name="pause")
    assert panel.trainer.state == "stopped" and not panel.sent
    say(panel, kind="command", name="run")
    until(lambda: panel.trainer.state == "running")


# Events --------------------------------------------------------------------------------------------------------------

def test_an_event_is_answered_between_two_steps_and_by_one_frame(opened):
    panel = opened()
    assert array(panel, "level").max() == 0
    seen = panel.view.frame_meta["seq"]
    say(panel, kind="event", source="light", type="slide", value=0.5)
    until(lambda: panel.display.asked)
    until(lambda: array(panel, "level").min() == 127, panel)
    assert (panel.display.threads == {"latentlab-trainer"} and panel.view.frame_meta["seq"] == seen + 1
            and panel.view.positions == {"light": 0.5})


def test_a_hand_on_a_slider_of_the_picture_goes_before_the_next_step(opened, monkeypatch):
    "Held for ten minutes it still answers; let go, it trains on. A click holds nothing."
    monkeypatch.setattr("latentlab.panels.panel.IN_HAND", 600.0)
    panel = opened().run()
    until(lambda: panel.trainer.step_count > 3)
    say(panel, kind="event", source="film", type="click", value=1)
    until(lambda: panel.display.asked == [("film", "click", 1)])
    at = panel.trainer.step_count
    until(lambda: panel.trainer.step_count > at + 3)
    say(panel, kind="event", source="light", type="slide", value=0.5)
    until(lambda: panel.display.light == 0.5)
    steps = {panel.trainer.snapshot().step for _ in range(4)}
    assert len(steps) == 1 and panel.trainer.state == "running", "a step began under the hand"
    panel.trainer.hold(0)
    until(lambda: panel.trainer.step_count > max(steps) + 3)


def test_a_refused_event_comes_back_to_its_picture(opened):
    panel = opened().run()
    say(panel, kind="event", source="film", type="scrub", value=2)
    until(lambda: panel.trainer.run.model.pull == 2.0)
    say(panel, kind="event", source="film", type="scrub", value=4)
    until(lambda: refusals(panel))
    assert refusals(panel) == [("film", "`film` must end before frame 4: got 4. Choose another.")] and panel.view.positions == {"film": 2}
    assert panel.trainer.state == "running"


@pytest.mark.parametrize(("message", "word"), [
    (dict(source="flim", type="scrub", value=1), "flim"), (dict(source="film", type="paint", value=1), "paint"),
    (dict(source="film", type="scrub", value=5), "got 5"), (dict(source="light", type="slide", value=2.0), "got 2"),
])
def test_an_event_that_does_not_fit_the_layout_never_reaches_the_display(opened, message, word):
    panel = opened()
    say(panel, kind="event", **message)
    [(_, sentence)] = refusals(panel)
    assert word in sentence and panel.display.asked == []


def test_of_many_positions_the_newest_counts(opened):
    "Positions that came while a build took the thread: the last one is answered, the ones before it are passed over; clicks all count."
    panel = opened(Trainer(RUN, build=slow_build(0.5, [])))
    say(panel, kind="set", name="noise", value=0.2)
    for value in (0.1, 0.2, 0.3): say(panel, kind="event", source="light", type="slide", value=value)
    for value in (0, 1): say(panel, kind="event", source="film", type="click", value=value)
    until(lambda: len(panel.display.asked) >= 3)
    assert panel.display.asked == [("light", "slide", 0.3), ("film", "click", 0), ("film", "click", 1)]


def test_a_display_without_an_answer_refuses_in_a_sentence():
    with pytest.raises(ValueError, match="`strip` must have an answer: got scrub for Display, which has none"):
        Display().on_event(Event("strip", "scrub", 3), None)


# Ends ----------------------------------------------------------------------------------------------------------------

def test_after_close_nothing_starts(opened):
    "A slow build, three rebuilds each followed by Pause and Run, then close: what waits has no turn, and no thread is left to start it."
    begun, before = [], set(threading.enumerate())
    panel = opened(Trainer(RUN, build=slow_build(0.5, begun))).run()
    until(lambda: panel.trainer.step_count > 5)
    for _ in range(3):
        for name in ("rebuild", "pause", "run"): say(panel, kind="command", name=name)
    panel.close()
    built, step, state = len(begun), panel.trainer.step_count, panel.trainer.state
    assert built <= 2 and state == "stopped" and not panel.trainer.busy
    time.sleep(0.3)
    assert (len(begun), panel.trainer.step_count, panel.trainer.state, panel.trainer.busy) == (built, step, state, False)
    left = {t.name for t in set(threading.enumerate()) - before}
    assert left.isdisjoint({"latentlab-trainer", "latentlab-frames", "latentlab-run-browser"})


def test_requests_that_come_after_the_end_are_lost(opened):
    panel = opened()
    panel.close()
    panel.close()  # twice is once
    for message in (dict(kind="command", name="run"), dict(kind="set", name="side", value=8)): say(panel, **message)
    assert panel.submit("", functools.partial(Trainer.start)) is None
    assert panel.trainer.state == "stopped" and panel.trainer.run == RUN and not panel.trainer.busy
    assert panel.view.status["closed"] and panel.view.status["message"] == "this panel was closed"


def test_requests_from_other_threads_while_it_closes_never_start_anything(opened):
    "Ten threads press Run while the panel closes, twenty times over."
    for _ in range(20):
        panel = opened()
        go = threading.Event()
        hands = [threading.Thread(target=press_run, args=(panel, go)) for _ in range(10)]
        for hand in hands: hand.start()
        go.set()
        panel.close()
        for hand in hands: hand.join(60)
        assert not panel.trainer.busy and panel.trainer.state == "stopped"


def test_a_run_is_loaded_and_a_closed_panel_loads_nothing(opened, tmp_path):
    first = Trainer(RUN.replace(noise=0.3), journal=tmp_path / "runs").fit(25, progress=False)
    panel = opened(RUN, journal=tmp_path / "runs")
    say(panel, kind="journal", name="load", value=first.recorder.id)
    until(lambda: panel.trainer.step_count == 25 and panel.trainer.run.model.noise == 0.3)
    assert torch.equal(panel.trainer.model.level, first.model.level)
    panel.close()
    panel.browser.put("load", first.recorder.id)
    assert panel.trainer.state == "stopped" and not panel.trainer.busy


# Two panels ----------------------------------------------------------------------------------------------------------

def test_a_second_panel_on_one_trainer_is_refused_and_the_first_goes_on(opened):
    trainer = Trainer(RUN)
    first = opened(trainer, name="first").run()
    with pytest.raises(ValueError, match=r"`trainer` must have one panel: got one that is shown in panel 'first'\. Close that one"):
        opened(trainer, name="second")
    assert OPEN == {"first": first} and trainer.busy and trainer.state == "running" and trainer.error is None


def test_a_cell_run_twice_leaves_one_panel_and_one_thread(opened):
    old = opened().run()
    new = opened().run()
    assert OPEN == {"mean": new} and not old.trainer.busy and new.trainer.busy
    assert old.pump._thread is None or not old.pump._thread.is_alive()
    again = opened(new.trainer)  # the same trainer shown anew keeps its steps and its thread
    assert OPEN == {"mean": again} and again.trainer.busy and again.trainer.step_count >= new.last.step


def test_what_is_no_run_of_the_family_is_refused_before_anything_is_built(opened):
    with pytest.raises(ValueError, match="`run` must be MeanRun, or a trainer of one: got MeanSettings"): opened(RUN.model)
    with pytest.raises(ValueError, match="`run` must be given where no family is"): Panel()
    with pytest.raises(ValueError, match="`family` must be one of .*: got 'squre'"): Panel(RUN, family="squre")
    with pytest.raises(ValueError, match="`run` must be an experiment of a family: got MeanRun"): Panel(RUN)
    assert not OPEN


def test_a_saved_notebook_keeps_the_last_picture(opened):
    panel, kept = opened(), []
    panel._stills.append(type("Handle", (), {"update": lambda self, bundle, raw: kept.append(bundle)})())
    panel.close()
    assert base64.b64decode(kept[-1]["image/png"])[:4] == b"\x89PNG"
    assert kept[-1]["image/png"] in kept[-1]["text/html"] and kept[-1]["text/plain"] == "mean, step 0"


def test_a_front_end_gets_the_widget_and_one_without_widgets_a_sentence(opened):
    panel = opened()
    panel.trainer.start(2).wait()
    panel.tick()
    bundle = panel._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.model_id and bundle["text/plain"] == "mean, step 2"
    assert panel._display_() is panel.view  # marimo shows an anywidget


@pytest.mark.parametrize("box", ["VBox", "HBox", "Tab", "Accordion", "GridBox"])
def test_a_panel_stands_in_any_box_of_widgets(opened, box):
    "Case 28: it was no widget, and a box refused it."
    panel = opened()
    around = getattr(ipywidgets, box)([ipywidgets.Label("mine"), panel])
    assert around.children[1] is panel and panel.children == (panel.view,)
    assert around.get_state()["children"][1] == f"IPY_MODEL_{panel.model_id}"
    panel.trainer.start(2).wait()
    assert panel.tick() and panel.view.frame_meta["step"] == 2
    panel.close()
    assert panel.trainer.state == "stopped" and panel.comm is not None  # what a box holds is still there, and says that it was closed


def test_a_box_can_hold_two_panels_and_close_all_widgets_closes_them(opened):
    first, second = opened(name="first").run(), opened(name="second").run()
    ipywidgets.HBox([first, second])
    ipywidgets.Widget.close_all()
    assert not first.trainer.busy and not second.trainer.busy and not OPEN


# What is said --------------------------------------------------------------------------------------------------------

def test_each_check_and_the_numbers_carry_the_step_at_which_they_were_measured(opened):
    "Between two measurements the picture is newer; at rest all are of one step."
    panel = opened(RUN.replace(check_every=50))
    panel.trainer.start(57).wait()
    panel.tick()
    assert panel.view.frame_meta["step"] == 57 == panel.view.frame_meta["measured"] and [c["step"] for c in panel.view.checks] == [57]
    older = panel.trainer.snapshot()
    panel.push(dataclasses.replace(older, step=81, version=older.version + 1))
    assert panel.view.frame_meta["step"] == 81 and panel.view.frame_meta["measured"] == 57 and [c["step"] for c in panel.view.checks] == [57]


class RulerDisplay(SquareDisplay):
    "Its distance has one unit with a weight on the pull, and another without."

    def layout(self, snapshot):
        unit = "square" if snapshot.values["pull"] == 0 else "square + pull"
        plots = [CurvePlot(title="Distance", terms=(Curve(name="square", label="square", unit=unit),)),
                 CurvePlot(title="Pull", terms=(Curve(name="pull", label="pull", unit="share"),))]
        table = Table(rows=(TableRow(name="level", label="level", unit=unit),))
        return dataclasses.replace(super().layout(snapshot), plots=tuple(plots), table=table)

    def table(self, snapshot): return {"level": [snapshot.measurements[-1].figures["level"]]} if snapshot.measurements else {}


def test_numbers_of_another_unit_are_not_shown_and_are_measured_again(opened, monkeypatch):
    "The unit changes: what was measured before it disappears at once, and a new measurement comes without waiting for the next one that is due."
    monkeypatch.setattr(SquareFamily, "load_display", lambda self: RulerDisplay())
    panel = opened()
    panel.trainer.start(60).wait()
    panel.tick()
    old = panel.view.frame_meta["table"]["level"]
    panel.trainer.set(pull=0.5)
    snapshot = panel.trainer.snapshot()
    panel.push(snapshot)
    assert panel.view.plan["table"]["rows"][0]["unit"] == "square + pull"
    assert panel.view.frame_meta["table"] == {} and panel.view.frame_meta["measured"] is None
    until(lambda: len(panel.trainer.session.measurements) > len(snapshot.measurements))
    panel.push(panel.trainer.snapshot())
    assert panel.view.frame_meta["table"]["level"] == old and panel.view.frame_meta["measured"] == 60  # the same weights, measured anew
