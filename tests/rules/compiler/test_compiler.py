"""The cost of compiling a policy (SPEC 11.1), and what must be free."""

from __future__ import annotations

import gc
import random
import tracemalloc
from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_network

import numpy as np
import pytest
from effort import some
from policy_changes import Changer
from traffic import NETWORKS, ODD_DESTINATIONS, OUTSIDE, PORTS, drawn, routed

from sgfast import HEADER_DTYPE, Engine, Policy
from sgfast.base.errors import AmbiguousAddress, PolicyError
from sgfast.clouds.loading import parse_policy
from sgfast.core.classify.classifier import RuleArrays
from sgfast.policy.changed_policy import apply_change, apply_changes
from sgfast.policy.changes import (
    AddAddress,
    AddGroup,
    AddInstance,
    AddMember,
    AddRule,
    Change,
    ModifyRule,
    RemoveInstance,
    RemoveMember,
    RemoveRule,
)
from sgfast.policy.model import GroupPeer, Instance, Rule, SecurityGroup, Vpc
from sgfast.rules.compiler import Compiler, Numbering, compile_policy
from sgfast.rules.compiler.ports import PortClasses


def policy(groups: int, instances: int, peer: str | None = None) -> Policy:
    """Each group allows a port of its own, from `peer` or from an address of its own."""
    return Policy(
        security_groups=tuple(
            SecurityGroup(
                f"g{n}",
                (
                    Rule(
                        f"g{n}/inbound/1", "inbound", 4, protocol=6, ports=((n + 1, n + 1),),
                        peer=GroupPeer(peer) if peer else ip_network(f"198.18.{n >> 8}.{n & 255}/32"),
                    ),
                ),
            )
            for n in range(groups)
        ),
        instances=tuple(
            Instance(f"i{n}", "default", (ip_network((10 << 24) + n),), (f"g{n % groups}",)) for n in range(instances)
        ),
    )  # fmt: skip


def count_tables() -> int:
    """Count the rule tables in memory."""
    gc.collect()
    return sum(type(each) is RuleArrays for each in gc.get_objects())


def test_a_policy_that_would_exhaust_memory_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgfast.rules.compiler.tables.MAX_TABLE_BYTES", 500_000)
    # The classes of 300 groups take 360,000 bytes. While they are made, those of a table take twice as many.
    assert compile_policy(policy(300, 300)).rule_tables > 300
    with pytest.raises(PolicyError, match="the rules of 400 groups distinguish 402 kinds of address") as refused:
        compile_policy(policy(400, 400))
    assert "\n" not in str(refused.value)


def test_a_table_that_was_made_leaves_more_memory_than_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each of the two tables has 63,000 cells. It takes 126,000 bytes, and 252,000 while it is made. A table becomes bit
    # vectors if making it takes more than half of the memory that is left.
    monkeypatch.setattr("sgfast.rules.compiler.tables.MAX_TABLE_BYTES", 720_000)
    rules = [
        tuple(
            Rule(f"{g}/{n}", "inbound", 4, protocol=6, ports=((n + 1,) * 2,), peer=ip_network(f"20.{g}.{n}.0/24"))
            for n in range(250)
        )
        for g in range(2)
    ]
    groups = tuple(SecurityGroup(f"g{g}", some) for g, some in enumerate(rules))
    instances = tuple(Instance(f"i{g}", "default", (ip_network(f"10.0.0.{g}"),), (f"g{g}",)) for g in range(2))
    compiled = compile_policy(Policy(security_groups=groups, instances=instances))
    assert (compiled.rule_tables, compiled.bit_vector_tables) == (3, 0)


def test_tables_do_not_grow_with_the_number_of_instances() -> None:
    few, many = compile_policy(policy(10, 100, "g0")), compile_policy(policy(10, 10_000, "g0"))
    assert (few.rule_tables, few.address_classes) == (many.rule_tables, many.address_classes)


def test_groups_no_rule_names_make_no_classes() -> None:
    # No rule names g1 to g9, so their members' addresses are in one class.
    named_once = compile_policy(policy(10, 100, "g0"))
    assert named_once.address_classes == 3      # unowned and other IPv4, IPv6, members of g0


