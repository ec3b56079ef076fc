"""The pcap reader."""

from __future__ import annotations

import struct

import pytest
from captures import (
    KUZNETZOV,
    MICRO,
    MOST,
    NANO,
    ORDERS,
    SUPPORTED,
    WITHOUT_IP,
    Dribble,
    Packet,
    check,
    pcap_head,
    pcap_record,
    read,
)


@ORDERS
@pytest.mark.parametrize(("magic", "unit"), [(MICRO, 1000), (NANO, 1)])
def test_times_lengths_and_bytes_in_both_orders_and_resolutions(order: str, magic: int, unit: int) -> None:
    data = pcap_head(order, magic) + pcap_record(b"abc", order, (1_700_000_000, 999_999), wire=1500)
    assert check(data).packets == [Packet(1_700_000_000 * 10**9 + 999_999 * unit, b"abc", 1500, 1)]


@ORDERS
def test_kuznetzov_records_have_longer_headers(order: str) -> None:
    record = struct.pack(order + "IIIIIHBB", 3, 4, 2, 60, 1, 0x0800, 0, 0) + b"ab"
    assert check(pcap_head(order, KUZNETZOV) + record * 3).packets == [Packet(3_000_004_000, b"ab", 60, 1)] * 3


@ORDERS
@pytest.mark.parametrize(("magic", "unit"), [(0x1C0001AC, 1), (0x1C0001AB, 1000)], ids=["hardware", "software"])
def test_ixia_files_have_a_longer_head(order: str, magic: int, unit: int) -> None:
    head = pcap_head(order, magic) + struct.pack(order + "I", 0xFFFFFFFF)
    data = head + pcap_record(b"abc", order, (5, 7), wire=60) * 2
    assert read(data).packets == [Packet(5 * 10**9 + 7 * unit, b"abc", 60, 1)] * 2
    for cut in range(len(data)):
        packets, damage, error = read(data[:cut])
        assert (error is not None) == (cut < 28) and len(packets) == max(0, cut - 28) // 19
        assert (damage is not None) == (cut > 28 and (cut - 28) % 19 != 0)
        if cut >= 4:
            assert error is None or f"({cut} of 28 bytes)" in error


def test_seconds_are_unsigned() -> None:
    # 2106; a signed field would be before 1970.
    data = pcap_head() + pcap_record(b"x", time=(0xFFFFFFFF, 999_999))
    assert check(data).packets[0].time_ns == 0xFFFFFFFF * 10**9 + 999_999_000


def test_fraction_beyond_a_second_counts_on() -> None:
    assert check(pcap_head() + pcap_record(b"x", time=(1, 0xFFFFFFFF))).packets[0].time_ns == 10**9 + 0xFFFFFFFF * 1000


def test_wire_length_below_captured_is_captured() -> None:
    assert check(pcap_head() + pcap_record(b"abcd", wire=1)).packets[0].wire == 4


def test_captured_beyond_snaplen_is_accepted() -> None:
    head = struct.pack("<IHHiIII", MICRO, 2, 4, 0, 0, 10, 1)
    assert len(check(head + pcap_record(bytes(100))).packets[0].data) == 100


def test_no_packets_is_a_clean_end() -> None:
    assert check(pcap_head()) == ([], None, None)


def test_packets_without_bytes() -> None:
    assert check(pcap_head() + pcap_record(b"", wire=60) * 3).packets == [Packet(0, b"", 60, 1)] * 3


@pytest.mark.parametrize("version", [(2, 0), (2, 2), (543, 0)])
def test_old_versions_have_the_lengths_the_other_way_round(version: tuple[int, int]) -> None:
    record = struct.pack("<IIII", 0, 0, 60, 2) + b"ab"
    assert check(pcap_head(version=version) + record).packets == [Packet(0, b"ab", 60, 1)]


def test_version_2_3_has_the_lengths_either_way_round() -> None:
    either = struct.pack("<IIII", 0, 0, 60, 2) + b"ab" + struct.pack("<IIII", 0, 0, 2, 60) + b"ab"
    assert check(pcap_head(version=(2, 3)) + either).packets == [Packet(0, b"ab", 60, 1)] * 2


@ORDERS
@pytest.mark.parametrize("version", [(1, 4), (2, 5), (3, 0), (0, 0), (543, 1)])
def test_other_versions_are_refused(order: str, version: tuple[int, int]) -> None:
    error = check(pcap_head(order, version=version)).error
    assert error is not None and f"version {version[0]}.{version[1]} is not supported" in error


@pytest.mark.parametrize("link_type", sorted(SUPPORTED))
def test_supported_link_types(link_type: int) -> None:
    assert check(pcap_head(link_type=link_type) + pcap_record(b"x")).packets[0].link_type == link_type


