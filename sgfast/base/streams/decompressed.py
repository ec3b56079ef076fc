"""Decompress data as a stream. A thread decompresses ahead of the reader.

    file --chunks--> decompressor, in its thread --pieces--> readinto

gzip files are read by zlib-ng's reader (``gzip_files.py``). If that reader fails before their end, a decompressor reads
them from the beginning.

Only the reader's thread reads a pipe or a growing file, so that pipes, growing files and signals need no special code.
It reads ahead only data that is available at once. Damage is reported with the piece in which it was found. So the
place of the damage, and the output before it, depend only on the data.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self

from sgfast.base import usable_processors
from sgfast.base.streams import gzip_files
from sgfast.base.streams.binary_stream import BinaryStream
from sgfast.base.streams.compression import Compression, Decompressor, uses_zlib_ng
from sgfast.base.streams.gzip_files import MOST_BGZIP, PIECES, FileBytes, GzipInput, Inflated, inflate, lacks_bgzip_end

#: Bytes read at a time. This is small because the rest of a chunk is copied once for every member in it.
CHUNK = 32 * 1024
#: Chunks that may be read before the decompressor needs them.
CHUNKS_AHEAD = 8
#: A thread starts when this many bytes have been read. It would slow down small captures and short looks at others.
AHEAD_FROM = 512 * 1024
#: Bytes that a thread decompresses ahead, twice the reader's usual window. The last piece may exceed this limit.
AHEAD = 1024 * 1024
#: A thread makes no smaller pieces if there is input for more, as waking the reader for each piece takes time.
PIECE = 512 * 1024


class _Piece(NamedTuple):
    outputs: tuple[bytes | memoryview, ...] = ()
    #: Length of all outputs, bytes.
    size: int = 0
    #: Compressed bytes up to the end of the last chunk used; the number of chunks used; and whether this is all output
    #: of the last chunk.
    bytes_taken: int = 0
    chunks_used: int = 0
    needs_input: bool = False
    #: Whether this is the last piece, whether ignored data follows, and the error that ended the data.
    ended: bool = False
    has_rest: bool = False
    failure: Exception | None = None
    #: Whether a decompressor must read the file from its beginning.
    needs_restart: bool = False


class _Maker:
    """A decompressor and its next chunks, each with its end in the file, in bytes."""

    def __init__(self, decompressor: Decompressor) -> None:
        self._decompressor = decompressor
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._bytes_taken = self._chunks_used = 0

    def give(self, chunk: tuple[bytes, int]) -> None:
        self._waiting.append(chunk)

    @property
    def has_input(self) -> bool:
        return bool(self._waiting) or not self._decompressor.needs_input

    def make(self, size: int) -> _Piece:
        """Make at least ``size`` bytes, unless the data or the chunks end before."""
        decompressor = self._decompressor
        outputs: list[bytes] = []
        size_made = 0
        while size_made < size and self.has_input and not decompressor.ended:
            chunk = None
            if decompressor.needs_input:
                chunk, self._bytes_taken = self._waiting.popleft()
                self._chunks_used += 1
            output = decompressor.advance(chunk, self._bytes_taken)
            if output:
                outputs.append(output)
                size_made += len(output)
        return _Piece(
            tuple(outputs), size_made, self._bytes_taken, self._chunks_used, not self.has_input,
            decompressor.ended, decompressor.has_rest, decompressor.failure,
        )  # fmt: skip


#: A chunk; or a number of bytes that may be made in addition; or None for the end.
_Order = tuple[bytes, int] | int | None


def _run(maker: _Maker, orders: SimpleQueue[_Order], pieces: SimpleQueue[_Piece]) -> None:
    room = AHEAD
    piece = _Piece()
    while not piece.ended:
        while room <= 0 or not maker.has_input or not orders.empty():
            order = orders.get()
            if order is None:
                return
            if isinstance(order, int):
                room += order
            else:
                maker.give(order)
        try:
            piece = maker.make(PIECE)
        except Exception as error:
            piece = piece._replace(outputs=(), size=0, ended=True, failure=error)
        room -= piece.size
        pieces.put(piece)


class _Thread:
    """A thread that makes pieces. It has no reference to the stream, so the stream may be deleted unclosed."""

    #: The number of threads that may still start. One processor is left for the reader; a capture may get no thread.
    available = threading.Semaphore(max(usable_processors() - 1, 0))

    #: The thread's function. Its arguments are the source, a queue of orders, in which None is the end, and a queue for
    #: the pieces that it makes.
    run: Callable[..., None]

    def __init__(self, source: Any) -> None:
        self._orders: SimpleQueue[Any] = SimpleQueue()
        self._pieces: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(target=self.run, args=(source, self._orders, self._pieces), daemon=True)

    @classmethod
    def begin(cls, source: Any) -> Self | None:
        """Start a thread and return it, or return None if no thread is left."""
        if not cls.available.acquire(blocking=False):
            return None
        helper = None
        try:
            helper = cls(source)
            helper._thread.start()
        except BaseException as error:
            if helper is not None:
                helper._orders.put(None)
            cls.available.release()
            if isinstance(error, RuntimeError):     # the system refuses a thread
                return None
            raise
        return helper

    def end(self, *, wait: bool) -> None:
        self._orders.put(None)
        try:
            if wait:
                self._thread.join()
        finally:
            self.available.release()


class _Decompressing(_Thread):
    """A thread with a decompressor, which gets the chunks that the stream has read."""

    run = staticmethod(_run)

    def give(self, chunk: tuple[bytes, int]) -> None:
        self._orders.put(chunk)

    def take(self, *, wait: bool) -> _Piece | None:
        try:
            piece: _Piece = self._pieces.get(block=wait)
        except Empty:
            return None
        self._orders.put(piece.size)
        return piece


class _Inflating(_Thread):
    """A thread with zlib-ng's reader, which reads the file from its beginning (``gzip_files.py``)."""

    run = staticmethod(inflate)

    def __init__(self, file: FileBytes) -> None:
        self._input = GzipInput(file)
        super().__init__(self._input)
        self._handed_out: memoryview | None = None
        for _ in range(PIECES):
            self._orders.put(memoryview(bytearray(gzip_files.PIECE)))

    def take(self, *, wait: bool) -> _Piece | None:
        """Return the next piece. Its output is valid until the next call."""
        if self._handed_out is not None:
            self._orders.put(self._handed_out)
            self._handed_out = None
        try:
            inflated: Inflated | None = self._pieces.get(block=wait)
        except Empty:
            return None
        if inflated is None:
            return _Piece(needs_restart=True)
        self._handed_out = inflated.room
        return _Piece((inflated.room[: inflated.size],), inflated.size, inflated.bytes_taken, ended=inflated.size == 0)

    def end(self, *, wait: bool) -> None:
        self._input.is_stopped = True
        super().end(wait=wait)


