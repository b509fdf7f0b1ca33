"""What a trainer's step costs beside the same model in a bare hand-written loop with the same fused optimiser, both in one process, in turns.

python benchmarks/step.py [--families nem hvae ssl] [--rounds 12] [--steps 100] [--no-checks]

Needs torch, numpy and jaxtyping alone (and kornia for the family without labels).
"""

import argparse
import functools
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import machine  # noqa: E402

from latentlab.core.batch import Context  # noqa: E402
from latentlab.core.registry import find_family  # noqa: E402
from latentlab.core.runtime import choose_device, generator  # noqa: E402
from latentlab.core.settings import Live  # noqa: E402
from latentlab.core.terms import weighted_sum  # noqa: E402
from latentlab.train.trainer import Trainer  # noqa: E402

SMALLER = {"nem": {"images": 1024}}  # Fewer images are built sooner; a step costs the same


def bare_loop(run, device):
    "The loop a researcher writes by hand: the same batches, terms, weights and optimiser; nothing kept, nothing watched."
    setup, live, draws = run.build(device), Live(run, device), generator(0, "bare", device=device)
    (group,), train, done = setup.model.groups(), run.train, 0
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": functools.partial(torch.optim.SGD, momentum=0.9)}[train.optimiser]
    optimiser = kind(group.parameters, lr=train.learning_rate, weight_decay=train.weight_decay, fused=True)

    def steps(n):
        nonlocal done
        for _ in range(n):
            context = Context(live=live, generator=draws, step=done)
            loss = weighted_sum(setup.model.losses(setup.batches.at(done), context), setup.model.weights(context)).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if run.train.clip: torch.nn.utils.clip_grad_norm_(group.parameters, run.train.clip)
            optimiser.step()
            setup.model.after_step()
            done += 1
            if done % 50 == 0: loss.item()

    return steps


def compare(name, rounds, steps, checks):
    "Both sides of one family, in turns."
    device = choose_device()
    run = find_family(name).experiment().replace(SMALLER.get(name, {}) | ({} if checks else {"check_every": 10**9}))
    trainer, bare = Trainer(run), bare_loop(run, device)
    if not checks: trainer._measure = lambda: None  # a pause measures too
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def timed(work):
        wait()
        begun = clock()
        work()
        wait()
        return (clock() - begun) / steps

    def ours(): trainer.fit(steps, progress=False)

    ours(), bare(steps)
    pairs = []
    for turn in range(rounds):
        pairs.append([timed(ours), timed(lambda: bare(steps))] if turn % 2 == 0 else [timed(lambda: bare(steps)), timed(ours)][::-1])
    ratios = [t / b for t, b in pairs]
    what = "processor ms" if device.type == "cpu" else "ms"
    looked = f"checks every {run.train.check_every} steps included" if checks else "without checks"
    print(f"{name}, batch {run.train.batch}, {rounds} rounds of {steps} steps each, in turns, {looked}")
    print(f"  trainer {statistics.median(t for t, _ in pairs) * 1e3:.2f} {what} a step, bare loop "
          f"{statistics.median(b for _, b in pairs) * 1e3:.2f}")
    print(f"  the trainer's own work: {statistics.median(t - b for t, b in pairs) * 1e3:.2f} {what} a step")
    print(f"  ratio trainer / bare: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f} (target "
          "at most 1.05)", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--families", nargs="+", default=["nem", "hvae", "ssl"])
    arguments.add_argument("--rounds", type=int, default=12)
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--no-checks", action="store_true", help="the step alone: nothing is measured on held-out data")
    a = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"device {choose_device()}: {machine(choose_device())}")
    for name in a.families: compare(name, a.rounds, a.steps, not a.no_checks)


if __name__ == "__main__":
    main()
