"""The reference model against docs/spec.md: connections and changes, as far as no scenario shows them: those run
through engine and model alike (SPEC 5, 6, 9, 10.2, 11)."""

from __future__ import annotations

import random
from ipaddress import ip_network

import frames as f
import pytest
from reference_scene import (
    ANSWER,
    REQUEST,
    SYN4,
    SYN6,
    S,
    Scene,
    both_families,
    handshake,
    inbound,
    outbound,
    tcp_scene,
    vpc_policy,
    words,
)

from sgfast.errors import PolicyError
from sgfast.policy.changes import AddAddress, AddRule, ModifyRule, RemoveInstance, RemoveRule
from sgfast.policy.model import (
    GroupPeer,
    Settings,
)
from sgfast.reference.verdicts import Applied

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
    for at, counted in ((600 * S, 0), (600 * S - 1, 1)):
        scene = tcp_scene()
        handshake(scene)
        assert scene.engine.apply(NOTHING_NEW, at).disconnected == counted
        assert scene.engine.apply(NOTHING_NEW, at).disconnected == 0
        assert scene.say("client", "web", f.tcp(*REQUEST, "A"), at=599) == "deny disconnected"


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
    everything = [inbound(4), inbound(6, id="in6")]
    scene = Scene(web=everything, db=[outbound(4), outbound(6)], mode="causal", midstream="allow", settings=SMALL)
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
