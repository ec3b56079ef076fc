"""The pcapng reader."""

from __future__ import annotations

import struct

import pytest
from captures import (
    FURTHEST_NS,
    MOST,
    ORDERS,
    Dribble,
    Packet,
    block,
    check,
    enhanced,
    interface,
    obsolete,
    option,
    plain_time,
    read,
    section,
    simple,
    tsresol,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def everything(order: str) -> list[bytes]:
    """One block of each kind, with options, in a section of two interfaces."""
    comment = option(1, b"a comment", order) + option(0, b"", order)
    return [
        section(order, options=comment),
        interface(order, options=option(2, b"eth0", order) + tsresol(9, order) + option(0, b"", order)),
        interface(order, link_type=101, options=option(14, struct.pack(order + "q", 10), order)),
        enhanced(b"abc", order, 1_234_567_891, wire=99, options=comment),
        block(0x0BAD, b"custom or unknown", order),
        enhanced(b"", order, 2_000_000, number=1),
        simple(b"abcde", order),
        obsolete(b"ab", order, 3_000_000, number=1),
        block(5, bytes(12), order),
        simple(b"", order, wire=0),
    ]


EXPECTED = [
    Packet(1_234_567_891, b"abc", 99, 1),
    Packet(12_000_000_000, b"", 0, 101),
    Packet(12_000_000_000, b"abcde", 5, 1),
    Packet(13_000_000_000, b"ab", 2, 101),
    Packet(13_000_000_000, b"", 0, 1),
]


@ORDERS
def test_all_block_types(order: str) -> None:
    assert check(b"".join(everything(order))) == (EXPECTED, None, None)


@ORDERS
@pytest.mark.parametrize("length", [0, 1, 4, 1000, 700_000])
@pytest.mark.parametrize(
    "kind", [4, 5, 7, 8, 9, 10, 0xBAD, 0x40000BAD, 0, 0x80000001, 0xFFFFFFFF],
    ids=lambda kind: f"{kind:#x}",
)  # names, statistics, unassigned ones, journal, secrets, custom (both), reserved and local ones
def test_blocks_without_packets_are_skipped_wherever_they_stand(order: str, kind: int, length: int) -> None:
    other = block(kind, bytes(range(256)) * (length // 256) + bytes(length % 256), order)
    blocks = everything(order)
    for at in range(1, len(blocks) + 1):
        assert read(b"".join([*blocks[:at], other, other, *blocks[at:]])) == (EXPECTED, None, None)
    assert read(blocks[0] + other) == ([], None, None)


def test_sections_of_both_byte_orders_with_interfaces_of_their_own() -> None:
    data = b"".join(everything("<") + everything(">") + everything("<"))
    assert check(data) == (EXPECTED * 3, None, None)
    outcome = check(section() + interface() + enhanced(b"x") + section(">") + enhanced(b"y", ">"))
    assert len(outcome.packets) == 1
    assert outcome.damage is not None and outcome.damage.cause == "a packet before any interface description"


@ORDERS
def test_cut_at_every_byte(order: str) -> None:
    other = "<" if order == ">" else ">"
    blocks = [*everything(order), section(other), interface(other), enhanced(b"end", other)]
    data = b"".join(blocks)
    boundaries = [sum(map(len, blocks[: n + 1])) for n in range(len(blocks))]
    whole = check(data).packets
    for cut in range(len(data)):
        packets, damage, error = check(data[:cut], Dribble(data[:cut], (1,) if cut % 2 else (cut + 1,)))
        if cut < boundaries[0]:
            assert error is not None
            continue
        assert packets == whole[: len(packets)]
        assert (damage is None) == (cut in boundaries)
        if damage is not None:
            assert damage.offset == max(boundary for boundary in boundaries if boundary <= cut)


@pytest.mark.parametrize("length", [-1, 0, 12, 1 << 40])
def test_section_length_is_not_needed(length: int) -> None:
    assert len(check(section(length=length) + interface() + enhanced(b"x") * 3).packets) == 3


@pytest.mark.parametrize("version", [(1, 0), (1, 2)])
def test_versions_that_mean_1_0(version: tuple[int, int]) -> None:
    assert len(check(section(version=version) + interface() + enhanced(b"x")).packets) == 1


@pytest.mark.parametrize("version", [(0, 1), (1, 1), (2, 0)])
def test_other_versions_are_refused_at_the_start_and_damage_later(version: tuple[int, int]) -> None:
    cause = f"pcapng version {version[0]}.{version[1]} is not supported"
    assert cause in (check(section(version=version)).error or "")
    outcome = check(section() + interface() + enhanced(b"x") + section(version=version) + interface())
    assert len(outcome.packets) == 1 and outcome.damage is not None and cause in outcome.damage.cause


# Time


@ORDERS
@pytest.mark.parametrize(
    ("resolution", "ticks", "time_ns"),
    [
        (None, 1_500_000, 1_500_000_000),
        (6, 1_500_000, 1_500_000_000),
        (9, 1_500_000_001, 1_500_000_001),
        (3, 1_500, 1_500_000_000),
        (0, 1_700_000_000, 1_700_000_000 * 10**9),
        (12, 1_500_000_000_999, 1_500_000_000),
        (19, 10**19, 10**9),
        (28, 2**64 - 1, 1),
        (29, 2**64 - 1, 0),
        (127, 2**64 - 1, 0),
        (0x80, 3, 3 * 10**9),
        (0x80 | 1, 3, 1_500_000_000),
        (0x80 | 32, (7 << 32) | (1 << 31), 7_500_000_000),
        (0x80 | 63, 2**64 - 1, 1_999_999_999),
        (0x80 | 127, 2**64 - 1, 0),
        (6, 2**64 - 1, FURTHEST_NS),
        (0, 2**64 - 1, FURTHEST_NS),
        (0x80, 2**63, FURTHEST_NS),
    ],
)
def test_resolutions(order: str, resolution: int | None, ticks: int, time_ns: int) -> None:
    options = b"" if resolution is None else tsresol(resolution, order)
    data = section(order) + interface(order, options=options)
    data += enhanced(b"x", order, ticks) + obsolete(b"x", order, ticks)
    assert [packet.time_ns for packet in check(data).packets] == [time_ns, time_ns]


@pytest.mark.parametrize(
    ("offset_s", "ticks", "time_ns"),
    [
        (1_700_000_000, 5, 1_700_000_000 * 10**9 + 5000),
        (-1, 5, -(10**9) + 5000),
        (2**63 - 1, 5, FURTHEST_NS),
        (-(2**63), 5, -FURTHEST_NS + 5000),
        (FURTHEST_NS // 10**9, 10**6, FURTHEST_NS),
        (1, 2**64 - 1, FURTHEST_NS),
    ],
)
def test_offset_in_signed_seconds_saturates(offset_s: int, ticks: int, time_ns: int) -> None:
    data = section() + interface(options=option(14, struct.pack("<q", offset_s))) + enhanced(b"x", ticks=ticks)
    assert check(data).packets[0].time_ns == time_ns


EDGES = st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**62 + 1, 2**63, 2**64 - 1, 10**18])


@settings(max_examples=600, deadline=None)
@given(
    resolution=st.integers(0, 255),
    ticks=EDGES | st.integers(0, 2**64 - 1),
    offset_s=st.just(0) | st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**33), 2**33),
)
def test_time_is_that_of_unbounded_integers(resolution: int, ticks: int, offset_s: int) -> None:
    options = tsresol(resolution) + option(14, struct.pack("<q", offset_s))
    time_ns = read(section() + interface(options=options) + enhanced(b"x", ticks=ticks)).packets[0].time_ns
    assert time_ns == plain_time(ticks, resolution, offset_s)
    assert -FURTHEST_NS <= time_ns <= FURTHEST_NS


