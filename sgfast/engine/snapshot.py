"""Save and restore an engine's whole state: policy, connections, clock and counters, so that a replay can continue.

The file is an uncompressed NumPy ``.npz`` archive. ``about`` holds JSON: a format number, options, the policy, and the
meaning of the numbers in rows. The other members hold the data plane's rows (``core/state/snapshot.pyx``). The
archive's checksums detect damage, and every row is checked before use, so that a bad file is rejected and does no harm.
"""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import PolicyError, SnapshotError
from sgfast.base.names import printable
from sgfast.base.output import Output, open_output
from sgfast.clouds.loading import load
from sgfast.core.state.snapshot import load_plane, save_plane
from sgfast.engine import Engine, Midstream, Mode, check_jobs
from sgfast.policy.loaded_policy import LoadedPolicy
from sgfast.policy.model import Instance, Rule
from sgfast.policy.serialization import from_plain, to_plain
from sgfast.rules.compiler import Compiler, Numbering

#: Increased with every change of the format's meaning.
FORMAT = 19
#: The most arrays of a snapshot. A replay has 23 for each VPC (SPEC 7.5), so this is enough for 5,600 VPCs.
_MOST_ARRAYS = 1 << 17
#: The most bytes of the archive's directory, in which an array takes at most 128.
_LONGEST_DIRECTORY = _MOST_ARRAYS * 128
#: The most bytes of JSON, enough for a policy of a few million instances.
_LONGEST_ABOUT = 1 << 30
#: The most bytes of one array row; all rows are much shorter.
_LONGEST_ROW = 1 << 16

# Exceptions that decoding, compiling and restoring raise for inconsistent values.
_MISFITS = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError, PolicyError)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A restored engine, further engines that differ only in the VPC they see, and JSON values that the replay stored.
    """

    engine: Engine
    other_engines: tuple[Engine, ...] = ()
    replay: dict[str, Any] = field(default_factory=dict)


def save_snapshot(engine: Engine, path: str | os.PathLike[str]) -> None:
    """Write the state of ``engine`` to ``path``; a regular file appears complete or not at all. The engine itself does
    not change. Other threads may use it meanwhile: each of their calls takes effect before the snapshot or after it.

    The snapshot holds no fragment that waits for its datagram's first one: there it is denied as ``fragment`` (SPEC
    9.13), while in ``engine`` it waits on.

    For example:

        sgfast.save_snapshot(engine, "engine.snapshot")
    """
    write_snapshot(path, engine)


def write_snapshot(
    target: Output | str | os.PathLike[str], engine: Engine, other_engines: Sequence[Engine] = (),
    replay: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write a snapshot as ``save_snapshot`` does, also to an output that is open already. ``other_engines`` and
    ``replay`` are as in ``Snapshot``; no other thread may use the other engines.
    """
    if not isinstance(target, Output):
        with open_output(os.fsdecode(target)) as output:
            write_snapshot(output, engine, other_engines, replay)
            output.publish()
        return
    with engine._unchanged():
        numbers, arrays = _saved_plane(engine)
        other_planes = []
        for n, other_engine in enumerate(other_engines):
            numbers_of_other, arrays_of_other = _saved_plane(other_engine)
            other_planes.append({"vpc": other_engine.vpc, "plane": numbers_of_other})
            arrays |= {f"{n}.{name}": array for name, array in arrays_of_other.items()}
        numbering = engine.compiled.numbering
        of_rules, of_instances = numbering.numbers
        about = {
            "format": FORMAT,
            "mode": engine.mode,
            "midstream": engine.midstream,
            "vpc": engine.vpc,
            "keep_flows": engine.keep_flows,
            "reporting": engine.reporting,
            "events": engine.keeps_events,
            "policy": to_plain(engine.policy),
            "numbering": {
                "rules": to_plain(tuple(numbering.rules)),
                "rule_groups": [*numbering.rule_groups],
                "instances": to_plain(tuple(numbering.instances)),
                "instance_groups": [*numbering.instance_groups],
                "of_rules": [[group, rule, n] for (group, rule), n in of_rules.items()],
                "of_instances": list(of_instances.items()),
            },
            "plane": numbers,
            "others": other_planes,
            "replay": replay or {},
        }
    text = json.dumps(about, separators=(",", ":")).encode()
    # NumPy's type stub takes every keyword for its only option.
    cast(Any, np.savez)(_Writer(target), about=np.frombuffer(text, dtype=np.uint8), **arrays)


def _saved_plane(engine: Engine) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return an engine's data plane as ``save_plane`` does. The engine does not change: if fragments wait, their
    waiting ends in a copy.
    """
    saved = save_plane(engine.dataplane) or save_plane(engine._copy().dataplane, ends_waiting=True)
    assert saved is not None
    return saved


class _Writer(io.RawIOBase):
    """Adapt a stream that only takes bytes for a zip archive, which writes other buffers."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data))
        return len(data)


def load_snapshot(path: str | os.PathLike[str], *, jobs: int = 1) -> Engine:
    """Load the engine that ``save_snapshot`` wrote to ``path``, in this process or another.

    The engine continues as if never stopped, with ``jobs`` threads (``Engine``). Raises SnapshotError if the file
    is not a snapshot, is damaged, or has another format.

    For example:

        engine = sgfast.load_snapshot("engine.snapshot")
    """
    snapshot = read_snapshot(path, jobs=jobs)
    if snapshot.other_engines:
        name = printable(os.fsdecode(path))
        raise SnapshotError(f"{name}: is a snapshot of a replay by VPC, not of a single engine")
    return snapshot.engine


