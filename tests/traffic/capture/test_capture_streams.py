"""Opening captures and reading from files, pipes and misbehaving streams (SPEC 9.6)."""

from __future__ import annotations

import errno
import io
import itertools
import os
import random
import sys
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from captures import Dribble, block, count, drain, enhanced, interface, pcap_head, pcap_record, read, section
from command import handshake, shell, write_capture, write_policy
from effort import some
from growth import memory

from sgfast import FrameBatch
from sgfast.base.errors import CaptureError
from sgfast.traffic.capture import CaptureReader, Damage, open_capture

RECORD = pcap_record(bytes(range(64)), time=(1, 2))
SMALL = pcap_head() + RECORD * 3


def refusal(path: str | os.PathLike[str]) -> str:
    with pytest.raises(CaptureError) as caught:
        open_capture(path)
    message = str(caught.value)
    assert message.isprintable()
    return message


# Opening


def test_missing_directory_and_impossible_names(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"{tmp_path}/none: does not exist; check the path"
    assert "is a directory" in refusal(tmp_path)
    assert "cannot be opened" in refusal("nul\0byte")
    assert "a\\nb" in refusal("a\nb")
    assert "\\udcff" in refusal("\udcff")


def test_too_many_open_files_say_what_to_do(tmp_path: Path) -> None:
    policy, folder = write_policy(tmp_path), tmp_path / "captures"
    folder.mkdir()
    for n in range(30):
        write_capture(folder, *handshake(1000 + n, 80), name=f"{n}.pcap")
    outcome = shell('ulimit -n 20; $sgfast replay "$policy" "$folder"', policy=policy, folder=folder)
    assert outcome.status == 2 and "ulimit -n" in outcome.one_line() and str(folder) in outcome.one_line()


def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SMALL)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    assert "may not be read" in refusal(path)


def test_what_a_file_looks_like_is_said(tmp_path: Path) -> None:
    cases: list[tuple[bytes, str]] = [
        (b"", "is empty"),
        (b"\x1f\x9d" + bytes(20), "(compress): decompress it first (zcat FILE | sgfast replay POLICY -)"),
        (b"\x02\x21\x4c\x18" + bytes(20), "lz4-compressed in its legacy format: decompress it first (lz4cat FILE"),
        (b"PK\x03\x04" + bytes(20), "ZIP archive"),
        (bytes(257) + b"ustar" + bytes(300), "tar archive"),
        (b"snooping around", "is text"),
        (b"TRSNIFF data    " + bytes(20), "Sniffer capture: convert it"),
        (bytes.fromhex("a1b234cd") + bytes(20), "is a capture in Francisco Mesquita's unpublished variant of pcap"),
        (bytes.fromhex("cd34b2a1") + bytes(20), "variant of pcap: export it as plain pcap or pcapng"),
        (bytes.fromhex("a12b3c4d") + bytes(20), "is a capture in Navtel's unpublished variant of pcap: export it"),
        (bytes.fromhex("4d3c2ba1") + bytes(20), "is a capture in Navtel's unpublished variant of pcap: export it"),
        (bytes(100), "holds zeros"),
        (b"version: 1\ngroups: []\n", "is a policy, not a capture"),
        ("gr\u00fc\u00dfe\n".encode() * 200, "is text"),
        (b"abc", "too short"),
        (b"\n\r\r\n is not always pcapng\n", "byte-order magic"),
        (bytes(range(128, 256)), "is not a capture (it starts with 80818283)"),
        (pcap_head()[:10], "the pcap header is cut short (10 of 24 bytes)"),
        (section()[:20], "the pcapng header is cut short (20 of 28 bytes)"),
    ]
    for number, (data, expected) in enumerate(cases):
        path = tmp_path / str(number)
        path.write_bytes(data)
        assert expected in refusal(path)
        assert refusal(path).startswith(f"{path}: ")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Dribble(SMALL, (100,)))))
    with open_capture("-") as reader:
        assert reader.name == "standard input"
        assert len(drain(reader)) == 3
    assert not sys.stdin.closed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SMALL)))
    with open_capture("-") as reader:
        assert len(drain(reader)) == 3
    for nothing in (None, io.StringIO("text")):
        monkeypatch.setattr(sys, "stdin", nothing)
        assert refusal("-").startswith("standard input: ")


