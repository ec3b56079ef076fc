"""Tunnels, peeled: every kind by hand, cut at every byte and mutated against a slow model, and tshark on real ones
(SPEC 9.12).
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from itertools import product
from pathlib import Path

import pytest
from captures import pcap_head, pcap_record
from command import POLICY, sgfast, valid, write_capture, write_policy
from corpus import MANIFEST, ROOT, is_readable, rows
from frames import (
    LINK_ETHERNET,
    LINK_IPV4,
    LINK_IPV6,
    LINK_RAW,
    ethernet,
    extension,
    fragment,
    ipv4,
    ipv6,
    mpls,
    pppoe,
    sll,
    sll2,
    tcp,
    udp,
    vlan,
)
from mutation import mutated
from slow_decap import decapsulate
from tunnels import (
    erspan,
    geneve,
    gre,
    gtp,
    ipip,
    labelled,
    mpls_in_ip,
    mpls_in_udp,
    pppoe_session,
    pptp,
    six_in_four,
    vxlan,
)

from sgfast import FrameBatch, ReadOptions, replay
from sgfast.base.errors import CaptureError
from sgfast.clouds.loading import parse_policy
from sgfast.reference.link import find_ip
from sgfast.reference.packets import number, parse_frame
from sgfast.traffic.capture import open_capture
from sgfast.traffic.preprocess.decap import KINDS, Decapsulation, TunnelSample

OUTER = ("192.0.2.1", "192.0.2.2")
OUTER6 = ("2001:db8:ff::1", "2001:db8:ff::2")

PACKET = ipv4("198.51.100.7", "10.0.0.5", tcp(40000, 80, "S", b"hello"))
PACKET6 = ipv6("2001:db8::7", "2001:db8::5", tcp(40000, 80, "S", b"hello"))
FRAME = ethernet(PACKET)
#: The same, of a host whose address begins with four zero bits, as most do: what a control word begins with, too.
TAGGED = ethernet(vlan(PACKET6))

#: Name: kind, the frame, what is inside, its link type.
TUNNELS: dict[str, tuple[str, bytes, bytes, int]] = {
    "vxlan": ("vxlan", ethernet(ipv4(*OUTER, vxlan(FRAME))), FRAME, LINK_ETHERNET),
    "vxlan on Linux's old port": ("vxlan", ethernet(ipv4(*OUTER, vxlan(FRAME, port=8472))), FRAME, LINK_ETHERNET),
    "vxlan over IPv6, tags inside": ("vxlan", ethernet(ipv6(*OUTER6, vxlan(TAGGED))), TAGGED, LINK_ETHERNET),
    "vxlan with flags that mean nothing": ("vxlan", sll(ipv4(*OUTER, vxlan(FRAME, flags=0))), FRAME, LINK_ETHERNET),
    "vxlan below tags": ("vxlan", ethernet(vlan(vlan(ipv4(*OUTER, vxlan(FRAME))))), FRAME, LINK_ETHERNET),
    "vxlan below labels": ("vxlan", ethernet(mpls(ipv4(*OUTER, vxlan(FRAME)), 3)), FRAME, LINK_ETHERNET),
    "vxlan below PPPoE": ("vxlan", ethernet(pppoe(ipv4(*OUTER, vxlan(FRAME)))), FRAME, LINK_ETHERNET),
    "vxlan behind IP options": (
        "vxlan", ethernet(ipv4(*OUTER, vxlan(FRAME), options=bytes(8))), FRAME, LINK_ETHERNET
    ),
    "vxlan behind extension headers": (
        "vxlan", ethernet(ipv6(*OUTER6, vxlan(FRAME), extensions=[extension(0, 16), extension(60)])), FRAME,
        LINK_ETHERNET,
    ),
    "vxlan, cooked": ("vxlan", sll2(ipv4(*OUTER, vxlan(FRAME))), FRAME, LINK_ETHERNET),
    "geneve": ("geneve", ethernet(ipv4(*OUTER, geneve(FRAME))), FRAME, LINK_ETHERNET),
    "geneve with options": ("geneve", ethernet(ipv4(*OUTER, geneve(FRAME, options=bytes(252)))), FRAME, LINK_ETHERNET),
    "geneve of IPv4": ("geneve", ethernet(ipv4(*OUTER, geneve(PACKET, 0x0800))), PACKET, LINK_IPV4),
    "geneve of IPv6": ("geneve", ethernet(ipv6(*OUTER6, geneve(PACKET6, 0x86DD))), PACKET6, LINK_IPV6),
    "gre of IPv4": ("gre", ethernet(ipv4(*OUTER, gre(PACKET))), PACKET, LINK_IPV4),
    "gre of IPv6": ("gre", ethernet(ipv6(*OUTER6, gre(PACKET6))), PACKET6, LINK_IPV6),
    "gre of Ethernet": ("gre", ethernet(ipv4(*OUTER, gre(FRAME, 0x6558))), FRAME, LINK_ETHERNET),
    "gre with everything": (
        "gre", ethernet(ipv4(*OUTER, gre(PACKET, checksum=True, key=1, sequence=2, routing=[bytes(4), bytes(12)]))),
        PACKET, LINK_IPV4,
    ),
    "gre with a key": ("gre", ethernet(ipv4(*OUTER, gre(FRAME, 0x6558, key=7))), FRAME, LINK_ETHERNET),
    "gre of labels": ("gre", ethernet(ipv4(*OUTER, gre(labelled(PACKET, 2), 0x8847))), PACKET, LINK_IPV4),
    "gre of PPP": ("gre", ethernet(ipv4(*OUTER, gre(b"\xff\x03\0\x21" + PACKET, 0x880B))), PACKET, LINK_IPV4),
    "pptp": ("gre", ethernet(ipv4(*OUTER, pptp(b"\xff\x03\0\x21" + PACKET))), PACKET, LINK_IPV4),
    "pptp, compressed fields": (
        "gre", ethernet(ipv4(*OUTER, pptp(b"\x57" + PACKET6, acknowledgment=1))), PACKET6, LINK_IPV6
    ),
    "ipip": ("ipip", ethernet(ipv4(*OUTER, ipip(PACKET))), PACKET, LINK_IPV4),
    "IPv4 in IPv6": ("ipip", ethernet(ipv6(*OUTER6, ipip(PACKET))), PACKET, LINK_IPV4),
    "6in4": ("6in4", ethernet(ipv4(*OUTER, six_in_four(PACKET6))), PACKET6, LINK_IPV6),
    "IPv6 in IPv6": ("6in4", ethernet(ipv6(*OUTER6, six_in_four(PACKET6))), PACKET6, LINK_IPV6),
    "erspan I": ("erspan", ethernet(ipv4(*OUTER, erspan(FRAME, 1))), FRAME, LINK_ETHERNET),
    "erspan II": ("erspan", ethernet(ipv4(*OUTER, erspan(FRAME, 2))), FRAME, LINK_ETHERNET),
    "erspan III": ("erspan", ethernet(ipv4(*OUTER, erspan(FRAME, 3))), FRAME, LINK_ETHERNET),
    "erspan III of a platform": (
        "erspan", ethernet(ipv4(*OUTER, erspan(FRAME, 3, subheader=True))), FRAME, LINK_ETHERNET
    ),
    "erspan III of IP": ("erspan", ethernet(ipv4(*OUTER, erspan(PACKET, 3, frame_type=2))), PACKET, LINK_RAW),
    "gtp-u": ("gtp-u", ethernet(ipv4(*OUTER, gtp(PACKET))), PACKET, LINK_IPV4),
    "gtp-u of IPv6": ("gtp-u", ethernet(ipv6(*OUTER6, gtp(PACKET6, sequence=1))), PACKET6, LINK_IPV6),
    "gtp-u with extensions": (
        "gtp-u", ethernet(ipv4(*OUTER, gtp(PACKET, extensions=[bytes(2), bytes(6), bytes(1018)]))), PACKET, LINK_IPV4
    ),
    "mpls in IP": ("mpls", ethernet(ipv4(*OUTER, mpls_in_ip(PACKET))), PACKET, LINK_IPV4),
    "mpls in UDP": ("mpls", ethernet(ipv4(*OUTER, mpls_in_udp(PACKET6))), PACKET6, LINK_IPV6),
    "pseudowire": ("mpls", ethernet(labelled(FRAME, 2), 0x8847), FRAME, LINK_ETHERNET),
    "pseudowire with control word": ("mpls", ethernet(labelled(bytes(4) + TAGGED), 0x8847), TAGGED, LINK_ETHERNET),
    "pseudowire in IP": ("mpls", ethernet(ipv4(*OUTER, mpls_in_ip(bytes(4) + FRAME))), FRAME, LINK_ETHERNET),
    "pppoe of a pseudowire": ("pppoe", ethernet(pppoe_session(b"\x02\x81" + labelled(FRAME))), FRAME, LINK_ETHERNET),
}

LINK_TYPES = {"vxlan with flags that mean nothing": 113, "vxlan, cooked": 276}


def peel(
    frame: bytes, kinds: object = KINDS, wire: int | None = None, link_type: int = LINK_ETHERNET
) -> tuple[tuple[bytes, int, int], dict[str, int]]:
    stage = Decapsulation(kinds)  # type: ignore[arg-type]
    batch = FrameBatch.from_frames([frame], [0], None if wire is None else [wire], link_type)
    stage.apply(batch)
    ((_, *found),) = batch
    return tuple(found), stage.counts  # type: ignore[return-value]


def expected(frame: bytes, wire: int, link_type: int, kinds: set[str]) -> tuple[tuple[bytes, int, int], dict[str, int]]:
    *found, peeled = decapsulate(frame, wire, link_type, kinds)
    return tuple(found), dict(Counter(peeled))  # type: ignore[return-value]


# --- Each kind


@pytest.mark.parametrize("name", TUNNELS)
def test_the_packet_inside_is_what_comes_out_without_padding_if_its_kind_was_asked_for(name: str) -> None:
    kind, frame, inside, link_type = TUNNELS[name]
    outside = LINK_TYPES.get(name, LINK_ETHERNET)
    also = {"mpls"} if "pseudowire" in name else set()
    for kinds in (set(KINDS), {kind} | also):
        assert peel(frame, kinds, link_type=outside) == ((inside, len(inside), link_type), {kind: 1})
    for kinds in (set(KINDS) - {kind}, set()):
        assert peel(frame, kinds, link_type=outside) == ((frame, len(frame), outside), {})
    # Labels and PPPoE say nothing of lengths; the IP header inside does (SPEC 3.4).
    padding = b"\x99" * 60 if kind == "pppoe" or name in ("pseudowire", "pseudowire with control word") else b""
    found, counts = peel(frame + b"\x99" * 60, link_type=outside)
    assert (found, counts) == ((inside + padding, len(inside) + len(padding), link_type), {kind: 1})


@pytest.mark.parametrize("name", TUNNELS)
def test_a_frame_cut_at_any_byte_reads_nothing_behind_it(name: str) -> None:
    _, frame, inside, _ = TUNNELS[name]
    outside = LINK_TYPES.get(name, LINK_ETHERNET)
    for kinds in (set(KINDS), {TUNNELS[name][0]}):
        for length, wire in product(range(len(frame) + 1), (len(frame), None)):
            wire = length if wire is None else wire
            found = peel(frame[:length], kinds, wire, outside)
            assert found == expected(frame[:length], wire, outside, kinds), (length, wire)
    # The remaining inner packet still has its length on the wire when the capture was cut short.
    short = len(frame) - 5
    found, _ = peel(frame[:short], KINDS, len(frame), outside)
    assert (found[0], found[1]) == (inside[:-5], len(inside))


@pytest.mark.parametrize("seed", range(4))
def test_mutated_frames_are_what_the_slow_model_makes_of_them(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    pool = [(frame, LINK_TYPES.get(name, LINK_ETHERNET)) for name, (_, frame, _, _) in TUNNELS.items()]
    pool += [(frame, LINK_ETHERNET) for frame in nested(5)]
    peeled: Counter[str] = Counter()
    for _ in range(6000):
        data, link_type = rng.choice(pool)
        data = mutated(rng, data, rng.choice(pool)[0]) if rng.random() < 0.8 else data
        wire = len(data) + rng.choice([0, 0, 0, 1, 40, 70000])
        kinds = set(KINDS) if rng.random() < 0.7 else {kind for kind in KINDS if rng.random() < 0.5}
        found, counts = peel(data, kinds, wire, link_type)
        assert (found, counts) == expected(data, wire, link_type, kinds), (data.hex(), wire, kinds)
        assert len(found[0]) <= found[1]
        peeled.update(counts)
    assert all(peeled[kind] > 20 for kind in KINDS), peeled


# --- Depth


def nested(depth: int) -> list[bytes]:
    """Frames with so many tunnels, of every kind in turn."""
    frames = []
    for turn in range(3):
        inside = FRAME
        for n in range(depth):
            match (turn + n) % 3:
                case 0:
                    inside = ethernet(ipv4(*OUTER, vxlan(inside)))
                case 1:
                    inside = ethernet(ipv4(*OUTER, erspan(inside, 2)))
                case _:
                    inside = ethernet(ipv6(*OUTER6, geneve(inside)))
        frames.append(inside)
    return frames


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6, 40])
def test_no_more_than_four_tunnels_are_taken_off(depth: int) -> None:
    for frame in nested(depth):
        stage = Decapsulation(KINDS)
        batch = FrameBatch.from_frames([frame, FRAME], [0, 1])
        stage.apply(batch)
        first, second = [data for _, data, _, _ in batch]
        assert sum(stage.counts.values()) == min(depth, 4)
        assert stage.too_deep == (depth > 4)
        assert second == FRAME
        assert (first == FRAME) == (depth <= 4)


def test_a_tunnel_that_was_not_asked_for_ends_the_peeling() -> None:
    gre_inside = ethernet(ipv4(*OUTER, gre(PACKET)))
    frame = ethernet(ipv4(*OUTER, vxlan(gre_inside)))
    assert peel(frame, {"vxlan"}) == ((gre_inside, len(gre_inside), LINK_ETHERNET), {"vxlan": 1})
    assert peel(frame, {"gre"}) == ((frame, len(frame), LINK_ETHERNET), {})


# --- Tunnels that are none, and the packets in broken ones


@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        ethernet(mpls(PACKET)),
        ethernet(pppoe(PACKET)),
        ethernet(ipv4(*OUTER, udp(4789, 50000, bytes(8) + FRAME))),  # from that port, not to it
        ethernet(ipv4(*OUTER, udp(1, 4790, bytes(8) + FRAME))),
        ethernet(ipv4(*OUTER, tcp(1, 4789, "A", bytes(8) + FRAME))),
        ethernet(ipv4(*OUTER, udp(1, 4789, bytes(7)))),
        ethernet(ipv4(*OUTER, vxlan(b""))),  # nothing inside
        ethernet(ipv4(*OUTER, geneve(FRAME, version=1))),
        ethernet(ipv4(*OUTER, geneve(FRAME, 0x0806))),
        ethernet(ipv4(*OUTER, udp(1, 6081, b"\x3f\0\x65\x58" + bytes(4) + FRAME))),  # options past the end
        ethernet(ipv4(*OUTER, gtp(PACKET, message=1))),
        ethernet(ipv4(*OUTER, gtp(PACKET, flags=0x20))),  # GTP'
        ethernet(ipv4(*OUTER, gtp(PACKET, flags=0x50))),  # version 2
        ethernet(ipv4(*OUTER, gtp(b"\x7f" + PACKET))),
        ethernet(ipv4(*OUTER, gtp(b"\0" * 40, extensions=[]))),
        ethernet(ipv4(*OUTER, udp(1, 2152, b"\x34\xff\0\x30" + bytes(4) + b"\0\0\0\x85" + bytes(44)))),  # length 0
        ethernet(ipv4(*OUTER, gre(PACKET, version=2))),
        ethernet(ipv4(*OUTER, gre(PACKET, version=1))),
        ethernet(ipv4(*OUTER, gre(bytes(28), 0x0806))),
        ethernet(ipv4(*OUTER, gre(b"", 0))),  # a keepalive
        ethernet(ipv4(*OUTER, pptp(b""))),  # a mere acknowledgment
        ethernet(ipv4(*OUTER, pptp(b"\xc0\x21" + bytes(20)))),  # LCP
        ethernet(ipv4(*OUTER, pptp(b"\0\xfd" + bytes(20)))),  # compressed
        ethernet(ipv4(*OUTER, gre(bytes(8) + FRAME, 0x88BE, sequence=1))),  # ERSPAN of no version
        ethernet(ipv4(*OUTER, erspan(FRAME, 3, frame_type=1))),
        ethernet(ipv4(*OUTER, ipip(b""))),
        ethernet(labelled(bytes(40)), 0x8847),
        ethernet(pppoe_session(b"\xc0\x21" + bytes(20))),
    ],
)
def test_what_is_no_tunnel_or_holds_nothing_known_stays(frame: bytes) -> None:
    assert peel(frame) == ((frame, len(frame), LINK_ETHERNET), {})
    assert expected(frame, len(frame), LINK_ETHERNET, set(KINDS)) == ((frame, len(frame), LINK_ETHERNET), {})


def test_an_outer_packet_that_contradicts_itself_is_judged_itself() -> None:
    for frame in (
        ethernet(ipv4(*OUTER, vxlan(FRAME), header_words=4)),
        ethernet(ipv4(*OUTER, vxlan(FRAME), total_length=1000)),
        ethernet(ipv4(*OUTER, udp(1, 4789, bytes(8) + FRAME, length=500))),
        ethernet(ipv4(*OUTER, udp(1, 4789, bytes(8) + FRAME, length=7))),
        ethernet(ipv6(*OUTER6, vxlan(FRAME), payload_length=1000)),
        ethernet(ipv6(*OUTER6, vxlan(FRAME), extensions=[extension(0, 8, claimed_size=2048)])),
    ):
        assert peel(frame) == ((frame, len(frame), LINK_ETHERNET), {})


def test_a_sound_tunnel_with_a_broken_packet_gives_the_broken_packet() -> None:
    short = ethernet(ipv4("198.51.100.7", "10.0.0.5", tcp(1, 80, "S"), total_length=15))
    assert peel(ethernet(ipv4(*OUTER, vxlan(short))))[0] == (short, len(short), LINK_ETHERNET)
    assert peel(ethernet(ipv4(*OUTER, ipip(PACKET6))))[0] == (PACKET6, len(PACKET6), LINK_IPV4)
    assert peel(ethernet(ipv4(*OUTER, ipip(b"\x65"))))[0] == (b"\x65", 1, LINK_IPV4)


def test_lengths_inside_end_where_the_udp_length_does() -> None:
    body = bytes(8) + FRAME + b"\x99" * 100
    frame = ethernet(ipv4(*OUTER, udp(1, 4789, body, length=8 + 8 + len(FRAME))))
    assert peel(frame)[0] == (FRAME, len(FRAME), LINK_ETHERNET)
    frame = ethernet(ipv4(*OUTER, gtp(PACKET + b"\x99" * 9, length=len(PACKET))))
    assert peel(frame)[0] == (PACKET, len(PACKET), LINK_IPV4)


def test_segmentation_offload_leaves_the_rest_of_the_frame() -> None:
    """An IPv4 total length of 0 (SPEC 3.4), outside and inside."""
    frame = ethernet(ipv4(*OUTER, vxlan(FRAME), total_length=0))
    assert peel(frame)[0] == (FRAME, len(FRAME), LINK_ETHERNET)


def test_only_a_first_fragment_has_a_tunnel_header() -> None:
    whole = vxlan(ethernet(ipv4("198.51.100.7", "10.0.0.5", tcp(40000, 80, "S", bytes(1000)))))
    first = ethernet(ipv4(*OUTER, whole[:512], protocol=17, more_fragments=True))
    later = ethernet(ipv4(*OUTER, whole[512:], protocol=17, fragment_offset=64))
    data, wire, link_type = peel(first)[0]
    # The rest of the packet is elsewhere: as if the capture had cut it.
    assert (data, wire, link_type) == (whole[16:512], len(whole) - 16, LINK_ETHERNET)
    assert peel(later) == ((later, len(later), LINK_ETHERNET), {})

    whole = gre(ipv6("2001:db8::7", "2001:db8::5", udp(1, 80, bytes(1000))))
    first = ethernet(ipv6(*OUTER6, whole[:512], protocol=47, extensions=[fragment(0, True)]))
    later = ethernet(ipv6(*OUTER6, whole[512:], protocol=47, extensions=[fragment(64, False)]))
    assert peel(first)[0] == (whole[4:512], len(whole) - 4, LINK_IPV6)
    assert peel(later) == ((later, len(later), LINK_ETHERNET), {})


@pytest.mark.parametrize(
    "wrap", [vxlan, geneve, lambda f: gre(f, 0x6558), lambda f: erspan(f, 3, truncated=True), erspan]
)
def test_what_a_mirror_cut_counts_as_cut_by_the_capture(wrap: Callable[[bytes], bytes]) -> None:
    for inside in (ipv4(*OUTER, tcp(1, 80, "A", bytes(1000))), ipv6(*OUTER6, udp(1, 2, bytes(999)))):
        big = ethernet(vlan(inside))
        for length in (100, 58, 40):
            claimed = len(big) if length >= 18 + 40 or inside[0] == 0x45 else 18 + 40
            assert peel(ethernet(ipv4(*OUTER, wrap(big[:length]))))[0] == (big[:length], claimed, LINK_ETHERNET)
        # Not even its IP header is whole.
        assert peel(ethernet(ipv4(*OUTER, wrap(big[:20]))))[0][1] == 18 + (20 if inside[0] == 0x45 else 40)


@pytest.mark.parametrize("name", TUNNELS)
def test_a_tunnel_that_stays_on_is_noticed_by_what_is_inside(name: str) -> None:
    kind, frame, *_ = TUNNELS[name]
    batch = FrameBatch.from_frames([FRAME, frame], [0, 0], link_type=LINK_TYPES.get(name, LINK_ETHERNET))
    for removed in ((), set(KINDS) - {kind, "mpls"}, {kind}):
        sample = TunnelSample(removed)
        sample.look(batch)
        # A VXLAN header without its I flag may be anything.
        is_seen = kind not in removed and "flags that mean nothing" not in name
        assert (sample.looked_at, sample.counts) == (2, {kind: 1} if is_seen else {})


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'vlxan' is not a kind of tunnel: use vxlan, geneve, gre"):
        Decapsulation(["vxlan", "vlxan"])


# --- Replays


INSIDE = [
    ethernet(ipv4("198.51.100.7", "10.0.0.5", tcp(40000, 80, "S"))),
    ethernet(ipv4("10.0.0.5", "198.51.100.7", tcp(80, 40000, "SA"))),
    ethernet(ipv4("198.51.100.7", "10.0.0.5", tcp(40000, 80, "A"))),
    ethernet(ipv4("198.51.100.7", "10.0.0.5", tcp(40001, 22, "S"))),
    ethernet(ipv4("203.0.113.1", "198.51.100.7", udp(1, 2))),
    ethernet(bytes(28), 0x0806),
]
MIRRORED = [
    ethernet(ipv4(*OUTER, vxlan(INSIDE[0]))),
    ethernet(ipv6(*OUTER6, geneve(INSIDE[1], options=bytes(8)))),
    ethernet(ipv4(*OUTER, gre(INSIDE[2], 0x6558))),
    ethernet(ipv4(*OUTER, erspan(INSIDE[3], 2))),
    ethernet(ipv4(*OUTER, vxlan(ethernet(ipv4(*OUTER, ipip(INSIDE[4][14:])))))),
    ethernet(ipv4(*OUTER, vxlan(INSIDE[5]))),
]


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_mirrored_capture_is_judged_as_the_one_it_mirrors(tmp_path: Path, engine: str) -> None:
    plain = write_capture(tmp_path, *INSIDE, name="plain.pcap")
    mirrored = write_capture(tmp_path, *MIRRORED, name="mirrored.pcap")
    policy = parse_policy(POLICY)
    one = replay(policy, plain, engine=engine)  # type: ignore[arg-type]
    other = replay(policy, mirrored, engine=engine, reading=ReadOptions(decap=KINDS))  # type: ignore[arg-type]
    for what in ("packets", "verdicts", "reasons", "connections", "rules"):
        left, right = getattr(one, what), getattr(other, what)
        if what != "rules":
            assert left == right
        else:
            assert [(hit.rule.id, hit.connections, hit.packets) for hit in left] == [
                (hit.rule.id, hit.connections, hit.packets) for hit in right
            ]
    assert other.decapsulated == {"vxlan": 3, "geneve": 1, "gre": 1, "ipip": 1, "erspan": 1}
    assert one.decapsulated is None
    # An inner packet's length is its own; that of the raw one inside IP has no link header.
    assert other.bytes == one.bytes - 14
    outside = replay(policy, mirrored)
    assert outside.verdicts["out-of-scope"] == len(MIRRORED)


# --- tshark


UNKNOWN = {"icmp", "icmpv6", "teredo", "l2tp", "ayiya", "gue", "esp", "nsh", "otv", "capwap", "ipcomp", "lisp", "ah"}


def innermost(protocols: str, addresses: dict[str, list[str]]) -> tuple[str, str] | None:
    """Find source and destination of the last IP header among tshark's layers before a tunnel that is not taken off."""
    found, seen = None, Counter[str]()
    for layer in protocols.split(":"):
        if layer in UNKNOWN:
            break
        if layer in ("ip", "ipv6"):
            at = seen[layer]
            found = addresses[f"{layer}.src"][at], addresses[f"{layer}.dst"][at]
            seen[layer] += 1
    return found


