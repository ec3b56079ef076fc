"""Policies with many VPCs: the work of an answer about all packets grows as what VPCs see of each other, and what would
take too long is refused before it is done (SPEC 11.1, 11.7, 11.9).
"""

from __future__ import annotations

from functools import partial

import pytest
from growth import operations

from sgfast import Policy
from sgfast.base.errors import PolicyError, TooMuch
from sgfast.clouds.loading import parse_policy
from sgfast.policy.expectations import expectations_of
from sgfast.rules.reaching import proving, relation
from sgfast.rules.reaching.difference import difference
from sgfast.rules.reaching.ends import ANY, NamedEnd, named_end
from sgfast.rules.reaching.proving import Expectations
from sgfast.rules.reaching.question import Views
from sgfast.rules.reaching.relation import Relation
from sgfast.rules.reaching.rows import reach


def hub(count: int, port: int = 443) -> Policy:
    """A hub with so many instances in groups of their own, peered with as many VPCs of one instance each."""
    numbers = range(count)
    vpcs = ", ".join(["{name: hub}", *(f"{{name: v{n}}}" for n in numbers)])
    groups = "\n".join(
        f"  - {{name: g{n}, rules: [{{direction: inbound, protocol: tcp, ports: {1000 + n}}}, "
        f"{{direction: outbound, protocol: tcp, ports: {2000 + n}}}]}}"
        for n in numbers
    )
    instances = "\n".join(
        f"  - {{name: h{n}, vpc: hub, addresses: [10.0.{n // 250}.{n % 250}], security_groups: [g{n}]}}\n"
        f"  - {{name: s{n}, vpc: v{n}, addresses: [10.9.{n // 250}.{n % 250}], security_groups: [spoke]}}"
        for n in numbers
    )
    return parse_policy(
        f"version: 1\nquotas: {{security_groups: 5000}}\nvpcs: [{vpcs}]\n"
        f"peerings: [{', '.join(f'[hub, v{n}]' for n in numbers)}]\nsecurity_groups:\n{groups}\n"
        f"  - {{name: spoke, rules: [{{direction: outbound, protocol: tcp, ports: {port}}}]}}\n"
        f"instances:\n{instances}\n",
        "hub.yaml",
    )


def islands(count: int) -> Policy:
    """VPCs without peerings, each with the same address."""
    numbers = range(count)
    return parse_policy(
        f"version: 1\nvpcs: [{', '.join(f'{{name: v{n}}}' for n in numbers)}]\nsecurity_groups:\n"
        "  - {name: g, rules: [{direction: inbound, protocol: tcp, ports: 22}]}\ninstances:\n"
        + "".join(f"  - {{name: i{n}, vpc: v{n}, addresses: [10.0.0.5], security_groups: [g]}}\n" for n in numbers)
    )


def lines(count: int, **ends: str) -> object:
    meant = {"from": "any", "to": "any", **ends}
    return {"expect": [{**meant, "service": f"tcp/{9000 + n}", "verdict": "deny"} for n in range(count)]}


def test_peers_that_see_the_same_share_the_tables_of_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    real = Relation._rule_table

    def counted(*given: object) -> object:
        nonlocal made
        made += 1
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Relation, "_rule_table", counted)
    counts = []
    for count in (20, 40):
        made = 0
        reach(hub(count))
        counts.append(made)
    # For each set of groups in each VPC: what may leave and what may come in, as the hub sees it. Then what may leave a
    # peer, and what may come into the hub from any of them.
    assert counts == [6 * 20, 6 * 40]


def test_vpcs_that_see_nothing_of_each_other_are_as_much_work_together_as_alone() -> None:
    policies = [islands(count) for count in (200, 800)]
    for policy in policies:
        policy._connected_vpcs, policy._places_by_vpc  # noqa: B018
    few, many = (operations(partial(reach, policy)) for policy in policies)
    assert many < 4.5 * few
    few, many = (
        operations(partial(Expectations(policy, expectations_of(lines(1))).prove)) for policy in policies
    )
    assert many < 4.5 * few


def test_a_question_that_is_too_large_is_refused_before_any_address_is_looked_at(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = hub(30)
    # The hub sees 30 instances of its own and one of each peer, each of these one more than the hub has. Two networks
    # are named in each IP version.
    steps = (200 + 60 + 10 * 60 + 1) + 30 * (200 + 31 + 10 * 31 + 1)
    monkeypatch.setattr(relation, "MAX_VIEWED", steps)
    reach(policy)
    monkeypatch.setattr(relation, "MAX_VIEWED", steps - 1)
    monkeypatch.setattr("sgfast.rules.reaching.nodes.PolicyAccount.owned", None)
    with pytest.raises(TooMuch, match=r"^hub.yaml: .* its 31 VPCs see too many addresses and sets of groups of"):
        reach(policy)
    with pytest.raises(TooMuch, match=r"its 31 VPCs see"):
        difference(policy, hub(30, 80))


def test_a_policy_of_a_thousand_peers_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = hub(1000)
    monkeypatch.setattr("sgfast.rules.reaching.nodes.PolicyAccount.owned", None)
    with pytest.raises(TooMuch, match=r"its 1,001 VPCs see"):
        reach(policy)
    with pytest.raises(PolicyError, match=r"<expectations>: expect\[0\]: .* its 1,001 VPCs see"):
        Expectations(policy, expectations_of(lines(1))).prove()


def test_a_question_about_few_vpcs_of_many_is_answered() -> None:
    policy = hub(1000)
    spoke, middle = named_end(policy, "s7"), named_end(policy, "h7")
    views = Views(policy)

    def asked(source: NamedEnd, destination: NamedEnd) -> int:
        return sum(1 for _ in views.vpcs_to_search(4, source, destination))

    assert (asked(spoke, middle), asked(ANY, spoke), asked(middle, ANY), asked(ANY, middle)) == (2, 2, 1, 1001)
    assert reach(policy, spoke, middle).rows == ()
    (row,) = reach(policy, middle, ANY).rows
    assert row.services == "tcp/2007"
    assert not Expectations(policy, expectations_of(lines(1, **{"from": "s7", "to": "h7"}))).prove().of("fails")


def test_many_expectations_about_many_vpcs_are_refused_before_the_first_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = hub(120)
    monkeypatch.setattr(proving, "contradiction", None)
    with pytest.raises(PolicyError, match=r"^<expectations>: 1,000 exp.* 241 rules, 240 addresses and 121 VPCs are"):
        Expectations(policy, expectations_of(lines(1000))).prove()


def test_many_expectations_about_two_vpcs_of_many_are_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = hub(40)
    # Only two VPCs count, and the hub comes first.
    named = Expectations(policy, expectations_of(lines(5, **{"from": "s7", "to": "h7"})))
    one = 2 * (250 + 10 * 81 + 80 + 2) + 2 * (200 + 41 + 10 * 1 + 1)
    monkeypatch.setattr(proving, "MAX_STEPS", 5 * one)
    assert [outcome.word for outcome in named.prove().outcomes] == ["holds"] * 5
    monkeypatch.setattr(proving, "MAX_STEPS", 5 * one - 1)
    with pytest.raises(PolicyError, match="divide the file"):
        named.prove()
