"""Judge captures by two policies at once, and find the changed connections.

    capture --frames--> engine OLD, engine NEW --result words--> core.changed --kinds, groups--> TrafficDiff

``core/diff/changed_connections.pxd`` defines a changed connection. ``rules`` finds the rules that both policies have,
``groups`` describes what the core counted, and ``results`` defines the result.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sgfast.base import usable_processors
from sgfast.base.evidence import EvidenceReason
from sgfast.base.names import count, printable
from sgfast.clouds.loading import PolicySource, load
from sgfast.engine import VERDICTS
from sgfast.policy.lookup import vpc_name
from sgfast.policy.renamed_vpcs import with_vpc_names_of
from sgfast.questions.comparing.groups import changed_groups, importance
from sgfast.questions.comparing.in_force import compared_actions, in_force_doubts, in_force_warnings
from sgfast.questions.comparing.kinds import ChangedKinds, kinds_together
from sgfast.questions.comparing.pair import Pair
from sgfast.questions.comparing.rejections import RejectedAttempts
from sgfast.questions.comparing.results import (
    NEW_VERDICTS,
    ChangedGroup,
    Counts,
    Example,
    Judgement,
    MovedTraffic,
    NewVerdict,
    RuleEffect,
    TrafficDiff,
)
from sgfast.questions.comparing.rules import together
from sgfast.questions.replaying.engine_runner import make_engine
from sgfast.questions.replaying.evidence import Elsewhere, Isolated, elsewhere_of, interrupted, isolated_by, observed_by
from sgfast.questions.replaying.logs import log_traffic
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.readings import PolicyHistory, ReadingQuestions
from sgfast.questions.replaying.results import Oddities, warn_of_fragments, warn_of_room, warn_of_time
from sgfast.traffic.captures import Captures

if TYPE_CHECKING:
    from sgfast.questions.comparing.vpc_pairs import VpcPairs

__all__ = [
    "NEW_VERDICTS",
    "ChangedGroup",
    "ChangedKinds",
    "Counts",
    "Example",
    "Judgement",
    "MovedTraffic",
    "NewVerdict",
    "RuleEffect",
    "TrafficDiff",
    "run_diff",
]

#: The number of connections from which one thread per policy is faster than one thread for both.
TOGETHER_FROM = 1 << 16


def run_diff(
    old: PolicySource,
    new: PolicySource,
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    options: ReplayOptions,
    progress: Callable[[int, int], None] | None = None,
    doubts: Sequence[EvidenceReason] = (),
) -> TrafficDiff:
    """Find what would change for the traffic in ``captures`` if ``new`` replaced ``old`` (see :func:`sgfast.diff`).
    ``doubts``: reasons to doubt the answer that the policies give.
    """
    old, new = load(old), load(new)
    if isinstance(captures, str | os.PathLike | bytes):
        captures = [captures]
    paths = tuple(os.fsdecode(path) for path in captures)
    # With one hash key for both engines, each packet is parsed and hashed only once.
    hash_key = [secrets.randbits(64) for _ in range(8)]
    vpc = vpc_name(old, options.vpc)
    result = TrafficDiff(old, new, mode=options.mode, midstream=options.midstream, vpc=vpc, captures=paths)
    # A VPC that was only renamed is the same VPC.
    judged = with_vpc_names_of(new, old)
    names: dict[str | None, str] = {
        old_vpc.name: judged_vpc.name for old_vpc, judged_vpc in zip(old.vpcs, judged.vpcs, strict=True)
    }
    comparison: Pair | VpcPairs
    logs = log_traffic(paths, (judged, new), options.reading, None, progress, is_one_stream=False)
    options = replace(options, is_of_logs=logs is not None)
    questions = None
    if logs is not None:
        histories = [PolicyHistory(policy, options, names.get(vpc)) for policy in (judged, new)]
        # The cloud accepted the traffic under OLD.
        questions = ReadingQuestions(histories, was_in_force=True)
        logs.ask = questions.answers
    rejections = None
    if logs is not None:
        rejections = RejectedAttempts(judged, new, options, hash_key, names.get(vpc))
        logs.on_rejected = rejections.process
    if options.is_mapped(old) or options.is_mapped(new):
        from sgfast.questions.comparing.vpc_pairs import VpcPairs

        comparison = VpcPairs(judged, new, options, hash_key)
        result.warnings += comparison.warnings
        if logs is not None:
            logs.map_vpcs(comparison.vpc_mapping)
        traffic = logs or Captures(paths, options.reading, progress, vpc_mapping=comparison.vpc_mapping)
    else:
        # With two jobs each policy has a thread. With one job this also happens, once the tables are large.
        jobs = options.jobs if options.jobs > 2 else 1
        before, after = (
            make_engine(policy, options, names.get(vpc), jobs=jobs, hash_key=hash_key) for policy in (judged, new)
        )
        two_threads = jobs == 1 and usable_processors() > 1
        traffic = logs or Captures(
            paths, options.reading, progress, lasting=two_threads or jobs > 1, reads=before.dataplane.file_reads
        )
        together_from = 0 if options.jobs == 2 else TOGETHER_FROM
        comparison = Pair(before, after, together_from=together_from if two_threads else None)
    began = time.perf_counter()
    with closing(comparison):
        for batch in traffic:
            comparison.process(batch)
        comparison.finish()
        if rejections is not None:
            rejections.finish()
    result.elapsed_seconds = time.perf_counter() - began
    result.damaged = traffic.damage
    result.warnings += traffic.warnings
    result.left_out = traffic.selection.left_out()
    pairs, times = comparison.pairs, comparison.times
    if rejections is not None:
        # Only what the cloud accepted says whether OLD was in force.
        result.actions = compared_actions(pairs, rejections.pairs)
        pairs, times = [*pairs, *rejections.pairs], rejections.times_with(times)
    _fill(result, pairs, times)
    result.decapsulated = traffic.decapsulated
    traffic.warn(result.warnings)
    result.doubts = (*doubts, *traffic.noticed_by_comparing.reasons())
    if logs is not None and questions is not None:
        result.records, result.openers = logs.records, questions.result(logs.asked)
        result.doubts += tuple(result.records.reasons())
        if result.actions is not None and result.records.has_actions:
            result.doubts += in_force_doubts(result.actions)
            result.warnings += in_force_warnings(result.actions)
        # The numbers are those of frames, which are not in the logs.
        result.kinds = {verdict: kinds.without_numbers() for verdict, kinds in result.kinds.items()}
        result.groups = [
            replace(group, examples=tuple(replace(example, packet=0) for example in group.examples))
            for group in result.groups
        ]
    if traffic.is_interrupted:
        result.doubts += (interrupted(result.packets, result.last_time_ns),)
    result.accepted_evidence = tuple(options.accept_evidence)
    return result


def _fill(
    result: TrafficDiff, pairs: Sequence[Pair], times: tuple[int | None, int | None, Oddities]
) -> None:
    """Fill in the result. ``times``: the first and last packet's time, and oddities of times (SPEC 9.1)."""
    counters = [_sum(pair.engines[number].dataplane.counters for pair in pairs) for number in range(2)]
    # A frame of a flow log stands for several packets, or for none.
    result.packets = sum(sum(pair.engines[0].dataplane.counters["verdicts"]) for pair in pairs)
    result.bytes = counters[0]["bytes"]
    result.connections = counters[0]["opened"] + counters[0]["denied"] + counters[0]["inferred"]
    # Under each policy, other instances are out of sight. Those of NEW count, too, if it takes a peering away.
    unseen = [reduce(add, (elsewhere_of(pair.engines[number]) for pair in pairs), Elsewhere()) for number in range(2)]
    observed = reduce(add, (observed_by(pair.engines[0].dataplane) for pair in pairs))
    # A peering that NEW takes away is a change, and no sign that NEW lacks it.
    isolated = reduce(add, (isolated_by(pair.engines[0]) for pair in pairs), Isolated())
    most = max(unseen, key=lambda elsewhere: elsewhere.connections)
    result.observed = replace(observed, elsewhere=most, isolated=isolated)
    result.first_time_ns, result.last_time_ns, oddities = times
    packets = np.sum([pair.changed.counters["packets"] for pair in pairs], axis=0)
    result.verdicts = {(VERDICTS[a], VERDICTS[b]): int(packets[a, b]) for a, b in np.argwhere(packets)}
    changes_of_pairs = [changed_groups(pair.changed, *pair.engines) for pair in pairs]
    decisions = sorted(
        (change for groups, _ in changes_of_pairs for change in groups), key=lambda change: importance(change[0])
    )
    result.groups = [group for group, _, _ in decisions]
    result.kinds = {
        verdict: kinds_together([kinds[verdict] for _, kinds in changes_of_pairs]) for verdict in NEW_VERDICTS
    }
    # A rule has the same number in every VPC.
    result.rules = pairs[0].rules.effects(decisions)
    result.moved = together(pair.moves.result() for pair in pairs)
    result.moved_others = sum(pair.moves.others for pair in pairs)

    for name, policy, counted in zip(("OLD", "NEW"), (result.old, result.new), counters, strict=True):
        warnings = list(policy.warnings)
        warn_of_room(warnings, counted["evicted"], counted["moot_evicted"], policy.settings.max_connections)
        result.warnings += [f"{name}, {printable(Path(policy.origin).name)}: {warning}" for warning in warnings]
    if not (result.old.is_stateful and result.new.is_stateful):
        result.warnings.append(
            "packets through stateless groups belong to no connection: there, the numbers of changed connections and "
            "the rules that changed them are estimates; the numbers of packets are exact"
        )
    warn_of_time(result.warnings, oddities, result.first_time_ns, result.last_time_ns)
    warn_of_fragments(result.warnings, max(counted["fragments_denied"] for counted in counters))
    listed_connections = sum(group.connections for group in result.groups)
    if unlisted_connections := sum(result.total(verdict).connections for verdict in NEW_VERDICTS) - listed_connections:
        result.warnings.append(
            f"too many kinds of connections changed: {count(unlisted_connections, 'connection')} are counted without "
            "addresses and rules"
        )
    if cut_short := sum(pair.changed.counters["cut_short"] for pair in pairs):
        result.warnings.append(
            f"too many connections changed at the same time: {count(cut_short, 'connection')} may be counted twice"
        )


def _sum(counters: Iterable[dict[str, Any]]) -> Counter[str]:
    """Add up each counter that is a number, by name."""
    total: Counter[str] = Counter()
    for counted in counters:
        total.update({name: number for name, number in counted.items() if isinstance(number, int)})
    return total
