"""Services: pairs of a protocol and a key. The key is a destination port, or an ICMP type and code.

A service is a number: protocol * 65536 + key. A protocol that has neither ports nor types occupies all its 65,536
numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.model import ICMP, ICMPV6, Direction, Rule
from sgfast.policy.ranges import Range, Ranges

Mask = NDArray[np.bool_]

#: The number of keys of a protocol.
KEYS = 65536
#: All services.
EVERY_SERVICE: Ranges = ((0, 256 * KEYS - 1),)
ICMP_OF = {4: ICMP, 6: ICMPV6}

#: ICMP types that never open a connection: errors and replies (SPEC 4.6, 5.6).
NO_OPENERS = {4: (0, 3, 4, 5, 11, 12, 14, 16, 18), 6: (*range(128), 129)}


def whole(protocol: int) -> Range:
    """Return the range of all services of a protocol."""
    return protocol * KEYS, protocol * KEYS + KEYS - 1


def key_ranges(rule: Rule) -> tuple[tuple[int, int], ...] | None:
    """Return the ranges of destination ports, or of ICMP type * 256 + code, that a rule matches. None: all keys."""
    if rule.icmp_type is not None:
        if rule.icmp_code is not None:
            return ((rule.icmp_type << 8 | rule.icmp_code,) * 2,)
        return ((rule.icmp_type << 8, rule.icmp_type << 8 | 255),)
    return rule.ports


def service_key(rule: Rule) -> tuple[object, ...]:
    """Return a key that is equal for rules with equal services."""
    return rule.protocol, key_ranges(rule)


def unasked_types(family: int, direction: Direction, infrastructure: str, *, stateful: bool) -> frozenset[int]:
    """Return the ICMP types that are judged without rules (SPEC 3.2, 3.11, 4.6, 5.6).

    ``infrastructure``: the policy's setting of this name. ``stateful``: the filter remembers connections.
    """
    types = {*NO_OPENERS[family]} if stateful else set()
    if family == 6 and infrastructure == "exempt":
        types.update((130, 131, 132, 143))      # The other exempt types are judged if their hop limit is not 255.
    if family == 6 and infrastructure == "by-role":
        types.update((130, 134, 135, 136))
        if direction == "outbound":
            types.add(133)
    return frozenset(types)


class ServiceClasses:
    """Services, divided into classes that some rules distinguish. No class is empty."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        ranges_of: dict[int, set[tuple[int, int]]] = {}
        for rule in rules:
            if rule.protocol is not None:
                ranges_of.setdefault(rule.protocol, set()).update(key_ranges(rule) or ())
        self._starts: dict[int, NDArray[np.int64]] = {}
        self._base: dict[int, int] = {}
        count = 0
        for protocol, ranges in ranges_of.items():
            edges = {0, *(first for first, _ in ranges), *(last + 1 for _, last in ranges)} - {KEYS}
            self._starts[protocol] = np.array(sorted(edges), dtype=np.int64)
            self._base[protocol] = count
            count += len(edges)
        #: The last class holds all protocols that no rule names.
        self.count = count + (len(ranges_of) < 256)

    @cached_property
    def line(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All services in order, divided into stretches of one class: the first service of each stretch, and its class.
        """
        other_protocols = KEYS * np.delete(np.arange(256), list(self._starts))
        starts = [other_protocols, *(protocol * KEYS + starts for protocol, starts in self._starts.items())]
        classes = [
            np.full(len(other_protocols), self.count - 1),
            *(self._base[protocol] + np.arange(len(starts)) for protocol, starts in self._starts.items()),
        ]
        in_order = np.argsort(line := np.concatenate(starts))
        return line[in_order], np.concatenate(classes)[in_order]

    def matching(self, rule: Rule) -> Mask:
        if rule.protocol is None:
            return np.ones(self.count, dtype=bool)
        matches = np.zeros(self.count, dtype=bool)
        starts, base = self._starts[rule.protocol], self._base[rule.protocol]
        ranges = key_ranges(rule)
        if ranges is None:
            matches[base : base + len(starts)] = True
            return matches
        ends = np.array(ranges, dtype=np.int64).reshape(-1, 2)
        # For each class, the number of ranges that cover it minus the number that cover the class before it.
        cover = np.zeros(len(starts) + 1, dtype=np.int64)
        np.add.at(cover, np.searchsorted(starts, ends[:, 0]), 1)
        np.add.at(cover, np.searchsorted(starts, ends[:, 1] + 1), -1)
        matches[base : base + len(starts)] = np.cumsum(cover)[:-1] > 0
        return matches
