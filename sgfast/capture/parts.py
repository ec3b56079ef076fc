"""Finds parts of a compressed file that can be decompressed each by itself, without decompressing them.

These are the blocks of xz that give their sizes, as ``xz -T0`` and ``pixz`` write them
(https://tukaani.org/xz/xz-file-format.txt). A block is decompressed as a stream of its own. Members written by bgzip
and frames of zstd could be found as well, but one thread decompresses them as fast as packets are judged.

All sizes are claims. They are bounded here, and ``decompress`` says whether a part was what they claim. The search ends
where something begins that is no part, or a part that is too large.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sgfast.capture.compression import Compression, Member

#: Most bytes that a block may become, and the largest window that it may want.
MOST_OUTPUT = 64 * 1024 * 1024
#: Output per call: large enough for cheap calls, small enough to be interrupted soon.
STEP = 1024 * 1024


class Part(NamedTuple):
    """A block, and what ends its stream if it is the last one."""

    start: int
    block_end: int
    end: int
    #: Bytes that it becomes.
    output: int
    #: Bytes of its window.
    window: int
    #: What makes a stream of the block.
    before: bytes
    after: bytes
    #: Whether it ends its stream: another member may begin behind it.
    ends_member: bool

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
    return _xz_blocks(file) if compression.name == "xz" else iter(())


def decompress(
    part: Part, make: Callable[[], Member], file: FileBytes, is_stopped: Callable[[], bool]
) -> list[bytes] | None:
    """Return the output, or None if the part is not what it claims. Raises what the member that it makes raises."""
    data = file.read(part.start, part.block_end - part.start)
    if len(data) < part.block_end - part.start:
        return None
    data = part.before + data + part.after
    member = make()
    outputs: list[bytes] = []
    while not member.eof:
        if is_stopped() or (member.needs_input and not data):
            return None
        outputs.append(member.decompress(data, STEP))
        data = b""
    return None if member.unused_data else outputs


_XZ_MAGIC, _XZ_END = b"\xfd7zXZ\0", b"YZ"
_XZ_HEADER = 12
#: The length of a block's checksum in bytes. A stream's header has the key, which is the kind of checksum.
_XZ_CHECKS = {0: 0, 1: 4, 4: 8, 10: 32}
#: The largest block header.
_XZ_BLOCK_HEADER = 1024
#: Blocks below this are read only so often, as each takes a decompressor of its own. The last block of a file is one.
_XZ_SMALL_BLOCK = 64 * 1024
_XZ_SMALL_BLOCKS = 100
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
            if small > _XZ_SMALL_BLOCKS or len(records) > _XZ_INDEX:
                return
            record = _xz_number(sizes.compressed) + _xz_number(sizes.output)
            records += record
            blocks += 1
            start, at = at, at + (sizes.compressed + 3) // 4 * 4
            part = Part(
                start, at, at, sizes.output, sizes.window, header, _xz_tail(header, 1, record), ends_member=False
            )
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
