"""Write bytes to a file descriptor in a separate thread, while the caller produces more of them.

    write(bytes) --pieces--> os.writev, in the thread --bytes written, or an error--> the next write, or finish

At most WAITING bytes and the last piece wait to be written. Nothing is written after an error. The caller shares only
two queues with the thread. The queues stay usable even if a signal handler raises an exception.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue

#: The most bytes that may wait to be written. With 1 MiB, the two threads wait for each other more often, and JSON
#: lines take 1.14 times as long. More than 4 MiB gains nothing.
WAITING = 1 << 22
#: The most pieces for one system call. After each call, the thread has to take the global lock again.
_PIECES = 64


class WriteBehind:
    """A writer for one caller. Raises OSError or RuntimeError if the system refuses a descriptor or a thread."""

    def __init__(self, descriptor: int) -> None:
        # The thread has a descriptor of its own, because the caller may close the other one while the thread writes.
        self._descriptor = os.dup(descriptor)
        self._pieces: SimpleQueue[bytes | None] = SimpleQueue()
        #: The number of bytes written by each call; None at the end.
        self._written: SimpleQueue[int | BaseException | None] = SimpleQueue()
        self._waiting = 0
        self._failure: BaseException | None = None
        self._has_ended = self._is_abandoned = False
        # A daemon thread: the process can end even if a pipe has no reader and the thread cannot write.
        self._thread = threading.Thread(target=self._run, name="sgfast-write", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._descriptor)
            raise

    def write(self, data: bytes) -> None:
        """Queue data for the thread. Raises the error of an earlier write, such as OSError."""
        with suppress(Empty):
            while True:
                self._take(wait=self._waiting >= WAITING)
        self._pieces.put(data)
        self._waiting += len(data)

    def finish(self) -> None:
        """Wait until everything is written, and end the thread. Raises the errors of ``write``."""
        self._pieces.put(None)
        while not self._has_ended:
            self._take(wait=True)
        self._thread.join()

    def abandon(self) -> None:
        """Drop the data that waits to be written. The thread ends as soon as its system call returns."""
        self._is_abandoned = True
        self._pieces.put(None)

    def _take(self, *, wait: bool) -> None:
        """Take one result of the thread. Raises Empty if there is none yet."""
        if self._failure is not None:
            raise self._failure
        written = self._written.get(block=wait)
        if isinstance(written, BaseException):
            self._failure = written
            raise written
        if written is None:
            self._has_ended = True
        else:
            self._waiting -= written

    def _run(self) -> None:
        try:
            while not self._is_abandoned and (piece := self._pieces.get()) is not None:
                pieces = [memoryview(piece)]
                with suppress(Empty):
                    while len(pieces) < _PIECES and (piece := self._pieces.get_nowait()) is not None:
                        pieces.append(memoryview(piece))
                self._write_all(pieces)
                if piece is None:
                    break
            self._written.put(None)
        except BaseException as error:
            self._written.put(error)
        finally:
            os.close(self._descriptor)

    def _write_all(self, pieces: list[memoryview]) -> None:
        while pieces and not self._is_abandoned:
            try:
                written = os.writev(self._descriptor, pieces)
            except BlockingIOError:
                wait_until_writable(self._descriptor)
                continue
            self._written.put(written)
            while pieces and written >= len(pieces[0]):
                written -= len(pieces.pop(0))
            if written:
                pieces[0] = pieces[0][written:]


def wait_until_writable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll(1000)
