"""Task that judges all records of a shard in the order of time, for a clustered replay."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import ClusterError
from sgfast.core.dtypes import FLOW_DTYPE
from sgfast.policy.change_file import TimedChange
from sgfast.policy.model import Policy
from sgfast.questions.replaying.cluster.plan import Run, check_version
from sgfast.questions.replaying.cluster.reading import SUFFIX
from sgfast.questions.replaying.cluster.records import TOLD_DTYPE, RecordJudge, records_before
from sgfast.questions.replaying.cluster.rows import RowsFile, RowsWriter, as_bytes
from sgfast.questions.replaying.cluster.storage import Folder, Reader, checksum
from sgfast.questions.replaying.engine_runner import FLOWS_AT_ONCE, EngineRunner, make_engine
from sgfast.questions.replaying.results import ChangeDone, ReplayResult, Rows, Sinks
from sgfast.rules.compiler import Compiler, Numbering
from sgfast.traffic.vpc_mapping import first_vpc, refuse_too_many, seen_from

#: A time that no clock reaches.
NEVER = (1 << 63) - 1


#: The places of a shard's records, in the order of judging: an index into ``Job.sources``, and fields of BLOCK_DTYPE.
SPAN_DTYPE = np.dtype([("source", "<u4"), ("offset", "<u8"), ("size", "<u8"), ("count", "<u4"), ("checksum", "<u4")])


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment's file and its place in the chain (``chain.Placed``)."""

    file: str
    packets_before: int
    shift_ns: int


@dataclass(frozen=True, slots=True)
class Job:
    """Values that all judging tasks need in addition to ``Run``, known once all captures are read."""

    changes: tuple[TimedChange, ...]
    began_ns: int
    #: The clock's time at the end of all captures.
    now_ns: int
    #: Whether the caller wants rows of packets, and rows of connections.
    wants_packets: bool
    wants_flows: bool
    sources: tuple[SegmentFile, ...]


@dataclass(slots=True)
class Judged:
    """The result for a shard's packets, which is sent to the client.

    ``parts`` are results by VPC (``Frame.vpc``), without policy, changes and rules, which the client knows.
    ``rule_counts`` are int64 arrays (rules, 3), also by VPC, with the connections, packets and bytes of each rule
    number.
    """

    shard: int
    packets: int
    parts: dict[int, ReplayResult]
    rule_counts: dict[int, NDArray[np.int64]]
    #: The effect of each change that was made, on each engine.
    changes: list[list[ChangeDone]]
    #: The number of the shard's first packet after each change; 0 if there was none.
    after: tuple[int, ...]
    #: The files with rows of packets and of connections; None if the caller does not want them.
    packet_rows: RowsFile | None
    flow_rows: RowsFile | None
    #: The results of pending packets, as bytes of RESOLVED_DTYPE.
    resolved: bytes
    most_connections: int
    seconds: float
    bytes_read: int


