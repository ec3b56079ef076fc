"""Compares findings about rules with an exhaustive evaluation: the reference model judges every packet of a small
universe (SPEC 10.12).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

import pytest
from effort import some
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st

from sgfast.checking import CODES, Checked, check_policy
from sgfast.checking import coverage as coverage_module
from sgfast.checking.exposure import SENSITIVE
from sgfast.errors import PolicyError
from sgfast.policy.document import parse_policy
from sgfast.policy.model import (
    AddressGroup,
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Policy,
    Rule,
    SecurityGroup,
    Vpc,
)
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.rules import matches, winning_rule
from sgfast.reference.table import Opener, Side

# The universe ---------------------------------------------------------------------------------------------------------

#: All networks of rules and instances are in here; one more address stands for all others.
BLOCKS = {4: ip_network("10.0.0.0/30"), 6: ip_network("2001:db8::/126")}
ELSEWHERE = {4: ip_address("203.0.113.1"), 6: ip_address("2a00::1")}
PEERS = {family: (*BLOCKS[family], ELSEWHERE[family]) for family in (4, 6)}
#: One port of each kind that the rules below distinguish; likewise ICMP types and codes, and protocols.
RANGES = (((0, 0),), ((1, 1),), ((2, 9),), ((0, 9),), ((1, 1), (3, 9)), ((1, 65535),), ((0, 65535),))
PORTS = (0, 1, 2, 3, 10)
TYPES, CODES_OF_TYPE = (0, 8, 9), (0, 1)
TCP, UDP, GRE = 6, 17, 47
GROUPS = ("a", "b", "c")


def services(family: int) -> Iterator[tuple[int, int | None, int | None, int | None]]:
    yield GRE, None, None, None
    for protocol in (TCP, UDP):
        for port in PORTS:
            yield protocol, port, None, None
    for icmp_type in TYPES:
        for code in CODES_OF_TYPE:
            yield (1 if family == 4 else 58), None, icmp_type, code


@st.composite
def networks(draw: st.DrawFn, family: int) -> Any:
    block = BLOCKS[family]
    length = block.prefixlen + draw(st.sampled_from((0, 1, 1, 2, 2, 2)))
    return draw(st.sampled_from(list(block.subnets(new_prefix=length))))


@st.composite
def rules(draw: st.DrawFn, group: str, number: int) -> Rule:
    family = draw(st.sampled_from((4, 4, 4, 6)))
    icmp = 1 if family == 4 else 58
    protocol = draw(st.sampled_from((None, TCP, TCP, TCP, UDP, icmp)))
    ports = icmp_type = icmp_code = None
    if protocol in (TCP, UDP) and draw(st.integers(0, 3)):
        ports = draw(st.sampled_from(RANGES))
    if protocol == icmp and draw(st.booleans()):
        icmp_type = draw(st.sampled_from((8, 9)))
        icmp_code = draw(st.sampled_from((None, 1)))
    peer = draw(
        st.one_of(
            st.none(), networks(family), networks(family), st.sampled_from(GROUPS).map(GroupPeer),
            st.just(AddressGroupPeer("some")),
        )
    )  # fmt: skip
    return Rule(
        f"{group}/{number}", draw(st.sampled_from(("inbound", "inbound", "outbound"))), family, protocol, ports,
        icmp_type, icmp_code, peer, draw(st.sampled_from(("allow", "allow", "allow", "deny"))),
        draw(st.sampled_from((1, 1, 2))),
    )  # fmt: skip


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    groups = tuple(
        SecurityGroup(name, tuple(draw(rules(name, n)) for n in range(draw(st.integers(0, 5))))) for name in GROUPS
    )
    vpcs = (Vpc("v"), Vpc("w", draw(st.sampled_from(("", "north")))), Vpc("x"))
    peerings = frozenset(
        frozenset(pair) for pair in (("v", "w"), ("w", "x"), ("v", "x")) if draw(st.integers(0, 2)) == 0
    )
    instances = []
    owned = set()
    for n in range(draw(st.integers(0, 5))):
        vpc = draw(st.sampled_from(("v", "v", "v", "w", "x")))
        drawn = draw(st.lists(st.one_of(networks(4), networks(4), networks(6)), min_size=1, max_size=2, unique=True))
        addresses = [each for each in drawn if (vpc, each) not in owned]
        owned.update((vpc, each) for each in addresses)
        members = draw(st.lists(st.sampled_from(GROUPS), min_size=1, max_size=3, unique=True))
        if addresses:
            instances.append(Instance(f"i{n}", vpc, tuple(addresses), tuple(members)))
    some = draw(st.lists(st.one_of(networks(4), networks(6)), max_size=3, unique=True))
    return Policy(vpcs, peerings, (AddressGroup("some", tuple(some)),), groups, tuple(instances))


@dataclass
class Truth:
    """The result of evaluating every packet: facts about the rules, by group and id."""

    matches: set[tuple[str, str]]
    wins: set[tuple[str, str]]
    #: Rules whose removal changes some packet's verdict.
    needed: set[tuple[str, str]]
    #: Instances, by direction, for which some packet is allowed.
    open: set[tuple[str, str]]
    #: The packets that each rule matches, and at which instance.
    packets: dict[tuple[str, str], set[Any]]


def evaluate(policy: Policy) -> Truth:
    truth = Truth(set(), set(), set(), set(), defaultdict(set))
    used = {name for instance in policy.instances for name in instance.security_groups}
    nobody = tuple(
        Instance(f"as if in {group.name}", policy.vpcs[0].name, (), (group.name,))
        for group in policy.security_groups
        if group.name not in used
    )
    views = {vpc.name: ReferenceEngine(policy, vpc=vpc.name) for vpc in policy.vpcs}
    # Look-ups of addresses depend only on the VPC, so each rule's matches are computed once per VPC.
    matched: dict[Any, set[tuple[str, str]]] = {}
    everyone = [(group.name, rule) for group in policy.security_groups for rule in group.rules]
    for instance in (*policy.instances, *nobody):
        view = views[instance.vpc]
        families = {network.version for network in instance.addresses}
        for family, leaving in product((4, 6), (False, True)):
            for peer, service in product(PEERS[family], services(family)):
                protocol, port, icmp_type, icmp_code = service
                side = Side(instance, leaving, peer, view._owner(peer))
                ends = ((ELSEWHERE[family], None), (peer, None))
                opener = Opener(
                    family, protocol, ends[not leaving], (ends[leaving][0], port), leaving, icmp_type, icmp_code, "",
                    False,
                )  # fmt: skip
                packet = (instance.vpc, leaving, peer, service)
                if packet not in matched:
                    matched[packet] = {
                        (group, rule.id) for group, rule in everyone if matches(view.policy, rule, side, opener)
                    }
                matching = [
                    (group, rule) for group, rule in everyone
                    if group in instance.security_groups and (group, rule.id) in matched[packet]
                ]  # fmt: skip
                if not matching:
                    continue
                matching.sort(key=lambda each: (each[1].priority, each[1].action != "deny"))
                keys = [(group, rule.id) for group, rule in matching]
                winner = winning_rule(view.policy, side, opener)
                assert winner is not None and (winner.group, winner.rule.id) == keys[0]
                for key in keys:
                    truth.packets[key].add((instance.name, *packet))
                truth.matches.update(keys)
                truth.wins.add(keys[0])
                allows = [rule.action == "allow" for _, rule in matching] + [False]
                if allows[0] != allows[1]:
                    truth.needed.add(keys[0])
                if allows[0] and family in families:
                    truth.open.add((instance.name, "outbound" if leaving else "inbound"))
    return truth


def by_code(checked: Checked, code: str) -> set[tuple[str, str]]:
    return {(finding.group or "", finding.rule or "") for finding in checked.findings if finding.code == code}


def all_rules(policy: Policy) -> list[tuple[str, str, Rule]]:
    return [(group.name, rule.id, rule) for group in policy.security_groups for rule in group.rules]


def compare(policy: Policy) -> Counter[str]:
    truth, checked = evaluate(policy), check_policy(policy)
    assert checked.left_out == ()
    shadowed = truth.matches - truth.wins
    redundant = truth.wins - truth.needed
    assert by_code(checked, "SG001") == shadowed
    assert by_code(checked, "SG002") == redundant
    nobody = {
        (group, rule_id)
        for group, rule_id, rule in all_rules(policy)
        if (group, rule_id) not in truth.matches and rule.peer != GroupPeer(group)
    }
    assert by_code(checked, "SG007") == nobody
    for code, direction in (("SG008", "inbound"), ("SG009", "outbound")):
        silent = {instance.name for instance in policy.instances if (instance.name, direction) not in truth.open}
        told = [finding for finding in checked.findings if finding.code == code]
        assert {name for finding in told for name in finding.instances} == silent
        assert sum(finding.instance_count for finding in told) == len(silent)
    rule_of = {(group, rule_id): rule for group, rule_id, rule in all_rules(policy)}
    for wide in by_code(checked, "SG003"):
        narrower = [
            key for key in shadowed | redundant
            if key != wide and truth.packets[key] <= truth.packets[wide] and rule_of[key].action == "allow"
        ]  # fmt: skip
        assert rule_of[wide].action == "allow" and narrower
    return Counter(finding.code for finding in checked.findings)


def views_exist(policy: Policy) -> bool:
    """Whether each VPC's addresses are unambiguous (SPEC 7.1)."""
    try:
        for vpc in policy.vpcs:
            ReferenceEngine(policy, vpc=vpc.name)
    except PolicyError:
        return False
    return True


