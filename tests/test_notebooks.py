"""The rules of a notebook and the measures to look at: each is a function that names what it found, and each is shown a
notebook that breaks it. Depth of inheritance: test_layers.
"""
import ast
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TEST_CALL = re.compile(r"\bassert\b|\btest_\w+\(|pytest\.raises")
MACHINE_PATH = re.compile(r"(?<![\w.:/])(?:/home/|/Users/|/root/|/tmp/|/var/folders/|[A-Z]:\\\\?Users)[\w.\-]*|[\w./\-]+/site-packages/")


@dataclass(frozen=True)
class Cell:
    "One cell, its source and what was saved below it."
    number: int  # Position in the notebook, from 0
    kind: str  # "code" or "markdown"
    source: str
    outputs: tuple[dict, ...]

    @property
    def lines(self) -> list[str]:
        "Lines of code: neither empty nor a directive."
        return [line for line in self.source.split("\n") if line.strip() and not line.strip().startswith("#|")]

    @property
    def directives(self) -> dict[str, str]:
        "Directive -> its argument, as in `#| eval: false`."
        found = re.findall(r"^#\|\s*([\w-]+):?[ \t]*(.*)$", self.source, re.M)
        return {name: argument.strip() for name, argument in found}

    @property
    def exported(self) -> bool:
        return bool({"export", "exports"} & self.directives.keys())

    @property
    def statements(self) -> list[ast.stmt]:
        code = "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in self.source.split("\n"))
        return ast.parse(code).body


@dataclass(frozen=True)
class Notebook:
    "A notebook as the checks see it."
    path: Path
    raw: dict

    @classmethod
    def read(cls, path: Path) -> "Notebook":
        return cls(path, json.loads(path.read_text(encoding="utf-8")))

    @cached_property
    def cells(self) -> list[Cell]:
        text = lambda source: source if isinstance(source, str) else "".join(source)
        return [Cell(n, c["cell_type"], text(c["source"]), tuple(c.get("outputs", ()))) for n, c in enumerate(self.raw["cells"])]

    @property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "code"]

    @property
    def exported(self) -> list[Cell]:
        return [cell for cell in self.code if cell.exported]

    @property
    def default_exp(self) -> str | None:
        return next((cell.directives["default_exp"] for cell in self.code if "default_exp" in cell.directives), None)

    @property
    def words(self) -> int:
        return sum(len(cell.source.split()) for cell in self.cells if cell.kind == "markdown")

    @property
    def code_lines(self) -> int:
        return sum(len(cell.lines) for cell in self.code)

    @property
    def exported_lines(self) -> int:
        return sum(len(cell.lines) for cell in self.exported)


# Checks of any notebook. Each returns one sentence for each thing that is wrong.


def title(book: Notebook) -> list[str]:
    if book.cells and book.cells[0].kind == "markdown" and book.cells[0].source.startswith("# "): return []
    return ["the first cell must be a markdown title, `# ...`"]


def cells(book: Notebook) -> list[str]:
    return [f"has {len(book.cells)} cells, usually 30 to 80"] if len(book.cells) > 120 else []


def long_lines(book: Notebook) -> list[str]:
    long = [(cell.number, line) for cell in book.code for line in cell.source.split("\n") if len(line) > 140]
    return [f"cell {number} has a line of {len(line)} characters, at most 140: {line.strip()[:60]}..." for number, line in long]


def widget_state(book: Notebook) -> list[str]:
    wrong = ["saved widget state in its metadata"] if "widgets" in book.raw.get("metadata", {}) else []
    for cell in book.code:
        if any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in cell.outputs):
            wrong.append(f"cell {cell.number} saved a widget view: save a still picture of the same plot function in its place")
    return wrong


def errors(book: Notebook) -> list[str]:
    tagged = lambda cell: "raises-exception" in book.raw["cells"][cell.number].get("metadata", {}).get("tags", [])
    failed = [cell for cell in book.code if any(output["output_type"] == "error" for output in cell.outputs) and not tagged(cell)]
    return [f"cell {cell.number} saved an error: mend it, or tag the cell raises-exception" for cell in failed]


