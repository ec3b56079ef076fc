"""Run a replay: read captures, judge them with a runner, and fill in the result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from sgfast.base.errors import ArgumentError, CaptureError, PolicyError
from sgfast.clouds.loading import PolicySource, load
from sgfast.policy.lookup import vpc_name
from sgfast.policy.model import Policy
from sgfast.questions.replaying.engine_runner import EngineRunner, make_engine
from sgfast.questions.replaying.evidence import interrupted
from sgfast.questions.replaying.logs import compared_actions, log_traffic, refuse_for_logs
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.readings import PolicyHistory, ReadingQuestions, marked_kinds
from sgfast.questions.replaying.rejections import Rejections, shared_sinks
from sgfast.questions.replaying.replay_snapshot import Earlier, Resumed, load_replay, save_replay
from sgfast.questions.replaying.results import ReplayResult, Sinks
from sgfast.questions.replaying.schedule import Flushes, Schedule
from sgfast.questions.replaying.tables import KeptRows
from sgfast.traffic.captures import Captures, are_files
from sgfast.traffic.packet_selection import both_left_out
from sgfast.traffic.vpc_mapping import seen_vpcs, vpc_mapping_of

if TYPE_CHECKING:
    from sgfast.questions.replaying.reference_runner import ReferenceRunner
    from sgfast.questions.replaying.vpc_runner import VpcRunner


def run_replay(
    policy: PolicySource,
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    options: ReplayOptions,
    sinks: Sinks | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """Judge every packet of captures like ``sgfast.replay``, with the options as one value."""
    sinks = sinks or Sinks()
    policy = load(policy)
    if isinstance(captures, str | os.PathLike | bytes):
        captures = [captures]
    options = replace(options, vpc=vpc_name(policy, options.vpc))
    changes = options.change_file()
    kept_rows = KeptRows(
        options.tables, placed=options.client is None and options.engine == "fast",
        numbered=not options.is_mapped(policy),
    )  # fmt: skip
    sinks = sinks.and_kept(kept_rows)
    paths = tuple(os.fsdecode(path) for path in captures)
    if not paths:
        raise ArgumentError("there are no captures: give at least one path")
    options.check(paths, reports_connections=bool(sinks.flows))
    vpc_mapping = vpc_mapping_of(policy, options.vpc)
    logs = log_traffic(
        paths, (policy,), options.reading, vpc_mapping, progress, is_one_stream=False,
        needs_actions=options.compare_actions, client=options.client,
    )
    if logs is None and options.compare_actions:
        raise ArgumentError("compare_actions is for flow logs: captures have no actions")
    if logs is not None:
        refuse_for_logs(options, sinks)
        options = replace(options, client=None, resume=None, is_of_logs=True)
    if options.client is not None:
        from sgfast.questions.replaying.cluster import replay_on_cluster

        result = replay_on_cluster(policy, paths, options, changes, sinks, progress)
        kept_rows.close((), 0)
        result.kept = kept_rows
        return result
    rejected_sinks = Sinks()
    if logs is not None:
        sinks, rejected_sinks = shared_sinks(sinks)
    resumed = None
    if options.resume is not None:
        resumed = load_replay(options.resume, policy, options, reports_connections=bool(sinks.flows))
    earlier = Earlier() if resumed is None else resumed.earlier
    runner = _runner(policy, options, sinks, resumed)
    flushes: Flushes = "promptly" if not are_files(paths, options.reading) else "counted" if sinks.flows else "never"
    schedule = Schedule(
        runner, policy, changes, seen_vpcs(policy, options.vpc), earlier.changes, earlier.first_ns, flushes
    )
    result = ReplayResult(
        policy, mode=options.mode, midstream=options.midstream, vpc=options.vpc, captures=(*earlier.captures, *paths),
        engine=options.engine,
        warnings=[*policy.warnings, *(() if resumed is None else resumed.warnings)],
        earlier_packets=runner.packets_judged,
    )  # fmt: skip
    rejections = None
    if logs is not None:
        rejections = Rejections(
            _runner(policy, options, rejected_sinks, None), policy, options, changes,
            flushes if rejected_sinks.flows else "never",
        )  # fmt: skip
    traffic = logs or Captures(
        paths, options.reading, progress, earlier.first_ns, vpc_mapping, lasting=options.jobs > 1,
        reads=runner.file_reads,
    )  # fmt: skip
    questions = None
    if logs is not None and rejections is not None:
        logs.on_rejected = rejections.process
        history = PolicyHistory(policy, options, options.vpc)
        questions = ReadingQuestions([history], was_in_force=options.compare_actions)
        logs.ask = questions.answers

        def times_of_changes(first_ns: int) -> Sequence[int]:
            times = schedule.times(first_ns)
            history.take(schedule.pending)
            return times

        logs.changes_at, logs.changed_instances = times_of_changes, schedule.changed_instances
    began = time.perf_counter()
    try:
        for batch in traffic:
            schedule.process(batch, traffic.selection.first_ns)
    except (CaptureError, PolicyError):
        runner.flush()
        raise
    result.damaged = traffic.damage
    result.warnings += traffic.warnings
    schedule.finish(traffic.selection.first_ns)
    runner.flush()
    result.left_out = both_left_out(earlier.left_out, traffic.selection.left_out())
    noticed = earlier.noticed + traffic.noticed
    result.decapsulated = earlier.all_decapsulated(traffic.decapsulated)
    result.changes, result.changes_left = schedule.done, len(schedule.pending)
    if options.snapshot is not None and not traffic.is_interrupted:
        # Save the snapshot before ``finish``, which ends the open connections.
        saved = cast("EngineRunner | VpcRunner", runner)  # ``check`` has refused snapshots of the reference model
        before = Earlier(
            result.captures, traffic.selection.first_ns, tuple(schedule.done), result.left_out,
            None if result.decapsulated is None else tuple(result.decapsulated.items()), noticed,
        )  # fmt: skip
        save_replay(options.snapshot, policy, options, saved.engines, before, saved.dealt)
    runner.finish(goes_on=options.snapshot is not None)
    result.elapsed_seconds = time.perf_counter() - began
    runner.fill(result)
    if logs is not None and rejections is not None and questions is not None:
        result.records = logs.records
        result.openers = questions.result(logs.asked)
        # The numbers are those of frames, which are not in the logs.
        result.kinds = marked_kinds(result.openers, result.kinds.without_numbers())
        result.rejected = rejections.result(result)
        result.actions = compared_actions(result) if options.compare_actions else None
    kept_rows.close(traffic.files, result.earlier_packets)
    result.kept = kept_rows
    result.oddities.warn(result)
    traffic.warn(result.warnings)
    result.doubts = replace(noticed, pairs=traffic.noticed_by_comparing.pairs).reasons()
    if result.records is not None:
        result.doubts += tuple(result.records.reasons())
    if traffic.is_interrupted:
        result.doubts += (interrupted(result.packets, result.last_time_ns),)
    result.accepted_evidence = tuple(options.accept_evidence)
    return result


def _runner(
    policy: Policy, options: ReplayOptions, sinks: Sinks, resumed: Resumed | None
) -> EngineRunner | VpcRunner | ReferenceRunner:
    if options.engine == "reference":
        from sgfast.questions.replaying.reference_runner import ReferenceRunner

        return ReferenceRunner(policy, options, sinks)
    if options.is_mapped(policy):
        from sgfast.questions.replaying.vpc_runner import VpcRunner

        return VpcRunner(policy, options, sinks, resumed)
    if resumed is not None:
        return EngineRunner(resumed.engines[0], sinks)
    engine = make_engine(policy, options, options.vpc, keep_flows=bool(sinks.flows), jobs=options.jobs)
    return EngineRunner(engine, sinks)
