"""Captures cut short and damaged, a short version of ``python tests/support/damage.py``."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from corpus import MANIFEST, ROOT, rows
from damage import cut, damaged, judge, new_engine, places
from effort import some
from fuzz.seeds import seeds

PCAPS = Path(__file__).parents[2] / "pcaps"
SEED = 2026


def test_small_files_are_cut_everywhere_and_large_ones_at_as_many_places_as_wanted() -> None:
    assert places(5, 1000) == [0, 1, 2, 3, 4]
    for size in (1001, 5_000, 10**9):
        found = places(size, 1000)
        assert len(found) == 1000 and found == sorted(set(found)) and found[-1] < size


def test_every_kind_of_capture_cut_at_every_byte(tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    for n, seed in enumerate(itertools.islice(seeds("captures"), 0, None, some(3, 1))):
        if len(seed) > 500:
            continue
        path = tmp_path / f"{n}"
        path.write_bytes(seed)
        ends.update(outcome.end for outcome in cut(path, tmp_path / "cut", 500))
    assert min(ends["clean"], ends["damaged"], ends["refused"]) > some(15, 50)


def test_damaged_captures_end_as_they_may(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    ends: Counter[str] = Counter()
    for path in sorted(PCAPS.rglob("*.pcap")):
        assert judge(path, new_engine()).end == "clean"
        ends.update(outcome.end for outcome in cut(path, tmp_path / "cut", 50))
        ends.update(outcome.end for outcome in damaged(path, tmp_path / "damaged", 50, SEED))
    assert min(ends["clean"], ends["damaged"], ends["refused"]) > 10


@pytest.mark.skipif(not MANIFEST.exists(), reason="no corpus here (set SGFAST_CORPUS)")
def test_damaged_captures_of_the_corpus_end_as_they_may(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    ends: Counter[str] = Counter()
    for row in rows()[:: some(87, 29)]:
        path = ROOT / row["file"]
        ends.update(outcome.end for outcome in cut(path, tmp_path / "cut", 40))
        ends.update(outcome.end for outcome in damaged(path, tmp_path / "damaged", 15, SEED))
    assert min(ends["clean"], ends["damaged"], ends["refused"]) > some(30, 100)