def test_shadowed_and_redundant_rules_against_exhaustive_evaluation() -> None:
    seen: Counter[str] = Counter()

    @seed(20261125)
    @settings(max_examples=some(80, 200), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(policies())
    def run(policy: Policy) -> None:
        assume(views_exist(policy))
        seen.update(compare(policy))

    run()
    for code in ("SG001", "SG002", "SG003", "SG005", "SG007", "SG008", "SG009", "SG010", "SG011"):
        assert seen[code] >= 5, seen


def test_removing_a_redundant_rule_and_looking_again_keeps_every_verdict() -> None:
    """Two rules may each be redundant but not both at once, which is why the advice is to remove one at a time."""

    @seed(7)
    @settings(max_examples=some(20, 40), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(policies())
    def run(policy: Policy) -> None:
        assume(views_exist(policy) and policy.instances)
        before = evaluate(policy).open
        for _ in range(20):
            useless = by_code(check_policy(policy), "SG001") | by_code(check_policy(policy), "SG002")
            if not useless:
                break
            group, rule_id = min(useless)
            policy = replace(
                policy,
                security_groups=tuple(
                    replace(each, rules=tuple(rule for rule in each.rules if rule.id != rule_id))
                    if each.name == group
                    else each
                    for each in policy.security_groups
                ),
            )
        assert evaluate(policy).open == before

    run()


# Single findings ------------------------------------------------------------------------------------------------------


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


def test_a_group_of_members_within_a_network_is_covered_by_it() -> None:
    """The members' addresses count, not the way the rule is written."""
    policy = """
security_groups:
  - name: g
    rules:
      - {id: net, direction: inbound, protocol: tcp, ports: 80-90, source: 10.0.0.0/24}
      - {id: members, direction: inbound, protocol: tcp, ports: 80, source: g}
      - {id: out, direction: outbound, protocol: all}
instances:
  - {name: i, addresses: [10.0.0.1], security_groups: [g]}
  - {name: j, addresses: [10.0.0.2], security_groups: [g]}
"""
    assert [about for about, _ in found(policy)["SG001"]] == ["members"]
    assert "SG001" not in found(policy.replace("10.0.0.2]", "10.1.0.2]"))


def test_a_network_that_longer_ones_cover_to_the_last_address_is_shadowed() -> None:
    halves = one_group("""
id: low, direction: inbound, protocol: tcp, ports: 1, source: 10.9.0.0/25
id: high, direction: inbound, protocol: tcp, ports: 1-2, source: 10.9.0.128/25
id: both, direction: inbound, protocol: tcp, ports: 1, source: 10.9.0.0/24
""")
    ((about, message),) = found(halves)["SG001"]
    assert about == "both" and "low (" in message and "high (" in message and "decide everything" in message


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


def test_instances_without_inbound_or_outbound() -> None:
    text = """
security_groups:
  - {name: out, rules: [{direction: outbound, protocol: all}]}
  - {name: six, rules: [{direction: inbound, ethertype: IPv6, protocol: all}]}
  - {name: shut, rules: [{direction: outbound, protocol: all, action: deny}]}
instances:
  - {name: a, addresses: [10.0.0.1], security_groups: [out, six]}
  - {name: b, addresses: [10.0.0.2, "2001:db8::2"], security_groups: [out, six]}
  - {name: c, addresses: [10.0.0.3], security_groups: [out, shut]}
"""
    policy = parse_policy(f"version: 1\n{text}")
    told = [(f.code, f.instances) for f in check_policy(policy).findings if f.code in ("SG008", "SG009")]
    assert told == [("SG008", ("a",)), ("SG008", ("c",)), ("SG009", ("c",))]


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


def test_rules_without_instances_are_compared_as_if_one_had_the_group() -> None:
    text = one_group(
        "id: a, direction: inbound, protocol: tcp\nid: b, direction: inbound, protocol: tcp, ports: 80", "[]"
    )
    said = found(text)
    assert [about for about, _ in said["SG001"]] == ["b"] and "SG008" not in said


# Limits ---------------------------------------------------------------------------------------------------------------


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
    @settings(max_examples=some(30, 60), deadline=None, database=None, suppress_health_check=list(HealthCheck))
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


def test_many_sets_of_groups_are_bounded() -> None:
    groups = tuple(
        SecurityGroup(f"g{n}", (Rule(f"r{n}", "inbound", 4, TCP, ((n + 1, n + 1),)), Rule(f"o{n}", "outbound", 4)))
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
    # Every instance has two groups that allow everything out: each such rule is redundant, and the last one is
    # shadowed.
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
    }  # fmt: skip
