"""Builders of tunnels for tests. Each takes the inner packet as bytes and returns a ``Layer``.

>>> frame = ethernet(ipv4("192.0.2.1", "192.0.2.2", vxlan(ethernet(ipv4("10.0.0.1", "10.0.0.2", tcp(1234, 80, "S"))))))
"""

from __future__ import annotations

import struct

from frames import Layer, announced, udp


def vxlan(frame: bytes, vni: int = 1001, *, port: int = 4789, flags: int = 8) -> Layer:
    return udp(50000, port, struct.pack(">BxxxI", flags, vni << 8) + frame)


def geneve(inner: bytes, ethertype: int = 0x6558, vni: int = 1001, *, options: bytes = b"", version: int = 0) -> Layer:
    """Build a Geneve packet. The length of ``options`` is a multiple of 4 bytes."""
    head = struct.pack(">BBHI", version << 6 | len(options) // 4, 0, ethertype, vni << 8)
    return udp(50000, 6081, head + options + inner)


def gtp(
    packet: bytes, *, message: int = 255, sequence: int | None = None, extensions: list[bytes] | None = None,
    length: int | None = None, flags: int = 0x30,
) -> Layer:  # fmt: skip
    """Build a GTP-U packet. ``extensions`` are extension headers without their first and last byte; with these, the
    length of each is a multiple of 4."""
    body = b""
    if sequence is not None or extensions is not None:
        flags |= (2 if sequence is not None else 0) | (4 if extensions is not None else 0)
        kinds = [0x85] * len(extensions or []) + [0]
        body = struct.pack(">HBB", sequence or 0, 0, kinds[0])
        for content, following in zip(extensions or [], kinds[1:], strict=True):
            body += bytes([(len(content) + 2) // 4]) + content + bytes([following])
    length = len(body) + len(packet) if length is None else length
    return udp(2152, 2152, struct.pack(">BBHI", flags, message, length, 7) + body + packet)


def gre(
    inner: bytes, ethertype: int | None = None, *, checksum: bool = False, key: int | None = None,
    sequence: int | None = None, routing: list[bytes] | None = None, version: int = 0,
) -> Layer:  # fmt: skip
    """Build a GRE packet. ``routing``: source route entries, without the empty one at the end."""
    flags = checksum << 15 | (routing is not None) << 14 | (key is not None) << 13 | (sequence is not None) << 12
    header = struct.pack(">HH", flags | version, announced(inner, ethertype))
    if checksum or routing is not None:
        header += bytes(4)
    for word in (key, sequence):
        if word is not None:
            header += struct.pack(">I", word)
    if routing is not None:
        header += b"".join(struct.pack(">HBB", 0x0800, 0, len(entry)) + entry for entry in routing) + bytes(4)
    return Layer(header + inner, 47)


def pptp(ppp_packet: bytes, *, sequence: int | None = 1, acknowledgment: int | None = None) -> Layer:
    """Build a GRE packet of version 1 (RFC 2637)."""
    flags = 0x2001 | (sequence is not None) << 12 | (acknowledgment is not None) << 7
    header = struct.pack(">HHHH", flags, 0x880B, len(ppp_packet), 9)
    for word in (sequence, acknowledgment):
        if word is not None:
            header += struct.pack(">I", word)
    return Layer(header + ppp_packet, 47)


def erspan(
    frame: bytes, kind: int = 2, *, truncated: bool = False, subheader: bool = False, frame_type: int = 0
) -> Layer:
    """Build an ERSPAN packet of type 1, 2 or 3."""
    if kind == 1:
        return gre(frame, 0x88BE)
    words = (kind - 1) << 28 | 100 << 16 | truncated << 10 | 5
    if kind == 2:
        return gre(struct.pack(">II", words, 0) + frame, 0x88BE, sequence=1)
    tail = struct.pack(">IHBB", 0, 0, frame_type << 2, subheader) + bytes(8 * subheader)
    return gre(struct.pack(">I", words) + tail + frame, 0x22EB, sequence=1)


def ipip(packet: bytes) -> Layer:
    return Layer(packet, 4)


def six_in_four(packet: bytes) -> Layer:
    return Layer(packet, 41)


def labelled(inner: bytes, labels: int = 1) -> bytes:
    return b"".join(struct.pack(">I", 16 << 12 | (n == labels - 1) << 8 | 64) for n in range(labels)) + inner


def mpls_in_ip(inner: bytes) -> Layer:
    return Layer(labelled(inner), 137)


def mpls_in_udp(inner: bytes) -> Layer:
    return udp(50000, 6635, labelled(inner))


def pppoe_session(ppp_packet: bytes) -> Layer:
    return Layer(struct.pack(">BBHH", 0x11, 0, 1, len(ppp_packet)) + ppp_packet, 0x8864)
