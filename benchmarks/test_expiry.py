"""Benchmark of mass expiry: all connections time out between two packets, and the second packet waits for that."""

from __future__ import annotations

import numpy as np
from conftest import Maker, Measure
from measure import Section, Yardstick, timed
from workload import draw_flows, header_rows

from sgfast import Engine

CONNECTIONS = 1_000_000
SPREAD_NS = 10**9
IDLE_NS = 3_600 * 10**9


def test_expiry(maker: Maker, measure: Measure) -> None:
    policy = maker.policy()
    connections = min(CONNECTIONS, maker.option.packets)
    rows = header_rows(draw_flows(policy, connections, seed=maker.option.seed))
    rows["time_ns"] = np.linspace(0, SPREAD_NS, connections).astype(np.int64)
    late = rows[-1:].copy()
    late["time_ns"] += IDLE_NS
    engines: list[Engine] = []

    def fill() -> None:
        engines[:] = [Engine(policy)]
        engines[0].process(rows)

    def expire() -> float:
        fill()
        (engine,) = engines
        assert engine.dataplane.counters["live_tuples"] == connections
        seconds = timed(lambda: engine.process(late))()
        assert engine.dataplane.counters["live_tuples"] == 1
        return seconds

    measure(
        Section("one packet when all connections timed out", "connection"), f"{connections:,} connections", expire,
        items=connections, yardsticks={"opening": Yardstick("opening them", connections, timed(fill))},
    )  # fmt: skip
