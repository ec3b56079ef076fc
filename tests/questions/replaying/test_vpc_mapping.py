"""Packets of several VPCs in one capture: each is judged in the VPC that its VNI, VLAN, interface or file says
(SPEC 2.9, 7.4, 7.5).
"""

from __future__ import annotations

import gc
import json
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import (
    ORDERS,
    enhanced,
    interface,
    obsolete,
    option,
    pcap_head,
    pcap_record,
    section,
    simple,
    tsresol,
)
from command import DEADLINE_SECONDS, sgfast, valid, write_capture, write_policy
from datagrams import Datagram, cut
from effort import some
from frames import ethernet, ipv4, tcp, udp, vlan
from vpcs import (
    APART,
    CHANGES,
    CLIENT,
    DOCUMENT,
    SHARED,
    SYN,
    Line,
    ingress,
    lines,
    mirrored,
    text_of,
    traffic,
    written,
)

from sgfast import ReadOptions, replay
from sgfast.base.errors import AmbiguousAddress
from sgfast.clouds.loading import parse_policy
from sgfast.policy.change_file import parse_changes
from sgfast.report.lines import VerdictLines
from sgfast.traffic.capture import open_capture
from sgfast.traffic.capture.interfaces import InterfaceMarks

# --- Marks


@pytest.mark.parametrize(
    ("frames", "instances"),
    [
        ([mirrored(SYN, 1001), mirrored(SYN, 1004), mirrored(SYN, 1004, seed=1)], ["a-web", "c-db", "c-db"]),
        ([ethernet(vlan(ipv4(CLIENT, SHARED, tcp(1, 80, "S"))))], ["a-web"]),  # frames.vlan says 5, made 12 below
    ],
)
def test_the_same_address_is_told_apart_by_vni_and_vlan(
    frames: list[bytes], instances: list[str], tmp_path: Path
) -> None:
    frames = [frame.replace(b"\x81\0\0\x05", b"\x81\0\0\x0c") for frame in frames]
    _, found, _ = lines(parse_policy(DOCUMENT), write_capture(tmp_path, *frames))
    assert [ingress(line) for line in found] == instances


def test_a_vni_goes_before_a_vlan_and_a_vlan_before_a_file(tmp_path: Path) -> None:
    tag = b"\x81\0\0\x05"
    tagged = ethernet(vlan(ipv4(CLIENT, SHARED, tcp(1, 80, "S"))))
    in_a, in_none = tagged.replace(tag, b"\x81\0\0\x0c"), tagged.replace(tag, b"\x81\0\x0f\xff")
    policy = parse_policy(DOCUMENT)
    (tmp_path / "c").mkdir()
    capture = write_capture(tmp_path, SYN, in_a, in_none, mirrored(in_a, 1004), name="c.pcap")
    assert [ingress(line) for line in lines(policy, capture)[1]] == ["c-db", "a-web", "c-db", "c-db"]
    # The tag outside the tunnel counts where there is none inside.
    outside = mirrored(SYN, 77)
    outside = outside[:12] + b"\x81\0\0\x0c" + outside[12:]
    assert [ingress(line) for line in lines(policy, write_capture(tmp_path, outside, name="c.pcap"))[1]] == ["a-web"]
    elsewhere = write_capture(tmp_path / "c", SYN, name="x.pcap")
    assert [ingress(line) for line in lines(policy, elsewhere)[1]] == ["c-db"]
    both = [write_capture(tmp_path, SYN, name="a-1.pcap"), write_capture(tmp_path, SYN, name="c.pcap")]
    assert [ingress(line) for line in lines(policy, *both)[1]] == ["a-web", "c-db"]


def test_the_innermost_vni_that_is_known_counts(tmp_path: Path) -> None:
    policy = parse_policy(DOCUMENT)
    frames = [
        mirrored(mirrored(SYN, 1004), 1001), mirrored(mirrored(SYN, 1001), 1004), mirrored(mirrored(SYN, 5), 1004),
    ]  # fmt: skip
    _, found, _ = lines(policy, write_capture(tmp_path, *frames))
    assert [ingress(line) for line in found] == ["c-db", "a-web", "c-db"]


