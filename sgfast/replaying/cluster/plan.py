"""The plan of a clustered replay: its inputs, and the values that all its tasks share."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sgfast.capture.urls import is_url, url_identity
from sgfast.errors import ClusterError
from sgfast.policy.model import Policy
from sgfast.replaying.captures import CapturePart
from sgfast.replaying.cluster.partition import RECORD_FORMAT
from sgfast.replaying.options import MOST_SHARDS, ReplayOptions
from sgfast.system.names import without_credentials
from sgfast.version import __version__

#: A large capture that is not compressed is read in ranges of about this many bytes.
RANGE_BYTES = 1024 * 1024 * 1024
#: The size of the records that a reading task buffers. It lets each of USUAL_SHARDS shards write large blocks.
BUFFERED_BYTES = 256 * 1024 * 1024
#: The bytes of captures for each shard. A shard's memory depends on its connections, and so on its packets.
SHARD_BYTES = 1024**3
#: The most shards chosen by size, because the client keeps data on each segment of each shard.
USUAL_SHARDS = 512


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a capture that begins and ends with a record, in bytes."""

    start: int
    #: None: up to the end of the capture, which may be damaged.
    end: int | None
    #: The bytes to be read before it, which describe how to read its records (``CaptureReader.preamble``).
    preamble: tuple[tuple[int, int], ...]
    #: The number of packets before it in the capture.
    packets: int


@dataclass(frozen=True, slots=True)
class Input:
    """A capture, or a range of one."""

    path: str
    #: Its absolute path or URL.
    place: str
    begins_ns: int | None
    #: The size in bytes; None: not known.
    size: int | None
    #: A value that changes when the capture does.
    mark: str
    range: Range | None = None

    def renamed(self, rename: Callable[[str], str]) -> Input:
        """The input with other names, if they are URLs."""
        path, place = (rename(name) if is_url(name) else name for name in (self.path, self.place))
        return replace(self, path=path, place=place)


@dataclass(frozen=True, slots=True)
class Unit:
    """Input of one task: a capture, a range of one, or captures that are merged because their times overlap."""

    inputs: tuple[Input, ...]
    #: The number of its part (``captures.parts_of``), whose captures are read in the order of time.
    part: int

    @property
    def name(self) -> str:
        first = self.inputs[0]
        base = os.path.basename(without_credentials(first.path).rstrip("/"))
        where = f"@{first.range.start}" if first.range is not None else ""
        return base + where + (f"+{len(self.inputs) - 1}" if len(self.inputs) > 1 else "")

    @property
    def size(self) -> int:
        return sum(
            (entry.size or 0) if entry.range is None else (entry.range.end or entry.size or 0) - entry.range.start
            for entry in self.inputs
        )

    def renamed(self, rename: Callable[[str], str]) -> Unit:
        """Rename the inputs, each as ``Input.renamed`` does."""
        return replace(self, inputs=tuple(entry.renamed(rename) for entry in self.inputs))


@dataclass(frozen=True, slots=True)
class Start:
    """State left by the packets before a unit's. At first it is assumed that there are none; see ``chain``."""

    #: The timestamp that the clock is at (SPEC 9.1); None: no packet came before.
    raw_ns: int | None = None
    #: ``Dedup.latest``.
    seen: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Values that all tasks of a replay need."""

    folder: str
    version: str
    policy: Policy
    #: The options, without those that only the client needs: the cluster, the folder, changes.
    options: ReplayOptions
    shards: int
    #: The seed of the hash that assigns addresses to shards, and of the one that finds copies of packets.
    seed: int
    #: The time of the first packet of all, from which times in ``options.reading`` count; None: there is no packet.
    first_ns: int | None
    #: Number of captures.
    captures: int = 1

    @property
    def is_mapped(self) -> bool:
        return self.options.is_mapped(self.policy)

    @property
    def dedup_key(self) -> list[int]:
        # With a weak key, such as zeros, packets that differ would be taken for copies.
        return list(struct.unpack("<4Q", hashlib.blake2b(self.seed.to_bytes(8), digest_size=32).digest()))

    @property
    def block_bytes(self) -> int:
        return max(16 * 1024, min(1024 * 1024, BUFFERED_BYTES // self.shards))


def version_here() -> str:
    return f"{__version__}/{RECORD_FORMAT}"


def check_version(run: Run) -> None:
    """Raise ClusterError on a worker with another version than the client's: its records or verdicts might differ."""
    if run.version != version_here():
        raise ClusterError(
            f"a worker has sgfast {version_here().split('/')[0]}, the replay {run.version.split('/')[0]}: "
            "install the same version everywhere"
        )


def units_of(parts: Sequence[CapturePart]) -> list[Unit]:
    """One unit for each capture."""
    return [
        Unit((Input(path, place_of(path), begins_ns, *identity_of(path)),), number)
        for number, part in enumerate(parts)
        for path, begins_ns in part
    ]


def place_of(path: str) -> str:
    """The path in a form that does not depend on the working directory."""
    return path if is_url(path) else os.path.abspath(path)


def identity_of(path: str) -> tuple[int | None, str]:
    """The size and the mark of an ``Input``."""
    if is_url(path):
        return url_identity(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None, ""     # opening it will raise the right error
    return status.st_size, str(status.st_mtime_ns)


def shards_for(units: Sequence[Unit], threads: int) -> int:
    """The number of shards: enough to keep all threads busy, and to make no shard too large."""
    nbytes = sum(unit.size for unit in units)
    return min(MOST_SHARDS, max(2 * threads, min(USUAL_SHARDS, -(-nbytes // SHARD_BYTES))))