def machine_paths(book: Notebook) -> list[str]:
    shown = lambda output: {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
    wrong = []
    for cell in book.cells:
        texts = [cell.source] + [json.dumps([shown(o), o.get("text", ""), o.get("traceback", "")]) for o in cell.outputs]
        found = sorted({path for text in texts for path in MACHINE_PATH.findall(text)})
        if found: wrong.append(f"cell {cell.number} names a path of one machine: {', '.join(found)}")
    return wrong


# Checks of notebooks that export a module.


def quote(book: Notebook) -> list[str]:
    quotes = [line for cell in book.cells[:2] if cell.kind == "markdown" for line in cell.source.split("\n") if line.startswith("> ")]
    return [] if len(quotes) == 1 else [f"must have one line of quote below its title, the module's docstring: has {len(quotes)}"]


def file_name(book: Notebook) -> list[str]:
    named = re.fullmatch(r"\d\d_([a-z0-9_]+)\.ipynb", book.path.name)
    folder = book.path.parent.relative_to(NBS).parts if book.path.is_relative_to(NBS) else book.path.parent.parts
    if named and ".".join([*folder, named[1]]) == book.default_exp: return []
    return [f"its place must be the folder of what it exports, two digits, `_` and the module's name: exports {book.default_exp}"]


def imports_apart(book: Notebook) -> list[str]:
    is_import = lambda node: isinstance(node, ast.Import | ast.ImportFrom)
    mixes = lambda cell: any(map(is_import, cell.statements)) and not all(map(is_import, cell.statements))
    mixed = [cell for cell in book.code if mixes(cell) and "nbdev_export" not in cell.source]
    return [f"cell {cell.number} imports and works: imports stand in a cell of their own" for cell in mixed]


def exported_all(book: Notebook) -> list[str]:
    return [f"exports {book.exported_lines} lines, usually 80 to 300"] if book.exported_lines > 400 else []


def function_lines(book: Notebook) -> list[str]:
    wrong = []
    for cell in book.exported:
        for node in ast.walk(ast.Module(cell.statements, [])):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef): continue
            body = [line for line in cell.source.split("\n")[node.body[0].lineno - 1:node.end_lineno] if line.strip()]
            if len(body) > 40: wrong.append(f"`{node.name}` has a body of {len(body)} lines, at most 40 (usually 10)")
    return wrong


def words(book: Notebook) -> list[str]:
    ratio = book.words / max(book.code_lines, 1)
    return [f"has {ratio:.2f} words for each line of code, usually 1 to 3"] if ratio < 0.3 else []


def assertions(book: Notebook) -> list[str]:
    made = sum(len(TEST_CALL.findall(cell.source)) for cell in book.code if not cell.exported)
    holders = [cell for cell in book.exported if any(not isinstance(node, ast.Import | ast.ImportFrom) for node in cell.statements)]
    return [f"has {made} assertions for {len(holders)} exported cells, usually 1.5 each"] if made < len(holders) else []


def hidden_tests(book: Notebook) -> list[str]:
    hidden = [cell for cell in book.code if "hide" in cell.directives and TEST_CALL.search(cell.source)]
    return [f"cell {cell.number} hides assertions: a test is part of the argument" for cell in hidden]


def results(book: Notebook) -> list[str]:
    share = sum(bool(cell.outputs) for cell in book.code) / max(len(book.code), 1)
    return [f"{share:.0%} of its code cells show a saved result, at least 10% (usually 30%)"] if share < 0.1 else []


def used_later(book: Notebook) -> list[str]:
    wrong = []
    for cell in book.exported:
        below = "\n".join(other.source for other in book.code if other.number > cell.number)
        for node in cell.statements:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"): continue
            rest = "\n".join(cell.source.split("\n")[node.end_lineno:])
            if not re.search(rf"\b{node.name}\b", rest + below):
                wrong.append(f"`{node.name}` (cell {cell.number}) is exported and not used below: show it at work")
    return wrong


