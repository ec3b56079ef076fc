"""Connections of flow logs that either end may have opened, as values (SPEC 10.30).
``sgfast.questions.replaying.readings`` finds them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sgfast.core.base.reasons import ReasonWord
from sgfast.policy.matching import Kind
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, Action

#: Ends and service of a kind of connection: the addresses of opener and other end, protocol, and the port of the other
#: end, or the ICMP type and code in 16 bits.
Ends = tuple[bytes, bytes, int, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """A connection as one end opened it, and the policy's verdict.

    ``source``: the address of the opener.
    ``destination``: the address of the other end.
    ``egress``: the name of the instance that has the source; None if no instance has.
    ``ingress``: the name of the instance that has the destination; None if no instance has.
    ``protocol``: the IP protocol number.
    ``key``: the destination port, or the ICMP type and code in 16 bits; 0 without them.
    ``verdict``: ``allow`` or ``deny``.
    ``reason``: the word of SPEC 10.3.
    ``rule``: the id of the rule that decided; None if none did.
    ``inbound``: whether the filter at the destination decided.
    """

    source: bytes
    destination: bytes
    egress: str | None
    ingress: str | None
    protocol: int
    key: int
    verdict: Action
    reason: ReasonWord
    rule: str | None
    inbound: bool

    @property
    def kind(self) -> Kind:
        """The kind of connection."""
        is_icmp = self.protocol == (ICMP if len(self.source) == 4 else ICMPV6)
        has_key = is_icmp or self.protocol in PORT_PROTOCOLS
        port = (self.key >> 8 if is_icmp else self.key) if has_key else None
        return Kind(
            self.source, self.destination, self.egress, self.ingress, self.protocol, port,
            code=self.key & 255 if is_icmp else None,
        )  # fmt: skip


@dataclass(slots=True)
class UncertainConnections:
    """Connections of which nobody can tell who opened them, with the same likelier reading.

    ``likelier``: the reading that ports, uses and times suggest.
    ``other``: the other one.
    ``other_ports``: the different ports of the other reading; not all of them if there are very many.
    ``connections``: the number of connections.
    ``attempts``: the most attempts that these are if the policy denies them.
    ``packets``: the number of their packets.
    ``bytes``: the number of their bytes.
    ``answered``: the number of connections that were answered, whoever opened them.
    ``first_time_ns``: the start of the first record.
    ``last_time_ns``: the end of the last record.
    """

    likelier: Reading
    other: Reading
    other_ports: set[int] = field(default_factory=set)
    connections: int = 0
    attempts: int = 0
    packets: int = 0
    bytes: int = 0
    answered: int = 0
    first_time_ns: int = np.iinfo(np.int64).max
    last_time_ns: int = np.iinfo(np.int64).min


@dataclass(slots=True)
class PossibleUse:
    """Connections that may have used a rule, if the end opened them for which the rule is.

    ``connections``: their number.
    ``source``: the opener of the first of them, in this reading.
    ``destination``: the other end.
    ``time_ns``: the start of its first record.
    ``service``: protocol, and port or ICMP type and code in 16 bits.
    """

    connections: int
    source: str
    destination: str
    time_ns: int
    service: tuple[int, int]


@dataclass(slots=True)
class UnsureOpeners:
    """The answer about connections that either end may have opened.

    ``differing``: those on which the policy's verdict depends on who opened them. They were not judged.
    ``same``: those that were judged because it does not, by the ends and service of the likelier reading.
    ``possible_uses``: by the id of a rule, the connections that may have used it.
    ``icmp_groups``: by the name of a group, ICMP of its members of which nobody knows what it asked.
    """

    differing: list[UncertainConnections] = field(default_factory=list)
    same: dict[Ends, UncertainConnections] = field(default_factory=dict)
    possible_uses: dict[str, PossibleUse] = field(default_factory=dict)
    icmp_groups: dict[str, PossibleUse] = field(default_factory=dict)
