"""``sgfast suggest``: no smaller set of rules allows what was seen, and none of them is without use (SPEC 10.15)."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_network
from itertools import combinations

from policy_changes import without_one_port

from sgfast import Policy
from sgfast.clouds.loading import parse_policy
from sgfast.policy.matching import Kind
from sgfast.policy.model import GroupPeer, Instance, Rule, SecurityGroup, Vpc
from sgfast.questions.suggesting import Limits
from sgfast.questions.suggesting.observing import TrafficTotals
from sgfast.questions.suggesting.rules import Drafter, Need, needs_of, suggest_rules


def small_case(rng: random.Random) -> tuple[Policy, dict[Kind, TrafficTotals]]:
    """One instance, asked by others that are in some of four groups, and by strangers."""
    groups = [SecurityGroup(name) for name in ("mine", "a", "b", "c", "d")]
    people = [Instance("me", "default", (ip_network("10.0.0.1"),), ("mine",))]
    for n in range(rng.randrange(1, 7)):
        member_of = tuple(rng.sample("abcd", rng.randrange(1, 4)))
        people.append(Instance(f"i{n}", "default", (ip_network(f"10.0.1.{n}"),), member_of))
    kinds = {}
    for person in people[1:]:
        for port in rng.sample((22, 80, 443), rng.randrange(4)):
            kinds[Kind(person.addresses[0].network_address.packed, b"\x0a\0\0\1", None, "me", 6, port)] = person.name
    found = {kind._replace(egress=name): TrafficTotals(1, 2, 3, 4, 5) for kind, name in kinds.items()}
    for n in range(rng.randrange(3)):
        found[Kind(bytes((198, 51, 100, n)), b"\x0a\0\0\1", None, "me", 6, 80)] = TrafficTotals(1, 2, 3, 4, 5)
    return Policy(security_groups=tuple(groups), instances=tuple(people)), found


def fewest(policy: Policy, kinds: dict[Kind, TrafficTotals]) -> int:
    """Inbound rules of ``me``: of all sets of peers that have everybody, those with the fewest others, and of these the
    smallest."""
    groups = [group.name for group in policy.security_groups]
    members = {name: {i.name for i in policy.instances if name in i.security_groups} for name in groups}
    asking = {kind.egress for kind in kinds if kind.egress}
    strangers = {kind.initiator for kind in kinds if not kind.egress}
    unions = {
        some: set().union(*(members[name] for name in some))
        for number in range(5) for some in combinations("abcd", number)
    }  # fmt: skip
    _, number = min((len(union - asking), len(some)) for some, union in unions.items() if asking <= union)
    return number + len(strangers)


def test_no_set_of_peers_is_smaller_and_none_is_without_use() -> None:
    rng = random.Random(20261125)
    print("seed 20261125")
    several = 0
    for _ in range(400):
        policy, kinds = small_case(rng)
        found = suggest_rules(policy, kinds, Limits())
        inbound = [each for each in found.rules if each.group == "mine"]
        assert len(inbound) == fewest(policy, kinds)
        several += len(inbound) > 2
        assert sum(each.evidence.connections for each in inbound) == len(kinds)
        judged = replace(policy, security_groups=found.groups)
        assert all(_allowed(judged, kind) for kind in kinds)
        for _, less in without_one_port(judged):
            assert not all(_allowed(less, kind) for kind in kinds)
    assert several > 50


def _allowed(policy: Policy, kind: Kind) -> bool:
    """Every side's rules, one after the other."""
    by_name = policy.instance_by_name
    for need in needs_of(kind):
        there = by_name[need.peer_instance].security_groups if need.peer_instance else ()
        for group in by_name[need.instance].security_groups:
            if any(_matches(rule, need, there) for rule in policy.group_by_name[group].rules):
                break
        else:
            return False
    return True


def _matches(rule: Rule, need: Need, groups: tuple[str, ...]) -> bool:
    if rule.direction != need.service.direction or need.service.port not in [a for a, b in rule.ports or () if a == b]:
        return False
    if isinstance(rule.peer, GroupPeer):
        return rule.peer.name in groups
    return isinstance(rule.peer, IPv4Network) and ip_address(need.peer) in rule.peer


