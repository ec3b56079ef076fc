"""Words about the records of flow logs: what became of them, and the attempts that the cloud rejected."""

from __future__ import annotations

from collections.abc import Sequence

from sgfast.flow_logs.log_records import CAUSES, LogRecords
from sgfast.replaying import ReplayResult
from sgfast.report.amounts import grouped, plural
from sgfast.report.answer_rows import left_words
from sgfast.report.document import Block, Item, Items, Section, Traffic, TrafficRow, more
from sgfast.report.rollup import By, rollup_of

LOG_REMINDER = "A flow log that its owner filtered to accepted traffic cannot show what today's groups block."
WOULD_OPEN = "The cloud rejected these attempts, and these groups would let them in"


def record_items(records: LogRecords | None) -> list[Item]:
    """Return the numbers of records, and why some were not judged; none for captures."""
    if records is None:
        return []
    formats = ", ".join(f"{plural(files, 'file')}: {name}" for name, files in records.formats.items())
    items = [Item("Records", f"{grouped(records.read)} read ({formats}), {grouped(records.judged)} judged")]
    if records.rejected:
        items.append(Item("", f"{grouped(records.rejected)} rejected by the cloud, judged apart"))
    for numbers, what in ((records.undecided, "undecided"), (records.left_out, "left out")):
        items += [Item("", f"{grouped(number)} {what}: {CAUSES[cause]}") for cause, number in numbers.items()]
    return items


def record_blocks(records: LogRecords | None) -> list[Block]:
    """Return a block of ``record_items``."""
    items = record_items(records)
    return [Items(items)] if items else []


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
