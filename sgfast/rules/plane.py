"""Rules as boxes in a plane of peers and services. Where boxes overlap, the first rule in precedence wins.

Peers and services are divided into *kinds* that the rules tell apart. No kind is empty. The compiler's classes are made
for look-ups and may be empty: the class of a network stays even if longer prefixes cover the network completely. An
empty class would let a rule appear to win that never matches a packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.matching import precedence
from sgfast.policy.model import Rule
from sgfast.rules.addresses import peer_key_of
from sgfast.rules.services import Mask, service_key

Key = TypeVar("Key")
Block = tuple[NDArray[np.int64], ...]


def lying_in(bounds: Iterable[tuple[int, int]], places: NDArray[np.integer[Any]]) -> Mask:
    """Return a mask of the places that lie in any of the ranges ``bounds``, whose ends are excluded."""
    is_inside = np.zeros(len(places), dtype=bool)
    for first, end in bounds:
        is_inside |= (places >= first) & (places < end)
    return is_inside


def alike(masks: Sequence[Mask]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group classes that no mask distinguishes into kinds. Return a class of each kind, and the kind of each class."""
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
    """Join the classes that no mask distinguishes. The shape (masks, classes) becomes (masks, kinds)."""
    keep, _ = alike(masks)
    return np.array([mask[keep] for mask in masks], dtype=bool)


class Boxes(Generic[Key]):
    """Rules in order of precedence, each with the rows of its peer and its service."""

    def __init__(self, rules: Iterable[tuple[Key, Rule]]) -> None:
        #: The rules with their keys. A rule wins over all rules after it.
        self.ranked = sorted(rules, key=lambda keyed_rule: precedence(keyed_rule[1]))
        #: One rule for each different peer or service; and for each ranked rule, the row of its peer or service.
        self.peers, self.peer_row = _different([rule for _, rule in self.ranked], peer_key_of)
        self.services, self.service_row = _different([rule for _, rule in self.ranked], service_key)
        #: Whether each rule allows. The last entry, False, is for cells that no rule matches.
        self.allows = np.array([rule.action == "allow" for _, rule in self.ranked] + [False], dtype=bool)

    def blocks(self, peers: Iterable[Mask], services: Iterable[Mask]) -> Iterator[tuple[int, Block]]:
        """Yield each rule's position and the cells that it matches, from the last rule in precedence to the first. A
        caller that writes the positions into the cells in this order leaves the winner in each cell. ``peers``,
        ``services``: masks of kinds, by row.
        """
        rows, columns = ([mask.nonzero()[0] for mask in masks] for masks in (peers, services))
        for n in range(len(self.ranked) - 1, -1, -1):
            yield n, np.ix_(rows[self.peer_row[n]], columns[self.service_row[n]])


def _different(rules: Sequence[Rule], key: Callable[[Rule], tuple[object, ...]]) -> tuple[list[Rule], list[int]]:
    row: dict[tuple[object, ...], int] = {}
    rows = [row.setdefault(key(rule), len(row)) for rule in rules]
    return [*{n: rule for n, rule in zip(rows, rules, strict=True)}.values()], rows
