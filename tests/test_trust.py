"""Settings are data: a run of a stranger whose encoder names a folder of code runs none of it until somebody says so."""
import json
import shutil
from pathlib import Path

import pytest
from latentlab.core.settings import from_json, to_json
from latentlab.facade import explain, measure_model, restore
from latentlab.families.nem.experiment import NEMRun
from latentlab.journal.journal import Journal
from latentlab.nn.encoders import load_encoder, runs_outside
from latentlab.train.trainer import Trainer

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
    from latentlab.train.checkpoint import load_checkpoint, save_checkpoint
    for path in list((theirs / "checkpoints").iterdir()):
        state = load_checkpoint(path)
        whole = json.loads(state["settings"])
        whole["settings"]["encoder"] = f"hub:{hub}:m"
        save_checkpoint(state | {"settings": json.dumps(whole)}, path)
    return theirs, hub / "ran"


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
