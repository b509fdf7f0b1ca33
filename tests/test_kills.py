"""Kills at random moments, of a training, a sweep's worker and its driver: every run ends in a true state, every checkpoint
loads, what goes on ends with the same bits.
"""
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import hunter
import pytest
import torch
from latentlab.journal.files import process_began, read_json, read_lines
from latentlab.journal.index import surviving
from latentlab.journal.journal import Journal
from latentlab.journal.writer import has_checkpoint, newest_checkpoint
from latentlab.sweeps.plan import Plan
from latentlab.sweeps.sweep import Sweep
from latentlab.sweeps.workers import train_one
from latentlab.train.checkpoint import load_checkpoint
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

RUN = MeanRun().replace(steps=400, checkpoint_every=20)
PREY = """
import signal
import torch
torch.set_num_threads(1)
from latentlab.journal.files import read_json
from latentlab.sweeps.sweep import Sweep
from latentlab.sweeps.workers import train_one
from latentlab.train.trainer import Trainer

def train(run, root, ready):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ready.set()
    train_one(run, root)

def fit(run, root, ready):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ready.set()
    trainer = Trainer(run, journal=root)
    try: trainer.resume()
    except ValueError: pass
    if trainer.step_count < run.train.steps: trainer.fit(progress=False)
    elif read_json(trainer.recorder.folder.parent / "run.json")["state"] != "done": trainer.finish()  # killed before its last word

def drive(plan, root, ready):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ready.set()
    Sweep(plan, root, workers=1).start().wait(progress=False)
"""


