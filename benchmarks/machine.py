"What a figure was measured on, in a line: without it a figure says nothing."

import os
import platform
from pathlib import Path

import torch


def cpu_name() -> str:
    "The processor as the system calls it."
    try: lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError: return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine(device: torch.device | str = "cpu") -> str:
    "Processor, cores, load at this moment, versions, and the accelerator where one is used."
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    gpu = f", {torch.cuda.get_device_name(device)}" if torch.device(device).type == "cuda" else ""
    return (f"{cpu_name()}, {cores} cores{gpu}, {load}; Python {platform.python_version()}, torch {torch.__version__}, "
            f"{torch.get_num_threads()} thread(s)")


def table(rows: list[tuple[str, str, str]]) -> str:
    "Three columns of text: what, measured, target."
    widths = [max(len(row[k]) for row in rows) for k in range(2)]
    return "\n".join(f"{what:<{widths[0]}}  {found:<{widths[1]}}  {target}".rstrip() for what, found, target in rows)
