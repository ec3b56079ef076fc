"""Writes bytes to a file descriptor in a thread of its own, while the caller makes more of them.

    write(bytes) --> what waits, at most WAITING bytes and what came last --> os.writev, without Python's global lock

An error is raised by a later ``write``, or by ``finish``. Nothing is written after it.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

#: What may wait until ``write`` waits, too, bytes. Much more would leave the processor's cache before it is written.
WAITING = 1 << 20
#: How many pieces the system gets at once. For each call the thread has to get hold of the global lock again.
_PIECES = 64


class WriteBehind:
    """The constructor raises OSError or RuntimeError if the system refuses another descriptor or a thread."""

    def __init__(self, descriptor: int) -> None:
        # A descriptor of its own: the caller may close the other one while the thread writes.
        self._descriptor = os.dup(descriptor)
        self._waiting: deque[memoryview] = deque()
        self._size = 0
        self._ended = False
        self._failure: OSError | None = None
        self._changed = threading.Condition()
        # A daemon thread: nobody waits at the end of the process for a pipe that nobody reads.
        self._thread = threading.Thread(target=self._run, name="sgfast-write", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._descriptor)
            raise

    def write(self, data: bytes) -> None:
        """Raises OSError if something before could not be written."""
        self._wait_for(lambda: self._size < WAITING)
        with self._changed:
            self._waiting.append(memoryview(data))
            self._size += len(data)
            self._changed.notify_all()

    def finish(self) -> None:
        """Waits until everything is written, and ends the thread. Raises OSError if something could not be written."""
        try:
            self._wait_for(lambda: not self._size)
        finally:
            self.abandon()
        self._thread.join()

    def abandon(self) -> None:
        """What waits is not written. The thread ends as soon as the system lets it."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or condition())
            if self._failure is not None:
                raise self._failure

    def _run(self) -> None:
        try:
            self._write_all()
        except OSError as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        finally:
            os.close(self._descriptor)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                pieces = [self._waiting[n] for n in range(min(len(self._waiting), _PIECES))]
            try:
                written = os.writev(self._descriptor, pieces)
            except BlockingIOError:
                wait_until_writable(self._descriptor)
                continue
            with self._changed:
                self._remove(written)
                self._changed.notify_all()

    def _remove(self, written: int) -> None:
        self._size = max(self._size - written, 0)
        while self._waiting and written >= len(self._waiting[0]):
            written -= len(self._waiting.popleft())
        if self._waiting and written:
            self._waiting[0] = self._waiting[0][written:]


def wait_until_writable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll(1000)
