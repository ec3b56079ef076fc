"""Packets of several VPCs in one capture: each is judged in the VPC that its VNI, VLAN or file says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import sgfast, valid, write_capture, write_policy
from frames import ethernet, ipv4, tcp, udp, vlan
from test_capture_writers import pcap_head, pcap_record
from tunnels import geneve, vxlan

from sgfast import Reading, ReplayResult, replay
from sgfast.errors import AmbiguousAddress, CaptureError, PolicyError
from sgfast.policy.change_file import parse_changes
from sgfast.policy.document import parse_policy
from sgfast.policy.model import Policy
from sgfast.report.lines import ConnectionLines, VerdictLines

#: Three VPCs, of which a and c use the same addresses, and b is peered with a.
DOCUMENT = """
version: 1
vpcs:
  - {name: a, vni: 1001, vlan: 12, file: "a-*.pcap"}
  - {name: b, vni: [1002, 1003], vlan: [13, 14]}
  - {name: c, vni: 1004, file: [c.pcap, "*/c/*.pcap"]}
peerings: [[a, b]]
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 80, source: 0.0.0.0/0}
      - {direction: outbound, protocol: udp, ports: 53, destination: 0.0.0.0/0}
  - name: db
    rules:
      - {direction: inbound, protocol: tcp, ports: 5432, source: web}
instances:
  - {name: a-web, vpc: a, addresses: [10.0.0.5], security_groups: [web]}
  - {name: b-db, vpc: b, addresses: [10.1.0.9], security_groups: [db]}
  - {name: c-db, vpc: c, addresses: [10.0.0.5], security_groups: [db]}
"""
APART = DOCUMENT.replace("vpc: c, addresses: [10.0.0.5]", "vpc: c, addresses: [10.2.0.5]")
CLIENT, SHARED = "198.51.100.7", "10.0.0.5"
SYN = ethernet(ipv4(CLIENT, SHARED, tcp(40000, 80, "S")))

Line = dict[str, Any]


def mirrored(frame: bytes, vni: int, *, seed: int = 0) -> bytes:
    return ethernet(ipv4("192.0.2.1", "192.0.2.2", geneve(frame, vni=vni) if seed % 2 else vxlan(frame, vni)))


def lines(policy: Policy, *captures: Path, **options: Any) -> tuple[ReplayResult, list[Line], list[Line]]:
    packets: list[bytes] = []
    flows: list[bytes] = []
    options.setdefault("reading", Reading(decap=("vxlan", "geneve")))
    result = replay(
        policy, captures, packets=VerdictLines(packets.append), flows=ConnectionLines(flows.append), **options
    )
    return result, *([json.loads(line) for line in b"".join(some).splitlines()] for some in (packets, flows))


def ingress(line: Line) -> str | None:
    return line["ingress"]["instance"] if line["ingress"] else None


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
    assert run.status == 2 and "are the same addresses" in run.one_line()


def test_vnis_without_decap_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, capture = write_policy(tmp_path, APART), write_capture(tmp_path, mirrored(SYN, 1001))
    run = sgfast(capsys, "replay", policy, capture)
    assert run.status == 0
    assert run.err == (
        "sgfast: warning: the policy says which VPC a VNI is of, but tunnels stay on: take them off (--decap)\n"
    )


def test_with_a_vpc_named_nothing_is_mapped(tmp_path: Path) -> None:
    capture = write_capture(tmp_path, mirrored(SYN, 1001), mirrored(SYN, 1004), SYN)
    for vpc, instance in (("a", "a-web"), ("c", "c-db")):
        _, found, _ = lines(parse_policy(DOCUMENT), capture, vpc=vpc)
        assert [ingress(line) for line in found] == [instance] * 3


# --- As if each VPC had a capture of its own


CHANGES = """
changes:
  - {at: 2, remove_rule: {group: web, rule: web/inbound/1}}
  - {at: 4, add_rule: {group: web, rule: {direction: inbound, protocol: tcp, ports: "80,81", source: 0.0.0.0/0}}}
  - {at: 6, remove_peering: [a, b]}
