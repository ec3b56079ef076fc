"""Attempts that the cloud rejected, as flow logs tell of them. Captures never show them with certainty.

They are judged apart, with engines of their own, as they were no connections: what the policy allows of them would
open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgfast.core.base.frames import FrameBatch
from sgfast.policy.model import Policy
from sgfast.replaying.options import ReplayOptions
from sgfast.replaying.results import ReplayResult
from sgfast.replaying.runner import Runner
from sgfast.replaying.schedule import Schedule
from sgfast.replaying.vpc_mapping import seen_vpcs

if TYPE_CHECKING:
    from sgfast.policy.change_file import ChangeFile


class Rejections:
    """The replay of the attempts that the cloud rejected. ``runner`` judges nothing else."""

    def __init__(self, runner: Runner, policy: Policy, options: ReplayOptions, changes: ChangeFile | None) -> None:
        self._runner = runner
        self._schedule = Schedule(runner, policy, changes, seen_vpcs(policy, options), (), None, "never")

    def process(self, batch: FrameBatch, first_ns: int | None) -> None:
        """Judge some attempts."""
        if len(batch):
            self._schedule.process(batch, first_ns)

    def result(self, whole: ReplayResult) -> ReplayResult | None:
        """Return the answer about the rejected attempts, or None if there were none."""
        self._runner.finish(goes_on=False)
        found = ReplayResult(whole.policy, whole.mode, whole.midstream, whole.vpc, whole.captures)
        self._runner.fill(found)
        if not found.packets:
            return None
        found.kinds = found.kinds.without_numbers()
        # Nobody can answer what the cloud rejects.
        found.kinds.rows["silent"] = found.kinds.rows["refused"] = 0
        found.records = whole.records
        return found
