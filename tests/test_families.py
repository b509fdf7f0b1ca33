"""The contract that every family keeps, built in or installed: one test, each family runs through it. And what is said to a family that
breaks it. The example plug-in of tests/plugin goes on from there: a panel, a sweep, a journal, a report.
"""
import importlib
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentlab.contract import SMALL_RUN, check_family
from latentlab.core.graph import Graph
from latentlab.core.registry import families, family_names, family_of, find_family
from latentlab.core.settings import Range
from latentlab.core.terms import Terms
from latentlab.facade import make_run, setting_path
from latentlab.journal.journal import Journal
from latentlab.panels.panel import Panel
from latentlab.panels.protocol import MAX_BUFFER
from latentlab.plots.style import new_figure
from latentlab.sweeps.plan import Plan, grid
from latentlab.sweeps.sweep import Sweep
from latentlab.train.trainer import Trainer
from plugin_path import on_path, plugin_installed, write_entry_points

TINY = {"nem": {"images": 64, "batch": 8}, "hvae": {"data": "moons", "points": 400, "batch": 32}, "ssl": {"images": 64, "batch": 16},
        "tones": {"images": 64, "batch": 16}, "vle": {"images": 64, "batch": 8, "side": 16, "levels": 3, "width": 4, "tokens": 3},
        "csvae": {"images": 64, "batch": 8, "side": 16, "features": 16, "model.width": 4},
        "compvae": {"images": 64, "batch": 8, "side": 16, "features": 16, "model.width": 4}}  # What keeps a step below a second
NAMES = ("compvae", "csvae", "hvae", "nem", "ssl", "tones", "vle")


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with plugin_installed(tmp_path_factory.mktemp("site")): yield


def tiny(name: str): return make_run(name, {**TINY[name], **SMALL_RUN})


