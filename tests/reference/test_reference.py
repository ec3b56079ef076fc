"""The reference model against docs/spec.md: one test for each hazard, expectations taken from its text.

A ``Scene`` has, in each family, two instances ``web`` and ``db`` and two strangers ``client`` and ``other``. ``say``
sends one packet and answers with verdict and reason, "allow rule" say.
"""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_network

import frames as f
import pytest

from sgfast.errors import PolicyError
from sgfast.policy.changes import AddAddress, AddRule, ModifyRule, RemoveInstance, RemoveRule
from sgfast.policy.model import (
    AddressGroup,
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Policy,
    Rule,
    SecurityGroup,
    Settings,
    Timeouts,
    Vpc,
)
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.verdicts import Applied, PacketVerdict

ADDRESSES = {
    4: {"web": "10.0.0.5", "db": "10.0.0.6", "client": "192.0.2.9", "other": "192.0.2.10"},
    6: {"web": "2001:db8::5", "db": "2001:db8::6", "client": "2001:db8:ff::9", "other": "2001:db8:ff::a"},
}
both_families = pytest.mark.parametrize("family", [4, 6])
S = 10**9


def inbound(family=4, protocol=None, port=None, *, id="in", **more) -> Rule:
    ports = ((port, port),) if isinstance(port, int) else port
    return Rule(id, "inbound", family, protocol, ports, **more)


def outbound(family=4, protocol=None, port=None, *, id="out", **more) -> Rule:
    return replace(inbound(family, protocol, port, id=id, **more), direction="outbound")


def instance(name, groups, *addresses, vpc="default") -> Instance:
    return Instance(name, vpc, tuple(ip_network(a) for a in addresses), tuple(groups))


class Scene:
    """Rules are those of web's group ``w`` and db's group ``d``."""

    def __init__(self, family=4, web=(), db=(), *, policy=None, settings=None, **options):
        self.names = ADDRESSES[family]
        self.family = family
        self.policy = policy or Policy(
            security_groups=(SecurityGroup("w", tuple(web)), SecurityGroup("d", tuple(db))),
            instances=tuple(
                instance(name, [group], ADDRESSES[4][name], ADDRESSES[6][name])
                for name, group in (("web", "w"), ("db", "d"))
            ),
            settings=settings or Settings(),
        )
        self.engine = ReferenceEngine(self.policy, **options)
        self.now = 0.0

    def send(self, src, dst, layer, *, at=None, **options) -> PacketVerdict:
        self.now = self.now if at is None else at
        packet = f.ip(self.names.get(src, src), self.names.get(dst, dst), layer, **options)
        return self.frame(f.ethernet(packet))

    def frame(self, data, **options) -> PacketVerdict:
        return self.engine.process_frame(round(self.now * S), data, **options)

    def say(self, src, dst, layer, **options) -> str:
        return words(self.send(src, dst, layer, **options))

    def ping(self, identifier=1):
        return f.icmp(8, 0, identifier) if self.family == 4 else f.icmpv6(128, 0, identifier)

    def pong(self, identifier=1):
        return f.icmp(0, 0, identifier) if self.family == 4 else f.icmpv6(129, 0, identifier)

    def unreachable(self, src, dst, layer):
        """An ICMP error that quotes a packet from src to dst."""
        quoted = f.ip(self.names[src], self.names[dst], layer)
        return f.icmp_error(3, 3, quoted) if self.family == 4 else f.icmpv6_error(1, 4, quoted)


def words(verdict: PacketVerdict) -> str:
    return verdict.verdict if verdict.reason is None else f"{verdict.verdict} {verdict.reason}"


def tcp_scene(family=4, **options) -> Scene:
    """web serves port 80 and may call nobody."""
    return Scene(family, [inbound(family, 6, 80)], **options)


REQUEST = (40000, 80)
ANSWER = (80, 40000)


def handshake(scene, at=0.0):
    assert scene.say("client", "web", f.tcp(*REQUEST, "S"), at=at) == "allow rule"
    assert scene.say("web", "client", f.tcp(*ANSWER, "SA"), at=at) == "allow established"
    assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=at) == "allow established"


# --- SPEC 3.1: below IP

SYN4 = f.ipv4("192.0.2.9", "10.0.0.5", f.tcp(*REQUEST, "S"))
SYN6 = f.ipv6("2001:db8:ff::9", "2001:db8::5", f.tcp(*REQUEST, "S"))


@pytest.mark.parametrize("syn", [SYN4, SYN6], ids=["v4", "v6"])
@pytest.mark.parametrize(
    ("wrap", "link_type"),
    [
        (f.ethernet, 1),
        (lambda ip: f.ethernet(f.vlan(ip)), 1),
        (lambda ip: f.ethernet(f.vlan(f.vlan(f.vlan(ip), tpid=0x9100), tpid=0x88A8)), 1),
        (lambda ip: f.ethernet(f.mpls(ip, labels=3)), 1),
        (lambda ip: f.ethernet(f.vlan(f.mpls(ip, ethertype=0x8848))), 1),
        (lambda ip: f.ethernet(f.pppoe(ip)), 1),
        (lambda ip: f.ethernet(f.vlan(f.pppoe(ip))), 1),
        (lambda ip: f.sll(ip), 113),
        (lambda ip: f.sll(f.vlan(ip)), 113),
        (lambda ip: f.sll2(ip), 276),
        (bytes, 101),
        (bytes, 12),
        (bytes, 14),
        (lambda ip: f.null(ip, 2 if ip[0] >> 4 == 4 else 30), 0),
        (lambda ip: f.null(ip, 2 if ip[0] >> 4 == 4 else 24, byteorder="big"), 0),
        (lambda ip: f.null(ip, 2 if ip[0] >> 4 == 4 else 28, byteorder="big"), 108),
    ],
)
def test_every_link_layer_leads_to_the_packet(syn, wrap, link_type):
    scene = Scene(web=[inbound(4, 6, 80), inbound(6, 6, 80)])
    assert words(scene.frame(wrap(syn), link_type=link_type)) == "allow rule"


@pytest.mark.parametrize(
    ("data", "link_type", "expected"),
    [
        (f.ethernet(b"\0" * 28, 0x0806), 1, "not-ip"),
        (f.ethernet(b"\x42\x42\x03" + bytes(40), 0x0026), 1, "not-ip"),  # LLC
        (f.ethernet(f.mpls(b"\0\0\0\0" + bytes(40))), 1, "not-ip"),  # pseudowire
        (f.ethernet(f.pppoe(SYN4, 0xC021)), 1, "not-ip"),
        (f.null(SYN4, 2, byteorder="little"), 108, "not-ip"),
        (f.null(SYN4, 7), 0, "not-ip"),
        (bytes(13), 1, "deny malformed"),
        (b"", 1, "deny malformed"),
        (f.ethernet(f.vlan(SYN4))[:17], 1, "deny malformed"),
        (f.ethernet(f.mpls(SYN4))[:17], 1, "deny malformed"),
        (f.ethernet(f.pppoe(SYN4))[:21], 1, "deny malformed"),
        (f.ethernet(SYN4)[:33], 1, "deny malformed"),
        (f.ethernet(SYN6)[:53], 1, "deny malformed"),
        (f.ethernet(SYN4, 0x86DD), 1, "deny malformed"),
        (f.ethernet(SYN6, 0x0800), 1, "deny malformed"),
        (SYN6, 228, "deny malformed"),
        (SYN4, 229, "deny malformed"),
        (b"", 101, "deny malformed"),
        (b"\x50" + SYN4[1:], 101, "deny malformed"),
        (f.null(SYN4)[:3], 0, "deny malformed"),
        (f.sll(SYN4)[:15], 113, "deny malformed"),
        (f.sll2(SYN4)[:19], 276, "deny malformed"),
    ],
)
def test_frame_without_readable_addresses_has_no_sides(data, link_type, expected):
    verdict = tcp_scene().frame(data, link_type=link_type)
    assert words(verdict) == expected
    assert (verdict.egress, verdict.ingress, verdict.src, verdict.dst) == (None, None, None, None)


