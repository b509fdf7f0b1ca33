"""Forged files of images, masks, pictures, tokens, weights and checkpoints, each read in a process of its own: refused by name, within
5 s of processor time and 1.2 times the declared size in memory, and nothing is changed (`forger.py`).
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FORGER = Path(__file__).with_name("forger.py")
SLACK = 2**25  # Bytes that a process may take beside a file: what an archive's directory becomes, the buffers, the error's own text


def what_became_of(folder: Path, seed: int, count: int, *doors: str) -> list[dict]:
    "One record for each forged file."
    words = [sys.executable, str(FORGER), str(folder), str(seed), str(count), *doors]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1800, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def not_held(found: dict, seconds: float = 5) -> list[str]:
    "What does not hold of one file."
    wrong = {f"{found['type'] or 'nothing'} was raised: {found['said'][:200]}{found['trace']}": found["type"] != "ValueError",
             f"no rule is named: {found['said'][:200]}": " must " not in found["said"], "something was changed": found["changed"],
             f"{found['memory']:,} bytes of memory for {found['size']:,}": found["memory"] > 1.2 * found["size"] + SLACK,
             f"{found['seconds']:.1f} s": found["seconds"] > seconds}
    return [f"{found['kind']}: {what}" for what, is_so in wrong.items() if is_so]


def test_15_forged_files(tmp_path):
    "Without checkpoints, which `test_forged.py` has: a trainer takes seconds to be made."
    found = what_became_of(tmp_path / "forged", 1, 15, "image_set", "idx", "picture", "tokens", "encoder")
    assert len(found) == 15 and [wrong for one in found for wrong in not_held(one)] == []


@pytest.mark.parametrize("count", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_forged_files_of_a_journal(tmp_path, count):
    "Thirty megabytes of brackets, commas, keys or lines: refused by name within 2 s, or, lines of which none says anything, left out."
    found = what_became_of(tmp_path / "forged", 3, count, "journal")
    assert len({one["kind"] for one in found}) > count // 4 and [wrong for one in found for wrong in not_held(one, seconds=2)] == []


@pytest.mark.slow
def test_200_forged_files(tmp_path):
    found = what_became_of(tmp_path / "forged", 2, 200)
    assert len(found) == 200 and len({one["kind"] for one in found}) >= 100 and [wrong for one in found for wrong in not_held(one)] == []
