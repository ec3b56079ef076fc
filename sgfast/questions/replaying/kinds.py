"""Kinds of traffic: the counts of a data plane by instance, peer, service, reason and rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sgfast.core.dtypes import TALLY_DTYPE
from sgfast.engine import Engine
from sgfast.policy.model import Policy

Rows = NDArray[Any]

#: A kind of traffic. Its first fields are those of TALLY_DTYPE (``core/tallies/tally.pxd``), without ``endings``. The
#: other fields are:
#:
#:     connections      denied attempts if the reason denies, else allowed connections
#:     packets, bytes   counted only for denied kinds
#:     owner            the instance that owns the peer's address; -1 if no instance owns it
#:     broken           attempts that the other end answered, and whose denial no expectation states
#:     meant            attempts that the other end answered, and whose denial is expected (SPEC 10.25)
#:     unclear          attempts of which nobody can tell whether the other end answered (SPEC 9.2)
#:     refused, silent  allowed connections that the instance refused, or never answered
#:     unsure           connections of flow logs that either end may have opened, with the same verdict (SPEC 10.30)
KIND_DTYPE = np.dtype(
    [*((name, TALLY_DTYPE[name]) for name in TALLY_DTYPE.names or () if name != "endings"), ("owner", "<i4"),
     ("broken", "<u8"), ("meant", "<u8"), ("unclear", "<u8"), ("refused", "<u8"), ("silent", "<u8"), ("unsure", "<u8")]
)  # fmt: skip
#: The counts of a kind.
MEASURES = ("packets", "connections", "bytes", "broken", "meant", "unclear", "refused", "silent", "unsure")

#: First time, last time and number in a row without packets of its own. They affect neither minimum nor maximum.
NEVER = np.iinfo(np.int64).max, np.iinfo(np.int64).min, np.iinfo(np.uint64).max

# The number of 64-bit words in a row's key, an empty mask, and the masks of the reason and the rule in their words.
_KEY_WORDS, _NOTHING, _REASON, _RULE = 4, np.uint64(0), np.uint64(0xFF << 56), np.uint64(0xFFFFFFFF << 32)


#: The sort fields of rows, after the peer, in ascending order of significance.
_AFTER_PEER = (
    "instance", "port_key", "protocol", "reason", "inbound", "family", "has_ports", "has_icmp", "rule", "owner",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Kinds:
    """Kinds of traffic. ``rows`` is an array of KIND_DTYPE, sorted by key; keys are unique."""

    rows: Rows = field(default_factory=lambda: np.zeros(0, dtype=KIND_DTYPE))
    #: The names of instances and rules, by the numbers in rows.
    instances: Sequence[str] = ()
    rules: Sequence[str] = ()
    #: The number of packets and connections that are in no row, for lack of memory.
    lost: int = 0
    #: The groups of each instance when the replay began, or when a change added it. Empty: those of the policy.
    groups: Sequence[tuple[str, ...]] = ()

    def groups_under(self, policy: Policy) -> Sequence[tuple[str, ...]]:
        """Return the groups of each instance, by number; none for an instance that ``policy`` lacks."""
        owners = map(policy.instance_by_name.get, self.instances)
        return self.groups or [() if owner is None else owner.security_groups for owner in owners]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Kinds):
            return NotImplemented
        names = [*self.instances] == [*other.instances] and [*self.rules] == [*other.rules]
        names = names and [*self.groups] == [*other.groups]
        return names and self.lost == other.lost and self.rows.tobytes() == other.rows.tobytes()

    __hash__ = None  # type: ignore[assignment]

    def without_numbers(self) -> Self:
        """Return the kinds without packet numbers: a VPC's engine does not number packets across the replay, and flow
        logs have none."""
        rows = self.rows.copy()
        rows["number"] = 0
        return replace(self, rows=rows)


def kinds_of(engine: Engine) -> Kinds:
    """Return the kinds of all traffic judged so far by an engine made with ``reporting``."""
    tallies = engine.dataplane.tallies
    (began, lost_began), (denied, lost_denied) = tallies["began"], tallies["denials"]
    parts: list[tuple[Rows, tuple[str, ...]]] = [(began, ("silent", "refused")), (denied, ("broken", "unclear"))]
    for name, measure in (("broken", "broken"), ("refused", "refused"), ("unanswered", "silent")):
        parts.append((tallies[name][0], (measure,)))
    rows = np.zeros(sum(len(tally) for tally, _ in parts), dtype=KIND_DTYPE)
    at = 0
    for number, (tally, measures) in enumerate(parts):
        _fill(rows[at : at + len(tally)], tally, measures, has_begun=number < 2)
        at += len(tally)
    rows["owner"] = engine.compiled.classifier.owners_of(rows["peer"], rows["family"])
    instances, rules = [instance.name for instance in engine.instances], [rule.id for rule in engine.rules]
    groups = engine.compiled.numbering.instance_groups
    return Kinds(summed(rows), instances, rules, lost_began + lost_denied, groups)


def _fill(rows: Rows, tally: Rows, endings: Sequence[str], *, has_begun: bool) -> None:
    """Fill rows of KIND_DTYPE, which contain zeros, from those of a tally. ``endings`` are the fields that receive the
    tally's endings. With ``has_begun`` the tally counts connections when they begin, each with its ending. Otherwise
    it counts only endings, of connections with peers for which the other tallies had no room, and without time or
    number.
    """
    # The common fields are the first ones; ``endings`` is the last field of a tally's row.
    size = TALLY_DTYPE.itemsize - TALLY_DTYPE["endings"].itemsize
    _octets(rows)[:, :size] = _octets(tally)[:, :size]
    if has_begun:
        for number, name in enumerate(endings):
            rows[name] = tally["endings"][:, number]
    else:
        rows[endings[0]], rows["connections"] = tally["connections"], 0
        rows["first_ns"], rows["last_ns"], rows["number"] = NEVER


def _octets(rows: Rows) -> NDArray[np.uint8]:
    """Return contiguous rows as bytes. NumPy copies bytes faster than single fields."""
    return rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize)


def rows_at(rows: Rows, places: NDArray[np.int64]) -> Rows:
    """Return the rows at ``places``."""
    taken_rows: Rows = rows.view(np.dtype((np.void, rows.dtype.itemsize))).take(places).view(rows.dtype)
    return taken_rows


def summed(rows: Rows, *others: Rows) -> Rows:
    """Add up rows with equal keys and sort the result by key, because rows from hash tables have no order. ``others``
    are further columns that distinguish kinds."""
    if not len(rows):
        return rows
    order, begins = grouped([*_key_words(rows)[:, :2].T, *(_column(rows[name]) for name in _AFTER_PEER), *others])
    rows = rows_at(rows, order)
    if begins.all():
        return rows
    starts = np.flatnonzero(begins)
    total = rows_at(rows, starts)
    for name in MEASURES:
        total[name] = np.add.reduceat(rows[name], starts)
    total["last_ns"] = np.maximum.reduceat(rows["last_ns"], starts)
    for name in ("first_ns", "number"):
        total[name] = np.minimum.reduceat(rows[name], starts)
    return total


def _column(values: NDArray[Any]) -> NDArray[Any]:
    """Return a column that sorts like the values, but with negative values last, as in the key's words."""
    return np.where(values < 0, values.max() + 3 + values, values) if values.dtype.kind == "i" else values


