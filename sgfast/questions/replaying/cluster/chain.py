"""Chain segments that were read independently: find each segment's first packet number and its clock's offset.

Every unit is first read as if no packets came before it. Usually this gives the right result: its first packet is no
earlier than the last packet before it, or so much earlier that the clock restarts (SPEC 9.1); and with ``--dedup``, no
packet is a copy of one from before the unit. Otherwise the unit is read again with the state left by the packets before
it (``Start``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sgfast.core.base.clock import CLOCK_END_NS, LATE_LIMIT_NS
from sgfast.questions.replaying.cluster.plan import Start, Unit
from sgfast.questions.replaying.cluster.reading import Segment
from sgfast.questions.replaying.results import Oddities

#: The maximum time between copies, and the number of packets remembered to find them
#: (``traffic/preprocess/selection.pyx``).
COPY_NS = 50_000_000
REMEMBERED = 4096
#: The latest clock time that fits 64 bits.
CLOCK_MOST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Placed:
    """A segment, the number of packets before it, and its clock's offset from the common clock."""

    segment: Segment
    packets_before: int
    shift_ns: int


@dataclass(frozen=True, slots=True)
class SegmentChain:
    placed: tuple[Placed, ...]
    #: The first packet's time, and the clock's time at the end; None if there are no packets.
    began_ns: int | None
    now_ns: int | None
    earliest_ns: int | None
    latest_ns: int | None
    oddities: Oddities

    @property
    def packets(self) -> int:
        return sum(placed.segment.packets for placed in self.placed)


def chained(segments: Sequence[Segment]) -> tuple[SegmentChain, list[tuple[int, Start]]]:
    """Return the chain, and the segments that must be read again, with their starts, before the chain is correct."""
    placed: list[Placed] = []
    reread: list[tuple[int, Start]] = []
    packets = 0
    oddities = Oddities()
    now_ns: int | None = None
    raw_ns: int | None = None
    began_ns: int | None = None
    earliest: list[int] = []
    latest: list[int] = []
    latest_packets: tuple[tuple[int, int], ...] = ()
    for number, segment in enumerate(segments):
        start = Start(raw_ns, latest_packets)
        if not _holds(segment, start):
            reread.append((number, start))
        if segment.clock is None or segment.began_ns is None:
            placed.append(Placed(segment, packets, 0))
            continue
        clock_ns, clock_raw, least, most, *clock_oddities = segment.clock
        if now_ns is None or raw_ns is None:
            began_ns, shift = segment.began_ns, 0
        elif segment.start.raw_ns is None and _restarts(raw_ns, segment.began_ns):
            shift = min(now_ns - segment.began_ns, CLOCK_MOST)
            oddities += Oddities(restarts=1)
        else:
            # The unit's clock started at its own timestamps. The common clock keeps its distance from the timestamps.
            shift = min(now_ns - raw_ns, CLOCK_MOST)
        placed.append(Placed(segment, packets, shift))
        now_ns, raw_ns = min(clock_ns + shift, CLOCK_END_NS), clock_raw
        packets += segment.packets
        oddities += Oddities(*clock_oddities)
        earliest.append(least)
        latest.append(most)
        latest_packets = segment.latest if segment.start.seen else (*latest_packets, *segment.latest)[-REMEMBERED:]
    chain = SegmentChain(
        tuple(placed), began_ns, now_ns, min(earliest, default=None), max(latest, default=None), oddities,
    )  # fmt: skip
    return chain, reread


def _holds(segment: Segment, start: Start) -> bool:
    """Return whether reading the segment with ``start`` would give the same result."""
    if segment.start == start or segment.range_ns is None:
        return True
    if segment.start.raw_ns is not None:
        time_holds = segment.start.raw_ns == start.raw_ns
    else:
        raw_ns, began_ns = start.raw_ns, segment.began_ns
        time_holds = raw_ns is None or began_ns is None or raw_ns <= began_ns or _restarts(raw_ns, began_ns)
    if segment.start.seen:
        return time_holds and segment.start.seen == start.seen
    return time_holds and not _meet(start.seen, segment.earliest)


def _restarts(raw_ns: int, began_ns: int) -> bool:
    """Return whether a packet at ``began_ns`` restarts a clock that is at ``raw_ns``."""
    return began_ns < raw_ns - LATE_LIMIT_NS


def _meet(latest: Sequence[tuple[int, int]], earliest: Sequence[tuple[int, int]]) -> bool:
    """Return whether any of the unit's packets is a copy of a packet before the unit."""
    times: dict[int, list[int]] = {}
    for digest, time_ns in latest:
        times.setdefault(digest, []).append(time_ns)
    return any(
        abs(time_ns - earlier_ns) <= COPY_NS for digest, time_ns in earliest for earlier_ns in times.get(digest, ())
    )


def overlapping(segments: Sequence[Segment]) -> list[Unit] | None:
    """Return the units to read instead, if captures that are merged by time overlap; None if none overlap."""
    # First group the ranges of each capture, then the overlapping captures.
    files: list[list[Segment]] = []
    for segment in segments:
        before, unit = files[-1][-1].unit if files else None, segment.unit
        is_range = before is not None and before.inputs[0].range is not None and unit.inputs[0].range is not None
        if before is not None and is_range and (before.part, before.inputs[0].path) == (unit.part, unit.inputs[0].path):
            files[-1].append(segment)
        else:
            files.append([segment])
    groups: list[list[list[Segment]]] = []
    latest: int | None = None
    for file in files:
        times = [segment.range_ns for segment in file if segment.range_ns is not None]
        same_part = bool(groups) and groups[-1][0][0].unit.part == file[0].unit.part
        if not same_part:
            latest = None
        if same_part and times and latest is not None and times[0][0] < latest:
            groups[-1].append(file)
        else:
            groups.append([file])
        latest = max([*(end for _, end in times), *([] if latest is None else [latest])], default=None)
    if all(len(group) == 1 for group in groups):
        return None
    return [unit for group in groups for unit in _units_of(group)]


def _units_of(group: Sequence[Sequence[Segment]]) -> list[Unit]:
    if len(group) == 1:
        return [segment.unit for segment in group[0]]
    inputs = [replace(file[0].unit.inputs[0], range=None) for file in group]
    return [Unit(tuple(inputs), group[0][0].unit.part)]


SegmentReader = Callable[[Sequence[tuple[Unit, Start]]], Sequence[Segment]]


def read_all(units: Sequence[Unit], read: SegmentReader) -> SegmentChain:
    """Read the units, some of them repeatedly, until they form a chain. ``read`` reads several units in any order."""
    segment_of_unit: dict[Unit, Segment] = dict(zip(units, read([(unit, Start()) for unit in units]), strict=True))
    replacements = overlapping([segment_of_unit[unit] for unit in units])
    if replacements is not None:
        new = [unit for unit in replacements if unit not in segment_of_unit]
        segment_of_unit.update(zip(new, read([(unit, Start()) for unit in new]), strict=True))
        units = replacements
    segments = [segment_of_unit[unit] for unit in units]
    while True:
        chain, reread = chained(segments)
        if not reread:
            return chain
        # The first of these segments is correct after this round, and usually all of them are.
        for (number, _), segment in zip(
            reread, read([(segments[number].unit, start) for number, start in reread]), strict=True
        ):
            segments[number] = segment
