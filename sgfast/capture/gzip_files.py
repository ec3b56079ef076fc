"""Read gzip files with zlib-ng's own reader, in a thread.

    file --> reader, in its thread --pieces--> whoever reads the capture

The reader writes its output to a given place, and makes large pieces. A ``Decompressor`` makes small pieces of memory
and joins them, which takes up to as long as inflating. But if the reader finds damage, it loses what came before it in
its piece. So a ``Decompressor`` reads once more, from the beginning of the file, what the reader did not read to its
end. That includes what only a ``Decompressor`` takes for damage: a bomb, and many members without content in a row.
"""

from __future__ import annotations

import io
import threading
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from sgfast.capture.compression import MOST_EMPTY, Beginning, Compression, is_bomb, uses_zlib_ng
from sgfast.capture.file_bytes import FileBytes

#: Bytes of output that are made at a time.
PIECE = 512 * 1024
#: One piece is being made, one waits, and one is handed out.
PIECES = 3
#: Bytes of input read at a time.
CHUNK = 128 * 1024
#: Bytes of the reader's buffer, which must hold the header of a member.
BUFFER = 128 * 1024
#: Most members that may begin in the input of a piece. Members without content in a row are in two pieces at most, as
#: a third piece would have content.
MOST_MEMBERS = MOST_EMPTY // 2
_MEMBER = b"\x1f\x8b\x08"


class _LeftToDecompressor(Exception):
    pass


class _Input(io.RawIOBase):
    """The file, for the reader."""

    def __init__(self, file: FileBytes) -> None:
        self._file = file
        self.at = 0
        #: All input before this position has been inflated, except for the beginning of a header that is not complete.
        self.taken = 0
        #: Members that seem to begin in the input of this piece, and in the last input; and its last bytes.
        self._members = self._last_members = 0
        self._last = b""
        self.is_stopped = False

    def begin_piece(self) -> None:
        # The reader may still have to inflate the last input. So its members count for this piece, too.
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
            raise _LeftToDecompressor
        buffer[: len(data)] = data
        return len(data)


def inflate(members: bytes, number: int, most: int) -> memoryview | None:
    """Return the output of that many members of gzip.

    None if it is more than ``most`` bytes or nothing, or if there seem to be more members. Raises what the reader
    raises.
    """
    # In random data, these three bytes occur once in 16 MiB.
    if members.count(_MEMBER) > number + 2:
        return None
    reader = _reader_of(members)
    room = memoryview(bytearray(most + 1))
    made: int = reader.readinto(room)
    return room[:made] if 0 < made <= most and reader.readinto(room[made:]) == 0 else None


def _reader_of(source: _Input | bytes) -> Any:
    # `zlib_ng.gzip_ng.open` reads with it, too, but copies all output once more, which takes a tenth of the time. If a
    # version of zlib-ng does not have it, this raises AttributeError, and a Decompressor reads the file.
    return import_module("zlib_ng.zlib_ng")._GzipReader(source, BUFFER)


class _Piece(NamedTuple):
    room: memoryview
    size: int
    #: A lower bound of the bytes of the file used so far. For an empty piece it is the size of the file.
    bytes_taken: int


def _run(source: _Input, free: SimpleQueue[memoryview | None], made: SimpleQueue[_Piece | None]) -> None:
    try:
        reader = _reader_of(source)
        total = 0
        while (room := free.get()) is not None:
            before = source.taken
            source.begin_piece()
            size = reader.readinto(room)
            total += size
            if is_bomb(total, before - BUFFER):
                raise _LeftToDecompressor
            if size == 0:
                made.put(_Piece(room, 0, source.at))
                return
            made.put(_Piece(room, size, source.taken))
    except Exception:
        # A Decompressor reads the file next. It finds the same fault, and says what it is.
        made.put(None)


class InflatedFile:
    """The output of a gzip file, in order, without the first ``bytes_shown`` bytes, which another reader made.

    It has the methods of ``ParallelParts``. The thread does not refer to it, so it can go away before the thread.
    """

    def __init__(self, file: FileBytes, bytes_shown: int, left: threading.Semaphore) -> None:
        self._left = left
        self._input = _Input(file)
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        self._made: SimpleQueue[_Piece | None] = SimpleQueue()
        self._thread = threading.Thread(target=_run, args=(self._input, self._free, self._made), daemon=True)
        self._handed_out: memoryview | None = None
        self._bytes_made = 0
        self.beginning = Beginning()
        self.bytes_shown = bytes_shown
        self.bytes_taken = 0
        self.ended = False
        for _ in range(PIECES):
            self._free.put(memoryview(bytearray(PIECE)))

    @classmethod
    def begin(
        cls, form: Compression, source: object, bytes_read: int, bytes_shown: int, left: threading.Semaphore
    ) -> InflatedFile | None:
        """Return None if the source is no gzip file that can be read at any position, or if there is no thread left.

        ``bytes_read`` of the source have been read.
        """
        file = FileBytes.of(source, bytes_read) if form.name == "gzip" and uses_zlib_ng() else None
        if file is None or not left.acquire(blocking=False):
            return None
        made = None
        try:
            made = cls(file, bytes_shown, left)
            made._thread.start()
        except BaseException as error:
            if made is not None:
                made._free.put(None)
            left.release()
            if isinstance(error, RuntimeError):     # the system refuses a thread
                return None
            raise
        return made

    def take(self, *, wait: bool) -> list[memoryview] | None:
        """The next output, or None if it is not there yet, or ``ended``. It is valid until the next call."""
        if self._handed_out is not None:
            self._free.put(self._handed_out)
            self._handed_out = None
        try:
            piece = self._made.get(block=wait)
        except Empty:
            return None
        if piece is None:
            self.ended = True
            return None
        if piece.size == 0:
            # The file ends here. A Decompressor that begins here also finds the end.
            self.beginning = Beginning(piece.bytes_taken, self._bytes_made)
            self.ended = True
            return None
        self._handed_out = piece.room
        output = piece.room[: piece.size][max(self.bytes_shown - self._bytes_made, 0) :]
        self._bytes_made += piece.size
        self.bytes_shown = max(self.bytes_shown, self._bytes_made)
        self.bytes_taken = piece.bytes_taken
        return [output] if output else []

    def end(self, *, wait: bool) -> None:
        self._input.is_stopped = True
        self._free.put(None)
        try:
            if wait:
                self._thread.join()
        finally:
            self._left.release()
