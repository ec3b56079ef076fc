"""Test a SYN flood much larger than the connection table: memory must not grow; answered connections must survive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Maker, Measure
from measure import Results, Section, Yardstick, timed

from sgfast import Engine, header
from sgfast.clouds.loading import parse_policy
from sgfast.engine import VERDICTS

#: The number of connections answered before the flood.
ANSWERED = 1_000
#: The number of packets judged at a time.
AT_ONCE = 100_000
OPEN = """
version: 1
security_groups: [{{name: g, rules: [{{direction: inbound, protocol: tcp}}]}}]
instances: [{{name: a, addresses: [10.0.0.0/8], security_groups: [g]}}]
settings: {{max_connections: {limit}}}
"""


def opener(first: int, count: int, host: int) -> Any:
    """Make openers numbered from ``first``, each with another client address and port."""
    rows = header("198.0.0.1", "10.0.0.1", "tcp", sport=1, dport=443).repeat(count)
    numbers = np.arange(first, first + count)
    rows["sport"] = numbers % 60_000 + 1_024
    rows["src"][:, 1], rows["src"][:, 2], rows["src"][:, 3] = host, numbers // 60_000 // 256, numbers // 60_000 % 256
    rows["time_ns"] = numbers * 1_000
    return rows


def turned(rows: Any, flags: int) -> Any:
    back = rows.copy()
    back["src"], back["dst"], back["sport"], back["dport"] = rows["dst"], rows["src"], rows["dport"], rows["sport"]
    back["tcp_flags"] = flags
    return back


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
@pytest.mark.parametrize("jobs", [1, 2])
def test_flood(jobs: int, maker: Maker, results: Results, measure: Measure) -> None:
    tuples = maker.option.packets
    limit = max(tuples // 10, 10)
    answered = min(ANSWERED, limit // 10)
    sizes: list[int] = []
    engines: list[Engine] = []

    def flood() -> float:
        engine = Engine(parse_policy(OPEN.format(limit=limit)), jobs=jobs)
        engines[:] = [engine]
        known = opener(0, answered, host=1)
        acknowledged = known.copy()
        acknowledged["tcp_flags"] = 16
        for rows in (known, turned(known, 18), acknowledged):
            assert not engine.process(rows)["verdict"].any()
        seconds = 0.0
        sizes.clear()
        for start in range(0, tuples, AT_ONCE):
            rows = opener(start, min(AT_ONCE, tuples - start), host=2)
            seconds += timed(lambda rows=rows: engine.process(rows))()
            assert engine.dataplane.counters["live_tuples"] <= limit
            if start >= 2 * limit:
                sizes.append(resident())
        acknowledged["time_ns"] = tuples * 1_000
        verdicts = engine.process(acknowledged)["verdict"]
        assert (verdicts == VERDICTS.index("allow")).all()
        return seconds

    def retries() -> float:
        engine, rows = Engine(parse_policy(OPEN.format(limit=limit)), jobs=jobs), opener(0, 1, host=1).repeat(AT_ONCE)
        return sum(timed(lambda n=n: engine.process(rows[:n]))()
                   for n in (min(AT_ONCE, tuples - start) for start in range(0, tuples, AT_ONCE)))  # fmt: skip

    measure(
        Section(f"SYN flood, room for {limit:,} connections", "tuple"), f"{jobs} {'job' if jobs == 1 else 'jobs'}",
        flood, items=tuples, yardsticks={"retries": Yardstick("as many SYNs of one client", tuples, retries)},
    )  # fmt: skip
    counters = engines[0].dataplane.counters
    # Almost every packet opens a connection, and some packets evict another connection.
    assert counters["opened"] >= 0.99 * tuples and counters["evicted"] > 0
    growth = max(sizes, default=0) - min(sizes, default=0)
    results.notes[f"SYN flood, {jobs} jobs"] = (
        f"{tuples:,} tuples; memory grew by {growth / 2**20:.1f} MiB after twice {limit:,}; "
        f"{counters['table_bytes'] / max(counters['entries'], 1):.0f} bytes a connection; all {answered:,} that were "
        "answered are still there"
    )
    assert growth < max(sizes, default=1) * 0.05
