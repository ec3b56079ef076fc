"""Add up the parts of a replay that several engines judged, one for each VPC or on each machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from ipaddress import ip_address
from operator import add
from typing import Any, TypeVar

from sgfast.engine import REASONS
from sgfast.questions.replaying.evidence import Observed
from sgfast.questions.replaying.kinds import added_up
from sgfast.questions.replaying.results import LISTED_CUTS, ChangeDone, CutConnection, ReplayResult, RuleHits

Word = TypeVar("Word", bound=str)


def add_up(result: ReplayResult, parts: Sequence[ReplayResult]) -> None:
    """Add up the results of ``parts``, at least one, except their changes (see ``add_up_change``)."""
    result.packets, result.bytes = sum(part.packets for part in parts), sum(part.bytes for part in parts)
    result.verdicts = sums(part.verdicts for part in parts)
    reasons = sums(part.reasons for part in parts)
    result.reasons = {word: reasons[word] for word in REASONS if word in reasons}
    result.connections = sums(part.connections for part in parts)
    result.rules = [
        RuleHits(
            hits[0].rule, hits[0].group, sum(hit.connections for hit in hits), sum(hit.packets for hit in hits),
            sum(hit.bytes for hit in hits),
        )
        for hits in zip(*(part.rules for part in parts), strict=True)
    ]  # fmt: skip
    # The same kind may be in two parts if VPCs are peered, or if packets of its addresses were judged separately.
    result.kinds = added_up(part.kinds for part in parts)
    result.observed = reduce(add, (part.observed or Observed() for part in parts))


def add_up_change(whole: ChangeDone, parts: Sequence[ChangeDone]) -> None:
    """Add up the fates of the connections that one change cut in each part."""
    whole.came_back = sum(part.came_back or 0 for part in parts)
    whole.denied_again = sum(part.denied_again or 0 for part in parts)
    whole.packets_after = sum(part.packets_after or 0 for part in parts)
    whole.finished = sum(part.finished or 0 for part in parts)
    cuts = [cut for part in parts for cut in part.connections]
    whole.connections = tuple(sorted(cuts, key=_cut_key)[:LISTED_CUTS])


def sums(counts: Iterable[dict[Word, int]]) -> dict[Word, int]:
    """Add up values by key, keeping the order in which keys first occur."""
    total: dict[Word, int] = {}
    for count_of_word in counts:
        for key, n in count_of_word.items():
            total[key] = total.get(key, 0) + n
    return total


def finish_vpc(part: ReplayResult, warnings: list[str]) -> None:
    """Complete the part of a VPC, which has its own packet numbers. Add its warnings to ``warnings``."""
    part.kinds = part.kinds.without_numbers()
    part.oddities.warn(part)
    label = "packets of no mapped VPC" if part.vpc is None else f"VPC {part.vpc}"
    warnings += [f"{label}: {warning}" for warning in part.warnings]


def _cut_key(cut: CutConnection) -> tuple[Any, ...]:
    """Return a sort key: most packets first, then unfinished connections, then lower addresses."""
    ends = [ip_address(end) for end in (cut.initiator, cut.responder)]
    ports = (cut.initiator_port or 0) << 16 | (cut.responder_port or 0)
    icmp = (cut.icmp_type or 0) << 8 | (cut.icmp_code or 0)
    return (
        -cut.packets_after, cut.finished, *(end.packed.ljust(16, b"\0") for end in ends), ends[0].version, cut.protocol,
        ports, icmp,
    )  # fmt: skip
