"""One model on several devices: the weights and numbers of one process, resumed on any number of them, and no failure of a
process that is not told.
"""
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from doubles import build_double
from latentlab.core.batch import Batch
from latentlab.journal.journal import Journal
from latentlab.families.nem.experiment import NEMRun
from latentlab.sweeps import devices as module
from latentlab.sweeps.devices import DeviceFailed, DeviceShare, PeerLost, check_devices, train_on, verdict
from latentlab.sweeps.workers import Outcome, train_one
from latentlab.train.checkpoint import load_checkpoint
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

QUIET = MeanRun().replace(noise=0, steps=60, device="cpu")
MASKER = NEMRun().replace(fill="mean", jitter=0, images=64, batch=8, encoder="untrained", layers=2, width=4, device="cpu", steps=12,
                          check_every=6)


@pytest.fixture(autouse=True)
def single():
    "`build_double` leaves float64 behind."
    yield
    torch.set_default_dtype(torch.float32)


def weights(journal: Journal, id: str) -> dict[str, torch.Tensor]: return load_checkpoint(journal.run(id).checkpoint())["model"]


def furthest(one: dict, other: dict) -> float:
    "Largest difference of two models, relative to the largest weight of its tensor."
    return max(((one[n] - other[n]).abs().max() / one[n].abs().max().clamp(min=1e-30)).item() for n in one if one[n].is_floating_point())


LONG = [pytest.param(QUIET, 4, marks=pytest.mark.slow, id="mean, four"), pytest.param(MASKER, 2, marks=pytest.mark.slow, id="masker, two")]


@pytest.mark.parametrize(("run", "devices"), [pytest.param(QUIET, 2, id="mean, two"), *LONG])
def test_several_processes_end_where_one_ends(run, devices: int, tmp_path: Path) -> None:
    "In float64, to 1e-12: sums are added in another order, and nothing else is different."
    journal, alone = Journal(tmp_path / "together"), Journal(tmp_path / "alone")
    outcome = train_on(run, devices, journal=journal, build=build_double)
    straight = Trainer(run, journal=alone, build=build_double).fit(progress=False)
    mine, theirs = straight.model.state_dict(), weights(journal, outcome.id)
    assert outcome.state == "done" and outcome.seconds > 0 and set(mine) == set(theirs)
    assert all(w.dtype == torch.float64 for w in theirs.values() if w.is_floating_point()) and 0 <= furthest(mine, theirs) < 1e-12
    (one,), (two,) = alone.rows(), journal.rows()
    assert two["steps"] == run.train.steps and set(two["metrics"]) == set(one["metrics"]) and len(two["metrics"]) > 3
    for name, value in one["metrics"].items(): assert two["metrics"][name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert two["figures"] == pytest.approx(one["figures"], rel=1e-9) and journal.run(outcome.id).facts["devices"] == devices


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    first = train_on(QUIET, 2, journal=tmp_path, steps=20, build=build_double)
    assert journal.rows()[0]["steps"] == 20
    Trainer(QUIET, journal=journal, build=build_double).resume(first.id).fit(20, progress=False)
    last = train_on(QUIET, 4, journal=str(tmp_path), build=build_double)
    straight = Trainer(QUIET, build=build_double).fit(progress=False).model.state_dict()
    assert (last.state, last.id, len(journal.rows())) == ("done", first.id, 1) and furthest(straight, weights(journal, last.id)) < 1e-12
    assert train_on(QUIET, 2, journal=tmp_path) == Outcome(state="found", id=first.id) and train_one(QUIET, tmp_path).state == "found"


@pytest.mark.slow
def test_a_bad_step_is_told_with_its_term(tmp_path: Path) -> None:
    words = "process 0 of 2 failed: NonFiniteStep: `pull` must stay finite: got NaN or infinity at step 20"
    with pytest.raises(DeviceFailed, match=words): train_on(QUIET.replace(poison=20), 2, journal=tmp_path)
    (row,) = Journal(tmp_path).rows()
    assert row["state"] == "failed" and "NonFiniteStep" in row["error"] and not multiprocessing.active_children()


@pytest.mark.slow
def test_an_error_while_building_reaches_the_caller(tmp_path: Path) -> None:
    with pytest.raises(DeviceFailed, match="process 0 of 2 failed: ValueError: `side` must be at most 32"):
        train_on(QUIET.replace(side=64), 2, journal=tmp_path)
    assert Journal(tmp_path).rows() == []


def begun(journal: Journal, seconds: float = 60.0) -> dict:
    "A run that is trained now and has left a checkpoint."
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        for row in journal.rows():
            if row["state"] == "running" and any((journal.folder(row["id"]) / "checkpoints").glob("*.ckpt")): return row
        time.sleep(0.05)
    raise AssertionError("nothing was trained")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_the_next_call_goes_on(victim: int, tmp_path: Path) -> None:
    journal, run, errors = Journal(tmp_path), QUIET.replace(steps=3000), []

    def train() -> None:
        try: train_on(run, 2, journal=tmp_path)
        except DeviceFailed as error: errors.append(str(error))

    thread = threading.Thread(target=train)
    thread.start()
    row = begun(journal)
    os.kill(next(child.pid for child in multiprocessing.active_children() if child.name == f"latentlab-device-{victim}"), signal.SIGKILL)
    thread.join(90)
    assert not thread.is_alive() and errors and f"process {victim} (-9)" in errors[0] and not multiprocessing.active_children()
    assert journal.rows()[0]["state"] == ("lost" if victim == 0 else "interrupted")
    again = train_on(run, 2, journal=tmp_path)
    assert (again.state, again.id) == ("done", row["id"]) and journal.rows()[0]["steps"] == 3000


SCRIPT = """
from latentlab.sweeps.devices import train_on
from latentlab.train.example import MeanRun
if __name__ == "__main__":
    try: print(train_on(MeanRun().replace(noise=0, device="cpu", steps={steps}), 2, journal={root!r}).state)
    except KeyboardInterrupt: print("interrupted")
"""


@pytest.mark.slow
@pytest.mark.parametrize("everybody", [False, True], ids=["kernel", "terminal"])
def test_an_interrupt_of_a_script_leaves_a_checkpoint(everybody: bool, tmp_path: Path) -> None:
    "A kernel's interrupt reaches the caller alone; a terminal's reaches the whole process group."
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.format(steps=10**6, root=str(tmp_path / "runs")))
    script = subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              start_new_session=True)
    journal = Journal(tmp_path / "runs")
    row = begun(journal)
    (os.killpg if everybody else os.kill)(script.pid, signal.SIGINT)
    said, wrong = script.communicate(timeout=90)
    (left,) = journal.rows()
    assert said.strip() == "interrupted", wrong
    assert (left["id"], left["state"]) == (row["id"], "interrupted") and left["steps"] > 0 and journal.run(left["id"]).checkpoint().exists()


