"""How the package hangs together, read from its syntax trees: who imports whom, who may know a family, what a class
inherits, and what a name means.
"""
import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "latentlab"
# Who may import whom: a part imports itself, lower floors, and what stands left of it on its own floor. The facade is
# `latentlab/__init__.py`.
FLOORS = (("core",), ("data", "losses", "nn", "plots"), ("metrics", "latents", "journal"), ("train",), ("sweeps", "panels"), ("families",),
          ("facade", "contract", "cli"))
PLACE = {part: (floor, column) for floor, parts in enumerate(FLOORS) for column, part in enumerate(parts)}
ONLY_IN = {  # Library -> parts, modules and names of modules that may import it
    "matplotlib": ("plots", "journal.report", "display"), "seaborn": ("plots", "journal.report", "display"),
    "ipywidgets": ("panels",), "anywidget": ("panels",), "IPython": ("panels", "plots"), "jupyterlab": ("cli",),
}
FAMILIES = ("nem", "hvae", "vle", "csvae", "compvae", "ssl")
FAMILY_WORD = re.compile(rf"(?<![a-z])({'|'.join(FAMILIES)})(?![a-z])", re.I)
FAMILY_CLASS = re.compile(r"(?<![A-Z])(NEM|HVAE|VLE|CSVAE|CompVAE|SSL)(?=[A-Z][a-z])")
HEAVY = ("matplotlib", "pandas", "seaborn", "ipywidgets", "anywidget", "kornia", "sklearn", "scipy", "pooch", "safetensors", "tqdm",
         "IPython", "nbdev", "jupyterlab", "jinja2")
MANY = {"FAMILY"}  # Every family's record is called so


@dataclass(frozen=True)
class Module:
    "One file of the package."
    package: Path  # Folder of the package
    path: Path  # The file

    @cached_property
    def tree(self) -> ast.Module: return ast.parse(self.path.read_text(encoding="utf-8"))

    @cached_property
    def name(self) -> str:  # Inside the package: "families.nem.model"; "facade" for the package's own __init__
        parts = self.path.relative_to(self.package).with_suffix("").parts
        return ".".join(parts) if parts != ("__init__",) else "facade"

    @property
    def part(self) -> str: return self.name.split(".")[0]

    @property
    def family(self) -> str | None: return self.name.split(".")[1] if self.part == "families" and "." in self.name else None

    def at(self, node: ast.AST) -> str: return f"{self.path.relative_to(self.package.parent)}:{getattr(node, 'lineno', 0)}"

    def imports(self) -> Iterator[tuple[ast.AST, str]]:
        "Every import, those inside functions too, as an absolute dotted name; `from .. import x` counts as importing x."
        inside = ["latentlab", *self.path.relative_to(self.package).parts[:-1]]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import): yield from ((node, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = inside[: len(inside) - node.level + 1] if node.level else []
                module = ".".join(base + ([node.module] if node.module else []))
                yield from ((node, f"{module}.{alias.name}") for alias in node.names)


@cache
def modules(package: Path) -> tuple[Module, ...]:
    "Every file but nbdev's index; an `__init__` counts where it holds something. Read once for all rules: a package does not change meanwhile."
    files = [path for path in sorted(package.rglob("*.py")) if path.name != "_modidx.py"]
    return tuple(Module(package, path) for path in files if path.name != "__init__.py" or path.parent == package)


# Each rule gives a sentence for each offence. ------------------------------------------------------------------------


def directions(package: Path) -> list[str]:
    "Imports point down, or to the left on one floor; families do not import one another."
    wrong = []
    for module in modules(package):
        if module.part not in PLACE:
            wrong.append(f"{module.at(module.tree)} `{module.part}` has no floor: give it one in tests/test_layers.py")
        for node, imported in module.imports():
            top = imported.split(".")
            if top[0] != "latentlab" or top[1:] == ["__version__"] or module.part not in PLACE: continue
            known = len(top) > 1 and (top[1] in PLACE or (package / top[1]).is_dir() or (package / f"{top[1]}.py").exists())
            other = top[1] if known else "facade"
            said = f"{module.at(node)} imports {imported}:"
            if other not in PLACE: wrong.append(f"{said} `{other}` has no floor: give it one in tests/test_layers.py")
            elif other == module.part == "families":
                if len(top) > 2 and top[2] != module.family:
                    wrong.append(f"{said} families do not import one another: what they share sinks to latents, nn or losses")
            elif other != module.part and PLACE[other] > PLACE[module.part]:
                wrong.append(f"{said} {module.part} (floor {PLACE[module.part][0]}) must not import {other} (floor {PLACE[other][0]}): "
                             "imports point down")
    return wrong


def libraries(package: Path) -> list[str]:
    "Figures are drawn in `plots`, `journal.report` and the displays, widgets made in `panels`."
    wrong = []
    for module in modules(package):
        names = {module.part, module.name, module.name.split(".")[-1]}
        for node, imported in module.imports():
            allowed = ONLY_IN.get(imported.split(".")[0])
            if allowed and not names & set(allowed): wrong.append(f"{module.at(node)} imports {imported}: only {', '.join(allowed)} may")
    return wrong


def docstrings(tree: ast.Module) -> set[int]:
    "Identities of the constants that are docstrings."
    holders = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
               and node.body]
    firsts = [node.body[0] for node in holders]
    return {id(first.value) for first in firsts if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)}


