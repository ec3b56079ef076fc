"""Packets over time: every packet once, where the replay's clock has it, in bounded memory."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import PCAPS, SHOP

from sgfast import replay
from sgfast.engine import HEADER_DTYPE, PENDING, REASONS, RESULT_DTYPE, VERDICTS
from sgfast.reference.clock import Clock
from sgfast.report.html import Timeline
from sgfast.report.html.timeline import KINDS, MAX_INTERVALS

SECOND = 10**9


def packets(times: list[int], seed: int = 0) -> tuple[Any, Any]:
    headers, results = np.zeros(len(times), dtype=HEADER_DTYPE), np.zeros(len(times), dtype=RESULT_DTYPE)
    headers["time_ns"] = times
    draw = np.random.default_rng(seed)
    results["verdict"] = draw.integers(0, PENDING, len(times))
    results["reason"] = np.where(
        (results["verdict"] == VERDICTS.index("deny")) & (draw.random(len(times)) < 0.3),
        REASONS.index("disconnected"), REASONS.index("no-rule"),
    )  # fmt: skip
    return headers, results


def fed(headers: Any, results: Any, cuts: list[int]) -> Timeline:
    timeline = Timeline()
    for first, last in pairwise([0, *cuts, len(headers)]):
        timeline.write(headers[first:last], results[first:last])
    return timeline


def drawn_times(draw: random.Random) -> list[int]:
    """Mostly forwards; some late, some far back, some at the ends of time."""
    now = draw.choice([0, 10**18, -(10**18), 2**62 - 10**6, -(2**62)])
    times = []
    for _ in range(draw.randrange(1, 400)):
        step = draw.choice([0, 1, 10**3, 10**6, 10**9, 10**12]) * draw.randrange(3)
        back = [-step, -30 * SECOND, -60 * SECOND, -60 * SECOND - 1, -(10**13), -(2**61)]
        now += draw.choice([step] * 20 + [*back, 2**61])
        now = max(-(2**63), min(now, 2**63 - 1))
        times.append(now)
    return times


@pytest.mark.parametrize("seed", range(60))
def test_each_packet_stands_where_the_replays_clock_has_it(seed: int) -> None:
    draw = random.Random(seed)
    times = drawn_times(draw)
    headers, results = packets(times, seed)
    clock = Clock()
    told = [clock.advance(max(-(2**62) + 1, min(time, 2**62 - 1))) for time in times]
    told = [min(time, 2**62) for time in told]
    timeline = fed(headers, results, sorted(draw.choices(range(len(times) + 1), k=draw.randrange(6))))
    assert (timeline.first_time_ns, timeline.last_time_ns) == (told[0], told[-1])
    assert len(timeline.counts) <= MAX_INTERVALS
    assert timeline.interval_ns == 1 or len(timeline.counts) > MAX_INTERVALS // 2 - 1
    expected = np.zeros_like(timeline.counts)
    for time, verdict, reason in zip(told, results["verdict"].tolist(), results["reason"].tolist(), strict=True):
        kind = "disconnected" if REASONS[reason] == "disconnected" else VERDICTS[verdict]
        expected[(time - told[0]) // timeline.interval_ns, KINDS.index(kind)] += 1
    assert (timeline.counts == expected).all()


def test_how_packets_are_cut_into_batches_makes_no_difference() -> None:
    draw = random.Random(1)
    headers, results = packets(drawn_times(draw))
    whole, single = fed(headers, results, []), fed(headers, results, list(range(1, len(headers))))
    for name in ("first_time_ns", "last_time_ns", "interval_ns"):
        assert getattr(whole, name) == getattr(single, name)
    assert (whole.counts == single.counts).all()


def test_a_timeline_without_packets_has_no_intervals() -> None:
    timeline = Timeline()
    timeline.write(*packets([]))
    assert timeline.first_time_ns is None and timeline.counts.shape == (0, len(KINDS))


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_its_totals_are_those_of_the_result(engine: Any) -> None:
    timeline = Timeline()
    policy, capture = PCAPS / "changes" / "policy.yaml", PCAPS / "changes" / "network.pcap"
    result = replay(policy, capture, engine=engine, changes=PCAPS / "changes" / "changes.yaml", packets=timeline)
    totals = dict(zip(KINDS, timeline.counts.sum(axis=0).tolist(), strict=True))
    cut = totals.pop("disconnected")
    totals["deny"] += cut
    assert totals == result.verdicts and cut == result.reasons["disconnected"] > 0


def test_of_a_replay_that_goes_on_it_has_the_new_packets(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = replay(SHOP[0], SHOP[1], snapshot=state)
    timeline = Timeline()
    both = replay(SHOP[0], SHOP[1], resume=state, packets=timeline)
    assert timeline.counts.sum() == both.packets - first.packets == first.packets
