"""What the journal costs and how fast it is read, in one run: a line, a step with and without it, the index, ten thousand runs, a new run among 2,000, a sweep.

python benchmarks/journal.py [--parts line step index list start sweep] [--rounds 8] [--steps 100] [--runs 10000] [--short 150] [--turns 2]
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import machine, table  # noqa: E402

from latentlab.core.runtime import choose_device  # noqa: E402
from latentlab.journal.journal import Journal  # noqa: E402
from latentlab.families.nem.experiment import NEMRun  # noqa: E402
from latentlab.sweeps.plan import Plan  # noqa: E402
from latentlab.sweeps.sweep import Sweep  # noqa: E402
from latentlab.sweeps.workers import Pool, train_one  # noqa: E402
from latentlab.train.example import MeanRun  # noqa: E402
from latentlab.train.trainer import Trainer  # noqa: E402

PARTS = ("line", "step", "index", "list", "start", "sweep")
TERMS = {name: 0.1234567 for name in ("loss", "distance", "hard_distance", "area", "kl", "entropy", "line", "binary", "collapse",
                                      "gradient_norm")}
WEIGHTS = {name: 1.0 for name in list(TERMS)[1:-1]}


def per_cent(values, part): return sorted(values)[min(len(values) - 1, int(part / 100 * len(values)))]


def line(a, folder):
    "One call of `Record.log` with ten terms."
    record, spent = Journal(folder / "line").begin(MeanRun()), []
    for step in range(20_000):
        begun = time.perf_counter()
        record.log(step, 1.0, TERMS, WEIGHTS, 10)
        spent.append(1e3 * (time.perf_counter() - begun))
    record.close()
    return [("one line of ten terms, median", f"{statistics.median(spent):.4f} ms", "under 0.05 ms"),
            ("the same, 99 % of calls", f"{per_cent(spent, 99):.4f} ms",
        ""), ("the same, slowest of 20,000", f"{max(spent):.3f} ms", "")]


class Timed:
    "The recorder's part of each step, measured."

    def __init__(self, trainer):
        self.spent, self.trainer = 0.0, trainer
        for name in ("begin", "stepped"): setattr(trainer.recorder, name, self.around(getattr(trainer.recorder, name)))

    def around(self, call):
        def timed(*words):
            begun = time.perf_counter()
            call(*words)
            self.spent += time.perf_counter() - begun

        return timed


def step(a, folder):
    "A masker's training step with a journal and without, in turns."
    device = choose_device()
    run = NEMRun().replace(data="fashion-mnist", checkpoint_every=10**6, check_every=10**6, steps=10**6)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    plain, kept = Trainer(run), Trainer(run, journal=folder / "step")
    for trainer in (plain, kept): trainer.start(a.steps).wait()
    inside = Timed(kept)

    def timed(trainer):
        wait()
        begun = clock()
        trainer.start(a.steps).wait()
        wait()
        return clock() - begun

    rounds = []
    for turn in range(a.rounds):
        rounds.append([timed(trainer) for trainer in ((plain, kept), (kept, plain))[turn % 2]][:: 1 if turn % 2 == 0 else -1])
    whole = sum(k for _, k in rounds)
    for trainer in (plain, kept): trainer.stop()
    ratios, each = [k / p - 1 for p, k in rounds], 1e3 * statistics.median(p for p, _ in rounds) / a.steps
    return [
        (f"NEM on fashion-mnist, {device}: a step without a journal, median of {a.rounds} blocks of {a.steps}", f"{each:.2f} ms", ""),
        ("share of a step spent in the recorder, measured inside", f"{100 * inside.spent / whole:.3f} %", "under 1 %"),
        ("blocks with a journal against those without, median (ends of blocks, with their picture and state, included)",
        f"{100 * statistics.median(ratios):+.2f} %, from {100 * min(ratios):+.2f} to {100 * max(ratios):+.2f}", ""),
    ]


def synthesise(root, runs, points):
    "Folders as a trainer writes them, copied from one that it wrote."
    trainer = Trainer(NEMRun().replace(encoder="untrained", images=64, batch=8, layers=2, width=4, steps=10, device="cpu"),
                      journal=root).fit(10, progress=False)
    first = root / trainer.recorder.id
    facts = json.loads((first / "run.json").read_text())
    (first / "code.diff").write_text("")
    lines = "".join(json.dumps({"step": 10 * k, "seconds": k / 10, "n": 10, "terms": TERMS, "weights": WEIGHTS}, separators=(",", ":"))
                    + "\n" for k in range(1, points + 1))
    checks = (first / "checks.jsonl").read_text()
    for number in range(runs):
        folder = root / f"20260101-{number:06d}-nem-{number:06x}"
        folder.mkdir()
        facts |= {"id": folder.name, "seed": number % 5, "started": 1.7e9 + number, "group": f"{number // 5:016x}",
                  "digest": f"{number:016x}", "steps": 10 * points}
        facts["settings"]["model"]["kl_scale"] = number // 5 / 1e5
        (folder / "run.json").write_text(json.dumps(facts, indent=1))
        (folder / "metrics.jsonl").write_text(lines)
        (folder / "checks.jsonl").write_text(checks)
    shutil.rmtree(first)


def timed(work):
    begun = time.perf_counter()
    found = work()
    return time.perf_counter() - begun, found


def index(a, folder):
    "The index of 200 runs of 1,000 points, made from the folders."
    synthesise(folder / "index", 200, 1000)
    journal, spent = Journal(folder / "index"), []
    for _ in range(3):
        journal.index.path.unlink(missing_ok=True)
        spent.append(timed(journal.rows)[0])
        assert journal.index.read == 200
    return [("index of 200 runs of 1,000 points made anew, median of 3", f"{statistics.median(spent):.2f} s", "about a second")]


def listed(a, folder):
    "Ten thousand runs, with the first reading and without."
    synthesise(folder / "list", a.runs, 20)
    first, _ = timed(Journal(folder / "list").rows)
    again = [timed(lambda: Journal(folder / "list").rows())[0] for _ in range(3)]
    frames = [timed(lambda: Journal(folder / "list").runs()) for _ in range(3)]
    assert len(frames[0][1]) == a.runs
    groups, _ = timed(lambda: Journal(folder / "list").group("loss"))
    shutil.rmtree(folder / "list")
    return [
        (f"{a.runs:,} runs read for the first time", f"{first:.2f} s", ""),
        (f"{a.runs:,} runs listed, median of 3", f"{statistics.median(again):.2f} s", "under 2 s"),
        ("the same as a DataFrame", f"{statistics.median(t for t, _ in frames):.2f} s", "under 2 s"),
        ("grouped over seeds", f"{groups:.2f} s", ""),
    ]


def start(a, folder):
    "A new run in a journal of 2,000, with its differences to the one before and to the best; the list and the DataFrame of them."
    count, run = 2000, NEMRun().replace(encoder="untrained", seed=7)
    synthesise(folder / "start", count, 20)
    first, _ = timed(Journal(folder / "start").rows)
    begun = [timed(lambda: Journal(folder / "start").begin(run)) for _ in range(5)]
    assert begun[0][1].facts["previous"]["changes"]  # the run before the others has their settings
    for _, record in begun: record.close()
    lists, frames = ([timed(call)[0] for _ in range(3)] for call in (Journal(folder / "start").rows, Journal(folder / "start").runs))
    shutil.rmtree(folder / "start")
    return [
        (f"a new run in a journal of {count:,}, median of 5 (slowest)",
         f"{statistics.median(t for t, _ in begun):.2f} s ({max(t for t, _ in begun):.2f} s)", "under 0.5 s"),
        (f"{count:,} runs read for the first time", f"{first:.2f} s", ""),
        (f"{count:,} runs listed, median of 3", f"{statistics.median(lists):.2f} s", "under 2 s"),
        ("the same as a DataFrame", f"{statistics.median(frames):.2f} s", "under 2 s"),
    ]


class Ready(Pool):
    "A pool whose workers have started and imported everything before the clock does."

    def __init__(self, workers):
        super().__init__(workers)
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as root:
            warm = [self.submit(train_one, MeanRun().replace(steps=60 + k), root, {}) for k in range(workers)]
            for future in warm: assert future.result().state == "done"
        Ready.start, Ready.begun = time.perf_counter() - begun, time.perf_counter()

    def close(self):
        Ready.ended = time.perf_counter()
        super().close()


class Here:
    "One run after the other in this process."

    def __init__(self, workers): self.threads = ThreadPoolExecutor(1)

    def submit(self, call, *words): return self.threads.submit(call, *words)

    def interrupt(self): pass

    def close(self): self.threads.shutdown()


def sweep(a, folder):
    "Eight short runs on two workers, and in one process."
    plan = Plan(base=NEMRun().replace(data="fashion-mnist", images=1024, steps=a.short, checkpoint_every=10**6, device="cpu"),
                seeds=range(8))
    train_one(plan.base.replace(steps=5), folder / "warm")
    rows, ratios = [], []
    for turn in range(a.turns):
        one, two = (Sweep(plan, folder / f"{name}-{turn}", workers=n, backend=backend) for name, n, backend in (("alone", 1, Here), ("both", 2, Ready)))
        alone, ended = timed(lambda sweep=one: sweep.start().wait(progress=False))
        together, both = timed(lambda sweep=two: sweep.start().wait(progress=False))
        assert ended.progress().done == both.progress().done == 8, (ended.outcomes, both.outcomes)
        working = Ready.ended - Ready.begun
        ratios.append((working / alone, together / alone))
        rows.append((f"8 runs of {a.short} steps, turn {turn + 1}: one process / two workers "
                     "/ their start", f"{alone:.1f} s / {working:.1f} s / {Ready.start:.1f} s", ""))
    return [*rows, ("two workers against one process, after "
                    "start-up, median", f"{statistics.median(r for r, _ in ratios):.3f}", "at most 0.65"),
        ("the same, start-up included", f"{statistics.median(r for _, r in ratios):.3f}", "")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=8, help="of blocks with and without a journal")
    parser.add_argument("--steps", type=int, default=100, help="of each block")
    parser.add_argument("--runs", type=int, default=10_000, help="to list")
    parser.add_argument("--short", type=int, default=150, help="steps of each run of the sweep")
    parser.add_argument("--turns", type=int, default=2, help="of the sweep")
    a = parser.parse_args()
    torch.set_num_threads(1)
    print(machine(choose_device()), flush=True)
    with tempfile.TemporaryDirectory() as name:
        os.environ["LATENTLAB_CACHE"] = f"{name}/cache"  # the index goes there, and is gone afterwards
        rows = []
        for part in a.parts:
            rows += {"line": line, "step": step, "index": index, "list": listed, "start": start, "sweep": sweep}[part](a, Path(name))
            print(f"{part} done, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
