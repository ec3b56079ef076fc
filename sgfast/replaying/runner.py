"""What judges the packets of a replay, as whoever hands it the packets sees it."""

from __future__ import annotations

from typing import Protocol

from sgfast.core.base.frames import FrameBatch
from sgfast.policy.change_file import TimedChange
from sgfast.replaying.results import ChangeDone, ReplayResult


class Runner(Protocol):
    """Judges packets in the order they are handed over, and tells its sinks what became of them."""

    @property
    def packets_judged(self) -> int: ...

    def frames_before(self, batch: FrameBatch, first: int, at_ns: int) -> int:
        """How many frames of ``batch``, from ``first`` on, come before the replay's clock reaches ``at_ns``."""

    def process(self, batch: FrameBatch, first: int, number: int) -> None:
        """Judges ``number`` frames of ``batch`` from ``first`` on."""

    def apply(self, change: TimedChange) -> ChangeDone:
        """Changes the policy before the next packet."""

    def finish(self, *, goes_on: bool) -> None:
        """No packet is left. ``goes_on``: a replay that goes on from here will tell of connections that still live."""

    def fill(self, result: ReplayResult) -> None:
        """Adds what was found to a result whose policy, options and changes are known."""
