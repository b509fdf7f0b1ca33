"""The plug-in of tests/plugin as if it were installed: its folder on the path, and the entry points of its pyproject.toml in
a dist-info beside it.
"""
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PLUGIN = Path(__file__).resolve().parent / "plugin"


def write_entry_points(folder: Path, package: str, points: Mapping[str, str]) -> Path:
    "A folder that, on `sys.path`, registers families as an installed package does."
    info = folder / f"{package.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n")
    lines = [f"{name} = {place}" for name, place in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[latentlab.families]", *lines, ""]))
    return folder


@contextmanager
def on_path(*folders: Path) -> Iterator[None]:
    "Folders on `sys.path`, and in the environment for processes that are started meanwhile."
    before, outside = list(sys.path), os.environ.get("PYTHONPATH")
    sys.path[:0] = map(str, folders)
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, folders), outside or ""])
    try: yield
    finally:
        sys.path[:] = before
        if outside is None: del os.environ["PYTHONPATH"]
        else: os.environ["PYTHONPATH"] = outside


@contextmanager
def plugin_installed(folder: Path) -> Iterator[None]:
    "The example plug-in, registered through what its own pyproject.toml says; `folder` takes the dist-info."
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    write_entry_points(folder, project["name"], project["entry-points"]["latentlab.families"])
    with on_path(PLUGIN, folder): yield
