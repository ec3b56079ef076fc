"""Idle threads read the next windows of a capture and find their records. The packets are the same (SPEC 9.14)."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from captures import (
    KUZNETZOV,
    NANO,
    Packet,
    block,
    enhanced,
    interface,
    option,
    pcap_head,
    pcap_record,
    section,
    simple,
    tsresol,
)

from sgfast.base.errors import CaptureError
from sgfast.core.base.file_reads import FileReads
from sgfast.traffic.capture import CaptureReader, Damage, open_capture

SEED = 20261128
WINDOW, HEADROOM = 256 * 1024, 128 * 1024        # sgfast/traffic/capture/ahead.pxd
WINDOWS = 8


def end(window: int) -> int:
    """The place in the file where a window ends, counted from 1. The first one fills the reader's whole memory."""
    return HEADROOM + window * WINDOW


#: By format: the bytes before the first record, and a function that makes a record of a packet's bytes.
FORMS = pytest.mark.parametrize(
    ("head", "record"), [(pcap_head(), pcap_record), (section() + interface(), enhanced)], ids=["pcap", "pcapng"]
)


def capture_with(places: list[int], head: bytes, record: Callable[[bytes], bytes], draw: random.Random) -> bytes:
    """A capture in which records begin at these places, and others between them. All places are multiples of 4.

    From each second place to the next one there is only one record.
    """
    made = bytearray(head)
    least = len(record(b""))
    for number, place in enumerate([*places, end(WINDOWS) + 4]):
        while len(made) < place:
            left = place - len(made) - least
            size = 4 * draw.randrange(0, 400)
            # The last one ends there.
            made += record(draw.randbytes(left if number % 2 or left - size < least else size))
        assert len(made) == place
    return bytes(made)


#: The packets, the damage, the number of bytes, and the preamble.
Told = tuple[list[Packet], Damage | None, int, tuple[tuple[int, int], ...] | None]


def told(reader: CaptureReader) -> Told:
    packets: list[Packet] = []
    vpcs: list[int] = []
    places: list[tuple[int, int]] = []
    reader.number = 3
    with reader:
        while (batch := reader.next_batch()) is not None:
            packets += [Packet(*frame) for frame in batch]
            vpcs += batch.vpcs
            captures, numbers = np.zeros((2, len(batch)), dtype=np.int64)
            batch.fill_positions(0, captures, numbers)
            places += zip(captures.tolist(), numbers.tolist(), strict=True)
    assert places == [(3, number) for number in range(1, reader.packets + 1)]
    assert vpcs == [6] * reader.packets
    return packets, reader.damage, reader.bytes_read, reader.preamble


def ahead(path: Path) -> CaptureReader:
    # Nobody else does the reads here, so all of them are done when they are needed.
    return open_capture(path, lasting=True, reads=FileReads(), vpc=7)


def read_ahead(path: Path) -> Told:
    return told(ahead(path))


def read_whole(path: Path) -> Told:
    return told(CaptureReader(io.BytesIO(path.read_bytes()), str(path), vpc=7))


def assert_same(path: Path, data: bytes) -> Told:
    """Assert that reading ahead gives the same as reading at once, and return that."""
    path.write_bytes(data)
    whole = read_whole(path)
    assert read_ahead(path) == whole
    return whole


@FORMS
def test_a_record_that_goes_on_in_the_next_window_comes_whole(
    tmp_path: Path, head: bytes, record: Callable[[bytes], bytes]
) -> None:
    draw, path = random.Random(SEED), tmp_path / "capture"
    longest = [HEADROOM - 4, HEADROOM, HEADROOM + 4, 2 * HEADROOM, 2 * WINDOW]
    for before in ([0, 4, 8, 12, 16], [20, 24, 28, 32, 36], [1400] * 5, *([each] for each in longest)):
        # A record begins so many bytes before a window ends, and ends in the next one.
        places = []
        for window, each in enumerate(before, 3):
            places += [end(window) - each, end(window) + 4 * draw.randrange(20, 200)]
        data = capture_with(places, head, record, draw)
        assert assert_same(path, data)[1:3] == (None, len(data)), before


