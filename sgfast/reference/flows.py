"""The keys of connections (SPEC 5.1, 4.6)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from sgfast.policy.model import PORT_PROTOCOLS
from sgfast.reference.addresses import End
from sgfast.reference.packets import ENDLESS, ICMP_REPLY_TO, Packet, icmp_role, read_ipv4, read_ipv6, read_ports_or_icmp


@dataclass(frozen=True)
class Flow:
    """The key of a packet's connection, with the packet's two ends."""

    key: Hashable
    sender: End
    receiver: End


def flow_of(packet: Packet) -> Flow | None:
    """Return the packet's flow, or None for an ICMP error, which has no connection of its own."""
    src, dst, kind = packet.src, packet.dst, packet.icmp_type
    sender, receiver = (src, packet.sport), (dst, packet.dport)
    to_itself = src == dst      # such a packet has no reply
    if kind is None:
        ends = (sender, receiver) if to_itself else frozenset((sender, receiver))
        return Flow(("two-way", packet.protocol, ends), sender, receiver)
    role = icmp_role(packet.version, kind)
    if role == "query":
        return Flow(("query", src, dst, packet.icmp_identifier, kind), sender, receiver)
    if role == "reply":
        query = next(query for query, reply in ICMP_REPLY_TO[packet.version].items() if reply == kind)
        name = "reply to itself" if to_itself else "query"
        return Flow((name, dst, src, packet.icmp_identifier, query), sender, receiver)
    if role == "one-way":
        return Flow(("one-way", src, dst, kind, packet.icmp_code), sender, receiver)
    return None


def quoted_flow(error: Packet) -> Flow | None:
    """Return the flow of the packet quoted in an ICMP error, or None if the quote does not identify one (SPEC 4.6)."""
    quote = error.payload[8:]
    if len(quote) < (20 if error.version == 4 else 40) or quote[0] >> 4 != error.version:
        return None
    if error.version == 4 and len(quote) < (quote[0] & 15) * 4:
        return None
    # The quote is cut, so its length field is not checked: a length of 0 means the rest of the frame.
    if error.version == 4:
        quoted = read_ipv4(quote[:2] + bytes(2) + quote[4:], ENDLESS)
    else:
        quoted = read_ipv6(quote[:4] + bytes(2) + quote[6:], ENDLESS)
    needed = 8 if quoted.is_icmp else 4 if quoted.protocol in PORT_PROTOCOLS else 0
    if not quoted.has_transport or len(quoted.payload) < needed:
        return None
    read_ports_or_icmp(quoted)
    return flow_of(quoted)
