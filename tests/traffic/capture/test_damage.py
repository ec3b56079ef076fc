"""Captures cut short and damaged, a short version of ``python tests/support/damage.py``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from corpus import MANIFEST, ROOT, rows
from damage import cut, damaged, judge, new_engine, places
from effort import some

PCAPS = Path(__file__).parents[3] / "pcaps"
SEED = 2026


def test_small_files_are_cut_everywhere_and_large_ones_at_as_many_places_as_wanted() -> None:
    assert places(5, 1000) == [0, 1, 2, 3, 4]
    for size in (1001, 5_000, 10**9):
        found = places(size, 1000)
        assert len(found) == 1000 and found == sorted(set(found)) and found[-1] < size


@pytest.mark.parametrize("source", ["examples", "corpus"])
def test_damaged_captures_end_as_they_may(tmp_path: Path, source: str) -> None:
    print(f"seed {SEED}")
    if source == "examples":
        captures = sorted(PCAPS.rglob("*.pcap"))
        assert {judge(path, new_engine()).end for path in captures} == {"clean"}
    elif not MANIFEST.exists():
        pytest.skip("no corpus here (set SGFAST_CORPUS)")
    else:
        captures = [ROOT / row["file"] for row in rows()[:: some(87, 29)]]
    ends: Counter[str] = Counter()
    for path in captures:
        ends.update(outcome.end for outcome in cut(path, tmp_path / "cut", 40))
        ends.update(outcome.end for outcome in damaged(path, tmp_path / "damaged", 40, SEED))
    assert min(ends["clean"], ends["damaged"], ends["refused"]) > 10
