"""Detect that sgfast has become much slower, by comparing ratios to the floor loop with those in ratios.json.

Times cannot be compared between machines, but ratios can. They vary by some ten per cent, so a ratio that has doubled
is a sign. The ratios are of the lowest times, not of medians, because other load on a machine only slows things down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import Results

FILE = Path(__file__).with_name("ratios.json")
FLOOR = "walk"
#: The factor by which a ratio may grow without a message.
MOST = 2.0


def measured(results: Results) -> dict[str, float]:
    """Return the ratios of a run, by test."""
    return {
        row.name: min(row.samples) / min(row.yardstick_samples[FLOOR])
        for section in results.sections.values()
        for row in section.rows
        if FLOOR in row.yardstick_samples
    }


def recorded(file: Path = FILE) -> dict[str, Any]:
    """Return the recorded ``ratios`` by test and the ``options`` of their run; both are empty if there is no file."""
    return json.loads(file.read_text()) if file.exists() else {"options": {}, "ratios": {}}


def record(results: Results, options: dict[str, int], file: Path = FILE) -> None:
    """Replace all recorded ratios, because the file must only contain ratios of one run with the same options."""
    ratios = {name: round(ratio, 2) for name, ratio in sorted(measured(results).items())}
    file.write_text(json.dumps({"options": options, "ratios": ratios}, indent=1) + "\n")


def grown(before: dict[str, float], now: dict[str, float]) -> Iterator[str]:
    """Yield a message for each test whose ratio has grown by more than MOST. Only tests in both runs are compared."""
    for name in sorted(before.keys() & now.keys()):
        if now[name] > MOST * before[name]:
            yield f"{name}: {now[name]:.2f} times the floor, {before[name]:.2f} when recorded"
