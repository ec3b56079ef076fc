"""A user's first question: how long the whole command takes for a large capture, beside programs that read captures."""

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

#: 10 GB with 10 million packets of the option --packets.
WORKLOAD = replace(WORKLOADS["mix-10k"], name="mix-10k-large", scale=2.8)
#: tshark keeps something of each packet, and takes a hundred times as long. So it reads only this part of the packets.
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
            some = max(int(made.packets * TSHARK_PART), 1)
            few = timed(lambda: tshark.write(path, f"tcp and ip.addr == {network_of(policy)}", some))
            yardsticks["tshark"] = Yardstick(f"{some:,} packets", int(size * some / made.packets), few, faster=True)

        def run() -> float:
            command = [sys.executable, "-m", "sgfast", "replay", document, path, "--mode", "verbatim"]
            command += ["--midstream", "deny", "--jobs", str(jobs), "--format", "json", "--quiet"]
            began = time.perf_counter()
            told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            seconds = time.perf_counter() - began
            assert (told["packets"], told["verdicts"]["allow"]) == (made.packets, made.expected["allow"])
            return seconds

        large = f"{size / 1e9:.3g} GB, {made.packets:,} packets: whole processes, start-up included"
        measure(Section(large, "GB", "s"), title, run, items=size, yardsticks=yardsticks)
