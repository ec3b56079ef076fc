"""Sets of ports as ranges (SPEC 2.2)."""

from __future__ import annotations

from collections.abc import Iterable
from operator import sub

#: Inclusive ranges.
Ports = tuple[tuple[int, int], ...]

LAST_PORT = 65535
ALL_PORTS: Ports = ((0, LAST_PORT),)


def merged(ranges: Iterable[tuple[int, int]]) -> Ports:
    """Sort inclusive ranges and merge those that overlap or touch."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return tuple(result)


def normal_form(ports: Ports) -> Ports | None:
    """The ports of a rule as sorted ranges that do not touch; None: they are all ports. What is no set of ports is
    returned as it is.
    """
    if isinstance(ports, tuple) and len(ports) > 1:
        try:
            firsts, lasts = zip(*ports, strict=True)
            # No loop, because each copy of a rule comes here.
            if min(map(sub, firsts[1:], lasts)) < 2 and all(first <= last for first, last in ports):
                ports = merged(ports)
        except (TypeError, ValueError):
            return ports
    return None if ports == ALL_PORTS else ports
