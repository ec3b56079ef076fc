"""What the model answers (SPEC 10.3)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SideVerdict:
    """What one side said (SPEC 4), and the rule it stands on."""

    instance: str
    verdict: str
    reason: str
    rule: str | None
    #: The group it stands in: an id may be another rule's once its own is gone.
    group: str | None = None


@dataclass
class PacketVerdict:
    """What became of a packet; everything that cannot be known is None."""

    verdict: str
    reason: str | None
    egress: SideVerdict | None = None
    ingress: SideVerdict | None = None
    src: str | None = None
    dst: str | None = None
    protocol: int | None = None
    sport: int | None = None
    dport: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    #: "opened", "inferred" or "denied" if a connection, or an attempt at one, begins here (R15).
    began: str | None = None
    #: Ids of the rules that created a connection on a side with this packet.
    created: tuple[str, ...] = ()
    #: State, direction and kind of packet, the TCP table's answer; of the side that decided.
    tcp_transition: tuple[str, str, str] | None = None
    #: The verdict is that of the datagram's first fragment (SPEC 9.4): whatever it says, nothing was opened here.
    of_first_fragment: bool = False


@dataclass(frozen=True)
class Applied:
    """What a change of the policy did (SPEC 6)."""

    #: Tuples of which at least one side's live connection became disconnected.
    disconnected: int = 0
