"For every test: one torch thread, shapes and types checked while the package runs, whose warnings pytest.ini makes errors. Seeds nothing."
import os
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "agg")  # No test opens a window

import jaxtyping

jaxtyping.install_import_hook("latentlab", "typecheck.checked")  # Before the first import of the package, in the pytest run only

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def data_root() -> Path | None:
    """Folder of the whole data sets as `$LATENTLAB_DATA` names it; None where there is none, and then only what the package
    bundles can be loaded.
    """
    named = os.environ.get("LATENTLAB_DATA")
    if not named: return None
    folder = Path(named)
    assert folder.is_dir(), f"`$LATENTLAB_DATA` must be a folder: got {named}. Unset it to test with the bundled data alone."
    return folder


@pytest.fixture
def unchecked() -> Iterator[None]:
    "Run-time type checks off, as they are for users: for tests of what the package itself says about a value of the wrong type."
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# Files that take long come first (with `--no-loadscope-reorder`): those that follow are short, and all workers end at about the same time.
LONG = ("browser/", "test_sweeps", "test_cluster", "test_trainer", "test_journal", "test_regressions", "test_families", "test_surroundings", "test_cli",
        "test_hvae", "test_encoders", "test_outside_encoders", "test_checks_trained", "test_fuzz_settings")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    "Order the files; within a file nothing changes."
    items.sort(key=lambda item: next((rank for rank, name in enumerate(LONG) if f"tests/{name}" in str(item.path)), len(LONG)))
