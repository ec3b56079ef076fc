"""Benchmarks of rows of packets and connections written to a new file: elapsed time until it is on the disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from conftest import Maker, Measure
from measure import Results, Section, Yardstick
from workload import WORKLOADS

from sgfast import replay
from sgfast.cli.outputs import Outputs

#: The divisor of ``--packets``. Rows of 400 bytes for all packets would need too much disk space.
SHARE = 4
PIECE = bytes(1 << 18)


@pytest.mark.parametrize("path", ["verdicts.jsonl", "verdicts.csv", "verdicts.parquet", "connections.jsonl"])
def test_rows_in_a_file(path: str, maker: Maker, results: Results, measure: Measure, tmp_path: Path) -> None:
    if path.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    workload = WORKLOADS["one-side-10k"]
    policy = maker.policy_for(workload)
    rows, copy = tmp_path / path, tmp_path / "copy"
    size = 0
    with maker.capture(workload, policy, max(maker.option.packets // SHARE, 100)) as made:

        def run(paths: dict[str, str]) -> float:
            nonlocal size
            with Outputs(paths, "", 0) as outputs:
                sinks = outputs.sinks
                result = replay(
                    policy, made.path, mode="verbatim", midstream="deny", packets=sinks.packets, flows=sinks.flows
                )
                began = time.perf_counter()
                outputs.publish(result, {})
                seconds = result.elapsed_seconds + time.perf_counter() - began
            assert result.packets == made.packets and result.connections["opened"] == made.expected["opened"]
            if paths:
                size = rows.stat().st_size
                rows.unlink()
            return seconds

        def write_zeros() -> float:
            began = time.perf_counter()
            with copy.open("xb", buffering=0) as file:
                for remaining in range(size, 0, -len(PIECE)):
                    file.write(PIECE[:remaining])
                os.fsync(file.fileno())
            seconds = time.perf_counter() - began
            copy.unlink()
            return seconds

        option = "--" + path.split(".")[0]
        run({option: str(rows)})
        measure(
            Section("rows in a new file: elapsed time", "packet"), f"{option} {path}", lambda: run({option: str(rows)}),
            items=made.packets,
            yardsticks={
                "without": Yardstick("no rows", made.packets, lambda: run({})),
                "zeros": Yardstick("as many bytes, all 0", made.packets, write_zeros),
            },
        )  # fmt: skip
        results.notes[f"rows, {path}"] = f"{size / made.packets:.0f} bytes a packet"
