"""Sets of whole numbers as sorted ranges that neither overlap nor touch."""

from __future__ import annotations

from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]
"""First and last number of each range."""


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Union of ranges in any order, which may overlap."""
    made: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if made and first <= made[-1][1] + 1:
            made[-1] = (made[-1][0], max(last, made[-1][1]))
        else:
            made.append((first, last))
    return tuple(made)


def intersection(one: Ranges, other: Ranges) -> Ranges:
    made = []
    m = n = 0
    while m < len(one) and n < len(other):
        first, last = max(one[m][0], other[n][0]), min(one[m][1], other[n][1])
        if first <= last:
            made.append((first, last))
        if one[m][1] < other[n][1]:
            m += 1
        else:
            n += 1
    return tuple(made)


def difference(one: Ranges, other: Ranges) -> Ranges:
    """Numbers that are in ``one`` and not in ``other``."""
    made = []
    n = 0
    for first, last in one:
        while n < len(other) and other[n][1] < first:
            n += 1
        at, m = first, n
        while m < len(other) and other[m][0] <= last:
            if at < other[m][0]:
                made.append((at, other[m][0] - 1))
            at = other[m][1] + 1
            m += 1
        if at <= last:
            made.append((at, last))
    return tuple(made)
