"""The plan of a clustered replay: its inputs, and the values that its tasks share."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sgfast.base.errors import ClusterError
from sgfast.base.names import without_credentials
from sgfast.base.streams.urls import is_url, url_identity
from sgfast.policy.model import Policy
from sgfast.questions.replaying.cluster.partition import RECORD_FORMAT
from sgfast.questions.replaying.options import MOST_SHARDS, ReplayOptions
from sgfast.traffic.captures import CapturePart
from sgfast.version import __version__

#: The size of the ranges, in bytes, in which a large uncompressed capture is read.
RANGE_BYTES = 1024 * 1024 * 1024
#: The bytes of records that a reading task buffers, so that it writes large blocks for each of USUAL_SHARDS shards.
BUFFERED_BYTES = 256 * 1024 * 1024
#: The bytes of captures for each shard. A shard needs memory for its connections, whose number grows with its packets.
SHARD_BYTES = 1024**3
#: The maximum number of shards chosen by size. It is limited because the client keeps data on each shard of a segment.
USUAL_SHARDS = 512


@dataclass(frozen=True, slots=True)
class Range:
    """A range of bytes of a capture that begins and ends with a complete record."""

    start: int
    #: The end; None is the end of the capture, which may be damaged.
    end: int | None
    #: The ranges of bytes to read before it, which describe how to read its records (``CaptureReader.preamble``).
    preamble: tuple[tuple[int, int], ...]
    #: The number of packets in the capture before this range.
    packets: int


@dataclass(frozen=True, slots=True)
class Input:
    """A capture, or a range of a capture."""

    path: str
    #: The capture's absolute path or URL.
    place: str
    begins_ns: int | None
    #: The size in bytes; None if unknown.
    size: int | None
    #: A value that changes whenever the capture changes.
    mark: str
    range: Range | None = None

    def renamed(self, rename: Callable[[str], str]) -> Input:
        """Return the input with path and place passed through ``rename``, if they are URLs."""
        path, place = (rename(name) if is_url(name) else name for name in (self.path, self.place))
        return replace(self, path=path, place=place)


@dataclass(frozen=True, slots=True)
class Unit:
    """Input of one task: a capture, a range of a capture, or captures that are merged because their times overlap."""

    inputs: tuple[Input, ...]
    #: The number of the unit's part (``captures.parts_of``). Captures of a part are read in order of time.
    part: int

    @property
    def name(self) -> str:
        first = self.inputs[0]
        base = os.path.basename(without_credentials(first.path).rstrip("/"))
        position = f"@{first.range.start}" if first.range is not None else ""
        return base + position + (f"+{len(self.inputs) - 1}" if len(self.inputs) > 1 else "")

    @property
    def size(self) -> int:
        return sum(
            (entry.size or 0) if entry.range is None else (entry.range.end or entry.size or 0) - entry.range.start
            for entry in self.inputs
        )

    def renamed(self, rename: Callable[[str], str]) -> Unit:
        """Return the unit with its inputs renamed by ``Input.renamed``."""
        return replace(self, inputs=tuple(entry.renamed(rename) for entry in self.inputs))


@dataclass(frozen=True, slots=True)
class Start:
    """State left by the packets before a unit. The first reading assumes that there are none; see ``chain``."""

    #: The clock's timestamp (SPEC 9.1); None if there was no packet before.
    raw_ns: int | None = None
    #: The state ``Dedup.latest``, of packets whose copies are left out.
    seen: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Values that all tasks of a replay share."""

    folder: str
    version: str
    policy: Policy
    #: The options, without those that only the client uses: the cluster, the folder, the changes.
    options: ReplayOptions
    shards: int
    #: The seed of the hash that assigns addresses to shards, and of the hash that finds copies of packets.
    seed: int
    #: The time of the first packet, from which times in ``options.reading`` are measured; None without packets.
    first_ns: int | None
    #: Number of captures.
    captures: int = 1

    @property
    def is_mapped(self) -> bool:
        return self.options.is_mapped(self.policy)

    @property
    def dedup_key(self) -> list[int]:
        # A weak key, such as zeros, would make different packets look like copies.
        return list(struct.unpack("<4Q", hashlib.blake2b(self.seed.to_bytes(8), digest_size=32).digest()))

    @property
    def block_bytes(self) -> int:
        return max(16 * 1024, min(1024 * 1024, BUFFERED_BYTES // self.shards))


def version_here() -> str:
    return f"{__version__}/{RECORD_FORMAT}"


def check_version(run: Run) -> None:
    """Raise ClusterError on a worker with another version than the client's, whose records or verdicts might differ."""
    if run.version != version_here():
        raise ClusterError(
            f"a worker has sgfast {version_here().split('/')[0]}, the replay {run.version.split('/')[0]}: "
            "install the same version everywhere"
        )


def units_of(parts: Sequence[CapturePart]) -> list[Unit]:
    """Return one unit for each capture."""
    return [
        Unit((Input(path, place_of(path), begins_ns, *identity_of(path)),), number)
        for number, part in enumerate(parts)
        for path, begins_ns in part
    ]


def place_of(path: str) -> str:
    """Return the path in a form that does not depend on the working directory."""
    return path if is_url(path) else os.path.abspath(path)


def identity_of(path: str) -> tuple[int | None, str]:
    """Return the size and the mark of an ``Input``."""
    if is_url(path):
        return url_identity(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None, ""     # the error is raised when the capture is opened
    return status.st_size, str(status.st_mtime_ns)


def shards_for(units: Sequence[Unit], threads: int) -> int:
    """Return the number of shards: enough to keep all threads busy and every shard small."""
    nbytes = sum(unit.size for unit in units)
    return min(MOST_SHARDS, max(2 * threads, min(USUAL_SHARDS, -(-nbytes // SHARD_BYTES))))