def test_peers_are_seen_from_a_vpc_and_others_are_not(tmp_path: Path) -> None:
    inside = ethernet(ipv4(SHARED, "10.1.0.9", tcp(40000, 5432, "S")))
    capture = write_capture(tmp_path, mirrored(inside, 1001), mirrored(inside, 1004), mirrored(inside, 1003))
    _, found, _ = lines(parse_policy(DOCUMENT), capture)
    sides = [[line[side] and line[side]["instance"] for side in ("egress", "ingress")] for line in found]
    assert sides == [["a-web", None], ["c-db", None], ["a-web", None]]  # web may not go out to 5432
    assert [line["reason"] for line in found] == ["no-rule"] * 3


# --- Interfaces


def named(name: bytes, order: str = "<", link_type: int = 1) -> bytes:
    """An interface of nanoseconds."""
    return interface(order, link_type, options=option(2, name, order) + tsresol(9, order))


BY_INTERFACE = """
version: 1
vpcs:
  - {name: a, interface: [eth0, "tüp", "7"]}
  - {name: b, interface: 1}
  - {name: c, interface: [eth1, 0, 7]}
security_groups: [{name: web, rules: [{direction: inbound, protocol: tcp, ports: 80, source: 0.0.0.0/0}]}]
instances:
  - {name: a-web, vpc: a, addresses: [10.0.0.5], security_groups: [web]}
  - {name: b-web, vpc: b, addresses: [10.0.0.5], security_groups: [web]}
  - {name: c-web, vpc: c, addresses: [10.0.0.5], security_groups: [web]}
"""


@ORDERS
def test_the_same_address_is_told_apart_by_interface(order: str, tmp_path: Path) -> None:
    """By name, else by number; each section has interfaces of its own."""
    path = tmp_path / "some.pcapng"
    path.write_bytes(b"".join([
        section(order), interface(order), named(b"eth9", order),
        *(enhanced(SYN, order, number=n) for n in (0, 1, 0)), simple(SYN, order), obsolete(SYN, order, number=1),
        section(order), named(b"eth1", order), named(b"eth0", order),
        *(enhanced(SYN, order, number=n) for n in (0, 1)), simple(SYN, order), obsolete(SYN, order, number=1),
        # One that is described only now, and in the other byte order.
        named("tüp".encode(), order), enhanced(SYN, order, number=2),
        section("<" if order == ">" else ">"), named(b"eth0\0", "<" if order == ">" else ">"),
        enhanced(SYN, "<" if order == ">" else ">"),
    ]))  # fmt: skip
    _, found, _ = lines(parse_policy(BY_INTERFACE), path)
    assert [ingress(line) for line in found] == [
        "c-web", "b-web", "c-web", "c-web", "b-web", "c-web", "a-web", "c-web", "a-web", "a-web", "a-web",
    ]  # fmt: skip


def test_what_interfaces_are_called_is_looked_up_whole(tmp_path: Path) -> None:
    """Names that begin alike, are long, empty, or no UTF-8; many of them."""
    seed = 3
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    letters = [b"a", b"b", b"\xc3\xbc", b"0", b" "]
    names = {b"".join(rng.choice(letters, size=int(rng.integers(1, 5)))) for _ in range(300)} | {b"x" * 255}
    known = sorted(names)[::2]
    marks: dict[str | int, int] = {name.decode(): n for n, name in enumerate(known)}
    marks |= {number: 1000 + number for number in range(0, 400, 3)}
    described = [*sorted(names), b"", b"\xff\xfe", b"x" * 254, b"x" * 256, b"x" * 65535]
    path = tmp_path / "some.pcapng"
    path.write_bytes(
        section() + b"".join(map(named, described)) + b"".join(enhanced(b"", number=n) for n in range(len(described)))
    )
    with open_capture(path, vpc=5000, interfaces=InterfaceMarks(marks)) as reader:
        batch = reader.next_batch()
        assert batch is not None
        found = batch.vpcs
    by_number = [1000 + n if n % 3 == 0 else 4999 for n in range(len(described))]
    assert found == [
        known.index(name) if name in known else by_number[n] for n, name in enumerate(described)
    ]


def test_an_interface_goes_before_a_file_and_a_vlan_before_an_interface(tmp_path: Path) -> None:
    text = DOCUMENT.replace("name: c,", "name: c, interface: eth0,")
    in_a = ethernet(vlan(ipv4(CLIENT, SHARED, tcp(1, 80, "S")))).replace(b"\x81\0\0\x05", b"\x81\0\0\x0c")
    path = tmp_path / "a-1.pcap"
    path.write_bytes(
        section() + named(b"eth0") + named(b"eth1")
        + enhanced(SYN) + enhanced(SYN, number=1) + enhanced(in_a) + enhanced(mirrored(SYN, 1001))
        + enhanced(mirrored(SYN, 5)) + enhanced(mirrored(SYN, 1004), number=1)
    )  # fmt: skip
    _, found, _ = lines(parse_policy(text), path)
    assert [ingress(line) for line in found] == ["c-db", "a-web", "a-web", "a-web", "c-db", "c-db"]


