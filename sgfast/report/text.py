"""Write a document as text for a terminal: lines, headings and tables within a given width. Names are escaped."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from sgfast.base.names import printable
from sgfast.report.amounts import grouped
from sgfast.report.document import Block, Document, Items, Name, Paragraph, TableBlock, Traffic, Words

NARROWEST, WIDEST = 40, 120
#: The fewest columns for text that is aligned behind a label, and for a column of wrapped cells.
_LEAST_ROOM = 20
#: Maximum number of pieces in the last cell of a wrapped row before "and N more".
_LISTED_PIECES = 24

_COLOURS = {"bold": "1", "red": "31", "yellow": "33"}


def to_text(document: Document, *, width: int = 80, colour: bool = False) -> str:
    """Return the document as text. ``width``: the desired number of columns."""
    page = Page(width, colour)
    for number, section in enumerate(document):
        if number:
            page.line()
        if section.heading:
            page.heading(plain(section.heading))
        indent = "  " if section.heading or section.goes_on else ""
        for n, block in enumerate(section.blocks):
            if n and isinstance(block, TableBlock):
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
        case TableBlock(head, rows, numbers, styles, is_wrapped):
            cells = [[plain(cell) for cell in row] for row in rows]
            if is_wrapped:
                page.wrapped_table(head, cells)
            else:
                page.table(head, cells, numbers, styles)
        case Items(items, width):
            labels = [plain(item.label) for item in items]
            widest = width or max(map(len, labels), default=0)
            for item, label in zip(items, labels, strict=True):
                start = f"{'' if width else indent}{label:{widest}} " if widest else indent
                page.hanging(start, plain(item.words), item.style)
                for below in item.below:
                    label = f"{plain(below.label)} " if below.label else "    "
                    page.hanging(" " * len(start) + label, plain(below.words))
        case Traffic(_, rows):
            widest = max((len(grouped(traffic_row.amount)) for traffic_row in rows), default=0)
            for traffic_row in rows:
                start = f"  {grouped(traffic_row.amount):>{widest}}  "
                first, *more_notes = traffic_row.notes or ("",)
                page.hanging(start, traffic_row.row.text + (f" ({first})" if first else ""), traffic_row.style)
                for note in filter(None, more_notes):
                    page.hanging(" " * (len(start) + 2), note)
                for line in traffic_row.lines:
                    page.line(" " * (len(start) + 2) + line)


class Page:
    """Collect lines. ``width``: the desired number of columns, limited to ``NARROWEST`` and ``WIDEST``."""

    def __init__(self, width: int, colour: bool) -> None:
        self.width = min(max(width, NARROWEST), WIDEST)
        self._colour = colour
        self._lines: list[str] = []

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)

    def line(self, text: str = "", style: str = "") -> None:
        text = text.rstrip()
        self._lines.append(f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if style and self._colour and text else text)

    def heading(self, text: str) -> None:
        for line in _wrap(text, self.width):
            self.line(line, "bold")

    def hanging(self, start: str, text: str, style: str = "") -> None:
        """Add ``start`` and ``text``. The text is wrapped, and its lines are aligned below each other. If there is
        too little room behind ``start``, the text begins on the next line.
        """
        needed = min(max(map(len, _spaced(text, self.width).split()), default=0), self.width - 2)
        if text and len(start) + min(len(text), max(needed, _LEAST_ROOM)) > self.width:
            indent = len(start)
            if start.strip():
                self.line(start, style)
                indent += 4 - len(start.lstrip())
            start = " " * max(min(indent, self.width - max(needed, _LEAST_ROOM)), 0)
        lines = _wrap(text, self.width - len(start)) or [""]
        for n, line in enumerate(lines):
            self.line((start if n == 0 else " " * len(start)) + line, style)

    def table(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 1, styles: Sequence[str] = ()
    ) -> None:
        """Align the first ``numbers`` columns right and the others left. If a row is too wide, its last cell gets a
        line of its own. If it is still too wide, every cell does. ``styles``: one for each row.
        """
        widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head) - 1)]
        # Columns have a maximum width, so that a few long names do not shift the columns of all rows.
        widths = [min(width, len(name) + 12) for width, name in zip(widths, head, strict=False)]
        self.hanging("  ", "  ".join(_cells(head, widths, numbers)))
        for row, style in zip_longest(rows, styles, fillvalue=""):
            cells = list(_cells(row, widths, numbers))
            first, line = "  " + "  ".join(cells[:-1]).rstrip(), "  " + "  ".join(cells)
            if len(line) <= self.width:
                self.line(line, style)
            elif len(first) <= self.width:
                self.line(first, style)
                self.hanging(" " * (4 + widths[0]), cells[-1])
            else:
                self.line(f"  {cells[0]}", style)
                for cell in filter(str.strip, cells[1:]):
                    self.hanging(" " * (4 + widths[0]), cell.rstrip())

    def wrapped_table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table whose cells are wrapped behind spaces and commas: names and numbers stay whole."""
        shown = [[*map(_pieces, row[:-1]), _shortened(_pieces(row[-1]))] for row in rows]
        room = self.width - 2 - 2 * (len(head) - 1)
        widths = [max([len(name), *(sum(map(len, row[n])) for row in shown)]) for n, name in enumerate(head)]
        if sum(widths) > room:
            for n, name in enumerate(head[:-1]):
                longest = max([len(name), *(len(piece.rstrip()) for row in shown for piece in row[n])])
                widths[n] = min(widths[n], max(longest, room // len(head)))
            widths[-1] = max(room - sum(widths[:-1]), _LEAST_ROOM)
        if sum(widths) > room:
            self._write_below_each_other(head, shown)
            return
        self.line("  " + "  ".join(f"{name:{width}}" for name, width in zip(head, widths, strict=True)))
        for row in shown:
            cells = [_filled(pieces, width) for pieces, width in zip(row, widths, strict=True)]
            for line in zip_longest(*cells, fillvalue=""):
                self.line("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)))

    def _write_below_each_other(self, head: Sequence[str], rows: Sequence[Sequence[list[str]]]) -> None:
        """Write each cell on lines of its own, for a terminal that is too narrow for columns."""
        label = 2 + max(map(len, head))
        for row in rows:
            for name, pieces in zip(head, row, strict=True):
                for n, line in enumerate(_filled(pieces, max(self.width - label - 4, _LEAST_ROOM))):
                    self.line(f"{'  ' if name == head[0] else '    '}{'' if n else name:{label}}{line}")


def _cells(row: Sequence[str], widths: Sequence[int], numbers: int) -> Iterator[str]:
    for n, (cell, width) in enumerate(zip_longest(row, widths, fillvalue=0)):
        yield f"{cell:>{width}}" if n < numbers else f"{cell:{width or ''}}"


def _wrap(text: str, width: int) -> list[str]:
    width = max(width, _LEAST_ROOM)
    return textwrap.wrap(_spaced(text, width), width, break_long_words=False, break_on_hyphens=False)


def _spaced(text: str, width: int) -> str:
    """Return the text with spaces behind the commas of lists that have no spaces and are too long for a line."""
    return re.sub(r"\S+", lambda word: re.sub(r",(?=.)", ", ", word[0]) if len(word[0]) > width else word[0], text)


def _pieces(text: str) -> list[str]:
    return re.findall(r"[^ ,]+,? ?", text)


def _shortened(pieces: list[str]) -> list[str]:
    hidden_count = len(pieces) - _LISTED_PIECES
    return pieces if hidden_count <= 0 else [*pieces[:_LISTED_PIECES], f"... (and {hidden_count:,} more)"]


def _filled(pieces: Sequence[str], width: int) -> list[str]:
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]