"""


def traffic(rng: np.random.Generator, packets: int) -> list[tuple[int, int, bytes]]:
    """(Time in milliseconds, VNI, frame) of a few connections, again and again, in VPCs with the same addresses."""
    made, time = [], 0
    for _ in range(packets):
        time += int(rng.choice([0, 1, 5, 40]))
        if rng.random() < 0.02:
            time -= int(rng.integers(0, 20))
        client, server = f"198.51.100.{rng.integers(4)}", str(rng.choice([SHARED, SHARED, "10.1.0.9"]))
        ports = (int(rng.integers(40000, 40020)), int(rng.choice([80, 80, 80, 81, 5432])))
        ends = (client, server)
        if rng.random() < 0.4:
            ends, ports = ends[::-1], ports[::-1]
        flags = str(rng.choice(["S", "S", "SA", "A", "A", "FA", "R"]))
        body = udp(*ports) if rng.random() < 0.2 else tcp(*ports, flags)
        made.append((max(time, 0), int(rng.choice([1001, 1002, 1003, 1004])), ethernet(ipv4(*ends, body))))
    return made


def written(path: Path, packets: list[tuple[int, int, bytes]]) -> Path:
    """What each VPC's packets are, mirrored by its VNI."""
    records = [
        pcap_record(mirrored(frame, vni, seed=ms), time=(1000 + ms // 1000, ms % 1000 * 1000))
        for ms, vni, frame in packets
    ]
    path.write_bytes(pcap_head() + b"".join(records))
    return path


@pytest.mark.parametrize("seed", range(6))
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

    def key(flow: Line) -> str:
        return json.dumps(flow, sort_keys=True)

    assert sorted(map(key, flows)) == sorted(map(key, alone_flows))
    assert together.verdicts["allow"] > 50 and together.verdicts["deny"] > 50


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
    """What may be older than the capture is so for ten minutes from the first packet, whosever it is (SPEC 9.3)."""
    data = ethernet(ipv4(SHARED, CLIENT, tcp(80, 40000, "A")))
    packets = [(0, 1004, SYN), (599_000, 1001, data), (601_000, 1002, data.replace(b"\x9c\x40", b"\x9c\x41"))]
    late = [(0, 1004, SYN), (601_000, 1001, data)]
    assert lines(parse_policy(DOCUMENT), written(tmp_path / "x.pcap", packets))[1][1]["reason"] == "inferred"
    assert lines(parse_policy(DOCUMENT), written(tmp_path / "y.pcap", late))[1][1]["reason"] == "midstream"


# --- Errors


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("vni: 1004", "vni: 1002", "vpcs[2].vni: 1002 is that of VPC 'b' already, at line 5"),
        ("vni: [1002, 1003]", "vni: [1002, 1002]", "vpcs[1].vni[1]: 1002 is that of VPC 'b' already"),
        ("vlan: [13, 14]", "vlan: 12", "vpcs[1].vlan: 12 is that of VPC 'a' already"),
        ("file: [c.pcap,", 'file: ["a-*.pcap",', "vpcs[2].file[0]: 'a-*.pcap' is that of VPC 'a' already"),
        ("vni: 1004", "vni: 16777216", "vpcs[2].vni: must be a whole number from 0 to 16777215, not 16777216"),
        ("vni: 1004", "vni: -1", "vpcs[2].vni: must be a whole number from 0 to 16777215, not -1"),
        ("vni: 1004", "vni: [a]", "vpcs[2].vni[0]: must be a whole number"),
        ("vni: 1004", "vni: {}", "vpcs[2].vni: must be a whole number"),
        ("vni: 1004", "vni: null", "vpcs[2].vni: must be a whole number"),
        ("vlan: 12", "vlan: 0", "vpcs[0].vlan: must be a whole number from 1 to 4094, not 0"),
        ("vlan: 12", "vlan: 4095", "vpcs[0].vlan: must be a whole number from 1 to 4094, not 4095"),
        ('file: "a-*.pcap"', 'file: ""', "vpcs[0].file: must be a capture's name"),
        ('file: "a-*.pcap"', "file: 7", "vpcs[0].file: must be a capture's name"),
        ("vlan: 12", "interface: eth0", "unknown key 'interface'"),
    ],
)
def test_marks_that_cannot_be_are_one_line(old: str, new: str, message: str) -> None:
    assert old in DOCUMENT
    with pytest.raises(PolicyError) as error:
        parse_policy(DOCUMENT.replace(old, new))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_marks_at_their_limits_are_marks() -> None:
    policy = parse_policy(
        "{version: 1, vpcs: [{name: a, vni: [0, 16777215], vlan: [1, 4094], file: x}, {name: b, vni: []}]}"
    )
    assert policy.vpcs[0].vnis == (0, 16777215) and policy.vpcs[0].vlans == (1, 4094)
    assert policy.vpcs[0].files == ("x",) and not policy.vpcs[1].is_mapped and policy.is_mapped


def test_a_file_that_two_vpcs_claim_is_told_before_a_damaged_one_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = write_policy(tmp_path, DOCUMENT.replace("c.pcap,", '"*-1.pcap",'))
    damaged = write_capture(tmp_path, SYN, name="a-2.pcap")
    damaged.write_bytes(damaged.read_bytes()[:-5])
    claimed = write_capture(tmp_path, SYN, name="a-1.pcap")
    outcome = sgfast(capsys, "replay", policy, damaged, claimed)
    assert outcome.status == 2 and "belong to VPC 'a' and to VPC 'c'" in outcome.one_line() and outcome.out == ""


def test_a_file_that_two_vpcs_claim_is_refused(tmp_path: Path) -> None:
    policy = parse_policy(DOCUMENT.replace("c.pcap,", '"*-1.pcap",'))
    capture = write_capture(tmp_path, SYN, name="a-1.pcap")
    with pytest.raises(CaptureError, match="belong to VPC 'a' and to VPC 'c'"):
        lines(policy, capture)


