"The wheel stands without the repository: what it holds, what it says about itself, and that its labs can be copied out of it."
import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
NEEDED = ("latentlab", "nbs", "setup.py", "settings.ini", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The package as pip builds it, from a copy, so that nothing is left in the working tree."
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in NEEDED:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--disable-pip-version-check", "-w", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("latentlab-*.whl"))


def test_the_wheel_holds_the_whole_package(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = REPOSITORY / "latentlab"
    wanted = {f"latentlab/{file.relative_to(package).as_posix()}" for file in package.rglob("*.py")}
    for pattern in ("weights/*.safetensors", "bundled/*", "panels/static/*"):
        wanted |= {f"latentlab/{file.relative_to(package).as_posix()}" for file in package.glob(pattern) if file.is_file()}
    wanted |= {f"latentlab/labs/{lab.name}" for lab in (REPOSITORY / "nbs" / "labs").glob("*.ipynb")}
    assert not wanted - inside, f"left out of the wheel: {sorted(wanted - inside)}"
    assert not [name for name in inside if name.startswith(("tests/", "nbs/", "build/"))]


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as inside:
        read = lambda ending: inside.read(next(name for name in inside.namelist() if name.endswith(ending))).decode()
        metadata, scripts = Parser().parsestr(read("dist-info/METADATA")), read("dist-info/entry_points.txt")
    assert metadata["Name"] == "latentlab" and metadata["Requires-Python"] == ">=3.11" and metadata["License"] == "Apache-2.0"
    assert metadata["Summary"] and metadata["Keywords"] and metadata["Description-Content-Type"] == "text/markdown"
    assert {"lab", "ssl", "app", "docs", "scale", "mlflow", "encoders", "compare", "dev"} <= set(metadata.get_all("Provides-Extra"))
    required = [line.split(";")[0] for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert "torch>=2.5" in required and not any(name.startswith(("torchvision", "timm", "nbdev", "jupyterlab", "ipykernel", "kornia")) for name in required)
    assert "latentlab = latentlab.cli:main" in scripts or "latentlab=latentlab.cli:main" in scripts


def test_the_wheel_works_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    "Unpacked elsewhere and put before the development install: the labs come out of the package itself."
    site, labs = tmp_path / "site", tmp_path / "labs"
    zipfile.ZipFile(wheel).extractall(site)
    script = "import sys, latentlab.cli as cli; print(cli.__file__); sys.exit(cli.main(['lab', 'labs', '--copy-only']))"
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site)), f"the wheel was not what ran: {done.stdout}"
    for lab in (REPOSITORY / "nbs" / "labs").glob("*.ipynb"): assert (labs / lab.name).read_bytes() == lab.read_bytes()


WITHOUT_EXTRAS = '''"Trains with what `requirements` brings: every other module that is installed here is blocked."
import re, sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

wanted, waiting = set(), ["latentlab"] + sys.argv[1].split()
while waiting:  # what pip brings: requirements of requirements, with the extras that those name
    one = Requirement(waiting.pop())
    if (key := (canonicalize_name(one.name), frozenset(one.extras))) in wanted: continue
    wanted.add(key)
    try: rules = [Requirement(line) for line in distribution(one.name).requires or []]
    except PackageNotFoundError: continue
    if one.name == "latentlab": continue
    waiting += [str(rule).partition(";")[0] for rule in rules
                if rule.marker is None or any(rule.marker.evaluate({"extra": extra}) for extra in ("", *one.extras))]
names = {name for name, _ in wanted}
blocked = {top for top, owners in packages_distributions().items() if not any(canonicalize_name(owner) in names for owner in owners)}
blocked |= {"voila", "timm", "torchvision", "transformers", "captum", "pythae"}  # of extras that may not be installed here


class Installed:
    "Finds what is not blocked; asked whether a blocked module is there, it says no."

    def __init__(self, finder): self.finder = finder

    def __getattr__(self, name): return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else self.finder.find_spec(name, path, target)


for name in [name for name in sys.modules if name.partition(".")[0] in blocked]: del sys.modules[name]
sys.meta_path[:] = [Installed(finder) for finder in sys.meta_path]
for known in ("jupyterlab", "ipykernel", "kornia", "mlflow", "dask", "accelerate", "pytest", "nbdev"): assert known in blocked, known
for known in ("torch", "ipywidgets", "sklearn", "pandas"): assert known not in blocked, known

import tempfile
import torch
torch.set_num_threads(1)
import latentlab as ll
from latentlab.cli import main
from latentlab.core.runtime import MissingExtra
from latentlab.journal.mlflow import to_mlflow

runs = tempfile.mkdtemp()
SETTINGS = {
    "nem": dict(images=64, batch=8), "hvae": dict(data="moons", points=400, batch=32), "vle": dict(images=64, batch=8, side=16, tokens=3),
    "csvae": {"images": 64, "batch": 8, "side": 16, "features": 16, "model.width": 4},
    "compvae": {"images": 64, "batch": 8, "side": 16, "features": 16, "model.width": 4},
}
for family, settings in SETTINGS.items():
    trainer = ll.train(family, steps=2, check_every=2, checkpoint_every=2, device="cpu", journal=runs, **settings)
    assert trainer.step_count == 2, family
assert set(ll.Journal(runs).runs()["state"]) == {"done"}
bundle = ll.lab("hvae", data="moons")._repr_mimebundle_()
print("VIEW", "application/vnd.jupyter.widget-view+json" in bundle)


def missing(call):
    try: call()
    except MissingExtra as error: print("MISSING", error)


missing(lambda: ll.train("ssl", steps=1, images=64, batch=8))
missing(lambda: to_mlflow(runs, uri="file:///nowhere"))
missing(lambda: ll.encoder("timm:resnet18"))
print("STATUS", main(["app", sys.argv[2]]), main(["lab", tempfile.mkdtemp(), "--no-browser"]))
'''


def test_the_base_trains_every_family_without_the_extras(tmp_path: Path) -> None:
    "What is not in `requirements`, nor required by what is, cannot be imported; what needs an extra names it."
    config = ConfigParser(delimiters=["="], interpolation=None)
    config.read(REPOSITORY / "settings.ini", encoding="utf-8")
    command = [sys.executable, "-c", WITHOUT_EXTRAS, config["DEFAULT"]["requirements"], str(REPOSITORY / "nbs" / "labs" / "hvae.ipynb")]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "latentlab[" in line]
    for extra in ("ssl", "mlflow", "encoders", "lab", "app"): assert [line for line in said if f'pip install "latentlab[{extra}]"' in line], (extra, said)
    assert "VIEW True" in done.stdout and "STATUS 2 2" in done.stdout