def read_snapshot(path: str | os.PathLike[str], *, jobs: int = 1) -> Snapshot:
    """Read a snapshot as ``load_snapshot`` does, with the values that the replay stored."""
    check_jobs(jobs)
    name = printable(os.fsdecode(path))
    about, arrays = _read(path, name)
    if about.get("format") != FORMAT:
        raise SnapshotError(
            f"{name}: is a snapshot of format {printable(str(about.get('format')))[:20]}, but this version of sgfast "
            f"reads format {FORMAT}: replay from the beginning"
        )
    try:
        return _restore(about, arrays, jobs)
    except _MISFITS as error:
        kind = f"{type(error).__name__} " if isinstance(error, KeyError | AttributeError) else ""
        raise SnapshotError(f"{name}: is not a usable snapshot: {printable(kind + str(error))[:200]}") from error
    except MemoryError as error:
        raise SnapshotError(f"{name}: not enough memory for its contents") from error


def _read(path: str | os.PathLike[str], name: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with ExitStack() as stack:
            stream = stack.enter_context(open(path, "rb"))
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SnapshotError(f"{name}: is not a regular file; save the snapshot to one first")
            archive = stack.enter_context(_archive(stream))
            members = archive.infolist()
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{member.filename} is compressed")
            # A directory may list the same bytes many times. Its members then have more bytes than the file.
            if len(members) > _MOST_ARRAYS or sum(member.file_size for member in members) > status.st_size:
                raise ValueError("its directory lists more than a snapshot has")
            if len({member.filename for member in members}) < len(members):
                raise ValueError("its directory lists an array twice")
            for member in members:
                with archive.open(member) as data:
                    array = _array(data, member.file_size)
                arrays[member.filename.removesuffix(".npy")] = array
        text = arrays.pop("about")
        if text.dtype != np.uint8 or len(text) > _LONGEST_ABOUT:
            raise ValueError("about is not text")
        about = json.loads(text.tobytes())
        if not isinstance(about, dict):
            raise ValueError("about is not an object")
        return about, arrays
    # zipfile raises RuntimeError for archives that it cannot read.
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, RuntimeError) as error:
        raise SnapshotError(f"{name}: is not a snapshot, or is damaged: {printable(str(error))[:200]}") from error
    except MemoryError as error:
        raise SnapshotError(f"{name}: not enough memory for its contents") from error
    except OSError as error:
        raise SnapshotError(f"{name}: cannot be read: {printable(error.strerror or str(error))}") from error


class _Bounded:
    """A file that refuses to read more than ``most`` bytes at a time."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream = stream
        self.most = most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, size: int = -1) -> bytes:
        if size > self.most:
            raise ValueError("its directory is too long for a snapshot")
        return self._stream.read(size)


def _archive(stream: IO[bytes]) -> zipfile.ZipFile:
    # ZipFile reads the whole directory at once, and makes an object of each entry before its entries can be counted.
    bounded = _Bounded(stream, _LONGEST_DIRECTORY)
    archive = zipfile.ZipFile(cast(IO[bytes], bounded))
    bounded.most = sys.maxsize
    return archive


def _array(data: IO[bytes], size: int) -> NDArray[Any]:
    try:
        if np.lib.format.read_magic(data) != (1, 0):
            raise ValueError("an array of another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(data)
    except Exception as error:      # NumPy parses the header as Python text and documents no exceptions for it
        raise ValueError(f"an array's header: {error}") from error
    if dtype.hasobject or fortran or len(shape) != 1:
        raise ValueError("an invalid array")
    if not 0 < dtype.itemsize <= _LONGEST_ROW or not 0 <= shape[0] <= size:
        raise ValueError("an invalid array")
    content = data.read()
    if len(content) != shape[0] * dtype.itemsize:
        raise ValueError("an array is cut short")
    return np.frombuffer(content, dtype=dtype)


def _restore(about: dict[str, Any], arrays: dict[str, NDArray[Any]], jobs: int) -> Snapshot:
    if about["mode"] not in get_args(Mode) or about["midstream"] not in get_args(Midstream):
        raise ValueError("an unknown option")
    try:
        policy = load(from_plain(LoadedPolicy._made_as, about["policy"]))
    except PolicyError as error:
        raise ValueError(str(error)) from None
    numbers = about["numbering"]
    numbering = Numbering.restored(
        from_plain(tuple[Rule, ...], numbers["rules"]),
        from_plain(tuple[str, ...], numbers["rule_groups"]),
        from_plain(tuple[Instance, ...], numbers["instances"]),
        from_plain(tuple[tuple[str, ...], ...], numbers["instance_groups"]),
        {(group, rule): n for group, rule, n in from_plain(tuple[tuple[str, str, int], ...], numbers["of_rules"])},
        dict(from_plain(tuple[tuple[str, int], ...], numbers["of_instances"])),
    )

    def restored(vpc: Any, plane: Any, arrays: dict[str, NDArray[Any]]) -> Engine:
        seen_from = from_plain(str | None, vpc)
        engine = Engine(
            policy,
            mode=about["mode"],
            midstream=about["midstream"],
            vpc=seen_from,
            _keep_flows=from_plain(bool, about["keep_flows"]),
            _reporting=from_plain(bool, about["reporting"]),
            events=from_plain(bool, about["events"]),
            _compiler=Compiler(seen_from, numbering),
            jobs=jobs,
        )
        load_plane(engine.dataplane, plane, arrays)
        return engine

    of_others: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
    for name, array in arrays.items():
        n, _, array_name = name.partition(".")
        if n.isdigit():
            of_others[n][array_name] = array
    engine = restored(about["vpc"], about["plane"], arrays)
    planes = enumerate(about["others"])
    other_engines = [restored(plane["vpc"], plane["plane"], of_others[str(n)]) for n, plane in planes]
    if not isinstance(about["replay"], dict):
        raise ValueError("replay is not an object")
    return Snapshot(engine, tuple(other_engines), about["replay"])
