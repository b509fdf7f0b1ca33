"""Settings are data: a run of a stranger whose encoder names a folder of code runs none of it until somebody says so."""
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from latentlab.core.settings import from_json, outside_read, to_json
from latentlab.facade import explain, measure_model, restore
from latentlab.families.nem.experiment import NEMRun
from latentlab.journal.journal import Journal
from latentlab.nn.encoders import load_encoder, runs_outside
from latentlab.panels.panel import Panel, trust_question
from latentlab.panels.run_browser import repeat_plan
from latentlab.train.checkpoint import load_checkpoint, save_checkpoint
from latentlab.train.trainer import Load, Rebuild, Trainer

TINY = NEMRun().replace(images=64, batch=8, encoder="untrained", layers=2, width=4, device="cpu", steps=2)
HUBCONF = """
from pathlib import Path
Path(__file__).with_name("ran").write_text("code of a stranger ran")
def m(**named):
    from latentlab.nn.encoders import SmallEncoder
    return SmallEncoder(1)
"""


@pytest.fixture
def stranger(tmp_path: Path) -> tuple[Path, Path]:
    "A journal with a run of ours and one whose settings name a folder with code; the file that this code would write."
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "hubconf.py").write_text(HUBCONF)
    trainer = Trainer(TINY, journal=tmp_path / "runs").fit(2, progress=False)
    theirs = tmp_path / "runs" / "20260101-000000-nem-0000000"
    shutil.copytree(tmp_path / "runs" / trainer.recorder.id, theirs)
    facts = json.loads((theirs / "run.json").read_text())
    facts["settings"]["encoder"], facts["id"] = f"hub:{hub}:m", theirs.name
    (theirs / "run.json").write_text(json.dumps(facts))
    for path in list((theirs / "checkpoints").iterdir()):
        state = load_checkpoint(path)
        whole = json.loads(state["settings"])
        whole["settings"]["encoder"] = f"hub:{hub}:m"
        save_checkpoint(state | {"settings": json.dumps(whole)}, path)
    return theirs, hub / "ran"


SCENES = TINY.replace(data="scenes")
WORKING = """
from pathlib import Path
from torch import manual_seed, nn
def m():
    Path(__file__).with_name("ran").write_text("code of a stranger ran")
    manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 8, 3, 2))
"""


@pytest.fixture
def theirs_that_loads(tmp_path: Path) -> tuple[Path, Path]:
    "A run whose encoder is code in a folder, and the file that this code writes when it runs."
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "hubconf.py").write_text(WORKING)
    trainer = Trainer(SCENES.replace(encoder=f"hub:{tmp_path}/hub:m"), journal=tmp_path / "runs").fit(2, progress=False)
    (tmp_path / "hub" / "ran").unlink()
    return tmp_path / "runs" / trainer.recorder.id, tmp_path / "hub" / "ran"


def test_code_of_a_stranger_is_not_run_on_load_resume_evaluate_or_rebuild(stranger) -> None:
    theirs, ran = stranger
    mine = Trainer(TINY, journal=theirs.parent)
    before = mine.model
    run = Journal(theirs.parent).run(theirs.name).settings(NEMRun)
    for call in (lambda: mine.load(theirs.name), lambda: mine.load(theirs.name, go_on=True), lambda: mine.resume(theirs.name),
                 lambda: restore(theirs), lambda: explain(theirs), lambda: measure_model(theirs), lambda: Trainer(run),
                 lambda: Trainer(run.replace(seed=3)), lambda: Trainer(from_json(NEMRun, to_json(run)))):
        with pytest.raises(ValueError) as caught: call()
        assert "encoder" in str(caught.value) and not ran.exists(), str(caught.value)
    with pytest.raises(ValueError, match="`encoder` must be trusted before it is loaded: got 'hub:.*say trust=True"): mine.load(theirs.name)
    assert mine.model is before and "not loaded, the old model stays" in mine.notice


def test_one_word_of_the_person_runs_it(stranger) -> None:
    theirs, ran = stranger
    from torch import nn
    assert isinstance(load_encoder("untrained:fashion-mnist"), nn.Module) and not runs_outside("simclr") and runs_outside("hub:x:m")
    run = Journal(theirs.parent).run(theirs.name).settings(NEMRun)
    for call in (lambda: Trainer(TINY, journal=theirs.parent).load(theirs.name, trust=True), lambda: restore(theirs, trust=True),
                 lambda: Trainer(run, trust=True), lambda: Trainer(TINY.replace(encoder=run.encoder))):
        ran.unlink(missing_ok=True)
        try: call()
        except ValueError as error: assert "trusted" not in str(error)  # the network of the example need not fit
        assert ran.exists()


@pytest.mark.parametrize("name", ["hub:a:b", "hub:", "hub::", "hub:/nowhere:m", "hub:a/b/c:m"])
def test_a_hub_name_that_names_nothing_is_refused_by_name(name) -> None:
    with pytest.raises(ValueError, match="must be"): load_encoder(name)


# Before a person: the panel asks -----------------------------------------------------------------------------------------

@pytest.fixture
def opened() -> Iterator[Callable[..., Panel]]:
    "Panels that are closed in the end."
    panels = []

    def one(run, **options) -> Panel:
        panel = Panel(run, threads=1, **options)
        panel.sent = []
        panel.view.send = lambda content, buffers=None: panel.sent.append(content)
        panels.append(panel)
        return panel

    yield one
    for panel in panels: panel.close()


