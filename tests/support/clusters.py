"""Compare replays on a cluster with the same replays in one process."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
from captures import NANO, pcap_head, pcap_record
from effort import EXHAUSTIVE
from frames import ethernet, icmp_error, ip, tcp
from traffic import SECOND

from sgfast import replay
from sgfast.clouds.loading import parse_policy
from sgfast.questions.replaying import ReplayResult
from sgfast.report.lines import ConnectionLines, VerdictLines

SHARDS = (1, 2, 7) if EXHAUSTIVE else (2, 7)

#: The fields of a result that must not depend on where packets were judged.
SAME = (
    "packets", "bytes", "verdicts", "reasons", "connections", "rules", "first_time_ns", "last_time_ns", "left_out",
    "decapsulated", "damaged", "kinds", "changes_left",
)  # fmt: skip


def told(policy: Any, captures: Any, **options: Any) -> tuple[ReplayResult, list[bytes], list[bytes]]:
    """Return the result of a replay, its rows of packets in order, and its rows of connections."""
    packets: list[bytes] = []
    flows: list[bytes] = []
    result = replay(
        policy, captures, packets=VerdictLines(packets.append), flows=ConnectionLines(flows.append), **options
    )
    return result, b"".join(packets).splitlines(), sorted(b"".join(flows).splitlines())


def assert_same(many: Any, one: Any) -> None:
    for name in SAME:
        assert getattr(many[0], name) == getattr(one[0], name), name
    # The division of captures into tasks decides which packets are checked for copies.
    warnings = [[warning for warning in each[0].warnings if "copies of earlier" not in warning] for each in (many, one)]
    assert warnings[0] == warnings[1]
    numberless = [[changed(change, number=0) for change in each[0].changes] for each in (many, one)]
    assert numberless[0] == numberless[1]
    for line, expected in zip(many[1], one[1], strict=True):
        assert line == expected
    assert many[2] == one[2]


def same_on(client: Any, policy: Any, captures: Any, shards: Sequence[int] = SHARDS, **options: Any) -> Any:
    one = told(policy, captures, **options)
    for number in shards:
        assert_same(told(policy, captures, client=client, shards=number, **options), one)
    return one


def write(path: Path, frames: Sequence[tuple[int, bytes]], *, wires: Sequence[int] | None = None) -> Path:
    """Write a capture of (time in nanoseconds, frame) pairs, which is compressed if its name says so."""
    wires = wires or [len(frame) for _, frame in frames]
    records = [
        pcap_record(frame, time=(time_ns // SECOND, time_ns % SECOND), wire=wire)
        for (time_ns, frame), wire in zip(frames, wires, strict=True)
    ]
    data = pcap_head(magic=NANO) + b"".join(records)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


DOCUMENT = """
version: 1
security_groups:
  - name: web
    rules:
      - {id: http, direction: inbound, protocol: tcp, ports: 80}
      - {id: dns, direction: inbound, protocol: udp, ports: 53}
      - {id: out, direction: outbound, protocol: all}
instances:
  - {name: web-1, addresses: [10.0.0.5, 10.0.0.6], security_groups: [web]}
"""
POLICY = parse_policy(DOCUMENT)
CLIENT, WEB = "198.51.100.9", "10.0.0.5"
BASE = 1_700_000_000 * SECOND


def packets(number: int, seed: int, *, peers: int = 20) -> list[bytes]:
    """Make openers and replies, some of them denied, and some ICMP errors."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(number):
        peer, here = f"198.51.100.{rng.integers(peers)}", str(rng.choice([WEB, "10.0.0.6"]))
        ports = int(rng.integers(40000, 40010)), int(rng.choice([80, 80, 443]))
        flags = str(rng.choice(["S", "SA", "A", "FA", "R"]))
        packet = ip(peer, here, tcp(*ports, flags)) if rng.random() < 0.6 else ip(here, peer, tcp(*ports[::-1], flags))
        if rng.random() < 0.1:
            packet = ip("203.0.113.1", peer, icmp_error(3, 1, packet))
        made.append(ethernet(packet))
    return made


def spread(frames: Sequence[bytes], apart_ns: int = SECOND // 1000) -> list[tuple[int, bytes]]:
    return [(BASE + n * apart_ns, frame) for n, frame in enumerate(frames)]


def captures_in(folder: Path, number: int = 4, each: int = 100, *, ending: str = ".pcap") -> list[Path]:
    """Write captures with equal numbers of packets, one packet every millisecond."""
    folder.mkdir(exist_ok=True)
    frames = spread(packets(number * each, 4))
    return [write(folder / f"{n}{ending}", frames[n * each : n * each + each]) for n in range(number)]
