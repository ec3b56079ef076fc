"""A generated account of many instances in many groups, and a capture of their flows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from captures import pcap_head, pcap_record
from frames import ethernet, ip, tcp

INSTANCES, GROUPS = 300, 50
#: Services that rules allow, and services that no rule allows.
ALLOWED, DENIED = (443, 5432), (22, 3306, 9200)
#: Offsets in a record of a pcap: its time, and the fields of its frame.
_SECONDS, _MICROSECONDS, _SOURCE, _DESTINATION, _SOURCE_PORT, _DESTINATION_PORT = 0, 4, 42, 46, 50, 52


def account(folder: Path, flows: int, seed: int = 20260101) -> tuple[Path, Path]:
    """Write a policy and a capture, and return their paths. A few pairs of groups have most of the flows. Every flow is
    answered, two thirds are denied, and many pairs of groups have equally many flows.
    """
    groups = [f"team-{n:02}" for n in range(GROUPS)]
    allow = ", ".join(f"{{direction: inbound, protocol: tcp, ports: {port}}}" for port in ALLOWED)
    lines = ["version: 1", "security_groups:"]
    lines += [f"  - {{name: {group}, rules: [{allow}, {{direction: outbound, protocol: all}}]}}" for group in groups]
    lines += ["instances:"]
    lines += [
        f"  - {{name: node-{n}, addresses: [{_address(n)}], security_groups: [{groups[n % GROUPS]}]}}"
        for n in range(INSTANCES)
    ]
    policy = folder / "account.yaml"
    policy.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rng = np.random.default_rng(seed)
    pairs = (rng.pareto(1, flows) * 20).astype(np.int64) % (GROUPS * (GROUPS - 1))
    source = pairs // (GROUPS - 1)
    destination = (source + 1 + pairs % (GROUPS - 1)) % GROUPS
    member = rng.integers(0, INSTANCES // GROUPS, (2, flows)) * GROUPS
    ports = np.array((*ALLOWED[:1], *DENIED[:2]))[pairs % 3]
    records = np.tile(
        np.frombuffer(pcap_record(ethernet(ip("10.0.0.0", "10.0.0.0", tcp(1024, 443, "S")))), np.uint8), (flows, 2, 1)
    )
    answer = pcap_record(ethernet(ip("10.0.0.0", "10.0.0.0", tcp(443, 1024, "SA"))))
    records[:, 1] = np.frombuffer(answer, np.uint8)
    addresses = 0x0A000001 + np.stack([source + member[0], destination + member[1]])
    number = np.arange(flows)
    # No two flows between the same instances within 60,000 have the same ports.
    client_ports = 1024 + number % 60_000
    for place, (a, b, c, d) in enumerate(((0, 1, client_ports, ports), (1, 0, ports, client_ports))):
        _put(records[:, place], _SECONDS, number // 50, "<u4")
        _put(records[:, place], _MICROSECONDS, number % 50 * 2 + place, "<u4")
        _put(records[:, place], _SOURCE, addresses[a], ">u4")
        _put(records[:, place], _DESTINATION, addresses[b], ">u4")
        _put(records[:, place], _SOURCE_PORT, c, ">u2")
        _put(records[:, place], _DESTINATION_PORT, d, ">u2")
    capture = folder / "account.pcap"
    capture.write_bytes(pcap_head() + records.tobytes())
    return policy, capture


def _address(number: int) -> str:
    return f"10.0.{(number + 1) >> 8}.{(number + 1) & 255}"


def _put(records: np.ndarray, offset: int, values: np.ndarray, kind: str) -> None:
    field = values.astype(kind).view(np.uint8).reshape(len(values), -1)
    records[:, offset : offset + field.shape[1]] = field