def words_of(node: ast.AST) -> list[str]:
    "The names and texts that one node of a syntax tree holds."
    if isinstance(node, ast.Constant): return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.alias): return [node.name, node.asname or ""]
    return [value for name in ("id", "attr", "arg", "name", "module") if isinstance(value := getattr(node, name, None), str)]


def family_names(package: Path) -> list[str]:
    "What is shared knows no family by name, in code, texts or JavaScript; docstrings and comments may cite a source."
    wrong = []
    for module in modules(package):
        if module.part in ("families", "facade", "contract", "cli"): continue
        cited = docstrings(module.tree)
        for node in ast.walk(module.tree):
            if id(node) in cited: continue
            hits = {hit[1] for word in words_of(node) for hit in (FAMILY_WORD.search(word), FAMILY_CLASS.search(word)) if hit}
            wrong += [f"{module.at(node)} names the family {hit}: ask core.registry" for hit in sorted(hits)]
    for path in sorted((package / "panels" / "static").glob("*.js")):
        lines = path.read_text(encoding="utf-8").splitlines()
        own = [(n, line) for n, line in enumerate(lines, 1) if len(line) < 400]  # Longer lines are libraries, made small
        wrong += [f"{path.relative_to(package.parent)}:{n} names the family {hit[1]}: let the "
                  "layout say it" for n, line in own if (hit := FAMILY_WORD.search(line))]
    return wrong


@dataclass
class Class:
    "What the syntax tree says of one class."
    name: str
    where: str  # File and line
    bases: list[str]  # Last part of each
    defined: set[str] = field(default_factory=set)  # Attributes and methods with a body; `self.x = ...` in any method counts
    stubs: set[str] = field(default_factory=set)  # Methods without one
    asked: dict[str, int] = field(default_factory=dict)  # What its methods read of self -> line

    def read(self, method: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        "Take in a method, written in the class or patched into it."
        body = [node for node in method.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
        empty = not body or (len(body) == 1 and isinstance(body[0], ast.Raise) and "NotImplementedError" in ast.unparse(body[0]))
        (self.stubs if empty and "Protocol" not in self.bases else self.defined).add(method.name)
        if not method.args.args: return
        me = method.args.args[0].arg
        for node in ast.walk(method):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == me:
                if isinstance(node.ctx, ast.Load): self.asked.setdefault(node.attr, node.lineno)
                else: self.defined.add(node.attr)


def classes(package: Path) -> dict[str, Class]:
    "Every class at the top of a module, by name, with what is patched into it."
    found: dict[str, Class] = {}
    patched = []
    for module in modules(package):
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef) and any("patch" in ast.unparse(d) for d in node.decorator_list): patched.append(node)
            if not isinstance(node, ast.ClassDef): continue
            bases = [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]
            one = found[node.name] = Class(node.name, module.at(node), bases)
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef): one.read(inner)
                elif isinstance(inner, ast.Assign): one.defined |= {target.id for target in inner.targets if isinstance(target, ast.Name)}
                elif isinstance(inner, ast.AnnAssign): one.defined.add(inner.target.id)
    for node in patched:
        owner = node.args.args and node.args.args[0].annotation
        if owner is not None and ast.unparse(owner) in found: found[ast.unparse(owner)].read(node)
    return found


def ancestors(name: str, known: dict[str, Class]) -> list[str]:
    "Names of our own classes that a class inherits from, near ones first."
    own = [base for base in known[name].bases if base in known and base != name]
    return list(dict.fromkeys(own + [far for base in own for far in ancestors(base, known)]))


def is_protocol(name: str, known: dict[str, Class]) -> bool: return "Protocol" in known[name].bases


def inheritance(package: Path) -> list[str]:
    "At most one base class of ours; settings and protocols do not count."
    known, wrong = classes(package), []
    for name, one in known.items():
        above = [base for base in ancestors(name, known) if not is_protocol(base, known)]
        if "Settings" not in [name, *above] and len(above) > 1:
            wrong.append(f"{one.where} `{name}` inherits from {len(above)} classes of ours ({', '.join(above)}): compose it, "
                         "one base at most")
    return wrong


