"""Benchmarks of address look-ups alone, one per call from Python. Scripts do this; replays do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import Maker, Measure
from measure import Results, Section, Yardstick, timed
from workload import Family, draw_flows
from yardsticks import Missing
from yardsticks.addresses import Lookups, pytricia, radix

from sgfast import Policy
from sgfast.core.classify.cidr_trie import CidrTrie
from sgfast.policy.model import GroupPeer

NOWHERE = 1 << 30
LOOKUPS = 100_000
TITLES = {"pytricia": "get", "py-radix": "search_best"}


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_addresses(family: Family, maker: Maker, results: Results, measure: Measure) -> None:
    """Look up the addresses of openers' clients and servers. Half are outside, many of them between CIDRs."""
    policy = maker.policy(family=family)
    prefixes = prefixes_of(policy)
    count = min(LOOKUPS, maker.option.packets)
    flows = draw_flows(policy, (count + 1) // 2, family=family, seed=maker.option.seed)
    ends = np.stack([flows.client, flows.server], axis=1)
    addresses = [bytes(end) for flow in ends for end in flow]
    lookups = {"sgfast": Lookups(trie_of(prefixes, family).find, lambda value: None if value == NOWHERE else value)}
    for name, build in (("pytricia", pytricia), ("py-radix", radix)):
        try:
            lookups[name] = build(prefixes, family)
        except Missing as error:
            results.missing[name] = str(error)
    runs = {name: timed(lambda each=each: each.run(addresses)) for name, each in lookups.items()}  # type: ignore[misc]
    measure(
        Section(f"longest of {len(prefixes):,} IPv{family} prefixes, one address at a time from Python", "lookup"),
        "CidrTrie.find", runs.pop("sgfast"), items=len(addresses),
        yardsticks={name: Yardstick(TITLES[name], len(addresses), run, faster=True) for name, run in runs.items()},
    )  # fmt: skip
    found = lookups["sgfast"].values(addresses)
    assert all(each.values(addresses) == found for each in lookups.values())
    assert any(value is None for value in found[::2]) and None not in found[1::2]


def prefixes_of(policy: Policy) -> list[tuple[Any, int]]:
    """Return the instances' addresses and the rules' CIDRs, each with a number."""
    owned = {instance.addresses[0] for instance in policy.instances}
    named = {
        rule.peer
        for group in policy.security_groups
        for rule in group.rules
        if rule.peer is not None and not isinstance(rule.peer, GroupPeer)
    }
    return [(prefix, number) for number, prefix in enumerate(sorted(owned | named))]


def trie_of(prefixes: list[tuple[Any, int]], family: Family) -> CidrTrie:
    packed = np.zeros((len(prefixes), 16), dtype=np.uint8)
    for row, (prefix, _) in zip(packed, prefixes, strict=True):
        first = prefix.network_address.packed
        row[: len(first)] = list(first)
    lengths = [prefix.prefixlen for prefix, _ in prefixes]
    return CidrTrie(family == 6, packed, lengths, [value for _, value in prefixes], NOWHERE)
