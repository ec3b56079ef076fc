"""Task that reads captures for a clustered replay and writes a segment, with records grouped by shard."""

from __future__ import annotations

import base64
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import ClusterError
from sgfast.base.evidence import UnreadFiles
from sgfast.base.names import printable, without_credentials
from sgfast.base.streams.binary_stream import open_stream
from sgfast.core.base.clock import CLOCK_END_NS
from sgfast.core.base.frames import FrameBatch
from sgfast.policy.serialization import from_plain, to_plain
from sgfast.questions.replaying.cluster.partition import MAX_PACKETS, Pair, Partitioner
from sgfast.questions.replaying.cluster.plan import Input, Range, Run, Start, Unit, check_version, identity_of
from sgfast.questions.replaying.cluster.storage import Folder, checksum, is_whole
from sgfast.rows.verdicts import INFRASTRUCTURES
from sgfast.traffic.capture import CaptureReader, Damage
from sgfast.traffic.capture.interfaces import InterfaceMarks
from sgfast.traffic.capture.merge import MergedReader
from sgfast.traffic.capture_pairs import Sampled
from sgfast.traffic.captures import Captures
from sgfast.traffic.packet_selection import PacketsLeftOut
from sgfast.traffic.preprocess import TunnelKind
from sgfast.traffic.preprocess.selection import Dedup
from sgfast.traffic.source import Noticed
from sgfast.traffic.vpc_mapping import VpcMapping, vpc_mapping_of

Rows = NDArray[Any]

#: The suffix of the names of segments.
SEGMENT = ".records"
#: Suffix added to a segment's name for the file that describes the segment.
SUFFIX = ".json"

#: The blocks of a segment, in file order: the shard, the position and size in bytes, the number of records, and the
#: checksum of the bytes. A judging task reads only its shard's blocks, so each block has its own checksum.
BLOCK_DTYPE = np.dtype([("shard", "<u4"), ("offset", "<u8"), ("size", "<u8"), ("count", "<u4"), ("checksum", "<u4")])

#: The largest 64-bit unsigned number.
_MOST = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Segment:
    """Result of reading a unit. Its records are in the file ``file``."""

    unit: Unit
    start: Start
    file: str
    #: Rows of BLOCK_DTYPE, in base64.
    blocks_text: str
    packets: int
    #: The time at which the segment's clock began, and ``Partitioner.clock_state``; None without packets.
    began_ns: int | None
    clock: tuple[int, int, int, int, int, int, int] | None
    #: The times of the first packet and of the latest packet, including packets left out; None without packets.
    range_ns: tuple[int, int] | None
    #: ``Dedup.earliest`` and ``latest``; empty without ``dedup``.
    earliest: tuple[tuple[int, int], ...]
    latest: tuple[tuple[int, int], ...]
    busiest: tuple[tuple[int, int, Pair], ...]
    #: The number of fragmented ICMP errors. Their later fragments may go to another shard than the first fragment.
    quotes_in_fragments: int
    left_out: PacketsLeftOut | None
    #: The number of tunnel headers removed, by kind; None if the options remove none.
    decapsulated: tuple[tuple[TunnelKind, int], ...] | None
    noticed: Noticed
    #: Samples of its captures, to compare them with those of other units; empty if there is one capture in all.
    samples: tuple[Sampled, ...]
    warnings: tuple[str, ...]
    damage: Damage | None
    bytes_read: int
    records_bytes: int
    #: The seconds that the task took.
    seconds: float

    @property
    def blocks(self) -> Rows:
        return np.frombuffer(base64.b64decode(self.blocks_text), dtype=BLOCK_DTYPE)


def read_unit(run: Run, unit: Unit, start: Start, name: str) -> Segment:
    """Read a unit, as a task, and write its segment to the file ``name``. Raises the errors of ``Captures``."""
    began = time.perf_counter()
    check_version(run)
    folder = Folder(run.folder)
    vpc_mapping = vpc_mapping_of(run.policy, run.options.vpc)
    captures = UnitCaptures(run, unit, start, vpc_mapping)
    dedup = captures.selection.dedup
    partitioner = Partitioner(
        run.shards, run.seed, infrastructure=INFRASTRUCTURES.index(run.policy.settings.infrastructure),
        full_bytes=run.block_bytes, began_ns=start.raw_ns,
    )  # fmt: skip
    blocks: list[tuple[int, int, int, int, int]] = []
    with folder.writer(name) as out:

        def put(data: memoryview) -> tuple[int, int]:
            return out.write(data), checksum(data)

        def keep(shard: int) -> None:
            block = partitioner.take(shard, put)
            if block is not None:
                (offset, vpcs), size, count = block
                blocks.append((shard, offset, size, count, vpcs))

        for batch in captures:
            for shard in partitioner.spread(batch):
                keep(shard)
        for shard in range(run.shards):
            keep(shard)
    counts = captures.decapsulated
    earliest, latest = (dedup.earliest, dedup.latest) if run.options.reading.dedup else ((), ())
    text = base64.b64encode(np.array(blocks, dtype=BLOCK_DTYPE).tobytes()).decode()
    segment = Segment(
        unit, start, name, text, partitioner.packets,
        partitioner.began_ns if partitioner.packets else None, partitioner.clock_state, captures.range_ns,
        tuple(earliest), tuple(latest), tuple(partitioner.busiest), partitioner.fragmented_quotes,
        captures.selection.left_out(),
        None if counts is None else tuple(counts.items()), captures.noticed, captures.sampled,
        tuple(captures.warnings),
        captures.damage, captures.bytes_read, out.size, time.perf_counter() - began,
    )  # fmt: skip
    # This file is written last, so its presence shows that the segment is complete. A damaged capture gets no such
    # file: the apparent damage may have been a failed read, so every replay reads that capture again.
    if segment.damage is None:
        public = replace(segment, unit=unit.renamed(without_credentials))
        folder.write_document(name + SUFFIX, to_plain(public))
    return segment


