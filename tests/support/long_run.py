"""Repeat a comparison, with one seed after another, until enough packets were compared."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

#: A function of the number of remaining packets, a seed and the number of the run. It returns counts of what occurred,
#: and how many packets each known difference excused.
Run = Callable[[int, int, int], tuple[Counter[Any], Counter[str]]]


def long_run(program: str, reason: str | None, run: Run) -> None:
    """Run the main function of a program whose arguments are the number of packets and, anywhere after it, the first
    seed.

    ``reason`` is why this machine cannot run it, or None.
    """
    if reason is not None:
        sys.exit(f"{program}: {reason}")
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = next((int(argument) for argument in sys.argv[2:] if argument.isdecimal()), int(time.time()))
    seen: Counter[Any] = Counter()
    hits: Counter[str] = Counter()
    began, step = time.time(), 0
    while seen["packets"] < total:
        more, excused = run(total - seen["packets"], seed + step, step)
        seen += more
        hits += excused
        step += 1
        extra = f"; excused {hits.total()}: {dict(hits)}" if hits else ""
        print(f"seed {seed}+{step}: {seen['packets']:,} packets agree, {time.time() - began:.0f} s{extra}", flush=True)
    for event, number in seen.most_common():
        print(f"{number:>12,}  {event}")
