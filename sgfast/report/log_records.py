"""Words about the records of flow logs, and about what they can never show."""

from __future__ import annotations

from collections.abc import Sequence

from sgfast.base.names import printable
from sgfast.policy.model import Policy
from sgfast.report.amounts import grouped, plural
from sgfast.report.document import REMINDER, Block, Item, Items
from sgfast.traffic.flow_logs.log_records import CAUSES, MOST_NAMED, LogRecords, NoticedInterface
from sgfast.traffic.flow_logs.unlogged import UnseenRule, said_of_unlogged, said_of_unseen

LOG_REMINDER = "A flow log that its owner filtered to accepted traffic cannot show what today's groups block."


def reminder(records: LogRecords | None) -> str:
    """Return the sentence on what traffic can never show."""
    return REMINDER if records is None else LOG_REMINDER


def decimals(records: LogRecords | None) -> int:
    """Return how many decimals of a second the times of traffic have in reports: logs tell whole seconds."""
    return 3 if records is None else 0


def record_items(records: LogRecords | None) -> list[Item]:
    """Return the numbers of records, and why some were not judged; none for captures."""
    if records is None:
        return []
    formats = ", ".join(f"{plural(files, 'file')}: {name}" for name, files in records.formats.items())
    items = [Item("Records", f"{grouped(records.read)} read ({formats}), {grouped(records.judged)} judged")]
    if records.rejected:
        items.append(Item("", f"{grouped(records.rejected)} rejected by the cloud, judged apart"))
    for numbers, fate in ((records.undecided, "undecided"), (records.left_out, "left out")):
        items += [Item("", f"{grouped(number)} {fate}: {CAUSES[cause]}") for cause, number in numbers.items()]
    noticed = [_interface_words(interface) for interface in records.interfaces if interface.left_out]
    items += [Item("", printable(words)) for words in noticed[:MOST_NAMED]]
    if len(noticed) > MOST_NAMED:
        items.append(Item("", f"and {plural(len(noticed) - MOST_NAMED, 'more interface')} like these: --json has all"))
    return items


def _interface_words(interface: NoticedInterface) -> str:
    fate = f"{plural(interface.left_out, 'record')} left out"
    if interface.role == "nat-gateway":
        return f"{interface.interface} is a NAT gateway ({interface.address}): {fate}"
    return f"{interface.interface} had {interface.address}, the address of {interface.instance}: {fate}"


def naming(
    sentences: Sequence[str], policy: Policy, records: LogRecords | None, unseen: Sequence[UnseenRule], most: int
) -> list[str]:
    """Return the sentences, of which those about instances that were not logged, and about ``unseen`` rules, name up to
    ``most`` of them.
    """
    short = [*said_of_unlogged(policy, records), *said_of_unseen(policy, unseen)]
    most = max(MOST_NAMED, most)
    long = [*said_of_unlogged(policy, records, most), *said_of_unseen(policy, unseen, most)]
    replaced = dict(zip(short, long, strict=True))
    return [replaced.get(sentence, sentence) for sentence in sentences]


def record_blocks(records: LogRecords | None) -> list[Block]:
    """Return a block of ``record_items``."""
    items = record_items(records)
    return [Items(items)] if items else []
