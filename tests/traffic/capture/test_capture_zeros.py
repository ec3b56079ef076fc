"""Zeros at the end of a capture that nobody wrote: after a crash, or where a file gets its size first (SPEC 9.6)."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from captures import (
    IXIA,
    KUZNETZOV,
    MICRO,
    NANO,
    ORDERS,
    SNOOP_HEAD,
    Dribble,
    Outcome,
    check,
    count,
    enhanced,
    interface,
    pcap_head,
    pcap_record,
    read,
    section,
    snoop_record,
)
from command import handshake, process, sgfast, write_capture, write_policy
from growth import memory

from sgfast.core.base.file_reads import FileReads
from sgfast.questions.replaying.cluster.plan import units_of
from sgfast.questions.replaying.cluster.reading import open_input, ranges_of
from sgfast.traffic.capture import CaptureReader, open_capture

Capsys = pytest.CaptureFixture[str]

SEED = 20261203
WINDOW = 512 * 1024     # StreamBuffer
MAGICS = pytest.mark.parametrize("magic", [MICRO, NANO, KUZNETZOV, *IXIA])


def head_of(magic: int, order: str) -> bytes:
    return pcap_head(order, magic) + (bytes(4) if magic in IXIA else b"")


def record_of(magic: int, order: str, data: bytes, second: int = 1) -> bytes:
    record = pcap_record(data, order, (second, 0))
    return record[:16] + (bytes(8) if magic == KUZNETZOV else b"") + record[16:]


def ends_in_zeros(outcome: Outcome, at: int, zeros: int) -> bool:
    damage = outcome.damage
    assert damage is not None and damage.offset == at
    return damage.cause.startswith(f"only zeros follow ({zeros} bytes)")


@ORDERS
@MAGICS
def test_zeros_up_to_the_end_are_damage_and_no_packets(magic: int, order: str) -> None:
    header = 24 if magic == KUZNETZOV else 16
    whole = head_of(magic, order) + record_of(magic, order, b"some")
    for zeros in (1, header - 1, header, header + 1, 5 * header, 5 * header + 7, 100_000, 3 * WINDOW):
        for stream in (None, Dribble(whole + bytes(zeros), (100_000, 1, 7))):
            outcome = check(whole + bytes(zeros), stream)
            assert len(outcome.packets) == 1
            assert ends_in_zeros(outcome, len(whole), zeros) == (zeros >= header)
    assert ends_in_zeros(check(head_of(magic, order) + bytes(header)), len(head_of(magic, order)), header)


@ORDERS
@MAGICS
def test_zeros_before_something_else_are_empty_packets(magic: int, order: str) -> None:
    header = 24 if magic == KUZNETZOV else 16
    for records in (1, 2, 8191, 8192, 8193, 70_000):
        data = head_of(magic, order) + bytes(records * header) + record_of(magic, order, b"some")
        outcome = check(data)
        assert len(outcome.packets) == records + 1 and outcome.damage is None
        damaged = check(data[:-1])
        assert len(damaged.packets) == records and damaged.damage is not None
        assert "in the middle of a record" in damaged.damage.cause


def test_a_record_whose_bytes_are_zeros_is_whole() -> None:
    data = pcap_head() + pcap_record(bytes(60)) + pcap_record(b"", time=(5, 0))
    assert len(check(data).packets) == 2
    assert ends_in_zeros(check(data + bytes(4096)), len(data), 4096)
    cut = pcap_head() + pcap_record(bytes(60), captured=61)     # it says one more
    outcome = check(cut)
    assert outcome.damage is not None and "(76 of 77 bytes)" in outcome.damage.cause


@pytest.mark.parametrize(
    "whole",
    [section() + interface() + enhanced(b"some"), section(">") + interface(">"), SNOOP_HEAD + snoop_record(b"some")],
    ids=["pcapng", "pcapng-big", "snoop"],
)
def test_zeros_are_damage_in_formats_without_empty_records(whole: bytes) -> None:
    packets = len(read(whole).packets)
    for zeros in (1, 12, 100, 3 * WINDOW):
        for end in (b"", whole):
            outcome = read(whole + bytes(zeros) + end)
            assert len(outcome.packets) == packets
            assert outcome.damage is not None and outcome.damage.offset == len(whole)


# The same, however it is read


def ways(path: Path) -> Iterator[tuple[str, CaptureReader]]:
    data = path.read_bytes()
    yield "file", open_capture(path)
    yield "ahead", open_capture(path, lasting=True, reads=FileReads())
    yield "pieces", CaptureReader(Dribble(data, (65536, 1, 4099)), str(path))
    yield "gzip", CaptureReader(io.BytesIO(gzip.compress(data, 1)), str(path))


@pytest.mark.parametrize("border", [WINDOW, 6 * WINDOW])
@pytest.mark.parametrize("shift", [-16, -1, 0, 1, 16])
def test_zeros_at_the_borders_of_windows(tmp_path: Path, border: int, shift: int) -> None:
    """A window ends `shift` bytes behind the place where the zeros begin, or end."""
    draw = random.Random(f"{SEED} {border} {shift}")
    path = tmp_path / "capture"
    # Windows that are read ahead begin behind the first one.
    begin = border + shift
    made, second = bytearray(pcap_head()), 1
    while len(made) < begin:
        left = begin - len(made) - 16
        size = draw.randrange(400, 4000)
        made += pcap_record(draw.randbytes(left if left < 5000 else size), time=(second, 0))
        second += 1
    assert len(made) == begin
    rest = b"".join(pcap_record(draw.randbytes(1000), time=(second + n, 0)) for n in range(1_200))
    for zeros in (16, 4096, 2 * WINDOW - shift):
        for end in (b"", rest):
            data = bytes(made) + bytes(zeros) + end
            path.write_bytes(data)
            expected = check(data)
            for name, reader in ways(path):
                with reader:
                    packets = [frame for batch in iter(reader.next_batch, None) for frame in batch]
                    assert packets == expected.packets, (name, zeros, len(end))
                    found = reader.damage
                    was = expected.damage
                    assert (found is None) == (was is None)
                    if found is not None and was is not None:
                        assert (found.offset, found.cause) == (was.offset, was.cause), (name, zeros, len(end))


def test_many_zeros_take_little_memory_and_are_read_once() -> None:
    zeros = 40_000_000
    for end, packets in ((b"", 0), (pcap_record(b"x"), zeros // 16 + 1)):
        stream = Dribble(pcap_head() + bytes(zeros) + end, (1 << 20,))
        with memory() as peak:
            reader = CaptureReader(stream, "name")
            assert count(reader) == packets
        assert peak() < 5_000_000 and stream.at == 24 + zeros + len(end)
        assert (reader.damage is None) == bool(end)


def test_zeros_and_packets_in_turn_take_linear_time() -> None:
    """If each record of zeros were a reason to look at all that follows, this would take days."""
    pair = bytes(16) + pcap_record(b"x", time=(1, 0))
    reader = CaptureReader(io.BytesIO(pcap_head() + pair * 1_000_000), "name")
    assert count(reader) == 2_000_000 and reader.damage is None


def test_a_read_that_fails_behind_zeros_is_told_where_they_begin() -> None:
    data = gzip.compress(pcap_head() + pcap_record(b"some") + bytes(3_000_000))
    packets, damage, _ = read(data[:-4])
    assert len(packets) == 1 and damage is not None
    assert "is cut short" in damage.cause and damage.offset == 44 and damage.packet == 2


# The commands


def test_all_that_read_captures_end_with_3(capsys: Capsys, tmp_path: Path) -> None:
    policy, path = write_policy(tmp_path), write_capture(tmp_path, *handshake(1000, 80))
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + bytes(1_000_000))
    words = f"damaged at byte {size}, packet 4: only zeros follow (1000000 bytes)"
    for arguments in (
        ("replay", policy, path), ("replay", policy, path, "--jobs", 3), ("replay", policy, path, "--merge"),
        ("replay", policy, path, "--engine", "reference"), ("diff", policy, policy, path),
        ("diff", policy, policy, path, "--jobs", 2), ("check", policy, "--traffic", path), ("suggest", path),
    ):  # fmt: skip
        outcome = sgfast(capsys, *arguments)
        assert outcome.status == 3 and words in outcome.err, arguments
    with open(path) as given:
        outcome = process("replay", policy, "-", stdin=given)
    assert outcome.status == 3 and words in outcome.one_line()


def test_no_range_of_a_capture_ends_in_zeros(tmp_path: Path) -> None:
    """They would look like the end of a capture that was not written to its end (SPEC 9.15)."""
    path = tmp_path / "capture"
    record = pcap_record(b"some", time=(1, 0))
    zeros = bytes(16 * 20_000)
    path.write_bytes(pcap_head() + record * 20_000 + zeros + record * 20_000 + zeros)
    [unit] = units_of([[(str(path), None)]])
    packets = 0
    parts = ranges_of(unit.inputs[0], 1)
    for part in parts:
        with open_input(part) as reader:
            packets += count(reader)
            assert (reader.damage is not None) == (part is parts[-1])
    assert packets == 60_000 and len(parts) > 3


# Following


class Writer:
    """A file that is followed. What is to happen next happens when the reader has read all there is."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        self.steps: list[Callable[[], None]] = []
        path.write_bytes(content)

    def then(self, at: int, data: bytes, size: int | None = None) -> None:
        def write() -> None:
            with open(self.path, "r+b") as file:
                if size is not None:
                    file.truncate(size)
                file.seek(at)
                file.write(data)

        self.steps.append(write)

    def read(self, monkeypatch: pytest.MonkeyPatch) -> tuple[list[list[bytes]], CaptureReader]:
        """The packets that were there before each step, and those after the last one."""
        found: list[list[bytes]] = [[]]
        ended = False

        def step(seconds: float) -> None:
            nonlocal ended
            if self.steps:
                self.steps.pop(0)()
                found.append([])
            else:
                ended = True

        monkeypatch.setattr("sgfast.base.streams.binary_stream.time.sleep", step)
        with open_capture(self.path, until=lambda: ended) as reader:
            while (batch := reader.next_batch()) is not None:
                found[-1] += [frame[1] for frame in batch]
            return found, reader


