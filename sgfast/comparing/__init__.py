"""Captures through two policies at once: what would change, connection by connection.

    capture --frames--> engine OLD, engine NEW --outcome words--> core.changed --groups--> DiffResult

``core/changed.pxd`` says what a changed connection is. ``rules`` tells which rules are the same in both policies,
``groups`` puts what the core counted into words, ``results`` is what comes out.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sgfast.capture.names import printable
from sgfast.comparing.groups import changed_groups
from sgfast.comparing.results import (
    CHANGES,
    Change,
    ChangedGroup,
    DiffResult,
    Example,
    Judgement,
    MovedTraffic,
    Others,
    RuleEffect,
)
from sgfast.comparing.rules import Moves, RulePairs
from sgfast.core.beside import process_beside
from sgfast.core.changed import ChangedConnections
from sgfast.core.dtypes import HEADER_DTYPE
from sgfast.engine import VERDICTS, Engine, Midstream, Mode
from sgfast.policy.document import load_policy
from sgfast.policy.model import Policy
from sgfast.replaying.captures import Captures, Reading
from sgfast.replaying.placement import not_mapped
from sgfast.replaying.results import count, warn_of_fragments, warn_of_room, warn_of_time

__all__ = [
    "CHANGES",
    "Change",
    "ChangedGroup",
    "DiffResult",
    "Example",
    "Judgement",
    "MovedTraffic",
    "Others",
    "RuleEffect",
    "diff",
]


def diff(
    old: Policy | str | os.PathLike[str],
    new: Policy | str | os.PathLike[str],
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    mode: Mode = "causal",
    midstream: Midstream = "infer",
    vpc: str | None = None,
    jobs: int = 1,
    reading: Reading | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DiffResult:
    """What would change for the traffic in ``captures`` if ``new`` came in the place of ``old``.

    Each policy judges all packets from the first one on, as :func:`sgfast.replay` does with the same options: what is
    compared are two replays, not a change half way. Damage part way ends it there; what came before is in the result.

    Raises PolicyError, CaptureError, ReadingError; ValueError for an unknown option.
    """
    policies = [policy if isinstance(policy, Policy) else load_policy(policy) for policy in (old, new)]
    if isinstance(captures, str | os.PathLike | bytes):
        captures = [captures]
    paths = tuple(os.fsdecode(path) for path in captures)
    for policy in policies:
        if policy.is_mapped and vpc is None:
            raise not_mapped(policy, "a comparison")
    # With one key for both, a packet is read and hashed once.
    hash_key = [secrets.randbits(64) for _ in range(8)]
    before, after = (
        Engine(policy, mode=mode, midstream=midstream, vpc=vpc, reporting=True, hash_key=hash_key, jobs=jobs)
        for policy in policies
    )
    result = DiffResult(policies[0], policies[1], mode, midstream, vpc, paths)
    changed = ChangedConnections(before.dataplane)
    pairs = RulePairs(before, after)
    moves = Moves(pairs)
    frames = Captures(paths, reading or Reading(), progress)
    room = 0
    began = time.perf_counter()
    for batch in frames:
        if batch.capacity > room:
            room = batch.capacity
            words_before, words_after = (np.zeros(room, dtype=np.uint16) for _ in policies)
            openers = np.zeros(room, dtype=HEADER_DTYPE)
        process_beside(before.dataplane, after.dataplane, batch, words_before, words_after)
        changed.resolve(before.dataplane.take_resolved(), after.dataplane.take_resolved())
        number = changed.compare(batch, words_before, words_after, openers)
        if number:
            moves.count(openers[:number])
    changed.resolve(*(engine.dataplane.take_resolved(everything=True) for engine in (before, after)))
    changed.finish()
    result.elapsed_seconds = time.perf_counter() - began
    result.damaged = frames.damage
    result.warnings += frames.warnings
    result.left_out = frames.cutting.left_out()
    _fill(result, changed, pairs, moves)
    result.decapsulated = frames.decapsulated
    frames.warn(result.warnings)
    return result


def _fill(result: DiffResult, changed: ChangedConnections, pairs: RulePairs, moves: Moves) -> None:
    counters = [engine.dataplane.counters for engine in (pairs.old, pairs.new)]
    result.packets, result.bytes = counters[0]["packets"], counters[0]["bytes"]
    result.first_time_ns, result.last_time_ns = counters[0]["first_ns"], counters[0]["last_ns"]
    result.verdicts = {
        (VERDICTS[a], VERDICTS[b]): packets
        for a, row in enumerate(changed.counters["packets"])
        for b, packets in enumerate(row)
        if packets
    }
    decisions = changed_groups(changed, pairs.old, pairs.new)
    result.groups = [group for group, _, _ in decisions]
    for change, row in zip(CHANGES, changed.other_rows, strict=True):
        if row["connections"]:
            result.others[change] = Others(*(int(row[n]) for n in ("connections", "answered", "packets", "bytes")))
    result.rules = pairs.effects(decisions)
    result.moved, result.moved_others = moves.result(), moves.others

    for name, policy, counted in zip(("OLD", "NEW"), (result.old, result.new), counters, strict=True):
        told = list(policy.warnings)
        warn_of_room(told, counted, policy.settings.max_connections)
        result.warnings += [f"{name}, {printable(Path(policy.origin).name)}: {warning}" for warning in told]
    if not all(group.stateful for policy in (result.old, result.new) for group in policy.security_groups):
        result.warnings.append(
            "packets through stateless groups belong to no connection: how many connections change, and by which "
            "rules, is a guess there; numbers of packets are right"
        )
    warn_of_time(
        result.warnings, counters[0]["late"], counters[0]["restarts"], result.first_time_ns, result.last_time_ns
    )
    warn_of_fragments(result.warnings, max(counted["fragments_denied"] for counted in counters))
    if cut_short := changed.counters["cut_short"]:
        result.warnings.append(
            f"there was no room for more changed connections at once: {count(cut_short, 'connection')} may count twice"
        )