@pytest.fixture(scope="module")
def prey(tmp_path_factory):
    "A server that forks processes with everything imported, and the functions they run: a kill costs no start of an interpreter."
    folder = tmp_path_factory.mktemp("prey")
    (folder / "latentlab_prey.py").write_text(PREY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("LATENTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(folder)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["latentlab_prey", "latentlab.sweeps.sweep", *hunter.PRELOAD[:2]])
        import latentlab_prey
        yield lambda name, *words: begin(context, getattr(latentlab_prey, name), words)


def begin(context, function, words):
    ready = context.Event()
    process = context.Process(target=function, args=(*words, ready))
    process.start()
    assert ready.wait(60)
    return process


@pytest.fixture(scope="module")
def straight(tmp_path_factory, prey):
    "Runs that nobody killed: the checkpoint at the end and the history, by seed, and how long one takes."
    journal, found = Journal(tmp_path_factory.mktemp("straight")), {}

    def ended(seed, run=RUN):
        if (key := (seed, run.train.steps)) not in found:
            outcome = train_one(run.replace(seed=seed), journal.root)
            assert outcome.state == "done", outcome.error
            found[key] = load_checkpoint(newest_checkpoint(journal.folder(outcome.id))), journal.run(outcome.id).metrics(), outcome.seconds
        return found[key]

    return ended


def until(condition, seconds=60.0, pause=0.0005):
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "waited too long"
        time.sleep(pause)
    return found


def whole_lines(path):
    "Every line but the one that was being written is whole."
    try: data = path.read_bytes()
    except FileNotFoundError: return
    *lines, tail = data.split(b"\n")
    broken = 0
    for line in lines:
        try: json.loads(line) if line else None
        except ValueError: broken += 1  # the last of a killed process, ended by the next one
    went_on = data.count(b'"went_on"')
    assert broken <= went_on, f"{broken} broken lines after {went_on} starts"


def true_and_whole(root: Path, *, alive=()):
    "What must hold after every kill. Gives how far each run is."
    journal, seen = Journal(root), {}
    for row in journal.rows():
        assert row["state"] in ("done", "interrupted", "lost", "running"), row
        if row["state"] == "running":
            by = row["by"]
            assert by["pid"] in alive and process_began(by["pid"]) == by["began"], f"a dead process runs: {row}"
        assert row["state"] != "done" or row["steps"] == RUN.train.steps or row["steps"] >= 1000
        seen[row["id"]] = row
    for folder in (p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if (folder / "run.json").exists(): read_json(folder / "run.json")
        for path in (folder / "checkpoints").glob("*"):
            if path.suffix in (".ckpt", ".previous", ".new", ".link") and not path.name.startswith("."): load_checkpoint(path)
        for name in ("metrics", "checks"): whole_lines(folder / f"{name}.jsonl")
    return seen


def same_end(journal, id, expected, *, lines):
    "The run ended with the bits of one that was never killed; and with its history, unless interrupts wrote lines of their own."
    state, (whole, metrics, _) = load_checkpoint(newest_checkpoint(journal.folder(id))), expected
    assert state["step"] == whole["step"] and state["settings"] == whole["settings"]
    for name, tensor in whole["model"].items(): assert torch.equal(state["model"][name], tensor), name
    for mine, theirs in zip(state["optimisers"], whole["optimisers"], strict=True):
        for key, values in theirs["state"].items():
            for name, value in values.items(): assert torch.equal(torch.as_tensor(mine["state"][key][name]), torch.as_tensor(value)), name
    for name, column in whole["history"]["columns"].items(): assert torch.equal(state["history"]["columns"][name], column), name
    found = journal.run(id).metrics()
    if lines: assert (found.steps, found.terms, found.weights, found.probes, found.changes) == (
        metrics.steps, metrics.terms, metrics.weights, metrics.probes, [])
    assert dict(found.probes["level"])[400 if whole["step"] == 400 else whole["step"]] == dict(metrics.probes["level"])[whole["step"]]


def phase(root, process):
    "Where a training is just now."
    runs = [p for p in root.iterdir() if not p.name.startswith(".")] if root.exists() else []
    if not process.is_alive(): return "over"
    if not runs: return "building"
    newest = max(runs, key=lambda p: p.stat().st_mtime_ns)
    parts = newest / "checkpoints"
    if any(p.name.startswith(".") or p.suffix == ".new" for p in (parts.iterdir() if parts.exists() else ())): return "checkpointing"
    try: data = (newest / "metrics.jsonl").read_bytes()
    except FileNotFoundError: return "building"
    return "closing" if b'"step":400,"seconds"' in data[-400:] else "training"


def hunt(prey, straight, root, how, kills, seed, *, signals=(signal.SIGKILL,)):
    "Kill trainings until there were enough kills; each goes on from where the last one was killed. Gives the phases that were hit."
    draw, phases, number, lines = random.Random(seed), [], 0, signals == (signal.SIGKILL,)  # an interrupt writes a line of its own
    span = max(0.3, 1.5 * straight(0)[2])
    while len(phases) < kills:
        aim = ("time", "checkpointing", "closing", "time", "time")[len(phases) % 5]
        process = prey(how, RUN.replace(seed=number), root)
        if aim == "time": process.join(draw.uniform(0, span))
        else: until(lambda: phase(root, process) in (aim, "closing", "over"))  # noqa: B023
        where = phase(root, process)
        if process.is_alive():
            os.kill(process.pid, draw.choice(signals))
            phases.append(where)
        process.join(60)
        assert process.exitcode is not None
        seen = true_and_whole(root)
        if any(row["state"] == "done" and row["seed"] == number for row in seen.values()): number += 1
    for left in range(number + 1):
        process = prey(how, RUN.replace(seed=left), root)
        process.join(60)
        assert process.exitcode == 0
    true_and_whole(root)
    journal = Journal(root)
    for left in range(number + 1):
        (row,) = [row for row in journal.rows() if row["seed"] == left and row["state"] == "done"]
        same_end(journal, row["id"], straight(left), lines=lines)
    return phases


def test_a_training_that_is_killed_now_and_then(prey, straight, tmp_path):
    phases = hunt(prey, straight, tmp_path / "runs", "train", 2, 1)
    assert "checkpointing" in phases or "closing" in phases or "training" in phases, phases


@pytest.mark.slow
@pytest.mark.parametrize("how, kills, seed, signals", [
    ("train", 10, 2, (signal.SIGKILL,)), ("fit", 5, 3, (signal.SIGKILL, signal.SIGTERM)), ("fit", 5, 4, (signal.SIGINT, signal.SIGKILL))],
    ids=["kill", "term", "interrupt"])
def test_a_training_that_is_killed_at_every_phase(prey, straight, tmp_path, how, kills, seed, signals):
    phases = hunt(prey, straight, tmp_path / "runs", how, kills, seed, signals=signals)
    assert len(phases) == kills and len(set(phases)) >= 2, phases


UNEVEN = MeanRun().replace(steps=120, checkpoint_every=7, record_every=3)


def steps_in_lines(journal, id):
    "Each step of a run as its lines count it, and whether they leave no gap and no overlap."
    rows = [row for row in surviving(read_lines(journal.folder(id) / "metrics.jsonl").rows) if isinstance(row.get("terms"), dict)]
    ends = [row["step"] for row in rows]
    return [step for row in rows for step in range(row["step"] - row["n"] + 1, row["step"] + 1)], ends == sorted(ends)


def every_step_once(prey, root, kills, seed):
    "Kill one run at random moments until it is done; then each step stands in exactly one line."
    journal, draw, killed = Journal(root), random.Random(seed), 0
    while not any(row["state"] == "done" for row in journal.rows()):
        process = prey("fit", UNEVEN, root)
        if killed < kills:
            goal = draw.randrange(1, 40) + max((row["steps"] for row in journal.rows()), default=0)
            until(lambda: not process.is_alive() or any(row["steps"] >= goal for row in journal.rows()), pause=0.001)  # noqa: B023
            process.join(draw.uniform(0, 0.01))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
        process.join(60)
    rows = journal.rows()
    (done,) = [row for row in rows if row["state"] == "done"]
    left = [row["state"] for row in rows if row is not done and has_checkpoint(journal.folder(row["id"]))]
    assert left == [], "only a run that was killed before its first checkpoint is begun anew"
    assert steps_in_lines(journal, done["id"]) == (list(range(1, 121)), True), f"after {killed} kills"
    return killed


def test_every_step_stands_in_one_line_after_a_few_kills(prey, tmp_path):
    assert every_step_once(prey, tmp_path / "runs", 2, 7) >= 1


@pytest.mark.slow
def test_every_step_stands_in_one_line_after_thirty_kills(prey, tmp_path):
    assert sum(every_step_once(prey, tmp_path / str(seed), 6, seed) for seed in range(10)) >= 30


@pytest.mark.parametrize(("kind", "kills", "runs"), [("hvae", 2, 1), *(pytest.param(kind, 5, 3, marks=pytest.mark.slow)
                                                                       for kind in hunter.KINDS)])
def test_runs_of_every_kind_end_with_the_bits_of_one_that_nobody_killed(prey, tmp_path, kind, kills, runs):
    "Random intervals of saving, recording and measuring; `benchmarks/kills.py` does the same two hundred times."
    begin = hunter.processes()
    hunted = [hunter.hunt(begin, kind, kills, seed, tmp_path / str(seed)) for seed in range(runs)]
    assert [one.faults for one in hunted] == [()] * runs and sum(one.kills for one in hunted) >= runs


def test_the_measurement_before_the_first_step_is_recorded_however_a_run_is_trained(tmp_path):
    Trainer(RUN.replace(steps=20), journal=tmp_path / "fit").fit(progress=False)
    assert train_one(RUN.replace(steps=20), tmp_path / "thread").state == "done"
    found = [dict(Journal(root).run(Journal(root).rows()[0]["id"]).metrics().probes) for root in (tmp_path / "fit", tmp_path / "thread")]
    assert found[0] == found[1] and found[0]["level"][0][0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_the_step_it_was_at(prey, tmp_path, number):
    process = prey("fit", RUN.replace(steps=100_000), tmp_path / "runs")
    until(lambda: (tmp_path / "runs").exists() and any(row["steps"] > 50 for row in Journal(tmp_path / "runs").rows()), pause=0.02)
    os.kill(process.pid, number)
    process.join(60)
    journal = Journal(tmp_path / "runs")
    (row,) = journal.rows()
    assert row["state"] == "interrupted" and load_checkpoint(
        newest_checkpoint(journal.folder(row["id"])))["step"] == row["steps"] == journal.run(row["id"]).metrics().steps[-1]


def running(journal):
    return [row for row in journal.rows() if row["state"] == "running"]


LONG = MeanRun().replace(steps=1500, checkpoint_every=50)


@pytest.mark.slow
def test_a_sweep_whose_worker_is_killed_again_and_again(prey, straight, tmp_path):
    plan, draw, journal, killed = Plan(base=LONG, seeds=range(3)), random.Random(5), Journal(tmp_path / "runs"), []
    sweep, over = Sweep(plan, journal, workers=1, retries=20).start(), threading.Event()
    while len(killed) < 4 and sweep.state == "running":
        rows = until(lambda: [row for row in running(journal) if row["by"]["pid"] not in killed] or sweep.state != "running", pause=0.01)
        if rows is True: break
        over.wait(draw.uniform(0, 0.8))
        killed.append(rows[0]["by"]["pid"])
        try: os.kill(killed[-1], signal.SIGKILL)
        except ProcessLookupError: pass
        until(lambda: not process_began(killed[-1]))
        true_and_whole(journal.root, alive=[row["by"]["pid"] for row in running(journal) if row["by"]["pid"] != killed[-1]])
    sweep.wait(progress=False, timeout=120)
    assert len(killed) == 4 and (sweep.progress().done, sweep.progress().failed, sweep.state) == (3, 0, "done"), sweep.outcomes
    assert len(journal.rows()) <= 3 + len(killed)
    for seed in range(3):
        (row,) = [row for row in journal.rows() if row["seed"] == seed and row["state"] == "done"]
        same_end(journal, row["id"], straight(seed, LONG), lines=True)


def children(pid):
    "Processes that a process has started."
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try: fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError: continue
        if int(fields[1]) == pid: found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["kill", "term", "interrupt"])
def test_a_sweep_whose_driver_is_killed(prey, straight, tmp_path, number):
    plan, draw, journal, kills = Plan(base=LONG.replace(steps=3000), seeds=range(2)), random.Random(number), Journal(tmp_path / "runs"), 0
    for _ in range(4):
        driver, before = prey("drive", plan, journal.root), {row["id"]: row["steps"] for row in journal.rows()}
        grown = lambda d=driver, b=before: not d.is_alive() or any(row["steps"] > b.get(row["id"], 0) for row in running(journal))
        until(grown, pause=0.01)
        driver.join(draw.uniform(0, 0.5))
        if not driver.is_alive() or kills == 2: break
        workers = [(pid, process_began(pid)) for pid in children(driver.pid)]
        os.kill(driver.pid, number)
        kills += 1
        driver.join(30)
        until(lambda: not any(process_began(pid) == began for pid, began in workers), seconds=15, pause=0.02)  # noqa: B023
        seen = true_and_whole(journal.root)
        assert workers and all(row["state"] in ("interrupted", "lost", "done") for row in seen.values()) and seen
        assert any(row["state"] == "interrupted" for row in seen.values()), "its worker ends after a step, and says so"
    driver.join(60)
    assert kills >= 1 and driver.exitcode == 0 and sorted(row["state"] for row in journal.rows()) == ["done", "done"]
    for row in journal.rows(): same_end(journal, row["id"], straight(row["seed"], plan.base), lines=False)
