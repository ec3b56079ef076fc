"""Benchmarks of ``Engine.check``, which judges one packet per call from Python."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from conftest import Maker, Measure
from measure import Results, Section, Yardstick, timed
from test_addresses import prefixes_of
from workload import Family, draw_flows
from yardsticks import Missing
from yardsticks.addresses import pytricia

from sgfast import Engine

FLOWS = 10_000
CALLS = 100_000

#: Cases by title: the IP version, whether the flows are allowed, and the conversion of addresses.
KINDS: dict[str, tuple[Family, bool, Callable[[bytes], Any]]] = {
    "established, str": (4, True, lambda packed: str(ip_address(packed))),
    "established, bytes": (4, True, bytes),
    "established, ipaddress": (4, True, ip_address),
    "established, IPv6, str": (6, True, lambda packed: str(ip_address(packed))),
    "opener denied, str": (4, False, lambda packed: str(ip_address(packed))),
}


@pytest.mark.parametrize("title", KINDS)
def test_check(title: str, maker: Maker, results: Results, measure: Measure) -> None:
    """Check TCP packets from clients outside, each flow in turn. Every check has been made once before."""
    family, allowed, form = KINDS[title]
    policy = maker.policy(family=family)
    drawn = draw_flows(
        policy, min(FLOWS, maker.option.packets), family=family, denied=not allowed, seed=maker.option.seed
    )
    flows = [
        (form(client.tobytes()), form(server.tobytes()), int(sport), int(dport))
        for client, server, sport, dport in zip(
            drawn.client, drawn.server, drawn.client_port, drawn.server_port, strict=True
        )
    ]
    turns = CALLS // FLOWS if len(flows) == FLOWS else 1
    engine = Engine(policy)
    check = engine.check
    for src, dst, sport, dport in flows:
        check(src, dst, "tcp", sport=sport, dport=dport)
        check(dst, src, "tcp", sport=dport, dport=sport, flags="SA")
    flags = "A" if allowed else "S"
    seen = {(src, dst, 6, sport, dport): True for src, dst, sport, dport in flows}

    def ask() -> None:
        for _ in range(turns):
            for src, dst, sport, dport in flows:
                check(src, dst, "tcp", sport=sport, dport=dport, flags=flags, time_ns=10**9)

    def look_up() -> None:
        find = seen.get
        for _ in range(turns):
            for src, dst, sport, dport in flows:
                find((src, dst, 6, sport, dport))

    ask()
    items = turns * len(flows)
    yardsticks = {"dict": Yardstick("get of a 5-tuple", items, timed(look_up))}
    try:
        trie = pytricia(prefixes_of(policy), family)
    except Missing as error:
        results.missing["pytricia"] = str(error)
    else:
        servers = [dst for _, dst, _, _ in flows] * turns
        yardsticks["pytricia"] = Yardstick("get(dst)", items, timed(lambda: trie.run(servers)))
    measure(
        Section("one packet at a time from Python, any of 10,000 flows", "call"), title, timed(ask), items=items,
        yardsticks=yardsticks,
    )  # fmt: skip
    verdicts = [check(src, dst, "tcp", sport=sport, dport=dport, flags=flags, time_ns=10**9)
                for src, dst, sport, dport in flows]  # fmt: skip
    assert {(verdict.verdict, verdict.reason) for verdict in verdicts} == {
        ("allow", "established") if allowed else ("deny", "no-rule")
    }
    assert engine.dataplane.counters["live_tuples"] == (len(flows) if allowed else 0)
