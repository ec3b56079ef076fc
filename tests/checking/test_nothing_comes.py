"""Rules to which no packet comes, and instances that nobody reaches, though a rule seems to be for it (SPEC 10.12)."""

from __future__ import annotations

import pytest

from sgfast.checking import Finding, check_policy
from sgfast.loading import parse_policy
from sgfast.policy.templates import FAST_ADD, TEMPLATES

PAIR = '[{name: a, addresses: [10.0.0.1, "2001:db8::1"], security_groups: [g]}, {name: b, addresses: [10.0.0.2]%s}]'
#: Another instance in no group of the others, and one in the same group.
WITH_STRANGER, WITH_MEMBER = PAIR % ", security_groups: [h]", PAIR % ", security_groups: [g]"
ALONE = "[{name: a, addresses: [10.0.0.1], security_groups: [g]}]"


def findings(
    rules: str, instances: str = WITH_STRANGER, settings: str = "", group: str = "", more: str = ""
) -> list[Finding]:
    lines = "\n".join(f"      - {{{line}}}" for line in rules.strip().splitlines())
    text = f"""version: 1
settings: {{{settings}}}
{more}
security_groups:
  - name: g
    {group}
    rules:
{lines}
  - {{name: h, rules: [{{id: h, direction: outbound, protocol: all}}]}}
instances: {instances}
"""
    return [*check_policy(parse_policy(text)).findings]


def codes(rules: str, *wanted: str, **more: str) -> dict[str, str]:
    """By a rule's id, its code, of these codes."""
    wanted = wanted or ("SG001", "SG002", "SG007")
    return {each.rule: each.code for each in findings(rules, **more) if each.rule and each.code in wanted}


# --- The instance alone


def test_a_rule_for_the_address_of_the_only_instance_itself_is_for_nobody() -> None:
    rules = """
        id: self, direction: inbound, protocol: tcp, source: 10.0.0.1
        id: to, direction: outbound, protocol: all, destination: 10.0.0.1
    """
    found = [each for each in findings(rules) if each.code == "SG007"]
    assert [each.rule for each in found] == ["self", "to"]
    assert "the instance itself" in found[0].message
    assert codes(rules, instances=WITH_MEMBER) == {}, "the other member gets packets from there"
    assert codes(rules.replace("10.0.0.1", "10.0.0.0/30")) == {}, "others could have the other addresses"


def test_so_is_one_for_an_address_group_with_its_addresses_alone() -> None:
    more = 'address_groups: [{name: mine, addresses: [10.0.0.1, "2001:db8::1"]}]'
    rules = """
        id: r, direction: inbound, protocol: tcp, source: mine
        id: six, direction: inbound, ethertype: IPv6, protocol: tcp, source: mine
    """
    assert codes(rules, more=more) == {"r": "SG007", "six": "SG007"}


def test_so_is_one_for_another_group_that_has_no_other_member() -> None:
    rules = "id: r, direction: inbound, protocol: tcp, source: h"
    both = "[{name: a, addresses: [10.0.0.1], security_groups: [g, h]}%s]"
    assert codes(rules, instances=both % "") == {"r": "SG007"}
    assert codes(rules, instances=both % ", {name: b, addresses: [10.0.0.2], security_groups: [h]}") == {}


def test_a_rule_that_wins_only_for_the_instance_itself_is_shadowed() -> None:
    rules = """
        id: other, direction: inbound, protocol: tcp, source: 10.0.0.0/32
        id: r, direction: inbound, protocol: tcp, source: 10.0.0.0/31
    """
    assert codes(rules, instances=ALONE) == {"other": "SG002", "r": "SG001"}
    assert codes(rules, instances=WITH_MEMBER) == {"other": "SG002"}


def test_an_instance_that_owns_a_prefix_gets_nothing_from_it() -> None:
    rules = "id: r, direction: inbound, protocol: tcp, source: 10.0.0.7"
    router = "[{name: a, addresses: [10.0.0.0/24], security_groups: [g]}%s]"
    assert codes(rules, instances=router % "") == {"r": "SG007"}
    assert codes(rules, instances=router % ", {name: b, addresses: [10.0.0.7], security_groups: [h]}") == {}


def test_of_two_vpcs_each_has_its_own_only_instance() -> None:
    rules = "id: r, direction: inbound, protocol: tcp, source: 10.0.0.1"
    vpcs = "vpcs: [{name: v}, {name: w}]"
    two = (
        "[{name: a, vpc: v, addresses: [10.0.0.1], security_groups: [g]}, "
        "{name: b, vpc: w, addresses: [10.0.0.%d], security_groups: [g]}]"
    )
    assert codes(rules, instances=two % 1, more=vpcs) == {"r": "SG007"}
    assert codes(rules, instances=two % 2, more=vpcs) == {}, "to the other one, that address is a stranger's"


