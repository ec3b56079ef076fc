"""Write a document as Markdown for pull requests on GitHub and GitLab. Markup in names from outside is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sgfast.base.names import printable
from sgfast.report.amounts import grouped
from sgfast.report.document import Block, Document, Item, Items, Name, Paragraph, TableBlock, Traffic, Words

#: Maximum number of table rows before "and N more".
TOP = 20

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
#: GitHub and GitLab turn some plain text into links, mentions and pictures: URLs, mail addresses, @names, references to
#: issues (``#15``, ``GH-15``, ``!15``), hashes of commits, and ``:tada:``. A backslash does not prevent it. An empty
#: comment behind the matched text does, and the page does not show the comment. ``:32:`` is no picture.
_LINK = re.compile(
    r"(@|[#!$~%&](?=[\w\"])|:(?=//|(?!\d\d:)[\w+-]+:)|www(?=\.)|(?<![a-z0-9])(?:gh|ghsa|gl|cve)-|[0-9a-f]{6}(?=[0-9a-f]))",
    re.IGNORECASE,
)
_COMMENT = "<!-- -->"


def to_markdown(document: Document) -> str:
    """Return the document as Markdown."""
    lines: list[str] = []
    for number, section in enumerate(document):
        # Without a heading, a list would be joined to the list before it.
        is_list = any(isinstance(block, Items) for block in section.blocks)
        heading = section.heading or ("Notes" if is_list and not section.goes_on else "")
        if heading:
            lines += [f"{'####' if number and not section.is_headline else '###'} {_marked(heading)}", ""]
        for block in section.blocks:
            lines += [*_lines(block), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def escaped(text: str) -> str:
    """Escape markup, so that a line of text appears unchanged and without links."""
    return _LINK.sub(rf"\1{_COMMENT}", _MARKUP.sub(r"\\\1", printable(text) if text else ""))


def code(name: str) -> str:
    """Format a name as code, or as escaped text if it has a ``|``, which would end a table's cell, or is blank."""
    text = printable(name)
    if "|" in text or not text.strip():
        return escaped(text)
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (max(map(len, re.findall("`+", text))) + 1)
    return f"{fence} {text} {fence}"


def _marked(words: Words) -> str:
    parts = (words,) if isinstance(words, str) else words
    return "".join(code(part) if isinstance(part, Name) else escaped(part) for part in parts)


def _lines(block: Block) -> list[str]:
    match block:
        case Paragraph(words, style):
            return [f"**{_marked(words)}**" if style == "red" else _marked(words)]
        case TableBlock(head, rows):
            return _table(head, ([_marked(cell) for cell in row] for row in rows))
        case Items(items):
            return [f"- {'; '.join(filter(None, map(_labelled, (item, *item.below))))}" for item in items]
        case Traffic(measure, rows, heads):
            has_ends, has_lines = any(line.row.has_ends for line in rows), any(line.lines for line in rows)
            return _table(
                (measure, *(("from", "to") if has_ends else ()), "service", *heads, *(["rules"] if has_lines else [])),
                (
                    (grouped(line.amount),
                     *((code(line.row.source_text), code(line.row.destination_text)) if has_ends else ()),
                     escaped(line.row.service), *map(escaped, line.notes),
                     *(["<br>".join(map(code, line.lines))] if has_lines else []))
                    for line in rows
                ),
            )  # fmt: skip


def _labelled(item: Item) -> str:
    words = ": ".join(filter(None, (_marked(item.label).strip().rstrip(":"), _marked(item.words))))
    return f"**{words}**" if item.style == "red" else words


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]
