"""No claim about a simulated account, whose traffic is known, is false (SPEC 10.27, 10.30)."""

from __future__ import annotations

from pathlib import Path

import pytest
from effort import EXHAUSTIVE, some
from simulated_worlds.judging import judge
from simulated_worlds.worlds import draw

WORLDS = some(1, 100)
#: Worlds about which something false was said once: an address that changed hands, a service that calls its client,
#: NTP, instances that were not logged, stateless groups, IKE, NFS, and answers alone.
SEEDS = range(1, 401) if EXHAUSTIVE else [47, 50, 65, 73, 77, 104, 130, 257]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_claim_about_a_world_is_false(seed: int, tmp_path: Path) -> None:
    outcome = judge(draw(seed), tmp_path)
    print(f"seed {seed} {outcome.version}: {outcome.connections} connections, {', '.join(outcome.kinds)}")
    assert not outcome.faults


@pytest.mark.parametrize(("version", "most"), [("v2", 0.1), ("v3", 0.05), ("v5", 0.05), ("zeek", 0.05)])
def test_plain_worlds_are_certain(version: str, most: float, tmp_path: Path) -> None:
    doubted = {}
    for seed in range(1, 1 + WORLDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        outcome = judge(draw(seed, version=version, plain=True), folder)
        assert not outcome.faults
        if outcome.conclusive != "yes":
            doubted[seed] = outcome.reasons
    print(f"{version}: not certain {doubted} of {WORLDS}")
    assert len(doubted) <= most * WORLDS + 1