@FORMS
def test_damage_and_a_cut_are_told_where_they_are(
    tmp_path: Path, head: bytes, record: Callable[[bytes], bytes]
) -> None:
    path, at = tmp_path / "capture", end(3) - 100
    data = capture_with([at, at + 2000], head, record, random.Random(SEED))
    damaged = data[: at + 4] + b"\xff" * 12 + data[at + 16 :]
    for each in (damaged, *(data[: end(n) + around] for n in (4, 5) for around in (-1, 0, 1, 17))):
        path.write_bytes(each)
        # The number of bytes that were read before the damage shows may differ.
        packets, damage, *_ = read_whole(path)
        assert packets and damage is not None and read_ahead(path)[:2] == (packets, damage)


def test_a_file_that_shrinks_or_grows_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    data = capture_with([], pcap_head(), pcap_record, random.Random(SEED))
    more = pcap_record(bytes(1000)) * 3000
    for length in (2 * WINDOW, 3 * WINDOW + 1000, len(data) + len(more)):
        path.write_bytes(data)
        with open_capture(path, lasting=True, reads=FileReads()) as reader:
            got = [Packet(*frame) for frame in reader.next_batch() or ()]
            with path.open("ab") as file:
                file.write(more)
                file.truncate(length)
            got += [Packet(*frame) for batch in iter(reader.next_batch, None) for frame in batch]
        assert got and (got, reader.damage) == read_whole(path)[:2]


def test_a_head_that_is_longer_than_a_window_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    # The reader's window has grown then. If all of them were as large, that would be a lot of memory.
    head = section(options=option(1, bytes(60_000)) * 10) + interface()
    assert 2 * WINDOW < len(head) < 3 * WINDOW - HEADROOM
    data = capture_with([], head, enhanced, random.Random(SEED))
    path.write_bytes(data)
    reads = FileReads()
    reader = open_capture(path, lasting=True, reads=reads)
    assert reader.next_batch() is not None and not reads.waiting
    reader.close()
    assert read_ahead(path) == read_whole(path)


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_reader_that_is_left_early_lets_go_of_its_reads(tmp_path: Path, is_closed: bool) -> None:
    path = tmp_path / "capture"
    path.write_bytes(capture_with([], pcap_head(), pcap_record, random.Random(SEED)))
    reads = FileReads()
    for _ in range(5):      # more than there are places for reads
        reader = open_capture(path, lasting=True, reads=reads)
        while reader.packets == 0 or reader.bytes_read < 2 * WINDOW:
            assert reader.next_batch() is not None
        assert reads.waiting
        if is_closed:
            reader.close()
        del reader
        assert not reads.waiting
    assert told(open_capture(path, lasting=True, reads=reads, vpc=7)) == read_whole(path)


