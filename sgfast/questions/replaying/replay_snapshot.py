"""Save a replay so that another one can resume it, with the state that the engines do not save."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sgfast.base.errors import SnapshotError
from sgfast.base.names import printable
from sgfast.engine import Engine
from sgfast.policy.model import Policy
from sgfast.policy.serialization import from_plain, to_plain
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.results import ChangeDone
from sgfast.traffic.packet_selection import PacketsLeftOut
from sgfast.traffic.preprocess import TunnelKind
from sgfast.traffic.preprocess.vpcs import Dealer
from sgfast.traffic.read_options import ReadOptions
from sgfast.traffic.source import Noticed

if TYPE_CHECKING:
    from sgfast.base.output import Output


@dataclass(frozen=True, slots=True)
class Earlier:
    """Results of an earlier replay, for the replay that resumes it."""

    captures: tuple[str, ...] = ()
    #: The time of the first packet, at which the times of a change file begin; None if there was no packet.
    first_ns: int | None = None
    changes: tuple[ChangeDone, ...] = ()
    left_out: PacketsLeftOut | None = None
    #: The numbers of tunnel headers removed, by kind; None if the options remove none.
    decapsulated: tuple[tuple[TunnelKind, int], ...] | None = None
    noticed: Noticed = field(default_factory=Noticed)

    def all_decapsulated(self, counts: dict[TunnelKind, int] | None) -> dict[TunnelKind, int] | None:
        """Add the counts of the replay that resumes to these. Both replays have the same options."""
        if counts is None:
            return None
        total = Counter(dict(self.decapsulated or ()))
        total.update(counts)
        return dict(total)


@dataclass(frozen=True, slots=True)
class Dealt:
    """Additional state of a replay whose packets are divided among VPCs."""

    #: The number of the VPC that each engine sees; -1: all VPCs.
    vpcs: tuple[int, ...]
    #: ``Dealer.clock_state``.
    clock: tuple[int, int, int, int, int, int, int, int] | None
    #: ``ChangeDone.number`` of each change, in each engine that existed then.
    changes: tuple[tuple[int, ...], ...]


def save_replay(
    target: Output | str | os.PathLike[str], policy: Policy, options: ReplayOptions, engines: Sequence[Engine],
    earlier: Earlier, dealt: Dealt | None,
) -> None:  # fmt: skip
    """Save the state of a replay that began with ``policy``. Raises OutputError if it cannot be written.

    ``dealt`` is None if packets were not divided among VPCs, in which case there is one engine.
    """
    from sgfast.engine.snapshot import write_snapshot

    state = {
        "policy": _fingerprint(policy), "reading": _selection(options.reading), "earlier": to_plain(earlier),
        "dealt": to_plain(dealt),
    }  # fmt: skip
    write_snapshot(target, engines[0], engines[1:], state)


@dataclass(frozen=True, slots=True)
class Resumed:
    """The state of a replay when it was saved."""

    engines: Sequence[Engine]
    earlier: Earlier
    #: None if packets were not divided among VPCs, in which case there is one engine.
    dealt: Dealt | None
    #: Warnings about differences between the replays' options that do not prevent resuming.
    warnings: Sequence[str]


def load_replay(
    path: str | os.PathLike[str], policy: Policy, options: ReplayOptions, *, reports_connections: bool
) -> Resumed:
    """Load the replay that ``save_replay`` saved.

    Raises SnapshotError unless that replay began with ``policy`` and had the same options. A different ``start`` or
    ``end`` causes only a warning, so that one replay can judge a capture up to a time and another one the rest.
    ``merge`` and ``follow`` are not compared, because they only affect how files are read.
    """
    from sgfast.engine.snapshot import read_snapshot

    name = printable(os.fsdecode(path))
    is_mapped = options.is_mapped(policy)
    snapshot = read_snapshot(path, jobs=1 if is_mapped else options.jobs)
    engine, dealt = snapshot.engine, snapshot.replay.get("dealt")
    if "earlier" not in snapshot.replay:
        raise SnapshotError(f"{name}: is a snapshot of an engine, not of a replay")
    if snapshot.replay.get("policy") != _fingerprint(policy):
        raise SnapshotError(
            f"{name}: that replay began with another policy than {printable(policy.origin)}; use the one it began with"
        )
    saved_options: dict[str, object] = {"--mode": engine.mode, "--midstream": engine.midstream}
    saved_options["--vpc"] = engine.vpc if dealt is None else None
    own_options: dict[str, object] = {"--mode": options.mode, "--midstream": options.midstream}
    own_options["--vpc"] = options.vpc
    warnings = []
    read = snapshot.replay.get("reading")
    if not isinstance(read, dict):
        raise SnapshotError(f"{name}: cannot be used as a snapshot: reading is not an object")
    own_options |= _selection(options.reading)
    saved_options |= {option: read.get(option) for option in _selection(options.reading)}
    for option, is_now in own_options.items():
        if saved_options[option] == is_now:
            continue
        value_then, value_now = (
            printable(str(value))[:200] if value is not None else "(none)" for value in (saved_options[option], is_now)
        )
        difference = f"{name}: that replay had {option} {value_then}, not {value_now}"
        if option not in ("--start", "--end"):
            raise SnapshotError(difference)
        warnings.append(difference)
    if engine.keep_flows != reports_connections:
        value_then, is_now = ("without", "with") if reports_connections else ("with", "without")
        raise SnapshotError(f"{name}: that replay was {value_then} --connections, this one is {is_now}")
    if not engine.reporting:
        raise SnapshotError(f"{name}: is a snapshot of an engine, not of a replay")
    try:
        earlier = from_plain(Earlier, snapshot.replay["earlier"])
        engines = (engine, *snapshot.other_engines)
        if (dealt is not None) != is_mapped:
            raise ValueError("packets were not divided among VPCs as the policy says")
        checked = None if dealt is None else _checked(from_plain(Dealt, dealt), engines, earlier)
        return Resumed(engines, earlier, checked, warnings)
    except (ValueError, OverflowError) as error:
        raise SnapshotError(f"{name}: cannot be used as a snapshot: {printable(str(error))[:200]}") from error


def _checked(dealt: Dealt, engines: Sequence[Engine], earlier: Earlier) -> Dealt:
    """Return ``dealt``. Raises ValueError if it does not fit the engines and changes."""
    vpcs = [vpc.name for vpc in engines[0].policy.vpcs]
    vpc_of_number = {-1: None, **dict(enumerate(vpcs))}
    if [vpc_of_number.get(vpc, "") for vpc in dealt.vpcs] != [engine.vpc for engine in engines]:
        raise ValueError("its engines are those of other VPCs")
    if len(set(dealt.vpcs)) != len(dealt.vpcs) or len(dealt.changes) != len(earlier.changes):
        raise ValueError("its numbers of engines and VPCs, or of changes, differ")
    if any(len(numbers) > len(engines) for numbers in dealt.changes):
        raise ValueError("it has changes of missing engines")
    if dealt.clock is not None:
        Dealer(len(vpcs)).go_on(dealt.clock)        # raises ValueError for a wrong clock
    return dealt


def _selection(reading: ReadOptions) -> dict[str, object]:
    """Return the options that select packets, as the user wrote them, for comparison."""
    return {
        "--start": reading.start,
        "--end": reading.end,
        "--filter": reading.filter,
        "--dedup": "(given)" if reading.dedup else None,
        "--decap": ",".join(sorted(set(reading.decap))) or None,
    }


def _fingerprint(policy: Policy) -> str:
    """Return a hash of the policy's contents, which does not depend on the file."""
    import hashlib

    plain = to_plain(replace(policy, origin="", warnings=()))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
