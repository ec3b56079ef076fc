"""The connection table (SPEC 5.8, 9.2), and the state of one packet's judgement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sgfast.policy.model import Instance, Rule
from sgfast.reference.addresses import Address, End
from sgfast.reference.flows import Flow
from sgfast.reference.packets import Packet
from sgfast.reference.verdicts import SideVerdict


@dataclass(frozen=True)
class Opener:
    """A packet that starts a connection, or the packet that must have started an inferred connection."""

    version: int
    protocol: int
    initiator: End
    responder: End
    #: Whether the packet leaves the instance of the judging side.
    outbound: bool
    icmp_type: int | None
    icmp_code: int | None
    #: The state of the connection that the packet creates if the rules allow it.
    state: str
    inferred: bool

    @property
    def own(self) -> Address:
        """The address of the judging side's instance."""
        return self.initiator[0] if self.outbound else self.responder[0]

    @property
    def peer(self) -> Address:
        """The address of the judging side's peer."""
        return self.responder[0] if self.outbound else self.initiator[0]


class GroupRule(NamedTuple):
    """A rule and the name of its group."""

    group: str
    rule: Rule


@dataclass
class Connection:
    """A connection as one side sees it (SPEC 5)."""

    opener: Opener
    #: A state of TCP_STATES, or "icmp", or for everything else "one-way" or "both-ways" (SPEC 5.2).
    state: str
    #: The rule that allowed the opener, as it was at that time (SPEC 6.5).
    rule: GroupRule
    deadline: int
    #: Whether a packet in reply direction was allowed.
    replied: bool
    #: Whether a change of the policy has cut it (SPEC 6.3). If so, it denies its key until its deadline.
    disconnected: bool = False

    @property
    def has_ended(self) -> bool:
        return self.state in ("TW", "CL")


@dataclass
class Moot:
    """The mark of a moot key (SPEC 9.2)."""

    initiator: End
    deadline: int
    #: The time of the initiator's last packet, and whether the other end sent one since.
    sent: int
    other_sent: bool = False


@dataclass
class Attempt:
    """An opener without an entry: one that was denied, or one that stateless filters let pass (SPEC 4.13, 10.2)."""

    initiator: End
    deadline: int
    #: Whether it counts as a denied attempt.
    is_denied: bool = False
    #: The state of the first reply, where stateless filters let the opener pass; None: no opener passed.
    reply: Literal["awaited", "passed", "denied"] | None = None


@dataclass
class Entry:
    """A tuple: the connections and the moot mark of one key (SPEC 1.1)."""

    #: Connections by the judging instance's name and address.
    sides: dict[tuple[str, Address], Connection] = field(default_factory=dict)
    moot: Moot | None = None
    #: The number of the last packet that created a connection, forgot a finished one, or made the key moot.
    created: int = 0
    #: Whether a packet in reply direction was allowed since the tuple began.
    answered: bool = False
    #: Whether the tuple began with a denied opener, and no opener was allowed since (SPEC 10.4).
    began_denied: bool = False

    def live_sides(self, now: int) -> list[Connection]:
        return [connection for connection in self.sides.values() if now < connection.deadline]

    def is_moot(self, now: int) -> bool:
        return self.moot is not None and now < self.moot.deadline

    def is_live(self, now: int) -> bool:
        return self.is_moot(now) or bool(self.live_sides(now))

    def is_open(self, now: int) -> bool:
        """Return whether there is an allowed connection that no side has disconnected or seen end (SPEC 14.12)."""
        live = self.live_sides(now)
        return bool(live) and not self.began_denied and not any(side.disconnected or side.has_ended for side in live)

    def is_evictable(self, now: int) -> bool:
        """Return whether a live tuple may be evicted to make room (SPEC 5.8)."""
        return self.is_moot(now) or not self.answered


@dataclass(frozen=True)
class Side:
    """The filter that judges a packet, with its peer (SPEC 1)."""

    instance: Instance
    leaving: bool
    peer: Address
    peer_instance: Instance | None

    def own_address(self, flow: Flow) -> Address:
        """Return the instance's address in a packet. If one address is multicast, the instance may own both (SPEC
        3.3)."""
        return flow.sender[0] if self.leaving else flow.receiver[0]

    def allow(self, reason: str, named: GroupRule) -> SideVerdict:
        return SideVerdict(self.instance.name, "allow", reason, named.rule.id, named.group)

    def deny(self, reason: str, named: GroupRule | None = None) -> SideVerdict:
        if named is None:
            return SideVerdict(self.instance.name, "deny", reason, None)
        return SideVerdict(self.instance.name, "deny", reason, named.rule.id, named.group)


@dataclass
class Case:
    """A packet's judgement in progress, with its effects besides the verdict."""

    packet: Packet
    flow: Flow
    now: int
    #: Whether the sender's filter is skipped (SPEC 3.11).
    is_sent_freely: bool = False
    created: list[str] = field(default_factory=list)
    #: Whether a finished connection was forgotten because of this opener (SPEC 4.4).
    forgot_old: bool = False
    #: Whether an opener was denied, by SPEC 3.6, by rules, or because the table is full.
    opener_denied: bool = False
    #: Whether an opener was denied for another reason than a full table, which makes its key moot (SPEC 9.2).
    opener_refused: bool = False
    #: Whether a stateless filter denied a reply to an opener that passed (SPEC 4.13).
    reply_denied: bool = False
    #: The initiator whose opener was denied.
    denied_initiator: End | None = None
    transition: tuple[str, str, str] | None = None
