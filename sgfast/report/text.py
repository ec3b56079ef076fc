"""Write a document as text for a terminal. Names in it are escaped."""

from __future__ import annotations

from sgfast.report.amounts import grouped
from sgfast.report.document import Block, Document, Items, Name, Paragraph, Table, Traffic, Words
from sgfast.report.page import Page
from sgfast.system.names import printable

#: The labels of items at the end of a report are that wide, so that these ends look alike.
_LABEL = 13


def to_text(document: Document, *, width: int = 80, colour: bool = False) -> str:
    """Return the document as text. ``width``: the desired number of columns."""
    page = Page(width, colour)
    for number, section in enumerate(document):
        if number:
            page.line()
        if section.heading:
            page.heading(plain(section.heading))
        indent = "  " if section.heading else ""
        for n, block in enumerate(section.blocks):
            if n and isinstance(block, Table):
                page.line()
            _write(page, block, indent)
    return page.text()


def plain(words: Words) -> str:
    """Return the words as one line of text."""
    parts = (words,) if isinstance(words, str) else words
    return "".join(printable(part) if isinstance(part, Name) else part for part in parts)


def _write(page: Page, block: Block, indent: str) -> None:
    match block:
        case Paragraph(words, style):
            page.hanging(indent, plain(words), style)
        case Table(head, rows, numbers, styles):
            page.table(head, [[plain(cell) for cell in row] for row in rows], numbers, styles)
        case Items(items):
            labels = [plain(item.label) for item in items]
            widest = max(map(len, labels), default=0) if indent else _LABEL
            for item, label in zip(items, labels, strict=True):
                start = f"{indent}{label:{widest}} " if widest else indent
                page.hanging(start, plain(item.words), item.style)
                for line in item.below:
                    page.hanging(" " * (len(start) + 4), plain(line))
        case Traffic(_, rows):
            widest = max((len(grouped(each.amount)) for each in rows), default=0)
            for each in rows:
                start = f"  {grouped(each.amount):>{widest}}  "
                first, *others = each.notes or ("",)
                page.hanging(start, each.row.text + (f" ({first})" if first else ""), each.style)
                for note in filter(None, others):
                    page.hanging(" " * (len(start) + 2), note)