def why_not(frame: bytes, data: bytes, link_type: int, protocols: str, theirs: tuple[str, str] | None) -> str:
    """Why tshark may see another packet than ``data``; empty if it may not."""
    packet = parse_frame(data, len(data), link_type)
    if data != frame and isinstance(packet, str):
        return "no IP inside: tshark's last is the one outside"
    if theirs is None or "" in theirs:
        return "tshark names no IP header below labels"
    if isinstance(packet, str):
        return "a tag that is not peeled (SPEC 3.1)"
    if packet.problem == "malformed":
        return "contradicts itself: that is the verdict"
    if packet.protocol == 17 and packet.dport not in (2152, 4789, 6081, 6635, 8472):
        return "UDP to another port: GPE, FOU, or from a tunnel's port"
    if packet.protocol == 47 and number(packet.payload, 2, 2) not in (0x0800, 0x86DD, 0x6558, 0x8847, 0x880B):
        return "GRE of something else: NHRP, WCCP, Cisco metadata, 802.11"
    return ""


def ours(data: bytes, link_type: int) -> tuple[str, str] | None:
    found = find_ip(data, link_type)
    if isinstance(found, str):
        return None
    at, version = found
    size, first = (4, 12) if version == 4 else (16, 8)
    if len(data) < at + first + 2 * size:
        return None     # its tunnel cut it
    ends = [data[at + first + n * size : at + first + (n + 1) * size] for n in (0, 1)]
    return str(ip_address(ends[0])), str(ip_address(ends[1]))


