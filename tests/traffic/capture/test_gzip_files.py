"""Damage of gzip files that zlib-ng's reader does not report itself (SPEC 9.6)."""

from __future__ import annotations

import gzip
import random
import sys
import threading
from typing import Any

import pytest
from packed import Seen, Sizes, file_of, gzip_member, noise, said, same, small_sizes

from sgfast.base.streams import compression, decompressed, gzip_files
from sgfast.base.streams.compression import MAGIC_LENGTH
from sgfast.base.streams.gzip_files import FileBytes

SEED = 20261129
pytestmark = pytest.mark.skipif(not compression.uses_zlib_ng(), reason="this Python does not use zlib-ng")


def test_damage_does_not_take_what_an_earlier_call_had_no_room_for() -> None:
    # Ten bytes are made at a time. One more is known when a call ends, and the next byte of input is damaged.
    draw = random.Random(SEED)
    pieces = [noise(draw, length) for length in (90, 0, 150, 40)]
    whole = gzip_member(pieces[0], 0x1E) + b"".join(map(gzip.compress, pieces[1:]))
    data = whole[:209] + bytes([whole[209] ^ 1]) + whole[210:]
    made = len(said(data, 0, Sizes(chunk=1, step=1, head=4)).output)
    assert len(said(data, 0, Sizes(chunk=100, step=10, head=50)).output) == made == 217


# Headers, and members without content


@pytest.mark.parametrize("flags", [0x20, 0x40, 0x80, 0xE0, 0x21, 0xFF, 0x82, 0xFD, 0xBA])
def test_reserved_flags_make_no_difference(flags: int, seen: Seen) -> None:
    draw = random.Random(SEED)
    whole = gzip_member(b"before") + gzip_member(b"some", flags) + gzip_member(b"behind")
    for _ in range(20):
        assert same(whole, small_sizes(draw), "whole").output == b"beforesomebehind"
    assert seen.whole == seen.begun > 5
    wrong = gzip_member(b"before") + gzip_member(b"some", flags, is_right=False) + gzip_member(b"behind")
    told = same(wrong, small_sizes(draw), "wrong")
    assert ("header crc mismatch" in told.failure) == bool(flags & 0x02)
    for length in range(MAGIC_LENGTH, len(whole)):
        same(whole[:length], small_sizes(draw), f"length {length}")


@pytest.mark.parametrize("flags", [0x08, 0x88, 0x9A])
def test_headers_of_any_length(flags: int, seen: Seen) -> None:
    for length in (60_000, 200_000, 1_500_000, 9_000_000):
        data = gzip_member(b"before") + gzip_member(b"some", flags, b"x" * length) + gzip_member(b"behind")
        before = seen.whole
        told = same(data, Sizes(), f"{length}")
        # The reader takes headers of 128 KiB at most. Others are limited only if zlib would not read them.
        assert (seen.whole > before) == (length == 60_000)
        assert (told.failure != "") == (flags > 0x80 and length == 9_000_000)


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("flags", [0x00, 0x08, 0x1C])
def test_many_members_without_content_in_a_row(flags: int, more: int, seen: Seen) -> None:
    # zlib-ng does not count such members. So sgfast stops it while there are still fewer than would be damage.
    for name in (b"", b"n" * 60, b"n" * 120):
        nothing = gzip_member(b"", flags, name)
        data = gzip_member(bytes(3_000_000)) + nothing * (compression.MOST_EMPTY + more) + gzip_member(b"behind")
        assert (same(data, Sizes(), f"{more} more").failure != "") == bool(more)
    assert seen.begun == 3 and seen.whole == 0


def of(size: int) -> bytes:
    """A member without content that is so long."""
    return gzip_member(b"", 0x08, b"n" * (size - len(gzip_member(b"", 0x08))))


