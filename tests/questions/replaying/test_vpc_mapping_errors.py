"""Packets of several VPCs in one capture: what is refused, and what is told (SPEC 7.4, 7.5)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import sgfast, valid, write_capture, write_policy
from frames import ethernet, ipv4, tcp
from vpcs import (
    APART,
    CLIENT,
    DOCUMENT,
    SHARED,
    SYN,
    ingress,
    lines,
    mirrored,
    written,
)

from sgfast import ReadOptions, replay
from sgfast.base.errors import AmbiguousAddress, CaptureError, PolicyError
from sgfast.clouds.loading import parse_policy
from sgfast.policy.change_file import parse_changes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("vni: 1004", "vni: 1002", "vpcs[2].vni: 1002 is already used by VPC 'b' at line 5"),
        ("vni: [1002, 1003]", "vni: [1002, 1002]", "vpcs[1].vni[1]: 1002 is already used by VPC 'b'"),
        ("vlan: [13, 14]", "vlan: 12", "vpcs[1].vlan: 12 is already used by VPC 'a'"),
        ("file: [c.pcap,", 'file: ["a-*.pcap",', "vpcs[2].file[0]: 'a-*.pcap' is already used by VPC 'a'"),
        ("vni: 1004", "vni: 16777216", "vpcs[2].vni: must be a whole number from 0 to 16777215, not 16777216"),
        ("vni: 1004", "vni: -1", "vpcs[2].vni: must be a whole number from 0 to 16777215, not -1"),
        ("vni: 1004", "vni: [a]", "vpcs[2].vni[0]: must be a whole number"),
        ("vni: 1004", "vni: {}", "vpcs[2].vni: must be a whole number"),
        ("vni: 1004", "vni: null", "vpcs[2].vni: must be a whole number"),
        ("vlan: 12", "vlan: 0", "vpcs[0].vlan: must be a whole number from 1 to 4094, not 0"),
        ("vlan: 12", "vlan: 4095", "vpcs[0].vlan: must be a whole number from 1 to 4094, not 4095"),
        ('file: "a-*.pcap"', 'file: ""', "vpcs[0].file: must be a capture's name"),
        ('file: "a-*.pcap"', "file: 7", "vpcs[0].file: must be a capture's name"),
        ("vlan: 12", "interface: 1.5", "vpcs[0].interface: must be an interface's name, up to 255 characters"),
        ("vlan: 12", 'interface: ""', "vpcs[0].interface: must be an interface's name, up to 255 characters"),
        ("vlan: 12", 'interface: "a\\nb"', "or its number from 0 to 1048575, not 'a\\nb'"),
        ("vlan: 12", f"interface: {'x' * 256}", "vpcs[0].interface: must be an interface's name, up to 255 characters"),
        ("vlan: 12", "interface: -1", "vpcs[0].interface: must be a whole number from 0 to 1048575, not -1"),
        ("vlan: 12", "interface: 1048576", "vpcs[0].interface: must be a whole number from 0 to 1048575"),
        ("vlan: 12", "interface: [eth0, eth0]", "vpcs[0].interface[1]: 'eth0' is already used by VPC 'a'"),
        ("vlan: 12", "interface: [0, 0]", "vpcs[0].interface[1]: 0 is already used by VPC 'a'"),
        ("vlan: 12", "port: 5", "unknown key 'port'"),
    ],
)
def test_marks_that_cannot_be_are_one_line(old: str, new: str, message: str) -> None:
    """SPEC 2.9."""
    assert old in DOCUMENT
    with pytest.raises(PolicyError) as error:
        parse_policy(DOCUMENT.replace(old, new))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_marks_at_their_limits_are_marks() -> None:
    """SPEC 2.9."""
    policy = parse_policy(
        "{version: 1, vpcs: [{name: a, vni: [0, 16777215], vlan: [1, 4094], file: x, "
        f"interface: [0, 1048575, '0', {'x' * 255}]}}, {{name: b, vni: []}}]}}"
    )
    assert policy.vpcs[0].vnis == (0, 16777215) and policy.vpcs[0].vlans == (1, 4094)
    assert policy.vpcs[0].interfaces == (0, 1048575, "0", "x" * 255)
    assert policy.vpcs[0].files == ("x",) and not policy.vpcs[1].is_mapped and policy.is_mapped


def test_a_file_that_two_vpcs_claim_is_told_before_a_damaged_one_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = write_policy(tmp_path, DOCUMENT.replace("c.pcap,", '"*-1.pcap",'))
    damaged = write_capture(tmp_path, SYN, name="a-2.pcap")
    damaged.write_bytes(damaged.read_bytes()[:-5])
    claimed = write_capture(tmp_path, SYN, name="a-1.pcap")
    outcome = sgfast(capsys, "replay", policy, damaged, claimed)
    assert outcome.status == 2 and outcome.out == ""
    assert "'file' patterns of VPC 'a' and of VPC 'c'" in outcome.one_line()


def test_a_file_that_two_vpcs_claim_is_refused(tmp_path: Path) -> None:
    policy = parse_policy(DOCUMENT.replace("c.pcap,", '"*-1.pcap",'))
    capture = write_capture(tmp_path, SYN, name="a-1.pcap")
    with pytest.raises(CaptureError, match="'file' patterns of VPC 'a' and of VPC 'c'"):
        lines(policy, capture)


def test_a_change_after_which_a_vpc_cannot_tell_its_peers_apart_is_refused_before_any_packet(tmp_path: Path) -> None:
    """SPEC 7.3."""
    changes = parse_changes("changes: [{at: 5, add_peering: [b, c]}]")
    with pytest.raises(AmbiguousAddress, match="from VPC 'b' these two peers cannot be distinguished"):
        lines(parse_policy(DOCUMENT), write_capture(tmp_path, mirrored(SYN, 1001)), changes=changes)


def test_packets_that_come_late_are_told_once_and_keep_their_own_times(tmp_path: Path) -> None:
    """Though they are late only in respect of another VPC's packet (SPEC 9.1)."""
    packets = [(5000, 1001, SYN), (4000, 1004, SYN), (90_000, 1001, SYN), (20_000, 1004, SYN)]
    result, found, _ = lines(parse_policy(DOCUMENT), written(tmp_path / "x.pcap", packets))
    assert [line["time"] for line in found] == [
        "1005.000000000", "1004.000000000", "1090.000000000", "1020.000000000",
    ]  # fmt: skip
    assert (result.first_time_ns, result.last_time_ns) == (1004 * 10**9, 1090 * 10**9)
    assert [warning for warning in result.warnings if "with a timestamp" in warning] == [
        "1 packet with a timestamp up to 1 s before that of an earlier packet: treated as simultaneous with it",
        "1 packet with a timestamp more than 60 s before that of an earlier packet: time went on from there without a "
        "gap",
    ]