# --- SPEC 3.2: infrastructure

EXEMPT = [
    (4, "0.0.0.0", "255.255.255.255", f.udp(68, 67), {}),
    (4, "192.0.2.1", "10.0.0.5", f.udp(67, 68), {}),
    (6, "fe80::1", "ff02::1:2", f.udp(546, 547), {}),
    (6, "fe80::1", "2001:db8::5", f.udp(547, 546), {}),
    (6, "2001:db8::5", "ff02::1", f.icmpv6(135), {"hop_limit": 255}),
    (6, "fe80::1", "2001:db8::5", f.icmpv6(137), {"hop_limit": 255}),
    (6, "2001:db8::5", "ff02::16", f.icmpv6(143), {"hop_limit": 1, "extensions": [f.extension(f.HOP_BY_HOP)]}),
]


@pytest.mark.parametrize(("family", "src", "dst", "layer", "options"), EXEMPT)
def test_infrastructure_is_exempt(family, src, dst, layer, options):
    verdict = Scene(family).send(src, dst, layer, **options)
    assert words(verdict) == "exempt"
    assert (verdict.egress, verdict.ingress) == (None, None)


@pytest.mark.parametrize(("family", "src", "dst", "layer", "options"), EXEMPT[1:2] + EXEMPT[3:])
def test_infrastructure_filtered_if_told_so(family, src, dst, layer, options):
    scene = Scene(family, settings=Settings(infrastructure="filtered"))
    assert scene.say(src, dst, layer, **options) == "deny no-rule"


def test_neighbour_discovery_from_afar_is_not_exempt():
    assert Scene(6).say("fe80::1", "web", f.icmpv6(136), hop_limit=254) == "deny no-rule"


def test_dhcp_ports_of_the_other_family_are_not_exempt():
    assert Scene(4).say("client", "web", f.udp(547, 546)) == "deny no-rule"
    assert Scene(6).say("client", "web", f.udp(67, 68)) == "deny no-rule"


def test_dhcp_with_broken_udp_length_is_exempt_but_with_broken_ip_header_is_not():
    assert Scene().say("client", "web", f.udp(67, 68, length=3)) == "exempt"
    assert Scene().say("client", "web", f.udp(67, 68), total_length=9999) == "deny malformed"


# --- SPEC 3.3: scope


@both_families
def test_neither_end_known_is_out_of_scope_even_if_malformed(family):
    scene = Scene(family)
    assert scene.say("client", "other", f.tcp(1, 2, "S")) == "out-of-scope"
    assert scene.say("client", "other", f.tcp(1, 2, "S", data_offset=4)) == "out-of-scope"


def test_two_addresses_of_one_instance_are_local():
    policy = Policy(instances=(instance("pods", ["w"], "10.0.1.0/24"),), security_groups=(SecurityGroup("w"),))
    assert Scene(policy=policy).say("10.0.1.1", "10.0.1.2", f.tcp(1, 2, "S")) == "local"


@pytest.mark.parametrize(("family", "everything", "group"), [(4, "0.0.0.0/0", "224.0.0.9"), (6, "::/0", "ff02::9")])
def test_multicast_destination_is_no_instance_even_inside_a_prefix(family, everything, group):
    policy = Policy(instances=(instance("router", ["w"], everything),), security_groups=(SecurityGroup("w"),))
    verdict = Scene(family, policy=policy).send("client", group, f.udp(1, 2))
    assert (words(verdict), verdict.ingress) == ("deny no-rule", None)
    assert verdict.egress.instance == "router"


def test_limited_broadcast_is_no_instance():
    policy = Policy(instances=(instance("router", ["w"], "255.0.0.0/8"),), security_groups=(SecurityGroup("w"),))
    assert Scene(policy=policy).say("client", "255.255.255.255", f.udp(1, 2)) == "out-of-scope"


def test_longest_prefix_owns_the_address():
    web = instance("web", ["w"], "10.0.0.5")
    policy = Policy(instances=(instance("router", ["w"], "10.0.0.0/8"), web), security_groups=(SecurityGroup("w"),))
    assert Scene(policy=policy).send("client", "web", f.udp(1, 2)).ingress.instance == "web"
    assert Scene(policy=policy).send("client", "db", f.udp(1, 2)).ingress.instance == "router"


# --- SPEC 3.4: contradictions and cuts

ALL = [inbound(4), inbound(6, id="in6")]


@pytest.mark.parametrize(
    ("layer", "options", "expected"),
    [
        (f.tcp(*REQUEST, "S"), {"header_words": 4}, "deny malformed"),
        (f.tcp(*REQUEST, "S"), {"total_length": 19}, "deny malformed"),
        (f.tcp(*REQUEST, "S"), {"total_length": 41}, "deny malformed"),
        (f.tcp(*REQUEST, "S"), {"total_length": 39}, "deny malformed"),
        (f.tcp(*REQUEST, "S"), {"total_length": 0}, "allow rule"),
        (f.tcp(*REQUEST, "S", data_offset=4), {}, "deny malformed"),
        (f.tcp(*REQUEST, "S", data_offset=15), {"total_length": 79}, "deny malformed"),
        (f.tcp(*REQUEST, "S", data_offset=15), {}, "allow rule"),
        (f.tcp(*REQUEST, "S"), {"options": bytes(40)}, "allow rule"),
        (f.udp(1, 2, length=7), {}, "deny malformed"),
        (f.udp(1, 2, length=9), {}, "deny malformed"),
        (f.udp(1, 2, b"1234", length=8), {}, "allow rule"),
        (f.udplite(1, 2, coverage=9999), {}, "allow rule"),
        (f.Layer(bytes(7), 17), {}, "deny malformed"),
        (f.Layer(bytes(7), 136), {}, "deny malformed"),
        (f.Layer(b"\x08" + bytes(6), 1), {}, "deny malformed"),
        (f.Layer(bytes(11), 132), {}, "deny malformed"),
        (f.Layer(bytes(11), 33), {}, "deny malformed"),
        (f.sctp(1, 2), {}, "allow rule"),
        (f.dccp(1, 2), {}, "allow rule"),
        (f.other(47), {}, "allow rule"),
        (f.other(58), {}, "allow rule"),
    ],
)
def test_ipv4_packet_that_contradicts_itself(layer, options, expected):
    assert Scene(web=ALL).say("client", "web", layer, **options) == expected


