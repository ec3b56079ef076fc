"""Addresses that only instances of unpeered VPCs own: what a replay and a comparison conclude (SPEC 10.27, 7.4)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import handshake, sgfast, valid, write_capture, write_policy
from frames import ethernet, ip, udp
from vpcs import CLIENT, DOCUMENT, SYN, mirrored

from sgfast import replay
from sgfast.clouds.loading import parse_policy

Capsys = pytest.CaptureFixture[str]

#: The router has all addresses, so nothing is known about whoever is behind it.
TWO = """
version: 1
vpcs: [{name: dev}, {name: prod}, {name: hub}]
peerings: [[dev, hub]]
security_groups:
  - name: web
    rules: [{direction: outbound, protocol: all}, {direction: inbound, protocol: tcp, ports: 443}]
  - {name: db, rules: [{direction: inbound, protocol: tcp, ports: 5432}]}
instances:
  - {name: web-1, vpc: dev, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [web]}
  - {name: db-1, vpc: prod, addresses: [10.1.0.5, "2001:db8:1::5"], security_groups: [db]}
  - {name: cache-1, vpc: hub, addresses: [10.2.0.5], security_groups: [db]}
  - {name: router, vpc: prod, addresses: [10.1.0.1, 0.0.0.0/0], security_groups: [db]}