def test_a_suggested_policy_keeps_the_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = APART.replace("vlan: 12", "interface: ['0', 0, \"tüp: #\"]")
    policy = write_policy(tmp_path, text)
    answer = ethernet(ipv4(SHARED, CLIENT, tcp(80, 40000, "SA")))
    capture = write_capture(tmp_path, mirrored(SYN, 1001), mirrored(answer, 1001))
    out = tmp_path / "suggested.yaml"
    run = sgfast(capsys, "suggest", capture, "--instances", policy, "--decap", "vxlan", "-o", out)
    assert run.status == 0, run.err
    assert parse_policy(out.read_text()).vpcs == parse_policy(text).vpcs


@pytest.mark.parametrize("most, fails", [(1, True), (2, True), (3, False), (4, False)])
def test_packets_of_too_many_vpcs_are_refused(
    most: int, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has tables of its own, and a policy may map any number (SPEC 7.5, 11.1)."""
    monkeypatch.setattr("sgfast.traffic.vpc_mapping.MOST_ENGINES", most)
    capture = write_capture(tmp_path, *(mirrored(SYN, vni) for vni in (1001, 1002, 1003, 1004, 1001)))
    if fails:
        with pytest.raises(PolicyError, match=f"packets of more than {most} VPCs"):
            lines(parse_policy(DOCUMENT), capture)
    else:
        assert lines(parse_policy(DOCUMENT), capture)[0].packets == 5


#: Two spokes have the same addresses, and both are peered with the hub.
SPOKES = """
version: 1
vpcs: [VPCS]
peerings: [[hub, red], [hub, blue]]
security_groups: [{name: web, rules: [{direction: inbound, protocol: tcp, ports: 80, source: 0.0.0.0/0}]}]
instances:
  - {name: hub-web, vpc: hub, addresses: [10.1.0.9], security_groups: [web]}
  - {name: red-web, vpc: red, addresses: [10.0.0.5], security_groups: [web]}
  - {name: blue-web, vpc: blue, addresses: [10.0.0.5], security_groups: [web]}
"""
VNIS = {"hub": 1001, "red": 1002, "blue": 1003}


@pytest.mark.parametrize("order", [("hub", "red", "blue"), ("red", "blue", "hub")])
def test_a_hub_of_spokes_that_share_addresses_is_an_error_only_for_its_own_packets(
    order: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the hub comes first in the policy or last. A change that leaves the spokes' addresses alone is none, and
    packets without an IP header are none.
    """
    text = SPOKES.replace("VPCS", ", ".join(f"{{name: {vpc}, vni: {VNIS[vpc]}}}" for vpc in order))
    policy = write_policy(tmp_path, text)
    frames = [mirrored(SYN, VNIS["red"]), mirrored(SYN, VNIS["blue"]), ethernet(bytes(46), 0x88CC)]
    spokes = write_capture(tmp_path, *frames, name="spokes.pcap")
    changes = parse_changes("changes: [{at: 0, remove_peering: [hub, red]}, {at: 0, add_peering: [hub, red]}]")
    for engine in ("fast", "reference"):
        result = replay(
            parse_policy(text), spokes, changes=changes, engine=engine, reading=ReadOptions(decap=("vxlan",))
        )
        assert (result.verdicts["allow"], result.verdicts["not-ip"]) == (2, 1)
    assert sgfast(capsys, "diff", policy, policy, spokes, "--decap", "vxlan").status == 0
    hub = write_capture(tmp_path, *frames, mirrored(SYN, VNIS["hub"]), name="hub.pcap")
    for arguments in (("replay", policy, hub), ("replay", policy, hub, "--engine", "reference"),
                      ("diff", policy, policy, hub)):  # fmt: skip
        run = sgfast(capsys, *arguments, "--decap", "vxlan")
        assert run.status == 2 and "overlap" in run.one_line() and "10.0.0.5/32" in run.err


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