@pytest.mark.parametrize(
    ("layer", "options", "expected"),
    [
        (f.tcp(*REQUEST, "S"), {"payload_length": 21}, "deny malformed"),
        (f.tcp(*REQUEST, "S"), {"payload_length": 19}, "deny malformed"),
        (f.tcp(*REQUEST, "S"), {"payload_length": 0}, "allow rule"),
        (f.tcp(*REQUEST, "S"), {"extensions": [f.extension(0), f.extension(43, 16), f.extension(60)]}, "allow rule"),
        (f.tcp(*REQUEST, "S"), {"extensions": [f.fragment()]}, "allow rule"),
        (f.tcp(*REQUEST, "S"), {"extensions": [f.extension(60, claimed_size=64)]}, "deny malformed"),
        (b"", {"extensions": [f.extension(60)], "payload_length": 7}, "deny malformed"),
        (f.other(59), {"extensions": [f.extension(60)]}, "allow rule"),
        (f.other(1), {}, "allow rule"),
        (f.Layer(b"\x80" + bytes(6), 58), {}, "deny malformed"),
    ],
)
def test_ipv6_packet_that_contradicts_itself(layer, options, expected):
    assert Scene(6, web=ALL).say("client", "web", layer, **options) == expected


@pytest.mark.parametrize(
    ("said", "payload_length", "expected"),
    [
        (65_536, 0, "allow rule"),
        (70_000, 0, "allow rule"),
        (70_001, 0, "deny malformed"),
        (65_535, 0, "deny malformed"),
        (70_000, 28, "deny malformed"),
    ],
)
def test_length_of_a_jumbogram_is_in_its_options(said, payload_length, expected):
    options = {"extensions": [f.jumbo(said)], "payload_length": payload_length}
    frame = f.ethernet(f.ipv6("2001:db8:ff::9", "2001:db8::5", f.tcp(*REQUEST, "S"), **options))
    assert words(Scene(6, web=ALL).frame(frame, wire_length=14 + 40 + 70_000)) == expected


@pytest.mark.parametrize(
    ("packet", "kept", "expected"),
    [
        (SYN4, 39, "deny truncated"),
        (SYN4, 20, "deny truncated"),
        (f.ipv4("192.0.2.9", "10.0.0.5", f.tcp(*REQUEST, "S"), options=bytes(8)), 24, "deny truncated"),
        (f.ipv4("192.0.2.9", "10.0.0.5", f.other(50, bytes(20)), options=bytes(8)), 24, "allow rule"),
        (f.ipv4("192.0.2.9", "10.0.0.5", f.udp(1, 2)), 27, "deny truncated"),
        (f.ipv4("192.0.2.9", "10.0.0.5", f.udp(1, 2, bytes(90))), 28, "allow rule"),
        (f.ipv4("192.0.2.9", "10.0.0.5", f.sctp(1, 2)), 31, "deny truncated"),
        (SYN6, 59, "deny truncated"),
        (f.ipv6("2001:db8:ff::9", "2001:db8::5", f.other(50), extensions=[f.extension(60, 16)]), 55, "deny truncated"),
        (f.ipv6("2001:db8:ff::9", "2001:db8::5", f.other(50), extensions=[f.extension(60, 16)]), 56, "allow rule"),
    ],
)
def test_transport_header_cut_by_the_capture(packet, kept, expected):
    frame = f.ethernet(packet)
    assert words(Scene(web=ALL).frame(frame[: 14 + kept], wire_length=len(frame))) == expected


def test_lengths_are_measured_against_the_wire_not_the_capture():
    frame = f.ethernet(f.ipv4("192.0.2.9", "10.0.0.5", f.udp(1, 2, bytes(100))))
    assert words(Scene(web=ALL).frame(frame[:60], wire_length=len(frame) - 1)) == "deny malformed"
    assert words(Scene(web=ALL).frame(frame[:60], wire_length=len(frame))) == "allow rule"
    # A record whose wire length is less than what was captured.
    assert words(Scene(web=ALL).frame(frame, wire_length=0)) == "allow rule"


def test_padding_is_no_payload():
    short = f.ipv4("192.0.2.9", "10.0.0.5", f.Layer(bytes(19), 6))
    assert words(Scene(web=ALL).frame(f.ethernet(short, padding=7))) == "deny malformed"
    ports_in_padding = f.ethernet(f.ipv4("192.0.2.9", "10.0.0.5", f.Layer(b"", 17))) + f.udp(67, 68)
    assert words(Scene(web=ALL).frame(ports_in_padding)) == "deny malformed"


def test_truncated_ext_header_names_itself_as_protocol():
    frame = f.ethernet(f.ipv6("2001:db8:ff::9", "2001:db8::5", f.udp(1, 2), extensions=[f.extension(60)]))
    assert Scene(6, web=ALL).frame(frame[:60], wire_length=len(frame)).protocol == 60


@both_families
def test_malformed_packet_changes_no_state(family):
    scene = tcp_scene(family)
    assert scene.say("client", "web", f.tcp(*REQUEST, "S", data_offset=4)) == "deny malformed"
    assert scene.engine.live_tuples() == 0


@pytest.mark.parametrize("source", ["web", "client"])
def test_early_denial_stands_on_the_first_side(source):
    verdict = Scene().send(source, "db", f.udp(1, 2, length=1))
    sides = verdict.egress, verdict.ingress
    assert [side and side.instance for side in sides] == (["web", None] if source == "web" else [None, "db"])


# --- SPEC 3.6, 3.7, 7: VPCs and two sides


def vpc_policy(*, peered: bool, region="", rules=None) -> Policy:
    rules = [inbound(4), outbound(4)] if rules is None else rules
    return Policy(
        vpcs=(Vpc("a"), Vpc("b", region), Vpc("c")),
        peerings=frozenset({frozenset("ab"), frozenset("bc")} if peered else ()),
        security_groups=(SecurityGroup("g", tuple(rules)),),
        instances=(
            instance("web", ["g"], "10.0.0.5", vpc="a"),
            instance("db", ["g"], "10.0.0.6", vpc="b"),
            instance("far", ["g"], "10.0.0.7", vpc="c"),
        ),
    )


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


# --- SPEC 4, 5: connections


@both_families
def test_reply_needs_no_rule(family):
    scene = tcp_scene(family)
    first = scene.send("client", "web", f.tcp(*REQUEST, "S"))
    assert (words(first), first.ingress.rule, first.created, first.began) == ("allow rule", "in", ("in",), "opened")
    reply = scene.send("web", "client", f.tcp(*ANSWER, "SA"))
    assert (words(reply), reply.egress.rule, reply.created, reply.began) == ("allow established", "in", (), None)


@both_families
def test_udp_reply_needs_no_rule_outbound_either(family):
    scene = Scene(family, [outbound(family, 17, 53)])
    assert scene.say("web", "client", f.udp(5000, 53)) == "allow rule"
    assert scene.say("client", "web", f.udp(53, 5000)) == "allow established"
    assert scene.say("other", "web", f.udp(53, 5000)) == "deny no-rule"


@both_families
def test_deadline_is_exclusive(family):
    scene = Scene(family, [inbound(family)])
    scene.send("client", "web", f.udp(1, 2), at=0)
    assert scene.say("client", "web", f.udp(1, 2), at=29.999999999) == "allow established"
    assert scene.say("client", "web", f.udp(1, 2), at=59.999999999) == "allow rule"


def test_packets_in_both_directions_live_longer():
    scene = Scene(web=[inbound(4)])
    scene.send("client", "web", f.udp(1, 2), at=0)
    scene.send("web", "client", f.udp(2, 1), at=10)
    assert scene.say("client", "web", f.udp(1, 2), at=189) == "allow established"
    assert scene.say("client", "web", f.udp(1, 2), at=369) == "allow rule"


