"""Finds out whether sgfast has become much slower, by comparing ratios to the floor loop with those in ratios.json.

Times cannot be compared between machines. Ratios vary by some ten per cent, but one that has doubled is a sign. They
are ratios of the lowest times, not of medians, because other load on a machine only ever makes things slower.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import Results

FILE = Path(__file__).with_name("ratios.json")
FLOOR = "walk"
#: The factor by which a ratio may grow.
MOST = 2.0


def measured(results: Results) -> dict[str, float]:
    """The ratios of a run, by test."""
    return {
        row.name: min(row.samples) / min(row.yardstick_samples[FLOOR])
        for section in results.sections.values()
        for row in section.rows
        if FLOOR in row.yardstick_samples
    }


def recorded(file: Path = FILE) -> dict[str, Any]:
    """The recorded ``ratios`` by test and the ``options`` of their run; both are empty if there is no file."""
    return json.loads(file.read_text()) if file.exists() else {"options": {}, "ratios": {}}


def record(results: Results, options: dict[str, int], file: Path = FILE) -> None:
    """Replaces all recorded ratios, because those in the file must be of one run with the same options."""
    ratios = {name: round(ratio, 2) for name, ratio in sorted(measured(results).items())}
    file.write_text(json.dumps({"options": options, "ratios": ratios}, indent=1) + "\n")


def grown(before: dict[str, float], now: dict[str, float]) -> Iterator[str]:
    """Messages about tests whose ratio is more than MOST times as large as before. Only tests in both are compared."""
    for name in sorted(before.keys() & now.keys()):
        if now[name] > MOST * before[name]:
            yield f"{name}: {now[name]:.2f} times the floor, {before[name]:.2f} when recorded"
