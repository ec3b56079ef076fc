"""Run a replay with an engine for each VPC, if the policy maps packets to VPCs (SPEC 7.1).

A packet's VPC is found by the marks in ``Vpc``: the VNI of its tunnel, its VLAN, the interface that captured it, or its
file. Its addresses are looked up in that VPC and its peers, so several VPCs may use the same addresses. Packets without
a mark go to an engine that sees all VPCs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sgfast.core.base.frames import FrameBatch
from sgfast.core.dataplane import DataPlane
from sgfast.core.dtypes import HEADER_DTYPE, RESOLVED_DTYPE, RESULT_DTYPE
from sgfast.engine import PENDING, Engine
from sgfast.policy.change_file import TimedChange
from sgfast.policy.model import Policy
from sgfast.questions.replaying.engine_runner import EngineRunner, finish_flows, make_engine
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.reorder_buffer import ReorderBuffer
from sgfast.questions.replaying.replay_snapshot import Dealt, Earlier, Resumed
from sgfast.questions.replaying.results import ChangeDone, Names, Oddities, ReplayResult, Rows, Sinks
from sgfast.questions.replaying.totals import add_up, add_up_change, finish_vpc
from sgfast.rules.compiler import Compiler, Numbering
from sgfast.traffic.preprocess.vpcs import Dealer, own_times
from sgfast.traffic.vpc_mapping import first_vpc, refuse_too_many, seen_from


class VpcRunner:
    """A ``Runner`` with an engine for each VPC that has packets.

    An engine is made for the first packet that needs it, because many VPCs may have no packets. Also, an engine that
    sees all VPCs cannot be made if their addresses overlap: AmbiguousAddress is raised only if a packet needs it.
    Raises PolicyError for packets of too many VPCs. With several jobs, several VPCs are judged in parallel, each by one
    thread. ``resumed``: the replay to continue, if any.
    """

    file_reads = None

    def __init__(self, policy: Policy, options: ReplayOptions, sinks: Sinks, resumed: Resumed | None) -> None:
        self._vpcs = policy.vpcs
        self._policy = policy
        self._options = options
        self._sinks = sinks
        self._dealer = Dealer(len(policy.vpcs))
        self._threads = ThreadPoolExecutor(options.jobs) if options.jobs > 1 else None
        self._numbering = Numbering().after(policy)
        self._runners: dict[int, EngineRunner] = {}
        #: Each change as reported, with its effect on each engine.
        self._changes: list[tuple[ChangeDone, list[tuple[EngineRunner, ChangeDone]]]] = []
        self._headers = np.zeros(0, dtype=HEADER_DTYPE)
        self._results = np.zeros(0, dtype=RESULT_DTYPE)
        self.packets_judged = 0
        self._reordered = ReorderBuffer(sinks)
        #: The number of packets that each VPC's engine judged.
        self._judged: Counter[int] = Counter()
        #: The number among all packets of each pending packet, by VPC and packet number within the VPC.
        self._pending: dict[tuple[int, int], int] = {}
        if resumed is not None and resumed.dealt is not None:
            self._go_on(resumed.engines, resumed.earlier, resumed.dealt)
        # At least one engine is needed: even without packets, the result lists rules and verdicts.
        self._runner(first_vpc(policy))
        self._begin_sinks()

    def _go_on(self, engines: Sequence[Engine], earlier: Earlier, dealt: Dealt) -> None:
        for vpc, engine in zip(dealt.vpcs, engines, strict=True):
            runner = self._runners[vpc] = EngineRunner(engine, Sinks())
            self._judged[vpc] = runner.packets_judged
        self.packets_judged = sum(self._judged.values())
        self._policy, self._numbering = engines[0].policy, engines[0].compiled.numbering
        if dealt.clock is not None:
            self._dealer.go_on(dealt.clock)
        for whole, numbers in zip(earlier.changes, dealt.changes, strict=True):
            parts = [
                (runner, ChangeDone(whole.time_ns, whole.text, 0, number=number))
                for runner, number in zip(self._runners.values(), numbers, strict=False)
            ]
            self._changes.append((whole, parts))

    @property
    def engines(self) -> list[Engine]:
        """The engines, in the order in which they were made."""
        return [runner.engine for runner in self._runners.values()]

    @property
    def dealt(self) -> Dealt:
        changes = tuple(tuple(change.number for _, change in parts) for _, parts in self._changes)
        return Dealt(tuple(self._runners), self._dealer.clock_state, changes)

    def _runner(self, vpc: int) -> EngineRunner:
        runner = self._runners.get(vpc)
        if runner is None:
            refuse_too_many(self._policy, len(self._runners))
            vantage_vpc = seen_from(self._policy, vpc)
            engine = make_engine(
                self._policy, self._options, vantage_vpc, keep_flows=bool(self._sinks.flows),
                compiler=Compiler(vantage_vpc, self._numbering),
            )  # fmt: skip
            runner = self._runners[vpc] = EngineRunner(engine, Sinks())
        return runner

    def _begin_sinks(self) -> None:
        packets = self.packets_judged - self._reordered.waiting
        self._sinks.begin(Names.of(self._policy, None, self._numbering, packets))

    def frames_before(self, batch: FrameBatch, first: int, at_ns: int) -> int:
        return self._dealer.frames_before(batch, first, at_ns)

    def process(self, batch: FrameBatch, first: int, number: int) -> None:
        if number == 0:
            return
        if len(self._headers) < number:
            self._headers = np.zeros(batch.capacity, dtype=HEADER_DTYPE)
            self._results = np.zeros(batch.capacity, dtype=RESULT_DTYPE)
        vpcs, parts, places = zip(*self._dealer.deal(batch, first, number), strict=True)
        planes = [self._runner(vpc).engine.dataplane for vpc in vpcs]
        for plane in planes:
            plane.begin(self._dealer.began_ns)
        parallel_map = map if self._threads is None else self._threads.map
        for vpc, targets, rows in zip(vpcs, places, parallel_map(self._judge, planes, parts), strict=True):
            if rows is None:
                continue
            headers, results = rows
            self._headers[targets], self._results[targets] = headers, results
            for n in np.flatnonzero(results["verdict"] == PENDING).tolist():
                self._pending[vpc, self._judged[vpc] + n + 1] = self.packets_judged + int(targets[n]) + 1
            self._judged[vpc] += len(targets)
        if self._sinks.want_packets:
            headers, results = self._headers[:number], self._results[:number]
            headers["time_ns"] = own_times(batch, first, number)
            self._reordered.write(self.packets_judged + 1, batch, first, headers, results, self._resolved())
        self.packets_judged += number

    def _judge(self, plane: DataPlane, part: FrameBatch) -> tuple[Rows, Rows] | None:
        """Judge ``part``. Return headers and results if there are sinks for packets, else None."""
        if not self._sinks.want_packets:
            plane.process_frames(part)
            return None
        headers, results = np.zeros(len(part), dtype=HEADER_DTYPE), np.zeros(len(part), dtype=RESULT_DTYPE)
        plane.process_frames(part, results, headers)
        return headers, results

    def _resolved(self, *, everything: bool = False) -> Rows:
        """Take the results of packets that are no longer pending, numbered among all packets."""
        resolved_parts = []
        for vpc, runner in self._runners.items():
            rows = runner.engine.resolved(everything=everything)
            if self._sinks.want_packets:
                # Packets from before the snapshot are skipped, because the replay that saved it wrote them.
                numbers = [self._pending.pop((vpc, n), 0) for n in rows["number"].tolist()]
                rows["number"] = numbers
                resolved_parts.append(rows[rows["number"] > 0])
        return np.concatenate(resolved_parts) if resolved_parts else np.empty(0, dtype=RESOLVED_DTYPE)

    def flush(self) -> None:
        if self._sinks.flows:
            for runner in self._runners.values():
                self._sinks.write_flows(runner.engine.dataplane.take_flows())

    def apply(self, change: TimedChange) -> ChangeDone:
        # Write first the connections that ended before the change, then those that the change ends. Both use the names
        # from before the change.
        self.flush()
        parts = [(runner, runner.apply(change)) for runner in self._runners.values()]
        engine = parts[0][0].engine
        self._policy, self._numbering = engine.policy, engine.compiled.numbering
        whole = ChangeDone(change.time_ns, change.text, sum(part.disconnected for _, part in parts), 0, 0, 0)
        self._changes.append((whole, parts))
        self.flush()
        self._begin_sinks()
        return whole

    def finish(self, *, goes_on: bool) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        self._reordered.resolve(self._resolved(everything=True))
        state = self._dealer.clock_state
        for runner in self._runners.values():
            plane = runner.engine.dataplane
            if state is not None and not goes_on:
                # Connections still open end at the time of the last packet of all VPCs.
                plane.advance(state[0])
            finish_flows(plane, self._sinks, goes_on=goes_on)

    def fill(self, result: ReplayResult) -> None:
        parts = []
        for vpc, runner in sorted(self._runners.items()):
            name = None if vpc < 0 else self._vpcs[vpc].name
            part = result._empty_part(name)
            part.changes = [
                change_done
                for _, pairs in self._changes
                for changed_runner, change_done in pairs
                if changed_runner is runner
            ]
            runner.fill(part)
            finish_vpc(part, result.warnings)
            parts.append(part)
        add_up(result, parts)
        for whole, pairs in self._changes:
            add_up_change(whole, [part for _, part in pairs])
        result.first_time_ns, result.last_time_ns, *oddities = self._dealer.times
        result.oddities = Oddities(*oddities)
