"""Captures through an engine: the main job. Files in, totals out; what to write of it is up to ``report``.

    capture.open_capture --FrameBatch--> engine --arrays--> sinks (one row a packet, one row a connection)
                                           \\--counters--> ReplayResult

``results`` is what comes out, ``fast`` and ``slow`` are what it goes through: the engine, or the reference model;
``earlier`` is for replays that stop and go on.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from sgfast.capture.names import printable
from sgfast.compiler import Compiler, Numbering
from sgfast.core.base.frames import FrameBatch
from sgfast.engine import Engine, Midstream, Mode, check_jobs
from sgfast.errors import ArgumentError, ArgumentTypeError, SnapshotError
from sgfast.output import Output
from sgfast.policy.change_file import ChangeFile, TimedChange, load_changes
from sgfast.policy.document import load_policy
from sgfast.policy.model import Policy
from sgfast.replaying.by_vpc import VpcRunner
from sgfast.replaying.captures import Captures, Reading
from sgfast.replaying.cutting import PacketsLeftOut, both_left_out
from sgfast.replaying.earlier import Earlier, go_on, stop
from sgfast.replaying.fast import FastRunner
from sgfast.replaying.overlaps import refuse_ambiguous
from sgfast.replaying.placement import Placement
from sgfast.replaying.results import (
    Broken,
    ChangeDone,
    ClusterUsed,
    CutConnection,
    Denied,
    FlowSink,
    FrameSink,
    Names,
    PacketSink,
    ReplayResult,
    RuleHits,
    Service,
    Sinks,
    Stage,
    Unanswered,
)
from sgfast.replaying.slow import ReferenceRunner

__all__ = [
    "Broken",
    "ChangeDone",
    "ClusterUsed",
    "CutConnection",
    "Denied",
    "FlowSink",
    "FrameSink",
    "Names",
    "PacketSink",
    "PacketsLeftOut",
    "Reading",
    "ReplayResult",
    "RuleHits",
    "Service",
    "Stage",
    "Unanswered",
    "replay",
]


Runner = FastRunner | ReferenceRunner | VpcRunner
Sink = TypeVar("Sink", PacketSink, FrameSink, FlowSink)


def replay(
    policy: Policy | str | os.PathLike[str],
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    mode: Mode = "causal",
    midstream: Midstream = "infer",
    vpc: str | None = None,
    engine: Literal["fast", "reference"] = "fast",
    packets: PacketSink | Sequence[PacketSink] | None = None,
    frames: FrameSink | Sequence[FrameSink] | None = None,
    flows: FlowSink | Sequence[FlowSink] | None = None,
    progress: Callable[[int, int], None] | None = None,
    changes: ChangeFile | str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    snapshot: Output | str | os.PathLike[str] | None = None,
    jobs: int = 1,
    reading: Reading | None = None,
    client: Any = None,
    shards: int | None = None,
) -> ReplayResult:
    """Judges every packet of ``captures`` (a path, or several), one replay in the order given; ``-`` is standard input,
    a directory the captures in it.

    ``packets``, ``frames``, ``flows``: a sink, or several, for every packet's result, for packets with their results,
    and for connections. ``engine="reference"`` runs the slow model instead, which knows no connection report and no
    snapshots. ``progress`` is called with (packets, bytes read) so far, all captures together, now and then. Damage
    part way ends the replay there: what came before is in the result. ``changes``: a change file (SPEC 9.5), or its
    path; it is checked whole before any packet is judged.

    ``snapshot``: where to save the state after the last packet; ``flows`` then gets no connections that still live:
    whoever goes on tells of them. ``resume``: such a state to go on from, as if these captures had come after those in
    one replay; policy, options and changes must be those of that replay, ``reading`` as far as it says which packets
    are judged (another ``start`` or ``end`` is only warned of). The result is that of all captures,
    ``elapsed_seconds`` apart. ``jobs``: how many threads judge, as ``Engine`` takes them.
    ``client``: a ``distributed.Client``: its workers read and judge (``cluster``). ``resume`` is then a folder that all
    of them see, a path or a URL, where what is read is kept and found again; None: one on this machine that is gone
    afterwards. A capture that is damaged ends there, those after it do not. ``shards``: how many parts packets are
    dealt out to; None: by the captures' sizes.

    ``reading``: how captures are read, and what of them is left out. What is left is judged as if it were all there
    is; but seconds of ``changes`` count from the first packet of the captures, whether that is left out or not.

    Raises PolicyError, CaptureError, ReadingError, SnapshotError, OutputError, ClusterError; ArgumentError for an unknown
    option, ArgumentTypeError for ``changes`` that are none.
    """
    if isinstance(policy, str | os.PathLike):
        policy = load_policy(policy)
    if isinstance(captures, str | os.PathLike | bytes):
        captures = [captures]
    if isinstance(changes, str | os.PathLike):
        changes = load_changes(changes)
    elif not (changes is None or isinstance(changes, ChangeFile)):
        raise ArgumentTypeError(f"changes is a change file or its path, not {changes!r:.80}")
    paths = tuple(os.fsdecode(path) for path in captures)
    sinks = Sinks(_several(packets), _several(frames), _several(flows))
    earlier = Earlier()
    warnings = list(policy.warnings)
    reading = reading or Reading()
    if client is not None:
        from sgfast.replaying.cluster import replay_with

        if engine != "fast" or snapshot is not None or jobs != 1 or reading.follow or "-" in paths:
            raise ArgumentError("a cluster neither takes snapshots, jobs, another engine, nor what can be read only once")
        result = ReplayResult(policy, mode, midstream, vpc, paths, warnings=warnings)
        folder = None if resume is None else os.fsdecode(resume)
        replay_with(client, result, sinks, reading, changes, folder, shards, progress)
        return result
    placement = Placement(policy) if policy.is_mapped and vpc is None else None
    runner: Runner
    if placement is not None and engine == "fast":
        check_jobs(jobs)

        def make(policy: Policy, vpc: str | None, numbering: Numbering) -> Engine:
            return Engine(
                policy, mode=mode, midstream=midstream, vpc=vpc, keep_flows=bool(sinks.flows), reporting=True,
                compiler=Compiler(vpc, numbering),
            )  # fmt: skip

        going_on = None
        if resume is not None:
            engines, earlier, dealt, differences = go_on(
                resume, policy, mode=mode, midstream=midstream, vpc=None, flows=bool(sinks.flows), reading=reading
            )
            warnings += differences
            assert dealt is not None
            going_on = engines, earlier, dealt
        runner = VpcRunner(policy, make, sinks, jobs, going_on)
    elif engine == "fast":
        if resume is None:
            made = Engine(
                policy, mode=mode, midstream=midstream, vpc=vpc, keep_flows=bool(sinks.flows), reporting=True,
                jobs=jobs,
            )  # fmt: skip
        else:
            (made, *_), earlier, _, differences = go_on(
                resume, policy, mode=mode, midstream=midstream, vpc=vpc, flows=bool(sinks.flows), reading=reading,
                jobs=jobs,
            )  # fmt: skip
            warnings += differences
        runner = FastRunner(made, sinks)
    elif engine == "reference":
        if sinks.flows:
            raise ArgumentError("the reference model makes no connection report: use the fast engine")
        if resume is not None or snapshot is not None:
            raise ArgumentError("the reference model has no snapshots: use the fast engine")
        if jobs != 1:
            raise ArgumentError("the reference model judges alone: use the fast engine for jobs")
        runner = ReferenceRunner(policy, mode, midstream, vpc, sinks, mapped=placement is not None)
    else:
        raise ArgumentError(f"engine is 'fast' or 'reference', not {engine!r}")

    seen_from = [vpc] if placement is None else [vpc.name for vpc in policy.vpcs if vpc.is_mapped]
    timeline = _Timeline(policy, changes, seen_from, runner, earlier)
    result = ReplayResult(
        policy, mode, midstream, vpc, (*earlier.captures, *paths), engine, warnings=warnings,
        earlier_packets=runner.packets_judged,
    )  # fmt: skip
    read = Captures(paths, reading, progress, earlier.first_ns, placement)
    began = time.perf_counter()
    for batch in read:
        timeline.process(batch, read.cutting.first_ns)
    result.damaged = read.damage
    result.warnings += read.warnings
    timeline.finish(read.cutting.first_ns)
    result.left_out = both_left_out(earlier.left_out, read.cutting.left_out())
    result.decapsulated = earlier.all_decapsulated(read.decapsulated)
    result.changes, result.changes_left = timeline.done, len(timeline.pending)
    if snapshot is not None and not isinstance(runner, ReferenceRunner):
        # Before what still lives is reported as such: it has not ended.
        before = Earlier(
            result.captures, read.cutting.first_ns, tuple(timeline.done), result.left_out,
            None if result.decapsulated is None else tuple(result.decapsulated.items()),
        )  # fmt: skip
        if isinstance(runner, VpcRunner):
            stop(snapshot, runner.engines, policy, reading, before, runner.dealt)
        else:
            stop(snapshot, [runner.engine], policy, reading, before, None)
    runner.finish(goes_on=snapshot is not None)
    result.elapsed_seconds = time.perf_counter() - began
    runner.fill(result)
    result.oddities.warn(result)
    read.warn(result.warnings)
    return result


def _several(sinks: Sink | Sequence[Sink] | None) -> tuple[Sink, ...]:
    if sinks is None:
        return ()
    return tuple(sinks) if isinstance(sinks, Sequence) else (sinks,)


class _Timeline:
    """Hands batches to a runner, cut where a change of the policy comes between two packets (SPEC 6.1)."""

    def __init__(
        self, policy: Policy, changes: ChangeFile | None, seen_from: Sequence[str | None], runner: Runner,
        earlier: Earlier,
    ) -> None:  # fmt: skip
        self._policy = policy
        self._seen_from = seen_from
        self._file = changes
        self._runner = runner
        self._resolved = False
        self.pending: deque[TimedChange] = deque()
        self.done: list[ChangeDone] = list(earlier.changes)
        if earlier.first_ns is not None:
            self._resolve(earlier.first_ns)

    def process(self, batch: FrameBatch, first_ns: int | None) -> None:
        """``first_ns``: time of the first packet of all captures, which need not be in a batch."""
        if not self._resolved:
            self._resolve(first_ns)
        first = 0
        while self.pending:
            change = self.pending[0]
            number = self._runner.frames_before(batch, first, change.at_ns)
            if number == len(batch) - first:
                break
            self._runner.process(batch, first, number)
            first += number
            self.done.append(self._runner.apply(change))
            self.pending.popleft()
        self._runner.process(batch, first, len(batch) - first)

    def finish(self, first_ns: int | None) -> None:
        if not self._resolved:
            self._resolve(first_ns)

    def _resolve(self, first_ns: int | None) -> None:
        self._resolved = True
        if self._file is None:
            return
        # If no packet came the file must still be right.
        changes = self._file.resolve(self._policy, first_ns or 0)
        for vpc in self._seen_from:
            refuse_ambiguous(self._policy, changes, vpc)
        known = [(change.at_ns, change.text) for change in changes[: len(self.done)]]
        if known != [(done.at_ns, done.text) for done in self.done]:
            raise SnapshotError(
                f"{printable(self._file.origin)}: does not begin with the {len(self.done)} changes made before the "
                "snapshot: give the change file of that replay"
            )
        self.pending.extend(changes[len(self.done) :])