@pytest.mark.slow
def test_a_script_trains(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.format(steps=10, root=str(tmp_path / "runs")))
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "done", done.stderr


@pytest.mark.slow
def test_processes_draw_different_noise(tmp_path: Path) -> None:
    "The run is another one than that of one process, and as good: its loss is that of the same noise level."
    noisy = QUIET.replace(noise=0.5, steps=40)
    train_on(noisy, 2, journal=tmp_path / "two")
    train_one(noisy, tmp_path / "one")
    (two,), (one,) = Journal(tmp_path / "two").rows(), Journal(tmp_path / "one").rows()
    assert (two["metrics"]["square"] != one["metrics"]["square"]
            and two["metrics"]["square"] == pytest.approx(one["metrics"]["square"], rel=0.2))
    places = [DeviceShare(type("Place", (), {"process_index": rank, "num_processes": 2, "device": torch.device("cpu"), "reduce": None})())
              for rank in range(2)]
    assert places[0].stream != places[1].stream and torch.equal(torch.cat([p.part(Batch(x=torch.arange(6.0))).x for p in places]),
                                                                torch.arange(6.0))


@pytest.mark.parametrize(("changes", "devices", "words"), [
    ({}, 3, "`batch` must be divisible by `devices`: got 16 by 3. Use 15."),
    ({"batch": 2}, 4, "`batch` must be divisible by `devices`: got 2 by 4. Use 4."),
    ({}, 0, "`devices` must be at least 1: got 0."),
    ({"device": "cpu:0"}, 2, "`device` must be auto, cuda or cpu for several devices: got cpu:0."),
])
def test_what_cannot_be_shared_out_is_refused(changes: dict, devices: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as refused: train_on(QUIET.replace(changes), devices, journal=tmp_path / "none")
    assert str(refused.value).startswith(words) and not (tmp_path / "none").exists()


def test_more_devices_than_gpus_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(module, "choose_device", lambda name: torch.device("cuda"))
    with pytest.raises(ValueError, match="`devices` must be at most the 1 GPUs of this machine: got 2."):
        check_devices(QUIET.replace(device="auto"), 2)
    check_devices(QUIET.replace(device="auto"), 1)


def test_a_run_that_somebody_trains_is_refused(tmp_path: Path) -> None:
    claim = Journal(tmp_path).claim(QUIET)
    claim.take()
    with pytest.raises(ValueError, match="`run` must not be in training elsewhere"): train_on(QUIET, 2, journal=tmp_path)
    claim.release()


def test_a_missing_library_is_named(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    words = '`accelerate` must be installed to train on several devices: .* pip install "latentlab.scale'
    with pytest.raises(ModuleNotFoundError, match=words): train_on(QUIET, 2, journal=tmp_path)


def test_what_the_processes_said_is_judged() -> None:
    done, cut = Outcome(state="done", id="a"), Outcome(state="interrupted", id="a")
    assert verdict([(1, done), (0, done)], [0, 0], False) is done and verdict([(0, done)], [0, 0], True) is done
    with pytest.raises(DeviceFailed, match="process 0 of 2 failed: A: x"): verdict([(1, "B: y"), (0, "A: x")], [1, 1], False)
    with pytest.raises(DeviceFailed, match="process 1 of 2 failed: B: y"): verdict([(1, "B: y"), (0, cut)], [0, 1], False)
    with pytest.raises(DeviceFailed, match="ended without a word: all processes"): verdict([], [0, 0], False)
    for heard, codes in (([(0, cut)], [0, 0]), ([], [-15, -15])):
        with pytest.raises(KeyboardInterrupt): verdict(heard, codes, True)


def test_a_message_that_fails_is_an_interrupt_and_full_memory_is_not() -> None:
    def place(error: Exception) -> DeviceShare:
        def reduce(values: torch.Tensor, how: str) -> torch.Tensor: raise error
        return DeviceShare(type("Place", (), {"process_index": 0, "num_processes": 2, "device": torch.device("cpu"),
                                              "reduce": staticmethod(reduce)})())

    with pytest.raises(PeerLost): place(RuntimeError("connection closed by peer")).mean({"a": torch.tensor(1.0)})
    with pytest.raises(torch.OutOfMemoryError): place(torch.OutOfMemoryError("full")).mean({"a": torch.tensor(1.0)})
    assert issubclass(PeerLost, KeyboardInterrupt)
