"""Kinds of traffic: what a data plane counted by instance, peer, service, reason and rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.dtypes import TALLY_DTYPE
from sgfast.engine import Engine

Rows = NDArray[Any]

#: A kind. Its first fields are those of TALLY_DTYPE (``core/tallies/tally.pxd``). ``connections``: denied attempts if
#: the reason denies, else allowed connections. Packets and bytes are counted for what was denied only. ``owner``: the
#: instance that owns the peer's address, -1 if none does. ``broken``: those of the attempts that the other end
#: answered. ``refused``, ``silent``: those of the allowed connections that the instance refused, or never answered.
KIND_DTYPE = np.dtype(
    [*((name, TALLY_DTYPE[name]) for name in TALLY_DTYPE.names or ()), ("owner", "<i4"), ("broken", "<u8"),
     ("refused", "<u8"), ("silent", "<u8")]
)  # fmt: skip
#: What is counted of a kind.
MEASURES = ("packets", "connections", "bytes", "broken", "refused", "silent")

# The key of a row, which is 32 bytes, as words; and the bits in them of the reason and the rule.
_KEY_WORDS, _NOTHING, _REASON, _RULE = 4, np.uint64(0), np.uint64(0xFF << 56), np.uint64(0xFFFFFFFF << 32)


@dataclass(frozen=True)
class Kinds:
    """``rows``: of KIND_DTYPE, ordered by key; no two have the same."""

    rows: Rows = field(default_factory=lambda: np.zeros(0, dtype=KIND_DTYPE))
    #: The names behind the numbers in rows.
    instances: Sequence[str] = ()
    rules: Sequence[str] = ()
    #: Packets and connections that are in no row, for lack of memory.
    lost: int = 0


def kinds_of(engine: Engine) -> Kinds:
    """What an engine that was made with ``reporting`` has judged so far."""
    plane = engine.dataplane
    (began, lost_began), (denied, lost_denied) = plane.began, plane.denials
    parts = [_with_outcome(began, {"refused": plane.refused[0], "silent": plane.unanswered[0]}, _REASON | _RULE)]
    parts.append(_with_outcome(denied, {"broken": plane.broken[0]}, _RULE))
    rows = _ordered(np.concatenate(parts))
    rows["owner"] = engine.compiled.classifier.owners_of(rows["peer"], rows["family"])
    instances, rules = [one.name for one in engine.instances], [rule.id for rule in engine.rules]
    return Kinds(rows, instances, rules, lost_began + lost_denied)


def _with_outcome(tally: Rows, outcomes: dict[str, Rows], ignored: np.uint64) -> Rows:
    """The rows of a tally, with what became of their connections. ``ignored``: bits of the key that the tallies of
    outcomes do not know; where several rows differ in these alone, the first ones with enough connections get it.
    """
    rows = np.zeros(len(tally), dtype=KIND_DTYPE)
    for name in TALLY_DTYPE.names or ():
        rows[name] = tally[name]
    more = []
    for name, ended in outcomes.items():
        if not len(ended):
            continue
        codes = _codes([tally, ended], ignored)
        own, theirs = codes[: len(tally)], codes[len(tally) :]
        order = np.argsort(own, kind="stable")
        first = np.searchsorted(own, theirs, "left", sorter=order)
        last = np.searchsorted(own, theirs, "right", sorter=order)
        for n in np.flatnonzero(last - first > 1).tolist():
            # Rare: the rules changed, or the connections of one kind opened in two ways.
            left = int(ended["connections"][n])
            for at in order[first[n] : last[n]].tolist():
                taken = min(left, int(rows["connections"][at]) - int(rows["refused"][at]) - int(rows["silent"][at]))
                rows[name][at] += taken
                left -= taken
            rows[name][order[first[n]]] += left
        once = last - first == 1
        rows[name][order[first[once]]] += ended["connections"][once]
        # A kind that is only in the outcomes: its connections were counted without the peer, for lack of room.
        if not (last > first).all():
            rest = np.zeros(int((last == first).sum()), dtype=KIND_DTYPE)
            for key in TALLY_DTYPE.names or ():
                rest[key] = ended[last == first][key]
            rest[name], rest["connections"] = rest["connections"], 0
            more.append(rest)
    return np.concatenate([rows, *more])


def _codes(tables: Sequence[Rows], ignored: np.uint64 = _NOTHING) -> NDArray[np.int64]:
    """For the rows of all tables, numbers that are equal where their keys are, apart from the bits ``ignored``."""
    keys = np.concatenate([_key_words(rows) for rows in tables])
    keys[:, 2] &= ~(ignored & _REASON)
    keys[:, 3] &= ~(ignored & _RULE)
    return coded(*keys.T)


def _key_words(rows: Rows) -> NDArray[np.uint64]:
    """The keys of rows, as an array of shape (n, 4)."""
    octets = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)[:, : 8 * _KEY_WORDS]
    return np.ascontiguousarray(octets).view(np.uint64).reshape(-1, _KEY_WORDS)


def _ordered(rows: Rows) -> Rows:
    """By key: the hash tables that rows come from have no order."""
    return rows[np.lexsort(_key_words(rows).T)]


def coded(*columns: Any) -> NDArray[np.int64]:
    """For each place, a number that is equal to that of another place where all columns are."""
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, places = np.unique(column, return_inverse=True)
        if len(values) > 1:
            codes = np.unique(codes * len(values) + places, return_inverse=True)[1]
    return codes


def added_up(parts: Iterable[Kinds]) -> Kinds:
    """The kinds of all parts, each once. Parts may number instances and rules differently."""
    parts = list(parts)
    if len(parts) < 2:
        return parts[0] if parts else Kinds()
    instances: dict[str, int] = {}
    rules: dict[str, int] = {}
    tables = []
    for part in parts:
        rows = part.rows.copy()
        named = ((part.instances, instances, ("instance", "owner")), (part.rules, rules, ("rule",)))
        for names, numbers, fields in named:
            there = np.array([*(numbers.setdefault(name, len(numbers)) for name in names), -1], dtype=np.int32)
            for name in fields:
                rows[name] = there[rows[name]]
        tables.append(rows)
    rows = np.concatenate(tables)
    codes = coded(_codes(tables), rows["owner"])
    # Of each kind, the row of its earliest packet comes first.
    order = np.lexsort((rows["number"], rows["first_ns"], codes))
    rows, codes = rows[order], codes[order]
    starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1]))) if len(rows) else np.zeros(0, dtype=int)
    total = rows[starts].copy()
    if len(rows):
        for name in MEASURES:
            total[name] = np.add.reduceat(rows[name], starts)
        total["last_ns"] = np.maximum.reduceat(rows["last_ns"], starts)
    return Kinds(_ordered(total), [*instances], [*rules], sum(part.lost for part in parts))
