"""Captures through an engine: the main job. Files in, totals out; what to write of it is up to ``report``.

    capture.open_capture --FrameBatch--> engine --arrays--> sinks (one row a packet, one row a connection)
                                           \\--counters--> ReplayResult

``options`` is how, ``results`` is what comes out. A ``Runner`` is what it goes through: ``engine_runner``, an engine;
``vpc_runner``, one for each VPC; ``reference_runner``, the reference model. ``cluster`` reads and judges elsewhere.
``replay_snapshot`` is for replays that stop and go on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from sgfast.engine import Midstream, Mode
from sgfast.output import Output
from sgfast.policy.change_file import ChangeFile
from sgfast.policy.document import load_policy
from sgfast.policy.model import Policy
from sgfast.replaying.captures import Captures
from sgfast.replaying.change_schedule import ChangeSchedule
from sgfast.replaying.cutting import PacketsLeftOut, both_left_out
from sgfast.replaying.engine_runner import EngineRunner, make_engine
from sgfast.replaying.options import Reading, ReplayOptions
from sgfast.replaying.placement import placement_of, seen_vpcs
from sgfast.replaying.reference_runner import ReferenceRunner
from sgfast.replaying.replay_snapshot import Earlier, Resumed, load_replay, save_replay
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
from sgfast.replaying.vpc_runner import VpcRunner

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
    "ReplayOptions",
    "ReplayResult",
    "RuleHits",
    "Service",
    "Sinks",
    "Stage",
    "Unanswered",
    "replay",
    "run_replay",
]

Sink = TypeVar("Sink", PacketSink, FrameSink, FlowSink)


def replay(
    policy: Policy | str | os.PathLike[str],
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    mode: Mode = ReplayOptions.mode,
    midstream: Midstream = ReplayOptions.midstream,
    vpc: str | None = None,
    engine: Literal["fast", "reference"] = ReplayOptions.engine,
    packets: PacketSink | Sequence[PacketSink] | None = None,
    frames: FrameSink | Sequence[FrameSink] | None = None,
    flows: FlowSink | Sequence[FlowSink] | None = None,
    progress: Callable[[int, int], None] | None = None,
    changes: ChangeFile | str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    snapshot: Output | str | os.PathLike[str] | None = None,
    jobs: int = ReplayOptions.jobs,
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

    Raises PolicyError, CaptureError, ReadingError, SnapshotError, OutputError, ClusterError; ArgumentError for
    an unknown option, ArgumentTypeError for ``changes`` that are none.
    """
    options = ReplayOptions(
        mode=mode, midstream=midstream, vpc=vpc, engine=engine, jobs=jobs, reading=reading or Reading(),
        changes=changes, resume=resume, snapshot=snapshot, client=client, shards=shards,
    )  # fmt: skip
    sinks = Sinks(_several(packets), _several(frames), _several(flows))
    return run_replay(policy, captures, options, sinks, progress)


def run_replay(
    policy: Policy | str | os.PathLike[str],
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    options: ReplayOptions,
    sinks: Sinks | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """``replay`` with its options in one value."""
    sinks = sinks or Sinks()
    if isinstance(policy, str | os.PathLike):
        policy = load_policy(policy)
    if isinstance(captures, str | os.PathLike | bytes):
        captures = [captures]
    changes = options.change_file()
    paths = tuple(os.fsdecode(path) for path in captures)
    options.check(paths, reports_connections=bool(sinks.flows))
    if options.client is not None:
        from sgfast.replaying.cluster import replay_on_cluster

        return replay_on_cluster(policy, paths, options, changes, sinks, progress)
    placement = placement_of(policy, options)
    resumed = None
    if options.resume is not None:
        resumed = load_replay(options.resume, policy, options, reports_connections=bool(sinks.flows))
    earlier = Earlier() if resumed is None else resumed.earlier
    runner = _runner(policy, options, sinks, resumed)
    schedule = ChangeSchedule(
        runner, policy, changes, seen_vpcs(policy, options), earlier.changes, earlier.first_ns
    )
    result = ReplayResult(
        policy, options.mode, options.midstream, options.vpc, (*earlier.captures, *paths), options.engine,
        warnings=[*policy.warnings, *(() if resumed is None else resumed.warnings)],
        earlier_packets=runner.packets_judged,
    )  # fmt: skip
    read = Captures(paths, options.reading, progress, earlier.first_ns, placement)
    began = time.perf_counter()
    for batch in read:
        schedule.process(batch, read.cutting.first_ns)
    result.damaged = read.damage
    result.warnings += read.warnings
    schedule.finish(read.cutting.first_ns)
    result.left_out = both_left_out(earlier.left_out, read.cutting.left_out())
    result.decapsulated = earlier.all_decapsulated(read.decapsulated)
    result.changes, result.changes_left = schedule.done, len(schedule.pending)
    if options.snapshot is not None and not isinstance(runner, ReferenceRunner):
        # Before what still lives is reported as such: it has not ended.
        before = Earlier(
            result.captures, read.cutting.first_ns, tuple(schedule.done), result.left_out,
            None if result.decapsulated is None else tuple(result.decapsulated.items()),
        )  # fmt: skip
        save_replay(options.snapshot, policy, options, runner.engines, before, runner.dealt)
    runner.finish(goes_on=options.snapshot is not None)
    result.elapsed_seconds = time.perf_counter() - began
    runner.fill(result)
    result.oddities.warn(result)
    read.warn(result.warnings)
    return result


def _runner(
    policy: Policy, options: ReplayOptions, sinks: Sinks, resumed: Resumed | None
) -> EngineRunner | VpcRunner | ReferenceRunner:
    if options.engine == "reference":
        return ReferenceRunner(policy, options, sinks)
    if options.is_mapped(policy):
        return VpcRunner(policy, options, sinks, resumed)
    if resumed is not None:
        return EngineRunner(resumed.engines[0], sinks)
    engine = make_engine(policy, options, options.vpc, keep_flows=bool(sinks.flows), jobs=options.jobs)
    return EngineRunner(engine, sinks)


def _several(sinks: Sink | Sequence[Sink] | None) -> tuple[Sink, ...]:
    if sinks is None:
        return ()
    return tuple(sinks) if isinstance(sinks, Sequence) else (sinks,)
