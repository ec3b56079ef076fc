"""Add up the shards' results, and write the rows of packets and connections to the sinks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np

from sgfast.base.errors import ClusterError
from sgfast.base.evidence import UnreadFiles
from sgfast.base.names import count
from sgfast.core.base.frames import FrameBatch
from sgfast.core.dtypes import RESOLVED_DTYPE
from sgfast.policy.change_file import TimedChange
from sgfast.policy.changed_policy import apply_change
from sgfast.policy.changes import RemoveInstance
from sgfast.policy.model import Policy
from sgfast.questions.replaying.cluster.chain import SegmentChain
from sgfast.questions.replaying.cluster.judging import Job, Judged
from sgfast.questions.replaying.cluster.plan import Run
from sgfast.questions.replaying.cluster.reading import UnitCaptures
from sgfast.questions.replaying.cluster.records import TOLD_DTYPE
from sgfast.questions.replaying.cluster.rows import MergedRows
from sgfast.questions.replaying.cluster.storage import Folder
from sgfast.questions.replaying.results import (
    ChangeDone,
    Names,
    Oddities,
    ReplayResult,
    RuleHits,
    Sinks,
)
from sgfast.questions.replaying.totals import add_up, add_up_change, finish_vpc, sums
from sgfast.rules.compiler import Numbering
from sgfast.traffic.capture.directories import size_of
from sgfast.traffic.capture_pairs import pairs_of
from sgfast.traffic.packet_selection import both_left_out
from sgfast.traffic.source import Noticed
from sgfast.traffic.vpc_mapping import vpc_mapping_of

#: The number of packets written at a time if no sink takes frames.
ROWS_AT_ONCE = 1 << 16


def fill(result: ReplayResult, run: Run, job: Job, chain: SegmentChain, judged: Sequence[Judged]) -> None:
    """Fill in the result, except for the values that ``fill_reading`` adds."""
    applied_changes = [change for change in job.changes if chain.packets and change.time_ns <= job.now_ns]
    *_, (_, numbering) = numberings(run.policy, applied_changes)
    vpcs = sorted({vpc for shard in judged for vpc in shard.parts})
    wholes = []
    for vpc in vpcs:
        parts = [shard.parts[vpc] for shard in judged if vpc in shard.parts]
        whole = result._empty_part(parts[0].vpc)
        add_up(whole, parts)
        counts = np.sum([shard.rule_counts[vpc] for shard in judged if vpc in shard.parts], axis=0).tolist()
        whole.rules = [
            RuleHits(rule, group, *count)
            for rule, group, count in zip(numbering.rules, numbering.rule_groups, counts, strict=True)
        ]
        whole.oddities = reduce(add, (part.oddities for part in parts))
        wholes.append(whole)
        if run.is_mapped:
            finish_vpc(whole, result.warnings)
    add_up(result, wholes)
    result.first_time_ns, result.last_time_ns = chain.earliest_ns, chain.latest_ns
    result.oddities = chain.oddities
    if not run.is_mapped:
        result.oddities += reduce(add, (whole.oddities for whole in wholes), Oddities())
    for number, change in enumerate(applied_changes):
        change_parts = [part for shard in judged for part in shard.changes[number]]
        disconnected = sum(part.disconnected for part in change_parts)
        whole_change = ChangeDone(change.time_ns, change.text, disconnected, 0, 0, 0)
        add_up_change(whole_change, change_parts)
        result.changes.append(whole_change)
    result.changes_left = len(job.changes) - len(applied_changes)


def fill_reading(result: ReplayResult, run: Run, chain: SegmentChain) -> None:
    """Fill in the values that reading found: damage, warnings, packets left out, tunnel headers removed."""
    segments = [placed.segment for placed in chain.placed]
    damaged = [segment.damage for segment in segments if segment.damage is not None]
    result.damaged = damaged[0] if damaged else None
    result.warnings += [str(damage) for damage in damaged[1:]]
    result.warnings += [warning for segment in segments for warning in segment.warnings]
    for segment in segments:
        result.left_out = both_left_out(result.left_out, segment.left_out)
    if run.options.reading.decap:
        counts = [dict(segment.decapsulated or ()) for segment in segments]
        result.decapsulated = sums(counts)


def warn(result: ReplayResult, run: Run, chain: SegmentChain, damaged: Sequence[str]) -> None:
    """Add warnings about unusual packets, and the doubts. ``damaged``: files that are in no segment."""
    noticed = reduce(add, (placed.segment.noticed for placed in chain.placed), Noticed())
    quotes = sum(placed.segment.quotes_in_fragments for placed in chain.placed)
    if quotes and run.shards > 1:
        result.warnings.append(
            f"{count(quotes, 'ICMP error')} came in fragments: shards judge later fragments apart from the first one"
        )
    samples = [
        replace(sample, part=placed.segment.unit.part) for placed in chain.placed for sample in placed.segment.samples
    ]
    sizes = {entry.path: entry.size for placed in chain.placed for entry in placed.segment.unit.inputs}
    unread_files = UnreadFiles.of([(size_of(path), 0) for path in damaged], sizes.values())
    # Each segment knows only the files that are its own.
    unread = replace(noticed.unread + unread_files, files=unread_files.files, all_bytes=unread_files.all_bytes)
    noticed = replace(noticed, pairs=pairs_of(samples, dedup=run.options.reading.dedup), unread=unread)
    result.doubts, result.accepted_evidence = noticed.reasons(), tuple(run.options.accept_evidence)
    noticed.warn(result.warnings)


def write_packets(sinks: Sinks, run: Run, job: Job, chain: SegmentChain, judged: Sequence[Judged]) -> None:
    """Write all packets' rows to the sinks. If a sink takes frames, the captures are read again."""
    writer = _PacketWriter(run, job, chain, judged, sinks)
    if not sinks.frames:
        nothing = FrameBatch(1)
        for first in range(1, chain.packets + 1, ROWS_AT_ONCE):
            writer.write(nothing, min(ROWS_AT_ONCE, chain.packets + 1 - first))
        return
    vpc_mapping = vpc_mapping_of(run.policy, run.options.vpc)
    for placed in chain.placed:
        captures = UnitCaptures(run, placed.segment.unit, placed.segment.start, vpc_mapping)
        packets = 0
        for batch in captures:
            packets += len(batch)
            if packets > placed.segment.packets:
                break
            writer.write(batch, len(batch))
        if packets != placed.segment.packets:
            raise ClusterError(f"{placed.segment.unit.name}: has changed since it was first read")


