"""The bytes that compressed data becomes, as a stream. A thread decompresses ahead of whoever reads it.

    file --chunks--> decompressor, in its thread --pieces--> readinto

A file may begin with parts that can be decompressed independently. Several threads decompress these (``parallel.py``),
and one decompressor the rest of the file. Other gzip files are read by zlib-ng (``gzip_files.py``); if it does not come
to their end, a decompressor reads them from the beginning.

Only the reader's thread reads a pipe or a growing file, so that these and signals need no care of their own. It reads
ahead only what is there already. The threads that decompress parts read them from the file themselves. Damage comes
with the piece in which it was found. So the place of the damage, and the output before it, depend on the data alone.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import NamedTuple

from sgfast.capture.compression import Compression, Decompressor
from sgfast.capture.file_bytes import FileBytes, Output
from sgfast.capture.gzip_files import InflatedFile
from sgfast.capture.parallel import ParallelParts
from sgfast.capture.parts import Chunks, bgzip
from sgfast.capture.streams import BinaryStream
from sgfast.system import usable_processors

#: Bytes read at a time. It is small because the rest of a chunk is copied once for every member in it.
CHUNK = 32 * 1024
#: Chunks that may be read before the decompressor asks for them.
CHUNKS_AHEAD = 8
#: A thread begins when this many bytes have been read. It would slow down a small capture, or a look at a large one.
AHEAD_FROM = 512 * 1024
#: Bytes that a thread decompresses ahead, twice the reader's usual window; the last piece may go beyond.
AHEAD = 1024 * 1024
#: A thread makes no smaller pieces if there is input for more, as to wake the reader for each takes time.
PIECE = 512 * 1024


class _Piece(NamedTuple):
    outputs: tuple[bytes, ...] = ()
    #: Length of all outputs, bytes.
    size: int = 0
    #: Compressed bytes up to the end of the last chunk that was used, its number from 1 on, and whether all output of
    #: that one has come.
    bytes_taken: int = 0
    chunks_used: int = 0
    needs_input: bool = False
    #: Whether nothing follows, and why.
    ended: bool = False
    has_rest: bool = False
    failure: Exception | None = None


class _Maker:
    """A decompressor and the chunks that wait for it, each with the bytes of the file up to its end.

    The first ``skipped`` bytes of output are left out.
    """

    def __init__(self, decompressor: Decompressor, skipped: int = 0) -> None:
        self._decompressor = decompressor
        self._skipped = skipped
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._bytes_taken = self._chunks_used = 0

    def give(self, chunk: tuple[bytes, int]) -> None:
        self._waiting.append(chunk)

    @property
    def can_go_on(self) -> bool:
        return bool(self._waiting) or not self._decompressor.needs_input

    def make(self, size: int) -> _Piece:
        """Make at least ``size`` bytes, unless the data or the chunks end before."""
        decompressor = self._decompressor
        outputs: list[bytes] = []
        made = 0
        while made < size and self.can_go_on and not decompressor.ended:
            chunk = None
            if decompressor.needs_input:
                chunk, self._bytes_taken = self._waiting.popleft()
                self._chunks_used += 1
            output = decompressor.advance(chunk, self._bytes_taken)
            if self._skipped:
                output, self._skipped = output[self._skipped :], max(self._skipped - len(output), 0)
            if output:
                outputs.append(output)
                made += len(output)
        return _Piece(
            tuple(outputs), made, self._bytes_taken, self._chunks_used, not self.can_go_on,
            decompressor.ended, decompressor.has_rest, decompressor.failure,
        )  # fmt: skip


#: A chunk, or how many bytes more may be made, or None: end.
_Order = tuple[bytes, int] | int | None


def _run(maker: _Maker, orders: SimpleQueue[_Order], made: SimpleQueue[_Piece]) -> None:
    room = AHEAD
    piece = _Piece()
    while not piece.ended:
        while room <= 0 or not maker.can_go_on or not orders.empty():
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
        made.put(piece)


class _Thread:
    """Make pieces in a thread. The thread does not know the stream, which can so be forgotten before it was closed."""

    #: Threads that may begin. One processor is left for the reader; captures that find no thread left do without.
    left = threading.Semaphore(max(usable_processors() - 1, 0))

    def __init__(self, maker: _Maker) -> None:
        self._orders: SimpleQueue[_Order] = SimpleQueue()
        self._made: SimpleQueue[_Piece] = SimpleQueue()
        self._thread = threading.Thread(target=_run, args=(maker, self._orders, self._made), daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._orders.put(None)
            raise

    def give(self, chunk: tuple[bytes, int]) -> None:
        self._orders.put(chunk)

    def take(self, *, wait: bool) -> _Piece | None:
        try:
            piece = self._made.get(block=wait)
        except Empty:
            return None
        self._orders.put(piece.size)
        return piece

    def end(self, *, wait: bool) -> None:
        self._orders.put(None)
        try:
            if wait:
                self._thread.join()
        finally:
            self.left.release()

    @classmethod
    def begin(cls, maker: _Maker) -> _Thread | None:
        """A thread, or None if there is none left."""
        if not cls.left.acquire(blocking=False):
            return None
        try:
            return cls(maker)
        except BaseException as error:
            cls.left.release()
            if isinstance(error, RuntimeError):     # the system refuses a thread
                return None
            raise


class DecompressedStream:
    """The decompressed bytes of ``head`` followed by ``source``.

    ``readinto`` raises ValueError for damaged data and says where the damage is. The constructor raises CaptureError if
    a Python package is missing; ``name`` is for its message. ``close`` also closes the source, ``stop`` does not.
    """

    _thread: _Thread | None = None
    _parts: ParallelParts | InflatedFile | None = None

    def __init__(self, source: BinaryStream, compression: Compression, head: bytes, name: str) -> None:
        self.compression = compression
        self._name = name
        #: Compressed bytes up to the end of the last chunk of which there is output here.
        self.bytes_taken = len(head)
        #: Whether ignored data follows the last member.
        self.has_rest = False
        #: Whether the file is one of bgzip that was cut between two members.
        self.lacks_end = False
        self._source = source
        #: The file, or of what has no positions the last chunks read.
        self._file = FileBytes.of(source, len(head))
        self._last_chunks: deque[bytes] = deque()
        self._last_length = 0
        self._head = memoryview(head)
        self._head_length = len(head)
        self._chunks = Chunks(CHUNK, len(head))
        self._chunk = bytearray(CHUNK)
        self._bytes_read = len(head)
        self._chunks_read = self._chunks_used = 0
        self._is_read = False
        self._has_looked_for_parts = self._is_behind_parts = False
        self._read_error: Exception | None = None
        self._poll = self._poller()
        self._maker = _Maker(Decompressor(compression, name))
        self._outputs: deque[Output] = deque()
        self._output = memoryview(b"")
        self._bytes_output = 0
        self._needs_input = True
        self._ended = False
        self._failure: Exception | None = None

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
                    # Return available output before waiting for input.
                    if filled:
                        break
                    if self._read_error is not None:
                        error, self._read_error = self._read_error, None
                        raise error
                    if not self._read():
                        return 0 if self._ended else None
                if not filled:      # the bytes filled so far would be lost if this raised
                    self._read_ahead()
                if not self._take(wait=not filled):
                    break
        if filled == 0 and self._failure is not None:
            raise self._failure
        return filled

    def fileno(self) -> int:
        """The source's descriptor, so that callers can wait for input."""
        number: int = self._source.fileno()  # type: ignore[attr-defined]
        return number

    @property
    def interrupted(self) -> bool:
        return getattr(self._source, "interrupted", False)

    def stop(self) -> None:
        """End the thread. Nothing can be read from now on."""
        self._ended = True
        self._end_threads(wait=True)

    def close(self) -> None:
        self.stop()
        self._source.close()

    def __del__(self) -> None:
        self._end_threads(wait=False)

    def _begin_ahead(self) -> None:
        if not self._has_looked_for_parts:
            self._has_looked_for_parts = True
            self._parts = ParallelParts.begin(
                self.compression, self._source, self._chunks, self._bytes_read, self._bytes_output, _Thread.left
            )
            if self._parts is None:
                self._parts = InflatedFile.begin(
                    self.compression, self._source, self._bytes_read, self._bytes_output, _Thread.left
                )
            if self._parts is not None:
                self._needs_input = False
        if self._parts is None and self._thread is None:
            self._thread = _Thread.begin(self._maker)

    def _go_on_behind(self, parts: ParallelParts | InflatedFile) -> None:
        """Let a decompressor go on, with the chunks that it would have been given without the parts."""
        self._end_threads(wait=True)
        beginning = parts.beginning
        self._source.seek(beginning.at - self._bytes_read, os.SEEK_CUR)  # type: ignore[attr-defined]
        self._maker = _Maker(
            Decompressor(self.compression, self._name, beginning), parts.bytes_shown - beginning.bytes_output
        )
        self._head = memoryview(b"")
        self._bytes_read = beginning.at
        self._chunks_read = self._chunks_used = 0
        self._is_behind_parts = self._needs_input = True

    def _end_threads(self, *, wait: bool) -> None:
        thread, self._thread = self._thread, None
        parts, self._parts = self._parts, None
        if thread is not None:
            thread.end(wait=wait)
        if parts is not None:
            parts.end(wait=wait)

    def _poller(self) -> select.poll | None:
        # A file that grows (``--follow``) has no file descriptor that could be polled. It is not read ahead.
        try:
            poll = select.poll()
            poll.register(self.fileno(), select.POLLIN)
        except (AttributeError, OSError, ValueError):
            return None
        return poll

    def _read(self) -> bool:
        """Whether there was a chunk, or the end."""
        if self._head:
            chunk, self._head = bytes(self._head[:CHUNK]), self._head[CHUNK:]
        else:
            got = self._source.readinto(memoryview(self._chunk)[: self._next_chunk()])
            if got is None:
                return False
            if not 0 <= got <= CHUNK:
                raise OSError(f"the stream claims {got} bytes for a buffer of {CHUNK}")
            if got == 0 and self.interrupted:
                self._ended = True
                return False
            self._is_read = got == 0
            self._bytes_read += got
            chunk = bytes(self._chunk[:got])
        self._chunks_read += 1
        self._needs_input = False
        if self._file is None:
            self._keep(chunk)
        (self._thread or self._maker).give((chunk, max(self._bytes_read, self._head_length)))
        return True

    def _keep(self, chunk: bytes) -> None:
        self._last_chunks.append(chunk)
        self._last_length += len(chunk)
        while self._last_length - len(self._last_chunks[0]) >= bgzip.MOST_BYTES:
            self._last_length -= len(self._last_chunks.popleft())

    def _lacks_end(self) -> bool:
        if self.compression.name != "gzip" or self.has_rest or self._failure is not None:
            return False
        last = b"".join(self._last_chunks) if self._file is None else self._file.last(bgzip.MOST_BYTES)
        return bgzip.lacks_end(last)

    def _next_chunk(self) -> int:
        """Number of bytes to read. Behind parts, chunks end where they do if a file is read from its beginning."""
        return self._chunks.end(self._bytes_read) - self._bytes_read if self._is_behind_parts else CHUNK

    def _read_ahead(self) -> None:
        while (
            self._thread is not None and self._poll is not None and not self._is_read and self._read_error is None
            and self._chunks_read < self._chunks_used + CHUNKS_AHEAD and self._poll.poll(0)
        ):
            try:
                if not self._read():
                    break
            except Exception as error:
                # It is raised when everything before it has been handed out.
                self._read_error = error

    def _take_part(self, parts: ParallelParts | InflatedFile, *, wait: bool) -> bool:
        outputs = parts.take(wait=wait)
        if parts.ended:
            self._go_on_behind(parts)
            return True
        if outputs is None:
            return False
        self._outputs.extend(outputs)
        self._bytes_output += sum(map(len, outputs))
        self.bytes_taken = max(self.bytes_taken, parts.bytes_taken)
        return True

    def _take(self, *, wait: bool) -> bool:
        """Whether there was a piece."""
        try:
            if self._parts is not None:
                return self._take_part(self._parts, wait=wait)
            piece = self._maker.make(1) if self._thread is None else self._thread.take(wait=wait)
            if piece is None:
                return False
            self._outputs.extend(piece.outputs)
            self._bytes_output += piece.size
            # A decompressor that follows parts begins where their member begins. Progress must not go backwards.
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
            self._end_threads(wait=True)
            self.lacks_end = self._lacks_end()
        return True
