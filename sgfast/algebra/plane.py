"""Rules as boxes in a plane of peers and services, where the first one in precedence wins.

Peers and services are divided into *kinds* that the rules tell apart, none of them empty. The compiler's classes are
made for look-ups and may be empty: a network that longer prefixes cover completely is still a class there. Whether a
rule ever wins can only be decided with kinds that contain something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sgfast.algebra.addresses import peer_key_of
from sgfast.algebra.services import Mask, service_key
from sgfast.policy.matching import precedence
from sgfast.policy.model import Rule

Key = TypeVar("Key")
Block = tuple[NDArray[np.int64], ...]


def lying_in(bounds: Iterable[tuple[int, int]], places: NDArray[np.integer[Any]]) -> Mask:
    """Mask of the places that lie between some of these bounds, of which the second one is excluded."""
    found = np.zeros(len(places), dtype=bool)
    for first, end in bounds:
        found |= (places >= first) & (places < end)
    return found


def alike(masks: Sequence[Mask]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kinds of classes that no mask distinguishes: one class of each kind, and the kind of each class."""
    count = len(masks[0])
    code = np.zeros(count, dtype=np.int64)
    keep = np.zeros(1, dtype=np.int64)
    for start in range(0, len(masks), 32):
        bits = np.zeros(count, dtype=np.int64)
        for bit, mask in enumerate(masks[start : start + 32]):
            bits[mask] |= 1 << bit
        _, keep, code = np.unique(code << 32 | bits, return_index=True, return_inverse=True)
        code = code.reshape(-1)
    return keep, code


def joined(masks: Sequence[Mask]) -> NDArray[np.bool_]:
    """Join the classes that no mask distinguishes: masks of (n, classes) become (n, fewer classes)."""
    keep, _ = alike(masks)
    return np.array([mask[keep] for mask in masks], dtype=bool)


class Boxes(Generic[Key]):
    """Rules by precedence, each with its peer and its service."""

    def __init__(self, rules: Iterable[tuple[Key, Rule]]) -> None:
        #: The winners come first.
        self.ranked = sorted(rules, key=lambda each: precedence(each[1]))
        #: A rule for each different peer and for each different service, and the row of each rule among these.
        self.peers, self.peer_row = _different([rule for _, rule in self.ranked], peer_key_of)
        self.services, self.service_row = _different([rule for _, rule in self.ranked], service_key)
        #: Whether each rule allows; the last is for cells that no rule matches.
        self.allows = np.array([rule.action == "allow" for _, rule in self.ranked] + [False], dtype=bool)

    def blocks(self, peers: Iterable[Mask], services: Iterable[Mask]) -> Iterator[tuple[int, Block]]:
        """The cells that each rule matches, from the last in precedence to the first. Painting them in this order
        leaves the winner in each cell. ``peers``, ``services``: masks of kinds, by row.
        """
        rows, columns = ([mask.nonzero()[0] for mask in masks] for masks in (peers, services))
        for n in range(len(self.ranked) - 1, -1, -1):
            yield n, np.ix_(rows[self.peer_row[n]], columns[self.service_row[n]])


def _different(rules: Sequence[Rule], key: Callable[[Rule], tuple[object, ...]]) -> tuple[list[Rule], list[int]]:
    row: dict[tuple[object, ...], int] = {}
    rows = [row.setdefault(key(rule), len(row)) for rule in rules]
    return [*{n: rule for n, rule in zip(rows, rules, strict=True)}.values()], rows
