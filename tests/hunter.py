"""Runs that are killed again and again until they are done, and what must hold after each kill and at the end. Used by
`tests/test_kills.py` with a few kills and by `benchmarks/kills.py` with hundreds.
"""
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from latentlab.core.settings import Settings
from latentlab.facade import make_run
from latentlab.journal.files import process_began, read_json, read_lines
from latentlab.journal.index import surviving
from latentlab.journal.journal import Journal
from latentlab.journal.writer import has_checkpoint, newest_checkpoint
from latentlab.sweeps.workers import train_one
from latentlab.train.checkpoint import load_checkpoint
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

KINDS = {  # Small runs of each kind: how they are made, and their steps
    "example": (lambda: MeanRun(), 400),
    "hvae": (lambda: make_run("hvae", {"data": "moons", "points": 400, "batch": 32}), 200),
    "nem": (lambda: make_run("nem", {"images": 64, "batch": 8}), 40),
    "ssl": (lambda: make_run("ssl", {"images": 64, "batch": 16}), 30),
}
PRELOAD = ["hunter", "latentlab.families.hvae.experiment", "latentlab.families.nem.experiment", "latentlab.families.ssl.experiment"]


def fit(run: Settings, root: Path, ready: Any) -> None:
    "A script that trains a run, or goes on with it; what a killed process runs."
    begun(ready)
    trainer = Trainer(run, journal=root)
    try: trainer.resume()
    except ValueError as error: (root / f"anew-{os.getpid()}.txt").write_text(str(error))
    if trainer.step_count < run.train.steps: trainer.fit(progress=False)
    elif read_json(trainer.recorder.folder.parent / "run.json")["state"] != "done": trainer.finish()  # killed before its last word


def work(run: Settings, root: Path, ready: Any) -> None:
    "A sweep's worker, which trains on a thread."
    begun(ready)
    outcome = train_one(run, root)
    assert outcome.state in ("done", "found"), outcome


def begun(ready: Any) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ready.set()


def processes() -> Callable[[str, Settings, Path], Any]:
    "Begins processes by the fork server, whose preloaded modules are the caller's to name."
    context = multiprocessing.get_context("forkserver")

    def begin(how: str, run: Settings, root: Path) -> Any:
        ready = context.Event()
        process = context.Process(target={"fit": fit, "work": work}[how], args=(run, root, ready))
        process.start()
        assert ready.wait(300)
        return process

    return begin


@dataclass(frozen=True, kw_only=True)
class Hunted:
    "What became of one run that was killed."
    kind: str
    kills: int  # SIGKILLs that hit a living process
    training: int  # Of them while the run's record said running and steps were left
    checkpoints: int  # Files that were read back, after every kill
    faults: tuple[str, ...]  # What did not hold


