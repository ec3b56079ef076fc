"""Sections of a report on what the cloud did, as its flow logs tell: attempts that it rejected, and whether it agrees
with the policy.
"""

from __future__ import annotations

from collections.abc import Sequence

from sgfast.replaying import ReplayResult
from sgfast.report.amounts import grouped, plural
from sgfast.report.answer_rows import left_words
from sgfast.report.document import Block, Item, Items, Section, Traffic, TrafficRow, more
from sgfast.report.rollup import By, rollup_of

WOULD_OPEN = "The cloud rejected these attempts, and these groups would let them in"


def action_sections(result: ReplayResult) -> list[Section]:
    """Return the section that compares the log's actions with the verdicts; none without ``--compare-actions``."""
    found = result.actions
    if found is None:
        return []
    items = [
        Item(f"{grouped(number):>9} ", words, "red" if number and disagrees else "")
        for number, words, disagrees in (
            (found.accepted_allowed, "accepted by the cloud, and allowed", False),
            (found.rejected_denied, "rejected by the cloud, and denied", False),
            (found.accepted_denied, "accepted by the cloud, but denied by these groups", True),
            (found.rejected_allowed, "rejected by the cloud, but allowed by these groups", True),
        )
    ]
    heading = f"The cloud disagrees with these groups about {plural(found.disagreeing, 'connection')}"
    if not found.disagreeing:
        heading = f"The cloud agrees with these groups about {plural(found.agreeing, 'connection')}"
    return [Section(heading, [Items(items)])]


def would_open_sections(result: ReplayResult, by: By, most: int) -> list[Section]:
    """Return the section of rejected attempts that the policy allows; none if there are none."""
    if result.rejected is None or not result.rejected.connections["opened"]:
        return []
    folded = rollup_of(result.rejected).fold("allowed", by=by, most=most)
    rows = [TrafficRow(row, row.connections, (row.reason,)) for row in folded.rows]
    blocks: Sequence[Block] = [Traffic("connections", rows, ("why",)), *more(left_words(folded), folded.every)]
    return [Section(WOULD_OPEN, blocks)]
