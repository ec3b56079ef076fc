"""Benchmarks of replays on a Dask cluster: processor time versus one process, and two workers versus one."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Maker, Measure
from measure import Results, Section, Yardstick
from test_compressed import compressed
from workload import WORKLOADS

from sgfast import ReplayResult, replay

#: The sizes of headers in a pcap file, in bytes.
FILE_HEADER, RECORD_HEADER = 24, 16

distributed = pytest.importorskip("distributed")


def rotated(path: Path, number: int) -> list[Path]:
    """Make ``number`` compressed copies of the little-endian pcap file at ``path``, each later in time than the
    last."""
    data = np.fromfile(path, dtype=np.uint8)
    headers, at = [], FILE_HEADER
    whole = memoryview(data)
    while at < len(data):
        headers.append(at)
        at += RECORD_HEADER + int.from_bytes(whole[at + 8 : at + 12], "little")
    seconds_at = np.add.outer(np.array(headers), np.arange(4))
    seconds = data[seconds_at].view("<u4").ravel().copy()
    lasts = int(seconds[-1] - seconds[0]) + 1
    made = []
    for n in range(number):
        data[seconds_at] = (seconds + np.uint32(n * lasts)).view(np.uint8).reshape(-1, 4)
        later = path.with_name(f"{n}-{path.name}")
        data.tofile(later)
        made.append(compressed(later))
        later.unlink()
    return made


def client(stack: ExitStack, workers: int, *, processes: bool) -> Any:
    options = {"threads_per_worker": 1, "processes": processes, "dashboard_address": "127.0.0.1:0"}
    cluster = stack.enter_context(distributed.LocalCluster(n_workers=workers, **options))
    return stack.enter_context(distributed.Client(cluster))


def note_stages(results: Results, name: str, result: ReplayResult, packets: int) -> None:
    assert result.cluster is not None
    results.notes[f"cluster, {name}"] = "; ".join(
        f"{stage.name} {stage.task_seconds / packets * 1e9:.0f} ns and {stage.bytes_moved / packets:.0f} bytes a packet"
        f" ({stage.elapsed_seconds:.1f} s)"
        for stage in result.cluster.stages
    )


@pytest.mark.parametrize("name, is_compressed", [("mix-10k", True), ("one-side-10k", False), ("one-side-1m", False)])
def test_processor_time(name: str, is_compressed: bool, maker: Maker, results: Results, measure: Measure) -> None:
    """Compare processor times of all threads. The cluster runs in this process."""
    workload = WORKLOADS[name]
    policy = workload.with_room(maker.policy(family=workload.family))
    packets = workload.packets_of(maker.option.packets)
    with maker.capture(workload, policy, packets) as made, ExitStack() as stack:
        one = client(stack, 1, processes=False)
        path = compressed(made.path) if is_compressed else made.path

        def run(**options: Any) -> float:
            began = time.process_time()
            result = replay(policy, path, **options)
            took = time.process_time() - began
            assert result.packets == made.packets and result.connections["opened"] == made.expected["opened"]
            if result.cluster is not None:
                note_stages(results, workload.title, result, made.packets)
            return took

        title = workload.title + (", gzip" if is_compressed else "")
        measure(
            Section("cluster: processor time", "packet"), title, lambda: run(client=one), items=made.packets,
            yardsticks={"alone": Yardstick("one process", made.packets, run)},
        )  # fmt: skip


def test_two_workers_of_a_cluster(maker: Maker, results: Results, measure: Measure) -> None:
    """Replay eight compressed captures that follow each other in time."""
    workload = WORKLOADS["mix-10k"]
    policy = maker.policy(family=workload.family)
    with maker.capture(workload, policy, workload.packets_of(maker.option.packets)) as made, ExitStack() as stack:
        paths = rotated(made.path, 8)
        workers = {number: client(stack, number, processes=True) for number in (1, 2)}

        def run(number: int) -> float:
            result = replay(policy, paths, client=workers[number], shards=8)
            assert result.packets == 8 * made.packets and result.oddities.late == result.oddities.restarts == 0
            note_stages(results, f"{number} workers", result, 8 * made.packets)
            return result.elapsed_seconds

        packets = 8 * made.packets
        measure(
            Section("cluster: two workers", "packet"), workload.title + ", gzip", lambda: run(2), items=packets,
            yardsticks={"one": Yardstick("one worker", packets, lambda: run(1))},
        )  # fmt: skip