RECIPES = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text().partition("## Three recipes")[2].partition("\n## ")[0], re.S)
STAND_IN = '''"A model with timm's interface, for a machine without timm."
import torch
from torch import nn


class Small(nn.Module):
    pretrained_cfg = {"input_size": (3, 64, 64), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in ((3, 8), (8, 16), (16, 16)))

    def forward_intermediates(self, x, indices=None, output_fmt="NCHW"):
        maps = []
        for layer in self.body:
            x = layer(x).relu()
            maps.append(x)
        return x, [maps[i] for i in (range(3) if indices is None else indices)]

    def forward_features(self, x): return self.forward_intermediates(x)[0]
    def forward_head(self, x, pre_logits=False): return x.mean((2, 3))
    def forward(self, x): return self.forward_head(self.forward_features(x))


def create_model(name, pretrained=False): return Small()
'''
BEFORE = '''
import torch
from torch import nn
torch.set_num_threads(1)


class MyVAE(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down, self.up = nn.Linear(3 * 64 * 64, 8), nn.Linear(4, 3 * 64 * 64)

    def encode(self, x): return (lambda h: (h[:, :4], h[:, 4:]))(self.down(x.flatten(1)))
    def decode(self, z): return self.up(z).sigmoid().view(-1, 3, 64, 64)


my_vae = MyVAE()
'''
AFTER = '''
import time
from latentlab.panels.panel import OPEN
for panel in list(OPEN.values()):
    limit = time.monotonic() + 240
    while panel.trainer.step_count < 3 and panel.trainer.error is None and time.monotonic() < limit: time.sleep(0.1)
    assert panel.trainer.step_count >= 3, panel.trainer.error
    panel.close()
import latentlab
print("DONE from", latentlab.__file__)
'''


@pytest.mark.parametrize("number", range(3), ids=["my folder", "my encoder", "my VAE"])
def test_a_recipe_of_the_readme_runs_from_the_wheel(wheel: Path, tmp_path: Path, number: int) -> None:
    "Outside the repository, as it is printed: at most five lines, on a folder of 90 pictures."
    assert len(RECIPES) == 3 and all(len([line for line in code.splitlines() if line.strip()]) <= 5 for code in RECIPES)
    site, stand_in, photos = tmp_path / "site", tmp_path / "stand_in", tmp_path / "photos"
    zipfile.ZipFile(wheel).extractall(site)
    stand_in.mkdir(), photos.mkdir()
    (stand_in / "timm.py").write_text(STAND_IN)
    draws = np.random.default_rng(0)
    for k in range(150): Image.fromarray(np.kron(draws.integers(0, 255, (8, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))).save(photos / f"{k}.png")
    (tmp_path / "recipe.py").write_text(BEFORE + RECIPES[number] + AFTER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(stand_in)])}
    done = subprocess.run([sys.executable, "recipe.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"DONE from {site}" in done.stdout


PINS = [Requirement(line) for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
TOOLS = {"latentlab", "pip", "setuptools", "wheel"}  # The package itself, and what a fresh virtual environment brings
INSTALLED = {canonicalize_name(found.metadata["Name"]): found for found in distributions()}


def test_everything_installed_is_pinned_at_its_version() -> None:
    pinned = {canonicalize_name(pin.name): pin for pin in PINS if pin.marker is None or pin.marker.evaluate()}
    missing = sorted(INSTALLED.keys() - pinned.keys() - TOOLS)
    assert not missing, f"installed and not in constraints.txt: {missing}. Add them, with their versions"
    versions = {name: (found.version, str(pinned[name].specifier)) for name, found in INSTALLED.items() if name in pinned}
    other = {name: pair for name, pair in versions.items() if f"=={Version(pair[0]).public}" != pair[1]}
    assert not other, f"installed in another version than constraints.txt pins: {other}. Make .venv anew: make clean setup"


def test_every_pin_is_exact_and_without_a_local_version() -> None:
    wrong = [str(pin) for pin in PINS if len(pin.specifier) != 1 or not str(pin.specifier).startswith("==") or "+" in str(pin.specifier)]
    assert not wrong, f"constraints.txt must pin `name==version`: got {wrong}"


def test_the_pins_can_be_installed_with_the_oldest_python() -> None:
    "Debian 12 has 3.11.2. A pin that refuses it makes pip search for minutes and then fail, so it needs a marker and a second pin."
    unmarked = {canonicalize_name(pin.name) for pin in PINS if pin.marker is None}
    wanted = {name: found.metadata.get("Requires-Python") for name, found in INSTALLED.items() if name in unmarked}
    wrong = {name: rule for name, rule in wanted.items() if rule and not SpecifierSet(rule).contains("3.11.0")}
    assert not wrong, f"not for Python 3.11.0: {wrong}"
