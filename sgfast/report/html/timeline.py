"""Count packets over time by interval and verdict, in bounded memory.

    headers, results --> replay's clock --> interval of 2**shift ns since the first packet --> counts[interval, kind]

If a packet comes after the last interval, neighbouring intervals are merged until it fits, which doubles their length
each time. The result depends only on the packets, not on how they were split into batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.base.clock import ReplayClock
from sgfast.engine import PENDING, REASONS, VERDICTS
from sgfast.questions.replaying import Names

#: Maximum number of intervals. A capture of at least this many nanoseconds has at least half as many intervals.
MAX_INTERVALS = 240

#: Kinds of packets that are counted separately: the verdicts, and denied packets whose connection was cut by a change.
KINDS = (*VERDICTS[:PENDING], "disconnected")

_KIND_BITS = 3
_DISCONNECTED = REASONS.index("disconnected")

assert len(KINDS) == 1 << _KIND_BITS


class Timeline:
    """A ``PacketSink``: pass it to ``replay(packets=...)``, then to ``html_report``.

    If a replay resumes another one, the timeline gets only the new packets.

    ``first_time_ns``, ``last_time_ns``: the first and the last time by the replay's clock; None without packets.

    For example:

        timeline = Timeline()
        result = sgfast.replay("pcaps/shop.yaml", "pcaps/shop.pcap", packets=timeline)
    """

    def __init__(self) -> None:
        self.first_time_ns: int | None = None
        self.last_time_ns: int | None = None
        self._clock = ReplayClock()
        self._shift = 0
        self._counts = np.zeros((MAX_INTERVALS, len(KINDS)), dtype=np.int64)

    @property
    def interval_ns(self) -> int:
        """The length of each interval."""
        return 1 << self._shift

    @property
    def counts(self) -> NDArray[np.int64]:
        """Packets by interval, from ``first_time_ns`` on, and by kind (``KINDS``): shape (n, 8), n at most
        ``MAX_INTERVALS``."""
        if self.first_time_ns is None or self.last_time_ns is None:
            return self._counts[:0]
        used = (self.last_time_ns - self.first_time_ns >> self._shift) + 1
        return self._counts[:used]

    def begin(self, names: Names) -> None:
        """Do nothing: the timeline needs no names of rules and instances."""

    #: Packets of flow logs come with ``write_records``.
    takes_records = True

    def write(self, headers: NDArray[Any], results: NDArray[Any]) -> None:
        """Count some packets."""
        self.write_records(headers, results, None)

    def write_records(
        self, headers: NDArray[Any], results: NDArray[Any], packets: Sequence[int] | None
    ) -> None:
        """Count packets of flow logs, each of which stands for a number of ``packets``."""
        if not len(headers):
            return
        times = self._clock.advance(headers["time_ns"])
        if self.first_time_ns is None:
            self.first_time_ns = int(times[0])
        self.last_time_ns = int(times[-1])
        self._make_room(self.last_time_ns - self.first_time_ns)
        kinds = results["verdict"].astype(np.int64)
        kinds[results["reason"] == _DISCONNECTED] = PENDING
        cells = (times.view(np.uint64) - np.uint64(self.first_time_ns % 2**64) >> np.uint64(self._shift)).view(np.int64)
        cells = (cells << _KIND_BITS) | kinds
        counted = np.bincount(cells, packets, minlength=self._counts.size)
        self._counts += counted.astype(np.int64).reshape(self._counts.shape)

    def _make_room(self, span_ns: int) -> None:
        doublings = 0
        while span_ns >> (self._shift + doublings) >= MAX_INTERVALS:
            doublings += 1
        if not doublings:
            return
        self._shift += doublings
        merged = np.zeros_like(self._counts)
        np.add.at(merged, np.arange(MAX_INTERVALS) >> min(doublings, 62), self._counts)
        self._counts = merged
