"""Shadowed and redundant rules, against an evaluation of every rule for every packet (SPEC 10.12)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import product
from typing import Any

from checked_policies import BLOCKS, GRE, TCP, UDP, by_code, policies, views_exist
from effort import some
from hypothesis import HealthCheck, assume, given, seed, settings

from sgfast.checking import check_policy
from sgfast.policy.model import (
    GroupPeer,
    Instance,
    Policy,
    Rule,
)
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.rules import matches, winning_rule
from sgfast.reference.table import Opener, Side

ELSEWHERE = {4: ip_address("203.0.113.1"), 6: ip_address("2a00::1")}
PEERS = {family: (*BLOCKS[family], ELSEWHERE[family]) for family in (4, 6)}
PORTS = (0, 1, 2, 3, 10)
TYPES, CODES_OF_TYPE = (0, 8, 9), (0, 1)


def services(family: int) -> Iterator[tuple[int, int | None, int | None, int | None]]:
    yield GRE, None, None, None
    for protocol in (TCP, UDP):
        for port in PORTS:
            yield protocol, port, None, None
    for icmp_type in TYPES:
        for code in CODES_OF_TYPE:
            yield (1 if family == 4 else 58), None, icmp_type, code


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


def test_shadowed_and_redundant_rules_against_exhaustive_evaluation() -> None:
    seen: Counter[str] = Counter()

    @seed(20261125)
    @settings(max_examples=some(50, 200), deadline=None, database=None, suppress_health_check=list(HealthCheck))
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
    @settings(max_examples=some(14, 40), deadline=None, database=None, suppress_health_check=list(HealthCheck))
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