def test_captures_that_say_no_interface_are_warned_of_where_nothing_else_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = APART.replace('vni: 1001, vlan: 12, file: "a-*.pcap"', "interface: eth0")
    text = text.replace("vni: [1002, 1003], vlan: [13, 14]", "interface: eth1")
    policy = write_policy(tmp_path, text.replace("vni: 1004, ", ""))
    captures = [write_capture(tmp_path, SYN, name=name) for name in ("some\n.pcap", "other.pcap", "c.pcap")]
    run = sgfast(capsys, "replay", policy, *captures)
    assert run.status == 0
    assert run.err == (
        f"sgfast: warning: {tmp_path}/some\\n.pcap and 1 more capture: no record of the interfaces by which the "
        "policy maps packets to VPCs; only pcapng has one\n"
    )
    assert sgfast(capsys, "replay", policy, captures[2]).err == ""
    # VNIs may tell.
    policy = write_policy(tmp_path, APART.replace("vlan: 12", "interface: eth0"))
    assert sgfast(capsys, "replay", policy, captures[0], "--decap", "vxlan").err == ""


def test_equal_packets_of_two_vpcs_are_no_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "some.pcapng"
    path.write_bytes(
        section() + named(b"eth0") + named(b"eth1") + named(b"eth0")
        + enhanced(SYN) + enhanced(SYN, number=1) + enhanced(SYN, number=2) + enhanced(SYN, number=1)
    )  # fmt: skip
    result, found, _ = lines(parse_policy(BY_INTERFACE), path, reading=ReadOptions(dedup=True))
    assert [ingress(line) for line in found] == ["a-web", "c-web"]
    assert result.left_out is not None and result.left_out.duplicates == 2


# --- Packets without a mark


def test_a_packet_of_no_vpc_needs_addresses_that_are_nobodys_twice(tmp_path: Path) -> None:
    capture = write_capture(tmp_path, mirrored(SYN, 1001), SYN)
    with pytest.raises(AmbiguousAddress, match=r"10\.0\.0\.5/32 of instance"):
        lines(parse_policy(DOCUMENT), capture)
    _, found, _ = lines(parse_policy(APART), capture)
    assert [ingress(line) for line in found] == ["a-web", "a-web"]


def test_overlaps_are_no_error_as_long_as_every_packet_has_a_mark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = write_policy(tmp_path, DOCUMENT)
    good = write_capture(tmp_path, mirrored(SYN, 1001), mirrored(SYN, 1004))
    run = sgfast(capsys, "replay", policy, good, "--decap", "vxlan", "--json")
    assert run.status == 0 and run.err == ""
    assert valid("summary", json.loads(run.out))["verdicts"]["allow"] == 1
    bad = write_capture(tmp_path, mirrored(SYN, 1001), mirrored(SYN, 9), name="bad.pcap")
    run = sgfast(capsys, "replay", policy, bad, "--decap", "vxlan")
    assert run.status == 2 and "overlap: " in run.one_line()
    assert "no address is owned in one VPC only, and match no vni, vlan, interface or file of a VPC" in run.err
    for arguments in (("replay", policy, bad, "--engine", "reference"), ("diff", policy, policy, bad)):
        assert sgfast(capsys, *arguments, "--decap", "vxlan").err == run.err


def test_with_a_vpc_named_nothing_is_mapped(tmp_path: Path) -> None:
    capture = write_capture(tmp_path, mirrored(SYN, 1001), mirrored(SYN, 1004), SYN)
    for vpc, instance in (("a", "a-web"), ("c", "c-db")):
        _, found, _ = lines(parse_policy(DOCUMENT), capture, vpc=vpc)
        assert [ingress(line) for line in found] == [instance] * 3


# --- As if each VPC had a capture of its own


