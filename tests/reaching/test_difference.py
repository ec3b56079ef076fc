"""What one policy opens and closes against another one: all of it, nothing else, and by rules that win (SPEC 12.6)."""

from __future__ import annotations

from dataclasses import replace

from all_openers import Packet, Truth, says
from checked_policies import GROUPS, policies, rules, views_exist
from effort import some
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from sgfast.policy.model import Policy
from sgfast.reaching import Row, difference


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Policy, Policy]:
    """A policy, and another one: with other rules in one group, with other instances, or with nothing in common."""
    one, other = draw(policies()), draw(policies())
    match draw(st.sampled_from(("rules", "rules", "instances", "peerings", "all"))):
        case "rules":
            name = draw(st.sampled_from(GROUPS))
            made = tuple(draw(rules(name, n)) for n in range(draw(st.integers(0, 5))))
            groups = tuple(replace(g, rules=made) if g.name == name else g for g in one.security_groups)
            return one, replace(one, security_groups=groups)
        case "instances":
            return one, replace(one, instances=other.instances)
        case "peerings":
            return one, replace(one, peerings=other.peerings, vpcs=other.vpcs)
        case _:
            return one, other


def compare(rows: tuple[Row, ...], wanted: set[Packet], truths: dict[str, Truth], named: str) -> None:
    truth = truths[named]
    packets = [packet for packet in truth.verdicts]
    said = {packet for row in rows for packet in packets if says(row, packet, truth)}
    assert said == wanted
    for row in rows:
        meant = [packet for packet in wanted if says(row, packet, truth)]
        assert meant, row
        assert row.rules, row
        for each in row.rules:
            assert any((each.group, each.rule.id) in truths[each.policy].deciding(packet) for packet in meant), each


@seed(2022)
@settings(max_examples=some(20, 10_000), deadline=None, database=None, phases=(Phase.generate,), print_blob=False,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(pairs())
def test_the_difference_is_exactly_that_of_the_references_verdicts(pair: tuple[Policy, Policy]) -> None:
    old, new = pair
    assume(views_exist(old) and views_exist(new))
    truths = {"old": Truth(old), "new": Truth(new)}
    allowed = {name: truth.allowed for name, truth in truths.items()}
    found = difference(old, new)
    compare(found.opened, allowed["new"] - allowed["old"], truths, "new")
    compare(found.closed, allowed["old"] - allowed["new"], truths, "old")
