"""Follow captures that are still being written, like ``tail -f``, until the caller stops."""

from __future__ import annotations

import io
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from sgfast.base.streams.binary_stream import BinaryStream

#: Bytes read at a time to find out whether they are zeros.
PIECE = 1024 * 1024


class FollowedFile:
    """A growing regular file. At its current end ``readinto`` returns None; it ends once ``is_over`` returns True.

    ``path`` is None for standard input. ``readinto`` raises OSError if the file was truncated, removed or replaced.

    A file that was given its size in advance ends in zeros, which will be overwritten. So zeros at the end of the file
    are held back, and are read again later. Held-back zeros are handed out as soon as other bytes follow. They are also
    handed out if they complete the current record (``wanted``) and end the file: many packets end in zeros.
    """

    def __init__(self, file: io.FileIO, path: str | None, is_over: Callable[[], bool]) -> None:
        self._file = file
        self._path = path
        self._is_over = is_over
        self._pending_error = ""
        #: Whether the stream ended because ``is_over`` returned True.
        self.interrupted = False
        #: Bytes that the reader still needs of the current record.
        self.wanted = 0
        #: The position where held-back zeros begin, and the file's size and time when only zeros followed it.
        self._checked_zeros: tuple[int, int, int] | None = None
        #: Position of a byte that is not zero. All bytes before it may be handed out.
        self._nonzero_at = 0

    def readinto(self, buffer: memoryview, /) -> int | None:
        # ``is_over`` is checked before reading: a file that grows faster than it is read would never end.
        if self._is_over():
            self.interrupted = True
            # Held-back zeros may be the end of the last record.
            return self._file.readinto(buffer[: self.wanted])
        if got := self._file.readinto(buffer):
            deliverable = self._count_deliverable(buffer[:got])
            self._file.seek(deliverable - got, os.SEEK_CUR)
            if deliverable:
                return deliverable
        # The error is raised only now, so that bytes written before the file was removed or replaced are still read.
        if self._pending_error:
            raise OSError(self._pending_error)
        size = os.fstat(self._file.fileno()).st_size
        if size < self._file.tell():
            raise OSError(f"the file was truncated to {size} bytes while it was followed")
        self._pending_error = self._removal_or_replacement()
        return None

    def close(self) -> None:
        self._file.close()

    def _count_deliverable(self, data: memoryview) -> int:
        """Return how many of these bytes, which were read last, may be handed out."""
        end = self._file.tell()
        start = end - len(data)
        if data[-1] or end <= self._nonzero_at or self._pending_error:
            return len(data)
        if nonzero := len(bytes(data).rstrip(b"\0")):
            return nonzero
        status = os.fstat(self._file.fileno())
        state = start, status.st_size, status.st_mtime_ns
        if state != self._checked_zeros:      # there may be gigabytes of zeros, so they are not read again each time
            if self._finds_nonzero(end):
                return len(data)
            self._checked_zeros = state
        return len(data) if status.st_size - start == self.wanted else 0

    def _finds_nonzero(self, at: int) -> bool:
        """Return whether a byte that is not zero follows; set ``_nonzero_at``."""
        while (data := os.pread(self._file.fileno(), PIECE, at)) and not self._is_over():
            if nonzero := data.lstrip(b"\0"):
                self._nonzero_at = at + len(data) - len(nonzero)
                return True
            at += len(data)
        return False

    def _removal_or_replacement(self) -> str:
        if self._path is None:
            return ""
        try:
            now = os.stat(self._path)
        except OSError:
            return "the file was removed while it was followed"
        return "" if os.path.samestat(now, os.fstat(self._file.fileno())) else "another file took its place"


def following(stream: BinaryStream, path: str | None, until: Callable[[], bool]) -> BinaryStream:
    """Return ``stream``, wrapped to be followed if it is a regular file. All other streams end by themselves."""
    if isinstance(stream, io.FileIO) and stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return FollowedFile(stream, path, until)
    return stream


@contextmanager
def first_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether an interrupt (Ctrl-C) has occurred.

    Only the first interrupt is caught; later interrupts have their usual effect. No interrupt is caught outside the
    main thread or if interrupts are ignored.
    """
    interrupted = False
    previous = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, previous)

    with suppress(ValueError):
        previous = signal.getsignal(signal.SIGINT)
        if previous is not None and previous is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: interrupted
    finally:
        if signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, previous)
