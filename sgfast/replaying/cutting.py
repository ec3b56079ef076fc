"""What is cut out of captures before anything is judged: times, what a filter leaves out, copies.

A replay of what is left is that of a smaller capture: packets are numbered, and connections begin, as in one. Only
times in seconds, the window's and those of changes (SPEC 9.5), count from the first packet that was there.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Protocol

from sgfast.core.base.frames import FrameBatch
from sgfast.preprocess.selection import Dedup, Filter, Window
from sgfast.replaying.options import Reading
from sgfast.replaying.time_window import parse_window, refuse_backwards

#: Where nobody asks for ``dedup``, the first packets of every so many batches are looked at for copies: enough to tell
#: a capture that holds most packets twice, and a thousandth of the packets in a large one.
LOOK_EVERY = 64
LOOKED_AT = 512
#: So many copies, and such a part of the IP packets looked at, and it is said: few are retransmissions, or chance.
MANY_COPIES = 100
ONE_IN = 8


@dataclass(frozen=True, slots=True)
class PacketsLeftOut:
    """Packets of captures that are not judged, by why. None: nothing was to be left out for that."""

    before_start: int | None = None
    after_end: int | None = None
    filter: int | None = None
    duplicates: int | None = None

    @property
    def total(self) -> int:
        return sum(number or 0 for number in astuple(self))


def both_left_out(a: PacketsLeftOut | None, b: PacketsLeftOut | None) -> PacketsLeftOut | None:
    """Of two replays, one of which went on from the other."""
    if a is None or b is None:
        return b if a is None else a
    pairs = zip(astuple(a), astuple(b), strict=True)
    return PacketsLeftOut(*(y if x is None else x if y is None else x + y for x, y in pairs))


class Step(Protocol):
    """Takes a batch of frames, at least one, and changes it in place; none may be left."""

    def apply(self, batch: FrameBatch) -> None: ...


class Cutting:
    """The steps that ``reading`` asks for, in order.

    ``first_ns``: time of the first packet, None as long as there was none. Raises ReadingError, at the first packet
    for a window whose ends are only then known to be the wrong way round.
    """

    def __init__(self, reading: Reading, first_ns: int | None) -> None:
        self.first_ns = first_ns
        self._reading = reading
        self._start, self._end = parse_window(reading.start, reading.end)
        self._window: Window | None = None
        self._filter = None if reading.filter is None else Filter(reading.filter)
        self.dedup = Dedup()
        self._steps: list[Step] | None = None
        self._batches = self._looked_at = self._copies = 0

    def apply(self, batch: FrameBatch) -> None:
        """Changes ``batch``, which may have no frames left then."""
        if self._steps is None:
            self._steps = self._begin(next(iter(batch))[0])
        for step in self._steps:
            step.apply(batch)
        if not self._reading.dedup:
            if self._batches % LOOK_EVERY == 0:
                packets, copies = self.dedup.look(batch, LOOKED_AT)
                self._looked_at += packets
                self._copies += copies
            self._batches += 1

    def _begin(self, time_ns: int) -> list[Step]:
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
        """None: nothing was to be left out."""
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
        """Of packets that were looked at: how many, and how many copies."""
        return self._looked_at, self._copies


def warn_of_copies(warnings: list[str], looked_at: int, copies: int) -> None:
    if copies >= MANY_COPIES and copies * ONE_IN >= looked_at:
        warnings.append(
            f"{copies} of {looked_at} packets looked at were there a moment before: if the capture "
            "is of all interfaces, or of a mirror of several ports, --dedup leaves copies out"
        )