def test_memory_grows_with_groups_not_with_the_ways_they_are_combined() -> None:
    # 100 groups of 50 rules; nearly every instance has its own set of five.
    rng = random.Random(5)
    groups = tuple(
        SecurityGroup(
            f"g{g}",
            tuple(
                Rule(
                    f"g{g}/{n}", "inbound", 4, protocol=6, ports=((first, first + rng.randrange(3000)),),
                    peer=ip_network((rng.getrandbits(16) << 16, 16)), action=rng.choice(("allow", "allow", "deny")),
                    priority=rng.randint(1, 100),
                )
                for n, first in enumerate(rng.sample(range(1, 60_000), 50))
            ),
        )
        for g in range(100)
    )  # fmt: skip
    instances = tuple(
        Instance(
            f"i{n}", "default", (ip_network((10 << 24) + n),), tuple(f"g{g}" for g in rng.sample(range(100), 5))
        )
        for n in range(1000)
    )
    compiled = compile_policy(Policy(security_groups=groups, instances=instances))
    assert compiled.nbytes < 128 << 20
    rules_of = {group.name: group.rules for group in groups}
    for n in range(0, 1000, 7):
        candidates = [rule for name in instances[n].security_groups for rule in rules_of[name]]
        for aim in rng.sample(candidates, 20):
            assert isinstance(aim.peer, IPv4Network) and aim.ports is not None
            peer, port = aim.peer[rng.randrange(65536)], min(65535, rng.randint(*aim.ports[0]))
            matching = [
                rule for rule in candidates
                if isinstance(rule.peer, IPv4Network) and rule.ports and peer in rule.peer
                and rule.ports[0][0] <= port <= rule.ports[0][1]
            ]  # fmt: skip
            number = compiled.classifier.rule_for(n, True, peer.packed, 6, port)
            best = min(matching, key=lambda rule: (rule.priority, rule.action != "deny"))
            won = compiled.rules[number]
            assert (won.priority, won.action) == (best.priority, best.action)


def test_groups_that_many_sets_of_groups_have_in_common_are_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgfast.rules.compiler.tables.MAX_JOINED_STEPS", 0)
    plain = policy(42, 40)
    mixed = replace(plain, instances=tuple(
        replace(each, security_groups=("g0", "g1", f"g{n + 2}")) for n, each in enumerate(plain.instances)
    ))  # fmt: skip
    compiled = compile_policy(mixed)
    # g0 and g1 have one table together. Each of the 40 other groups has its own. Outbound has an empty one.
    assert compiled.rule_tables == 42
    for n in range(42):
        for instance in mixed.instances[:3]:
            rule = compiled.classifier.rule_for(
                compiled.numbering.of_instance(instance), True, ip_address(f"198.18.0.{n}").packed, 6, n + 1
            )
            assert (rule >= 0) == (f"g{n}" in instance.security_groups), (n, instance)
    monkeypatch.setattr("sgfast.rules.compiler.tables.MAX_COMMON_STEPS", 0)
    assert compile_policy(mixed).rule_tables == 43
    # Rules that only few sets have in common are not put into a shared table.
    monkeypatch.setattr("sgfast.rules.compiler.tables.MAX_COMMON_STEPS", 1 << 40)
    few = tuple(
        replace(each, security_groups=("g0", "g1", f"g{n + 2}") if n < 7 else (f"g{n + 2}", "g41"))
        for n, each in enumerate(plain.instances)
    )
    assert compile_policy(replace(plain, instances=few)).rule_tables == 43


def test_many_rules_with_ports_of_their_own_do_not_multiply() -> None:
    # A matrix of port ranges and rules would be large and mostly empty here.
    count = some(4_000, 10_000)
    rules = tuple(
        Rule(f"g/{n}", "inbound", 4, protocol=6, ports=((3 * n + 1, 3 * n + 2),), peer=ip_network((n << 12, 32)))
        for n in range(count)
    )
    instances = (Instance("a", "default", (ip_network("10.0.0.5/32"),), ("g",)),)
    one = Policy(security_groups=(SecurityGroup("g", rules),), instances=instances)
    tracemalloc.start()
    try:
        compiled = compile_policy(one)
        assert tracemalloc.get_traced_memory()[1] < (128 << 20) * count / 10_000
    finally:
        tracemalloc.stop()
    assert compiled.bit_vector_tables == 1
    for n in (0, 1, 63, 64, count - 1, count - 2):
        peer = ip_network((n << 12, 32))[0].packed
        assert [compiled.classifier.rule_for(0, True, peer, 6, port) for port in range(3 * n, 3 * n + 4)] == [
            -1, n, n, -1
        ]  # fmt: skip