def test_what_does_not_deal_packets_out_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, capture = write_policy(tmp_path, DOCUMENT), write_capture(tmp_path, mirrored(SYN, 1001))
    for arguments in (
        ("replay", policy, capture, "--engine", "reference"),
        ("replay", policy, capture, "--snapshot", tmp_path / "state"),
        ("diff", policy, policy, capture),
    ):
        run = sgfast(capsys, *arguments, "--decap", "vxlan")
        assert run.status == 2 and "name the VPC of all packets (--vpc)" in run.one_line()
        assert sgfast(capsys, *arguments, "--decap", "vxlan", "--vpc", "a").status == 0


def test_a_change_after_which_a_vpc_cannot_tell_its_peers_apart_is_refused_before_any_packet(tmp_path: Path) -> None:
    changes = parse_changes("changes: [{at: 5, add_peering: [b, c]}]")
    with pytest.raises(AmbiguousAddress, match="VPC 'b' cannot tell two peers of it apart"):
        lines(parse_policy(DOCUMENT), write_capture(tmp_path, mirrored(SYN, 1001)), changes=changes)


def test_packets_that_come_late_are_told_once_and_keep_their_own_times(tmp_path: Path) -> None:
    """Though they are late only in respect of another VPC's packet (SPEC 9.1)."""
    packets = [(5000, 1001, SYN), (4000, 1004, SYN), (90_000, 1001, SYN), (20_000, 1004, SYN)]
    result, found, _ = lines(parse_policy(DOCUMENT), written(tmp_path / "x.pcap", packets))
    assert [line["time"] for line in found] == [
        "1005.000000000", "1004.000000000", "1090.000000000", "1020.000000000",
    ]  # fmt: skip
    assert (result.first_time_ns, result.last_time_ns) == (1004 * 10**9, 1090 * 10**9)
    assert [warning for warning in result.warnings if "timestamps" in warning] == [
        "timestamps of 1 packet up to 60 s before the one before: taken as simultaneous",
        "timestamps of 1 packet more than 60 s before the one before: time went on from there without a gap",
    ]


def test_a_suggested_policy_keeps_the_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = write_policy(tmp_path, APART)
    answer = ethernet(ipv4(SHARED, CLIENT, tcp(80, 40000, "SA")))
    capture = write_capture(tmp_path, mirrored(SYN, 1001), mirrored(answer, 1001))
    out = tmp_path / "suggested.yaml"
    run = sgfast(capsys, "suggest", capture, "--instances", policy, "--decap", "vxlan", "-o", out)
    assert run.status == 0, run.err
    assert parse_policy(out.read_text()).vpcs == parse_policy(APART).vpcs


@pytest.mark.parametrize("most, fails", [(1, True), (2, True), (3, False), (4, False)])
def test_packets_of_too_many_vpcs_are_refused(
    most: int, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has tables of its own, and a policy may map any number."""
    monkeypatch.setattr("sgfast.replaying.by_vpc.MOST_ENGINES", most)
    capture = write_capture(tmp_path, *(mirrored(SYN, vni) for vni in (1001, 1002, 1003, 1004, 1001)))
    if fails:
        with pytest.raises(PolicyError, match=f"packets of more than {most} VPCs"):
            lines(parse_policy(DOCUMENT), capture)
    else:
        assert lines(parse_policy(DOCUMENT), capture)[0].packets == 5


def test_a_vpc_that_cannot_tell_its_peers_apart_is_refused_before_any_packet(tmp_path: Path) -> None:
    policy = parse_policy(DOCUMENT.replace("[[a, b]]", "[[a, b], [b, c]]"))
    with pytest.raises(AmbiguousAddress, match="VPC 'b' cannot tell two peers of it apart"):
        lines(policy, write_capture(tmp_path, name="empty.pcap"))


def test_a_capture_without_packets_has_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, capture = write_policy(tmp_path, DOCUMENT), write_capture(tmp_path)
    run = sgfast(capsys, "replay", policy, capture, "--decap", "auto", "--json")
    assert run.status == 0
    assert valid("summary", json.loads(run.out))["verdicts"]["deny"] == 0
    assert "0 packets" in sgfast(capsys, "replay", policy, capture, "--decap", "auto").out


def test_a_vpc_whose_packets_come_after_a_change_is_judged_by_what_changed(tmp_path: Path) -> None:
    changes = parse_changes(
        "changes:\n"
        "  - {at: 1, remove_rule: {group: db, rule: db/inbound/1}}\n"
        "  - {at: 2, add_rule: {group: db, rule: {direction: inbound, protocol: tcp, ports: 80, source: 0.0.0.0/0}}}\n"
    )
    packets = [(0, 1001, SYN), (3000, 1004, SYN), (3000, 1001, SYN)]
    result, found, _ = lines(parse_policy(DOCUMENT), written(tmp_path / "x.pcap", packets), changes=changes)
    assert [(ingress(line), line["ingress"]["rule"]) for line in found] == [
        ("a-web", "web/inbound/1"), ("c-db", "db/inbound/2"), ("a-web", "web/inbound/1"),
    ]  # fmt: skip
    hits = {hit.rule.id: hit.packets for hit in result.rules}
    assert hits["db/inbound/2"] == 1 and hits["db/inbound/1"] == 0 and hits["web/inbound/1"] == 2
