"""Engine = Neutron's firewall on Open vSwitch, on random accounts and traffic.

Longer: ``PYTHONPATH=tests/support:tests/kernel python tests/neutron/ovs_traffic.py 2000000``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Iterator

import pytest
from effort import some
from ovs_cloud import Cloud, missing
from ovs_comparing import AFTER_CHANGES, DIFFERENCES
from ovs_traffic import random_traffic

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"Neutron's firewall: {REASON}")

PACKETS = int(os.environ.get("SGFAST_NEUTRON_PACKETS") or some(100_000, 200_000))
SEED = int(os.environ.get("SGFAST_NEUTRON_SEED", "4"))


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud() as made:
        yield made


def check(seen: Counter[Hashable], hits: Counter[str], packets: int, most_excused: float) -> None:
    print(f"{seen['packets']} packets, {seen['accounts']} accounts; excused: {dict(hits)}; seen: {dict(seen)}")
    assert seen["packets"] >= packets
    assert seen["lost"] <= 5
    assert sum(hits.values()) < most_excused * seen["packets"]
    assert seen["allow", "established"] > 0.25 * seen["packets"] and seen["deny", "no-rule"] > 0.1 * seen["packets"]
    least = {("allow", "rule"): 0.05, ("allow", "related"): 0.005, ("deny", "invalid"): 0.005, "both sides": 0.1}
    assert {what: seen[what] for what, share in least.items() if seen[what] < share * seen["packets"]} == {}


def test_engine_judges_as_neutron(cloud: Cloud) -> None:
    packets = PACKETS * 92 // 100
    print(f"seed {SEED}, {packets} packets")
    seen, hits = random_traffic(cloud, packets, SEED)
    check(seen, hits, packets, 0.05)
    assert set(hits) == set(DIFFERENCES), "each difference shows"


def test_engine_judges_as_neutron_while_rules_members_and_ports_change(cloud: Cloud) -> None:
    packets = PACKETS * 8 // 100
    print(f"seed {SEED}, {packets} packets")
    seen, hits = random_traffic(cloud, packets, SEED, changing=True)
    check(seen, hits, packets, 0.08)
    changes = {"AddRule", "RemoveRule", "AddMember", "RemoveMember", "AddInstance", "RemoveInstance", "SetAddressGroup"}
    assert all(seen["change", name] > 0 for name in changes)
    assert set(hits) - set(DIFFERENCES) == set(AFTER_CHANGES)
