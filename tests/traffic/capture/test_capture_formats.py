"""The formats of captures (SPEC 9.6): which packets a file holds, and where it is damaged.

Everything is compared with the plain reader of ``captures``, too.
"""

from __future__ import annotations

import io
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import dpkt
import pytest
from captures import (
    FURTHEST_NS,
    IXIA,
    KUZNETZOV,
    MICRO,
    MOST,
    NANO,
    ORDERS,
    SNOOP_HEAD,
    SUPPORTED,
    WITHOUT_IP,
    Dribble,
    Packet,
    block,
    check,
    enhanced,
    interface,
    obsolete,
    option,
    pcap_head,
    pcap_record,
    plain_time,
    read,
    section,
    simple,
    snoop_record,
    tsresol,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from wireshark import needs_tshark

Held = dict[str, tuple[bytes, list[Packet]]]


def pcap_files(order: str) -> Held:
    head, one = pcap_head(order), pcap_record(b"x", order)
    seven = {magic: pcap_record(b"abc", order, (5, 7), wire=60) for magic in (MICRO, NANO, *IXIA)}
    swapped = struct.pack(order + "IIII", 0, 0, 60, 2) + b"ab"
    short = Packet(0, b"ab", 60, 1)
    return {
        "microseconds": (head + seven[MICRO], [Packet(5_000_007_000, b"abc", 60, 1)]),
        "nanoseconds": (pcap_head(order, NANO) + seven[NANO], [Packet(5_000_000_007, b"abc", 60, 1)]),
        "Ixia's, nanoseconds": (
            pcap_head(order, IXIA[0]) + b"\xff" * 4 + seven[IXIA[0]] * 2, [Packet(5_000_000_007, b"abc", 60, 1)] * 2,
        ),
        "Ixia's, microseconds": (
            pcap_head(order, IXIA[1]) + b"\xff" * 4 + seven[IXIA[1]] * 2, [Packet(5_000_007_000, b"abc", 60, 1)] * 2,
        ),
        "Kuznetzov's longer record headers": (
            pcap_head(order, KUZNETZOV) + (struct.pack(order + "IIIIIHBB", 3, 4, 2, 60, 1, 0x0800, 0, 0) + b"ab") * 3,
            [Packet(3_000_004_000, b"ab", 60, 1)] * 3,
        ),
        # A signed field would be before 1970.
        "2106": (head + pcap_record(b"", order, (0xFFFFFFFF, 999_999)), [Packet(4_294_967_295_999_999_000, b"", 0, 1)]),
        "a fraction beyond a second": (
            head + pcap_record(b"", order, (1, 0xFFFFFFFF)), [Packet(10**9 + 0xFFFFFFFF * 1000, b"", 0, 1)],
        ),
        "wire length below captured": (head + pcap_record(b"abcd", order, wire=1), [Packet(0, b"abcd", 4, 1)]),
        "captured beyond the snapshot length": (
            struct.pack(order + "IHHiIII", MICRO, 2, 4, 0, 0, 10, 1) + pcap_record(bytes(99), order),
            [Packet(0, bytes(99), 99, 1)],
        ),
        "no packets": (head, []),
        "packets without bytes": (head + pcap_record(b"", order, wire=60) * 3, [Packet(0, b"", 60, 1)] * 3),
        # Old versions have the lengths the other way round, 2.3 has them either way.
        "version 2.0": (pcap_head(order, version=(2, 0)) + swapped, [short]),
        "version 2.2": (pcap_head(order, version=(2, 2)) + swapped, [short]),
        "version 543.0": (pcap_head(order, version=(543, 0)) + swapped, [short]),
        "version 2.3": (
            pcap_head(order, version=(2, 3)) + swapped + pcap_record(b"ab", order, wire=60), [short, short],
        ),
        "upper bits of the link type, about check sequences": (
            pcap_head(order, link_type=0x44000001) + one, [Packet(0, b"x", 1, 1)],
        ),
        **{
            f"link type {written}": (pcap_head(order, link_type=written) + one, [Packet(0, b"x", 1, meant)])
            # Some systems wrote other numbers.
            for written, meant in [*zip(SUPPORTED, SUPPORTED, strict=True), (12, 101), (14, 101), (11, 100), (19, 106)]
        },
    }  # fmt: skip


def every_block(order: str) -> list[bytes]:
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


EVERY_PACKET = [
    Packet(1_234_567_891, b"abc", 99, 1),
    Packet(12_000_000_000, b"", 0, 101),
    Packet(12_000_000_000, b"abcde", 5, 1),
    Packet(13_000_000_000, b"ab", 2, 101),
    Packet(13_000_000_000, b"", 0, 1),
]

def pcapng_files(order: str) -> Held:
    head, other = section(order) + interface(order), "<" if order == ">" else ">"
    x, late = Packet(0, b"x", 1, 1), enhanced(b"x", order, ticks=5)
    return {
        "every kind of block": (b"".join(every_block(order)), EVERY_PACKET),
        "sections of both byte orders": (b"".join([*every_block(order), *every_block(other)] * 2), EVERY_PACKET * 4),
        **{
            f"a section that says it has {length} bytes": (
                section(order, length=length) + interface(order) + enhanced(b"x", order), [x],
            )
            for length in (0, 12, 1 << 40)
        },
        "version 1.2, which means 1.0": (
            section(order, version=(1, 2)) + interface(order) + enhanced(b"x", order), [x],
        ),
        "a simple packet has the time of the one before, also of another section": (
            head + simple(b"x", order) + enhanced(b"x", order, 7) + head + simple(b"x", order),
            [x, Packet(7000, b"x", 1, 1), Packet(7000, b"x", 1, 1)],
        ),
        "a simple packet is as long as snapshot length, wire and block allow": (
            section(order) + interface(order, snaplen=3) + simple(b"abc", order, wire=70) + simple(b"ab", order)
            + simple(b"abcdefgh", order) + head + simple(b"abcd", order, wire=70),
            [Packet(0, b"abc", 70, 1), Packet(0, b"ab", 2, 1), Packet(0, b"abc", 8, 1), Packet(0, b"abcd", 70, 1)],
        ),
        "wire length below captured": (
            head + enhanced(b"abcd", order, wire=1) + obsolete(b"abcd", order, wire=0), [Packet(0, b"abcd", 4, 1)] * 2,
        ),
        "captured beyond the snapshot length": (
            section(order) + interface(order, snaplen=2) + enhanced(b"abcd", order), [Packet(0, b"abcd", 4, 1)],
        ),
        "options without an end": (
            section(order) + interface(order, options=tsresol(9, order)) + late, [Packet(5, b"x", 1, 1)],
        ),
        "options after the end": (
            section(order) + interface(order, options=option(0, b"", order) + tsresol(9, order)) + late,
            [Packet(5000, b"x", 1, 1)],
        ),
        "raw IP as some systems wrote it": (
            section(order) + interface(order, link_type=12) + enhanced(b"x", order), [Packet(0, b"x", 1, 101)],
        ),
        "5,000 interfaces": (
            section(order) + b"".join(interface(order, options=tsresol(n % 10, order)) for n in range(5000))
            + b"".join(enhanced(b"", order, 3, number=n) for n in range(5000)),
            [Packet(3 * 10 ** (9 - n % 10), b"", 0, 1) for n in range(5000)],
        ),
        "interfaces without IP beside one that has it, or in another section": (
            section(order) + interface(order, link_type=189) + interface(order) + enhanced(b"usb", order)
            + simple(b"usb", order) + enhanced(b"ip", order, number=1) + head + enhanced(b"x", order),
            [Packet(0, b"usb", 3, 189), Packet(0, b"usb", 3, 189), Packet(0, b"ip", 2, 1), x],
        ),
    }  # fmt: skip


SNOOP: Held = {
    "snoop": (
        SNOOP_HEAD + snoop_record(b"abc", (1_700_000_000, 999_999), 1500) + snoop_record(b"", (1, 2), 60),
        [Packet(1_700_000_000_999_999_000, b"abc", 1500, 1), Packet(1_000_002_000, b"", 60, 1)],
    ),
    "snoop without packets": (SNOOP_HEAD, []),
    "snoop, wire length below captured": (SNOOP_HEAD + snoop_record(b"abcd", wire=1), [Packet(0, b"abcd", 4, 1)]),
    "snoop, longer padding": (
        SNOOP_HEAD + (snoop_record(b"abc", total=24 + 40) + bytes(36)) * 2, [Packet(0, b"abc", 3, 1)] * 2,
    ),
    "snoop of IEEE 802.3": (SNOOP_HEAD[:15] + b"\0" + snoop_record(b"x"), [Packet(0, b"x", 1, 1)]),
}  # fmt: skip
HELD: Held = {
    f"{form}{order} {name}": held
    for form, made in (("pcap", pcap_files), ("pcapng", pcapng_files))
    for order in "<>" for name, held in made(order).items()
} | SNOOP  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_a_file_holds_these_packets(name: str) -> None:
    data, packets = HELD[name]
    assert check(data) == (packets, None, None)


@ORDERS
@pytest.mark.parametrize("length", [0, 1, 4, 1000, 700_000])
@pytest.mark.parametrize(
    "kind", [4, 5, 7, 8, 9, 10, 0xBAD, 0x40000BAD, 0, 0x80000001, 0xFFFFFFFF],
    ids=lambda kind: f"{kind:#x}",
)  # names, statistics, unassigned ones, journal, secrets, custom (both), reserved and local ones
def test_blocks_without_packets_are_skipped_wherever_they_stand(order: str, kind: int, length: int) -> None:
    other = block(kind, bytes(range(256)) * (length // 256) + bytes(length % 256), order)
    blocks = every_block(order)
    for at in range(1, len(blocks) + 1):
        assert read(b"".join([*blocks[:at], other, other, *blocks[at:]])) == (EVERY_PACKET, None, None)
    assert read(blocks[0] + other) == ([], None, None)


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


# Sizes

RECORDS = pytest.mark.parametrize(
    ("head", "record"),
    [(pcap_head(), pcap_record), (section() + interface(), enhanced), (SNOOP_HEAD, snoop_record)],
    ids=["pcap", "pcapng", "snoop"],
)


@RECORDS
def test_records_larger_than_the_buffer_and_more_of_them_than_a_batch(
    head: bytes, record: Callable[[bytes], bytes]
) -> None:
    sizes = [100, 3_000_001, 5, 700_000, 0, 524_288, 524_272, 60] * 2 + [40] * 20_000
    data = head + b"".join(record(struct.pack("<I", n) * (1 + size // 4)) for n, size in enumerate(sizes))
    assert check(data) == check(data, Dribble(data, (70_000, 1, 300_001)))


def test_endless_interfaces_end_in_damage() -> None:
    outcome = read(Dribble(section() + interface() * (2**20 + 1), (1 << 20,)))
    assert outcome.damage is not None and "more than 1048576 interfaces" in outcome.damage.cause
    assert outcome.damage.offset == 28 + 20 * 2**20


# Damage


@ORDERS
@pytest.mark.parametrize("form", ["pcap", "nanoseconds", "Ixia", "pcapng", "snoop"])
def test_cut_at_every_byte(form: str, order: str) -> None:
    data = {
        **{
            name: pcap_head(order, magic) + bytes(more)
            + b"".join(pcap_record(bytes([n]) * n, order, (n + 1, n)) for n in (1, 0, 13, 4))
            for name, magic, more in (("pcap", MICRO, 0), ("nanoseconds", NANO, 0), ("Ixia", IXIA[0], 4))
        },
        "pcapng": b"".join([*every_block(order), section(), interface(), enhanced(b"end")]),
        "snoop": SNOOP_HEAD + b"".join(snoop_record(bytes([n]) * n, (n, n)) for n in (1, 0, 13, 4)),
    }[form]  # fmt: skip
    damages = 0
    for cut in range(len(data)):
        outcome = check(data[:cut])
        assert check(data[:cut], Dribble(data[:cut])) == outcome
        damages += outcome.damage is not None
    assert damages > 50


PCAP, PCAPNG = pcap_head() + pcap_record(b"before"), section() + interface() + enhanced(b"before")
SNOOP_ONE = SNOOP_HEAD + snoop_record(b"before")
#: The bytes before the damage, the damaged bytes, and the message about them.
DAMAGE = [
    (PCAP, pcap_record(b"abc", captured=4), "the file ends in the middle of a record (19 of 20 bytes)"),
    *(
        (PCAP, pcap_record(b"", captured=captured) + bytes(100), f"a captured length of {captured} bytes")
        for captured in (MOST + 1, 0x80000000, 0xFFFFFFFF)
    ),
    (PCAPNG, block(6, bytes(20), total=30), "not a multiple of 4"),
    (PCAPNG, block(9, b"", total=8), "less than 12"),
    (PCAPNG, block(9, b"", total=0), "less than 12"),
    (PCAPNG, block(9, b"", total=MOST + 4), "more than"),
    (PCAPNG, block(9, b"", total=0xFFFFFFFC), "more than"),
    (PCAPNG, block(6, bytes(20), trailer=36), "32 bytes before and 36 bytes after"),
    (PCAPNG, block(6, bytes(16)), "a packet block of 28 bytes"),
    (PCAPNG, block(2, bytes(16)), "a packet block of 28 bytes"),
    (PCAPNG, block(3, b""), "a simple packet block of 12 bytes"),
    (PCAPNG, block(1, bytes(4)), "an interface description of 16 bytes"),
    (PCAPNG, block(0x0A0D0D0A, struct.pack("<IHH", 0x1A2B3C4D, 1, 0)), "a section header of 20 bytes"),
    (PCAPNG, block(0x0A0D0D0A, bytes(16)), "without byte-order magic"),
    (PCAPNG, section(version=(1, 1)), "pcapng version 1.1 is not supported"),
    (PCAPNG, enhanced(b"abc", captured=5), "a captured length of 5 bytes in a block that holds 4"),
    (PCAPNG, enhanced(b"abc", captured=0xFFFFFFFF), "a captured length of 4294967295 bytes"),
    (PCAPNG, enhanced(b"abc", number=1), "interface 1 in a section of 1 interfaces"),
    (PCAPNG, enhanced(b"abc", number=0xFFFFFFFF), "interface 4294967295"),
    (PCAPNG, obsolete(b"abc", number=0xFFFF), "interface 65535"),
    (PCAPNG, interface(options=option(2, b"eth0", length=9)), "an interface option of 9 bytes where 4 are left"),
    (PCAPNG, interface(options=option(2, b"", length=0xFFFF)), "an interface option of 65535 bytes"),
    (PCAPNG, interface(options=option(9, b"ab")), "an if_tsresol option of 2 bytes"),
    (PCAPNG, interface(options=option(9, b"")), "an if_tsresol option of 0 bytes"),
    (PCAPNG, interface(options=option(14, bytes(4))), "an if_tsoffset option of 4 bytes"),
    *(
        (PCAPNG + section(">"), packet, "a packet before any interface description")
        for packet in (enhanced(b"x", ">"), simple(b"x", ">"), obsolete(b"x", ">"))
    ),
    (SNOOP_ONE, snoop_record(b"abc", total=26), "a captured length of 3 bytes in a record of 26"),
    (SNOOP_ONE, snoop_record(b"", total=23), "in a record of 23"),
    (SNOOP_ONE, snoop_record(b"", total=0), "in a record of 0"),     # zeros
    (SNOOP_ONE, snoop_record(b"abc", captured=0xFFFFFFFF), "a captured length of 4294967295 bytes"),
    (SNOOP_ONE, snoop_record(b"abc", total=MOST + 1), f"a record length of {MOST + 1} bytes, more than {MOST}"),
    (SNOOP_ONE, snoop_record(b"abc", total=MOST), "the file ends in the middle of a record"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "bad", "cause"), DAMAGE, ids=lambda given: given if isinstance(given, str) else "")
def test_lengths_that_lie_are_damage(before: bytes, bad: bytes, cause: str) -> None:
    is_cut = "ends in the middle" in cause
    outcome = check(before + bad + (b"" if is_cut else enhanced(b"after") * 2))
    assert [packet.data for packet in outcome.packets] == [b"before"] and outcome.damage is not None
    assert cause in outcome.damage.cause
    assert str(outcome.damage).startswith(f"file: damaged at byte {len(before)}, packet 2: ")


def test_a_length_beyond_all_bounds_is_not_waited_for() -> None:
    stream = Dribble(PCAP + pcap_record(b"", captured=MOST + 1) + bytes(100), (len(PCAP) + 16,))
    assert read(stream).damage is not None and stream.at == len(PCAP) + 16


@ORDERS
@pytest.mark.parametrize("magic", [MICRO, NANO, KUZNETZOV])
def test_captures_put_together_with_cat_are_called_that(order: str, magic: int) -> None:
    # The second header would pass for a packet without bytes, and what follows it for nonsense.
    outcome = check(PCAP + pcap_head(order, magic) + pcap_record(b"abc", order))
    assert [packet.data for packet in outcome.packets] == [b"before"]
    assert str(outcome.damage) == (
        f"file: damaged at byte {len(PCAP)}, packet 2: another pcap file begins here: give the files one by one, or "
        "merge them first (mergecap -w OUT.pcapng FILE...)"
    )
    # Packets without bytes are packets otherwise.
    assert len(check(PCAP + pcap_record(b"", time=(magic, 0))).packets) == 2


# Refusals


USB, X = interface(link_type=189), enhanced(b"x")
REFUSED = [
    *(
        (pcap_head(order, version=version), f"version {version[0]}.{version[1]} is not supported")
        for order in "<>" for version in ((1, 4), (2, 5), (3, 0), (0, 0), (543, 1))
    ),
    (pcap_head(link_type=169), "link type LINKTYPE_GPRS_LLC (169) is not supported; the documentation"),
    (pcap_head(link_type=9999), "link type 9999 is not supported"),
    *(
        (pcap_head(link_type=number) + pcap_record(b""), f"({number}) carries no IP packets")
        for number in sorted(WITHOUT_IP)
    ),
    *((section(version=version), "is not supported") for version in ((0, 1), (1, 1), (2, 0))),
    # Only when its first packet comes.
    (PCAPNG + interface(link_type=169) + X * 2 + enhanced(b"", number=1), "packet 4: link type LINKTYPE_GPRS_LLC"),
    # At the end, even if there is an interface with IP, but none of its packets.
    (
        section() + USB + interface(link_type=227) + interface() + X * 2 + enhanced(b"can", number=1) + bytes(7),
        "all 3 packets: link type LINKTYPE_CAN_SOCKETCAN (227) carries no IP packets",
    ),
    (b"snoop\0\0\0" + struct.pack(">II", 1, 4), "snoop version 1 is not"),
    (b"snoop\0\0\0" + struct.pack(">II", 3, 4), "snoop version 3 is not"),
    (b"snoop\0\0\0" + struct.pack(">II", 2, 8), "data link type 8 is not"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "words"), REFUSED, ids=lambda given: given if isinstance(given, str) else "")
def test_versions_and_link_types_that_nobody_reads_are_refused(data: bytes, words: str) -> None:
    error = check(data).error
    assert error is not None and words in error


def test_interfaces_that_no_packet_is_of_are_not_refused() -> None:
    data = section() + USB + interface() + interface(link_type=169)
    assert check(data) == ([], None, None)
    assert len(check(data + enhanced(b"ip", number=1)).packets) == 1


# Others read what the tests write


@ORDERS
@pytest.mark.parametrize("magic", [MICRO, NANO])
def test_dpkt_reads_the_same(order: str, magic: int) -> None:
    pcap = pcap_head(order, magic) + pcap_record(b"one", order, (5, 7)) + pcap_record(b"three", order, (6, 8))
    blocks = enhanced(b"one", order, 5_000_007) + obsolete(b"three", order, 6_000_008)
    for data in (pcap, section(order) + interface(order) + blocks):
        theirs = [(round(float(time) * 1e9), frame) for time, frame in dpkt.pcap.UniversalReader(io.BytesIO(data))]
        assert [(packet.time_ns, packet.data) for packet in check(data).packets] == theirs


@needs_tshark
def test_tshark_reads_the_same_snoop(tmp_path: Path) -> None:
    path = tmp_path / "x.snoop"
    path.write_bytes(SNOOP_HEAD + snoop_record(bytes(64), (1000, 5), 90) + snoop_record(bytes(61), (1001, 6)))
    fields = [argument for name in ("time_epoch", "len", "cap_len") for argument in ("-e", f"frame.{name}")]
    run = subprocess.run(["tshark", "-r", path, "-T", "fields", *fields], capture_output=True, text=True, check=True)
    told = [line.split() for line in run.stdout.splitlines()]
    assert [(float(time), int(wire), int(captured)) for time, wire, captured in told] == [
        (packet.time_ns / 10**9, packet.wire, len(packet.data)) for packet in read(path.read_bytes()).packets
    ]
