"""Build captures of packets of several VPCs, and replay them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from captures import pcap_head, pcap_record
from frames import ethernet, ipv4, tcp, udp
from tunnels import geneve, vxlan

from sgfast import ReadOptions, ReplayResult, replay
from sgfast.policy.model import Policy
from sgfast.report.lines import ConnectionLines, VerdictLines

#: A policy with three VPCs: a and c use the same addresses, and b is peered with a.
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
    options.setdefault("reading", ReadOptions(decap=("vxlan", "geneve")))
    result = replay(
        policy, captures, packets=VerdictLines(packets.append), flows=ConnectionLines(flows.append), **options
    )
    return result, *([json.loads(line) for line in b"".join(some).splitlines()] for some in (packets, flows))


def text_of(line: Line) -> str:
    return json.dumps(line, sort_keys=True)


def ingress(line: Line) -> str | None:
    return line["ingress"]["instance"] if line["ingress"] else None


CHANGES = """
changes:
  - {at: 2, remove_rule: {group: web, rule: web/inbound/1}}
  - {at: 4, add_rule: {group: web, rule: {direction: inbound, protocol: tcp, ports: "80,81", source: 0.0.0.0/0}}}
  - {at: 6, remove_peering: [a, b]}
"""


def traffic(rng: np.random.Generator, packets: int) -> list[tuple[int, int, bytes]]:
    """Return (time in milliseconds, VNI, frame) of packets of a few connections, in VPCs with the same addresses."""
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
    """Write packets mirrored with the VNI of their VPC."""
    records = [
        pcap_record(mirrored(frame, vni, seed=ms), time=(1000 + ms // 1000, ms % 1000 * 1000))
        for ms, vni, frame in packets
    ]
    path.write_bytes(pcap_head() + b"".join(records))
    return path