def test_members_without_content_in_two_pieces(seen: Seen) -> None:
    chunk = gzip_files.CHUNK

    def filled(size: int) -> bytes:
        """Some 500 members that are as long as a chunk together, or less."""
        number = size * 500 // chunk
        return of(size // number) * (number - 1) + of(size - size // number * (number - 1))

    first = gzip_member(bytes(4 * gzip_files.PIECE))
    # Its content ends where a piece ends. The reader goes on, until a chunk ends within the data of a member.
    data = first + filled(chunk - len(first)) + b"".join(filled(chunk) for _ in range(9))
    data += filled(chunk - 300) + of(309) + filled(chunk - 9) + b"".join(filled(chunk) for _ in range(9))
    data += gzip_member(b"behind")
    assert "empty members follow each other" in same(data, Sizes(), "two pieces").failure
    assert (seen.begun, seen.whole) == (1, 0)


def test_members_without_content_whose_marks_are_cut(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    length, first = gzip_files.CHUNK, gzip_member(bytes(3_000_000))
    monkeypatch.setattr(gzip_files, "MOST_MEMBERS", 20)
    same(first + of(length - 1 - len(first)) + of(length - 1) * 30 + gzip_member(b"behind"), Sizes(), "cut")
    assert (seen.begun, seen.whole) == (1, 0)


def test_a_bomb_is_left_at_once(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setattr(compression, "FREE_BYTES", 1_000_000)
    assert "becomes more than" in same(gzip.compress(bytes(30_000_000)), Sizes(), "bomb").failure
    assert seen.begun == 1 and seen.made < 5_000_000


# Output that is made ahead


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Room for one thread."""
    one = threading.Semaphore(1)
    monkeypatch.setattr(decompressed._Thread, "available", one)
    return one


def test_no_more_than_its_pieces_are_made_ahead(left: threading.Semaphore) -> None:
    data = gzip.compress(noise(random.Random(SEED), 2_000_000))
    made = decompressed._Inflating.begin(FileBytes(file_of(data), 0))
    assert made is not None
    total, ended = 0, False
    while not ended:
        piece = made.take(wait=True)
        assert piece is not None and made._pieces.qsize() < gzip_files.PIECES
        total, ended = total + piece.size, piece.ended
    made.end(wait=True)
    assert total == 2_000_000 and not made._thread.is_alive() and left.acquire(blocking=False)


def test_what_is_handed_out_is_not_filled_again_before_the_next_call() -> None:
    made = decompressed._Inflating(FileBytes(file_of(b""), 0))
    rooms = [made._orders.get() for _ in range(gzip_files.PIECES)]
    for room in rooms:
        assert len(room) == gzip_files.PIECE
        made._pieces.put(gzip_files.Inflated(room, 100, 100))
    for before, room in zip([None, *rooms], rooms, strict=False):
        piece = made.take(wait=False)
        assert piece is not None and piece.outputs[0].obj is room.obj  # type: ignore[union-attr]
        assert made._orders.empty() if before is None else made._orders.get_nowait() is before
        assert made._orders.empty()


@pytest.mark.parametrize("where", ["start", "join", "room"])
def test_an_interrupt_does_not_take_the_place_of_a_thread(
    where: str, monkeypatch: pytest.MonkeyPatch, left: threading.Semaphore
) -> None:
    file = FileBytes(file_of(gzip.compress(b"some")), 0)
    original = getattr(threading.Thread, where, None)

    def interrupt(thread: threading.Thread, *arguments: Any) -> None:
        assert original is not None
        original(thread, *arguments)
        raise KeyboardInterrupt

    def refuse(room: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        if where == "room":
            patch.setattr(decompressed, "bytearray", refuse, raising=False)
        else:
            patch.setattr(threading.Thread, where, interrupt)
        with pytest.raises(MemoryError if where == "room" else KeyboardInterrupt):
            made = decompressed._Inflating.begin(file)
            assert made is not None
            made.end(wait=True)
    assert left.acquire(blocking=False)


def test_a_python_without_a_global_lock_has_no_reader(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert said(gzip.compress(b"some"), 1).output == b"some" and seen.begun == 0
