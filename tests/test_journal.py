"""The journal: every run is a folder that tells the truth, whatever was killed, filled up, edited or deleted, and no damaged
run costs the others.
"""
import ctypes
import errno
import html
import json
import os
import random
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from latentlab.core.settings import as_dict, setting, to_json
from latentlab.journal import files, index
from latentlab.journal import record as record_module
from latentlab.journal.files import LOST_AFTER, LineFile, Lock, check_name, machine, process_began, read_json, read_lines, true_state, write_json, writer
from latentlab.journal.index import summary
from latentlab.journal.journal import Journal
from latentlab.journal.report import harmless, markdown_table, run_facts
from latentlab.journal.runs import mean_interval
from latentlab.journal.writer import Writer, has_checkpoint, newest_checkpoint

from latentlab.panels.run_browser import keep_measured
from latentlab.sweeps.workers import known_run, left_alone
from latentlab.train.checkpoint import load_checkpoint, save_checkpoint
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

RUN = MeanRun().replace(steps=40)
ANY = lambda row: True  # noqa: E731
BAD_NAMES = ["../x", "a/b", "/etc", "..", ".", "", "a..b", "a\0b", "é", "a b", "x" * 200, "-a", ".hidden", "a\n", "a\\b", "<b>"]


@pytest.fixture(autouse=True)
def apart(tmp_path_factory, monkeypatch):
    "A cache of the test's own, and no repository around: code differences of this one are not what is tested."
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    "One finished run of 40 steps; to be copied, not changed."
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(root)
        trainer = Trainer(RUN, journal=root / "runs").fit(40, progress=False)
    return root / "runs" / trainer.recorder.id


@pytest.fixture
def copied(trained, tmp_path):
    "Makes journals that hold a copy of the finished run, with some of its facts edited (None takes a fact out)."
    count = 0

    def make(*edits):
        nonlocal count
        root, count = tmp_path / f"journal-{count}", count + 1
        for number, edit in enumerate(edits or ({},)):
            folder = root / (trained.name if number == 0 else f"{trained.name}-{number}")
            shutil.copytree(trained, folder)
            edit_facts(folder, **edit)
        return Journal(root)

    return make


GONE = object()


def edit_facts(folder, **edit):
    facts = json.loads((folder / "run.json").read_text())
    for name, value in edit.items():
        if value is GONE: facts.pop(name, None)
        else: facts[name] = value
    (folder / "run.json").write_text(json.dumps(facts))


def add_line(folder, name, text):
    with (folder / name).open("a", encoding="utf-8") as file: file.write(text + "\n")


def only(journal):
    "The one run of a journal."
    (row,) = journal.rows()
    return row


def logged(folder):
    "Steps of the lines of metrics, in the order of the file."
    return [row["step"] for row in read_lines(folder / "metrics.jsonl").rows if "terms" in row]


def until(condition, seconds=60.0):
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.005)
    return found


# Names ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_could_leave_the_folder_are_refused_by_everyone(copied, trained, tmp_path, name, unchecked):
    journal = copied()
    record = journal.begin(RUN)
    trainer = Trainer(RUN, journal=journal)
    before = sorted(p for p in tmp_path.rglob("*") if "checkpoints" not in p.parts)
    for call in (check_name, journal.folder, journal.run, journal.report, journal.keep,
                 lambda n: journal.note(n, "x"), lambda n: journal.go_on(n, step=1),
        lambda n: journal.diff(n, trained.name),
                 lambda n: record.picture(n, {"a": np.zeros(1)}), journal.run(trained.name).picture, lambda n: trainer.load(
                     n), lambda n: trainer.resume(n)):
        with pytest.raises(ValueError, match="must be"): call(name)
    record.close()
    assert sorted(p for p in tmp_path.rglob("*") if "checkpoints" not in p.parts) == before


@pytest.mark.parametrize("name", [None, 3, b"x", ["x"]])
def test_what_is_no_text_is_no_name(name, unchecked):
    with pytest.raises(ValueError, match="`name` must be letters"): check_name(name)


def test_an_unknown_run_is_named(copied):
    journal = copied()
    for call in (journal.run, journal.keep, lambda n: journal.note(n,
                                                                   "x"), journal.report, lambda n: Trainer(RUN, journal=journal).load(n)):
        with pytest.raises(ValueError, match="20200101-000000-mean-abcdef"): call("20200101-000000-mean-abcdef")


@pytest.mark.parametrize("name", ["runs", "with space", "Übung 日本", "a'b\"c", "[x]{y}"])
def test_a_journal_may_be_called_anything_a_folder_may(tmp_path, name):
    trainer = Trainer(RUN, journal=tmp_path / name).fit(20, progress=False)
    journal = Journal(tmp_path / name)
    assert journal.runs().index.tolist() == [trainer.recorder.id] and only(journal)["steps"] == 20
    assert harmless(name) in journal.book(reports=[]).read_text(encoding="utf-8")
    assert Trainer(RUN, journal=tmp_path / name).resume().fit(5, progress=False).step_count == 25


def test_a_run_is_found_by_its_name_wherever_one_stands(copied, trained, monkeypatch):
    journal = copied()
    monkeypatch.chdir(journal.root)  # the folder of the run has the name of the run
    assert Trainer(RUN, journal=".").resume(trained.name).step_count == 40


def test_another_working_folder_in_the_middle_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    trainer, journal = Trainer(RUN, journal="runs"), Journal("runs")
    trainer.start(10).wait()
    monkeypatch.chdir(tmp_path / "b")
    trainer.start(10).wait().stop()
    assert (only(journal)["state"], only(journal)["steps"]) == ("done", 20)
    assert load_checkpoint(newest_checkpoint(tmp_path / "a" / "runs" / trainer.recorder.id))["step"] == 20
    assert list((tmp_path / "b").iterdir()) == []


def test_a_home_folder_is_meant_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Writer("~/runs")
    assert (tmp_path / "home" / "runs").is_dir() and not Path("~").exists()


# Files ------------------------------------------------------------------------------------------------------------------

def test_json_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    for value, error in (({"a": object()}, TypeError), ({"a": 2}, OSError)):
        if error is OSError: monkeypatch.setattr(files.os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(error): write_json(path, value)
        assert read_json(path) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_what_others_write_has_the_rights_of_other_files(tmp_path):
    trainer = Trainer(RUN, journal=tmp_path).fit(20, progress=False)
    (tmp_path / "plain").write_text("x")
    plain = (tmp_path / "plain").stat().st_mode
    shared = [p for p in (tmp_path / trainer.recorder.id).rglob("*") if p.is_file() and not p.name.startswith(".")]
    assert len(shared) > 5 and [p.name for p in shared if p.stat().st_mode != plain] == []


@pytest.mark.parametrize("seed", range(6))
def test_lines_come_whole_in_order_and_once_however_the_disk_fails(tmp_path, monkeypatch, seed):
    draw, path, write = random.Random(seed), tmp_path / "a.jsonl", os.write

    def failing(fd, data):
        what = draw.random()
        if what < 0.3: raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[: draw.randint(0, len(data))] if what < 0.7 else data)

    rows, file = [{"number": n, "text": "x" * draw.randint(0, 50)} for n in range(100)], LineFile(path)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", failing)
        for row in rows[:90]: file.append(row)
    for row in rows[90:]: file.append(row)
    assert file.flush() and not file.waiting and file.error is None
    file.close()
    assert path.read_bytes() == b"".join((json.dumps(row, separators=(",", ":")) + "\n").encode() for row in rows)


def test_a_file_cut_anywhere_keeps_what_stands_before_and_takes_what_comes_after(tmp_path):
    path, rows = tmp_path / "a.jsonl", [{"number": n, "t": "é\n\"" * n} for n in range(6)]
    file = LineFile(path)
    for row in rows: file.append(row)
    file.close()
    whole, ends = path.read_bytes(), []
    for line in whole.splitlines(keepends=True): ends.append((ends[-1] if ends else 0) + len(line))
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        before = sum(end - 1 <= cut for end in ends)  # a line without its end is whole as well
        assert read_lines(path).rows == rows[:before]
        again = LineFile(path)
        again.append({"last": cut})
        again.close()
        assert read_lines(path).rows == [*rows[:before], {"last": cut}], cut


def in_processes(work, count=4):
    "Run `work(k)` in forked processes at once; their exit states must all be 0."
    pids = []
    for k in range(count):
        if not (pid := os.fork()):
            try:
                work(k)
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * count


def test_four_processes_may_write_into_one_file(tmp_path):
    def write(k):
        file, draw = LineFile(tmp_path / "notes.jsonl"), random.Random(k)
        for n in range(300): file.append({"who": k, "number": n, "text": chr(97 + k) * draw.choice([1, 100, 5000])})
        assert not file.waiting

    in_processes(write)
    found = read_lines(tmp_path / "notes.jsonl")
    assert found.skipped == 0 and len(found.rows) == 1200
    for k in range(4):
        mine = [row for row in found.rows if row["who"] == k]
        assert [row["number"] for row in mine] == list(range(300)) and all(set(row["text"]) == {chr(97 + k)} for row in mine)