def test_simple_packets_have_the_time_of_the_packet_before() -> None:
    data = section() + interface() + simple(b"x") + enhanced(b"x", ticks=7) + simple(b"x")
    data += section() + interface() + simple(b"x")
    assert [packet.time_ns for packet in check(data).packets] == [0, 7000, 7000, 7000]


# Lengths


def test_simple_packet_is_as_long_as_snaplen_wire_and_block_allow() -> None:
    data = section() + interface(snaplen=3) + simple(b"abc", wire=70) + simple(b"ab") + simple(b"abcdefgh")
    assert [(packet.data, packet.wire) for packet in check(data).packets] == [(b"abc", 70), (b"ab", 2), (b"abc", 8)]
    data = section() + interface(snaplen=0) + simple(b"abcd", wire=70)
    assert check(data).packets == [Packet(0, b"abcd", 70, 1)]


def test_wire_length_below_captured_is_captured() -> None:
    data = section() + interface() + enhanced(b"abcd", wire=1) + obsolete(b"abcd", wire=0)
    assert [packet.wire for packet in check(data).packets] == [4, 4]


def test_captured_beyond_snaplen_is_accepted() -> None:
    assert check(section() + interface(snaplen=2) + enhanced(b"abcd")).packets[0].data == b"abcd"


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (block(6, bytes(20), total=30), "not a multiple of 4"),
        (block(9, b"", total=8), "less than 12"),
        (block(9, b"", total=0), "less than 12"),
        (block(9, b"", total=MOST + 4), "more than"),
        (block(9, b"", total=0xFFFFFFFC), "more than"),
        (block(6, bytes(20), trailer=36), "32 bytes before and 36 bytes after"),
        (block(6, bytes(16)), "a packet block of 28 bytes"),
        (block(2, bytes(16)), "a packet block of 28 bytes"),
        (block(3, b""), "a simple packet block of 12 bytes"),
        (block(1, bytes(4)), "an interface description of 16 bytes"),
        (block(0x0A0D0D0A, struct.pack("<IHH", 0x1A2B3C4D, 1, 0)), "a section header of 20 bytes"),
        (block(0x0A0D0D0A, bytes(16)), "without byte-order magic"),
        (enhanced(b"abc", captured=5), "a captured length of 5 bytes in a block that holds 4"),
        (enhanced(b"abc", captured=0xFFFFFFFF), "a captured length of 4294967295 bytes"),
        (enhanced(b"abc", number=1), "interface 1 in a section of 1 interfaces"),
        (enhanced(b"abc", number=0xFFFFFFFF), "interface 4294967295"),
        (obsolete(b"abc", number=0xFFFF), "interface 65535"),
        (interface(options=option(2, b"eth0", length=9)), "an interface option of 9 bytes where 4 are left"),
        (interface(options=option(2, b"", length=0xFFFF)), "an interface option of 65535 bytes"),
        (interface(options=option(9, b"ab")), "an if_tsresol option of 2 bytes"),
        (interface(options=option(9, b"")), "an if_tsresol option of 0 bytes"),
        (interface(options=option(14, bytes(4))), "an if_tsoffset option of 4 bytes"),
    ],
)
def test_lengths_that_lie_are_damage(bad: bytes, cause: str) -> None:
    before = section() + interface() + enhanced(b"before")
    outcome = check(before + bad + enhanced(b"after") * 2)
    assert [packet.data for packet in outcome.packets] == [b"before"]
    assert outcome.damage is not None
    assert (outcome.damage.offset, outcome.damage.packet) == (len(before), 2)
    assert cause in outcome.damage.cause


