"""Write packets in order although some results come late: those of early fragments (SPEC 9.4)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from sgfast.core.base.frames import FrameBatch
from sgfast.engine import PENDING
from sgfast.replaying.results import Rows, Sinks


@dataclass(slots=True)
class _Part:
    """Waiting packets, from number ``first`` on."""

    first: int
    frames: FrameBatch | None
    headers: Rows
    results: Rows
    pending: int


class ReorderBuffer:
    """Hand packets to sinks once no earlier packet is pending. The engine limits how long packets are pending."""

    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks
        self._parts: deque[_Part] = deque()

    @property
    def waiting(self) -> int:
        """The number of packets not yet handed on."""
        return sum(len(part.results) for part in self._parts)

    def write(self, number: int, batch: FrameBatch, first: int, headers: Rows, results: Rows, resolved: Rows) -> None:
        """Take frames of ``batch`` from ``first`` on; the first of them is packet ``number``.

        ``resolved`` (RESOLVED_DTYPE): results of packets that were pending, including these.
        """
        pending = int((results["verdict"] == PENDING).sum())
        if not pending and not self._parts:
            self._sinks.write_packets(batch, first, headers, results)
            return
        frames = batch.copied(first, len(results)) if self._sinks.frames else None
        self._parts.append(_Part(number, frames, headers.copy(), results.copy(), pending))
        self.resolve(resolved)

    def resolve(self, resolved: Rows) -> None:
        """Take results of packets that were pending, as ``write`` does."""
        if len(resolved):
            for part in self._parts:
                at = resolved["number"].astype(np.int64) - part.first
                own = (at >= 0) & (at < len(part.results))
                part.results[at[own]] = resolved["result"][own]
                part.pending -= int(own.sum())
        while self._parts and not self._parts[0].pending:
            part = self._parts.popleft()
            # Without frame sinks the frames are not used.
            self._sinks.write_packets(part.frames or FrameBatch(1), 0, part.headers, part.results)
