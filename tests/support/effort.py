"""Choose between the usual extent of tests and the full extent (``SGFAST_EXHAUSTIVE=1``)."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T", int, float)

EXHAUSTIVE = os.environ.get("SGFAST_EXHAUSTIVE") == "1"


def some(usual: T, exhaustive: T) -> T:
    return exhaustive if EXHAUSTIVE else usual