def test_more_readers_than_reads_read_without_them(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(capture_with([], pcap_head(), pcap_record, random.Random(SEED)))
    reads = FileReads()
    readers = [open_capture(path, lasting=True, reads=reads) for _ in range(8)]
    got: list[list[Packet]] = [[] for _ in readers]
    for batches in zip(*(iter(reader.next_batch, None) for reader in readers), strict=True):
        for packets, batch in zip(got, batches, strict=True):
            packets += [Packet(*frame) for frame in batch]
    assert got == [read_whole(path)[0]] * 8


def kuznetzov(data: bytes) -> bytes:
    return pcap_record(bytes(8) + data, wire=len(data), captured=len(data))


@pytest.mark.parametrize(
    ("head", "record"),
    [
        (pcap_head(), pcap_record),
        (pcap_head(">"), lambda data: pcap_record(data, ">", (1_700_000_000, 999_999))),
        (pcap_head(magic=NANO), lambda data: pcap_record(data, time=(1, 999_999_999))),
        (pcap_head(magic=KUZNETZOV), kuznetzov),
        (section() + interface(), enhanced),
        (section(">") + interface(">"), lambda data: enhanced(data, ">", options=option(1, b"seen", ">"))),
    ],
    ids=["pcap", "big-endian", "nanoseconds", "Kuznetzov", "pcapng", "big-endian pcapng"],
)
def test_who_reads_a_window_finds_its_records(
    tmp_path: Path, head: bytes, record: Callable[[bytes], bytes]
) -> None:
    draw = random.Random(SEED)
    path = tmp_path / "capture"
    made = bytearray(head)
    while len(made) < WINDOWS * WINDOW:
        made += record(draw.randbytes(draw.randrange(40, 1500)))
    path.write_bytes(made)
    reader = ahead(path)
    assert told(reader) == read_whole(path)
    # No thread finds the records of the first window, nor those of the last window, which is not full.
    assert reader.found_ahead > 0.7 * reader.packets


@FORMS
def test_bytes_of_a_packet_that_look_like_records_are_none(
    tmp_path: Path, head: bytes, record: Callable[[bytes], bytes]
) -> None:
    # Each packet is a piece of another capture, and each window begins in one.
    path = tmp_path / "capture"
    packet = record(record(bytes(20)) * 400)
    path.write_bytes(head + packet * (WINDOWS * WINDOW // len(packet)))
    reader = ahead(path)
    assert told(reader) == read_whole(path)
    assert not reader.found_ahead


def test_blocks_that_change_how_later_ones_are_read_hold_for_those_found_ahead(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    for seed in range(SEED, SEED + 12):
        draw = random.Random(seed)
        order = draw.choice("<>")
        made = bytearray(section(order) + interface(order))
        interfaces = 1
        # There are some 6,000 packets.
        often = draw.choice([400, 4_000, 10_000])
        while len(made) < WINDOWS * WINDOW:
            match draw.randrange(often):
                case 0:
                    made += interface(order, draw.choice([1, 101]), options=tsresol(draw.randrange(10), order))
                    interfaces += 1
                case 1:
                    made += simple(bytes(80), order)
                case 2:
                    order = draw.choice("<>")
                    made += section(order) + interface(order, options=tsresol(9, order))
                    interfaces = 1
                case 3:
                    made += block(5, bytes(12), order)
            number = draw.randrange(interfaces)
            data = draw.randbytes(draw.randrange(0, 1500))
            made += enhanced(data, order, draw.randrange(1 << 40), number=number)
        print(f"seed {seed}")
        assert_same(path, made)


@pytest.mark.parametrize("kinds", ["sections", "interfaces", "interfaces and sections"])
def test_what_is_new_in_two_windows_in_a_row_holds_for_packets_found_in_the_second(tmp_path: Path, kinds: str) -> None:
    made = bytearray(section() + interface())
    number = interfaces = 0
    for window in range(1, WINDOWS):
        while len(made) < end(window) + 10_000:
            made += enhanced(bytes(100), ticks=len(made))
        # The packets that follow are on the second newest interface. Its description is in the window before.
        number = interfaces
        interfaces += 1
        if kinds == "sections" or (kinds.endswith("sections") and window % 2 == 0):
            made += section()
            number = interfaces = 0
        made += interface(options=tsresol(window))
        while len(made) < end(window) + 20_000:
            made += enhanced(bytes(100), ticks=len(made), number=number)
    assert_same(tmp_path / "capture", made + enhanced(bytes(100), ticks=len(made)) * 4000)


def of_interfaces(*until: tuple[int, int]) -> bytes:
    """A capture of packets on one interface up to a place, on another one up to the next place, and so on.

    Only those on interface 2 can hold IP. All places are multiples of 4.
    """
    made = section() + interface(link_type=187) + interface(link_type=189) + interface()
    for number, place in until:
        usual = enhanced(bytes(100), number=number)
        made += usual * ((place - len(made)) // len(usual) - 1)
        made += enhanced(bytes(100 + place - len(made) - len(usual)), number=number)
    return made


def test_what_carries_no_ip_is_told_of_packets_found_ahead(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    causes = []
    # The last window is whole, so the last packet is found ahead.
    path.write_bytes(of_interfaces((0, end(7) + 1000), (1, end(8))))
    for read in (read_ahead, read_whole):
        with pytest.raises(CaptureError, match="USB_LINUX") as error:
            read(path)
        causes.append(str(error.value))
    assert causes[0] == causes[1]
    # Some that carry IP, in the middle of a window.
    assert_same(path, of_interfaces((0, end(4) + 2000), (2, end(4) + 3000), (0, end(8))))


def test_a_packet_without_a_time_has_that_of_the_last_one_found_ahead(tmp_path: Path) -> None:
    made = bytearray(section() + interface())
    for window in range(1, WINDOWS):
        while len(made) < end(window) - 150:
            made += enhanced(bytes(100), ticks=len(made))
        made += simple(bytes(200))      # goes on in the next window
    assert_same(tmp_path / "capture", made)
