"""Packets of an account whose VPCs share addresses: without ``--vpc`` and marks, their addresses name the VPC (SPEC
7.1, 7.4).
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import pcap_head, pcap_record
from command import handshake, sgfast, write_capture, write_policy
from effort import some
from frames import ethernet, ipv4, ipv6, tcp
from vpcs import lines, written

from sgfast import Policy, ReadOptions, replay
from sgfast.base.errors import AmbiguousAddress
from sgfast.clouds.loading import parse_policy
from sgfast.policy.change_file import parse_changes

Capsys = pytest.CaptureFixture[str]

#: VPCs a and c share an address and a network, and c and d another one. a and b are peered. d has a router.
DOCUMENT = """
version: 1
vpcs: [{name: a, vni: 1}, {name: b, vni: 2}, {name: c, vni: 3}, {name: d, vni: 4}]
peerings: [[a, b]]
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 80, source: 0.0.0.0/0}
      - {direction: inbound, protocol: tcp, ports: 80, source: "::/0"}
      - {direction: outbound, protocol: all}
  - {name: db, rules: [{direction: inbound, protocol: tcp, ports: "80,5432", source: web}]}
instances:
  - {name: a-web, vpc: a, addresses: [10.0.0.5, 10.1.0.0/24, "2001:db8::5"], security_groups: [web]}
  - {name: a-db, vpc: a, addresses: [10.2.0.1, "2001:db8:a::1"], security_groups: [db]}
  - {name: b-db, vpc: b, addresses: [10.2.1.1, "2001:db8:b::1"], security_groups: [db]}
  - {name: c-web, vpc: c, addresses: [10.0.0.5, 10.1.0.7, "2001:db8::/64"], security_groups: [web]}
  - {name: c-db, vpc: c, addresses: [10.2.2.1, "2001:db8:c::1", 10.3.0.0/16], security_groups: [db]}
  - {name: d-db, vpc: d, addresses: [10.2.3.1, 10.3.0.9], security_groups: [db]}
