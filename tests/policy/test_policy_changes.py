"""Policy changes as values (SPEC 6.1, 6.3): their result, whom they affect, and what is rejected."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import numpy as np
import pytest
from effort import some
from policy_changes import Changer
from scenario import policy_of
from traffic import GROUPS

from sgfast.base.errors import PolicyError
from sgfast.policy.changed_policy import apply_change, apply_changes
from sgfast.policy.changes import (
    AddAddress,
    AddGroup,
    AddInstance,
    AddMember,
    AddPeering,
    AddRule,
    Change,
    ModifyRule,
    RemoveAddress,
    RemoveGroup,
    RemoveMember,
    RemovePeering,
    RemoveRule,
    SetAddressGroup,
)
from sgfast.policy.loaded_policy import moved_instances
from sgfast.policy.model import DEFAULT_GROUP, AddressGroupPeer, GroupPeer, Instance, Network, Rule, SecurityGroup
from sgfast.policy.templates import default_group

POLICY = policy_of("""
quotas: {security_groups: 4, rules_per_group: 3}
vpcs: [{name: red}, {name: blue}, {name: green}]
peerings: [[red, blue]]
address_groups: [{name: offices, addresses: [192.0.2.0/24]}]
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 80}
      - {direction: inbound, protocol: tcp, ports: 22, source: offices, description: old}
  - {name: db, rules: [{direction: inbound, protocol: tcp, ports: 5432, source: web}]}
  - {name: spare}
instances:
  - {name: w1, vpc: red, addresses: [10.0.0.1, 10.1.0.0/24], security_groups: [web]}
  - {name: w2, vpc: red, addresses: [10.0.0.2], security_groups: [web, spare]}
  - {name: d1, vpc: blue, addresses: [10.0.1.1], security_groups: [db]}
