"""Finds parts of a compressed file that can be decompressed each by itself, without decompressing them.

- Blocks of xz that give their sizes, as ``xz -T0`` and ``pixz`` write them
  (https://tukaani.org/xz/xz-file-format.txt). A block is decompressed as a stream of its own.
- Members of gzip that give their sizes, as ``bgzip`` writes them (section 4.1 of
  https://samtools.github.io/hts-specs/SAMv1.pdf). Some of them together are a part. With two processors this would gain
  nothing: one thread decompresses them as fast as the other one judges packets.

Frames of zstd are no parts. What libzstd makes of an invalid frame depends on how its input is cut, so threads would
have to cut it as the reader does. Few files have several frames.

All sizes are claims. They are bounded here, and ``decompress`` says whether a part was what they claim. The search ends
where something begins that is no part, or a part that is too large.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sgfast.capture.compression import Compression, Member
from sgfast.processors import usable_processors

#: Most bytes that a block may become, and the largest window that it may want.
MOST_OUTPUT = 64 * 1024 * 1024
#: The search ends when it has found more small blocks or members than this. Each of them takes a decompressor of its
#: own. In most files, only the last one is small.
MOST_SMALL = 100
#: Output per call: large enough for cheap calls, small enough to be interrupted soon.
STEP = 1024 * 1024


class Part(NamedTuple):
    """A block and what ends its stream if it is the last one; or some members."""

    start: int
    #: Where each stream in it ends: that of the block, or the members.
    ends: tuple[int, ...]
    end: int
    #: Bytes that it becomes.
    output: int
    #: Bytes of its window.
    window: int
    #: Whether it ends its stream: another member may begin behind it.
    ends_member: bool
    #: What makes a stream of a block.
    before: bytes = b""
    after: bytes = b""

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


def find_parts(compression: Compression, file: FileBytes) -> Iterator[Part]:
    """The parts from the beginning of the file on, one behind the other."""
    if compression.name == "xz":
        return _xz_blocks(file)
    if compression.name == "gzip" and usable_processors() > 2:
        return _bgzip_members(file)
    return iter(())


def decompress(
    part: Part, make: Callable[[], Member], file: FileBytes, is_stopped: Callable[[], bool]
) -> list[bytes] | None:
    """Return the output, or None if the part is not what it claims. Raises what the members that it makes raise."""
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


#: The beginning of a member of bgzip: the size of the whole member, less one, is in the two bytes that follow.
_BGZIP_HEADER = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0"
#: The largest size of a decompressed member, in bytes. bgzip itself makes members of 65,280 bytes.
_BGZIP_MEMBER = 64 * 1024
_BGZIP_SMALL_MEMBER = 32 * 1024
#: A part is as many members as make this many bytes when they are decompressed.
_BGZIP_PART = 1024 * 1024


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
        if ends and (not is_member or output >= _BGZIP_PART):
            yield Part(start, tuple(ends), at, output, 0, ends_member=True)
            start, ends, output = at, [], 0
        if not is_member:
            return
        ends.append(end)
        output += size
        at = end


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
