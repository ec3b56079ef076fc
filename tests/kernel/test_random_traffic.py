"""Engine = kernel on random policies and traffic.

Longer: ``PYTHONPATH=tests/support python tests/kernel/random_traffic.py 5000000``.
"""

from __future__ import annotations

import os

import pytest
from effort import some
from oracle import missing
from random_traffic import random_traffic

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"kernel oracle: {REASON}")

PACKETS = int(os.environ.get("SGFAST_KERNEL_PACKETS") or some(12_000, 200_000))
SEED = int(os.environ.get("SGFAST_KERNEL_SEED", "2"))


def test_engine_judges_as_the_kernel() -> None:
    print(f"seed {SEED}, {PACKETS} packets")
    seen, hits = random_traffic(PACKETS, SEED, per_policy=min(5000, PACKETS // 4))
    print(f"{seen['packets']} packets, {seen['both sides']} past two filters; excused: {dict(hits)}")
    assert seen["packets"] >= 0.9 * PACKETS
    assert sum(hits.values()) < 0.01 * seen["packets"]
    share = PACKETS / 200_000
    assert seen["allow", "established"] > 0.3 * seen["packets"]
    least = {
        ("allow", "rule"): 4000, ("allow", "related"): 1000, ("deny", "no-rule"): 1000, ("deny", "deny-rule"): 100,
        ("deny", "invalid"): 4000, ("deny", "midstream"): 4000, ("deny", "malformed"): 1000,
        ("deny", "vpc-isolated"): 400, "both sides": 4000,
    }  # fmt: skip
    assert {what: seen[what] for what, number in least.items() if seen[what] < number * share} == {}


def test_engine_judges_as_a_kernel_that_tracks_nothing_where_groups_are_stateless() -> None:
    packets = PACKETS // 3
    print(f"seed {SEED}, {packets} packets")
    seen, hits = random_traffic(packets, SEED, per_policy=1000, stateless=True)
    assert seen["packets"] >= 0.6 * packets
    assert not hits, "with no connections there is nothing to differ about"
    assert seen["deny", "no-rule"] > 0.05 * seen["packets"] and seen["deny", "deny-rule"] > 0.005 * seen["packets"]
    others = {what for what in seen if isinstance(what, tuple) and what[0] in ("allow", "deny")}
    assert others == {("allow", "rule"), ("deny", "no-rule"), ("deny", "deny-rule"), ("deny", "reply-denied"),
                      ("deny", "vpc-isolated")}