@pytest.mark.parametrize("packet", [enhanced(b"x"), simple(b"x"), obsolete(b"x")])
def test_packet_before_any_interface_is_damage(packet: bytes) -> None:
    outcome = check(section() + packet)
    assert outcome.damage is not None and outcome.damage.cause == "a packet before any interface description"


def test_options_without_an_end() -> None:
    assert check(section() + interface(options=tsresol(9)) + enhanced(b"x", ticks=5)).packets[0].time_ns == 5


def test_options_after_the_end_are_not_read() -> None:
    data = section() + interface(options=option(0, b"") + tsresol(9)) + enhanced(b"x", ticks=5)
    assert check(data).packets[0].time_ns == 5000


@ORDERS
def test_unsupported_link_type_is_refused_when_its_first_packet_comes(order: str) -> None:
    head = section(order) + interface(order) + interface(order, link_type=169)
    assert len(check(head + enhanced(b"x", order) * 3).packets) == 3
    outcome = check(head + enhanced(b"x", order) * 3 + enhanced(b"y", order, number=1))
    assert len(outcome.packets) == 3
    assert outcome.error is not None
    assert "packet 4: link type LINKTYPE_GPRS_LLC (169) is not supported" in outcome.error


@ORDERS
def test_packets_of_interfaces_without_ip_come_along(order: str) -> None:
    head = section(order) + interface(order, link_type=189) + interface(order)
    packets = enhanced(b"usb", order) + simple(b"usb", order) + enhanced(b"ip", order, number=1) + enhanced(b"x", order)
    outcome = check(head + packets)
    assert [packet.link_type for packet in outcome.packets] == [189, 189, 1, 189]
    # In another section, too.
    assert check(head + enhanced(b"usb", order) + section() + interface() + enhanced(b"ip")).error is None


@ORDERS
def test_packets_of_interfaces_without_ip_only_are_refused_at_the_end(order: str) -> None:
    """Even if there is an interface with IP, but none of its packets."""
    head = section(order) + interface(order, link_type=189) + interface(order, link_type=227) + interface(order)
    assert check(head).error is None
    data = head + enhanced(b"usb", order) * 2 + enhanced(b"can", order, number=1)
    for tail in (b"", bytes(7)):
        outcome = check(data + tail)
        assert len(outcome.packets) == 3
        words = "all 3 packets: link type LINKTYPE_CAN_SOCKETCAN (227) carries no IP packets"
        assert outcome.error is not None and words in outcome.error


def test_raw_as_some_systems_wrote_it_is_raw() -> None:
    assert check(section() + interface(link_type=12) + enhanced(b"x")).packets[0].link_type == 101


def test_many_interfaces() -> None:
    interfaces = b"".join(interface(options=tsresol(n % 10)) for n in range(5000))
    packets = check(section() + interfaces + b"".join(enhanced(b"x", ticks=3, number=n) for n in range(5000))).packets
    assert [packet.time_ns for packet in packets] == [3 * 10 ** (9 - n % 10) for n in range(5000)]


def test_endless_interfaces_end_in_damage() -> None:
    outcome = read(Dribble(section() + interface() * (2**20 + 1), (1 << 20,)))
    assert outcome.damage is not None and "more than 1048576 interfaces" in outcome.damage.cause
    assert outcome.damage.offset == 28 + 20 * 2**20


def test_blocks_larger_than_the_buffer() -> None:
    sizes = [100, 3_000_001, 5, 700_000, 0, 60]
    data = section() + block(0x0BAD, bytes(2_000_000)) + interface()
    data += b"".join(enhanced(bytes([n]) * size) for n, size in enumerate(sizes))
    for stream in (None, Dribble(data, (70_000, 1, 300_001))):
        assert [len(packet.data) for packet in check(data, stream).packets] == sizes