class _Compilers:
    """Compilers that have compiled the last policy, so that a worker compiles a policy once for many shards."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._policy: Policy | None = None
        self._by_vpc: dict[str | None, Compiler] = {}

    def of(self, policy: Policy, vpc: str | None) -> Compiler:
        """Return a copy of a compiler that has compiled ``policy``. Raises the errors of ``Compiler.compile``."""
        with self._lock:
            if self._policy is not policy:
                self._policy, self._by_vpc = policy, {}
            if vpc not in self._by_vpc:
                compiler = Compiler(vpc)
                compiler.compile(policy)
                self._by_vpc[vpc] = compiler
            return self._by_vpc[vpc].copy()


_COMPILERS = _Compilers()


class ShardRunner:
    """The engines of one shard: one for each VPC that has packets in the shard, or a single one if VPCs are not
    mapped."""

    def __init__(self, run: Run, job: Job) -> None:
        self._policy = policy = run.policy
        self._vpcs = policy.vpcs
        self._numbering = Numbering().after(policy)
        self._options = run.options
        self._job = job
        self._is_mapped = is_mapped = run.is_mapped
        self._runners: dict[int, tuple[EngineRunner, RecordJudge]] = {}
        self._first_policy = policy
        self.changes: list[list[tuple[int, ChangeDone]]] = []
        if not is_mapped:
            self.judge_of(0)

    def begin(self) -> None:
        """Make at least one engine, because changes are applied and rules are counted even without packets."""
        if self._is_mapped:
            self.judge_of(first_vpc(self._policy) + 1)

    def judge_of(self, vpc: int) -> RecordJudge:
        """Return the judge of a VPC, which is a number as in ``Frame.vpc``. Makes its engine if needed."""
        runner_and_judge = self._runners.get(vpc)
        if runner_and_judge is not None:
            return runner_and_judge[1]
        vantage_vpc = self._options.vpc
        if self._is_mapped:
            refuse_too_many(self._policy, len(self._runners))
            vantage_vpc = seen_from(self._policy, vpc - 1)
        is_first = self._policy is self._first_policy
        compiler = _COMPILERS.of(self._policy, vantage_vpc) if is_first else Compiler(vantage_vpc, self._numbering)
        engine = make_engine(
            self._policy, self._options, vantage_vpc, keep_flows=self._job.wants_flows, compiler=compiler
        )
        engine.dataplane.begin(self._job.began_ns)
        self._runners[vpc] = EngineRunner(engine, Sinks()), RecordJudge(engine.dataplane)
        return self._runners[vpc][1]

    def apply(self, change: TimedChange) -> None:
        changes_by_vpc = [(vpc, runner.apply(change)) for vpc, (runner, _) in self._runners.items()]
        if self._runners:
            engine = next(iter(self._runners.values()))[0].engine
            self._policy, self._numbering = engine.policy, engine.compiled.numbering
        self.changes.append(changes_by_vpc)

    @property
    def connections(self) -> int:
        return sum(runner.engine.dataplane.connections for runner, _ in self._runners.values())

    def resolved(self, *, everything: bool = False) -> list[Rows]:
        return [
            runner.engine.dataplane.take_resolved(everything=everything) for runner, _ in self._runners.values()
        ]

    def flows(self) -> list[Rows]:
        return [runner.engine.dataplane.take_flows() for runner, _ in self._runners.values()]

    def finish_some(self, now_ns: int) -> bool:
        """End some of the open connections. Return whether no connection remains open."""
        all_finished = True
        for runner, _ in self._runners.values():
            runner.engine.dataplane.advance(now_ns)
            all_finished &= runner.engine.dataplane.finish(most=FLOWS_AT_ONCE)
        return all_finished

    def results(self) -> tuple[dict[int, ReplayResult], dict[int, NDArray[np.int64]]]:
        """Return ``Judged.parts`` and ``Judged.rule_counts``."""
        parts, counts = {}, {}
        for vpc, (runner, _) in self._runners.items():
            vantage_vpc = self._vpcs[vpc - 1].name if self._is_mapped and vpc else self._options.vpc
            part = ReplayResult(
                self._first_policy,
                mode=self._options.mode,
                midstream=self._options.midstream,
                vpc=vantage_vpc,
                captures=(),
            )
            part.changes = [change for pairs in self.changes for changed_vpc, change in pairs if changed_vpc == vpc]
            runner.fill(part)
            hits = [(rule.connections, rule.packets, rule.bytes) for rule in part.rules]
            counts[vpc] = np.array(hits, dtype=np.int64).reshape(-1, 3)
            part.policy, part.changes, part.rules = Policy(), [], []
            parts[vpc] = part
        return parts, counts


def judge_shard(run: Run, job: Job, shard: int, token: str, spans: Rows) -> Judged:
    """Judge, as a task, the records in ``spans`` (SPAN_DTYPE). ``token`` is the prefix of the names of its files.

    Raises ClusterError for a damaged segment. If the replay is run again, it reads the segment's captures again.
    """
    began = time.perf_counter()
    check_version(run)
    folder = Folder(run.folder)
    runner = ShardRunner(run, job)
    runner.begin()
    vpc_count = len(run.policy.vpcs) if run.is_mapped else 0
    pending = deque(job.changes)
    after = [0] * len(job.changes)
    packets = bytes_read = most = 0
    resolved: list[Rows] = []
    waiting = 0         # the first change that no packet has followed yet
    stack = ExitStack()
    reader = stack.enter_context(Reader(folder))
    # Each attempt at the task has its own files, because an abandoned attempt may still be writing.
    name = f"{token}-{shard}-{secrets.token_hex(4)}"
    packet_rows = flow_rows = None
    if job.wants_packets:
        packet_rows = stack.enter_context(RowsWriter(folder, f"{name}-packets.rows", TOLD_DTYPE))
    if job.wants_flows:
        flow_rows = stack.enter_context(RowsWriter(folder, f"{name}-connections.rows", FLOW_DTYPE))

    def keep_flows() -> None:
        if flow_rows is not None:
            for rows in runner.flows():
                flow_rows.add(rows)

    def note_first(number: int) -> None:
        nonlocal waiting
        while waiting < len(job.changes) - len(pending):
            after[waiting] = number
            waiting += 1

    def damaged(source: SegmentFile) -> ClusterError:
        # A segment without its description is not reused.
        folder.remove(source.file + SUFFIX)
        return ClusterError(f"{folder.damaged(source.file)}; run the replay again, and its captures are read again")

    with stack:
        for number, offset, size, expected, written in spans.tolist():
            source = job.sources[number]
            block = reader.read(source.file, offset, size)
            if checksum(block) != written:
                raise damaged(source)
            bytes_read += size
            at, first = 0, packets
            while at < len(block):
                limit_ns = max(-NEVER, min(pending[0].time_ns - source.shift_ns, NEVER)) if pending else NEVER
                try:
                    end, count, _, vpcs = records_before(block, at, limit_ns, vpc_count)
                    rows_of_packets = np.zeros(count, dtype=TOLD_DTYPE) if packet_rows is not None else None
                    for vpc in sorted(vpcs):
                        runner.judge_of(vpc if run.is_mapped else 0).judge(
                            block, at, end, vpc, source.shift_ns, source.packets_before, rows_of_packets
                        )
                except ValueError:
                    raise damaged(source) from None
                if count:
                    packets += count
                    if rows_of_packets is not None and packet_rows is not None:
                        packet_rows.write(rows_of_packets)
                        resolved += [rows for rows in runner.resolved() if len(rows)]
                    if waiting < len(job.changes) - len(pending):
                        note_first(source.packets_before + records_before(block, at, -NEVER, vpc_count)[2])
                    keep_flows()
                if end < len(block):
                    runner.apply(pending.popleft())
                at = end
            if packets - first != expected:
                raise damaged(source)
            most = max(most, runner.connections)
        while pending and pending[0].time_ns <= job.now_ns:
            runner.apply(pending.popleft())
        resolved += runner.resolved(everything=True)
        is_finished = False
        while not is_finished:
            is_finished = runner.finish_some(job.now_ns)
            keep_flows()
        return Judged(
            shard, packets, *runner.results(),
            [[change for _, change in pairs] for pairs in runner.changes], tuple(after),
            None if packet_rows is None else packet_rows.close(), None if flow_rows is None else flow_rows.close(),
            as_bytes(resolved), most, time.perf_counter() - began, bytes_read,
        )  # fmt: skip
