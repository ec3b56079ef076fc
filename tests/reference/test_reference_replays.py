"""Replays of fragments (SPEC 9.4): both engines write the same rows and frames, and count the same hits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import frames as f
import pytest
from captures import block, interface, section
from datagrams import Datagram
from stories import write_changes, write_story

from sgfast import replay
from sgfast.clouds.loading import parse_policy
from sgfast.questions.replaying import Names, ReplayResult
from sgfast.report.captures import PcapngWriter
from sgfast.report.lines import VerdictLines

POLICY = parse_policy("""
version: 1
security_groups: [{name: w, rules: [{id: in, direction: inbound, protocol: udp, ports: 80}]}]
instances: [{name: web, addresses: [10.0.0.5], security_groups: [w]}]
""")
ENDS = ("192.0.2.9", "10.0.0.5")
FAR = Datagram(*ENDS, f.udp(4000, 80, bytes(56)))
SHUT = Datagram(*ENDS, f.udp(4000, 81, bytes(56)), identification=8)

both_engines = pytest.mark.parametrize("engine", ["fast", "reference"])


class FrameRows:
    """Keeps what a frame sink is given."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def begin(self, names: Names) -> None:
        pass

    def write(self, batch: Any, first: int, headers: Any, results: Any) -> None:
        self.frames += [bytes(data) for _, data, *_ in list(batch)[first : first + len(results)]]


def told(captures: Any, **options: Any) -> tuple[ReplayResult, list[tuple[str | None, str | None]]]:
    """Reason of each row, and the rule of its side."""
    lines: list[bytes] = []
    result = replay(POLICY, captures, packets=VerdictLines(lines.append), mode="verbatim", **options)
    rows = [json.loads(line) for line in b"".join(lines).splitlines()]
    assert [row["packet"] for row in rows] == list(range(1, len(rows) + 1))
    assert result.packets == len(rows) == sum(result.verdicts.values())
    return result, [(row["reason"], row["ingress"] and row["ingress"]["rule"]) for row in rows]


def written(folder: Path, *packets: bytes) -> Path:
    """A packet a second."""
    return write_story(folder, [(float(n), f.ethernet(packet)) for n, packet in enumerate(packets)])


@both_engines
def test_rows_come_in_packet_order_and_fragments_are_rule_hits_but_no_connections(tmp_path: Path, engine: Any) -> None:
    capture = written(
        tmp_path, FAR.piece("24-64"), SHUT.piece("0-24+"), SHUT.piece("24-64"), FAR.piece("0-24+"), SHUT.piece("24-64")
    )
    result, rows = told(capture, engine=engine)
    assert rows == [("rule", "in"), ("no-rule", None), ("no-rule", None), ("rule", "in"), ("fragment", None)]
    assert [(hits.connections, hits.packets, hits.bytes) for hits in result.rules] == [(1, 2, 2 * 34 + 64)]
    assert result.connections["opened"] == 1
    assert [warning for warning in result.warnings if "fragment" in warning] == [
        "1 fragment denied: the datagram's first fragment did not come in time (within 30 s, 65,536 packets and 4,096 "
        "datagrams), or its fragments overlap"
    ]


@both_engines
def test_a_change_between_fragments_keeps_the_rule_that_decided_and_names_the_new_one(
    tmp_path: Path, engine: Any
) -> None:
    new = "{id: new, direction: inbound, protocol: udp, ports: 81}"
    changes = write_changes(
        tmp_path, "{at: 1.5, remove_rule: {group: w, rule: in}}", f"{{at: 1.5, add_rule: {{group: w, rule: {new}}}}}"
    )
    capture = written(
        tmp_path, FAR.piece("0-24+"), SHUT.piece("24-64"), FAR.piece("24-64"), SHUT.piece("0-24+"), SHUT.whole()
    )
    result, rows = told(capture, engine=engine, changes=changes)
    assert rows == [("rule", "in"), ("rule", "new"), ("rule", "in"), ("rule", "new"), ("established", "new")]
    assert {hits.rule.id: hits.packets for hits in result.rules} == {"in": 2, "new": 3}


@both_engines
def test_frames_held_back_across_captures_and_link_types_are_the_ones_their_rows_speak_of(
    tmp_path: Path, engine: Any
) -> None:
    """Each file is a batch of its own, and what a batch holds is gone with the next one."""
    parts = [(0, f.ethernet(FAR.piece("24-48+"))), (1, FAR.piece("48-64")), (0, f.ethernet(FAR.piece("0-24+")))]
    captures = []
    for n, (number, data) in enumerate(parts):
        head = b"".join(value.to_bytes(4, "little") for value in (number, 0, n, len(data), len(data)))
        captures.append(tmp_path / f"{n}.pcapng")
        packet = block(6, head + data + bytes(-len(data) % 4))
        captures[-1].write_bytes(section() + interface() + interface(link_type=101) + packet)
    seen = FrameRows()
    copied: list[bytes] = []
    _, rows = told(captures, engine=engine, frames=[seen, PcapngWriter(copied.append, comments=True)])
    assert rows == [("rule", "in")] * 3
    assert seen.frames == [data for _, data in parts]
    # Told of each packet, and of its side.
    assert b"".join(copied).count(b"allow") == 2 * 3
