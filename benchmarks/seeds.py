"""Eight seeds of the toy lab: in turn, in a pool, and as one batched model in each worker. All in one run, in turns.

    python benchmarks/seeds.py                            # hvae on moons, 8 seeds, 600 steps, 2 workers
    python benchmarks/seeds.py --seeds 4 --steps 300 --rounds 1 --family vle
    python benchmarks/seeds.py --device cuda              # on a GPU: eight at once beside one
"""
import argparse
import json
import os
import tempfile
import time

import torch
from latentlab.facade import make_trainer
from latentlab.journal.journal import Journal
from latentlab.sweeps.plan import Plan
from latentlab.sweeps.sweep import Sweep
from latentlab.train.lockstep import stack_that_pays
from latentlab.train.stacked import try_out
from latentlab.train.trainer import Trainer


def in_turn(plan, threads):
    "Seconds of one run after another in this process."
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        for run in plan.runs(): Trainer(run, journal=folder).fit(progress=False)
        return time.perf_counter() - begun


def swept(plan, workers, together):
    "Seconds of a sweep with its workers' start, and how many runs each record says were trained together."
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        sweep = Sweep(plan, folder, workers=workers, together=together).start().wait(progress=False)
        spent = time.perf_counter() - begun
        if sweep.progress().done != len(plan): raise SystemExit(f"not all were trained: {sweep.progress()}")
        journal = Journal(folder)
        return spent, sorted({journal.run(row["id"]).facts.get("together", 1) for row in journal.rows()})


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--family", default="hvae")
    words.add_argument("--seeds", type=int, default=8)
    words.add_argument("--steps", type=int, default=600)
    words.add_argument("--workers", type=int, default=2)
    words.add_argument("--rounds", type=int, default=2)
    words.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of runs in turn")
    words.add_argument("--device", default="cpu")
    words.add_argument("--set", default="{}", help="more settings, as JSON")
    words.add_argument("--trial", action="store_true", help="only what a trial of a few steps says, for every family's start settings")
    asked = words.parse_args()
    changes = {**json.loads(asked.set), "device": asked.device}
    torch.set_num_threads(1)
    if asked.trial:
        from latentlab.core.registry import family_names

        for family in family_names():
            stack, reason = stack_that_pays([make_trainer(family, {**changes, "seed": seed}) for seed in range(asked.seeds)])
            found = None if stack is None else try_out(stack, make_trainer(family, changes).live)
            print(f"{family}: {reason or f'{found.gain:.2f} times as fast at once, gradients {found.error:.0e} apart'}")
        return
    base = make_trainer(asked.family, {**changes, "steps": asked.steps}).run
    plan = Plan(base=base, seeds=range(asked.seeds), name="seeds")
    print(f"{asked.family}, {plan}, {asked.device}; {os.cpu_count()} cores")
    for number in range(asked.rounds):
        times = {f"in turn, {threads} thread{'s' * (threads > 1)}": in_turn(plan, threads) for threads in asked.threads}
        torch.set_num_threads(1)
        times[f"pool of {asked.workers}"], _ = swept(plan, asked.workers, False)
        times[f"at once in {asked.workers}"], together = swept(plan, asked.workers, True)
        times["at once in 1"], _ = swept(plan, 1, True)
        first = min(seconds for name, seconds in times.items() if name.startswith("in turn"))
        print(f"round {number}, load {os.getloadavg()[0]:.1f}, together {together}: "
              + ", ".join(f"{name} {seconds:.1f} s ({seconds / first:.2f})" for name, seconds in times.items()), flush=True)


if __name__ == "__main__": main()
