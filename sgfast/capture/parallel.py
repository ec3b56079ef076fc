"""Decompress the parts of a file (``parts/``) in several threads, ahead of whoever reads it.

    file --> parts --> jobs --threads, and the reader when it would wait--> their output, in order

What comes out is what ``Decompressor`` would give. It ends before the first part that is not what it claims, or that
comes near a limit of ``compression.py``; ``beginning`` is where a ``Decompressor`` has to begin then.

Parts that are ahead take at most about ROOM bytes together, for any number of threads. The output of one more may wait
for the reader.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from sgfast.capture import compression
from sgfast.capture.compression import Beginning, Compression, is_bomb
from sgfast.capture.file_bytes import FileBytes, Output
from sgfast.capture.parts import Chunks, Part, decompress, find_parts
from sgfast.system import usable_processors

#: Bytes of memory that parts take which were not handed out yet. One part alone takes hardly more than that.
ROOM = 256 * 1024 * 1024


class _Job:
    """A part, and what became of it."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.is_done = threading.Event()
        #: Its output; None if the part was not what it claims.
        self.result: Sequence[Output] | None = None


class _Jobs:
    """The jobs that nobody has begun. Threads know these and not the stream, which can so be forgotten."""

    def __init__(self, form: Compression, file: FileBytes, chunks: Chunks) -> None:
        self._form = form
        self._chunks = chunks
        self._file = file
        self.waiting: deque[_Job] = deque()
        self.is_stopped = False

    def do_next(self) -> bool:
        """Whether there was one."""
        try:
            job = self.waiting.popleft()
        except IndexError:
            return False
        try:
            job.result = decompress(job.part, self._form, self._file, self._chunks, lambda: self.is_stopped)
        except Exception:
            # Whoever decompresses it once more finds the same, and says what it is.
            job.result = None
        finally:
            job.is_done.set()
        return True


def _run(jobs: _Jobs, left: threading.Semaphore) -> None:
    try:
        while jobs.do_next():
            pass
    finally:
        left.release()


class ParallelParts:
    """The output of a file's parts, in order, without the first ``bytes_shown`` bytes, which another reader made.

    ``left`` are the threads that may begin. A thread ends when no job waits, so that other captures get one.
    """

    def __init__(
        self, form: Compression, file: FileBytes, chunks: Chunks, parts: Iterator[Part], bytes_shown: int,
        left: threading.Semaphore,
    ) -> None:  # fmt: skip
        self._form = form
        self._parts = parts
        #: A part for which there was no room yet.
        self._next: Part | None = None
        self._jobs = _Jobs(form, file, chunks)
        self._left = left
        self._threads: list[threading.Thread] = []
        #: The jobs begun, those waiting and those done, in the file's order.
        self._ahead: deque[_Job] = deque()
        self._most_ahead = 2 * usable_processors()
        self._memory = 0
        self._bytes_before = bytes_shown
        self._bytes_made = 0
        #: The last output, while it is not sure that a Decompressor would give it.
        self._held: list[Output] = []
        #: The beginning of the next part's member.
        self.beginning = Beginning()
        #: Bytes of output that were handed out, here or before.
        self.bytes_shown = bytes_shown
        #: Bytes of the file up to the end of the last part that was handed out.
        self.bytes_taken = 0
        #: Whether nothing more comes from here.
        self.ended = False

    @classmethod
    def begin(
        cls, form: Compression, source: object, chunks: Chunks, bytes_read: int, bytes_shown: int,
        left: threading.Semaphore,
    ) -> ParallelParts | None:  # fmt: skip
        """Return None if the source cannot be read anywhere, if it has no two parts, or if there is no thread left.

        ``bytes_read`` of the source have been read, in these ``chunks``.
        """
        file = FileBytes.of(source, bytes_read)
        if file is None:
            return None
        try:
            parts = find_parts(form, file)
            first = list(islice(parts, 2))
        except OSError:         # a Decompressor meets the same error
            return None
        if len(first) < 2:
            return None
        made = cls(form, file, chunks, chain(first, parts), bytes_shown, left)
        made._fill()
        if made._threads:
            return made
        return None

    def take(self, *, wait: bool) -> list[Output] | None:
        """The output of the next part, or None if it is not there yet, or ``ended``."""
        self._fill()
        if not self._ahead:
            self.ended = True
            return None
        job = self._ahead[0]
        while not job.is_done.is_set():
            if not wait:
                return None
            if not self._jobs.do_next():
                job.is_done.wait()
        self._ahead.popleft()
        self._memory -= job.part.memory
        outputs = self._accepted(job)
        self.ended = outputs is None
        return outputs

    def end(self, *, wait: bool) -> None:
        self._jobs.is_stopped = True
        self._jobs.waiting.clear()
        self._ahead.clear()
        if wait:
            for thread in self._threads:
                thread.join()

    def _fill(self) -> None:
        while len(self._ahead) < self._most_ahead and (part := self._next_part()) is not None:
            self._memory += part.memory
            job = _Job(part)
            self._ahead.append(job)
            self._jobs.waiting.append(job)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in range(len(self._jobs.waiting)):
            if not self._left.acquire(blocking=False):
                break
            thread = threading.Thread(target=_run, args=(self._jobs, self._left), daemon=True)
            try:
                thread.start()
            except RuntimeError:        # the system refuses one
                self._left.release()
                break
            self._threads.append(thread)

    def _next_part(self) -> Part | None:
        if self._next is None:
            try:
                self._next = next(self._parts, None)
            except OSError:         # whoever reads the file once more comes upon it
                return None
        part = self._next
        if part is None or (self._ahead and self._memory + part.memory > ROOM):
            return None
        self._next = None
        return part

    def _accepted(self, job: _Job) -> list[Output] | None:
        """Outputs that may be handed out now, or None if the part has to be decompressed by a ``Decompressor``."""
        if job.result is None:
            return None
        part = job.part
        made = self._bytes_made + sum(map(len, job.result))
        # A Decompressor that makes the last of it has taken more than what is before it.
        if is_bomb(made, part.start):
            return None
        beginning = self.beginning
        if part.ends_member:
            empty = beginning.empty + 1 if made == beginning.bytes_output else 0
            if empty > compression.MOST_EMPTY:
                return None
            beginning = Beginning(part.end, made, empty)
        outputs = self._held + _without_first(job.result, self._bytes_before - self._bytes_made)
        # If the member goes on and is damaged, a Decompressor loses some output before the damage, up to its step.
        outputs, self._held = (outputs, []) if part.ends_member else _divided(outputs, self._form.step)
        self._bytes_made, self.beginning, self.bytes_taken = made, beginning, part.end
        self.bytes_shown += sum(map(len, outputs))
        return outputs


def _without_first(outputs: Sequence[Output], count: int) -> list[Output]:
    left: list[Output] = []
    for output in outputs:
        if count < len(output):
            left.append(output[max(count, 0) :])
        count -= len(output)
    return left


def _divided(outputs: list[Output], count: int) -> tuple[list[Output], list[Output]]:
    """All but the last ``count`` bytes, and these."""
    first, last = outputs.copy(), deque[Output]()
    while first and count > 0:
        output = first.pop()
        last.appendleft(output[-count:])
        if len(output) > count:
            first.append(output[:-count])
        count -= len(output)
    return first, list(last)