def test_denied_packet_extends_nothing():
    scene = tcp_scene()
    scene.send("client", "web", f.tcp(*REQUEST, "S"), at=0)
    assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=20) == "deny invalid"
    assert scene.say("web", "client", f.tcp(*ANSWER, "SA"), at=30) == "deny midstream"


@both_families
def test_gre_has_one_connection_per_pair_in_either_orientation(family):
    scene = Scene(family, [outbound(family, 47)])
    assert scene.say("web", "client", f.other(47)) == "allow rule"
    assert scene.say("client", "web", f.other(47)) == "allow established"
    assert scene.say("client", "web", f.other(50)) == "deny no-rule"


@pytest.mark.parametrize("layer", [f.sctp, f.dccp, f.udplite])
def test_other_protocols_with_ports_keep_them_apart(layer):
    scene = Scene(web=[outbound(4)])
    assert scene.say("web", "client", layer(1, 2)) == "allow rule"
    assert scene.say("client", "web", layer(2, 1)) == "allow established"
    assert scene.say("client", "web", layer(2, 3)) == "deny no-rule"


# --- SPEC 5.4, 5.5: TCP


@both_families
def test_established_lives_600_seconds_and_then_data_is_midstream(family):
    scene = tcp_scene(family)
    handshake(scene)
    assert scene.say("web", "client", f.tcp(*ANSWER, "PA", b"x"), at=599) == "allow established"
    assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=1199) == "deny midstream"


@pytest.mark.parametrize("flags", ["", "SF", "SR", "F", "P", "SAF", "FSRPAU", "U", "RF", "SAU", "RAU"])
def test_flags_linux_calls_invalid(flags):
    scene = tcp_scene()
    assert scene.say("client", "web", f.tcp(*REQUEST, flags)) == "deny invalid"
    handshake(scene)
    assert scene.say("client", "web", f.tcp(*REQUEST, flags)) == "deny invalid"


@pytest.mark.parametrize("flags", ["S", "SU", "SP", "SEC"])
def test_flags_that_open(flags):
    assert tcp_scene().say("client", "web", f.tcp(*REQUEST, flags)) == "allow rule"


@pytest.mark.parametrize("flags", ["SA", "A", "AU", "FA", "FAU", "R", "RA", "PA"])
def test_flags_that_do_not_open(flags):
    assert tcp_scene().say("client", "web", f.tcp(*REQUEST, flags)) == "deny midstream"


def test_retransmitted_syn_does_not_extend_the_deadline():
    scene = tcp_scene()
    scene.send("client", "web", f.tcp(*REQUEST, "S"), at=0)
    assert scene.say("client", "web", f.tcp(*REQUEST, "S"), at=29) == "allow established"
    assert scene.say("client", "web", f.tcp(*REQUEST, "S"), at=30) == "allow rule"


def test_ignored_packet_is_allowed_and_extends_nothing():
    scene = tcp_scene()
    handshake(scene, at=0)
    assert scene.say("client", "web", f.tcp(*REQUEST, "S"), at=599) == "allow established"
    assert scene.say("web", "client", f.tcp(*ANSWER, "SA"), at=599) == "allow established"
    assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=600) == "deny midstream"


def test_responders_syn_on_established_is_invalid():
    scene = tcp_scene()
    handshake(scene)
    verdict = scene.send("web", "client", f.tcp(*ANSWER, "S"))
    assert (words(verdict), verdict.egress.rule) == ("deny invalid", None)
    assert verdict.tcp_transition == ("ES", "reply syn", "IV")


def close(scene, at=0.0):
    handshake(scene, at)
    states = [
        scene.send("web", "client", f.tcp(*ANSWER, "FA")).tcp_transition,
        scene.send("client", "web", f.tcp(*REQUEST, "A")).tcp_transition,
        scene.send("client", "web", f.tcp(*REQUEST, "FA")).tcp_transition,
        scene.send("web", "client", f.tcp(*ANSWER, "A")).tcp_transition,
    ]
    assert [new for _, _, new in states] == ["FW", "CW", "LA", "TW"]


def test_closing_passes_fin_wait_close_wait_last_ack_time_wait():
    close(tcp_scene())


def test_fin_wait_has_its_own_timeout():
    scene = tcp_scene(settings=Settings(timeouts=Timeouts(tcp_fin_wait=100, tcp_other=7.5)))
    handshake(scene)
    scene.send("client", "web", f.tcp(*REQUEST, "FA"), at=0)
    assert scene.say("client", "web", f.tcp(*REQUEST, "FA"), at=99) == "allow established"  # LAST-ACK
    assert scene.say("web", "client", f.tcp(*ANSWER, "A"), at=106.4) == "allow established"  # TIME-WAIT
    assert scene.say("web", "client", f.tcp(*ANSWER, "A"), at=113.9) == "deny midstream"


@both_families
def test_syn_in_time_wait_is_judged_by_rules_from_either_end(family):
    scene = tcp_scene(family)
    close(scene)
    assert scene.say("client", "web", f.tcp(*REQUEST, "S")) == "allow rule"
    scene = tcp_scene(family)
    close(scene)
    assert scene.say("web", "client", f.tcp(*ANSWER, "S")) == "deny no-rule"
    # The old connection is forgotten though the new one was denied.
    assert scene.say("web", "client", f.tcp(*ANSWER, "A")) == "deny midstream"


def test_syn_from_initiator_after_reset_is_judged_by_rules():
    scene = tcp_scene()
    handshake(scene)
    assert scene.say("web", "client", f.tcp(*ANSWER, "RA")) == "allow established"
    again = scene.send("client", "web", f.tcp(*REQUEST, "S"))
    assert (words(again), again.began) == ("allow rule", "opened")


def test_syn_from_responder_after_reset_is_invalid():
    scene = Scene(web=[inbound(4), outbound(4)])
    handshake(scene)
    scene.send("client", "web", f.tcp(*REQUEST, "R"))
    assert scene.say("web", "client", f.tcp(*ANSWER, "S")) == "deny invalid"


@pytest.mark.parametrize(("src", "dst", "ports"), [("web", "client", ANSWER), ("client", "web", REQUEST)])
def test_reset_of_unreplied_connection_forgets_it_at_once(src, dst, ports):
    scene = tcp_scene()
    scene.send("client", "web", f.tcp(*REQUEST, "S"))
    assert scene.say(src, dst, f.tcp(*ports, "RA")) == "allow established"
    assert scene.engine.live_tuples() == 0
    assert scene.say(src, dst, f.tcp(*ports, "RA")) == "deny midstream"


def test_simultaneous_open():
    scene = Scene(web=[inbound(4)])
    assert scene.say("client", "web", f.tcp(*REQUEST, "S"), at=0) == "allow rule"
    assert scene.say("web", "client", f.tcp(*ANSWER, "S"), at=20) == "allow established"
    assert scene.send("web", "client", f.tcp(*ANSWER, "S"), at=30).tcp_transition == ("S2", "reply syn", "S2")
    assert scene.send("client", "web", f.tcp(*REQUEST, "SA"), at=49).tcp_transition[2] == "SR"
    assert scene.send("web", "client", f.tcp(*ANSWER, "SA"), at=49).tcp_transition[2] == "IG"
    assert scene.send("client", "web", f.tcp(*REQUEST, "A"), at=49).tcp_transition[2] == "ES"


