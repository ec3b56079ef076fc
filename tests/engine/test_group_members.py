"""Who is in the group that a rule names: by the owner of an address, or by all that have it (SPEC 4.11, 4.14)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from all_openers import ADDRESSES
from checked_policies import BLOCKS, GROUPS, TCP, policies, views_exist
from effort import some
from hypothesis import HealthCheck, Phase, assume, given, note, seed, settings
from hypothesis import strategies as st
from scenario import policy_of, run
from winners import winner

from sgfast import Engine
from sgfast.base.errors import PolicyError
from sgfast.policy.changes import (
    AddAddress,
    AddInstance,
    AddMember,
    AddRule,
    Change,
    RemoveAddress,
    RemoveInstance,
    RemoveMember,
    RemoveRule,
)
from sgfast.policy.model import GroupPeer, Instance, Policy, Rule
from sgfast.reference.engine import ReferenceEngine
from sgfast.rules.compiler import Compiler

# A router of group g has all of 10.0.0.0/8; the other instances are in it, but not in g.
ROUTED = """
settings: {group_members: by-address, on_change: forget-unmatched}
vpcs: [{name: v, region: here}, {name: w, region: REGION}]
peerings: [[v, w]]
security_groups:
  - name: g
    rules: [{direction: outbound, protocol: udp}, {direction: outbound, protocol: udp, ethertype: IPv6}]
  - name: other
    rules: [{direction: outbound, protocol: udp}, {direction: outbound, protocol: udp, ethertype: IPv6}]
  - name: target
    rules:
      - {direction: inbound, protocol: udp, ports: 53, source: g}
      - {direction: inbound, protocol: udp, ports: 53, source: g, ethertype: IPv6}
      - {direction: outbound, protocol: udp, destination: g}
instances:
  - {name: router, vpc: v, addresses: [10.0.0.0/8, 224.0.0.0/3], security_groups: [g]}
  - {name: inside, vpc: v, addresses: [10.1.2.3, "2001:db8::3"], security_groups: [other]}
  - {name: subnet, vpc: v, addresses: [10.9.0.0/16], security_groups: [other]}
  - {name: deep, vpc: v, addresses: [10.9.9.9], security_groups: [other]}
  - {name: web, vpc: v, addresses: [192.0.2.5, "2001:db8::5"], security_groups: [target]}
  - {name: peer, vpc: w, addresses: [192.168.0.9, "2001:db8:1::9"], security_groups: [target]}
"""
HERE = ROUTED.replace("REGION", "here")
OWNED = HERE.replace("by-address", "by-owner")

CHANGES: dict[str, Change | list[Change]] = {
    "leave": [AddMember("other", "router"), RemoveMember("g", "router")],
    "come": AddMember("g", "router"),
}
MEMBERS = """
    udp inside:9 > web:53          -> VERDICT REASON
    udp deep:9 > web:53            -> VERDICT REASON
    udp 10.9.0.1:9 > web:53        -> VERDICT REASON
    udp web:9 > inside:1           -> deny no-rule; egress EGRESS
    udp inside:9 > peer:53         -> VERDICT REASON
    # The router's own filter judges what is the router's alone, in either case.
    udp 10.200.0.1:9 > web:53      -> allow rule target/inbound/1; egress allow rule g/outbound/1
    udp client:9 > web:53          -> deny no-rule
