"""What looking costs and how soon it answers: a family's panel (NEM on Fashion-MNIST) in a real JupyterLab and Chromium, everything in one run.

python benchmarks/live.py [--family nem] [--slider kl_scale] [--picture weight] [--seconds 15] [--pairs 8] [--block 6] [--moves 20] [--reloads 3] [--memory] [--steps 10000]
python benchmarks/live.py --set 'preset="whole range of weights"' --picture weight --parts sweep
python benchmarks/live.py --family csvae --slider beta --set side=64 --parts "frames painted at 10" "training rate"
"""

import argparse
import functools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser.harness import Notebook, chromium_browser, jupyterlab, notebooks  # noqa: E402
from machine import machine, table  # noqa: E402

IMPORTS = "import latentlab as ll\nimport latentlab.families.{0}.display\nimport time; imported = time.time()"
PANEL = 'panel = ll.lab("{0}", journal="runs"{1})\npanel'
METER = """
import ctypes, gc, json, os, psutil, sys, time
def trimmed():
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"): ctypes.CDLL(None).malloc_trim(0)  # free pages go back to the system: what is left is in use
    print(psutil.Process().memory_info().rss)
def meter():
    if panel.pump.error is not None: raise panel.pump.error
    print(json.dumps(dict(steps=panel.trainer.step_count, cpu=time.process_time(), wall=time.perf_counter(), frames=panel.pump.frames,
                          rss=psutil.Process().memory_info().rss, state=panel.trainer.state)))
"""


def meter(lab: Notebook, first: str = "") -> dict:
    "Step count, kernel processor seconds, clock and memory, read in the kernel at one moment."
    said = lab.execute(f"{first}\nmeter()")
    try: found = json.loads(said)
    except json.JSONDecodeError: raise RuntimeError(f"the kernel answered {said[-400:]!r}") from None
    if found["state"] != "running": raise RuntimeError(f"the training is {found['state']}")
    return found


def paint_times(lab: Notebook) -> list[float]:
    "When new frames were painted, seconds since the epoch."
    return lab.page.evaluate("(window.latentlab?.paints ?? []).map((p) => (performance.timeOrigin + p.t) / 1000)")


def first_explanation(lab: Notebook) -> list[tuple[str, str, str]]:
    "From running the cells in a fresh kernel to the first painted frame, and to one that has been trained."
    asked = time.time()
    lab.command("notebook:run-all-cells")
    lab.wait_data("Number(d.painted) >= 1", 90)
    lab.wait_data("Number(d.step) >= 100", 90)
    imported, painted = float(lab.execute("print(imported)")), paint_times(lab)
    steps = lab.page.evaluate("window.latentlab.paints.map((p) => p.step)")
    trained = next(t for t, step in zip(painted, steps) if step >= 100)
    return [("first explanation, imports included", f"{painted[0] - asked:.2f} s", "at most 10 s"),
            ("  imports done before", f"{painted[0] - imported:.2f} s", ""),
            ("  picture after 100 steps, imports included", f"{trained - asked:.2f} s", "")]


def painted_rate(lab: Notebook, fps: int, seconds: float, target: str) -> list[tuple[str, str, str]]:
    "Painted frames a second, and what the training runs at meanwhile."
    lab.execute(f"panel.pump.fps = {fps}")
    time.sleep(1.5)
    before, begun = meter(lab), time.time()
    lab.page.wait_for_timeout(1000 * seconds)
    ended, after = time.time(), meter(lab)
    times = [t for t in paint_times(lab) if begun <= t <= ended]
    if len(times) < 2: raise RuntimeError(f"{len(times)} frames were painted in {seconds:.0f} s")
    rate, gaps = (len(times) - 1) / (times[-1] - times[0]), np.diff(times)
    wall = after["wall"] - before["wall"]
    drawn, trained = (after["frames"] - before["frames"]) / wall, (after["steps"] - before["steps"]) / wall
    return [(f"frames painted, {fps} asked for", f"{rate:.2f} fps", target),
            ("  sent by the kernel; longest gap", f"{drawn:.2f} fps; {1e3 * gaps.max():.0f} ms", ""),
            ("  training meanwhile", f"{trained:.1f} steps/s", "")]


