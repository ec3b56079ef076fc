"""Tests try as much as every change needs, or all of it, with ``SGFAST_EXHAUSTIVE=1``."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T", int, float)

EXHAUSTIVE = os.environ.get("SGFAST_EXHAUSTIVE") == "1"


def some(usual: T, exhaustive: T) -> T:
    return exhaustive if EXHAUSTIVE else usual
