"""Captures that are still being written: read on at their end, like ``tail -f``, until somebody says that is enough."""

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
    """A regular file whose end is not the end: ``readinto`` says None there. It ends when ``until`` says True.

    ``path``: where it is, None for standard input. OSError where it was truncated, removed or replaced.
    """

    def __init__(self, file: io.FileIO, path: str | None, until: Callable[[], bool]) -> None:
        self._file = file
        self._path = path
        self._until = until
        self._gone = ""
        #: It ended because ``until`` said so.
        self.interrupted = False

    def readinto(self, buffer: memoryview, /) -> int | None:
        # Asked first: a file may grow faster than it is judged, and have no end at all.
        if self._until():
            self.interrupted = True
            return 0
        got = self._file.readinto(buffer)
        if got:
            return got
        # Only now: what was written before is read, whatever became of the name meanwhile.
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
    """``stream`` as one that grows, if it is a regular file; others end by themselves."""
    if isinstance(stream, io.FileIO) and stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return FollowedFile(stream, path, until)
    return stream


@contextmanager
def first_interrupt() -> Iterator[Callable[[], bool]]:
    """Says whether an interrupt (Ctrl-C) has come. The second one does what the first would have done outside, as does
    every one if this is not the main thread, or they are ignored.
    """
    came = False
    before = None

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.signal(signal.SIGINT, before)

    with suppress(ValueError):
        before = signal.getsignal(signal.SIGINT)
        if before is not None and before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)
