"""Frames of zstd (RFC 8878), as ``pzstd`` writes several. Their blocks give sizes.

What libzstd makes of an invalid frame depends on the sizes of the chunks that it is given. So this module gives it the
reader's chunks, and requests as much output at a time as a ``Decompressor``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sgfast.capture.compression import Member, zstd_header_length
from sgfast.capture.file_bytes import FileBytes
from sgfast.capture.parts.part import MOST_OUTPUT, MOST_SMALL, PART, Chunks, Part

_MAGIC, _SKIPPED_MAGIC = b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
#: The lengths of the shortest header of a frame and of the longest one, in bytes.
_SHORTEST_HEADER, _HEADER = 6, 18
#: The most bytes of a block. The limit holds for the compressed block, and for what it becomes.
_BLOCK = 128 * 1024
#: A frame with fewer compressed bytes is small.
_SMALL_FRAME = 4 * 1024
#: The largest frame without data that may come before one with data. pzstd writes one of 12 bytes.
_SKIPPED = 4 * 1024


class _Frame(NamedTuple):
    end: int
    output: int
    window: int


def find_frames(file: FileBytes) -> Iterator[Part]:
    start = at = output = window = small = 0
    ends: list[int] = []
    while True:
        header = file.read(at, 8)
        skipped = 0
        if header[1:4] == _SKIPPED_MAGIC and header[0] >> 4 == 5:
            skipped = 8 + int.from_bytes(header[4:], "little")
        frame = _frame(file, at + skipped) if skipped <= _SKIPPED else None
        small += frame is not None and frame.end - at < _SMALL_FRAME
        if small > MOST_SMALL:
            frame = None
        if ends and (frame is None or output + frame.output > PART):
            yield Part(start, tuple(ends), at, output, window, ends_member=True)
            start, ends, output, window = at, [], 0, 0
        if frame is None:
            return
        ends.append(frame.end)
        output += frame.output
        window = max(window, frame.window)
        at = frame.end


def _frame(file: FileBytes, start: int) -> _Frame | None:
    """The frame there: None if there is none, or a large one. Not all of its header is checked."""
    header = file.read(start, _HEADER)
    if len(header) < _SHORTEST_HEADER or header[:4] != _MAGIC:
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
        output += _BLOCK
        if len(block) < 3 or max(output, window) > MOST_OUTPUT:
            return None
        kind = int.from_bytes(block, "little")
        is_last, repeats, size = kind & 1, kind >> 1 & 3 == 1, kind >> 3
        if size > _BLOCK:
            return None
        at += 3 + (1 if repeats else size)
    return _Frame(at + (4 if header[4] & 4 else 0), output, window)


def decompress(
    part: Part, make: Callable[[], Member], step: int, file: FileBytes, chunks: Chunks, is_stopped: Callable[[], bool]
) -> list[bytes] | None:
    """Return the output of a part, or None if it is not what it claims.

    A frame without output is not what it claims: only a ``Decompressor`` counts these.
    """
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
                outputs.append(member.decompress(data, step))
                made += len(outputs[-1])
                data = b""
            data = member.unused_data
        if at - len(data) != end or made == before:
            return None
    return outputs
