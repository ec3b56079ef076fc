"""Work of a replay between packets: policy changes (SPEC 6.1), and writing connections that have ended."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from sgfast.base.errors import SnapshotError
from sgfast.base.names import printable
from sgfast.core.base.frames import FrameBatch
from sgfast.policy.model import Instance, Policy
from sgfast.questions.replaying.results import ChangeDone
from sgfast.questions.replaying.runner import Runner

if TYPE_CHECKING:
    from sgfast.policy.change_file import ChangeFile, TimedChange


#: The number of judged packets after which connections that have ended are written (SPEC 10.4). They are not written
#: after each batch, because the order of connections would then depend on how captures are divided into batches.
CONNECTIONS_EVERY = 1 << 14


#: When the runner is flushed. "counted": after every CONNECTIONS_EVERY judged packets. "promptly": after each batch.
Flushes = Literal["never", "counted", "promptly"]


class Schedule:
    """Pass batches to a runner. A batch is split where a change applies, and where connections are written.

    ``file`` contains the changes; None if there are none. ``vpcs`` lists the VPCs from which packets are seen; None in
    it means all VPCs. ``done`` lists the changes made before a snapshot. ``first_ns`` is the time of the first packet
    before that snapshot. ``flushes`` states when the runner is flushed.
    """

    def __init__(
        self, runner: Runner, policy: Policy, file: ChangeFile | None, vpcs: Sequence[str | None],
        done: Sequence[ChangeDone], first_ns: int | None, flushes: Flushes,
    ) -> None:  # fmt: skip
        self._runner = runner
        self._policy = policy
        self._file = file
        self._vpcs = vpcs
        self._resolved = False
        self._flushes_promptly = flushes == "promptly"
        self._every = CONNECTIONS_EVERY if flushes == "counted" else sys.maxsize
        #: The number of packets until connections are written.
        self._packets_to_next = self._every - runner.packets_judged % self._every
        self.pending: deque[TimedChange] = deque()
        self.done = list(done)
        if first_ns is not None:
            self._resolve(first_ns)

    def process(self, batch: FrameBatch, first_ns: int | None) -> None:
        """Judge a batch. ``first_ns`` is the time of the captures' first packet, even if that packet is left out."""
        if not self._resolved:
            self._resolve(first_ns)
        first = 0
        while self.pending:
            change = self.pending[0]
            number = self._runner.frames_before(batch, first, change.time_ns)
            if number == len(batch) - first:
                break
            self._process(batch, first, number)
            first += number
            self.done.append(self._runner.apply(change))
            self.pending.popleft()
        self._process(batch, first, len(batch) - first)
        if self._flushes_promptly:
            self._runner.flush()

    def _process(self, batch: FrameBatch, first: int, number: int) -> None:
        end = first + number
        while first < end:
            part = min(end - first, self._packets_to_next)
            self._runner.process(batch, first, part)
            first += part
            self._packets_to_next -= part
            if self._packets_to_next == 0:
                self._runner.flush()
                self._packets_to_next = self._every

    def times(self, first_ns: int) -> list[int]:
        """Return the times of the changes to come. ``first_ns``: as for ``process``."""
        if not self._resolved:
            self._resolve(first_ns)
        return [change.time_ns for change in self.pending]

    def changed_instances(self) -> list[Instance]:
        """Return instances with the addresses that the changes to come give them."""
        from sgfast.policy.changes import AddAddress, AddInstance

        instance_of_name = {instance.name: instance for instance in self._policy.instances}
        changed = []
        for timed_change in self.pending:
            if isinstance(timed_change.change, AddInstance):
                instance_of_name[timed_change.change.instance.name] = timed_change.change.instance
                changed.append(timed_change.change.instance)
            elif isinstance(timed_change.change, AddAddress):
                changed.append(
                    replace(instance_of_name[timed_change.change.instance], addresses=(timed_change.change.address,))
                )
        return changed

    def finish(self, first_ns: int | None) -> None:
        """End the schedule. The change file is also checked if there was no packet."""
        if not self._resolved:
            self._resolve(first_ns)

    def _resolve(self, first_ns: int | None) -> None:
        self._resolved = True
        if self._file is None:
            return
        from sgfast.questions.replaying.overlaps import refuse_ambiguous

        changes = self._file.resolve(self._policy, first_ns or 0)
        for vpc in self._vpcs:
            refuse_ambiguous(self._policy, changes, vpc)
        changes_before = [(change.time_ns, change.text) for change in changes[: len(self.done)]]
        if changes_before != [(change.time_ns, change.text) for change in self.done]:
            raise SnapshotError(
                f"{printable(self._file.origin)}: does not begin with the {len(self.done)} changes made before the "
                "snapshot; use the change file of that replay"
            )
        self.pending.extend(changes[len(self.done) :])
