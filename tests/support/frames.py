"""Builders of frames for tests. Each returns bytes; an outer layer's builder takes the inner layer as bytes.

>>> frame = ethernet(ipv4("10.0.0.1", "10.0.0.2", tcp(1234, 80, "S")))

``ipv4`` and ``ipv6`` take the protocol from the builder that made their payload (``Layer.protocol``) by default.
Lengths and header lengths are right unless overridden; checksums are zero (SPEC 3.8).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

TCP_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
LINK_NULL, LINK_ETHERNET, LINK_RAW, LINK_LOOP = 0, 1, 101, 108
LINK_SLL, LINK_IPV4, LINK_IPV6, LINK_SLL2 = 113, 228, 229, 276


class Layer(bytes):
    """The bytes of a layer, with the protocol number (or ethertype) that the header before it must contain."""

    protocol: int

    def __new__(cls, data: bytes, protocol: int) -> Layer:
        layer = super().__new__(cls, data)
        layer.protocol = protocol
        return layer


# --- Transport


def tcp(sport: int, dport: int, flags: str = "A", payload: bytes = b"", *, data_offset: int = 5) -> Layer:
    """Build a TCP segment. ``flags`` are letters of FSRPAUEC, "" for none. ``data_offset`` is in words; options fill
    it."""
    bits = sum(TCP_FLAGS[letter] for letter in flags)
    options = bytes(max(0, data_offset - 5) * 4)
    header = struct.pack(">HHIIBBHHH", sport, dport, 1, 1, data_offset << 4, bits, 65535, 0, 0)
    return Layer(header + options + payload, 6)


def udp(sport: int, dport: int, payload: bytes = b"", *, length: int | None = None) -> Layer:
    length = 8 + len(payload) if length is None else length
    return Layer(struct.pack(">HHHH", sport, dport, length, 0) + payload, 17)


def udplite(sport: int, dport: int, payload: bytes = b"", *, coverage: int = 0) -> Layer:
    return Layer(struct.pack(">HHHH", sport, dport, coverage, 0) + payload, 136)


def sctp(sport: int, dport: int, payload: bytes = b"") -> Layer:
    return Layer(struct.pack(">HHII", sport, dport, 0, 0) + payload, 132)


def dccp(sport: int, dport: int, payload: bytes = b"") -> Layer:
    return Layer(struct.pack(">HHBBHBBH", sport, dport, 3, 0, 0, 0, 0, 0) + payload, 33)


def icmp(kind: int, code: int = 0, identifier: int = 0, payload: bytes = b"") -> Layer:
    """Build an ICMP query or reply, with an identifier and a sequence number."""
    return Layer(struct.pack(">BBHHH", kind, code, 0, identifier, 1) + payload, 1)


def icmpv6(kind: int, code: int = 0, identifier: int = 0, payload: bytes = b"") -> Layer:
    return Layer(icmp(kind, code, identifier, payload), 58)


def icmp_error(kind: int, code: int, quoted: bytes, *, quoted_bytes: int = 28) -> Layer:
    """Build an ICMP error that quotes the beginning of an IP packet."""
    return icmp(kind, code, 0, quoted[:quoted_bytes])


def icmpv6_error(kind: int, code: int, quoted: bytes, *, quoted_bytes: int = 1232) -> Layer:
    return icmpv6(kind, code, 0, quoted[:quoted_bytes])


def other(protocol: int, payload: bytes = b"") -> Layer:
    """Build a packet of a protocol without ports: GRE 47, ESP 50, ..."""
    return Layer(payload, protocol)


# --- IP


@lru_cache(1024)
def packed(address: str) -> bytes:
    return ip_address(address).packed


def ipv4(
    src: str,
    dst: str,
    payload: bytes,
    *,
    protocol: int | None = None,
    ttl: int = 64,
    options: bytes = b"",
    header_words: int | None = None,
    total_length: int | None = None,
    fragment_offset: int = 0,
    more_fragments: bool = False,
    identification: int = 7,
) -> Layer:
    """Build an IPv4 packet. ``fragment_offset`` is in units of 8 bytes. ``options`` is a multiple of 4 bytes."""
    if protocol is None:
        protocol = payload.protocol if isinstance(payload, Layer) else 0
    words = 5 + len(options) // 4 if header_words is None else header_words
    length = 20 + len(options) + len(payload) if total_length is None else total_length
    fragment = fragment_offset | (0x2000 if more_fragments else 0)
    addresses = packed(src) + packed(dst)
    header = struct.pack(">BBHHHBBH", 0x40 | words, 0, length, identification, fragment, ttl, protocol, 0)
    header += addresses
    return Layer(header + options + payload, 0x0800)


def ipv6(
    src: str,
    dst: str,
    payload: bytes,
    *,
    protocol: int | None = None,
    hop_limit: int = 64,
    extensions: Sequence[tuple[int, bytes]] = (),
    payload_length: int | None = None,
) -> Layer:
    """Build an IPv6 packet. ``extensions`` are results of ``extension`` and ``fragment``, outermost first."""
    if protocol is None:
        protocol = payload.protocol if isinstance(payload, Layer) else 59
    body = payload
    for number, header in reversed(extensions):
        body = bytes([protocol]) + header[1:] + body
        protocol = number
    length = len(body) if payload_length is None else payload_length
    addresses = packed(src) + packed(dst)
    return Layer(struct.pack(">IHBB", 6 << 28, length, protocol, hop_limit) + addresses + body, 0x86DD)


def extension(number: int, size: int = 8, *, claimed_size: int | None = None) -> tuple[int, bytes]:
    """Build an IPv6 extension header of ``size`` bytes (a multiple of 8), whose length field contains
    ``claimed_size``."""
    units = (size if claimed_size is None else claimed_size) // 8 - 1
    return number, bytes([0, units]) + bytes(size - 2)


def jumbo(length: int, *, before: bytes = b"", size: int = 4) -> tuple[int, bytes]:
    """Build a padded hop-by-hop header with a jumbogram's length (RFC 2675), after the options ``before``."""
    options = before + bytes([0xC2, size]) + struct.pack(">I", length)
    options += bytes(-(2 + len(options)) % 8)
    return HOP_BY_HOP, bytes([0, (2 + len(options)) // 8 - 1]) + options


def fragment(offset: int = 0, more: bool = False, identification: int = 7) -> tuple[int, bytes]:
    """Build an IPv6 fragment header. ``offset`` is in units of 8 bytes."""
    return FRAGMENT, struct.pack(">BBHI", 0, 0, offset << 3 | more, identification)


def ip(src: str, dst: str, payload: bytes, **options: Any) -> Layer:
    """Build an IPv4 or IPv6 packet, depending on the addresses. The caller must choose between ICMP and ICMPv6."""
    return ipv6(src, dst, payload, **options) if ":" in src else ipv4(src, dst, payload, **options)


def checksum(data: bytes) -> bytes:
    """Return the Internet checksum (RFC 1071) of ``data``, whose checksum field must be zero."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)


def with_checksum(packet: bytes) -> bytes:
    """Return an IPv4 packet with a valid header checksum, so that a kernel accepts it. IPv6 headers have no
    checksum."""
    if packet[0] >> 4 != 4:
        return packet
    size = (packet[0] & 15) * 4
    head = packet[:10] + b"\0\0" + packet[12:size]
    return head[:10] + checksum(head) + head[12:] + packet[size:]


def ends_of(packet: bytes) -> tuple[bytes, bytes]:
    """Return the source and the destination address of an IP packet."""
    at, width = (12, 4) if packet[0] >> 4 == 4 else (8, 16)
    return packet[at : at + width], packet[at + width : at + 2 * width]


# --- Below IP


def wire_length(data: bytes) -> int:
    """Return the length that an Ethernet frame had according to its IP header: shop.pcap has 128 bytes of packets."""
    if data[12:14] == b"\x08\x00":
        return max(len(data), 14 + int.from_bytes(data[16:18], "big"))
    if data[12:14] == b"\x86\xdd":
        return max(len(data), 54 + int.from_bytes(data[18:20], "big"))
    return len(data)


def ethernet(payload: bytes, ethertype: int | None = None, *, padding: int = 0) -> bytes:
    return bytes(12) + struct.pack(">H", announced(payload, ethertype)) + payload + bytes(padding)


def vlan(payload: bytes, ethertype: int | None = None, *, tpid: int = 0x8100) -> Layer:
    """Build a VLAN tag with its payload. Nested tags make QinQ."""
    return Layer(struct.pack(">HH", 5, announced(payload, ethertype)) + payload, tpid)


def mpls(payload: bytes, labels: int = 1, *, ethertype: int = 0x8847) -> Layer:
    stack = b"".join(struct.pack(">I", 16 << 12 | (n == labels - 1) << 8 | 64) for n in range(labels))
    return Layer(stack + payload, ethertype)


def pppoe(payload: bytes, ppp_protocol: int | None = None) -> Layer:
    """Build a PPPoE session packet."""
    if ppp_protocol is None:
        ppp_protocol = {0x0800: 0x0021, 0x86DD: 0x0057}[announced(payload, None)]
    return Layer(struct.pack(">BBHHH", 0x11, 0, 1, len(payload) + 2, ppp_protocol) + payload, 0x8864)


def sll(payload: bytes, ethertype: int | None = None) -> bytes:
    """Build a frame of a Linux cooked capture, link type 113."""
    return struct.pack(">HHH8sH", 0, 1, 6, bytes(8), announced(payload, ethertype)) + payload


def sll2(payload: bytes, ethertype: int | None = None) -> bytes:
    """Build a frame of a Linux cooked capture v2, link type 276."""
    return struct.pack(">HHIHBB8s", announced(payload, ethertype), 0, 1, 1, 0, 6, bytes(8)) + payload


def null(payload: bytes, family: int = 2, *, byteorder: str = "little") -> bytes:
    """Build a frame of BSD loopback, link type 0. Big-endian frames are also LOOP, link type 108."""
    return struct.pack("<I" if byteorder == "little" else ">I", family) + payload


def announced(payload: bytes, ethertype: int | None) -> int:
    if ethertype is not None:
        return ethertype
    return payload.protocol if isinstance(payload, Layer) else 0x0800


def pcap(packets: Sequence[bytes], *, times_ns: Sequence[int] | None = None) -> bytes:
    """Build a capture of IP packets in Ethernet, by default a second apart."""
    times = [n * 10**9 for n in range(len(packets))] if times_ns is None else times_ns
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)]
    for packet, time_ns in zip(packets, times, strict=True):
        frame = ethernet(packet)
        out.append(struct.pack("<IIII", *divmod(time_ns, 10**9), len(frame), len(frame)) + frame)
    return b"".join(out)
