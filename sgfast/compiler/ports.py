"""Protocols and their ports, cut into the classes no rule tells apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.model import Rule

Indices = NDArray[np.int64]

KEYS = 65536


def key_ranges(rule: Rule) -> tuple[tuple[int, int], ...] | None:
    """The destination ports, or ICMP type * 256 + code, a rule allows; None: all of its protocol."""
    if rule.icmp_type is not None:
        if rule.icmp_code is not None:
            return ((rule.icmp_type << 8 | rule.icmp_code,) * 2,)
        return ((rule.icmp_type << 8, rule.icmp_type << 8 | 255),)
    return rule.ports


class PortClasses:
    """Class 0 is of the protocols no rule names. A protocol whose ports no rule looks into is a class of its own.

    Of the others, the ports that no range covers are one class; each stretch between two edges of ranges is another.
    Two stretches may be in the same ranges all the same: rule tables join such classes anyway.
    """

    def __init__(self, rules: Sequence[Rule], beside: PortClasses | None = None) -> None:
        """``beside``: classes to tell apart, too, whether or not a rule still does."""
        ranges_of: dict[int, set[tuple[int, int]]] = defaultdict(set)
        if beside is not None:
            ranges_of.update({protocol: set(ranges) for protocol, ranges in beside._ranges_of.items()})
        for rule in rules:
            if rule.protocol is not None:
                ranges_of[rule.protocol].update(key_ranges(rule) or ())
        self._ranges_of: dict[int, set[tuple[int, int]]] = dict(ranges_of)
        #: By protocol: its class where no rule of it names ports.
        self.whole = np.zeros(256, dtype=np.uint32)
        #: By protocol that has more: the class of each port.
        self.by_port: dict[int, NDArray[np.uint32]] = {}
        self._of_protocol: dict[int, Indices] = {}
        count = 1
        for protocol, ranges in sorted(ranges_of.items()):
            last = count
            if ranges:
                # How many ranges more cover a port than its predecessor, and whether anything begins or ends there.
                cover = np.zeros(KEYS + 1, dtype=np.int64)
                edge = np.zeros(KEYS + 1, dtype=bool)
                ends = np.array(sorted(ranges))
                np.add.at(cover, ends[:, 0], 1)
                np.add.at(cover, ends[:, 1] + 1, -1)
                edge[ends[:, 0]] = True
                edge[ends[:, 1] + 1] = True
                covered = np.cumsum(cover)[:KEYS] > 0
                stretches = np.cumsum(edge[:KEYS] & covered)
                self.by_port[protocol] = np.where(covered, count + stretches, count).astype(np.uint32)
                last = count + int(stretches[-1])
            else:
                self.whole[protocol] = count
            self._of_protocol[protocol] = np.arange(count, last + 1)
            count = last + 1
        self.count = count
        self._all = np.arange(count)

    def knows(self, rules: Sequence[Rule]) -> bool:
        """Whether the classes tell apart all that these rules do."""
        return all(
            rule.protocol is None
            or (rule.protocol in self._ranges_of and self._ranges_of[rule.protocol].issuperset(key_ranges(rule) or ()))
            for rule in rules
        )

    def origin_in(self, coarser: PortClasses) -> Indices:
        """By class of this one, the class of ``coarser`` that it is a part of."""
        origin = np.zeros(self.count, dtype=np.int64)
        for protocol, classes in self._of_protocol.items():
            before = coarser.by_port.get(protocol)
            if protocol in self.by_port:
                # Of each class some port; of the last one assigned.
                origin[self.by_port[protocol]] = coarser.whole[protocol] if before is None else before
            else:
                origin[classes] = coarser.whole[protocol]
        return origin

    def matching(self, rule: Rule) -> Indices:
        """The classes a rule's protocol and ports match. The same key (``selector``), the same classes."""
        if rule.protocol is None:
            return self._all
        ranges = key_ranges(rule)
        if ranges is None:
            return self._of_protocol[rule.protocol]
        by_port = self.by_port[rule.protocol]
        return np.concatenate([np.arange(by_port[first], int(by_port[last]) + 1) for first, last in ranges])

    @staticmethod
    def selector(rule: Rule) -> tuple[object, ...]:
        return (rule.protocol, key_ranges(rule))
