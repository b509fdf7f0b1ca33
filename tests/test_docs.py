"The documentation site without building it: every notebook and module has a page, and links between texts lead somewhere."
import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("site_of_docs", ROOT / ".ci" / "docs.py")
docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs)

LINK = re.compile(r"\[[^\]\n]*\]\(([^()\s]+)\)")
TEXTS = [*sorted(path.name for path in ROOT.glob("*.md")), *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
BOOKS = [book.as_posix() for book in docs.notebooks()]


def listed(entries) -> list[str]:
    "Every page that a menu names."
    if isinstance(entries, str): return [entries]
    return [page for entry in entries for page in listed(entry if isinstance(entry, str) else [*entry.values()][0])]


def test_the_menu_names_every_notebook_module_and_text_once() -> None:
    pages = listed(docs.navigation())
    assert len(pages) == len(set(pages)) and set(BOOKS) <= set(pages) and len(BOOKS) > 100
    assert {docs.api_name(module) for module in docs.modules()} <= set(pages) and "docs/figures.md" in pages
    assert json.loads(json.dumps(docs.configuration()))["nav"] == docs.navigation()


def test_a_module_without_a_folder_in_the_menu_is_listed_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "nbs" / "new").mkdir(parents=True), (tmp_path / "docs").mkdir()
    cells = [{"cell_type": "code", "source": ["# no title"]}, {"cell_type": "markdown", "source": ["# A title\n", "\n", "> words"]}]
    (tmp_path / "nbs" / "new" / "00_book.ipynb").write_text(json.dumps({"cells": cells}))
    assert {"A title": "nbs/new/00_book.ipynb"} in next(entry["new"] for entry in docs.navigation(tmp_path) if "new" in entry)


def test_pages_lie_as_in_the_repository(tmp_path: Path) -> None:
    docs.prepare(source=tmp_path / "site")
    missing = [page for page in listed(docs.navigation()) if not (tmp_path / "site" / page).is_file()]
    assert not missing
    page = (tmp_path / "site" / "api" / "latentlab.losses.gaussian.md").read_text()
    assert "## kl_to_standard_normal" in page and "# Standard deviations of q" in page and "Kingma and Welling" in page
    assert "raise ValueError" not in page  # what a function does is in its notebook


def links(text: str) -> list[str]:
    "Where a text's links lead, those out of the repository left out; what stands in code is no link."
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
    return [link.partition("#")[0] for link in LINK.findall(plain) if not re.match(r"[a-z]+:|#", link)]


@pytest.mark.parametrize("name", TEXTS)
def test_links_between_texts_lead_somewhere(name: str) -> None:
    broken = [link for link in links((ROOT / name).read_text(encoding="utf-8")) if not ((ROOT / name).parent / link).exists()]
    assert not broken


def test_links_of_notebooks_lead_somewhere() -> None:
    broken, some = [], 0
    for name in BOOKS:
        for cell in json.loads((ROOT / name).read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] != "markdown": continue
            found = links("".join(cell["source"]))
            some += len(found)
            broken += [f"{name}: {link}" for link in found if not ((ROOT / name).parent / link).exists()]
    assert not broken and some > 3


def test_links_of_the_site_lead_to_its_pages(tmp_path: Path) -> None:
    docs.prepare(source=tmp_path)
    broken, some = [], 0
    for name in BOOKS:
        for cell in json.loads((tmp_path / name).read_text(encoding="utf-8"))["cells"]:
            found = links("".join(cell["source"])) if cell["cell_type"] == "markdown" else []
            some += len(found)
            pages = [((tmp_path / name).parent / link).with_suffix(".ipynb") if link.endswith(".html") else (tmp_path / name).parent / link for link in found]
            broken += [f"{name}: {link}" for link, page in zip(found, pages) if link.endswith(".ipynb") or not page.exists()]
    assert not broken and some > 2
    words = docs.for_site("[a](b/c.ipynb#d) ![p](e.png) [w](https://host/z.ipynb) [`t`](../tests/plugin)", Path("nbs/index.ipynb"))
    assert words == "[a](b/c.html#d) ![p](e.png) [w](https://host/z.ipynb) `t`"


def test_nothing_that_is_ignored_is_kept() -> None:
    "Caches of a tool that were there before they were ignored."
    if not (ROOT / ".git").exists(): return  # an archive without history keeps nothing
    kept = subprocess.run(["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert kept == ""


def test_a_broken_link_is_seen() -> None:
    assert links("[a](b.md#c) ![p](d.png) `[x](y)` [w](https://host/z) [s](#t)") == ["b.md", "d.png"]
