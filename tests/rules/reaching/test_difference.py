"""Openers that one policy allows and another does not: all, no others, and by rules that win (SPEC 12.6)."""

from __future__ import annotations

from dataclasses import replace

from all_openers import Packet, Truth, row_allows
from checked_policies import GROUPS, policies, rules, views_exist
from effort import some
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import Policy
from sgfast.rules.reaching.difference import difference
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.rows import Row


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
    said = {packet for row in rows for packet in packets if row_allows(row, packet, truth)}
    assert said == wanted
    for row in rows:
        meant = [packet for packet in wanted if row_allows(row, packet, truth)]
        assert meant, row
        assert row.rules, row
        for each in row.rules:
            assert any((each.group, each.rule.id) in truths[each.policy].deciding(packet) for packet in meant), each


@seed(2022)
@settings(max_examples=some(15, 10_000), deadline=None, database=None, phases=(Phase.generate,), print_blob=False,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(pairs())
def test_the_difference_is_exactly_that_of_the_references_verdicts(pair: tuple[Policy, Policy]) -> None:
    old, new = pair
    assume(views_exist(old) and views_exist(new))
    truths = {"old": Truth(old), "new": Truth(new)}
    found = difference(old, new)
    compare(found.opened, only_in(truths["new"], truths["old"]), truths, "new")
    compare(found.closed, only_in(truths["old"], truths["new"]), truths, "old")


def only_in(one: Truth, other: Truth) -> set[Packet]:
    """Packets that one policy allows and the other does not. Instances whose VPCs the other one does not peer have
    nothing in common there, whatever it allows to their addresses as those of nobody."""
    return {
        packet for packet in one.allowed
        if packet not in other.allowed or not other.policy.connected(packet.vpc, vpc_of_destination(one, packet))
    }


def vpc_of_destination(truth: Truth, packet: Packet) -> str:
    """The VPC of the instance to which an instance's packet goes, or the packet's VPC if one end is nobody's."""
    receiver = truth.owner(packet.vpc, packet.destination, True)
    return receiver.vpc if receiver and truth.owner(packet.vpc, packet.source, False) else packet.vpc


# By hand -------------------------------------------------------------------------------------------------------------


def names(rows: tuple[Row, ...]) -> set[tuple[str, str]]:
    """The instances of rows, with their addresses where only some are meant."""
    return {(_name(here), _name(there)) for row in rows for here in row.sources for there in row.destinations}


def _name(part: Part) -> str:
    return f"{part.name} {' '.join(part.addresses)}".rstrip()


def with_instances(*instances: str) -> Policy:
    """Instances that may do everything among each other. Each text is a name and its addresses."""
    text = """version: 1
security_groups:
  - name: open
    rules: [{direction: inbound, protocol: all, source: open}, {direction: outbound, protocol: all, destination: open}]
instances:
"""
    for instance in instances:
        name, *addresses = instance.split()
        text += f"  - {{name: {name}, addresses: [{', '.join(addresses)}], security_groups: [open]}}\n"
    return parse_policy(text)


def test_what_was_one_instance_and_is_two_opens_what_was_local() -> None:
    one = with_instances("a 10.0.0.1 10.0.0.2")
    two = with_instances("a 10.0.0.1", "b 10.0.0.2")
    found = difference(one, two)
    assert (names(found.opened), found.closed) == ({("a", "b"), ("b", "a")}, ())
    assert {each.rule.id for row in found.opened for each in row.rules} == {"open/inbound/1", "open/outbound/1"}
    found = difference(two, one)
    assert (found.opened, names(found.closed)) == ((), {("a", "b"), ("b", "a")})


def test_only_the_parts_of_one_instance_are_new_to_each_other() -> None:
    before = with_instances("a 10.0.0.1 10.0.0.2", "b 10.0.0.3 10.0.0.4")
    after = with_instances("a 10.0.0.1", "a2 10.0.0.2", "b 10.0.0.3", "b2 10.0.0.4")
    found = difference(before, after)
    assert found.closed == ()
    assert names(found.opened) == {("a", "a2"), ("a2", "a"), ("b", "b2"), ("b2", "b")}


def test_an_instance_or_an_address_that_only_one_policy_has_is_opened_or_closed_with_all_it_may_do() -> None:
    before = with_instances("a 10.0.0.1", "b 10.0.0.2")
    after = with_instances("a 10.0.0.1 10.0.0.9", "b 10.0.0.2", "c 10.0.0.3")
    found = difference(before, after)
    assert found.closed == ()
    new = {"c", "a 10.0.0.9/32"}
    assert names(found.opened) >= {("c", "b"), ("open", "c"), ("a 10.0.0.9/32", "b"), ("open", "a 10.0.0.9/32")}
    assert all(new & {*pair} for pair in names(found.opened))
    assert difference(after, before).opened == ()


def test_infrastructure_of_either_policy_is_not_compared() -> None:
    text = """version: 1
settings: {infrastructure: filtered}
security_groups: [{name: open, rules: [{direction: inbound, ethertype: IPv6, protocol: icmpv6}]}]
instances: [{name: a, addresses: ["2001:db8::1"], security_groups: [open]}]
"""
    filtered = parse_policy(text)
    closed = parse_policy(text.replace("{direction: inbound, ethertype: IPv6, protocol: icmpv6}", ""))
    exempt = parse_policy(text.replace("filtered", "exempt"))
    assert difference(filtered, exempt).closed == ()
    assert [row.services for row in difference(filtered, closed).closed] == ["icmpv6"]
