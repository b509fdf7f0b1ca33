"""What looking costs without a browser: training rate with 30 snapshots a second beside none, in turns, on the device that is there.

python benchmarks/snapshots.py [--families nem hvae ssl] [--fps 30] [--pairs 8] [--block 5]

Needs torch, numpy and jaxtyping alone; the sink packs every view into half precision and the curves into floats, and throws them away.
"""

import argparse
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import machine, table  # noqa: E402

from latentlab.core.registry import find_family  # noqa: E402
from latentlab.core.runtime import choose_device  # noqa: E402
from latentlab.train.trainer import Trainer  # noqa: E402


class Packer:
    "A sink: bytes of every view each frame, curves at most twice a second."

    def __init__(self): self.bytes, self.curves_at = 0, 0.0

    def __call__(self, snapshot):
        self.bytes += sum(len(view.clip(-6e4, 6e4).astype(np.float16).tobytes()) for view in snapshot.views.values())
        if time.monotonic() - self.curves_at < 0.5: return
        self.curves_at = time.monotonic()
        self.bytes += len(np.stack([snapshot.curves.steps, *snapshot.curves.values.values()]).astype(np.float32).tobytes())


def look(trainer, sink, fps, ended):
    "Take a snapshot so often until told to end; the pump of a panel does the same."
    frames, due = 0, time.monotonic()
    while not ended.is_set():
        snapshot = trainer.snapshot(timeout=2.0)
        if snapshot is not None: sink(snapshot)
        frames, due = frames + (snapshot is not None), max(due + 1 / fps, time.monotonic())
        ended.wait(max(0.0, due - time.monotonic()))
    return frames


def compare(name, fps, pairs, block):
    "Blocks of one family with and without snapshots, in turns."
    device, run = choose_device(), find_family(name).experiment()
    trainer, sink, pool = Trainer(run), Packer(), ThreadPoolExecutor(1)
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)

    def train(steps):
        wait()
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.start(steps).wait()
        wait()
        return time.perf_counter() - wall, time.process_time() - cpu

    train(50)
    steps = max(20, round(block * 50 / train(50)[0]))
    rows, frames, shown = [], 0, 0.0
    for turn in range(pairs):
        both = {}
        for looking in ((True, False) if turn % 2 == 0 else (False, True)):
            ended = threading.Event()
            future = pool.submit(look, trainer, sink, fps, ended) if looking else None
            both[looking] = train(steps)
            ended.set()
            if looking: frames, shown = frames + future.result(), shown + both[True][0]
        rows.append((*both[True], *both[False]))
    trainer.stop()
    with_wall, with_cpu, bare_wall, bare_cpu = np.array(rows).T
    wall, cpu = bare_wall / with_wall, bare_cpu / with_cpu
    spread = lambda ratio: f"{np.median(ratio):.3f} ({ratio.min():.3f} to {ratio.max():.3f})"
    print(f"\n{name}, batch {run.train.batch}, {pairs} pairs of {steps} steps, {fps:g} snapshots/s asked for")
    print(table([
        ("", "measured", "target"),
        ("training rate kept, "
         "steps per second", spread(wall), "at least 0.98 on a GPU" if device.type == "cuda" else "0.98 is asked of a GPU"),
        ("  with snapshots / without", f"{steps / np.median(with_wall):.1f} / {steps / np.median(bare_wall):.1f} steps/s", ""),
        ("  the same per CPU second of the process", spread(cpu), ""),
        ("snapshots taken", f"{frames / shown:.1f} per s, {sink.bytes / max(frames, 1) / 1024:.1f} kB each", ""),
    ]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["nem", "hvae", "ssl"])
    parser.add_argument("--fps", type=float, default=30, help="snapshots a second asked for")
    parser.add_argument("--pairs", type=int, default=8, help="of blocks with and without snapshots")
    parser.add_argument("--block", type=float, default=5, help="seconds of each block, about")
    a = parser.parse_args()
    torch.set_num_threads(1)
    print(f"device {choose_device()}: {machine(choose_device())}")
    for name in a.families: compare(name, a.fps, a.pairs, a.block)


if __name__ == "__main__":
    main()
