"""Adds up the parts of a replay that separate engines judged, because of several VPCs or several machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sgfast.engine import REASONS
from sgfast.replaying.results import LISTED_CUTS, Broken, ChangeDone, Denied, ReplayResult, RuleHits, Unanswered
from sgfast.replaying.sort_keys import broken_key, cut_key, denied_key, unanswered_key


def add_up(result: ReplayResult, parts: Sequence[ReplayResult]) -> None:
    """Adds up the results of ``parts``, of which there must be at least one, except changes (see ``add_up_change``)."""
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
    # Two parts may list the same instance: if VPCs are peered, or if its addresses were judged apart.
    denied: dict[Denied, list[Denied]] = {}
    broken: Counter[Broken] = Counter()
    unanswered: Counter[Unanswered] = Counter()
    for part in parts:
        for row in part.denied:
            denied.setdefault(replace(row, packets=0, bytes=0), []).append(row)
        for kind in part.broken:
            broken[replace(kind, connections=0)] += kind.connections
        for silence in part.unanswered:
            unanswered[replace(silence, connections=0)] += silence.connections
    result.denied = [
        replace(k, packets=sum(d.packets for d in rows), bytes=sum(d.bytes for d in rows))
        for k, rows in denied.items()
    ]
    result.denied.sort(key=denied_key)
    result.denied_others = sum(part.denied_others for part in parts)
    result.broken = [replace(kind, connections=n) for kind, n in broken.items()]
    result.broken.sort(key=broken_key)
    result.unanswered = [replace(kind, connections=n) for kind, n in unanswered.items()]
    result.unanswered.sort(key=unanswered_key)


def add_up_change(whole: ChangeDone, parts: Sequence[ChangeDone]) -> None:
    """Adds up what became of the connections that one change cut in each part."""
    whole.came_back = sum(done.came_back or 0 for done in parts)
    whole.denied_again = sum(done.denied_again or 0 for done in parts)
    whole.packets_after = sum(done.packets_after or 0 for done in parts)
    whole.finished = sum(done.finished or 0 for done in parts)
    cuts = [cut for done in parts for cut in done.connections]
    whole.connections = tuple(sorted(cuts, key=cut_key)[:LISTED_CUTS])


def sums(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sum for each key, in the order in which keys occur."""
    total: dict[str, int] = {}
    for each in counts:
        for key, n in each.items():
            total[key] = total.get(key, 0) + n
    return total
