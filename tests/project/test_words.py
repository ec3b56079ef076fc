"""Docstrings and comments that begin with a fragment cost a stranger a second reading."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("sgfast", "benchmarks", "tests", ".github")

#: A docstring, or a comment that does not go on from the line before.
FRAGMENT = re.compile(r'(?:^\s*r?"""|^(?!\s*#).*  # |^\s*#:? )(?:What|How|Which|Of|So many|Those)\b')
COMMENT = re.compile(r"^\s*#")


def test_no_docstring_or_comment_begins_with_a_fragment() -> None:
    found = []
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.p*")):
        if path.suffix not in (".py", ".pyi", ".pyx", ".pxd"):
            continue
        before = ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            goes_on = COMMENT.match(line) and COMMENT.match(before) and not before.rstrip().endswith((".", "-"))
            if FRAGMENT.match(line) and not goes_on:
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
            before = line
    assert found == []
