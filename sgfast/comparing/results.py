"""The result of comparing two policies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sgfast.capture import Damage
from sgfast.comparing.kinds import ChangedKinds
from sgfast.engine import Midstream, Mode
from sgfast.evidence import Evidence
from sgfast.notebook import html_table
from sgfast.policy.model import Policy, Rule
from sgfast.replaying import Service
from sgfast.replaying.evidence import NOT_JUDGED, Observed, Traffic, evidence_of
from sgfast.replaying.packet_selection import PacketsLeftOut
from sgfast.replaying.results import count
from sgfast.system.names import without_credentials

if TYPE_CHECKING:
    from sgfast.comparing.tables import DiffTables
    from sgfast.replaying.captures import Noticed

#: ``newly-denied``: the connection passes under OLD and is blocked under NEW; ``newly-allowed``: the reverse. A packet
#: is blocked if it is denied or moot; otherwise it passes, even if no filter sees it (SPEC 3.2, 3.3).
NewVerdict = Literal["newly-denied", "newly-allowed"]

NEW_VERDICTS: tuple[NewVerdict, ...] = ("newly-denied", "newly-allowed")

#: The most peers that a group lists.
LISTED_PEERS = 5


@dataclass(frozen=True, slots=True)
class Judgement:
    """One policy's judgement of a connection: its verdict on the first packet that the other policy treats differently.

    The rules are those that win for the connection's opener. If the packet is allowed, they are the rules of both
    sides; if rules deny it, that of the side that denies, and that of the egress side if it judged before.
    """

    verdict: str
    #: None if no filter sees the packet.
    reason: str | None
    egress_rule: str | None
    ingress_rule: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """One changed connection."""

    #: The number of its first changed packet, counted from 1 over all captures.
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
    #: The instance whose filter blocks, under the policy that blocks, and the service.
    service: Service
    direction: Literal["inbound", "outbound"]
    #: The security groups of the instances at the other end, under the same policy; empty if these are not instances.
    peer_groups: tuple[str, ...]
    #: The other ends, by instance name or address, those with most connections first; at most ``LISTED_PEERS``.
    peers: tuple[str, ...]
    peer_count: int
    old: Judgement
    new: Judgement
    #: The rules that decide on the side that blocks, under OLD and under NEW. None: no rule decides.
    old_rule: str | None
    new_rule: str | None
    connections: int
    #: The part of ``connections`` that the other end answered in the capture (SPEC 10.4).
    answered: int
    packets: int
    bytes: int
    first_time_ns: int
    last_time_ns: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Changed connections, added up."""

    connections: int
    answered: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RuleEffect:
    """A rule that differs between the policies, and decides about connections whose verdict changes."""

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
    """Connections that both policies allow, but a filter by different rules."""

    old_rule: str
    old_group: str
    new_rule: str
    new_group: str
    connections: int


@dataclass
class DiffResult:
    """Changes between two policies. Times are nanoseconds since the Unix epoch; None if there was no packet."""

    old: Policy
    new: Policy
    mode: Mode
    midstream: Midstream
    vpc: str | None
    #: The captures as they were given, but without the credentials in URLs.
    captures: tuple[str, ...]
    packets: int = 0
    #: Bytes on the wire.
    bytes: int = 0
    #: Packets of the captures that were left out of ``packets``; None: no option leaves any out.
    left_out: PacketsLeftOut | None = None
    #: The number of packets for each pair of verdicts of OLD and NEW that occurred.
    verdicts: dict[tuple[str, str], int] = field(default_factory=dict)
    #: Sorted by ``groups.importance``: newly denied ones first, then those with most answered connections.
    groups: list[ChangedGroup] = field(default_factory=list)
    #: All changed connections, with or without a group. ``sgfast.report.rollup.changed`` folds them.
    kinds: dict[NewVerdict, ChangedKinds] = field(default_factory=dict)
    #: Rules and moves with most connections first.
    rules: list[RuleEffect] = field(default_factory=list)
    moved: list[MovedTraffic] = field(default_factory=list)
    #: Connections for whose two rules there was no room in ``moved``.
    moved_others: int = 0
    first_time_ns: int | None = None
    last_time_ns: int | None = None
    #: The time for reading and judging, without start-up.
    elapsed_seconds: float = 0.0
    damaged: Damage | None = None
    warnings: list[str] = field(default_factory=list)
    #: The number of tunnel headers removed, by kind; None if the options remove none.
    decapsulated: dict[str, int] | None = None
    #: Facts from which ``evidence`` follows: those of the engine with OLD.
    observed: Observed | None = None
    noticed: Noticed | None = None
    #: Connections and denied attempts under OLD.
    connections: int = 0
    #: Codes of reasons in spite of which the user accepts the answer.
    accepted_evidence: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.captures = tuple(map(without_credentials, self.captures))

    @property
    def evidence(self) -> Evidence:
        """How far the captured traffic can carry an answer (SPEC 10.27)."""
        not_ip = self.verdicts.get(("not-ip", "not-ip"), 0)
        outside = self.verdicts.get(("out-of-scope", "out-of-scope"), 0)
        judged = sum(packets for pair, packets in self.verdicts.items() if not NOT_JUDGED.issuperset(pair))
        traffic = Traffic(
            self.packets, self.packets - not_ip, outside, judged, self.connections, self.observed, self.noticed,
            self.left_out, self.old, self.vpc,
        )  # fmt: skip
        return evidence_of(traffic).accepting(self.accepted_evidence)

    @property
    def tables(self) -> DiffTables:
        """Tables for pandas, polars, DuckDB and pyarrow (SPEC 14.9)."""
        from sgfast.comparing.tables import DiffTables

        effects = [(each.rule, each.group, each.status, each.newly_denied, each.newly_allowed) for each in self.rules]
        return DiffTables(self.kinds.items(), effects)

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.total(verdict).connections} {verdict}" for verdict in NEW_VERDICTS)
        return f"<DiffResult of {', '.join(self.captures)}: {count(self.packets, 'packet')}; connections: {counts}>"

    def of(self, change: NewVerdict) -> list[ChangedGroup]:
        return [group for group in self.groups if group.change == change]

    def total(self, change: NewVerdict) -> Counts:
        """Totals of all connections with this change, whether they are in a group or not."""
        if change not in self.kinds:
            return Counts(0, 0, 0, 0)
        rows = self.kinds[change].rows
        return Counts(*(int(rows[name].sum()) for name in ("connections", "broken", "packets", "bytes")))

    def _repr_html_(self) -> str:
        totals = [(verdict, self.total(verdict)) for verdict in NEW_VERDICTS]
        rows = [(verdict, total.connections, total.answered, total.packets) for verdict, total in totals]
        return html_table(("change", "connections", "answered", "packets"), rows) + self.tables.changed._repr_html_()

    @property
    def packets_per_second(self) -> float:
        return self.packets / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0
