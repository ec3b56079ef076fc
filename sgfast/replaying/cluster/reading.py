"""The first task of a clustered replay: reads captures and writes a segment, with records grouped by shard."""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.capture import CaptureReader, Damage
from sgfast.capture.interfaces import InterfaceMarks
from sgfast.capture.names import printable
from sgfast.capture.streams import open_stream
from sgfast.core.base.frames import FrameBatch
from sgfast.core.shards.partition import Pair, Partitioner
from sgfast.errors import ClusterError
from sgfast.policy.serialization import from_plain, to_plain
from sgfast.preprocess.selection import Dedup
from sgfast.replaying.captures import Captures, Noticed
from sgfast.replaying.cluster.plan import Input, Range, Run, Start, Unit, check_version, identity_of
from sgfast.replaying.cluster.storage import Folder
from sgfast.replaying.cutting import PacketsLeftOut
from sgfast.replaying.placement import Placement, placement_of

Rows = NDArray[Any]

#: Appended to a segment's name: the name of the file that describes the segment.
SUFFIX = ".json"

#: Where a shard's records are in a segment, in order: position and size in bytes, and the number of records.
BLOCK_DTYPE = np.dtype([("shard", "<u4"), ("offset", "<u8"), ("size", "<u8"), ("count", "<u4")])


@dataclass(frozen=True, slots=True)
class Segment:
    """What reading a unit found. Its records are in ``file``."""

    unit: Unit
    start: Start
    file: str
    #: Rows of BLOCK_DTYPE, in base64.
    blocks_text: str
    packets: int
    #: The time at which its clock began, and ``Partitioner.clock_state``; None without packets.
    began_ns: int | None
    clock: tuple[int, int, int, int, int, int, int] | None
    #: The times of the first packet and of the latest, including packets left out; None without packets.
    range_ns: tuple[int, int] | None
    #: ``Dedup.earliest`` and ``latest``; empty without ``dedup``.
    earliest: tuple[tuple[int, int], ...]
    latest: tuple[tuple[int, int], ...]
    busiest: tuple[tuple[int, int, Pair], ...]
    #: ICMP errors that came in fragments. Later fragments may go to another shard than the first.
    quotes_in_fragments: int
    left_out: PacketsLeftOut | None
    #: Tunnel headers removed, by kind; None if none were to be removed.
    decapsulated: tuple[tuple[str, int], ...] | None
    noticed: Noticed
    warnings: tuple[str, ...]
    damage: Damage | None
    bytes_read: int
    records_bytes: int
    #: The time that the task took.
    seconds: float

    @property
    def blocks(self) -> Rows:
        return np.frombuffer(base64.b64decode(self.blocks_text), dtype=BLOCK_DTYPE)


def read_unit(run: Run, unit: Unit, start: Start, name: str) -> Segment:
    """A task: reads a unit and writes its segment to the file ``name``. Raises the errors of ``Captures``."""
    began = time.perf_counter()
    check_version(run)
    folder = Folder(run.folder)
    placement = placement_of(run.policy, run.options)
    captures = UnitCaptures(run, unit, start, placement)
    dedup = captures.cutting.dedup
    partitioner = Partitioner(
        run.shards, run.seed, exempt=run.policy.settings.infrastructure == "exempt", full_bytes=run.block_bytes,
        began_ns=start.raw_ns,
    )  # fmt: skip
    blocks: list[tuple[int, int, int, int]] = []
    with folder.writer(name) as out:

        def keep(shard: int) -> None:
            taken = partitioner.take(shard, out.write)
            if taken is not None:
                blocks.append((shard, *taken))

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
        captures.cutting.left_out(),
        None if counts is None else tuple(counts.items()), captures.noticed, tuple(captures.warnings),
        _in_file(captures.damage, unit), captures.bytes_read, out.size, time.perf_counter() - began,
    )  # fmt: skip
    # Written last: it shows that the segment is complete.
    folder.write(name + SUFFIX, json.dumps(to_plain(segment)).encode())
    return segment


def saved_segment(folder: Folder, name: str, unit: Unit, shards: int) -> Segment | None:
    """The result of the ``read_unit`` that wrote the segment ``name`` of ``unit``; None if it cannot be used.

    A segment of a damaged capture is not used either, because reading may have failed for another reason.
    """
    try:
        found: Segment = from_plain(Segment, json.loads(folder.read(name + SUFFIX)))
        blocks = found.blocks
    except (ClusterError, ValueError):
        return None
    sound = (
        found.file == name and found.unit == unit and found.damage is None and folder.size(name) == found.records_bytes
        and int(blocks["count"].sum()) == found.packets and bool((blocks["shard"] < shards).all())
        and bool((blocks["offset"] + blocks["size"] <= found.records_bytes).all())
    )  # fmt: skip
    return found if sound else None


class UnitCaptures(Captures):
    """Reads a unit's captures, given what came before (``start``). ``range_ns``: as in ``Segment``."""

    def __init__(self, run: Run, unit: Unit, start: Start, placement: Placement | None) -> None:
        parts = [[(entry.path, entry.begins_ns) for entry in unit.inputs]]
        super().__init__((), run.options.reading, self._count_bytes, run.first_ns, placement, parts=parts)
        self.cutting.dedup = Dedup(run.dedup_key)
        self.cutting.dedup.go_on(start.seen)
        self._unit = unit
        self.range_ns: tuple[int, int] | None = None
        self.bytes_read = 0

    def _count_bytes(self, packets: int, nbytes: int) -> None:
        self.bytes_read = nbytes

    def batches(self) -> Iterator[FrameBatch]:
        for batch in super().batches():
            found = batch.time_range
            if found is not None:
                had = self.range_ns
                self.range_ns = found if had is None else (had[0], max(had[1], found[1]))
            yield batch

    def open_one(
        self, path: str, until: Callable[[], bool] | None, vpc: int, interfaces: InterfaceMarks | None
    ) -> CaptureReader:
        entry = next(entry for entry in self._unit.inputs if entry.path == path)
        return open_input(entry, vpc, interfaces)


def open_input(entry: Input, vpc: int = 0, interfaces: InterfaceMarks | None = None) -> CaptureReader:
    """Opens a capture, or a range of one. Raises ClusterError if it has changed since the replay began."""
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
    """A stream of a range's preamble and then its bytes."""

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


def _in_file(damage: Damage | None, unit: Unit) -> Damage | None:
    """Damage in a range, with its position in the whole file."""
    part = unit.inputs[0].range
    if damage is None or part is None:
        return damage
    before = sum(end - start for start, end in part.preamble)
    return replace(damage, offset=damage.offset - before + part.start, packet=damage.packet + part.packets)


def ranges_of(entry: Input, every: int) -> list[Input]:
    """Splits a large capture into ranges of about ``every`` bytes. Walks its record headers up to the first damage.

    Raises CaptureError if no packet can be read.
    """
    with open_input(entry) as reader:
        found = [Range(reader.offset, None, reader.preamble or (), 0)]
        while reader.next_batch() is not None:
            preamble = reader.preamble
            if preamble is not None and reader.offset - found[-1].start >= every:
                found[-1] = replace(found[-1], end=reader.offset)
                found.append(Range(reader.offset, None, preamble, reader.packets))
    return [replace(entry, range=part) for part in found]
