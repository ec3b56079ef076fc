"""Several captures, read as one: one after the other, or merged by time."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from sgfast.capture import CaptureReader, Damage, open_capture
from sgfast.capture.directories import captures_in, first_time_ns, is_directory
from sgfast.capture.following import first_interrupt
from sgfast.capture.merge import MergedReader
from sgfast.capture.names import printable
from sgfast.core.frames import FrameBatch
from sgfast.errors import CaptureError


@dataclass(frozen=True, slots=True)
class Reading:
    """How captures are read, by all who read them. ``sgfast.cli.options.reading_options`` are the same as options.

    ValueError for what does not go together.
    """

    #: Packets of all captures in the order of their times, not capture after capture.
    merge: bool = False
    #: The last capture is a file that grows: it is read on until the first interrupt (SIGINT), which ends it there.
    follow: bool = False

    def __post_init__(self) -> None:
        if self.merge and self.follow:
            raise ValueError("merge and follow do not go together: what comes next is not known while a file grows")


class Captures:
    """Iterating yields the batches of frames of all ``paths``, in order, each good until the next is asked for.

    A directory stands for the captures in it, merged by time. ``progress`` is called with (packets, bytes read) so far
    once a batch is done with. Damage part way ends it there, and is in ``damage`` then; ``warnings`` is complete at the
    end, too. Raises CaptureError: what is wrong with a file is told before anything is read (SPEC 10.5), as far as it
    can be known.
    """

    def __init__(self, paths: Sequence[str], reading: Reading, progress: Callable[[int, int], None] | None) -> None:
        self._progress = progress
        self._follow = reading.follow
        self.damage: Damage | None = None
        self.warnings: list[str] = []
        #: Read one after the other: captures that are merged, and where it is known when they begin.
        self._parts: list[list[tuple[str, int | None]]] = []
        for number, path in enumerate(paths, 1):
            if is_directory(path):
                if reading.follow:
                    raise CaptureError(f"{printable(path)}: is a directory; follow the file in it that grows")
                found, warning = captures_in(path)
                self._parts.append(found)
                self.warnings += [warning] if warning is not None else []
                continue
            first_ns = None
            if _can_be_tried(path) and not (reading.follow and number == len(paths)):
                if reading.merge:
                    first_ns = first_time_ns(path)
                else:
                    open_capture(path).close()
            self._parts.append([(path, first_ns)])
        if reading.merge:
            self._parts = [[capture for part in self._parts for capture in part]]

    def __iter__(self) -> Iterator[FrameBatch]:
        packets_before = bytes_before = 0
        with ExitStack() as stack:
            until = stack.enter_context(first_interrupt()) if self._follow else None
            for number, part in enumerate(self._parts, 1):
                is_last = number == len(self._parts)
                with _opened(part, until if is_last else None) as reader:
                    while (batch := reader.next_batch()) is not None:
                        yield batch
                        if self._progress is not None:
                            self._progress(packets_before + reader.packets, bytes_before + reader.bytes_read)
                        if until is not None and until() and not is_last:
                            return
                    packets_before += reader.packets
                    bytes_before += reader.bytes_read
                    self.warnings += reader.remarks
                    if reader.damage is not None:
                        self.damage = reader.damage
                        return


def _opened(part: list[tuple[str, int | None]], until: Callable[[], bool] | None) -> CaptureReader | MergedReader:
    return open_capture(part[0][0], until=until) if len(part) == 1 else MergedReader(part)


def _can_be_tried(path: str) -> bool:
    """Whether opening a capture takes nothing from who opens it next, as it would from a pipe, or just fails."""
    if path == "-":
        return False
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError):
        return True
    once = stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or stat.S_ISBLK(kind)
    return not (once and os.access(path, os.R_OK))
