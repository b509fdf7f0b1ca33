"""SIGKILLs at random moments of runs of every kind, with random intervals of saving, recording and measuring: states, checkpoints, lines and bits
afterwards.

python benchmarks/kills.py [--kills 200] [--seed 0]
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from hunter import KINDS, PRELOAD, hunt, processes  # noqa: E402
from machine import machine, table  # noqa: E402

EACH = 5  # Kills of one run, at most


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--kills", type=int, default=200, help="in all; half of them of the example, whose steps are fast")
    words.add_argument("--seed", type=int, default=0)
    options = words.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))  # of the fork server
    multiprocessing.set_forkserver_preload(PRELOAD)  # a kill costs no start of an interpreter
    begin, started, hunted, number = processes(), time.monotonic(), [], options.seed
    shares = {kind: options.kills / 2 if kind == "example" else options.kills / 6 for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        for kind, share in shares.items():
            while (done := sum(one.kills for one in hunted if one.kind == kind)) < share:
                hunted.append(hunt(begin, kind, int(min(EACH, -(-(share - done) // 1))), number, Path(folder) / f"{kind}-{number}"))
                number += 1
                for fault in hunted[-1].faults: print(f"{kind}, seed {number - 1}: {fault}", flush=True)
            mine = [one for one in hunted if one.kind == kind]
            print(f"{kind}: {sum(o.kills for o in mine)} kills, {sum(o.training for o in mine)} in training, {len(mine)} runs", flush=True)
    faults = Counter(kind for one in hunted for kind in [one.kind] * len(one.faults))
    print(machine())
    print(table([(f"{kind}: runs, kills, of them in training, checkpoints read back, faults",
                  ", ".join(str(n) for n in (len(mine), *(sum(getattr(one, name) for one in mine) for name in ("kills", "training", "checkpoints")),
                                             faults[kind])), "0 faults")
                 for kind in KINDS if (mine := [one for one in hunted if one.kind == kind])]
                + [("all: kills, of them in training, faults", f"{sum(one.kills for one in hunted)}, {sum(one.training for one in hunted)}, "
                    f"{sum(faults.values())}", "200, 100, 0"), ("time", f"{time.monotonic() - started:.0f} s", "")]))
    sys.exit(bool(faults))


if __name__ == "__main__": main()