@pytest.mark.parametrize("seed", range(some(2, 6)))
@pytest.mark.parametrize("mode, midstream", [("causal", "infer"), ("verbatim", "deny"), ("causal", "allow")])
def test_a_mixture_is_judged_as_each_vpc_alone(seed: int, mode: str, midstream: str, tmp_path: Path) -> None:
    print(f"seed {seed}")
    packets = sorted(traffic(np.random.default_rng(seed), 1500), key=lambda packet: packet[0])
    policy, options = parse_policy(DOCUMENT), {"mode": mode, "midstream": midstream}
    whose = {1001: "a", 1002: "b", 1003: "b", 1004: "c"}
    together, found, flows = lines(policy, written(tmp_path / "mixed.pcap", packets), **options)
    expected: dict[int, Line] = {}
    sums: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    alone_flows = []
    for vpc in "abc":
        # The first packet of all begins the time of each: those of others are none of its business, but come.
        own = [(n, packet) for n, packet in enumerate(packets) if whose[packet[1]] == vpc or n == 0]
        marker = ethernet(ipv4("203.0.113.1", "203.0.113.2", udp(1, 1)))
        capture = [packet if whose[packet[1]] == vpc else (packet[0], packet[1], marker) for _, packet in own]
        result, alone, ended = lines(policy, written(tmp_path / f"{vpc}-alone.pcap", capture), vpc=vpc, **options)
        for (n, packet), line in zip(own, alone, strict=True):
            if whose[packet[1]] == vpc:
                expected[n] = {**line, "packet": n + 1}
        foreign = int(whose[packets[0][1]] != vpc)
        sums.update({word: count for word, count in result.verdicts.items()})
        sums["out-of-scope"] -= foreign
        sums.update({f"reason {word}": count for word, count in result.reasons.items()})
        sums.update({f"connections {word}": count for word, count in result.connections.items()})
        rules.update({hit.rule.id: hit.packets for hit in result.rules})
        alone_flows += ended
    assert found == [expected[n] for n in range(len(packets))]
    assert together.packets == len(packets)
    for word, count in together.verdicts.items():
        assert sums[word] == count, word
    for word, count in together.reasons.items():
        assert sums[f"reason {word}"] == count, word
    for word, count in together.connections.items():
        assert sums[f"connections {word}"] == count, word
    assert {hit.rule.id: hit.packets for hit in together.rules} == dict(rules)
    assert sorted(map(text_of, flows)) == sorted(map(text_of, alone_flows))
    assert together.verdicts["allow"] > 50 and together.verdicts["deny"] > 50


