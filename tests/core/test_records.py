"""Records of a clustered replay, which come from files: whatever stands there is judged, or is no record."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from clusters import POLICY
from traffic import Crowd

from sgfast import Engine, parse_policy
from sgfast.core.base.frames import FrameBatch
from sgfast.core.shards.partition import Partitioner
from sgfast.core.shards.records import TOLD_DTYPE, RecordJudge, records_before

NEVER = (1 << 63) - 1


def block_of(seed: int, number: int) -> tuple[Engine, bytes, int]:
    """An engine, and records of some ``number`` packets for it; how many."""
    rng = np.random.default_rng(seed)
    policy = parse_policy(POLICY)
    traffic = Crowd(policy, rng, fragments=True).draw(number)
    partitioner = Partitioner(1, seed, exempt=True, full_bytes=1 << 20)
    assert partitioner.spread(FrameBatch.from_frames(traffic.frames, traffic.times_ns, traffic.wire_lengths, 1)) == []
    taken = partitioner.take(0, bytes)
    count = len(traffic.frames)
    assert taken is not None and taken[1:] == (len(taken[0]), count) and partitioner.take(0, bytes) is None
    engine = Engine(policy, reporting=True)
    engine.dataplane.begin(traffic.times_ns[0])
    return engine, taken[0], count


def judge(engine: Engine, block: bytes, *, rows: bool = False) -> int:
    """How many records there are; ValueError for what are none."""
    end, count, *_ = records_before(block, 0, NEVER)
    assert end == len(block)
    told = np.zeros(count, dtype=TOLD_DTYPE) if rows else None
    RecordJudge(engine.dataplane).judge(block, 0, end, 0, 0, 0, told)
    return count


@pytest.mark.parametrize("rows", [False, True])
def test_a_block_that_is_cut_anywhere_is_told(rows: bool) -> None:
    engine, block, count = block_of(1, 60)
    whole = set()
    for size in range(len(block) + 1):
        # In memory of its own: reading past its end is seen by whoever looks.
        with suppress(ValueError):
            whole.add(judge(engine, bytes(bytearray(block[:size])), rows=rows))
    assert whole == set(range(count + 1))


@pytest.mark.parametrize("seed", range(4))
def test_bytes_that_were_changed_are_judged_or_told(seed: int) -> None:
    print(f"seed {seed}")
    engine, block, count = block_of(seed, 300)
    assert judge(engine, block) == count
    rng, told = np.random.default_rng(seed), 0
    for _ in range(5000):
        spoilt = bytearray(block)
        for _ in range(int(rng.integers(1, 4))):
            # Times are whatever they are, and a clock that jumps costs nothing.
            spoilt[int(rng.integers(len(block)))] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
        try:
            judge(engine, bytes(spoilt), rows=bool(rng.integers(2)))
        except ValueError:
            told += 1
    assert 0 < told < 5000
