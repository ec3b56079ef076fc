"""Whether sgfast has become much slower: its time over that of the floor loop, against what ratios.json says it was.

Times say nothing on another machine, and ratios vary by some ten per cent; one that has doubled says something. Lowest
times are compared, not medians: what else a machine does only ever makes things slower.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import Results

FILE = Path(__file__).with_name("ratios.json")
FLOOR = "walk"
#: How much a ratio may have grown.
MOST = 2.0


def measured(results: Results) -> dict[str, float]:
    """By test."""
    return {
        row.name: min(row.samples) / min(row.yardstick_samples[FLOOR])
        for section in results.sections.values()
        for row in section.rows
        if FLOOR in row.yardstick_samples
    }


def recorded(file: Path = FILE) -> dict[str, Any]:
    """``options`` of the run, ``ratios`` by test; empty if there is none."""
    return json.loads(file.read_text()) if file.exists() else {"options": {}, "ratios": {}}


def record(results: Results, options: dict[str, int], file: Path = FILE) -> None:
    """In place of all that were: they are compared with a run that has the same options."""
    ratios = {name: round(ratio, 2) for name, ratio in sorted(measured(results).items())}
    file.write_text(json.dumps({"options": options, "ratios": ratios}, indent=1) + "\n")


def grown(before: dict[str, float], now: dict[str, float]) -> Iterator[str]:
    """Tests whose ratio is more than MOST times what it was. One that is not in both says nothing."""
    for name in sorted(before.keys() & now.keys()):
        if now[name] > MOST * before[name]:
            yield f"{name}: {now[name]:.2f} times the floor, {before[name]:.2f} when recorded"