def test_running_out_of_memory_names_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sgfast.rules.compiler.rule_tables", exhausted)
    with pytest.raises(PolicyError, match=r"^<policy>: not enough memory"):
        compile_policy(policy(1, 1))


def test_a_later_policy_makes_only_the_tables_a_change_touches() -> None:
    first = policy(100, 1000, "g0")
    compiler = Compiler()
    assert compiler.compile(first).rule_tables_built > 100
    rule = first.security_groups[7].rules[0]
    described = apply_change(first, ModifyRule("g7", rule.id, replace(rule, description="x"))).policy
    wider = apply_change(described, ModifyRule("g7", rule.id, replace(rule, ports=((1, 60_000),)))).policy
    joined = apply_change(wider, AddMember("g0", "i5")).policy
    left = apply_change(joined, RemoveMember("g5", "i5")).policy
    for later in (described, wider, joined, left):
        compiled = compiler.compile(later)
        assert compiled.rule_tables_built <= 3
        fresh = compile_policy(later)
        for instance in (5, 7, 107):
            for peer in ("10.0.0.5", "10.0.0.100", "10.0.0.7"):
                for port in (6, 8, 9, 101, 30_000, 60_001):
                    question = (instance, True, ip_address(peer).packed, 6, port)
                    assert compiled.classifier.rule_for(*question) == fresh.classifier.rule_for(*question), question


