"""The reference model against docs/spec.md: VPCs, the two sides, and which rule decides (SPEC 3.6, 3.7, 4, 7)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import frames as f
import pytest
from reference_scene import (
    ADDRESSES,
    REQUEST,
    Scene,
    both_families,
    inbound,
    instance,
    outbound,
    tcp_scene,
    vpc_policy,
    words,
)

from sgfast.errors import PolicyError
from sgfast.policy.model import (
    AddressGroup,
    AddressGroupPeer,
    GroupPeer,
    Policy,
    SecurityGroup,
)
from sgfast.reference.engine import ReferenceEngine

# --- SPEC 3.6, 3.7, 7: VPCs and two sides


def test_unpeered_vpcs_are_isolated_before_any_rule():
    verdict = Scene(policy=vpc_policy(peered=False)).send("web", "db", f.tcp(*REQUEST, "S"))
    assert words(verdict) == "deny vpc-isolated"
    assert (verdict.egress.instance, verdict.ingress, verdict.began) == ("web", None, "denied")


def test_peering_is_symmetric_but_not_transitive():
    scene = Scene(policy=vpc_policy(peered=True))
    assert scene.say("web", "db", f.udp(1, 2)) == "allow rule"
    assert scene.say("db", "web", f.udp(3, 4)) == "allow rule"
    assert scene.say("web", "10.0.0.7", f.udp(1, 2)) == "deny vpc-isolated"


GROUP_RULES = [inbound(4, peer=GroupPeer("g")), outbound(4)]


def test_group_peer_counts_in_peered_vpcs_of_one_region_only():
    here, elsewhere = vpc_policy(peered=True, rules=GROUP_RULES), vpc_policy(peered=True, region="x", rules=GROUP_RULES)
    assert Scene(policy=here).say("web", "db", f.udp(1, 2)) == "allow rule"
    assert Scene(policy=elsewhere).say("web", "db", f.udp(1, 2)) == "deny no-rule"


def test_egress_denial_keeps_packet_from_ingress_side():
    scene = Scene(web=[], db=[inbound(4)])
    verdict = scene.send("web", "db", f.udp(1, 2))
    assert (words(verdict), verdict.egress.verdict, verdict.ingress) == ("deny no-rule", "deny", None)
    assert scene.engine.live_tuples() == 0


def test_egress_side_keeps_its_connection_when_ingress_denies():
    scene = Scene(web=[outbound(4)], db=[])
    first = scene.send("web", "db", f.udp(1, 2), at=0)
    assert (words(first), first.egress.reason, first.ingress.reason) == ("deny no-rule", "rule", "no-rule")
    second = scene.send("web", "db", f.udp(1, 2), at=29)
    assert (words(second), second.egress.reason) == ("deny no-rule", "established")
    # What db sends passes web's side as a reply, but has no rule on db's own.
    assert scene.send("db", "web", f.udp(2, 1), at=30).egress.reason == "no-rule"


def test_overlapping_vpcs_are_an_error_without_vpc():
    policy = replace(
        vpc_policy(peered=False),
        instances=(instance("x", ["g"], "10.0.0.0/8", vpc="a"), instance("y", ["g"], "10.1.0.0/16", vpc="b")),
    )
    with pytest.raises(PolicyError, match=r"'y'.*'x'"):
        ReferenceEngine(policy)
    assert words(Scene(policy=policy, vpc="a").send("10.1.0.1", "10.2.0.1", f.udp(1, 2))) == "local"
    with pytest.raises(PolicyError):
        ReferenceEngine(policy, vpc="nowhere")


def test_vpc_sees_itself_and_its_peers_only():
    policy = vpc_policy(peered=True)
    verdict = Scene(policy=policy, vpc="a").send("web", "10.0.0.7", f.udp(1, 2))
    assert (words(verdict), verdict.ingress) == ("allow rule", None)
    assert Scene(policy=policy, vpc="b").say("web", "10.0.0.7", f.udp(1, 2)) == "deny vpc-isolated"
    assert Scene(policy=policy, vpc="a").say("10.0.0.7", "10.0.0.8", f.udp(1, 2)) == "out-of-scope"


def test_own_vpcs_prefix_shadows_a_peers():
    policy = replace(
        vpc_policy(peered=True),
        instances=(instance("own", ["g"], "10.0.0.0/8", vpc="a"), instance("peer", ["g"], "10.1.0.1", vpc="b")),
    )
    assert Scene(policy=policy, vpc="a").send("client", "10.1.0.1", f.udp(1, 2)).ingress.instance == "own"


def test_peers_prefixes_that_are_shadowed_cannot_overlap():
    shadowed = (instance("p", ["g"], "10.1.0.1", vpc="a"), instance("q", ["g"], "10.1.0.1", vpc="c"))
    own = instance("own", ["g"], "10.0.0.0/8", vpc="b")
    ReferenceEngine(replace(vpc_policy(peered=True), instances=(own, *shadowed)), vpc="b")


def test_peers_that_overlap_are_an_error():
    policy = replace(
        vpc_policy(peered=True),
        instances=(instance("x", ["g"], "10.0.0.0/8", vpc="a"), instance("y", ["g"], "10.1.0.0/16", vpc="c")),
    )
    with pytest.raises(PolicyError):
        ReferenceEngine(policy, vpc="b")


# --- SPEC 4.8 to 4.11: rules


@both_families
def test_no_rule_matches(family):
    verdict = tcp_scene(family).send("client", "web", f.tcp(40000, 81, "S"))
    assert (words(verdict), verdict.ingress.rule, verdict.began) == ("deny no-rule", None, "denied")


def test_rule_of_the_other_family_does_not_match():
    assert Scene(6, [inbound(4)]).say("client", "web", f.udp(1, 2)) == "deny no-rule"


@both_families
def test_rule_port_is_the_destination_port_in_both_directions(family):
    scene = Scene(family, [inbound(family, 17, 53), outbound(family, 17, 123)])
    assert scene.say("client", "web", f.udp(53, 1000)) == "deny no-rule"
    assert scene.say("client", "web", f.udp(1000, 53)) == "allow rule"
    assert scene.say("web", "client", f.udp(123, 1000)) == "deny no-rule"
    assert scene.say("web", "client", f.udp(1000, 123)) == "allow rule"


@pytest.mark.parametrize(("port", "expected"), [(21, "deny"), (22, "allow"), (30, "allow"), (31, "deny")])
def test_port_ranges_include_both_ends(port, expected):
    assert Scene(web=[inbound(4, 6, ((22, 30),))]).send("client", "web", f.tcp(9, port, "S")).verdict == expected


def test_port_zero_matches_only_rules_without_ports():
    assert Scene(web=[inbound(4, 17, ((1, 65535),))]).say("client", "web", f.udp(5, 0)) == "deny no-rule"
    assert Scene(web=[inbound(4, 17)]).say("client", "web", f.udp(5, 0)) == "allow rule"


def test_protocol_of_rule():
    assert Scene(web=[inbound(4, 47)]).say("client", "web", f.other(47)) == "allow rule"
    assert Scene(web=[inbound(4, 47)]).say("client", "web", f.other(50)) == "deny no-rule"


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [(8, 0, "allow rule"), (8, 1, "deny no-rule"), (13, 0, "deny no-rule")],
)
def test_icmp_type_and_code_of_rule(kind, code, expected):
    scene = Scene(web=[inbound(4, 1, icmp_type=8, icmp_code=0)])
    assert scene.say("client", "web", f.icmp(kind, code)) == expected


def test_lowest_priority_wins_and_deny_beats_allow_at_equal_priority():
    yes, no = inbound(4, id="yes", priority=5), inbound(4, id="no", priority=5, action="deny")
    verdict = Scene(web=[yes, no]).send("client", "web", f.udp(1, 2))
    assert (words(verdict), verdict.ingress.rule) == ("deny deny-rule", "no")
    verdict = Scene(web=[replace(yes, priority=4), no]).send("client", "web", f.udp(1, 2))
    assert (words(verdict), verdict.ingress.rule) == ("allow rule", "yes")


def test_first_of_equal_rules_in_document_order_is_named_whatever_the_instances_group_order():
    policy = Policy(
        security_groups=(SecurityGroup("g1", (inbound(4, id="first"),)), SecurityGroup("g2", (inbound(4, id="2nd"),))),
        instances=(instance("web", ["g2", "g1"], "10.0.0.5"),),
    )
    assert Scene(policy=policy).send("client", "web", f.udp(1, 2)).ingress.rule == "first"


@both_families
def test_cidr_peer_is_the_other_end(family):
    client = ip_network(ADDRESSES[family]["client"])
    scene = Scene(family, [inbound(family, peer=client), outbound(family, peer=client)])
    assert scene.say("client", "web", f.udp(1, 2)) == "allow rule"
    assert scene.say("other", "web", f.udp(1, 2)) == "deny no-rule"
    assert scene.say("web", "client", f.udp(3, 4)) == "allow rule"
    assert scene.say("web", "other", f.udp(3, 4)) == "deny no-rule"


@both_families
def test_group_peer_is_any_address_of_a_member(family):
    scene = Scene(family, [inbound(family, peer=GroupPeer("d"))], [outbound(family)])
    assert scene.say("db", "web", f.udp(1, 2)) == "allow rule"
    assert scene.say("client", "web", f.udp(1, 2)) == "deny no-rule"


def test_address_group_peer():
    policy = replace(
        Scene(web=[inbound(4, peer=AddressGroupPeer("offices"))]).policy,
        address_groups=(AddressGroup("offices", (ip_network("192.0.2.8/31"), ip_network("2001:db8::/32"))),),
    )
    scene = Scene(policy=policy)
    assert scene.say("client", "web", f.udp(1, 2)) == "allow rule"
    assert scene.say("other", "web", f.udp(1, 2)) == "deny no-rule"
