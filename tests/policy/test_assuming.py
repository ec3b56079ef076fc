"""A machine that a plan will make is judged as if it were there, and never mistaken for one that is (SPEC 10.13)."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from command import SHOP, sgfast, valid, write_policy
from effort import some
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from traffic import OUTSIDE, policies

from sgfast.base.errors import ArgumentError, PolicyError
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.engine import Engine
from sgfast.policy.assumed_instances import with_assumed
from sgfast.policy.model import Policy
from sgfast.questions.checking import check_policy
from sgfast.rules.reaching.explaining import Explanation, explain

Capsys = pytest.CaptureFixture[str]

POLICY = parse_policy("""
version: 1
vpcs: [{name: main, id: vpc-1}, {name: other}]
security_groups:
  - {name: web, id: sg-1, label: "tier=web", rules: [{direction: outbound, protocol: all}]}
  - {name: db, rules: [{direction: inbound, protocol: tcp, ports: 5432, source: web}]}
  - {name: batch, stateful: false, rules: []}
instances:
  - {name: db-1, vpc: main, addresses: [10.0.0.9, "2001:db8::9"], security_groups: [db]}
  - {name: nat, vpc: main, addresses: [10.1.0.0/16], security_groups: [db]}
  - {name: assumed-machine, vpc: other, addresses: [10.0.0.77], security_groups: [db]}
""", "p.yaml")


def said(explained: Explanation) -> list[Any]:
    found: list[Any] = [explained.verdict, explained.reason]
    for side in (explained.egress, explained.ingress):
        if side is not None:
            found += [side.verdict, side.reason, side.winner, side.also_match, side.nearest]
    return found


@seed(20261127)
@settings(max_examples=some(15, 300), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_an_assumed_machine_is_judged_like_one_of_the_policy(data: st.DataObject) -> None:
    policy = data.draw(policies())
    gone = data.draw(st.sampled_from(policy.instances))
    address = gone.addresses[0].network_address
    machine = replace(gone, name="assumed-machine", addresses=(ip_network(address),))
    others = tuple(instance for instance in policy.instances if instance is not gone)
    whole, without = (replace(policy, instances=those) for those in ((*others, machine), others))
    for each in (whole, without):
        try:
            Engine(each, vpc=gone.vpc)
        except PolicyError:  # two peers of the VPC have the same addresses
            assume(False)
    ends = [str(network.network_address) for other in others for network in other.addresses if network.version == 4]
    other = data.draw(st.sampled_from((*ends, *OUTSIDE[4])))
    as_if_in = [f"{group}={address}" for group in gone.security_groups]
    for source, destination in ((str(address), other), (other, str(address))):
        asked: dict[str, Any] = {"port": data.draw(st.sampled_from((22, 80, 443, 5432))), "vpc": gone.vpc}
        found = explain(without, source, destination, "tcp", **asked, as_if_in=as_if_in)
        assert said(found) == said(explain(whole, source, destination, "tcp", **asked))
        assert found.assumed == (machine,)
    assert with_assumed(without, as_if_in, vpc=gone.vpc)[0] == whole


def test_a_group_alone_means_the_end_without_an_instance() -> None:
    for word in ("web", "sg-1", "tier=web", "web=10.0.0.8", "tier=web=10.0.0.8"):
        found = explain(POLICY, "10.0.0.8", "db-1", "tcp", port=5432, vpc="main", as_if_in=[word])
        assert (found.verdict, found.reason, found.assumed[0].security_groups) == ("allow", "rule", ("web",))
        assert found.source.instance is found.assumed[0]
    back = explain(POLICY, "db-1", "2001:db8::8", "tcp", port=1, vpc="vpc-1", as_if_in=["web"])
    assert (back.verdict, back.destination.instance) == ("deny", back.assumed[0])


def test_groups_of_one_address_are_those_of_one_machine() -> None:
    policy, made = with_assumed(POLICY, ["web=10.0.0.8", "db=10.0.0.7", "db=10.0.0.8"], vpc="main")
    assert [(machine.name, machine.security_groups) for machine in made] == [
        ("assumed-machine-2", ("web", "db")), ("assumed-machine-3", ("db",)),
    ]  # fmt: skip
    assert policy.instances == (*POLICY.instances, *made)
    assert {machine.vpc for machine in made} == {"main"}


@pytest.mark.parametrize(("words", "vpc", "error", "message"), [
    (["web"], "main", ArgumentError, "could have the address 10.0.0.5 or 10.0.0.6: write web=ADDRESS"),
    (["web=10.0.0.7"], "main", ArgumentError, "^10.0.0.7 is neither the source nor the destination$"),
    (["web=10.0.0.5"], None, ArgumentError, "^the policy has 2 VPCs: name the VPC that the assumed machine is in$"),
    (["web=10.0.0"], "main", ArgumentError, "'10.0.0' is not an address: write web=ADDRESS"),
    (["web=10.0.0.0/24"], "main", ArgumentError, "'10.0.0.0/24' is not an address: write web=ADDRESS"),
    (["web="], "main", ArgumentError, "'' is not an address: write web=ADDRESS"),
    (["wbe=10.0.0.5"], "main", PolicyError, r"^p.yaml: unknown security group 'wbe' \(did you mean 'web'\?\)$"),
    (["=10.0.0.5"], "main", PolicyError, "^p.yaml: unknown security group ''$"),
    (["web=10.0.0.9"], "main", PolicyError, "^p.yaml: 10.0.0.9/32 already belongs to instance 'db-1' in VPC 'main'$"),
    (["web=10.0.0.5", "batch=10.0.0.5"], "main", PolicyError, "cannot be in stateful groups"),
    (["web=10.0.0.5"], "nowhere", PolicyError, r"^p.yaml: unknown VPC 'nowhere' \(did you mean 'other'\?\)$"),
])  # fmt: skip
def test_what_is_not_clear_is_asked_in_one_line(
    words: list[str], vpc: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        explain(POLICY, "10.0.0.5", "10.0.0.6", "tcp", port=1, vpc=vpc, as_if_in=words)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("end", ["db-1", "10.0.0.9", "10.1.2.3", "224.0.0.1"])
def test_a_group_alone_is_never_an_address_that_is_taken(end: str) -> None:
    """Nor one that no instance can have: a router's prefix owns its addresses, and nobody owns a multicast address."""
    with pytest.raises(ArgumentError, match="no address is known for the machine in 'web': write web=ADDRESS"):
        explain(POLICY, "nat", end, "udp", port=1, vpc="main", as_if_in=["web"])
    assert explain(POLICY, "nat", "10.1.2.3", "udp", port=1, vpc="main", as_if_in=["web=10.1.2.3"]).assumed