def test_four_processes_may_write_into_one_journal(tmp_path):
    files.machine(), process_began(os.getpid())

    def write(k):
        for seed in range(3):
            record = Journal(tmp_path).begin(RUN.replace(seed=10 * k + seed))
            for step in range(1, 201): record.log(step, 0.1 * step, {"loss": k + step / 1000, "pull": 0.0}, {"loss": 1.0}, 1)
            record.state("done", step=200, seconds=20.0)
            record.close()

    in_processes(write)
    journal = Journal(tmp_path)
    rows = journal.rows()
    assert (len(rows) == 12 and {row["state"] for row in rows} == {"done"}
            and sorted(row["seed"] for row in rows) == [10 * k + s for k in range(4) for s in range(3)])
    for row in rows:
        metrics = journal.run(row["id"]).metrics()
        assert metrics.steps == list(range(1, 201)) and metrics.skipped == 0
        assert metrics.terms["loss"] == [row["seed"] // 10 + step / 1000 for step in range(1, 201)]


def test_two_threads_may_open_one_journal(tmp_path):
    errors = []

    def work():
        for _ in range(200):
            try: Journal(tmp_path)
            except ValueError as error: errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert errors == []


# States -----------------------------------------------------------------------------------------------------------------

def test_a_state_is_true_of_every_writer():
    me, now = writer(), 1000.0
    there = me | {"machine": "elsewhere"}
    dead = os.spawnlp(os.P_WAIT, "true", "true") or 2**22 + 1  # a number that no process has
    assert true_state("running", me, None, now) == "running"
    assert true_state("running", me, now - 1e6, now) == "running", "it is there: a missing heartbeat says nothing"
    assert true_state("running", me | {"pid": dead, "began": "1"}, now, now) == "lost", "it is not there: a fresh heartbeat says nothing"
    assert true_state("running", me | {"began": "1"}, now, now) == "lost", "another process with its number"
    for beat, state in ((None, "lost"), (now, "running"), (now - LOST_AFTER + 1, "running"), (now - LOST_AFTER - 1, "lost"),
                        (now + 1, "running"), (now + 86400, "lost")):
        assert true_state("running", there, beat, now) == state, beat
    for state in ("done", "failed", "interrupted", "damaged"): assert true_state(state, me | {"pid": dead}, None, now) == state


def test_a_run_without_its_process_is_lost_in_the_list(copied):
    for by in ({"host": "x", "machine": machine(), "pid": 2**22 + 1, "began": "5"}, {"host": "x", "machine": "y", "pid": 1, "began": "5"},
               {}, None):
        journal = copied({"state": "running", "by": by})
        os.utime(journal.root / only(journal)["id"] / "heartbeat", (1, 1))
        assert only(journal)["state"] == "lost" and journal.runs()["state"].tolist() == ["lost"]
        (journal.root / only(journal)["id"] / "heartbeat").unlink()
        assert only(journal)["state"] == "lost"


def test_a_cached_running_run_turns_lost_without_a_change_of_its_files(copied):
    journal = copied({"state": "running", "by": writer()})
    assert only(journal)["state"] == "running"
    edit_facts(journal.folder(only(journal)["id"]), by={**writer(), "machine": "y"})
    os.utime(journal.root / only(journal)["id"] / "heartbeat")
    assert only(journal)["state"] == "running" and journal.index.read == 0
    os.utime(journal.root / only(journal)["id"] / "heartbeat", (1, 1))
    assert only(journal)["state"] == "lost" and journal.index.read == 0


def test_clocks_of_other_machines_lose_no_run(copied, monkeypatch):
    journal = copied({"state": "running", "by": {**writer(), "machine": "y"}})
    beat = journal.root / only(journal)["id"] / "heartbeat"
    os.utime(beat)
    now = time.time()
    for off in (-3600, 3600):  # the reader's own clock is wrong: the disk's clock is asked, which stamped the heartbeat too
        monkeypatch.setattr(time, "time", lambda off=off: now + off)
        assert only(journal)["state"] == "running", off
    monkeypatch.undo()
    for off in (-30, 30):  # the writer's clock stamped the heartbeat, and it is 30 s off
        os.utime(beat, (time.time() + off, time.time() + off))
        assert only(journal)["state"] == "running", off


def test_one_holder_a_run(tmp_path):
    journal = Journal(tmp_path)
    record = journal.begin(RUN)
    assert not left_alone(journal, record.id)
    with pytest.raises(ValueError, match=f"nobody else is training: got {record.id}, held by process {os.getpid()}"):
        journal.go_on(record.id, step=0)
    assert not record_module.fail(record.folder, "given up") and only(journal)["state"] == "running"
    record.close()
    assert left_alone(journal, record.id)
    again = journal.go_on(record.id, step=0)
    again.close()
    assert record_module.fail(record.folder, "given up") and (only(journal)["state"], only(journal)["error"]) == ("failed", "given up")


def test_a_training_that_is_failing_says_why_and_what_it_measured(tmp_path):
    trainer = Trainer(RUN.replace(poison=25), journal=tmp_path)
    with pytest.raises(Exception, match="finite"): trainer.fit(40, progress=False)
    journal = Journal(tmp_path)
    row = only(journal)
    assert row["state"] == "failed" and "finite" in row["error"] and "Traceback" in journal.run(row["id"]).facts["error"]
    assert logged(journal.folder(row["id"])) == [10, 20, 25] and np.isfinite(row["metrics"]["pull"]), "a step that failed counts nowhere"
    assert row["steps"] == 25 and np.isfinite(row["metrics"]["square"])


# A disk that refuses ----------------------------------------------------------------------------------------------------

@pytest.fixture
def disk(monkeypatch):
    "`disk(True)`: nothing more can be written to files of a journal; `disk(False)`: it can again."
    write, fsync, full = os.write, os.fsync, [False]

    def checked(fd, data):
        if full[0] and "jsonl" in os.readlink(f"/proc/self/fd/{fd}"): raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    def synced(fd):
        if full[0]: raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(fd)

    monkeypatch.setattr(os, "write", checked)
    monkeypatch.setattr(os, "fsync", synced)
    return lambda on: full.__setitem__(0, on)


def test_a_full_disk_stops_nothing_and_loses_nothing(tmp_path, disk):
    trainer = Trainer(RUN, journal=tmp_path).start(20).wait()
    folder = tmp_path / trainer.recorder.id
    disk(True)
    trainer.start()
    until(lambda: trainer.notice.startswith("journal:") and "lines wait" in trainer.notice)
    assert "No space left on device" in trainer.notice and trainer.recorder.id in trainer.notice
    step = trainer.step_count
    until(lambda: trainer.step_count > step + 50)
    assert trainer.pause().error is None and trainer.state == "paused"
    assert logged(folder) == [10, 20]
    disk(False)
    trainer.start(10).wait().stop(finished=True)
    steps = logged(folder)
    assert steps == sorted(set(steps)) and set(steps) >= set(range(10, trainer.step_count, 10)) and steps[-1] == trainer.step_count
    assert read_lines(folder / "metrics.jsonl").skipped == 0
    assert only(Journal(tmp_path))["steps"] == trainer.step_count and trainer.recorder.trouble == ""


def test_what_waits_is_written_by_the_heartbeat_too(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(record_module, "BEAT_EVERY", 0.05)
    record = Journal(tmp_path).begin(RUN)
    disk(True)
    record.log(10, 0.1, {"loss": 1.0}, {}, 10)
    record.state("interrupted", step=10, seconds=0.1)
    assert "lines wait" in record.trouble
    disk(False)
    until(lambda: not record.trouble)
    assert logged(record.folder) == [10] and read_json(record.folder / "run.json")["state"] == "interrupted"
    record.close()


def spoilt(record):
    "Make it impossible to write what a record still has to say."
    for n in (1, 2, 3): record.log(n, 0.1, {"loss": float(n)}, {}, 1)


def test_lines_that_never_found_room_are_put_elsewhere_and_it_is_said(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    record = Journal(tmp_path / "runs").begin(RUN)
    disk(True)
    spoilt(record)
    with pytest.warns(UserWarning, match="3 lines of run") as said: record.close()
    (found,) = tmp_path.glob("latentlab-*metrics.jsonl")
    assert str(found) in str(said[0].message) and [row["step"] for row in read_lines(found).rows] == [1, 2, 3]
    disk(False)
    assert left_alone(Journal(tmp_path / "runs"), record.id)


def test_what_is_put_elsewhere_is_whole_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    record, write, left = Journal(tmp_path / "runs").begin(RUN), os.write, [30]

    def small(fd, data):
        if "metrics" not in os.readlink(f"/proc/self/fd/{fd}"): return write(fd, data)
        if not left[0]: raise OSError(errno.ENOSPC, "No space left on device")
        n, left[0] = min(left[0], len(data)), left[0] - min(left[0], len(data))
        return write(fd, data[:n])

    monkeypatch.setattr(os, "write", small)
    spoilt(record)
    with pytest.warns(UserWarning, match="lines of run"): record.close()
    (found,) = tmp_path.glob("latentlab-*metrics.jsonl")
    rows = [*read_lines(record.folder / "metrics.jsonl").rows, *read_lines(found).rows]
    assert [row["step"] for row in rows] == [1, 2, 3], "the line that was cut in two is lost"


def test_one_full_disk_for_everything_still_ends_the_training(tmp_path, disk, monkeypatch):
    trainer = Trainer(RUN, journal=tmp_path).start(10).wait()
    def refuse(*words, **named): raise OSError(errno.ENOSPC, "No space left on device")
    disk(True)
    trainer.start(20).wait()
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.warns(UserWarning, match="could not be written"): trainer.stop()
    assert trainer.state == "stopped" and trainer.step_count == 30
    disk(False)
    assert left_alone(Journal(tmp_path), trainer.recorder.id), "the run must not stay locked"
    assert Trainer(RUN, journal=tmp_path).resume(trainer.recorder.id).fit(10, progress=False).state == "paused"


def test_a_run_that_cannot_begin_leaves_nothing_behind(tmp_path, disk):
    trainer, threads = Trainer(RUN, journal=tmp_path), threading.active_count()
    disk(True)
    with pytest.raises(OSError, match="No space"): trainer.fit(5, progress=False)
    disk(False)
    assert trainer.error is not None and trainer.state == "failed"
    assert threading.active_count() == threads, "a heartbeat without a run"
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == [] and Journal(tmp_path).rows() == []
    assert trainer.fit(5, progress=False).step_count == 5 and only(Journal(tmp_path))["state"] == "done"


def test_a_run_that_cannot_be_gone_on_with_is_let_go(copied, trained, monkeypatch):
    journal = copied()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", lambda *words, **named: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only file system")))
        with pytest.raises(OSError, match="Read-only"): journal.go_on(trained.name, step=40)
    assert left_alone(journal, trained.name)
    with monkeypatch.context() as patch:
        patch.setattr(record_module, "write_json", lambda *words: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"): record_module.fail(journal.folder(trained.name), "x")
    assert left_alone(journal, trained.name)


def test_a_picture_that_finds_no_room_leaves_no_part(tmp_path, monkeypatch):
    record = Journal(tmp_path).begin(RUN)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", lambda file, **named: (file.write(b"part"),
                                                                     (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))))
        record.picture("last", {"a": np.zeros(3)})
    assert "a picture was not written" in record.trouble and list((record.folder / "figures").iterdir()) == []
    record.picture("last", {"a": np.zeros(3)})
    assert record.trouble == "" and [p.name for p in (record.folder / "figures").iterdir()] == ["last.npz"]
    record.close()


