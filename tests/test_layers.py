"Imports point one way: who may import whom, read from the syntax trees, with the offender's file and line."
import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "latentlab"
# Floor of each part of the package, and its decade among the notebooks. A part imports itself, lower floors, and lower decades of its own floor.
FLOORS = {
    "core": (0, 0),
    "data": (1, 10), "losses": (1, 20), "nn": (1, 30), "journal": (1, 70), "plots": (1, 80),
    "models": (2, 40), "train": (2, 50), "metrics": (2, 60), "checks": (2, 65),
    "sweeps": (3, 76),
    "panels": (4, 85),
    "cli": (5, 90),
}
BESIDE = {("models", "checks"), ("models", "metrics"), ("journal", "plots")}  # A model names the checks that apply to it; a journal draws its figures, when asked
NEVER = {
    ("train", "models"): "the trainer knows only `Trainable`",
    ("checks", "models"): "a check sees a probe, never a model",
    ("metrics", "models"): "a metric sees arrays, never a model",
}
RUN_PARTS = {("models", "train.settings")}  # A family's run nests how it is trained; the trainer itself knows only `Trainable`
FAMILY_PAIRS = {("compvae", "vae"), ("hvae", "vae")}  # The exceptions: compvae's parent and child are VAEs, and a hierarchy of one layer is one
ONLY_IN = {
    "matplotlib": {"plots", "panels"},
    "seaborn": {"plots", "panels"},
    "ipywidgets": {"panels"},
    "anywidget": {"panels"},
    "IPython": {"panels", "plots"},
    "jupyterlab": {"cli"},
}
HEAVY = ["matplotlib", "pandas", "seaborn", "ipywidgets", "anywidget", "kornia", "sklearn", "pooch", "safetensors", "tqdm", "IPython", "nbdev", "jupyterlab"]


@dataclass(frozen=True)
class Import:
    "One import statement of one module."
    importer: str  # Dotted name inside the package: "models.nem"
    imported: str  # Dotted name, absolute: "latentlab.losses.masks", "matplotlib.pyplot"
    where: str  # File and line

    def part(self) -> str:
        return self.importer.split(".")[0]


def imports(package: Path) -> Iterator[Import]:
    "Every import of a package, those inside functions too; `from .. import x` counts as importing x."
    for file in sorted(package.rglob("*.py")):
        name = ".".join(file.relative_to(package).with_suffix("").parts)
        if name.startswith("_") or name.endswith("__init__"): continue
        inside = f"latentlab.{name}".split(".")[:-1]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            where = f"{file.relative_to(package.parent)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                yield from (Import(name, alias.name, where) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = inside[: len(inside) - node.level + 1] if node.level else []
                module = ".".join(base + ([node.module] if node.module else []))
                for full in (f"{module}.{alias.name}" for alias in node.names):
                    yield Import(name, full if is_module(package, full) else module, where)  # `from latentlab.losses import masks` names a module


def is_module(package: Path, dotted: str) -> bool:
    path = package.parent.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def offence(one: Import) -> str | None:
    "What is wrong with an import, or None."
    part, top = one.part(), one.imported.split(".")
    if part not in FLOORS: return f"`{part}` has no floor: give it one in tests/test_layers.py"
    if top[0] != "latentlab":
        if top[0] in ONLY_IN and part not in ONLY_IN[top[0]]: return f"only {' and '.join(sorted(ONLY_IN[top[0]]))} may import {top[0]}"
        return None
    if len(top) == 1: return None  # latentlab itself: its version
    other = top[1]
    if other not in FLOORS: return f"`{other}` has no floor: give it one in tests/test_layers.py"
    if part == other == "models" and len(top) > 2:
        mine, theirs = (name.split("_")[0] for name in (one.importer.split(".")[1], top[2]))  # nem and nem_run are one family
        if mine != theirs and (mine, theirs) not in FAMILY_PAIRS: return "families do not import one another: what they share sinks to nn or losses"
        return None
    if (part, other) in NEVER: return f"{part} must not import {other}: {NEVER[part, other]}"
    if FLOORS[other] <= FLOORS[part] or (part, other) in BESIDE or (part, ".".join(top[1:])) in RUN_PARTS: return None
    floors = f"{part} (floor {FLOORS[part][0]}) must not import {other} (floor {FLOORS[other][0]})"
    return f"{floors}: imports point down, and on one floor to lower numbers"


def offences(package: Path) -> list[str]:
    found = ((one, offence(one)) for one in imports(package))
    return [f"{one.where} imports {one.imported}: {wrong}" for one, wrong in found if wrong]


def test_imports_point_one_way() -> None:
    wrong = offences(PACKAGE)
    assert not wrong, "\n- " + "\n- ".join(wrong)