class _PacketWriter:
    """Write rows of packets to sinks, in order and with the names that applied at the time."""

    def __init__(self, run: Run, job: Job, chain: SegmentChain, judged: Sequence[Judged], sinks: Sinks) -> None:
        self._sinks = sinks
        self._rows = MergedRows(Folder(run.folder), [shard.packet_rows for shard in judged if shard.packet_rows])
        resolved = np.frombuffer(b"".join(shard.resolved for shard in judged), dtype=RESOLVED_DTYPE)
        self._resolved = resolved[np.argsort(resolved["number"], kind="stable")]
        self._names = names_of(run, job, judged)
        self._next = 1

    def write(self, batch: FrameBatch, number: int) -> None:
        """Write the next ``number`` packets. ``batch`` contains their frames, if a sink takes frames."""
        first = self._next
        self._next += number
        rows_before = [*self._rows.until(self._next)]
        rows = np.concatenate(rows_before) if rows_before else np.empty(0, dtype=TOLD_DTYPE)
        rows = rows[np.argsort(rows["number"])]
        if not np.array_equal(rows["number"], np.arange(first, self._next, dtype=np.uint64)):
            raise ClusterError("rows of some packets are missing; start again in another folder")
        headers, results = np.ascontiguousarray(rows["header"]), np.ascontiguousarray(rows["result"])
        low, high = np.searchsorted(self._resolved["number"], (first, self._next)).tolist()
        late = self._resolved[low:high]
        results[late["number"].astype(np.int64) - first] = late["result"]
        at = 0
        while at < number:
            if self._names and self._names[0].packets < first + at:
                self._sinks.begin(self._names.pop(0))
                continue
            end = min(number, self._names[0].packets + 1 - first) if self._names else number
            self._sinks.write_packets(batch, at, headers[at:end], results[at:end])
            at = end


def names_of(run: Run, job: Job, judged: Sequence[Judged]) -> list[Names]:
    """Return the names of instances and rules by number, at the start and after each change."""
    shard_names = []
    for number, (policy, numbering) in enumerate(numberings(run.policy, job.changes)):
        firsts = [shard.after[number - 1] for shard in judged if number and shard.after[number - 1]]
        if firsts or not number:
            shard_names.append(Names.of(policy, run.options.vpc, numbering, min(firsts, default=1) - 1))
    return shard_names


def numberings(policy: Policy, changes: Sequence[TimedChange]) -> Iterator[tuple[Policy, Numbering]]:
    """Yield the policy with its numbering, first as it is and then after each change."""
    numbering = Numbering().after(policy)
    yield policy, numbering
    for change in changes:
        policy = apply_change(policy, change.change).policy
        renewed = [change.change.instance] if isinstance(change.change, RemoveInstance) else []
        numbering = numbering.after(policy, renewed)
        yield policy, numbering


def write_flows(sinks: Sinks, run: Run, job: Job, judged: Sequence[Judged]) -> None:
    """Write all connections to the sinks, in the order of their first packets."""
    flow_sinks = Sinks(flows=sinks.flows)
    flow_sinks.begin(names_of(run, job, judged)[-1])
    rows = MergedRows(Folder(run.folder), [shard.flow_rows for shard in judged if shard.flow_rows])
    for flows in rows.all(ROWS_AT_ONCE):
        flow_sinks.write_flows(flows)


def warn_of_shares(result: ReplayResult, run: Run, chain: SegmentChain, judged: Sequence[Judged]) -> None:
    """Warn if one process's connection table might have been too small for the connections of all shards together."""
    sum_of_connections = sum(shard.most_connections for shard in judged)
    most = run.policy.settings.max_connections
    if sum_of_connections > most:
        result.warnings.append(
            f"all shards together may have had up to {sum_of_connections:,} connections at the same time; with more "
            f"than {most:,} (settings.max_connections), one process might have evicted some of them"
        )