def test_ignored_reply_counts_as_reply():
    scene = tcp_scene()
    scene.send("client", "web", f.tcp(*REQUEST, "S"))
    assert scene.say("web", "client", f.tcp(*ANSWER, "A")) == "allow established"  # ignored in SYN-SENT
    scene.send("client", "web", f.tcp(*REQUEST, "R"))
    assert scene.engine.live_tuples() == 1  # closed, not forgotten


# --- SPEC 5.6, 4.6: ICMP


@both_families
def test_ping_and_its_reply(family):
    scene = Scene(family, [inbound(family)])
    assert scene.say("web", "client", scene.pong()) == "deny invalid"
    assert scene.say("client", "web", scene.ping(), at=0) == "allow rule"
    assert scene.say("web", "client", scene.pong(), at=29) == "allow established"
    assert scene.say("web", "client", scene.pong(2), at=29) == "deny invalid"
    assert scene.say("web", "client", scene.pong(), at=59) == "deny invalid"


@both_families
def test_both_ends_may_ping_with_one_identifier(family):
    scene = Scene(family, [inbound(family)])
    assert scene.say("client", "web", scene.ping()) == "allow rule"
    assert scene.say("web", "client", scene.ping()) == "deny no-rule"


@pytest.mark.parametrize(("query", "reply"), [(13, 14), (15, 16), (17, 18)])
def test_other_icmp_queries(query, reply):
    scene = Scene(web=[inbound(4)])
    assert scene.say("client", "web", f.icmp(query, 0, 7)) == "allow rule"
    assert scene.say("web", "client", f.icmp(0, 0, 7)) == "deny invalid"
    assert scene.say("web", "client", f.icmp(reply, 0, 7)) == "allow established"


@pytest.mark.parametrize(("family", "layer"), [(4, f.icmp(9)), (6, f.icmpv6(200))])
def test_other_icmp_is_one_way(family, layer):
    scene = Scene(family, [inbound(family)])
    assert scene.say("client", "web", layer) == "allow rule"
    assert scene.say("client", "web", layer) == "allow established"
    assert scene.say("web", "client", layer) == "deny no-rule"


def test_icmp_of_the_other_family_is_just_a_protocol():
    scene = Scene(web=[inbound(4)])
    assert scene.say("client", "web", f.icmpv6(129)) == "allow rule"
    assert scene.say("web", "client", f.icmpv6(1)) == "allow established"
    assert scene.send("client", "web", f.icmpv6(129)).icmp_type is None


@both_families
def test_icmp_error_is_related_and_refreshes_nothing(family):
    scene = Scene(family, [outbound(family)])
    scene.send("web", "client", f.udp(1, 2), at=0)
    error = scene.unreachable("web", "client", f.udp(1, 2))
    verdict = scene.send("other", "web", error, at=29)  # from a router on the way
    assert (words(verdict), verdict.ingress.rule, verdict.began) == ("allow related", "out", None)
    assert scene.say("other", "web", error, at=30) == "deny invalid"


@both_families
def test_icmp_error_about_a_reply_is_related(family):
    scene = tcp_scene(family)
    handshake(scene)
    assert scene.say("client", "web", scene.unreachable("web", "client", f.tcp(*ANSWER, "A"))) == "allow related"
    assert scene.say("web", "client", scene.unreachable("client", "web", f.tcp(*REQUEST, "A"))) == "allow related"


@both_families
def test_icmp_error_must_go_to_the_quoted_source(family):
    scene = tcp_scene(family)
    handshake(scene)
    assert scene.say("other", "web", scene.unreachable("client", "web", f.tcp(*REQUEST, "A"))) == "deny invalid"


@both_families
def test_icmp_error_about_a_ping(family):
    scene = Scene(family, [outbound(family)])
    scene.send("web", "client", scene.ping(7))
    assert scene.say("other", "web", scene.unreachable("web", "client", scene.ping(8))) == "deny invalid"
    assert scene.say("other", "web", scene.unreachable("web", "client", scene.ping(7))) == "allow related"


@pytest.mark.parametrize("quoted_bytes", [0, 19, 23])
def test_icmp_error_whose_quote_lacks_ports(quoted_bytes):
    scene = Scene(web=[outbound(4)])
    scene.send("web", "client", f.udp(1, 0))
    quoted = f.ipv4("10.0.0.5", "192.0.2.9", f.udp(1, 0))
    assert scene.say("client", "web", f.icmp_error(3, 3, quoted, quoted_bytes=quoted_bytes)) == "deny invalid"
    assert scene.say("client", "web", f.icmp_error(3, 3, quoted, quoted_bytes=24)) == "allow related"


@pytest.mark.parametrize("change", [{"fragment_offset": 1}, {"header_words": 4}])
def test_icmp_error_with_unusable_quote(change):
    scene = Scene(web=[outbound(4)])
    scene.send("web", "client", f.udp(1, 2))
    quoted = f.ipv4("10.0.0.5", "192.0.2.9", f.udp(1, 2), **change)
    assert scene.say("client", "web", f.icmp_error(11, 0, quoted)) == "deny invalid"


def test_icmp_error_quote_may_have_extension_headers():
    scene = Scene(6, [outbound(6)])
    scene.send("web", "client", f.udp(1, 2))
    quoted = f.ipv6("2001:db8::5", "2001:db8:ff::9", f.udp(1, 2), extensions=[f.extension(60, 16), f.fragment()])
    assert scene.say("client", "web", f.icmpv6_error(3, 0, quoted)) == "allow related"
    # Its lengths claim nothing, a jumbogram's neither.
    quoted = f.ipv6("2001:db8::5", "2001:db8:ff::9", f.udp(1, 2), extensions=[f.jumbo(5)])
    assert scene.say("client", "web", f.icmpv6_error(3, 0, quoted)) == "allow related"


def test_icmp_error_of_one_quoting_another_or_unknown_is_invalid_even_with_rules():
    scene = Scene(web=[inbound(4), outbound(4)])
    assert scene.say("client", "web", scene.unreachable("web", "client", f.udp(1, 2))) == "deny invalid"
    quoted = f.ipv4("10.0.0.5", "192.0.2.9", f.icmp(3))
    assert scene.say("client", "web", f.icmp_error(3, 3, quoted)) == "deny invalid"


def test_router_that_is_no_end_of_the_connection_may_not_send_its_error():
    scene = Scene(web=[outbound(4)], db=[])
    scene.send("web", "client", f.udp(1, 2))
    verdict = scene.send("db", "web", scene.unreachable("web", "client", f.udp(1, 2)))
    assert (words(verdict), verdict.egress.instance) == ("deny invalid", "db")


# --- SPEC 5.8: the table

SMALL = Settings(max_connections=2)


def test_full_table_evicts_the_tuple_longest_without_reply():
    scene = Scene(web=[inbound(4)], settings=SMALL)
    for port in (1, 2, 3):
        assert scene.say("client", "web", f.udp(port, 9)) == "allow rule"
    assert scene.engine.live_tuples() == 2
    assert scene.say("client", "web", f.udp(2, 9)) == "allow established"
    assert scene.say("client", "web", f.udp(1, 9)) == "allow rule"  # was evicted; evicts 2 though 2 was just seen
    assert scene.say("client", "web", f.udp(3, 9)) == "allow established"


def test_replied_connections_are_never_evicted():
    scene = Scene(web=[inbound(4)], settings=SMALL)
    for port in (1, 2):
        scene.send("client", "web", f.udp(port, 9), at=0)
        scene.send("web", "client", f.udp(9, port), at=0)
    verdict = scene.send("client", "web", f.udp(3, 9), at=0)
    assert (words(verdict), verdict.ingress.rule, verdict.began) == ("deny table-full", None, "denied")
    assert scene.say("client", "web", f.udp(4, 9), at=180) == "allow rule"


