"""The report of ``sgfast reach``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sgfast.base.names import printable
from sgfast.report.amounts import plural
from sgfast.report.document import Block, Document, Item, Items, Paragraph, Section, TableBlock
from sgfast.report.evidence import evidence_blocks
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.rows import ReachResult, Row

#: Maximum number of names in a cell before "and N more"; in texts, a larger ``--top`` raises it. JSON has all of them.
LISTED_PARTS = 8


def reach_document(reached: ReachResult, top: int) -> Document:
    """Return the report. ``top``: the most rows, and the most names in a cell, which has LISTED_PARTS in any case."""
    question = printable(f"from {reached.sources.name} to {reached.destinations.name} ({reached.asked})")
    reasons = {reason.sentence for reason in reached.evidence.reasons}
    warnings = [Item("Warning:", printable(warning)) for warning in reached.warnings if warning not in reasons]
    doubts = evidence_blocks(reached.evidence)
    ending: list[Block] = [Items(warnings, len("Warning:"))] if warnings else []
    if not reached.rows:
        return [Section(f"Nobody may open a connection {question}", ending)]
    heading = f"Who may open connections {question}: {plural(len(reached.rows), 'row')}"
    names = max(top, LISTED_PARTS)
    cells = [reach_cells(row, names) for row in reached.rows[:top]]
    table = TableBlock(("from", "to", "services"), cells, 0, is_wrapped=True)
    notes: list[Block] = []
    if len(reached.rows) > top:
        notes.append(Paragraph(
            f"and {plural(len(reached.rows) - top, 'more row')}: --top N shows more, --from, --to, --protocol and "
            "--port ask for less, --json has all"
        ))  # fmt: skip
    if (longest := most_names(reached.rows[:top])) > names:
        notes.append(Paragraph(f"Some cells do not show all names: --top {longest} shows them, --json has all"))
    if not notes:
        return [Section(heading, doubts), Section("", [table, *ending], goes_on=True)]
    return [Section(heading, doubts), Section("", [table], goes_on=True), Section("", [*notes, *ending])]


def most_names(rows: Sequence[Row]) -> int:
    """Return the number of names in the longest list of the rows' ends."""
    ends = [parts for row in rows for parts in (row.sources, row.destinations)]
    lists = (names for parts in ends for part in parts for names in (part.without, part.addresses))
    return max(map(len, (*ends, *lists)), default=0)


def reach_cells(row: Row, most: int) -> tuple[str, str, str]:
    """Return the three cells of a row. The services have the IP version if no network shows it. ``most``: the most
    names of an end.
    """
    return parts_text(row.sources, most), parts_text(row.destinations, most), services_cell(row)


def services_cell(row: Row) -> str:
    kinds = {part.kind for part in (*row.sources, *row.destinations)}
    is_version_shown = len(row.families) == 2 or kinds & {"network", "internet"}
    return row.services if is_version_shown else f"{row.services} (IPv{row.families[0]})"


def parts_text(parts: Sequence[Part], most: int = LISTED_PARTS) -> str:
    texts = [part_text(part, most) for part in parts[:most]]
    unlisted = len(parts) - most
    return ", ".join(texts) + (f" and {unlisted:,} more" if unlisted > 0 else "")


def part_text(part: Part, most: int = LISTED_PARTS) -> str:
    """Return a part in words. ``most``: the most exceptions, and the most addresses, that it lists."""
    return _plain_text(part, most) + replace(part, vpcs=tuple(map(printable, part.vpcs))).where


def _plain_text(part: Part, most: int) -> str:
    match part.kind:
        case "any":
            return part.kind
        case "internet":
            within = f" ({part.addresses[0]})" if part.addresses else ""
            return f"internet{within}" + (f" except {_listed(part.without, most)}" if part.without else "")
        case "instances":
            return "all instances" + (f" except {printable(_listed(part.exceptions, most))}" if part.without else "")
        case "instance" if part.addresses:
            return f"{printable(part.called)} ({_listed(part.addresses, most)})"
        case "network" if part.without:
            return f"{part.name} except {_listed(part.without, most)}"
        case _:
            return printable(part.called)


def _listed(names: Sequence[str], most: int) -> str:
    unlisted = len(names) - most
    return " ".join(names[:most]) + (f" and {unlisted:,} more" if unlisted > 0 else "")


