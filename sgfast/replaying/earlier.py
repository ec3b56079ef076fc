"""A replay that stops, and another one that goes on from there: what is beside the engine's own state."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace

from sgfast.capture.names import printable
from sgfast.engine import Engine, Midstream, Mode
from sgfast.errors import SnapshotError
from sgfast.output import Output, open_output
from sgfast.policy.model import Policy
from sgfast.policy.plain import from_plain, to_plain
from sgfast.replaying.cutting import PacketsLeftOut
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
        """Tunnels of both replays; ``counts``: those of the one that goes on."""
        if self.decapsulated is None or counts is None:
            return counts if self.decapsulated is None else dict(self.decapsulated)
        before = dict(self.decapsulated)
        return {kind: before.get(kind, 0) + counts.get(kind, 0) for kind in (*before, *(counts.keys() - before.keys()))}


def stop(target: Output | str | os.PathLike[str], engine: Engine, policy: Policy, earlier: Earlier) -> None:
    """Saves the state of a replay that began with ``policy``. OutputError if it cannot be written."""
    about = {"policy": _fingerprint(policy), "earlier": to_plain(earlier)}
    if isinstance(target, Output):
        write_snapshot(engine, target, replay=about)
        return
    with open_output(os.fsdecode(target)) as output:
        write_snapshot(engine, output, replay=about)
        output.publish()


def go_on(
    path: str | os.PathLike[str], policy: Policy, *, mode: Mode, midstream: Midstream, vpc: str | None, flows: bool,
    jobs: int = 1,
) -> tuple[Engine, Earlier]:  # fmt: skip
    """The engine of a replay that stopped. SnapshotError unless it began with ``policy`` and had these options."""
    name = printable(os.fsdecode(path))
    snapshot = read_snapshot(path, jobs=jobs)
    engine = snapshot.engine
    if "earlier" not in snapshot.replay:
        raise SnapshotError(f"{name}: is a snapshot of an engine, not of a replay")
    if snapshot.replay.get("policy") != _fingerprint(policy):
        raise SnapshotError(
            f"{name}: that replay began with another policy than {printable(policy.origin)}: give the one it began with"
        )
    for option, was, is_now in (
        ("--mode", engine.mode, mode), ("--midstream", engine.midstream, midstream), ("--vpc", engine.vpc, vpc),
    ):  # fmt: skip
        if was != is_now:
            raise SnapshotError(f"{name}: that replay had {option} {was or '(none)'}, not {is_now or '(none)'}")
    if engine.keep_flows != flows:
        was, is_now = ("without", "with") if flows else ("with", "without")
        raise SnapshotError(f"{name}: that replay was {was} --connections, this one is {is_now}")
    if not engine.reporting:
        raise SnapshotError(f"{name}: is a snapshot of an engine, not of a replay")
    try:
        return engine, from_plain(Earlier, snapshot.replay["earlier"])
    except ValueError as error:
        raise SnapshotError(f"{name}: is no snapshot that can be used: {printable(str(error))[:200]}") from error


def _fingerprint(policy: Policy) -> str:
    """Of what a policy says, wherever it came from."""
    plain = to_plain(replace(policy, origin="", warnings=()))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
