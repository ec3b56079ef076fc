"""Builders of captures for the tests of the readers, and a simple reader to compare with."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from sgfast.base.errors import CaptureError
from sgfast.core.wire.link import LINK_TYPES
from sgfast.traffic.capture import CaptureReader, Damage

MICRO, NANO, KUZNETZOV = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
IXIA = (0x1C0001AC, 0x1C0001AB)
FURTHEST_NS = 1 << 62
#: Link types 12 and 14 are read as 101, raw IP.
SUPPORTED = set(LINK_TYPES) - {12, 14}
#: Link types that carry no IP, by www.tcpdump.org/linktypes.html.
WITHOUT_IP = {
    114, 139, 140, 141, 142, 144, 165, 177, 186, 187, 189, 190, 201, 220, 227, 231, 248, 249, 251, 253, 254, 255, 256,
    265, 266, 271, 272, 288,
}  # fmt: skip
MOST = 256 * 1024 * 1024

ORDERS = pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])


class Packet(NamedTuple):
    time_ns: int
    data: bytes
    wire: int
    link_type: int


# pcap


def pcap_head(order: str = "<", magic: int = MICRO, link_type: int = 1, version: tuple[int, int] = (2, 4)) -> bytes:
    return struct.pack(order + "IHHiIII", magic, *version, 0, 0, 65535, link_type)


def pcap_record(
    data: bytes, order: str = "<", time: tuple[int, int] = (0, 0), wire: int | None = None, captured: int | None = None
) -> bytes:
    lengths = (len(data) if captured is None else captured, len(data) if wire is None else wire)
    return struct.pack(order + "IIII", *time, *lengths) + data


# pcapng


def block(kind: int, body: bytes, order: str = "<", total: int | None = None, trailer: int | None = None) -> bytes:
    body += bytes(-len(body) % 4)
    total = len(body) + 12 if total is None else total
    trailer = total if trailer is None else trailer
    return struct.pack(order + "II", kind, total) + body + struct.pack(order + "I", trailer)


def option(code: int, value: bytes, order: str = "<", length: int | None = None) -> bytes:
    return struct.pack(order + "HH", code, len(value) if length is None else length) + value + bytes(-len(value) % 4)


def section(order: str = "<", version: tuple[int, int] = (1, 0), length: int = -1, options: bytes = b"") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, *version, length) + options, order)


def interface(order: str = "<", link_type: int = 1, snaplen: int = 0, options: bytes = b"") -> bytes:
    return block(1, struct.pack(order + "HHI", link_type, 0, snaplen) + options, order)


def tsresol(value: int, order: str = "<") -> bytes:
    return option(9, bytes([value]), order)


def enhanced(
    data: bytes,
    order: str = "<",
    ticks: int = 0,
    wire: int | None = None,
    captured: int | None = None,
    number: int = 0,
    options: bytes = b"",
) -> bytes:
    lengths = (len(data) if captured is None else captured, len(data) if wire is None else wire)
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, *lengths)
    return block(6, head + data + bytes(-len(data) % 4) + options, order)


def obsolete(data: bytes, order: str = "<", ticks: int = 0, number: int = 0, wire: int | None = None) -> bytes:
    wire = len(data) if wire is None else wire
    head = struct.pack(order + "HHIIII", number, 7, ticks >> 32, ticks & 0xFFFFFFFF, len(data), wire)
    return block(2, head + data, order)


def simple(data: bytes, order: str = "<", wire: int | None = None) -> bytes:
    return block(3, struct.pack(order + "I", len(data) if wire is None else wire) + data, order)


# reading


def zstd(data: bytes, *, has_size: bool = True, has_checksum: bool = True) -> bytes:
    """Compress to one frame. Skips the calling test if Python has no zstd."""
    package = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    parameter = package.CompressionParameter
    options = {parameter.checksum_flag: int(has_checksum), parameter.content_size_flag: int(has_size)}
    packed: bytes = package.compress(data, options=options)
    return packed


class Dribble(io.RawIOBase):
    """A stream whose reads return at most as many bytes as ``sizes`` lists, over and over."""

    def __init__(self, data: bytes, sizes: Sequence[int] = (1,)) -> None:
        self.data, self.sizes, self.turn, self.at = data, sizes, 0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        size = self.sizes[self.turn % len(self.sizes)]
        self.turn += 1
        piece = self.data[self.at : self.at + min(size, len(buffer))]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


class Outcome(NamedTuple):
    packets: list[Packet]
    damage: Damage | None
    error: str | None


def drain(reader: CaptureReader) -> list[Packet]:
    packets: list[Packet] = []
    while (batch := reader.next_batch()) is not None:
        assert len(batch) > 0
        packets += [Packet(*frame) for frame in batch]
    assert reader.packets == len(packets)
    assert reader.next_batch() is None
    return packets


def count(reader: CaptureReader) -> int:
    """Return the number of packets that are not read yet."""
    return sum(map(len, iter(reader.next_batch, None)))


def read(data: bytes | io.RawIOBase) -> Outcome:
    """Read a capture to the end, with its damage and error. An error must be one line that names the file."""
    packets: list[Packet] = []
    try:
        reader = CaptureReader(io.BytesIO(data) if isinstance(data, bytes) else data, "file")
        while (batch := reader.next_batch()) is not None:
            assert len(batch) > 0
            packets += [Packet(*frame) for frame in batch]
    except CaptureError as error:
        assert str(error).startswith("file: ") and str(error).isprintable()
        return Outcome(packets, None, str(error))
    assert reader.packets == len(packets)
    if reader.damage is not None:
        assert reader.damage.file == "file" and str(reader.damage).isprintable()
        assert reader.damage.packet == len(packets) + 1
    return Outcome(packets, reader.damage, None)


# A second implementation of the formats, slow and simple, which the readers are checked against.


class Damaged(Exception):
    pass


class Unsupported(Exception):
    pass


@dataclass
class Plain:
    packets: list[Packet]
    end: str  # "clean", "damage" or "error"
    offset: int  # of the damage


def _canonical(link_type: int) -> int:
    return {11: 100, 12: 101, 14: 101, 19: 106}.get(link_type, link_type)


def plain_read(data: bytes) -> Plain:
    packets: list[Packet] = []
    offset = 0
    in_head = True
    end = "clean"
    try:
        plain = {b"\n\r\r\n": plain_pcapng, b"snoo": plain_snoop}.get(data[:4], plain_pcap)
        for step in plain(data, packets):
            offset, in_head = step, False
    except Damaged:
        end = "error" if in_head else "damage"
    except (Unsupported, struct.error):
        end = "error"
    if packets and not any(packet.link_type in SUPPORTED for packet in packets):
        end = "error"
    return Plain(packets, end, offset)


def plain_pcap(data: bytes, packets: list[Packet]) -> Iterable[int]:
    """Append to ``packets``. Yield the offset of each record, and of the end, before reading it."""
    for order in "<>":
        if struct.unpack(order + "I", data[:4])[0] in (MICRO, NANO, KUZNETZOV, *IXIA):
            break
    else:
        raise Unsupported
    magic, major, minor, _, _, _, link_type = struct.unpack(order + "IHHiIII", data[:24])
    link_type = _canonical(link_type & 0xFFFF)
    if ((major, minor) != (543, 0) and not (major == 2 and minor <= 4)) or link_type not in SUPPORTED:
        raise Unsupported
    size = 24 if magic == KUZNETZOV else 16
    at = 28 if magic in IXIA else 24
    if at > len(data):
        raise Damaged
    zeros_at = len(data.rstrip(b"\0"))
    while True:
        yield at
        if at == len(data):
            return
        if at >= zeros_at or len(data) - at < size:
            raise Damaged
        seconds, fraction, captured, wire = struct.unpack_from(order + "IIII", data, at)
        if (major, minor) == (2, 3):
            captured, wire = sorted((captured, wire))
        elif (major, minor) < (2, 3) or major == 543:
            captured, wire = wire, captured
        if captured == wire == 0 and any(
            struct.unpack_from(order + "I", data, at)[0] in (MICRO, NANO, KUZNETZOV, *IXIA)
            and struct.unpack_from(order + "HH", data, at + 4) in [(2, minor) for minor in range(5)]
            for order in "<>"
        ):
            raise Damaged       # the header of another capture file begins here
        if captured > MOST or at + size + captured > len(data):
            raise Damaged
        time_ns = seconds * 10**9 + fraction * (1 if magic in (NANO, IXIA[0]) else 1000)
        body = data[at + size : at + size + captured]
        packets.append(Packet(time_ns, body, max(wire, captured), link_type))
        at += size + captured


def plain_time(ticks: int, resolution: int, offset_s: int) -> int:
    per_second = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    time_ns = min(ticks * 10**9 // per_second, FURTHEST_NS)
    furthest_s = FURTHEST_NS // 10**9
    offset_ns = offset_s * 10**9 if abs(offset_s) <= furthest_s else FURTHEST_NS * (1 if offset_s > 0 else -1)
    return min(time_ns + offset_ns, FURTHEST_NS)


def plain_interface(body: bytes, order: str) -> tuple[int, int, int, int]:
    if len(body) < 8:
        raise Damaged
    link_type, _, snaplen = struct.unpack_from(order + "HHI", body)
    resolution, offset_s, at = 6, 0, 8
    while len(body) - at >= 4:
        code, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == 0:
            break
        at += 4 + length + -length % 4
        if at > len(body) or length != {9: 1, 14: 8}.get(code, length):
            raise Damaged
        if code == 9:
            resolution = value[0]
        elif code == 14:
            offset_s = struct.unpack(order + "q", value)[0]
    return _canonical(link_type), snaplen, resolution, offset_s


def plain_pcapng(data: bytes, packets: list[Packet]) -> Iterable[int]:
    order = ""
    interfaces: list[tuple[int, int, int, int]] = []
    last_ns = at = 0
    while True:
        if at:
            yield at
        if at == len(data):
            return
        if len(data) - at < 12:
            raise Damaged
        if data[at : at + 4] == b"\n\r\r\n":
            for order in "<>":
                if struct.unpack_from(order + "I", data, at + 8)[0] == 0x1A2B3C4D:
                    break
            else:
                raise Damaged
        kind, total = struct.unpack_from(order + "II", data, at)
        if total < 12 or total % 4 or total > MOST or at + total > len(data):
            raise Damaged
        if struct.unpack_from(order + "I", data, at + total - 4)[0] != total:
            raise Damaged
        body = data[at + 8 : at + total - 4]
        if kind == 0x0A0D0D0A:
            if len(body) < 16 or struct.unpack_from(order + "HH", body, 4) not in [(1, 0), (1, 2)]:
                raise Damaged
            interfaces = []
        elif kind == 1:
            interfaces.append(plain_interface(body, order))
        elif kind in (2, 3, 6):
            number, captured, skip = 0, 0, 4
            if len(body) < (4 if kind == 3 else 20):
                raise Damaged
            if kind != 3:
                number, high, low, captured, wire = struct.unpack_from(order + "IIIII", body)
                if kind == 2:
                    number = struct.unpack_from(order + "H", body)[0]
                skip = 20
            if number >= len(interfaces):
                raise Damaged
            link_type, snaplen, resolution, offset_s = interfaces[number]
            if link_type not in SUPPORTED | WITHOUT_IP:
                raise Unsupported
            if kind == 3:
                wire = struct.unpack_from(order + "I", body)[0]
                captured = min(wire, len(body) - 4, snaplen or wire)
            else:
                if captured > len(body) - 20:
                    raise Damaged
                last_ns = plain_time(high << 32 | low, resolution, offset_s)
            packets.append(Packet(last_ns, body[skip : skip + captured], max(wire, captured), link_type))
        at += total


def plain_snoop(data: bytes, packets: list[Packet]) -> Iterable[int]:
    magic, version, link = struct.unpack_from(">8sII", data)
    if magic != b"snoop\0\0\0" or version != 2 or link not in (0, 4):
        raise Unsupported
    at = 16
    while True:
        yield at
        if at == len(data):
            return
        if len(data) - at < 24:
            raise Damaged
        wire, captured, total, _, seconds, fraction = struct.unpack_from(">IIIIII", data, at)
        if total > MOST or captured + 24 > total or at + total > len(data):
            raise Damaged
        time_ns = seconds * 10**9 + fraction * 1000
        packets.append(Packet(time_ns, data[at + 24 : at + 24 + captured], max(wire, captured), 1))
        at += total


def check(data: bytes, stream: io.RawIOBase | None = None) -> Outcome:
    """Read a capture and compare the outcome with the plain reader's."""
    outcome = read(data if stream is None else stream)
    plain = plain_read(data)
    assert outcome.packets == plain.packets
    if plain.end == "error":
        assert outcome.error is not None and outcome.damage is None
    elif plain.end == "damage":
        assert outcome.error is None and outcome.damage is not None and outcome.damage.offset == plain.offset
    else:
        assert outcome.error is None and outcome.damage is None
    return outcome

SNOOP_HEAD = b"snoop\0\0\0" + struct.pack(">II", 2, 4)


def snoop_record(data: bytes, time: tuple[int, int] = (0, 0), wire: int | None = None, **claims: int) -> bytes:
    padded = data + bytes(-len(data) % 4)
    captured, total = claims.get("captured", len(data)), claims.get("total", 24 + len(padded))
    return struct.pack(">IIIIII", len(data) if wire is None else wire, captured, total, 0, *time) + padded
