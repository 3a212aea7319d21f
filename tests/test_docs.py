# SPDX-License-Identifier: Apache-2.0
"""Documentation that can be trusted: links, paths, citations and first words of docstrings."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# Programs write the reports there; they record the commands and names of their time.
RECORDS = (ROOT / "docs/performance/data", ROOT / "docs/evaluation/tables.md")
WRITTEN = [page for page in PAGES if not any(page.is_relative_to(record) for record in RECORDS)]
MAX_README_LINES = 200

LINK = re.compile(r"\]\(([^)\s]+)\)")
MODULE = re.compile(r"\b(?:bcmb_jax|conversion|scripts|configs|tests)/[\w./-]*\.py\b")
FOLDER = re.compile(r"`((?:bcmb_jax|conversion|scripts|configs|tests|docs)/[\w./-]*/)`")
CITATION = re.compile(r"(?:RECIPE|docs/recipe\.md) §(\d+)")

PACKAGES = ("bcmb_jax", "conversion", "scripts", "configs")
# A docstring that begins so needs its surroundings to be understood.
BAD_BEGINNINGS = ("Of", "What", "The same", "Likewise")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _headings(page: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them from its headings."""
    lines = page.read_text(encoding="utf-8").splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in _headings(target)):
            broken.append(link)
    assert not broken, f"{_name(page)} links to what is not there: {broken}"


@pytest.mark.parametrize("page", WRITTEN, ids=_name)
def test_pages_name_only_paths_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = {*MODULE.findall(text), *FOLDER.findall(text)}
    gone = sorted(path for path in paths if not (ROOT / path).exists())
    assert not gone, f"{_name(page)} names what is not there: {gone}"


def test_readme_is_short() -> None:
    lines = len((ROOT / "README.md").read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_README_LINES, f"README.md has {lines} lines: move details to docs/"


def _sources(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield _name(path), path.read_text(encoding="utf-8")


def test_citations_of_the_recipe_have_a_target() -> None:
    headings = (ROOT / "docs/recipe.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^## (\d+)\. ", headings, re.MULTILINE))
    cited = [
        (path, number)
        for path, text in _sources(*PACKAGES, "tests")
        for number in CITATION.findall(text)
    ]
    assert cited, "no module cites the recipe: the pattern is wrong"
    missing = [f"{path} cites §{number}" for path, number in cited if number not in sections]
    assert not missing, missing


def test_docstrings_stand_on_their_own() -> None:
    wrong = []
    for path, text in _sources(*PACKAGES):
        for node in ast.walk(ast.parse(text, path)):
            # A string on its own is a docstring, also one below an attribute.
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                words = str(node.value.value)
                if re.match(rf"({'|'.join(BAD_BEGINNINGS)})\b", words):
                    wrong.append(f"{path}:{node.lineno}: {words.splitlines()[0]}")
    assert not wrong, "\n".join(wrong)
