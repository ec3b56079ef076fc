"""Words about connections of flow logs that either end may have opened (SPEC 10.30)."""

from __future__ import annotations

from sgfast.base.names import printable
from sgfast.policy.model import Policy
from sgfast.report.amounts import plural
from sgfast.report.answer_rows import left_words
from sgfast.report.denial_reasons import Reasons
from sgfast.report.document import Section, Traffic, TrafficRow, more
from sgfast.report.rollup import By
from sgfast.report.rollup.uncertain import RowReading, UncertainRollup
from sgfast.traffic.flow_logs.unsure_openers import UnsureOpeners

HEADING = "Cannot tell who opened these connections, and the verdict depends on it"


def uncertain_sections(
    policy: Policy, openers: UnsureOpeners | None, reasons: Reasons, by: By, most: int
) -> list[Section]:
    """Return the section of connections on which the verdict depends on who opened them; none if there are none."""
    if openers is None or not openers.differing:
        return []
    rollup = UncertainRollup(policy, openers.differing)
    folded = rollup.fold("cannot-tell", by=by, most=most)
    rows = [
        TrafficRow(row, row.connections, [reading_words(reading, reasons) for reading in rollup.readings(row)])
        for row in folded.rows
    ]
    heads = ("if opened so", "if the other end did")
    return [Section(HEADING, [Traffic("connections", rows, heads), *more(left_words(folded), folded.every)])]


def reading_words(reading: RowReading, reasons: Reasons) -> str:
    """Return the verdict on a reading in words."""
    rule = f" {reasons.rule_words(reading.rule)}" if reading.rule is not None else ""
    word = "allowed" if reading.verdict == "allow" else "denied"
    return f"if {printable(reading.source.called)} opened {reading.service}: {word} ({reading.reason}{rule})"


def uncertain_total(openers: UnsureOpeners | None) -> int:
    """Return the number of connections on which the verdict depends on who opened them."""
    return 0 if openers is None else sum(connections.connections for connections in openers.differing)


def uncertain_words(openers: UnsureOpeners | None) -> list[str]:
    """Return what a headline says of them; nothing if there are none."""
    total = uncertain_total(openers)
    return [f"cannot tell who opened {plural(total, 'connection')}"] if total else []
