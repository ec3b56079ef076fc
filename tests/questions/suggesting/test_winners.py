"""The rule that wins for a need (SPEC 4.10, 7.1)."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from typing import Literal

from all_openers import ADDRESSES, SERVICES
from checked_policies import policies
from effort import some
from hypothesis import HealthCheck, given, seed, settings
from winners import winner

from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import Policy
from sgfast.questions.suggesting.needs import Need, NeededService, Winners
from sgfast.reference.engine import ReferenceEngine

HUB = """
version: 1
vpcs: [{name: hub}, {name: left}, {name: right}]
peerings: [[hub, left], [hub, right]]
security_groups:
  - {name: web, rules: []}
  - {name: job, rules: []}
  - name: db
    rules:
      - {id: from-web, direction: inbound, protocol: tcp, ports: 5432, source: web}
      - {id: one-code, direction: inbound, protocol: icmp, icmp_type: 3, icmp_code: 255, source: web}
instances:
  - {name: db-1, vpc: hub, addresses: [10.0.0.9], security_groups: [db]}
  - {name: web-1, vpc: left, addresses: [10.1.0.5], security_groups: [web]}
  - {name: job-1, vpc: right, addresses: [10.1.0.5], security_groups: [job]}
"""


def test_two_owners_of_one_address_in_peered_vpcs_are_told_apart() -> None:
    peer = ip_address("10.1.0.5").packed
    winners = Winners(parse_policy(HUB))
    needs = [Need("db-1", NeededService("inbound", 4, 6, 5432), peer, name) for name in ("web-1", "job-1", None)]
    assert [rule and rule.id for rule in map(winners.of, needs)] == ["from-web", None, None]


def test_a_rule_for_one_icmp_code_does_not_win_for_a_code_that_no_rule_names() -> None:
    winners = Winners(parse_policy(HUB))
    need = Need("db-1", NeededService("inbound", 4, 1, 3), ip_address("10.1.0.5").packed, "web-1")
    won = [winners.of(need, code) for code in (255, 254, None)]
    assert [rule and rule.id for rule in won] == ["one-code", None, None]


def compare(policy: Policy, rng: random.Random) -> Counter[str]:
    winners, counted = Winners(policy), Counter[str]()
    for _ in range(120):
        here, near = rng.choice(policy.instances), rng.choice(policy.instances)
        if not winners.are_connected(here.name, near.name):
            continue
        family: Literal[4, 6] = rng.choice((4, 6))
        peer = rng.choice(ADDRESSES[family])
        of_two_vpcs = tuple(each for each in policy.instances if each.vpc in (here.vpc, near.vpc))
        there = ReferenceEngine(replace(policy, instances=of_two_vpcs), vpc=here.vpc)._owner(peer)
        is_anywhere = any(peer in network for each in policy.instances for network in each.addresses)
        if there is None and is_anywhere:
            continue
        outbound, service = rng.random() < 0.5, rng.choice(SERVICES[family])
        protocol, port, kind, code = service
        # None: the code that no rule names.
        asked = rng.choice((code, None))
        needed = NeededService("outbound" if outbound else "inbound", family, protocol, kind if port is None else port)
        need = Need(here.name, needed, peer.packed, there and there.name)
        expected = winner(policy, here, outbound, peer, there, (protocol, port, kind, asked))
        assert winners.of(need, asked) == (expected and expected.rule), need
        counted["shared addresses" if policy._shares_addresses else "one owner"] += 1
        counted["no rule" if expected is None else expected.rule.action] += 1
        counted["any code"] += code is not None and asked is None
    return counted


def test_the_rule_that_wins_for_a_need_is_the_one_of_the_reference_model() -> None:
    counted = Counter[str]()

    @seed(20_261_204)
    @settings(max_examples=some(60, 2000), database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(policies())
    def check(policy: Policy) -> None:
        if policy.instances:
            counted.update(compare(policy, random.Random(20_261_204)))

    check()
    assert min(counted[each] for each in ("shared addresses", "one owner", "no rule", "allow", "deny", "any code")) > 50
