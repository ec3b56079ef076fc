"""The result of comparing two policies."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from sgfast.base.evidence import Evidence
from sgfast.base.names import count
from sgfast.base.notebook import html_doubts, html_table
from sgfast.core.base.reasons import ReasonWord
from sgfast.policy.model import Direction, Policy, Rule
from sgfast.questions.comparing.kinds import ChangedKinds
from sgfast.questions.comparing.tables import TrafficDiffTables
from sgfast.questions.replaying import Service
from sgfast.questions.replaying.evidence import NOT_JUDGED
from sgfast.questions.replaying.judged_traffic import JudgedTraffic
from sgfast.rows.verdicts import VerdictWord

#: ``newly-denied``: the connection passes under OLD and is blocked under NEW; ``newly-allowed``: the reverse. A packet
#: is blocked if it is denied or moot; otherwise it passes, even if no filter sees it (SPEC 3.2, 3.3).
NewVerdict = Literal["newly-denied", "newly-allowed"]

NEW_VERDICTS: tuple[NewVerdict, ...] = get_args(NewVerdict)

#: The maximum number of peers that a group lists.
LISTED_PEERS = 5


@dataclass(frozen=True, slots=True)
class Judgement:
    """One policy's judgement of a connection: its verdict on the first packet that the other policy treats differently.

    The rules are those that win for the connection's opener. If the packet is allowed, these are both sides' rules. If
    rules deny it, they are the rule of the denying side, and the egress side's rule if that side allowed it before.

    ``verdict``: the verdict.
    ``reason``: its reason; None if no filter sees the packet.
    ``egress_rule``: the id of the rule at the egress side, or None.
    ``ingress_rule``: the id of the rule at the ingress side, or None.
    """

    verdict: VerdictWord
    reason: ReasonWord | None
    egress_rule: str | None
    ingress_rule: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """One changed connection.

    ``packet``: the number of the connection's first changed packet, counted from 1 over all captures.
    ``time_ns``: the time of the packet.
    ``initiator``: the address that opened the connection.
    ``initiator_port``: its port; None if the protocol has no ports.
    ``responder``: the address that it was opened to.
    ``responder_port``: its port; None if the protocol has no ports.
    """

    packet: int
    time_ns: int
    initiator: str
    initiator_port: int | None
    responder: str
    responder_port: int | None


@dataclass(frozen=True, slots=True)
class ChangedGroup:
    """Connections that change in the same way. ``packets``, ``bytes`` and times are those of the changed packets.

    ``change``: the change of the verdict.
    ``service``: the service, and the instance whose filter blocks under the blocking policy.
    ``direction``: the direction in which the connections are opened, as the instance sees them.
    ``peer_groups``: the security groups of the instances at the other end, under the same policy; empty if the peers
    are no instances.
    ``peers``: names or addresses of at most ``LISTED_PEERS`` peers; those with most connections come first.
    ``peer_count``: the number of all peers.
    ``old``: the judgement of the old policy, for one of the connections.
    ``new``: the judgement of the new policy, for the same connection.
    ``old_rule``: the deciding rule of the blocking side under OLD; None if no rule decides.
    ``new_rule``: the deciding rule of that side under NEW; None if no rule decides.
    ``connections``: the number of connections.
    ``answered``: the number of connections that the other end answered in the capture (SPEC 10.4).
    ``packets``: the number of changed packets.
    ``bytes``: their bytes on the wire.
    ``first_time_ns``: the time of the first changed packet.
    ``last_time_ns``: the time of the last changed packet.
    ``examples``: a few of the connections.
    """

    change: NewVerdict
    service: Service
    direction: Direction
    peer_groups: tuple[str, ...]
    peers: tuple[str, ...]
    peer_count: int
    old: Judgement
    new: Judgement
    old_rule: str | None
    new_rule: str | None
    connections: int
    answered: int
    packets: int
    bytes: int
    first_time_ns: int
    last_time_ns: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of changed connections, with their packets and bytes.

    ``connections``: the number of connections.
    ``answered``: the number of these connections that the other end answered.
    ``packets``: the number of packets.
    ``bytes``: the number of bytes on the wire.
    """

    connections: int
    answered: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RuleEffect:
    """A rule that differs between the policies and decides connections whose verdict changes.

    ``rule``: the id of the rule.
    ``group``: the name of the security group.
    ``status``: ``removed``: only in OLD; ``added``: only in NEW; ``changed``: in both, with different contents.
    ``old``: the rule in the old policy; None if it is added.
    ``new``: the rule in the new policy; None if it is removed.
    ``newly_denied``: the number of connections that only the old policy allows and that the rule decides.
    ``newly_allowed``: the number of connections that only the new policy allows and that the rule decides.
    """

    rule: str
    group: str
    status: Literal["removed", "added", "changed"]
    old: Rule | None
    new: Rule | None
    newly_denied: int
    newly_allowed: int


