"""The answers of the reference model (SPEC 10.3)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SideVerdict:
    """The verdict of one side (SPEC 4), and its rule."""

    instance: str
    verdict: str
    reason: str
    rule: str | None
    #: The group of the rule. Without it an id is not unique: once a rule is gone, another one may have its id.
    group: str | None = None


@dataclass
class PacketVerdict:
    """The verdict of a packet. What cannot be known is None."""

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
    #: "opened", "inferred" or "denied" if a connection or a denied attempt begins here (SPEC 10.2).
    began: str | None = None
    #: Ids of the rules by which this packet created a connection on a side.
    created: tuple[str, ...] = ()
    #: State, direction and kind of packet, and the answer of the TCP table, of the side that decided.
    tcp_transition: tuple[str, str, str] | None = None
    #: The verdict is that of the first fragment (SPEC 9.4): this packet itself opened nothing.
    of_first_fragment: bool = False

    def of_other_fragment(self) -> PacketVerdict:
        """The verdict of another fragment of the datagram, if this is that of the first one."""
        return PacketVerdict(self.verdict, self.reason, self.egress, self.ingress, of_first_fragment=True)


@dataclass(frozen=True)
class Applied:
    """Effect of a change of the policy (SPEC 6)."""

    #: Tuples of which the change cut at least one side's live connection: it was disconnected, or forgotten.
    disconnected: int = 0
    #: The part of them that had ended before (SPEC 6.12).
    finished: int = 0
