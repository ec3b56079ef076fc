"""Shadowed and redundant rules, against an evaluation of every rule for every packet (SPEC 10.12)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from asked_rules import TYPES, evaluate
from checked_policies import by_code, policies, views_exist
from effort import some
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st

from sgfast.policy.model import GroupPeer, Policy, Rule
from sgfast.questions.checking import check_policy


def all_rules(policy: Policy) -> list[tuple[str, str, Rule]]:
    return [(group.name, rule.id, rule) for group in policy.security_groups for rule in group.rules]


def compare(policy: Policy) -> Counter[str]:
    truth, checked = evaluate(policy), check_policy(policy)
    assert checked.left_out == ()
    shadowed = truth.somebody - truth.wins
    redundant = truth.wins - truth.needed
    assert by_code(checked, "SG001") == shadowed
    assert by_code(checked, "SG002") == redundant
    nobody = {
        (group, rule_id)
        for group, rule_id, rule in all_rules(policy)
        if (group, rule_id) not in truth.somebody and rule.peer != GroupPeer(group)
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
            if key != wide and truth.packets[key] <= truth.with_own[wide] and rule_of[key].action == "allow"
        ]  # fmt: skip
        assert rule_of[wide].action == "allow" and narrower
    return Counter(finding.code for finding in checked.findings)


@st.composite
def odd_policies(draw: st.DrawFn) -> Policy:
    """Few instances, other settings of infrastructure, stateless groups, and all kinds of ICMP types."""
    policy = draw(policies())
    stateless = set(draw(st.sampled_from(((), (), ("b",), ("a", "b", "c")))))

    def odd(rule: Rule) -> Rule:
        if rule.protocol not in (1, 58) or not draw(st.integers(0, 3)):
            return rule
        return replace(rule, icmp_type=draw(st.sampled_from(TYPES[rule.ethertype])))

    instances = policy.instances[: draw(st.sampled_from((1, 2, 5)))]
    kinds = [[name for name in each.security_groups if (name in stateless) == draw_kind] for each in instances
             for draw_kind in (draw(st.booleans()),)]  # fmt: skip
    return replace(
        policy,
        settings=replace(policy.settings, infrastructure=draw(st.sampled_from(("exempt", "by-role", "filtered")))),
        security_groups=tuple(
            replace(group, rules=tuple(map(odd, group.rules)), stateful=group.name not in stateless)
            for group in policy.security_groups
        ),
        instances=tuple(
            replace(each, security_groups=tuple(names)) for each, names in zip(instances, kinds, strict=True) if names
        ),
    )


def test_rules_of_few_instances_against_exhaustive_evaluation() -> None:
    """Where packets that would come to a rule do not come, as the instance is alone or nobody asks rules about them."""
    seen: Counter[str] = Counter()

    @seed(20270114)
    @settings(max_examples=some(25, 2000), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(odd_policies())
    def run(policy: Policy) -> None:
        assume(views_exist(policy))
        seen.update(compare(policy))

    run()
    for code in ("SG001", "SG002", "SG003", "SG007", "SG008", "SG009"):
        assert seen[code] >= some(2, 5), seen


def test_shadowed_and_redundant_rules_against_exhaustive_evaluation() -> None:
    seen: Counter[str] = Counter()

    @seed(20261125)
    @settings(max_examples=some(30, 200), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(policies())
    def run(policy: Policy) -> None:
        assume(views_exist(policy))
        seen.update(compare(policy))

    run()
    for code in ("SG001", "SG002", "SG003", "SG005", "SG007", "SG008", "SG009", "SG010", "SG011"):
        assert seen[code] >= some(2, 5), seen


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