def joined(kinds: Kinds) -> Rows:
    """Return the rows of ``kinds``, with the ending of each connection in the row in which it began.

    An ending whose kind had no room for such a row keeps a row of its own. The result may share memory with ``kinds``,
    so copy it before writing to it.
    """
    rows = kinds.rows
    counted = (rows["packets"] > 0) | (rows["connections"] > 0)
    if counted.all():
        return rows
    # The row in which a connection began usually counts its ending, too.
    counted_rows, endings = rows[counted].copy(), rows[~counted]
    lost = np.ones(len(endings), dtype=bool)
    for names, ignored, denied in ((("broken",), _RULE, True), (("refused", "silent"), _REASON | _RULE, False)):
        chosen = np.flatnonzero(sum(endings[name].astype(np.int64) for name in names) > 0)
        places = np.flatnonzero((counted_rows["packets"] > 0) == denied)
        lost[chosen[_add_endings(counted_rows, places, endings[chosen], names, ignored)]] = False
    return np.concatenate([counted_rows, endings[lost]])


def _add_endings(
    counted_rows: Rows, places: NDArray[np.int64], endings: Rows, names: Sequence[str], ignored: np.uint64
) -> NDArray[np.int64]:
    """Add endings to the rows at ``places`` in ``counted_rows`` with the same key. Return the numbers of those added.

    ``ignored`` are bits of the key that endings do not have. If several rows differ only in these bits, the ending
    goes to the first ones with enough connections.
    """
    codes = _codes([counted_rows[places], endings], ignored)
    here, theirs = codes[: len(places)], codes[len(places) :]
    order = np.argsort(here, kind="stable")
    first = np.searchsorted(here, theirs, "left", sorter=order)
    last = np.searchsorted(here, theirs, "right", sorter=order)
    once = np.flatnonzero(last - first == 1)
    for name in names:
        np.add.at(counted_rows[name], places[order[first[once]]], endings[name][once])
    for n in np.flatnonzero(last - first > 1).tolist():
        # Rare: the rules changed, or connections of one kind opened in two ways.
        for name in names:
            remaining = int(endings[name][n])
            for at in places[order[first[n] : last[n]]].tolist():
                room = int(counted_rows["connections"][at]) - sum(
                    int(counted_rows[ending_name][at]) for ending_name in names
                )
                share = max(min(remaining, room), 0)
                counted_rows[name][at] += share
                remaining -= share
            np.add.at(counted_rows[name], places[order[first[n]]], remaining)
    return np.flatnonzero(last > first)


