"""Documents name files that exist: a reader who follows them must not get lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")])

#: A path from the repository's root in code; in recipes, NAME and the like stand for a file that is yet to be.
_PATH = re.compile(r"`((?:sgfast|tests|benchmarks|docs|pcaps|\.ci)/[\w./*-]*\w/?)")
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_and_link_leads_somewhere(document: Path) -> None:
    text = document.read_text()
    paths = {path for path in _PATH.findall(text) if not re.search(r"[A-Z]{3,}(?!\.md)|sctp", path)}
    missing = {path for path in paths if not list(ROOT.glob(path.rstrip("/")))}
    missing |= {link for link in _LINK.findall(text) if not (document.parent / link).exists()}
    assert not missing
