"""``SG013``: services that are open over one IP version only, though the instances have both (SPEC 10.12)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from checked_policies import policies
from effort import some
from hypothesis import HealthCheck, given, settings

from sgfast.clouds.loading import parse_policy
from sgfast.engine import Engine
from sgfast.policy.model import ICMP, ICMPV6, AddressGroupPeer, GroupPeer, Policy, Rule
from sgfast.questions.checking import check_policy, ip_versions

POLICY = """
version: 1
vpcs: [{name: v}, {name: w}]
address_groups: [{name: both, addresses: [192.0.2.0/24, "2001:db8:2::/64"]}, {name: four, addresses: [192.0.2.0/24]}]
security_groups:
  - {name: g, rules: [{id: four, RULE}OTHER]}
  - {name: beside, rules: [BESIDE]}
  - {name: lb}
instances:
  - {name: a, vpc: v, addresses: [ADDRESSES], security_groups: [GROUPS]}
  - {name: c, vpc: v, addresses: [10.0.0.9, "2001:db8::9"], security_groups: [lb]}
"""
HTTP = "direction: inbound, protocol: tcp, ports: '80,443', source: 0.0.0.0/0"


def found(
    rule: str = HTTP, other: str = "", *, addresses: str = "10.0.0.1, '2001:db8::1'", beside: str = "",
    groups: str = "g", text: str = POLICY,
) -> list[str]:  # fmt: skip
    """The message, without the rule's own text."""
    for word, value in (
        ("RULE", rule), ("OTHER", f", {{{other}}}" if other else ""), ("ADDRESSES", addresses), ("GROUPS", groups),
        ("BESIDE", f"{{{beside}}}" if beside else ""),
    ):  # fmt: skip
        text = text.replace(word, value, 1)
    findings = [each for each in check_policy(parse_policy(text)).findings if each.code == "SG013"]
    assert all(each.rule == "four" and each.group == "g" and each.severity == "note" for each in findings)
    return [each.message.partition(": ")[2] for each in findings]


def test_a_service_for_ipv4_only_of_an_instance_with_both_is_told_once_for_its_rule() -> None:
    assert found() == ["no inbound rule is about tcp/80 and tcp/443 over IPv6, though a has IPv6 addresses"]
    member = "  - {name: mN, vpc: v, addresses: [10.0.1.N, '2001:db8:1::N'], security_groups: [g]}\n"
    more = POLICY + "".join(member.replace("N", str(n)) for n in range(1, 8))
    (said,) = found(text=more)
    assert said.endswith("over IPv6, though a, m1, m2, m3, m4 and 3 more have IPv6 addresses")


def test_the_reverse_is_told_of_instances_with_both() -> None:
    six = "direction: inbound, ethertype: IPv6, protocol: tcp, ports: 80, source: '::/0'"
    assert found(six) == ["no inbound rule is about tcp/80 over IPv4, though a has IPv4 addresses"]
    # An instance with one version has what it needs, or nothing that it lacks.
    assert found(six, addresses="10.0.0.1") == [] == found(six, addresses="'2001:db8::1'")


def test_instances_with_ipv4_addresses_only_are_no_case_and_those_with_ipv6_addresses_only_are() -> None:
    assert found(addresses="10.0.0.1") == []
    assert len(found(addresses="'2001:db8::1'")) == 1


@pytest.mark.parametrize(
    ("other", "left"),
    [
        ("direction: inbound, ethertype: IPv6, protocol: tcp, ports: 443, source: '::/0'", "tcp/80"),
        ("direction: inbound, ethertype: IPv6, protocol: tcp, ports: 443, source: '2001:db8:9::/48'", "tcp/80"),
        ("direction: inbound, ethertype: IPv6, protocol: tcp, ports: 79, source: '2001::/16'", "tcp/80 and tcp/443"),
        ("direction: inbound, ethertype: IPv6, protocol: udp, source: '2001:db8:9::/48'", "tcp/80 and tcp/443"),
        ("direction: outbound, ethertype: IPv6, protocol: tcp, destination: '2001:db8::/32'", "tcp/80 and tcp/443"),
        # Traffic between members says nothing of others.
        ("direction: inbound, ethertype: IPv6, protocol: all, source: g", "tcp/80 and tcp/443"),
        ("direction: inbound, ethertype: IPv6, protocol: all, source: lb", ""),
        ("direction: inbound, ethertype: IPv6, protocol: tcp, source: '::/0'", ""),
        # Somebody has thought of it.
        ("direction: inbound, ethertype: IPv6, protocol: all, source: '::/0', action: deny", ""),
    ],
)
def test_what_a_rule_of_the_other_version_is_about_is_not_told(other: str, left: str) -> None:
    said = [f"no inbound rule is about {left} over IPv6, though a has IPv6 addresses"] if left else []
    assert found(other=other) == said
    # It may be a rule of another group of the instance, but not of another instance.
    if "source: g" not in other:
        assert found(beside=other, groups="g, beside") == said
    assert len(found(beside=other)) == 1


