"A real JupyterLab and a real Chromium, for tests and benchmarks: one server, one kernel session a notebook, cleaned up by REST."

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import requests
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
SHOTS = ROOT / "shots"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]


def chromium() -> str:
    "Path of Chromium. Raises RuntimeError when there is none."
    found = os.environ.get("LATENTLAB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found: return found
    remedy = "Install it (Debian: apt-get install chromium) or name it in $LATENTLAB_CHROMIUM."
    raise RuntimeError(f"A real browser is needed, Chromium: none found. {remedy}")


@dataclass(frozen=True)
class Lab:
    "A running JupyterLab."
    url: str
    token: str
    folder: Path
    log: Path

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = requests.request(method, f"{self.url}{path}", json=body, headers={"Authorization": f"token {self.token}"}, timeout=20)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:300]}"
        return answer.json() if answer.content else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def jupyterlab(base: Path) -> Iterator[Lab]:
    "JupyterLab with its own configuration, data and runtime folders, on this machine only, with a token."
    folders = {name: base / name for name in ("config", "data", "runtime", "ipython", "work")}
    for folder in folders.values(): folder.mkdir()
    (folders["config"] / "labconfig").mkdir()
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (folders["config"] / "labconfig" / "page_config.json").write_text(json.dumps(quiet))
    path = os.pathsep.join([str(ROOT), str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(folders["config"]), "JUPYTER_DATA_DIR": str(folders["data"]),
                   "JUPYTER_RUNTIME_DIR": str(folders["runtime"]), "IPYTHONDIR": str(folders["ipython"]), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    port, token, log = free_port(), secrets.token_hex(16), base / "jupyter.log"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
               "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
               f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folders['work']}", "--LabApp.news_url=None"]
    with log.open("w") as sink: server = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT, cwd=folders["work"])
    lab = Lab(f"http://127.0.0.1:{port}", token, folders["work"], log)
    try:
        answers(lab, server)
        yield lab
        for session in lab.ask("GET", "/api/sessions"): lab.ask("DELETE", f"/api/sessions/{session['id']}")
    finally:
        server.terminate()
        try: server.wait(30)
        except subprocess.TimeoutExpired: server.kill()


def answers(lab: Lab, server: subprocess.Popen) -> None:
    "Wait until the server does."
    limit = time.monotonic() + 180
    while time.monotonic() < limit:
        if server.poll() is not None: raise RuntimeError(f"JupyterLab ended: {lab.log.read_text()[-2000:]}")
        try: return lab.ask("GET", "/api/status")
        except requests.ConnectionError: time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not answer within 180 s: {lab.log.read_text()[-2000:]}")


@contextmanager
def chromium_browser() -> Iterator[Browser]:
    "Chromium, headless."
    path = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@dataclass
