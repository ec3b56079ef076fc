"""Counts work, so that tests can say how it grows without measuring time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def operations(work: Callable[[], object]) -> int:
    """How many calls of Python and C functions ``work`` makes, steps of generators included."""
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
