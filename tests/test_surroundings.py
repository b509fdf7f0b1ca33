"""What a laboratory finds where it is put: disks without locks, without modes, without fsync; programs that are no file or have
no main guard. It works, or it is refused once with the remedy; nothing runs twice unseen.
"""
import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from latentlab.journal.files import read_json, write_json
from latentlab.journal.journal import Journal
from latentlab.journal.record import fail, go_on
from latentlab.journal.writer import has_checkpoint
from latentlab.sweeps.workers import left_alone, train_one
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

RUN = MeanRun().replace(steps=30)


def refusing(number):
    def refuse(*given): raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture(params=[errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK], ids=errno.errorcode.get)
def lockless(request, monkeypatch):
    "What Lustre without -o flock, some FUSE and old NFS answer."
    monkeypatch.setattr(fcntl, "flock", refusing(request.param))
    return os.strerror(request.param)


def test_a_run_on_a_disk_without_locks_is_trained_and_says_so(lockless, tmp_path):
    with pytest.warns(UserWarning, match="knows no file locks") as told: trainer = Trainer(RUN, journal=tmp_path).fit(progress=False)
    (row,) = Journal(tmp_path).rows()
    words = read_json(tmp_path / row["id"] / "run.json")["words"]
    assert row["state"] == "done" and trainer.step_count == 30 and has_checkpoint(tmp_path / row["id"])
    assert any("knows no file locks" in word and lockless in word and "-o flock" in word for word in words)
    assert len(told) == 1 and str(tmp_path) in str(told[0].message)


def test_without_locks_a_run_that_is_trained_is_left_alone(lockless, tmp_path):
    "State and heartbeat tell who has it: not resumed, not failed from outside, not begun again by a sweep."
    with pytest.warns(UserWarning, match="no file locks"):
        trainer = Trainer(RUN.replace(steps=10**6), journal=tmp_path).start(10**6)
        assert trainer.worker.wait_for(lambda: trainer.step_count > 20, 60)
    folder = tmp_path / trainer.recorder.id
    assert not left_alone(Journal(tmp_path), folder.name) and not fail(folder, "given up")
    with pytest.raises(ValueError, match="must be a run that nobody else is training"): go_on(folder, step=1)
    trainer.stop(finished=False)
    assert left_alone(Journal(tmp_path), folder.name)
    with pytest.warns(UserWarning, match="no file locks"):
        again = Trainer(RUN.replace(steps=10**6), journal=tmp_path).resume(folder.name).fit(5, progress=False)
    assert again.recorder.id == folder.name


def test_a_sweep_worker_trains_on_a_disk_without_locks(lockless, tmp_path):
    with pytest.warns(UserWarning, match="no file locks"): outcome = train_one(RUN, tmp_path)
    assert outcome.state == "done" and train_one(RUN, tmp_path).state == "found"


def test_a_disk_that_fails_is_not_one_without_locks(monkeypatch, tmp_path):
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"): Trainer(RUN, journal=tmp_path).fit(progress=False)


@pytest.mark.parametrize(("name", "number"), [("chmod", errno.EPERM), ("fsync", errno.EINVAL), ("fsync", errno.ENOSYS)])
def test_a_disk_without_modes_or_fsync_is_written(name, number, monkeypatch, tmp_path):
    monkeypatch.setattr(os, name, refusing(number))
    Trainer(RUN, journal=tmp_path).fit(progress=False)
    (row,) = Journal(tmp_path).rows()
    assert row["state"] == "done" and has_checkpoint(tmp_path / row["id"])


def test_a_disk_that_cannot_save_is_believed(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"): write_json(tmp_path / "run.json", {"state": "done"})
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
with open("ran.txt", "a") as file: file.write("x")
from latentlab.sweeps.plan import Plan
from latentlab.sweeps.sweep import Sweep
from latentlab.train.example import MeanRun
sweep = Sweep(Plan(base=MeanRun().replace(steps=30), seeds=range(1)), "runs", workers=1).start().wait(progress=False)
print("STATES", [(o.state, o.error) for o in sweep.outcomes.values()], list(sweep.tries.values()))
"""


def swept(tmp_path, words, text=None):
    done = subprocess.run([sys.executable, *words], input=text, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    said = next((line for line in done.stdout.splitlines() if line.startswith("STATES")), done.stderr[-500:])
    return said, (tmp_path / "ran.txt").read_text()


@pytest.mark.slow
def test_a_sweep_of_a_script_without_a_main_guard_runs_it_once(tmp_path):
    (tmp_path / "script.py").write_text(PROGRAM)
    said, ran = swept(tmp_path, ["script.py"])
    assert ran == "x" and said == "STATES [('done', '')] [1]" and len(Journal(tmp_path / "runs").rows()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", [["-"], ["-c", PROGRAM], ["-m", "program"]], ids=["standard input", "a command", "a module"])
def test_a_sweep_from_wherever_a_program_comes(tmp_path: Path, words):
    (tmp_path / "program.py").write_text(PROGRAM)
    said, ran = swept(tmp_path, words, PROGRAM)
    assert ran == "x" and said == "STATES [('done', '')] [1]", said


DEVICES = """
with open("ran.txt", "a") as file: file.write("x")
from latentlab.sweeps.devices import train_on
from latentlab.train.example import MeanRun
print("STATES", train_on(MeanRun().replace(steps=20), 2, journal="runs").state)
"""


@pytest.mark.slow
def test_several_devices_of_a_script_without_a_main_guard(tmp_path):
    (tmp_path / "script.py").write_text(DEVICES)
    said, ran = swept(tmp_path, ["script.py"])
    assert (said, ran) == ("STATES done", "x")
