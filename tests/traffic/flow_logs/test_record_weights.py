"""Packets and bytes of an answer about flow logs are those of the records, in every table (SPEC 10.30)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from effort import some
from flow_logs import FIELDS, flow
from logged_conversations import OTHERS, SERVICES, a_policy

from sgfast import diff, replay
from sgfast.clouds.loading import parse_policy
from sgfast.questions.replaying import ReplayResult
from sgfast.rows.row_schema import ANSWERS

GIB = 1 << 30
PACKETS = (1, 2, 3, 1000, (1 << 32) - 1, 1 << 32, 5 << 32)
SYN, SYNACK, FIN, RST = 2, 18, 1, 4


def a_log(rng: np.random.Generator) -> tuple[list[str], int, int]:
    """Return records that are all judged, and their packets and bytes."""
    lines: list[tuple[int, str]] = []
    totals: Counter[str] = Counter()

    def add(ends: str, start: int, end: int, flags: int, protocol: int, action: str, packets: int, octets: int) -> None:
        totals.update(packets=packets, octets=octets)
        lines.append((start, flow(
            ends, start, end, protocol=protocol, flags=flags, action=action, packets=packets, octets=octets
        )))  # fmt: skip

    for number in range(100):
        ends = [f"10.0.{'0.5' if rng.random() < 0.5 else '1.7'}", str(rng.choice(OTHERS[:2]))]
        ends = ends[:: rng.choice((1, -1))]
        there = f"{ends[0]}:{33_000 + number} > {ends[1]}:{rng.choice(SERVICES)}"
        back = " > ".join(reversed(there.split(" > ")))
        protocol, at = int(rng.choice((6, 17, 132))), int(rng.integers(0, 5000))
        action = "REJECT" if rng.random() < 0.2 else "ACCEPT"
        for turn in range(rng.integers(1, 4)):
            end = at + int(rng.choice((0, 1, 59, 600)))
            flags = SYN if turn == 0 or action == "REJECT" else int(rng.choice((0, FIN, RST, SYN | FIN)))
            packets, octets = int(rng.choice(PACKETS)), int(rng.choice((40, int(rng.integers(1, 999 * GIB)), 4 * GIB)))
            octets = min(octets, packets * 65_535)
            add(there, at, end, flags if protocol == 6 else 0, protocol, action, packets, octets)
            if action == "ACCEPT" and rng.random() < 0.7:
                flags = int(rng.choice((SYNACK, SYNACK | FIN, 0, RST)))
                packets = int(rng.integers(99_999, 999_999))
                add(back, at, end, flags if protocol == 6 else 0, protocol, action, packets, 5 * GIB)
            at = end + int(rng.choice((1, 20, 100, 700)))
    return [line for _, line in sorted(lines)], totals["packets"], totals["octets"]


class Rows:
    """A sink that adds up connections, and apart from them the attempts that the cloud rejected."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()

    def begin(self, names: Any) -> None:
        pass

    def write(self, flows: Any) -> None:
        is_rejected = flows["answer"] == ANSWERS.index("rejected")
        for totals, rows in ((self.totals, flows[~is_rejected]), (self.rejected, flows[is_rejected])):
            totals.update(packets=int(rows["packets"].sum()), octets=int(rows["bytes"].sum()))


def assert_adds_up(result: ReplayResult) -> None:
    denied = result.verdicts["deny"]
    assert sum(result.verdicts.values()) == sum(result.reasons.values()) == result.packets
    assert sum(row.packets for row in result.denied) == int(result.kinds.rows["packets"].sum()) == denied
    assert sum(row.bytes for row in result.denied) == int(result.kinds.rows["bytes"].sum())
    by_rules = result.verdicts["allow"] + result.reasons.get("deny-rule", 0)
    assert sum(hits.packets for hits in result.rules) == by_rules


def test_nothing_is_lost_and_nothing_counts_twice(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    for seed in range(some(8, 300)):
        rng = np.random.default_rng([20261202, seed])
        policy, other = (parse_policy(json.dumps(a_policy(rng))) for _ in range(2))
        lines, packets, octets = a_log(rng)
        path.write_text("".join(f"{line}\n" for line in (FIELDS, *lines)))
        rows = Rows()
        result = replay(policy, path, flows=rows, jobs=1 + 2 * (seed % 2))
        rejected = result.rejected
        assert rejected is not None and result.records is not None, f"seed {seed}"
        assert result.records.judged + result.records.rejected == len(lines), f"seed {seed}: {result.records}"
        assert result.packets + rejected.packets == packets, f"seed {seed}"
        assert result.bytes + rejected.bytes == octets, f"seed {seed}"
        assert_adds_up(result)
        assert_adds_up(rejected)
        # Packets that are answers to what was denied, or that open nothing, belong to no connection.
        assert result.verdicts["allow"] <= rows.totals["packets"] <= result.packets, f"seed {seed}"
        assert rejected.verdicts["allow"] <= rows.rejected["packets"] <= rejected.packets, f"seed {seed}"
        assert rows.totals["octets"] <= result.bytes and sum(hits.bytes for hits in result.rules) <= result.bytes

        traffic = diff(policy, other, path).traffic
        assert traffic is not None
        assert (traffic.packets, traffic.bytes) == (packets, octets), f"seed {seed}"
        assert sum(traffic.verdicts.values()) == packets, f"seed {seed}"
        changed = sum(
            number for (old, new), number in traffic.verdicts.items() if (old == "allow") != (new == "allow")
        )
        assert sum(group.packets for group in traffic.groups) <= changed, f"seed {seed}"


def test_bytes_of_a_record_are_those_of_its_rows(tmp_path: Path) -> None:
    """A record of more bytes than fit in 32 bits, and one of an attempt that the cloud rejected."""
    path = tmp_path / "flows.log"
    lines = [
        flow("10.0.0.5:50000 > 198.51.100.7:53", 0, 600, packets=9_000_000, octets=12 * GIB),
        flow("10.0.0.5:50001 > 198.51.100.7:53", 0, 600, packets=3, octets=5 * GIB, action="REJECT"),
    ]
    path.write_text("".join(f"{line}\n" for line in (FIELDS, *lines)))
    policy = parse_policy(json.dumps({
        "version": 1, "security_groups": [{"name": "g", "rules": [{"direction": "outbound", "protocol": "udp"}]}],
        "instances": [{"name": "i", "addresses": ["10.0.0.5"], "security_groups": ["g"]}],
    }))  # fmt: skip
    rows = Rows()
    result = replay(policy, path, flows=rows)
    assert dict(rows.totals) == {"packets": 9_000_000, "octets": 12 * GIB}
    assert [(hits.packets, hits.bytes) for hits in result.rules] == [(9_000_000, 12 * GIB)]
    assert result.rejected is not None
    assert (result.rejected.packets, result.rejected.bytes) == (3, 5 * GIB)
    assert dict(rows.rejected) == {"packets": 3, "octets": 5 * GIB}
