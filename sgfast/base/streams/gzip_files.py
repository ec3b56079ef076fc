"""Read gzip files with zlib-ng's own reader, in a thread.

        file --> reader, in its thread --pieces--> capture reader

zlib-ng's reader writes its output to a given buffer, and makes large pieces. A ``Decompressor`` makes small pieces of
memory and joins them, which takes up to as long as inflating. But if the reader finds damage, it loses the output
before the damage in the same piece. So if the reader fails before the end of a file, a ``Decompressor`` reads that file
from its beginning. This also applies to faults that only a ``Decompressor`` reports: a bomb, and many members without
content in a row.
"""

from __future__ import annotations

import io
import os
import re
from importlib import import_module
from queue import SimpleQueue
from typing import Any, NamedTuple

from sgfast.base.streams.compression import MOST_EMPTY, is_bomb

#: Bytes of output made at a time.
PIECE = 512 * 1024
#: The number of pieces: one is being made, one waits, and one is handed out.
PIECES = 3
#: Bytes of input read at a time.
CHUNK = 128 * 1024
#: Bytes of the reader's buffer, which must be large enough for the header of a member.
BUFFER = 128 * 1024
#: The largest number of members that may begin in the input of a piece. Members without content in a row are in two
#: pieces at most, as a third piece would have content.
MOST_MEMBERS = MOST_EMPTY // 2
_MEMBER = b"\x1f\x8b\x08"
#: The largest number of bytes that a member of bgzip takes in a file.
MOST_BGZIP = 1 << 16
#: The beginning of a bgzip member, up to its size less one (section 4.1 of
#: https://samtools.github.io/hts-specs/SAMv1.pdf).
_BGZIP_MEMBER = re.compile(rb"\x1f\x8b\x08\x04.{6}\x06\0BC\x02\0(..)", re.DOTALL)


class FileBytes:
    """A file that can be read at any position. The compressed data begins at ``base``."""

    def __init__(self, source: io.FileIO, base: int) -> None:
        # This reference keeps the file open as long as a thread uses this object.
        self._source = source
        self._base = base

    @classmethod
    def of(cls, source: object, bytes_read: int) -> FileBytes | None:
        """Return the file with ``bytes_read`` compressed bytes read, or None if it has no positions, as a pipe."""
        if not isinstance(source, io.FileIO):
            return None
        try:
            return cls(source, source.tell() - bytes_read)
        except OSError:     # a pipe
            return None

    def read(self, at: int, length: int) -> bytes:
        """Return ``length`` bytes from position ``at`` on, or fewer at the end of the file."""
        return os.pread(self._source.fileno(), length, self._base + at)

    def last(self, length: int) -> bytes:
        """Return the last ``length`` bytes, or all bytes of a shorter file."""
        start = max(os.fstat(self._source.fileno()).st_size - self._base - length, 0)
        return self.read(start, length)


class _NeedsDecompressor(Exception):
    pass


class GzipInput(io.RawIOBase):
    """The file as input of zlib-ng's reader."""

    def __init__(self, file: FileBytes) -> None:
        self._file = file
        self.at = 0
        #: Position up to which all input has been inflated, except for the beginning of an incomplete header.
        self.taken = 0
        #: Members that seem to begin in this piece's input and in the last input; and the last bytes of the latter.
        self._members = self._last_members = 0
        self._last = b""
        self.is_stopped = False

    def begin_piece(self) -> None:
        # The reader may still have to inflate the last input. So its members count for the next piece, too.
        self._members = self._last_members

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._file.read(self.at, min(len(buffer), CHUNK))
        self.taken = self.at
        self.at += len(data)
        self._last_members = data.count(_MEMBER) + (self._last + data[:2]).count(_MEMBER)
        self._members += self._last_members
        self._last = (self._last + data[-2:])[-2:]
        if self.is_stopped or self._members > MOST_MEMBERS:
            raise _NeedsDecompressor
        buffer[: len(data)] = data
        return len(data)


class Inflated(NamedTuple):
    room: memoryview
    size: int
    #: A lower bound of the bytes of the file used so far. For an empty piece: the size of the file.
    bytes_taken: int


def inflate(source: GzipInput, free: SimpleQueue[memoryview | None], made: SimpleQueue[Inflated | None]) -> None:
    """Fill free buffers with output until there is no more output, or until None comes instead of a buffer. The last
    item of ``made`` has no output, or is None if a ``Decompressor`` must read the file.
    """
    try:
        # `zlib_ng.gzip_ng.open` also uses this reader, but copies all output once more, which takes a tenth of the
        # time. If a version of zlib-ng lacks this reader, AttributeError is raised, and a Decompressor reads the file.
        reader: Any = import_module("zlib_ng.zlib_ng")._GzipReader(source, BUFFER)
        total = 0
        while (room := free.get()) is not None:
            before = source.taken
            source.begin_piece()
            size = reader.readinto(room)
            total += size
            if is_bomb(total, before - BUFFER):
                raise _NeedsDecompressor
            if size == 0:
                made.put(Inflated(room, 0, source.at))
                return
            made.put(Inflated(room, size, source.taken))
    except Exception:
        # A Decompressor then reads the file, finds the same fault, and reports it.
        made.put(None)


def lacks_bgzip_end(last: bytes) -> bool:
    """Return whether a gzip file with these last bytes ends with a bgzip member that is not empty.

    A complete bgzip file ends with an empty member. ``last``: the last MOST_BGZIP bytes of the file, or all bytes.
    """
    sizes = ((member.start(), int.from_bytes(member[1], "little") + 1) for member in _BGZIP_MEMBER.finditer(last))
    return any(start + size == len(last) for start, size in sizes) and any(last[-4:])
