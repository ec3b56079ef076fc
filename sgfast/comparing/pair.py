"""Two engines that judge the same packets, and what they disagree about."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.comparing.rules import Moves, RulePairs
from sgfast.core.base.frames import FrameBatch
from sgfast.core.diff.changed_connections import ChangedConnections
from sgfast.core.diff.paired import PairedPlanes
from sgfast.core.dtypes import HEADER_DTYPE
from sgfast.engine import Engine


class Pair:
    """``process`` each batch, or ``judge`` and then ``compare`` it; ``finish`` at the end.

    ``together_from``: from that many connections on ``process`` has each engine judge by a thread of its own, unless
    None. The batch of the call before must then still be there when it is called, and ``close`` has to be.
    """

    def __init__(self, before: Engine, after: Engine, *, together_from: int | None = None) -> None:
        self.engines = before, after
        self.rules = RulePairs(before, after)
        self.moves = Moves(self.rules)
        self.changed = ChangedConnections(before.dataplane)
        self._planes = PairedPlanes(before.dataplane, after.dataplane, self.changed)
        self._together_from = together_from
        self._is_together = False
        self._make_room(0)

    @property
    def pairs(self) -> list[Pair]:
        """Itself, as ``VpcPairs`` has one for each VPC."""
        return [self]

    @property
    def times(self) -> tuple[int | None, int | None, int, int]:
        """Of the first and the last packet; how many were late, how many restarted the clock (SPEC 9.1)."""
        counters = self.engines[0].dataplane.counters
        return counters["first_ns"], counters["last_ns"], counters["late"], counters["restarts"]

    def _make_room(self, packets: int) -> None:
        self._words = np.zeros(packets, dtype=np.uint16), np.zeros(packets, dtype=np.uint16)
        #: Of several batches, the first ``_begun``: each look at their rules costs as much as hundreds of them.
        self._openers = np.zeros(2 * packets, dtype=HEADER_DTYPE)
        self._begun = 0

    def process(self, batch: FrameBatch) -> None:
        if not self._is_together:
            self.judge(batch)
            self.compare(batch)
            if self._together_from is not None and self.engines[0].dataplane.connections >= self._together_from:
                self._begin()
            return
        self._wait()
        self._find_room(batch)
        self._planes.start(batch, *self._words, self._openers[self._begun :])

    def _begin(self) -> None:
        try:
            self._planes.begin()
        except MemoryError:         # one thread can do it, too
            self._together_from = None
        else:
            self._is_together = True

    def _wait(self) -> None:
        self._count_openers(self._planes.wait())
        self._resolve()

    def _find_room(self, batch: FrameBatch) -> None:
        if batch.capacity > len(self._words[0]):
            self._count_moves()
            self._make_room(batch.capacity)

    def judge(self, batch: FrameBatch) -> None:
        self._find_room(batch)
        self._planes.judge(batch, *self._words)
        self._resolve()

    def compare(self, batch: FrameBatch, numbers: NDArray[Any] | None = None) -> None:
        """The batch that was judged last. ``numbers``: of its packets, from 1; they follow those before if None."""
        self._count_openers(self.changed.compare(batch, *self._words, self._openers[self._begun :], numbers))

    def _count_openers(self, number: int) -> None:
        self._begun += number
        if self._begun + len(self._words[0]) > len(self._openers):
            self._count_moves()

    def _count_moves(self) -> None:
        if self._begun:
            self.moves.count(self._openers[: self._begun])
            self._begun = 0

    def _resolve(self, *, everything: bool = False) -> None:
        old, new = (engine.dataplane.take_resolved(everything=everything) for engine in self.engines)
        if len(old) or len(new):
            self.changed.resolve(old, new)

    def finish(self) -> None:
        self._wait()
        self._resolve(everything=True)
        self.changed.finish()
        self._count_moves()

    def close(self) -> None:
        """Ends the thread, if there is one."""
        self._planes.close()
