"""The interface of the engines or models that judge the packets of a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sgfast.core.base.file_reads import FileReads
from sgfast.core.base.frames import FrameBatch
from sgfast.questions.replaying.results import ChangeDone, ReplayResult

if TYPE_CHECKING:
    from sgfast.policy.change_file import TimedChange


class Runner(Protocol):
    """Judge packets in the order of the calls, and write the results to sinks."""

    @property
    def packets_judged(self) -> int: ...

    @property
    def file_reads(self) -> FileReads | None:
        """File reads of captures that idle threads of the runner do; None if it has no such threads."""

    def frames_before(self, batch: FrameBatch, first: int, at_ns: int) -> int:
        """Return the number of frames of ``batch``, from ``first`` on, before the replay's clock reaches ``at_ns``."""

    def process(self, batch: FrameBatch, first: int, number: int) -> None:
        """Judge ``number`` frames of ``batch`` from ``first`` on."""

    def flush(self) -> None:
        """Write packets that are not written yet, and connections that have ended, to the sinks."""

    def apply(self, change: TimedChange) -> ChangeDone:
        """Change the policy before the next packet."""

    def finish(self, *, goes_on: bool) -> None:
        """End the replay. Call it after ``flush``.

        ``goes_on``: another replay will resume this one, and report connections that are still open.
        """

    def fill(self, result: ReplayResult) -> None:
        """Add the counts to a result that already has its policy, options and changes."""
