"""The columns of a flow log record, the same for every format: their units, and what stands for "the log does not say".

A format yields arrays of RECORD_DTYPE. What a log does not say is unknown, and never guessed: a number is then -1.

| column | unit, values |
|---|---|
| line | line, row or event of the file, from 1 |
| start_ns, end_ns | Unix time in ns of the first and the last packet, or of the interval; -1: unknown |
| packets, bytes | counted from src to dst, bytes with the IP header; -1: unknown |
| packets_back, bytes_back | counted from dst to src by the same record; -1: unknown, or the record counts one way |
| src, dst | addresses in network byte order, IPv4 in the first four bytes |
| pkt_src, pkt_dst | the packet's own addresses, of the same family; only with the bits PKT_SRC, PKT_DST in has_pkt |
| interface, instance | numbers of words: the network interface and its machine; -1: none |
| rule | number of a word: the record's own rule, policy or cause of its action; -1: none |
| history | Zeek's history as bits (``zeek.py``); 0: none |
| sport, dport | ports; 0 without has_ports |
| protocol | IP protocol number; -1: unknown |
| tcp_flags | flags of all packets combined, in AWS's encoding: ACK only together with SYN; -1: the log has none |
| icmp_type, icmp_code | of ICMP and ICMPv6; -1: unknown, or another protocol |
| family | 4, 6 |
| has_ports | 1: the protocol has ports, and the record holds them |
| direction | DIRECTION_…, as the interface of the record sees it |
| action | ACTION_… of the cloud |
| opener | OPENER_…, only if the record itself says who opened the connection |
| conn_state | Zeek's conn_state as an index of ``zeek.CONN_STATES``; -1: none |
"""

from __future__ import annotations

from datetime import UTC, datetime
from struct import Struct
from typing import NamedTuple

import numpy as np

RECORD_DTYPE = np.dtype([
    ("line", "<i8"), ("start_ns", "<i8"), ("end_ns", "<i8"), ("packets", "<i8"), ("bytes", "<i8"),
    ("packets_back", "<i8"), ("bytes_back", "<i8"), ("src", "u1", (16,)), ("dst", "u1", (16,)),
    ("pkt_src", "u1", (16,)), ("pkt_dst", "u1", (16,)), ("interface", "<i4"), ("instance", "<i4"), ("rule", "<i4"),
    ("history", "<u4"), ("sport", "<u2"), ("dport", "<u2"), ("protocol", "<i2"), ("tcp_flags", "<i2"),
    ("icmp_type", "<i2"), ("icmp_code", "<i2"), ("family", "u1"), ("has_pkt", "u1"), ("has_ports", "u1"),
    ("direction", "u1"), ("action", "u1"), ("opener", "u1"), ("conn_state", "i1"), ("spare", "u1", (5,)),
])  # fmt: skip
#: The most rows of an array that a format yields. They fit in the second-level cache of common machines.
BATCH_ROWS = 1 << 13

UNKNOWN = -1
PKT_SRC, PKT_DST = 1, 2
DIRECTION_UNKNOWN, DIRECTION_INGRESS, DIRECTION_EGRESS = 0, 1, 2
ACTION_UNKNOWN, ACTION_ACCEPTED, ACTION_REJECTED = 0, 1, 2
OPENER_UNKNOWN, OPENER_SOURCE, OPENER_DESTINATION = 0, 1, 2

#: A row of RECORD_DTYPE. Addresses that are shorter than 16 bytes end with zeros.
_ROW = Struct("<7q16s16s16s16s3iI2H4h6Bb5x")
assert _ROW.size == RECORD_DTYPE.itemsize
#: RecordRow has a field of the name ``bytes``.
Packed = bytes
NS_PER_SECOND = 10**9
#: The latest time of a record, as Unix time in the year 2242: rows have room for it in ns. The tokenizer has it, too.
LAST_SECOND = 1 << 33


class RecordRow(NamedTuple):
    """A row that Python makes, in the order of RECORD_DTYPE. Addresses are 4 or 16 bytes."""

    line: int
    src: bytes
    dst: bytes
    protocol: int
    start_ns: int = UNKNOWN
    end_ns: int = UNKNOWN
    pkt_src: bytes = b""
    pkt_dst: bytes = b""
    packets: int = UNKNOWN
    bytes: int = UNKNOWN
    packets_back: int = UNKNOWN
    bytes_back: int = UNKNOWN
    interface: int = UNKNOWN
    instance: int = UNKNOWN
    rule: int = UNKNOWN
    history: int = 0
    sport: int = 0
    dport: int = 0
    tcp_flags: int = UNKNOWN
    icmp_type: int = UNKNOWN
    icmp_code: int = UNKNOWN
    has_ports: bool = False
    direction: int = DIRECTION_UNKNOWN
    action: int = ACTION_UNKNOWN
    opener: int = OPENER_UNKNOWN
    conn_state: int = UNKNOWN

    def packed(self) -> Packed:
        """Return the row as it lies in an array of RECORD_DTYPE."""
        return _ROW.pack(
            self.line, self.start_ns, self.end_ns, self.packets, self.bytes, self.packets_back, self.bytes_back,
            self.src, self.dst, self.pkt_src, self.pkt_dst, self.interface, self.instance, self.rule, self.history,
            self.sport, self.dport, self.protocol, self.tcp_flags, self.icmp_type, self.icmp_code,
            4 if len(self.src) == 4 else 6, PKT_SRC * bool(self.pkt_src) + PKT_DST * bool(self.pkt_dst),
            self.has_ports, self.direction, self.action, self.opener, self.conn_state,
        )  # fmt: skip


def unix_ns(moment: datetime) -> int:
    """Return the Unix time of a moment in ns. Raises ValueError if rows have no room for it."""
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = since_epoch.days * 86400 + since_epoch.seconds
    if abs(seconds) > LAST_SECOND:
        raise ValueError(f"its time is in the year {moment.year}, in which there are no flow logs")
    return seconds * NS_PER_SECOND + since_epoch.microseconds * 1000
