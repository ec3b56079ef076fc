"""Counts work, so that tests can say how it grows without measuring time."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def operations(work: Callable[[], object]) -> int:
    """The number of calls of Python and C functions that ``work`` makes, steps of generators included."""
    count = 0

    def counted(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@contextmanager
def memory() -> Iterator[Callable[[], int]]:
    """The most bytes that Python's allocator has given out meanwhile; asked afterwards."""
    found = 0
    tracemalloc.start()
    try:
        yield lambda: found
        found = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