def test_only_instances_that_the_vpc_sees_take_an_address() -> None:
    found = explain(POLICY, "10.0.0.77", "db-1", "tcp", port=5432, vpc="main", as_if_in=["web"])
    assert (found.verdict, found.source.instance) == ("allow", found.assumed[0])


def test_the_reports_say_what_is_assumed(capsys: Capsys) -> None:
    arguments = ("explain", SHOP[0], "--as-if-in", "web", "--from", "10.0.0.77", "--to", "db-1", "--protocol", "tcp",
                 "--port", 5432)  # fmt: skip
    found = valid("explain", json.loads(sgfast(capsys, *arguments, "--json").out))
    assert [found[end]["assumed"] for end in ("from", "to")] == [True, False]
    assert (found["verdict"], found["from"]["instance"]) == ("allow", "assumed-machine")
    text = sgfast(capsys, *arguments).out
    assert "10.0.0.77 (assumed-machine)" in text and "as if in web, which the policy does not" in text
    refused = sgfast(capsys, *arguments[:4], "--from", "web-1", *arguments[6:])
    assert refused.status == 2 and "write web=ADDRESS" in refused.one_line()


def test_a_check_counts_the_machine_before_it_judges_groups(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 10.12."""
    document = Path(SHOP[0]).read_text().replace("instances:", "  - {name: nobody, rules: []}\n\ninstances:")
    path = write_policy(tmp_path, document)

    def checked(*words: str) -> tuple[dict[str, Any], set[str]]:
        given = [each for word in words for each in ("--as-if-in", word)]
        found = valid("check", json.loads(sgfast(capsys, "check", path, "--json", *given).out))
        return found, {finding["code"] for finding in found["findings"] if finding["group"] == "nobody"}

    before, unused = checked()
    after, used = checked("nobody=10.0.0.77")
    assert (unused, before["assumed"]) == ({"SG005"}, [])
    assert "SG005" not in used and after["instances"] == before["instances"] + 1
    assert after["assumed"] == [
        {"instance": "assumed-machine", "address": "10.0.0.77", "vpc": "default", "groups": ["nobody"]}
    ]
    text = sgfast(capsys, "check", path, "--as-if-in", "nobody=10.0.0.77").out
    assert "Assumed: assumed-machine, 10.0.0.77, as if in nobody" in text
    assert "write web=ADDRESS" in sgfast(capsys, "check", path, "--as-if-in", "web").one_line()


def test_an_assumed_member_is_a_source_of_rules() -> None:
    """A rule whose source group has no members is SG007 until one is assumed."""

    def empty(policy: Policy) -> list[str | None]:
        return [finding.rule for finding in check_policy(policy).findings if finding.code == "SG007"]

    assert empty(POLICY) == ["db/inbound/1"]
    assert empty(with_assumed(POLICY, ["web=10.0.0.8"], vpc="main")[0]) == []


def test_nothing_assumed_is_the_policy_itself() -> None:
    policy = load_policy(SHOP[0])
    assert with_assumed(policy, ())[0] is policy
