"""Captures whose next windows are read by idle threads: nothing differs but who reads (SPEC 9.14)."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from captures import Packet, drain, enhanced, interface, option, pcap_head, pcap_record, section

from sgfast.capture import CaptureReader, Damage, open_capture
from sgfast.core.base.file_reads import FileReads

SEED = 20261128
WINDOW, HEADROOM = 512 * 1024, 128 * 1024        # sgfast/capture/ahead.pxd
WINDOWS = 8


def pcapng_record(data: bytes) -> bytes:
    return enhanced(data)


#: By format: the bytes before the first record, and a function that makes a record of a packet's bytes.
FORMS = pytest.mark.parametrize(
    ("head", "record"), [(pcap_head(), pcap_record), (section() + interface(), pcapng_record)], ids=["pcap", "pcapng"]
)


def capture_with(places: list[int], head: bytes, record: Callable[[bytes], bytes], draw: random.Random) -> bytes:
    """A capture in which records begin at these places, and others between them. All places are multiples of 4.

    From each second place to the next one there is only one record.
    """
    made = bytearray(head)
    least = len(record(b""))
    for number, place in enumerate([*places, WINDOWS * WINDOW + 4]):
        while len(made) < place:
            left = place - len(made) - least
            size = 4 * draw.randrange(0, 400)
            # The last one ends there.
            made += record(draw.randbytes(left if number % 2 or left - size < least else size))
        assert len(made) == place
    return bytes(made)


def told(reader: CaptureReader) -> tuple[list[Packet], Damage | None, int]:
    with reader:
        return drain(reader), reader.damage, reader.bytes_read


def read_ahead(path: Path) -> tuple[list[Packet], Damage | None, int]:
    # Nobody else does the reads here, so all of them are done when they are needed.
    return told(open_capture(path, lasting=True, reads=FileReads()))


def read_whole(path: Path) -> tuple[list[Packet], Damage | None, int]:
    return told(CaptureReader(io.BytesIO(path.read_bytes()), str(path)))


@FORMS
def test_a_record_that_goes_on_in_the_next_window_comes_whole(
    tmp_path: Path, head: bytes, record: Callable[[bytes], bytes]
) -> None:
    draw = random.Random(SEED)
    path = tmp_path / "capture"
    longest = [HEADROOM - 4, HEADROOM, HEADROOM + 4, 2 * HEADROOM, 2 * WINDOW]
    for before in ([0, 4, 8, 12, 16], [20, 24, 28, 32, 36], [1400] * 5, *([each] for each in longest)):
        # A record begins so many bytes before a window ends, and ends in the next one.
        places = []
        for window, each in enumerate(before, 3):
            places += [window * WINDOW - each, window * WINDOW + 4 * draw.randrange(20, 200)]
        data = capture_with(places, head, record, draw)
        path.write_bytes(data)
        packets, damage, count = read_ahead(path)
        assert (packets, damage, count) == read_whole(path), before
        assert damage is None and count == len(data)


@FORMS
def test_damage_and_a_cut_are_told_where_they_are(
    tmp_path: Path, head: bytes, record: Callable[[bytes], bytes]
) -> None:
    draw = random.Random(SEED)
    path = tmp_path / "capture"
    at = 3 * WINDOW - 100
    data = capture_with([at, at + 2000], head, record, draw)
    damaged = bytearray(data)
    damaged[at + 4 : at + 16] = b"\xff" * 12
    cuts = [data[: n * WINDOW + around] for n in (4, 5) for around in (-1, 0, 1, 17)]
    for each in (bytes(damaged), *cuts):
        path.write_bytes(each)
        packets, damage, _ = read_ahead(path)
        assert (packets, damage) == read_whole(path)[:2]
        assert packets
    assert read_whole(path)[1] is not None


def test_a_file_that_shrinks_or_grows_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    data = capture_with([], pcap_head(), pcap_record, random.Random(SEED))
    more = pcap_record(bytes(1000)) * 3000
    for length in (2 * WINDOW, 3 * WINDOW + 1000, len(data) + len(more)):
        path.write_bytes(data)
        reader = open_capture(path, lasting=True, reads=FileReads())
        first = reader.next_batch()
        assert first is not None
        got = [Packet(*frame) for frame in first]
        with path.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(more)
            file.truncate(length)
        with reader:
            while (batch := reader.next_batch()) is not None:
                got += [Packet(*frame) for frame in batch]
        assert (got, reader.damage) == read_whole(path)[:2]


def test_a_head_that_is_longer_than_a_window_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    # The reader's window has grown then. If all of them were as large, that would be a lot of memory.
    head = section(options=option(1, bytes(60_000)) * 18) + interface()
    assert 2 * WINDOW < len(head) < 3 * WINDOW - HEADROOM
    data = capture_with([], head, pcapng_record, random.Random(SEED))
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
    assert told(open_capture(path, lasting=True, reads=reads)) == read_whole(path)


def test_more_readers_than_reads_read_without_them(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(capture_with([], pcap_head(), pcap_record, random.Random(SEED)))
    reads = FileReads()
    readers = [open_capture(path, lasting=True, reads=reads) for _ in range(8)]
    got: list[list[Packet]] = [[] for _ in readers]
    ended = 0
    while ended < len(readers):
        ended = 0
        for reader, packets in zip(readers, got, strict=True):
            batch = reader.next_batch()
            ended += batch is None
            packets += [] if batch is None else [Packet(*frame) for frame in batch]
    expected = read_whole(path)[0]
    for packets in got:
        assert packets == expected
