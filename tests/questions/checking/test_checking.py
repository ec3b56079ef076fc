"""Findings of ``sgfast check``, and what is none (SPEC 10.12)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from ipaddress import ip_network

import pytest
from checked_policies import TCP, by_code, policies, views_exist
from effort import some
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st

from sgfast import Policy
from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import Instance, Rule, SecurityGroup
from sgfast.questions.checking import CODES, check_policy
from sgfast.questions.checking import coverage as coverage_module
from sgfast.questions.checking.exposure import SENSITIVE


def found(text: str) -> dict[str, list[tuple[str, str]]]:
    """The findings by code: the rule, group or instance, and the message."""
    result = defaultdict(list)
    for finding in check_policy(parse_policy(f"version: 1\n{text}")).findings:
        about = finding.rule or finding.address_group or finding.group or ""
        result[finding.code].append((about, finding.message))
    return dict(result)


def one_group(rules_text: str, instances: str = "[{name: i, addresses: [10.0.0.1], security_groups: [g]}]") -> str:
    lines = "\n".join(f"      - {{{line}}}" for line in rules_text.strip().splitlines())
    return f"security_groups:\n  - name: g\n    rules:\n{lines}\ninstances: {instances}\n"


def test_a_network_that_longer_ones_cover_to_the_last_address_is_shadowed() -> None:
    halves = one_group("""
id: low, direction: inbound, protocol: tcp, ports: 1, source: 10.9.0.0/25
id: high, direction: inbound, protocol: tcp, ports: 1-2, source: 10.9.0.128/25
id: both, direction: inbound, protocol: tcp, ports: 1, source: 10.9.0.0/24
""")
    ((about, message),) = found(halves)["SG001"]
    assert about == "both" and "(low in g)" in message and "(high in g)" in message and "allow everything" in message


def test_a_rule_another_group_shadows_is_needed_where_that_group_is_not() -> None:
    text = """
security_groups:
  - {name: wide, rules: [{id: w, direction: inbound, protocol: tcp}]}
  - {name: narrow, rules: [{id: n, direction: inbound, protocol: tcp, ports: 80}]}
instances:
  - {name: i, addresses: [10.0.0.1], security_groups: [wide, narrow]}
"""
    assert [about for about, _ in found(text)["SG001"]] == ["n"]
    assert [about for about, _ in found(text)["SG003"]] == ["w"]
    alone = text + "  - {name: j, addresses: [10.0.0.2], security_groups: [narrow]}\n"
    assert "SG001" not in found(alone) and "SG003" not in found(alone)


def test_everyone_on_management_and_database_ports_is_an_error() -> None:
    text = one_group("""
id: ssh, direction: inbound, protocol: tcp, ports: 22, source: 0.0.0.0/0
id: web, direction: inbound, protocol: tcp, ports: 443, source: 0.0.0.0/0
id: db6, direction: inbound, ethertype: IPv6, protocol: tcp, ports: "80,5000-6000", source: "::/0"
id: some, direction: inbound, protocol: tcp, ports: 3389, source: 192.0.2.0/24
id: out, direction: outbound, protocol: tcp, ports: 22
id: all, direction: inbound, protocol: all
""")
    exposed = dict(found(text)["SG004"])
    assert set(exposed) == {"ssh", "db6", "all"}
    assert "tcp/22 (ssh)" in exposed["ssh"]
    assert "tcp/5432 (postgresql)" in exposed["db6"] and "mysql" not in exposed["db6"]
    assert "more such ports" in exposed["all"]
    wanted = {22, 3389, 23, 3306, 5432, 1433, 1521, 6379, 27017, 9200}
    assert wanted <= {port for _, port in SENSITIVE}


def test_everyone_in_two_halves_of_an_address_group_is_everyone() -> None:
    text = "address_groups: [{name: all, addresses: [0.0.0.0/1, 128.0.0.0/1]}]\n" + one_group(
        "id: ssh, direction: inbound, protocol: tcp, ports: 22, source: all"
    )
    assert [about for about, _ in found(text)["SG004"]] == ["ssh"]


def test_what_a_deny_rule_keeps_shut_is_not_open_to_everyone() -> None:
    shut = """
