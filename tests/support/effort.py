"""How much the tests try: as much as every change needs, or all of it, with ``SGFAST_EXHAUSTIVE=1``."""

from __future__ import annotations

import os

EXHAUSTIVE = os.environ.get("SGFAST_EXHAUSTIVE") == "1"


def some(usual: int, exhaustive: int) -> int:
    return exhaustive if EXHAUSTIVE else usual
