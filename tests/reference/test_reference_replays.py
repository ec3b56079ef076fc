"""What a replay through the reference model makes of fragments (SPEC 9.4): its rows, hits and frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import frames as f
from captures import block, interface, pcap_head, pcap_record, section
from datagrams import Datagram
from reference_scene import (
    ADDRESSES,
    OPEN,
    SHUT,
    inbound,
    instance,
)

from sgfast.policy.model import Policy, Rule, SecurityGroup
from sgfast.replaying import Names, replay
from sgfast.report.captures import PcapngWriter
from sgfast.report.lines import VerdictLines

POLICY = Policy(
    security_groups=(SecurityGroup("w", (inbound(4, 17, 80), Rule("in6", "inbound", 6, 17, ((80, 80),)))),),
    instances=(instance("web", ["w"], ADDRESSES[4]["web"], ADDRESSES[6]["web"]),),
)
FAR = Datagram("192.0.2.9", "10.0.0.5", OPEN)


class FrameRows:
    """Keeps what a frame sink is given: each frame's bytes with its verdict."""

    def __init__(self) -> None:
        self.rows: list[tuple[bytes, int]] = []

    def begin(self, names: Names) -> None:
        pass

    def write(self, batch, first, headers, results) -> None:
        frames = [bytes(data) for _, data, *_ in list(batch)[first : first + len(results)]]
        self.rows += zip(frames, results["verdict"].tolist(), strict=True)


def written(folder: Path, packets: list[tuple[float, bytes]]) -> Path:
    path = folder / "some.pcap"
    records = [
        pcap_record(f.ethernet(packet), time=(1000 + int(at), round(at % 1 * 10**6))) for at, packet in packets
    ]
    path.write_bytes(pcap_head() + b"".join(records))
    return path