class _Raw(io.RawIOBase):
    """A descriptor read without the checks of open()."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def readinto(self, buffer) -> int:
        return os.readv(self.descriptor, [buffer])

    def fileno(self) -> int:
        return self.descriptor

    def close(self) -> None:
        if not self.closed:
            os.close(self.descriptor)
        super().close()


def test_file_is_closed_with_the_reader_and_on_errors(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(SMALL)
    with open(path, "rb", buffering=0) as stream:
        CaptureReader(stream, "name").close()
        assert not stream.closed
        stream.seek(0)
        with CaptureReader(stream, "name", owns_stream=True):
            pass
        assert stream.closed
    path.write_bytes(b"no capture")
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    for _ in range(10):
        refusal(path)
    assert not before or len(os.listdir("/proc/self/fd")) <= before


def test_a_closed_reader_says_so() -> None:
    reader = CaptureReader(io.BytesIO(SMALL), "name")
    batch = reader.next_batch()
    reader.close()
    reader.close()
    assert batch is not None and len(list(batch)) == 3  # still there
    with pytest.raises(ValueError, match="closed"):
        reader.next_batch()
    assert reader.packets == 3


# Pipes and other slow streams


def test_pipe_hands_out_what_is_complete() -> None:
    receive, send = os.pipe()
    with _Raw(receive) as stream, os.fdopen(send, "wb", buffering=0) as out:
        out.write(pcap_head() + RECORD + RECORD[:40])
        reader = CaptureReader(stream, "pipe")
        batch = reader.next_batch()
        assert batch is not None and len(batch) == 1
        out.write(RECORD[40:] + RECORD[:3])
        batch = reader.next_batch()
        assert batch is not None and len(batch) == 1
        assert next(iter(batch))[1] == bytes(range(64))
        out.close()
        assert reader.next_batch() is None
        assert reader.damage == Damage("pipe", 24 + 160, 3, "the file ends in the middle of a record (3 of 16 bytes)")


def test_pipe_that_does_not_block() -> None:
    receive, send = os.pipe()
    os.set_blocking(receive, False)
    waiting = threading.Event()

    class Stream(_Raw):
        def readinto(self, buffer) -> int | None:
            try:
                return super().readinto(buffer)
            except BlockingIOError:
                waiting.set()
                return None

    def write() -> None:
        for piece in (SMALL[:30], SMALL[30:]):
            waiting.wait(10)
            waiting.clear()
            os.write(send, piece)
        os.close(send)

    writer = threading.Thread(target=write)
    writer.start()
    with Stream(receive) as stream:
        reader = CaptureReader(stream, "pipe")
        assert len(drain(reader)) == 3 and reader.damage is None
    writer.join()


class Odd(Dribble):
    """A stream that does something else before each read: what ``turns`` say, over and over."""

    def __init__(self, turns: Iterable[object], data: bytes = SMALL, sizes: Sequence[int] = (110,)) -> None:
        super().__init__(data, sizes)
        self.turns = itertools.cycle(turns)

    def readinto(self, buffer) -> Any:
        turn = next(self.turns)
        if turn is None or isinstance(turn, (int, str)):
            return turn
        if turn is not READS:
            raise turn  # type: ignore[misc]
        return super().readinto(buffer)


READS = object()


def test_interrupted_and_empty_handed_reads_are_repeated() -> None:
    outcome = read(Odd([InterruptedError, None, BlockingIOError, READS]))
    assert len(outcome.packets) == 3 and outcome.damage is None


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), EOFError("cut short"), ValueError("odd")])
def test_read_error_in_the_middle_is_damage(error: Exception) -> None:
    outcome = read(Odd([READS, READS, error]))
    assert len(outcome.packets) == 2 and outcome.damage is not None
    assert outcome.damage.offset == 24 + 2 * 80 and outcome.damage.packet == 3
    assert outcome.damage.cause.startswith("reading failed: ")
    assert "cannot be read: " in (read(Odd([READS, error], sizes=(10,))).error or "")


@pytest.mark.parametrize("lie", [-1, 1 << 40, 1 << 70, "3"])
def test_stream_that_lies_about_what_it_read(lie: object) -> None:
    try:
        outcome = read(Odd([READS, lie]))
    except (TypeError, OverflowError):
        return
    assert len(outcome.packets) == 1 and outcome.damage is not None and "claims" in outcome.damage.cause


def test_other_exceptions_pass_and_reading_goes_on() -> None:
    reader = CaptureReader(Odd([READS, KeyboardInterrupt]), "name")
    assert len(reader.next_batch() or ()) == 1
    with pytest.raises(KeyboardInterrupt):
        reader.next_batch()
    assert len(reader.next_batch() or ()) == 1


def test_stream_that_reads_from_its_own_reader() -> None:
    class Stream(Dribble):
        reader: CaptureReader | None = None

        def readinto(self, buffer) -> int:
            if self.reader is not None:
                with pytest.raises(RuntimeError):
                    self.reader.next_batch()
                with pytest.raises(RuntimeError):
                    self.reader.close()
            return super().readinto(buffer)

    stream = Stream(SMALL, (110,))
    stream.reader = reader = CaptureReader(stream, "name")
    assert len(drain(reader)) == 3


def test_old_batch_stays_readable_when_the_window_grows() -> None:
    data = pcap_head() + RECORD * 5 + pcap_record(bytes(3_000_000)) + RECORD
    reader = CaptureReader(io.BytesIO(data), "name")
    first = reader.next_batch()
    assert first is not None
    frames = iter(first)
    next(frames)
    second = reader.next_batch()
    assert second is not None and second is not first and len(second) == 2
    assert all(len(data) in (64, 3_000_000) for _, data, _, _ in frames)


def test_a_lasting_batch_stays_as_it_was_while_somebody_refers_to_it() -> None:
    """Whatever is read meanwhile, stands between packets, and however bytes arrive. Others are filled again."""
    seed = 20261126
    print(f"seed {seed}")
    chance = random.Random(seed)
    kept: deque[tuple[FrameBatch, list[tuple[int, bytes, int, int]]]] = deque()
    compared, batches, filled = 0, set(), 0
    for _ in range(some(6, 12)):
        parts = [section() + interface()]
        for n in range(chance.choice((40_000, 3_000))):
            size = chance.choice((0, 20, 60, 60, 60, 1400)) if chance.random() < 0.9999 else 700_000
            parts.append(enhanced(n.to_bytes(4, "big") * (1 + size // 4), number=0))
            if chance.random() < 0.0005:
                # Some windows full of them.
                parts += [block(0x0BAD, b"\xab" * 150_000)] * chance.choice((1, 4, 12))
        data = b"".join(parts)
        plain = drain(CaptureReader(io.BytesIO(data), "plain"))
        sizes = chance.choice(((1 << 20,), (70_000, 1, 200_000), (600_000, 3)))
        reader = CaptureReader(Dribble(data, sizes), "lasting", lasting=True)
        most, seen = chance.choice((1, 2, 5)), 0
        while (batch := reader.next_batch()) is not None:
            kept.append((batch, list(batch)))
            assert [data for _, data, _, _ in kept[-1][1]] == [p.data for p in plain[seen : seen + len(batch)]]
            seen += len(batch)
            batches.add(id(batch))
            filled += 1
            del batch
            while len(kept) > most:
                before, was = kept.popleft()
                assert list(before) == was
                compared += 1
                del before
        assert seen == len(plain)
    assert compared > 50 and len(batches) < filled / 2


# Files that change, never end or claim too much


@pytest.mark.parametrize("left", [0, 100_000, 700_000, 24 + 80 * 9000])
def test_file_that_shrinks_while_read(tmp_path: Path, left: int) -> None:
    path = tmp_path / "capture"
    path.write_bytes(pcap_head() + RECORD * 40_000)
    with open_capture(path) as reader:
        counted = len(reader.next_batch() or ())
        os.truncate(path, left)
        counted += count(reader)
        assert counted == reader.packets == (reader.bytes_read - 24) // 80
        assert (reader.damage is None) == ((reader.bytes_read - 24) % 80 == 0)
        assert reader.bytes_read == max(left, 512 * 1024)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_dev_zero_is_no_capture() -> None:
    assert "holds zeros" in refusal("/dev/zero")


@pytest.mark.parametrize("claim", [200_000_000, 256 * 1024 * 1024])
@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_memory_follows_what_arrives_not_what_is_claimed(claim: int, form: str) -> None:
    if form == "pcap":
        data = pcap_head() + pcap_record(bytes(100_000), captured=claim)
    else:
        data = section() + claim.to_bytes(4, "little") * 2 + bytes(100_000)
    with memory() as peak:
        outcome = read(data)
    assert outcome.damage is not None and f"of {claim + (16 if form == 'pcap' else 0)} bytes" in outcome.damage.cause
    assert peak() < 3_000_000


def test_large_record_arriving_in_small_pieces_takes_linear_time_and_memory() -> None:
    size = 20_000_000
    stream = Dribble(pcap_head() + pcap_record(bytes(size)), (1000,))
    with memory() as peak:
        assert len(drain(CaptureReader(stream, "name"))[0].data) == size
    assert peak() < 4 * size + 2_000_000