""")
WEB = POLICY.group_by_name["web"]
TLS = Rule("", "inbound", 4, 6, ((443, 443),))


def instance(name: str = "new", address: str = "10.0.0.9", *groups: str, vpc: str = "red") -> Instance:
    return Instance(name, vpc, (ip_network(address),), groups)


@pytest.mark.parametrize("change", [
    ModifyRule("web", "web/inbound/2", WEB.rules[1]), AddMember("web", "w1"), AddPeering("blue", "red"),
])  # fmt: skip
def test_what_changes_nothing_gives_the_same_policy(change: Change) -> None:
    """SPEC 6.3, 6.10."""
    assert apply_change(POLICY, change).policy is POLICY


REFUSED: dict[str, tuple[Change, str]] = {
    "no such group": (AddRule("nope", TLS), "unknown security group 'nope'"),
    "no such rule": (RemoveRule("web", "web/inbound/9"), "'web' has no rule 'web/inbound/9'"),
    "a rule of another group": (RemoveRule("web", "db/inbound/1"), "'web' has no rule 'db/inbound/1'"),
    "no such peer group": (AddRule("web", replace(TLS, peer=GroupPeer("nope"))), "unknown security group 'nope'"),
    "no such address group": (AddRule("web", replace(TLS, peer=AddressGroupPeer("no"))), "unknown address group 'no'"),
    "an id that is taken": (AddRule("db", replace(TLS, id="web/inbound/1")), "already has a rule 'web/inbound/1'"),
    "a rule turned round": (
        ModifyRule("web", "web/inbound/1", Rule("", "outbound", 4)),
        "is inbound, which cannot change: remove it and add a new rule",
    ),
    "no such instance": (AddMember("web", "nope"), "unknown instance 'nope'"),
    "no member": (RemoveMember("db", "w1"), "'w1' is not in security group 'db'"),
    "no group left": (RemoveMember("web", "w1"), "'w1' would be left without a security group"),
    "an instance that is": (AddInstance(instance("w1", "10.9.9.9", "web")), "instance 'w1' already exists"),
    "an instance in no group": (
        AddInstance(instance("new", "10.9.9.9")),
        "'default' has 4 rules, over the quota of 3: raise quotas.rules_per_group",
    ),
    "an instance in no VPC": (AddInstance(instance("new", "10.9.9.9", "web", vpc="no")), "unknown VPC 'no'"),
    "an address that is taken": (AddAddress("w1", ip_network("10.0.0.2/32")), "already belongs to instance 'w2'"),
    "the same by a new instance": (AddInstance(instance("new", "10.0.0.2", "web")), "already belongs to instance 'w2'"),
    "no such address": (RemoveAddress("w1", ip_network("10.0.0.9/32")), "'w1' has no address 10.0.0.9/32"),
    "no address left": (RemoveAddress("w2", ip_network("10.0.0.2/32")), "'w2' would be left without an address"),
    "a group that is": (AddGroup(SecurityGroup("web")), "security group 'web' already exists"),
    "a group in use": (RemoveGroup("spare"), "instance 'w2' is still in security group 'spare'"),
    "a group that is named": (RemoveGroup("web"), "instance 'w1' is still in security group 'web'"),
    "no such VPC": (AddPeering("red", "no"), "unknown VPC 'no'"),
    "a VPC with itself": (AddPeering("red", "red"), "'red' cannot be peered with itself"),
    "no such peering": (RemovePeering("red", "green"), "'red' and 'green' are not peered"),
    "no address group": (SetAddressGroup("no", ()), "unknown address group 'no'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_why_and_changes_nothing(case: str) -> None:
    """SPEC 6.10."""
    change, why = REFUSED[case]
    with pytest.raises(PolicyError, match=why) as refused:
        apply_changes(POLICY, [AddMember("db", "w2"), change])
    assert "\n" not in str(refused.value)


def test_no_change_puts_an_instance_into_stateful_and_stateless_groups() -> None:
    with_stateless = apply_change(POLICY, AddGroup(SecurityGroup("loose", stateful=False))).policy
    why = r"^instance '{}' cannot be in stateful groups \({}\) and stateless groups \('loose'\)$"
    for change, name, stateful in (
        (AddMember("loose", "w2"), "w2", "'spare', 'web'"),
        (AddInstance(instance("new", "10.0.0.9", "loose", "db")), "new", "'db'"),
    ):
        with pytest.raises(PolicyError, match=why.format(name, stateful)):
            apply_change(with_stateless, change)
    joined = apply_change(with_stateless, AddInstance(instance("new", "10.0.0.9", "loose"))).policy
    with pytest.raises(PolicyError, match=why.format("new", "'web'")):
        apply_change(joined, AddMember("web", "new"))


def test_quotas_hold_for_what_is_added() -> None:
    full = apply_change(POLICY, AddRule("web", TLS)).policy
    with pytest.raises(PolicyError, match=r"already has 3 rules, and the quota is 3: raise quotas\.rules_per_group$"):
        apply_change(full, AddRule("web", replace(TLS, ports=((444, 444),))))
    more = apply_change(POLICY, AddGroup(SecurityGroup("fourth"))).policy
    with pytest.raises(
        PolicyError, match=r"'fifth' would be number 5, over the quota of 4: raise quotas\.security_groups$"
    ):
        apply_change(more, AddGroup(SecurityGroup("fifth")))
    too_many = tuple(replace(TLS, id=f"x/{n}") for n in range(4))
    with pytest.raises(PolicyError, match=r"has 4 rules, over the quota of 3: raise quotas\.rules_per_group$"):
        apply_change(POLICY, AddGroup(SecurityGroup("fourth", too_many)))


def test_the_default_group_cannot_be_deleted_and_takes_in_whoever_names_none() -> None:
    """SPEC 8.1, 8.2."""
    policy = policy_of("instances: [{name: a, addresses: [10.0.0.1]}]")
    with pytest.raises(PolicyError, match="cannot be deleted"):
        apply_change(policy, RemoveGroup(DEFAULT_GROUP))
    changed = apply_change(policy, AddInstance(Instance("b", "default", (ip_network("10.0.0.2/32"),), ())))
    assert changed.policy.instance_by_name["b"].security_groups == (DEFAULT_GROUP,)
    assert changed.instances == {"a", "b"}


def test_the_default_group_is_created_for_an_instance_that_comes_without_groups() -> None:
    """SPEC 8.6."""
    policy = policy_of("""
