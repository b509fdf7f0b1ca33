"""What a trainer's step costs beside the same model in a bare hand-written loop, both in one process, in turns.

python benchmarks/step.py [--rounds 12] [--steps 40] [--data fashion-mnist]
"""

import argparse
import statistics
import time

import torch

from latentlab.core.runtime import choose_device, generator
from latentlab.core.settings import Live
from latentlab.families.nem.experiment import NEMRun
from latentlab.train.trainer import Trainer


def bare_loop(run, device):
    "The loop a researcher writes by hand: the same terms and weights, nothing kept, nothing watched."
    parts, live = run.build(device), Live(run, device)
    parameters = list(parts.model.unet.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=run.train.learning_rate, weight_decay=run.train.weight_decay, fused=True)
    draws = generator(0, "bare", device=device)
    order = torch.randperm(len(parts.images), generator=generator(0, "bare order")).to(device)

    done = 0

    def steps(n):
        nonlocal done
        for _ in range(n):
            i = done * run.train.batch % (len(order) - run.train.batch)
            x = parts.images[order[i : i + run.train.batch]].float() / 255
            terms = parts.model.terms(x, live=live, generator=draws)
            loss = sum(w * terms[name].mean() for name, w in parts.model.weights(live).items())
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, run.train.clip)
            optimiser.step()
            done += 1
            if done % 50 == 0: loss.item()

    return steps


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=12)
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--data", default="fashion-mnist")
    a = arguments.parse_args()
    torch.set_num_threads(1)
    device = choose_device()
    run = NEMRun().replace(data=a.data, images=1024)
    trainer, bare = Trainer(run), bare_loop(run, device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def timed(work):
        wait()
        begun = clock()
        work()
        wait()
        return (clock() - begun) / a.steps

    def ours(): trainer.fit(a.steps, progress=False)

    ours(), bare(a.steps)
    pairs = []
    for turn in range(a.rounds):
        sides = [timed(ours), timed(lambda: bare(a.steps))] if turn % 2 == 0 else [timed(lambda: bare(a.steps)), timed(ours)][::-1]
        pairs.append(sides)
    ratios = [t / b for t, b in pairs]
    what = "processor ms" if device.type == "cpu" else "ms"
    print(f"device {device}, {a.data}, batch {run.train.batch}, {a.rounds} rounds of {a.steps} steps each, in turns, checks every {run.train.check_every} steps included")
    print(f"trainer {statistics.median(t for t, _ in pairs) * 1e3:.2f} {what} a step, bare loop {statistics.median(b for _, b in pairs) * 1e3:.2f}")
    print(f"ratio trainer / bare: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f} (target at most 1.05)")


if __name__ == "__main__":
    main()
