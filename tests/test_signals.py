"""SIGTERM and SIGHUP, wherever a training runs: in a kernel of Jupyter, idle or in the middle of a cell, in a sweep's worker, under the
command `latentlab train`. Each leaves a checkpoint of the step it had come to, says interrupted, and the process is gone.
"""
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from latentlab.journal.journal import Journal
from latentlab.journal.writer import newest_checkpoint
from latentlab.sweeps.plan import Plan
from latentlab.sweeps.sweep import Sweep
from latentlab.train.checkpoint import load_checkpoint
from latentlab.train.example import MeanRun

FIRST = """import torch; torch.set_num_threads(1)
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer
trainer = Trainer(MeanRun().replace(steps=10**6, checkpoint_every=10**5), journal={root!r})
"""
CELLS = {
    "idle": "trainer.start()",
    "waiting": "trainer.start(); trainer.wait()",
    "in a loop": "import time; trainer.start()\nwhile True: time.sleep(0.01)",
    "fitting": "trainer.fit(progress=False)",
    "started from a thread": "import threading; threading.Thread(target=trainer.start).start()",
    "in a panel": """
import threading
from latentlab.facade import make_run
from latentlab.panels.panel import Panel
from latentlab.panels.protocol import Request
shown = Panel(make_run("hvae", {"data": "moons", "points": 400, "batch": 32}), journal=trainer.recorder.journal)
threading.Thread(target=shown.receive, args=(Request(kind="command", name="run"),)).start()""",
}


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.05)
    return found


def gone(pid: int) -> bool:
    "Whether a process has ended, also one whose end nobody has asked for."
    try: return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError: return True


def begun(root: Path) -> bool: return root.exists() and any(row["steps"] > 30 for row in Journal(root).rows())


def interrupted(root: Path) -> None:
    "The one run says so, and its checkpoint is of the step that it says."
    (row,) = Journal(root).rows()
    assert row["state"] == "interrupted"
    assert load_checkpoint(newest_checkpoint(Journal(root).folder(row["id"])))["step"] == row["steps"] > 30


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "how"), [
    *((cell, signal.SIGTERM) for cell in CELLS), ("in a loop", signal.SIGHUP), ("in a loop", "shutdown"), ("fitting", "restart"), ("in a panel", "restart")])
def test_a_kernel_that_is_told_to_leave(tmp_path, cell, how):
    from jupyter_client import KernelManager

    root, kernel = tmp_path / "runs", KernelManager(kernel_name="python3")
    kernel.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = kernel.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        pid = kernel.provisioner.pid
        client.execute(FIRST.format(root=str(root)) + CELLS[cell])
        until(lambda: begun(root))
        if how == "shutdown": kernel.shutdown_kernel(now=False)
        elif how == "restart": kernel.restart_kernel(now=False)
        else: os.kill(pid, how)
        until(lambda: gone(pid), 60)
        interrupted(root)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_sweeps_worker_that_is_told_to_leave(tmp_path, number):
    root = tmp_path / "runs"
    sweep = Sweep(Plan(base=MeanRun().replace(steps=3000, checkpoint_every=3000), seeds=range(1)), root, workers=1, retries=0).start()
    until(lambda: begun(root))
    pid = Journal(root).rows()[0]["by"]["pid"]
    os.kill(pid, number)
    until(lambda: gone(pid), 60)
    sweep.wait(progress=False, timeout=60)
    interrupted(root)
    assert [outcome.state for outcome in sweep.outcomes.values()] == ["interrupted"]
    again = Sweep(Plan(base=MeanRun().replace(steps=3000, checkpoint_every=3000), seeds=range(1)), root, workers=1).start()
    again.wait(progress=False, timeout=120)
    (row,) = Journal(root).rows()
    assert (row["state"], row["steps"]) == ("done", 3000)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_command_that_is_told_to_leave(tmp_path, number):
    root = tmp_path / "runs"
    words = [sys.executable, "-c", "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
             "signal.signal(signal.SIGINT, signal.default_int_handler)\nimport sys; from latentlab.cli import main; sys.exit(main())",
             "train", "hvae", "data=moons", "points=400", "batch=32", "steps=100000", "--journal", str(root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        until(lambda: child.poll() is not None or begun(root))
        child.send_signal(number)
        said = child.communicate(timeout=60)
    interrupted(root)
    assert child.returncode == (130 if number == signal.SIGINT else 128 + number), said
    assert "Traceback" not in said[1], said[1][-2000:]
