"""From a model and photographs to the first explanation: seconds and peak memory of a ResNet-18 at 224 px, batch 16.

    python benchmarks/first_look.py              # random weights of torchvision, else of the same layers written out
    python benchmarks/first_look.py 224 16 10    # px, batch, steps after the first picture
"""
import os
import resource
import sys
import time

begun = time.perf_counter()
import torch  # noqa: E402

for operator in ("nms", "qnms"):
    try: torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except Exception: pass

import latentlab as ll  # noqa: E402
from latentlab.data.images import load  # noqa: E402
from latentlab.facade import make_trainer  # noqa: E402


def main(side=224, batch=16, steps=10):
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    images = load("msrc-objects", limit=200).resize(side)
    marks = {"imports": time.perf_counter() - begun}
    start, cpu = time.perf_counter(), time.process_time()
    encoder = ll.encoder(model, size=side, quiet=True)
    marks["encoder proved"] = time.perf_counter() - start
    trainer = make_trainer("nem", {"encoder": encoder, "images": images, "batch": batch, "width": 8, "device": "cpu"})
    marks["run built"] = time.perf_counter() - start
    trainer.start()
    while trainer.snapshot(timeout=600).step < 1 and trainer.busy: time.sleep(0.1)  # as a panel asks for pictures
    marks["first explanation"] = time.perf_counter() - start
    first, of_cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, time.process_time() - cpu
    while trainer.step_count < steps and trainer.busy: time.sleep(0.05)
    marks[f"{steps} steps"] = time.perf_counter() - start
    trainer.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; to the first explanation {of_cpu:.1f} s of CPU and a peak of "
          f"{first:.2f} GB, {peak:.2f} GB in the end; " + ", ".join(f"{k} {v:.1f} s" for k, v in marks.items()))
    print({k: v for k, v in trainer.setup.info.items() if k in ("cost", "held_out", "features")})


if __name__ == "__main__": main(*map(int, sys.argv[1:]))
