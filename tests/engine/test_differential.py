"""Engine = reference model, packet by packet (the longer run: ``python tests/support/differential.py 20000000``)."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from differential import differential
from effort import some

PACKETS = int(os.environ.get("SGFAST_DIFFERENTIAL_PACKETS") or some(45_000, 1_000_000))
SEED = int(os.environ.get("SGFAST_DIFFERENTIAL_SEED", "2025"))

# These must have come up in a million packets, or the comparison proves little.
MINIMUM = {
    **{("verdict", word): 2000 for word in ("allow", "deny", "moot", "out-of-scope", "local", "exempt", "not-ip")},
    **{
        ("reason", word): 1000
        for word in ("rule", "established", "related", "inferred", "no-rule", "deny-rule", "invalid", "midstream",
                     "table-full", "vpc-isolated", "malformed", "truncated", "fragment", "opener-denied")
    },
    ("reason", "inferred"): 300,
    ("reason", "infrastructure"): 300,
    **{("stateless", word): 300 for word in ("rule", "no-rule", "deny-rule")},
}  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> Counter[Any]:
    print(f"seed {SEED}, {PACKETS} packets")
    return differential(PACKETS, SEED, busy=some(3, 8))


def test_engine_judges_as_the_reference(seen: Counter[Any]) -> None:
    assert seen["packets"] >= 0.9 * PACKETS


def test_every_verdict_and_reason_was_compared(seen: Counter[Any]) -> None:
    share = PACKETS / 1_000_000
    assert {key: seen[key] for key, least in MINIMUM.items() if seen[key] < least * share} == {}


def test_every_tcp_transition_was_compared(seen: Counter[Any]) -> None:
    states = ("SS", "SR", "ES", "FW", "CW", "LA", "TW", "CL", "S2", "R2")
    kinds = ("syn", "synack", "fin", "ack", "rst")
    met = {(key[1], key[2]) for key in seen if key[0] == "tcp"}
    missing = {(s, f"{way} {kind}") for s in states for way in ("original", "reply") for kind in kinds} - met
    assert missing == set() or PACKETS < 500_000


def test_engine_judges_as_the_reference_while_the_policy_changes() -> None:
    packets = PACKETS // 3
    print(f"seed {SEED}, {packets} packets")
    seen = differential(packets, SEED, busy=some(2, 8), changing=True)
    share = packets / 250_000
    assert seen["packets"] >= 0.9 * packets
    assert seen["open"] >= 400 * share
    assert seen["disconnected"] >= 200 * share and seen["reason", "disconnected"] >= 500 * share
    assert seen["disconnected", "forget-unmatched"] >= 20 * share or packets < 150_000
    kinds = {kind: seen["change", kind] for kind in (
        "AddRule", "RemoveRule", "ModifyRule", "AddMember", "RemoveMember", "AddInstance", "RemoveInstance",
        "AddAddress", "RemoveAddress", "AddGroup", "RemoveGroup", "AddPeering", "RemovePeering", "SetAddressGroup",
    )}  # fmt: skip
    assert {kind: n for kind, n in kinds.items() if n < 4 * share} == {}


def test_half_the_packets_belong_to_connections(seen: Counter[Any]) -> None:
    judged = seen["verdict", "allow"] + seen["verdict", "deny"] - seen["past stateless filters"]
    assert seen["reason", "established"] >= judged / 2
