"""Text layout for reports: lines, headings and tables within a given width."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

NARROWEST, WIDEST = 40, 120
#: Text that is aligned behind something has so many columns at least.
_LEAST_ROOM = 20

_COLOURS = {"bold": "1", "red": "31", "yellow": "33"}


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

    def wrapped(self, text: str, indent: str = "") -> None:
        self.hanging(indent, text)

    def hanging(self, start: str, text: str, style: str = "") -> None:
        """Add ``start`` and ``text``. The text is wrapped, and its lines are aligned below each other. Where there is
        too little room behind ``start``, they come below it.
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
        """Align the first ``numbers`` columns right and the others left. If a row is too wide, its last cell goes on a
        line of its own. If it is still too wide, every cell does. ``styles``: one for each row.
        """
        widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head) - 1)]
        # Columns have a maximum width, so that a few long names do not shift the columns of all rows.
        widths = [min(width, len(name) + 12) for width, name in zip(widths, head, strict=False)]
        self.hanging("  ", "  ".join(_cells(head, widths, numbers)))
        for row, style in zip_longest(rows, styles, fillvalue=""):
            cells = list(_cells(row, widths, numbers))
            first, together = "  " + "  ".join(cells[:-1]).rstrip(), "  " + "  ".join(cells)
            if len(together) <= self.width:
                self.line(together, style)
            elif len(first) <= self.width:
                self.line(first, style)
                self.hanging(" " * (4 + widths[0]), cells[-1])
            else:
                self.line(f"  {cells[0]}", style)
                for cell in filter(str.strip, cells[1:]):
                    self.hanging(" " * (4 + widths[0]), cell.rstrip())


def _cells(row: Sequence[str], widths: Sequence[int], numbers: int) -> Iterator[str]:
    for n, (cell, width) in enumerate(zip_longest(row, widths, fillvalue=0)):
        yield f"{cell:>{width}}" if n < numbers else f"{cell:{width or ''}}"


def _wrap(text: str, width: int) -> list[str]:
    width = max(width, _LEAST_ROOM)
    return textwrap.wrap(_spaced(text, width), width, break_long_words=False, break_on_hyphens=False)


def _spaced(text: str, width: int) -> str:
    """The text, where lists without spaces that are too long for a line have spaces behind their commas."""
    return re.sub(r"\S+", lambda word: re.sub(r",(?=.)", ", ", word[0]) if len(word[0]) > width else word[0], text)
