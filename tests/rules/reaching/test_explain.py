"""``sgfast explain``: its verdict matches the engine's, its nearest misses match a brute-force search, its texts are
true (SPEC 10.13).
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from command import SHOP, process, sgfast, valid
from effort import some
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from traffic import OUTSIDE, policies

from sgfast.api import explain as explain_question
from sgfast.base.errors import PolicyError
from sgfast.clouds.loading import parse_policy
from sgfast.engine import Engine
from sgfast.policy.loaded_policy import having
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    TCP,
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Policy,
    Rule,
    Vpc,
)
from sgfast.policy.rule_text import rule_text
from sgfast.reference.addresses import is_multicast_or_broadcast
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.rules import matches, winning_rule
from sgfast.reference.table import Opener, Side
from sgfast.report.explain import explain_document
from sgfast.report.text import to_text
from sgfast.rules.reaching.explaining import ExplainedSide, Explanation, explain
from sgfast.rules.reaching.filters import CLIENT_PORT
from sgfast.rules.reaching.services import SingleService, single_service, single_service_text

Capsys = pytest.CaptureFixture[str]

TWO_VPCS = """
version: 1
vpcs: [{name: red}, {name: blue}, {name: far, region: north}]
peerings: [[red, far]]
address_groups: [{name: offices, addresses: [192.0.2.0/24]}]
security_groups:
  - name: app
    rules:
      - {direction: inbound, protocol: tcp, ports: 80, source: app}
      - {direction: inbound, protocol: tcp, ports: 22, source: offices}
      - {direction: outbound, protocol: all}
  - {name: empty}
  - name: db
    rules:
      - {direction: inbound, protocol: tcp, ports: 5432, source: empty}
      - {direction: inbound, protocol: tcp, ports: 5432, source: app}
instances:
  - {name: a, vpc: red, addresses: [10.0.0.1, "2001:db8::1"], security_groups: [app]}
  - {name: b, vpc: blue, addresses: [10.0.1.1], security_groups: [app]}
  - {name: c, vpc: far, addresses: [10.0.2.1], security_groups: [app]}
  - {name: d, vpc: red, addresses: [10.0.0.9], security_groups: [db]}
  - {name: e, vpc: red, addresses: [10.0.9.0/30, 10.0.0.64/26], security_groups: [db, empty]}