def say(panel: Panel, **message) -> None: panel.view._receive(panel.view, message, None)


def until(panel: Panel, condition: Callable[[], Any]) -> Any:
    limit = time.monotonic() + 20
    while not (found := condition()) and time.monotonic() < limit: time.sleep(0.01)
    assert found, f"{panel.view.status}\n{panel.sent}"
    return found


def asked(panel: Panel) -> dict: return until(panel, lambda: panel.view.status.get("trust"))


def test_the_panel_asks_shows_the_name_whole_and_loads_after_one_click(theirs_that_loads, opened) -> None:
    theirs, ran = theirs_that_loads
    panel = opened(SCENES, journal=theirs.parent)
    before = panel.trainer.model
    say(panel, kind="journal", name="load", value=theirs.name)
    question = asked(panel)
    assert question["verb"] == "load" and question["values"] == [
        {"label": "encoder", "value": f"hub:{ran.parent}:m", "does": f"runs the file hubconf.py of the folder {ran.parent}"}]
    assert panel.sent[-1]["name"] == "load" and "waits for your answer" in panel.sent[-1]["sentence"]
    assert not ran.exists() and panel.trainer.model is before and "error" not in panel.view.status
    for answer in (None, "", "0" * 16, [question["id"]]):
        say(panel, kind="command", name="trust", value=answer)
        assert "must be the question that is open" in panel.sent[-1]["sentence"]
    say(panel, kind="command", name="leave", value=question["id"])
    assert "trust" not in panel.view.status and not ran.exists()
    say(panel, kind="command", name="trust", value=question["id"])
    assert "must be the question that is open" in panel.sent[-1]["sentence"], "an answer is good once"
    say(panel, kind="journal", name="load", value=theirs.name)
    say(panel, kind="command", name="trust", value=asked(panel)["id"])
    until(panel, lambda: panel.trainer.run.encoder == f"hub:{ran.parent}:m")
    assert ran.exists() and panel.trainer.step_count == 2 and "trust" not in panel.view.status
    assert outside_read(panel.trainer.run) and not outside_read(repeat_plan(panel.trainer, 2).runs()[1]), "a repeat of it asks nobody"
    ran.unlink()
    say(panel, kind="set", name="width", value=8)  # the word was given for this panel's encoder
    until(panel, lambda: panel.trainer.run.model.width == 8)
    assert ran.exists()


def test_a_message_of_the_page_is_nobodys_word(theirs_that_loads, opened) -> None:
    _, ran = theirs_that_loads
    panel, name = opened(SCENES), f"hub:{ran.parent}:m"
    say(panel, kind="set", name="encoder", value=name)
    question = asked(panel)
    assert not ran.exists() and panel.trainer.run.encoder == "untrained" and question["verb"] == "build"
    assert panel.sent[-1]["name"] == "encoder" and panel.view.values["encoder"] == "untrained"
    say(panel, kind="set", name="width", value=8)  # something else is asked for: the question goes
    until(panel, lambda: panel.trainer.run.model.width == 8)
    assert "trust" not in panel.view.status and not ran.exists()
    say(panel, kind="set", name="encoder", value=name)
    say(panel, kind="command", name="trust", value=asked(panel)["id"])
    until(panel, lambda: panel.trainer.run.encoder == name)
    assert ran.exists()
    ran.unlink()
    panel.trainer.rebuild(encoder=name)  # a cell is the person's own word
    assert ran.exists() and not outside_read(panel.trainer.run)


def test_a_click_vouches_for_what_was_shown_and_for_nothing_else(theirs_that_loads, opened) -> None:
    "Between the question and the click the files change: nothing of the new name is run, and it is asked for in its turn."
    theirs, ran = theirs_that_loads
    panel = opened(SCENES, journal=theirs.parent)
    say(panel, kind="journal", name="load", value=theirs.name)
    question, other = asked(panel), ran.parent.parent / "other"
    shutil.copytree(ran.parent, other)
    for path in (theirs / "checkpoints").iterdir():
        state = load_checkpoint(path)
        whole = json.loads(state["settings"])
        whole["settings"]["encoder"] = f"hub:{other}:m"
        save_checkpoint(state | {"settings": json.dumps(whole)}, path)
    say(panel, kind="command", name="trust", value=question["id"])
    again = until(panel, lambda: (found := panel.view.status.get("trust")) and found["id"] != question["id"] and found)
    assert again["values"][0]["value"] == f"hub:{other}:m" and not ran.exists() and not (other / "ran").exists()


def test_letters_that_are_not_seen_are_shown_as_codes() -> None:
    asked = trust_question("encoder", Rebuild(), {"encoder": "hub:a/b\u202e\u200b:m\n"}, TINY.fields()).told["values"][0]
    assert asked["value"] == r"hub:a/b\u202e\u200b:m\n" and r"a/b\u202e\u200b" in asked["does"] and "GitHub" in asked["does"]
    assert trust_question("x", Load(id="r"), {"gone": 3}, {}).told["values"] == [
        {"label": "gone", "value": "3", "does": "runs or fetches code from outside"}]
