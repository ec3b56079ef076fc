"""Splitting a capture into files, or copying it into another format, changes no verdict."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import NANO, pcap_head, pcap_record
from diffs import traffic_diff as diff

from sgfast import FrameBatch, TrafficDiff, replay
from sgfast.questions.replaying import Names, ReplayResult
from sgfast.report.lines import ConnectionLines, VerdictLines
from sgfast.traffic.capture import open_capture

PCAPS = Path(__file__).parents[3] / "pcaps"
POLICY, CAPTURE = PCAPS / "shop.yaml", PCAPS / "shop.pcap"


def found(result: ReplayResult) -> list[object]:
    return [
        result.packets, result.bytes, result.verdicts, result.reasons, result.connections, result.rules,
        result.first_time_ns, result.last_time_ns, result.denied, result.broken, result.unanswered,
    ]  # fmt: skip


def records() -> tuple[bytes, list[bytes]]:
    """The capture's file header and its records."""
    data = CAPTURE.read_bytes()
    assert data[:4] == bytes.fromhex("4d3cb2a1")  # nanoseconds, little-endian
    parts, at = [], 24
    while at < len(data):
        size = 16 + int.from_bytes(data[at + 8 : at + 12], "little")
        parts.append(data[at : at + size])
        at += size
    return data[:24], parts


@pytest.mark.parametrize("seed", range(5))
def test_packet_selection_a_capture_into_files_changes_nothing(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    head, parts = records()
    rng = np.random.default_rng(seed)
    cuts = [0, *sorted(rng.integers(0, len(parts) + 1, size=6).tolist()), len(parts)]
    files = []
    for n, (first, last) in enumerate(pairwise(cuts)):
        files.append(tmp_path / f"{n}.pcap")
        files[-1].write_bytes(head + b"".join(parts[first:last]))
    assert found(replay(POLICY, files)) == found(replay(POLICY, [CAPTURE]))


def test_how_far_timestamps_went_back_is_told_whoever_judges(tmp_path: Path) -> None:
    """The largest step back of all packets, however they are divided (SPEC 9.1)."""
    _, parts = records()
    # In milliseconds: back by 12.3 s and by less, then a restart of the clock, then back by a nanosecond.
    times = [100_000, 99_500, 120_000, 107_700, 108_000, 121_000, 30_000, 31_000]
    nanoseconds = [*(ms * 10**6 for ms in times), 31_000 * 10**6 - 1]
    head = pcap_head(magic=NANO)
    stamped = [
        pcap_record(part[16:], time=divmod(ns, 10**9)) for part, ns in zip(parts, nanoseconds, strict=False)
    ]

    def capture(name: str, first: int, end: int) -> Path:
        path = tmp_path / name
        path.write_bytes(head + b"".join(stamped[first:end]))
        return path

    whole = capture("whole.pcap", 0, 9)
    halves = [capture("1.pcap", 0, 3), capture("2.pcap", 3, 9)]
    expected = [
        "4 packets with a timestamp up to 12.3 s before that of an earlier packet: treated as simultaneous with it",
        "1 packet with a timestamp more than 60 s before that of an earlier packet: time went on from there without a "
        "gap",
    ]

    def told(result: ReplayResult | TrafficDiff) -> list[str]:
        return [warning for warning in result.warnings if "with a timestamp" in warning]

    assert told(replay(POLICY, whole)) == expected
    assert told(replay(POLICY, halves)) == expected
    assert told(replay(POLICY, whole, jobs=4)) == expected
    assert told(replay(POLICY, whole, engine="reference")) == expected
    assert told(diff(POLICY, POLICY, whole)) == expected
    for resumed in halves, halves[::-1]:
        replay(POLICY, resumed[0], snapshot=tmp_path / "state")
        result = replay(POLICY, resumed[1], resume=tmp_path / "state")
        assert told(result) == told(replay(POLICY, resumed))
    last = capture("3.pcap", 7, 9)
    assert told(replay(POLICY, last)) == [expected[0].replace("4 packets", "1 packet").replace("12.3", "0.000000001")]


@pytest.mark.parametrize("at_once", [1, 7, 1 << 16])
def test_connections_still_open_are_reported_once_however_many_at_a_time(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[bytes] = []
    monkeypatch.setattr("sgfast.questions.replaying.engine_runner.FLOWS_AT_ONCE", at_once)
    told = replay(POLICY, CAPTURE, flows=ConnectionLines(lines.append))
    text = b"".join(lines).decode()
    assert text.count("\n") == sum(told.connections.values()) > 20
    assert len(set(text.splitlines())) == text.count("\n")
    assert found(told) == found(replay(POLICY, CAPTURE))


def test_standard_input_is_a_capture_like_any_other() -> None:
    command = [sys.executable, "-m", "sgfast", "replay", str(POLICY), "--format", "json"]
    whole = subprocess.run([*command, str(CAPTURE)], capture_output=True, check=True)
    piped = subprocess.run([*command, "-"], input=CAPTURE.read_bytes(), capture_output=True, check=True)

    def steady(output: bytes) -> list[bytes]:
        return [line for line in output.splitlines() if b"_seconds" not in line and b"per_second" not in line]

    assert len(steady(whole.stdout)) > 10
    assert steady(piped.stdout) == steady(whole.stdout)


def test_microseconds_instead_of_nanoseconds_change_no_verdict(tmp_path: Path) -> None:
    _, parts = records()
    coarse = tmp_path / "coarse.pcap"
    body = b""
    for part in parts:
        body += part[:4] + (int.from_bytes(part[4:8], "little") // 1000).to_bytes(4, "little") + part[8:]
    coarse.write_bytes(pcap_head() + body)
    with open_capture(str(coarse)) as reader:
        assert reader.format == "pcap"
    assert found(replay(POLICY, [coarse]))[:6] == found(replay(POLICY, [CAPTURE]))[:6]


def test_several_sinks_are_told_the_same_and_frames_come_with_their_rows() -> None:
    first: list[bytes] = []
    second: list[bytes] = []

    class Frames:
        def __init__(self) -> None:
            self.seen: list[tuple[int, int]] = []

        def begin(self, names: Names) -> None: ...

        def write(self, batch: FrameBatch, first: int, headers: Any, results: Any) -> None:
            frames = list(batch)[first : first + len(results)]
            assert len(frames) == len(headers) == len(results)
            self.seen += [(time_ns, wire) for time_ns, _, wire, _ in frames]
            assert [(int(row["time_ns"]), int(row["wire"])) for row in headers] == self.seen[-len(frames) :]

    frames = Frames()
    sinks = [VerdictLines(first.append), VerdictLines(second.append)]
    result = replay(POLICY, CAPTURE, changes=PCAPS / "shop.changes.yaml", packets=sinks, frames=frames)
    assert first == second and len(frames.seen) == result.packets == b"".join(first).count(b"\n")
