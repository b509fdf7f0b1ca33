"""How long an order of pixels takes: a trained frontier's `rank(x)` of a batch and one mask, beside RELAX with 3,000 masks, in one process.

    python benchmarks/explain.py [--encoder simclr] [--images 64] [--repeats 5] [--points 16]

The weights of the explainer do not matter for the time: it is not trained. RELAX has one set of masks for all images, which is its
fastest form. Ratios are printed with the load of the machine; they are of the processor, not of a claim about faithfulness.
"""
import argparse
import time

import torch
from latentlab.core.runtime import generator
from latentlab.families.nem.experiment import NEMRun
from latentlab.metrics.attribution import relax
from machine import machine


def seconds(call, repeats: int) -> float:
    "The fastest of some calls, after one that is not counted."
    call()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available(): torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    "Print the times and their ratios."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="simclr")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--masks", type=int, default=3000)
    parser.add_argument("--points", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    setup = NEMRun().replace({"frontier": True, "encoder": asked.encoder, "data": asked.data, "images": 600}).build()
    x = setup.batches.images[:asked.images].float() / 255
    fill = setup.model.fill("mean", x, generator=generator(0))
    one = seconds(lambda: setup.model.explain(x, weight=0.05), asked.repeats)
    whole = seconds(lambda: setup.model.rank(x, points=asked.points), asked.repeats)
    start = time.perf_counter()
    relax(setup.model.encoder, x, fill=fill, masks=asked.masks, generator=generator(0, "masks"))
    slow = time.perf_counter() - start
    print(f"{asked.images} images of {tuple(x.shape[1:])}, {asked.encoder}, {machine()}")
    print(f"one mask        {one:8.4f} s   RELAX / one mask {slow / one:8.0f}")
    print(f"rank, {asked.points:2} points {whole:8.4f} s   RELAX / rank     {slow / whole:8.0f}")
    print(f"RELAX {asked.masks:,}    {slow:8.4f} s")


if __name__ == "__main__": main()
