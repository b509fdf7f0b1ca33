"""What a cache of the encoder's features saves: ratio of step times in one process, and what half precision changes; what it costs to read rows back
from a temporary file.

    python benchmarks/features.py [rows | steps]

Both runs stand side by side and take turns of twenty steps, so that the load of the machine is the same for both; losses must be equal to the bit.
"""
import os
import statistics
import sys
import time

import torch
from latentlab.families.nem.experiment import NEMRun
from latentlab.nn.features import DiskRows, FeatureCache
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


def rows(total=240, batch=16, turns=12):
    "Seconds to read the maps of a batch from a file that the system still holds, and from memory, in turns."
    shapes = ((64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7))  # Of ResNet-18 at 224 px
    disk, memory = [DiskRows(total, *shape) for shape in shapes], [torch.zeros(total, *shape) for shape in shapes]
    for some in torch.arange(total).split(batch):
        for one, other in zip(disk, memory): one[some] = other[some] = torch.rand(len(some), *other.shape[1:])
    found = {"file": [], "memory": []}
    for seed in range(turns):
        some = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:batch]
        read = {}
        for name, kept in (("file", disk), ("memory", memory)):
            begun = time.perf_counter()
            read[name] = [one.index_select(0, some) for one in kept]
            found[name].append(1e3 * (time.perf_counter() - begun))
        assert all(map(torch.equal, read["file"], read["memory"]))
    size = 4e-6 * batch * sum(one[0].numel() for one in memory)
    print(f"the maps of {batch} images of 224 px, {size:.0f} MB: {statistics.median(found['file']):.1f} ms from a temporary file, "
          f"{statistics.median(found['memory']):.1f} from memory ({turns} turns); load {os.getloadavg()[0]:.1f}", flush=True)


def steps():
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


if __name__ == "__main__":
    for part in sys.argv[1:] or ("rows", "steps"): {"rows": rows, "steps": steps}[part]()
