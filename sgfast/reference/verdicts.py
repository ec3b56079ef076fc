"""The results of the reference model (SPEC 10.3)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SideVerdict:
    """The verdict of one side (SPEC 4), with its rule."""

    instance: str
    verdict: str
    reason: str
    rule: str | None
    #: The group of the rule. The id alone is not unique: once a rule is removed, another rule may get its id.
    group: str | None = None


@dataclass
class PacketVerdict:
    """The verdict of a packet. Unknown fields are None."""

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
    #: Ids of the rules by which this packet created connections.
    created: tuple[str, ...] = ()
    #: The deciding side's row and column of the TCP table, and the result: state, direction and kind of packet, new
    #: state.
    tcp_transition: tuple[str, str, str] | None = None
    #: Whether the verdict is the first fragment's (SPEC 9.4). Such a packet itself opened no connection.
    of_first_fragment: bool = False

    def of_other_fragment(self) -> PacketVerdict:
        """Return the verdict of another fragment of the datagram whose first fragment has this verdict."""
        return PacketVerdict(self.verdict, self.reason, self.egress, self.ingress, of_first_fragment=True)


@dataclass(frozen=True)
class ApplyResult:
    """The effect of a change of the policy (SPEC 6)."""

    #: The number of tuples of which the change disconnected or forgot at least one side's live connection.
    disconnected: int = 0
    #: The number of these tuples that had ended before (SPEC 6.12).
    finished: int = 0
