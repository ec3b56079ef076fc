"""gzip files that a thread reads with zlib-ng's reader: they say what a decompressor says of them (SPEC 9.6)."""

from __future__ import annotations

import gzip
import random
import struct
import sys
import threading
import zlib
from contextlib import closing
from typing import Any

import pytest
from effort import some
from parted import Said, Sizes, cut, file_of, noise, said, small_sizes

from sgfast.capture import compression, decompressed, gzip_files
from sgfast.capture.compression import MAGIC_LENGTH, compression_of
from sgfast.capture.file_bytes import FileBytes

SEED = 20261129
pytestmark = pytest.mark.skipif(not compression.uses_zlib_ng(), reason="this Python does not use zlib-ng")


class Seen:
    """How many files the reader was given, how many it has read to their ends, and how many bytes it has made."""

    def __init__(self) -> None:
        self.begun = self.whole = self.made = 0


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    begin, take = gzip_files.InflatedFile.begin, gzip_files.InflatedFile.take

    def begun(*arguments: Any) -> Any:
        made = begin(*arguments)
        found.begun += made is not None
        return made

    def taken(self: Any, *, wait: bool) -> Any:
        output = take(self, wait=wait)
        found.made += sum(map(len, output or ()))
        found.whole += self.ended and self.beginning.at > 0
        return output

    monkeypatch.setattr(gzip_files.InflatedFile, "begin", begun)
    monkeypatch.setattr(gzip_files.InflatedFile, "take", taken)
    return found


def same(data: bytes, sizes: Sizes, where: str, draw: random.Random) -> Said:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gzip_files, "PIECE", draw.choice((1, 10, 100, 1 << 18)))
        patch.setattr(gzip_files, "CHUNK", draw.choice((1, 16, 100, 1 << 17)))
        alone, several = said(data, 0, sizes), said(data, 1, sizes)
    assert several == alone, f"seed {SEED}, {where}, {sizes}, {data.hex()}"
    return alone


