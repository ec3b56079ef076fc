"""The reference model against docs/spec.md, as far as no scenario shows it: those run through engine and model alike.

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


# --- SPEC 5.4, 5.5: TCP


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


def test_simultaneous_open():
    scene = Scene(web=[inbound(4)])
    assert scene.say("client", "web", f.tcp(*REQUEST, "S"), at=0) == "allow rule"
    assert scene.say("web", "client", f.tcp(*ANSWER, "S"), at=20) == "allow established"
    assert scene.send("web", "client", f.tcp(*ANSWER, "S"), at=29).tcp_transition == ("S2", "reply syn", "S2")
    assert scene.send("client", "web", f.tcp(*REQUEST, "SA"), at=58).tcp_transition[2] == "R2"
    assert scene.send("web", "client", f.tcp(*ANSWER, "SA"), at=58).tcp_transition[2] == "IG"
    assert scene.send("web", "client", f.tcp(*ANSWER, "A"), at=58).tcp_transition[2] == "ES"


# --- SPEC 5.6, 4.6: ICMP


@both_families
def test_both_ends_may_ping_with_one_identifier(family):
    scene = Scene(family, [inbound(family)])
    assert scene.say("client", "web", scene.ping()) == "allow rule"
    assert scene.say("web", "client", scene.ping()) == "deny no-rule"


@pytest.mark.parametrize(("family", "layer"), [(4, f.icmp(9)), (6, f.icmpv6(200))])
def test_other_icmp_is_one_way(family, layer):
    scene = Scene(family, [inbound(family)])
    assert scene.say("client", "web", layer) == "allow rule"
    assert scene.say("client", "web", layer) == "allow established"
    assert scene.say("web", "client", layer) == "deny no-rule"


def test_icmp_error_quote_may_have_extension_headers():
    scene = Scene(6, [outbound(6)])
    scene.send("web", "client", f.udp(1, 2))
    quoted = f.ipv6("2001:db8::5", "2001:db8:ff::9", f.udp(1, 2), extensions=[f.extension(60, 16), f.fragment()])
    assert scene.say("client", "web", f.icmpv6_error(3, 0, quoted)) == "allow related"
    # Its lengths claim nothing, a jumbogram's neither.
    quoted = f.ipv6("2001:db8::5", "2001:db8:ff::9", f.udp(1, 2), extensions=[f.jumbo(5)])
    assert scene.say("client", "web", f.icmpv6_error(3, 0, quoted)) == "allow related"


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


# --- SPEC 9.2: causal mode


def test_moot_mark_evicts_and_is_evicted():
    scene = Scene(web=[inbound(4, 6, 80)], settings=Settings(max_connections=1), mode="causal")
    assert scene.say("client", "web", f.tcp(*REQUEST, "S")) == "allow rule"
    assert scene.say("client", "web", f.tcp(40000, 81, "S")) == "deny no-rule"  # its mark evicts the connection
    assert scene.say("web", "client", f.tcp(*ANSWER, "SA")) == "deny midstream"
    assert scene.say("web", "client", f.tcp(81, 40000, "SA")) == "moot opener-denied"
    assert scene.say("client", "web", f.tcp(*REQUEST, "S")) == "allow rule"  # evicts the mark
    assert scene.say("web", "client", f.tcp(81, 40000, "SA")) == "deny midstream"


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
