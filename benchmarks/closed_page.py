"""What a panel sends while nobody sees it: messages and server memory with the page open, closed, and open again, in a real JupyterLab and Chromium.

python benchmarks/closed_page.py [--open 20] [--closed 60]
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "browser")]

from browser.harness import Notebook, chromium_browser, jupyterlab, notebooks  # noqa: E402
from machine import machine, table  # noqa: E402

CELL = "from feeder import Feeder\nfeeder = Feeder().start()\nfeeder.view"
METER = """
import json, psutil
sends, send = [0, 0], feeder.view._send
def counted(message, buffers=None):
    sends[0] += 1; sends[1] += sum(map(len, buffers or []))
    send(message, buffers)
feeder.view._send = counted
def meter():
    memory = psutil.Process().memory_info().rss / 2**20
    print(json.dumps(dict(messages=sends[0], bytes=sends[1], frames=feeder.view.frame_meta["seq"], rss=memory)))
"""


def server_memory() -> float:
    "MiB of the JupyterLab server, a child of this process."
    servers = [child for child in psutil.Process().children() if "jupyterlab" in " ".join(child.cmdline())]
    return servers[0].memory_info().rss / 2**20


def phase(lab: Notebook, seconds: float) -> dict:
    "What was sent, and how memory grew, over some seconds."
    before, memory = json.loads(lab.execute("meter()")), server_memory()
    time.sleep(seconds)
    after = json.loads(lab.execute("meter()"))
    return {name: after[name] - before[name] for name in before} | {"server": server_memory() - memory, "seconds": seconds}


def rate(found: dict) -> str:
    "A phase in words."
    sent = f"{found['messages'] / found['seconds']:.1f} messages/s, {60 * found['bytes'] / 1e6 / found['seconds']:.1f} MB a minute"
    return f"{sent}; server {found['server']:+.1f} MiB, kernel {found['rss']:+.1f} MiB"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--open", type=float, default=20, help="seconds with the page open")
    options.add_argument("--closed", type=float, default=60, help="seconds with the page closed")
    a = options.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder, jupyterlab(Path(folder)) as lab, chromium_browser() as browser, notebooks(
        lab, browser) as open_:
        panel, beside = open_([CELL], name="panel"), open_([""], name="beside", run=False)
        panel.wait_data("Number(d.painted) > 10")
        kernel = Notebook(lab, beside.page, panel.session, panel.path, [])  # talks to the panel's kernel from another page
        kernel.execute(METER)
        seen = phase(kernel, a.open)
        panel.command("docmanager:save")
        panel.page.wait_for_timeout(1000)
        panel.page.close()
        time.sleep(5)  # the page's last word holds for three seconds
        closed = phase(kernel, a.closed)
        panel.page = browser.new_page(viewport={"width": 1400, "height": 1150})
        panel.page.goto(f"{lab.url}/lab/tree/{panel.path}?reset&token={lab.token}")
        panel.page.wait_for_selector(".ll", timeout=60_000)
        held = int(kernel.execute("print(feeder.view.frame_meta['seq'])"))
        panel.page.wait_for_function("() => Number(document.querySelector('.ll').dataset.painted) >= 1", timeout=60_000)
        first = panel.page.evaluate("window.latentlab.paints")
        start = time.monotonic()
        while not any(p["seq"] > held for p in first):
            assert time.monotonic() - start < 20, "no fresh frame came"
            panel.page.wait_for_timeout(20)
            first = panel.page.evaluate("window.latentlab.paints")
        fresh = next(p["t"] for p in first if p["seq"] > held) - first[0]["t"]
        print(table([("what", "measured", "target"), (f"page open, {a.open:g} s", rate(seen), ""),
                     (f"page closed, {a.closed:g} s", f"{closed['frames']} frames; {rate(closed)}", "0 frames; server flat within 2 MB"),
                     ("from the old picture to the first fresh one, page open again", f"{fresh / 1000:.2f} s", "at most 1 s")]))


if __name__ == "__main__": main()