def test_reopened_connection_counts_from_its_reopening():
    scene = Scene(web=[inbound(4)], db=[outbound(4)], settings=SMALL)
    for src, dst, ports, flags in (
        ("db", "web", REQUEST, "S"),
        ("web", "db", ANSWER, "SA"),
        ("db", "web", REQUEST, "A"),
        ("db", "web", REQUEST, "FA"),
        ("web", "db", ANSWER, "FA"),
        ("db", "web", REQUEST, "A"),
    ):
        assert scene.send(src, dst, f.tcp(*ports, flags)).verdict == "allow"
    scene.send("client", "web", f.udp(1, 2))
    assert scene.say("db", "web", f.tcp(*REQUEST, "S")) == "allow rule"
    scene.send("client", "web", f.udp(3, 4))
    assert scene.say("web", "db", f.tcp(*ANSWER, "SA")) == "allow established"


def test_moot_tuple_is_evicted_even_if_one_side_was_replied():
    options = {"mode": "causal", "midstream": "infer", "settings": Settings(max_connections=1)}
    scene = Scene(web=[outbound(4)], db=[], **options)
    assert scene.send("web", "db", f.tcp(*REQUEST, "A")).egress.reason == "inferred"
    assert scene.say("web", "db", f.tcp(*REQUEST, "S")) == "deny no-rule"  # moot, and web's side has its connection
    assert scene.say("web", "client", f.udp(1, 2)) == "allow rule"


def test_rules_come_before_a_full_table():
    scene = Scene(web=[inbound(4, 17)], settings=Settings(max_connections=0))
    assert scene.say("client", "web", f.tcp(1, 9, "S")) == "deny no-rule"
    assert scene.say("client", "web", f.udp(1, 9)) == "deny table-full"


def test_two_sides_are_one_tuple():
    """SPEC 1.1."""
    scene = Scene(web=[outbound(4)], db=[inbound(4)], settings=Settings(max_connections=1))
    verdict = scene.send("web", "db", f.udp(1, 2))
    assert (words(verdict), verdict.created, scene.engine.live_tuples()) == ("allow rule", ("out", "in"), 1)


# --- SPEC 9.1: time


def test_late_timestamp_is_taken_as_its_predecessors():
    scene = Scene(web=[inbound(4)])
    scene.send("client", "web", f.udp(1, 2), at=100)
    scene.send("client", "other", f.udp(1, 2), at=40)
    engine = scene.engine
    assert (engine.clock.now, engine.clock.late, engine.clock.restarts, engine.clock.first) == (100 * S, 1, 0, 100 * S)
    assert scene.say("client", "web", f.udp(1, 2), at=129) == "allow established"


def test_restart_of_the_clock_leaves_no_gap():
    scene = Scene(web=[inbound(4)])
    scene.send("client", "web", f.udp(1, 2), at=100)
    assert scene.say("client", "web", f.udp(1, 2), at=39.9) == "allow established"
    assert (scene.engine.clock.now, scene.engine.clock.late, scene.engine.clock.restarts) == (100 * S, 0, 1)
    assert scene.say("client", "web", f.udp(1, 2), at=69.8) == "allow established"  # 29.9 s later
    assert scene.say("client", "web", f.udp(1, 2), at=99.8) == "allow rule"


# --- SPEC 9.2: causal mode


@both_families
def test_what_follows_a_denied_syn_is_moot(family):
    scene = Scene(family, [outbound(family)], mode="causal")
    assert scene.say("client", "web", f.tcp(*REQUEST, "S"), at=0) == "deny no-rule"
    moot = scene.send("web", "client", f.tcp(*ANSWER, "SA"), at=0)
    assert (words(moot), moot.egress, moot.ingress) == ("moot opener-denied", None, None)
    assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=599) == "moot opener-denied"
    assert scene.say("web", "client", scene.unreachable("client", "web", f.tcp(*REQUEST, "A"))) == "moot opener-denied"
    assert scene.say("web", "client", f.tcp(*ANSWER, "A"), at=1197) == "moot opener-denied"
    assert scene.say("client", "web", f.tcp(*REQUEST, "S"), at=1198) == "deny no-rule"
    assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=1797) == "moot opener-denied"
    assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=2397) == "deny midstream"


def test_verbatim_mode_judges_what_follows():
    scene = Scene(web=[outbound(4)])
    scene.send("client", "web", f.tcp(*REQUEST, "S"))
    assert scene.say("web", "client", f.tcp(*ANSWER, "SA")) == "deny midstream"


def test_responders_udp_does_not_open_after_a_denied_opener():
    scene = Scene(web=[outbound(4)], mode="causal")
    assert scene.say("client", "web", f.udp(1, 2), at=0) == "deny no-rule"
    assert scene.say("web", "client", f.udp(2, 1), at=29) == "moot opener-denied"
    assert scene.say("client", "web", f.udp(1, 2), at=58) == "deny no-rule"  # judged again
    assert scene.say("web", "client", f.udp(2, 1), at=88) == "allow rule"  # no packet for 30 s


@pytest.mark.parametrize("layer", [f.udp(500, 500), f.other(47), f.other(50)])
def test_peers_with_equal_ports_or_none_are_never_moot(layer):
    scene = Scene(web=[outbound(4)], mode="causal")
    assert scene.say("client", "web", layer) == "deny no-rule"
    assert scene.say("web", "client", layer) == "allow rule"


def test_icmp_is_never_moot():
    scene = Scene(web=[outbound(4)], mode="causal")
    assert scene.say("client", "web", scene.ping()) == "deny no-rule"
    assert scene.say("web", "client", scene.pong()) == "deny invalid"


def test_tcp_with_equal_ports_is_moot():
    scene = Scene(mode="causal")
    scene.send("client", "web", f.tcp(179, 179, "S"))
    assert scene.say("web", "client", f.tcp(179, 179, "SA")) == "moot opener-denied"


def test_moot_packets_touch_no_connection_of_the_egress_side():
    scene = Scene(web=[outbound(4)], mode="causal")
    denied = scene.send("web", "db", f.tcp(*REQUEST, "S"), at=0)
    assert (words(denied), denied.egress.reason, denied.began) == ("deny no-rule", "rule", "denied")
    assert scene.say("db", "web", f.tcp(*ANSWER, "SA"), at=29) == "moot opener-denied"
    retry = scene.send("web", "db", f.tcp(*REQUEST, "S"), at=30)
    assert (retry.egress.reason, retry.ingress.reason, retry.began) == ("rule", "no-rule", None)
    assert scene.engine.live_tuples() == 1


def test_vpc_isolated_opener_makes_moot():
    scene = Scene(policy=vpc_policy(peered=False), mode="causal")
    assert scene.say("web", "db", f.tcp(*REQUEST, "A")) == "deny vpc-isolated"
    assert scene.say("web", "db", f.tcp(*REQUEST, "S")) == "deny vpc-isolated"
    assert scene.say("web", "db", f.tcp(*REQUEST, "A")) == "moot opener-denied"