@pytest.mark.skipif(not MANIFEST.exists(), reason="no corpus here (set SGFAST_CORPUS)")
@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark here")
def test_real_tunnels_end_where_tshark_says(tmp_path: Path) -> None:
    """One capture of all Ethernet frames of files with tunnels, so that tshark starts once."""
    words = ("vxlan", "geneve", "gre", "ipip", "6in4", "gtp-u", "mpls", "pppoe")
    frames: list[bytes] = []
    for row in rows():
        features = {word.split(":")[0] for word in row["features(packet counts, outer headers)"].split()}
        path = ROOT / row["file"]
        if not is_readable(row) or not features & set(words) or path.stat().st_size > 2_000_000:
            continue
        try:
            with open_capture(path) as reader:
                while (batch := reader.next_batch()) is not None:
                    # tshark makes something of cut packets, too; whole ones tell enough.
                    frames += [data for _, data, wire, link in batch if link == LINK_ETHERNET and wire == len(data)]
        except CaptureError:
            continue
    together = tmp_path / "together.pcap"
    together.write_bytes(pcap_head() + b"".join(pcap_record(frame) for frame in frames))
    fields = ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst")
    run = subprocess.run(
        ["tshark", "-r", together, "-n", "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE",
         "-d", "udp.port==8472,vxlan", "-T", "fields", "-e", "frame.protocols",
         *(word for field in fields for word in ("-e", field))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    batch = FrameBatch.from_frames(frames, [0] * len(frames))
    stage = Decapsulation(KINDS)
    stage.apply(batch)
    lines = run.stdout.splitlines()
    assert len(lines) == len(frames)
    compared, differing = 0, []
    allowed: Counter[str] = Counter()
    for n, (line, (_, data, _, link_type)) in enumerate(zip(lines, batch, strict=True)):
        protocols, *columns = line.split("\t")
        theirs = innermost(protocols, {f: c.split(",") for f, c in zip(fields, columns, strict=True)})
        found = ours(data, link_type)
        compared += data != frames[n]
        if found != theirs:
            why = why_not(frames[n], data, link_type, protocols, theirs)
            allowed[why] += 1
            if why == "":
                differing.append((n + 1, protocols, theirs, found))
    print(stage.counts, compared, allowed)
    assert differing == []
    assert compared > 1000 and len(stage.counts) >= 7


# --- The command


def test_decap_takes_a_list_and_tells_what_it_took_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *MIRRORED)
    told = {}
    for given in ("auto", "gre, vxlan", "erspan"):
        run = sgfast(capsys, "replay", policy, capture, "--decap", given, "--json")
        assert run.status == 0, run.err
        told[given] = valid("summary", json.loads(run.out))
    assert told["auto"]["decapsulated"] == {"vxlan": 3, "geneve": 1, "gre": 1, "ipip": 1, "erspan": 1}
    assert told["gre, vxlan"]["decapsulated"] == {"vxlan": 3, "gre": 1}
    assert told["erspan"]["decapsulated"] == {"erspan": 1}
    assert told["auto"]["verdicts"]["allow"] == 3 and told["auto"]["verdicts"]["deny"] == 1
    assert told["erspan"]["verdicts"]["deny"] == 1 and told["erspan"]["verdicts"]["out-of-scope"] == 5
    assert "decapsulated" not in json.loads(sgfast(capsys, "replay", policy, capture, "--json").out)
    text = sgfast(capsys, "replay", policy, capture, "--decap", "auto").out
    assert "Tunnels       taken off packets: vxlan 3, geneve 1, gre 1, ipip 1, erspan 1\n" in text
    assert "Tunnels" not in sgfast(capsys, "replay", policy, capture).out


def test_what_is_written_is_the_packet_that_was_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, capture, written = write_policy(tmp_path), write_capture(tmp_path, *MIRRORED), tmp_path / "judged.pcapng"
    options = ("--decap", "auto", "--filter", "not port 22", "--write", written)
    assert sgfast(capsys, "replay", policy, capture, *options).status == 0
    with open_capture(written) as reader:
        batch = reader.next_batch()
        assert [(data, link) for _, data, _, link in batch] == [
            *((frame, LINK_ETHERNET) for frame in INSIDE[:3]), (INSIDE[4][14:], LINK_IPV4), (INSIDE[5], LINK_ETHERNET),
        ]  # fmt: skip


def test_packets_in_too_many_tunnels_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *nested(5), FRAME)
    run = sgfast(capsys, "replay", policy, capture, "--decap", "auto", "--json")
    assert run.err == (
        "sgfast: warning: 3 packets in more than 4 tunnels: only the outer 4 were removed\n"
    )
    assert json.loads(run.out)["verdicts"]["out-of-scope"] == 3


@pytest.mark.parametrize("given", ["vlxan", "", "vxlan,", "VXLAN", "auto;gre", "\x1b[31m"])
def test_a_word_that_is_no_tunnel_is_one_line(given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = sgfast(capsys, "replay", write_policy(tmp_path), write_capture(tmp_path, FRAME), "--decap", given)
    assert run.status == 2 and run.out == ""
    assert "is not one of vxlan, geneve, gre, ipip, 6in4, erspan, gtp-u, mpls, pppoe, auto" in run.one_line()