FRAMES = [b"first" + bytes(9), b"second", b"third" + bytes(30), bytes(7) + b"fourth" + bytes(3)]
FORMS = pytest.mark.parametrize(
    ("head", "record"),
    [
        (pcap_head(), pcap_record), (pcap_head(">"), lambda data: pcap_record(data, ">")),
        (section() + interface(), enhanced), (section(">") + interface(">"), lambda data: enhanced(data, ">")),
        (SNOOP_HEAD, snoop_record),
    ],
    ids=["pcap", "pcap-big", "pcapng", "pcapng-big", "snoop"],
)  # fmt: skip


@FORMS
@pytest.mark.parametrize("size", [5_000, 3 * WINDOW])
def test_what_is_not_written_yet_is_waited_for_and_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: bytes, record: Callable[[bytes], bytes], size: int
) -> None:
    whole = head + b"".join(map(record, FRAMES))
    ends = list(itertools.accumulate((len(record(frame)) for frame in FRAMES), initial=len(head)))
    for cut in [*range(0, len(whole), 7), len(whole)]:
        # The file has its size, and then its beginning, and then the rest.
        writer = Writer(tmp_path / "growing", bytes(size))
        writer.then(0, whole[:cut])
        writer.then(cut, whole[cut:])
        writer.then(0, whole, len(whole))       # the rest of the size is given back
        found, reader = writer.read(monkeypatch)
        assert [frame for step in found for frame in step] == FRAMES, cut
        # No packet came before it was there.
        assert len(found[0] + found[1]) <= sum(end <= cut for end in ends[1:])
        assert reader.damage is None and reader.packets == 4


