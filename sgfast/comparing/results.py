"""The result of comparing two policies."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from sgfast.capture import Damage
from sgfast.comparing.kinds import ChangedKinds
from sgfast.comparing.tables import TrafficDiffTables
from sgfast.core.base.reasons import ReasonWord
from sgfast.engine import Midstream, Mode
from sgfast.evidence import Evidence, EvidenceReason
from sgfast.notebook import html_doubts, html_table
from sgfast.policy.model import Policy, Rule
from sgfast.replaying import Service
from sgfast.replaying.evidence import NOT_JUDGED, Observed, TrafficFacts, evidence_of
from sgfast.replaying.packet_selection import PacketsLeftOut
from sgfast.replaying.results import count
from sgfast.system.names import without_credentials
from sgfast.verdicts import VerdictWord

#: ``newly-denied``: the connection passes under OLD and is blocked under NEW; ``newly-allowed``: the reverse. A packet
#: is blocked if it is denied or moot; otherwise it passes, even if no filter sees it (SPEC 3.2, 3.3).
NewVerdict = Literal["newly-denied", "newly-allowed"]

NEW_VERDICTS: tuple[NewVerdict, ...] = ("newly-denied", "newly-allowed")

#: The maximum number of peers that a group lists.
LISTED_PEERS = 5


@dataclass(frozen=True, slots=True)
class Judgement:
    """One policy's judgement of a connection: its verdict on the first packet that the other policy treats differently.

    The rules are those that win for the connection's opener. If the packet is allowed, these are both sides' rules. If
    rules deny it, they are the rule of the denying side, and the egress side's rule if that side allowed it before.
    """

    verdict: VerdictWord
    #: None if no filter sees the packet.
    reason: ReasonWord | None
    egress_rule: str | None
    ingress_rule: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """One changed connection."""

    #: The number of the connection's first changed packet, counted from 1 over all captures.
    packet: int
    time_ns: int
    initiator: str
    initiator_port: int | None
    responder: str
    responder_port: int | None


@dataclass(frozen=True, slots=True)
class ChangedGroup:
    """Connections that change in the same way. ``packets``, ``bytes`` and times are those of the changed packets."""

    change: NewVerdict
    #: The service, and the instance whose filter blocks under the blocking policy.
    service: Service
    direction: Literal["inbound", "outbound"]
    #: The security groups of the instances at the other end, under the same policy; empty if the peers are no
    #: instances.
    peer_groups: tuple[str, ...]
    #: Names or addresses of at most ``LISTED_PEERS`` peers; those with most connections come first.
    peers: tuple[str, ...]
    peer_count: int
    old: Judgement
    new: Judgement
    #: The deciding rule of the blocking side under OLD, and under NEW; None if no rule decides.
    old_rule: str | None
    new_rule: str | None
    connections: int
    #: The number of connections that the other end answered in the capture (SPEC 10.4).
    answered: int
    packets: int
    bytes: int
    first_time_ns: int
    last_time_ns: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of changed connections, with their packets and bytes."""

    connections: int
    answered: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RuleEffect:
    """A rule that differs between the policies and decides connections whose verdict changes."""

    rule: str
    group: str
    #: ``removed``: only in OLD; ``added``: only in NEW; ``changed``: in both, with different contents.
    status: Literal["removed", "added", "changed"]
    old: Rule | None
    new: Rule | None
    newly_denied: int
    newly_allowed: int


@dataclass(frozen=True, slots=True)
class MovedTraffic:
    """Connections that both policies allow, but that a filter allows by another rule than before."""

    old_rule: str
    old_group: str
    new_rule: str
    new_group: str
    connections: int