def upward_calls(package: Path) -> list[str]:
    "A base does not read on self what only a class below it defines; a method without a body is no definition."
    known, wrong = classes(package), []
    for name, one in known.items():
        below = [other for other in known if name in ancestors(other, known)]
        if is_protocol(name, known) or not below: continue
        mine = set().union(one.defined, *(known[base].defined for base in ancestors(name, known)))
        for asked, line in one.asked.items():
            lower = [other for other in below if asked in known[other].defined]
            if asked not in mine and lower:
                wrong.append(f"{one.where.split(':')[0]}:{line} `{name}` reads self.{asked}, which only {', '.join(lower)} "
                             "defines: hand it in")
    return wrong


def meanings(package: Path) -> list[str]:
    "A name at the top of a module means one thing in the package."
    places = defaultdict(list)
    for module in modules(package):
        for node in module.tree.body:
            names = ([node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef)
                     and not any("patch" in ast.unparse(d) for d in node.decorator_list) else [])
            if isinstance(node, ast.Assign | ast.AnnAssign):  # also `A, B = 1, 2` and `A: int = 1`
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)]
            for name in names:
                if not name.startswith("_") and name not in MANY: places[name].append(module.at(node))
    return [f"`{name}` means {len(found)} things: {', '.join(found)}" for name, found in sorted(places.items()) if len(found) > 1]


RULES = (directions, libraries, family_names, inheritance, upward_calls, meanings)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    wrong = rule(PACKAGE)
    assert not wrong, f"{rule.__doc__}\n- " + "\n- ".join(wrong)


# Each rule is shown a package that breaks it. ------------------------------------------------------------------------

PLANTED = [
    (directions, "core/settings.py", "from latentlab.train.trainer import Trainer", "core (floor 0) must not import train (floor 3)"),
    (directions, "losses/masks.py", "from latentlab.families.nem.model import NEM", "losses (floor 1) must not import families (floor 5)"),
    (directions, "losses/masks.py", "from ..families import nem", "losses (floor 1) must not import families"),
    (directions, "data/images.py", "from latentlab.nn.planted import PlantedEncoder", "data (floor 1) must not import nn (floor 1)"),
    (directions, "data/images.py", "def draw():\n    from latentlab import plots", "data (floor 1) must not import plots"),
    (directions, "journal/report.py", "from latentlab.panels.panel import Panel", "journal (floor 2) must not import panels"),
    (directions, "panels/panel.py", "from latentlab.cli import main", "panels (floor 4) must not import cli"),
    (directions, "train/trainer.py", "import latentlab as ll", "train (floor 3) must not import facade (floor 6)"),
    (directions, "families/nem/model.py", "from latentlab.families.hvae.model import Hierarchy", "families do not import one another"),
    (directions, "families/nem/model.py", "from ..hvae.model import Hierarchy", "families do not import one another"),
    (directions, "families/nem/model.py", "from .. import hvae", "families do not import one another"),
    (directions, "attic/old.py", "import torch", "`attic` has no floor"),
    (libraries, "families/nem/model.py", "import matplotlib.pyplot as plt", "only plots, journal.report, display may"),
    (libraries, "journal/runs.py", "def show():\n    from matplotlib.figure import Figure", "only plots, journal.report, display may"),
    (libraries, "families/nem/display.py", "import anywidget", "only panels may"),
    (family_names, "panels/view.py", "TITLES = {'nem': 'masks'}", "names the family nem"),
    (family_names, "journal/runs.py", "def show(run): return f'of the HVAE lab {run}'", "names the family HVAE"),
    (family_names, "journal/runs.py", "def show(run, NEMRun=None): return run", "names the family NEM"),
    (family_names, "train/trainer.py", "def hvae_step(model): return model", "names the family hvae"),
    (family_names, "panels/static/grid.js", "// shared\nif (kind === 'nem') draw()", "grid.js:2 names the family nem"),
    (inheritance, "train/trainer.py", "class A: pass\nclass B(A): pass\nclass C(B): pass", "`C` inherits from 2 classes of ours (B, A)"),
    (inheritance, "train/trainer.py", "class A: pass\nclass B: pass\nclass C(A, B): pass", "`C` inherits from 2"),
    (upward_calls, "train/trainer.py", "class A:\n    def run(self): return self.step()\nclass B(A):\n    def "
                                       "step(self): return 1", "trainer.py:2 `A` reads self.step, which only B defines"),
    (upward_calls, "train/trainer.py", "class A:\n    def run(self): return self.step()\n    def step(self): raise "
                                       "NotImplementedError\nclass B(A):\n    def step(self): return 1", "reads self.step"),
    (upward_calls, "train/trainer.py", "class A:\n    def run(self): return self.rate\nclass B(A):\n    def __init__(self): "
                                       "self.rate = 1", "reads self.rate"),
    (meanings, "train/trainer.py", "def square(x): return x", "`square` means 2 things: latentlab/core/settings.py:1, "
                                                              "latentlab/train/trainer.py:1"),
    (meanings, "train/trainer.py", "low, square = 1, 2", "`square` means 2 things"),
    (meanings, "train/trainer.py", "square: int = 2", "`square` means 2 things"),
]
ALLOWED = [
    ("families/nem/model.py", "import torch\nfrom latentlab.losses.masks import area\nfrom latentlab import __version__\nfrom .checks "
                              "import MaskProbe"),
    ("nn/encoders.py", "from latentlab.losses.contrastive import simclr_loss"),
    ("families/nem/display.py", "import matplotlib.pyplot as plt\nfrom latentlab.panels.display import Display"),
    ("journal/report.py", "from matplotlib.figure import Figure\nfrom ..plots import style"),
    ("cli.py", "from latentlab.train.trainer import Trainer\nimport latentlab"),
    ("plots/masks.py", "def draw(unnamed, channels):\n    'As in the NEM journal.'\n    return unnamed  # nem"),
    ("train/trainer.py", "class A(Protocol):\n    def step(self): ...\nclass B(A):\n    def step(self): return self.helper()\n    def "
                         "helper(self): return 1\nclass C(B):\n    def helper(self): return 2"),
    ("latents/model.py", "from latentlab.core.settings import Settings\nclass A(Settings): pass\nclass B(A): pass\nclass C(B): pass"),
]


