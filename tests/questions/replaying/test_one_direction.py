"""One direction of the traffic (SPEC 10.27): nothing may look unanswered only because no answer was captured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import write_policy
from frames import ethernet, ip, tcp
from scripted_conversations import a_policy, capture, write

import sgfast
from sgfast.report.replay import replay_document
from sgfast.report.text import to_text

CASES = int(os.environ.get("SGFAST_ONE_WAY_CASES", "60"))
SEED = int(os.environ.get("SGFAST_ONE_WAY_SEED", "4711"))
def key(row: Any) -> frozenset[tuple[str, int | None]]:
    return frozenset((
        (str(row["initiator"]), row["initiator_port"]), (str(row["responder"]), row["responder_port"]),
        (str(row["protocol"]), row["icmp_type"] is not None),
    ))  # fmt: skip


def denied(policy: sgfast.Policy, path: Path) -> tuple[sgfast.ReplayResult, dict[str, set[Any]]]:
    """The result, and by answer the denied connections."""
    found = policy.replay(path, tables="connections")
    rows = list(found.tables.connections)
    by_answer: dict[str, set[Any]] = {}
    for row in rows:
        if row["verdict"] == "deny":
            by_answer.setdefault(row["answer"], set()).add(key(row))
    return found, by_answer


def test_half_of_a_capture_calls_no_connection_unanswered_that_the_whole_one_saw_answered(tmp_path: Path) -> None:
    """Each half has the packets of one direction between any two addresses (10.27)."""
    broken = halves = 0
    for case in range(CASES):
        rng = np.random.default_rng((SEED, case))
        policy, packets = sgfast.load(a_policy(rng)), capture(rng)
        _, whole = denied(policy, write(tmp_path / "whole.pcap", packets))
        for half in range(2):
            part = [each for each in packets if (each[0] < each[1]) == half]
            if not part:
                continue
            found, by_answer = denied(policy, write(tmp_path / "half.pcap", part))
            note = f"seed {SEED}, case {case}, half {half}"
            assert by_answer.get("answered", set()) <= whole.get("answered", set()), note
            told = to_text(replay_document(found))
            if found.verdicts["deny"] or found.connections["opened"]:
                assert found.evidence.conclusive != "yes", note
            assert "that nobody answered" not in told and "no answer)" not in told, f"{note}\n{told}"
            broken += len(by_answer.get("answered", set()))
            halves += 1
    assert broken > CASES // 4 and halves > CASES, "the cases have become too simple"


A_POLICY = """
version: 1
security_groups: [{name: web, rules: [{direction: inbound, protocol: tcp, ports: 80, source: 0.0.0.0/0}]}]
instances: [{name: web-1, addresses: [10.0.0.5], security_groups: [web]}]
"""
CLIENT, WEB = "198.51.100.7", "10.0.0.5"


@pytest.mark.parametrize("port", [80, 81], ids=["allowed", "denied"])
@pytest.mark.parametrize("mode", ["causal", "verbatim"])
def test_ack_after_the_opener_shows_that_it_was_answered(tmp_path: Path, port: int, mode: Any) -> None:
    frames = [ethernet(ip(CLIENT, WEB, tcp(40000, port, flags))) for flags in ("S", "A", "PA")]
    path = write(tmp_path / "dst.pcap", [(CLIENT, WEB, frame) for frame in frames])
    found = sgfast.replay(write_policy(tmp_path, A_POLICY), path, mode=mode)
    assert found.observed is not None and (found.observed.one_way, found.observed.two_way) == (1, 0)
    assert [each.connections for each in found.broken] == ([1] if port == 81 else [])
    assert found.unanswered == []
    (reason,) = found.evidence.reasons
    assert (reason.code, reason.level) == ("one-direction", "no")


def test_opener_that_is_only_repeated_was_not_answered(tmp_path: Path) -> None:
    frames = [ethernet(ip(CLIENT, WEB, tcp(40000, 81, "S")))] * 3
    path = write(tmp_path / "dst.pcap", [(CLIENT, WEB, frame) for frame in frames])
    found = sgfast.replay(write_policy(tmp_path, A_POLICY), path)
    assert found.broken == [] and found.observed is not None and found.observed.one_way == 0


@pytest.mark.parametrize("first", [0, 1], ids=["initiator first", "responder first"])
def test_capture_that_begins_in_a_connection_has_both_directions(tmp_path: Path, first: int) -> None:
    """Even if it is the only connection, and whoever of its ends is seen first."""
    there, back = (ethernet(ip(CLIENT, WEB, tcp(40000, 80, "PA"))), ethernet(ip(WEB, CLIENT, tcp(80, 40000, "PA"))))
    for policy in (A_POLICY, A_POLICY.replace("ports: 80", "ports: 81")):
        frames = [(CLIENT, WEB, there), (WEB, CLIENT, back)]
        path = write(tmp_path / "some.pcap", (frames if first == 0 else frames[::-1]) * 3)
        found = sgfast.replay(write_policy(tmp_path, policy), path)
        assert found.observed is not None and (found.observed.one_way, found.observed.two_way) == (0, 1)
        assert found.evidence.conclusive == "yes"
