"""Divide protocols and their ports into classes that no rule distinguishes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.classify.classifier import narrow
from sgfast.policy.model import Rule
from sgfast.rules.services import KEYS, key_ranges

Indices = NDArray[np.int64]

@dataclass(frozen=True, slots=True)
class _Ports:
    """The ports of one protocol, divided into consecutive stretches: the first port and the class of each."""

    starts: Indices
    classes: Indices
    #: The class of all ports outside the rules' ranges. It may consist of several stretches, or be empty.
    outside: int


class PortClasses:
    """Classes of protocols and ports. Immutable.

    Class 0 holds the protocols that no rule names. A protocol whose ports no rule names is one class. In every other
    protocol, the ports outside all ranges are one class, and each stretch between two range boundaries is a class of
    its own. Rule tables later join stretches that lie in the same ranges.

    The classes of a later policy divide the earlier classes. One part of a divided class keeps the class's number.
    """

    def __init__(self, rules: Iterable[Rule], earlier: PortClasses | None = None) -> None:
        """Divide services by ``rules``. The classes of ``earlier`` stay apart even if no rule distinguishes them."""
        #: The class of each protocol whose ports no rule names.
        self.whole: NDArray[np.uint32] = np.zeros(256, dtype=np.uint32) if earlier is None else earlier.whole.copy()
        #: The class of each port of the other protocols, as arrays that ``narrow`` made.
        self.by_port: dict[int, NDArray[Any]] = {} if earlier is None else earlier.by_port.copy()
        self._ports: dict[int, _Ports] = {} if earlier is None else earlier._ports.copy()
        #: For each class: the number of the earlier class that it is a part of, or its own number.
        self.origin: NDArray[np.uint32] = np.zeros(1, dtype=np.uint32) if earlier is None else earlier.origin
        ranges_of: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for rule in rules:
            if rule.protocol is not None:
                ranges_of[rule.protocol].update(key_ranges(rule) or ())
        for protocol, ranges in sorted(ranges_of.items()):
            if protocol not in self._ports:
                self.whole[protocol] = len(self.origin)
                nothing = np.zeros(1, dtype=np.int64)
                self._ports[protocol] = _Ports(nothing, nothing + len(self.origin), len(self.origin))
                self.origin = np.append(self.origin, np.uint32(0))
            if ranges:
                self._divide(protocol, np.array(list(ranges)))
        self.count = len(self.origin)
        self._all = np.arange(self.count)

    def _divide(self, protocol: int, ranges: Indices) -> None:
        before = self._ports[protocol]
        begins, ends = (np.sort(bounds_of) for bounds_of in ranges.T)
        ends += 1
        bounds = np.unique(np.concatenate([begins, ends[ends < KEYS]]))
        places = before.starts.searchsorted(bounds, "right")
        is_new = before.starts[places - 1] != bounds
        starts = np.insert(before.starts, places[is_new], bounds[is_new])
        was = np.insert(before.classes, places[is_new], before.classes[places[is_new] - 1])
        # A stretch begins at the first port of a range and after the last port of a range. A range covers the stretch
        # if more ranges have begun at or before its first port than have ended before it.
        covered = np.searchsorted(begins, starts, "right") > np.searchsorted(ends, starts, "right")
        inside = was != before.outside
        keeps = np.append(True, was[1:] != was[:-1])
        fresh = np.where(inside, ~keeps, covered)
        if not fresh.any():
            return
        classes = was.copy()
        classes[fresh] = len(self.origin) + np.arange(np.count_nonzero(fresh))
        self.origin = np.concatenate([self.origin, was[fresh].astype(np.uint32)])
        self._ports[protocol] = _Ports(starts, classes, before.outside)
        self.by_port[protocol] = narrow(np.repeat(classes, np.diff(starts, append=KEYS)))

    def extended(self, rules: Iterable[Rule]) -> PortClasses:
        """Return classes that also distinguish the protocols and ports of these rules."""
        dividing = [rule for rule in rules if not self._distinguish(rule)]
        return PortClasses(dividing, self) if dividing else self

    def _distinguish(self, rule: Rule) -> bool:
        """Return whether a rule matches only whole classes, so that no class must be divided for it."""
        if rule.protocol is None:
            return True
        ports = self._ports.get(rule.protocol)
        if ports is None:
            return False
        for first, last in key_ranges(rule) or ():
            begin, end = ports.starts.searchsorted(first, "right") - 1, ports.starts.searchsorted(last, "right")
            stop = KEYS if end == len(ports.starts) else ports.starts[end]
            if (ports.starts[begin], stop) != (first, last + 1) or ports.outside in ports.classes[begin:end]:
                return False
        return True

    def matching(self, rule: Rule) -> Indices:
        """Find the classes that a rule's protocol and ports match."""
        if rule.protocol is None:
            return self._all
        ports, ranges = self._ports[rule.protocol], key_ranges(rule)
        if ranges is None:
            return np.unique(np.append(ports.classes, ports.outside))
        port_classes = [
            ports.classes[ports.starts.searchsorted(first) : ports.starts.searchsorted(last, "right")]
            for first, last in ranges
        ]
        return port_classes[0] if len(port_classes) == 1 else np.unique(np.concatenate(port_classes))
