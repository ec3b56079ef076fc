"""Sets of whole numbers (ports of SPEC 2.2, services, addresses) as sorted ranges that neither overlap nor touch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from operator import itemgetter

Range = tuple[int, int]
"""The first and the last number of a range."""
Ranges = tuple[Range, ...]

LAST_PORT = 65535
ALL_PORTS: Ranges = ((0, LAST_PORT),)


def union(ranges: Iterable[Range]) -> Ranges:
    """Return the union of ranges, which may overlap and be in any order."""
    joined_ranges: list[Range] = []
    for first, last in sorted(ranges):
        if joined_ranges and first <= joined_ranges[-1][1] + 1:
            joined_ranges[-1] = (joined_ranges[-1][0], max(last, joined_ranges[-1][1]))
        else:
            joined_ranges.append((first, last))
    return tuple(joined_ranges)


def intersection(a: Ranges, b: Ranges) -> Ranges:
    common_ranges = []
    m = n = 0
    while m < len(a) and n < len(b):
        first, last = max(a[m][0], b[n][0]), min(a[m][1], b[n][1])
        if first <= last:
            common_ranges.append((first, last))
        if a[m][1] < b[n][1]:
            m += 1
        else:
            n += 1
    return tuple(common_ranges)


def difference(a: Ranges, b: Ranges) -> Ranges:
    """Return the numbers that are in ``a`` and not in ``b``."""
    remaining_ranges = []
    n = 0
    for first, last in a:
        while n < len(b) and b[n][1] < first:
            n += 1
        at, m = first, n
        while m < len(b) and b[m][0] <= last:
            if at < b[m][0]:
                remaining_ranges.append((at, b[m][0] - 1))
            at = b[m][1] + 1
            m += 1
        if at <= last:
            remaining_ranges.append((at, last))
    return tuple(remaining_ranges)


def lowest(ranges: Ranges, first: int, last: int) -> int | None:
    """Return the lowest number from ``first`` to ``last`` that is in the set, or None if there is none."""
    n = bisect_left(ranges, first, key=itemgetter(1))
    return max(ranges[n][0], first) if n < len(ranges) and ranges[n][0] <= last else None


def covers(ranges: Ranges, first: int, last: int) -> bool:
    """Return whether all numbers from ``first`` to ``last`` are in the set."""
    n = bisect_left(ranges, first, key=itemgetter(1))
    return n < len(ranges) and ranges[n][0] <= first and last <= ranges[n][1]


def _are_apart(ranges: Ranges) -> bool:
    """Return whether ranges are in order and a number lies between each two. Called for each copy of a rule."""
    before = ranges[0][0] - 2
    for first, last in ranges:
        if first - before < 2:
            return False
        before = last
    return True


def normal_form(ports: Ranges) -> Ranges | None:
    """Return the ports of a rule as a set, or None for all ports. Invalid ports are returned unchanged."""
    if isinstance(ports, tuple) and len(ports) > 1:
        try:
            if not _are_apart(ports) and all(first <= last for first, last in ports):
                ports = union(ports)
        except (TypeError, ValueError):
            return ports
    return None if ports == ALL_PORTS else ports
