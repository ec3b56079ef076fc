"""Two engines that judge the same packets, and what they disagree about."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.comparing.rules import Moves, RulePairs
from sgfast.core.beside import Beside
from sgfast.core.changed import ChangedConnections
from sgfast.core.dtypes import HEADER_DTYPE
from sgfast.core.frames import FrameBatch
from sgfast.engine import Engine


class Pair:
    """``judge`` and ``compare`` for each batch, ``finish`` at the end. ``together_from``: as ``Beside`` has it."""

    def __init__(self, before: Engine, after: Engine, *, together_from: int | None = None) -> None:
        self.engines = before, after
        self.rules = RulePairs(before, after)
        self.moves = Moves(self.rules)
        self.changed = ChangedConnections(before.dataplane)
        self._beside = Beside(before.dataplane, after.dataplane, together_from=together_from)
        self._words: tuple[NDArray[np.uint16], NDArray[np.uint16]]
        self._make_room(0)

    def _make_room(self, packets: int) -> None:
        self._words = np.zeros(packets, dtype=np.uint16), np.zeros(packets, dtype=np.uint16)
        #: Of several batches, the first ``_begun``: each look at their rules costs as much as hundreds of them.
        self._openers = np.zeros(2 * packets, dtype=HEADER_DTYPE)
        self._begun = 0

    def judge(self, batch: FrameBatch) -> None:
        if batch.capacity > len(self._words[0]):
            self._count_moves()
            self._make_room(batch.capacity)
        self._beside.process(batch, *self._words)
        self._resolve()

    def compare(self, batch: FrameBatch, numbers: NDArray[Any] | None = None) -> None:
        """The batch that was judged last. ``numbers``: of its packets, from 1; they follow those before if None."""
        self._begun += self.changed.compare(batch, *self._words, self._openers[self._begun :], numbers)
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
        self._resolve(everything=True)
        self.changed.finish()
        self._count_moves()

    def close(self) -> None:
        """Ends the thread, if there is one."""
        self._beside.close()