@pytest.mark.parametrize(("sets", "common"), [(1 << 40, 0), (0, 1 << 40), (0, 0)], ids=["joined", "common", "apart"])
def test_members_that_come_and_go_leave_no_pile_of_tables_and_no_rule_of_another_set_of_groups(
    sets: int, common: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each set of groups gets tables when somebody is in it, and few remain of sets that nobody is in any more."""
    monkeypatch.setattr("sgfast.rules.compiler.tables.MAX_JOINED_STEPS", sets)
    monkeypatch.setattr("sgfast.rules.compiler.tables.MAX_COMMON_STEPS", common)
    seed = 5
    print(f"seed {seed}")
    rng = random.Random(seed)
    before = count_tables()
    now, gone = policy(6, 10), list[Instance]()
    compiler = Compiler()
    compiler.compile(now)
    for step in range(some(200, 1000)):
        group, instance = rng.choice(now.security_groups).name, rng.choice(now.instances)
        change: Change = AddMember(group, instance.name)
        if gone and rng.random() < 0.3:
            change = AddInstance(gone.pop())
        elif len(instance.security_groups) > 1 and group in instance.security_groups:
            change = RemoveMember(group, instance.name)
        elif group in instance.security_groups:
            change = RemoveInstance(instance.name)
            gone.append(instance)
        now = apply_change(now, change).policy
        compiled, fresh = compiler.compile(now), compile_policy(now)
        for each in now.instances:
            for n in range(6):
                peer, won = ip_address(f"198.18.0.{n}").packed, []
                for c in (compiled, fresh):
                    rule = c.classifier.rule_for(c.numbering.of_instance(each), True, peer, 6, n + 1)
                    won.append(c.rules[rule].id if rule >= 0 else None)
                assert won == [f"g{n}/inbound/1" if f"g{n}" in each.security_groups else None] * 2, (step, each)
        # A set of groups has at most two tables. Sets without instances keep theirs if they are the fewer ones.
        assert compiled.rule_tables <= 4 * len({each.security_groups for each in now.instances})
    del fresh
    assert count_tables() - before <= 2 * compiled.rule_tables


def test_what_changes_more_than_rules_and_members_is_compiled_whole_and_right() -> None:
    first = policy(20, 200, "g0")
    compiler = Compiler()
    compiler.compile(first)
    near = replace(first.security_groups[3].rules[0], peer=ip_network("10.0.0.0/25"))
    changes: list[Change] = [
        ModifyRule("g3", near.id, near), AddInstance(Instance("new", "default", (ip_network("10.0.0.3/32"),), ("g0",))),
        RemoveInstance("i3"), AddGroup(SecurityGroup("fresh", (replace(near, id="fresh/1", peer=GroupPeer("g7")),))),
        AddMember("fresh", "i4"), AddAddress("i4", ip_network("10.1.0.0/16")),
    ]  # fmt: skip
    later = first
    for change in changes:
        try:
            later = apply_change(later, change).policy
        except PolicyError:
            continue        # i3 owns the address until it is deleted
        compiled, fresh = compiler.compile(later), compile_policy(later)
        for instance in later.instances[:12]:
            for peer in ("10.0.0.3", "10.0.0.7", "10.0.0.200", "10.1.2.3"):
                for port in (1, 4, 5, 8):
                    packed = ip_address(peer).packed
                    here, there = (
                        c.classifier.rule_for(c.numbering.of_instance(instance), True, packed, 6, port)
                        for c in (compiled, fresh)
                    )
                    names = [c.rules[n].id if n >= 0 else None for c, n in ((compiled, here), (fresh, there))]
                    assert names[0] == names[1], (change, instance.name, peer, port)


ENDS = {
    family: sorted(
        {*OUTSIDE[family], *ODD_DESTINATIONS[family], *(str(end) for text in NETWORKS[family] for end in
                                                        (ip_network(text)[0], ip_network(text)[-1]))}
        | {text for n in range(16) for text in ((f"10.0.{n % 2}.{n}", f"10.{n}.0.1") if family == 4 else
                                                (f"2001:db8:0:{n % 2}::{n}", f"2001:db8:{n + 0x100:x}::1"))}
    )
    for family in (4, 6)
}  # fmt: skip


def openers(rng: np.random.Generator, wanted: int) -> np.ndarray:
    """Random packets between the addresses that ``Changer`` and ``policies`` know, and others."""
    rows = np.zeros(2 * wanted, dtype=HEADER_DTYPE)
    rows["protocol"] = rng.choice((6, 6, 17, 1, 58, 47), len(rows))
    rows["dport"] = rng.choice((*PORTS, 23, 79, 81, 400, 422, 423, 65534), len(rows))
    for family, some_rows in ((4, rows[:wanted]), (6, rows[wanted:])):
        some_rows["family"] = family
        known = np.array([list(ip_address(text).packed.ljust(16, b"\0")) for text in ENDS[family]], dtype=np.uint8)
        for end in ("src", "dst"):
            some_rows[end] = known[rng.integers(len(known), size=wanted)]
    return rows


@drawn(31, some(10, 400))
def test_every_rule_wins_as_in_a_fresh_compilation_after_changes_of_every_kind(policy: Policy, case_seed: int) -> None:
    rng = np.random.default_rng(case_seed)
    changer = Changer(rng)
    now = routed(policy, rng) if case_seed % 3 == 0 else policy
    vpc = (None, "red")[case_seed % 2]
    compiler = Compiler(vpc)
    for _ in range(some(12, 40)):
        changes = changer.changes(now)
        now = apply_changes(now, changes).policy
        renewed = [change.instance for change in changes if isinstance(change, RemoveInstance)]
        try:
            fresh = compile_policy(now, vpc)
        except AmbiguousAddress:
            with pytest.raises(AmbiguousAddress):
                compiler.compile(now, renewed)
            return
        compiled = compiler.compile(now, renewed)
        asked = openers(rng, 200)
        won = []
        for each in (compiled, fresh):
            winners = np.zeros((len(asked), 2), dtype=np.int32)
            each.classifier.match(asked, winners)
            owners = [each.classifier.owners_of(asked[end], asked["family"]) for end in ("src", "dst")]
            won.append((
                [[each.rules[n].id if n >= 0 else n for n in pair] for pair in winners.tolist()],
                [[each.instances[n].name if n >= 0 else None for n in of_end.tolist()] for of_end in owners],
            ))  # fmt: skip
        assert won[0] == won[1], changes


def test_rules_with_cidrs_nobody_named_before_win_as_in_a_fresh_compilation() -> None:
    # Prefixes inside and around named ones, owned or not, named again and no longer: classes are refined but never
    # mixed up.
    rng = random.Random(4)
    wide = [f"{a}/{n}" for a in ("10.0.0.0", "10.0.0.128", "198.18.0.0", "128.0.0.0") for n in (1, 8, 14, 25, 28, 31)]
    networks = [ip_network(text, strict=False) for text in wide]
    now = replace(policy(6, 40, "g0"), quotas=replace(policy(1, 1).quotas, rules_per_group=99))
    compiler = Compiler()
    compiler.compile(now)
    built = []
    for step in range(60):
        group = rng.choice(now.security_groups)
        rule = rng.choice(group.rules)
        port = rng.choice((1, 5, 6, 7000 + step))
        new = replace(rule, peer=rng.choice(networks), ports=((port, port + rng.choice((0, 3))),))
        change: Change = ModifyRule(group.name, rule.id, new)
        if step % 3 == 2:
            more = replace(new, id="", action=rng.choice(("allow", "deny")), priority=rng.choice((1, 2)))
            change = AddRule(group.name, more)
        elif step % 7 == 5:
            address = ip_network(f"10.0.0.{100 + step}/32")
            change = AddInstance(Instance(f"new{step}", "default", (address,), (group.name,)))
        now = apply_change(now, change).policy
        compiled, fresh = compiler.compile(now), compile_policy(now)
        built.append(compiled.rule_tables_built)
        for instance in rng.sample(now.instances, 6):
            for peer in ("10.0.0.0", "10.0.0.1", "10.0.0.130", "10.0.0.255", "10.3.9.9", "198.18.0.3", "198.19.255.255",
                         "200.1.1.1", "127.0.0.1", f"10.0.0.{100 + step}"):  # fmt: skip
                for port in (1, 3, 6, 8, 7000 + step):
                    packed = ip_address(peer).packed
                    names = []
                    for c in (compiled, fresh):
                        n = c.classifier.rule_for(c.numbering.of_instance(instance), True, packed, 6, port)
                        names.append(c.rules[n].id if n >= 0 else None)
                    assert names[0] == names[1], (step, change, instance.name, peer, port)
    # Mostly the two tables of the changed group.
    assert sorted(built)[len(built) // 2] <= 2


@pytest.mark.parametrize(("cells", "left_after"), [(1 << 20, 64), (1 << 20, 2), (20, 64)],
                         ids=["plain", "built-anew-often", "bit-vectors"])  # fmt: skip
def test_rules_that_overlap_win_as_in_a_fresh_compilation_whichever_come_and_go(
    cells: int, left_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table is made from the one before a change. Nested prefixes, port ranges, groups as peers and equal rules, of
    several priorities, so that a removed rule uncovers others.
    """
    monkeypatch.setattr("sgfast.rules.compiler.tables.MAX_TABLE_CELLS", cells)
    monkeypatch.setattr("sgfast.rules.compiler.tables.MAX_RULES_CHANGED", left_after)
    seed = 8
    print(f"seed {seed}")
    rng = random.Random(seed)
    hosts = [f"10.0.0.{n}" for n in range(12)] + ["10.0.1.1", "20.0.0.1"]
    peers = [None, GroupPeer("g0"), GroupPeer("g1"), *(ip_network((10 << 24, n)) for n in (8, 24, 29, 30, 31, 32))]

    def rule() -> Rule:
        made = Rule("", "inbound", 4, 6, peer=rng.choice(peers), priority=rng.choice((1, 1, 2, 3)))
        if rng.random() < 0.1:
            return replace(made, direction="outbound", protocol=None)
        first, last = sorted(rng.choices((1, 3, 5, 7, 80), k=2))
        return replace(made, ports=((first, last),), action=rng.choice(("allow", "deny")))

    now = policy(2, 12, "g0")
    # Two instances are in both groups, whose tables are joined.
    now = apply_changes(now, [AddMember("g0", "i1"), AddMember("g1", "i2")]).policy
    now = apply_changes(now, [AddRule(f"g{n % 2}", rule()) for n in range(60)]).policy
    compiler = Compiler()
    compiler.compile(now)
    for step in range(some(18, 200)):
        changes: list[Change] = []
        for _ in range(rng.choice((1, 1, 1, 4))):
            group = now.group_by_name[rng.choice(("g0", "g1"))]
            old = rng.choice(group.rules)
            changes.append(rng.choice((
                AddRule(group.name, rule()), RemoveRule(group.name, old.id),
                ModifyRule(group.name, old.id, replace(rule(), direction=old.direction)),
            )))  # fmt: skip
            now = apply_change(now, changes[-1]).policy
        if step % 10 == 9:
            # Away and back at another place, all at once.
            group = now.security_groups[0]
            first = group.rules[0]
            now = apply_changes(now, [RemoveRule(group.name, first.id), AddRule(group.name, first)]).policy
        compiled, fresh = compiler.compile(now), compile_policy(now)
        for instance in range(4):
            for peer in hosts:
                for port in (1, 2, 4, 6, 80, 81):
                    question = (instance, port != 2, ip_address(peer).packed, 6, port)
                    names = [
                        c.rules[n].id if n >= 0 else None
                        for c in (compiled, fresh) for n in [c.classifier.rule_for(*question)]
                    ]  # fmt: skip
                    assert names[0] == names[1], (step, changes, question)
    assert (compiled.bit_vector_tables > 0) == (cells == 20)


def test_a_rule_that_divided_what_another_one_matches_uncovers_it_when_it_goes() -> None:
    wide = Rule("g0/wide", "inbound", 4, 6, ((1, 100),), peer=ip_network("20.0.0.0/8"))
    narrow = Rule("g0/narrow", "inbound", 4, 6, ((50, 60),), peer=ip_network("20.1.0.0/16"), action="deny")
    now = policy(1, 2)
    now = apply_changes(now, [RemoveRule("g0", rule.id) for rule in now.group_by_name["g0"].rules]).policy
    compiler = Compiler()
    won = []
    for change in (AddRule("g0", wide), AddRule("g0", narrow), RemoveRule("g0", "g0/narrow")):
        now = apply_change(now, change).policy
        compiled = compiler.compile(now)
        for peer in ("20.1.0.1", "20.2.0.1"):
            for port in (55, 70):
                n = compiled.classifier.rule_for(0, True, ip_address(peer).packed, 6, port)
                won.append(compiled.rules[n].id if n >= 0 else None)
    assert won == ["g0/wide"] * 4 + ["g0/narrow"] + ["g0/wide"] * 7


def test_a_table_for_which_there_is_no_room_beside_what_removed_rules_divided_is_built_anew(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    now = policy(2, 4)
    compiler = Compiler()
    compiler.compile(now)
    group = now.security_groups[0]
    change = AddRule(group.name, Rule("", "inbound", 4, 6, ((50, 60),), peer=ip_network("20.0.0.0/8")))

    def refused(*_: object) -> None:
        raise PolicyError("no room")

    monkeypatch.setattr("sgfast.rules.compiler.tables._Builder._changed", refused)
    later = compiler.compile(apply_change(now, change).policy)
    n = later.classifier.rule_for(0, True, ip_address("20.1.1.1").packed, 6, 55)
    assert n >= 0 and later.rules[n].ports == ((50, 60),)


def test_wide_rules_removed_at_once_uncover_what_a_fresh_compilation_finds() -> None:
    """They overlap so many others that the table is built anew."""
    wide = [Rule(f"g0/wide{n}", "inbound", 4, 6, ((1, 60000),), peer=ip_network("20.0.0.0/8")) for n in range(3)]
    narrow = [
        Rule(f"g0/{n}", "inbound", 4, 6, ((n + 1, n + 1),), peer=ip_network((20 << 24 | n << 8, 24)), action="deny")
        for n in range(120)
    ]
    now = policy(1, 2)
    group = replace(now.security_groups[0], rules=(*wide, *narrow))
    now = replace(now, security_groups=(group,), quotas=replace(now.quotas, rules_per_group=1000))
    compiler = Compiler()
    compiler.compile(now)
    now = apply_changes(now, [RemoveRule("g0", rule.id) for rule in wide]).policy
    compiled, fresh = compiler.compile(now), compile_policy(now)
    for n in (0, 1, 60, 119):
        for port in (n + 1, n + 2):
            question = 0, True, ip_address((20 << 24) + (n << 8)).packed, 6, port
            found = {c.rules[r].id if (r := c.classifier.rule_for(*question)) >= 0 else None for c in (compiled, fresh)}
            assert found == ({f"g0/{n}"} if port == n + 1 else {None})


def test_copies_of_a_compiler_know_nothing_of_each_other() -> None:
    """The shards of a clustered replay continue from one saved compiler, each with its own changes."""
    first = policy(10, 20)
    kept = Compiler()
    assert kept.compile(first).rule_tables_built >= 10
    shut = first
    for group in first.security_groups:
        denying = replace(group.rules[0], action="deny")
        shut = apply_change(shut, ModifyRule(group.name, denying.id, denying)).policy

    def compiled(compiler: Compiler, now: Policy) -> tuple[str, bool]:
        """The verdict on a packet, and whether group tables were built for it."""
        found = compiler.compile(now)
        packed = ip_address("198.18.0.0").packed
        rule = found.classifier.rule_for(found.numbering.of_instance(now.instances[0]), True, packed, 6, 1)
        return found.rules[rule].action, found.rule_tables_built > 1

    one, other = kept.copy(), kept.copy()
    assert compiled(one, shut) == ("deny", True) and compiled(one, shut) == ("deny", False)
    assert compiled(other, first) == ("allow", False) and compiled(kept.copy(), first) == ("allow", False)
    assert compiled(one, shut) == ("deny", False)


def test_an_address_group_holds_what_other_rules_name_within_its_prefixes() -> None:
    engine = Engine(parse_policy("""
        version: 1
        address_groups: [{name: known, addresses: [20.0.0.0/8, 30.0.0.0/8, 20.7.0.0/16]}]
        security_groups:
          - name: g
            rules:
              - {direction: inbound, protocol: tcp, ports: 80, source: known}
              - {direction: inbound, protocol: tcp, ports: 81, source: 20.1.0.0/16}
              - {direction: inbound, protocol: tcp, ports: 82, source: 30.255.255.255/32}
        instances: [{name: a, addresses: [10.0.0.1], security_groups: [g]}]
    """))
    for source, allowed in (
        ("20.0.0.0", True), ("20.1.2.3", True), ("20.7.0.1", True), ("20.255.255.255", True), ("30.1.1.1", True),
        ("30.255.255.255", True), ("19.255.255.255", False), ("21.0.0.0", False), ("31.0.0.0", False),
    ):  # fmt: skip
        assert (engine.check(source, "10.0.0.1", "tcp", sport=1, dport=80).verdict == "allow") == allowed, source


def test_instances_that_come_later_are_in_their_own_vpc_not_in_the_first() -> None:
    both = ("inbound", "outbound")
    group = SecurityGroup("any", tuple(Rule(f"any/{way}/1", way, 4) for way in both))     # type: ignore[arg-type]
    red, blue, more = (
        Instance(name, vpc, (ip_network(address),), ("any",))
        for name, vpc, address in (("r", "red", "10.0.0.1"), ("b", "blue", "10.0.0.2"), ("m", "blue", "10.0.0.3"))
    )
    engine = Engine(Policy(vpcs=(Vpc("red"), Vpc("blue")), security_groups=(group,), instances=(red,)))
    for each in (blue, more):
        engine.apply(AddInstance(each), 0)
    reasons = [engine.check(a, b, "tcp", sport=40000, dport=80).reason for a, b in ("rb", "rm", "bm", "mr")]
    assert reasons == ["vpc-isolated", "vpc-isolated", "rule", "vpc-isolated"]


def test_port_classes_tell_apart_what_a_later_rule_does_wherever_its_ranges_begin_and_end() -> None:
    divided = kept = 0
    for seed in range(some(100, 1000)):
        print(f"seed {seed}")
        rng = np.random.default_rng(seed)
        ports = PortClasses(())
        for _ in range(12):
            bounds = np.sort(rng.choice([*range(6), 65534, 65535], 2 * int(rng.integers(1, 3)), replace=False))
            ranges = tuple((int(a), int(b)) for a, b in bounds.reshape(-1, 2))
            rule = Rule("", "inbound", 4, int(rng.choice([6, 17])), None if rng.integers(8) == 0 else ranges)
            later = ports.extended([rule])
            divided += later is not ports
            kept += later is ports
            ports = later
            if rule.ports is not None and rule.protocol is not None:
                matched = np.zeros(65536, dtype=bool)
                for first, last in ranges:
                    matched[first : last + 1] = True
                assert (np.isin(ports.by_port[rule.protocol], ports.matching(rule)) == matched).all()
    assert divided > 100 and kept > 100


def test_numbers_of_a_later_policy_do_not_reach_the_numbering_before_it() -> None:
    """A change that is refused leaves its numbering behind, and the engine goes on with the one before."""
    before = Numbering().after(policy(2, 2))
    rules, (numbers, _) = list(before.rules), before.numbers
    known = dict(numbers)
    more = apply_change(policy(2, 2), AddRule("g0", Rule("new", "inbound", 4))).policy
    after = before.after(more)
    assert (len(after.rules), after.numbers[0]["g0", "new"]) == (3, 2)
    assert (before.rules, before.numbers[0]) == (rules, known)
