"""Rows that say who may open what to whom: all of it, and nothing else (SPEC 12.5)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from all_openers import ENDS, QUERIED_SERVICES, Truth, row_allows
from checked_policies import policies, views_exist
from command import SHOP, valid
from effort import some
from hypothesis import HealthCheck, Phase, assume, given, note, seed, settings
from hypothesis import strategies as st

from sgfast.base.errors import SgfastError, TooMuch
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.policy.model import Policy
from sgfast.report.json.reach import JsonReach
from sgfast.report.reach import part_text
from sgfast.rules.reaching import relation
from sgfast.rules.reaching.ends import ANY, named_end
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.rows import reach
from sgfast.rules.reaching.services import named_service


@seed(2021)
@settings(max_examples=some(25, 10_000), deadline=None, database=None, phases=(Phase.generate,), print_blob=False,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(policies(), st.sampled_from(ENDS), st.sampled_from(ENDS), st.sampled_from(QUERIED_SERVICES))
def test_rows_say_exactly_what_the_reference_allows(
    policy: Policy, source: str, destination: str, service: str
) -> None:
    assume(views_exist(policy))
    note(f"{source} to {destination}: {service}")
    try:
        ends = named_end(policy, source), named_end(policy, destination)
    except SgfastError:
        assume(False)
    services = named_service(service)
    truth = Truth(policy)
    allowed = {p for p in truth.allowed if p.is_one_of(services) and truth.is_between(p, *ends)}
    asked = [p for p in truth.verdicts if p.is_one_of(services) and truth.is_between(p, *ends)]
    rows = reach(policy, *ends, service).rows
    said = {packet for row in rows for packet in asked if row_allows(row, packet, truth)}
    assert said == allowed
    for row in rows:
        assert any(row_allows(row, packet, truth) for packet in allowed), row
    assert len(set(rows)) == len(rows)


_WIDE = (
    "0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "0.0.0.0/2", "64.0.0.0/2", "8.0.0.0/7", "8.0.0.0/8", "9.0.0.0/8",
    "10.0.0.0/7", "10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "192.0.0.0/8",
)  # fmt: skip
_OUTSIDE = ("8.8.8.8", "9.9.9.9", "10.1.2.3", "10.200.0.1", "11.0.0.1", "64.0.0.1", "128.1.1.1", "192.168.1.1")
_WIDE_ENDS = ("any", "lab", *["internet"] * 10, *_WIDE)


@seed(2022)
@settings(max_examples=some(80, 10_000), deadline=None, database=None, phases=(Phase.generate,), print_blob=False,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(st.data())
def test_wide_networks_in_rows_are_within_what_was_asked_for(data: st.DataObject) -> None:
    def pick(choices: tuple[str, ...]) -> str:
        return data.draw(st.sampled_from(choices))

    rules = ", ".join(
        f"{{direction: {way}, protocol: {pick(('tcp', 'all'))}, {peer}: {pick(_WIDE)}, "
        f"action: {pick(('allow', 'allow', 'allow', 'deny'))}}}"
        for way, peer in (("inbound", "source"), ("outbound", "destination"))
        for _ in range(data.draw(st.integers(0, 3)))
    )
    owned = {pick(("10.0.0.5", "128.0.0.0/2", "8.8.8.8", "0.0.0.0/1")) for _ in range(data.draw(st.integers(0, 2)))}
    policy = parse_policy(f"""version: 1
address_groups: [{{name: lab, addresses: [8.0.0.0/7, 8.0.0.0/8, 10.0.0.0/9, 10.128.0.0/9]}}]
security_groups: [{{name: g, rules: [{rules}]}}]
instances:
  - {{name: a, addresses: [10.7.7.7, {", ".join(sorted(owned))}], security_groups: [g]}}
  - {{name: b, addresses: [10.7.7.8], security_groups: [g]}}
