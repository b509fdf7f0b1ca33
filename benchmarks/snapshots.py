"""What looking costs without a browser: training rate with 30 snapshots a second beside none, in turns, on the device that is there.

python benchmarks/snapshots.py [--fps 30] [--pairs 8] [--block 5] [--data fashion-mnist]

Needs torch, numpy and jaxtyping alone; the sink packs masks, ranks and curves as the panel does, and throws them away.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import machine, table  # noqa: E402

from latentlab.core.runtime import choose_device  # noqa: E402
from latentlab.families.nem.experiment import NEMRun  # noqa: E402
from latentlab.train.live import FramePump  # noqa: E402
from latentlab.train.trainer import Trainer  # noqa: E402


class Packer:
    "A sink: bytes of the masks and of their ranks each frame, curves at most twice a second."

    def __init__(self): self.bytes, self.curves_at = 0, 0.0

    def __call__(self, snapshot):
        keep, logits = snapshot.views["keep"].clip(0, 1), snapshot.views["logits"]
        order = logits.reshape(len(logits), -1).argsort(-1)
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(order.shape[-1])[None] * 256 // order.shape[-1], -1)
        self.bytes += len(np.rint(255 * keep).astype(np.uint8).tobytes()) + len(ranks.astype(np.uint8).tobytes())
        if time.monotonic() - self.curves_at < 0.5: return
        self.curves_at = time.monotonic()
        self.bytes += len(np.stack([snapshot.curves.steps, *snapshot.curves.values.values()]).astype(np.float32).tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fps", type=float, default=30, help="snapshots a second asked for")
    parser.add_argument("--pairs", type=int, default=8, help="of blocks with and without snapshots")
    parser.add_argument("--block", type=float, default=5, help="seconds of each block, about")
    parser.add_argument("--data", default="fashion-mnist")
    a = parser.parse_args()
    torch.set_num_threads(1)
    device, run = choose_device(), NEMRun().replace(data=a.data)
    before, trainer, sink = machine(device), Trainer(run), Packer()
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)

    def train(steps):
        wait()
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.start(steps).wait()
        wait()
        return time.perf_counter() - wall, time.process_time() - cpu

    train(100)
    steps = max(50, round(a.block * 100 / train(100)[0]))
    rows, frames, shown = [], 0, 0.0
    for turn in range(a.pairs):
        both = {}
        for looking in ((True, False) if turn % 2 == 0 else (False, True)):
            live = FramePump(trainer, sink, fps=a.fps)
            if looking: live.start()
            both[looking] = train(steps)
            live.stop()
            if live.error is not None: raise live.error
            if looking: frames, shown = frames + live.frames, shown + both[True][0]
        rows.append((*both[True], *both[False]))
    trainer.stop()
    with_wall, with_cpu, bare_wall, bare_cpu = np.array(rows).T
    wall, cpu = bare_wall / with_wall, bare_cpu / with_cpu
    spread = lambda ratio: f"{np.median(ratio):.3f} ({ratio.min():.3f} to {ratio.max():.3f})"
    print(f"device {device}: {before}\n{a.data}, batch {run.train.batch}, {a.pairs} pairs of {steps} steps, {a.fps:g} snapshots/s asked for\n")
    print(table([
        ("", "measured", "target"),
        ("training rate kept, steps per second", spread(wall), "at least 0.98 on a GPU" if device.type == "cuda" else "0.98 is asked of a GPU"),
        ("  with snapshots / without", f"{steps / np.median(with_wall):.1f} / {steps / np.median(bare_wall):.1f} steps/s", ""),
        ("  the same per CPU second of the process", spread(cpu), ""),
        ("snapshots taken", f"{frames / shown:.1f} per s, {sink.bytes / frames / 1024:.1f} kB each", ""),
    ]))


if __name__ == "__main__":
    main()