class DecompressedStream:
    """The decompressed bytes of ``head`` followed by ``source``.

    ``readinto`` raises ValueError with the place of the damage for damaged data. The constructor raises CaptureError if
    a Python package is missing; ``name`` is for its message. ``close`` also closes the source, ``stop`` does not.
    """

    _thread: _Decompressing | _Inflating | None = None

    def __init__(self, source: BinaryStream, compression: Compression, head: bytes, name: str) -> None:
        self.compression = compression
        self._name = name
        #: Compressed bytes up to the end of the last chunk whose output this stream has.
        self.bytes_taken = len(head)
        #: Whether ignored data follows the last member.
        self.has_rest = False
        #: Whether the file is a bgzip file that was cut between two members.
        self.lacks_end = False
        self._source = source
        #: The file, whose last bytes are read at the end; without a file, the last chunks read.
        self._file = FileBytes.of(source, len(head))
        self._last_chunks: deque[bytes] = deque()
        self._last_length = 0
        self._head = head
        self._chunk = bytearray(CHUNK)
        self._read_error: Exception | None = None
        self._poll = self._poller()
        self._may_inflate = self._file is not None and compression.name == "gzip" and uses_zlib_ng()
        self._outputs: deque[bytes | memoryview] = deque()
        self._output = memoryview(b"")
        self._bytes_output = 0
        self._ended = False
        self._failure: Exception | None = None
        self._begin()

    def _begin(self) -> None:
        """Start decompressing from the first bytes. Skip output that was handed out already."""
        self._maker = _Maker(Decompressor(self.compression, self._name))
        self._head_left = memoryview(self._head)
        self._bytes_read = len(self._head)
        self._chunks_read = self._chunks_used = 0
        self._source_ended = False
        self._skipped = self._bytes_output
        self._needs_input = True

    def readinto(self, buffer: memoryview, /) -> int | None:
        if self._bytes_output >= AHEAD_FROM and not self._ended:
            self._begin_ahead()
        filled = 0
        while filled < len(buffer):
            if self._output:
                count = min(len(self._output), len(buffer) - filled)
                buffer[filled : filled + count] = self._output[:count]
                self._output = self._output[count:]
                filled += count
            elif self._outputs:
                self._output = memoryview(self._outputs.popleft())
            else:
                if self._ended:
                    break
                if self._needs_input:
                    # Available output is returned before the stream waits for input.
                    if filled:
                        break
                    if self._read_error is not None:
                        error, self._read_error = self._read_error, None
                        raise error
                    if not self._read():
                        return 0 if self._ended else None
                if not filled:      # an exception here would lose the bytes filled so far
                    self._read_ahead()
                if not self._take(wait=not filled):
                    break
        if filled == 0 and self._failure is not None:
            raise self._failure
        return filled

    def fileno(self) -> int:
        """Return the source's descriptor, so that callers can wait for input."""
        number: int = self._source.fileno()  # type: ignore[attr-defined]
        return number

    @property
    def interrupted(self) -> bool:
        return getattr(self._source, "interrupted", False)

    def stop(self) -> None:
        """End the thread. After this call nothing can be read."""
        self._ended = True
        self._end_thread(wait=True)

    def close(self) -> None:
        self.stop()
        self._source.close()

    def __del__(self) -> None:
        self._end_thread(wait=False)

    def _begin_ahead(self) -> None:
        if self._thread is not None:
            return
        if self._may_inflate and self._file is not None:
            self._may_inflate = False
            self._thread = _Inflating.begin(self._file)
        if self._thread is not None:
            self._skipped = self._bytes_output
            self._needs_input = False
        else:
            self._thread = _Decompressing.begin(self._maker)

    def _begin_again(self) -> None:
        """Let a decompressor read the file from its beginning."""
        self._end_thread(wait=True)
        self._source.seek(len(self._head) - self._bytes_read, os.SEEK_CUR)  # type: ignore[attr-defined]
        self._begin()

    def _end_thread(self, *, wait: bool) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.end(wait=wait)

    def _poller(self) -> select.poll | None:
        # A file that grows (``--follow``) has no file descriptor that could be polled, and is not read ahead.
        try:
            poll = select.poll()
            poll.register(self.fileno(), select.POLLIN)
        except (AttributeError, OSError, ValueError):
            return None
        return poll

    def _read(self) -> bool:
        """Read the next chunk, or notice the end. Return False if no data is available yet."""
        if self._head_left:
            chunk, self._head_left = bytes(self._head_left[:CHUNK]), self._head_left[CHUNK:]
        else:
            got = self._source.readinto(memoryview(self._chunk))
            if got is None:
                return False
            if not 0 <= got <= CHUNK:
                raise OSError(f"the stream claims {got} bytes for a buffer of {CHUNK}")
            if got == 0 and self.interrupted:
                self._ended = True
                return False
            self._source_ended = got == 0
            self._bytes_read += got
            chunk = bytes(self._chunk[:got])
        self._chunks_read += 1
        self._needs_input = False
        if self._file is None:
            self._keep(chunk)
        maker = self._thread if isinstance(self._thread, _Decompressing) else self._maker
        maker.give((chunk, self._bytes_read))
        return True

    def _keep(self, chunk: bytes) -> None:
        self._last_chunks.append(chunk)
        self._last_length += len(chunk)
        while self._last_length - len(self._last_chunks[0]) >= MOST_BGZIP:
            self._last_length -= len(self._last_chunks.popleft())

    def _lacks_end(self) -> bool:
        if self.compression.name != "gzip" or self.has_rest or self._failure is not None:
            return False
        last = b"".join(self._last_chunks) if self._file is None else self._file.last(MOST_BGZIP)
        return lacks_bgzip_end(last)

    def _read_ahead(self) -> None:
        while (
            isinstance(self._thread, _Decompressing) and self._poll is not None and not self._source_ended
            and self._read_error is None and self._chunks_read < self._chunks_used + CHUNKS_AHEAD and self._poll.poll(0)
        ):
            try:
                if not self._read():
                    break
            except Exception as error:
                # The error is raised when all data before it has been handed out.
                self._read_error = error

    def _take(self, *, wait: bool) -> bool:
        """Take over the next piece. Return False if there is none yet."""
        try:
            piece = self._maker.make(1) if self._thread is None else self._thread.take(wait=wait)
            if piece is None:
                return False
            if piece.needs_restart:
                self._begin_again()
                return True
            for output in piece.outputs:
                shown = output[self._skipped :]
                self._skipped -= len(output) - len(shown)
                if shown:
                    self._outputs.append(shown)
                    self._bytes_output += len(shown)
            # A decompressor that reads the file again starts at its beginning, but progress must not go backwards.
            self.bytes_taken = max(self.bytes_taken, piece.bytes_taken)
            self.has_rest = piece.has_rest
            self._chunks_used = piece.chunks_used
            self._needs_input = piece.needs_input and piece.chunks_used == self._chunks_read
            self._ended, self._failure = piece.ended, piece.failure
        except BaseException:
            # A signal handler raised. A piece may be lost, which must not look like the end of the data.
            self._ended = True
            self._failure = ValueError("decompressing was interrupted")
            raise
        if self._ended:
            self._end_thread(wait=True)
            self.lacks_end = self._lacks_end()
        return True
