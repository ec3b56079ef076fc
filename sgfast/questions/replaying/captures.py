"""Read several captures as one, either one after another or merged by time."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sgfast.base.errors import CaptureError
from sgfast.base.evidence import EvidenceReason, UnreadFiles, level_of
from sgfast.base.names import listed, printable, without_credentials
from sgfast.base.signals import begin_judging, end_reading, unless_stopped
from sgfast.base.streams.urls import is_url
from sgfast.core.base.file_reads import FileReads
from sgfast.core.base.frames import FrameBatch
from sgfast.questions.replaying.capture_pairs import CapturePairs, Sampled, pairs_of, reasons_of, sample_of
from sgfast.questions.replaying.evidence import SOME_TUNNELS
from sgfast.questions.replaying.options import ReadOptions
from sgfast.questions.replaying.packet_selection import PacketSelection, are_copies
from sgfast.questions.replaying.results import count
from sgfast.questions.replaying.vpc_mapping import VpcMapping
from sgfast.traffic.capture import CaptureReader, Damage, open_capture
from sgfast.traffic.capture.directories import captures_in, first_time_ns, is_directory, size_of
from sgfast.traffic.capture.following import first_interrupt
from sgfast.traffic.capture.interfaces import InterfaceMarks
from sgfast.traffic.capture.merge import MergedReader
from sgfast.traffic.preprocess import TunnelKind
from sgfast.traffic.preprocess.capture_sample import CaptureSample
from sgfast.traffic.preprocess.decap import KINDS, MOST_TUNNELS, Decapsulation

if TYPE_CHECKING:
    from sgfast.traffic.flow_logs.traffic import LogTraffic


@runtime_checkable
class _WithTotal(Protocol):
    """Progress that takes the size of the flow logs, which is known only after they were listed."""

    def expect_records(self, total_bytes: int | None) -> None: ...


#: Names of tunnels in sentences.
_TUNNEL_NAMES = dict(
    zip(KINDS, ("VXLAN", "Geneve", "GRE", "IP-in-IP", "6in4", "ERSPAN", "GTP-U", "MPLS", "PPPoE"), strict=True)
)

#: Captures that are merged, each with the time of its first packet if known.
CapturePart = list[tuple[str, int | None]]


def parts_of(paths: Sequence[str], reading: ReadOptions) -> tuple[list[CapturePart], list[str], list[str]]:
    """Return the parts to read one after another, damaged files that are in none, and warnings. A directory or pattern
    is a part with all its captures.

    Raises CaptureError for files that cannot be read, as far as this can be known before reading (SPEC 10.5).
    """
    parts: list[CapturePart] = []
    damaged: list[str] = []
    warnings = []
    for number, path in enumerate(paths, 1):
        if is_directory(path):
            if reading.follow:
                raise CaptureError(f"{printable(path)}: is a directory; follow the growing file in it instead")
            found, unread, warning = captures_in(path)
            parts.append(found)
            damaged += unread
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
    return parts, damaged, warnings


class Captures:
    """Iterate over the batches of frames of all ``paths``, in order. A batch is valid until the next is requested, or
    with ``lasting`` as long as a reference to it exists.

    A directory means all captures in it, merged by time. ``parts``: the result of ``parts_of``, if the caller already
    has it. ``first_ns``: the time of the first packet of all captures, if other captures were read before.
    ``vpc_mapping``: assigns packets to VPCs. ``progress``: called with the numbers of packets and bytes read so far
    before the next batch is read. Packets that ``reading`` leaves out are not in the batches; ``selection`` counts
    them. Iteration ends where a capture is damaged; ``damage`` and ``warnings`` are complete then. ``reads``: file
    reads that other threads do, as for ``open_capture``. ``logs``: the flow logs to read in place of captures.
    ``on_rejected``: called with the batches of attempts that the cloud rejected, and the first record's time; None:
    they are among the others.

    Raises CaptureError for files that cannot be read, as far as this can be known before reading (SPEC 10.5).
    """

    def __init__(
        self, paths: Sequence[str], reading: ReadOptions, progress: Callable[[int, int], None] | None,
        first_ns: int | None = None, vpc_mapping: VpcMapping | None = None, lasting: bool = False,
        parts: Sequence[CapturePart] | None = None, reads: FileReads | None = None, logs: LogTraffic | None = None,
        on_rejected: Callable[[FrameBatch, int | None], None] | None = None,
    ) -> None:  # fmt: skip
        self._reading = reading
        self._progress = progress
        self._follow = reading.follow
        self.damage: Damage | None = None
        #: Whether an interrupt stopped the iteration.
        self.is_interrupted = False
        self.warnings: list[str] = []
        #: The flow logs that are read instead of captures; None for captures.
        self.logs = logs
        self._on_rejected = on_rejected
        if logs is not None:
            parts = []
            # The window leaves out records, not the packets that are made of them.
            self.selection = PacketSelection(replace(reading, start=None, end=None), None, looks=False)
        else:
            self.selection = PacketSelection(reading, first_ns)
        #: Captures that are not read to their end, each with the bytes read of it.
        self._unread: list[tuple[str, int]] = []
        if parts is None:
            parts, damaged, self.warnings = parts_of(paths, reading)
            self._unread = [(path, 0) for path in damaged]
        self._parts = parts
        self._lasting = lasting
        self._reads = reads
        self._vpc_mapping = vpc_mapping
        #: The captures opened so far, without credentials in URLs. ``Frame.position`` refers to their numbers, from 1
        #: on.
        self.files: list[str] = []
        #: ``Frame.vpc`` by path, if packets are mapped to VPCs.
        self._vpc_of: dict[str, int] = {}
        if vpc_mapping is not None:
            self._vpc_of = {path: vpc_mapping.of_file(path) for part in self._parts for path, _ in part}
        #: Captures that do not record interfaces although the policy needs them.
        self._without_interfaces: list[str] = []
        #: Number of captures to compare with each other, and their samples with path and part.
        self.compared = sum(map(len, self._parts))
        self._samples: list[tuple[str, int, CaptureSample]] = []
        self._part = 0
        marks = None if vpc_mapping is None else vpc_mapping.marks
        self._decapsulation = Decapsulation(reading.decap, marks) if reading.decap or marks is not None else None
        # Headers read in advance would match neither merged frames, which are copies, nor decapsulated ones.
        self._prepares = self._decapsulation is None and all(len(part) == 1 for part in self._parts)

    def _log_batches(self, logs: LogTraffic) -> Iterator[FrameBatch]:
        if isinstance(self._progress, _WithTotal):
            self._progress.expect_records(logs.total_bytes)
        more: bool | None = True
        while more:
            more = unless_stopped(logs.read)
            if self._progress is not None:
                self._progress(logs.logs.read, logs.logs.bytes_read)
            if self.selection.first_ns is None:
                self.selection.first_ns = logs.first_ns
            for batch, is_rejected in logs.batches(at_end=not more):
                if self._decapsulation is not None:
                    self._decapsulation.apply(batch)
                if not is_rejected:
                    yield batch
                elif self._on_rejected is not None:
                    self.selection.apply(batch)
                    self._on_rejected(batch, self.selection.first_ns)
        self.files = logs.logs.files
        self.warnings += logs.warnings

    def __iter__(self) -> Iterator[FrameBatch]:
        for batch in self.batches() if self.logs is None else self._log_batches(self.logs):
            self.selection.apply(batch)
            if len(batch):
                begin_judging()
                yield batch
        self.is_interrupted = end_reading()

    def batches(self) -> Iterator[FrameBatch]:
        """Yield all frames, including those that will be left out."""
        packets_before = bytes_before = 0
        with ExitStack() as stack:
            until = stack.enter_context(first_interrupt()) if self._follow else None
            for number, part in enumerate(self._parts, 1):
                is_last = number == len(self._parts)
                self._part = number
                reader = unless_stopped(self._opened, part, until if is_last else None)
                if reader is None:
                    return
                with reader:
                    while (batch := unless_stopped(reader.next_batch)) is not None:
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
                        self._end(reader.damage, reader, number)
                        return

    def _end(self, damage: Damage, reader: CaptureReader | MergedReader, number: int) -> None:
        """Take note of damage in the part of this number, and of what is not read because of it."""
        self.damage = damage
        unread = list(reader.unread) if isinstance(reader, MergedReader) else []
        unread += [(path, 0) for later in self._parts[number:] for path, _ in later]
        if unread:
            names = listed([path for path, _ in unread])
            self.warnings.append(f"not read, because a capture before is damaged: {names}")
        self._unread += [(damage.file, reader.bytes_read if damage.decompressed else damage.offset), *unread]

    def _opened(
        self, part: list[tuple[str, int | None]], until: Callable[[], bool] | None
    ) -> CaptureReader | MergedReader:
        return self._open(part[0][0], until) if len(part) == 1 else MergedReader(part, self._open, self._lasting)

    def _open(self, path: str, until: Callable[[], bool] | None = None) -> CaptureReader:
        vpc_mapping = self._vpc_mapping
        vpc = 0 if vpc_mapping is None else self._vpc_of[path]
        interfaces = None if vpc_mapping is None else vpc_mapping.interfaces
        reader = self.open_one(path, until, vpc, interfaces)
        self.files.append(without_credentials(path))
        reader.number = len(self.files)
        if self.compared > 1:
            reader.sample = sample = sample_of(self.compared)
            self._samples.append((self.files[-1], self._part, sample))
        if vpc_mapping is not None and vpc_mapping.needs_interfaces and not vpc and reader.format != "pcapng":
            self._without_interfaces.append(without_credentials(path))
        return reader

    def open_one(
        self, path: str, until: Callable[[], bool] | None, vpc: int, interfaces: InterfaceMarks | None
    ) -> CaptureReader:
        return open_capture(
            path, until=until, vpc=vpc, interfaces=interfaces, lasting=self._lasting, reads=self._reads,
            prepares=self._prepares,
        )  # fmt: skip

    @property
    def decapsulated(self) -> dict[TunnelKind, int] | None:
        """The number of tunnel headers removed so far, by kind; None if the options remove none."""
        return self._decapsulation.counts if self._decapsulation is not None and self._reading.decap else None

    @property
    def sampled(self) -> tuple[Sampled, ...]:
        return tuple(Sampled.of(*each) for each in self._samples if each[-1].packets)

    @property
    def unread(self) -> UnreadFiles:
        if not self._unread:
            return UnreadFiles()
        names = {path for path, _ in self._unread}
        others = [path for part in self._parts for path, _ in part if path not in names]
        return UnreadFiles.of(((size_of(path), read) for path, read in self._unread), map(size_of, others))

    @property
    def noticed(self) -> Noticed:
        looked_at, copies = self.selection.copies_seen
        too_deep = 0 if self._decapsulation is None else self._decapsulation.too_deep
        sample = self.selection.tunnels
        return Noticed(
            looked_at, copies, tuple(self._without_interfaces), too_deep,
            sample.looked_at, tuple(sample.counts.items()), tuple(self._reading.decap), unread=self.unread,
        )  # fmt: skip

    @property
    def noticed_by_comparing(self) -> Noticed:
        """Everything noticed, with what captures have in common. Complete when all of them are read."""
        return replace(self.noticed, pairs=pairs_of(self.sampled, dedup=self._reading.dedup))

    def warn(self, warnings: list[str]) -> None:
        """Add warnings about unusual packets."""
        self.noticed.warn(warnings)


@dataclass(frozen=True, slots=True)
class Noticed:
    """Unusual properties of packets that are no errors."""

    #: The number of packets checked for copies, if copies are not left out, and the number of copies among them.
    looked_at: int = 0
    copies: int = 0
    #: Captures that do not record interfaces although the policy needs them.
    without_interfaces: tuple[str, ...] = ()
    #: The number of packets in more nested tunnels than can be removed.
    too_deep: int = 0
    #: Packets looked at for tunnels, and those of them in tunnels that are not removed, by kind.
    sampled: int = 0
    in_tunnels: tuple[tuple[str, int], ...] = ()
    #: Kinds of tunnels that are removed.
    removed: tuple[str, ...] = ()
    #: Empty until all captures can be compared with each other; not added.
    pairs: CapturePairs = field(default_factory=CapturePairs)
    unread: UnreadFiles = field(default_factory=UnreadFiles)

    def __add__(self, other: Noticed) -> Noticed:
        both = dict.fromkeys((*self.without_interfaces, *other.without_interfaces))
        in_tunnels = Counter(dict(self.in_tunnels)) + Counter(dict(other.in_tunnels))
        return Noticed(
            self.looked_at + other.looked_at, self.copies + other.copies, tuple(both), self.too_deep + other.too_deep,
            self.sampled + other.sampled, tuple(in_tunnels.items()), other.removed, unread=self.unread + other.unread,
        )  # fmt: skip

    def reasons(self) -> tuple[EvidenceReason, ...]:
        """Return the reasons that they are for doubting an answer (SPEC 10.27)."""
        found = [*self.unread.reasons("capture"), *reasons_of(self.pairs)]
        if are_copies(self.looked_at, self.copies) and not self.pairs.common:
            share = self.copies / self.looked_at
            sentence = f"{self.copies:,} of {self.looked_at:,} packets checked are copies of earlier ones"
            found.append(EvidenceReason("duplicates", "partly", self.copies, share, sentence, "--dedup"))
        found += self._tunnel_reasons()
        return tuple(found)

    def _tunnel_reasons(self) -> list[EvidenceReason]:
        counts = Counter(dict(self.in_tunnels))
        packets = sum(counts.values())
        share = packets / max(self.sampled, 1)
        if share < SOME_TUNNELS:
            return []
        kinds = sorted(filter(counts.get, KINDS), key=lambda kind: -counts[kind])
        tunnels = f"{' or '.join(_TUNNEL_NAMES[kind] for kind in kinds)} tunnels"
        sentence = f"{100 * share:.0f} % of the packets are in {tunnels}: these were judged, not the packets inside"
        command = f"--decap {','.join((*self.removed, *kinds))}"
        return [EvidenceReason("tunnels", level_of(share), packets, share, sentence, command)]

    def warn(self, warnings: list[str]) -> None:
        if self.without_interfaces:
            first, others = self.without_interfaces[0], len(self.without_interfaces) - 1
            more = f" and {count(others, 'more capture')}" if others else ""
            warnings.append(
                f"{printable(first)}{more}: no record of the interfaces by which the policy maps packets to VPCs; only "
                "pcapng has one"
            )
        if self.too_deep:
            warnings.append(
                f"{count(self.too_deep, 'packet')} in more than {MOST_TUNNELS} tunnels: only the outer {MOST_TUNNELS} "
                "were removed"
            )


def are_files(paths: Sequence[str], reading: ReadOptions) -> bool:
    """Return whether all captures are complete files, unlike pipes, URLs and files that are followed."""
    return not reading.follow and all(map(_is_there, paths))


def _is_there(path: str) -> bool:
    if is_url(path):
        return False
    try:
        kind = (os.fstat(0) if path == "-" else os.stat(path)).st_mode
    except (OSError, ValueError):
        return True     # a pattern, or a path that cannot be opened later
    return stat.S_ISREG(kind) or stat.S_ISDIR(kind)


def can_be_tried(path: str) -> bool:
    """Return whether a capture can be opened for inspection without losing data, unlike a pipe or device."""
    if path == "-":
        return False
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError):
        return True
    once = stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or stat.S_ISBLK(kind)
    return not (once and os.access(path, os.R_OK))
