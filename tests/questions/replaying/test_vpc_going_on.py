"""Replays of packets of several VPCs that stop, and go on from a snapshot (SPEC 7.5, 9.13)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import sgfast, write_capture, write_policy
from datagrams import Datagram
from effort import some
from frames import ethernet, udp
from test_snapshot import rewrite
from vpcs import CHANGES, CLIENT, DOCUMENT, SHARED, SYN, Line, lines, mirrored, text_of, traffic, written

from sgfast import ReplayResult, load_snapshot
from sgfast.base.errors import SnapshotError
from sgfast.clouds.loading import parse_policy
from sgfast.policy.change_file import parse_changes


def told_by(result: ReplayResult) -> ReplayResult:
    """But for what is each replay's own."""
    return replace(result, elapsed_seconds=0.0, earlier_packets=0, captures=(), decapsulated=None)


@pytest.mark.parametrize("seed", range(some(3, 6)))
def test_a_replay_that_stops_and_goes_on_is_one_replay(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    # The last VPC has its first packets late; some times go backwards.
    packets = [
        (ms, 1001 if vpc == 1004 and n < 400 else vpc, frame) for n, (ms, vpc, frame) in enumerate(traffic(rng, 1500))
    ]
    cuts = sorted(rng.integers(0, 1500, size=3).tolist())
    parts = [packets[first:end] for first, end in zip([0, *cuts], [*cuts, 1500], strict=True)]
    paths = [written(tmp_path / f"{n}.pcap", part) for n, part in enumerate(parts)]
    policy = parse_policy(DOCUMENT)
    options: dict[str, Any] = {
        "changes": parse_changes(CHANGES) if seed % 2 else None, "mode": ("causal", "verbatim")[seed % 3 == 0],
    }  # fmt: skip
    whole, expected, flows = lines(policy, *paths, **options)
    found: list[Line] = []
    ended: list[Line] = []
    state = None
    for n, path in enumerate(paths):
        result, more, over = lines(
            policy, path, resume=state, snapshot=tmp_path / f"{n}.state" if n < 3 else None,
            jobs=int(rng.integers(1, 4)), **options,
        )  # fmt: skip
        state = tmp_path / f"{n}.state"
        found += more
        ended += over
    assert told_by(result) == told_by(whole)
    assert [{**line, "packet": n} for n, line in enumerate(found, 1)] == expected
    assert sorted(map(text_of, ended)) == sorted(map(text_of, flows))
    assert result.packets == 1500 and result.verdicts["allow"] > 50 and len(result.changes) == 3 * (seed % 2)


def test_fragments_that_wait_when_a_replay_stops_are_told_once(tmp_path: Path) -> None:
    later, first = Datagram(CLIENT, SHARED, udp(9, 53, bytes(60))).pieces("48-68 0-48+")
    paths = [
        write_capture(tmp_path, mirrored(SYN, 1004), mirrored(ethernet(later), 1001), name="1.pcap"),
        write_capture(tmp_path, mirrored(ethernet(first), 1001), mirrored(SYN, 1001), name="2.pcap"),
    ]
    policy = parse_policy(DOCUMENT)
    _, found, _ = lines(policy, paths[0], snapshot=tmp_path / "state")
    result, more, _ = lines(policy, paths[1], resume=tmp_path / "state")
    assert [line["reason"] for line in found + more] == ["no-rule", "fragment", "no-rule", "rule"]
    assert result.packets == 4 and sum(result.verdicts.values()) == 4


def test_a_snapshot_fits_only_how_packets_were_dealt_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, capture = write_policy(tmp_path, DOCUMENT), write_capture(tmp_path, mirrored(SYN, 1001))
    mapped, seen_from_a = tmp_path / "mapped.state", tmp_path / "a.state"
    arguments = ("replay", policy, capture, "--decap", "vxlan")
    assert sgfast(capsys, *arguments, "--snapshot", mapped).status == 0
    assert sgfast(capsys, *arguments, "--vpc", "a", "--snapshot", seen_from_a).status == 0
    run = sgfast(capsys, *arguments, "--vpc", "a", "--resume", mapped)
    assert run.status == 2 and run.one_line().endswith("that replay had --vpc (none), not a")
    run = sgfast(capsys, *arguments, "--resume", seen_from_a)
    assert run.status == 2 and run.one_line().endswith("that replay had --vpc a, not (none)")
    assert "2 packets" in sgfast(capsys, *arguments, "--resume", mapped).out
    with pytest.raises(SnapshotError, match="snapshot of a replay by VPC"):
        write_capture(tmp_path, mirrored(SYN, 1001), mirrored(SYN, 1004))
        assert sgfast(capsys, *arguments, "--snapshot", mapped).status == 0
        load_snapshot(mapped)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("others"),
        lambda about: about["others"].pop(),
        lambda about: about["others"].append({}),
        lambda about: about["others"].append(about["others"][0]),
        lambda about: about["others"][0].update(vpc="a"),
        lambda about: about["others"][0].update(vpc="nowhere"),
        lambda about: about["others"][0].pop("plane"),
        lambda about: about["replay"].pop("dealt"),
        lambda about: about["replay"].update(dealt=7),
        lambda about: about["replay"]["dealt"].update(vpcs=[0, 7]),
        lambda about: about["replay"]["dealt"].update(vpcs=[0, 0]),
        lambda about: about["replay"]["dealt"].update(vpcs=[2, 0]),
        lambda about: about["replay"]["dealt"].update(changes=[[0]]),
        lambda about: about["replay"]["dealt"]["clock"].pop(),
        lambda about: about["replay"]["dealt"]["clock"].__setitem__(1, 1 << 63),
        lambda about: about["replay"]["dealt"]["clock"].__setitem__(5, -1),
        lambda about: about["replay"]["dealt"]["clock"].__setitem__(6, 60 * 10**9 + 1),
        lambda about: about["replay"]["dealt"]["clock"].__setitem__(7, 1 << 64),
    ],
)
def test_snapshots_of_several_engines_that_do_not_fit_are_one_line(
    change: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = write_policy(tmp_path, DOCUMENT)
    capture = write_capture(tmp_path, mirrored(SYN, 1001), mirrored(SYN, 1004))
    state = tmp_path / "some.state"
    assert sgfast(capsys, "replay", policy, capture, "--decap", "vxlan", "--snapshot", state).status == 0
    rewrite(state, tmp_path / "forged.state", lambda about, arrays: change(about))
    run = sgfast(capsys, "replay", policy, capture, "--decap", "vxlan", "--resume", tmp_path / "forged.state")
    assert run.status == 2 and "forged.state: " in run.one_line()
