"""Packets as the writers of flow logs see them. Independent of the engine."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import NamedTuple

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
FIN, SYN, RST, ACK = 1, 2, 4, 16
#: The bytes of a transport header that must be there.
LEAST = {TCP: 20, UDP: 8, UDPLITE: 8, ICMP: 8, ICMPV6: 8, SCTP: 12, DCCP: 12}
EXTENSIONS = (0, 43, 44, 60, 135)

#: Time in ns, frame, link type (1: Ethernet; others: raw IP).
RawPacket = tuple[int, bytes, int]


class Packet(NamedTuple):
    time_ns: int
    src: str
    dst: str
    protocol: int
    #: The length of the IP packet, and of what the transport header is followed by.
    size: int
    payload: int = 0
    sport: int = 0
    dport: int = 0
    flags: int = 0
    seq: int = 0
    ack: int = 0
    #: Type, code and identifier of ICMP.
    icmp: tuple[int, int, int] | None = None
    #: Whether it is a fragment without transport header.
    is_later_fragment: bool = False

    @property
    def family(self) -> int:
        return 6 if ":" in self.src else 4


def parsed(packets: Iterable[RawPacket]) -> Iterator[Packet]:
    """Yield the packets that are sound IP."""
    for time_ns, frame, link_type in packets:
        data, family = frame, frame[0] >> 4 if frame else 0
        if link_type == 1:
            at = 12
            while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
                at += 4
            data, family = frame[at + 2 :], {b"\x08\x00": 4, b"\x86\xdd": 6}.get(frame[at : at + 2], 0)
        try:
            packet = _ip(time_ns, data) if data and data[0] >> 4 == family else None
        except (struct.error, IndexError):
            continue
        if packet is not None:
            yield packet


def _ip(time_ns: int, data: bytes) -> Packet | None:
    """Return a packet, or None if its headers are cut or contradict each other.

    Raises IndexError or struct.error if the extension headers are cut.
    """
    piece = 0
    if len(data) < (20 if data[0] >> 4 == 4 else 40):
        return None
    if data[0] >> 4 == 4:
        size, _, piece = struct.unpack_from(">HHH", data, 2)
        at, protocol, ends = (data[0] & 15) * 4, data[9], (data[12:16], data[16:20])
    elif data[0] >> 4 == 6:
        size, at, protocol, ends = 40 + int.from_bytes(data[4:6], "big"), 40, data[6], (data[8:24], data[24:40])
        while protocol in EXTENSIONS and not piece & 0x1FFF:
            if protocol == 44:
                word = struct.unpack_from(">H", data, at + 2)[0]
                piece = word >> 3 | (word & 1) << 13
            protocol, at = data[at], at + (8 if protocol == 44 else 8 * (data[at + 1] + 1))
    else:
        return None
    src, dst = (str(ip_address(end)) for end in ends)
    length = size - at
    if at < 20 or length < 0:
        return None
    if piece & 0x1FFF:
        return Packet(time_ns, src, dst, protocol, size, length, is_later_fragment=True)
    body, header = data[at:size], LEAST.get(protocol, 0)
    if length < header or len(body) < header:
        return None
    if protocol in (ICMP, ICMPV6):
        return Packet(time_ns, src, dst, protocol, size, length - 8, icmp=(*body[:2], *struct.unpack(">H", body[4:6])))
    if not header:
        return Packet(time_ns, src, dst, protocol, size, length)
    sport, dport, word = struct.unpack_from(">HHH", body)
    if protocol == UDP and not piece & 0x3FFF and not 8 <= int.from_bytes(body[4:6], "big") <= length:
        return None
    if protocol != TCP:
        return Packet(time_ns, src, dst, protocol, size, length - header, sport, dport)
    seq, ack, offset, flags = struct.unpack_from(">IIBB", body, 4)
    header = (offset >> 4) * 4
    if not 20 <= header <= length:
        return None
    return Packet(time_ns, src, dst, protocol, size, length - header, sport, dport, flags, seq, ack)
