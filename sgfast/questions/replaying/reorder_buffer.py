"""Write packets in order, although the results of early fragments arrive late (SPEC 9.4)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from sgfast.core.base.frames import FrameBatch
from sgfast.engine import PENDING
from sgfast.questions.replaying.results import Rows, Sinks


@dataclass(slots=True)
class _Part:
    """Packets not written yet, with numbers from ``first`` on."""

    first: int
    frames: FrameBatch | None
    headers: Rows
    results: Rows
    pending: int


class ReorderBuffer:
    """Write packets to sinks once no earlier packet is pending. The engine limits how long packets are pending."""

    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks
        self._parts: deque[_Part] = deque()

    @property
    def waiting(self) -> int:
        """The number of packets not written yet."""
        return sum(len(part.results) for part in self._parts)

    def write(self, number: int, batch: FrameBatch, first: int, headers: Rows, results: Rows, resolved: Rows) -> None:
        """Accept frames of ``batch`` from ``first`` on, with packet numbers from ``number`` on.

        ``resolved`` (RESOLVED_DTYPE) has results of packets that were pending, which may be among these packets.
        """
        pending = int((results["verdict"] == PENDING).sum())
        if not pending and not self._parts:
            self._sinks.write_packets(batch, first, headers, results)
            return
        frames = batch.copied(first, len(results)) if self._sinks.frames else None
        self._parts.append(_Part(number, frames, headers.copy(), results.copy(), pending))
        self.resolve(resolved)

    def resolve(self, resolved: Rows) -> None:
        """Accept results of packets that were pending, as ``write`` does."""
        if len(resolved):
            for part in self._parts:
                at = resolved["number"].astype(np.int64) - part.first
                is_in_part = (at >= 0) & (at < len(part.results))
                part.results[at[is_in_part]] = resolved["result"][is_in_part]
                part.pending -= int(is_in_part.sum())
        while self._parts and not self._parts[0].pending:
            part = self._parts.popleft()
            # Without frame sinks the frames are unused.
            self._sinks.write_packets(part.frames or FrameBatch(1), 0, part.headers, part.results)
