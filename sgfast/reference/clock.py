"""The clock (SPEC 9.1)."""

from __future__ import annotations

NANOSECONDS = 10**9
LATE_AT_MOST = 60 * NANOSECONDS


class Clock:
    """The time of the capture, which never runs backwards (SPEC 9.1)."""

    def __init__(self) -> None:
        self.late = self.restarts = 0
        #: The maximum time by which a late timestamp went back, in nanoseconds.
        self.most_late = 0
        self.first: int | None = None
        self.now: int | None = None
        self._offset = 0

    def advance(self, time_ns: int) -> int:
        """Advance the clock by a packet's timestamp, and return the new time."""
        if self.now is None:
            self.now = self.first = time_ns
        time_ns += self._offset
        if time_ns >= self.now:
            self.now = time_ns
        elif self.now - time_ns <= LATE_AT_MOST:
            self.late += 1
            self.most_late = max(self.most_late, self.now - time_ns)
        else:
            self._offset += self.now - time_ns
            self.restarts += 1
        return self.now


def nanoseconds(seconds: float) -> int:
    return max(1, round(seconds * NANOSECONDS))