@pytest.fixture
def small_disk(tmp_path):
    "A disk of a megabyte."
    folder, libc = tmp_path / "disk", ctypes.CDLL(None, use_errno=True)
    folder.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=1m"):
        pytest.skip(f"cannot mount a small disk here: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(os.fsencode(folder), 2)


def test_a_disk_that_is_really_full(small_disk):
    trainer = Trainer(RUN, journal=small_disk / "runs").start(20).wait()
    folder, filler = small_disk / "runs" / trainer.recorder.id, small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True: file.write(b"x" * 512)
        except OSError as error: assert error.errno == errno.ENOSPC
    trainer.start()
    until(lambda: "journal:" in trainer.notice)
    step = trainer.step_count
    until(lambda: trainer.step_count > step + 100)
    assert trainer.pause().error is None
    load_checkpoint(newest_checkpoint(folder))
    filler.unlink()
    trainer.start(10).wait().stop()
    steps, found = logged(folder), read_lines(folder / "metrics.jsonl")
    assert steps == sorted(set(steps)) and set(steps) >= set(range(10, trainer.step_count, 10)) and found.skipped == 0
    assert only(Journal(small_disk / "runs"))["steps"] == trainer.step_count == load_checkpoint(newest_checkpoint(folder))["step"]


@pytest.mark.parametrize("root", ["file", "file/below", "/proc/latentlab"])
def test_a_root_that_cannot_be_written_is_refused_before_any_time_is_spent(tmp_path, root):
    (tmp_path / "file").write_text("x")
    for make in (Journal, lambda r: Trainer(RUN, journal=r)):
        with pytest.raises(ValueError, match="`root` must be a folder that can be written"):
            make(root if root.startswith("/") else tmp_path / root)


def as_nobody(work):
    "What `work()` returns in a process without the rights of an administrator, who may write anywhere."
    if os.geteuid(): return work()
    read, write = os.pipe()
    if not (pid := os.fork()):
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            answer = work()
        except BaseException as error: answer = f"{type(error).__name__}: {error}"
        os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read, "rb") as answer: return json.loads(answer.read())


def test_a_finished_journal_that_can_only_be_read_is_read(trained):
    with tempfile.TemporaryDirectory() as name:
        root, id = Path(name) / "runs", trained.name
        shutil.copytree(trained, root / id)
        edit_facts(root / id, note="x")
        Journal(root).runs(), Journal(root).group(), Journal(root).report(id).html  # what is imported late is imported now
        everything = [Path(name), root, *root.rglob("*")]
        for path in everything: path.chmod(0o555 if path.is_dir() else 0o444)

        def read():
            journal = Journal(root)
            return [journal.runs().index.tolist(), len(journal.group("loss")), len(journal.run(id).metrics().steps),
                    len(journal.diff(id, id)), sorted(journal.run(id).picture())]

        def write():
            try: Trainer(RUN, journal=root).fit(5, progress=False)
            except (ValueError, OSError) as error: return str(error)

        found, said = as_nobody(read), as_nobody(write)
        for path in everything: path.chmod(0o755)
    assert found == [[id], 1, 4, 0, ["image", "level"]]
    assert "must be a folder that can be written" in said or "Permission" in said


def removed(folder):
    "Whether the folder is gone after one more try: the run writes into it meanwhile."
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def test_a_run_deleted_in_the_middle_is_said_and_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(record_module, "BEAT_EVERY", 0.05)
    trainer = Trainer(RUN.replace(checkpoint_every=10**6), journal=tmp_path).start()
    until(lambda: trainer.step_count > 20)
    until(lambda: removed(tmp_path / trainer.recorder.id))
    until(lambda: trainer.notice.startswith("journal:"))
    step = trainer.step_count
    until(lambda: trainer.step_count > step + 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.stop()
    assert trainer.state == "stopped" and trainer.error is None and Journal(tmp_path).rows() == []


# Damage by hand ---------------------------------------------------------------------------------------------------------

def reads_well(journal):
    "Everything that reads a whole journal reads this one."
    rows = journal.rows()
    journal.runs(), journal.group(where=ANY), journal.book(reports=[]), known_run(journal, RUN)
    for row in rows:
        assert {"id", "kind", "state", "started", "steps", "seconds", "seed", "settings", "metrics", "figures", "checks", "note", "kept",
                "changes",
        "digest", "group"} <= row.keys()
    for row in rows:
        if row["state"] == "damaged": continue
        run = journal.run(row["id"])
        run.metrics(), run.checks(), run.notes(), run.picture(), run_facts(run, row["state"]), journal.diff(row["id"], row["id"])
    return rows


def test_run_json_cut_at_every_byte(copied, trained):
    journal = copied({}, {})
    path, second = journal.root / trained.name / "run.json", f"{trained.name}-1"
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert summary(path.parent)["state"] == "damaged", cut
        if cut % 200 == 0: assert {row["id"]: row["state"] for row in reads_well(journal)} == {trained.name: "damaged", second: "done"}
    with pytest.raises(ValueError, match="must be a readable JSON file"): journal.run(trained.name)
    assert journal.runs().loc[trained.name, "state"] == "damaged"
    path.write_bytes(whole)
    assert {row["state"] for row in journal.rows()} == {"done"}


def test_metrics_cut_at_every_byte(copied, trained):
    journal = copied()
    path = journal.root / trained.name / "metrics.jsonl"
    whole, run = path.read_bytes(), journal.run(trained.name)
    ends = [number for number, byte in enumerate(whole) if byte == 10]
    all_rows = read_lines(path).rows
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = all_rows[: sum(end <= cut for end in ends)]
        found = summary(path.parent)
        assert found["state"] == "done" and found["steps"] == 40
        assert run.metrics().steps == [row["step"] for row in kept if "terms" in row], cut
        assert found["figures"] == next((row["figures"] for row in reversed(kept) if "figures" in row), {})
        assert found["skipped"] == (cut not in {0, *ends, *(end + 1 for end in ends)}), "what is left out is counted"
        if cut % 150 == 0: reads_well(journal)


def test_random_damage_never_costs_the_list(copied, trained):
    journal, draw = copied({}, {}), random.Random(0)
    folder = journal.root / trained.name
    journal.note(trained.name, "a note")
    names = ["run.json", "metrics.jsonl", "checks.jsonl", "notes.jsonl", "code.diff", "heartbeat", "figures/last.npz"]
    whole = {name: (folder / name).read_bytes() for name in names}
    for trial in range(150):
        name = names[trial % len(names)]
        data = bytearray(whole[name])
        for _ in range(draw.choice([1, 1, 5])):
            if data: data[draw.randrange(len(data))] = draw.randrange(256)
        if draw.random() < 0.2: data = data[: draw.randint(0, len(data))]
        (folder / name).write_bytes(bytes(data))
        rows = reads_well(journal)
        assert [row["id"] for row in rows] == [trained.name, f"{trained.name}-1"] and rows[1]["state"] == "done", (trial, name)
        (folder / name).write_bytes(whole[name])
    assert {row["state"] for row in journal.rows()} == {"done"}


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "checks.jsonl", "notes.jsonl", "code.diff", "heartbeat", "lock", "figures",
                                  "checkpoints"])
