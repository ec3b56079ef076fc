"""The output of ``sgfast reach``, as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from sgfast.reaching import Part, Reach, Row
from sgfast.report.amounts import plural
from sgfast.report.page import Page
from sgfast.system.names import printable

#: Maximum number of names, or of ports and services, in a cell before "and N more". JSON has all of them.
LISTED_PARTS = 8
_LISTED_SERVICES = 24
#: The least width of the column of services; the others share the rest of the terminal.
_NARROWEST = 20


def reach_text(found: Reach, *, top: int, width: int = 80, colour: bool = False) -> str:
    """Return the text. ``top``: how many rows are shown."""
    page = Page(width, colour)
    asked = printable(f"from {found.sources.name} to {found.destinations.name} ({found.asked})")
    if not found.rows:
        page.heading(f"Nobody may open a connection {asked}")
    else:
        page.heading(f"Who may open connections {asked}: {plural(len(found.rows), 'row')}")
        page.line()
        write_rows(page, ("from", "to", "services"), [reach_cells(row) for row in found.rows[:top]])
    if len(found.rows) > top:
        page.line()
        page.wrapped(
            f"and {plural(len(found.rows) - top, 'more row')}: --top N shows more, --from, --to, --protocol and --port "
            "ask for less, --json has all"
        )
    for warning in found.warnings:
        page.hanging("Warning: ", printable(warning))
    return page.text()


def reach_cells(row: Row) -> tuple[str, str, str]:
    """The three cells of a row. The IP version is told where no network shows it."""
    return parts_text(row.sources), parts_text(row.destinations), services_cell(row)


def services_cell(row: Row) -> str:
    kinds = {part.kind for part in (*row.sources, *row.destinations)}
    is_told = len(row.families) == 2 or kinds & {"network", "internet"}
    return row.services if is_told else f"{row.services} (IPv{row.families[0]})"


def parts_text(parts: Sequence[Part]) -> str:
    texts = [part_text(part) for part in parts[:LISTED_PARTS]]
    more = len(parts) - LISTED_PARTS
    return ", ".join(texts) + (f" and {more:,} more" if more > 0 else "")


def part_text(part: Part, most: int = LISTED_PARTS) -> str:
    """``most``: how many names it lists of what does not count, and how many addresses."""
    match part.kind:
        case "any":
            return part.kind
        case "internet":
            within = f" ({part.addresses[0]})" if part.addresses else ""
            return f"internet{within}" + (f" except {_listed(part.without, most)}" if part.without else "")
        case "instances":
            return "all instances" + (f" except {_listed(part.without, most)}" if part.without else "")
        case "instance" if part.addresses:
            return f"{printable(part.name)} ({_listed(part.addresses, most)})"
        case "network" if part.without:
            return f"{part.name} except {_listed(part.without, most)}"
        case _:
            return printable(part.name)


def _listed(names: Sequence[str], most: int) -> str:
    more = len(names) - most
    return " ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def write_rows(page: Page, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table whose cells are wrapped behind spaces and commas: names and numbers stay whole."""
    shown = [[*map(_pieces, row[:-1]), _shortened(_pieces(row[-1]))] for row in rows]
    room = page.width - 2 - 2 * (len(head) - 1)
    widths = [max([len(name), *(sum(map(len, row[n])) for row in shown)]) for n, name in enumerate(head)]
    if sum(widths) > room:
        for n, name in enumerate(head[:-1]):
            longest = max([len(name), *(len(piece.rstrip()) for row in shown for piece in row[n])])
            widths[n] = min(widths[n], max(longest, room // len(head)))
        widths[-1] = max(room - sum(widths[:-1]), _NARROWEST)
    if sum(widths) > room:
        _write_below_each_other(page, head, shown)
        return
    page.line("  " + "  ".join(f"{name:{width}}" for name, width in zip(head, widths, strict=True)))
    for row in shown:
        cells = [_filled(pieces, width) for pieces, width in zip(row, widths, strict=True)]
        for line in zip_longest(*cells, fillvalue=""):
            page.line("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)))


def _write_below_each_other(page: Page, head: Sequence[str], rows: Sequence[Sequence[list[str]]]) -> None:
    """For a terminal on which the columns do not fit."""
    label = 2 + max(map(len, head))
    for row in rows:
        for name, pieces in zip(head, row, strict=True):
            for n, line in enumerate(_filled(pieces, max(page.width - label - 4, _NARROWEST))):
                page.line(f"{'  ' if name == head[0] else '    '}{'' if n else name:{label}}{line}")


def _pieces(text: str) -> list[str]:
    return re.findall(r"[^ ,]+,? ?", text)


def _shortened(pieces: list[str]) -> list[str]:
    more = len(pieces) - _LISTED_SERVICES
    return pieces if more <= 0 else [*pieces[:_LISTED_SERVICES], f"... (and {more:,} more)"]


def _filled(pieces: Sequence[str], width: int) -> list[str]:
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]
