"""The recorded programs of ``pcaps/programs`` against every policy there, and what was decided by hand."""

from __future__ import annotations

import pytest
from recordings import POLICIES, PROGRAMS, compare, connections, expected, judged, places, scenarios

from sgfast.clouds.loading import load_policy

OPEN = PROGRAMS / "open.yaml"
ADDRESSES = {
    "client": {"10.0.0.5", "2001:db8::5"},
    "server": {"10.0.0.9", "2001:db8::9"},
    "partner": {"198.51.100.7", "2001:db8:100::7"},
}


def test_the_table_is_complete() -> None:
    names = [scenario.name for scenario in scenarios(PROGRAMS)]
    assert len({name.rpartition("-")[0] for name in names}) >= 12
    assert len(POLICIES) >= 6
    assert sorted(expected()) == POLICIES
    for column in expected().values():
        assert list(column) == names


@pytest.mark.parametrize("policy", POLICIES)
def test_verdicts_are_those_decided_by_hand(policy: str) -> None:
    lines = judged(load_policy(PROGRAMS / f"{policy}.yaml"), PROGRAMS)
    assert {scenario: places(packets) for scenario, packets in lines.items()} == expected()[policy]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_host_sees_the_same(policy: str) -> None:
    loaded = load_policy(PROGRAMS / f"{policy}.yaml")
    network = judged(loaded, PROGRAMS)
    for host, own in ADDRESSES.items():
        for scenario, lines in judged(loaded, PROGRAMS, host).items():
            # The bridge may give a host what is for another.
            passing, seen = (
                connections(line for line in packets if own & {line["src"], line["dst"]})
                for packets in (network[scenario], lines)
            )
            # Packets of traceroute to the partner end at the router.
            if host != "partner" or not scenario.startswith("traceroute"):
                assert set(seen) == set(passing), (host, scenario)
            for key, packets in seen.items():
                assert packets.verdicts == passing[key].verdicts, (host, scenario, key)


def test_every_scenario_left_packets() -> None:
    lines = judged(load_policy(OPEN), PROGRAMS)
    assert [scenario for scenario, packets in lines.items() if not packets] == []


def test_captures_are_small() -> None:
    assert sum(path.stat().st_size for path in PROGRAMS.glob("*.pcap")) < 300_000


@pytest.mark.parametrize("policy", POLICIES)
def test_the_live_comparison_would_notice_a_filter_that_lets_everything_through(policy: str) -> None:
    """The recording without a filter, taken for one behind the kernel's."""
    comparison = compare(policy, load_policy(PROGRAMS / f"{policy}.yaml"), PROGRAMS, PROGRAMS)
    blocked = {scenario for scenario, place in expected()[policy].items() if place != "works"}
    assert {difference.split()[1].rstrip(":") for difference in comparison.differences} == blocked
    assert comparison.works == comparison.scenarios - len(blocked)