@pytest.mark.parametrize("written, meant", [(12, 101), (14, 101), (11, 100), (19, 106)])
def test_numbers_that_some_systems_wrote_are_what_they_meant(written: int, meant: int) -> None:
    assert check(pcap_head(link_type=written) + pcap_record(b"x")).packets[0].link_type == meant


def test_upper_bits_of_the_link_type_tell_about_check_sequences() -> None:
    assert check(pcap_head(link_type=0x44000001) + pcap_record(b"x")).packets[0].link_type == 1


def test_unsupported_link_type_is_refused_at_once_with_its_name() -> None:
    error = check(pcap_head(link_type=169)).error
    assert error is not None
    assert "link type LINKTYPE_GPRS_LLC (169) is not supported; the documentation" in error
    assert "link type 9999 is not supported" in (check(pcap_head(link_type=9999)).error or "")


def test_link_type_without_ip_is_refused_at_once() -> None:
    for link_type in WITHOUT_IP:
        error = check(pcap_head(link_type=link_type) + pcap_record(b"x")).error
        assert error is not None and f"({link_type}) carries no IP packets" in error


@ORDERS
@pytest.mark.parametrize("magic", [MICRO, NANO])
def test_cut_at_every_byte(order: str, magic: int) -> None:
    head = pcap_head(order, magic)
    records = [pcap_record(bytes([n]) * n, order, (n + 1, n)) for n in (1, 0, 13, 4)]
    data = head + b"".join(records)
    boundaries = [len(head) + sum(map(len, records[:n])) for n in range(len(records) + 1)]
    whole = check(data).packets
    for cut in range(len(data)):
        for sizes in ((cut + 1,), (1,)):
            packets, damage, error = check(data[:cut], Dribble(data[:cut], sizes))
            if cut < len(head):
                assert error is not None
                continue
            complete = sum(boundary <= cut for boundary in boundaries) - 1
            assert packets == whole[:complete]
            assert (damage is None) == (cut in boundaries)
            if damage is not None:
                assert (damage.offset, damage.packet) == (boundaries[complete], complete + 1)
                assert "the file ends in the middle of a record" in damage.cause


def test_captured_length_beyond_the_file_is_damage() -> None:
    outcome = check(pcap_head() + pcap_record(b"ok") + pcap_record(b"abc", captured=4))
    assert [packet.data for packet in outcome.packets] == [b"ok"]
    assert str(outcome.damage) == (
        "file: damaged at byte 42, packet 2: the file ends in the middle of a record (19 of 20 bytes)"
    )


@ORDERS
@pytest.mark.parametrize("magic", [MICRO, NANO, KUZNETZOV])
def test_captures_put_together_with_cat_are_called_that(order: str, magic: int) -> None:
    # The second header would pass for a packet without bytes, and what follows it for nonsense.
    first = pcap_head() + pcap_record(b"ok")
    outcome = check(first + pcap_head(order, magic) + pcap_record(b"abc", order))
    assert [packet.data for packet in outcome.packets] == [b"ok"]
    assert str(outcome.damage) == (
        f"file: damaged at byte {len(first)}, packet 2: another pcap file begins here: give the files one by one, or "
        "merge them first (mergecap -w OUT.pcapng FILE...)"
    )
    # Packets without bytes are packets otherwise.
    assert len(check(first + pcap_record(b"", time=(magic, 0))).packets) == 2


@pytest.mark.parametrize("captured", [MOST + 1, 0x80000000, 0xFFFFFFFF])
def test_captured_length_beyond_all_bounds_is_damage_at_once(captured: int) -> None:
    stream = Dribble(pcap_head() + pcap_record(b"x") + pcap_record(b"", captured=captured) + bytes(100), (58,))
    outcome = read(stream)
    assert len(outcome.packets) == 1
    assert outcome.damage is not None and f"a captured length of {captured} bytes" in outcome.damage.cause
    assert stream.at == 58  # it did not ask for more


def test_bytes_stay_those_of_their_packet_across_batches() -> None:
    # More than a batch of frames and more than the buffer of bytes.
    records = [pcap_record(struct.pack("<I", n) * 30, time=(n, n)) for n in range(20_000)]
    packets = check(pcap_head() + b"".join(records)).packets
    assert len(packets) == 20_000
    records = [pcap_record(struct.pack("<I", n), time=(n, n)) for n in range(40_000)]
    assert len(check(pcap_head() + b"".join(records)).packets) == 40_000


def test_records_larger_than_the_buffer() -> None:
    sizes = [100, 3_000_000, 5, 700_000, 0, 524_288, 524_272, 60] * 2
    data = pcap_head() + b"".join(pcap_record(bytes([n]) * size) for n, size in enumerate(sizes))
    for stream in (None, Dribble(data, (70_000, 1, 300_001))):
        outcome = check(data, stream)
        assert [len(packet.data) for packet in outcome.packets] == sizes