PLANTED = [
    ("core/settings.py", "from latentlab.train.trainer import Trainer", "core (floor 0) must not import train"),
    ("losses/masks.py", "from latentlab.families.nem.model import NEM", "losses (floor 1) must not import models"),
    ("losses/masks.py", "from ..models import nem", "losses (floor 1) must not import models"),
    ("data/images.py", "from latentlab.nn.planted import PlantedEncoder", "data (floor 1) must not import nn"),
    ("models/nem_run.py", "from latentlab.latents.model import VAE", "families do not import one another"),
    ("train/trainer.py", "from latentlab.families.nem.experiment import NEMRun", "train must not import models: the trainer knows only"),
    ("checks/masks.py", "from latentlab.families.nem.model import NEM", "checks must not import models"),
    ("models/nem.py", "from latentlab.train.trainer import Trainer", "models (floor 2) must not import train"),
    ("data/images.py", "def draw():\n    from latentlab import plots", "data (floor 1) must not import plots"),
    ("models/nem.py", "from latentlab.panels.panel import Panel", "models (floor 2) must not import panels"),
    ("models/nem.py", "from latentlab.latents.model import VAE", "families do not import one another"),
    ("models/nem.py", "from .vae import VAE", "families do not import one another"),
    ("models/nem.py", "from latentlab.models import vae", "families do not import one another"),
    ("models/nem.py", "import matplotlib.pyplot as plt", "only panels and plots may import matplotlib"),
    ("plots/masks.py", "def show():\n    import ipywidgets", "only panels may import ipywidgets"),
    ("train/live.py", "import anywidget", "only panels may import anywidget"),
    ("panels/panel.py", "from latentlab.cli import main", "panels (floor 4) must not import cli"),
    ("models/nem.py", "from latentlab.cellar import wine", "`cellar` has no floor"),
    ("attic/old.py", "import torch", "`attic` has no floor"),
]


def plant(root: Path, file: str, code: str) -> Path:
    "A package with the modules the planted imports name, and one file with such an import."
    package = root / "latentlab"
    for module in ("models/nem.py", "models/vae.py", "plots/masks.py", "train/trainer.py", file):
        path = package / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (package / file).write_text(code)
    return package


@pytest.mark.parametrize(("file", "code", "sentence"), PLANTED)
def test_a_planted_offender_is_named(tmp_path: Path, file: str, code: str, sentence: str) -> None:
    wrong = offences(plant(tmp_path, file, code))
    assert len(wrong) == 1 and sentence in wrong[0] and wrong[0].startswith(f"latentlab/{file}:"), wrong


@pytest.mark.parametrize(("file", "code"), [
    ("models/compvae.py", "from latentlab.latents.model import VAE"),
    ("models/nem.py", "import torch\nfrom latentlab.losses.masks import area\nfrom latentlab import __version__"),
    ("plots/masks.py", "import matplotlib.pyplot as plt"),
    ("panels/panel.py", "import anywidget, ipywidgets\nfrom latentlab.train.trainer import Trainer"),
    ("nn/encoders.py", "from latentlab.losses.contrastive import simclr_loss"),
    ("models/nem.py", "from latentlab.families.nem.checks import MaskProbe"),
    ("models/nem_run.py", "from latentlab.families.nem.model import NEM\nfrom latentlab.train.settings import TrainSettings"),
])
def test_what_is_allowed_passes(tmp_path: Path, file: str, code: str) -> None:
    assert offences(plant(tmp_path, file, code)) == []


def loaded_by(statement: str, folder: Path) -> list[str]:
    "Those of the heavy libraries that one statement loads in a fresh Python, beyond what torch, numpy and jaxtyping load themselves (torch: tqdm)."
    count = f"{{name for name in {HEAVY} if name in sys.modules}}"
    script = f"import sys, torch, numpy, jaxtyping\nbefore = {count}\n{statement}\nprint(*sorted({count} - before))"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


MODELS = sorted(f"latentlab.models.{path.stem}" for path in (PACKAGE / "models").glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("module", [*MODELS, "latentlab.train.trainer"])
def test_models_and_trainer_run_on_a_bare_machine(module: str) -> None:
    "Training needs torch, numpy and jaxtyping alone."
    if importlib.util.find_spec(module) is None: pytest.fail(f"`{module}` must exist: the bare machine has nothing to train")
    loaded = loaded_by(f"import {module}", PACKAGE.parent)
    assert not loaded, f"`import {module}` loads {', '.join(loaded)}: import lazily, inside the function that needs it"


def test_a_heavy_import_is_seen(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("import pooch, safetensors")
    assert loaded_by("import planted", tmp_path) == ["pooch", "safetensors"]
