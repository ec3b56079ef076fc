"""What a comparison of two policies finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sgfast.capture import Damage
from sgfast.engine import Midstream, Mode
from sgfast.policy.model import Policy, Rule
from sgfast.replaying import Service
from sgfast.replaying.cutting import PacketsLeftOut

#: A connection that passed and would be blocked, or the other way round. A packet passes if it is allowed or no filter
#: sees it (SPEC 3.2, 3.3); otherwise it is blocked, denied or moot.
Change = Literal["newly-denied", "newly-allowed"]

CHANGES: tuple[Change, ...] = ("newly-denied", "newly-allowed")

#: Peers of a group that are told by name.
LISTED_PEERS = 5


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one policy says of a connection: of the first of its packets that the other policy treats otherwise.

    Rules are those that win for its opener: where it is allowed, of both sides; where rules deny it, of the side that
    denies, and of the egress side before it.
    """

    verdict: str
    #: None where no filter sees it.
    reason: str | None
    egress_rule: str | None
    ingress_rule: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """One connection."""

    #: Its first packet that is changed: which one of all captures, from 1.
    packet: int
    time_ns: int
    initiator: str
    initiator_port: int | None
    responder: str
    responder_port: int | None


@dataclass(frozen=True, slots=True)
class ChangedGroup:
    """Connections that change alike. ``packets``, ``bytes``: those of them that passed and are blocked, or the other
    way round; times are theirs."""

    change: Change
    #: The instance of the filter that blocks, by the policy that blocks; and the service.
    service: Service
    direction: Literal["inbound", "outbound"]
    #: The security groups of the instances at the other end, by the same policy; empty: they are no instances.
    peer_groups: tuple[str, ...]
    #: The other ends, instances' names or addresses, those of most connections first: ``LISTED_PEERS`` at most.
    peers: tuple[str, ...]
    peer_count: int
    old: Judgement
    new: Judgement
    #: The rules of the side that blocks, under either policy: what it is that differs. None: no rule decides.
    old_rule: str | None
    new_rule: str | None
    connections: int
    #: Of them, those that the other end answered in the capture (SPEC 10.4): real ones.
    answered: int
    packets: int
    bytes: int
    first_time_ns: int
    last_time_ns: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Others:
    """Changed connections that found no room among the groups."""

    connections: int
    answered: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RuleEffect:
    """A rule that is not in both policies as it is, and decided on connections that change."""

    rule: str
    group: str
    #: ``removed``: in OLD alone, ``added``: in NEW alone, ``changed``: in both, saying something else.
    status: Literal["removed", "added", "changed"]
    old: Rule | None
    new: Rule | None
    newly_denied: int
    newly_allowed: int


@dataclass(frozen=True, slots=True)
class MovedTraffic:
    """Connections that both policies allow, a filter of theirs by another rule."""

    old_rule: str
    old_group: str
    new_rule: str
    new_group: str
    connections: int


@dataclass
class DiffResult:
    """What would change. Times are nanoseconds since the Unix epoch, None where there was no packet."""

    old: Policy
    new: Policy
    mode: Mode
    midstream: Midstream
    vpc: str | None
    captures: tuple[str, ...]
    packets: int = 0
    #: On the wire.
    bytes: int = 0
    #: Packets of the captures that are not among ``packets``; None: all of them were to be judged.
    left_out: PacketsLeftOut | None = None
    #: Packets by the verdicts of OLD and of NEW, only pairs that came up.
    verdicts: dict[tuple[str, str], int] = field(default_factory=dict)
    #: Groups with answered connections first, most of them first.
    groups: list[ChangedGroup] = field(default_factory=list)
    others: dict[Change, Others] = field(default_factory=dict)
    #: Most connections first.
    rules: list[RuleEffect] = field(default_factory=list)
    moved: list[MovedTraffic] = field(default_factory=list)
    #: Connections whose two rules found no room in ``moved``.
    moved_others: int = 0
    first_time_ns: int | None = None
    last_time_ns: int | None = None
    #: Reading and judging, not start-up.
    elapsed_seconds: float = 0.0
    damaged: Damage | None = None
    warnings: list[str] = field(default_factory=list)
    #: Tunnels that were taken off packets, by kind; None if none were to be.
    decapsulated: dict[str, int] | None = None

    def of(self, change: Change) -> list[ChangedGroup]:
        return [group for group in self.groups if group.change == change]

    def total(self, change: Change) -> Others:
        """All connections that change so, whether they are in a group or not."""
        rows: list[ChangedGroup | Others] = [*self.of(change), self.others.get(change, Others(0, 0, 0, 0))]
        return Others(
            sum(row.connections for row in rows), sum(row.answered for row in rows),
            sum(row.packets for row in rows), sum(row.bytes for row in rows),
        )  # fmt: skip

    @property
    def packets_per_second(self) -> float:
        return self.packets / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0
