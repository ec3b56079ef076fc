"""What became of packets over time: a count per stretch of time and verdict, in bounded memory.

    headers, results --> replay's clock --> stretch of 2**shift ns since the first packet --> counts[stretch, kind]

When the capture goes on past the last stretch, neighbours are joined until it fits: each time, a stretch is twice as
long. What is shown in the end depends on the packets alone, not on how they were cut into batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.base.clock import ReplayClock
from sgfast.engine import PENDING, REASONS, VERDICTS
from sgfast.replaying import Names

#: Stretches at most; from half as many on, once there are that many nanoseconds.
STRETCHES = 240

#: What is counted apart: the verdicts, and of the denied those whose connection a change had cut.
KINDS = (*VERDICTS[:PENDING], "disconnected")

_KIND_BITS = 3
_DISCONNECTED = REASONS.index("disconnected")

assert len(KINDS) == 1 << _KIND_BITS


class Timeline:
    """A ``PacketSink``: give it to ``replay(packets=...)``, then to ``html_report``.

    A replay that resumes another one gives it the packets that are new.
    """

    def __init__(self) -> None:
        #: On the replay's clock; None: no packet came.
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self._clock = ReplayClock()
        self._shift = 0
        self._counts = np.zeros((STRETCHES, len(KINDS)), dtype=np.int64)

    @property
    def stretch_ns(self) -> int:
        """How long each stretch is."""
        return 1 << self._shift

    @property
    def counts(self) -> NDArray[np.int64]:
        """Packets by stretch since ``first_ns`` and kind (``KINDS``): (n, 8), n at most ``STRETCHES``."""
        if self.first_ns is None or self.last_ns is None:
            return self._counts[:0]
        used = (self.last_ns - self.first_ns >> self._shift) + 1
        return self._counts[:used]

    def begin(self, names: Names) -> None:
        """The names of rules and instances make no difference here."""

    def write(self, headers: NDArray[Any], results: NDArray[Any]) -> None:
        if not len(headers):
            return
        times = self._clock.advance(headers["time_ns"])
        if self.first_ns is None:
            self.first_ns = int(times[0])
        self.last_ns = int(times[-1])
        self._make_room(self.last_ns - self.first_ns)
        kinds = results["verdict"].astype(np.int64)
        kinds[results["reason"] == _DISCONNECTED] = PENDING
        cells = (times.view(np.uint64) - np.uint64(self.first_ns % 2**64) >> np.uint64(self._shift)).view(np.int64)
        cells = (cells << _KIND_BITS) | kinds
        self._counts += np.bincount(cells, minlength=self._counts.size).reshape(self._counts.shape)

    def _make_room(self, span_ns: int) -> None:
        doublings = 0
        while span_ns >> (self._shift + doublings) >= STRETCHES:
            doublings += 1
        if not doublings:
            return
        self._shift += doublings
        joined = np.zeros_like(self._counts)
        np.add.at(joined, np.arange(STRETCHES) >> min(doublings, 62), self._counts)
        self._counts = joined
