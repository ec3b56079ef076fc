"""Rules to which no packet comes, and instances that nobody reaches, though a rule seems to be for it (SPEC 10.12)."""

from __future__ import annotations

import pytest

from sgfast.clouds.loading import parse_policy
from sgfast.policy.templates import FAST_ADD, TEMPLATES
from sgfast.questions.checking import Finding, check_policy

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


def test_a_rule_that_names_its_own_group_waits_for_another_member() -> None:
    """Its usual form is in each group from the start (SPEC 8.3)."""
    own = "id: own, direction: inbound, protocol: all, source: g"
    assert codes(own) == {}
    # It is superfluous with and without one.
    wide = own + "\nid: any, direction: inbound, protocol: all"
    assert codes(wide) == codes(wide, instances=WITH_MEMBER) == {"own": "SG002"}


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


def test_of_two_members_only_the_one_that_a_rule_is_about_is_blocked() -> None:
    rules = """
        direction: inbound, protocol: all, source: 10.0.0.1
        direction: outbound, protocol: all, destination: 10.0.0.1
    """
    found = [each for each in findings(rules, instances=WITH_MEMBER) if each.code in ("SG008", "SG009")]
    assert [(each.code, each.instances, each.instance_count) for each in found] == [
        ("SG008", ("a",), 1), ("SG009", ("a",), 1),
    ]
