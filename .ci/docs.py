"""Builds the documentation site into _docs: README, docs/, every notebook with its saved results, and a page of docstrings for each module.

Nothing is run and nothing is fetched. `make docs` installs the extra `docs` first.
"""
import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE, SITE = ROOT / "_proc", ROOT / "_docs"
TEXTS = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}  # In the repository -> in the site
PARTS = ("labs", "questions", "core", "data", "losses", "nn", "metrics", "latents", "train", "journal", "sweeps", "plots", "panels", "families")


def notebooks(root: Path = ROOT) -> list[Path]:
    "Every notebook, relative to the repository."
    return sorted(path.relative_to(root) for path in root.glob("nbs/**/*.ipynb") if not any(part.startswith(".") for part in path.parts))


def modules(root: Path = ROOT) -> list[Path]:
    "Every module with something to say, relative to the repository."
    return sorted(path.relative_to(root) for path in root.glob("latentlab/**/*.py") if path.name not in ("__init__.py", "_modidx.py"))


def title(path: Path) -> str:
    "The first heading of a notebook."
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for line in "".join(cell["source"]).splitlines():
            if cell["cell_type"] == "markdown" and line.startswith("# "): return line[2:].strip()
    return path.stem


def api_name(module: Path) -> str:
    "The page of a module in the site."
    return f"api/{'.'.join(module.with_suffix('').parts)}.md"


def navigation(root: Path = ROOT) -> list[dict]:
    "What the menu lists, in the order of reading: texts, notebooks by folder, modules."
    found = notebooks(root)
    named = lambda some: [{title(root / one): one.as_posix()} for one in some]
    top = [one for one in found if len(one.parts) == 2]
    parts = [*PARTS, *sorted({one.parts[1] for one in found if len(one.parts) > 2} - set(PARTS))]
    books = [{part: named(one for one in found if len(one.parts) > 2 and one.parts[1] == part)} for part in parts]
    texts = [{text.stem: f"docs/{text.name}"} for text in sorted((root / "docs").glob("*.md"))]
    api = [{".".join(one.with_suffix("").parts): api_name(one)} for one in modules(root)]
    return [{"latentlab": "index.md"}, {"Way in": named(top)}, *books, {"Figures and tables": texts}, {"API": api},
            {"Changes": "CHANGELOG.md"}, {"Contributing": "CONTRIBUTING.md"}]


def configuration(root: Path = ROOT) -> dict:
    "mkdocs.yml; JSON is YAML."
    return {
        "site_name": "latentlab", "docs_dir": str(SOURCE), "site_dir": str(SITE), "use_directory_urls": False,
        "copyright": "Built without a network. Formulas are drawn by MathJax, which a page fetches from the network when it is "
                     "read; without one they stand as TeX.",
        "theme": {"name": "material", "font": False, "features": ["navigation.tabs", "navigation.indexes", "toc.follow"]},
        "plugins": ["search", {"mkdocs-jupyter": {"execute": False, "include_source": False, "ignore_h1_titles": True}}],
        "markdown_extensions": ["admonition", "tables", "pymdownx.superfences", {"pymdownx.arithmatex": {"generic": True}}],
        "nav": navigation(root),
    }


def api_page(path: Path) -> str:
    "A module in words: each class and function with its parameters, their units and its docstring, as the source has them."
    text = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    said = [f"# {'.'.join(path.relative_to(ROOT).with_suffix('').parts)}", "", ast.get_docstring(tree) or ""]

    def head(node: ast.AST) -> list[str]:
        "Signature and docstring; of a class also its fields."
        end = node.body[0].end_lineno if ast.get_docstring(node) else max(node.lineno, node.body[0].lineno - 1)
        if isinstance(node, ast.ClassDef): end = max([end, *(one.end_lineno for one in node.body if isinstance(one, ast.AnnAssign))])
        return ["```python", *lines[node.lineno - 1:end], "```", ""]

    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"): continue
        said += ["", f"## {node.name}", "", *head(node)]
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef) and (inner.name == "__init__" or not inner.name.startswith("_")): said += head(inner)
    return "\n".join(said) + "\n"


LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^()\s:#]+)(#[^()\s]*)?\)")


def for_site(text: str, page: Path, root: Path = ROOT) -> str:
    "A notebook's words with the site's addresses: a notebook is a page there, and what is no page of the site is named without a link."
    def at_home(found: re.Match) -> str:
        picture, words, link, part = found[1], found[2], found[3], found[4] or ""
        if picture: return found[0]
        if link.endswith(".ipynb"): return f"[{words}]({link.removesuffix('.ipynb')}.html{part})"
        there = (root / page.parent / link).resolve()
        return found[0] if there.suffix == ".md" and there.is_relative_to(root / "docs") else words
    return LINK.sub(at_home, text)


def prepare(root: Path = ROOT, source: Path = SOURCE) -> None:
    "Lay the site's pages out as the repository has them, so that links between them hold."
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "docs", source / "docs")
    for old, new in TEXTS.items(): shutil.copy(root / old, source / new)
    for extra in ("CITATION.cff", "LICENSE"): shutil.copy(root / extra, source / extra)
    for book in notebooks(root):
        (source / book).parent.mkdir(parents=True, exist_ok=True)
        told = json.loads((root / book).read_text(encoding="utf-8"))
        for cell in told["cells"]:
            if cell["cell_type"] == "markdown": cell["source"] = for_site("".join(cell["source"]), book, root)
        (source / book).write_text(json.dumps(told), encoding="utf-8")
    (source / "api").mkdir()
    for module in modules(root): (source / api_name(module)).write_text(api_page(root / module), encoding="utf-8")


def main() -> int:
    "Exit status of the build."
    prepare()
    (ROOT / "_proc.yml").write_text(json.dumps(configuration()), encoding="utf-8")
    try: return subprocess.run([sys.executable, "-m", "mkdocs", "build", "-q", "-f", str(ROOT / "_proc.yml")]).returncode
    finally: (ROOT / "_proc.yml").unlink()


if __name__ == "__main__": sys.exit(main())
