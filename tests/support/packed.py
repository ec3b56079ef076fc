"""Build compressed files of several members, and read any file through a stream.

The files are built from the formats' descriptions, independently of the readers.
"""

from __future__ import annotations

import io
import os
import random
import struct
import threading
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest

from sgfast.base.streams import decompressed, gzip_files
from sgfast.base.streams.compression import MAGIC_LENGTH, Compression, compression_of


def cut(draw: random.Random, data: bytes, most: int) -> list[bytes]:
    """Cut ``data`` into random pieces, some of them empty."""
    pieces = []
    while data:
        length = draw.choice((0, 1, draw.randrange(most), most))
        pieces.append(data[:length])
        data = data[length:]
    return pieces


def noise(draw: random.Random, length: int) -> bytes:
    """Return bytes of which half can be compressed."""
    return b"".join(draw.randbytes(9) + bytes(9) for _ in range(length // 18 + 1))[:length]


def gzip_member(data: bytes, flags: int = 0, texts: bytes = b"", *, is_right: bool = True) -> bytes:
    """Build a member with these flags in its header. ``texts`` follow the fields that the flags require."""
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


def gzip_file(pieces: Iterable[bytes]) -> bytes:
    """Build a file with a member for each piece, with flags of all kinds."""
    return b"".join(gzip_member(piece, (0x1E, 0, 0x02, 0x1D)[n % 4]) for n, piece in enumerate(pieces))


def bgzip_member(piece: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-15)
    packed = packing.compress(piece) + packing.flush()
    return (
        bytes.fromhex("1f8b0804 00000000 00ff 0600 4243 0200") + struct.pack("<H", len(packed) + 25) + packed
        + struct.pack("<II", zlib.crc32(piece), len(piece))
    )  # fmt: skip


def bgzip_file(pieces: Iterable[bytes]) -> bytes:
    """Build a file with a member for each nonempty piece, and an empty member at the end, as bgzip does."""
    return b"".join(bgzip_member(piece) for piece in (*filter(None, pieces), b""))


def zstd_raw_frame(blocks: Sequence[bytes], *, window_log: int = 20, has_size: bool = False) -> bytes:
    """Build a frame with a window of 2^window_log bytes, without checksum and without compression."""
    *before, last = [struct.pack("<I", len(block) << 3)[:3] + block for block in blocks]
    size = struct.pack("<I", sum(map(len, blocks))) if has_size else b""
    head = b"\x28\xb5\x2f\xfd" + bytes([0x80 if size else 0, (window_log - 10) << 3]) + size
    return head + b"".join(before) + bytes([last[0] | 1]) + last[1:]


def zstd_skipped(data: bytes) -> bytes:
    """Build a frame that contains no data."""
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", len(data)) + data


class Said(NamedTuple):
    output: bytes
    failure: str
    has_rest: bool
    lacks_end: bool
    bytes_taken: int


class Sizes(NamedTuple):
    """Sizes that readers use. They are small, so that a small file has many chunks."""

    chunk: int = 1 << 15
    step: int | None = None
    head: int = 1 << 18
    #: The size of output before which no thread starts.
    ahead_from: int = 0
    #: The sizes of output and input that zlib-ng's reader processes at a time.
    piece: int = gzip_files.PIECE
    input: int = gzip_files.CHUNK


def small_sizes(draw: random.Random) -> Sizes:
    return Sizes(
        draw.choice((16, 100, 1 << 15)), draw.choice((10, 100, None)), draw.choice((4, 50, 1 << 18)),
        draw.choice((0, 0, 1, 200)), draw.choice((1, 10, 100, 1 << 18)), draw.choice((1, 16, 100, 1 << 17)),
    )  # fmt: skip


def file_of(data: bytes) -> io.FileIO:
    """Return a regular file in memory, which has no path."""
    file = io.FileIO(os.memfd_create("capture"), "r+")
    file.write(data)
    file.seek(0)
    return file


def form_of(data: bytes) -> Compression:
    form = compression_of(data[:MAGIC_LENGTH])
    assert form is not None
    return form


def said(data: bytes, threads: int, sizes: Sizes = Sizes()) -> Said:        # noqa: B008
    """Return a stream's content or error, when it may start this many threads."""
    form = form_of(data)
    if sizes.step is not None:
        form = replace(form, step=sizes.step)
    with pytest.MonkeyPatch.context() as patch, file_of(data) as file:
        patch.setattr(decompressed, "CHUNK", sizes.chunk)
        patch.setattr(decompressed, "AHEAD_FROM", sizes.ahead_from)
        patch.setattr(decompressed._Thread, "available", threading.Semaphore(threads))
        patch.setattr(gzip_files, "PIECE", sizes.piece)
        patch.setattr(gzip_files, "CHUNK", sizes.input)
        stream = decompressed.DecompressedStream(file, form, file.read(sizes.head), "name")
        output, buffer = bytearray(), memoryview(bytearray(1000))
        failure = ""
        before = stream.bytes_taken
        try:
            while got := stream.readinto(buffer):
                output += buffer[:got]
                assert before <= stream.bytes_taken, "progress goes backwards"
                before = stream.bytes_taken
        except (ValueError, MemoryError) as error:
            failure = str(error)
        result = Said(bytes(output), failure, stream.has_rest, stream.lacks_end, stream.bytes_taken)
        stream.stop()
        for _ in range(threads):
            assert decompressed._Thread.available.acquire(blocking=False), "a thread did not give its place back"
        return result


def same(data: bytes, sizes: Sizes, where: str) -> Said:
    """Return a stream's content or error, after checking that it is the same with several threads."""
    alone, several = said(data, 0, sizes), said(data, 2, sizes)
    assert several == alone, f"{where}, {sizes}, {data.hex()}"
    return alone


class Seen:
    """Record the work of zlib-ng's reader."""

    def __init__(self) -> None:
        #: The number of files that it began, the number it has read to the end, and the number of bytes it has
        #: produced.
        self.begun = self.whole = self.made = 0
