"""Run a replay on a cluster of any number of machines, with the same verdicts as one process.

        captures --index--> ranges of large captures      reads only record headers
        units    --read---> segments, records by shard    one task for each capture or range, in any order
                 (chain)    each segment's place           on this machine, from a few numbers per segment
        shards   --judge--> results, rows                 one task for each shard, with all its records in order of time
                 (gather)   one result, ordered rows      on this machine; sinks receive rows of packets and connections

All packets between two addresses are in one shard (``core/shards``), so that shards can be judged independently.
``plan`` defines the values shared by all tasks, ``storage`` keeps files, and ``scheduler`` is the only Dask module.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import numpy as np

from sgfast.base.errors import ClusterError
from sgfast.base.names import printable, without_credentials, without_user
from sgfast.base.streams.urls import is_web_url
from sgfast.policy.change_file import ChangeFile
from sgfast.policy.model import Policy
from sgfast.policy.serialization import to_plain
from sgfast.questions.replaying.cluster.agreement import agreed
from sgfast.questions.replaying.cluster.chain import SegmentChain, read_all
from sgfast.questions.replaying.cluster.gathering import (
    fill,
    fill_reading,
    warn,
    warn_of_shares,
    write_flows,
    write_packets,
)
from sgfast.questions.replaying.cluster.judging import SPAN_DTYPE, Job, Judged, SegmentFile, judge_shard
from sgfast.questions.replaying.cluster.partition import Pair
from sgfast.questions.replaying.cluster.plan import (
    RANGE_BYTES,
    Input,
    Run,
    Start,
    Unit,
    place_of,
    shards_for,
    units_of,
    version_here,
)
from sgfast.questions.replaying.cluster.reading import (
    BLOCK_DTYPE,
    SEGMENT,
    SUFFIX,
    Segment,
    ranges_of,
    read_unit,
    saved_ranges,
    saved_segment,
)
from sgfast.questions.replaying.cluster.scheduler import Cluster
from sgfast.questions.replaying.cluster.storage import Folder
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.overlaps import refuse_ambiguous
from sgfast.questions.replaying.results import ClusterUsed, ReplayResult, Rows, Sinks, Stage
from sgfast.traffic.capture import open_capture
from sgfast.traffic.capture.directories import first_time_ns
from sgfast.traffic.captures import CapturePart, can_be_tried, parts_of
from sgfast.traffic.vpc_mapping import seen_vpcs, vpc_mapping_of

#: Warn of a shard with at least ``HOT_TIMES`` times its share of the packets and ``HOT_PART`` of all packets.
HOT_TIMES = 2
HOT_PART = 0.1
#: The minimum number of packets of a shard to warn of. Fewer packets are judged within seconds.
HOT_PACKETS = 10_000_000


def replay_on_cluster(
    policy: Policy, captures: tuple[str, ...], options: ReplayOptions, changes: ChangeFile | None, sinks: Sinks,
    progress: Callable[[int, int], None] | None,
) -> ReplayResult:  # fmt: skip
    """Run a replay like ``run_replay``, on the cluster ``options.client``.

    ``options.resume`` is a path or URL that all workers can access, where segments are kept for later replays; None: a
    temporary folder on this machine. ``options.shards`` is the number of shards; None: by the size of the captures.
    """
    began = time.perf_counter()
    result = ReplayResult(
        policy, mode=options.mode, midstream=options.midstream, vpc=options.vpc, captures=captures,
        warnings=list(policy.warnings),
    )  # fmt: skip
    cluster = Cluster(options.client)
    for path in captures:
        if not can_be_tried(path):
            raise ClusterError(f"{printable(path)}: can be read only once, and only here; --dask needs files")
    parts, damaged, warnings = parts_of(captures, options.reading)
    result.warnings += warnings
    with ExitStack() as stack:
        # Tasks that cannot be stopped may still write to the folder while it is being removed.
        scratch_folder = tempfile.TemporaryDirectory(prefix="sgfast-", ignore_cleanup_errors=True)
        folder = options.resume
        place = place_of(os.fsdecode(folder)) if folder is not None else stack.enter_context(scratch_folder)
        storage = Folder(place)
        storage.make()
        units = units_of(parts)
        first_ns = _first_ns(parts)
        run = Run(
            place, version_here(), policy, replace(options, client=None, changes=None, resume=None),
            options.shards or shards_for(units, cluster.threads), secrets.randbits(64), first_ns, len(units),
        )  # fmt: skip
        run = agreed(storage, run, options.shards, result.warnings)
        vpc_mapping_of(policy, options.vpc)       # raises errors before workers would
        timed = () if changes is None else tuple(changes.resolve(policy, first_ns or 0))
        for vpc in seen_vpcs(policy, options.vpc):
            refuse_ambiguous(policy, timed, vpc)
        _Replay(cluster, run, storage, result, sinks, progress).go(units, timed, damaged)
    result.elapsed_seconds = time.perf_counter() - began
    return result


class _Replay:
    def __init__(
        self, cluster: Cluster, run: Run, storage: Folder, result: ReplayResult, sinks: Sinks,
        progress: Callable[[int, int], None] | None,
    ) -> None:  # fmt: skip
        self._cluster, self._run, self._storage, self._result = cluster, run, storage, result
        self._sinks = sinks
        self._progress = progress or (lambda packets, nbytes: None)
        self._shared = cluster.shared("run", run)
        #: The prefix of the names of files that contain rows.
        self._token = secrets.token_hex(8)
        self._stages: list[Stage] = []
        self._found_segments = 0
        self._packets = self._bytes = 0

    def go(self, units: Sequence[Unit], changes: Sequence[Any], damaged: Sequence[str]) -> None:
        result, run, sinks = self._result, self._run, self._sinks
        units = self._split(units)
        began = time.perf_counter()
        segments: list[Segment] = []
        chain = read_all(units, lambda calls: self._read(calls, segments))
        self._stages.append(
            Stage(
                "read", len(segments), time.perf_counter() - began, sum(segment.seconds for segment in segments),
                sum(segment.packets for segment in segments), sum(segment.records_bytes for segment in segments),
            )
        )  # fmt: skip
        job = Job(
            tuple(changes), chain.began_ns or 0,
            chain.now_ns if chain.now_ns is not None else -(1 << 62), sinks.want_packets, bool(sinks.flows),
            tuple(SegmentFile(at.segment.file, at.packets_before, at.shift_ns) for at in chain.placed),
        )  # fmt: skip
        try:
            judged = self._judge(job, chain)
            began = time.perf_counter()
            fill_reading(result, run, chain)
            fill(result, run, job, chain, judged)
            if sinks.want_packets:
                write_packets(sinks, run, job, chain, judged)
            if sinks.flows:
                write_flows(sinks, run, job, judged)
        finally:
            if sinks.want_packets or sinks.flows:
                for name in self._storage.names():
                    if name.lstrip(".").startswith(self._token):
                        self._storage.remove(name)
        took = time.perf_counter() - began
        self._stages.append(Stage("gather", 1, took, took, result.packets, 0))
        result.oddities.warn(result)
        warn(result, run, chain, damaged)
        warn_of_shares(result, run, chain, judged)
        self._warn_of_hot_shards(chain, judged)
        result.cluster = ClusterUsed(
            self._cluster.name, self._cluster.workers, run.shards, tuple(self._stages), self._found_segments
        )

    def _split(self, units: Sequence[Unit]) -> list[Unit]:
        """Split large captures into ranges."""
        large = [unit for unit in units if (unit.size or 0) > 2 * RANGE_BYTES and _is_splittable(unit)]
        if not large:
            return list(units)
        began = time.perf_counter()
        calls = [(unit.name, (self._storage.place, unit.inputs[0], RANGE_BYTES)) for unit in large]
        split_files = self._cluster.run("index", indexed, calls, self._show_progress)
        self._result.warnings += [warning for _, warning in split_files if warning is not None]
        ranges = {unit.inputs[0].path: inputs for unit, (inputs, _) in zip(large, split_files, strict=True)}
        took = time.perf_counter() - began
        self._stages.append(Stage("index", len(large), took, took, 0, 0))
        return [
            divided_unit
            for unit in units
            for divided_unit in (
                [Unit((entry,), unit.part) for entry in ranges[unit.inputs[0].path]]
                if unit.inputs[0].path in ranges
                else [unit]
            )
        ]

    def _show_progress(self, _: Any) -> None:
        self._progress(self._packets, self._bytes)

    def _read(self, calls: Sequence[tuple[Unit, Start]], segments: list[Segment]) -> list[Segment]:
        names = [_name_of(self._run, unit, start) for unit, start in calls]
        existing = self._storage.names()
        shards = self._run.shards
        segment_of_name: dict[str, Segment] = {}
        for name, (unit, start) in zip(names, calls, strict=True):
            if {name, name + SUFFIX} <= existing:
                try:
                    segment_of_name[name] = saved_segment(self._storage, name, unit, start, shards)
                except ClusterError as error:
                    self._result.warnings.append(f"{error}; its captures are read again")
        self._found_segments += len(segment_of_name)

        def done(segment: Segment) -> None:
            self._packets += segment.packets
            self._bytes += segment.bytes_read
            self._progress(self._packets, self._bytes)

        for segment in segment_of_name.values():
            done(segment)
        missing_calls = [(name, *call) for name, call in zip(names, calls, strict=True) if name not in segment_of_name]
        new_segments = self._cluster.run(
            "read",
            read_unit,
            [(unit.name, (self._shared, unit, start, name)) for name, unit, start in missing_calls],
            done,
        )
        segments += new_segments
        for (name, *_), segment in zip(missing_calls, new_segments, strict=True):
            segment_of_name[name] = segment
        return [segment_of_name[name] for name in names]

    def _judge(self, job: Job, chain: SegmentChain) -> list[Judged]:
        began = time.perf_counter()
        shared_job, token, packets = self._cluster.shared("job", job), self._token, 0
        spans, begins = spans_by_shard(chain, self._run.shards)

        def done(shard: Judged) -> None:
            nonlocal packets
            packets += shard.packets
            # Convert packets to bytes of captures, which the progress bar counts.
            self._progress(packets, self._bytes * packets // max(1, self._packets))

        calls = (
            (f"shard-{shard}-of-{self._run.shards}", (self._shared, shared_job, shard, token, spans[first:end]))
            for shard, (first, end) in enumerate(pairwise(begins))
            if first < end or shard == 0
        )
        judged = self._cluster.run("judge", judge_shard, calls, done)
        self._stages.append(
            Stage(
                "judge", len(judged), time.perf_counter() - began, sum(shard.seconds for shard in judged),
                sum(shard.packets for shard in judged), sum(shard.bytes_read for shard in judged),
            )
        )  # fmt: skip
        return judged

    def _warn_of_hot_shards(self, chain: SegmentChain, judged: Sequence[Judged]) -> None:
        """Warn of shards that have much more than their share of the packets, because the replay waits for them."""
        total = chain.packets
        hot = max(HOT_PACKETS, HOT_PART * total, HOT_TIMES * total / len(judged))
        for shard in judged:
            if len(judged) < 2 or shard.packets < hot:
                continue
            votes: Counter[Pair] = Counter()
            for placed in chain.placed:
                votes.update({pair: n for number, n, pair in placed.segment.busiest if number == shard.shard})
            busiest = ""
            if votes and votes.most_common(1)[0][1] > shard.packets / 2:
                [(pair, number)] = votes.most_common(1)
                a, b = (str(ip_address(end if pair[0] == 4 else end.to_bytes(16, "big"))) for end in pair[1:])
                busiest = f", at least {number / shard.packets:.0%} of them between {a} and {b}"
            self._result.warnings.append(
                f"shard {shard.shard + 1} of {self._run.shards} had {shard.packets / total:.0%} of the packets"
                f"{busiest}: packets between two addresses cannot be divided among shards"
            )


def indexed(place: str, entry: Input, every: int) -> tuple[list[Input], str | None]:
    """Call ``ranges_of``, as a task, and keep its result in the folder.

    The second value is a warning if an earlier result cannot be used.
    """
    folder, warning = Folder(place), None
    name = f"{_digest(entry.renamed(without_user), every)}.index.json"
    if name in folder.names():
        try:
            return saved_ranges(folder, name, entry), None
        except ClusterError as error:
            warning = f"{error}; its capture is indexed again"
    ranges = ranges_of(entry, every)
    folder.write_document(name, to_plain(tuple(part.renamed(without_credentials) for part in ranges)))
    return ranges, warning


def spans_by_shard(chain: SegmentChain, shards: int) -> tuple[Rows, list[int]]:
    """Return the places of all records, sorted by shard, as an array of SPAN_DTYPE, and each shard's first index in
    it."""
    blocks = [placed.segment.blocks for placed in chain.placed]
    every = np.concatenate(blocks) if blocks else np.empty(0, dtype=BLOCK_DTYPE)
    spans = np.empty(len(every), dtype=SPAN_DTYPE)
    spans["source"] = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    for name in ("offset", "size", "count", "checksum"):
        spans[name] = every[name]
    order = np.argsort(every["shard"], kind="stable")
    begins = np.searchsorted(every["shard"][order], np.arange(shards + 1))
    return spans[order], begins.tolist()


def _is_splittable(unit: Unit) -> bool:
    if is_web_url(unit.inputs[0].path):
        return False
    with open_capture(unit.inputs[0].path) as reader:
        return not reader.is_compressed


def _first_ns(parts: Sequence[CapturePart]) -> int | None:
    """Return the time of the first packet of all captures."""
    for part in parts:
        begins = [first_time_ns(path) if begins_ns is None else begins_ns for path, begins_ns in part]
        if times := [begins_ns for begins_ns in begins if begins_ns is not None]:
            return min(times)
    return None


def _name_of(run: Run, unit: Unit, start: Start) -> str:
    # The seed and the number of shards decide where records are. URLs of different captures may differ in the query
    # only.
    return f"{_digest(unit.renamed(without_user), start, run.seed, run.shards)}{SEGMENT}"


def _digest(*values: Any) -> str:
    plain = json.dumps([to_plain(value) for value in values])
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:24]
