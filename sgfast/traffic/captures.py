"""Read several captures as one, either one after another or merged by time."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from sgfast.base.errors import CaptureError
from sgfast.base.evidence import UnreadFiles
from sgfast.base.names import listed, printable, without_credentials
from sgfast.base.signals import unless_stopped
from sgfast.base.streams.urls import is_url
from sgfast.core.base.file_reads import FileReads
from sgfast.core.base.frames import FrameBatch
from sgfast.traffic.capture import CaptureReader, Damage, open_capture
from sgfast.traffic.capture.directories import captures_in, first_time_ns, is_directory, size_of
from sgfast.traffic.capture.following import first_interrupt
from sgfast.traffic.capture.interfaces import InterfaceMarks
from sgfast.traffic.capture.merge import MergedReader
from sgfast.traffic.capture_pairs import Sampled, pairs_of, sample_of
from sgfast.traffic.packet_selection import PacketSelection
from sgfast.traffic.preprocess.capture_sample import CaptureSample
from sgfast.traffic.read_options import ReadOptions
from sgfast.traffic.source import Noticed, Progress, TrafficSource
from sgfast.traffic.vpc_mapping import VpcMapping

if TYPE_CHECKING:
    pass


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
            capture_part, unread, warning = captures_in(path)
            parts.append(capture_part)
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


class Captures(TrafficSource):
    """The frames of all captures of ``paths``, in order.

    A directory means all captures in it, merged by time. ``parts``: the result of ``parts_of``, if the caller already
    has it. ``first_ns``: the time of the first packet of all captures, if other captures were read before.
    ``lasting``: whether a batch is valid as long as a reference to it exists. ``reads``: file reads that other threads
    do, as for ``open_capture``. Iteration ends where a capture is damaged.

    Raises CaptureError for files that cannot be read, as far as this can be known before reading (SPEC 10.5).
    """

    def __init__(
        self, paths: Sequence[str], reading: ReadOptions, progress: Progress | None, first_ns: int | None = None,
        vpc_mapping: VpcMapping | None = None, lasting: bool = False, parts: Sequence[CapturePart] | None = None,
        reads: FileReads | None = None,
    ) -> None:  # fmt: skip
        super().__init__(reading, PacketSelection(reading, first_ns), vpc_mapping, progress)
        self._follow = reading.follow
        #: Captures that are not read to their end, each with the bytes read of it.
        self._unread: list[tuple[str, int]] = []
        if parts is None:
            parts, damaged, warnings = parts_of(paths, reading)
            self.warnings += warnings
            self._unread = [(path, 0) for path in damaged]
        self._parts = parts
        self._lasting = lasting
        self._reads = reads
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
        # Headers read in advance would match neither merged frames, which are copies, nor decapsulated ones.
        self._prepares = self._decapsulation is None and all(len(part) == 1 for part in self._parts)

    def batches(self) -> Iterator[FrameBatch]:
        """Yield all frames, including those that will be left out."""
        packets_before = bytes_before = 0
        with ExitStack() as stack:
            is_interrupted = stack.enter_context(first_interrupt()) if self._follow else None
            for number, part in enumerate(self._parts, 1):
                is_last = number == len(self._parts)
                self._part = number
                reader = unless_stopped(self._opened, part, is_interrupted if is_last else None)
                if reader is None:
                    return
                with reader:
                    while (batch := unless_stopped(reader.next_batch)) is not None:
                        if self._decapsulation is not None:
                            self._decapsulation.apply(batch)
                        yield batch
                        if self._progress is not None:
                            self._progress(packets_before + reader.packets, bytes_before + reader.bytes_read)
                        if is_interrupted is not None and is_interrupted() and not is_last:
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
        self, part: list[tuple[str, int | None]], is_interrupted: Callable[[], bool] | None
    ) -> CaptureReader | MergedReader:
        if len(part) > 1:
            return MergedReader(part, self._open, self._lasting)
        return self._open(part[0][0], is_interrupted)

    def _open(self, path: str, is_interrupted: Callable[[], bool] | None = None) -> CaptureReader:
        vpc_mapping = self._vpc_mapping
        vpc = 0 if vpc_mapping is None else self._vpc_of[path]
        interfaces = None if vpc_mapping is None else vpc_mapping.interfaces
        reader = self.open_one(path, is_interrupted, vpc, interfaces)
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
    def sampled(self) -> tuple[Sampled, ...]:
        return tuple(Sampled.of(*sample) for sample in self._samples if sample[-1].packets)

    @property
    def unread(self) -> UnreadFiles:
        if not self._unread:
            return UnreadFiles()
        names = {path for path, _ in self._unread}
        waiting_files = [path for part in self._parts for path, _ in part if path not in names]
        return UnreadFiles.of(((size_of(path), read) for path, read in self._unread), map(size_of, waiting_files))

    @property
    def noticed(self) -> Noticed:
        return replace(super().noticed, without_interfaces=tuple(self._without_interfaces), unread=self.unread)

    @property
    def noticed_by_comparing(self) -> Noticed:
        return replace(self.noticed, pairs=pairs_of(self.sampled, dedup=self._reading.dedup))


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