class Notebook:
    "An open notebook: its page, and its kernel to talk to from outside."
    lab: Lab
    page: Page
    session: dict[str, Any]
    path: str
    errors: list[str]

    @property
    def root(self) -> str: return ".ll"

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        "One of JupyterLab's own commands."
        self.page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, arguments or {}])

    def execute(self, code: str) -> str:
        "Run code in the kernel beside the notebook; returns what it printed."
        return self.page.evaluate("""async ([id, code]) => {
            const kernel = window.jupyterapp.serviceManager.kernels.connectTo({ model: { id, name: 'python3' } });
            const future = kernel.requestExecute({ code, store_history: false }); let text = '';
            future.onIOPub = (m) => { text += { stream: m.content.text, error: (m.content.traceback ?? []).join('\\n') }[m.header.msg_type] ?? ''; };
            await future.done; kernel.dispose(); return text; }""", [self.session["kernel"]["id"], code])

    def wait_idle(self, seconds: float = 180) -> None:
        "Until the kernel is idle."
        end = time.monotonic() + seconds
        while self.lab.ask("GET", f"/api/kernels/{self.session['kernel']['id']}")["execution_state"] != "idle":
            assert time.monotonic() < end, f"The kernel was not idle after {seconds} s."
            time.sleep(0.1)

    def data(self, name: str) -> str | None:
        "A data attribute of the panel's root."
        return self.page.locator(self.root).first.get_attribute(f"data-{name}")

    def wait_data(self, condition: str, seconds: float = 30) -> None:
        "Until a JavaScript condition on `d`, the panel's data attributes, holds; six times the usual `seconds` on a machine that is busy with something else."
        seen = "const r = e.getBoundingClientRect(); if (r.bottom < 80 || r.top > innerHeight - 80) e.scrollIntoView({block: 'nearest'});"  # a panel out of sight paints nothing
        test = f"() => {{ const e = document.querySelector('{self.root}'), d = e?.dataset; if (!e) return false; {seen} return ({condition}); }}"
        try: self.page.wait_for_function(test, timeout=6000 * seconds)
        except PlaywrightTimeout:
            seen = self.page.evaluate(f"() => [...document.querySelectorAll('{self.root}')].map(e => ({{...e.dataset, text: e.innerText.slice(0, 300)}}))")
            raise AssertionError(f"{condition} did not come true in {6 * seconds:g} s; the page shows {seen}, errors {self.errors}") from None

    def place(self, selector: str, seconds: float = 60) -> dict[str, float]:
        "Where an element lies on the page, in sight and at rest: there at three looks in a row. A frame or a new layout may replace it at any moment."
        look = """(s) => { const e = document.querySelector(s); if (!e) return null; e.scrollIntoView({ block: 'nearest' });
            const at = () => e.getBoundingClientRect(), seen = ({ x, y, width, height }) => e.contains(document.elementFromPoint(x + width / 2, y + height / 2));
            if (!seen(at())) e.scrollIntoView({ block: 'center' }); // a head that stays, or a tip, may cover it
            const { x, y, width, height } = at(); return width ? { x, y, width, height } : null; }"""
        end, same, last = time.monotonic() + seconds, 0, None
        while same < 2:
            assert time.monotonic() < end, f"{selector} was not at rest on the page after {seconds} s: last at {last}, errors {self.errors}"
            now = self.page.evaluate(look, selector)
            same, last = (same + 1 if now and now == last else 0), now
            self.page.wait_for_timeout(100)
        return last

    def press(self, selector: str, seconds: float = 60) -> None:
        "Press the left button in the middle of an element, and leave it pressed; the page may have moved after a look, so the pointer must be over it first."
        end = time.monotonic() + seconds
        while True:
            box = self.place(selector, seconds)
            self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            if self.page.evaluate("(s) => document.querySelector(s)?.matches(':hover')", selector): break
            assert time.monotonic() < end, f"the pointer did not come to rest over {selector} in {seconds} s"
        self.page.mouse.down()

    def shot(self, name: str, width: int | None = None, height: int = 1350) -> Path:
        "A picture of the panel in `shots/`; `width` is that of the panel itself."
        SHOTS.mkdir(exist_ok=True)
        if width is not None:
            self.page.set_viewport_size({"width": width + 200, "height": height})
            for _ in range(4):  # the frame of JupyterLab around the panel depends on the window
                self.page.wait_for_timeout(200)
                extra = self.page.viewport_size["width"] - round(self.page.locator(self.root).first.bounding_box()["width"])
                if extra + width == self.page.viewport_size["width"]: break
                self.page.set_viewport_size({"width": width + extra, "height": height})
            self.page.wait_for_timeout(350)
        path = SHOTS / f"{name}.png"
        self.page.locator(self.root).first.screenshot(path=path)
        return path


@contextmanager
def notebooks(lab: Lab, browser: Browser) -> Iterator[Callable[..., Notebook]]:
    "Opens a notebook with the given cells, its kernel started before the page; runs all cells unless told not to."
    opened: list[Notebook] = []

    def open_(cells: list[str], *, name: str = "x", run: bool = True, width: int = 1400, height: int = 1150) -> Notebook:
        path = f"{name}-{len(opened)}.ipynb"
        metadata = {"kernelspec": {"name": "python3", "display_name": "python3"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata=metadata), lab.folder / path)
        session = lab.ask("POST", "/api/sessions", {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}})
        page = browser.new_page(viewport={"width": width, "height": height})
        notebook = Notebook(lab, page, session, path, [])
        opened.append(notebook)
        page.on("pageerror", lambda error: notebook.errors.append(str(error)))
        # two writes within the resolution of a slow disk's clock: JupyterLab asks which one counts
        page.add_locator_handler(page.locator("dialog.jp-Dialog", has_text="File Changed"),
                                 lambda dialog: dialog.get_by_role("button", name="Overwrite").click())
        page.goto(f"{lab.url}/lab/tree/{path}?reset&token={lab.token}")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
        page.wait_for_function("() => window.jupyterapp?.commands.hasCommand('notebook:run-all-cells')", timeout=120_000)
        notebook.wait_idle()
        if page.locator("#jp-left-stack").is_visible(): notebook.command("application:toggle-left-area")
        if run: notebook.command("notebook:run-all-cells")
        return notebook

    yield open_
    for notebook in opened:
        notebook.page.close()
        for session in lab.ask("GET", "/api/sessions"):
            if session["id"] == notebook.session["id"]: lab.ask("DELETE", f"/api/sessions/{session['id']}")