def test_moot_mark_evicts_and_is_evicted():
    scene = Scene(web=[inbound(4, 6, 80)], settings=Settings(max_connections=1), mode="causal")
    assert scene.say("client", "web", f.tcp(*REQUEST, "S")) == "allow rule"
    assert scene.say("client", "web", f.tcp(40000, 81, "S")) == "deny no-rule"  # its mark evicts the connection
    assert scene.say("web", "client", f.tcp(*ANSWER, "SA")) == "deny midstream"
    assert scene.say("web", "client", f.tcp(81, 40000, "SA")) == "moot opener-denied"
    assert scene.say("client", "web", f.tcp(*REQUEST, "S")) == "allow rule"  # evicts the mark
    assert scene.say("web", "client", f.tcp(81, 40000, "SA")) == "deny midstream"


def test_moot_icmp_error_does_not_refresh_the_mark():
    scene = Scene(mode="causal")
    scene.send("client", "web", f.udp(1, 2), at=0)
    error = scene.unreachable("client", "web", f.udp(1, 2))
    assert scene.say("web", "client", error, at=29) == "moot opener-denied"
    assert scene.say("web", "client", error, at=30) == "deny invalid"


def test_refreshing_a_moot_mark_is_no_creation():
    scene = Scene(web=[inbound(4, 6, 80)], settings=SMALL, mode="causal")
    scene.send("client", "web", f.udp(1, 2), at=0)
    scene.send("client", "web", f.udp(3, 4), at=0)
    scene.send("client", "web", f.udp(1, 2), at=1)
    scene.send("client", "web", f.tcp(*REQUEST, "S"), at=2)  # evicts the older mark, 1 to 2
    assert scene.say("web", "client", f.udp(4, 3), at=2) == "moot opener-denied"
    assert scene.say("web", "client", f.udp(2, 1), at=2) == "deny no-rule"


def test_no_room_for_a_moot_mark():
    scene = Scene(web=[inbound(4, 17)], settings=Settings(max_connections=1), mode="causal")
    scene.send("client", "web", f.udp(1, 2))
    scene.send("web", "client", f.udp(2, 1))
    first = scene.send("client", "web", f.tcp(*REQUEST, "S"), at=0)
    assert (words(first), first.began) == ("deny no-rule", "denied")
    assert scene.say("web", "client", f.tcp(*ANSWER, "SA"), at=0) == "deny midstream"
    # A retry is the same attempt for as long as an unanswered connection would live.
    assert scene.send("client", "web", f.tcp(*REQUEST, "S"), at=179).began is None


# --- SPEC 9.3: midstream


@pytest.mark.parametrize(
    ("src", "dst", "ports", "flags", "expected"),
    [
        ("client", "web", REQUEST, "A", "ES"),
        ("web", "client", ANSWER, "PA", "ES"),
        ("web", "client", ANSWER, "SA", "SR"),
        ("web", "client", ANSWER, "FA", "FW"),
        ("client", "web", REQUEST, "FA", "FW"),
    ],
)
@both_families
def test_older_connection_is_inferred(family, src, dst, ports, flags, expected):
    scene = tcp_scene(family, midstream="infer")
    first = scene.send(src, dst, f.tcp(*ports, flags))
    assert (words(first), first.began, first.created) == ("allow inferred", "inferred", ("in",))
    assert (first.ingress or first.egress).rule == "in"
    assert first.tcp_transition[2] == expected
    assert scene.say("web", "client", f.tcp(*ANSWER, "A")) == "allow established"


def test_syn_ack_goes_to_the_initiator_whatever_the_ports():
    scene = Scene(web=[inbound(4, 6, 50000)], midstream="infer")
    assert scene.say("web", "client", f.tcp(50000, 1024, "SA")) == "allow inferred"
    assert scene.say("web", "client", f.tcp(50000, 1025, "A")) == "deny no-rule"  # higher port: web's own


def test_equal_ports_infer_the_sender():
    scene = Scene(web=[inbound(4, 6, 179)], midstream="infer")
    assert scene.say("web", "client", f.tcp(179, 179, "A")) == "deny no-rule"
    assert scene.say("client", "web", f.tcp(179, 179, "A")) == "allow inferred"


def test_nothing_is_inferred_from_a_reset():
    scene = tcp_scene(midstream="infer")
    assert scene.say("client", "web", f.tcp(*REQUEST, "RA")) == "deny midstream"


def test_reset_of_inferred_connection_closes_but_does_not_forget_it():
    scene = tcp_scene(midstream="infer")
    scene.send("client", "web", f.tcp(*REQUEST, "A"))
    assert scene.say("client", "web", f.tcp(*REQUEST, "R")) == "allow established"
    assert scene.engine.live_tuples() == 1


@pytest.mark.parametrize(("midstream", "late"), [("infer", "deny midstream"), ("allow", "allow inferred")])
def test_inference_ends_with_the_window_which_is_exclusive(midstream, late):
    scene = tcp_scene(midstream=midstream)
    scene.frame(f.ethernet(bytes(28), 0x0806))  # the first packet of all, whatever it is
    assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=599.999999999) == "allow inferred"
    assert scene.say("client", "web", f.tcp(40001, 80, "A"), at=600) == late


@pytest.mark.parametrize("midstream", ["infer", "allow"])
def test_nothing_is_inferred_once_the_opener_was_seen(midstream):
    scene = tcp_scene(midstream=midstream)
    scene.send("client", "web", f.tcp(*REQUEST, "S"), at=0)
    assert scene.say("web", "client", f.tcp(*ANSWER, "A"), at=31) == "deny midstream"
    scene.send("client", "web", f.tcp(40000, 81, "S"), at=31)
    assert scene.say("web", "client", f.tcp(81, 40000, "A"), at=31) == "deny midstream"


def test_openers_are_remembered_however_small_the_table_is():
    scene = tcp_scene(midstream="infer", settings=SMALL)
    for port in range(1, 10):
        scene.say("client", "web", f.tcp(port, 81, "S"))
    assert scene.say("client", "web", f.tcp(1, 81, "A")) == "deny midstream"


def test_of_too_many_openers_the_latest_are_remembered(monkeypatch):
    monkeypatch.setattr("sgfast.reference.engine.LEAST_OPENERS_SEEN", 0)
    scene = tcp_scene(midstream="infer", settings=SMALL)
    for port in (1, 2, 1, 3):
        assert scene.say("client", "web", f.tcp(port, 81, "S")) == "deny no-rule"
    assert scene.say("client", "web", f.tcp(1, 81, "A")) == "deny midstream"
    assert scene.say("client", "web", f.tcp(3, 81, "A")) == "deny midstream"
    assert scene.say("web", "client", f.tcp(81, 2, "SA")) == "deny no-rule"  # forgotten: inferred, and denied


def test_denied_inference_has_the_rules_reason_and_makes_nothing_moot():
    scene = Scene(web=[inbound(4, 6, 81, action="deny")], mode="causal", midstream="infer")
    denied = scene.send("client", "web", f.tcp(*REQUEST, "A"))
    assert (words(denied), denied.began) == ("deny no-rule", "denied")
    again = scene.send("web", "client", f.tcp(*ANSWER, "A"))
    assert (words(again), again.began) == ("deny no-rule", None)  # the same attempt
    denied = scene.send("client", "web", f.tcp(40000, 81, "A"))
    assert (words(denied), denied.ingress.rule) == ("deny deny-rule", "in")


def test_inference_is_per_side():
    scene = Scene(web=[outbound(4)], db=[inbound(4, 6, 80)], midstream="infer")
    verdict = scene.send("web", "db", f.tcp(*REQUEST, "A"))
    assert (verdict.egress.reason, verdict.ingress.reason, verdict.created) == ("inferred", "inferred", ("out", "in"))


