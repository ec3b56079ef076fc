"""The section of a page about connections of flow logs that either end may have opened (SPEC 10.30)."""

from __future__ import annotations

from sgfast.policy.model import Policy
from sgfast.report.amounts import grouped, plural
from sgfast.report.html.markup import joined
from sgfast.report.html.page import PageSection, intro
from sgfast.report.html.tables import MOST_ROWS, Cell, Heading, more, table
from sgfast.report.rollup.uncertain import UncertainRollup
from sgfast.report.uncertain_openers import uncertain_total
from sgfast.traffic.flow_logs.unsure_openers import UnsureOpeners

_COLUMNS = (
    Heading("Connections", "connections", True), Heading("From", "from"), Heading("To", "to"),
    Heading("Service", "service"), Heading("If opened so", "likelier"), Heading("If the other end did", "other"),
)  # fmt: skip


def uncertain_section(policy: Policy, openers: UnsureOpeners | None) -> list[PageSection]:
    """Return the section; nothing if there are no such connections."""
    total = uncertain_total(openers)
    if openers is None or not total:
        return []
    rollup = UncertainRollup(policy, openers.differing)
    folded = rollup.fold("cannot-tell", by="group", most=MOST_ROWS)
    rows = [
        [Cell(grouped(row.connections), row.connections), Cell(row.source.called), Cell(row.destination.called),
         Cell(row.service),
         *(Cell(f"{reading.verdict} ({reading.reason}), {reading.service}") for reading in rollup.readings(row))]
        for row in folded.rows
    ]  # fmt: skip
    words = intro("Flow logs do not say who opened these connections, and the verdict depends on it.")
    listed = table("openers", "Connections of which nobody can tell who opened them", _COLUMNS, rows)
    return [PageSection(
        "openers", "Opened by whom", "Cannot tell who opened them",
        joined(words, listed, more(folded.unlisted_rows, "row")),
        plural(total, "connection"),
    )]  # fmt: skip
