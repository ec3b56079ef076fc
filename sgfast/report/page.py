"""A page of text for people: lines, headings, tables, in so many columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

NARROWEST, WIDEST = 80, 120

_COLOURS = {"bold": "1", "red": "31", "yellow": "33"}


def grouped(number: int) -> str:
    return f"{number:,}"


def plural(number: int, one: str, many: str = "") -> str:
    return f"{grouped(number)} {one if number == 1 else many or one + 's'}"


class Page:
    """Lines that are added one by one. ``width``: columns, if that can be."""

    def __init__(self, width: int, colour: bool) -> None:
        self.width = min(max(width, NARROWEST), WIDEST)
        self._colour = colour
        self._lines: list[str] = []

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def line(self, text: str = "", style: str = "") -> None:
        text = text.rstrip()
        self._lines.append(f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if style and self._colour and text else text)

    def heading(self, text: str) -> None:
        for line in _wrap(text, self.width):
            self.line(line, "bold")

    def wrapped(self, text: str, indent: str = "") -> None:
        self.hanging(indent, text)

    def hanging(self, start: str, text: str, style: str = "") -> None:
        """``start``, then ``text`` in as many lines as it takes, the later ones below the first."""
        pieces = _wrap(text, self.width - len(start)) or [""]
        for n, piece in enumerate(pieces):
            self.line((start if n == 0 else " " * len(start)) + piece, style)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """The first column to the right, the others to the left. Where a row is too long its last cell goes below."""
        widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head) - 1)]
        # A few long names do not push everyone else's columns out.
        widths = [min(width, len(name) + 12) for width, name in zip(widths, head, strict=False)]
        self.line("  " + "  ".join(_cells(head, widths)))
        for row in rows:
            cells = list(_cells(row, widths))
            text = "  " + "  ".join(cells)
            if len(text) <= self.width:
                self.line(text)
            else:
                self.line("  " + "  ".join(cells[:-1]))
                self.hanging(" " * (4 + widths[0]), cells[-1])


def _cells(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for n, cell in enumerate(row):
        if n == 0:
            yield f"{cell:>{widths[0]}}"
        elif n < len(widths):
            yield f"{cell:{widths[n]}}"
        else:
            yield cell


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)


