"""Two engines that judge the same packets, and the connections on which they disagree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.base.frames import FrameBatch
from sgfast.core.diff.changed_connections import ChangedConnections
from sgfast.core.diff.paired import PairedPlanes
from sgfast.core.dtypes import HEADER_DTYPE
from sgfast.engine import Engine
from sgfast.questions.comparing.rules import Moves, RulePairs
from sgfast.questions.replaying.results import Oddities

#: Both engines' result words (``core/base/types.pxd``) for the packets of a batch.
_Words = tuple[NDArray[np.uint16], NDArray[np.uint16]]


def _room_for_words(packets: int) -> _Words:
    return np.zeros(packets, dtype=np.uint16), np.zeros(packets, dtype=np.uint16)


class Pair:
    """Compare two engines. Call ``process`` for each batch, or ``judge`` and then ``compare``, and ``finish`` at the
    end.

    ``together_from`` is the number of connections from which on ``process`` runs each engine in its own thread; None:
    never. Batches must then be lasting, and ``close`` must be called at the end.

    If the engines have several jobs and all batches are lasting, ``process`` compares a batch while the next batch is
    judged.
    """

    def __init__(self, before: Engine, after: Engine, *, together_from: int | None = None) -> None:
        self.engines = before, after
        self.rules = RulePairs(before, after)
        self.moves = Moves(self.rules)
        self.changed = ChangedConnections(before.dataplane)
        self._planes = PairedPlanes(before.dataplane, after.dataplane, self.changed)
        self._together_from = together_from
        self._is_together = False
        #: The batch not compared yet, and its result words.
        self._uncompared: tuple[FrameBatch, _Words] | None = None
        self._make_room(0)

    @property
    def pairs(self) -> list[Pair]:
        """All pairs: only this one. ``VpcPairs`` has one for each VPC."""
        return [self]

    @property
    def times(self) -> tuple[int | None, int | None, Oddities]:
        """The first and the last packet's time, and oddities of times (SPEC 9.1)."""
        counters = self.engines[0].dataplane.counters
        oddities = Oddities(counters["late"], counters["most_late_ns"], counters["restarts"])
        return counters["first_ns"], counters["last_ns"], oddities

    def _make_room(self, packets: int) -> None:
        #: The result words of the last batch. If a batch is compared while the next one is judged, also those before.
        self._words, self._words_before = _room_for_words(packets), _room_for_words(packets)
        #: Openers of several batches; the first ``_opener_count`` are valid. They are collected because finding the
        #: rules takes as long for a few openers as for hundreds.
        self._openers = np.zeros(2 * packets, dtype=HEADER_DTYPE)
        self._opener_count = 0

    def process(self, batch: FrameBatch) -> None:
        if self._is_together:
            self._wait()
            self._find_room(batch)
            self._planes.start(batch, *self._words, self._openers[self._opener_count :])
        elif batch.lasting and all(engine.dataplane.jobs > 1 for engine in self.engines):
            self._judge_ahead(batch)
        else:
            self.judge(batch)
            self.compare(batch)
            if self._together_from is not None and self.engines[0].dataplane.connections >= self._together_from:
                self._begin()

    def _judge_ahead(self, batch: FrameBatch) -> None:
        """Let both engines judge a batch, and compare the previous batch meanwhile."""
        uncompared = self._uncompared
        self._find_room(batch)
        self._words, self._words_before = self._words_before, self._words
        resolved = []
        for engine, words in zip(self.engines, self._words, strict=True):
            resolved.append(engine.dataplane.take_resolved())      # waits for the previous batch
            engine.dataplane.process_frames(batch, words=words, later=True)
        self._uncompared = batch, self._words
        self.changed.resolve(*resolved)
        if uncompared is not None:
            self._compare(*uncompared)

    def _begin(self) -> None:
        try:
            self._planes.begin()
        except MemoryError:         # continue with one thread
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
        """Compare the results of the batch judged last.

        ``numbers`` are the packets' numbers, counted from 1; None: they follow those of the previous batch.
        """
        self._compare(batch, self._words, numbers)

    def _compare(self, batch: FrameBatch, words: _Words, numbers: NDArray[Any] | None = None) -> None:
        self._count_openers(self.changed.compare(batch, *words, self._openers[self._opener_count :], numbers))

    def _count_openers(self, number: int) -> None:
        self._opener_count += number
        if self._opener_count + len(self._words[0]) > len(self._openers):
            self._count_moves()

    def _count_moves(self) -> None:
        if self._opener_count:
            self.moves.count(self._openers[: self._opener_count])
            self._opener_count = 0

    def _resolve(self, *, everything: bool = False) -> None:
        old, new = (engine.dataplane.take_resolved(everything=everything) for engine in self.engines)
        if len(old) or len(new):
            self.changed.resolve(old, new)

    def finish(self) -> None:
        self._wait()
        self._resolve(everything=True)
        if self._uncompared is not None:
            self._compare(*self._uncompared)
        self.changed.finish()
        self._count_moves()

    def close(self) -> None:
        """End the additional thread, if there is one."""
        self._planes.close()