"""
WEB, DB, CACHE = "10.0.0.5", "10.1.0.5", "10.2.0.5"
SOUND = [*handshake(50000, 443, CLIENT, WEB), *handshake(50001, 5432, WEB, CACHE)]
#: The second end is an instance of VPC prod, or it is not: dev sees no such instance.
UNSURE = [*handshake(50002, 5432, WEB, DB), *handshake(50003, 22, DB, WEB), *handshake(50004, 80, WEB, "10.1.0.1")]


def reasons(outcome: Any) -> dict[str, dict[str, Any]]:
    return {each["code"]: each for each in json.loads(outcome.out)["evidence"]["reasons"]}


def test_an_instance_of_an_unpeered_vpc_is_named_and_the_answer_is_not_green(capsys: Capsys, tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path, TWO), write_capture(tmp_path, *SOUND, *UNSURE)
    outcome = sgfast(
        capsys, "replay", policy, capture, "--vpc", "dev", "--fail-on", "would-break", "--json", "--report",
        tmp_path / "page.html",
    )  # fmt: skip
    reason = reasons(outcome)["other-vpc"]
    assert outcome.status == 1 and valid("summary", json.loads(outcome.out))["evidence"]["conclusive"] == "partly"
    assert (reason["level"], reason["packets"], reason["share"]) == ("partly", 3, 0.6)
    assert reason["sentence"].startswith(
        "10.1.0.1 is instance router of VPC prod, which is not peered with dev, so nobody can tell whether router or"
    )
    assert "--vpc prod" in reason["command"] and "a peering of dev and prod" in reason["command"]
    text = sgfast(capsys, "replay", policy, capture, "--vpc", "dev", "--accept-evidence", "other-vpc", "--fail-on",
                  "denied", "--filter", "not port 22")  # fmt: skip
    assert text.status == 0 and "is instance router" in " ".join(text.out.split())


@pytest.mark.parametrize("vpc", [("--vpc", "dev"), ()])
def test_addresses_that_the_vpc_sees_or_that_are_of_nobody_raise_no_doubt(
    vpc: tuple[str, ...], capsys: Capsys, tmp_path: Path
) -> None:
    document = TWO if vpc else TWO.replace(", 0.0.0.0/0", "")    # with it, all VPCs together own addresses twice
    policy, capture = write_policy(tmp_path, document), write_capture(tmp_path, *SOUND)
    assert reasons(sgfast(capsys, "replay", policy, capture, *vpc, "--json")) == {}


def test_all_ways_to_judge_count_the_same_connections(client: Any, tmp_path: Path) -> None:
    """Threads, shards of a cluster, an engine for each VPC, and a replay that goes on."""
    policy, capture = parse_policy(TWO), write_capture(tmp_path, *SOUND, *UNSURE)
    found = [replay(policy, capture, vpc="dev").evidence, replay(policy, capture, vpc="dev", jobs=3).evidence]
    found.append(replay(policy, capture, vpc="dev", client=client, shards=3).evidence)
    halves = [write_capture(tmp_path, *frames, name=f"{n}.pcap") for n, frames in enumerate((SOUND, UNSURE))]
    replay(policy, halves[0], vpc="dev", snapshot=tmp_path / "saved")
    found.append(replay(policy, halves[1], vpc="dev", resume=tmp_path / "saved").evidence)
    found.append(replay(parse_policy(TWO.replace("{name: dev}", '{name: dev, file: "*.pcap"}')), capture).evidence)
    (reason,) = found[0].reasons
    assert reason.packets == 3 and [each.reasons for each in found] == [(reason,)] * len(found)


def test_a_new_policy_that_takes_a_peering_away_does_not_make_an_instance_anybody(
    capsys: Capsys, tmp_path: Path
) -> None:
    """From VPC dev, NEW sees no instance at that address, and allows what NEW would deny the instance."""
    old, document = tmp_path / "old.yaml", TWO.replace(", 0.0.0.0/0", "")
    old.write_text(document.replace("[[dev, hub]]", "[[dev, hub], [dev, prod]]"))
    new, capture = write_policy(tmp_path, document), write_capture(tmp_path, *handshake(50002, 5432, WEB, DB))
    for both in ((old, new), (new, old)):
        outcome = sgfast(capsys, "diff", *both, capture, "--vpc", "dev", "--fail-on", "newly-denied", "--json")
        reason = reasons(outcome)["other-vpc"]
        assert outcome.status == 1 and reason["sentence"].startswith("10.1.0.5 is instance db-1 of VPC prod")


#: All VPCs together: no address of a router.
ALONE = TWO.replace(", 0.0.0.0/0", "")
PEERED = ALONE.replace("[[dev, hub]]", "[[dev, hub], [dev, prod]]")
ACROSS = [*handshake(50002, 5432, WEB, DB), *handshake(50003, 22, DB, WEB)]


def test_answered_traffic_between_unpeered_vpcs_does_not_break_for_certain(
    capsys: Capsys, client: Any, tmp_path: Path
) -> None:
    """The policy may lack the peering. Threads, shards and a replay that goes on count the same."""
    policy, capture = write_policy(tmp_path, ALONE), write_capture(tmp_path, *SOUND, *ACROSS)
    outcome = sgfast(capsys, "replay", policy, capture, "--fail-on", "would-break", "--json")
    (reason,) = reasons(outcome).values()
    assert outcome.status == 1 and (reason["level"], reason["packets"], reason["share"]) == ("partly", 2, 0.5)
    assert reason["sentence"].startswith(
        "10.0.0.5 is instance web-1 of VPC dev, which is not peered with prod, the VPC of db-1, so nobody can tell"
    ) and reason["sentence"].endswith("(2 connections are between such instances)")
    assert reason["command"].startswith("a peering of prod and dev in the policy")
    assert sgfast(capsys, "replay", policy, capture).out.startswith("Not certain, numbers may be too high or too low:")
    parsed, halves = parse_policy(ALONE), [write_capture(tmp_path, *frames, name=f"{n}.pcap")
                                           for n, frames in enumerate((SOUND, ACROSS))]  # fmt: skip
    found = [replay(parsed, capture).evidence, replay(parsed, capture, jobs=3).evidence]
    found.append(replay(parsed, capture, client=client, shards=3).evidence)
    replay(parsed, halves[0], snapshot=tmp_path / "saved")
    found.append(replay(parsed, halves[1], resume=tmp_path / "saved").evidence)
    # Peered VPCs of a VPC need not be peered with each other.
    between = parse_policy(ALONE.replace("[[dev, hub]]", "[[dev, hub], [prod, hub]]"))
    found.append(replay(between, capture, vpc="hub").evidence)
    assert found == [found[0]] * len(found) and found[0].reasons[0].packets == 2


def test_comparison_doubts_what_old_isolates_but_not_a_peering_that_new_takes_away(
    capsys: Capsys, tmp_path: Path
) -> None:
    alone, peered = write_policy(tmp_path, ALONE), tmp_path / "peered.yaml"
    peered.write_text(PEERED)
    capture = write_capture(tmp_path, *ACROSS)
    for new in (alone, peered):
        outcome = sgfast(capsys, "diff", alone, new, capture, "--fail-on", "newly-denied", "--json")
        assert outcome.status == 1 and reasons(outcome)["other-vpc"]["packets"] == 2
    outcome = sgfast(capsys, "diff", peered, alone, capture, "--json")
    assert reasons(outcome) == {} and json.loads(outcome.out)["newly_denied"]["connections"] == 1


@pytest.mark.parametrize(
    ("document", "frames"),
    [(PEERED, ACROSS), (ALONE, [*SOUND, *(ethernet(ip(DB, "224.0.0.251", udp(5353, 5353))) for _ in range(3))])],
    ids=["peered", "multicast"],
)
def test_peered_vpcs_and_multicast_raise_no_doubt(
    capsys: Capsys, tmp_path: Path, document: str, frames: list[bytes]
) -> None:
    document = document.replace("10.1.0.1]", "10.1.0.1, 224.0.0.0/4]")
    outcome = sgfast(capsys, "replay", write_policy(tmp_path, document), write_capture(tmp_path, *frames), "--json")
    assert reasons(outcome) == {}


def test_traffic_of_the_wrong_vpc_names_the_vpc_that_knows_its_networks(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path, TWO)
    only = write_capture(tmp_path, *handshake(50000, 5432, CLIENT, DB))
    most = write_capture(tmp_path, *handshake(50000, 5432, CLIENT, DB), *SOUND[:2], name="most.pcap")
    for capture, code in ((only, "no-instance"), (most, "out-of-scope")):
        reason = reasons(sgfast(capsys, "replay", policy, capture, "--vpc", "dev", "--json"))[code]
        assert "VPC prod, which is not peered with dev, has instances in 10.1.0.0/24" in reason["sentence"]
        assert reason["command"] == "sgfast replay POLICY CAPTURE --vpc prod"
    reason = reasons(sgfast(capsys, "replay", policy, only, "--vpc", "prod", "--json"))
    assert "no-instance" not in reason
    nobody = write_capture(tmp_path, *handshake(50000, 5432, CLIENT, "10.7.0.5"), name="nobody.pcap")
    assert "VPC prod" not in reasons(sgfast(capsys, "replay", policy, nobody, "--vpc", "dev", "--json"))[
        "no-instance"
    ]["sentence"]  # fmt: skip


def test_vni_maps_tunnels_to_vpcs_as_the_policy_does(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path, re.sub(r"(- \{name: .), vni.*", r"\1}", DOCUMENT))
    marked = tmp_path / "marked.yaml"
    marked.write_text(DOCUMENT)
    capture = write_capture(tmp_path, mirrored(SYN, 1001), mirrored(SYN, 1004), mirrored(SYN, 1004))
    read = capture, "--decap", "vxlan", "--json"
    vnis = "--vni", "1001=a", "--vni", "1004=c"
    given = json.loads(sgfast(capsys, "replay", policy, *read, *vnis).out)
    meant = json.loads(sgfast(capsys, "replay", marked, *read).out)
    assert given["packets"] == meant["packets"] and given["denied"] == meant["denied"] != []
    both = policy, policy
    compared = json.loads(sgfast(capsys, "diff", *both, *read, *vnis).out)
    assert sum(each["packets"] for each in compared["verdicts"]) == given["packets"]
    assert sgfast(capsys, "replay", policy, *read).status == 2
    for wrong, message in (
        (("7=prodd",), "--vni: unknown VPC 'prodd': the policy has a, b, c"),
        (("7=",), "--vni: '7=' is not VNI=VPC"),
        (("x=a",), "'x=a' is not VNI=VPC with a VNI from 0 to 16777215"),
        (("16777216=a",), "'16777216=a' is not VNI=VPC"),
        (("7=a", "7=b"), "--vni: VNI 7 is mapped to two VPCs, a and b"),
    ):
        outcome = sgfast(capsys, "replay", policy, *read, *(word for each in wrong for word in ("--vni", each)))
        assert outcome.status == 2 and message in outcome.one_line()
    outcome = sgfast(capsys, "replay", marked, *read, "--vni", "1001=c")
    assert outcome.status == 2 and "VNI 1001 is mapped to two VPCs, a and c" in outcome.one_line()
    outcome = sgfast(capsys, "diff", *both, *read, *vnis, "--vpc", "a")
    assert outcome.status == 2 and "--vpc and --vni cannot be combined" in outcome.one_line()
    assert sgfast(capsys, "diff", *both, *vnis).status == 2
