"""Two worker threads compared with one, on the same capture."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Maker
from measure import Results, Section, Yardstick, clock
from workload import WORKLOADS

from sgfast import replay


@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize("name", ["one-side-10k", "one-side-1m", "mix-10k", "large-10k"])
def test_two_workers(benchmark: Any, name: str, maker: Maker, results: Results, rounds: int) -> None:
    workload = WORKLOADS[name]
    policy = maker.policy(family=workload.family)
    with maker.capture(workload, policy, workload.packets_of(maker.option.packets)) as made:
        def run(jobs: int) -> float:
            result = replay(policy, made.path, mode="verbatim", midstream="deny", jobs=jobs)
            assert result.packets == made.packets and result.connections["opened"] == made.expected["opened"]
            return result.elapsed_seconds

        results.measure(
            benchmark, Section("two workers", "packet"), name, lambda: run(2), items=made.packets, rounds=rounds,
            yardsticks={"one": Yardstick("one worker", made.packets, lambda: run(1))},
        )  # fmt: skip
