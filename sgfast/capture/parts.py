"""Finds parts of a compressed file that can be decompressed each by itself, without decompressing them.

- Blocks of xz that give their sizes, as ``xz -T0`` and ``pixz`` write them
  (https://tukaani.org/xz/xz-file-format.txt). A block is decompressed as a stream of its own.
- Members of gzip that give their sizes, as ``bgzip`` writes them (section 4.1 of
  https://samtools.github.io/hts-specs/SAMv1.pdf). Some of them together are a part.
- Frames of zstd (RFC 8878), as ``pzstd`` writes several. Their blocks give sizes. Small ones together are a part. What
  libzstd makes of an invalid frame depends on how its input is cut, so threads cut it as the reader does.

With two processors, gzip and zstd gain nothing: one thread decompresses them as fast as the other one judges packets.

All sizes are claims. They are bounded here, and ``decompress`` says whether a part was what they claim. The search ends
where something begins that is no part, or a part that is too large.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sgfast.capture.compression import Compression, zstd_header_length
from sgfast.processors import usable_processors

#: Most bytes that a block may become, and the largest window that it may want.
MOST_OUTPUT = 64 * 1024 * 1024
#: The search ends when it has found more small blocks, members or frames than this. Each of them takes a decompressor
#: of its own. In most files, only the last one is small.
MOST_SMALL = 100
#: Output per call: large enough for cheap calls, small enough to be interrupted soon.
STEP = 1024 * 1024


#: A part is as many members or frames as make this many bytes when they are decompressed.
PART = 1024 * 1024


class Part(NamedTuple):
    """A block and what ends its stream if it is the last one; or some members or frames."""

    start: int
    #: Where each stream in it ends: that of the block, the members, or the frames that hold data.
    ends: tuple[int, ...]
    end: int
    #: The most bytes that it becomes.
    output: int
    #: Bytes of its window.
    window: int
    #: Whether it ends its stream: another member may begin behind it.
    ends_member: bool
    #: What makes a stream of a block.
    before: bytes = b""
    after: bytes = b""
    #: Whether threads must cut its input, and their output, as a ``Decompressor`` does.
    is_cut: bool = False

    @property
    def memory(self) -> int:
        """Bytes that it takes while it is decompressed: output, window, and what is read and copied."""
        return self.output + self.window + 2 * (self.end - self.start)


class FileBytes:
    """A file that can be read anywhere. ``base`` is where the compressed data begins in it."""

    def __init__(self, descriptor: int, base: int) -> None:
        self._descriptor = descriptor
        self._base = base

    def read(self, at: int, length: int) -> bytes:
        """Return the bytes there, which are fewer at the end of the file."""
        return os.pread(self._descriptor, length, self._base + at)

    def ends_with(self, end: bytes) -> bool:
        size = os.fstat(self._descriptor).st_size - self._base
        return size >= len(end) and self.read(size - len(end), len(end)) == end


class Chunks(NamedTuple):
    """How the reader cuts a file: into chunks of ``size`` bytes in its first ``head`` bytes, and again behind them."""

    size: int
    head: int

    def end(self, at: int) -> int:
        """Where the chunk ends that ``at`` is in."""
        if at < self.head:
            return min(self.head, at - at % self.size + self.size)
        return at - (at - self.head) % self.size + self.size


def find_parts(compression: Compression, file: FileBytes) -> Iterator[Part]:
    """The parts from the beginning of the file on, one behind the other."""
    if compression.name == "xz":
        return _xz_blocks(file)
    if usable_processors() > 2:
        if compression.name == "gzip":
            return _bgzip_members(file)
        if compression.name == "zstd":
            return _zstd_frames(file)
    return iter(())


def decompress(
    part: Part, form: Compression, file: FileBytes, chunks: Chunks, is_stopped: Callable[[], bool]
) -> list[bytes] | None:
    """Return the output, or None if the part is not what it claims. Raises what the members that it makes raise."""
    if part.is_cut:
        return _decompress_cut(part, form, file, chunks, is_stopped)
    make, _ = form.load()
    data = file.read(part.start, part.ends[-1] - part.start)
    outputs: list[bytes] = []
    made = 0
    start = part.start
    for end in part.ends:
        given = part.before + data[start - part.start : end - part.start] + part.after
        member = make()
        while not member.eof:
            if is_stopped() or made > part.output or (member.needs_input and not given):
                return None
            outputs.append(member.decompress(given, STEP))
            made += len(outputs[-1])
            given = b""
        if member.unused_data:
            return None
        start = end
    return outputs


def _decompress_cut(
    part: Part, form: Compression, file: FileBytes, chunks: Chunks, is_stopped: Callable[[], bool]
) -> list[bytes] | None:
    """As ``decompress``, by the same calls of the same members as in a ``Decompressor``.

    A stream without output is not what it claims: only a ``Decompressor`` counts these.
    """
    make, _ = form.load()
    outputs: list[bytes] = []
    made = 0
    at = part.start
    data = b""
    for end in part.ends:
        before = made
        # A frame without data may be before the one that ends here.
        while at - len(data) < end:
            member = make()
            while not member.eof:
                if member.needs_input and not data:
                    data = file.read(at, chunks.end(at) - at)
                    at += len(data)
                if is_stopped() or made > part.output or (member.needs_input and not data):
                    return None
                outputs.append(member.decompress(data, form.step))
                made += len(outputs[-1])
                data = b""
            data = member.unused_data
        if at - len(data) != end or made == before:
            return None
    return outputs


#: The beginning of a member of bgzip: the size of the whole member, less one, is in the two bytes that follow.
_BGZIP_HEADER = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0"
#: The largest size of a decompressed member, in bytes. bgzip itself makes members of 65,280 bytes.
_BGZIP_MEMBER = 64 * 1024
_BGZIP_SMALL_MEMBER = 32 * 1024


def _bgzip_members(file: FileBytes) -> Iterator[Part]:
    # bgzip ends a file with an empty member. The search ends there, because only a decompressor counts empty members.
    at = output = small = 0
    start, ends = 0, list[int]()
    while True:
        header = file.read(at, len(_BGZIP_HEADER) + 2)
        end = at + int.from_bytes(header[-2:], "little") + 1
        size = int.from_bytes(file.read(end - 4, 4), "little") if header[:-2] == _BGZIP_HEADER else 0
        small += size < _BGZIP_SMALL_MEMBER
        is_member = 0 < size <= _BGZIP_MEMBER and small <= MOST_SMALL and end - at > len(header)
        if ends and (not is_member or output >= PART):
            yield Part(start, tuple(ends), at, output, 0, ends_member=True)
            start, ends, output = at, [], 0
        if not is_member:
            return
        ends.append(end)
        output += size
        at = end


_ZSTD_MAGIC, _ZSTD_SKIPPED_MAGIC = b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
#: The lengths of the shortest header of a frame and of the longest one, in bytes.
_ZSTD_SHORTEST_HEADER, _ZSTD_HEADER = 6, 18
#: The largest size of a block, in bytes, compressed or not.
_ZSTD_BLOCK = 128 * 1024
#: Compressed bytes.
_ZSTD_SMALL_FRAME = 4 * 1024
#: The largest frame without data that may come before one with data. pzstd writes one of 12 bytes.
_ZSTD_SKIPPED = 4 * 1024


class _Frame(NamedTuple):
    end: int
    output: int
    window: int


def _zstd_frames(file: FileBytes) -> Iterator[Part]:
    start = at = output = window = small = 0
    ends: list[int] = []
    while True:
        header = file.read(at, 8)
        skipped = 0
        if header[1:4] == _ZSTD_SKIPPED_MAGIC and header[0] >> 4 == 5:
            skipped = 8 + int.from_bytes(header[4:], "little")
        frame = _zstd_frame(file, at + skipped) if skipped <= _ZSTD_SKIPPED else None
        small += frame is not None and frame.end - at < _ZSTD_SMALL_FRAME
        if small > MOST_SMALL:
            frame = None
        if ends and (frame is None or output + frame.output > PART):
            yield Part(start, tuple(ends), at, output, window, ends_member=True, is_cut=True)
            start, ends, output, window = at, [], 0, 0
        if frame is None:
            return
        ends.append(frame.end)
        output += frame.output
        window = max(window, frame.window)
        at = frame.end


def _zstd_frame(file: FileBytes, start: int) -> _Frame | None:
    """The frame there: None if there is none, or a large one. Whether all of its header is right is not looked at."""
    header = file.read(start, _ZSTD_HEADER)
    if len(header) < _ZSTD_SHORTEST_HEADER or header[:4] != _ZSTD_MAGIC:
        return None
    length = zstd_header_length(header)
    if header[4] & 0x20:
        # The window is as large as the output, whose size is the last field.
        size = 1 << (header[4] >> 6)
        window = int.from_bytes(header[length - size : length], "little") + (256 if size == 2 else 0)
    else:
        window = 8 + (header[5] & 7) << (header[5] >> 3) + 7
    at = start + length
    output, is_last = 0, 0
    while not is_last:
        block = file.read(at, 3)
        output += _ZSTD_BLOCK
        if len(block) < 3 or max(output, window) > MOST_OUTPUT:
            return None
        kind = int.from_bytes(block, "little")
        is_last, repeats, size = kind & 1, kind >> 1 & 3 == 1, kind >> 3
        if size > _ZSTD_BLOCK:
            return None
        at += 3 + (1 if repeats else size)
    return _Frame(at + (4 if header[4] & 4 else 0), output, window)


_XZ_MAGIC, _XZ_END = b"\xfd7zXZ\0", b"YZ"
_XZ_HEADER = 12
#: The length of a block's checksum in bytes. A stream's header has the key, which is the kind of checksum.
_XZ_CHECKS = {0: 0, 1: 4, 4: 8, 10: 32}
#: The largest block header.
_XZ_BLOCK_HEADER = 1024
_XZ_SMALL_BLOCK = 64 * 1024
#: Bytes of an index, which is kept in memory.
_XZ_INDEX = 16 * 1024 * 1024


class _XzSizes(NamedTuple):
    #: Without the padding, as the index has it.
    compressed: int
    output: int
    window: int


def _xz_blocks(file: FileBytes) -> Iterator[Part]:
    # What is missing at the end of a file takes reading the stream once more. That is known beforehand.
    if not file.ends_with(_XZ_END):
        return
    small = at = 0
    while True:
        header = file.read(at, _XZ_HEADER)
        if not _is_xz_header(header):
            return
        at += _XZ_HEADER
        check = _XZ_CHECKS[header[7]]
        blocks, records = 0, bytearray()
        sizes = _xz_sizes(file.read(at, _XZ_BLOCK_HEADER), check)
        while sizes is not None:
            small += sizes.output < _XZ_SMALL_BLOCK
            if small > MOST_SMALL or len(records) > _XZ_INDEX:
                return
            record = _xz_number(sizes.compressed) + _xz_number(sizes.output)
            records += record
            blocks += 1
            start, at = at, at + (sizes.compressed + 3) // 4 * 4
            part = Part(
                start, (at,), at, sizes.output, sizes.window, ends_member=False,
                before=header, after=_xz_tail(header, 1, record),
            )  # fmt: skip
            sizes = _xz_sizes(file.read(at, _XZ_BLOCK_HEADER), check)
            if sizes is None:
                # An index is right if it is this one: there is only one way to write it.
                tail = _xz_tail(header, blocks, records)
                is_right = file.read(at, len(tail)) == tail
                if not is_right:
                    yield part
                    return
                at += len(tail)
                part = part._replace(end=at, ends_member=True)
            yield part
        if blocks == 0:
            return


def _is_xz_header(header: bytes) -> bool:
    return (
        len(header) == _XZ_HEADER and header[:7] == _XZ_MAGIC + b"\0" and header[7] in _XZ_CHECKS
        and int.from_bytes(header[8:], "little") == zlib.crc32(header[6:8])
    )  # fmt: skip


def _xz_sizes(header: bytes, check: int) -> _XzSizes | None:
    """What a block's header claims: None if it is none, or one without sizes, or not one of LZMA2 alone."""
    # Both sizes are there (0xC0), and there is one filter.
    if len(header) < 8 or header[0] == 0 or header[1] != 0xC0:
        return None
    length = (header[0] + 1) * 4
    at = 2
    numbers = []
    for _ in range(2):
        number = shift = 0
        while True:
            if at >= len(header) or shift > 56:
                return None
            byte = header[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        numbers.append(number)
    compressed, output = numbers
    if header[at : at + 2] != b"\x21\x01" or at + 3 > min(length, len(header)):
        return None
    exponent, mantissa = header[at + 2] >> 1, header[at + 2] & 1
    if exponent > 20 or not 0 < compressed <= MOST_OUTPUT or output > MOST_OUTPUT:
        return None
    window = (2 | mantissa) << (exponent + 11)
    return _XzSizes(length + compressed + check, output, window) if window <= MOST_OUTPUT else None


def _xz_tail(header: bytes, blocks: int, records: bytes | bytearray) -> bytes:
    """The index and the footer of a stream."""
    index = b"\0" + _xz_number(blocks) + records
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    footer = (len(index) // 4 - 1).to_bytes(4, "little") + header[6:8]
    return index + zlib.crc32(footer).to_bytes(4, "little") + footer + _XZ_END


def _xz_number(number: int) -> bytes:
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
