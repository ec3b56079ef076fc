"""Short conversations between an instance and a stranger, spelled as flags; for the grids.

``(way, flags)``: way 0 is the initiator's. The instance is either end, the policy allows everything both ways, so that
what decides is the state.
"""

from __future__ import annotations

from ipaddress import ip_network
from itertools import chain
from typing import Literal

import frames as f
from oracle import with_checksum

from sgfast import Policy
from sgfast.policy.model import Instance, Rule, SecurityGroup

INSTANCE = {4: "10.0.0.5", 6: "2001:db8::5"}
STRANGER = {4: "198.51.100.7", 6: "2001:db8:9::7"}
SERVICE = 80

Script = tuple[tuple[int, str], ...]

#: Ways into every TCP state, with and without what makes a difference to Linux on the way.
PATHS: dict[str, Script] = {
    "none": (),
    "SYN_SENT": ((0, "S"),),
    "SYN_SENT, half-open answer": ((0, "S"), (1, "A")),
    "SYN_SENT2": ((0, "S"), (1, "S")),
    "SYN_RECV": ((0, "S"), (1, "SA")),
    "SYN_RECV, after SYN_SENT2": ((0, "S"), (1, "S"), (1, "SA")),
    "ESTABLISHED": ((0, "S"), (1, "SA"), (0, "A")),
    "ESTABLISHED, answered": ((0, "S"), (1, "SA"), (0, "A"), (1, "A")),
    "FIN_WAIT": ((0, "S"), (1, "SA"), (0, "A"), (0, "FA")),
    "FIN_WAIT, by the responder": ((0, "S"), (1, "SA"), (0, "A"), (1, "FA")),
    "CLOSE_WAIT": ((0, "S"), (1, "SA"), (0, "A"), (0, "FA"), (1, "A")),
    "LAST_ACK": ((0, "S"), (1, "SA"), (0, "A"), (0, "FA"), (1, "FA")),
    "LAST_ACK, by the responder": ((0, "S"), (1, "SA"), (0, "A"), (1, "FA"), (0, "FA")),
    "TIME_WAIT": ((0, "S"), (1, "SA"), (0, "A"), (0, "FA"), (1, "FA"), (0, "A")),
    "CLOSE, by the initiator": ((0, "S"), (1, "SA"), (0, "A"), (0, "RA")),
    "CLOSE, by the responder": ((0, "S"), (1, "SA"), (0, "A"), (1, "RA")),
    "CLOSE, after a FIN": ((0, "S"), (1, "SA"), (0, "A"), (0, "FA"), (1, "R")),
    "refused": ((0, "S"), (1, "RA")),
}

#: All combinations of the flags that Linux looks at, and some of those that it does not.
FLAGS = [
    *("".join(letter for bit, letter in enumerate("FSRPAU") if number >> bit & 1) for number in range(64)),
    "SE", "SC", "SEC", "SAE", "SAEC", "AE", "AEC", "FAE", "REC", "EC",
]  # fmt: skip


def open_policy(*directions: Literal["inbound", "outbound"]) -> Policy:
    """Everything may begin in these directions; without any, in both."""
    rules = tuple(
        Rule(f"open/{direction}/{family}", direction, family)
        for direction in directions or ("inbound", "outbound") for family in (4, 6)
    )
    addresses = tuple(map(ip_network, INSTANCE.values()))
    return Policy(
        security_groups=(SecurityGroup("open", rules),),
        instances=(Instance("instance", "default", addresses, ("open",)),),
    )


def tcp_packet(family: int, inbound: bool, port: int, way: int, flags: str) -> bytes:
    """A packet of the conversation whose initiator, a stranger if ``inbound``, has ``port``."""
    ends = [(STRANGER[family], port), (INSTANCE[family], SERVICE)]
    if not inbound:
        ends = [(INSTANCE[family], port), (STRANGER[family], SERVICE)]
    (source, sport), (destination, dport) = ends[way], ends[1 - way]
    return with_checksum(f.ip(source, destination, f.tcp(sport, dport, flags)))


def tcp_packets(family: int, inbound: bool, port: int, *scripts: Script) -> list[bytes]:
    return [tcp_packet(family, inbound, port, way, flags) for way, flags in chain(*scripts)]