def test_inferred_opener_meets_a_full_table():
    scene = tcp_scene(midstream="infer", settings=Settings(max_connections=1))
    scene.send("client", "web", f.tcp(*REQUEST, "A"))
    assert scene.say("client", "web", f.tcp(40001, 80, "A")) == "deny table-full"


# --- SPEC 6: changes (the scenarios are in test_changes)

NOTHING_NEW = AddRule("w", inbound(4, 17, 9, id=""))


def test_one_change_or_several_by_any_iterable():
    for changes in (RemoveRule("w", "in"), [RemoveRule("w", "in")], iter((RemoveRule("w", "in"), NOTHING_NEW))):
        scene = tcp_scene()
        handshake(scene)
        assert scene.engine.apply(changes, S) == Applied(disconnected=1)
        verdict = scene.send("client", "web", f.tcp(*REQUEST, "A"), at=1)
        assert (words(verdict), verdict.ingress.rule, verdict.began, verdict.created) == (
            "deny disconnected", "in", None, (),
        )  # fmt: skip
        assert scene.say("client", "web", f.tcp(40001, 80, "S")) == "deny no-rule"


def test_change_that_is_refused_leaves_everything_as_it_was():
    scene = tcp_scene()
    handshake(scene)

    def broken_off():
        yield RemoveRule("w", "in")
        raise OSError

    for changes, error in [
        (RemoveRule("w", "nope"), PolicyError),
        ([RemoveRule("w", "in"), RemoveInstance("db"), RemoveRule("w", "in")], PolicyError),
        (broken_off(), OSError),
    ]:
        with pytest.raises(error):
            scene.engine.apply(changes, S)
    assert scene.engine.policy is scene.policy
    assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=1) == "allow established"
    assert scene.say("client", "web", f.tcp(40001, 80, "S")) == "allow rule"
    assert scene.say("client", "db", f.tcp(40001, 80, "S")) == "deny no-rule"


def test_change_refused_for_the_addresses_that_are_seen_leaves_everything_as_it_was():
    policy = vpc_policy(peered=True)
    scene = Scene(policy=policy)
    with pytest.raises(PolicyError, match="say which VPC"):
        scene.engine.apply([RemoveRule("g", "out"), AddAddress("db", ip_network("10.0.0.0/24"))], 0)
    assert scene.engine.policy is policy
    assert scene.send("web", "client", f.udp(1, 2)).egress.instance == "web"


def test_change_does_not_move_the_clock():
    scene = tcp_scene(midstream="infer")
    scene.engine.apply(NOTHING_NEW, 50 * S)
    assert (scene.engine.clock.now, scene.engine.clock.first) == (None, None)
    handshake(scene, at=100)
    assert scene.engine.apply(NOTHING_NEW, 120 * S).disconnected == 1
    assert scene.engine.clock.now == 100 * S
    assert scene.say("client", "web", f.tcp(40001, 80, "S"), at=110) == "allow rule"
    assert scene.engine.clock.late == 0


def test_liveness_is_that_of_the_change_not_of_the_clock():
    scene = tcp_scene()
    handshake(scene)
    assert scene.engine.apply(NOTHING_NEW, 600 * S).disconnected == 0
    assert scene.engine.apply(NOTHING_NEW, 600 * S - 1).disconnected == 1
    assert scene.engine.apply(NOTHING_NEW, 600 * S - 1).disconnected == 0


def test_disconnected_tuples_are_live_and_forgotten_ones_are_not():
    scene = tcp_scene()
    handshake(scene)
    scene.engine.apply(NOTHING_NEW, S)
    assert scene.engine.live_tuples() == 1
    scene.engine.apply(RemoveInstance("web"), S)
    assert scene.engine.live_tuples() == 0


def test_denied_disconnected_is_an_attempt_only_where_a_side_opened():
    scene = Scene(web=[inbound(4, 17)], db=[outbound(4, 17)])
    assert scene.send("db", "web", f.udp(1, 2), at=0).began == "opened"
    assert scene.send("web", "db", f.udp(2, 1), at=1).began is None
    scene.engine.apply(NOTHING_NEW, S)
    scene.engine.apply(RemoveInstance("db"), S)
    assert scene.send("db", "web", f.udp(1, 2), at=2).began is None
    assert scene.engine.live_tuples() == 1


def test_connection_keeps_the_rule_it_was_opened_with_and_later_ones_have_the_modified():
    scene = tcp_scene(settings=Settings(on_change="keep"))
    handshake(scene)
    scene.engine.apply(ModifyRule("w", "in", inbound(4, 6, 80, action="deny")), S)
    assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=1) == "allow established"
    assert scene.say("client", "web", f.tcp(40001, 80, "S")) == "deny deny-rule"


def test_unmatched_multicast_is_no_members_address():
    group = {4: "224.0.0.9", 6: "ff02::9"}
    for family, everything in ((4, "224.0.0.0/4"), (6, "ff00::/8")):
        scene = Scene(family, web=[outbound(family, 17)], settings=Settings(on_change="cut-unmatched"))
        scene.engine.apply(AddAddress("db", ip_network(everything)), 0)
        assert scene.say("web", group[family], f.udp(1, 2), at=0) == "allow rule"
        to_group = outbound(family, 17, peer=GroupPeer("d"))
        assert scene.engine.apply(ModifyRule("w", "out", to_group), S).disconnected == 1


# --- SPEC 10.2: beginnings


def test_retry_of_a_denied_opener_is_the_same_attempt():
    scene = Scene()
    began = [scene.send("client", "web", f.udp(1, 2), at=at).began for at in (0, 29, 58, 88)]
    assert began == ["denied", None, None, "denied"]


def test_connection_between_two_instances_begins_once():
    scene = Scene(web=[outbound(4)], db=[inbound(4)])
    assert [scene.send("web", "db", f.udp(1, 2)).began, scene.send("db", "web", f.udp(2, 1)).began] == ["opened", None]


# --- SPEC 11: bad input


def test_no_bytes_make_it_raise():
    draw = random.Random(11)
    scene = Scene(web=ALL, db=[outbound(4), outbound(6)], mode="causal", midstream="allow", settings=SMALL)
    seeds = [
        f.ethernet(f.vlan(f.mpls(SYN4))),
        f.ethernet(f.ipv6("2001:db8:ff::9", "2001:db8::5", f.udp(1, 2), extensions=[f.extension(0), f.fragment()])),
        f.ethernet(f.ipv4("192.0.2.9", "10.0.0.5", f.icmp_error(3, 3, f.ipv4("10.0.0.5", "192.0.2.9", f.udp(1, 2))))),
        f.ethernet(f.ipv6("2001:db8:ff::9", "2001:db8::5", f.icmpv6_error(1, 4, SYN6))),
        f.ethernet(SYN4),
    ]
    for _ in range(20000):
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.randrange(4)):
            data[draw.randrange(12, len(data))] = draw.randrange(256)
        kept = draw.choice([len(data), draw.randrange(len(data) + 1)])
        link_type = draw.choice([1, 1, 1, 0, 12, 101, 108, 113, 276, 228, 229, 147])
        scene.now += draw.random() * 9 - 1
        scene.frame(bytes(data[:kept]), wire_length=draw.choice([None, len(data), 0]), link_type=link_type)
