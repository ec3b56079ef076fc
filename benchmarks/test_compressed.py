"""Benchmarks of gzip captures: processor time versus the plain file, and elapsed time versus gzip and tcpdump."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Maker, Measure
from measure import Section, Yardstick, timed
from test_replay import network_of
from workload import WORKLOADS, Capture
from yardsticks.programs import Tcpdump
from zlib_ng import gzip_ng

from sgfast import Policy, ReplayResult, replay

NAMES = pytest.mark.parametrize("name", ["one-side-10k", "mix-10k"])


def compressed(path: Path) -> Path:
    made = path.with_name(path.name + ".gz")
    with open(path, "rb") as source, gzip_ng.open(made, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return made


@contextmanager
def plain_and_gzip(maker: Maker, name: str) -> Iterator[tuple[Policy, Capture, Path]]:
    workload = WORKLOADS[name]
    policy = maker.policy_for(workload)
    with maker.capture(workload, policy, workload.packets_of(maker.option.packets)) as made:
        packed = compressed(made.path)
        try:
            yield policy, made, packed
        finally:
            packed.unlink()


def replayed(policy: Policy, made: Capture, path: Path) -> ReplayResult:
    result = replay(policy, path, mode="verbatim", midstream="deny")
    assert result.packets == made.packets and result.connections["opened"] == made.expected["opened"]
    return result


@NAMES
def test_processor_time_of_gzip(name: str, maker: Maker, measure: Measure) -> None:
    """Compare the processor time of all threads."""
    with plain_and_gzip(maker, name) as (policy, made, packed):

        def run(path: Path) -> float:
            began = time.process_time()
            replayed(policy, made, path)
            return time.process_time() - began

        measure(
            Section("gzip: processor time", "packet"), made.workload.title, lambda: run(packed), items=made.packets,
            yardsticks={"plain": Yardstick("the capture as it is", made.packets, lambda: run(made.path))},
        )  # fmt: skip


@NAMES
def test_elapsed_time_of_gzip(name: str, maker: Maker, tcpdump: Tcpdump | None, measure: Measure) -> None:
    with plain_and_gzip(maker, name) as (policy, made, packed):
        yardsticks = {"one": Yardstick("on one core", made.packets, on_one_core(lambda: run(packed)))}
        if tcpdump is not None:
            expression = f"tcp and net {network_of(policy)}"
            pipe = timed(lambda: tcpdump.write(packed, expression))
            yardsticks["tcpdump"] = Yardstick("gzip -dc | tcpdump", made.packets, pipe, faster=True)

        def run(path: Path) -> float:
            return replayed(policy, made, path).elapsed_seconds

        measure(
            Section("gzip: elapsed time", "packet"), made.workload.title, lambda: run(packed), items=made.packets,
            yardsticks=yardsticks,
        )  # fmt: skip


def on_one_core(work: Callable[[], float]) -> Callable[[], float]:
    """Return ``work`` with all threads that it starts limited to one core."""

    def run() -> float:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, [min(cores)])
        try:
            return work()
        finally:
            os.sched_setaffinity(0, cores)

    return run
