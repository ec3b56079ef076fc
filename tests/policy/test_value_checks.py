"""Policies that a program makes are held to what documents are (SPEC 14.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

import sgfast
from sgfast import Policy
from sgfast.base.errors import PolicyError
from sgfast.policy import value_checks
from sgfast.policy.changed_policy import apply_change
from sgfast.policy.changes import AddGroup
from sgfast.policy.model import (
    AddressGroup,
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Quotas,
    Rule,
    SecurityGroup,
    Settings,
    Timeouts,
    Vpc,
)
from sgfast.testing import assert_allows

RULE = Rule("web/1", "inbound", 4, 6, ((443, 443),))
WEB, DB = SecurityGroup("web", (RULE,), id="sg-1"), SecurityGroup("db", id="sg-2")
MACHINE = Instance("i-1", "red", (ip_network("10.0.0.1/32"),), ("web",), device="d-1")
OTHER = Instance("i-2", "red", (ip_network("10.0.0.2/32"),), ("db",))


def made(**fields: Any) -> Policy:
    """A policy that was never read."""
    usual: dict[str, Any] = {
        "vpcs": (Vpc("red", vnis=(1,)), Vpc("blue", interfaces=("eth1", 2))),
        "peerings": frozenset({frozenset(("red", "blue"))}),
        "address_groups": (AddressGroup("offices", (ip_network("192.0.2.0/24"),)),),
        "security_groups": (WEB, DB),
        "instances": (MACHINE, OTHER),
    }
    return Policy(**(usual | fields))


def with_rule(**fields: Any) -> Policy:
    return made(security_groups=(replace(WEB, rules=(RULE, replace(RULE, id="web/2", **fields))), DB))


#: A policy that no document could say, and what the error says.
WRONG: dict[str, tuple[Policy, str]] = {
    "a name that ends a quoted word": (
        made(security_groups=(replace(WEB, name='web"; }\nflush ruleset'), DB)),
        "policy.security_groups[0].name must be a name of 1 to 64 letters, digits and _ - ., not ",
    ),
    "an instance's name": (made(instances=(replace(MACHINE, name=""),)), "policy.instances[0].name must be a name"),
    "an address group's": (made(address_groups=(AddressGroup("a b"),)), "policy.address_groups[0].name must be a name"),
    "a VPC's": (made(vpcs=(Vpc("red"), Vpc("'"))), "policy.vpcs[1].name must be a name of 1 to 64"),
    "a label": (made(instances=(replace(MACHINE, label="a\nb"),)), "policy.instances[0].label must be a printable"),
    "a region": (made(vpcs=(Vpc("red", region="a b"),)), "policy.vpcs[0].region must be a word of 1 to 64"),
    "a pattern": (made(vpcs=(Vpc("red", files=("a", "\n")),)), "policy.vpcs[0].files[1] must be a capture's name"),
    "an interface": (made(vpcs=(Vpc("red", interfaces=(1 << 20,)),)), "policy.vpcs[0].interfaces[0] must be 0 to"),
    "a VLAN": (made(vpcs=(Vpc("red", vlans=(4095,)),)), "policy.vpcs[0].vlans[0] must be 1 to 4094, not 4095"),
    "no VPC": (made(vpcs=(), peerings=frozenset(), instances=()), "policy.vpcs must have at least one VPC"),
    "a VNI of two": (made(vpcs=(Vpc("red", vnis=(1,)), Vpc("blue", vnis=(1,)))), "policy.vpcs: vnis has '1' 2 times"),
    "a rule without an id": (
        made(security_groups=(replace(WEB, rules=(replace(RULE, id=""),)), DB)),
        "policy.security_groups[0].rules[0].id must be 1 to 100 letters",
    ),
    "an id of two rules": (
        made(security_groups=(WEB, replace(DB, rules=(RULE,)))), "policy.security_groups has 'web/1' 2 times: list it",
    ),
    "a port": (with_rule(ports=((1, 70000),)), "policy.security_groups[0].rules[1].ports must be ranges from 0 to"),
    "another IP version": (with_rule(peer=ip_network("::/0")), "rules[1].peer must be IPv4 as the rule's ethertype is"),
    "a peer that is no group": (
        with_rule(peer=GroupPeer("wbe")),
        "policy.security_groups[0].rules[1].peer: unknown security group 'wbe' (did you mean 'web'?)",
    ),
    "a peer that is no address group": (with_rule(peer=AddressGroupPeer("x")), "peer: unknown address group 'x'"),
    "a name twice": (made(security_groups=(WEB, DB, DB)), "policy.security_groups has 'db' 2 times: list it once"),
    "a provider's id twice": (
        made(security_groups=(WEB, replace(DB, id="sg-1"))), "policy.security_groups has 'sg-1' 2 times",
    ),
    "an unknown group": (
        made(instances=(replace(MACHINE, security_groups=("x",)),)), "policy.instances[0]: unknown security group 'x'",
    ),
    "no group": (made(instances=(replace(MACHINE, security_groups=()),)), "security_groups must list at least one"),
    "an unknown VPC": (made(instances=(replace(MACHINE, vpc="rde"),)), "policy.instances[0]: unknown VPC 'rde'"),
    "an address of two": (
        made(instances=(MACHINE, replace(OTHER, addresses=MACHINE.addresses))),
        "policy.instances[0]: 10.0.0.1/32 already belongs to instance 'i-2' in VPC 'red'",
    ),
    "groups of both kinds": (
        made(security_groups=(WEB, replace(DB, stateful=False)),
             instances=(replace(MACHINE, security_groups=("web", "db")),)),
        "policy.instances[0]: instance 'i-1' cannot be in stateful groups ('web') and stateless groups ('db')",
    ),
    "a peering with nobody": (
        made(peerings=frozenset({frozenset(("red", "x"))})), "policy.peerings: unknown VPC 'x'",
    ),
    "a peering with itself": (
        made(peerings=frozenset({frozenset(("red",))})), "policy.peerings must be pairs of VPCs, not ['red']",
    ),
    "too many groups": (
        made(quotas=Quotas(security_groups=1)),
        "policy.security_groups: 2 exceed the quota of 1: raise quotas.security_groups",
    ),
    "too many rules": (
        replace(with_rule(), quotas=Quotas(rules_per_group=1)), "policy.security_groups[0].rules: 2 exceed the quota",
    ),
    "a quota": (made(quotas=Quotas(0)), "policy.quotas.security_groups must be 1 to 1000000, not 0"),
    "a profile": (made(settings=Settings(profile="gcp")), "policy.settings.profile must be otc or neutron or aws"),
    "a timeout": (made(settings=Settings(timeouts=Timeouts(icmp=0))), "timeouts.icmp must be more than 0 seconds"),
    "no number": (made(settings=Settings(timeouts=Timeouts(icmp=float("nan")))), "timeouts.icmp must be of the type"),
    "a setting": (made(settings=Settings(on_change="cut")), "policy.settings.on_change must be cut-inbound or"),
    "a text for a group": (made(security_groups=("web",)), "policy.security_groups must be of the type"),
}  # fmt: skip

#: Whatever takes a policy.
TAKES: dict[str, Callable[[Policy], object]] = {
    "load": sgfast.load,
    "Engine": sgfast.Engine,
    "export": lambda policy: sgfast.export(policy, "nftables", instance="i-1"),
    "check": lambda policy: policy.check(),
    "reach": lambda policy: policy.reach(),
    "diff": lambda policy: sgfast.diff({"version": 1}, policy),
    "suggest": lambda policy: sgfast.suggest("no.pcap", instances=policy),
    "assert_allows": lambda policy: assert_allows(policy, "web", "any", "tcp"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_no_document_could_say_is_refused_in_one_line(case: str) -> None:
    policy, message = WRONG[case]
    with pytest.raises(PolicyError) as caught:
        sgfast.load(policy)
    assert message in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("taker", TAKES)
def test_whatever_takes_a_policy_refuses_one_that_no_document_could_say(taker: str) -> None:
    policy, message = WRONG["a name that ends a quoted word"]
    with pytest.raises(PolicyError) as caught:
        TAKES[taker](policy)
    assert str(caught.value).startswith(message)


def test_a_policy_is_checked_once_and_one_that_was_read_never(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Policy] = []
    check = value_checks.check_made_policy
    monkeypatch.setattr(value_checks, "check_made_policy", lambda policy: (checked.append(policy), check(policy)))
    read = sgfast.load({"version": 1, "security_groups": [{"name": "web"}]})
    engine = sgfast.Engine(read)
    engine.apply({"add_group": {"name": "db", "rules": [{"direction": "inbound", "protocol": "tcp"}]}}, now_ns=0)
    engine.policy.check()
    sgfast.diff(read, engine.policy)
    assert checked == []
    policy = made()
    for _ in range(2):
        sgfast.Engine(policy).policy.reach()
    assert checked == [policy]
    sgfast.Engine(replace(policy, warnings=("x",)))
    assert len(checked) == 2


def test_rules_of_an_added_group_get_the_ids_that_a_document_would_give_them() -> None:
    group = SecurityGroup("new", tuple(replace(RULE, id=given) for given in ("", "new/inbound/2", "")))
    after = apply_change(made(), AddGroup(group)).policy
    assert [rule.id for rule in after.group_by_name["new"].rules] == ["new/inbound/1", "new/inbound/2", "new/inbound/3"]
    assert sgfast.load(after) is after
