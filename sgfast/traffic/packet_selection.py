"""Leave packets out of captures before judging: by time, by filter, and copies.

The remaining packets are judged like a smaller capture: they are numbered from 1, and connections begin with them. Only
times in seconds, of the window and of changes (SPEC 9.5), are still measured from the first packet of the capture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Protocol

from sgfast.core.base.frames import FrameBatch
from sgfast.traffic.preprocess.decap import TunnelSample
from sgfast.traffic.preprocess.selection import Dedup, Filter, Window
from sgfast.traffic.read_options import ReadOptions
from sgfast.traffic.time_window import parse_window, refuse_backwards

#: Without ``dedup``, the packets of a capture are divided into runs of LOOK_EVERY, and the first LOOKED_AT packets of
#: each run are checked for copies, to detect captures that contain most packets twice. The check ignores batches,
#: because their size depends on the number of jobs.
LOOK_EVERY = 1 << 19
LOOKED_AT = 512
#: The number of copies, and their minimum share 1 / ONE_IN of the checked IP packets, from which on a warning is given.
#: Fewer copies are retransmissions or chance.
MANY_COPIES = 100
ONE_IN = 8


@dataclass(frozen=True, slots=True)
class PacketsLeftOut:
    """The number of packets left out, by the option that leaves them out; None for an option that was not given.

    ``before_start``: packets before ``start``.
    ``after_end``: packets at or after ``end``.
    ``filter``: packets that ``filter`` does not match.
    ``duplicates``: copies of packets.
    """

    before_start: int | None = None
    after_end: int | None = None
    filter: int | None = None
    duplicates: int | None = None

    @property
    def total(self) -> int:
        """The sum of all numbers."""
        return sum(number or 0 for number in astuple(self))


def both_left_out(a: PacketsLeftOut | None, b: PacketsLeftOut | None) -> PacketsLeftOut | None:
    """Add up the packets left out by two replays, one of which resumes the other."""
    if a is None or b is None:
        return b if a is None else a
    pairs = zip(astuple(a), astuple(b), strict=True)
    return PacketsLeftOut(*(y if x is None else x if y is None else x + y for x, y in pairs))


class SelectionStep(Protocol):
    """Remove frames from a batch, in place. The batch is not empty before, but may be empty afterwards."""

    def apply(self, batch: FrameBatch) -> None: ...


class PacketSelection:
    """Apply the steps that ``reading`` requires, in order.

    ``first_ns`` is the time of the first packet; None until it is known. ``looks``: whether to look for copies and
    tunnels. Raises ReadingError for an invalid window or
    filter. If only the first packet's time shows that the window is invalid, the first batch raises it.
    """

    def __init__(self, reading: ReadOptions, first_ns: int | None, *, looks: bool = True) -> None:
        self.first_ns = first_ns
        self._looks = looks
        self._reading = reading
        self._start, self._end = parse_window(reading.start, reading.end)
        self._window: Window | None = None
        self._filter = None if reading.filter is None else Filter(reading.filter)
        self.dedup = Dedup()
        self.tunnels = TunnelSample(reading.decap)
        self._steps: list[SelectionStep] | None = None
        self._packets = self._looked_at = self._copies = 0

    def apply(self, batch: FrameBatch) -> None:
        """Remove frames from ``batch``, which may be empty afterwards."""
        if self._steps is None:
            self._steps = self._begin(next(iter(batch))[0])
        for step in self._steps:
            step.apply(batch)
        if self._looks:
            self._look(batch)
        self._packets += len(batch)

    def _look(self, batch: FrameBatch) -> None:
        self.tunnels.look(batch)
        if self._reading.dedup:
            return
        for first, number in self._sampled(batch):
            packets, copies = self.dedup.look(batch, first, number)
            self._looked_at += packets
            self._copies += copies

    def _sampled(self, batch: FrameBatch) -> Iterator[tuple[int, int]]:
        """Yield places and numbers of those packets of the batch that are the first ones of runs."""
        begin, end = self._packets, self._packets + len(batch)
        for start in range(begin // LOOK_EVERY * LOOK_EVERY, end, LOOK_EVERY):
            first, stop = max(start, begin), min(start + LOOKED_AT, end)
            if first < stop:
                yield first - begin, stop - first

    def _begin(self, time_ns: int) -> list[SelectionStep]:
        if self.first_ns is None:
            self.first_ns = time_ns
        if self._start is not None and self._end is not None:
            refuse_backwards(self._start, self._end, self.first_ns)
        if self._start is not None or self._end is not None:
            limits = (self._start, self._end)
            self._window = Window(*(None if limit is None else limit.at(self.first_ns) for limit in limits))
        steps = (self._window, self._filter, self.dedup if self._reading.dedup else None)
        return [step for step in steps if step is not None]

    def left_out(self) -> PacketsLeftOut | None:
        """Return the packets left out so far, or None if no option leaves packets out."""
        reading = self._reading
        if not reading.leaves_out:
            return None
        before, after = (self._window.before_start, self._window.after_end) if self._window is not None else (0, 0)
        return PacketsLeftOut(
            None if reading.start is None else before,
            None if reading.end is None else after,
            None if self._filter is None else self._filter.dropped,
            self.dedup.dropped if reading.dedup else None,
        )

    @property
    def copies_seen(self) -> tuple[int, int]:
        """The numbers of IP packets checked for copies, and of copies among them."""
        return self._looked_at, self._copies


def are_copies(looked_at: int, copies: int) -> bool:
    """Return whether there are so many copies that the captures must have packets twice."""
    return copies >= MANY_COPIES and copies * ONE_IN >= looked_at