def test_anything_may_be_missing(copied, trained, name):
    journal = copied({}, {})
    journal.note(trained.name, "x")
    path = journal.root / trained.name / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    rows = reads_well(journal)
    assert rows[0]["state"] == ("damaged" if name == "run.json" else "done") and rows[1]["state"] == "done"
    assert Trainer(RUN, journal=journal).fit(5, progress=False).step_count == 5
    if name == "checkpoints":
        with pytest.raises(ValueError, match="left none"): Trainer(RUN, journal=journal).resume(trained.name)


@pytest.mark.parametrize("text", ["", "[]", "[1, 2]", "null", "3", '"run"', "{}", '{"id": "x"}', "\0" * 50, "[" * 100_000, "\ufeff{}"])
def test_another_run_json(copied, trained, text):
    journal = copied({}, {})
    (journal.root / trained.name / "run.json").write_text(text, encoding="utf-8")
    rows = reads_well(journal)
    assert (rows[0]["id"] == trained.name and rows[0]["state"] in (("damaged", "?", "lost") if text.startswith("{") else ("damaged",))
            and rows[1]["state"] == "done")
    assert Trainer(RUN, journal=journal).fit(5, progress=False).step_count == 5


KEYS = ["id", "kind", "state", "started", "updated", "steps", "seconds", "error", "settings", "digest", "group", "commit", "untracked",
        "versions", "platform",
    "device", "info", "parent",
        "units", "previous", "best", "words", "defaults", "seed", "by"]


@pytest.mark.parametrize("value", [GONE, None, "x", 5, -1.5, [1], {"a": [1]}, True, [{"a": 1}], float("nan")],
                         ids=["gone", *map(str, (None, "x", 5, -1.5, [1],
    {"a": [1]}, True, [{"a": 1}], "nan"))])
def test_each_fact_edited_into_something_else(copied, trained, value):
    journal = copied({}, {})
    folder = journal.root / trained.name
    whole = (folder / "run.json").read_bytes()
    wrong = []
    for key in KEYS:
        edit_facts(folder, **{key: value})
        try:
            assert {row["id"] for row in reads_well(journal)} == {trained.name, f"{trained.name}-1"}
            journal.begin(RUN).close()
        except Exception as error: wrong.append(f"{key}: {type(error).__name__} {str(error)[:80]}")
        for path in journal.root.glob("*-mean-*"):
            if not path.name.startswith(trained.name): shutil.rmtree(path)
        (folder / "run.json").write_bytes(whole)
    assert wrong == []


LINES = [("metrics", line) for line in (
    '{"step":41,"terms":{"loss":"abc"}}', '{"step":41,"seconds":null,"n":1,"terms":{"loss":1}}', '{"step":41,"n":0,"terms":{"loss":1}}',
    '{"step":4100,"n":0,"seconds":1,"terms":{"loss":1,"square":1,"pull":0,"gradient_norm":1}}', '{"step":-5,"terms":{"loss":1}}',
    '{"step":41,"n":"x","terms":{"loss":1}}', '{"step":41,"terms":[1]}',
    '{"step":41,"terms":{"loss":null}}', '{"step":41,"figures":{"level":"x"}}', '{"step":41,"figures":[2]}', '{"step":41,"set":[1]}',
    '{"step":41,"set":{"pull":1}}',
    '{"step":41,"set":{"pull":[1]}}',
    '{"step":41,"weights":5,"terms":{"loss":1}}', '{"step":41,"weights":{"a":"x"},"terms":{"loss":1}}', '{"step":"x","terms":{"loss":1}}',
    '{"step":true,"went_on":"x"}', '{"terms":{"loss":1}}', "7", "[]", "null", "[" * 100_000, '{"step":1e999,"terms":{}}', '{"step":NaN}')]
LINES += [("checks", line) for line in ('{"name":[1],"level":"ok"}', '{"name":"range"}', '{"name":"range","level":5}',
                                        '{"name":"range","level":"ok"}',
    '{"name":"range","level":"odd","sentence":5}', "{}", "3")]
LINES += [("notes", line) for line in ('{"text":5}', '{"text":null}', '{"text":["x"]}', '{"kept":"x"}', '{"kept":null}',
                                       '{"time":"x","text":"y"}', "{}", "3")]


@pytest.mark.parametrize("name, text", LINES, ids=[f"{name}-{text[:40]}" for name, text in LINES])
def test_a_line_edited_into_something_else(copied, trained, name, text):
    journal = copied({}, {})
    add_line(journal.root / trained.name, f"{name}.jsonl", text)
    rows = reads_well(journal)
    assert [row["state"] for row in rows] == ["done", "done"]
    assert journal.run(trained.name).metrics().steps[:4] == [10, 20, 30, 40] and rows[0]["metrics"].keys() == rows[1]["metrics"].keys()
    journal.begin(RUN).close()


@pytest.mark.parametrize("at", [0, 1, 30, 0.5, 0.9, 0.99])
def test_a_damaged_picture_is_no_picture(copied, trained, at):
    journal = copied()
    path = journal.root / trained.name / "figures" / "last.npz"
    data = path.read_bytes()
    path.write_bytes(data[: int(at * len(data)) if at < 1 and at else int(at)])
    assert journal.run(trained.name).picture() == {} and journal.report(trained.name) is not None
    assert journal.run(trained.name).picture("no-such") == {}


def test_arrays_that_would_execute_something_are_not_read(copied, trained):
    journal = copied()
    np.savez(journal.root / trained.name / "figures" / "odd.npz", a=np.array([print], object))
    assert journal.run(trained.name).picture("odd") == {}


def test_a_run_deleted_while_the_list_is_made(copied, trained, monkeypatch):
    journal = copied({}, {}, {})

    def deleting(folder):
        shutil.rmtree(journal.root / f"{trained.name}-2", ignore_errors=True)
        return summary(folder)

    with monkeypatch.context() as patch:
        patch.setattr(index, "summary", deleting)
        journal.runs()
    assert [row["state"] for row in journal.rows()] == ["done", "done"]


def test_runs_deleted_and_made_while_lists_are_made(copied, trained):
    journal, over, errors = copied(), threading.Event(), []

    def churn():
        k = 0
        while not over.is_set():
            target = journal.root / f"{trained.name}-{k % 3 + 1}"
            shutil.copytree(trained, target, dirs_exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            k += 1

    thread = threading.Thread(target=churn)
    thread.start()
    for _ in range(60):
        try: assert trained.name in journal.runs().index
        except Exception as error: errors.append(repr(error))
    over.set()
    thread.join()
    assert errors == []


def test_links_in_the_root(copied, trained, tmp_path):
    journal = copied()
    shutil.copytree(trained, tmp_path / "elsewhere" / "one")
    (tmp_path / "file").write_text("x")
    for name, target in (("dangling", tmp_path / "nothing"), ("loop", "loop"), ("up", ".."), ("here", "."), ("to-file", tmp_path / "file"),
                         ("linked",
        tmp_path / "elsewhere" / "one")): os.symlink(target, journal.root / name)
    assert [row["id"] for row in reads_well(journal)] == [trained.name, "linked"]
    assert [row["id"] for row in Journal(journal.root / "here").rows()] == [trained.name, "linked"]
    os.symlink(journal.root, tmp_path / "root")
    assert len(Journal(tmp_path / "root").rows()) == 2


@pytest.mark.parametrize("name", ["{} (copy)", "{} - Copy", "Kopie von {}", "<img src=x>", "a|b", "日本"])
def test_a_copy_by_a_file_manager_costs_the_others_nothing(copied, trained, name):
    journal = copied()
    other = journal.root / name.format(trained.name)
    shutil.copytree(trained, other)
    add_line(other, "notes.jsonl", '{"time":1,"text":"seen"}')
    journal.runs(), journal.group("loss"), journal.compare("loss")
    assert "<img" not in journal.book().read_text(encoding="utf-8")
    assert Trainer(RUN, journal=journal).fit(5, progress=False).step_count == 5


def test_what_is_no_run_is_not_listed(copied, trained):
    journal = copied()
    (journal.root / "empty").mkdir()
    (journal.root / "file.txt").write_text("x")
    (journal.root / ".hidden").mkdir()
    shutil.copy(journal.root / trained.name / "run.json", journal.root / ".hidden")
    journal.book(reports=[])
    with pytest.raises(ValueError): journal.note("book", "a book is no run")
    assert [row["id"] for row in journal.rows()] == [trained.name]


# The index --------------------------------------------------------------------------------------------------------------

def test_only_what_has_changed_is_read(copied, trained):
    journal = copied({}, {}, {})
    assert len(journal.rows()) == 3 and journal.index.read == 3
    assert len(journal.rows()) == 3 and journal.index.read == 0
    journal.note(trained.name, "seen")
    assert journal.rows()[0]["note"] == "seen" and journal.index.read == 1
    shutil.rmtree(journal.root / f"{trained.name}-1")
    assert len(journal.rows()) == 2 and journal.index.read == 0
    assert len(Journal(journal.root).rows()) == 2


def test_the_cache_goes_where_it_is_told_and_two_journals_of_one_name_are_two(copied, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "mine"))
    for place, count in (("a", 1), ("b", 2)):
        for n in range(count): shutil.copytree(trained, tmp_path / place / "runs" / f"run-{place}-{n}")
    first, second = (Journal(tmp_path / place / "runs") for place in "ab")
    for _ in range(2):
        assert [row["id"] for row in first.rows()] == ["run-a-0"] and [row["id"] for row in second.rows()] == ["run-b-0", "run-b-1"]
    assert (first.index.path != second.index.path
            and {p.parent for p in (first.index.path, second.index.path)} == {tmp_path / "mine" / "journals"})
    assert first.index.path.is_file() and not list((tmp_path / "a").rglob("*.sqlite*"))