@pytest.mark.parametrize(
    ("source", "is_told"),
    [("lb", True), ("both", True), ("four", False), ("10.0.0.0/8", False), ("beside", False), ("g", False)],
)
def test_the_peer_must_have_addresses_of_the_other_version(source: str, is_told: bool) -> None:
    """The last group has only the instance itself, and a CIDR has no counterpart."""
    assert bool(found(HTTP.replace("0.0.0.0/0", source))) is is_told


def test_members_that_can_be_reached_over_both_versions_are_a_case() -> None:
    rule = HTTP.replace("0.0.0.0/0", "g")
    two = POLICY + "  - {name: b, vpc: v, addresses: [10.0.0.2, '2001:db8::2'], security_groups: [g]}\n"
    assert len(found(rule, text=two)) == 1
    six = "direction: inbound, ethertype: IPv6, protocol: all, source: g"
    assert found(rule, six, text=two) == []


def test_a_peer_in_a_vpc_that_is_not_peered_is_no_case() -> None:
    rule = HTTP.replace("0.0.0.0/0", "lb")
    far = POLICY.replace("name: c, vpc: v", "name: c, vpc: w")
    assert found(rule, text=far) == []
    assert len(found(rule, text=far + "peerings: [[v, w]]\n")) == 1


def test_outbound_rules_count_only_if_nothing_gets_out_over_the_other_version() -> None:
    rule = "direction: outbound, protocol: tcp, ports: 443, destination: 0.0.0.0/0"
    assert found(rule) == ["no outbound rule is about anything over IPv6, though a has IPv6 addresses"]
    dns = "direction: outbound, ethertype: IPv6, protocol: udp, ports: 53, destination: '2001:db8:53::/64'"
    assert found(rule, dns) == []
    assert found(rule.replace("0.0.0.0/0", "lb")) == []


def test_ping_is_one_service_and_a_rule_that_never_wins_opens_none() -> None:
    ping = "direction: inbound, protocol: icmp, icmp_type: 8, source: 0.0.0.0/0"
    assert found(ping) == ["no inbound rule is about icmp over IPv6, though a has IPv6 addresses"]
    assert found(ping, "direction: inbound, ethertype: IPv6, protocol: icmpv6, icmp_type: 128, source: '::/0'") == []
    shut = "direction: inbound, protocol: all, source: 0.0.0.0/0, action: deny"
    assert found(HTTP, shut) == []
    assert found(HTTP.replace("direction", "action: deny, direction")) == []


def test_a_service_that_several_rules_open_is_told_with_the_first() -> None:
    same = "id: again, direction: inbound, protocol: tcp, ports: '443', source: lb"
    assert len(found(other=same)) == 1


def test_what_would_take_too_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 2 * 3 * ip_versions.LOOK_STEPS
    text = POLICY.replace("RULE", HTTP).replace("OTHER", "").replace("BESIDE", "").replace("GROUPS", "g")
    policy = parse_policy(text.replace("ADDRESSES", "10.0.0.1, '2001:db8::1'"))
    said = "1 rules were not checked for services that are open over one IP version only."
    for most in (steps - 1, steps):
        monkeypatch.setattr(ip_versions, "MAX_STEPS", most)
        assert check_policy(policy).left_out == (said,)
    monkeypatch.setattr(ip_versions, "MAX_STEPS", steps + ip_versions.ASKING_STEPS + 1)
    assert check_policy(policy).left_out == ()


def mirrored(rule: Rule) -> Rule:
    protocol = {ICMP: ICMPV6, ICMPV6: ICMP}.get(rule.protocol or 0, rule.protocol)
    return replace(rule, id=f"{rule.id}/2", ethertype=6 if rule.ethertype == 4 else 4, protocol=protocol,
                   peer=rule.peer if isinstance(rule.peer, GroupPeer | AddressGroupPeer) else None,
                   icmp_type=None, icmp_code=None)  # fmt: skip


@settings(max_examples=some(25, 3000), deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(policies())
def test_who_comes_over_the_other_version_meets_no_rule_and_who_has_the_same_rules_for_both_reads_nothing(
    policy: Policy,
) -> None:
    policy = replace(policy, vpcs=policy.vpcs[:1], peerings=frozenset(), instances=tuple(
        each for each in policy.instances if each.vpc == "v"
    ))  # fmt: skip
    engine = Engine(policy)
    rules = {rule.id: rule for group in policy.security_groups for rule in group.rules}
    for finding in check_policy(policy).findings:
        if finding.code != "SG013":
            continue
        rule = rules[str(finding.rule)]
        if rule.direction == "outbound" or rule.protocol not in (6, 17):
            continue
        version = 10 - rule.ethertype
        stranger = "192.0.2.77" if version == 4 else "2001:db8:77::7"
        port = int(finding.message.partition("about ")[2].partition("/")[2].partition(" ")[0].partition("-")[0] or 0)
        protocol = "tcp" if rule.protocol == 6 else "udp"
        for name in finding.instances:
            (address, *_) = (each for each in policy.instance_by_name[name].addresses if each.version == version)
            seen = engine.check(stranger, str(address.network_address), protocol, sport=40000, dport=port)
            assert seen.reason == "no-rule", (finding, seen)
    groups = tuple(
        replace(group, rules=(*group.rules, *map(mirrored, group.rules))) for group in policy.security_groups
    )
    assert not [each for each in check_policy(replace(policy, security_groups=groups)).findings if each.code == "SG013"]
