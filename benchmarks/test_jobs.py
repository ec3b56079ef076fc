"""Benchmark of two worker threads versus one, on the same capture."""

from __future__ import annotations

import pytest
from conftest import Maker, Measure
from measure import Section, Yardstick
from workload import WORKLOADS

from sgfast import replay


@pytest.mark.parametrize("name", ["one-side-10k", "one-side-1m", "mix-10k", "large-10k"])
def test_two_workers(name: str, maker: Maker, measure: Measure) -> None:
    workload = WORKLOADS[name]
    policy = maker.policy(family=workload.family)
    with maker.capture(workload, policy, workload.packets_of(maker.option.packets)) as made:
        def run(jobs: int) -> float:
            result = replay(policy, made.path, mode="verbatim", midstream="deny", jobs=jobs)
            assert result.packets == made.packets and result.connections["opened"] == made.expected["opened"]
            return result.elapsed_seconds

        measure(
            Section("two workers", "packet"), name, lambda: run(2), items=made.packets,
            yardsticks={"one": Yardstick("one worker", made.packets, lambda: run(1))},
        )  # fmt: skip
