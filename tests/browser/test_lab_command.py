"`latentlab lab` as a user starts it: a real JupyterLab, on this machine alone, behind its token, on the lab."
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
START = [sys.executable, "-c", "import sys; from latentlab.cli import main; sys.exit(main())"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def quiet_environment(home: Path) -> dict[str, str]:
    "Without the user's own Jupyter configuration and without a display."
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "JUPYTER_TOKEN")
    own = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")} | {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    return {name: value for name, value in os.environ.items() if name not in hidden} | own | {"HOME": str(home)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    "The address that a started lab prints."
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("labs")
    log = home / "log"
    (folder / "nem.ipynb").write_text(json.dumps(dict(cells=[], metadata={}, nbformat=4, nbformat_minor=5)))
    with log.open("w") as said:
        command = [*START, "lab", str(folder), "--port", str(free_port())]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=quiet_environment(home), cwd=home)
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/\S*token=\S+", log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, f"no address was printed:\n{log.read_text()}"
            time.sleep(0.1)
        yield found[0]
    finally:
        process.terminate()
        try: process.wait(timeout=30)
        except subprocess.TimeoutExpired: process.kill()  # a kernel that was just started may hold it up


def get(address: str) -> str:
    for left in reversed(range(200)):
        try:
            with urllib.request.urlopen(address, timeout=20) as answer: return answer.read().decode()
        except urllib.error.HTTPError: raise
        except urllib.error.URLError:  # the address is printed a moment before the server listens
            if not left: raise
        time.sleep(0.1)


def test_the_printed_address_opens_the_lab(server: str) -> None:
    assert "/lab/tree/nem.ipynb?token=" in server
    assert "JupyterLab" in get(server)


def test_the_token_is_asked_for(server: str) -> None:
    base, token = server.split("/lab/")[0], server.split("token=")[1]
    assert json.loads(get(f"{base}/api/contents?token={token}"))["content"][0]["name"] == "nem.ipynb"
    with pytest.raises(urllib.error.HTTPError, match="403"): get(f"{base}/api/contents")


def test_it_listens_on_this_machine_alone(server: str) -> None:
    port = int(re.search(r":(\d+)/", server)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5): pass
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), timeout=5): pass  # Answers only when bound to every address


def test_the_lab_is_what_is_seen_and_no_question_about_news(server: str, browser: Browser) -> None:
    "JupyterLab asks about news within a second of its start; it is given three."
    page = browser.new_page()
    page.goto(server)
    page.wait_for_selector(".jp-NotebookPanel", timeout=60_000)
    page.wait_for_timeout(3_000)
    title, notices = page.title(), page.locator(".Toastify__toast").all_inner_texts()
    page.close()
    assert title.startswith("nem.ipynb") and notices == []