@pytest.mark.parametrize("seed", range(4))
def test_merged_captures_are_judged_as_one_whose_packets_bear_vnis(seed: int, tmp_path: Path) -> None:
    """Merging captures keeps the capture and the interface from which each packet came."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    packets = [(ms, vni, frame) for ms, (_, vni, frame) in enumerate(traffic(rng, 1500))]
    document = DOCUMENT.replace('vlan: 12, file: "a-*.pcap"', 'interface: eth1, file: "a-*"')
    document = document.replace("vlan: [13, 14]", 'interface: [br-b, 3], file: "*/b/*"')
    policy = parse_policy(document.replace('file: [c.pcap, "*/c/*.pcap"]', 'interface: tap, file: "c.*"'))
    _, expected, flows = lines(policy, written(tmp_path / "whole.pcap", packets))

    # By capture: which VNI's packets it may have on which interface (None: on any, they bear no mark).
    folder = tmp_path / "several"
    (folder / "b").mkdir(parents=True)
    places: dict[str, dict[int, int | None]] = {
        "x.pcapng": {1004: 0, 1001: 1, 1003: 2, 1002: 3},
        "y.pcapng": {1001: 2, 1002: 1, 1004: 0},
        "a-2.pcapng": {1001: 0, 1004: 1},
        "a-1.pcap": {1001: None},
        "c.pcap": {1004: None},
        "b/z.pcap": {1002: None, 1003: None},
    }
    interfaces = {
        "x.pcapng": [b"tap", b"eth1", b"br-b", b"eth7"], "y.pcapng": [b"tap", b"br-b", b"eth1"],
        "a-2.pcapng": [b"eth7", b"tap"],
    }  # fmt: skip
    content = {
        name: section() + b"".join(map(named, interfaces[name])) if name in interfaces else pcap_head()
        for name in places
    }
    for ms, vni, frame in packets:
        name = str(rng.choice([name for name, own in places.items() if vni in own]))
        number = places[name][vni]
        time = (1000 + ms // 1000, ms % 1000 * 1000)
        content[name] += (
            pcap_record(frame, time=time) if number is None
            else enhanced(frame, ticks=(time[0] * 10**6 + time[1]) * 1000, number=number)
        )  # fmt: skip
    for name, data in content.items():
        (folder / name).write_bytes(data)
    paths = [folder / name for name in places]
    for captures, merge in ((paths, True), (paths[::-1], True), ([folder, folder / "b"], True)):
        _, found, ended = lines(policy, *captures, reading=ReadOptions(merge=merge))
        # Connections are told of by VPC, a batch at a time.
        assert found == expected and sorted(map(text_of, ended)) == sorted(map(text_of, flows))


def test_a_directory_is_mapped_by_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "rotated"
    folder.mkdir()
    for n, name in enumerate(("a-1.pcap", "c.pcap", "a-2.pcap")):
        write_capture(folder, SYN, name=name, first_second=1000 + n)
    _, found, _ = lines(parse_policy(DOCUMENT), folder)
    assert [ingress(line) for line in found] == ["a-web", "c-db", "a-web"]
    # A file that two VPCs claim is reported before anything is read.
    run = sgfast(
        capsys, "replay", write_policy(tmp_path, DOCUMENT.replace("c.pcap,", '"*-2.pcap",')), folder, "--verdicts",
        tmp_path / "verdicts",
    )  # fmt: skip
    assert run.status == 2 and "a-2.pcap: the 'file' patterns of VPC 'a' and of VPC" in run.one_line()
    assert not (tmp_path / "verdicts").exists()


def test_changes_reach_every_vpc(tmp_path: Path) -> None:
    packets = sorted(traffic(np.random.default_rng(7), 1500), key=lambda packet: packet[0])
    capture = written(tmp_path / "mixed.pcap", packets)
    policy = parse_policy(DOCUMENT)
    result, found, _ = lines(policy, capture, changes=parse_changes(CHANGES))
    assert len(result.changes) == 3 and result.changes[0].disconnected > 0
    cut = [line for line in found if line["reason"] == "disconnected"]
    assert {ingress(line) or line["egress"]["instance"] for line in cut} >= {"a-web"}
    assert len(result.rules) == 4 and result.rules[-1].packets >= 0
    assert sum(done.disconnected for done in result.changes) == result.connections["disconnected"]


def test_time_begins_with_the_first_packet_of_all(tmp_path: Path) -> None:
    """Connections may be older than the capture for ten minutes from the first packet, whosever it is (SPEC 9.3)."""
    data = ethernet(ipv4(SHARED, CLIENT, tcp(80, 40000, "A")))
    packets = [(0, 1004, SYN), (599_000, 1001, data), (601_000, 1002, data.replace(b"\x9c\x40", b"\x9c\x41"))]
    late = [(0, 1004, SYN), (601_000, 1001, data)]
    assert lines(parse_policy(DOCUMENT), written(tmp_path / "x.pcap", packets))[1][1]["reason"] == "inferred"
    assert lines(parse_policy(DOCUMENT), written(tmp_path / "y.pcap", late))[1][1]["reason"] == "midstream"


# --- The reference model


def with_fragments(rng: np.random.Generator, packets: int) -> list[tuple[int, int, bytes]]:
    """As ``traffic``, and datagrams in pieces of which some are missing or late; VPCs number them alike."""
    made = traffic(rng, packets)
    end = max(ms for ms, _, _ in made)
    for _ in range(packets // 10):
        ends = (CLIENT, SHARED) if rng.random() < 0.5 else (SHARED, "198.51.100.53")
        datagram = Datagram(*ends, udp(int(rng.integers(9, 13)), int(rng.choice([53, 80])), bytes(60)), 9)
        pieces = datagram.pieces(" ".join(cut(68, *rng.choice([16, 32, 48], size=2).tolist())))
        vni, begin = int(rng.choice([1001, 1003, 1004])), int(rng.integers(end))
        for n in rng.permutation(len(pieces)):
            if rng.random() < 0.9:
                begin += int(rng.choice([0, 1, 50, 31_000], p=[0.5, 0.3, 0.15, 0.05]))
                made.append((begin, vni, ethernet(pieces[n])))
    return sorted(made, key=lambda packet: packet[0])


def marked_anyhow(path: Path, packets: list[tuple[int, int, bytes]], rng: np.random.Generator) -> Path:
    """Packets of VNIs, mirrored or on interfaces; some times go backwards, some packets have no mark that is known."""
    content = [section(), *map(named, (b"a", b"b", b"c", b"d"))]
    for ms, vni, frame in packets:
        ms -= int(rng.choice([0, 20, 90_000], p=[0.97, 0.02, 0.01]))
        ticks = (10**6 + ms) * 10**6
        draw = rng.random()
        if draw < 0.02:
            content.append(enhanced(frame, ticks=ticks, number=3))
        elif draw < 0.5:
            content.append(enhanced(frame, ticks=ticks, number={1001: 0, 1002: 1, 1003: 1, 1004: 2}[vni]))
        else:
            content.append(enhanced(mirrored(frame, vni, seed=ms), ticks=ticks, number=3))
    path.write_bytes(b"".join(content))
    return path


MARKED_ANYHOW = APART.replace("vlan: 12", "interface: a").replace("vlan: [13, 14]", "interface: b")
MARKED_ANYHOW = MARKED_ANYHOW.replace("name: c, vni", "name: c, interface: c, vni")
LATER = CHANGES + "  - {at: 7, add_peering: [a, c]}\n"


@pytest.mark.parametrize("seed", range(some(3, 8)))
def test_the_reference_model_judges_a_mapped_capture_alike(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    capture = marked_anyhow(tmp_path / "some.pcapng", with_fragments(rng, 1200), rng)
    policy, told = parse_policy(MARKED_ANYHOW), []
    options: dict[str, Any] = {
        "mode": ("causal", "verbatim")[seed % 2], "midstream": ("infer", "deny", "allow")[seed % 3],
        "changes": parse_changes(LATER) if seed % 4 < 2 else None, "reading": ReadOptions(decap=("vxlan", "geneve")),
    }  # fmt: skip
    for engine in ("fast", "reference"):
        packets: list[bytes] = []
        result = replay(policy, capture, engine=engine, packets=VerdictLines(packets.append), **options)
        alone = replay(policy, capture, engine=engine, **options)
        assert (alone.verdicts, alone.reasons) == (result.verdicts, result.reasons)
        told.append((
            packets, result.packets, result.bytes, result.verdicts, result.reasons, result.connections, result.rules,
            result.first_time_ns, result.last_time_ns, [(done.time_ns, done.disconnected) for done in result.changes],
            [warning for warning in result.warnings if "with a timestamp" in warning],
        ))  # fmt: skip
    fast, reference = told
    assert [json.loads(line) for line in b"".join(fast[0]).splitlines()] == [
        json.loads(line) for line in b"".join(reference[0]).splitlines()
    ]
    assert fast[1:] == reference[1:]
    assert fast[3]["allow"] > 50 and fast[4]["fragment"] > 5 and len(fast[-1]) == 2


# --- Several threads


@pytest.mark.parametrize("seed", range(some(1, 4)))
def test_any_number_of_threads_says_what_one_says(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    # More than a batch.
    capture = marked_anyhow(tmp_path / "some.pcapng", with_fragments(rng, 9000), rng)
    policy, told = parse_policy(MARKED_ANYHOW), []
    changes = parse_changes(LATER) if seed % 2 else None
    for jobs in (1, 2, 5):
        result, packets, flows = lines(policy, capture, changes=changes, jobs=jobs)
        told.append((packets, flows, replace(result, elapsed_seconds=0.0)))
        without = replay(policy, capture, changes=changes, jobs=jobs, reading=ReadOptions(decap=("vxlan", "geneve")))
        assert replace(without, elapsed_seconds=0.0) == told[0][2]
    assert told[1:] == told[:1] * 2
    assert result.packets > 9000 and result.verdicts["allow"] > 500


def test_an_error_in_the_middle_ends_a_replay_of_several_threads(tmp_path: Path) -> None:
    captures = [
        write_capture(tmp_path, mirrored(SYN, 1001), mirrored(SYN, 1004), name="good.pcap"),
        write_capture(tmp_path, mirrored(SYN, 1001), SYN, name="bad.pcap"),
    ]
    threads: set[threading.Thread] = set()

    def note(packets: int, bytes_read: int) -> None:
        threads.update(threading.enumerate())

    before = set(threading.enumerate())
    with pytest.raises(AmbiguousAddress):
        lines(parse_policy(DOCUMENT), *captures, jobs=3, progress=note)
    gc.collect()
    assert threads - before
    for thread in threads - before:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
