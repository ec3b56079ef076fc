"""Divides protocols and their ports into classes that no rule distinguishes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.model import Rule

Indices = NDArray[np.int64]

KEYS = 65536


def key_ranges(rule: Rule) -> tuple[tuple[int, int], ...] | None:
    """The ranges of destination ports, or of ICMP type * 256 + code, that a rule matches; None: all of its protocol."""
    if rule.icmp_type is not None:
        if rule.icmp_code is not None:
            return ((rule.icmp_type << 8 | rule.icmp_code,) * 2,)
        return ((rule.icmp_type << 8, rule.icmp_type << 8 | 255),)
    return rule.ports


class PortClasses:
    """Classes of protocols and ports.

    Class 0 holds the protocols that no rule names. A protocol whose ports no rule names is one class. For other
    protocols, the ports outside all ranges are one class, and each stretch between two range boundaries is another. Two
    stretches may lie in the same ranges; rule tables join such classes later.
    """

    def __init__(self, rules: Sequence[Rule], earlier: PortClasses | None = None) -> None:
        """``earlier``: classes that are kept apart, even if no rule distinguishes them any more."""
        ranges_of: dict[int, set[tuple[int, int]]] = defaultdict(set)
        if earlier is not None:
            ranges_of.update({protocol: set(ranges) for protocol, ranges in earlier._ranges_of.items()})
        for rule in rules:
            if rule.protocol is not None:
                ranges_of[rule.protocol].update(key_ranges(rule) or ())
        self._ranges_of: dict[int, set[tuple[int, int]]] = dict(ranges_of)
        #: The class of each protocol whose ports no rule names.
        self.whole = np.zeros(256, dtype=np.uint32)
        #: The class of each port, for the other protocols.
        self.by_port: dict[int, NDArray[np.uint32]] = {}
        self._of_protocol: dict[int, Indices] = {}
        count = 1
        for protocol, ranges in sorted(ranges_of.items()):
            last = count
            if ranges:
                # A stretch begins wherever a range begins or has ended. It is covered if more ranges have begun there
                # than have ended.
                begins, ends = (np.sort(each) for each in np.array(list(ranges)).T)
                ends += 1
                bounds = np.unique(np.concatenate([[0], begins, ends, [KEYS]]))
                starts = bounds[:-1]
                covered = np.searchsorted(begins, starts, "right") > np.searchsorted(ends, starts, "right")
                stretches = np.cumsum(covered)
                classes = np.where(covered, count + stretches, count).astype(np.uint32)
                self.by_port[protocol] = np.repeat(classes, np.diff(bounds))
                last = count + int(stretches[-1])
            else:
                self.whole[protocol] = count
            self._of_protocol[protocol] = np.arange(count, last + 1)
            count = last + 1
        self.count = count
        self._all = np.arange(count)

    def knows(self, rules: Sequence[Rule]) -> bool:
        """Whether the classes distinguish everything these rules do."""
        return all(
            rule.protocol is None
            or (rule.protocol in self._ranges_of and self._ranges_of[rule.protocol].issuperset(key_ranges(rule) or ()))
            for rule in rules
        )

    def origin_in(self, coarser: PortClasses) -> Indices:
        """For each class, the class of ``coarser`` that it is part of."""
        origin = np.zeros(self.count, dtype=np.int64)
        for protocol, classes in self._of_protocol.items():
            before = coarser.by_port.get(protocol)
            if protocol in self.by_port:
                # One port of each class decides: the last one assigned.
                origin[self.by_port[protocol]] = coarser.whole[protocol] if before is None else before
            else:
                origin[classes] = coarser.whole[protocol]
        return origin

    def matching(self, rule: Rule) -> Indices:
        """The classes that a rule's protocol and ports match. Equal selectors match the same classes."""
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
