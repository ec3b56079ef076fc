"""Sections of a report on what the cloud did, as its flow logs tell: attempts that it rejected, and whether it agrees
with the policy.
"""

from __future__ import annotations

from collections.abc import Sequence

from sgfast.questions.replaying import ReplayResult
from sgfast.report.amounts import grouped, plural
from sgfast.report.answer_rows import left_words, reason_words
from sgfast.report.denial_reasons import Reasons
from sgfast.report.document import Block, Item, Items, Section, Traffic, TrafficRow, more
from sgfast.report.rollup import By, TrafficPart, rollup_of

#: By part of the answer about rejected attempts: the heading of its rows.
REJECTED: dict[TrafficPart, str] = {
    "allowed": "The cloud rejected these attempts, and these groups would let them in",
    "attempts": "The cloud rejected these attempts, and these groups deny them, too",
}


def rejected_words(result: ReplayResult) -> str:
    """Return ``300 of 8,350 rejected attempts would open``; "" if the cloud rejected none."""
    if result.rejected is None:
        return ""
    opens, denied = (result.rejected.connections[word] for word in ("opened", "denied"))
    if not denied:
        return f"{plural(opens, 'rejected attempt')} would open"
    if not opens:
        return f"{plural(denied, 'rejected attempt')} denied here, too"
    return f"{grouped(opens)} of {plural(opens + denied, 'rejected attempt')} would open"


def action_sections(result: ReplayResult) -> list[Section]:
    """Return the section that compares the log's actions with the verdicts; none without ``--compare-actions``."""
    actions = result.actions
    if actions is None:
        return []
    items = [
        Item(f"{grouped(number):>9} ", words, "red" if number and disagrees else "")
        for number, words, disagrees in (
            (actions.accepted_allowed, "accepted by the cloud, and allowed", False),
            (actions.rejected_denied, "rejected by the cloud, and denied", False),
            (actions.accepted_denied, "accepted by the cloud, but denied by these groups", True),
            (actions.rejected_allowed, "rejected by the cloud, but allowed by these groups", True),
        )
    ]
    heading = f"The cloud disagrees with these groups about {plural(actions.disagreeing, 'connection')}"
    if not actions.disagreeing:
        heading = f"The cloud agrees with these groups about {plural(actions.agreeing, 'connection')}"
    return [Section(heading, [Items(items)])]


def rejected_sections(result: ReplayResult, by: By, most: int) -> list[Section]:
    """Return the sections of rejected attempts that the policy allows, and of those that it denies, too."""
    if result.rejected is None:
        return []
    rollup, reasons = rollup_of(result.rejected), Reasons(result.rejected.policy)
    sections = []
    for part, heading in REJECTED.items():
        folded = rollup.fold(part, by=by, most=most)
        rows = [TrafficRow(row, row.connections, (reason_words(row, reasons),)) for row in folded.rows]
        rest_blocks = more(left_words(folded, "attempts"), folded.every)
        blocks: Sequence[Block] = [Traffic("attempts", rows, ("why",)), *rest_blocks]
        sections += [Section(heading, blocks)] if rows else []
    return sections