def saved_segment(folder: Folder, name: str, unit: Unit, start: Start, shards: int) -> Segment:
    """Return the saved result of the ``read_unit`` that wrote segment ``name``. Raises ClusterError if it is
    unusable."""
    try:
        segment: Segment = from_plain(Segment, folder.read_document(name + SUFFIX))
        is_usable = (
            segment.file == name and segment.unit == unit.renamed(without_credentials) and segment.start == start
            and _is_sound(segment, shards)
        )  # fmt: skip
    except ValueError:
        is_usable = False
    if not is_usable:
        raise folder.damaged(name + SUFFIX)
    if folder.size(name) != segment.records_bytes:
        raise folder.damaged(name)
    return replace(segment, unit=unit)


def _is_sound(segment: Segment, shards: int) -> bool:
    """Return whether ``read_unit`` may have returned these values. Raises ValueError if the blocks' text is invalid."""
    blocks, clock, pairs = segment.blocks, segment.clock, (*segment.earliest, *segment.latest)
    left_out, noticed = astuple(segment.left_out or PacketsLeftOut()), segment.noticed
    numbers = (
        segment.quotes_in_fragments, segment.bytes_read, noticed.looked_at, noticed.copies, noticed.too_deep,
        noticed.sampled, *(number for _, number in noticed.in_tunnels),
        *(number for number in left_out if number is not None), *(number for _, number in segment.decapsulated or ()),
    )  # fmt: skip
    ends = np.cumsum(blocks["size"])
    return (
        segment.damage is None and noticed.unread == UnreadFiles() and is_whole(segment.packets, 0, MAX_PACKETS)
        and int(blocks["count"].sum()) == segment.packets and bool((blocks["shard"] < shards).all())
        and np.array_equal(blocks["offset"], ends - blocks["size"])
        and int(ends[-1] if len(ends) else 0) == segment.records_bytes
        and bool((blocks["size"] <= segment.records_bytes).all())
        and (segment.packets > 0) == (clock is not None) == (segment.began_ns is not None)
        and (clock is None or _is_clock(clock, segment.began_ns))
        and all(is_whole(number, 0, _MOST) for number in numbers)
        and all(is_whole(digest, 0, _MOST) and -_MOST // 2 <= time_ns <= _MOST // 2 for digest, time_ns in pairs)
        and all(_is_busy(busy, shards) for busy in segment.busiest)
        and all(text.isprintable() for text in segment.warnings)
        and all(sample.is_sound() for sample in segment.samples)
    )  # fmt: skip


def _is_clock(clock: tuple[int, int, int, int, int, int, int], began_ns: int | None) -> bool:
    """Return whether ``clock`` may be ``Partitioner.clock_state`` of a clock that began at ``began_ns``."""
    now, raw, earliest, latest, late, most_late, restarts = clock
    limits = -CLOCK_END_NS, CLOCK_END_NS
    return (
        began_ns is not None and all(is_whole(time_ns, *limits) for time_ns in (began_ns, *clock[:4]))
        and began_ns <= now and raw <= now and earliest <= raw <= latest
        and late >= 0 and is_whole(most_late, 0, 2 * CLOCK_END_NS) and restarts >= 0
    )  # fmt: skip


def _is_busy(busy: tuple[int, int, Pair], shards: int) -> bool:
    shard, votes, (family, *ends) = busy
    return (
        is_whole(shard, 0, shards - 1) and is_whole(votes, 0, MAX_PACKETS) and family in (4, 6)
        and all(is_whole(end, 0, (1 << (32 if family == 4 else 128)) - 1) for end in ends)
    )  # fmt: skip


class UnitCaptures(Captures):
    """Read a unit's captures, starting from the state that the units before it left (``start``).

    ``range_ns`` is as in ``Segment``.
    """

    def __init__(self, run: Run, unit: Unit, start: Start, vpc_mapping: VpcMapping | None) -> None:
        parts = [[(entry.path, entry.begins_ns) for entry in unit.inputs]]
        super().__init__((), run.options.reading, self._count_bytes, run.first_ns, vpc_mapping, parts=parts)
        self.compared = run.captures
        self.selection.dedup = Dedup(run.dedup_key)
        self.selection.dedup.go_on(start.seen)
        self._unit = unit
        self.range_ns: tuple[int, int] | None = None
        self.bytes_read = 0

    def _count_bytes(self, packets: int, nbytes: int) -> None:
        self.bytes_read = nbytes

    def batches(self) -> Iterator[FrameBatch]:
        for batch in super().batches():
            batch_range = batch.time_range
            if batch_range is not None:
                had = self.range_ns
                self.range_ns = batch_range if had is None else (had[0], max(had[1], batch_range[1]))
            yield batch

    def _end(self, damage: Damage, reader: CaptureReader | MergedReader, number: int) -> None:
        super()._end(_damage_in_file(damage, self._unit), reader, number)

    def open_one(
        self, path: str, until: Callable[[], bool] | None, vpc: int, interfaces: InterfaceMarks | None
    ) -> CaptureReader:
        entry = next(entry for entry in self._unit.inputs if entry.path == path)
        return open_input(entry, vpc, interfaces)


def open_input(entry: Input, vpc: int = 0, interfaces: InterfaceMarks | None = None) -> CaptureReader:
    """Open a capture, or a range of one. Raises ClusterError if it has changed since the replay began."""
    if identity_of(entry.place) != (entry.size, entry.mark):
        raise ClusterError(
            f"{printable(entry.path)}: a worker sees another file, or the file has changed; all must see the same file"
        )
    stream, *_ = open_stream(entry.place)
    stream = stream if entry.range is None else RangeStream(stream, entry.range)
    try:
        return CaptureReader(
            stream, entry.path, owns_stream=True, vpc=vpc, interfaces=interfaces, is_part=entry.range is not None
        )
    except BaseException:
        stream.close()
        raise


class RangeStream:
    """A stream of a range's preamble followed by the range's bytes."""

    def __init__(self, stream: Any, part: Range) -> None:
        self._stream = stream
        self._spans = deque([*part.preamble, (part.start, part.end)])
        self._at = 0
        self._end: int | None = 0

    def readinto(self, buffer: memoryview) -> int:
        while self._end is not None and self._at >= self._end:
            if not self._spans:
                return 0
            self._at, self._end = self._spans.popleft()
            self._stream.seek(self._at)
        room = len(buffer) if self._end is None else min(len(buffer), self._end - self._at)
        count: int = self._stream.readinto(memoryview(buffer)[:room])
        self._at += count
        return count

    def close(self) -> None:
        self._stream.close()


def _damage_in_file(damage: Damage, unit: Unit) -> Damage:
    """Return damage in a range with its position converted to the whole file."""
    part = unit.inputs[0].range
    if part is None:
        return damage
    before = sum(end - start for start, end in part.preamble)
    return replace(damage, offset=damage.offset - before + part.start, packet=damage.packet + part.packets)


def ranges_of(entry: Input, every: int) -> list[Input]:
    """Split a large capture into ranges of about ``every`` bytes. Reads its record headers up to the first damage.

    Raises CaptureError if no packet can be read.
    """
    with open_input(entry) as reader:
        ranges = [Range(reader.offset, None, reader.preamble or (), 0)]
        while reader.next_batch() is not None:
            preamble = reader.preamble
            if preamble is not None and reader.offset - ranges[-1].start >= every:
                ranges[-1] = replace(ranges[-1], end=reader.offset)
                ranges.append(Range(reader.offset, None, preamble, reader.packets))
    return [replace(entry, range=part) for part in ranges]


def saved_ranges(folder: Folder, name: str, entry: Input) -> list[Input]:
    """Return the saved result of ``ranges_of`` in the file ``name``. Raises ClusterError if it is unusable."""
    try:
        parts = from_plain(tuple[Input, ...], folder.read_document(name))
    except ValueError:
        parts = ()
    ranges = [part.range for part in parts if part.range is not None]
    public = entry.renamed(without_credentials)
    if [replace(part, range=None) for part in parts] != [public] * len(ranges) or not _are_sound(ranges):
        raise folder.damaged(name)
    return [replace(entry, range=part) for part in ranges]


def _are_sound(ranges: Sequence[Range]) -> bool:
    """Return whether ``ranges`` may be all ranges of one capture."""
    return (
        len(ranges) > 0 and ranges[0].start >= 0 and ranges[0].packets == 0 and ranges[-1].end is None
        and all(a.end == b.start > a.start and a.packets < b.packets for a, b in pairwise(ranges))
        and all(
            before <= start <= end <= byte_range.start
            for byte_range in ranges
            for (_, before), (start, end) in pairwise([(0, 0), *byte_range.preamble])
        )
    )  # fmt: skip