def spoil_text(path, sql):
    base = sqlite3.connect(path)
    with base: base.execute(sql)
    base.close()


DAMAGE = {
    "garbage": lambda path: path.write_bytes(b"no database at all" * 100), "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "overwritten": lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff"
                                                 * (len(path.read_bytes()) - 4096)), "folder": lambda path: (path.unlink(), path.mkdir()),
    "other columns": lambda path: spoil_text(path, f"alter table runs{index.LAYOUT} rename column "
                                                   "summary to text"), "no json": lambda path: spoil_text(path,
    f"update runs{index.LAYOUT} set summary = 'nonsense'"),
    "another json": lambda path: spoil_text(path, f"update runs{index.LAYOUT} set "
                                                  "summary = '[]'"), "empty json": lambda path: spoil_text(path,
    f"update runs{index.LAYOUT} set summary = ''"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_anew(copied, trained, damage):
    journal = copied({}, {})
    before = journal.rows()
    DAMAGE[damage](journal.index.path)
    assert journal.rows() == before and Journal(journal.root).rows() == before
    if damage not in ("folder", "other columns"):  # those are done without
        journal.rows()
        assert journal.index.read == 0, "and kept from then on"


def test_a_cache_that_somebody_else_has_locked_is_done_without(copied):
    journal = copied({}, {})
    before = journal.rows()
    base = sqlite3.connect(journal.index.path, isolation_level=None)
    base.execute("begin exclusive")
    assert journal.rows() == before
    base.execute("rollback")
    base.close()
    assert journal.rows() == before and journal.index.read == 0


@pytest.mark.parametrize("place", ["/proc/latentlab", "file/below"])
def test_a_cache_that_cannot_be_written_is_done_without(copied, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("LATENTLAB_CACHE", place if place.startswith("/") else str(tmp_path / place))
    journal = copied({}, {})
    assert len(journal.rows()) == 2 and len(journal.rows()) == 2


def test_an_empty_journal(tmp_path):
    journal = Journal(tmp_path / "new")
    assert journal.runs().empty and journal.rows() == [] and journal.group().empty and list(journal.runs().index) == []
    assert "0 runs: none yet" in journal.book().read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="`metric` must be what the runs measured"): journal.compare("loss")
    with pytest.raises(ValueError, match="Known: none"): journal.group("loss")
    with pytest.raises(ValueError, match="no run of"): Trainer(RUN, journal=journal).resume()


# What a run says --------------------------------------------------------------------------------------------------------

def test_differences_to_the_run_before_and_to_the_best(tmp_path):
    made = []
    for rate in (0.05, 0.0001, 0.001):
        made.append(Trainer(RUN.replace(learning_rate=rate), journal=tmp_path).fit(40, progress=False).recorder.id)
    journal = Journal(tmp_path)
    rows = {row["id"]: row for row in journal.rows()}
    best = min(made, key=lambda id: rows[id]["metrics"]["loss"])
    assert best == made[0]
    trainer = Trainer(RUN.replace(learning_rate=0.001, seed=3), journal=tmp_path)
    told = journal.run(made[1]).facts
    assert told["previous"]["id"] == told["best"]["id"] == made[0] and [(c["path"], c["old"],
        c["new"]) for c in told["previous"]["changes"]] == [("train.learning_rate", 0.05, 0.0001)]
    assert not journal.run(made[0]).facts.get("previous") and not journal.run(made[0]).facts.get("best")
    trainer.fit(10, progress=False)
    facts = journal.run(trainer.recorder.id).facts
    assert facts["previous"]["id"] == made[2] and [c["path"] for c in facts["previous"]["changes"]] == ["train.seed"]
    assert facts["best"]["id"] == best and {c["path"] for c in facts["best"]["changes"]} == {"train.seed", "train.learning_rate"}
    assert (facts["best"]["value"] == rows[best]["metrics"]["loss"]
            and facts["words"] == ["`pull` has weight 0: it is measured, and not trained on."])


def test_the_best_is_a_run_that_ended_well_and_of_the_same_kind(copied, trained):
    journal = copied({}, {"state": "failed"}, {"state": "damaged"}, {"kind": "other"}, {"state": "running", "by": {}})
    for value, name in ((0.5, ""), (0.1, "-1"), (0.1, "-2"), (0.1, "-3"), (0.1, "-4")):
        (journal.root / (trained.name + name) / "metrics.jsonl").write_text(
            f'{{"step":40,"seconds":1,"n":1,"terms":{{"loss":{value}}},"weights":{{}}}}\n')
    record = journal.begin(RUN)
    assert (record.facts["best"]["id"], record.facts["best"]["value"]) == (trained.name, 0.5)
    record.close()


def test_a_run_that_diverged_is_never_the_best(copied, trained):
    journal = copied({}, {})
    for name, value in (("", "NaN"), ("-1",
        "Infinity")): (journal.root / (trained.name + name) / "metrics.jsonl").write_text(
            f'{{"step":40,"seconds":1,"n":1,"terms":{{"loss":{value}}},"weights":{{}}}}\n')
    record = journal.begin(RUN)
    assert "best" not in record.facts and "previous" in record.facts
    record.close()


def test_numbers_that_are_not_finite_are_stored_counted_and_left_out_of_means(copied, trained):
    journal = copied({}, {"seed": 1}, {"seed": 2}, {"seed": 3})
    for name, value in (("", "1.0"), ("-1", "3.0"), ("-2", "NaN"), ("-3", "-Infinity")):
        (journal.root / (trained.name + name) / "metrics.jsonl").write_text(
            f'{{"step":40,"seconds":1,"n":1,"terms":{{"loss":{value}}},"weights":{{}}}}\n')
    table = journal.group("loss").iloc[0]
    assert table[("runs", "n")] == 4 and table[("loss", "n")] == 2 and table[("loss", "mean")] == 2.0
    assert "2 not finite" in journal.book(reports=[]).read_text(encoding="utf-8")
    assert journal.runs()["loss"].isna().sum() == 1 and np.isneginf(journal.runs()["loss"]).sum() == 1
    assert np.isnan(journal.run(f"{trained.name}-2").metrics().terms["loss"]).tolist() == [True]


@pytest.mark.parametrize("values, n, odd", [([], 0, 0), ([1.0], 1, 0), ([float("nan")], 0, 1), ([1.0, 3.0], 2, 0),
                                            ([1.0, float("inf"), 3.0, float("nan")], 2, 2)])
def test_an_interval_counts(values, n, odd):
    found = mean_interval(values)
    assert (found.n, found.odd) == (n, odd) and f"n = {n}" in str(found) and ("not finite" in str(found)) == (odd > 0)
    if n == 2:  # half-width t(0.975, 1) s / sqrt(2) = 12.706204736 for {1, 3}
        assert (found.mean == 2.0 and found.deviation == pytest.approx(2**0.5)
                and found.high - found.mean == pytest.approx(12.706204736, rel=1e-9))
    else: assert np.isnan(found.low) and np.isnan(found.high)


def change_points(journal, id): return [(step, name, old, new) for step, name, old, new in journal.run(id).metrics().changes]


def test_hot_changes_before_between_and_after_records(tmp_path):
    journal, trainer = Journal(tmp_path), Trainer(RUN, journal=tmp_path)
    trainer.set(pull=0.5)  # before the first: it is a setting of the run
    trainer.fit(10, progress=False)
    first = trainer.recorder.id
    assert journal.run(first).facts["settings"]["model"]["pull"] == 0.5 and change_points(journal, first) == []
    trainer.set(pull=1.0)  # between two records of one run
    assert change_points(journal, first) == []
    trainer.fit(10, progress=False)
    trainer.set(pull=2.0)
    trainer.set(learning_rate=0.01)
    trainer.fit(10, progress=False)
    expected = [(11, "model.pull", 0.5, 1.0), (21, "model.pull", 1.0, 2.0), (21, "train.learning_rate", 0.05, 0.01)]
    assert trainer.recorder.id == first and change_points(journal, first) == expected and only(journal)["changes"] == 3
    assert journal.run(first).metrics().weights["pull"] == [0.5, 1.0, 2.0]
    trainer.set(pull=3.0)  # after the last: another run begins with it
    trainer.rebuild().fit(10, progress=False)
    assert trainer.recorder.id != first and change_points(journal, first) == expected and change_points(journal, trainer.recorder.id) == []
    assert journal.run(trainer.recorder.id).facts["settings"]["model"]["pull"] == 3.0


def test_a_change_while_the_thread_trains_is_written_at_its_step(tmp_path):
    trainer = Trainer(RUN.replace(record_every=1), journal=tmp_path).start()
    for value in (1.0, 2.0, 3.0):
        until(lambda: trainer.step_count % 50 > 5)
        trainer.set(pull=value)
        step = trainer.step_count
        until(lambda: trainer.step_count > step + 20)  # noqa: B023
    trainer.stop()
    metrics = Journal(tmp_path).run(trainer.recorder.id).metrics()
    at = dict(zip(metrics.steps, metrics.weights["pull"]))
    assert [new for *_, new in metrics.changes] == [1.0, 2.0, 3.0]
    for step, _, old, new in metrics.changes: assert (at[step - 1], at[step]) == (old, new)


def test_a_run_changed_on_the_way_is_a_group_of_its_own(tmp_path):
    for seed in (0, 1, 2): Trainer(RUN.replace(seed=seed), journal=tmp_path).fit(40, progress=False)
    trainer = Trainer(RUN.replace(seed=3), journal=tmp_path).fit(20, progress=False)
    trainer.set(pull=1.0)
    trainer.fit(20, progress=False)
    journal = Journal(tmp_path)
    table = journal.group("loss")
    assert sorted(zip(table[("runs", "n")], table[("runs", "changed on the way")])) == [(1, True), (3, False)]
    losses = [row["metrics"]["loss"] for row in journal.rows() if not row["changes"]]
    assert table[table[("runs", "n")] == 3][("loss", "mean")].item() == pytest.approx(np.mean(losses))
    assert known_run(journal, RUN.replace(seed=3)) is None, "it was not trained with these settings"
    assert known_run(journal, RUN.replace(seed=2))["seed"] == 2


def test_a_seed_counts_once_and_only_beside_runs_of_its_length(tmp_path):
    "Three stops of one seed are no three seeds."
    journal = Journal(tmp_path)
    for steps in (40, 20, 30): Trainer(RUN, journal=tmp_path).fit(steps, progress=False)
    newest = Trainer(RUN, journal=tmp_path).fit(40, progress=False).recorder.id
    Trainer(RUN.replace(seed=1), journal=tmp_path).fit(40, progress=False)
    table = journal.group("loss")
    assert sorted(zip(table[("runs", "steps")], table[("runs", "n")])) == [(20, 1), (30, 1), (40, 2)]
    whole = next(rows for rows in journal.groups().values() if len(rows) == 2)
    assert sorted(row["seed"] for row in whole) == [0, 1] and newest in [row["id"] for row in whole]
    text = journal.book(reports=[]).read_text(encoding="utf-8")
    repeats = text[text.index("## Repeats: mean") : text.index("## All runs: mean")]
    assert repeats.count("\n| ") == 3 and "| 2 | 40 |" in repeats, "head, rule and the one group of two seeds"
    lengths = {row.split(" | ")[2] for row in text[text.index("## All runs: mean") :].splitlines() if row.startswith("| 20")}
    assert lengths == {"40", "20 of 40", "30 of 40"}
    assert journal.compare("loss", where=ANY) is not None, "groups that differ in nothing but their length are one curve"


def test_a_run_that_went_on_from_another_is_no_repeat_of_one_begun_anew(tmp_path):
    journal, first = Journal(tmp_path), Trainer(RUN, journal=tmp_path).fit(20, progress=False)
    Trainer(RUN, journal=tmp_path).fit(40, progress=False)
    again = Trainer(RUN, journal=tmp_path)
    again.load(first.recorder.id)
    again.fit(20, progress=False)
    assert journal.run(again.recorder.id).facts["parent"] == {"id": first.recorder.id, "step": 20} and again.step_count == 40
    table = journal.group("loss")
    assert sorted(zip(table[("runs", "steps")], table[("runs", "continued")],
                      table[("runs", "n")])) == [(20, False, 1), (40, False, 1), (40, True, 1)]
    assert "## Repeats" not in journal.book(reports=[]).read_text(encoding="utf-8")


def test_a_run_is_told_by_the_settings_at_its_end(tmp_path):
    "Lists, differences and groups are of what was in force, not of what was chosen before the first step."
    journal, trainer = Journal(tmp_path), Trainer(RUN, journal=tmp_path).fit(10, progress=False)
    trainer.set(pull=1.0)
    trainer.fit(20, progress=False)
    trainer.set(pull=2.0)
    trainer.fit(10, progress=False)
    row = only(journal)
    assert row["settings"]["model.pull"] == 2.0 and row["changes"] == 2 and journal.run(row["id"]).facts["settings"]["model"]["pull"] == 0.0
    after = Trainer(RUN.replace(pull=2.0, seed=1), journal=tmp_path).fit(40, progress=False)
    facts = journal.run(after.recorder.id).facts
    assert [c["path"] for c in facts["previous"]["changes"]] == [c["path"] for c in facts["best"]["changes"]] == ["train.seed"]
    listed = journal.runs()
    assert "model.pull" not in listed and sorted(listed["changes"]) == [0, 2]
    assert sorted(journal.group("loss")[("runs", "n")]) == [1, 1], "it is no repeat of a run with those settings from its first step"
    assert "done, changed on the way \\(2\\) | 40 |" in journal.book(reports=[]).read_text(encoding="utf-8")
    record = journal.begin(RUN)
    assert {(c["path"], c["old"]) for c in record.facts["previous"]["changes"]} == {("train.seed", 1), ("model.pull", 2.0)}
    record.close()


def test_a_change_that_no_step_saw_was_never_in_force(tmp_path):
    journal, trainer = Journal(tmp_path), Trainer(RUN, journal=tmp_path).start(20).wait()
    trainer.set(pull=1.0)
    trainer.stop()
    assert (only(journal)["steps"], only(journal)["settings"]["model.pull"]) == (20, 0.0)


@dataclass(frozen=True, kw_only=True)
class DataRun(MeanRun):
    "The mean image of one of two sets."
    data: str = setting("moons", kind="build", reason="the first")


def test_the_best_is_a_run_on_the_same_data(tmp_path):
    "A loss on other data is no better one."
    journal, made = Journal(tmp_path), {}
    for data, loss in (("moons", 0.1), ("images", 0.7), ("images", 0.5)):
        record = journal.begin(DataRun(data=data))
        record.log(10, 0.1, {"loss": loss}, {}, 10), record.state("done", step=10, seconds=0.1), record.close()
        made[loss] = record
    assert "best" not in made[0.7].facts and made[0.7].facts["previous"]["id"] == made[0.1].id
    record = journal.begin(DataRun(data="images").replace(pull=1.0, seed=4, learning_rate=0.01))
    assert (record.facts["best"]["id"] == made[0.5].id
            and {c["path"] for c in record.facts["best"]["changes"]} == {"model.pull", "train.seed", "train.learning_rate"})
    record.close()


def bounds(journal, seed, *, figures, kind=RUN):
    "A run with a term and a figure of one name."
    record = journal.begin(kind.replace(seed=seed, steps=10))
    record.log(10, 0.1, {"loss": 3.0, "elbo": -245.0 - seed}, {}, 10)
    if figures: record.judged(10, {"elbo": -260.0 - seed, "iw": -254.0}, [])
    record.state("done", step=10, seconds=0.1), record.close()
    return record.id


def test_a_number_says_whether_it_is_held_out_and_never_stands_in_for_the_other(tmp_path):
    journal = Journal(tmp_path)
    ids = [bounds(journal, seed, figures=seed < 2) for seed in range(3)]
    listed, group = journal.runs(), journal.group("elbo", "iw", "loss").iloc[0]
    assert listed.loc[ids[0], "elbo (held out)"] == -260.0 and "elbo" not in listed and np.isnan(listed.loc[ids[2], "elbo (held out)"])
    assert ((group["elbo", "measured on"], group["elbo", "n"], group["elbo", "mean"]) == ("held out", 2, -260.5)
            and group["loss", "measured on"] == "training")
    text = journal.book(reports=[]).read_text(encoding="utf-8")
    assert "elbo \\(held out\\)" in text and "iw \\(held out\\)" in text and "loss \\(training\\)" in text and "-245" not in text
    figure = journal.compare("elbo")
    assert (figure.axes[0].get_ylabel() == "elbo (held out)"
            and {float(v) for line in figure.axes[0].lines[:2] for v in line.get_ydata()} == {-260.0, -261.0})


def test_a_book_has_a_table_for_each_kind_with_its_own_columns(tmp_path):
    journal = Journal(tmp_path)
    for seed in range(2): bounds(journal, seed, figures=True), bounds(journal, 0, figures=True, kind=DataRun(data=f"set {seed}"))
    text = journal.book(reports=[]).read_text(encoding="utf-8")
    data, mean = text[text.index("## All runs: data") : text.index("## All runs: mean")], text[text.index("## All runs: mean") :]
    assert data.splitlines()[2] == "| run | state | steps | data | loss \\(training\\) | checks | note or error |"
    assert mean.splitlines()[2] == "| run | state | steps | seed | loss \\(training\\) | checks | note or error |"
    assert [part.count("| done |") for part in (data, mean)] == [2, 2] and text.count("## Repeats") == 1


def test_a_report_says_of_which_step_its_checks_are(tmp_path):
    trainer = Trainer(RUN.replace(check_every=10), journal=tmp_path).start(35).wait()
    trainer.stop()
    facts = run_facts(Journal(tmp_path).run(trainer.recorder.id), "done")
    assert [row["step"] for row in facts["checks"]] == [35] and "of step 35" in facts["checks_when"]


def test_what_is_kept_while_training_is_of_one_moment(tmp_path):
    "Checks, picture and the step that is named are of one moment."
    trainer = Trainer(RUN.replace(check_every=10**6), journal=tmp_path)
    trainer.start()
    until(lambda: trainer.step_count > 50)
    try: trainer.submit(keep_measured).result()
    finally: trainer.pause()
    run = Journal(tmp_path).run(trainer.recorder.id)
    steps = [row["step"] for row in run.checks()]
    trainer.stop()
    kept = [int(path.stem.removeprefix("step-")) for path in (run.folder / "figures").glob("step-*.npz")]
    assert any(step > 50 and step in steps for step in kept)


def test_a_change_early_in_a_long_run_is_not_forgotten(tmp_path):
    record = Journal(tmp_path).begin(RUN)
    record.changed(5, "model.pull", 0.0, 1.0)
    for step in range(10, 30_000, 10): record.log(step, 1.0, {"loss": 0.5, "square": 0.25, "pull": 0.1}, {"square": 1.0, "pull": 1.0}, 10)
    record.state("done", step=30_000, seconds=1.0)
    record.close()
    assert (record.folder / "metrics.jsonl").stat().st_size > index.END
    assert only(Journal(tmp_path))["changes"] == 1


def gone(journal, id):
    "Make a run look as if its process had been killed."
    edit_facts(journal.folder(id), state="running", by={"host": "x", "machine": machine(), "pid": 2**22 + 1, "began": "1"})


def test_what_a_lost_run_had_done_after_its_checkpoint_counts_no_more(tmp_path):
    journal, trainer = Journal(tmp_path), Trainer(RUN.replace(checkpoint_every=20, record_every=1), journal=tmp_path)
    trainer.fit(20, progress=False)
    record = journal.go_on(trainer.recorder.id, step=20)
    for step in range(21, 38): record.log(step, 1.0, {"loss": 99.0}, {}, 1)
    record.changed(30, "model.pull", 0.0, 5.0)
    record.close()
    gone(journal, trainer.recorder.id)
    assert only(journal)["state"] == "lost" and only(journal)["steps"] == 37
    again = Trainer(RUN.replace(record_every=1), journal=tmp_path).resume(trainer.recorder.id)
    again.fit(20, progress=False)
    metrics, row = journal.run(trainer.recorder.id).metrics(), only(journal)
    assert (metrics.steps == list(range(1, 41)) and 99.0 not in metrics.terms["loss"] and metrics.changes == []
            and (row["state"], row["steps"], row["changes"]) == ("done", 40, 0))
    straight = Trainer(RUN.replace(record_every=1), journal=tmp_path / "straight").fit(40, progress=False)
    assert metrics.terms == Journal(tmp_path / "straight").run(straight.recorder.id).metrics().terms


@pytest.mark.parametrize("end", ["done", "interrupted"])
def test_a_run_killed_before_its_first_checkpoint_does_not_hide_an_older_one(tmp_path, end):
    "Neither a resume without a name nor a sweep begins anew, nor trains one seed twice, because the newest run left nothing."
    journal = Journal(tmp_path)
    trainer = Trainer(RUN, journal=tmp_path).fit(40 if end == "done" else 10, progress=False)
    first = trainer.keep().recorder.id
    trainer.stop()
    edit_facts(journal.folder(first), state=end)
    killed = journal.begin(RUN)
    killed.close()
    gone(journal, killed.id)
    assert [(row["id"], row["state"]) for row in journal.rows()] == [(first, end), (killed.id, "lost")]
    assert has_checkpoint(journal.folder(first)) and not has_checkpoint(journal.folder(killed.id))
    assert known_run(journal, RUN)["id"] == first
    assert Trainer(RUN, journal=tmp_path).resume().step_count == (40 if end == "done" else 10)


def test_a_run_whose_newest_checkpoint_lost_its_name_is_still_one_to_resume(tmp_path):
    "The one before it is a checkpoint too: a kill between two renames leaves only that."
    trainer = Trainer(RUN, journal=tmp_path).fit(10, progress=False)
    path = trainer.checkpoint()
    trainer.stop()
    path.rename(path.with_suffix(".previous"))
    assert Trainer(RUN, journal=tmp_path).resume().step_count == 10


def test_a_change_that_a_checkpoint_holds_outlives_the_kill(tmp_path):
    journal, trainer = Journal(tmp_path), Trainer(RUN, journal=tmp_path)
    trainer.start(20).wait()
    trainer.set(pull=1.0)
    trainer.keep().stop()
    gone(journal, trainer.recorder.id)
    again = Trainer(RUN, journal=tmp_path).resume(trainer.recorder.id).fit(5, progress=False)
    assert again.run.get("pull") == 1.0 and only(journal)["changes"] == 1
    assert change_points(journal, trainer.recorder.id) == [(21, "model.pull", 0.0, 1.0)]
    assert known_run(journal, RUN) is None


def test_a_change_that_no_checkpoint_holds_does_not(tmp_path):
    journal, trainer = Journal(tmp_path), Trainer(RUN, journal=tmp_path)
    trainer.start(20).wait()
    trainer.set(pull=1.0)
    trainer.stop()
    gone(journal, trainer.recorder.id)
    again = Trainer(RUN, journal=tmp_path).resume(trainer.recorder.id).fit(5, progress=False)
    assert again.run.get("pull") == 0.0 and only(journal)["changes"] == 0 and change_points(journal, trainer.recorder.id) == []


def test_a_kill_between_two_moves_of_a_checkpoint_costs_nothing(tmp_path, monkeypatch):
    trainer = Trainer(RUN, journal=tmp_path).start(20).wait()
    replace = os.replace

    class Killed(BaseException): pass

    for kill in (0, 1, 2):
        trainer.start(10).wait()
        moves = []

        def killed(old, new, kill=kill, moves=moves):
            if len(moves) == kill: raise Killed
            moves.append(new)
            return replace(old, new)

        trainer.session.step += 1  # there is something new to save
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            with pytest.raises(Killed): trainer.checkpoint()
        assert len(moves) == kill
        found = newest_checkpoint(tmp_path / trainer.recorder.id)
        assert load_checkpoint(found)["step"] >= trainer.step_count - 1
        trainer.session.step -= 1
        trainer.checkpoint()
    trainer.stop()


def test_the_newest_readable_checkpoint_is_taken(tmp_path):
    trainer = Trainer(RUN, journal=tmp_path).fit(20, progress=False).fit(20, progress=False)
    path = newest_checkpoint(tmp_path / trainer.recorder.id)
    path.write_bytes(path.read_bytes()[:-100])
    again = Trainer(RUN, journal=tmp_path).resume(trainer.recorder.id)
    assert again.step_count == 20 and "The one before it was loaded." in again.notice
    again.fit(20, progress=False)
    assert all(np.array_equal(a, b) for a, b in zip([p.detach().numpy() for p in again.model.parameters()],
                                                    [p.detach().numpy() for p in trainer.model.parameters()]))
    assert only(Journal(tmp_path))["steps"] == 40


def test_a_run_held_by_somebody_is_not_built_on(tmp_path):
    holder = Trainer(RUN, journal=tmp_path).start()
    until(lambda: holder.step_count > 3)
    holder.pause()
    journal = Journal(tmp_path)
    assert only(journal)["state"] == "interrupted" and known_run(journal, RUN) is None
    holder.stop(finished=False)
    assert known_run(journal, RUN)["id"] == holder.recorder.id


def test_an_empty_name_is_not_the_newest_run(copied):
    with pytest.raises(ValueError): Trainer(RUN, journal=copied()).resume("")


# Two versions -----------------------------------------------------------------------------------------------------------

def other_version(settings):
    "What another version of the package could have written."
    values = json.loads(json.dumps(settings))
    values["model"]["future"], values["train"]["extra"] = 3, {"class": "Extra", "depth": 2}
    del values["train"]["record_every"]
    return values


def test_a_run_of_another_version_is_listed_compared_and_grouped(copied, trained):
    settings = as_dict(RUN)
    other = {"settings": other_version(settings), "digest": "0" * 16, "group": "1" * 16, "versions": {"latentlab": "9.9", "torch": "5.0"},
             "format": 2, "fresh key": [1, {"a": 2}]}
    journal = copied({}, other, other | {"seed": 1})
    reads_well(journal)
    table = journal.runs()
    assert {"model.future", "train.extra.depth", "train.record_every"} <= set(table.columns) and len(table) == 3
    different = journal.diff(trained.name, f"{trained.name}-1")
    assert different.loc["model.future"].tolist() == ["absent", 3] and different.loc["train.record_every"].tolist() == [10,
        "absent"] and different.loc["versions.latentlab"].tolist()[1] == "9.9"
    assert sorted(journal.group("loss")[("runs", "n")]) == [1, 2]
    record = journal.begin(RUN.replace(record_every=5))
    assert [(c["path"], c["old"], c["new"]) for c in record.facts["previous"]["changes"]] in ([("train.record_every", 10, 5)],
        ), "what the other did not know is compared with its default"
    record.close()
    assert journal.run(trained.name).settings(MeanRun) == RUN
    with pytest.raises(ValueError, match="future|extra"): journal.run(f"{trained.name}-1").settings(MeanRun)


def test_a_checkpoint_of_another_version_is_refused_in_words(copied, trained):
    journal = copied()
    path = newest_checkpoint(journal.folder(trained.name))
    state = load_checkpoint(path)
    save_checkpoint(state | {"settings": json.dumps({"version": "9.9", "settings": other_version(as_dict(RUN))})}, path)
    for older in path.parent.glob("*.previous"): older.unlink()  # one that can be read would be taken instead
    for call in (Trainer(RUN, journal=journal).resume, Trainer(RUN, journal=journal).load):
        with pytest.raises(ValueError, match="known keys"): call(trained.name)
    assert to_json(RUN) == state["settings"]


def test_runs_without_their_identity_are_not_thrown_together(copied, trained):
    slow, fast = (as_dict(RUN.replace(learning_rate=rate)) for rate in (0.01, 0.05))
    gone_keys = {"group": GONE, "digest": GONE}
    journal = copied({"settings": slow} | gone_keys, {"settings": fast} | gone_keys,
                     {"settings": as_dict(RUN.replace(learning_rate=0.05, seed=1)), "seed": 1} | gone_keys)
    assert sorted(journal.group("loss")[("runs", "n")]) == [1, 2]


def test_a_hot_setting_that_the_older_version_did_not_have_is_no_change(tmp_path):
    trainer, journal = Trainer(RUN, journal=tmp_path).fit(20, progress=False), Journal(tmp_path)
    settings = as_dict(RUN)
    del settings["model"]["pull"]
    edit_facts(journal.folder(trainer.recorder.id), settings=settings)
    Trainer(RUN, journal=tmp_path).resume(trainer.recorder.id).fit(20, progress=False)
    assert only(journal)["changes"] == 0 and change_points(journal, trainer.recorder.id) == []


def test_runs_of_two_kinds(copied, trained):
    journal = copied({}, {"kind": "other", "settings": {"class": "OtherRun", "model": {"class": "Other", "depth": 3}, "seed": 4},
                          "info": {"data": "x"}})
    different = journal.diff(trained.name, f"{trained.name}-1")
    assert different.loc["model.depth"].tolist() == ["absent", 3] and different.loc["model.pull"].tolist() == [0.0,
        "absent"] and different.loc["info.data"].tolist() == ["absent", "x"]
    assert journal.runs("other").index.tolist() == [f"{trained.name}-1"] and len(journal.runs()) == 2
    with pytest.raises(ValueError, match="`class` must be MeanRun: got OtherRun"): journal.run(f"{trained.name}-1").settings(MeanRun)
    assert reads_well(journal)


# The book ---------------------------------------------------------------------------------------------------------------

HOSTILE = ["<script>alert(1)</script>", "<b", "**bold** _x_ `code`", "[a](javascript:alert)", "# head", "- item", "- [ ] do", "1. one",
           "2) two", "---", "***",
    "===", "> quote", "a | b",
           "&lt;b&gt; &amp;", "$x^2$ $$y$$", "~~s~~", "    code", "a\n\n---\nb", "+ plus", "* star", "[^1]: foot", "\\*x\\*", "<!-- x -->",
           "a\tb", "``` x", "|---|",
           "@all #3 :smile:"]


def rendered(text):
    "What a reader of Markdown shows, and the elements it shows it with."
    mistune = pytest.importorskip("mistune")
    out = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "task_lists", "footnotes", "math", "def_list",
                                                         "mark"])(text)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", out)).split()), set(re.findall(r"<(\w+)", out))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_person_writes_is_shown_as_text(text):
    shown = " ".join(text.split())
    assert rendered(f"> {harmless(text)}\n") == (shown, {"blockquote", "p"})
    found, elements = rendered(markdown_table(["a", text], [[1, text], [text, 2.0]]) + "\n")
    assert found == f"a {shown} 1 {shown} {shown} 2" and elements == {"table", "thead", "tbody", "tr", "th", "td"}


