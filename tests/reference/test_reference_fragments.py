"""Fragments in the reference model (SPEC 9.4): one test per hazard."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import frames as f
import pytest
from datagrams import ANSWERS, HAZARDS, Datagram, cut
from reference_scene import (
    ADDRESSES,
    OPEN,
    SHUT,
    Pieces,
    S,
    Scene,
    both_families,
    inbound,
    outbound,
    vpc_policy,
    words,
)

from sgfast.policy.changes import AddRule, RemoveInstance, RemoveRule
from sgfast.policy.model import Settings
from sgfast.reference import fragments as reference_fragments

# --- Order, duplicates, overlaps

@both_families
@pytest.mark.parametrize("hazard", HAZARDS)
def test_pieces_of_a_datagram(family, hazard):
    spelled, at_once, in_the_end = HAZARDS[hazard]
    scene = Pieces(family)
    assert scene.all(scene.datagram().pieces(spelled)) == [ANSWERS[letter] for letter in at_once]
    assert scene.finish() == [ANSWERS[letter] for letter in in_the_end]


@both_families
def test_what_resolves_comes_in_packet_order_once_with_its_own_headers(family):
    scene = Pieces(family)
    one, two = scene.datagram(identification=1), scene.datagram(SHUT, "other", identification=2)
    for packet in (one.piece("24-64"), two.piece("24-48+"), one.piece("16-24+"), two.piece("48-64")):
        assert words(scene.frame(f.ethernet(packet))) == "pending"
    assert scene.engine.resolved() == []
    scene.frame(f.ethernet(two.piece("0-24+")))
    scene.frame(f.ethernet(one.piece("0-16+")))
    told = scene.engine.resolved()
    assert [(number, words(verdict), verdict.src) for number, verdict in told] == [
        (1, "allow rule", scene.names["client"]), (2, "deny no-rule", scene.names["other"]),
        (3, "allow rule", scene.names["client"]), (4, "deny no-rule", scene.names["other"]),
    ]  # fmt: skip
    assert {(verdict.protocol, verdict.sport, verdict.dport) for _, verdict in told} == {(17, None, None)}
    assert scene.engine.resolved() == []


@both_families
def test_whatever_the_order_and_the_duplicates_all_get_the_firsts_verdict(family):
    for seed in range(200):
        draw = random.Random(seed)
        scene = Pieces(family)
        datagrams = [
            scene.datagram(draw.choice((OPEN, SHUT)), draw.choice(("client", "other")), identification=n)
            for n in range(3)
        ]
        cuts = [cut(64, 8 * draw.randrange(1, 8), *(8 * draw.randrange(8) for _ in range(3))) for _ in datagrams]
        packets = [(n, word) for n, spelled in enumerate(cuts) for word in spelled]
        # Duplicates that come after the end would begin anew.
        packets += [draw.choice(packets) for _ in range(4)]
        draw.shuffle(packets)
        missing = {n: set(spelled) for n, spelled in enumerate(cuts)}
        heard: list[int] = []
        for n, word in packets:
            if missing[n]:
                scene.give(datagrams[n].piece(word))
                heard.append(n)
                missing[n].discard(word)
        for n, datagram in enumerate(datagrams):
            wanted = "allow" if datagram.layer is OPEN else "deny"
            assert {scene.told[k].verdict for k, m in enumerate(heard) if m == n} == {wanted}, f"seed {seed}"
        assert scene.engine.resolved() == [] and scene.finish() == scene.words(), f"seed {seed}"


# --- Which datagram

@pytest.mark.parametrize("protocol, offset", [(17, 24), (50, 24)])
def test_ipv4_datagrams_of_different_protocols_are_different(protocol, offset):
    scene = Pieces()
    assert scene.give(scene.datagram().piece("0-24+")) == "allow rule"
    answer = scene.give(scene.datagram(f.Layer(bytes(OPEN), protocol)).piece(f"{offset}-64"))
    assert answer == ("allow rule" if protocol == 17 else "pending")


def test_ipv6_fragments_of_one_datagram_may_name_different_protocols():
    scene = Pieces(6)
    assert scene.give(scene.datagram().piece("0-24+")) == "allow rule"
    assert scene.give(scene.datagram(f.Layer(bytes(OPEN), 60)).piece("24-64")) == "allow rule"
    assert scene.told[-1].protocol == 60


@both_families
def test_another_identification_address_or_direction_is_another_datagram(family):
    scene = Pieces(family)
    assert scene.give(scene.datagram().piece("0-24+")) == "allow rule"
    others = [
        scene.datagram(identification=8), scene.datagram(src="other"), scene.datagram(dst="db"),
        scene.datagram(src="web", dst="client"),
    ]  # fmt: skip
    assert [scene.give(other.piece("24-64")) for other in others] == ["pending"] * 4
    assert scene.give(scene.datagram().piece("24-64")) == "allow rule"


def test_ipv6_identifications_have_32_bits():
    scene = Pieces(6)
    assert scene.give(scene.datagram(identification=0x10007).piece("0-24+")) == "allow rule"
    assert scene.give(scene.datagram(identification=0x7).piece("24-64")) == "pending"


@both_families
def test_packet_that_is_no_fragment_is_none_of_the_datagram(family):
    scene = Pieces(family)
    datagram = scene.datagram()
    assert scene.give(datagram.piece("24-64")) == "pending"
    assert scene.give(datagram.piece("0-64")) == "allow rule"  # IPv6: "atomic"
    assert scene.give(datagram.piece("24-64")) == "pending"
    assert scene.finish() == ["deny fragment", "allow rule", "deny fragment"]


# --- Time

@both_families
def test_first_that_comes_in_the_last_moment_is_in_time(family):
    scene = Pieces(family)
    assert scene.give(scene.datagram().piece("24-64"), at=0) == "pending"
    assert scene.give(scene.datagram().piece("0-24+"), at=30 - 1e-9) == "allow rule"
    assert scene.words() == ["allow rule"] * 2


@both_families
def test_first_that_comes_after_30_s_is_too_late(family):
    scene = Pieces(family)
    assert scene.give(scene.datagram().piece("24-48+"), at=0) == "pending"
    assert scene.give(scene.datagram().piece("48-64"), at=29) == "pending"
    assert scene.give(scene.datagram().piece("0-24+"), at=30) == "allow rule"
    assert scene.words() == ["deny fragment", "deny fragment", "allow rule"]
    assert scene.give(scene.datagram().piece("24-64"), at=31) == "allow rule"


@pytest.mark.parametrize("packet", [f.ethernet(b"", 0x0806), b"", f.ethernet(f.ipv4("192.0.2.9", "192.0.2.10", OPEN))])
def test_any_packet_shows_that_the_time_is_over(packet):
    scene = Pieces()
    assert scene.give(scene.datagram().piece("24-64"), at=0) == "pending"
    scene.now = 30
    scene.frame(packet)
    assert [(number, words(verdict)) for number, verdict in scene.engine.resolved()] == [(1, "deny fragment")]


@both_families
def test_verdict_of_the_first_is_forgotten_30_s_after_the_earliest(family):
    scene = Pieces(family)
    assert scene.give(scene.datagram().piece("24-48+"), at=0) == "pending"
    assert scene.give(scene.datagram().piece("0-24+"), at=20) == "allow rule"
    assert scene.give(scene.datagram().piece("24-48+"), at=29) == "allow rule"
    assert scene.give(scene.datagram().piece("48-64"), at=30) == "pending"


@both_families
def test_spoiled_datagram_is_forgotten_30_s_after_the_earliest(family):
    scene = Pieces(family)
    assert scene.give(scene.datagram().piece("24-48+"), at=0) == "pending"
    assert scene.give(scene.datagram().piece("32-64"), at=10) == "deny fragment"
    assert scene.give(scene.datagram().piece("0-24+"), at=29) == "deny fragment"
    assert scene.give(scene.datagram().piece("0-24+"), at=30) == "allow rule"


def test_time_is_that_of_the_clock_not_of_the_packets():
    scene = Pieces()
    assert scene.give(scene.datagram().piece("24-64"), at=1000) == "pending"
    assert scene.give(scene.datagram().piece("16-24+"), at=0) == "pending"  # the clock restarts here
    assert scene.give(scene.datagram(identification=8).piece("0-24+"), at=29) == "allow rule"
    assert scene.words()[:2] == ["pending"] * 2
    assert scene.give(scene.datagram().piece("0-16+"), at=30) == "allow established"
    assert scene.words()[:2] == ["deny fragment"] * 2


def test_finish_gives_up_what_is_pending_and_nothing_else():
    scene = Pieces()
    scene.all([scene.datagram().piece("0-24+"), scene.datagram(identification=8).piece("24-64")])
    assert scene.finish() == ["allow rule", "deny fragment"]
    assert scene.give(scene.datagram().piece("24-64")) == "allow rule"
    assert scene.give(scene.datagram(identification=8).piece("0-24+")) == "allow established"


# --- Whose verdict: that of the first, whatever it is

def judged_in_both_orders(scene: Pieces, datagram: Datagram, **options: Any) -> list[tuple[str, str, int]]:
    """Verdict, reason and number of sides: of the first, of a fragment after it, of one before it."""
    other = replace(datagram, identification=datagram.identification + 1)
    size = len(datagram.content)
    first, later = cut(size, 24)
    for packet in (datagram.piece(first), datagram.piece(later), other.piece(later), other.piece(first)):
        scene.give(packet, **options)
    told = scene.told[-4:]
    return [
        (verdict.verdict, verdict.reason, sum(side is not None for side in (verdict.egress, verdict.ingress)))
        for verdict in (told[0], told[1], told[2])
    ]  # fmt: skip


EVERYTHING = [inbound(4), outbound(4), inbound(6, id="in6"), outbound(6, id="out6")]


@pytest.mark.parametrize(
    ("wanted", "sides", "scene", "layer", "ends"),
    [
        ("deny no-rule", 1, Pieces(), SHUT, {}),
        ("deny no-rule", 1, Pieces(6), SHUT, {}),
        ("deny deny-rule", 1, Pieces(web=[inbound(4, 17, action="deny")]), OPEN, {}),
        ("out-of-scope", 0, Pieces(), OPEN, {"dst": "other"}),
        ("local", 0, Pieces(), OPEN, {"src": "web"}),
        ("exempt", 0, Pieces(), f.udp(67, 68, bytes(56)), {}),
        ("exempt", 0, Pieces(), f.udp(68, 67, bytes(56)), {"src": "0.0.0.0", "dst": "255.255.255.255"}),
        ("exempt", 0, Pieces(6), f.udp(546, 547, bytes(56)), {}),
        ("deny invalid", 1, Pieces(web=EVERYTHING), f.tcp(1, 80, "SF", bytes(44)), {}),
        ("deny midstream", 1, Pieces(web=EVERYTHING), f.tcp(1, 80, "A", bytes(44)), {}),
        ("allow inferred", 1, Pieces(web=EVERYTHING, midstream="infer"), f.tcp(4000, 80, "A", bytes(44)), {}),
        ("deny malformed", 1, Pieces(web=EVERYTHING), f.tcp(1, 80, "S", bytes(44), data_offset=4), {}),
        ("deny malformed", 1, Pieces(web=EVERYTHING), f.tcp(1, 80, "S", bytes(4), data_offset=15), {}),
        ("deny malformed", 1, Pieces(web=EVERYTHING), f.udp(1, 80, bytes(56), length=7), {}),
        ("deny invalid", 1, Pieces(web=EVERYTHING), f.icmp(0, payload=bytes(56)), {}),
        ("allow rule", 1, Pieces(web=EVERYTHING), f.other(50, bytes(64)), {}),
    ],
)
def test_the_firsts_verdict_is_the_others(wanted, sides, scene, layer, ends):
    first, after, before = judged_in_both_orders(scene, scene.datagram(layer, **ends))
    assert (f"{first[0]} {first[1]}" if first[1] else first[0], first[2]) == (wanted, sides)
    assert first == after
    # The second datagram's first comes when the first one's has been judged already.
    again = {"rule": "established", "inferred": "established"}
    assert before == (first[0], again.get(first[1], first[1]), first[2])


def test_first_fragment_without_all_of_the_transport_header_denies_the_datagram():
    scene = Pieces(web=EVERYTHING)
    syn = scene.datagram(f.tcp(1, 80, "S", bytes(44)))
    assert scene.all(syn.pieces("8-64 0-8+")) == ["pending", "deny malformed"]
    assert scene.words() == ["deny malformed"] * 2
    assert scene.engine.live_tuples() == 0


@both_families
def test_first_fragment_that_the_capture_cut_denies_the_datagram(family):
    scene = Pieces(family)
    later, first = scene.datagram().pieces("24-64 0-24+")
    whole = f.ethernet(first)
    scene.give(later)
    assert words(scene.frame(whole[: len(whole) - 20], wire_length=len(whole))) == "deny truncated"
    assert [words(verdict) for _, verdict in scene.engine.resolved()] == ["deny truncated"]


@both_families
def test_lengths_are_by_the_wire_not_by_what_was_captured(family):
    scene = Pieces(family)
    told = []
    for piece in scene.datagram().pieces("24-48+ 0-24+ 48-64 24-48+"):
        whole = f.ethernet(piece)
        head = 14 + (20 if family == 4 else 48) + 8
        told.append(words(scene.frame(whole[:head], wire_length=len(whole))))
    assert told == ["pending", "allow rule", "allow rule", "pending"], "whole after the third, so the last one is new"


@both_families
def test_sides_and_rules_are_the_firsts_and_nothing_is_opened_twice(family):
    scene = Pieces(family, db=[outbound(family, id="db-out")])
    scene.all(scene.datagram(src="db").pieces("24-48+ 0-24+ 48-64"))
    sides = [(v.egress.rule, v.egress.group, v.ingress.rule, v.ingress.instance) for v in scene.told]
    assert sides == [("db-out", "d", "in", "web")] * 3
    assert [v.began for v in scene.told] == [None, "opened", None]
    assert [v.created for v in scene.told] == [(), ("db-out", "in"), ()]
    assert [v.of_first_fragment for v in scene.told] == [True, False, True]


@pytest.mark.parametrize("source", ["web", "client"])
def test_given_up_fragments_stand_on_the_first_side_there_is(source):
    scene = Pieces()
    scene.give(scene.datagram(src=source, dst="db").piece("24-64"))
    scene.finish()
    assert scene.told[0].reason == "fragment"
    sides = scene.told[0].egress, scene.told[0].ingress
    assert [side and side.instance for side in sides] == (["web", None] if source == "web" else [None, "db"])


@pytest.mark.parametrize(("ends", "wanted"), [({"dst": "other"}, "out-of-scope"), ({"src": "web"}, "local")])
def test_fragments_that_no_filter_sees_are_not_denied(ends, wanted):
    scene = Pieces()
    datagram = scene.datagram(**ends)
    scene.all(datagram.pieces("24-64 16-32+ 0-16+"))
    assert scene.words() == [wanted] * 3
    scene.give(replace(datagram, identification=8).piece("24-64"))
    assert scene.finish() == [wanted] * 4


def test_unpeered_vpcs_are_isolated_from_fragments_too():
    scene = Pieces(policy=vpc_policy(peered=False))
    first, after, before = judged_in_both_orders(scene, scene.datagram(src="web", dst="db"))
    assert first == after == before == ("deny", "vpc-isolated", 1)


def test_stateless_groups_judge_fragments_by_their_first():
    """By itself a later fragment has no port to match a rule with."""
    policy = Scene(web=[inbound(4, 17, 80)]).policy
    web, db = policy.security_groups
    scene = Pieces(policy=replace(policy, security_groups=(replace(web, stateful=False), db)))
    assert set(judged_in_both_orders(scene, scene.datagram())) == {("allow", "rule", 1)}
    assert set(judged_in_both_orders(scene, scene.datagram(SHUT, identification=9))) == {("deny", "no-rule", 1)}
    assert scene.engine.live_tuples() == 0


def test_moot_first_makes_the_others_moot():
    scene = Pieces(mode="causal")
    assert scene.give(scene.datagram(f.udp(4000, 81)).whole()) == "deny no-rule"
    answer = scene.datagram(f.udp(81, 4000, bytes(56)), "web", "client")
    assert scene.all(answer.pieces("24-64 0-24+")) == ["pending", "moot opener-denied"]
    assert scene.words()[1:] == ["moot opener-denied"] * 2


# --- What later fragments leave alone

@both_families
def test_later_fragments_neither_open_nor_refresh_a_connection(family):
    scene = Pieces(family, settings=Settings())
    assert scene.give(scene.datagram().piece("0-24+"), at=0) == "allow rule"
    assert scene.give(scene.datagram().piece("24-48+"), at=29) == "allow rule"
    assert scene.engine.live_tuples() == 1
    assert scene.give(scene.datagram().piece("48-64"), at=29.5) == "allow rule"
    # At 30 s its time is over: nothing has refreshed it.
    reply = scene.datagram(f.udp(80, 4000), "web", "client").whole()
    assert scene.give(reply, at=30) == "deny no-rule"


@both_families
def test_duplicate_of_the_first_is_not_judged_again(family):
    scene = Pieces(family)
    assert scene.give(scene.datagram().piece("0-24+"), at=0) == "allow rule"
    assert scene.give(scene.datagram().piece("0-24+"), at=29) == "allow rule"
    assert (scene.told[1].began, scene.told[1].of_first_fragment, scene.told[1].dport) == (None, True, 80)
    assert scene.give(scene.datagram(f.udp(80, 4000), "web", "client").whole(), at=30) == "deny no-rule"


@both_families
def test_spoiling_first_is_not_judged(family):
    scene = Pieces(family)
    scene.all(scene.datagram().pieces("16-64 0-24+"))
    assert scene.engine.live_tuples() == 0


def test_later_fragments_of_a_denied_opener_keep_nothing_moot():
    scene = Pieces(web=EVERYTHING, mode="causal")
    scene.engine.apply(RemoveRule("w", "in"), 0)
    assert scene.give(scene.datagram().piece("0-24+"), at=0) == "deny no-rule"
    assert scene.give(scene.datagram().piece("24-48+"), at=29) == "deny no-rule"
    # 30 s after the opener its key is free: this is an opener of its own.
    assert scene.give(scene.datagram(f.udp(80, 4000), "web", "client").whole(), at=30) == "allow rule"


# --- Bounds of a datagram

@both_families
def test_fragment_that_ends_beyond_the_longest_datagram_is_malformed(family):
    scene = Pieces(family)
    most = 65535 - (20 if family == 4 else 0)
    begins = most // 8 * 8 - 8
    assert scene.give(scene.datagram(identification=1).piece(f"{begins}-{most}")) == "pending"
    assert scene.give(scene.datagram(identification=2).piece(f"{begins}-{most + 1}")) == "deny malformed"
    assert scene.give(scene.datagram(identification=3).piece("65528-65536+")) == "deny malformed"
    assert scene.finish() == ["deny fragment", "deny malformed", "deny malformed"]


def test_ipv4_options_count_against_the_longest_datagram():
    scene = Pieces()
    for size, end, wanted in ((0, 65515, "pending"), (16, 65499, "pending"), (20, 65499, "deny malformed")):
        packet = scene.datagram(identification=size).piece(f"65488-{end}", options=bytes(size))
        assert scene.give(packet) == wanted


def test_ipv6_extension_headers_do_not_count_against_the_longest_datagram():
    scene = Pieces(6)
    for number, (end, wanted) in enumerate(((65535, "pending"), (65536, "deny malformed"))):
        datagram = replace(scene.datagram(identification=number), before=[f.extension(f.HOP_BY_HOP, 64)])
        assert scene.give(datagram.piece(f"65520-{end}")) == wanted


def test_ipv4_options_make_no_other_fragment():
    scene = Pieces()
    datagram = scene.datagram()
    assert scene.give(datagram.piece("24-48+")) == "pending"
    assert scene.give(datagram.piece("24-48+", options=bytes(8))) == "pending"
    assert scene.give(datagram.piece("0-24+", options=bytes(8))) == "allow rule"
    assert scene.words() == ["allow rule"] * 3


def test_ipv4_length_that_is_none_means_the_rest_of_the_frame():
    scene = Pieces()
    assert scene.give(scene.datagram().piece("0-24+", total_length=0)) == "allow rule"
    assert scene.give(scene.datagram().piece("24-64", total_length=0)) == "allow rule"
    assert scene.give(scene.datagram().piece("24-64")) == "pending"


@pytest.mark.parametrize("options", [{"header_words": 4}, {"total_length": 19}, {"total_length": 61}])
def test_ipv4_header_that_contradicts_itself_is_none_of_the_datagram(options):
    scene = Pieces()
    assert scene.give(scene.datagram().piece("24-64", **options)) == "deny malformed"
    assert scene.give(scene.datagram().piece("0-24+")) == "allow rule"
    assert scene.give(scene.datagram().piece("24-64")) == "allow rule"


def test_ipv6_headers_that_overrun_before_the_fragment_header_are_none_of_the_datagram():
    scene = Pieces(6)
    broken = scene.datagram(before=[f.extension(60, claimed_size=800)])
    assert scene.give(broken.piece("24-64")) == "deny malformed"
    assert scene.give(scene.datagram().piece("24-64", payload_length=500)) == "deny malformed"
    assert scene.give(scene.datagram().piece("0-24+")) == "allow rule"
    assert scene.give(scene.datagram().piece("24-64")) == "allow rule"


# --- IPv6 extension headers

def test_ipv6_extension_headers_on_either_side_of_the_fragment_header():
    scene = Pieces(6)
    datagram = scene.datagram(before=[f.extension(0), f.extension(43, 16)], behind=[f.extension(60, 16)])
    assert scene.all(datagram.pieces("48-80 0-24+ 24-48+")) == ["pending", "allow rule", "allow rule"]
    assert (scene.told[0].protocol, scene.told[1].protocol, scene.told[1].dport) == (60, 17, 80)
    assert scene.give(datagram.piece("24-48+")) == "pending", "it was whole"


def test_ipv6_header_behind_the_fragment_header_that_overruns_the_first_denies_the_datagram():
    scene = Pieces(6)
    datagram = scene.datagram(behind=[f.extension(60, 32)])
    assert scene.all(datagram.pieces("24-96 0-24+")) == ["pending", "deny malformed"]
    assert scene.words() == ["deny malformed"] * 2


def test_ipv6_fragment_header_that_was_not_captured_is_no_fragment():
    scene = Pieces(6)
    whole = f.ethernet(scene.datagram().piece("24-64"))
    assert words(scene.frame(whole[: 14 + 40 + 7], wire_length=len(whole))) == "deny truncated"
    assert scene.give(scene.datagram().piece("0-24+")) == "allow rule"


def test_ipv6_atomic_header_in_front_of_a_real_one_changes_nothing():
    scene = Pieces(6)
    datagram = scene.datagram(before=[f.fragment(identification=9)])
    assert scene.all(datagram.pieces("24-64 0-24+")) == ["pending", "allow rule"]
    assert scene.words() == ["allow rule"] * 2


@pytest.mark.parametrize(("inner", "wanted"), [(f.fragment(3, False, 9), "deny fragment"),
                                               (f.fragment(0, True, 9), "allow rule")])  # fmt: skip
def test_ipv6_fragment_of_a_fragment_is_judged_if_it_begins_there(inner, wanted):
    scene = Pieces(6)
    assert scene.all(scene.datagram(behind=[inner]).pieces("24-72 0-24+")) == ["pending", wanted]
    assert scene.words() == [wanted] * 2
    # Of the inner datagram nothing was remembered.
    assert scene.give(scene.datagram(identification=9).piece("24-64")) == "pending"


# --- Changes while fragments come

@both_families
def test_policy_change_leaves_a_verdict_that_was_given(family):
    scene = Pieces(family)
    assert scene.give(scene.datagram().piece("0-24+"), at=0) == "allow rule"
    scene.engine.apply(RemoveRule("w", "in"), S)
    assert scene.give(scene.datagram().piece("24-48+"), at=1) == "allow rule"
    assert scene.told[-1].ingress.rule == "in"
    scene.engine.apply(RemoveInstance("web"), S)
    assert scene.give(scene.datagram().piece("48-64"), at=1) == "allow rule"
    assert scene.told[-1].ingress.instance == "web"


@both_families
def test_pending_ones_meet_the_rules_of_the_firsts_time(family):
    scene = Pieces(family)
    assert scene.give(scene.datagram(SHUT).piece("24-64"), at=0) == "pending"
    scene.engine.apply(AddRule("w", inbound(family, 17, 81, id="later")), S)
    assert scene.give(scene.datagram(SHUT).piece("0-24+"), at=1) == "allow rule"
    assert [verdict.ingress.rule for verdict in scene.told] == ["later", "later"]


def test_given_up_ones_stand_on_the_sides_there_are_by_then():
    scene = Pieces()
    assert scene.give(scene.datagram().piece("24-64")) == "pending"
    scene.engine.apply(RemoveInstance("web"), 0)
    assert scene.finish() == ["out-of-scope"]


# --- Bounds of memory

def test_bounds_are_those_agreed_on():
    bounds = reference_fragments.FRAGMENT_SECONDS, reference_fragments.FRAGMENT_DATAGRAMS
    assert (*bounds, reference_fragments.FRAGMENT_RANGES) == (30, 4096, 65536)


@both_families
def test_datagram_too_many_makes_the_oldest_be_given_up(family, monkeypatch):
    monkeypatch.setattr(reference_fragments, "FRAGMENT_DATAGRAMS", 3)
    scene = Pieces(family)
    numbered = [scene.datagram(identification=n) for n in range(5)]
    assert scene.give(numbered[0].piece("0-24+"), at=0) == "allow rule"
    assert scene.give(numbered[1].piece("24-64"), at=1) == "pending"
    assert scene.give(numbered[2].piece("24-64"), at=2) == "pending"
    assert scene.give(numbered[3].piece("24-64"), at=3) == "pending"  # the first is forgotten
    assert scene.words()[1:] == ["pending"] * 3
    assert scene.give(numbered[0].piece("24-64"), at=4) == "pending"  # it is new; the second is given up
    assert scene.words()[1:] == ["deny fragment", "pending", "pending", "pending"]
    # More of those that are known makes nobody leave; nor does what is whole.
    assert scene.give(numbered[2].piece("16-24+"), at=5) == "pending"
    assert scene.give(numbered[2].piece("0-16+"), at=5) == "allow established"
    assert scene.give(numbered[4].piece("24-64"), at=6) == "pending"
    assert scene.finish()[3:5] == ["deny fragment"] * 2
    assert scene.words().count("deny fragment") == 4


@both_families
def test_fragment_too_many_makes_the_oldest_datagram_be_given_up(family, monkeypatch):
    monkeypatch.setattr(reference_fragments, "FRAGMENT_RANGES", 4)
    scene = Pieces(family)
    one, two = scene.datagram(identification=1), scene.datagram(identification=2)
    scene.all([one.piece("24-32+"), one.piece("24-32+"), two.piece("24-32+"), two.piece("32-40+")])
    assert scene.words() == ["pending"] * 4
    assert scene.give(two.piece("40-64")) == "pending"
    assert scene.words() == ["deny fragment"] * 2 + ["pending"] * 3
    assert scene.give(two.piece("0-24+")) == "allow rule"
    assert scene.words()[2:] == ["allow rule"] * 4


@both_families
def test_duplicates_of_what_is_judged_take_no_room(family, monkeypatch):
    monkeypatch.setattr(reference_fragments, "FRAGMENT_RANGES", 3)
    scene = Pieces(family)
    one, two = scene.datagram(identification=1), scene.datagram(identification=2)
    assert scene.give(two.piece("24-64")) == "pending"
    answers = scene.all(one.pieces("0-24+ 24-32+ 24-32+ 0-24+ 24-32+"))
    assert answers == ["allow rule"] * 5 and scene.words()[0] == "pending"
    assert scene.give(two.piece("0-24+")) == "allow established", "the oldest was its own: it began anew"
    assert scene.words()[0] == "deny fragment"


@both_families
def test_spoiled_datagram_holds_no_fragments(family, monkeypatch):
    monkeypatch.setattr(reference_fragments, "FRAGMENT_RANGES", 3)
    scene = Pieces(family)
    one, two = scene.datagram(identification=1), scene.datagram(identification=2)
    assert scene.all(one.pieces("24-32+ 32-40+ 24-40+ 0-24+ 0-24+"))[2:] == ["deny fragment"] * 3
    assert scene.all(two.pieces("24-32+ 32-40+ 40-64")) == ["pending"] * 3
    assert scene.give(one.piece("0-24+")) == "deny fragment", "it is remembered as spoiled"


def test_no_fragments_make_it_raise_and_each_is_told_of_once(monkeypatch):
    monkeypatch.setattr(reference_fragments, "FRAGMENT_DATAGRAMS", 6)
    monkeypatch.setattr(reference_fragments, "FRAGMENT_RANGES", 20)
    for seed in range(20):
        draw = random.Random(seed)
        scene = Pieces(mode="causal", midstream="infer", web=EVERYTHING, db=EVERYTHING)
        for _ in range(300):
            family = draw.choice((4, 6))
            scene.names = ADDRESSES[family]
            scene.now += draw.choice((0, 0, 1, 7, -1, 40 * draw.randrange(2)))
            layer = draw.choice((OPEN, SHUT, f.tcp(1, 80, "S", bytes(44)), f.icmp(8, payload=bytes(56))))
            datagram = scene.datagram(layer, draw.choice(("client", "db")), identification=draw.randrange(4))
            first = 8 * draw.randrange(9)
            end = first + draw.choice((8, 8, 16, 24, 0, 3, 64, 65000))
            packet = bytearray(datagram.piece(f"{first}-{end}{draw.choice(('', '+', '+'))}"))
            if draw.random() < 0.1:
                packet[draw.randrange(len(packet[:48]))] = draw.randrange(256)
            captured = f.Layer(packet[: draw.choice((len(packet), 60, 30))], 0x0800 if family == 4 else 0x86DD)
            scene.give(captured, wire_length=draw.choice((None, 14 + end)))
        heard = scene.finish()
        assert "pending" not in heard and len(heard) == 300, f"seed {seed}"
        assert not scene.engine._datagrams.take_waiting(), f"seed {seed}"
        assert {"deny fragment", "deny malformed", "allow rule"} <= set(heard), f"seed {seed}"