@dataclass
class TrafficDiff:
    """The changes between two policies. Times are nanoseconds since the Unix epoch; None if there was no packet."""

    old: Policy
    new: Policy
    mode: Mode
    midstream: Midstream
    vpc: str | None
    #: The captures as the caller named them, but without credentials in URLs.
    captures: tuple[str, ...]
    packets: int = 0
    #: Bytes on the wire.
    bytes: int = 0
    #: The packets of the captures that are not in ``packets``; None: no option leaves packets out.
    left_out: PacketsLeftOut | None = None
    #: The number of packets for each pair of verdicts of OLD and NEW that occurred.
    verdicts: dict[tuple[VerdictWord, VerdictWord], int] = field(default_factory=dict)
    #: Groups sorted by ``groups.importance``: newly denied ones first, then those with most answered connections.
    groups: list[ChangedGroup] = field(default_factory=list)
    #: All changed connections, with or without a group. ``sgfast.report.rollup.changed`` summarises them.
    kinds: dict[NewVerdict, ChangedKinds] = field(default_factory=dict)
    #: Effects of rules, those with most connections first; ``moved`` is sorted in the same way.
    rules: list[RuleEffect] = field(default_factory=list)
    moved: list[MovedTraffic] = field(default_factory=list)
    #: The number of moved connections for which ``moved`` had no room.
    moved_others: int = 0
    first_time_ns: int | None = None
    last_time_ns: int | None = None
    #: The seconds for reading and judging, without start-up.
    elapsed_seconds: float = 0.0
    damaged: Damage | None = None
    warnings: list[str] = field(default_factory=list)
    #: The number of tunnel headers removed, by kind; None if the options remove none.
    decapsulated: dict[str, int] | None = None
    #: Facts from which ``evidence`` follows: those of the engine with OLD.
    observed: Observed | None = None
    #: Reasons to doubt the answer that reading the captures gave.
    doubts: tuple[EvidenceReason, ...] = ()
    #: Connections and denied attempts under OLD.
    connections: int = 0
    #: Codes of reasons in spite of which the user accepts the answer.
    accepted_evidence: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.captures = tuple(map(without_credentials, self.captures))

    @cached_property
    def evidence(self) -> Evidence:
        """Reasons to doubt the answer that the captured traffic gives (SPEC 10.27)."""
        not_ip = self.verdicts.get(("not-ip", "not-ip"), 0)
        outside = self.verdicts.get(("out-of-scope", "out-of-scope"), 0)
        judged = sum(packets for pair, packets in self.verdicts.items() if not NOT_JUDGED.issuperset(pair))
        local = self.verdicts.get(("local", "local"), 0)
        traffic = TrafficFacts(
            self.packets, self.packets - not_ip, outside, judged, local, self.connections, self.old.is_stateful,
            self.observed, self.doubts, self.left_out, self.old, self.vpc,
        )  # fmt: skip
        return evidence_of(traffic).accepting(self.accepted_evidence)

    @property
    def tables(self) -> TrafficDiffTables:
        """Tables for pandas, polars, DuckDB and pyarrow (SPEC 14.9)."""
        effects = [(each.rule, each.group, each.status, each.newly_denied, each.newly_allowed) for each in self.rules]
        return TrafficDiffTables(self.kinds.items(), effects)

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.total(verdict).connections} {verdict}" for verdict in NEW_VERDICTS)
        return f"<TrafficDiff of {', '.join(self.captures)}: {count(self.packets, 'packet')}; connections: {counts}>"

    def of(self, change: NewVerdict) -> list[ChangedGroup]:
        return [group for group in self.groups if group.change == change]

    def total(self, change: NewVerdict) -> Counts:
        """Return the totals of all connections with this change, with or without a group."""
        if change not in self.kinds:
            return Counts(0, 0, 0, 0)
        rows = self.kinds[change].rows
        return Counts(*(int(rows[name].sum()) for name in ("connections", "broken", "packets", "bytes")))

    def _repr_html_(self) -> str:
        totals = [(verdict, self.total(verdict)) for verdict in NEW_VERDICTS]
        rows = [(verdict, total.connections, total.answered, total.packets) for verdict, total in totals]
        table = html_table(("change", "connections", "answered", "packets"), rows)
        return html_doubts(self.evidence) + table + self.tables.changed._repr_html_()

    @property
    def packets_per_second(self) -> float:
        return self.packets / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0
