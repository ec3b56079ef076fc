"""Markdown for pull requests on GitHub and GitLab: tables, and foreign names in which nothing counts as markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sgfast.capture import Damage
from sgfast.capture.names import printable
from sgfast.report.page import plural
from sgfast.report.rollup import Row
from sgfast.report.text import REMINDER, damage_words

#: Maximum number of table rows before "and N more".
TOP = 20

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
#: GitHub and GitLab turn some plain text into links, mentions and pictures: URLs, mail addresses, @names, references to
#: issues (``#15``, ``GH-15``, ``!15``), hashes of commits, and ``:tada:``. A backslash does not prevent that. An empty
#: comment behind what this matches prevents it, and the page does not show the comment.
_LINK = re.compile(
    r"(@|[#!$~%&](?=[\w\"])|:(?=//|[\w+-]+:)|www(?=\.)|(?<![a-z0-9])(?:gh|ghsa|gl|cve)-|[0-9a-f]{6}(?=[0-9a-f]))",
    re.IGNORECASE,
)
_COMMENT = "<!-- -->"


def escaped(text: str) -> str:
    """Escape markup, so that a line of text appears unchanged, with no links in it."""
    return _LINK.sub(rf"\1{_COMMENT}", _MARKUP.sub(r"\\\1", printable(text) if text else ""))


def code(name: str) -> str:
    """Format a name as code, or as escaped text where code cannot hold it: a table's cell would end at ``|``."""
    text = printable(name)
    if "|" in text or not text.strip():
        return escaped(text)
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (max(map(len, re.findall("`+", text))) + 1)
    return f"{fence} {text} {fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table. Cells are Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def rows_table(
    before: Sequence[str], behind: Sequence[str], rows: Iterable[tuple[Row, Sequence[str], Sequence[str]]]
) -> list[str]:
    """Return a table of who reaches whom with which service. ``before``, ``behind``: the heads of the columns before
    that and behind it. Each row comes with its cells for these.
    """
    rows = list(rows)
    has_ends = any(row.has_ends for row, *_ in rows)
    return table(
        (*before, *(("from", "to") if has_ends else ()), "service", *behind),
        [
            (*first, *((code(row.source_text), code(row.destination_text)) if has_ends else ()), escaped(row.service),
             *last)
            for row, first, last in rows
        ],
    )  # fmt: skip


def left_line(left: str, every: int, lists: str = "all") -> list[str]:
    """Say what is left out, such as ``3 more rows``, and which option lists all or more; nothing if that is empty."""
    return [f"and {left}: `--top {every}` lists {lists}", ""] if left else []


def more_line(number: int, most: int, noun: str) -> list[str]:
    """Say how many things are left out of a table that has ``most`` of them."""
    left = number - most
    return left_line(plural(left, f"more {noun}") if left > 0 else "", number)


def capture_words(captures: Sequence[str]) -> str:
    """Name the first captures, and say how many more there are."""
    more = f" and {plural(len(captures) - 3, 'more capture')}" if len(captures) > 3 else ""
    return ", ".join(map(code, captures[:3])) + more


def closing(
    notes: Iterable[str], warnings: Sequence[str], damage: Damage | None, most: int, *, of_captures: bool = True
) -> list[str]:
    """Return the list at the end, with at most so many warnings. ``notes``: what comes first in it, as Markdown.
    ``of_captures``: whether it ends with what captures cannot show.
    """
    lines = [*notes, *(f"Warning: {escaped(warning)}" for warning in warnings[:most])]
    if more := len(warnings[most:]):
        lines.append(f"and {plural(more, 'more warning')}: `--json` has all")
    if damage is not None:
        lines.append(f"**Damage: {escaped(damage_words(damage))}**")
    return [f"- {line}" for line in (*lines, *([REMINDER] if of_captures else ()))]
