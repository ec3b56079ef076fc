"""The interface of whatever judges the packets of a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sgfast.core.base.file_reads import FileReads
from sgfast.core.base.frames import FrameBatch
from sgfast.replaying.results import ChangeDone, ReplayResult

if TYPE_CHECKING:
    from sgfast.policy.change_file import TimedChange


class Runner(Protocol):
    """Judge packets in the order in which it gets them, and pass the results to its sinks."""

    @property
    def packets_judged(self) -> int: ...

    @property
    def file_reads(self) -> FileReads | None:
        """Read of captures that its threads do when they are idle; None if it has no such threads."""

    def frames_before(self, batch: FrameBatch, first: int, at_ns: int) -> int:
        """The number of frames of ``batch``, from ``first`` on, before the replay's clock reaches ``at_ns``."""

    def process(self, batch: FrameBatch, first: int, number: int) -> None:
        """Judge ``number`` frames of ``batch`` from ``first`` on."""

    def flush(self) -> None:
        """Pass to its sinks what they have not got yet: packets, and the connections that have ended."""

    def apply(self, change: TimedChange) -> ChangeDone:
        """Change the policy before the next packet."""

    def finish(self, *, goes_on: bool) -> None:
        """End the replay. Call it after ``flush``.

        ``goes_on``: another replay will resume it, and report connections that are still open.
        """

    def fill(self, result: ReplayResult) -> None:
        """Add the findings to a result that already has its policy, options and changes."""
