"""The benchmarks, small: they run, say what they measured, and their captures are what they were built to be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sgfast

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def workload() -> Any:
    """benchmarks/workload.py"""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import workload

        yield workload
        sys.modules.pop("workload")


NAMES = ["one-side-10k", "one-side-1m", "two-sides-10k", "two-sides-1m", "ipv6-10k", "openers", "denied"]


def test_every_workload_is_tested_here(workload: Any) -> None:
    assert sorted(workload.WORKLOADS) == sorted(NAMES)


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_verdicts_are_those_a_workload_was_built_for(name: str, engine: str, workload: Any, tmp_path: Path) -> None:
    kind = workload.WORKLOADS[name]
    packets = 3_000 if engine == "fast" else 300
    policy = workload.make_policy(100, 10, 40, family=kind.family)
    made = workload.make_capture(kind, policy, tmp_path, packets=packets)
    result = sgfast.replay(policy, [made.path], mode="verbatim", midstream="deny", engine=engine)
    assert result.packets == packets and result.damaged is None
    found = {verdict: n for verdict, n in result.verdicts.items() if n}
    if kind.traffic == "denied":
        assert found == {"deny": packets} and result.reasons == {"no-rule": packets}
        assert result.connections["opened"] == 0
    else:
        assert found == {"allow": packets}
        assert result.connections["opened"] == (packets if kind.traffic == "openers" else packets // 10)
        sides = 2 if kind.two_sides else 1
        # Each side's judgement counts for its rule.
        assert sum(rule.packets for rule in result.rules) == packets * sides
        assert sum(rule.connections for rule in result.rules) == result.connections["opened"] * sides


def test_openers_keep_a_million_connections_alive(workload: Any) -> None:
    timeout_us = sgfast.Policy().settings.timeouts.tcp_other * 1e6
    assert timeout_us / workload._INTERVAL_US["openers"] == 1_000_000


def test_one_seed_gives_one_capture(workload: Any, tmp_path: Path) -> None:
    policy = workload.make_policy(100, 10, 40)
    kind = workload.WORKLOADS["one-side-10k"]
    data = []
    for seed, folder in ((1, "a"), (1, "b"), (2, "c")):
        (tmp_path / folder).mkdir()
        made = workload.make_capture(kind, policy, tmp_path / folder, packets=500, seed=seed)
        data.append(made.path.read_bytes())
    assert data[0] == data[1] != data[2]


@pytest.mark.parametrize("family", [4, 6])
def test_policy_text_is_the_policy(family: int, workload: Any) -> None:
    policy = workload.make_policy(500, 10, 40, family=family)
    read = sgfast.parse_policy(workload.policy_text(policy))
    assert read.security_groups == policy.security_groups and read.instances == policy.instances


def test_flows_are_different_and_spread_over_instances(workload: Any) -> None:
    policy = workload.make_policy(100, 10, 40)
    flows = workload.draw_flows(policy, 20_000, two_sides=True)
    rows = np.column_stack([flows.client, flows.server, flows.client_port, flows.server_port])
    assert len(np.unique(rows, axis=0)) == 20_000
    _, counts = np.unique(flows.server, axis=0, return_counts=True)
    assert len(counts) == 40 and counts.min() > 20_000 / 40 * 0.8
    assert (flows.client != flows.server).any(axis=1).all()


def test_the_clock_counts_only_what_work_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import measure

    now = [100.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def work() -> float:
        now[0] += 5.0  # start-up and all
        return 2.0

    began = measure.clock()
    assert measure.counting(work) == 2.0
    assert measure.clock() - began == pytest.approx(2.0)


@pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc").split()[0]) is None, reason="the yardsticks need a C compiler"
)
def test_all_benchmarks_run_and_report(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    figures = tmp_path / "figures.json"
    command = [
        sys.executable, "-m", "pytest", str(BENCHMARKS), "-p", "no:cacheprovider", "--packets", "1000", "--rounds", "1",
        "--instances", "200", f"--benchmark-json={figures}", f"--basetemp={tmp_path / 'run'}",
    ]  # fmt: skip
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"})
    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped" not in run.stdout
    table = run.stdout[run.stdout.index("sgfast benchmarks") :].splitlines()
    assert max(len(line) for line in table if not line.startswith("pytest ")) <= 100
    benchmarks = json.loads(figures.read_text())["benchmarks"]
    assert sum("::test_replay[" in one["fullname"] for one in benchmarks) == 3 * len(NAMES) - 1
    for one in benchmarks:
        extra = one["extra_info"]
        unit, per = next(key for key in extra if "_per_" in key and not key.endswith("_second")).split("_per_")
        median = extra[f"{unit}_per_{per}"]["median"]
        assert extra["ratios"] and set(extra["ratios"]) == set(extra["yardsticks"])
        assert all(ratio["median"] > 0 for ratio in extra["ratios"].values())
        # pytest-benchmark was given the seconds that the table shows, and its own call beside them.
        assert one["stats"]["median"] / extra["items"] * {"ns": 1e9, "ms": 1e3}[unit] > median * 0.999
    assert not list((tmp_path / "run").rglob("*.pcap"))
