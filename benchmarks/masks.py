"""How long the masks of all latents of a compvae parent take to be painted anew, as a slider does it: derivative, filter and normalisation.

python benchmarks/masks.py [--side 64] [--images 8] [--rounds 30]
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import machine, table  # noqa: E402

from latentlab.core.runtime import generator  # noqa: E402
from latentlab.families.compvae.masks import MaskSettings, latent_masks  # noqa: E402
from latentlab.families.compvae.model import BetaTCVAE, CompVAESettings  # noqa: E402


def repaint(side, images, rounds):
    "Wall milliseconds of one repaint of a fresh parent of the usual size, after a first one that is not counted."
    model = BetaTCVAE(CompVAESettings(), (1, side, side), total=1000, generator=generator(0, "model"))
    z, found = torch.randn(images, model.settings.latents, generator=generator(0, "codes")), []
    settings = MaskSettings(floor=0.0)  # an untrained decoder changes little, and an empty map would not be filtered
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        latent_masks(model.decode, z, settings)
        found.append(1e3 * (time.perf_counter() - begun))
    return found[1:], model.settings.latents


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--side", type=int, default=64)
    arguments.add_argument("--images", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=30)
    a = arguments.parse_args()
    print(machine())
    found, latents = repaint(a.side, a.images, a.rounds)
    print(table([("repaint", "median ms (fastest to slowest)", "asked"),
                 (f"{latents} latents, {a.images} images, {a.side} px", f"{statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f})",
                  "100")]))


if __name__ == "__main__": main()