@FORMS
def test_a_packet_that_ends_in_zeros_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: bytes, record: Callable[[bytes], bytes]
) -> None:
    writer = Writer(tmp_path / "growing", head)
    at = len(head)
    for frame in FRAMES:
        writer.then(at, record(frame))
        at += len(record(frame))
    found, _ = writer.read(monkeypatch)
    assert found == [[], *([frame] for frame in FRAMES)]


@FORMS
def test_an_interrupt_ends_what_is_written_so_far(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: bytes, record: Callable[[bytes], bytes]
) -> None:
    writer = Writer(tmp_path / "growing", head + b"".join(map(record, FRAMES)) + bytes(2_000_000))
    found, reader = writer.read(monkeypatch)
    assert found == [FRAMES] and reader.damage is None


def test_a_file_that_goes_away_before_it_is_written_is_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = pcap_head() + b"".join(map(pcap_record, FRAMES))
    writer = Writer(tmp_path / "growing", whole + bytes(2_000_000))
    writer.steps += [writer.path.unlink, *[lambda: None] * 4]
    found, reader = writer.read(monkeypatch)
    assert [frame for step in found for frame in step] == FRAMES
    assert reader.damage is not None and "was removed while it was followed" in reader.damage.cause
    assert reader.damage.offset == len(whole)


def test_zeros_before_something_else_are_packets_of_a_followed_file_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    zeros = 3 * WINDOW
    writer = Writer(tmp_path / "growing", pcap_head() + pcap_record(b"x") + bytes(zeros))
    writer.then(24 + 17 + zeros, pcap_record(b"y"))
    found, reader = writer.read(monkeypatch)
    assert found[0] == [b"x"] and len(found[1]) == zeros // 16 + 1 and reader.damage is None


def test_zeros_are_not_looked_at_again_while_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    writer = Writer(tmp_path / "growing", pcap_head() + pcap_record(b"x") + bytes(20_000_000))
    writer.steps += [lambda: None] * 100
    looks: list[int] = []
    really = os.pread

    def counted(descriptor: int, size: int, at: int) -> bytes:
        looks.append(at)
        return really(descriptor, size, at)

    monkeypatch.setattr("sgfast.traffic.capture.following.os.pread", counted)
    found, _ = writer.read(monkeypatch)
    assert found[0] == [b"x"] and len(found) == 101 and len(looks) <= 22


def test_a_compressed_file_that_is_not_written_yet_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = gzip.compress(pcap_head() + b"".join(map(pcap_record, FRAMES)))
    for cut in range(0, len(whole), 5):
        writer = Writer(tmp_path / "growing", bytes(100_000))
        writer.then(0, whole[:cut])
        writer.then(cut, whole[cut:])
        found, reader = writer.read(monkeypatch)
        assert [frame for step in found for frame in step] == FRAMES and reader.damage is None
