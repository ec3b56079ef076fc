"""gzip files by zlib-ng's reader of whole files.

    file --> reader, in its thread --pieces--> whoever reads the capture

The reader writes its output where it is told, and makes large pieces. A ``Decompressor`` makes small pieces of memory
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

from sgfast.capture.compression import Beginning, Compression, is_bomb, uses_zlib_ng
from sgfast.capture.file_bytes import FileBytes

#: Bytes of output made at a time, and the pieces that there are: one is made, one waits, and one is handed out.
PIECE = 512 * 1024
PIECES = 3
#: Bytes of input read at a time.
CHUNK = 128 * 1024
#: Bytes of the reader's buffer, which must hold the header of a member.
BUFFER = 128 * 1024
#: Most bytes of input for one piece. Only padding, or headers without end, take more.
MOST_INPUT = 2 * PIECE + 2 * CHUNK
#: Most members that may begin in a chunk. So a piece has fewer than ``compression.MOST_EMPTY`` members.
MOST_MEMBERS = 500
_MEMBER = b"\x1f\x8b\x08"


class _LeftToDecompressor(Exception):
    pass


class _Input(io.RawIOBase):
    """The file, for the reader."""

    def __init__(self, file: FileBytes, at: int = 0, end: int | None = None) -> None:
        self._file = file
        self.at = at
        #: The reader has taken what is before this, but for the beginning of a header.
        self.taken = at
        self._end = end
        #: Where input may end for the present piece.
        self.most = 0
        self.is_stopped = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        wanted = min(len(buffer), CHUNK if self._end is None else self._end - self.at)
        data = self._file.read(self.at, wanted)
        self.taken = self.at
        self.at += len(data)
        if self.is_stopped or self.at > self.most or data.count(_MEMBER) > MOST_MEMBERS:
            raise _LeftToDecompressor
        buffer[: len(data)] = data
        return len(data)


def inflate(file: FileBytes, start: int, end: int, most: int) -> memoryview | None:
    """Return the output of the members in a part of a file, or None if it is more than ``most`` bytes.

    Raises what the reader raises.
    """
    source = _Input(file, start, end)
    source.most = end
    room = memoryview(bytearray(most + 1))
    made: int = _reader_of(source).readinto(room)
    return room[:made] if made <= most else None


def _reader_of(source: _Input) -> Any:
    # `zlib_ng.gzip_ng.open` reads with it, too, but copies all output once more, which takes a tenth of the time. If a
    # version of zlib-ng does not have it, this raises AttributeError, and a Decompressor reads the file.
    return import_module("zlib_ng.zlib_ng")._GzipReader(source, BUFFER)


class _Piece(NamedTuple):
    room: memoryview
    size: int
    #: Bytes of the file that it took, at least. If the piece is empty, the file ends there.
    bytes_taken: int


def _run(source: _Input, free: SimpleQueue[memoryview | None], made: SimpleQueue[_Piece | None]) -> None:
    try:
        reader = _reader_of(source)
        total = 0
        while (room := free.get()) is not None:
            before = source.taken
            source.most = source.at + MOST_INPUT
            size = reader.readinto(room)
            total += size
            if is_bomb(total, before - BUFFER):
                raise _LeftToDecompressor
            if size == 0:
                made.put(_Piece(room, 0, source.at))
                return
            made.put(_Piece(room, size, source.taken))
    except Exception:
        # A Decompressor finds the same, and says what it is.
        made.put(None)


class InflatedFile:
    """The output of a gzip file, in order, without the first ``bytes_shown`` bytes, which somebody else made.

    It has what ``ParallelParts`` has. The thread does not know it, so it can be forgotten.
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
        """None if the source is no gzip file that can be read anywhere, or if there is no thread left.

        ``bytes_read`` of the source have been read.
        """
        file = FileBytes.of(source, bytes_read) if form.name == "gzip" and uses_zlib_ng() else None
        if file is None or not left.acquire(blocking=False):
            return None
        made = cls(file, bytes_shown, left)
        try:
            made._thread.start()
        except RuntimeError:        # the system refuses one
            left.release()
            return None
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
            # Nothing follows. A Decompressor that begins there finds that, too.
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
        if wait:
            self._thread.join()
        self._left.release()
