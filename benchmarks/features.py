"""What a cache of the encoder's features saves: ratio of step times in one process, and what half precision changes.

    python benchmarks/features.py

Both runs stand side by side and take turns of twenty steps, so that the load of the machine is the same for both; losses must be equal to the bit.
"""
import os
import statistics
import time

import torch
from latentlab.families.nem.experiment import NEMRun
from latentlab.nn.features import FeatureCache
from latentlab.train.session import step
from latentlab.train.trainer import Trainer

CASES = {"simclr, 28 px": {"data": "fashion-mnist"}, "simclr, 64 px in colour": {"data": "scenes"}}


def made(changes, seed, dtype=None, most=10**10):
    trainer = Trainer(NEMRun().replace({"images": 256, "train.batch": 32, "train.seed": seed, "train.device": "cpu"} | changes))
    batches = trainer.session.batches
    cache = batches.also.__closure__[0].cell_contents
    fresh = FeatureCache(cache.encoder, trainer.setup.preview, total=len(batches.images), most=most, maps=cache.maps, dtype=dtype or torch.float32)
    batches.also.__closure__[0].cell_contents = fresh
    return trainer


def turn(trainer, steps):
    begun = time.perf_counter()
    for _ in range(steps): step(trainer.session, trainer.live)
    return (time.perf_counter() - begun) / steps


def last(trainer, steps=20):
    values = trainer.session.curves.fetch().values["loss"]
    return statistics.fmean(list(values)[-steps:])


for name, changes in CASES.items():
    ratios, plainly, differ = [], [], []
    for seed in range(3):
        kept, plain, half = made(changes, seed), made(changes, seed, most=0), made(changes, seed, torch.float16)
        for one in (kept, plain, half): turn(one, 24)  # three epochs: all are known, and four batches were compared
        for _ in range(3):
            a, b = turn(kept, 20), turn(plain, 20)
            ratios.append(a / b)
            plainly.append(1e3 * b)
        turn(half, 60)
        same = all(tuple(v) == tuple(plain.session.curves.fetch().values[k]) for k, v in kept.session.curves.fetch().values.items())
        differ.append(abs(last(half) - last(plain)) / last(plain))
        assert same, "other bits"
    cache = kept.session.batches.also.__closure__[0].cell_contents
    print(f"{name}: a step takes {statistics.median(ratios):.2f} of its time ({min(ratios):.2f} to {max(ratios):.2f}, 3 seeds, of {statistics.median(plainly):.0f} ms), "
          f"{cache.bytes / 256 / 1e3:.0f} kB an image; losses of 84 steps equal to the bit; float16: loss after 84 steps off by "
          f"{', '.join(f'{100 * one:.2g} %' for one in differ)}; load {os.getloadavg()[0]:.1f}", flush=True)