def _codes(tables: Sequence[Rows], ignored: np.uint64 = _NOTHING) -> NDArray[np.int64]:
    """Number the rows of all tables. Rows get equal numbers if their keys, apart from the bits ``ignored``, are
    equal."""
    keys = np.concatenate([_key_words(rows) for rows in tables])
    keys[:, 2] &= ~(ignored & _REASON)
    keys[:, 3] &= ~(ignored & _RULE)
    return coded(*keys.T)


def _key_words(rows: Rows) -> NDArray[np.uint64]:
    """Return the keys of rows as an array of shape (n, 4)."""
    octets = _octets(np.ascontiguousarray(rows))[:, : 8 * _KEY_WORDS]
    return np.ascontiguousarray(octets).view(np.uint64).reshape(-1, _KEY_WORDS)


def coded(*columns: Any) -> NDArray[np.int64]:
    """Number the places, counting from 0. Places get equal numbers if all columns have equal values there."""
    varying = [column for column in columns if len(column) and (column != column[0]).any()]
    packed, span = _packed(varying)
    if packed is not None and span <= max(4096, 8 * len(packed)):
        occurs = np.zeros(span, dtype=bool)
        occurs[packed] = True
        return (np.cumsum(occurs) - 1)[packed]
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    order, begins = _grouped(varying, packed, len(codes))
    codes[order] = np.cumsum(begins) - 1
    return codes


def grouped(columns: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the places sorted by the columns, the last of which is most significant, and a mask of the places where a
    new value begins. Places with equal values are in arbitrary order."""
    varying = [column for column in columns if len(column) and (column != column[0]).any()]
    return _grouped(varying, _packed(varying)[0], len(columns[0]))


def _grouped(
    varying: Sequence[Any], packed: NDArray[np.uint64] | None, count: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    if packed is not None:
        varying = [packed]
    order = np.arange(count)
    if varying:
        order = np.argsort(packed) if packed is not None else np.lexsort(varying)
    begins = np.ones(count, dtype=bool)
    begins[1:] = False
    for column in varying:
        ordered = column[order]
        begins[1:] |= ordered[1:] != ordered[:-1]
    return order, begins


def _packed(columns: Sequence[Any]) -> tuple[NDArray[np.uint64] | None, int]:
    """Pack all columns into one 64-bit column with the same order, which sorts faster, and return it with the end of
    its range. Return None for the column if the values need more bits, or if there are no columns."""
    if not columns:
        return None, 0
    lowest = [column.min() for column in columns]
    spans = [int(column.max()) - int(low) + 1 for column, low in zip(columns, lowest, strict=True)]
    if prod(spans) >= 1 << 64:
        return None, 0
    packed = np.zeros(len(columns[0]), dtype=np.uint64)
    for column, low, span in zip(reversed(columns), reversed(lowest), reversed(spans), strict=True):
        # Unsigned arithmetic wraps around, so that differences are also correct for negative numbers.
        packed = packed * np.uint64(span) + column.astype(np.uint64) - low.astype(np.uint64)
    return packed, prod(spans)


def added_up(parts: Iterable[Kinds]) -> Kinds:
    """Add up the kinds of all parts. Parts may number instances and rules differently."""
    parts = list(parts)
    if len(parts) < 2:
        return parts[0] if parts else Kinds()
    instances: dict[tuple[str, tuple[str, ...]], int] = {}
    rules: dict[str, int] = {}
    tables = []
    for part in parts:
        rows = part.rows.copy()
        with_groups = zip_longest(part.instances, part.groups, fillvalue=())
        named: tuple[tuple[Iterable[Any], dict[Any, int], tuple[str, ...]], ...] = (
            (with_groups, instances, ("instance", "owner")), (part.rules, rules, ("rule",))
        )  # fmt: skip
        for names, numbers, fields in named:
            renumbered = np.array([*(numbers.setdefault(name, len(numbers)) for name in names), -1], dtype=np.int32)
            for name in fields:
                rows[name] = np.take(renumbered, rows[name])
        tables.append(rows)
    names, groups = [name for name, _ in instances], [groups for _, groups in instances]
    return Kinds(summed(np.concatenate(tables)), names, [*rules], sum(part.lost for part in parts), groups)
