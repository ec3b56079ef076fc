"""A replay that stops, and another one that goes on from there: what is beside the engine's own state."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgfast.capture.names import printable
from sgfast.engine import Engine
from sgfast.errors import SnapshotError
from sgfast.output import Output, open_output
from sgfast.policy.model import Policy
from sgfast.policy.serialization import from_plain, to_plain
from sgfast.preprocess.vpcs import Dealer
from sgfast.replaying.cutting import PacketsLeftOut
from sgfast.replaying.options import Reading, ReplayOptions
from sgfast.replaying.results import ChangeDone
from sgfast.snapshot import read_snapshot, write_snapshot


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a replay that goes on knows of the one it goes on from."""

    captures: tuple[str, ...] = ()
    #: The first packet's own time, which a change file counts from; None: there was none.
    first_ns: int | None = None
    changes: tuple[ChangeDone, ...] = ()
    left_out: PacketsLeftOut | None = None
    #: Tunnels taken off, by kind; None: none were to be.
    decapsulated: tuple[tuple[str, int], ...] | None = None

    def all_decapsulated(self, counts: dict[str, int] | None) -> dict[str, int] | None:
        """Tunnels of both replays, which had the same options; ``counts``: those of the one that goes on."""
        if counts is None:
            return None
        total = Counter(dict(self.decapsulated or ()))
        total.update(counts)
        return dict(total)


@dataclass(frozen=True, slots=True)
class Dealt:
    """What a replay that goes on knows of one whose packets were dealt out to VPCs, but for ``Earlier``."""

    #: Of each engine, the number of the VPC it sees; -1: all.
    vpcs: tuple[int, ...]
    #: ``Dealer.clock_state``.
    clock: tuple[int, int, int, int, int, int, int] | None
    #: Of each change, by engine there was: which of its own it is, as ``ChangeDone.number``.
    changes: tuple[tuple[int, ...], ...]


def save_replay(
    target: Output | str | os.PathLike[str], policy: Policy, options: ReplayOptions, engines: Sequence[Engine],
    earlier: Earlier, dealt: Dealt | None,
) -> None:  # fmt: skip
    """Saves the state of a replay that began with ``policy``. OutputError if it cannot be written.

    ``dealt``: if packets were dealt out; otherwise there is one engine.
    """
    about = {
        "policy": _fingerprint(policy), "reading": _selection(options.reading), "earlier": to_plain(earlier),
        "dealt": to_plain(dealt),
    }  # fmt: skip
    if isinstance(target, Output):
        write_snapshot(engines[0], target, others=engines[1:], replay=about)
        return
    with open_output(os.fsdecode(target)) as output:
        write_snapshot(engines[0], output, others=engines[1:], replay=about)
        output.publish()


@dataclass(frozen=True, slots=True)
class Resumed:
    """A replay as it was when it stopped."""

    engines: Sequence[Engine]
    earlier: Earlier
    #: None: packets were not dealt out, there is one engine.
    dealt: Dealt | None
    #: How the options differ, where that may be.
    warnings: Sequence[str]


def load_replay(
    path: str | os.PathLike[str], policy: Policy, options: ReplayOptions, *, reports_connections: bool
) -> Resumed:
    """What ``save_replay`` saved.

    SnapshotError unless that replay began with ``policy`` and had these options. ``start`` and ``end`` may differ, with
    a warning: one capture may be judged up to a time, and from there on. ``merge`` and ``follow`` are of files.
    """
    name = printable(os.fsdecode(path))
    is_mapped = options.is_mapped(policy)
    snapshot = read_snapshot(path, jobs=1 if is_mapped else options.jobs)
    engine, dealt = snapshot.engine, snapshot.replay.get("dealt")
    if "earlier" not in snapshot.replay:
        raise SnapshotError(f"{name}: is a snapshot of an engine, not of a replay")
    if snapshot.replay.get("policy") != _fingerprint(policy):
        raise SnapshotError(
            f"{name}: that replay began with another policy than {printable(policy.origin)}: give the one it began with"
        )
    had: dict[str, str | None] = {"--mode": engine.mode, "--midstream": engine.midstream}
    had["--vpc"] = engine.vpc if dealt is None else None
    have: dict[str, str | None] = {"--mode": options.mode, "--midstream": options.midstream}
    have["--vpc"] = options.vpc
    warnings = []
    read = snapshot.replay.get("reading")
    if not isinstance(read, dict):
        raise SnapshotError(f"{name}: is no snapshot that can be used: reading is no object")
    have |= _selection(options.reading)
    had |= {option: read.get(option) for option in _selection(options.reading)}
    for option, is_now in have.items():
        if had[option] == is_now:
            continue
        was, other = (printable(str(value))[:200] if value is not None else "(none)" for value in (had[option], is_now))
        told = f"{name}: that replay had {option} {was}, not {other}"
        if option not in ("--start", "--end"):
            raise SnapshotError(told)
        warnings.append(told)
    if engine.keep_flows != reports_connections:
        was, is_now = ("without", "with") if reports_connections else ("with", "without")
        raise SnapshotError(f"{name}: that replay was {was} --connections, this one is {is_now}")
    if not engine.reporting:
        raise SnapshotError(f"{name}: is a snapshot of an engine, not of a replay")
    try:
        earlier = from_plain(Earlier, snapshot.replay["earlier"])
        engines = (engine, *snapshot.others)
        if (dealt is not None) != is_mapped:
            raise ValueError("packets were dealt out to VPCs otherwise than the policy says")
        checked = None if dealt is None else _checked(from_plain(Dealt, dealt), engines, earlier)
        return Resumed(engines, earlier, checked, warnings)
    except (ValueError, OverflowError) as error:
        raise SnapshotError(f"{name}: is no snapshot that can be used: {printable(str(error))[:200]}") from error


def _checked(dealt: Dealt, engines: Sequence[Engine], earlier: Earlier) -> Dealt:
    """ValueError unless all of it fits together."""
    vpcs = [vpc.name for vpc in engines[0].policy.vpcs]
    known = {-1: None, **dict(enumerate(vpcs))}
    if [known.get(vpc, "") for vpc in dealt.vpcs] != [engine.vpc for engine in engines]:
        raise ValueError("engines of other VPCs")
    if len(set(dealt.vpcs)) != len(dealt.vpcs) or len(dealt.changes) != len(earlier.changes):
        raise ValueError("as many engines as VPCs, and changes as were made")
    if any(len(numbers) > len(engines) for numbers in dealt.changes):
        raise ValueError("changes of engines that are not there")
    if dealt.clock is not None:
        Dealer(len(vpcs)).go_on(dealt.clock)        # which has a look at it
    return dealt


def _selection(reading: Reading) -> dict[str, str | None]:
    """What says which packets are judged, as written, for comparison."""
    return {
        "--start": reading.start,
        "--end": reading.end,
        "--filter": reading.filter,
        "--dedup": "(given)" if reading.dedup else None,
        "--decap": ",".join(sorted(set(reading.decap))) or None,
    }


def _fingerprint(policy: Policy) -> str:
    """Of what a policy says, wherever it came from."""
    plain = to_plain(replace(policy, origin="", warnings=()))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