"""


def policy_of(text: str) -> Policy:
    return parse_policy(text, "p.yaml")


def test_rule_that_matches_by_another_instances_prefix_says_which_one() -> None:
    """SPEC 4.14: e has 10.0.9.0/30 and is in empty; f has one of its addresses and is not."""
    policy = policy_of(f"{TWO_VPCS}  - {{name: f, vpc: red, addresses: [10.0.9.1], security_groups: [app]}}\n")

    def asked(policy: Policy) -> Explanation:
        return explain(policy, "f", "e", "tcp", port=5432, vpc="red")

    assert asked(policy).choices == ("e has several addresses; 10.0.9.0 was used.",)
    by_address = replace(policy, settings=replace(policy.settings, group_members="by-address"))
    found = asked(by_address)
    assert found.ingress is not None and found.ingress.winner is not None
    assert found.ingress.winner.rule.peer == GroupPeer("empty")
    assert found.choices[1:] == (
        "10.0.9.1 counts as a member of empty: e, which is in that group, has 10.0.9.0/30 (settings.group_members: "
        "by-address).",
    )
    text = " ".join(to_text(explain_document(found, {})).split())
    assert found.choices[1] in text
    # A member itself needs no such words.
    assert explain(by_address, "a", "f", "tcp", port=80, vpc="red").choices == (
        "a has several addresses; 10.0.0.1 was used.",
    )


# Against the engine and the reference model


def failing_fields(reference: ReferenceEngine, rule: Rule, side: Side, opener: Opener) -> int:
    """Count the fields of a rule that do not match according to the reference model, which checks each field with the
    others left open.
    """
    whole = Rule("", rule.direction, opener.version)  # type: ignore[arg-type]
    alone = [
        replace(whole, ethertype=rule.ethertype),
        replace(whole, protocol=rule.protocol),
        replace(whole, ports=rule.ports),
        replace(whole, icmp_type=rule.icmp_type),
        replace(whole, icmp_code=rule.icmp_code),
        replace(whole, peer=rule.peer),
    ]
    return sum(not matches(reference.policy, each, side, opener) for each in alone)


def brute_force(reference: ReferenceEngine, side: Side, opener: Opener) -> list[tuple[str, str, int]]:
    found = [
        (group.name, rule.id, failing_fields(reference, rule, side, opener))
        for group in reference.policy.security_groups
        if group.name in side.instance.security_groups
        for rule in group.rules
        if rule.direction == ("outbound" if side.leaving else "inbound") and rule.action == "allow"
    ]
    fewest = min((count for *_, count in found), default=0)
    return [miss for miss in found if miss[2] == fewest]


@st.composite
def questions(draw: st.DrawFn, policy: Policy) -> tuple[str, str, int, dict[str, int]]:
    """Any two addresses of one family, and a packet that can or cannot open a connection."""
    family = draw(st.sampled_from((4, 4, 6)))
    owned = [
        str(network.network_address + draw(st.sampled_from((0, 0, 1))) % network.num_addresses)
        for instance in policy.instances
        for network in instance.addresses
        if network.version == family
    ]
    addresses = st.sampled_from((*owned * 3, *OUTSIDE[family], "224.0.0.251" if family == 4 else "ff02::fb"))
    icmp = 1 if family == 4 else 58
    protocol = draw(st.sampled_from((6, 6, 6, 17, 132, 33, icmp, icmp, 47, 50)))
    fields = {}
    if protocol in PORT_PROTOCOLS:
        fields["port"] = draw(st.sampled_from((0, 22, 80, 81, 443, 500, 5432, 65535)))
    if protocol == icmp:
        fields["icmp_type"] = draw(st.sampled_from((8, 13, 9, 0, 3, 128, 129, 1, 144, 135)))
        fields["icmp_code"] = draw(st.sampled_from((0, 1, 2)))
    return draw(addresses), draw(addresses), protocol, fields


@seed(20261125)
@settings(max_examples=some(14, 200), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_verdict_winner_and_nearest_miss_against_engine_and_brute_force(data: st.DataObject) -> None:
    policy = data.draw(policies())
    of_all = ReferenceEngine(policy)
    for _ in range(8):
        src, dst, protocol, fields = data.draw(questions(policy))
        explained = explain(policy, src, dst, protocol, **fields)  # type: ignore[arg-type]
        # The addresses are looked up in the VPC of the source's instance, or else of the destination's (SPEC 12.1).
        here = of_all._owner(ip_address(src)) or of_all._owner(ip_address(dst))
        assert here is None or is_multicast_or_broadcast(ip_address(dst)) or explained.vpc == here.vpc
        reference = ReferenceEngine(policy, vpc=explained.vpc)
        verdict = Engine(policy, vpc=explained.vpc).check(
            src, dst, protocol, sport=CLIENT_PORT if "port" in fields else None, dport=fields.get("port"),
            icmp_type=fields.get("icmp_type"), icmp_code=fields.get("icmp_code"),
        )  # fmt: skip
        # Nobody can tell of a packet that is allowed if an instance has the address that VPC does not see.
        unseen = any(
            not is_multicast_or_broadcast(ip_address(text)) and of_all._owner(ip_address(text)) is not None
            and reference._owner(ip_address(text)) is None for text in (src, dst)
        )  # fmt: skip
        told = ("cannot-tell", None) if unseen and verdict.verdict == "allow" else (verdict.verdict, verdict.reason)
        assert (explained.verdict, explained.reason) == told
        source, destination = ip_address(src), ip_address(dst)
        sender = reference._owner(source)
        receiver = None if is_multicast_or_broadcast(destination) else reference._owner(destination)
        assert explained.source.instance == sender and explained.destination.instance == receiver
        if verdict.verdict not in ("allow", "deny"):
            assert explained.note and explained.egress is explained.ingress is None
            continue
        port = fields.get("port")
        for told, said, here, there, own, peer in (
            (explained.egress, verdict.egress, sender, receiver, source, destination),
            (explained.ingress, verdict.ingress, receiver, sender, destination, source),
        ):
            assert (told is None) == (here is None)
            if told is None or here is None:
                continue
            assert told.reached == (said is not None and said.reason != "vpc-isolated")
            if told.reached and said is not None:
                assert (told.verdict, told.reason) == (said.verdict, said.reason)
                assert (told.winner.rule.id if told.winner else None) == said.rule
            if told.reason == "invalid":
                assert not told.nearest and not told.also_match
                continue
            leaving = told.direction == "outbound"
            ends = (own, None), (peer, None)
            opener = Opener(
                source.version, protocol, ends[not leaving], (ends[leaving][0], port), leaving,
                fields.get("icmp_type"), fields.get("icmp_code"), "", False,
            )  # fmt: skip
            side = Side(here, leaving, peer, there)
            winner = winning_rule(reference.policy, side, opener)
            assert (winner and winner.rule) == (told.winner and told.winner.rule)
            expected = [] if winner else brute_force(reference, side, opener)
            assert [(miss.group, miss.rule.id, len(miss.misfits)) for miss in told.nearest] == expected
            matching = [found.rule for found in (told.winner, *told.also_match) if found]
            assert all(matches(reference.policy, rule, side, opener) for rule in matching)


# The explanation


def side_of(explained: Explanation, name: str) -> ExplainedSide:
    side = explained.egress if name == "egress" else explained.ingress
    assert side is not None
    return side


def misfits(explained: Explanation, name: str = "ingress") -> dict[str, list[tuple[str, str, str, str]]]:
    return {
        miss.rule.id: [(m.field, m.wanted, m.has, m.why) for m in miss.misfits]
        for miss in side_of(explained, name).nearest
    }


def test_why_a_group_does_not_match_is_told() -> None:
    policy = policy_of(TWO_VPCS)
    not_member = explain(policy, "e", "a", "tcp", port=80)
    (why,) = misfits(not_member)["app/inbound/1"]
    assert why == ("source", "group app", "10.0.9.1 (e)", "e is not a member: it is in db, empty")
    outside = explain(policy, "203.0.113.1", "a", "tcp", port=80)
    assert "belongs to no instance" in misfits(outside)["app/inbound/1"][0][3]
    other_region = explain(policy, "c", "a", "tcp", port=80)
    assert misfits(other_region)["app/inbound/1"][0][3] == (
        "c is a member, but in region north, and a is in no named region"
    )
    assert misfits(outside).keys() == {"app/inbound/1"}
    nobody = policy_of(TWO_VPCS.replace("[db, empty]", "[db]"))
    assert "no members" in misfits(explain(nobody, "e", "d", "tcp", port=5432))["db/inbound/1"][0][3]


def test_isolation_is_told_and_what_the_rules_would_say_beside_it() -> None:
    explained = explain(policy_of(TWO_VPCS), "b", "a", "tcp", port=80)
    assert (explained.verdict, explained.reason) == ("deny", "vpc-isolated")
    assert "blue and VPC red are not peered" in explained.note
    assert not side_of(explained, "egress").reached and not side_of(explained, "ingress").reached
    assert side_of(explained, "egress").verdict == "allow"
    assert "b is a member, but in VPC blue, which is not peered with red" in str(misfits(explained))


def test_a_side_that_the_packet_does_not_reach_is_told_as_such() -> None:
    explained = explain(policy_of(TWO_VPCS), "d", "a", "tcp", port=80)
    assert (side_of(explained, "egress").reached, side_of(explained, "ingress").reached) == (True, False)
    assert side_of(explained, "egress").nearest == ()  # it has no outbound rules


def test_out_of_scope_local_and_exempt_are_told() -> None:
    policy = policy_of(TWO_VPCS)
    assert explain(policy, "203.0.113.1", "203.0.113.2", "udp", port=53).verdict == "out-of-scope"
    assert explain(policy, "e", "10.0.0.70", "udp", port=53).verdict == "local"
    assert explain(policy, "2001:db8::7", "2001:db8::1", "icmpv6", icmp_type=135).verdict == "exempt"
    assert explain(policy, "a", "224.0.0.1", "udp", port=53).ingress is None


def test_a_source_port_tells_dhcp_and_nothing_else(capsys: Capsys) -> None:
    policy = policy_of(TWO_VPCS)
    for ends, ports in ((("a", "192.0.2.1"), (68, 67)), (("2001:db8::1", "2001:db8::7"), (546, 547))):
        sport, port = ports
        assert explain(policy, *ends, "udp", port=port, sport=sport).verdict == "exempt"
        assert explain(policy, *ends, "udp", port=port).verdict in ("allow", "deny")
        assert explain(policy, *ends, "tcp", port=port, sport=sport).verdict in ("allow", "deny")
    packet = ("--from", "198.51.100.7", "--to", "web-1", "--protocol", "tcp", "--port", 80)
    told, other = ask(capsys, *packet), ask(capsys, *packet, "--sport", 0)
    assert (told.pop("sport"), other.pop("sport")) == (None, 0) and told == other
    assert "tcp/80 (source port 0) from" in sgfast(capsys, "explain", SHOP[0], *packet, "--sport", 0).out


def test_names_agree_on_a_family_and_what_was_taken_is_told() -> None:
    policy = policy_of(TWO_VPCS)
    explained = explain(policy, "a", "d", "tcp", port=1)
    assert str(explained.source.address) == "10.0.0.1" and "a has several addresses" in explained.choices[0]
    assert str(explain(policy, "2001:db8::2", "a", "tcp", port=1).destination.address) == "2001:db8::1"
    assert explain(policy, "2001:db8::2", "a", "icmp").icmp_type == 128
    for arguments, words in (
        (("2001:db8::2", "d", "tcp"), "d has IPv4"),
        (("a", "d", "icmpv6"), "use icmp"),
        (("a", "192.0.2.1", "icmpv6"), "use icmp"),
    ):
        with pytest.raises(ValueError, match=words):
            explain(policy, *arguments, port=1 if arguments[2] == "tcp" else None)


def test_an_address_that_is_really_the_instances_is_taken() -> None:
    router = Instance("router", "default", policy_of(TWO_VPCS).instances[4].addresses[:1], ("db",))
    others = tuple(
        Instance(f"i{n}", "default", (network,), ("db",))
        for n, network in enumerate(list(router.addresses[0].subnets(new_prefix=32))[:3])
    )
    policy = replace(policy_of(TWO_VPCS), vpcs=(Vpc("default"),), peerings=frozenset(), instances=(*others, router))
    assert str(explain(policy, "router", "1.2.3.4", "tcp", port=1).source.address) == "10.0.9.3"
    last = Instance("i3", "default", tuple(list(router.addresses[0].subnets(new_prefix=32))[3:]), ("db",))
    with pytest.raises(PolicyError, match="belongs to another"):
        explain(replace(policy, instances=(*others, last, router)), "router", "1.2.3.4", "tcp", port=1)


@pytest.mark.parametrize("vpc", [None, "red"])
def test_an_instance_of_a_vpc_that_is_not_peered_is_isolated_if_it_is_named(vpc: str | None) -> None:
    """SPEC 12.1: also where another instance has its address, or where the VPC is named that does not see it."""
    for address in ("10.0.1.1", "10.0.0.9", "10.0.0.1"):
        policy = policy_of(TWO_VPCS.replace("addresses: [10.0.1.1]", f"addresses: [{address}]"))
        for ends in (("a", "b"), ("b", "a")):
            found = explain(policy, *ends, "tcp", port=80, vpc=vpc)
            assert (found.verdict, found.reason, found.allowed) == ("deny", "vpc-isolated", False)
            assert [end.instance and end.instance.name for end in (found.source, found.destination)] == [*ends]
            assert str((found.destination if ends[1] == "b" else found.source).address) == address
            assert side_of(found, "egress").winner is not None and not side_of(found, "egress").reached


@pytest.mark.parametrize("vpc", [None, "red"])
def test_an_address_of_a_vpc_that_is_not_peered_is_external_and_the_answer_names_its_instance(vpc: str | None) -> None:
    policy = policy_of(TWO_VPCS)
    found = explain(policy, "a", "10.0.1.1", "tcp", port=80, vpc=vpc)
    assert (found.verdict, found.vpc, found.destination.instance, found.ingress) == ("cannot-tell", "red", None, None)
    assert not found.allowed and found.evidence.conclusive == "no"
    meant = explain(policy, "a", "10.0.1.1", "tcp", port=80, vpc=vpc, accept_evidence=("other-vpc",))
    assert meant.allowed and meant.choices == found.choices
    assert found.choices[-1] == (
        "No instance that VPC red sees has 10.0.1.1: it is b's in VPC blue, which is not peered; it is judged as an "
        "address that no instance owns, and nobody can tell whether it is one (write b to ask about the instance)."
    )
    assert "to 10.0.1.1 (no instance in VPC red; b's in VPC blue, which is not peered) is allowed" in repr(found)
    assert "but denied if 10.0.1.1 is b: nobody can tell which" in repr(found)
    back = explain(policy, "10.0.1.1", "a", "tcp", port=80, vpc=vpc)
    assert (back.source.instance, back.reason) == (None, "no-rule") and "it is b's" in back.choices[-1]
    # red sees the groups of itself and of its peers, and no others.
    assert explain(policy, "c", "10.0.0.1", "tcp", port=80).destination.instance is not None
    assert explain(policy, "d", "192.0.2.1", "tcp", port=80, vpc=vpc).choices == ()


def test_two_peers_of_the_vpc_that_is_named_are_isolated_though_addresses_name_them() -> None:
    policy = policy_of(TWO_VPCS.replace("[[red, far]]", "[[far, red], [far, blue]]"))
    found = explain(policy, "10.0.0.1", "10.0.1.1", "tcp", port=80, vpc="far")
    assert (found.reason, found.vpc) == ("vpc-isolated", "far")
    assert explain(policy, "10.0.0.1", "10.0.1.1", "tcp", port=80).verdict == "cannot-tell"


def test_the_command_tells_of_vpcs_that_are_not_peered(capsys: Capsys, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TWO_VPCS)
    arguments = ("explain", path, "--vpc", "red", "--from", "a", "--protocol", "tcp", "--port", 80, "--to")
    named = sgfast(capsys, *arguments, "b", "--fail-on", "denied")
    assert named.status == 1 and "denied (vpc-isolated)" in named.out
    assert named.one_line() == "sgfast: status 1, because of --fail-on denied"
    found = valid("explain", json.loads(sgfast(capsys, *arguments, "10.0.1.1", "--json").out))
    assert found["verdict"] == "cannot-tell" and "it is b's in VPC blue, which is not peered" in found["choices"][-1]
    assert [reason["code"] for reason in found["evidence"]["reasons"]] == ["other-vpc"]
    unsure = sgfast(capsys, *arguments, "10.0.1.1", "--fail-on", "denied")
    assert unsure.status == 1 and ": cannot tell\n" in unsure.out
    accepted = "--accept-evidence", "other-vpc", "--fail-on", "denied"
    assert sgfast(capsys, *arguments, "10.0.1.1", *accepted).status == 0
    text = " ".join(sgfast(capsys, *arguments, "10.0.1.1").out.split())
    assert "No instance that VPC red sees has 10.0.1.1: it is b's in VPC blue" in text


def test_many_owners_elsewhere_are_counted() -> None:
    vpcs = ", ".join(f"{{name: v{n}}}" for n in range(6))
    instances = "".join(
        f"  - {{name: i{n}, vpc: v{n}, addresses: [10.0.0.{1 if n else 9}], security_groups: [g]}}\n" for n in range(6)
    )
    policy = policy_of(f"version: 1\nvpcs: [{vpcs}]\nsecurity_groups: [{{name: g}}]\ninstances:\n{instances}")
    (told,) = explain(policy, "i0", "10.0.0.1", "gre").choices
    assert "it is i1's in VPC v1, i2's in VPC v2, i3's in VPC v3 and that of 2 more, which are not peered;" in told


def test_an_address_of_several_vpcs_needs_another_word_that_says_which_vpc_is_meant() -> None:
    policy = policy_of(TWO_VPCS.replace("addresses: [10.0.1.1]", "addresses: [10.0.0.9]"))
    with pytest.raises(PolicyError, match=r"^p.yaml: 10.0.0.9 is an address of .*'d' .* and of .*'b' .* \(--vpc\)"):
        explain(policy, "10.0.0.9", "192.0.2.1", "tcp", port=80)
    assert explain(policy, "10.0.0.9", "192.0.2.1", "tcp", port=80, vpc="red").source.instance == policy.instances[3]
    assert explain(policy, "10.0.0.9", "a", "tcp", port=80).source.instance == policy.instances[3]
    assert explain(policy, "c", "10.0.0.9", "tcp", port=80).destination.instance == policy.instances[3]
    assert explain(policy, "b", "10.0.0.9", "tcp", port=80).verdict == "local"


def test_a_vpc_that_sees_neither_end_says_so() -> None:
    for ends in (("b", "192.0.2.1"), ("192.0.2.1", "b"), ("b", "b")):
        with pytest.raises(PolicyError, match="'b' is in VPC 'blue', which is not peered with 'red': name another VPC"):
            explain(policy_of(TWO_VPCS), *ends, "tcp", port=1, vpc="red")


def test_deny_rules_win_and_are_no_near_misses() -> None:
    policy = policy_of("""
