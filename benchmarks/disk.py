"""A folder larger than its budget: peak memory and time of a batch, in memory and from the files, and whether the batches are the same to the bit.

    python benchmarks/disk.py          # 4,000 JPEG files of 160 x 128, read at 128 px: 197 MB in memory, a budget of 20 MB
    python benchmarks/disk.py 8000     # as many files
"""
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH, STEPS, BUDGET = 16, 200, 0.02  # Images, batches, GB


def one(folder):
    "In a process of its own: peak memory above that of the imports, and the batches."
    from latentlab.data.batches import Batches
    from latentlab.data.sources import open_images

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    images = open_images(f"folder:{folder}", "train", side=128)
    opened, batches, seen = time.perf_counter(), Batches(images.images, BATCH), hashlib.sha256()
    ready = time.perf_counter()
    for step in range(STEPS): seen.update(batches.at(step).x.numpy().tobytes())
    ended, peak = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{len(images):,} pictures: peak {(peak - before) / 1e3:.0f} MB above the imports, {ready - begun:.1f} s to open, "
          f"{1e3 * (ended - ready) / STEPS:.1f} ms a batch of {BATCH} | {seen.hexdigest()[:16]}\n    {images.source}")
    assert opened <= ready


def main(count):
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for k in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8))
            coarse.resize((160, 128)).save(Path(folder) / f"{k:05}.jpg")
        print(f"load {os.getloadavg()[0]:.1f}")
        said = []
        for budget in (100.0, BUDGET):
            done = subprocess.run([sys.executable, __file__, folder], env=os.environ | {"LATENTLAB_MEMORY": str(budget)}, capture_output=True, text=True,
                                  check=True)
            said.append(done.stdout)
            print(f"budget {1e3 * budget:,.0f} MB: {done.stdout}", end="")
        print("the same batches to the bit:", len({one.split("|")[1].split()[0] for one in said}) == 1)


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "4000"
    main(int(given)) if given.isdigit() else one(given)