def test_an_address_in_a_vpc_that_is_not_peered_is_a_strangers() -> None:
    vpcs = "vpcs: [{name: v}, {name: w}]"
    apart = (
        "[{name: a, vpc: v, addresses: [10.0.0.1], security_groups: [g]}, "
        "{name: b, vpc: w, addresses: [10.0.0.2], security_groups: [h]}]"
    )
    of_address = "id: r, direction: inbound, protocol: tcp, source: 10.0.0.2"
    assert codes(of_address, instances=apart, more=vpcs) == {}
    of_group = "id: r, direction: inbound, protocol: tcp, source: h"
    assert codes(of_group, instances=apart, more=vpcs) == {"r": "SG007"}
    assert codes(of_group, instances=apart, more=f"{vpcs}\npeerings: [[v, w]]") == {}


def test_a_rule_that_names_its_own_group_waits_for_another_member() -> None:
    """Its usual form is in each group from the start (SPEC 8.3)."""
    own = "id: own, direction: inbound, protocol: all, source: g"
    assert codes(own) == {}
    # It is superfluous with and without one.
    wide = own + "\nid: any, direction: inbound, protocol: all"
    assert codes(wide) == codes(wide, instances=WITH_MEMBER) == {"own": "SG002"}


def test_an_instance_without_addresses_of_a_version_could_get_one() -> None:
    rules = """
        id: six, direction: outbound, protocol: all, destination: '::/0'
        id: four, direction: outbound, protocol: all
    """
    assert codes(rules, instances=ALONE) == {}


def test_a_group_without_instances_is_looked_at_as_if_it_had_one() -> None:
    rules = """
        id: wide, direction: inbound, protocol: tcp
        id: narrow, direction: inbound, protocol: tcp, ports: 22
    """
    assert codes(rules, instances="[]") == {"narrow": "SG001"}


# --- Packets about which no rule is asked

ICMP_RULE = "id: r, direction: %s, ethertype: IPv%d, protocol: icmp, icmp_type: %d"


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
@pytest.mark.parametrize(("version", "types"), [
    (4, (0, 3, 4, 5, 11, 12, 14, 16, 18)), (6, (0, 1, 2, 3, 4, 100, 127, 129)),
])  # fmt: skip
def test_a_rule_for_icmp_errors_and_replies_is_not_asked(version: int, types: tuple[int, ...], direction: str) -> None:
    for kind in types:
        rule = ICMP_RULE % (direction, version, kind)
        for written in (rule, rule + ", icmp_code: 4"):
            (finding,) = [each for each in findings(written) if each.code == "SG001"]
            assert "no rule is asked" in finding.message
            assert codes(written, group="stateful: false", instances=ALONE) == {}
    others = (8, 9, 13, 15, 17, 19, 255) if version == 4 else (128, 139, 200, 255)
    assert codes("\n".join(ICMP_RULE.replace("r,", f"r{n},", 1) % (direction, version, n) for n in others)) == {}


@pytest.mark.parametrize(("infrastructure", "direction", "never"), [
    # With another hop limit than 255, neighbour discovery meets the rules.
    ("exempt", "inbound", (130, 131, 132, 143)), ("exempt", "outbound", (130, 131, 132, 143)),
    ("by-role", "inbound", (130, 134, 135, 136)), ("by-role", "outbound", (130, 133, 134, 135, 136)),
    ("filtered", "inbound", ()), ("filtered", "outbound", ()),
])  # fmt: skip
def test_a_rule_for_infrastructure_that_is_free_or_denied_at_once_is_not_asked(
    infrastructure: str, direction: str, never: tuple[int, ...]
) -> None:
    types = (130, 131, 132, 133, 134, 135, 136, 137, 143)
    rules = "\n".join(ICMP_RULE.replace("r,", f"r{kind},", 1) % (direction, 6, kind) for kind in types)
    settings = f"infrastructure: {infrastructure}"
    for group in ("stateful: true", "stateful: false"):
        found = codes(rules, settings=settings, group=group, instances=ALONE)
        assert found == {f"r{kind}": "SG001" for kind in never}


