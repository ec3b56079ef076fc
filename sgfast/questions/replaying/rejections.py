"""Attempts that the cloud rejected, as flow logs tell of them. Captures never show them with certainty.

They are judged apart, with engines of their own, as they were no connections: what the policy allows of them would
open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sgfast.core.base.frames import FrameBatch
from sgfast.policy.model import Policy
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.results import FlowSink, Names, ReplayResult, Rows, Sinks
from sgfast.questions.replaying.runner import Runner
from sgfast.questions.replaying.schedule import Flushes, Schedule
from sgfast.rows.row_schema import ANSWERS
from sgfast.traffic.vpc_mapping import seen_vpcs

if TYPE_CHECKING:
    from sgfast.policy.change_file import ChangeFile


class Rejections:
    """The replay of the attempts that the cloud rejected. ``runner`` judges nothing else."""

    def __init__(
        self, runner: Runner, policy: Policy, options: ReplayOptions, changes: ChangeFile | None, flushes: Flushes
    ) -> None:
        self._runner = runner
        self._schedule = Schedule(runner, policy, changes, seen_vpcs(policy, options.vpc), (), None, flushes)

    def process(self, batch: FrameBatch, first_ns: int | None) -> None:
        """Judge some attempts."""
        if len(batch):
            self._schedule.process(batch, first_ns)

    def result(self, whole: ReplayResult) -> ReplayResult | None:
        """Return the answer about the rejected attempts, or None if there were none."""
        self._runner.flush()
        self._runner.finish(goes_on=False)
        part = whole._empty_part(whole.vpc)
        self._runner.fill(part)
        if not part.packets:
            return None
        part.kinds = part.kinds.without_numbers()
        # Nobody can answer what the cloud rejects.
        part.kinds.rows["silent"] = part.kinds.rows["refused"] = 0
        part.records = whole.records
        return part


class _SharedFlows:
    """Sinks of two replays with the same policy and changes. Both number names alike, and one may be ahead."""

    def __init__(self, sinks: Sequence[FlowSink]) -> None:
        self._sinks = sinks
        self._name_count = -1

    def begin(self, names: Names) -> None:
        """Take the names of the replay that is ahead, which are all that the other one has, and more."""
        if (name_count := len(names.instances) + len(names.rules)) > self._name_count:
            self._name_count = name_count
            for sink in self._sinks:
                sink.begin(names)

    def write(self, flows: Rows) -> None:
        """Take some connections of either replay."""
        for sink in self._sinks:
            sink.write(flows)


class _RejectedFlows(_SharedFlows):
    """The same sinks for the attempts that the cloud rejected."""

    def write(self, flows: Rows) -> None:
        """Take some attempts. The numbers of their frames mean nothing."""
        flows["answer"] = ANSWERS.index("rejected")
        flows["number"] = 0
        super().write(flows)


def shared_sinks(sinks: Sinks) -> tuple[Sinks, Sinks]:
    """Return the sinks of the accepted traffic, and those of the attempts that the cloud rejected."""
    if not (sinks.with_rejections and sinks.flows):
        return sinks, Sinks()
    shared = _SharedFlows(sinks.flows)
    return replace(sinks, flows=(shared,)), Sinks(flows=(_RejectedFlows((shared,)),))