def replayed(capture: Any, policy: Policy = POLICY, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    lines: list[bytes] = []
    result = replay(policy, capture, engine="reference", packets=VerdictLines(lines.append), **options)
    return result, [json.loads(line) for line in b"".join(lines).splitlines()]


def test_rows_come_in_packet_order_though_some_are_pending(tmp_path):
    other = Datagram("192.0.2.9", "10.0.0.5", SHUT, identification=8)
    packets = [
        FAR.piece("24-64"), other.piece("0-24+"), other.piece("24-64"), FAR.piece("0-24+"),
        other.piece("24-64"), f.ipv4("192.0.2.9", "10.0.0.5", f.udp(1, 80)),
    ]  # fmt: skip
    result, rows = replayed(written(tmp_path, [(n, packet) for n, packet in enumerate(packets)]))
    assert [row["packet"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["reason"] for row in rows] == ["rule", "no-rule", "no-rule", "rule", "fragment", "rule"]
    assert [row["ingress"]["rule"] for row in rows] == ["in", None, None, "in", None, "in"]
    assert result.packets == 6 and result.verdicts["allow"] == 3 and result.verdicts["deny"] == 3
    assert result.reasons == {"rule": 3, "no-rule": 2, "fragment": 1}
    assert [warning for warning in result.warnings if "fragment" in warning] == [
        "1 fragment denied: the datagram's first fragment did not come in time (within 30 s, 65,536 packets and 4,096 "
        "datagrams), or its fragments overlap"
    ]


def test_later_fragments_are_rule_hits_but_no_connections(tmp_path):
    result, _ = replayed(written(tmp_path, [(n, piece) for n, piece in enumerate(FAR.pieces("24-48+ 0-24+ 48-64"))]))
    hits = {hits.rule.id: (hits.connections, hits.packets, hits.bytes) for hits in result.rules}
    assert hits == {"in": (1, 3, 3 * 34 + 64), "in6": (0, 0, 0)}
    assert result.connections["opened"] == 1
    assert not [warning for warning in result.warnings if "fragment" in warning]


def test_rule_that_is_gone_still_counts_the_fragments_it_decided(tmp_path):
    changes = tmp_path / "changes.yaml"
    changes.write_text("changes:\n  - {at: 1.5, remove_rule: {group: w, rule: in}}\n")
    capture = written(tmp_path, [(n, piece) for n, piece in enumerate(FAR.pieces("0-24+ 24-48+ 48-64"))])
    result, rows = replayed(capture, changes=changes)
    assert [(row["reason"], row["ingress"]["rule"]) for row in rows] == [("rule", "in")] * 3
    assert [hits.packets for hits in result.rules if hits.rule.id == "in"] == [3]


def test_rows_held_back_while_the_policy_changes_bear_the_new_names(tmp_path):
    changes = tmp_path / "changes.yaml"
    changes.write_text(
        "changes:\n  - {at: 2, add_rule: {group: w, rule: "
        "{id: new, direction: inbound, protocol: udp, ports: 81, source: 0.0.0.0/0}}}\n"
    )
    shut = Datagram("192.0.2.9", "10.0.0.5", SHUT)
    packets = [shut.whole(), shut.piece("24-64"), shut.whole(), shut.piece("0-24+"), shut.whole()]
    capture = written(tmp_path, [(n, packet) for n, packet in enumerate(packets)])
    _, rows = replayed(capture, changes=changes, mode="verbatim")
    assert [row["packet"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["ingress"]["rule"] for row in rows] == [None, "new", "new", "new", "new"]
    assert [row["reason"] for row in rows] == ["no-rule", "established", "rule", "established", "established"]


def test_frames_held_back_across_captures_are_the_ones_their_rows_speak_of(tmp_path):
    """Each file is a batch of its own, and what a batch holds is gone with the next one."""
    captures, frames = [], []
    for n, packet in enumerate([FAR.piece("24-48+"), FAR.piece("48-64"), FAR.piece("0-24+"), f.udp(1, 2)]):
        captures.append(written(tmp_path, [(n, packet)]).rename(tmp_path / f"{n}.pcap"))
        frames.append(f.ethernet(packet))
    seen, copied = FrameRows(), []
    _, rows = replayed(captures, frames=[seen, PcapngWriter(copied.append, comments=True)])
    assert [frame for frame, _ in seen.rows] == frames
    assert [row["verdict"] for row in rows] == ["allow", "allow", "allow", "not-ip"]
    # Of the packet and of its side.
    assert b"".join(copied).count(b"allow") == 2 * 3


def test_held_back_frames_of_several_link_types(tmp_path):
    records = [(0, f.ethernet(FAR.piece("24-48+"))), (1, FAR.piece("48-64")), (0, f.ethernet(FAR.piece("0-24+")))]
    path = tmp_path / "some.pcapng"
    path.write_bytes(
        section() + interface() + interface(link_type=101) + b"".join(enhanced(n, data) for n, data in records)
    )
    seen = FrameRows()
    result, rows = replayed([path], frames=seen)
    assert result.damaged is None and [row["reason"] for row in rows] == ["rule"] * 3
    assert [frame for frame, _ in seen.rows] == [data for _, data in records]


def test_capture_that_ends_with_pending_fragments_tells_of_all_packets(tmp_path):
    packets = [FAR.piece("24-64"), FAR.whole(), ip6_piece(), FAR.whole()]
    result, rows = replayed(written(tmp_path, [(n, packet) for n, packet in enumerate(packets)]))
    assert [row["reason"] for row in rows] == ["fragment", "rule", "fragment", "established"]
    assert result.packets == len(rows) == sum(result.verdicts.values())


def ip6_piece() -> f.Layer:
    return Datagram("2001:db8:ff::9", "2001:db8::5", OPEN).piece("24-64")


def enhanced(interface_number: int, data: bytes) -> bytes:
    head = b"".join(number.to_bytes(4, "little") for number in (interface_number, 0, 0, len(data), len(data)))
    return block(6, head + data + bytes(-len(data) % 4))