"""
ROUTER = DOCUMENT + "  - {name: router, vpc: d, addresses: [0.0.0.0/0, '::/0'], security_groups: [web]}\n"
UNMARKED = {text: text.replace(", vni: 1", "").replace(", vni: 2", "").replace(", vni: 3", "").replace(", vni: 4", "")
            for text in (DOCUMENT, ROUTER)}  # fmt: skip
IPV4 = ("10.0.0.5", "10.1.0.7", "10.1.0.8", "10.2.0.1", "10.2.1.1", "10.2.2.1", "10.2.3.1", "10.3.0.9", "10.3.1.1",
        "198.51.100.7", "198.51.100.8")  # fmt: skip
IPV6 = ("2001:db8::5", "2001:db8::6", "2001:db8:a::1", "2001:db8:b::1", "2001:db8:c::1", "2001:db8:d::1")


def vpc_of(policy: Policy, source: str, destination: str) -> int | None:
    """Return the number of the VPC that the addresses name, or None: found in the slowest way."""
    owners = []
    for text in (source, destination):
        address = ip_address(text)
        owners.append({
            n for n, vpc in enumerate(policy.vpcs) for instance in policy.instances if instance.vpc == vpc.name
            if any(each.prefixlen and address in each for each in instance.addresses)
        })  # fmt: skip
    if not any(owners):
        return 3 if "router" in policy.instance_by_name else 0
    return min((*each,)[0] for each in owners if len(each) == 1) if any(len(each) == 1 for each in owners) else None


def traffic(policy: Policy, rng: np.random.Generator, packets: int) -> list[tuple[int, int, bytes]]:
    """Return (time in milliseconds, VNI of the VPC that the addresses name, frame) of packets that name one."""
    made: list[tuple[int, int, bytes]] = []
    while len(made) < packets:
        family, network = (IPV4, ipv4) if rng.random() < 0.6 else (IPV6, ipv6)
        source, destination = map(str, rng.choice(family, 2, replace=False))
        ports = [int(rng.integers(40000, 40004)), int(rng.choice([80, 80, 5432]))]
        if rng.random() < 0.4:
            ports.reverse()
        frame = ethernet(network(source, destination, tcp(*ports, str(rng.choice(["S", "S", "SA", "A", "R"])))))
        vpc = vpc_of(policy, source, destination)
        if rng.random() < 0.03:
            vpc, frame = 0, bytes.fromhex("ffffffffffff 0200000000aa 0806") + bytes(28)     # ARP, of no VPC
        if vpc is not None:
            made.append((len(made), vpc + 1, frame))
    return made


def plain(path: Path, packets: list[tuple[int, int, bytes]]) -> Path:
    path.write_bytes(pcap_head() + b"".join(
        pcap_record(frame, time=(1000 + ms // 1000, ms % 1000 * 1000)) for ms, _, frame in packets
    ))  # fmt: skip
    return path


@pytest.mark.parametrize("seed", range(some(2, 8)))
@pytest.mark.parametrize("document", [DOCUMENT, ROUTER], ids=["hosts", "router"])
def test_addresses_name_the_vpc_as_marks_would(seed: int, document: str, tmp_path: Path) -> None:
    """Threads, the reference model, a directory of two captures, and a replay that goes on say the same."""
    print(f"seed {seed}")
    policy = parse_policy(UNMARKED[document])
    packets = traffic(policy, np.random.default_rng(seed), 2000)
    _, expected, ended = lines(parse_policy(document), written(tmp_path / "marked.pcap", packets))
    capture, reading = plain(tmp_path / "plain.pcap", packets), ReadOptions()
    one, found, flows = lines(policy, capture, reading=reading)
    assert found == expected and sorted(map(json.dumps, flows)) == sorted(map(json.dumps, ended))
    assert min(one.verdicts[word] for word in ("allow", "deny")) > 10
    three, found, _ = lines(policy, capture, reading=reading, jobs=3)
    assert found == expected and replace(three, elapsed_seconds=0.0) == replace(one, elapsed_seconds=0.0)
    slow = replay(policy, capture, engine="reference")
    assert (slow.verdicts, slow.reasons, slow.connections) == (one.verdicts, one.reasons, one.connections)
    halves = [plain(tmp_path / f"{n}.pcap", packets[n * 1000 : n * 1000 + 1000]) for n in range(2)]
    replay(policy, halves[0], snapshot=tmp_path / "saved")
    later = replay(policy, halves[1], resume=tmp_path / "saved")
    assert (later.verdicts, later.connections) == (one.verdicts, one.connections)


def test_a_cluster_finds_the_same_vpcs_and_reads_anew_for_other_addresses(client: Any, tmp_path: Path) -> None:
    from sgfast.base.errors import ClusterError

    policy = parse_policy(UNMARKED[DOCUMENT])
    capture = plain(tmp_path / "plain.pcap", traffic(policy, np.random.default_rng(5), 1500))
    options: dict[str, Any] = {"client": client, "shards": 3, "resume": tmp_path / "kept"}
    here, there = replay(policy, capture), replay(policy, capture, **options)
    assert (there.verdicts, there.reasons, there.connections) == (here.verdicts, here.reasons, here.connections)
    moved = parse_policy(UNMARKED[DOCUMENT].replace("addresses: [10.2.3.1", "addresses: [10.2.3.2"))
    with pytest.raises(ClusterError, match="another mapping of VPCs"):
        replay(moved, capture, **options)


@pytest.mark.parametrize("end", ["198.51.100.7", "10.1.0.7"])
def test_a_packet_that_no_address_places_asks_for_the_vpc(end: str, capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path, UNMARKED[DOCUMENT])
    frames = (*handshake(50000, 80, "10.2.0.1", "10.0.0.5"), *handshake(50001, 80, end, "10.0.0.5"))
    capture = write_capture(tmp_path, *frames)
    for arguments in (("replay", policy, capture), ("diff", policy, policy, capture)):
        run = sgfast(capsys, *arguments)
        assert run.status == 2 and "overlap: name the VPC the capture was taken in (--vpc)" in run.one_line()
        assert "no address is owned in one VPC only" in run.err and "vni" not in run.err
        assert sgfast(capsys, *arguments, "--vpc", "a").status == 0


@pytest.mark.parametrize(("version", "other"), [(4, 6), (6, 4)])
def test_ipv4_routers_of_two_vpcs_say_nothing_of_an_ipv6_packet(version: int, other: int, tmp_path: Path) -> None:
    """A router solicitation as any host sends it, and the same with the versions exchanged. Of the routers' own
    version, it is not known whose the packet is.
    """
    everything = {4: "0.0.0.0/0", 6: "::/0"}[version]
    policy = parse_policy(UNMARKED[DOCUMENT] + "".join(
        f"  - {{name: {vpc}-router, vpc: {vpc}, addresses: ['{everything}'], security_groups: [web]}}\n" for vpc in "ac"
    ))  # fmt: skip
    frames = {
        4: ethernet(ipv4("169.254.7.7", "224.0.0.2", bytes(8), protocol=2)),
        6: ethernet(ipv6("fe80::7", "ff02::2", bytes.fromhex("8500 0000 0000 0000"), protocol=58)),
    }
    sound = plain(tmp_path / "sound.pcap", [(0, 0, frames[other])])
    for engine in ("fast", "reference"):
        assert replay(policy, sound, engine=engine).packets == 1
    with pytest.raises(AmbiguousAddress, match="no address is owned in one VPC only"):
        replay(policy, plain(tmp_path / "ambiguous.pcap", [(0, 0, frames[version])]))


def test_a_comparison_finds_vpcs_by_the_addresses_of_both_policies(tmp_path: Path, capsys: Capsys) -> None:
    """c-db is new, and NEW lets web of c reach it. OLD has nobody there, so only NEW tells the VPC."""
    new = UNMARKED[DOCUMENT]
    old = new.replace(", addresses: [10.2.2.1,", ", addresses: [10.2.2.9,")
    capture = write_capture(tmp_path, *handshake(50000, 80, "10.0.0.5", "10.2.2.1"))
    (tmp_path / "old.yaml").write_text(old)
    run = sgfast(capsys, "diff", tmp_path / "old.yaml", write_policy(tmp_path, new), capture, "--json")
    assert run.status == 0 and json.loads(run.out)["evidence"]["conclusive"] == "yes"
    assert replay(parse_policy(new), capture).verdicts["allow"] == 3


def test_a_change_that_adds_an_address_asks_for_the_vpc_and_one_that_takes_it_does_not(tmp_path: Path) -> None:
    """Captures are read before a change is applied, so an address that it adds would name no VPC."""
    policy = parse_policy(UNMARKED[DOCUMENT])
    capture = write_capture(tmp_path, *handshake(50000, 80, "10.0.0.5", "10.2.2.1"))
    taken = replay(policy, capture, changes=parse_changes("changes: [{at: 0, remove_instance: {instance: a-db}}]"))
    assert taken.verdicts["allow"] == 3 and len(taken.changes) == 1
    added = parse_changes("changes: [{at: 99, add_address: {instance: d-db, address: 10.9.9.9}}]")
    with pytest.raises(AmbiguousAddress, match=r"name the VPC the capture was taken in \(--vpc\)"):
        replay(policy, capture, changes=added)


def test_an_instance_of_another_vpc_is_doubted_where_addresses_name_the_vpc(tmp_path: Path) -> None:
    policy = parse_policy(UNMARKED[DOCUMENT])
    capture = write_capture(
        tmp_path, *handshake(50000, 80, "10.1.0.8", "10.2.2.1"), *handshake(50001, 80, "10.0.0.5", "10.2.0.1")
    )
    (reason,) = replay(policy, capture).evidence.reasons
    assert reason.code == "other-vpc" and reason.packets == 1
    assert reason.sentence.startswith("10.2.2.1 is instance c-db of VPC c, which is not peered with a")


def test_a_comparison_judges_a_policy_without_shared_addresses_as_a_replay_does(tmp_path: Path, capsys: Capsys) -> None:
    """Only NEW shares addresses: b-db gets a second one, which a-web has. OLD sees both VPCs, as in its own replay."""
    new = UNMARKED[DOCUMENT].partition("instances:")[0] + """instances:
  - {name: a-web, vpc: a, addresses: [10.0.0.5], security_groups: [web]}
  - {name: c-db, vpc: c, addresses: [10.2.2.1, 10.0.0.5], security_groups: [web]}
"""
    (tmp_path / "old.yaml").write_text(new.replace("[10.2.2.1, 10.0.0.5]", "[10.2.2.1]"))
    capture = write_capture(tmp_path, *handshake(50000, 80, "10.0.0.5", "10.2.2.1"))
    assert replay(str(tmp_path / "old.yaml"), capture).reasons["vpc-isolated"] == 1
    run = sgfast(capsys, "diff", tmp_path / "old.yaml", write_policy(tmp_path, new), capture, "--json")
    assert {(row["old"], row["new"]): row["packets"] for row in json.loads(run.out)["verdicts"]} == {
        ("deny", "local"): 1, ("moot", "local"): 2
    }
