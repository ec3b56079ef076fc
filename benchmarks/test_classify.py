"""Stateless match: which rule wins for an opener, the instance looked up, no connections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import Maker
from measure import Results, Section, Yardstick, clock, timed
from workload import FIRST_INSTANCE, draw_flows, header_rows
from yardsticks import Loops

from sgfast import Engine

#: Rules, and groups they are in.
SIZES = [(50, 5), (1_000, 100), (5_000, 100)]


@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize(("rules", "groups"), SIZES, ids=[f"{rules}-rules" for rules, _ in SIZES])
def test_classify(
    benchmark: Any, rules: int, groups: int, maker: Maker, loops: Loops, results: Results, rounds: int
) -> None:
    policy = maker.policy(rules, groups)
    lookups = min(maker.option.packets, maker.option.lookups)
    # Half of them would be allowed by another group, and mostly are not by their own.
    headers = header_rows(draw_flows(policy, lookups, foreign=0.5, seed=maker.option.seed))
    classifier = Engine(policy).compiled.classifier
    scanner = loops.scanner(policy, FIRST_INSTANCE[4])
    winners = np.empty((lookups, 2), dtype=np.int32)
    scanned = np.empty(lookups, dtype=np.int32)
    results.measure(
        benchmark,
        Section(f"stateless match, {maker.option.instances:,} instances", "lookup"),
        f"{rules:,} rules in {groups} groups",
        timed(lambda: classifier.match(headers, winners)),
        items=lookups,
        yardsticks={
            "scan": Yardstick("C, rules one by one", lookups, timed(lambda: scanner.match(headers, scanned)))
        },
        rounds=rounds,
    )
    matched = float((scanned >= 0).mean())
    benchmark.extra_info.update(rules=rules, groups=groups, matched=matched)
    assert (winners[:, 0] == -2).all()  # the clients are outside
    assert (winners[:, 1] == scanned).all()
    assert 0.5 <= matched < 1