def wildcard(book: Notebook) -> list[str]:
    names = lambda cell: [alias.name for node in cell.statements if isinstance(node, ast.ImportFrom) for alias in node.names]
    stars = [cell for cell in book.exported if "*" in names(cell)]
    return [f"cell {cell.number} exports a wildcard import: name what is imported" for cell in stars]


def last_cell(book: Notebook) -> list[str]:
    last = book.code[-1] if book.code else None
    if last and "hide" in last.directives and "nbdev_export()" in last.source: return []
    return ["the last code cell must be hidden and export: `#| hide` and `import nbdev; nbdev.nbdev_export()`"]


ANY = (title, widget_state, errors, machine_paths, long_lines)
EXPORTING = (quote, file_name, imports_apart, function_lines, hidden_tests, results, used_later, wildcard, last_cell)
LOOK_AT = (cells, exported_all, words, assertions)  # Measures of an exporting notebook that warn and do not fail
NBS, PACKAGE = REPOSITORY / "nbs", REPOSITORY / "latentlab"
NOTEBOOKS = [path for path in sorted(NBS.rglob("*.ipynb")) if not any(part.startswith((".", "_")) for part in path.relative_to(NBS).parts)]


def wrong_with(book: Notebook) -> list[str]:
    "Everything that is wrong with one notebook."
    checks = ANY + EXPORTING if book.default_exp else ANY
    return [f"{check.__name__}: {sentence}" for check in checks for sentence in check(book)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(NBS).as_posix())
def test_notebook(path: Path) -> None:
    book = Notebook.read(path)
    seen = [sentence for measure in LOOK_AT for sentence in measure(book)] if book.default_exp else []
    if seen: warnings.warn(f"{path.relative_to(NBS)} {', '.join(seen)}: look again", stacklevel=1)
    wrong = wrong_with(book)
    assert not wrong, f"{path.relative_to(REPOSITORY)}\n- " + "\n- ".join(wrong)


def test_labs_and_questions_export_nothing() -> None:
    books = [Notebook.read(path) for path in NOTEBOOKS if path.parent.name in ("labs", "questions")]
    exporting = [book.path.name for book in books if book.default_exp or book.exported]
    assert not exporting, f"labs and questions use the package and export nothing: {exporting}"


def test_each_module_has_its_notebook() -> None:
    "nbdev_export leaves the module of a notebook that is gone."
    exported = {Notebook.read(path).default_exp for path in NOTEBOOKS} - {None}
    files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if not path.name.startswith("_")]
    modules = {".".join(file.with_suffix("").parts) for file in files}
    assert modules == exported, f"without a notebook: {sorted(modules - exported)}; not exported: {sorted(exported - modules)}"


# Each check is shown a notebook that breaks it, and one that breaks nothing.


def py(source: str, *outputs: dict, tags: tuple[str, ...] = ()) -> dict:
    return dict(cell_type="code", source=source, outputs=list(outputs), metadata=dict(tags=list(tags)) if tags else {})


def md(source: str) -> dict:
    return dict(cell_type="markdown", source=source, metadata={})


def shown(text: str) -> dict:
    return dict(output_type="stream", name="stdout", text=text)


FAILED = dict(output_type="error", ename="ValueError", evalue="no", traceback=[])
WIDGET = dict(output_type="display_data", data={"application/vnd.jupyter.widget-view+json": {}}, metadata={})
SQUARE = "#| export\ndef square(x):\n    return x * x"


def healthy() -> list[dict]:
    "The smallest notebook that breaks no rule."
    return [
        md("# Squares\n\n> What a number times itself is, in the unit of the number squared."),
        py("#| default_exp core.squares"),
        py("#| export\nimport math"),
        md("A square is never negative, and here is one: four times four makes sixteen, which the next cells show."),
        py(SQUARE),
        py("print(square(4))", shown("16\n")),
        py("assert square(4) == 16"),
        py("#| hide\nimport nbdev; nbdev.nbdev_export()"),
    ]


