"""Compressed files with parts that can be decompressed each by itself, and what a stream says of any file.

The files are written from the formats' descriptions, not from what reads them.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import lzma
import os
import random
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest
from captures import zstd

from sgfast.capture import decompressed, gzip_files, parallel, parts
from sgfast.capture.compression import MAGIC_LENGTH, Compression, compression_of
from sgfast.capture.file_bytes import FileBytes


def cut(draw: random.Random, data: bytes, most: int) -> list[bytes]:
    """Random pieces of ``data``, some of them empty."""
    pieces = []
    while data:
        length = draw.choice((0, 1, draw.randrange(most), most))
        pieces.append(data[:length])
        data = data[length:]
    return pieces


def noise(draw: random.Random, length: int) -> bytes:
    """Half of it compresses."""
    return b"".join(draw.randbytes(9) + bytes(9) for _ in range(length // 18 + 1))[:length]


def xz_number(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + xz_number(number >> 7)


def with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


#: The number of a check in xz, and how it is computed.
CHECKS: dict[int, Callable[[bytes], bytes]] = {
    0: lambda data: b"",
    1: lambda data: struct.pack("<I", zlib.crc32(data)),
    10: lambda data: hashlib.sha256(data).digest(),
}


def xz_block(piece: bytes, check: int, *, has_sizes: bool = True) -> tuple[bytes, bytes]:
    """A block and its record in the index."""
    # The dictionary has 4 KiB (0).
    packed = lzma.compress(piece, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 4096}])
    header = b"\xc0" + xz_number(len(packed)) + xz_number(len(piece)) if has_sizes else b"\0"
    header += b"\x21\x01\0"
    header += bytes(-(len(header) + 1) % 4)
    header = with_crc(bytes([(len(header) + 1) // 4]) + header)
    checked = CHECKS[check](piece)
    block = header + packed + bytes(-len(packed) % 4) + checked
    return block, xz_number(len(header) + len(packed) + len(checked)) + xz_number(len(piece))


def xz_stream(pieces: Iterable[bytes], check: int = 1, *, sizes: Callable[[int], bool] = lambda n: True) -> bytes:
    """A stream with a block for each piece that is not empty. ``sizes`` says which of them have their sizes."""
    blocks = [xz_block(piece, check, has_sizes=sizes(n)) for n, piece in enumerate(filter(None, pieces))]
    flags = bytes([0, check])
    index = b"\0" + xz_number(len(blocks)) + b"".join(record for _, record in blocks)
    index = with_crc(index + bytes(-len(index) % 4))
    footer = struct.pack("<I", len(index) // 4 - 1) + flags
    return (
        b"\xfd7zXZ\0" + with_crc(flags) + b"".join(block for block, _ in blocks) + index
        + struct.pack("<I", zlib.crc32(footer)) + footer + b"YZ"
    )  # fmt: skip


def gzip_member(data: bytes, flags: int = 0, texts: bytes = b"", *, is_right: bool = True) -> bytes:
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


def gzip_file(pieces: Iterable[bytes]) -> bytes:
    """A member for each piece, with flags of all kinds."""
    return b"".join(gzip_member(piece, (0x1E, 0, 0x02, 0x1D)[n % 4]) for n, piece in enumerate(pieces))


def bgzip_member(piece: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-15)
    packed = packing.compress(piece) + packing.flush()
    return (
        bytes.fromhex("1f8b0804 00000000 00ff 0600 4243 0200") + struct.pack("<H", len(packed) + 25) + packed
        + struct.pack("<II", zlib.crc32(piece), len(piece))
    )  # fmt: skip


def bgzip_file(pieces: Iterable[bytes]) -> bytes:
    """A member for each piece that is not empty, and an empty one, as bgzip ends a file."""
    return b"".join(bgzip_member(piece) for piece in (*filter(None, pieces), b""))


def zstd_raw_frame(blocks: Sequence[bytes], *, window_log: int = 20, has_size: bool = False) -> bytes:
    """A frame that wants a window of 2^window_log bytes, has no checksum, and compresses nothing."""
    *before, last = [struct.pack("<I", len(block) << 3)[:3] + block for block in blocks]
    size = struct.pack("<I", sum(map(len, blocks))) if has_size else b""
    head = b"\x28\xb5\x2f\xfd" + bytes([0x80 if size else 0, (window_log - 10) << 3]) + size
    return head + b"".join(before) + bytes([last[0] | 1]) + last[1:]


def zstd_skipped(data: bytes) -> bytes:
    """A frame without data."""
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", len(data)) + data


def zstd_file(pieces: Iterable[bytes]) -> bytes:
    """A frame for each piece that is not empty: some as pzstd writes them, with their size before them, some raw."""
    made = bytearray()
    for n, piece in enumerate(filter(None, pieces)):
        frame = zstd_raw_frame([piece[:5], piece[5:]]) if n % 5 == 4 else zstd(piece, has_size=n % 2 == 0)
        made += zstd_skipped(struct.pack("<I", len(frame))) + frame if n % 3 == 0 else frame
    return bytes(made)


class Said(NamedTuple):
    output: bytes
    failure: str
    has_rest: bool
    lacks_end: bool
    bytes_taken: int


class Sizes(NamedTuple):
    """Small sizes, so that there is much of everything in a small file."""

    chunk: int = 1 << 15
    step: int | None = None
    head: int = 1 << 18
    #: Output before which no thread begins.
    ahead_from: int = 0
    #: Output that zlib-ng's reader makes, and input that it reads, at a time.
    piece: int = gzip_files.PIECE
    input: int = gzip_files.CHUNK


def small_sizes(draw: random.Random) -> Sizes:
    return Sizes(
        draw.choice((16, 100, 1 << 15)), draw.choice((10, 100, None)), draw.choice((4, 50, 1 << 18)),
        draw.choice((0, 0, 1, 200)), draw.choice((1, 10, 100, 1 << 18)), draw.choice((1, 16, 100, 1 << 17)),
    )  # fmt: skip


def file_of(data: bytes) -> io.FileIO:
    """A regular file, which is nowhere."""
    file = io.FileIO(os.memfd_create("capture"), "r+")
    file.write(data)
    file.seek(0)
    return file


def form_of(data: bytes) -> Compression:
    form = compression_of(data[:MAGIC_LENGTH])
    assert form is not None
    return form


def said(data: bytes, threads: int, sizes: Sizes = Sizes()) -> Said:        # noqa: B008
    """A stream's content or error, if it may begin so many threads."""
    form = form_of(data)
    if sizes.step is not None:
        form = replace(form, step=sizes.step)
    with pytest.MonkeyPatch.context() as patch, file_of(data) as file:
        patch.setattr(decompressed, "CHUNK", sizes.chunk)
        patch.setattr(decompressed, "AHEAD_FROM", sizes.ahead_from)
        patch.setattr(decompressed._Thread, "left", threading.Semaphore(threads))
        patch.setattr(gzip_files, "PIECE", sizes.piece)
        patch.setattr(gzip_files, "CHUNK", sizes.input)
        patch.setattr(parallel, "usable_processors", lambda: 2)
        patch.setattr(parts.bgzip, "PART", 100)
        # A frame counts as 128 KiB at least.
        patch.setattr(parts.zstd, "PART", 300_000)
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
            assert decompressed._Thread.left.acquire(blocking=False), "a thread did not give its place back"
        return result


def same(data: bytes, sizes: Sizes, where: str) -> Said:
    """A stream's content or error, which several threads must not change."""
    alone, several = said(data, 0, sizes), said(data, 2, sizes)
    assert several == alone, f"{where}, {sizes}, {data.hex()}"
    return alone


class Counted(FileBytes):
    """Bytes that count how often they are read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads = 0

    def read(self, at: int, length: int) -> bytes:
        self.reads += 1
        return self.data[at : at + length]

    def ends_with(self, end: bytes) -> bool:
        return self.data.endswith(end)


def found_in(data: bytes) -> tuple[list[parts.Part], int]:
    """The parts, and how often the data was read to find them."""
    file = Counted(data)
    found = list(parts.find_parts(form_of(data), file))
    assert all(a.end == b.start for a, b in itertools.pairwise(found))
    return found, file.reads


class Seen:
    """The work that was not left to one decompressor."""

    def __init__(self) -> None:
        #: Parts, and the threads that decompressed them.
        self.parts = 0
        self.threads: set[threading.Thread] = set()
        #: Files that zlib-ng's reader was given, those it has read to their ends, and the bytes it has made.
        self.begun = self.whole = self.made = 0
