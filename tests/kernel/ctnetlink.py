"""The kernel's connection table over netlink: one walk to read it, one message for each entry to be changed.

The conntrack tool walks the whole table again for each entry it changes, and the table is the whole machine's: a
quarter of a million buckets where there is much memory.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

NETLINK_NETFILTER = 12
REQUEST, ACKNOWLEDGE, DUMP = 0x1, 0x4, 0x300
ERROR, DONE = 2, 3
#: Messages of the subsystem ctnetlink.
NEW, GET, DELETE = 0x100, 0x101, 0x102
ORIGINAL, STATUS, PROTOCOL_INFO, TIMEOUT, MARK, ZONE = 1, 3, 4, 7, 8, 18
SEEN_REPLY = 1 << 1
#: An attribute's type without the bits for nested and byte order.
TYPE_BITS = 0x3FFF
RECEIVED_BYTES = 1 << 20

Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class Entry:
    """A connection by its first packet. ``icmp``: type, code, identifier; ports are 0 where there are none."""

    family: int
    protocol: int
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    sport: int
    dport: int
    icmp: tuple[int, int, int] | None
    replied: bool
    mark: int
    #: Seconds, rounded down.
    timeout: int
    #: Linux's number of it; None for other protocols.
    tcp_state: int | None
    #: The kernel's name for it, in its zone.
    tuple: bytes
    zone: int

    @property
    def key(self) -> Key:
        """The same, except for queries, if the other end had opened it."""
        ends = ((self.source, self.sport), (self.destination, self.dport))
        return self.protocol, self.icmp, frozenset(ends) if self.icmp is None else ends


class Table:
    """The table of the network namespace it was made in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    def entries(self) -> list[Entry]:
        self._send(GET, REQUEST | DUMP, socket.AF_UNSPEC, b"")
        found = []
        while True:
            for kind, body in _messages(self._socket.recv(RECEIVED_BYTES)):
                if kind == DONE:
                    return found
                _raise_error(kind, body)
                found.append(_entry(body))

    def update(self, entry: Entry, timeout: int, mark: int) -> None:
        numbers = _attribute(TIMEOUT, struct.pack(">I", timeout)) + _attribute(MARK, struct.pack(">I", mark))
        self._change(NEW, entry, numbers)

    def delete(self, entry: Entry) -> None:
        self._change(DELETE, entry, b"")

    def _change(self, kind: int, entry: Entry, attributes: bytes) -> None:
        family = socket.AF_INET if entry.family == 4 else socket.AF_INET6
        called = _attribute(ORIGINAL | 0x8000, entry.tuple) + _attribute(ZONE, struct.pack(">H", entry.zone))
        self._send(kind, REQUEST | ACKNOWLEDGE, family, called + attributes)
        for answer, body in _messages(self._socket.recv(RECEIVED_BYTES)):
            _raise_error(answer, body)

    def _send(self, kind: int, flags: int, family: int, attributes: bytes) -> None:
        header = struct.pack("=IHHIIBBH", 20 + len(attributes), kind, flags, 0, 0, family, 0, 0)
        self._socket.send(header + attributes)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        size, kind = struct.unpack_from("=IH", data)
        yield kind, data[16:size]
        data = data[-(-size // 4) * 4 :]


def _raise_error(kind: int, body: bytes) -> None:
    if kind == ERROR:
        number = -struct.unpack_from("=i", body)[0]
        if number:
            raise OSError(number, f"ctnetlink: {errno.errorcode.get(number)} {os.strerror(number)}")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        size, kind = struct.unpack_from("=HH", data)
        found[kind & TYPE_BITS] = data[4:size]
        data = data[-(-size // 4) * 4 :]
    return found


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")


def _entry(body: bytes) -> Entry:
    fields = _attributes(body[4:])
    parts = _attributes(fields[ORIGINAL])
    ends, transport = _attributes(parts[1]), _attributes(parts[2])
    family = 4 if 1 in ends else 6
    source, destination = (ip_address(ends[number + (family == 6) * 2]) for number in (1, 2))
    identifier, kind, code = (4, 5, 6) if 5 in transport else (7, 8, 9)
    icmp = None
    if kind in transport:
        icmp = (_number(transport[kind]), _number(transport[code]), _number(transport[identifier]))
    return Entry(
        family, _number(transport[1]), source, destination, _number(transport.get(2)), _number(transport.get(3)), icmp,
        bool(_number(fields[STATUS]) & SEEN_REPLY), _number(fields.get(MARK)), _number(fields.get(TIMEOUT)),
        _tcp_state(fields), fields[ORIGINAL], _number(fields.get(ZONE)),
    )  # fmt: skip


def _tcp_state(fields: dict[int, bytes]) -> int | None:
    tcp = _attributes(fields.get(PROTOCOL_INFO, b"")).get(1)
    return None if tcp is None else _number(_attributes(tcp)[1])
