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
from contextlib import contextmanager
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
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "JUPYTER_TOKEN", "JUPYTER_TOKEN_FILE")
    own = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")} | {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    return {name: value for name, value in os.environ.items() if name not in hidden} | own | {"HOME": str(home)}


def configured(home: Path, more: str) -> None:
    "A configuration of Jupyter's that listens to everybody; more of it after that."
    (home / "config").mkdir()
    (home / "config" / "jupyter_server_config.py").write_text("c = get_config()\nc.ServerApp.ip = '0.0.0.0'\n" + more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    "The address that a started lab prints, for a user whose configuration turns the token off."
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("labs")
    configured(home, "c.IdentityProvider.token = ''\n")
    with started(home, folder, JUPYTER_TOKEN="") as (address, log):
        assert "your Jupyter configuration has an empty token" in log.read_text()
        yield address


@contextmanager
def started(home: Path, folder: Path, port: int | None = None, **environ: str) -> Iterator[tuple[str, Path]]:
    "A lab that was started from a terminal: the address that it prints, and the file with all that it says."
    log = home / "log"
    (folder / "nem.ipynb").write_text(json.dumps(dict(cells=[], metadata={}, nbformat=4, nbformat_minor=5)))
    with log.open("w") as said:
        command = [*START, "lab", str(folder), "--port", str(port or free_port())]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=quiet_environment(home) | environ,
                                   cwd=home)
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/\S*token=\S+", log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, f"no address was printed:\n{log.read_text()}"
            time.sleep(0.1)
        yield found[0], log
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


EMPTY = {"older name": "c.ServerApp.token = ''\n", "with a password": "c.PasswordIdentityProvider.hashed_password = 'argon2:x'\n",
         "both names": "c.ServerApp.token = ''\nc.IdentityProvider.token = ' '\n"}


@pytest.mark.slow
@pytest.mark.parametrize("more", EMPTY.values(), ids=EMPTY)
def test_every_way_to_an_empty_token_ends_at_a_token(tmp_path: Path, more: str) -> None:
    "The printed address has one, and without it nothing is given away; a port that is taken is not waited for."
    configured(tmp_path, more)
    (tmp_path / "labs").mkdir()
    (tmp_path / "empty").write_text("\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with started(tmp_path, tmp_path / "labs", port, JUPYTER_TOKEN_FILE=str(tmp_path / "empty")) as (address, _):
            base, token = address.split("/lab/")[0], address.split("token=")[1]
            assert len(token) == 48 and not base.endswith(f":{port}")
            names = [one["name"] for one in json.loads(get(f"{base}/api/contents?token={token}"))["content"]]
            assert "nem.ipynb" in names
            with pytest.raises(urllib.error.HTTPError, match="403"): get(f"{base}/api/contents")


@pytest.mark.slow
def test_a_token_of_ones_own_stays(tmp_path: Path) -> None:
    configured(tmp_path, "c.IdentityProvider.token = 'my-own'\n")
    (tmp_path / "labs").mkdir()
    process = subprocess.Popen([*START, "lab", str(tmp_path / "labs"), "--port", str(port := free_port())], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=quiet_environment(tmp_path), cwd=tmp_path)
    try:
        assert "nem.ipynb" in get(f"http://127.0.0.1:{port}/api/contents?token=my-own")
        with pytest.raises(urllib.error.HTTPError, match="403"): get(f"http://127.0.0.1:{port}/api/contents?token=")
    finally:
        process.terminate()
        process.wait(60)


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
