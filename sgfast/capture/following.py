"""Follows captures that are still being written, like ``tail -f``, until the caller stops it."""

from __future__ import annotations

import io
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from sgfast.capture.streams import BinaryStream


class FollowedFile:
    """A growing regular file. At its current end ``readinto`` returns None; it ends once ``until`` returns True.

    ``path`` is None for standard input. ``readinto`` raises OSError if the file was truncated, removed or replaced.
    """

    def __init__(self, file: io.FileIO, path: str | None, until: Callable[[], bool]) -> None:
        self._file = file
        self._path = path
        self._until = until
        self._gone = ""
        #: Whether it ended because ``until`` returned True.
        self.interrupted = False

    def readinto(self, buffer: memoryview, /) -> int | None:
        # Checked before reading: a file that grows faster than it is read would never end.
        if self._until():
            self.interrupted = True
            return 0
        got = self._file.readinto(buffer)
        if got:
            return got
        # Raised only now, so that bytes written before the file was removed or replaced are still read.
        if self._gone:
            raise OSError(self._gone)
        size = os.fstat(self._file.fileno()).st_size
        if size < self._file.tell():
            raise OSError(f"the file was truncated to {size} bytes while it was followed")
        self._gone = self._what_became_of_it()
        return None

    def close(self) -> None:
        self._file.close()

    def _what_became_of_it(self) -> str:
        if self._path is None:
            return ""
        try:
            now = os.stat(self._path)
        except OSError:
            return "the file was removed while it was followed"
        return "" if os.path.samestat(now, os.fstat(self._file.fileno())) else "another file took its place"


def following(stream: BinaryStream, path: str | None, until: Callable[[], bool]) -> BinaryStream:
    """Return ``stream``, wrapped to be followed if it is a regular file. Other streams end by themselves."""
    if isinstance(stream, io.FileIO) and stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return FollowedFile(stream, path, until)
    return stream


@contextmanager
def first_interrupt() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether an interrupt (Ctrl-C) has occurred.

    Only the first interrupt is caught; later ones have their usual effect. Nothing is caught outside the main thread or
    if interrupts are ignored.
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