security_groups: [{name: web}]
instances: [{name: w, addresses: [10.0.0.1], security_groups: [web]}]
""")
    late = AddInstance(Instance("b", "default", (ip_network("10.0.0.2/32"),), ()))
    changed = apply_change(policy, late)
    assert changed.policy.security_groups == (*policy.security_groups, default_group())
    assert changed.policy.instance_by_name["b"].security_groups == (DEFAULT_GROUP,)
    assert (changed.groups, changed.instances) == ({DEFAULT_GROUP}, {"b"})
    full = replace(policy, quotas=replace(policy.quotas, security_groups=1))
    with pytest.raises(PolicyError, match=r"'default' would be number 2, .*: raise quotas\.security_groups$"):
        apply_change(full, late)


def test_ids_of_rules_added_later_were_never_used() -> None:
    policy = apply_changes(POLICY, [RemoveRule("web", "web/inbound/2"), AddRule("web", TLS)]).policy
    assert [rule.id for rule in policy.group_by_name["web"].rules] == ["web/inbound/1", "web/inbound/3"]
    policy = apply_changes(policy, [RemoveRule("web", "web/inbound/3"), AddRule("web", replace(TLS, id="mine"))]).policy
    policy = apply_changes(policy, [RemoveRule("web", "mine"), AddRule("web", TLS)]).policy
    assert [rule.id for rule in policy.group_by_name["web"].rules] == ["web/inbound/1", "web/inbound/5"]
    outbound = replace(TLS, direction="outbound")
    policy = apply_change(policy, AddRule("web", outbound)).policy
    assert policy.group_by_name["web"].rules[-1].id == "web/outbound/1"


def test_written_ids_count_as_used_while_they_are_there_and_after() -> None:
    policy = replace(POLICY, quotas=replace(POLICY.quotas, rules_per_group=9))

    def added(rule: Rule, *ids: str) -> str:
        """The id of the rule that follows these rules, also after they are removed."""
        nonlocal policy
        policy = apply_changes(policy, [AddRule("web", replace(TLS, id=rule_id)) for rule_id in ids]).policy
        policy = apply_change(policy, AddRule("web", rule)).policy
        return policy.group_by_name["web"].rules[-1].id

    outbound = replace(TLS, direction="outbound")
    assert added(TLS, "web/inbound/4", "web/inbound/07") == "web/inbound/5"
    assert added(TLS, "web/inbound/7") == "web/inbound/8"
    kept = policy.group_by_name["web"].rules
    policy = apply_changes(policy, [RemoveRule("web", rule.id) for rule in kept]).policy
    assert added(TLS, "web/inbound/11", "web/inbound/12") == "web/inbound/13"
    assert added(outbound, "web/outbound/1", "web/outbound/3") == "web/outbound/2"
    policy = apply_changes(policy, [RemoveRule("web", rule.id) for rule in policy.group_by_name["web"].rules]).policy
    assert added(outbound) == "web/outbound/4"
    assert added(TLS, f"web/inbound/{'9' * 80}") == "web/inbound/17"


def test_the_same_rule_in_other_words_is_no_change_but_is_remembered() -> None:
    said = replace(WEB.rules[0], wording=frozenset(("no-ethertype", "any-address")))
    assert said == WEB.rules[0] and hash(said) == hash(WEB.rules[0]) and said.wording != WEB.rules[0].wording
    changed = apply_change(POLICY, ModifyRule("web", said.id, said))
    assert not changed.groups and not changed.instances and changed.policy == POLICY
    assert changed.policy.group_by_name["web"].rules[0].wording == said.wording
    assert apply_change(changed.policy, ModifyRule("web", said.id, said)).policy is changed.policy


def test_a_modified_rule_keeps_its_place_and_id() -> None:
    changed = apply_change(POLICY, ModifyRule("web", "web/inbound/1", replace(TLS, id="other")))
    assert [rule.id for rule in changed.policy.group_by_name["web"].rules] == ["web/inbound/1", "web/inbound/2"]
    assert changed.policy.group_by_name["web"].rules[0].ports == ((443, 443),)


def test_look_ups_that_changes_carry_over_know_what_a_policy_made_anew_knows() -> None:
    """Addresses that move between instances of several VPCs, instances and rules that come and go."""
    for seed in range(some(40, 400)):
        print(f"seed {seed}")
        changer = Changer(np.random.default_rng(seed))
        quotas = replace(POLICY.quotas, rules_per_group=99)
        groups = tuple(SecurityGroup(name) for name in GROUPS)
        now = replace(POLICY, security_groups=groups, instances=(), quotas=quotas)
        addresses: set[Network] = set()
        for _ in range(20):
            for change in changer.changes(now):
                now = apply_change(now, change).policy
            anew = replace(now)
            addresses |= {network for each in now.instances for network in each.addresses}
            assert now._instance_index == anew._instance_index
            assert now.group_of_rule == anew.group_of_rule
            for vpc in ("red", "blue", "green"):
                for network in addresses:
                    assert now._owner_of(vpc, network) == anew._owner_of(vpc, network)
                    assert now._holders(vpc, network) == anew._holders(vpc, network)


def test_instances_that_differ_are_found_however_many_changes_lie_between_two_policies() -> None:
    """Also between policies of which neither was made from the other, as after a change that is refused."""
    found = 0
    for seed in range(some(20, 200)):
        print(f"seed {seed}")
        changer = Changer(np.random.default_rng(seed))
        versions = [replace(POLICY, security_groups=tuple(SecurityGroup(name) for name in GROUPS), instances=())]
        for _ in range(20):
            now = changer.pick(versions[-3:])
            for change in changer.changes(now):
                now = apply_change(now, change).policy
            for before in versions:
                pairs = enumerate(zip(before.instances, now.instances, strict=False))
                expected = [n for n, (old, new) in pairs if old != new]
                assert moved_instances(before, now) == expected
                found += len(expected)
            versions.append(now)
    assert found > 500
