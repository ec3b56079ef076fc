"""Random policies of three instances, and conversations between them and others that behave as programs do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from captures import pcap_head, pcap_record
from frames import ethernet, icmp, ip, tcp, udp

HOSTS = ("10.0.0.5", "10.0.0.6", "10.0.1.7", "198.51.100.7", "203.0.113.9")
TCP_SCRIPT = ((0, "S"), (1, "SA"), (0, "A"), (0, "PA"), (1, "A"), (1, "PA"), (0, "A"), (0, "FA"), (1, "FA"), (0, "A"))

Packet = tuple[str, str, bytes]


def a_policy(rng: np.random.Generator) -> dict[str, Any]:
    """Three instances, each in a group with some random rules."""
    def rule() -> dict[str, Any]:
        made: dict[str, Any] = {"direction": str(rng.choice(["inbound", "outbound", "outbound"]))}
        made["protocol"] = str(rng.choice(["tcp", "udp", "icmp", "all"]))
        if made["protocol"] in ("tcp", "udp") and rng.random() < 0.6:
            made["ports"] = int(rng.choice([53, 80, 443]))
        return made

    groups = [{"name": f"g{n}", "rules": [rule() for _ in range(rng.integers(0, 4))]} for n in range(3)]
    instances = [
        {"name": f"i{n}", "addresses": [host], "security_groups": [f"g{n}"]} for n, host in enumerate(HOSTS[:3])
    ]
    return {"version": 1, "security_groups": groups, "instances": instances}


def conversation(rng: np.random.Generator) -> list[Packet]:
    """One that behaves: it is answered, refused or ignored, and the capture may begin in its middle."""
    ends = tuple(rng.choice(HOSTS, 2, replace=False))
    ports = int(rng.integers(32768, 61000)), int(rng.choice([53, 80, 443]))

    def packet(end: int, layer: bytes) -> Packet:
        source, destination = ends[end], ends[1 - end]
        return source, destination, ethernet(ip(source, destination, layer))

    def turned(end: int) -> tuple[int, int]:
        return ports if end == 0 else (ports[1], ports[0])

    kind = rng.integers(0, 4)
    if kind < 2:
        fate = rng.integers(0, 8)
        if fate == 0:
            return [packet(0, tcp(*ports, "S"))] * 3
        if fate == 1:
            return [packet(0, tcp(*ports, "S")), packet(1, tcp(*turned(1), "RA"))]
        script = TCP_SCRIPT[rng.integers(3, 6) :] if fate == 2 else TCP_SCRIPT[: rng.integers(3, len(TCP_SCRIPT) + 1)]
        return [packet(end, tcp(*turned(end), flags)) for end, flags in script]
    turns = rng.integers(1, 4)
    answered = rng.random() < 0.7
    found = []
    for _ in range(turns):
        found.append(packet(0, udp(*ports) if kind == 2 else icmp(8, 0)))
        if answered:
            found.append(packet(1, udp(*turned(1)) if kind == 2 else icmp(0, 0)))
    return found


def capture(rng: np.random.Generator) -> list[Packet]:
    """Several conversations, interleaved."""
    waiting = [conversation(rng) for _ in range(rng.integers(1, 12))]
    found = []
    while waiting:
        chosen = waiting[rng.integers(0, len(waiting))]
        found.append(chosen.pop(0))
        waiting = [each for each in waiting if each]
    return found


def write(path: Path, packets: list[Packet]) -> Path:
    records = [pcap_record(frame, time=(1000, 1000 * n)) for n, (_, _, frame) in enumerate(packets)]
    path.write_bytes(pcap_head() + b"".join(records))
    return path
