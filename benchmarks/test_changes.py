"""Benchmarks of policy changes while traffic flows: the time of a change, and its effect on packets before it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from conftest import Maker, Measure
from measure import Section, Yardstick, timed
from workload import WORKLOADS, draw_flows, header_rows

from sgfast import Engine, Policy, replay
from sgfast.policy.changes import (
    AddAddress,
    AddInstance,
    AddMember,
    AddRule,
    Change,
    ModifyRule,
    RemoveMember,
    SetAddressGroup,
)
from sgfast.policy.model import AddressGroup, GroupPeer, Instance, SecurityGroup
from sgfast.rules.compiler import compile_policy

RULES, GROUPS = 5_000, 100


def section(maker: Maker) -> Section:
    return Section(f"one change, {GROUPS} groups x {RULES // GROUPS} rules, {maker.option.instances:,} instances",
                   "change", "ms")  # fmt: skip


def crowded(maker: Maker) -> Policy:
    """Return a policy in which a rule of every group names one group as source: all instances except the first."""
    policy = maker.policy(RULES, GROUPS)
    groups = tuple(
        replace(group, rules=(*group.rules[:-1], replace(group.rules[-1], peer=GroupPeer("crowd"))))
        for group in policy.security_groups
    )
    first, *others = policy.instances
    members = tuple(replace(each, security_groups=(*each.security_groups, "crowd")) for each in others)
    return replace(policy, security_groups=(*groups, SecurityGroup("crowd")), instances=(first, *members),
                   quotas=replace(policy.quotas, security_groups=GROUPS + 1))  # fmt: skip


#: The number of changes in a round, too few for the policy to be compiled again (``compiler.MAX_REFINEMENTS``).
CHANGES = 20


@pytest.mark.parametrize("title", ["a rule's new CIDR", "a rule's new ports", "a rule more", "an address more",
                                   "an instance more", "a member more"])  # fmt: skip
def test_change(benchmark: Any, title: str, maker: Maker, measure: Measure) -> None:
    """Measure changes with values new to the policy. A member joins a group of nearly all instances, a common
    source."""
    policy = crowded(maker) if title == "a member more" else maker.policy(RULES, GROUPS)
    policy = replace(policy, quotas=replace(policy.quotas, rules_per_group=10**6))
    engine = Engine(policy)
    group = policy.security_groups[GROUPS // 2]
    rule, first = group.rules[2], policy.instances[0]
    numbers = count(1)

    def change(n: int) -> Change:
        address = ip_network((10 << 24) + (200 << 16) + n)
        match title:
            case "a rule's new CIDR":
                return ModifyRule(group.name, rule.id, replace(rule, peer=ip_network((198 << 24) + (n << 8) * 256)))
            case "a rule's new ports":
                return ModifyRule(group.name, rule.id, replace(rule, protocol=6, ports=((33_000 + n, 33_000 + n),)))
            case "a rule more":
                return AddRule(group.name, replace(rule, id="", peer=address))
            case "an address more":
                return AddAddress(first.name, address)
            case "an instance more":
                return AddInstance(Instance(f"new-{n}", first.vpc, (address,), first.security_groups))
            case _:
                return AddMember("crowd", first.name) if n % 2 else RemoveMember("crowd", first.name)

    built = []

    def change_often() -> None:
        built.extend(engine.apply(change(next(numbers)), 0).rule_tables_built for _ in range(CHANGES))

    measure(
        section(maker), title, timed(change_often), items=CHANGES,
        yardsticks={"whole": Yardstick("compiling it whole", 1, timed(lambda: compile_policy(policy)))},
    )  # fmt: skip
    benchmark.extra_info.update(rule_tables=engine.compiled.rule_tables, rule_tables_built=max(built))
    assert max(built) <= 3 < engine.compiled.rule_tables


def test_clearing(maker: Maker, measure: Measure) -> None:
    """Measure the walk over the connection table after a change that may affect all connections but cuts none."""
    policy = maker.policy()
    connections = min(1_000_000, maker.option.packets)
    policy = replace(policy, address_groups=(AddressGroup("nobody"),))
    engine = Engine(policy)
    rows = header_rows(draw_flows(policy, connections, seed=maker.option.seed))
    allowed = int((engine.process(rows)["verdict"] == 0).sum())
    engine.apply(SetAddressGroup("nobody", ()), 0)
    networks = [policy.instances[0].addresses, ()]

    def walk() -> None:
        networks.reverse()
        assert engine.apply(SetAddressGroup("nobody", networks[0]), 0).disconnected == 0

    measure(
        Section("the walk over the table", "connection"), f"{allowed:,} connections", timed(walk), items=allowed,
        yardsticks={"packet": Yardstick("judging a packet of each", connections, timed(lambda: engine.process(rows)))},
    )  # fmt: skip
    assert engine.dataplane.counters["live_tuples"] == allowed > connections // 2


@pytest.mark.parametrize("name", ["one-side-10k", "one-side-1m"])
def test_established_path_with_a_change_to_come(name: str, maker: Maker, measure: Measure, tmp_path: Path) -> None:
    """Compare replays with and without a change after the last packet. A pending change must not slow packets down."""
    workload = WORKLOADS[name]
    policy = maker.policy_for(workload)
    path = tmp_path / "changes.yaml"
    path.write_text(
        f"changes:\n  - {{at: 1000000000, remove_rule: {{group: {policy.security_groups[0].name}, "
        f"rule: {policy.security_groups[0].rules[0].id}}}}}\n"
    )
    with maker.capture(workload, policy, maker.option.packets) as made:
        def run(**more: Any) -> float:
            result = replay(policy, made.path, mode="verbatim", midstream="deny", **more)
            assert result.packets == made.packets
            return result.elapsed_seconds

        measure(
            Section("with a change to come", "packet"), name, lambda: run(changes=path), items=made.packets,
            yardsticks={"without": Yardstick("no change file", made.packets, run)},
        )  # fmt: skip
