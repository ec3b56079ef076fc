"""Threads that share an engine: some send packets, one changes the policy, and one looks on."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import sgfast

SHOP = Path(sys.argv[1] if len(sys.argv) > 1 else "pcaps")
THREADS, EACH = 4, 500


def talk(engine: sgfast.Engine, number: int, opened: threading.Barrier, cut: threading.Event) -> tuple[int, int]:
    """Open connections, and go on after the change. Returns how many packets passed before and after it."""
    rows = np.repeat(sgfast.header("198.51.100.7", "10.0.0.5", "tcp", dport=80, time_ns=10**9), EACH)
    rows["sport"] = 10_000 + number * EACH + np.arange(EACH)
    before = engine.process(rows)
    opened.wait()
    cut.wait()
    rows["tcp_flags"] = 16
    rows["time_ns"] = 3 * 10**9
    after = engine.process(rows)
    assert {sgfast.REASONS[reason] for reason in after["reason"]} == {"disconnected"}
    allow = sgfast.VERDICTS.index("allow")
    return int(np.sum(before["verdict"] == allow)), int(np.sum(after["verdict"] == allow))


def main() -> None:
    engine = sgfast.Engine(SHOP / "shop.yaml")
    opened, cut = threading.Barrier(THREADS + 1), threading.Event()
    with ThreadPoolExecutor(THREADS) as pool:
        talking = [pool.submit(talk, engine, number, opened, cut) for number in range(THREADS)]
        opened.wait()
        assert engine.open_connections == THREADS * EACH
        done = engine.apply({"remove_rule": {"group": "web", "rule": "web-http-4"}}, now_ns=2 * 10**9)
        assert done.disconnected == THREADS * EACH
        cut.set()
        assert [each.result() for each in talking] == [(EACH, 0)] * THREADS
    assert engine.open_connections == 0
    assert not engine.check("198.51.100.8", "10.0.0.5", "tcp", sport=1, dport=80, time_ns=3 * 10**9).allowed
    print(done)


main()