def test_every_family_is_in_this_test() -> None:
    assert family_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_family_keeps_the_contract(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    assert len(list(check_family(tiny(name), tmp_path))) == 6
    family, run = find_family(name), tiny(name)
    assert family_of(run) == family and family.title and family.lab.endswith(".ipynb")
    (row,) = Journal(tmp_path / "runs").rows()
    assert row["kind"] == name and row["state"] == "done" and name.upper() in Journal(tmp_path / "runs").report(row["id"]).markdown

    with pytest.raises(ValueError, match="`learning_rate` must be at most"): run.replace(learning_rate=7.0)
    with pytest.raises(ValueError, match=f"must be a field of {family.experiment.__name__}"): run.replace(no_such_setting=1)
    with pytest.raises(ValueError, match="at most|from 1 to"): run.replace(batch=4096).build(torch.device("cpu"))


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_made_of_settings_that_fit_together(name: str) -> None:
    family = find_family(name)
    for preset in family.presets: assert make_run(name, {"preset": preset}).diff(), f"{preset} says nothing but defaults"
    assert family.preset("default") == {path: family.experiment().fields()[path].value for path in family.preset("default")}
    with pytest.raises(ValueError, match=f"`preset` of {name} must be one of default"): family.preset("no such preset")


def faulty(monkeypatch: pytest.MonkeyPatch, part: str, answer) -> None:
    "The tones family with one part replaced."
    from latentlab_tones.diagnostics import TonesDiagnostics
    from latentlab_tones.display import TonesDisplay
    from latentlab_tones.model import Tones

    owner = next(cls for cls in (Tones, TonesDiagnostics, TonesDisplay) if part in vars(cls))
    plain = getattr(owner, part)
    monkeypatch.setattr(owner, part, (lambda *values: answer(plain, *values)) if callable(answer) else answer)


def forgetful(plain, self, batch, context):
    found = plain(self, batch, context)
    return Terms({name: value + torch.rand(()) * self.masker[0].weight.square().mean() for name, value in found.items()})


@pytest.mark.parametrize(("part", "answer", "sentence"), [
    ("losses", forgetful, "`losses` must give the same bits when a run is resumed"),
    ("measure", lambda plain, *values: replace(plain(*values), verdicts=()), "`measure` must give one Verdict for each of the 1 checks"),
    ("measure", lambda plain, *values: replace(plain(*values), figures={"a": 1}), "`measure` must give figures, each a float"),
    ("measure", lambda plain, *values: replace(m := plain(*values), verdicts=tuple(replace(v, level="bad") for v in m.verdicts)),
     "`checks` must not be bad on an untrained model"),
    ("arrays", lambda plain, *values: {name: v for name, v in plain(*values).items() if name != "film"}, "film"),
    ("table", lambda plain, *values: {}, "`table` must give numbers for shape, tone"),
    ("figure", lambda plain, *values: new_figure(1, 1), "`figure` must have something drawn"),
])
def test_what_breaks_the_contract_is_named(part: str, answer, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    faulty(monkeypatch, part, answer)
    with pytest.raises(ValueError, match=sentence): list(check_family(tiny("tones"), tmp_path))


# Bad input -----------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r"must be one of compvae, csvae, hvae, nem, ssl, tones, vle: got 'tunes'. Did you mean tones"): find_family("tunes")
    with pytest.raises(ValueError, match="Install its package, or choose one of these"): find_family("zzzz")


def test_two_plugins_of_one_name_are_refused(tmp_path: Path) -> None:
    site = write_entry_points(tmp_path, "other-tones", {"tones": "other_tones.experiment:FAMILY"})
    with on_path(site), pytest.raises(ValueError, match="`tones` must name one family: got .*_tones.experiment:FAMILY and .*Rename one"):
        family_names()


BROKEN = """
from latentlab.core.registry import Family
from latentlab.core.settings import Settings
from latentlab_tones.experiment import TonesRun
"""


GOOD = dict(name="broken", title="t", experiment="BrokenRun", display="a:B", summary=("loss",), lab="x.ipynb")


def record(**changes: object) -> str:
    "Source of a record that is well but for what is said here."
    values = {**GOOD, **changes}
    words = ", ".join(f"{name}={value if name == 'experiment' else repr(value)}" for name, value in values.items())
    return f"class BrokenRun(TonesRun): pass\nFAMILY = Family({words})"


@pytest.mark.parametrize(("source", "sentence"), [
    ("FAMILY = 3", "`family` 'broken' must give a Family record of that name: got 3"),
    ("import no_such_package", "`family` 'broken' must be importable: got .*No module named"),
    ("OTHER = 1", "`family` 'broken' must be importable: got .*FAMILY"),
    (record(name="Broken"), "`name` of family 'Broken' must be lower-case"),
    (record(experiment="int"), "`experiment` of family 'broken' must be a Settings class with `build"),
    (record(experiment="TonesRun"), "`experiment` of family 'broken' must be called BrokenRun"),
    (record(experiment="type('BrokenRun', (Settings,), {'build': 1})"), "`experiment` of family 'broken' must have a part `train`"),
    (record(display="a.b"), "`display` of family 'broken' must be written"),
    (record(summary=()), "`summary` of family 'broken' must name at least one"),
    (record(lab="x.py"), "`lab` of family 'broken' must be the file name of a notebook"),
])
def test_a_record_that_breaks_the_contract_is_named(
        tmp_path: Path, source: str, sentence: str, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    (tmp_path / "broken_family.py").write_text(BROKEN + source + "\n")
    monkeypatch.delitem(sys.modules, "broken_family", raising=False)
    importlib.invalidate_caches()
    with on_path(write_entry_points(tmp_path, "broken-family", {"broken": "broken_family:FAMILY"})):
        with pytest.raises(ValueError, match=sentence): find_family("broken")
    monkeypatch.delitem(sys.modules, "broken_family", raising=False)


def test_parts_of_a_setup_that_break_the_contract_are_named(unchecked: None) -> None:
    run = tiny("tones")
    setup = run.build(torch.device("cpu"))
    for part, thing, sentence in (("model", torch.nn.ReLU(), "`model` must follow core.model.Model: got ReLU without settings, groups"),
                                  ("diagnostics", object(), "`diagnostics` must follow core.model.Diagnostics: got object without checks"),
                                  ("batches", [1], "`batches` must have `at")):
        with pytest.raises(ValueError, match=sentence): replace(setup, **{part: thing})
    family = replace(find_family("tones"), display="latentlab_tones.display:NoSuchDisplay")
    with pytest.raises(ValueError, match="`display` of family 'tones' must be importable: got .*NoSuchDisplay"): family.load_display()


@pytest.mark.parametrize(("method", "answer", "sentence"), [
    ("losses", lambda self, batch, context: {"reading": torch.zeros(3)}, "`losses` must give Terms for group masker: got dict"),
    ("losses", lambda self, batch, context: torch.zeros(3), "`losses` must give Terms for group masker: got Tensor"),
])
def test_losses_that_break_the_contract_are_named(
        method: str, answer, sentence: str, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    from latentlab_tones.model import Tones

    trainer = Trainer(tiny("tones"))
    monkeypatch.setattr(Tones, method, answer)
    with pytest.raises(ValueError, match=sentence): trainer.fit(1, progress=False)


# The example plug-in -------------------------------------------------------------------------------------------------


def test_names_of_settings() -> None:
    assert setting_path(tiny("hvae"), "data") == "data.name" and setting_path(tiny("tones"), "price") == "model.price"
    with pytest.raises(ValueError, match="`graph` must have the nodes shape, tone"): make_run("tones", {"graph": Graph(("a", "b"))})
    with pytest.raises(ValueError, match="`edges` must not form a cycle"): Graph(("shape", "tone"), (("shape", "tone"), ("tone", "shape")))


def test_a_price_is_drawn_for_each_example_and_readers_move_every_second_step(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny("tones"))
    seen, losses = [], trainer.model.losses

    def watched(batch, context):
        seen.append((context.group, batch.y, batch.extra["price"], context.live.price))
        return losses(batch, context)

    trainer.model.losses = watched
    readers = lambda: [p.clone() for p in trainer.model.readers.parameters()]
    start = readers()
    trainer.fit(1, progress=False)
    after_one = readers()
    trainer.fit(1, progress=False)
    assert [group for group, *_ in seen] == ["masker", "readers", "masker"]
    assert any(not torch.equal(a, b) for a, b in zip(start, after_one)) and all(torch.equal(a, b) for a, b in zip(after_one, readers()))
    for _, y, drawn, price in seen:
        assert y.shape == (16, 2) and torch.equal(drawn, price) and len(price.unique()) == 16 and 0.1 <= price.min() and price.max() <= 10
    assert torch.equal(seen[0][2], seen[1][2]) and not torch.equal(seen[0][2], seen[2][2])
    rates = []
    for optimiser in trainer.session.optimisers:
        monkeypatch.setattr(optimiser, "step", lambda rate, *more, move=optimiser.step: (rates.append(float(rate)), move(rate, *more)))
    trainer.fit(1, progress=False)
    assert len(rates) == 2 and rates[1] == 2 * rates[0]


@pytest.fixture
def panel(tmp_path: Path) -> Iterator[Panel]:
    panel = Panel(tiny("tones"), journal=tmp_path / "runs", threads=1)
    yield panel
    panel.close()


def send(panel: Panel, source: str, kind: str, value=None, buffers=()) -> str:
    "An event as the page sends it; the sentence of its refusal, '' when it was accepted."
    refused = []
    panel.view.send = lambda content, buffers=None: refused.append(content["sentence"]) if content.get("kind") == "refused" else None
    panel.view._handle_custom_msg({"kind": "event", "source": source, "type": kind, "value": value}, list(buffers))
    panel.trainer.submit(lambda trainer: None).result(60)  # what was queued before it had its turn
    return refused[-1] if refused else ""


def frame(panel: Panel, key: str) -> np.ndarray:
    panel.push(panel.trainer.snapshot())
    return panel.display.arrays(panel.last)[key]


def test_what_somebody_does_to_the_picture(panel: Panel) -> None:
    held = lambda: panel.trainer.setup.diagnostics
    panel.trainer.step(2).wait(60)
    before = frame(panel, "keep_shape")
    assert send(panel, "shown_price", "slide", 9.0) == "" and held().price == 9.0
    assert not np.array_equal(frame(panel, "keep_shape"), before)
    assert send(panel, "film", "scrub", 4) == "" and held().price == 10.0
    assert send(panel, "film", "click", 0) == "" and held().price == 0.1
    paint = np.zeros((12, 16), np.uint8)
    paint[:, :9] = 255  # where the figure stands
    sure = panel.display.table(panel.last)
    assert send(panel, "painted", "paint", 3, [paint.tobytes()]) == ""
    assert np.array_equal(frame(panel, "painted")[3], paint) and not frame(panel, "painted")[2].any()
    assert panel.display.table(panel.last) != sure  # a painted frame that answers
    film = frame(panel, "film")
    assert send(panel, "concepts", "click", "tone") == "" and held().concept == 1 and not np.array_equal(frame(panel, "film"), film)
    assert send(panel, "concepts", "edit", {"nodes": ["shape", "tone"], "edges": []}) == ""
    assert panel.trainer.run.model.graph.edges == () and panel.trainer.step_count == 0
    frame(panel, "film")
    assert [p for p in panel.view.plan["pictures"] if p["kind"] == "graph"][0].get("edges", []) == []


@pytest.mark.parametrize(("source", "kind", "value", "buffers", "sentence"), [
    ("no such", "click", 0, (), "`source` must be one of .*film.*: got 'no such'"),
    ("film", "paint", 0, (bytes(192),), "`type` must be click or scrub for a strip"),
    ("film", "scrub", 5, (), "`value` must be an index from 0 to 4: got 5"),
    ("shown_price", "slide", 1000.0, (), "`value` must be a number from 0.1 to 10"),
    ("painted", "paint", 8, (bytes(192),), "`value` must be an index from 0 to 7"),
    ("painted", "paint", 0, (bytes(191),), "`buffer` must be 192 bytes, one a pixel: got 191 bytes"),
    ("painted", "paint", 0, (), "`buffer` must be 192 bytes, one a pixel: got none"),
    ("painted", "paint", 0, (bytes(MAX_BUFFER + 1),), "`buffer` must have at most 1,048,576 bytes: got 1,048,577"),
    ("film", "scrub", 0, (bytes(1),), "`buffer` must be left out"),
    ("concepts", "edit", {"nodes": ["shape", "tone"], "edges": [["shape", "tone"], ["tone", "shape"]]}, (), "no circle"),
    ("concepts", "edit", {"nodes": ["shape"], "edges": []}, (), "the nodes shape, tone"),
])
def test_events_that_cannot_be_are_refused(panel: Panel, source: str, kind: str, value, buffers, sentence: str) -> None:
    held = panel.trainer.setup.diagnostics
    frame(panel, "film")
    said = send(panel, source, kind, value, buffers)
    assert re.search(sentence, said), said
    assert panel.trainer.setup.diagnostics is held and held.price == 1.0 and not held.painted.any()


def test_a_refusal_of_the_family_itself_reaches_the_page(panel: Panel) -> None:
    def refuse(event, trainer): raise ValueError("`paint` must be on the figure: got the sky. Paint lower.")

    panel.display.on_event = refuse
    frame(panel, "film")
    assert "must be on the figure" in send(panel, "painted", "paint", 0, [bytes(192)])


def test_a_record_of_graphs_and_ranges_says_what_changed(tmp_path: Path) -> None:
    for changes in ({}, {"price": 1.0}, {"graph": Graph(("shape", "tone"))}):
        Trainer(tiny("tones").replace(changes), journal=tmp_path).fit(1, progress=False)
    *_, last = (Journal(tmp_path).run(row["id"]).facts for row in Journal(tmp_path).rows())
    changed = {one["path"]: (one["old"], one["new"]) for one in last["previous"]["changes"]}
    edges = {"nodes": ["shape", "tone"], "edges": [["shape", "tone"]]}
    assert changed == {"model.price": (1.0, {"low": 0.1, "high": 10.0, "scale": "log"}), "model.graph": (edges, {**edges, "edges": []})}


@pytest.mark.slow
def test_a_sweep_on_two_workers_a_journal_and_a_report(tmp_path: Path) -> None:
    plan = Plan(base=tiny("tones").replace(steps=6), changes=grid({"price": [1.0, Range(0.1, 10.0, "log")]}), seeds=(0, 1))
    sweep = Sweep(plan, tmp_path / "runs", workers=2).start().wait(progress=False)
    assert sweep.progress().done == 4, [outcome.error for outcome in sweep.outcomes.values()]
    journal = Journal(tmp_path / "runs")
    table, group = journal.runs("tones"), journal.group("reading")
    assert len(table) == 4 and len(group) == 2
    a, b = list(table.index)[:2]
    report = journal.report(a, b)
    assert "could not be drawn" not in report.html and report.png[:4] == b"\x89PNG"
    assert all(math.isfinite(row["metrics"]["reading"]) for row in journal.rows())
    assert journal.book().exists()


def test_every_family_of_the_package_has_its_lab():
    labs = Path(__file__).resolve().parents[1] / "nbs" / "labs"
    ours = [one for one in families() if one.experiment.__module__.startswith("latentlab.")]
    assert ours and [one.lab for one in ours if not (labs / one.lab).is_file()] == []
