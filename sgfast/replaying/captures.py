"""Several captures, read one after the other as one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sgfast.capture import Damage, open_capture
from sgfast.core.frames import FrameBatch
from sgfast.replaying.cutting import Cutting
from sgfast.replaying.moments import parse_window
from sgfast.stages.filter_text import parse_filter


@dataclass(frozen=True, slots=True)
class Reading:
    """How captures are read, by all who read them. ``sgfast.cli.options.reading_options`` are the same as options.

    Making one raises ReadingError for times or a filter that cannot be understood.
    """

    #: Packets of all captures in the order of their times, not capture after capture.
    merge: bool = False
    #: A capture that grows is read on until an interrupt ends it.
    follow: bool = False
    #: Only packets of [start, end), by their own timestamps: seconds from the first packet of all captures ("12.5",
    #: "1h30m"), or ISO 8601 instants.
    start: str | None = None
    end: str | None = None
    #: Only packets that match: an expression like tcpdump's.
    filter: str | None = None
    #: Only the first of packets that are there more than once, as captures of several interfaces have them.
    dedup: bool = False

    def __post_init__(self) -> None:
        parse_window(self.start, self.end)
        if self.filter is not None:
            parse_filter(self.filter)

    @property
    def leaves_out(self) -> bool:
        """Whether packets are to be left out."""
        return self.start is not None or self.end is not None or self.filter is not None or self.dedup


class Captures:
    """Iterating yields the batches of frames of all ``paths``, in order, each good until the next is asked for.

    What ``reading`` wants to leave out is not in them; ``cutting`` knows how much it was. ``first_ns``: time of the
    first packet of all captures, where those of an earlier replay came before these.
    ``progress`` is called with (packets, bytes read) so far once a batch is done with. Damage part way ends it there,
    and is in ``damage`` then. Raises CaptureError: what is wrong with a file is told before anything is read (SPEC
    10.5), as far as it can be known.
    """

    def __init__(
        self, paths: Sequence[str], reading: Reading, progress: Callable[[int, int], None] | None,
        first_ns: int | None = None,
    ) -> None:  # fmt: skip
        self._paths = paths
        self._reading = reading
        self._progress = progress
        self.damage: Damage | None = None
        self.cutting = Cutting(reading, first_ns)
        for path in paths:
            if _can_be_tried(path):
                open_capture(path).close()

    def __iter__(self) -> Iterator[FrameBatch]:
        for batch in self._batches():
            self.cutting.apply(batch)
            if len(batch):
                yield batch

    def _batches(self) -> Iterator[FrameBatch]:
        packets_before = bytes_before = 0
        for path in self._paths:
            with open_capture(path) as reader:
                while (batch := reader.next_batch()) is not None:
                    yield batch
                    if self._progress is not None:
                        self._progress(packets_before + reader.packets, bytes_before + reader.bytes_read)
                packets_before += reader.packets
                bytes_before += reader.bytes_read
                if reader.damage is not None:
                    self.damage = reader.damage
                    return


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
