"""Several captures, read as one: one after the other, or merged by time."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from sgfast.capture import CaptureReader, Damage, open_capture
from sgfast.capture.directories import captures_in, first_time_ns, is_directory, listed
from sgfast.capture.following import first_interrupt
from sgfast.capture.interfaces import InterfaceMarks
from sgfast.capture.merge import MergedReader
from sgfast.capture.names import printable
from sgfast.core.base.frames import FrameBatch
from sgfast.errors import CaptureError
from sgfast.preprocess.decap import MOST_TUNNELS, Decapsulation
from sgfast.replaying.cutting import Cutting, warn_of_copies
from sgfast.replaying.options import Reading
from sgfast.replaying.placement import Placement
from sgfast.replaying.results import count

#: Captures that are merged, and where it is known when they begin.
Part = list[tuple[str, int | None]]


def parts_of(paths: Sequence[str], reading: Reading) -> tuple[list[Part], list[str]]:
    """What is read one after the other, and warnings. A directory, or a pattern, stands for its captures, by time.

    CaptureError: what is wrong with a file is told before anything is read (SPEC 10.5), as far as it can be known.
    """
    parts: list[Part] = []
    warnings = []
    for number, path in enumerate(paths, 1):
        if is_directory(path):
            if reading.follow:
                raise CaptureError(f"{printable(path)}: is a directory; follow the file in it that grows")
            found, warning = captures_in(path)
            parts.append(found)
            warnings += [warning] if warning is not None else []
            continue
        begins_ns = None
        if can_be_tried(path) and not (reading.follow and number == len(paths)):
            if reading.merge:
                begins_ns = first_time_ns(path)
            else:
                open_capture(path).close()
        parts.append([(path, begins_ns)])
    if reading.merge:
        parts = [[capture for part in parts for capture in part]]
    return parts, warnings


class Captures:
    """Iterating yields the batches of frames of all ``paths``, in order, each good until the next is asked for.

    A directory stands for the captures in it, merged by time; ``parts``: what ``parts_of`` said of them, if that was
    asked. What ``reading`` wants to leave out is not in the batches; ``cutting`` knows how much it was. ``first_ns``:
    time of the first packet of all captures, where others came before these. ``placement`` says which VPC each packet
    belongs to. ``progress`` is called with (packets, bytes read) so far before the next batch is read. Damage part way
    ends it there, and is in ``damage`` then; ``warnings`` is complete at the end, too.

    Raises CaptureError: what is wrong with a file is told before anything is read (SPEC 10.5), as far as it can be
    known.
    """

    def __init__(
        self, paths: Sequence[str], reading: Reading, progress: Callable[[int, int], None] | None,
        first_ns: int | None = None, placement: Placement | None = None, two_batches: bool = False,
        parts: Sequence[Part] | None = None,
    ) -> None:  # fmt: skip
        self._reading = reading
        self._progress = progress
        self._follow = reading.follow
        self.damage: Damage | None = None
        self.cutting = Cutting(reading, first_ns)
        self.warnings: list[str] = []
        if parts is None:
            parts, self.warnings = parts_of(paths, reading)
        self._parts = parts
        #: If it was wanted, and captures are not merged: each batch is good until the next but one is asked for; and
        #: some may be empty, so that nobody misses that one was asked for.
        self.two_batches = two_batches and all(len(part) == 1 for part in self._parts)
        self._placement = placement
        #: ``Frame.vpc`` by path, where packets are of VPCs.
        self._vpc_of: dict[str, int] = {}
        if placement is not None:
            self._vpc_of = {path: placement.of_file(path) for part in self._parts for path, _ in part}
        #: Captures that do not say on which interface packets came in, though that is wanted.
        self._without_interfaces: list[str] = []
        marks = None if placement is None else placement.marks
        self._decapsulation = Decapsulation(reading.decap, marks) if reading.decap or marks is not None else None

    def __iter__(self) -> Iterator[FrameBatch]:
        for batch in self.batches():
            self.cutting.apply(batch)
            if len(batch) or self.two_batches:
                yield batch

    def batches(self) -> Iterator[FrameBatch]:
        """All frames, before any are left out."""
        packets_before = bytes_before = 0
        with ExitStack() as stack:
            until = stack.enter_context(first_interrupt()) if self._follow else None
            for number, part in enumerate(self._parts, 1):
                is_last = number == len(self._parts)
                with self._opened(part, until if is_last else None) as reader:
                    while (batch := reader.next_batch()) is not None:
                        if self._decapsulation is not None:
                            self._decapsulation.apply(batch)
                        yield batch
                        if self._progress is not None:
                            self._progress(packets_before + reader.packets, bytes_before + reader.bytes_read)
                        if until is not None and until() and not is_last:
                            return
                    packets_before += reader.packets
                    bytes_before += reader.bytes_read
                    self.warnings += reader.remarks
                    if reader.damage is not None:
                        self.damage = reader.damage
                        left = list(reader.unread) if isinstance(reader, MergedReader) else []
                        left += [path for later in self._parts[number:] for path, _ in later]
                        if left:
                            self.warnings.append(f"not read further, as a capture is damaged: {listed(left)}")
                        return

    def _opened(
        self, part: list[tuple[str, int | None]], until: Callable[[], bool] | None
    ) -> CaptureReader | MergedReader:
        return self._open(part[0][0], until) if len(part) == 1 else MergedReader(part, self._open)

    def _open(self, path: str, until: Callable[[], bool] | None = None) -> CaptureReader:
        placement = self._placement
        vpc = 0 if placement is None else self._vpc_of[path]
        interfaces = None if placement is None else placement.interfaces
        reader = self.open_one(path, until, vpc, interfaces)
        if placement is not None and placement.needs_interfaces and not vpc and reader.format != "pcapng":
            self._without_interfaces.append(path)
        return reader

    def open_one(
        self, path: str, until: Callable[[], bool] | None, vpc: int, interfaces: InterfaceMarks | None
    ) -> CaptureReader:
        return open_capture(path, until=until, vpc=vpc, interfaces=interfaces, two_batches=self.two_batches)

    @property
    def decapsulated(self) -> dict[str, int] | None:
        """How many tunnels of each kind were taken off so far; None if none are to be."""
        return self._decapsulation.counts if self._decapsulation is not None and self._reading.decap else None

    @property
    def noticed(self) -> Noticed:
        looked_at, copies = self.cutting.copies_seen
        too_deep = 0 if self._decapsulation is None else self._decapsulation.too_deep
        return Noticed(looked_at, copies, tuple(self._without_interfaces), too_deep)

    def warn(self, warnings: list[str]) -> None:
        """What of the reading one should know that is no error."""
        self.noticed.warn(warnings, self._reading, self._placement)


@dataclass(frozen=True, slots=True)
class Noticed:
    """What is odd about packets, though no error."""

    #: Packets looked at for copies, where nobody wants these left out, and copies among them.
    looked_at: int = 0
    copies: int = 0
    #: Captures that do not say on which interfaces packets came in, where that is wanted.
    without_interfaces: tuple[str, ...] = ()
    #: Packets in more tunnels than are taken off.
    too_deep: int = 0

    def __add__(self, other: Noticed) -> Noticed:
        both = dict.fromkeys((*self.without_interfaces, *other.without_interfaces))
        return Noticed(
            self.looked_at + other.looked_at, self.copies + other.copies, tuple(both), self.too_deep + other.too_deep
        )

    def warn(self, warnings: list[str], reading: Reading, placement: Placement | None) -> None:
        warn_of_copies(warnings, self.looked_at, self.copies)
        keeps_vnis = {"vxlan", "geneve"}.isdisjoint(reading.decap)
        if placement is not None and placement.wants_vnis and keeps_vnis:
            warnings.append("the policy says which VPC a VNI is of, but tunnels stay on: take them off (--decap)")
        if self.without_interfaces:
            first, others = self.without_interfaces[0], len(self.without_interfaces) - 1
            more = f" (nor {count(others, 'more capture')})" if others else ""
            warnings.append(
                f"{printable(first)}: does not say on which interfaces packets came in{more}, which is how the policy "
                "knows their VPC: only pcapng does"
            )
        if self.too_deep:
            warnings.append(
                f"{count(self.too_deep, 'packet')} in more than {MOST_TUNNELS} tunnels: what is in the "
                f"innermost of the first {MOST_TUNNELS} was judged"
            )


def can_be_tried(path: str) -> bool:
    """Whether opening a capture takes nothing from who opens it next, as it would from a pipe, or just fails."""
    if path == "-":
        return False
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError):
        return True
    once = stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or stat.S_ISBLK(kind)
    return not (once and os.access(path, os.R_OK))