@dataclass(frozen=True, slots=True)
class MovedTraffic:
    """Connections that both policies allow, but that a filter allows by another rule than before.

    ``old_rule``: the id of the rule in the old policy.
    ``old_group``: the name of that rule's group.
    ``new_rule``: the id of the rule in the new policy.
    ``new_group``: the name of that rule's group.
    ``connections``: the number of these connections.
    """

    old_rule: str
    old_group: str
    new_rule: str
    new_group: str
    connections: int


@dataclass
class TrafficDiff(JudgedTraffic):
    """The changes between two policies. Times are nanoseconds since the Unix epoch; None if there was no packet.

    ``old``: the old policy.
    ``new``: the new policy.
    ``verdicts``: the number of packets for each pair of verdicts of OLD and NEW that occurred.
    ``groups``: the groups of changed connections, sorted: newly denied ones first, then those with most answered
    connections.
    ``kinds``: all changed connections, with or without a group. ``sgfast.report.rollup.changed`` summarises them.
    ``rules``: effects of rules, those with most connections first.
    ``moved``: connections that another rule allows than before, in the same order.
    ``moved_others``: the number of moved connections for which ``moved`` had no room.
    ``connections``: connections and denied attempts under OLD.
    """

    old: Policy
    new: Policy
    verdicts: dict[tuple[VerdictWord, VerdictWord], int] = field(default_factory=dict)
    groups: list[ChangedGroup] = field(default_factory=list)
    kinds: dict[NewVerdict, ChangedKinds] = field(default_factory=dict)
    rules: list[RuleEffect] = field(default_factory=list)
    moved: list[MovedTraffic] = field(default_factory=list)
    moved_others: int = 0
    connections: int = 0

    @cached_property
    def evidence(self) -> Evidence:
        """Reasons to doubt the answer that the captured traffic gives (SPEC 10.27)."""
        judged = sum(packets for pair, packets in self.verdicts.items() if not NOT_JUDGED.issuperset(pair))
        evidence = self._evidence_for(
            self.old, lambda word: self.verdicts.get((word, word), 0), judged, self.connections
        )
        return evidence.accepting(self.accepted_evidence)

    @property
    def tables(self) -> TrafficDiffTables:
        """Tables for pandas, polars, DuckDB and pyarrow (SPEC 14.9)."""
        effects = [
            (effect.rule, effect.group, effect.status, effect.newly_denied, effect.newly_allowed)
            for effect in self.rules
        ]
        blocking = {"newly-denied": self.new, "newly-allowed": self.old}
        return TrafficDiffTables([(change, kinds, blocking[change]) for change, kinds in self.kinds.items()], effects)

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.total(verdict).connections} {verdict}" for verdict in NEW_VERDICTS)
        return f"<TrafficDiff of {', '.join(self.captures)}: {count(self.packets, 'packet')}; connections: {counts}>"

    def of(self, change: NewVerdict) -> list[ChangedGroup]:
        """Return the groups with this change."""
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
