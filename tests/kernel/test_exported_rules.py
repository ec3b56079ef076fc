"""The kernel judges as the engine does, by the files that ``sgfast export --to nftables`` writes (SPEC 13.10 to 13.12).

Longer: ``SGFAST_EXPORTED_PACKETS=5000000 python -m pytest tests/kernel/test_exported_rules.py``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable
from typing import Any

import pytest
from effort import some
from exported_host import Host, HostComparison, Machines, OneChange
from oracle import missing
from random_traffic import random_traffic

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"kernel oracle: {REASON}")

PACKETS = int(os.environ.get("SGFAST_EXPORTED_PACKETS") or some(20_000, 1_000_000))
#: Making a host, or reading the kernel's table for a silence, takes as long as a hundred packets.
DEFAULTS: dict[str, Any] = {"kernel": Host, "per_policy": 2500, "silence_every": 1000}
SEED = int(os.environ.get("SGFAST_KERNEL_SEED", "4"))


def compared(packets: int, **options: Any) -> tuple[Counter[Hashable], Counter[str]]:
    print(f"seed {SEED}, {packets} packets")
    seen, hits = random_traffic(
        packets, SEED, comparison=HostComparison, changer=OneChange, **DEFAULTS | options
    )
    print(f"{seen['packets']} packets, {seen['both sides']} past two filters; excused: {dict(hits)}")
    assert seen["packets"] >= 0.6 * packets
    assert sum(hits.values()) < 0.03 * seen["packets"]
    return seen, hits


def test_a_host_judges_what_its_instances_send_and_get_as_the_engine_does() -> None:
    packets = PACKETS // 2
    seen, _ = compared(packets)
    assert seen["allow", "established"] > 0.3 * seen["packets"]
    share = packets / 10_000
    least = {
        ("allow", "rule"): 100, ("allow", "related"): 30, ("deny", "invalid"): 100, ("deny", "midstream"): 100,
        ("deny", "malformed"): 30, "both sides": 100,
    }  # fmt: skip
    assert {what: seen[what] for what, number in least.items() if seen[what] < number * share} == {}
    assert seen["deny", "no-rule"] + seen["deny", "deny-rule"] > 20 * share


def test_a_host_judges_as_the_engine_does_while_second_files_change_its_policy() -> None:
    seen, _ = compared(PACKETS // 4, changing=True, silence_every=500)
    assert seen["deny", "disconnected"] > 0.01 * seen["packets"]
    assert seen["refreshed though cut"] == 0
    changed = {what for what in seen if isinstance(what, tuple) and what[0] == "change"}
    assert len(changed) > 5, changed


def test_a_host_judges_as_the_engine_does_where_groups_are_stateless() -> None:
    seen, hits = compared(PACKETS // 8, stateless=True, per_policy=1000)
    assert not hits
    assert seen["allow", "rule"] and seen["deny", "no-rule"] + seen["deny", "deny-rule"]


def test_a_machine_filters_its_own_packets_as_the_engine_does() -> None:
    seen, _ = compared(PACKETS // 8, kernel=Machines)
    assert seen["allow", "established"] > 0.3 * seen["packets"]
