"""Count operations, so that tests can check how work grows without measuring time."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def operations(work: Callable[[], object]) -> int:
    """Return the number of calls of Python and C functions that ``work`` makes, including steps of generators."""
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
    """Yield a function that returns, after the block, the maximum memory that Python's allocator had in use during
    it."""
    found = 0
    tracemalloc.start()
    try:
        yield lambda: found
        found = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
