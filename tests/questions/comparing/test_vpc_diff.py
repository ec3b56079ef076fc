"""Two policies beside each other that both say which VPC packets belong to."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import sgfast, valid, write_capture, write_policy
from diffs import traffic_diff as diff
from effort import some
from frames import ethernet, ipv4, udp
from vpcs import DOCUMENT, SYN, mirrored, traffic, written

from sgfast import ReadOptions
from sgfast.base.errors import PolicyError
from sgfast.clouds.loading import parse_policy
from sgfast.questions.comparing import ChangedGroup, TrafficDiff
from sgfast.report.rollup.changed import changed_rollups

PROPOSED = DOCUMENT.replace("ports: 80, source: 0.0.0.0/0", "ports: 81, source: 0.0.0.0/0").replace(
    "ports: 5432, source: web}", "ports: '80,5432', source: 198.51.100.0/29}"
)


def of_whole(group: ChangedGroup, numbers: list[int]) -> ChangedGroup:
    """A group whose examples are called by what they are among all packets."""
    return replace(group, examples=tuple(replace(e, packet=numbers[e.packet - 1]) for e in group.examples))


def told_by_instance(result: TrafficDiff) -> Counter[Any]:
    """The connections of each row."""
    found: Counter[Any] = Counter()
    for change, rollup in changed_rollups(result).items():
        for row in rollup.fold(change, by="instance", most=10**6).rows:
            assert row.passing is not None
            rules = row.rule, row.passing.rule
            found[change, row.source, row.destination, row.service, row.reason, *rules] += row.connections
    return found


@pytest.mark.parametrize("seed", range(some(2, 6)))
def test_a_mixture_is_compared_as_each_vpc_alone(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    packets = sorted(traffic(np.random.default_rng(seed), 1500), key=lambda packet: packet[0])
    old, new = parse_policy(DOCUMENT), parse_policy(PROPOSED)
    options: dict[str, Any] = {
        "mode": ("causal", "verbatim")[seed % 2], "midstream": ("infer", "deny", "allow")[seed % 3],
        "reading": ReadOptions(decap=("vxlan", "geneve")),
    }  # fmt: skip
    together = diff(old, new, written(tmp_path / "mixed.pcap", packets), **options)
    several = diff(old, new, tmp_path / "mixed.pcap", jobs=3, **options)
    assert replace(several, elapsed_seconds=0.0) == replace(together, elapsed_seconds=0.0)
    whose = {1001: "a", 1002: "b", 1003: "b", 1004: "c"}
    marker = ethernet(ipv4("203.0.113.1", "203.0.113.2", udp(1, 1)))
    groups, verdicts, rules, moved = [], Counter[tuple[str, str]](), Counter[Any](), Counter[Any]()
    rows: Counter[Any] = Counter()
    for vpc in "abc":
        own = [n for n, packet in enumerate(packets) if whose[packet[1]] == vpc or n == 0]
        foreign = whose[packets[0][1]] != vpc
        capture = [(*packets[n][:2], marker if n == 0 and foreign else packets[n][2]) for n in own]
        alone = diff(old, new, written(tmp_path / f"{vpc}.pcap", capture), vpc=vpc, **options)
        groups += [of_whole(group, [n + 1 for n in own]) for group in alone.groups]
        rows.update(told_by_instance(alone))
        verdicts.update(alone.verdicts)
        verdicts["out-of-scope", "out-of-scope"] -= int(foreign)
        rules.update({(e.group, e.rule, e.status): e.newly_denied + e.newly_allowed for e in alone.rules})
        moved.update({replace(m, connections=0): m.connections for m in alone.moved})
    assert sorted(map(str, together.groups)) == sorted(map(str, groups))
    assert told_by_instance(together) == rows
    assert [group.answered for group in together.of("newly-denied")] == sorted(
        (group.answered for group in groups if group.change == "newly-denied"), reverse=True
    )
    assert together.verdicts == {pair: count for pair, count in verdicts.items() if count}
    assert {(e.group, e.rule, e.status): e.newly_denied + e.newly_allowed for e in together.rules} == dict(rules)
    assert {replace(m, connections=0): m.connections for m in together.moved} == dict(moved)
    assert together.packets == len(packets) and together.total("newly-denied").connections > 20


def test_marks_of_either_policy_count_for_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = write_capture(tmp_path, mirrored(SYN, 1001), mirrored(SYN, 1004), mirrored(SYN, 1001))
    (tmp_path / "old").mkdir()
    unmarked = PROPOSED[: PROPOSED.index("vpcs:")] + (
        "vpcs: [{name: c, vni: 1005}, {name: b}, {name: a}]\n" + PROPOSED[PROPOSED.index("peerings:") :]
    )
    told = []
    for text in (PROPOSED, unmarked):
        for old, new in ((DOCUMENT, text), (text, DOCUMENT)):
            policies = write_policy(tmp_path / "old", old), write_policy(tmp_path, new)
            run = sgfast(capsys, "diff", *policies, capture, "--decap", "vxlan", "--format", "json")
            assert run.status == 0 and run.err == ""
            found = valid("diff", json.loads(run.out))
            told.append({key: found[key] for key in ("newly_denied", "newly_allowed")})
    assert told[0] == told[2] and told[1] == told[3]
    assert told[0]["newly_denied"]["rows"][0]["to"]["name"] == "a-web"
    assert told[0]["newly_allowed"]["rows"][0]["to"]["name"] == "c-db"


def test_a_vpc_that_one_policy_does_not_have_is_out_of_its_scope(tmp_path: Path) -> None:
    capture = write_capture(tmp_path, mirrored(SYN, 1001), mirrored(SYN, 1004), mirrored(SYN, 1004))
    old = parse_policy(DOCUMENT)
    new = parse_policy("\n".join(line for line in DOCUMENT.splitlines() if "name: c" not in line))
    found = diff(old, new, capture, reading=ReadOptions(decap=("vxlan",)))
    assert found.verdicts == {("allow", "allow"): 1, ("deny", "out-of-scope"): 2}
    assert "VPC 'c' is only in OLD: under NEW its packets are out of scope" in found.warnings
    assert diff(new, old, capture, reading=ReadOptions(decap=("vxlan",))).warnings == [
        "VPC 'c' is only in NEW: under OLD its packets are out of scope"
    ]


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        ("vni: 1001", "vni: 1004", "vni 1004 belongs to VPC 'a', but to VPC 'c' in"),
        ("vlan: 12", "interface: eth0", "interface 'eth0' belongs to VPC 'a', but to VPC 'b' in"),
        ('file: "a-*.pcap"', "file: c.pcap", "file 'c.pcap' belongs to VPC 'a', but to VPC 'c' in"),
    ],
)
def test_policies_that_map_one_mark_to_two_vpcs_cannot_be_compared(
    there: str, here: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write_policy(tmp_path, DOCUMENT.replace("name: b,", "name: b, interface: eth0,"))
    (tmp_path / "new").mkdir()
    text = DOCUMENT.replace("vni: 1004,", "").replace("file: [c.pcap,", "file: [")
    new = write_policy(tmp_path / "new", text.replace(there, here))
    capture = write_capture(tmp_path, mirrored(SYN, 1001))
    run = sgfast(capsys, "diff", old, new, capture, "--decap", "vxlan")
    assert run.status == 2 and message in run.one_line()
    assert sgfast(capsys, "diff", old, new, capture, "--decap", "vxlan", "--vpc", "a").status == 0


def test_examples_have_their_own_numbers_and_times(tmp_path: Path) -> None:
    packets = [(5000, 1001, SYN), (4000, 1004, SYN), (5000, 1001, SYN)]
    found = diff(
        parse_policy(DOCUMENT), parse_policy(PROPOSED), written(tmp_path / "x.pcap", packets),
        reading=ReadOptions(decap=("vxlan", "geneve")),
    )  # fmt: skip
    assert [(e.packet, e.time_ns) for group in found.groups for e in group.examples] == [
        (1, 1005 * 10**9), (2, 1004 * 10**9),
    ]  # fmt: skip
    assert (found.first_time_ns, found.last_time_ns) == (1004 * 10**9, 1005 * 10**9)
    assert len([warning for warning in found.warnings if "1 packet with a timestamp" in warning]) == 1


@pytest.mark.parametrize("most, fails", [(4, True), (5, True), (6, False), (7, False)])
def test_packets_of_too_many_vpcs_are_not_compared(
    most: int, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes two engines."""
    monkeypatch.setattr("sgfast.traffic.vpc_mapping.MOST_ENGINES", most)
    capture = write_capture(tmp_path, *(mirrored(SYN, vni) for vni in (1001, 1002, 1003, 1004, 1001)))
    policies, reading = (parse_policy(DOCUMENT), parse_policy(PROPOSED)), ReadOptions(decap=("vxlan",))
    if fails:
        with pytest.raises(PolicyError, match="packets of more than 2 VPCs"):
            diff(*policies, capture, reading=reading)
    else:
        assert diff(*policies, capture, reading=reading).packets == 5