def rate_kept(lab: Notebook, pairs: int, block: float) -> list[tuple[str, str, str]]:
    "Blocks with and without frames in turns: same kernel, same trainer, same page."
    def measured(looking: bool) -> tuple[float, float]:
        lab.execute("panel.pump.start()" if looking else "panel.pump.stop()")
        time.sleep(0.4)
        before = meter(lab)
        time.sleep(block)
        after = meter(lab)
        steps = after["steps"] - before["steps"]
        return steps / (after["cpu"] - before["cpu"]), steps / (after["wall"] - before["wall"])

    cpu, wall, rates = [], [], []
    try:
        for turn in range(pairs):
            sides = {looking: measured(looking) for looking in ((True, False) if turn % 2 == 0 else (False, True))}
            cpu.append(sides[True][0] / sides[False][0])
            wall.append(sides[True][1] / sides[False][1])
            rates.append((*sides[True], *sides[False]))
    finally: lab.execute("panel.pump.start()")
    with_cpu, with_wall, bare_cpu, bare_wall = np.median(rates, axis=0)
    return [("training rate kept, steps per "
             "kernel CPU second", f"{np.median(cpu):.3f} ({min(cpu):.3f} to {max(cpu):.3f})", "at least 0.75"),
            ("  with frames / detached", f"{with_cpu:.1f} / {bare_cpu:.1f} steps per CPU s", ""),
            ("  the same in steps per second, browser on "
             "the same cores", f"{np.median(wall):.3f} ({min(wall):.3f} to {max(wall):.3f})", ""),
            ("  with frames / detached", f"{with_wall:.1f} / {bare_wall:.1f} steps/s", "")]


