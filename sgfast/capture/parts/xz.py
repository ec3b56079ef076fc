"""Blocks of xz that give their sizes, as ``xz -T0`` and ``pixz`` write them.

https://tukaani.org/xz/xz-file-format.txt describes them. A block is decompressed as a stream of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sgfast.capture.compression import Member
from sgfast.capture.file_bytes import FileBytes
from sgfast.capture.parts.part import MOST_OUTPUT, MOST_SMALL, Part

#: Bytes of output per call. A larger number needs fewer calls. With a smaller one, an interrupt takes effect sooner.
_STEP = 1024 * 1024
_MAGIC, _END = b"\xfd7zXZ\0", b"YZ"
_HEADER = 12
#: The length of a block's checksum in bytes. A stream's header has the key, which is the kind of checksum.
_CHECKS = {0: 0, 1: 4, 4: 8, 10: 32}
#: The largest block header.
_BLOCK_HEADER = 1024
_SMALL_BLOCK = 64 * 1024
#: Bytes of an index, which is kept in memory.
_INDEX = 16 * 1024 * 1024


class _Sizes(NamedTuple):
    #: The size without the padding, as the index has it.
    compressed: int
    output: int
    window: int


def find_blocks(file: FileBytes) -> Iterator[Part]:
    # If the end of a file is missing, the stream has to be read once more. Its last bytes show that beforehand.
    if not file.ends_with(_END):
        return
    small = at = 0
    while True:
        header = file.read(at, _HEADER)
        if not _is_header(header):
            return
        at += _HEADER
        check = _CHECKS[header[7]]
        blocks, records = 0, bytearray()
        sizes = _sizes(file.read(at, _BLOCK_HEADER), check)
        while sizes is not None:
            small += sizes.output < _SMALL_BLOCK
            if small > MOST_SMALL or len(records) > _INDEX:
                return
            record = _number(sizes.compressed) + _number(sizes.output)
            records += record
            blocks += 1
            start, at = at, at + (sizes.compressed + 3) // 4 * 4
            part = Part(
                start, (at,), at, sizes.output, sizes.window, ends_member=False,
                before=header, after=_tail(header, 1, record),
            )  # fmt: skip
            sizes = _sizes(file.read(at, _BLOCK_HEADER), check)
            if sizes is None:
                # An index is right if it is this one: there is only one way to write it.
                tail = _tail(header, blocks, records)
                is_right = file.read(at, len(tail)) == tail
                if not is_right:
                    yield part
                    return
                at += len(tail)
                part = part._replace(end=at, ends_member=True)
            yield part
        if blocks == 0:
            return


def _is_header(header: bytes) -> bool:
    return (
        len(header) == _HEADER and header[:7] == _MAGIC + b"\0" and header[7] in _CHECKS
        and int.from_bytes(header[8:], "little") == zlib.crc32(header[6:8])
    )  # fmt: skip


def _sizes(header: bytes, check: int) -> _Sizes | None:
    """Sizes that a block's header states; None if it is no header, has no sizes, or is not one of LZMA2 alone."""
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
    return _Sizes(length + compressed + check, output, window) if window <= MOST_OUTPUT else None


def _tail(header: bytes, blocks: int, records: bytes | bytearray) -> bytes:
    """The index and the footer of a stream."""
    index = b"\0" + _number(blocks) + records
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    footer = (len(index) // 4 - 1).to_bytes(4, "little") + header[6:8]
    return index + zlib.crc32(footer).to_bytes(4, "little") + footer + _END


def _number(number: int) -> bytes:
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def decompress(
    part: Part, make: Callable[[], Member], file: FileBytes, is_stopped: Callable[[], bool]
) -> list[bytes] | None:
    """Return the output of a block, or None if it is not what it claims."""
    member = make()
    given = part.before + file.read(part.start, part.ends[0] - part.start) + part.after
    outputs: list[bytes] = []
    made = 0
    while not member.eof:
        if is_stopped() or made > part.output or (member.needs_input and not given):
            return None
        outputs.append(member.decompress(given, _STEP))
        made += len(outputs[-1])
        given = b""
    return None if member.unused_data else outputs