version: 1
security_groups:
  - name: g
    rules:
      - {id: wide, direction: inbound, protocol: tcp, ports: 1-100, priority: 2}
      - {id: no, direction: inbound, protocol: tcp, ports: 22, action: deny, priority: 2}
      - {id: never, direction: inbound, protocol: tcp, ports: 443, action: deny, source: 192.0.2.0/24}
instances: [{name: i, addresses: [10.0.0.1], security_groups: [g]}]
""")
    denied = side_of(explain(policy, "192.0.2.1", "i", "tcp", port=22), "ingress")
    assert denied.reason == "deny-rule" and denied.winner and denied.winner.rule.id == "no"
    assert [found.rule.id for found in denied.also_match] == ["wide"]
    missed = side_of(explain(policy, "198.51.100.1", "i", "tcp", port=443), "ingress")
    assert [miss.rule.id for miss in missed.nearest] == ["wide"]


# The command


def ask(capsys: Capsys, *arguments: object, policy: object = SHOP[0]) -> Any:
    outcome = sgfast(capsys, "explain", policy, *arguments, "--json")
    assert outcome.status == 0, outcome.err
    return valid("explain", json.loads(outcome.out))


def test_json_is_by_its_schema_and_text_says_the_same(capsys: Capsys) -> None:
    packet = ("--from", "2001:db8::5", "--to", "db-1", "--protocol", "tcp", "--port", 6379)
    told = ask(capsys, *packet)
    assert (told["verdict"], told["reason"]) == ("deny", "no-rule")
    (miss,) = told["ingress"]["nearest"]
    assert miss["rule"] == "db/inbound/1" and miss["line"] == 27
    assert miss["misfits"] == [{"field": "ethertype", "wanted": "IPv4", "has": "IPv6", "why": None}]
    text = sgfast(capsys, "explain", SHOP[0], *packet).out
    assert "ethertype: wants IPv4, the packet has IPv6" in text and "line 27" in text
    for more in (
        ("--from", "web-1", "--to", "198.51.100.7", "--protocol", "icmp", "--icmp-type", 0),
        ("--from", "web-1", "--to", "db-1", "--protocol", "ICMPv6"),
        ("--from", "1.1.1.1", "--to", "2.2.2.2", "--protocol", 253),
        ("--from", "web-1", "--to", "db-1", "--protocol", "6", "--port", 5432),
        ("--from", "web-1", "--to", "10.0.0.5", "--protocol", "gre"),
    ):
        told = ask(capsys, *more)
        assert told["verdict"] in sgfast(capsys, "explain", SHOP[0], *more).out.replace("allowed", "allow").replace(
            "denied", "deny"
        )


def test_exit_status_is_0_whatever_the_verdict_unless_asked(capsys: Capsys) -> None:
    denied = ("explain", SHOP[0], "--from", "1.1.1.1", "--to", "db-1", "--protocol", "tcp", "--port", 1)
    allowed = (*denied[:3], "web-1", *denied[4:-1], 5432)
    assert sgfast(capsys, *denied).status == 0
    assert sgfast(capsys, *denied, "--fail-on", "denied").status == 1
    assert sgfast(capsys, *allowed, "--fail-on", "denied").status == 0


def test_what_cannot_be_asked_is_one_line(capsys: Capsys, tmp_path: Path) -> None:
    ends = ("--from", "web-1", "--to", "db-1")
    for arguments, words in (
        ((*ends, "--protocol", "tcp"), "tcp has ports"),
        ((*ends, "--protocol", "gre", "--port", 1), "gre has no ports"),
        ((*ends, "--protocol", "icmp", "--sport", 1), "icmp has no ports"),
        ((*ends, "--protocol", "tcp", "--port", 1, "--icmp-type", 1), "no ICMP"),
        ((*ends, "--protocol", "icmp", "--icmp-code", 1), "needs an ICMP type"),
        ((*ends, "--protocol", "all"), "unknown protocol"),
        ((*ends, "--protocol", "256"), "unknown protocol"),
        ((*ends, "--protocol", "\x1b[2J"), "unknown protocol"),
        (("--from", "web\n9", "--to", "db-1", "--protocol", "gre"), "is no instance, security group or address group"),
        ((*ends, "--protocol", "gre", "--vpc", "nowhere"), "unknown VPC"),
        (("--from", "web-1", "--protocol", "gre"), "--to"),
        ((*ends, "--protocol", "tcp", "--port", 65536), "--port"),
    ):
        outcome = sgfast(capsys, "explain", SHOP[0], *arguments)
        assert outcome.status == 2 and words in outcome.one_line() and outcome.out == "", arguments
    assert "cannot be read" in sgfast(capsys, "explain", tmp_path / "x", *ends, "--protocol", "gre").one_line()


def test_each_word_of_reach_is_an_end_and_a_denied_packet_stands_for_all(capsys: Capsys, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TWO_VPCS)
    policy = policy_of(TWO_VPCS)
    for source, destination, protocol, service, verdict, told in (
        ("internet", "db", ("gre",), "gre", "deny", "all of these packets are denied"),
        ("group:app", "d", ("tcp", "--port", 5432), "tcp/5432", "deny", "some of these packets are allowed"),
        ("a", "any", ("6", "--port", 80), "tcp/80", "deny", "some of these packets are allowed"),
        ("10.0.9.0/30", "offices", ("icmp",), "icmp echo-request/0", "deny", "all of these packets are denied"),
        ("a", "internet", ("icmp", "--icmp-type", 13), "icmp/13/0", "allow", "all of these packets are allowed"),
        ("a", "internet", ("icmpv6",), "icmpv6 echo-request/0", "deny", "all of these packets are denied"),
        ("a", "2.0.0.0/8", (253,), "protocol 253", "allow", "all of these packets are allowed"),
    ):
        packet = ("--from", source, "--to", destination, "--protocol", *protocol)
        found = ask(capsys, *packet, policy=path)
        assert found["verdict"] == verdict
        assert found["choices"][0].startswith(f"{service} from {source} to {destination}: {told}")
        answer = explain_question(policy, source, destination, service)
        assert found["choices"] == list(answer.choices) and found["to"]["address"] == str(answer.destination.address)
        text = sgfast(capsys, "explain", path, *packet, "--fail-on", "denied")
        assert text.status == (verdict == "deny") and told in " ".join(text.out.split())


def test_an_address_of_another_vpc_among_others_fails_like_one_that_is_asked_for(
    capsys: Capsys, tmp_path: Path
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TWO_VPCS.replace("10.0.1.1", "10.0.2.2").replace(", region: north", ""))
    packet = ("explain", path, "--from", "a", "--protocol", "tcp", "--port", 80, "--fail-on", "denied", "--to")
    for address, verdict in (("10.0.2.2", "cannot tell"), ("10.0.2.0/24", "allowed (rule)")):
        unsure = sgfast(capsys, *packet, address)
        assert unsure.status == 1 and "which the evidence cannot rule out" in unsure.one_line()
        assert unsure.out.splitlines()[0].endswith(verdict)
        assert sgfast(capsys, *packet, address, "--accept-evidence", "other-vpc").status == 0


def test_a_service_of_one_packet_is_read_as_it_is_written() -> None:
    for protocol in range(256):
        services = [SingleService(protocol)]
        if protocol in PORT_PROTOCOLS:
            services = [SingleService(protocol, port) for port in (0, 80, 65535)]
        elif protocol in (ICMP, ICMPV6):
            services += [SingleService(protocol, None, *kind) for kind in ((8, 3), (13, 0), (255, 255))]
        for service in services:
            assert single_service(single_service_text(service)) == service


def test_names_from_outside_cannot_steer_a_terminal() -> None:
    policy = policy_of(TWO_VPCS)
    evil = Instance("\x1b[31mevil", "red", policy.instances[0].addresses, ("app",))
    explained = explain(having(policy, instances=(evil,)), "10.0.0.1", "1.1.1.1", TCP, port=1)
    text = to_text(explain_document(explained, {}))
    assert "\x1b" not in text and "\\x1b" in text


def test_ties_are_told_in_document_order_and_bounded() -> None:
    rules = "".join(f"      - {{direction: inbound, protocol: tcp, ports: {n}}}\n" for n in range(1, 31))
    policy = policy_of(
        f"version: 1\nsecurity_groups:\n  - name: g\n    rules:\n{rules}"
        "instances: [{name: i, addresses: [10.0.0.1], security_groups: [g]}]\n"
    )
    explained = explain(policy, "1.1.1.1", "i", "tcp", port=99)
    assert [miss.rule.id for miss in side_of(explained, "ingress").nearest] == [f"g/inbound/{n}" for n in range(1, 31)]
    assert "and 20 more rules that are as near" in to_text(explain_document(explained, {}))


def test_a_policy_from_standard_input() -> None:
    outcome = process(
        "explain", "-", "--from", "1.1.1.1", "--to", "d", "--protocol", "tcp", "--port", "5432", input=TWO_VPCS
    )
    assert outcome.status == 0 and "denied (no-rule)" in outcome.out and outcome.err == ""


def test_peers_of_every_kind_have_words() -> None:
    assert rule_text(Rule("", "inbound", 4, 6, ((22, 22), (80, 90)))) == "tcp/22,80-90 from 0.0.0.0/0"
    assert rule_text(Rule("", "outbound", 6, peer=GroupPeer("g"), action="deny")) == "deny all to group g, IPv6"
    assert rule_text(Rule("", "inbound", 4, 1, None, 8, 0, AddressGroupPeer("o"))) == (
        "icmp type 8 code 0 from address group o, IPv4"
    )
    many = tuple((n, n) for n in range(1, 100, 2))
    assert rule_text(Rule("", "inbound", 4, 6, many)).endswith(",... (50 ranges) from 0.0.0.0/0")
