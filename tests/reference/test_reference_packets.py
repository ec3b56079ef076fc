"""The reference model against docs/spec.md: what a packet is, and which packets no rule decides (SPEC 3.1 to 3.4)."""

from __future__ import annotations

import frames as f
import pytest
from reference_scene import (
    REQUEST,
    SYN4,
    SYN6,
    Scene,
    both_families,
    inbound,
    instance,
    tcp_scene,
    words,
)

from sgfast.policy.model import (
    Policy,
    SecurityGroup,
    Settings,
)

# --- SPEC 3.1: below IP


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
