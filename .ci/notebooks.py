"""Runs every notebook as `nbdev_test` does, the longest first: the short ones come last, and all workers end at about the same time.

python .ci/notebooks.py [workers]
"""
import os
import sys
from pathlib import Path

from fastcore.parallel import parallel
from nbdev.test import test_nb

ROOT = Path(__file__).resolve().parents[1]
# Processor seconds of those that take more than three, as measured; the order matters, the numbers need not be right
SECONDS = {"sweeps/02_sweep": 20, "sweeps/01_workers": 20, "sweeps/03_cluster": 20, "families/hvae/00_model": 20, "panels/06_run_browser": 18,
           "families/nem/01_checks": 13, "families/nem/00_model": 9, "families/nem/04_display": 9, "80_contract": 9, "families/vle/03_model": 8,
           "families/hvae/01_diagnostics": 8, "families/ssl/00_model": 8, "90_cli": 7, "data/01_scenes": 6, "data/02_toys": 6,
           "data/00_images": 6, "train/08_trainer": 6, "train/01_checkpoint": 6, "journal/09_comparison": 5, "00_facade": 5, "data/04_binarise": 4,
           "labs/nem": 4, "labs/hvae": 4, "nn/01_encoders": 4, "train/09_optimiser": 4, "sweeps/04_devices": 4}


def main(workers: int) -> int:  # How many failed
    "Run them all; prints how long each took."
    name = lambda path: str(path.relative_to(ROOT / "nbs").with_suffix(""))
    files = [path for path in (ROOT / "nbs").rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in path.relative_to(ROOT).parts)]
    if unknown := set(SECONDS) - set(map(name, files)): print(f"no such notebook: {', '.join(sorted(unknown))}", file=sys.stderr)
    files.sort(key=lambda path: (-SECONDS.get(name(path), 0), name(path)))
    os.chdir(ROOT / "nbs")
    results = parallel(test_nb, files, skip_flags=["slow"], n_workers=workers, basepath=ROOT, pause=0.01)
    for path, (_, seconds) in sorted(zip(files, results), key=lambda one: -one[1][1]): print(f"{name(path)}: {seconds:.0f} s")
    failed = [name(path) for path, (passed, _) in zip(files, results) if not passed]
    print(f"{len(files)} notebooks, {sum(seconds for _, (_, seconds) in zip(files, results)):.0f} s in {workers} workers;",
          f"failed: {', '.join(failed)}" if failed else "all passed")
    return len(failed)


if __name__ == "__main__": sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2) > 0)