""")
    source, destination = pick((*_WIDE_ENDS, "g")), pick(_WIDE_ENDS)
    note(f"{source} to {destination}")
    ends = named_end(policy, source), named_end(policy, destination)
    truth = Truth(policy)
    addresses = [*map(ip_address, (*_OUTSIDE, "10.7.7.7", "10.7.7.8"))]
    verdicts = dict(
        each for one in addresses for other in addresses for each in truth._between("default", one, other)
    )
    rows = reach(policy, *ends).rows
    said = {packet for packet in verdicts for row in rows if row_allows(row, packet, truth)}
    assert said == {p for p, verdict in verdicts.items() if verdict == "allow" and truth.is_between(p, *ends)}


@pytest.mark.parametrize(
    ("rules", "asked", "words"),
    [
        # Networks that cover all that was asked for are no answer: what was asked for is.
        (("0.0.0.0/1", "128.0.0.0/1"), "internet", "internet"),
        (("0.0.0.0/1", "128.0.0.0/1"), "any", "0.0.0.0/0"),
        (("0.0.0.0/1", "128.0.0.0/1"), "0.0.0.0/0", "0.0.0.0/0"),
        (("8.0.0.0/8", "9.0.0.0/8"), "8.0.0.0/7", "8.0.0.0/7"),
        (("8.0.0.0/8", "9.0.0.0/8"), "any", "8.0.0.0/8, 9.0.0.0/8"),
        (("0.0.0.0/0",), "nested", "nested"),
        (("0.0.0.0/0",), "halves", "halves"),
        # Less than what was asked for is the network of the rule, but only its public addresses.
        (("0.0.0.0/1",), "internet", "internet (0.0.0.0/1)"),
        (("10.0.0.0/7",), "internet", "internet (10.0.0.0/7)"),
        (("8.0.0.0/7",), "internet", "8.0.0.0/7"),
        (("0.0.0.0/0", "!8.0.0.0/8"), "internet", "internet except 8.0.0.0/8"),
        (("0.0.0.0/1", "!8.0.0.0/8"), "internet", "internet (0.0.0.0/1) except 8.0.0.0/8"),
        (("0.0.0.0/1", "128.0.0.0/1", "!8.0.0.0/8"), "any", "0.0.0.0/0 except 8.0.0.0/8"),
        (("10.0.0.0/8",), "internet", ""),
    ],
)
def test_a_row_names_what_was_asked_for_if_all_of_it_is_meant(rules: tuple[str, ...], asked: str, words: str) -> None:
    listed = ", ".join(
        f"{{direction: outbound, protocol: all, destination: {each.strip('!')}, "
        f"action: {'deny' if each.startswith('!') else 'allow'}}}"
        for each in rules
    )
    policy = parse_policy(f"""version: 1
address_groups:
  - {{name: nested, addresses: [10.0.0.0/8, 10.1.0.0/16]}}
  - {{name: halves, addresses: [192.0.2.0/25, 192.0.2.128/25]}}
security_groups: [{{name: g, rules: [{listed}]}}]
instances:
  - {{name: a, addresses: [10.0.0.1], security_groups: [g]}}
  - {{name: b, addresses: [10.0.0.2], security_groups: [g]}}
""")
    found = reach(policy, destinations=named_end(policy, asked))
    assert [", ".join(map(part_text, row.destinations)) for row in found.rows] == [words] * bool(words)
    assert [", ".join(part.text for part in row.destinations) for row in found.rows] == [words] * bool(words)
    valid("reach", JsonReach.of(found))


def test_a_group_or_an_instance_of_which_only_a_part_is_asked_for_does_not_stand_for_it() -> None:
    policy = parse_policy("""version: 1
security_groups:
  - name: web
    rules: [{direction: outbound, protocol: tcp}]
instances:
  - {name: a, addresses: [10.0.0.1], security_groups: [web]}
  - {name: b, addresses: [10.0.0.2, 10.1.0.0/24], security_groups: [web]}
""")

    def sources(asked: str) -> list[Part]:
        return [part for row in reach(policy, named_end(policy, asked), services="tcp/1").rows for part in row.sources]

    assert sources("web") == sources("10.0.0.0/8") == [Part("group", "web")]
    assert sources("10.0.0.1") == [Part("instance", "a")]
    assert sources("10.0.0.2") == [Part("instance", "b", addresses=("10.0.0.2/32",))]
    assert sources("10.1.0.0/25") == [Part("instance", "b", addresses=("10.1.0.0/25",))]
    assert sources("b") == [Part("instance", "b")]


def test_members_in_another_region_are_no_source() -> None:
    policy = parse_policy("""version: 1
vpcs: [{name: v}, {name: w, region: north}]
peerings: [[v, w]]
security_groups:
  - name: web
    rules: [{direction: outbound, protocol: all}, {direction: inbound, protocol: tcp, source: web}]
instances:
  - {name: a, vpc: v, addresses: [10.0.0.1], security_groups: [web]}
  - {name: b, vpc: v, addresses: [10.0.0.2], security_groups: [web]}
  - {name: far, vpc: w, addresses: [10.1.0.1], security_groups: [web]}
