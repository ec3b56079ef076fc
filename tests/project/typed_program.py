"""A program that uses all of the library. Type checkers must know every value in it (SPEC 14.8), and it must run."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import sgfast
from sgfast import types

EXPECTATION = {"from": "web", "to": "db", "service": "udp/53", "verdict": "deny"}


def load(folder: Path) -> sgfast.Policy:
    path = folder / "shop.yaml"
    policy = assert_type(sgfast.load(path), sgfast.Policy)
    assert sgfast.load(text=path.read_text()) == sgfast.load(text=path.read_bytes())
    assert assert_type(sgfast.load(path), sgfast.Policy) == policy == sgfast.load(policy)
    plain = {"version": 1, "instances": [{"name": "a", "addresses": ["10.0.0.1"]}]}
    assert_type(sgfast.load(plain, format="auto", unresolved="error").instances, tuple[sgfast.Instance, ...])
    return policy


def ask(policy: sgfast.Policy) -> None:
    explained = assert_type(policy.explain("web-1", ip_network("10.0.1.9/32"), "tcp/5432"), sgfast.Explanation)
    assert assert_type(explained.allowed, bool)
    assert explained.verdict != "alow"  # type: ignore[comparison-overlap]
    reach = assert_type(policy.reach(source="web", protocol="tcp", port=5432), sgfast.ReachResult)
    assert [assert_type(row.services, str) for row in reach.rows]
    proof = assert_type(policy.test([EXPECTATION]), sgfast.ExpectationsResult)
    assert [assert_type(outcome.expectation.why, str) for outcome in proof.of("holds")]
    found = assert_type(policy.check(expect={"expect": [EXPECTATION]}), sgfast.CheckResult)
    assert [assert_type(finding.message, str) for finding in found.findings]
    assert_type(policy.export("otc"), str)
    assert_type(sgfast.export(policy, "nftables", interfaces={"web-1": "tap0"}), str)


def replay(policy: sgfast.Policy, capture: Path) -> None:
    changes: list[dict[str, Any]] = [{"at": 5, "remove_rule": {"group": "web", "rule": "web-ssh"}}]
    result = assert_type(policy.replay(capture, changes=changes), sgfast.ReplayResult)
    assert assert_type(result.verdicts, dict[types.VerdictWord, int]) and assert_type(result.packets, int) == 261
    part = sgfast.replay(policy, [capture], reading=sgfast.ReadOptions(filter="tcp"), changes=[(5.0, change())])
    assert_type(part, sgfast.ReplayResult)
    for broken in result.broken:
        assert_type(broken.connections, int)
        worst: types.Broken = broken
        assert worst.reason != "no-rul"  # type: ignore[comparison-overlap]
    difference = assert_type(sgfast.diff(policy, policy, capture), sgfast.DiffResult)
    assert_type(difference, sgfast.DiffResult)
    assert assert_type(difference.traffic, sgfast.TrafficDiff | None) is not None
    assert not policy.diff(policy).opened
    suggestion = assert_type(sgfast.suggest(capture, policy=policy), sgfast.Suggestion)
    assert_type(sgfast.load(suggestion.policy), sgfast.Policy)
    assert_type(suggestion.text, str)


def change() -> sgfast.RemoveRule:
    return sgfast.RemoveRule("web", "web-ssh")


def embed(policy: sgfast.Policy) -> None:
    engine = sgfast.Engine(policy)
    assert_type(sgfast.Engine.for_captures(policy), sgfast.Engine)
    verdict = assert_type(engine.check("web-1", "db-1", "tcp", sport=40000, dport=5432), sgfast.Verdict)
    assert verdict.verdict != "alow"  # type: ignore[comparison-overlap]
    assert assert_type(verdict.allowed, bool) and assert_type(verdict.egress, sgfast.Side | None) is not None
    assert_type(engine.explain("web-1", "db-1", "tcp", dport=22), sgfast.Explanation)
    rows = assert_type(sgfast.header("198.51.100.8", "10.0.0.5", "tcp", sport=50000, dport=80), NDArray[np.void])
    results = assert_type(engine.process(rows), NDArray[np.void])
    assert_type(engine.verdict(results[0]), sgfast.Verdict)
    frames = sgfast.FrameBatch.from_frames([b"\0" * 64], [0])
    assert_type(engine.process(frames), NDArray[np.void])
    assert_type(engine.resolved(), NDArray[np.void])
    assert_type(engine.rules, tuple[sgfast.Rule, ...])
    done = engine.apply([change(), {"add_address": {"instance": "web-1", "address": "10.0.0.7"}}], now_ns=0)
    assert assert_type(done.disconnected, int) == 1 and assert_type(done.finished, int) == 0
    assert assert_type(engine.open_connections, int) == 1
    group = sgfast.SecurityGroup("new", (sgfast.Rule("", "inbound", 4, 6, peer=sgfast.GroupPeer("web")),))
    engine.apply(sgfast.AddGroup(group), now_ns=0)


def change_and_hand_on(policy: sgfast.Policy, capture: Path) -> None:
    """A policy is a ``sgfast.Policy`` wherever it comes from, and has its questions there."""
    engine = sgfast.Engine(policy)
    engine.apply(change(), now_ns=0)
    changed = assert_type(engine.policy, sgfast.Policy)
    smaller = assert_type(replace(changed, instances=changed.instances[:2]), sgfast.Policy)
    difference = changed.diff(policy, capture)
    assert difference.traffic is not None
    suggestion = sgfast.suggest(capture, policy=smaller, instances=changed)
    for each in (
        smaller, difference.traffic.old, difference.by_rules.new, sgfast.replay(changed, capture).policy,
        changed.check(captures=capture).policy, changed.reach(destination="web").policy,
        changed.explain("web-1", "db-1", "tcp/5432").policy, changed.test([EXPECTATION]).policy,
    ):
        assert_type(each, sgfast.Policy)
        assert_type(each.diff(suggestion.policy).opened, tuple[types.Row, ...])
        assert_type(sgfast.export(each, "otc"), str)
        assert_type(sgfast.Engine(each).policy.check(baseline=policy), sgfast.CheckResult)


def fail() -> None:
    try:
        sgfast.load("no such file")
    except sgfast.SgfastError as error:
        assert str(error) == "no such file: cannot be read: No such file or directory"
        assert_type(error, sgfast.SgfastError)
    with suppress(AttributeError):
        sgfast.lode  # type: ignore[attr-defined]  # noqa: B018


if __name__ == "__main__":
    shop = Path(sys.argv[1])
    ask(load(shop))
    replay(load(shop), shop / "shop.pcap")
    embed(load(shop))
    change_and_hand_on(load(shop), shop / "shop.pcap")
    fail()