id: all, direction: inbound, protocol: tcp, priority: 2
id: no, direction: inbound, protocol: tcp, ports: 1-65535, action: deny, priority: 2
"""
    assert "SG004" not in found(one_group(shut))
    # Deny rules that do not help: too low a priority; not for everyone; not for all instances.
    assert found(one_group(shut.replace("deny, priority: 2", "deny, priority: 3")))["SG004"]
    assert found(one_group(shut + "id: in, direction: inbound, protocol: tcp, ports: 22, priority: 1"))["SG004"]
    text = """
security_groups:
  - {name: shut, rules: [{direction: inbound, protocol: all, action: deny}]}
  - {name: wide, rules: [{id: w, direction: inbound, protocol: tcp, ports: 22}]}
instances:
  - {name: i, addresses: [10.0.0.1], security_groups: [wide, shut]}
"""
    assert "SG004" not in found(text)
    assert found(text + "  - {name: j, addresses: [10.0.0.2], security_groups: [wide]}\n")["SG004"]


def test_groups_and_address_groups_nobody_uses() -> None:
    text = """
address_groups: [{name: used, addresses: [192.0.2.0/24]}, {name: idle, addresses: []}]
security_groups:
  - {name: default}
  - {name: g, rules: [{direction: inbound, protocol: tcp, ports: 81, source: used},
                      {id: to-source, direction: inbound, protocol: tcp, ports: 80, source: source}]}
  - {name: lonely, rules: [{direction: inbound, protocol: all, source: lonely}]}
  - {name: source}
instances: [{name: i, addresses: [10.0.0.1], security_groups: [g]}]
"""
    said = found(text)
    assert [about for about, _ in said["SG005"]] == ["lonely", "source"]
    assert "no other group names it" in said["SG005"][0][1] and "to-source" in said["SG005"][1][1]
    assert [about for about, _ in said["SG006"]] == ["idle"]
    assert [about for about, _ in said["SG007"]] == ["to-source"]


def test_a_source_without_members_of_the_family_or_within_reach_is_empty() -> None:
    text = """
vpcs: [{name: v}, {name: w}, {name: far, region: north}]
peerings: [[v, far]]
security_groups:
  - {name: g, rules: [{id: six, direction: inbound, ethertype: IPv6, protocol: all, source: there},
                      {id: four, direction: inbound, protocol: all, source: there},
                      {id: own6, direction: inbound, ethertype: IPv6, protocol: all, source: g}]}
  - {name: there}
instances:
  - {name: i, vpc: v, addresses: [10.0.0.1], security_groups: [g]}
  - {name: j, vpc: w, addresses: [10.0.0.2], security_groups: [there]}
  - {name: k, vpc: far, addresses: [10.0.0.3], security_groups: [there]}
"""
    said = dict(found(text)["SG007"])
    assert set(said) == {"six", "four"}
    assert "IPv6 address" in said["six"] and "not peered" in said["four"]


PAIR = """
vpcs: [{name: v}, {name: w}]
security_groups:
  - name: g
    rules:
      - {direction: inbound, protocol: all, source: SOURCE}
      - {direction: outbound, protocol: all}
instances:
  - {name: i, vpc: v, addresses: [10.0.0.1], security_groups: [g]}
  - {name: j, vpc: VPC, addresses: [10.0.0.9], security_groups: [g]}
"""


def test_the_two_causes_why_members_of_one_group_cannot_talk() -> None:
    def causes(source: str, vpc: str, more: str = "") -> set[str]:
        return set(found(PAIR.replace("SOURCE", source).replace("VPC", vpc) + more)) & {"SG010", "SG011"}

    assert causes("g", "v") == set()
    assert causes("192.0.2.0/24", "v") == {"SG010"}        # the rule between members is missing
    assert causes("g", "w") == {"SG011"}        # the members' VPCs are not peered
    assert causes("g", "w", "peerings: [[v, w]]\n") == set()
    assert causes("192.0.2.0/24", "w") == {"SG010", "SG011"}
    # A network also lets members in, if it holds another member's address.
    assert causes("10.0.0.0/28", "v") == set()
    assert causes("10.0.0.8/29", "v") == set()


def test_a_member_that_lets_in_only_itself_lets_no_member_in() -> None:
    text = """