def plant(root: Path, file: str, code: str) -> Path:
    "A package with the modules the planted imports name, and one file with what is planted."
    package = root / "latentlab"
    for module in ("__init__.py", "core/settings.py", "families/nem/model.py", "families/hvae/model.py", "plots/masks.py",
                   "train/trainer.py", "cli.py", file):
        path = package / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("def square(x): return x * x\nclass Settings: pass" if module == "core/settings.py" else "")
    (package / file).write_text(code)
    return package


@pytest.mark.parametrize(("rule", "file", "code", "sentence"), PLANTED)
def test_a_planted_offence_is_named(tmp_path: Path, rule: Callable[[Path], list[str]], file: str, code: str, sentence: str) -> None:
    wrong = rule(plant(tmp_path, file, code))
    assert wrong and all(sentence in one for one in wrong), wrong
    assert rule is meanings or all(one.startswith(f"latentlab/{file}:") for one in wrong)


def test_what_is_allowed_passes(tmp_path: Path) -> None:
    for n, (file, code) in enumerate(ALLOWED):
        package = plant(tmp_path / str(n), file, code)
        assert [one for rule in RULES for one in rule(package)] == [], file


def test_every_rule_has_an_offence_planted() -> None:
    assert {rule for rule, *_ in PLANTED} == set(RULES)


# What an import loads ------------------------------------------------------------------------------------------------


def loaded_by(names: list[str], folder: Path) -> dict[str, list[str]]:
    """Module -> heavy libraries that its import adds, in one fresh Python, beyond what torch, numpy and jaxtyping load
    themselves (torch: tqdm).
    """
    script = "\n".join((
        "import importlib, sys, torch, numpy, jaxtyping", f"heavy = {HEAVY}", "seen = {name for name in heavy if name in sys.modules}",
        f"for module in {names}:", "    importlib.import_module(module)", "    new = {name for name in heavy if name in "
                                                                          "sys.modules} - seen", "    seen |= new",
        "    print(module, *sorted(new))",
    ))
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {module: libraries for module, *libraries in (line.split() for line in done.stdout.splitlines())}


def test_models_metrics_and_trainer_run_on_a_bare_machine() -> None:
    "Training and measuring need torch, numpy and jaxtyping alone."
    models = [f"latentlab.families.{path.parent.name}.model" for path in sorted((PACKAGE / "families").glob("*/model.py"))]
    assert len(models) >= 3
    names = [*models, *(f"latentlab.metrics.{path.stem}" for path in (PACKAGE / "metrics").glob("[a-z]*.py")), "latentlab.train.trainer",
             "latentlab"]
    loaded = loaded_by(names, PACKAGE.parent)
    wrong = [f"`import {module}` loads {', '.join(heavy)}: import lazily, inside the function "
             "that needs it" for module, heavy in loaded.items() if heavy]
    assert list(loaded) == names and not wrong, "\n".join(wrong)


def test_a_heavy_import_is_seen(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("import pooch, safetensors")
    (tmp_path / "light.py").write_text("import json")
    assert loaded_by(["light", "planted"], tmp_path) == {"light": [], "planted": ["pooch", "safetensors"]}