""")
    found = reach(policy, destinations=named_end(policy, "web"))
    assert {part.name for row in found.rows for part in (*row.sources, *row.destinations)} == {"a", "b"}


def test_all_but_a_few_instances_are_named_as_such() -> None:
    groups = "\n".join(f"  - {{name: g{n}, rules: [{{direction: outbound, protocol: tcp}}]}}" for n in range(6))
    instances = "\n".join(f"  - {{name: i{n}, addresses: [10.0.0.{n}], security_groups: [g{n}]}}" for n in range(6))
    silent = groups.replace("g3, rules: [{direction: outbound, protocol: tcp}]", "g3, rules: []")
    policy = parse_policy(f"version: 1\nsecurity_groups:\n{silent}\ninstances:\n{instances}\n")
    assert [row.sources for row in reach(policy).rows] == [(Part("instances", without=("g3",)),)]


def test_too_many_parts_of_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy(SHOP[0])
    monkeypatch.setattr(relation, "MAX_PARTS", 2)
    with pytest.raises(TooMuch, match="too many services are open to different senders; ask about less"):
        reach(policy)


_TWO_VPCS = """
version: 1
vpcs: [{name: dev}, {name: prod}, {name: hub}]
peerings: [[hub, dev]]
security_groups:
  - {name: app, rules: [{direction: inbound, protocol: tcp, ports: 22}, {direction: outbound, protocol: all}]}
  - {name: team, rules: []}
  - {name: closed, rules: [{direction: inbound, protocol: tcp, ports: 22, action: deny, priority: 1}]}
  - {name: ops, rules: [{direction: outbound, protocol: all}]}
instances:
  - {name: dev-1, vpc: dev, addresses: [10.0.0.5], security_groups: [app, team]}
  - {name: dev-2, vpc: dev, addresses: [10.0.0.6], security_groups: [app, team]}
  - {name: prod-1, vpc: prod, addresses: [10.1.0.5], security_groups: [app, closed]}
  - {name: hub-1, vpc: hub, addresses: [10.2.0.5, 10.2.0.6], security_groups: [ops]}
"""


def _said(policy: Policy, source: str, destination: str) -> list[tuple[str, str, str]]:
    rows = reach(policy, named_end(policy, source), named_end(policy, destination)).rows
    return [(
        ", ".join(part.text for part in row.sources), ", ".join(part.text for part in row.destinations), row.services
    ) for row in rows]  # fmt: skip


def test_a_group_is_not_named_for_members_in_vpcs_that_were_not_asked_about() -> None:
    """SPEC 12.5: ``app`` has a member in prod, which nobody may reach."""
    policy = parse_policy(_TWO_VPCS)
    assert _said(policy, "internet", "team") == [("internet", "team", "tcp/22")]
    # Without ``team``, only ``app`` has the instances.
    renamed = parse_policy(_TWO_VPCS.replace("[app, team]", "[app]").replace("- {name: team", "- {name: unused"))
    assert _said(renamed, "internet", "10.0.0.0/24") == [("internet", "dev-1, dev-2", "tcp/22")]
    # No name is only about dev.
    asked = parse_policy(_TWO_VPCS.replace("[app, closed]", "[app, team, closed]"))
    assert _said(asked, "hub-1", "team") == [("hub-1", "dev-1, dev-2", "tcp/22")]
    assert _said(asked, "dev-1", "any") == [("dev-1", "0.0.0.0/0", "all"), ("dev-1", "app in VPC dev", "tcp/22")]
    part = reach(asked, named_end(asked, "dev-1"), ANY).rows[1].destinations[0]
    assert (part.kind, part.name, part.vpcs) == ("group", "app", ("dev",))
    table = [*reach(asked, named_end(asked, "dev-1"), ANY).tables.rows]
    assert [row["destination_vpcs"] for row in table] == [None, "dev"]
    # A member without an address of this IP version is in no row of it.
    sixth = _TWO_VPCS.replace("[10.1.0.5]", '["2001:db8::5"]').replace("[app, closed]", "[app, team]")
    assert _said(parse_policy(sixth), "dev-1", "any")[1] == ("dev-1", "app", "tcp/22")


def test_an_instance_of_a_peer_that_was_not_asked_about_has_no_addresses_behind_its_name() -> None:
    policy = parse_policy(_TWO_VPCS.replace("[app, team]", "[app]"))
    assert _said(policy, "ops", "any") == [("ops", "0.0.0.0/0", "all"), ("ops", "dev-1, dev-2", "tcp/22")]
    assert _said(policy, "10.2.0.5", "dev-1") == [("hub-1 (10.2.0.5/32)", "dev-1", "tcp/22")]


def test_all_and_any_are_not_said_of_some_vpcs() -> None:
    policy = parse_policy(_TWO_VPCS)
    assert _said(policy, "any", "team") == [("0.0.0.0/0, all instances in VPCs dev, hub", "team", "tcp/22")]
    assert ("all instances", "0.0.0.0/0", "all") in _said(policy, "any", "any")
    alone = parse_policy(_TWO_VPCS.replace("peerings: [[hub, dev]]", "peerings: [[hub, dev], [prod, dev]]"))
    assert _said(alone, "any", "team") == [("any", "team", "tcp/22")]
