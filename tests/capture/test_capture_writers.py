"""dpkt reads the captures that ``captures`` writes: they are in the formats, not in what our readers take these for."""

from __future__ import annotations

import io

import dpkt
import pytest
from captures import MICRO, NANO, ORDERS, check, enhanced, interface, obsolete, pcap_head, pcap_record, section


@ORDERS
@pytest.mark.parametrize("magic", [MICRO, NANO])
def test_writers_pcap_is_read_by_dpkt(order: str, magic: int) -> None:
    data = pcap_head(order, magic) + pcap_record(b"one", order, (5, 7)) + pcap_record(b"three", order, (6, 8))
    theirs = list(dpkt.pcap.Reader(io.BytesIO(data)))
    ours = check(data).packets
    assert [packet.data for packet in ours] == [frame for _, frame in theirs] == [b"one", b"three"]
    unit = 1 if magic == NANO else 1000
    assert [packet.time_ns for packet in ours] == [5_000_000_000 + 7 * unit, 6_000_000_000 + 8 * unit]
    assert [round(float(time) * 1e9) for time, _ in theirs] == [packet.time_ns for packet in ours]


@ORDERS
def test_writers_pcapng_is_read_by_dpkt(order: str) -> None:
    data = section(order) + interface(order) + enhanced(b"one", order, 5_000_007) + obsolete(b"three", order, 6_000_008)
    theirs = list(dpkt.pcapng.Reader(io.BytesIO(data)))
    ours = check(data).packets
    assert [packet.data for packet in ours] == [frame for _, frame in theirs] == [b"one", b"three"]
    assert [packet.time_ns // 1000 for packet in ours] == [round(time * 1e6) for time, _ in theirs]
    assert [packet.time_ns for packet in ours] == [5_000_007_000, 6_000_008_000]
