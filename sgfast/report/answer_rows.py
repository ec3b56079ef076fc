"""Rows of traffic (who reaches whom) in words, as sections of a report (SPEC 10.24)."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from sgfast.base.names import printable
from sgfast.policy.model import Policy, called
from sgfast.report.amounts import grouped, plural
from sgfast.report.denial_reasons import Reasons
from sgfast.report.document import Paragraph, Section, Traffic, TrafficRow, more
from sgfast.report.names import service_name
from sgfast.report.rollup import BY_PACKETS, NOT_SEEN, By, Folded, Rollup, RollupRow, TrafficPart

if TYPE_CHECKING:
    from sgfast.report.row_rules import RowRules, RuleFinder

HEADINGS: dict[TrafficPart, str] = {
    "would-break": "Would break: connections that were answered, but that these groups deny",
    "one-way": "Denied packets that nobody answered: nothing that worked depends on them",
    "cannot-tell": "Cannot tell whether somebody answered these denied packets",
    "unanswered": "Allowed by the groups, but not served by the instance",
    "allowed": "Allowed",
}
#: The most rules that a row shows.
MOST_RULES = 5
_ANSWERS = {"refused": "refused: RST or ICMP unreachable", "silent": "no answer", NOT_SEEN: "cannot tell"}


def answer_sections(
    rollup: Rollup, reasons: Reasons, part: TrafficPart, by: By, most: int, rules: RuleFinder | None = None
) -> list[Section]:
    """Return the section of one list of a replay's answer; none if the list is empty. ``rules``: finds for each row the
    rules that would let it through.
    """
    folded = rollup.fold(part, by=by, most=most)
    if not folded.rows:
        return []
    measure = measure_of(part)
    explained = part == "would-break"
    rows = [
        TrafficRow(
            row, getattr(row, measure),
            (
                _ANSWERS[row.reason] if part == "unanswered" else reason_words(row, reasons),
                *([nearest_text(row, reasons)] if explained else []),
            ),
            lines=[] if rules is None else rule_lines(reasons.policy, rules.of(row)),
        )
        for row in folded.rows
    ]  # fmt: skip
    traffic = Traffic(measure, rows, ("why", *(["nearest rule"] if explained else [])))
    # The headline gives the totals of the other lists.
    heading = HEADINGS[part] if part != "allowed" else f"Allowed: {plural(rollup.total(part), 'connection')}"
    return [Section(heading, [traffic, *more(left_words(folded, measure), folded.every)])]


def connection_rows(folded: Folded, least: int) -> list[Traffic | Paragraph]:
    """Return rows that only have connections, and a note on left-out rows, whose option says ``least`` or more."""
    rows = Traffic("connections", [TrafficRow(row, row.connections) for row in folded.rows])
    return [*([rows] if folded.rows else []), *more(left_words(folded), max(folded.every, least))]


def measure_of(part: TrafficPart) -> str:
    return "packets" if part in BY_PACKETS else "connections"


def left_words(folded: Folded, measure: str = "connections") -> str:
    """Return ``3 more pairs (6 packets)``; "" if all rows are listed."""
    if not folded.unlisted_rows:
        return ""
    unlisted = folded.unlisted_packets if measure == "packets" else folded.unlisted_connections
    return f"{left_rows(folded)} ({plural(unlisted, measure[:-1])})"


def left_rows(folded: Folded) -> str:
    """Return ``3 more pairs``, or ``3 more rows`` if rows are not about pairs of ends."""
    return plural(folded.unlisted_rows, "more pair" if folded.rows[0].has_ends else "more row")


def reason_words(row: RollupRow, reasons: Reasons) -> str:
    """Return the word of SPEC 10.3 with the rule that decided."""
    rule = f" {reasons.rule_words(row.rule)}" if row.rule is not None else ""
    opener = ", opener unknown" if row.opener is not None else ""
    return row.reason + rule + (", perhaps answered" if row.perhaps_answered else "") + opener


def rule_lines(policy: Policy, rules: RowRules) -> list[str]:
    """Return the first rules that a row lacks as lines to be pasted, and reasons for which no rule is added."""
    lines, shown = [], rules.added[:MOST_RULES]
    for group, added in groupby(shown, key=lambda group_rule: group_rule[0]):
        lines += [f"add to {called(policy.group_by_name[group])}:", *(f"  - {line}" for _, line in added)]
    if unlisted := len(rules.added) - len(shown):
        lines.append(f"and {plural(unlisted, 'more rule')}, which sgfast suggest --keep writes")
    return [printable(line) for line in (*lines, *rules.left_out)]


def nearest_text(row: RollupRow, reasons: Reasons) -> str:
    """Say which rule came nearest to allowing the row, or its largest service if it has several."""
    near = reasons.nearest_rules(row.kind) if row.kind is not None else []
    if row.kind is None or not near:
        return ""
    (rule, differs), unlisted = near[0], len(near) - 1
    label = f"for {service_name(row.kind.service)} the nearest" if row.services > 1 else "nearest"
    unlisted_text = f" (and {grouped(unlisted)} more)" if unlisted else ""
    return f"{label} is {reasons.rule_words(rule)}{unlisted_text}: {printable(', and '.join(differs))}"
