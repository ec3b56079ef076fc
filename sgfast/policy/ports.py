"""Sets of ports as ranges (SPEC 2.2)."""

from __future__ import annotations

from collections.abc import Iterable

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
