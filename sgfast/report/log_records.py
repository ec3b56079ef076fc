"""Words about the records of flow logs, and about what they can never show."""

from __future__ import annotations

from sgfast.flow_logs.log_records import CAUSES, LogRecords
from sgfast.report.amounts import grouped, plural
from sgfast.report.document import REMINDER, Block, Item, Items

LOG_REMINDER = "A flow log that its owner filtered to accepted traffic cannot show what today's groups block."


def reminder(records: LogRecords | None) -> str:
    """Return the sentence on what traffic can never show."""
    return REMINDER if records is None else LOG_REMINDER


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
