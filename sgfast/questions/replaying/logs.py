"""Flow logs in a replay: whether the paths mean them, what they cannot be combined with, and the cloud's actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sgfast.base.errors import ArgumentError
from sgfast.clouds.logs.detection import open_log
from sgfast.policy.model import Policy
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.results import ReplayResult, Sinks
from sgfast.traffic.flow_logs.log_records import ComparedActions
from sgfast.traffic.flow_logs.sources import is_flow_log, logs_in
from sgfast.traffic.read_options import ReadOptions
from sgfast.traffic.source import Progress
from sgfast.traffic.time_window import parse_window
from sgfast.traffic.vpc_mapping import VpcMapping

if TYPE_CHECKING:
    from sgfast.traffic.flow_logs.traffic import LogTraffic


def log_traffic(
    paths: Sequence[str], policies: Sequence[Policy], reading: ReadOptions, vpc_mapping: VpcMapping | None,
    progress: Progress | None, *, is_one_stream: bool, needs_actions: bool = False, client: Any = None,
) -> LogTraffic | None:  # fmt: skip
    """Return the flow logs that ``paths`` mean as traffic for these policies, or None if they mean captures. Arguments
    are as for ``LogTraffic`` and ``Captures``; ``client`` is that of a cluster whose workers read the logs. Raises
    FlowLogError as ``logs_in`` does, and ArgumentError for options that are only for packets.
    """
    limits = parse_window(reading.start, reading.end)
    absolute_limits = [None if limit is None or limit.is_relative else limit.ns for limit in limits]
    if reading.follow:
        if any(map(is_flow_log, paths)):
            raise ArgumentError("follow is for captures: a flow log cannot be followed while it grows")
        return None
    sources = logs_in(paths, *absolute_limits)
    if sources is None:
        return None
    if reading.dedup or reading.decap:
        raise ArgumentError("dedup and decap are for packets, and flow logs have none: leave them out")
    # Only logs need this.
    from sgfast.traffic.flow_logs.traffic import LogTraffic

    opening: Callable[..., Any] = open_log
    if client is not None:
        from sgfast.questions.replaying.cluster.log_reading import ClusterLogs
        from sgfast.questions.replaying.cluster.scheduler import Cluster

        opening = ClusterLogs(Cluster(client), sources.logs).open

    return LogTraffic(
        sources, policies, reading, vpc_mapping, progress, is_one_stream=is_one_stream, needs_actions=needs_actions,
        opening=opening,
    )  # fmt: skip


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
