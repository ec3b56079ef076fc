"""Captures in the output of ``sgfast check --traffic``: packets, times, and the connections that used a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Literal

from sgfast.policy.matching import Kind
from sgfast.policy.model import ICMP, ICMPV6, Policy
from sgfast.policy.rule_text import rule_name
from sgfast.questions.checking import Finding
from sgfast.questions.checking.codes import RuleUse
from sgfast.questions.replaying import ReplayResult
from sgfast.questions.replaying.listed_kinds import Service
from sgfast.questions.suggesting import TrafficTotals
from sgfast.report.amounts import grouped, human_seconds, instant, left_out_words, plural
from sgfast.report.answer_rows import left_rows
from sgfast.report.document import Name, Section, TableBlock, more_of
from sgfast.report.names import service_name
from sgfast.report.rollup import By, Folded
from sgfast.report.rollup.observed import ObservedRollup

#: The most services that a row names.
NAMED_SERVICES = 3


def window_text(result: ReplayResult) -> str:
    """Describe the packets and times of the captures, in which rules could be used."""
    left_out = "" if result.left_out is None else f"; left out: {left_out_words(result.left_out)}"
    if result.first_time_ns is None or result.last_time_ns is None:
        return f"no packets{left_out}"
    seconds = human_seconds(max(0, result.last_time_ns - result.first_time_ns) / 1e9)
    return (
        f"{plural(result.packets, 'packet')} in {seconds}, from {instant(result.first_time_ns)} to "
        f"{instant(result.last_time_ns)} UTC{left_out}"
    )


def used_rows(
    policy: Policy, finding: Finding, connections: int, by: By, most: int
) -> tuple[Folded, str, Literal["all", "more"]]:
    """Return the largest rows of connections that used the finding's rule; the sum of the other connections in words,
    such as ``5 more pairs (5 connections)``, or ""; and whether listing more rows shows all connections.
    """
    folded = used(policy, finding, by, most)
    unlisted = connections - sum(row.connections for row in folded.rows)
    rows = "others of too many kinds to be told apart"
    if folded.unlisted_rows:
        rows = left_rows(folded)
    words = f"{rows} ({plural(unlisted, 'connection')})" if unlisted else ""
    return folded, words, "all" if folded.connections == connections else "more"


def used(policy: Policy, finding: Finding, by: By, most: int) -> Folded:
    """Return the connections that used the finding's rule, folded. Arguments are as in ``Rollup.fold``."""
    return folded_uses(policy, finding.used, by, most)


def folded_uses(policy: Policy, kinds: Mapping[Kind, int], by: By, most: int) -> Folded:
    """Return connections by kind, folded. Arguments are as in ``Rollup.fold``."""
    totals = {kind: TrafficTotals(connections) for kind, connections in kinds.items()}
    return ObservedRollup(policy, totals).fold("observed", by=by, most=most)


def use_sections(policy: Policy, uses: Sequence[RuleUse], most: int) -> list[Section]:
    """Return the section on the last use of each rule, the longest ago first; none if no rule was used."""
    if not uses:
        return []
    rows = []
    for use in sorted(uses, key=attrgetter("last_time_ns"))[:most]:
        peers = {kind.initiator if use.rule.direction == "inbound" else kind.responder for kind in use.kinds}
        services = sorted({_service(kind) for kind in use.kinds})
        words = ", ".join(services) if len(services) <= NAMED_SERVICES else plural(len(services), "service")
        rows.append((
            instant(use.last_time_ns, 0), grouped(use.connections), grouped(len(peers)), words,
            Name(rule_name(policy, use.rule, use.group)),
        ))  # fmt: skip
    table = TableBlock(("last use (UTC)", "connections", "peers", "services", "rule"), rows, 3)
    return [Section("Last use of each rule, the longest ago first", [table, *more_of(len(uses), most, "rule")])]


def _service(kind: Kind) -> str:
    is_icmp = kind.protocol in (ICMP, ICMPV6)
    port, icmp_type = (None, kind.port) if is_icmp else (kind.port, None)
    return service_name(Service("", kind.protocol, port, icmp_type, kind.code if is_icmp else None))
