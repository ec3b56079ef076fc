"""Documents name files and sections that exist: a reader who follows them must not get lost."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import sgfast
from sgfast.questions.checking.codes import CODES
from sgfast.report import SCHEMAS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")])
INDEX = ROOT / "docs/index.md"

#: A path from the repository's root in code; in recipes, NAME and the like stand for a file that is yet to be.
_PATH = re.compile(r"`((?:sgfast|tests|benchmarks|docs|pcaps|\.ci)/[\w./*-]*\w/?)")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_FENCED = re.compile(r"^```.*?^```", re.M | re.S)


@cache
def anchors(document: Path) -> frozenset[str]:
    """The fragments of links to the headings of a document, as code hosts and the site make them of their text."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.*)$", _FENCED.sub("", document.read_text()), re.M):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return frozenset(found)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_and_link_leads_somewhere(document: Path) -> None:
    text = document.read_text()
    paths = {path for path in _PATH.findall(text) if not re.search(r"[A-Z]{3,}(?!\.md)|sctp", path)}
    missing = {path for path in paths if not list(ROOT.glob(path.rstrip("/")))}
    for link, anchor in _LINK.findall(_FENCED.sub("", text)):
        target = (document.parent / link).resolve() if link else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.add(f"{link}#{anchor}")
    assert not missing


def test_every_page_is_in_the_navigation_once() -> None:
    trees = re.findall(r"^```{toctree}\n(.*?)^```", INDEX.read_text(), re.M | re.S)
    entries = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    pages = {path for kind in ("md", "ipynb") for path in INDEX.parent.rglob(f"*.{kind}")} - {INDEX}
    candidates = [(INDEX.parent / f"{entry}.{kind}").resolve() for entry in entries for kind in ("md", "ipynb")]
    named = [path for path in candidates if path.is_file()]
    assert len(named) == len(set(named)) == len(entries)
    assert pages <= set(named)


def rows(page: str) -> list[list[str]]:
    """The cells of the rows of tables that begin with code."""
    text = (ROOT / "docs" / page).read_text()
    return [line.strip("|").replace("`", "").split(" | ") for line in re.findall(r"^\|( `.*)\|$", text, re.M)]


def test_reference_pages_list_all_that_there_is() -> None:
    words = [*sgfast.VERDICTS, *(reason for reason in sgfast.REASONS if reason)]
    assert sorted(row[0].strip() for row in rows("verdicts.md")) == sorted(words)
    found: dict[str, tuple[str, ...]] = {}
    for code, *cells in rows("findings.md"):
        found[code.strip()] = (*found.get(code.strip(), ()), *(cell.strip() for cell in cells))
    titled = {code: (entry.name, entry.severity, entry.advice) for code, entry in CODES.items()}
    assert {code: (name, severity, advice) for code, (name, severity, _, advice) in found.items()} == titled
    assert set(re.findall(r"`sgfast schema (\w+)` \|", (ROOT / "docs/json.md").read_text())) == set(SCHEMAS)
