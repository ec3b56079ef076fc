"""Flow logs in a replay: what they cannot be combined with, and the attempts that the cloud rejected.

Captures never show such attempts with certainty. They are judged apart, with engines of their own, as they were no
connections: what the policy allows of them would open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgfast.core.base.frames import FrameBatch
from sgfast.errors import ArgumentError
from sgfast.flow_logs.log_records import ComparedActions
from sgfast.policy.model import Policy
from sgfast.replaying.options import ReplayOptions
from sgfast.replaying.results import ReplayResult, Sinks
from sgfast.replaying.runner import Runner
from sgfast.replaying.schedule import Schedule
from sgfast.replaying.vpc_mapping import seen_vpcs

if TYPE_CHECKING:
    from sgfast.policy.change_file import ChangeFile


def refuse_for_logs(options: ReplayOptions, sinks: Sinks) -> None:
    """Raise ArgumentError for what needs packets."""
    if options.snapshot is not None or (options.resume is not None and options.client is None):
        raise ArgumentError("flow logs cannot be replayed with resume and snapshot")
    if options.shards is not None:
        raise ArgumentError("shards is for captures: of flow logs, workers only read the files")
    if options.engine != "fast":
        raise ArgumentError("flow logs need the fast engine: the reference model judges packets one by one")
    if sinks.frames or not all(getattr(sink, "takes_records", False) for sink in sinks.packets):
        raise ArgumentError("flow logs have no packets to write: ask for connections")


def compared_actions(result: ReplayResult) -> ComparedActions:
    """Compare the cloud's actions with the verdicts of a replay that has its rejected attempts."""
    allowed = result.connections["opened"] + result.connections["inferred"]
    rejected = {} if result.rejected is None else result.rejected.connections
    return ComparedActions(
        allowed, result.connections["denied"], rejected.get("denied", 0), rejected.get("opened", 0)
    )


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