def draw_run(kind: str, draw: random.Random) -> Settings:
    "A run of a kind whose saving, recording and measuring have random intervals."
    make, steps = KINDS[kind]
    return make().replace({"train.steps": steps, "train.seed": draw.randrange(1000), "train.device": "cpu",
                           "train.checkpoint_every": draw.randint(1, max(2, steps // 8)), "train.record_every": draw.randint(1, 11),
                           "train.check_every": draw.randint(5, steps)})


def trained_by(journal: Journal, pid: int, steps: int) -> bool:
    "Whether a process is in the middle of a run just now."
    for path in journal.root.glob("[0-9]*/run.json"):
        try: facts = read_json(path)
        except ValueError: continue
        if facts["by"]["pid"] == pid and facts["state"] == "running":
            return not any(row.get("step") == steps and "terms" in row for row in read_lines(path.parent / "metrics.jsonl", last=4000).rows)
    return False


def after_a_kill(journal: Journal, steps: int) -> tuple[int, list[str]]:
    "Checkpoints that were read, and what does not hold though nobody lives."
    read, faults = 0, []
    for row in journal.rows():
        if row["state"] not in ("lost", "done", "interrupted"): faults.append(f"state {row['state']} of a dead process")
        if row["state"] == "done" and row["steps"] != steps: faults.append(f"done at step {row['steps']}")
        for path in (journal.folder(row["id"]) / "checkpoints").glob("*"):
            if path.name.startswith(".") or path.suffix not in (".ckpt", ".previous", ".new", ".link"): continue
            try: read += load_checkpoint(path)["step"] > 0
            except Exception as error: faults.append(f"{path.name}: {error}")
    return read, faults


def steps_in_lines(journal: Journal, id: str) -> list[int]:
    "Each step of a run as its lines count it."
    rows = [row for row in surviving(read_lines(journal.folder(id) / "metrics.jsonl").rows) if isinstance(row.get("terms"), dict)]
    return [step for row in rows for step in range(row["step"] - row["n"] + 1, row["step"] + 1)]


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    "Names of what is not equal to the bit in two checkpoints, but for the seconds that they took."
    if isinstance(one, torch.Tensor): same = torch.equal(one, other) or bool((one.isnan() & other.isnan() | (one == other)).all())
    elif isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys(): return [f"{name}: keys"]
        return [found for key in one if key != "seconds" for found in differences(one[key], other[key], f"{name}.{key}")]
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other): return [f"{name}: length"]
        return [found for i, pair in enumerate(zip(one, other)) for found in differences(*pair, f"{name}.{i}")]
    else: same = one == other
    return [] if same else [name]


def at_the_end(journal: Journal, run: Settings, whole: Path) -> list[str]:
    "What does not hold of the run that is done."
    done = [row for row in journal.rows() if row["state"] == "done"]
    if len(done) != 1: return [f"{len(done)} runs are done"]
    left = [row["id"] for row in journal.rows() if row["state"] != "done" and has_checkpoint(journal.folder(row["id"]))]
    why = [path.read_text() for path in sorted(journal.root.glob("anew-*.txt"))]
    faults = [f"begun anew beside a checkpoint: {left}; {why}"] if left else []
    (id,), (straight,) = [row["id"] for row in done], Journal(whole).rows()
    lines = steps_in_lines(journal, id)
    if lines != list(range(1, run.train.steps + 1)): faults.append(f"steps in lines: {lines}")
    mine, theirs = journal.run(id).metrics(), Journal(whole).run(straight["id"]).metrics()
    if (mine.steps, mine.terms, mine.weights) != (theirs.steps, theirs.terms, theirs.weights): faults.append("other lines")
    if mine.probes != theirs.probes: faults.append("other held-out figures, or some of them twice")
    states = [load_checkpoint(newest_checkpoint(one.folder(name))) for one, name in ((journal, id), (Journal(whole), straight["id"]))]
    return faults + [f"bits of {name}" for name in differences(*states)]


def hunt(begin: Callable[[str, Settings, Path], Any], kind: str, kills: int, seed: int, root: Path) -> Hunted:
    "Kill one run at random moments up to `kills` times; each process goes on from where the last one was killed."
    draw = random.Random(f"{kind} {seed}")
    run = draw_run(kind, draw)
    started = time.monotonic()
    straight = begin("fit", run, root / "whole")
    straight.join()
    span, steps, journal = time.monotonic() - started, run.train.steps, Journal(root / "killed")
    hit, training, read, faults = 0, 0, 0, [] if straight.exitcode == 0 else ["the undisturbed run failed"]
    for _ in range(4 * kills + 8):
        if any(row["state"] == "done" for row in journal.rows()): break
        process = begin(draw.choice(("fit", "fit", "work")), run, root / "killed")
        if hit < kills:
            if draw.random() < 0.3: process.join(draw.uniform(0, span))
            else:  # at a step further on than it was, as far as its record tells, and a moment later
                goal = max((row["steps"] for row in journal.rows()), default=0) + draw.randint(0, max(1, 2 * steps // (kills + 1)))
                while process.is_alive() and not any(row["steps"] >= goal and row["state"] == "running" for row in journal.rows()):
                    time.sleep(0.002)
                process.join(draw.uniform(0, 0.02))
            in_training = trained_by(journal, process.pid, steps)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                hit, training = hit + 1, training + in_training
        process.join()
        assert not process_began(process.pid)
        if process.exitcode not in (0, -signal.SIGKILL): faults.append(f"exit code {process.exitcode}")
        seen, wrong = after_a_kill(journal, steps)
        read, faults = read + seen, faults + wrong
    return Hunted(kind=kind, kills=hit, training=training, checkpoints=read, faults=tuple(faults + at_the_end(journal, run, root / "whole")))