def slider_latency(lab: Notebook, name: str, moves: int) -> list[tuple[str, str, str]]:
    "One arrow key on a slider, at a random moment, to the first painted frame that used the value it asked for."
    slider, dice, count = lab.page.locator(f"[data-name={name}] input[type=range]").first, random.Random(0), "window.latentlab.latencies.length"
    slider.focus()
    begun = lab.page.evaluate(count)
    for move in range(moves):
        before = lab.page.evaluate(count)
        lab.page.keyboard.press("ArrowRight" if move < moves // 2 else "ArrowLeft")
        lab.page.wait_for_function(f"{count} > {before}", timeout=10_000)
        lab.page.wait_for_timeout(dice.uniform(250, 650))
    found = sorted(lab.page.evaluate(f"window.latentlab.latencies.slice({begun}).map((l) => l.ms)"))
    low, high = np.quantile(found, [0.1, 0.9])
    return [("slider to first painted frame with "
             "the new value", f"{statistics.median(found):.0f} ms, median of {len(found)}", "at most 200 ms"),
            ("  spread", f"10 % {low:.0f}, 90 % {high:.0f}, longest {found[-1]:.0f} ms", "")]


def swept(lab: Notebook, name: str, seconds: float, fps: int) -> list[tuple[str, str, str]]:
    "A slider of the picture, moved to and fro by a key that is held: frames painted a second, paused and while training."
    rows, slider = [], lab.page.locator(f"[data-slide={name}]").first
    lab.execute(f"panel.pump.fps = {fps}")
    try:
        for paused in (True, False):
            lab.execute("panel.trainer.pause()" if paused else "panel.trainer.start()")
            lab.wait_data("d.state === 'paused'" if paused else "d.state === 'running'", 30)
            slider.focus()
            slider.press("Home")
            lab.page.wait_for_timeout(1500)
            begun, first, way = time.time(), int(lab.execute("print(panel.trainer.step_count)")), "ArrowRight"
            moved = 0
            while time.time() < begun + seconds:
                lab.page.keyboard.press(way)
                lab.page.wait_for_timeout(25)
                if (moved := moved + 1) % 60 == 0: way = "ArrowLeft" if way == "ArrowRight" else "ArrowRight"
            ended = time.time()
            times = [t for t in paint_times(lab) if begun + 1 <= t <= ended]
            steps = (int(lab.execute("print(panel.trainer.step_count)")) - first) / (time.time() - begun)
            rate, gaps = (len(times) - 1) / (times[-1] - times[0]), np.diff(times)
            rows += [(f"{name} swept {'while paused' if paused else 'while training'}, {fps} asked for", f"{rate:.2f} fps", "at least 10 fps"),
                     ("  longest gap; moves of the slider; training meanwhile",
                      f"{1e3 * gaps.max():.0f} ms; {moved / (ended - begun):.0f} a second; {steps:.1f} steps/s", "")]
    finally: lab.execute("panel.trainer.start(); panel.pump.fps = 10")
    return rows


def picture_back(lab: Notebook, reloads: int) -> list[tuple[str, str, str]]:
    "The page is loaded anew; the kernel and its training go on."
    seconds, fresh = [], []
    for _ in range(reloads):
        lab.command("docmanager:save")
        lab.page.wait_for_timeout(1000)
        begun = time.time()
        lab.page.reload()
        lab.wait_data("Number(d.painted) >= 3", 60)
        painted = paint_times(lab)
        seconds.append(painted[0] - begun)
        fresh.append(painted[1] - begun)
    return [("page reload to the picture", f"{statistics.median(seconds):.2f} s, longest of {reloads} {max(seconds):.2f} s", "at most 5 s"),
            ("  to the next frame of the training", f"{statistics.median(fresh):.2f} s", "")]


def memory(lab: Notebook, steps: int, points: int = 10) -> list[tuple[str, str, str]]:
    "Kernel and browser memory while the panel paints: the kernel's as the system sees it and without free pages, the browser's after a collection."
    devtools = lab.page.context.new_cdp_session(lab.page)
    devtools.send("Performance.enable")
    begun, found = meter(lab)["steps"], []
    for point in range(points + 1):
        while (now := meter(lab))["steps"] < begun + point * steps / points: time.sleep(0.5)
        used = int(lab.execute("trimmed()")) / 2**20
        devtools.send("HeapProfiler.collectGarbage")
        heap = {m["name"]: m["value"] for m in devtools.send("Performance.getMetrics")["metrics"]}["JSHeapUsedSize"]
        found.append((now["steps"] - begun, now["rss"] / 2**20, used, heap / 2**20))
        print(f"  step {found[-1][0]:>6}: kernel {now['rss'] / 2**20:.1f} MiB, in use {used:.1f}, browser {found[-1][3]:.1f} MiB", flush=True)
    at, *columns = np.array(found).T
    third, rows = max(1, len(at) // 3), []
    for name, values in zip(("kernel RSS", "kernel memory in use, free pages given back", "browser JS heap, after collection"), columns):
        slope = np.polyfit(at / 1000, values, 1)[0]
        rows.append((f"{name}, first and last third of "
                     f"{steps:,} steps", f"{values[:third].mean():.1f}, {values[-third:].mean():.1f} MiB", "flat"))
        rows.append(("  slope", f"{slope:+.2f} MiB per 1,000 steps", ""))
    return rows


WATCH = """
import threading
def watch_pump():
    while True:
        with open("pump.json", "w") as file: json.dump(dict(frames=panel.pump.frames, steps=panel.trainer.step_count), file)
        time.sleep(0.5)
threading.Thread(target=watch_pump, daemon=True).start()
"""


def closed_page(lab: Notebook, seconds: float) -> list[tuple[str, str, str]]:
    "What goes on behind a page that is closed: frames sent, steps trained, the server's memory; then the page is opened again."
    lab.execute(WATCH)
    port = lab.lab.url.rsplit(":", 1)[1]
    server = next(p for p in psutil.process_iter(["cmdline"]) if any(f"--ServerApp.port={port}" in word for word in p.info["cmdline"]
                                                                     or ()))
    read = lambda: json.loads((lab.lab.folder / "pump.json").read_text())
    lab.command("docmanager:save")
    lab.page.wait_for_timeout(1000)
    url = lab.page.url
    lab.page.goto("about:blank")
    time.sleep(5)  # the last message of the page is forgotten after three seconds
    first, memory = read(), server.memory_info().rss
    time.sleep(seconds)
    last, grown = read(), (server.memory_info().rss - memory) / 2**20
    lab.page.goto(url)
    lab.page.wait_for_selector(lab.root, timeout=60_000)
    lab.wait_data("Number(d.painted) >= 2", 60)
    painted = paint_times(lab)
    return [("frames sent while the page was closed for "
             f"{seconds:.0f} s", f"{last['frames'] - first['frames']}, over {last['steps'] - first['steps']} steps", "0"),
            ("  server memory meanwhile", f"{grown:+.2f} MiB", "within 2 MiB"),
            ("  opened again: from the last picture to a fresh frame", f"{painted[1] - painted[0]:.2f} s", "at most 1 s")]


def attempt_part(rows: list, parts: list[str], what: str, work: Callable[[], list]) -> None:
    "One part; what goes wrong in it stands in its row and leaves the others alone. The first explanation is always asked for."
    if parts and what != "first explanation" and not any(what.startswith(part) for part in parts): return
    print(f"{what} ...", flush=True)
    try: rows += work()
    except Exception as error: rows.append((what, f"not measured: {type(error).__name__}: {str(error).splitlines()[0][:160]}", ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="nem")
    parser.add_argument("--slider", default="kl_scale", help="setting that is moved; it must be live and not folded away")
    parser.add_argument("--picture", default="", help="slider of the picture that is swept: weight, with the preset of a whole range")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the lab, as in a cell: side=64")
    parser.add_argument("--parts", nargs="*", default=[], help="first words of the parts to measure; nothing for all")
    parser.add_argument("--seconds", type=float, default=15, help="of painting that are counted")
    parser.add_argument("--pairs", type=int, default=8, help="of blocks with and without frames")
    parser.add_argument("--block", type=float, default=6, help="seconds of each block")
    parser.add_argument("--moves", type=int, default=20, help="of the slider")
    parser.add_argument("--reloads", type=int, default=3)
    parser.add_argument("--closed", type=float, default=60, help="seconds with the page closed")
    parser.add_argument("--memory", action="store_true", help="watch memory over --steps as well (minutes)")
    parser.add_argument("--steps", type=int, default=10_000)
    a = parser.parse_args()
    rows, before = [("", "measured", "target")], machine()
    chosen = "".join(f", {one}" for one in a.set)
    attempt = functools.partial(attempt_part, rows, a.parts)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as base, jupyterlab(Path(base)) as server, chromium_browser() as browser:
        version = browser.version
        with notebooks(server, browser) as open_:
            lab = open_([IMPORTS.format(a.family), PANEL.format(a.family, chosen)], name=a.family, run=False)
            attempt("first explanation", lambda: first_explanation(lab))
            lab.execute(METER)
            attempt("frames painted at 10", lambda: painted_rate(lab, 10, a.seconds, "at least 9 fps"))
            attempt("slider to picture", lambda: slider_latency(lab, a.slider, a.moves))
            for fps in (10, 30) if a.picture else (): attempt("sweep", lambda fps=fps: swept(lab, a.picture, a.seconds, fps))
            attempt("training rate kept", lambda: rate_kept(lab, a.pairs, a.block))
            attempt("page reload", lambda: picture_back(lab, a.reloads))
            attempt("page closed", lambda: closed_page(lab, a.closed))
            if a.memory: attempt("memory", lambda: memory(lab, a.steps))
            attempt("frames painted at 30", lambda: painted_rate(lab, 30, a.seconds, ""))
            said = lab.execute("print(f'{panel.trainer.run.data}, batch {panel.trainer.run.train.batch}, kernel torch threads', "
                               "__import__('torch').get_num_threads())")
            settings, errors = said.strip(), lab.errors
            lab.execute("panel.close()")
    print(f"\n{a.family} panel{chosen}, {settings}, in JupyterLab and headless Chromium {version} on the same cores\n{before}\n")
    print(table(rows))
    for error in errors: print(f"error in the page: {error.splitlines()[0]}")


if __name__ == "__main__":
    main()
