"One JupyterLab and one Chromium for all tests of the session; without Chromium they fail, and are never skipped."

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from browser.harness import Lab, Notebook, chromium, chromium_browser, jupyterlab, notebooks
from playwright.sync_api import Browser


LIMITS = {"setup": 240, "call": 120}  # Seconds: what starts JupyterLab, Chromium and a kernel; a test itself
SLOW = 5  # Times as long for a test that is marked slow


@contextmanager
def ends_within(seconds: int) -> Iterator[None]:
    "Fails a test where it stands when it has run so long, so that the others go on."
    def stop(number: int, frame: object) -> None: pytest.fail(f"a test must end within {seconds} s: it was stopped where this traceback ends")

    if threading.current_thread() is not threading.main_thread(): raise RuntimeError("an alarm reaches the main thread alone")
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try: yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with ends_within(LIMITS["setup"] * (SLOW if item.get_closest_marker("slow") else 1)): return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    "A test of the browser that waits for ever does not hold up the whole run."
    with ends_within(LIMITS["call"] * (SLOW if item.get_closest_marker("slow") else 1)): return (yield)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    "A running JupyterLab."
    try: chromium()
    except RuntimeError as error: pytest.fail(str(error), pytrace=False)
    with jupyterlab(tmp_path_factory.mktemp("lab")) as running: yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    "Chromium, headless."
    try: chromium()
    except RuntimeError as error: pytest.fail(str(error), pytrace=False)
    with chromium_browser() as started: yield started


@pytest.fixture(scope="module")
def open_notebook(lab: Lab, browser: Browser) -> Iterator[Callable[..., Notebook]]:
    "Opens a notebook with the given cells; see `harness.notebooks`."
    with notebooks(lab, browser) as open_: yield open_