def member(data: bytes, flags: int = 0, texts: bytes = b"", *, is_right: bool = True) -> bytes:
    """A member with these flags in its header, and with ``texts`` behind what they must have."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"some\0\0"
    if flags & 0x04:
        head += struct.pack("<H", 5) + b"extra"
    for flag in (0x08, 0x10):
        if flags & flag:
            head += b"name" + texts + b"\0"
    if flags & 0x02:
        head += struct.pack("<H", (zlib.crc32(head) + (not is_right)) & 0xFFFF)
    packing = zlib.compressobj(wbits=-15)
    return head + packing.compress(data) + packing.flush() + struct.pack("<II", zlib.crc32(data), len(data))


def test_files_of_any_members_padded_and_followed(seen: Seen) -> None:
    draw = random.Random(SEED)
    for n in range(some(300, 5000)):
        plain, data = b"", b""
        for _ in range(draw.randrange(1, 6)):
            for piece in cut(draw, noise(draw, draw.randrange(2000)), 1000):
                plain += piece
                data += draw.choice((gzip.compress(piece), gzip.compress(piece, 0), member(piece, draw.randrange(32))))
                data += draw.choice((b"", b"", bytes(draw.randrange(300))))
        rest = draw.choice((b"", b"", b"\x1f", b"other data", data[:2], b"\x1f\x8b\x09"))
        if data:
            told = same(data + rest, small_sizes(draw), f"case {n}", draw)
            assert told[:3] == (plain, "", rest != b"")
    assert seen.begun > 200 and seen.whole > 50


def small_file(draw: random.Random) -> bytes:
    pieces = [noise(draw, length) for length in (90, 0, 150, 40)]
    return member(pieces[0], 0x1E) + b"".join(map(gzip.compress, pieces[1:])) + bytes(3) + member(b"x" * 50, 0x02)


def test_every_cut(seen: Seen) -> None:
    draw = random.Random(SEED)
    whole = small_file(draw)
    failures = sum(
        same(whole[:length], small_sizes(draw), f"length {length}", draw).failure != ""
        for length in range(MAGIC_LENGTH, len(whole))
    )
    assert failures > 200 and seen.begun > 200


def test_every_damaged_byte(seen: Seen) -> None:
    draw = random.Random(SEED)
    whole = small_file(draw)
    failures = 0
    for at in range(3, len(whole)):
        for bit in some([draw.randrange(8)], list(range(8))):
            data = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
            failures += same(data, small_sizes(draw), f"byte {at}, bit {bit}", draw).failure != ""
    assert failures > 150 and seen.whole > 20


def test_damage_does_not_take_what_an_earlier_call_had_no_room_for() -> None:
    # Ten bytes are made at a time. One more is known when a call ends, and the next byte of input is damaged.
    whole = small_file(random.Random(SEED))
    data = whole[:209] + bytes([whole[209] ^ 1]) + whole[210:]
    made = len(said(data, 0, Sizes(chunk=1, step=1, head=4)).output)
    assert len(said(data, 0, Sizes(chunk=100, step=10, head=50)).output) == made == 217


@pytest.mark.parametrize("flags", [0x20, 0x40, 0x80, 0xE0, 0x21, 0xFF, 0x82, 0xFD, 0xBA])
def test_reserved_flags_make_no_difference(flags: int, seen: Seen) -> None:
    draw = random.Random(SEED)
    whole = member(b"before") + member(b"some", flags) + member(b"behind")
    for _ in range(20):
        assert same(whole, small_sizes(draw), "whole", draw).output == b"beforesomebehind"
    assert seen.whole == seen.begun > 5
    wrong = member(b"before") + member(b"some", flags, is_right=False) + member(b"behind")
    told = same(wrong, small_sizes(draw), "wrong", draw)
    assert ("header crc mismatch" in told.failure) == bool(flags & 0x02)
    for length in range(MAGIC_LENGTH, len(whole)):
        same(whole[:length], small_sizes(draw), f"length {length}", draw)


@pytest.mark.parametrize("flags", [0x08, 0x88, 0x9A])
def test_headers_of_any_length(flags: int, seen: Seen) -> None:
    for length in (60_000, 200_000, 1_500_000, 9_000_000):
        data = member(b"before") + member(b"some", flags, b"x" * length) + member(b"behind")
        before = seen.whole
        told = said(data, 1)
        # The reader takes headers of 128 KiB at most. Others are limited only if zlib would not read them.
        assert told == said(data, 0) and (seen.whole > before) == (length == 60_000)
        assert (told.failure != "") == (flags > 0x80 and length == 9_000_000)


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("flags", [0x00, 0x08, 0x1C])
def test_many_members_without_content_in_a_row(flags: int, more: int, seen: Seen) -> None:
    # zlib-ng does not count such members. So sgfast stops it while there are still fewer than would be damage.
    for name in (b"", b"n" * 60, b"n" * 120):
        nothing = member(b"", flags, name)
        data = member(bytes(3_000_000)) + nothing * (compression.MOST_EMPTY + more) + member(b"behind")
        told = said(data, 1)
        assert (told.failure != "") == bool(more) and told == said(data, 0)
    assert seen.begun == 3 and seen.whole == 0


def test_members_without_content_in_two_pieces(seen: Seen) -> None:
    chunk = gzip_files.CHUNK

    def of(size: int) -> bytes:
        return member(b"", 0x08, b"n" * (size - len(member(b"", 0x08))))

    def filled(size: int) -> bytes:
        """Some 500 members that are as long as a chunk together, or less."""
        number = size * 500 // chunk
        return of(size // number) * (number - 1) + of(size - size // number * (number - 1))

    first = member(bytes(4 * gzip_files.PIECE))
    # Its content ends where a piece ends. The reader goes on, until a chunk ends within the data of a member.
    data = first + filled(chunk - len(first)) + b"".join(filled(chunk) for _ in range(9))
    data += filled(chunk - 300) + of(309) + filled(chunk - 9) + b"".join(filled(chunk) for _ in range(9))
    data += member(b"behind")
    told = said(data, 1)
    assert "empty members follow each other" in told.failure and told == said(data, 0)
    assert (seen.begun, seen.whole) == (1, 0)


def test_members_without_content_whose_marks_are_cut(seen: Seen) -> None:
    length = gzip_files.CHUNK
    first = member(bytes(3_000_000))

    def of(size: int) -> bytes:
        return member(b"", 0x08, b"n" * (size - len(member(b"", 0x08))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gzip_files, "MOST_MEMBERS", 20)
        data = first + of(length - 1 - len(first)) + of(gzip_files.CHUNK - 1) * 30 + member(b"behind")
        assert said(data, 1) == said(data, 0) and (seen.begun, seen.whole) == (1, 0)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_size_that_is_free_and_ratio(more: int, monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    draw = random.Random(SEED)
    plain = noise(draw, 3000)
    data = gzip.compress(plain)
    monkeypatch.setattr(compression, "FREE_BYTES", len(plain) + more)
    monkeypatch.setattr(compression, "MOST_RATIO", 1)
    for head in (100, 1 << 18):
        assert (same(data, Sizes(head=head, chunk=100, step=100), "free", draw).failure != "") == (more == -1)
    assert seen.begun == 2


def test_a_bomb_is_left_at_once(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setattr(compression, "FREE_BYTES", 1_000_000)
    data = gzip.compress(bytes(30_000_000))
    told = said(data, 1)
    assert "becomes more than" in told.failure and told == said(data, 0)
    assert seen.begun == 1 and seen.made < 5_000_000


def test_no_more_than_its_pieces_are_made_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress(noise(random.Random(SEED), 2_000_000))
    form = compression_of(data[:MAGIC_LENGTH])
    assert form is not None
    left = threading.Semaphore(1)
    made = gzip_files.InflatedFile.begin(form, file_of(data), 0, 0, left)
    assert made is not None
    total = 0
    while not made.ended:
        output = made.take(wait=True)
        assert made._made.qsize() < gzip_files.PIECES
        total += sum(map(len, output or ()))
    made.end(wait=True)
    assert total == 2_000_000 and not made._thread.is_alive() and left.acquire(blocking=False)


def test_what_is_handed_out_is_not_filled_again_before_the_next_call() -> None:
    made = gzip_files.InflatedFile(FileBytes(file_of(b""), 0), 0, threading.Semaphore(0))
    rooms = [made._free.get() for _ in range(gzip_files.PIECES)]
    for room in rooms:
        assert room is not None and len(room) == gzip_files.PIECE
        made._made.put(gzip_files._Piece(room, 100, 100))
    for before, room in zip([None, *rooms], rooms, strict=False):
        output = made.take(wait=False)
        assert output is not None and room is not None and output[0].obj is room.obj
        assert made._free.empty() if before is None else made._free.get_nowait() is before and made._free.empty()


def test_a_file_is_read_from_where_its_data_begins_and_closed_without_waiting(
    monkeypatch: pytest.MonkeyPatch, threads: Any
) -> None:
    plain = noise(random.Random(SEED), 2_000_000)
    monkeypatch.setattr(decompressed._Thread, "left", threading.Semaphore(1))
    monkeypatch.setattr(decompressed, "AHEAD_FROM", 0)
    data = gzip.compress(plain)
    form = compression_of(data[:MAGIC_LENGTH])
    assert form is not None
    for _ in range(3):
        file = file_of(bytes(1234) + data)
        file.seek(1234)
        with closing(decompressed.DecompressedStream(file, form, file.read(5000), "name")) as stream:
            buffer = memoryview(bytearray(100_000))
            size = stream.readinto(buffer)
            assert size and bytes(buffer[:size]) == plain[:size] and isinstance(stream._parts, gzip_files.InflatedFile)
        assert not threads() and decompressed._Thread.left.acquire(blocking=False)
        decompressed._Thread.left.release()


@pytest.mark.parametrize("where", ["start", "join", "room"])
def test_an_interrupt_does_not_take_the_place_of_a_thread(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Semaphore(1)
    form = compression_of(gzip.compress(b"")[:MAGIC_LENGTH])
    assert form is not None
    made: list[gzip_files.InflatedFile] = []
    original = getattr(threading.Thread, where, None)

    def interrupt(thread: threading.Thread, *arguments: Any) -> None:
        assert original is not None
        original(thread, *arguments)
        raise KeyboardInterrupt

    def refuse(room: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        if where == "room":
            patch.setattr(gzip_files, "bytearray", refuse, raising=False)
        else:
            patch.setattr(threading.Thread, where, interrupt)
        with pytest.raises(MemoryError if where == "room" else KeyboardInterrupt):
            made.append(gzip_files.InflatedFile.begin(form, file_of(gzip.compress(b"some")), 0, 0, left))  # type: ignore
            made[0].end(wait=True)
    assert left.acquire(blocking=False)


def test_a_python_without_a_global_lock_has_no_reader(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert said(gzip.compress(b"some"), 1).output == b"some" and seen.begun == 0