def planted(change: Callable[[list[dict]], object], name: str = "core/05_squares.ipynb", metadata: dict | None = None) -> Notebook:
    "The healthy notebook after one change."
    book = healthy()
    change(book)
    return Notebook(Path(name), dict(cells=book, metadata=metadata or {}))


def put(place: int, *new: dict) -> Callable[[list[dict]], None]:
    "A change: these cells in place of the one at `place`."
    return lambda book: book.__setitem__(slice(place, place + 1), new)


LONG = "\n".join(f"    x += {n}" for n in range(41))
PLANTED = [
    (title, planted(put(0, md("> only a quote")))),
    (cells, planted(lambda book: book.extend(md("word " * 5) for _ in range(120)))),
    (widget_state, planted(lambda book: None, metadata=dict(widgets={}))),
    (widget_state, planted(put(5, py("square(4)", WIDGET)))),
    (errors, planted(put(5, py("square(None)", FAILED)))),
    (machine_paths, planted(put(5, py("print(square(4))", shown("/home/someone/data\n"))))),
    (machine_paths, planted(put(5, py("folder = '/tmp/there'", shown("16"))))),
    (machine_paths, planted(put(5, py("print(square(4))", shown("/srv/env/lib/python3.11/site-packages/a.py:3: UserWarning"))))),
    (machine_paths, planted(put(3, md("The data lie in /Users/someone/data, and there are a good many words here to read beside it.")))),
    (quote, planted(put(0, md("# Squares")))),
    (quote, planted(put(0, md("# Squares\n\n> One\n> Two, and some words to fill the line up to the number that is asked for.")))),
    (file_name, planted(lambda book: None, name="core/05_cubes.ipynb")),
    (file_name, planted(lambda book: None, name="core/5_squares.ipynb")),
    (imports_apart, planted(put(2, py("#| export\nimport math\nroot = math.sqrt(2)")))),
    (imports_apart, planted(put(5, py("import math\nprint(square(4), math.pi)", shown("16"))))),
    (long_lines, planted(put(5, py("print(square(4))  # " + "long " * 30, shown("16"))))),
    (exported_all, planted(lambda book: book.extend(py("#| export\n" + "\n".join(f"x{n} = {n}" for n in range(40))) for _ in range(11)))),
    (function_lines, planted(put(4, py("#| export\ndef square(x):\n" + LONG)))),
    (words, planted(lambda book: book.append(py("\n".join(f"x{n} = {n}" for n in range(180)))))),
    (assertions, planted(put(6, py("square(4)")))),
    (hidden_tests, planted(put(6, py("#| hide\nassert square(4) == 16")))),
    (results, planted(put(5, *[py("square(4)")] * 12))),
    (used_later, planted(put(4, py(SQUARE), py("#| export\ndef cube(x):\n    return x ** 3")))),
    (wildcard, planted(put(2, py("#| export\nfrom math import *")))),
    (last_cell, planted(lambda book: book.pop())),
    (last_cell, planted(put(7, py("import nbdev; nbdev.nbdev_export()")))),
]


@pytest.mark.parametrize(("check", "book"), PLANTED, ids=[check.__name__ for check, _ in PLANTED])
def test_a_check_catches_what_it_is_for(check: Callable[[Notebook], list[str]], book: Notebook) -> None:
    assert check(book), f"`{check.__name__}` found nothing wrong with a notebook that breaks its rule"


def test_every_check_has_a_notebook_that_breaks_it() -> None:
    assert {check for check, _ in PLANTED} == set(ANY + EXPORTING + LOOK_AT)


def test_a_healthy_notebook_passes() -> None:
    book = planted(lambda book: None)
    assert wrong_with(book) == [] == [sentence for measure in LOOK_AT for sentence in measure(book)]


def test_a_tagged_error_is_allowed() -> None:
    assert errors(planted(put(5, py("square(None)", FAILED, tags=("raises-exception",))))) == []
