"""What a clustered replay reads, and what all its tasks know."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from sgfast.capture.urls import is_url, url_identity
from sgfast.core.shards.partition import RECORD_FORMAT
from sgfast.errors import ClusterError
from sgfast.policy.model import Policy
from sgfast.replaying.captures import Part
from sgfast.replaying.options import MOST_SHARDS, ReplayOptions
from sgfast.version import __version__

#: A capture that is larger, and not compressed, is read in ranges of about this many bytes.
RANGE_BYTES = 1024 * 1024 * 1024
#: Of records that wait in a reading task's memory until they are written: with the most usual shards, most of what each
#: has of a capture is written at once.
BUFFERED_BYTES = 256 * 1024 * 1024
#: Of captures that one shard is for. What a shard takes in memory follows its connections, and so its packets.
SHARD_BYTES = 1024**3
#: As many as follow from sizes: what is known of each segment of each shard is kept here.
USUAL_SHARDS = 512


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a capture that begins and ends with a record, in bytes."""

    start: int
    #: None: the rest, which may be damaged.
    end: int | None
    #: What is read before it: the bytes that say how its records are to be read (``CaptureReader.preamble``).
    preamble: tuple[tuple[int, int], ...]
    #: Packets of the capture before it.
    packets: int


@dataclass(frozen=True, slots=True)
class Input:
    """A capture, or a range of one."""

    path: str
    #: Where it is, wherever the one who looks for it stands.
    place: str
    begins_ns: int | None
    #: Bytes; None: not known.
    size: int | None
    #: What changes when the capture does.
    mark: str
    range: Range | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """What one task reads: a capture, a range of one, or captures that are merged as their times overlap."""

    inputs: tuple[Input, ...]
    #: Captures of one part, a directory's, are in the order of time.
    part: int

    @property
    def name(self) -> str:
        first = self.inputs[0]
        base = os.path.basename(first.path.rstrip("/"))
        where = f"@{first.range.start}" if first.range is not None else ""
        return base + where + (f"+{len(self.inputs) - 1}" if len(self.inputs) > 1 else "")

    @property
    def size(self) -> int:
        return sum(
            (entry.size or 0) if entry.range is None else (entry.range.end or entry.size or 0) - entry.range.start
            for entry in self.inputs
        )


@dataclass(frozen=True, slots=True)
class Start:
    """What a unit's packets come after. It is read as if it were the first, and again if that makes a difference."""

    #: The clock's own time (SPEC 9.1); None: none came before.
    raw_ns: int | None = None
    #: ``Dedup.latest``.
    seen: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What all tasks of a replay know."""

    folder: str
    version: str
    policy: Policy
    #: But for those of the client alone: the cluster, the folder, changes.
    options: ReplayOptions
    shards: int
    #: Of the hash that says which shard addresses belong to, and of the one that tells copies of packets.
    seed: int
    #: Time of the first packet of all, which seconds of ``options.reading`` count from; None: there is none.
    first_ns: int | None

    @property
    def is_mapped(self) -> bool:
        return self.options.is_mapped(self.policy)

    @property
    def dedup_key(self) -> list[int]:
        return [self.seed * n & (1 << 64) - 1 for n in (3, 5, 7, 9)]

    @property
    def block_bytes(self) -> int:
        return max(16 * 1024, min(1024 * 1024, BUFFERED_BYTES // self.shards))


def version_here() -> str:
    return f"{__version__}/{RECORD_FORMAT}"


def check_version(run: Run) -> None:
    """ClusterError on a worker that has another version than who asks: its records, or verdicts, may differ."""
    if run.version != version_here():
        raise ClusterError(
            f"a worker has sgfast {version_here().split('/')[0]}, the replay {run.version.split('/')[0]}: "
            "install the same everywhere"
        )


def units_of(parts: Sequence[Part]) -> list[Unit]:
    """One for each capture."""
    return [
        Unit((Input(path, place_of(path), begins_ns, *identity_of(path)),), number)
        for number, part in enumerate(parts)
        for path, begins_ns in part
    ]


def place_of(path: str) -> str:
    """A path that means the same from everywhere."""
    return path if is_url(path) else os.path.abspath(path)


def identity_of(path: str) -> tuple[int | None, str]:
    """Size and mark of an ``Input``."""
    if is_url(path):
        return url_identity(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None, ""     # which is told when it is opened
    return status.st_size, str(status.st_mtime_ns)


def shards_for(units: Sequence[Unit], threads: int) -> int:
    """Enough that every thread has some to choose from, and that none of them is too large."""
    nbytes = sum(unit.size for unit in units)
    return min(MOST_SHARDS, max(2 * threads, min(USUAL_SHARDS, -(-nbytes // SHARD_BYTES))))