def test_a_rule_is_redundant_if_it_matters_only_to_packets_about_which_no_rule_is_asked() -> None:
    every = """
        id: r, direction: inbound, protocol: icmp
        id: no, direction: inbound, protocol: icmp, icmp_type: 3, action: deny
    """
    assert codes(every) == {"no": "SG001"}


def test_the_rules_of_templates_and_of_fast_add_are_asked() -> None:
    for key, names in (("template", TEMPLATES), ("fast_add", FAST_ADD)):
        for name in names:
            value = name if key == "template" else f"[{name}]"
            text = f"version: 1\nsecurity_groups: [{{name: g, {key}: {value}}}]\ninstances: {ALONE}\n"
            found = check_policy(parse_policy(text)).findings
            assert not [each for each in found if each.code == "SG007" or "no rule is asked" in each.message], name


def test_a_filter_is_looked_at_alone_whatever_the_other_end_may_send() -> None:
    rules = "id: r, direction: inbound, protocol: tcp, source: silent"
    groups = f"[{{name: silent}}, {{name: g, rules: [{{{rules}}}]}}]"
    instances = WITH_STRANGER.replace("[h]", "[silent]")
    policy = parse_policy(f"version: 1\nsecurity_groups: {groups}\ninstances: {instances}\n")
    found = check_policy(policy).findings
    assert not [each for each in found if each.code in ("SG001", "SG007")]
    assert [each.instances for each in found if each.code == "SG009"] == [("b",), ("a",)]


# --- SG008 and SG009


def blocked(rules: str, **more: str) -> dict[str, set[str]]:
    return {
        code: {name for each in findings(rules, **more) if each.code == code for name in each.instances} - {"b"}
        for code in ("SG008", "SG009")
    }


@pytest.mark.parametrize("peer", ["g", "10.0.0.1", "10.0.0.1/32", "mine"])
def test_an_instance_that_only_itself_could_reach_is_reached_by_nobody(peer: str) -> None:
    more = "address_groups: [{name: mine, addresses: [10.0.0.1]}]"
    each = "direction: inbound, protocol: all, source: {0}\ndirection: outbound, protocol: all, destination: {0}"
    rules = each.format(peer)
    nobody = {"SG008": {"a"}, "SG009": {"a"}}
    assert blocked(rules, instances=ALONE, more=more) == nobody
    assert blocked(rules, more=more) == nobody
    denied = """
        direction: inbound, protocol: tcp, ports: 1, action: deny
        direction: outbound, protocol: gre, action: deny
    """
    assert blocked(f"{denied.rstrip()}\n{rules}", more=more) == nobody


def test_another_member_opens_connections_to_it() -> None:
    rules = """
        direction: inbound, protocol: all, source: g
        direction: outbound, protocol: all, destination: g
    """
    assert blocked(rules, instances=WITH_MEMBER) == {"SG008": set(), "SG009": set()}
    # With an address of one version only, or in a VPC that is not peered, it does not.
    six = WITH_MEMBER.replace("10.0.0.1, ", "")
    assert blocked(rules, instances=six) == {"SG008": {"a"}, "SG009": {"a"}}
    apart = "[" + ", ".join(
        f"{{name: {name}, vpc: {vpc}, addresses: [10.0.0.{n}], security_groups: [g]}}"
        for n, (name, vpc) in enumerate((("a", "v"), ("c", "w")), 1)
    ) + "]"
    vpcs = "vpcs: [{name: v}, {name: w}]"
    assert blocked(rules, instances=apart, more=vpcs) == {"SG008": {"a", "c"}, "SG009": {"a", "c"}}
    peered = f"{vpcs}\npeerings: [[v, w]]"
    assert blocked(rules, instances=apart, more=peered) == {"SG008": set(), "SG009": set()}


def test_of_two_members_only_the_one_that_a_rule_is_about_is_blocked() -> None:
    rules = """
        direction: inbound, protocol: all, source: 10.0.0.1
        direction: outbound, protocol: all, destination: 10.0.0.1
    """
    found = [each for each in findings(rules, instances=WITH_MEMBER) if each.code in ("SG008", "SG009")]
    assert [(each.code, each.instances, each.instance_count) for each in found] == [
        ("SG008", ("a",), 1), ("SG009", ("a",), 1),
    ]


def test_icmp_errors_and_replies_alone_open_nothing() -> None:
    rules = """
        direction: inbound, protocol: icmp, icmp_type: 3
        direction: outbound, protocol: icmp, icmp_type: 0
    """
    assert blocked(rules, instances=ALONE) == {"SG008": {"a"}, "SG009": {"a"}}
