"""What a change of the policy costs while traffic flows: the change itself, and packets with a change to come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Maker
from measure import Results, Section, Yardstick, clock, timed
from workload import WORKLOADS, draw_flows, header_rows

from sgfast import Engine, Policy, replay
from sgfast.compiler import compile_policy
from sgfast.policy.changes import AddMember, ModifyRule, RemoveMember, SetAddressGroup
from sgfast.policy.model import AddressGroup, GroupPeer, SecurityGroup

RULES, GROUPS = 5_000, 100


def section(maker: Maker) -> Section:
    return Section(f"one change, {GROUPS} groups x {RULES // GROUPS} rules, {maker.option.instances:,} instances",
                   "change", "ms")  # fmt: skip


def crowded(maker: Maker) -> Policy:
    """A group of nearly all instances, which a rule of every group names as its source; the first one is outside."""
    policy = maker.policy(RULES, GROUPS)
    groups = tuple(
        replace(group, rules=(*group.rules[:-1], replace(group.rules[-1], peer=GroupPeer("crowd"))))
        for group in policy.security_groups
    )
    first, *others = policy.instances
    members = tuple(replace(each, security_groups=(*each.security_groups, "crowd")) for each in others)
    return replace(policy, security_groups=(*groups, SecurityGroup("crowd")), instances=(first, *members),
                   quotas=replace(policy.quotas, security_groups=GROUPS + 1))  # fmt: skip


def measure_pair(
    benchmark: Any, maker: Maker, results: Results, rounds: int, title: str, policy: Policy, there: Any, back: Any
) -> None:
    """A change and the one that takes it back, each measured as often."""
    engine = Engine(policy)
    applied = []

    def both() -> None:
        applied.append(engine.apply(there, 0))
        applied.append(engine.apply(back, 0))

    both()      # the first time compiles the port classes of both
    results.measure(
        benchmark, section(maker), title, timed(both), items=2,
        yardsticks={"whole": Yardstick("compiling it whole", 1, timed(lambda: compile_policy(policy)))}, rounds=rounds,
    )  # fmt: skip
    tables = [done.rule_tables_built for done in applied]
    benchmark.extra_info.update(rule_tables=applied[-1].rule_tables, rule_tables_built=max(tables))
    assert engine.policy.security_groups == policy.security_groups
    assert max(tables) < applied[-1].rule_tables


@pytest.mark.benchmark(timer=clock)
def test_rule_modified(benchmark: Any, maker: Maker, results: Results, rounds: int) -> None:
    policy = maker.policy(RULES, GROUPS)
    group = policy.security_groups[GROUPS // 2]
    rule = group.rules[2]
    wider = replace(rule, ports=((rule.ports[0][0], 65535),)) if rule.ports else replace(rule, protocol=6)
    measure_pair(
        benchmark, maker, results, rounds, "a rule modified", policy, ModifyRule(group.name, rule.id, wider),
        ModifyRule(group.name, rule.id, rule),
    )  # fmt: skip


@pytest.mark.benchmark(timer=clock)
def test_member_of_a_group_that_all_groups_name(benchmark: Any, maker: Maker, results: Results, rounds: int) -> None:
    policy = crowded(maker)
    name = policy.instances[0].name
    measure_pair(
        benchmark, maker, results, rounds, f"a member more, of {maker.option.instances:,}", policy,
        AddMember("crowd", name), RemoveMember("crowd", name),
    )  # fmt: skip


@pytest.mark.benchmark(timer=clock)
def test_clearing(benchmark: Any, maker: Maker, results: Results, rounds: int) -> None:
    """The walk over the table: a change that concerns every connection, and cuts none of them."""
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

    results.measure(
        benchmark, Section("the walk over the table", "connection"), f"{allowed:,} connections", timed(walk),
        items=allowed, yardsticks={}, rounds=rounds,
    )  # fmt: skip
    assert engine.dataplane.counters["live_tuples"] == allowed > connections // 2


@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize("name", ["one-side-10k", "one-side-1m"])
def test_established_path_with_a_change_to_come(
    benchmark: Any, name: str, maker: Maker, results: Results, rounds: int, tmp_path: Path
) -> None:
    """Packets never pay: a replay whose policy will change after the last packet, against one whose will not."""
    workload = WORKLOADS[name]
    policy = maker.policy(family=workload.family)
    path = tmp_path / "changes.yaml"
    path.write_text(
        f"changes:\n  - {{at: 1000000000, remove_rule: {{group: {policy.security_groups[0].name}, "
        f"rule: {policy.security_groups[0].rules[0].id}}}}}\n"
    )
    with maker.capture(workload, maker.option.packets) as made:
        def run(**more: Any) -> float:
            result = replay(policy, made.path, mode="verbatim", midstream="deny", **more)
            assert result.packets == made.packets
            return result.elapsed_seconds

        results.measure(
            benchmark, Section("with a change to come", "packet"), name, lambda: run(changes=path), items=made.packets,
            yardsticks={"without": Yardstick("no change file", made.packets, run)}, rounds=rounds,
        )  # fmt: skip