def test_a_book_with_hostile_notes_settings_and_errors(copied, trained):
    settings = as_dict(RUN)
    odd = {**settings, "model": {**settings["model"], "<img src=x>": "<img src=x onerror=alert(1)>"}}
    journal = copied({"settings": odd, "info": {"data": "<svg onload=x>"}}, {"state": "failed", "error": "E: <iframe>|x\n<iframe src=y>"})
    for text in HOSTILE: journal.note(trained.name, text)
    page = journal.book(reports=[trained.name]).read_text(encoding="utf-8")
    shown, elements = rendered(page)
    assert elements <= {"h1", "h2", "p", "blockquote", "img", "table", "thead", "tbody", "tr", "th", "td"} and page.count("<") == 0
    for text in (*HOSTILE, "<iframe src=y>", "<img src=x onerror=alert(1)>", "<svg onload=x>"): assert " ".join(text.split()) in shown, text
    assert (journal.root / "book" / f"{trained.name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["a\ud800b", "a\0b", "\x1b[31mred", "‮right to left", "🙂" * 300, "x" * 100_000])
def test_odd_characters_are_kept_and_shown(copied, trained, text):
    journal = copied()
    journal.note(trained.name, text)
    assert journal.run(trained.name).notes()[0]["text"] == text and journal.runs()["note"].tolist() == [text]
    assert journal.book().is_file()


@pytest.mark.parametrize("text", ["", "  \n ", None, 5])
def test_a_note_says_something(copied, trained, text, unchecked):
    with pytest.raises(ValueError, match="`text` must say something"): copied().note(trained.name, text)


def test_notes_and_marks_are_appended(copied, trained):
    journal = copied()
    for text in ("one", "two"): journal.note(trained.name, text)
    journal.keep(trained.name)
    assert ([note["text"] for note in journal.run(trained.name).notes()] == ["one", "two"] and only(journal)["kept"]
            and journal.runs()["note"].tolist() == ["one"])
    journal.keep(trained.name, False)
    assert not only(journal)["kept"] and len(read_lines(journal.folder(trained.name) / "notes.jsonl").rows) == 4


def test_a_note_that_cannot_be_written_is_refused(copied, trained, disk):
    journal = copied()
    disk(True)
    with pytest.raises(OSError, match="No space"): journal.note(trained.name, "lost?")
    disk(False)
    assert journal.run(trained.name).notes() == []


def test_the_code_difference_may_be_any_bytes(copied, trained):
    journal = copied({}, {})
    (journal.root / trained.name / "code.diff").write_bytes(b"+\xff\xfe\n+x\n")
    assert (journal.diff(trained.name, f"{trained.name}-1").loc["uncommitted lines"].tolist() == [2, 0]
            and journal.report(trained.name) is not None)


def test_a_lock_does_not_bring_a_deleted_run_back(copied, trained):
    journal = copied()
    folder = journal.folder(trained.name)
    lock = Lock(folder / "lock")
    shutil.rmtree(folder)
    try: lock.take()
    except OSError: pass
    lock.release()
    assert journal.rows() == []
