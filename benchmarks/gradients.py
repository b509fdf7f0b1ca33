"""What CSVAE's matrix of gradients, its whole measurement and one picture cost beside its training steps, in one process, in turns.

python benchmarks/gradients.py [--sides 32 64] [--rounds 8]
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import machine, table  # noqa: E402

from latentlab.core.batch import Context  # noqa: E402
from latentlab.core.runtime import generator  # noqa: E402
from latentlab.core.settings import Live  # noqa: E402
from latentlab.families.csvae.experiment import CSVAERun  # noqa: E402
from latentlab.train.trainer import Trainer  # noqa: E402

STEPS = 10  # Trained in each round


def compare(side, rounds):
    "Processor milliseconds of a step, and of each look as a share of the steps between two of them."
    run = CSVAERun().replace({"data.images": 2000, "side": side, "check_every": 10**6})
    trainer = Trainer(run)
    trainer.fit(5, progress=False)
    trainer._measure = lambda: None  # a pause measures too
    model, held = trainer.model, trainer.setup.diagnostics
    context = Context(live=Live(trainer.run), generator=generator(0, "benchmark"), step=5)

    def timed(work, times=1):
        begun = time.process_time()
        work()
        return 1e3 * (time.process_time() - begun) / times

    looks = {"matrix of gradients": lambda: held.measure_gradients(model, context), "whole measurement": lambda: held.measure(model, context),
             "one picture": lambda: held.views(model, context)}
    rounds = [{"step": timed(lambda: trainer.fit(STEPS, progress=False), STEPS)} | {name: timed(look) for name, look in looks.items()}
              for _ in range(rounds)]
    step, every = statistics.median(one["step"] for one in rounds), CSVAERun().train.check_every
    rows = [(f"{side} px", "processor ms", f"share of the {every} steps between two"), ("step", f"{step:.1f}", "")]
    for name in looks:
        cost = statistics.median(one[name] for one in rounds)
        shares = [one[name] / (every * one["step"]) for one in rounds]
        share = f"{statistics.median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%})" if name != "one picture" else ""
        rows.append((name, f"{cost:.1f}", share))
    print(table(rows), flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sides", nargs="+", type=int, default=[32, 64])
    arguments.add_argument("--rounds", type=int, default=8)
    a = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"batch {CSVAERun().train.batch}, one thread; {machine()}")
    for side in a.sides: compare(side, a.rounds)


if __name__ == "__main__":
    main()
