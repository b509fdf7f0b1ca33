"One JupyterLab and one Chromium for all tests of the session; without Chromium they fail, and are never skipped."

from collections.abc import Callable, Iterator

import pytest
from browser.harness import Lab, Notebook, chromium, chromium_browser, jupyterlab, notebooks
from playwright.sync_api import Browser


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