security_groups:
  - {name: g, rules: [{direction: outbound, protocol: all}]}
  - {name: own, rules: [{direction: inbound, protocol: tcp, source: 10.0.0.2}]}
instances:
  - {name: i, addresses: [10.0.0.1], security_groups: [GROUPS]}
  - {name: j, addresses: [10.0.0.0/29], security_groups: [g, own]}
"""
    assert [about for about, _ in found(text.replace("GROUPS", "g"))["SG010"]] == ["g"]
    assert "SG010" not in found(text.replace("GROUPS", "g, own"))


def test_members_in_peered_vpcs_of_two_regions_do_not_know_the_group() -> None:
    text = PAIR.replace("{name: w}", "{name: w, region: north}").replace("SOURCE", "g").replace("VPC", "w")
    ((_, message),) = found(text + "peerings: [[v, w]]\n")["SG011"]
    assert "different regions" in message


def test_a_company_sized_policy_is_checked_whole() -> None:
    """100 groups of 50 rules and 10,000 instances: nothing is skipped."""
    from workload import make_policy

    checked = check_policy(make_policy(5000))
    assert checked.left_out == ()
    assert {finding.code for finding in checked.findings} == {"SG001", "SG002", "SG003"}


def many_rules(count: int) -> Policy:
    group = SecurityGroup(
        "g",
        tuple(
            Rule(f"r{n}", "inbound", 4, TCP, ((n % 60000 + 1, n % 60000 + 1),), peer=ip_network((n << 8, 24)))
            for n in range(count)
        ),
    )
    return Policy(
        security_groups=(group,), instances=(Instance("i", "default", (ip_network("10.0.0.1"),), ("g",)),)
    )


def test_what_would_take_too_long_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hostile sizes: a plane of 20,000 networks and ports is not painted."""
    checked = check_policy(many_rules(20_000))
    assert len(checked.left_out) == 1 and "were not compared" in checked.left_out[0]
    assert not by_code(checked, "SG001") | by_code(checked, "SG002")
    monkeypatch.setattr(coverage_module, "MAX_STEPS", 1000)
    assert check_policy(many_rules(100)).left_out


def test_what_was_left_out_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the budget, reported findings are true."""
    budgets = (0, 10**6, 3 * 10**6, 10**7)

    @seed(11)
    @settings(max_examples=some(20, 60), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(policies(), st.sampled_from(budgets))
    def run(policy: Policy, steps: int) -> None:
        assume(views_exist(policy))
        monkeypatch.setattr(coverage_module, "MAX_STEPS", steps)
        some = check_policy(policy)
        monkeypatch.setattr(coverage_module, "MAX_STEPS", 10**10)
        whole = check_policy(policy)
        for code in ("SG001", "SG002", "SG003", "SG008", "SG009"):
            assert by_code(some, code) <= by_code(whole, code)

    run()


def test_findings_stand_without_the_words_there_was_no_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    text = one_group("""
id: a, direction: inbound, protocol: tcp, action: deny
id: b, direction: inbound, protocol: tcp, ports: 80
id: c, direction: outbound, protocol: tcp
id: d, direction: outbound, protocol: tcp, ports: 80, priority: 2
id: e, direction: outbound, protocol: udp, ports: 1-9, priority: 1
id: f, direction: outbound, protocol: udp, priority: 2
id: z, direction: inbound, protocol: udp, action: deny
""")
    whole = found(text)
    monkeypatch.setattr(coverage_module, "MAX_STEPS_TO_EXPLAIN", 0)
    brief = found(text)
    for code in ("SG001", "SG002"):
        assert [about for about, _ in brief[code]] == [about for about, _ in whole[code]]
    assert "SG003" in whole and "SG003" not in brief
    assert all("other rules decide" in message for _, message in brief["SG001"] + brief["SG002"])
    # "nothing else would allow" is only claimed if it was checked.
    assert "nothing else would allow" in dict(whole["SG002"])["z"]
    assert "other rules decide the same" in dict(brief["SG002"])["z"]


def test_what_clouds_write_into_each_group_is_no_finding_beside_itself_and_rules_that_allow_do_not_compete() -> None:
    egress = "{id: %s, direction: outbound, protocol: all, destination: 0.0.0.0/0}"
    text = f"""
