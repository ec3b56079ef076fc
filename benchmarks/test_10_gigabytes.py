"""Benchmarks of the whole command for a large capture, compared with programs that read captures."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Maker, Measure
from measure import Section, Yardstick, timed
from test_compressed import compressed
from test_replay import network_of
from workload import WORKLOADS, Capture, policy_text
from yardsticks.programs import Tcpdump, Tshark

#: A capture of 10 GB with the default of 10 million for --packets.
WORKLOAD = replace(WORKLOADS["mix-10k"], name="mix-10k-large", scale=2.8)
#: The share of the packets that tshark reads. It keeps data on each packet and takes a hundred times as long.
TSHARK_PART = 0.01


@contextmanager
def capture(maker: Maker, *, packed: bool) -> Iterator[tuple[Capture, Path]]:
    with maker.capture(WORKLOAD, maker.policy_for(WORKLOAD), WORKLOAD.packets_of(maker.option.packets)) as made:
        if not packed:
            yield made, made.path
            return
        smaller = compressed(made.path)
        try:
            yield made, smaller
        finally:
            smaller.unlink()


@pytest.mark.parametrize(("title", "jobs"), [("plain", 1), ("plain, --jobs 2", 2), ("gzip", 1)])
def test_whole_command(
    title: str, jobs: int, maker: Maker, tcpdump: Tcpdump | None, tshark: Tshark | None, measure: Measure,
    tmp_path: Path,
) -> None:  # fmt: skip
    policy = maker.policy_for(WORKLOAD)
    document = tmp_path / "policy.yaml"
    document.write_text(policy_text(policy))
    expression = f"tcp and net {network_of(policy)}"
    with capture(maker, packed=title == "gzip") as (made, path):
        size = made.path.stat().st_size
        yardsticks: dict[str, Yardstick] = {}
        if tcpdump is not None:
            reading = timed(lambda: tcpdump.write(path, expression))
            yardsticks["tcpdump"] = Yardstick("after gzip -dc if gzip", size, reading, faster=True)
        if tshark is not None and title == "plain":
            packets_read = max(int(made.packets * TSHARK_PART), 1)
            few = timed(lambda: tshark.write(path, f"tcp and ip.addr == {network_of(policy)}", packets_read))
            part_bytes = int(size * packets_read / made.packets)
            yardsticks["tshark"] = Yardstick(f"{packets_read:,} packets", part_bytes, few, faster=True)

        def run() -> float:
            command = [sys.executable, "-m", "sgfast", "replay", document, path, "--mode", "verbatim"]
            command += ["--midstream", "deny", "--jobs", str(jobs), "--format", "json", "--quiet"]
            began = time.perf_counter()
            result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            seconds = time.perf_counter() - began
            assert (result["packets"], result["verdicts"]["allow"]) == (made.packets, made.expected["allow"])
            return seconds

        large = f"{size / 1e9:.3g} GB, {made.packets:,} packets: whole processes, start-up included"
        measure(Section(large, "GB", "s"), title, run, items=size, yardsticks=yardsticks)