"""


def test_address_of_another_instance_in_a_members_prefix_is_in_the_group_and_only_then() -> None:
    union = MEMBERS.replace("VERDICT REASON", "allow rule").replace("EGRESS", "allow rule target/outbound/1")
    run(HERE, union)
    run(OWNED, MEMBERS.replace("VERDICT REASON", "deny no-rule").replace("EGRESS", "deny no-rule; ingress -"))


def test_prefix_makes_no_members_of_a_peered_vpc_that_has_the_same_addresses() -> None:
    # Seen from w, 10.1.2.3 is w's own, and what v's router has says nothing about it.
    policy = HERE + '  - {name: own, vpc: w, addresses: [10.1.2.3, 10.7.0.0/16], security_groups: [other]}\n'
    run(policy, """
        udp 10.1.2.3:9 > peer:53       -> deny no-rule; egress allow rule other/outbound/1
        udp 10.7.7.7:9 > peer:53       -> deny no-rule; egress allow rule other/outbound/1
        udp deep:9 > peer:53           -> allow rule
    """, vpc="w")  # fmt: skip


@pytest.mark.parametrize("policy", [HERE, OWNED], ids=["by-address", "by-owner"])
def test_multicast_address_that_a_prefix_contains_is_in_no_group(policy: str) -> None:
    run(policy, """
        udp web:9 > 224.0.0.251:5353       -> deny no-rule
        udp web:9 > 255.255.255.255:9      -> deny no-rule
        udp web:9 > 240.0.0.1:9            -> deny no-rule; egress allow rule target/outbound/1
        apply leave
        apply come
        @1 udp web:10 > 224.0.0.251:5353   -> deny no-rule
        @1 udp web:10 > 240.0.0.1:9        -> deny no-rule; egress allow rule target/outbound/1
    """, changes=CHANGES)  # fmt: skip


def test_address_is_a_member_no_longer_once_the_prefix_around_it_is_gone() -> None:
    wide = ip_network("10.0.0.0/8")
    narrow = ip_network("10.1.0.0/16")
    run(HERE, """
        @0 udp inside:9 > web:53           -> allow rule
        @0 udp deep:9 > web:53             -> allow rule
        @1 apply narrow                    -> 1 disconnected
        @2 udp inside:9 > web:53           -> allow established
        @2 udp deep:9 > web:53             -> deny no-rule
        @3 apply leave                     -> 1 disconnected
        @4 udp inside:9 > web:53           -> deny no-rule
        @5 apply come
        @6 udp inside:9 > web:53           -> allow rule
        @7 apply other
        @8 udp deep:9 > web:53             -> allow rule
        @9 apply gone                      -> 1 disconnected
        @9 udp inside:9 > web:53           -> deny no-rule
        @9 udp deep:9 > web:53             -> allow established
    """, changes={
        "narrow": [AddAddress("router", narrow), RemoveAddress("router", wide)],
        **CHANGES,
        "other": AddMember("g", "subnet"),
        "gone": RemoveInstance("router"),
    })  # fmt: skip


def test_changed_setting_of_a_compiled_policy_is_not_overlooked() -> None:
    compiler = Compiler()
    policy = policy_of(HERE)
    inside = policy.instance_by_name["inside"].addresses[0].network_address.packed

    def rule_of(policy: Policy) -> int:
        compiled = compiler.compile(policy)
        number = compiled.numbering.of_instance(policy.instance_by_name["web"])
        return compiled.classifier.rule_for(number, True, inside, 17, 53)

    by_owner = replace(policy, settings=replace(policy.settings, group_members="by-owner"))
    assert rule_of(policy) >= 0
    assert rule_of(by_owner) < 0
    assert rule_of(policy) >= 0


# Random policies and changes


def _peers(policy: Policy, vpc: str) -> Iterator[tuple[Instance, IPv4Address | IPv6Address]]:
    for instance in policy.instances:
        if policy.connected(instance.vpc, vpc):
            for family in (4, 6):
                for address in ADDRESSES[family]:
                    yield instance, address


def _compare(engine: Engine, policy: Policy, vpc: str) -> int:
    """Whether engine and reference name the same rule for each instance and peer. Returns how many rules were named."""
    reference = ReferenceEngine(policy, vpc=vpc)
    classifier, rules = engine.compiled.classifier, engine.compiled.rules
    named = 0
    for instance, peer in _peers(policy, vpc):
        number = engine.compiled.numbering.of_instance(instance)
        for outbound in (False, True):
            wanted = winner(policy, instance, outbound, peer, reference._owner(peer), (TCP, 1, None, None))
            got = classifier.rule_for(number, not outbound, peer.packed, TCP, 1)
            assert (rules[got].id if got >= 0 else None) == (wanted.rule.id if wanted else None), (
                f"{instance}, {'to' if outbound else 'from'} {peer}: the reference says {wanted}"
            )
            named += wanted is not None
    return named


def _change(rng: random.Random, policy: Policy) -> Change:
    group = rng.choice(GROUPS)
    instance = rng.choice(policy.instances) if policy.instances else None
    family = rng.choice((4, 4, 6))
    length = BLOCKS[family].prefixlen + rng.choice((0, 1, 2, 2))
    network = rng.choice(list(BLOCKS[family].subnets(new_prefix=length)))
    kind = rng.randrange(7) if instance is not None else 0
    match kind:
        case 0:
            return AddInstance(Instance(f"new{rng.randrange(3)}", "v", (network,), (group,)))
        case 1:
            return RemoveInstance(instance.name)                                                        # type: ignore[union-attr]
        case 2:
            return AddAddress(instance.name, network)                                                   # type: ignore[union-attr]
        case 3:
            return RemoveAddress(instance.name, rng.choice(instance.addresses))                         # type: ignore[union-attr]
        case 4:
            return RemoveMember(group, instance.name)                                                   # type: ignore[union-attr]
        case 5:
            rules = policy.group_by_name[group].rules
            if rules and rng.random() < 0.5:
                return RemoveRule(group, rng.choice(rules).id)
            peer = GroupPeer(rng.choice(GROUPS))
            return AddRule(group, Rule("", rng.choice(("inbound", "outbound")), family, peer=peer))     # type: ignore[arg-type]
        case _:
            return AddMember(group, instance.name)                                                      # type: ignore[union-attr]


@seed(1911)
@settings(max_examples=some(40, 20_000), deadline=None, database=None, phases=(Phase.generate,), print_blob=False,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(policies(), st.sampled_from(("v", "v", "w")), st.integers(0, 2**32 - 1))
def test_engine_and_reference_find_the_same_members_before_and_after_changes(
    policy: Policy, vpc: str, case_seed: int
) -> None:
    assume(policy.instances and views_exist(policy))
    note(f"case seed {case_seed}")
    rng = random.Random(case_seed)
    engine = Engine(policy, vpc=vpc)
    _compare(engine, engine.policy, vpc)
    for _ in range(6):
        try:
            engine.apply(_change(rng, engine.policy), 0)
        except PolicyError:
            continue        # such a change is refused whole
        _compare(engine, engine.policy, vpc)