security_groups:
- {{name: a, rules: [{egress % "a-out"}, {{id: narrow, direction: outbound, protocol: tcp, destination: 10.0.0.0/8}}]}}
- {{name: b, label: Front ends, rules: [{egress % "b-out"}, {egress % "twice"}]}}
- {{name: default-2, label: default, rules: []}}
instances:
- {{name: i, addresses: [10.0.0.1], security_groups: [a, b]}}
"""
    said = found(text)
    assert [about for about, _ in said["SG001"]] == ["narrow", "b-out", "twice"] and "SG005" not in said
    assert [about for about, _ in said.get("SG002", [])] == []
    assert "opens nothing more" in dict(said["SG001"])["narrow"] and "priority" not in CODES["SG001"].advice


def test_many_sets_of_groups_are_bounded() -> None:
    groups = tuple(
        SecurityGroup(f"g{n}", (Rule(f"r{n}", "inbound", 4, TCP, ((n + 1, n + 1),)), Rule(f"o{n}", "outbound", 4, TCP)))
        for n in range(40)
    )
    instances = tuple(
        Instance(f"i{a}-{b}", "default", (ip_network(f"10.0.{a}.{b}"),), (f"g{a}", f"g{b}"))
        for a in range(40)
        for b in range(40)
        if a != b
    )
    checked = check_policy(Policy(security_groups=groups, instances=instances))
    assert checked.left_out == ()
    # Every instance is in two groups, each of which lets out all of TCP. So each of these rules is redundant, and the
    # last one is shadowed.
    assert {rule for _, rule in by_code(checked, "SG002")} == {f"o{n}" for n in range(39)}
    assert {rule for _, rule in by_code(checked, "SG001")} == {"o39"}


def test_more_than_256_protocols_cannot_be_and_all_of_them_leave_no_other() -> None:
    """A rule for all protocols after one rule for each: nothing is left for it."""
    each = tuple(Rule(f"p{n}", "inbound", 4, n) for n in range(256))
    group = SecurityGroup("g", (*each, Rule("all", "inbound", 4)))
    policy = Policy(
        security_groups=(group,), instances=(Instance("i", "default", (ip_network("10.0.0.1"),), ("g",)),)
    )
    assert by_code(check_policy(policy), "SG001") == {("g", "all")}
    fewer = replace(policy, security_groups=(SecurityGroup("g", (*each[:-1], group.rules[-1])),))
    assert by_code(check_policy(fewer), "SG001") == set()


def test_ids_that_two_groups_share_are_told_apart() -> None:
    one = SecurityGroup("one", (Rule("r", "inbound", 4), Rule("s", "inbound", 4, TCP)))
    two = SecurityGroup("two", (Rule("r", "inbound", 4, TCP), Rule("s", "inbound", 4)))
    instances = tuple(
        Instance(name, "default", (ip_network(address),), (name,))
        for name, address in (("one", "10.0.0.1"), ("two", "10.0.0.2"))
    )
    checked = check_policy(Policy(security_groups=(one, two), instances=instances))
    assert by_code(checked, "SG001") == {("one", "s")} and by_code(checked, "SG002") == {("two", "r")}


def test_codes_keep_their_names() -> None:
    """Suppressions and dashboards rely on codes, so a code never gets a second meaning."""
    assert {code: entry.name for code, entry in CODES.items()} == {
        "SG001": "shadowed-rule", "SG002": "redundant-rule", "SG003": "wider-rule", "SG004": "open-to-everyone",
        "SG005": "unused-group", "SG006": "unused-address-group", "SG007": "empty-source", "SG008": "no-inbound",
        "SG009": "no-outbound", "SG010": "no-self-rule", "SG011": "isolated-members", "SG012": "never-hit",
        "SG013": "one-ip-version", "SG014": "unmet-expectation", "SG015": "wider-than-used",
        "SG016": "wide-member",
    }  # fmt: skip