def test_the_services_of_a_group_become_one_rule_per_peer() -> None:
    policy = parse_policy("""
version: 1
security_groups: [{name: web}, {name: db}, {name: all}]
instances:
  - {name: w1, addresses: [10.0.0.1], security_groups: [web, all]}
  - {name: w2, addresses: [10.0.0.2], security_groups: [web, all]}
  - {name: d1, addresses: [10.0.1.1], security_groups: [db, all]}
""")
    packed = {i.name: i.addresses[0].network_address.packed for i in policy.instances}
    kinds = {
        Kind(packed[a], packed[b], a, b, 6, port): TrafficTotals(1)
        for a, b, port in (("w1", "d1", 5432), ("w2", "d1", 5433), ("w1", "w2", 80), ("w2", "w1", 80))
    }
    found = suggest_rules(policy, kinds, Limits())
    assert [(r.group, r.rule.direction, r.rule.ports, r.rule.peer) for r in found.rules] == [
        ("web", "inbound", ((80, 80),), GroupPeer("web")),
        ("web", "outbound", ((80, 80), (5432, 5433)), GroupPeer("all")),
        ("db", "inbound", ((5432, 5433),), GroupPeer("web")),
    ]


def test_a_peer_group_gets_the_ports_of_its_own_members_alone() -> None:
    policy = parse_policy("""
version: 1
security_groups: [{name: web}, {name: users}, {name: admins}]
instances:
  - {name: w, addresses: [192.0.2.1], security_groups: [web]}
  - {name: u, addresses: [10.0.0.1], security_groups: [users]}
  - {name: a, addresses: [10.0.0.2], security_groups: [admins]}
""")
    packed = {i.name: i.addresses[0].network_address.packed for i in policy.instances}
    needs = [
        need for name, port in (("u", 443), ("a", 22))
        for need in needs_of(Kind(packed[name], packed["w"], name, "w", 6, port)) if need.instance == "w"
    ]  # fmt: skip
    # As sgfast check asks for them. Of a suggestion, what no connection needs would be taken out later.
    terms = dict(Drafter(policy, Limits()).terms(needs))
    assert terms == {GroupPeer("users"): {443}, GroupPeer("admins"): {22}}


def test_a_group_in_another_region_is_no_peer() -> None:
    instances = (
        Instance("near", "a", (ip_network("10.0.0.1"),), ("g",)),
        Instance("far", "b", (ip_network("10.1.0.1"),), ("g",)),
    )
    policy = Policy(
        vpcs=(Vpc("a", "north"), Vpc("b", "south")), peerings=frozenset((frozenset("ab"),)),
        security_groups=(SecurityGroup("g"),), instances=instances,
    )  # fmt: skip
    kind = Kind(b"\x0a\0\0\1", b"\x0a\1\0\1", "near", "far", 6, 80)
    peers = [str(each.rule.peer) for each in suggest_rules(policy, {kind: TrafficTotals(1)}, Limits()).rules]
    assert peers == ["10.0.0.1/32", "10.1.0.1/32"]


def test_rule_is_not_suggested_for_what_another_one_allows_by_an_instances_prefix() -> None:
    """SPEC 4.14: a and the router that has its address ask web, and one group is enough for both."""
    text = """
version: 1
settings: {group_members: BY}
security_groups: [{name: web}, {name: a}, {name: routers}]
instances:
  - {name: w, addresses: [192.0.2.1], security_groups: [web]}
  - {name: a, addresses: [10.0.0.9], security_groups: [a]}
  - {name: r, addresses: [10.0.0.0/24], security_groups: [routers]}
"""
    target = ip_address("192.0.2.1").packed
    kinds = {
        Kind(ip_address(source).packed, target, name, "w", 6, 80): TrafficTotals(1)
        for source, name in (("10.0.0.9", "a"), ("10.0.0.7", "r"))
    }

    def peers(by: str) -> list[str]:
        rules = suggest_rules(parse_policy(text.replace("BY", by)), kinds, Limits()).rules
        return [str(each.rule.peer) for each in rules if each.group == "web"]

    assert len(peers("by-owner")) == 2
    assert peers("by-address") == [str(GroupPeer("routers"))]
