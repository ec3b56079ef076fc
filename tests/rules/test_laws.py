"""The laws of the algebra: each part does what a slow definition of it says, for whatever Hypothesis thinks of."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_network

import numpy as np
from effort import some
from hypothesis import given, settings
from hypothesis import strategies as st

from sgfast.policy.model import ICMP, TCP, UDP, Instance, Policy, Rule, Vpc
from sgfast.policy.networks import NEVER_AN_INSTANCE
from sgfast.policy.ranges import Ranges, covers, difference, intersection, lowest, union
from sgfast.rules.addresses import (
    NOBODY,
    Span,
    addresses_of,
    networks_of,
    owned_prefixes,
    pieces,
    span_of,
    with_multicast,
    without_multicast,
)
from sgfast.rules.plane import Boxes, alike, lying_in
from sgfast.rules.services import KEYS, ServiceClasses

laws = settings(max_examples=some(60, 2_000), deadline=None, database=None)

sets = st.frozensets(st.integers(0, 24))
masks = st.integers(1, 9).flatmap(
    lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width).map(np.array), min_size=1)
)


def ranges_of(numbers: frozenset[int]) -> Ranges:
    return union((number, number) for number in numbers)


def networks(first: int) -> st.SearchStrategy[IPv4Network]:
    """Networks of 16 addresses from ``first`` on."""
    return st.integers(28, 32).flatmap(
        lambda length: st.integers(0, (1 << length - 28) - 1).map(
            lambda n: IPv4Network((first + (n << 32 - length), length))
        )
    )


HOME = int(IPv4Address("10.0.0.0"))
#: Some that lie in multicast or broadcast addresses, and some around these.
ODD = (
    "0.0.0.0/0", "128.0.0.0/1", "192.0.0.0/2", "224.0.0.0/3", "224.0.0.0/4", "224.0.0.0/24", "239.0.0.0/8",
    "240.0.0.0/4", "255.255.255.254/31", "255.255.255.255/32", "223.0.0.0/8",
)  # fmt: skip


def owned_of(some_networks: st.SearchStrategy[IPv4Network]) -> st.SearchStrategy[dict[Span, tuple[int, bool]]]:
    return st.dictionaries(some_networks.map(span_of), st.tuples(st.integers(1, 5), st.booleans()))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    protocol = draw(st.sampled_from((None, TCP, UDP, 47)))
    ranges = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda ends: (min(ends), max(ends)))))
    return Rule(
        "r", "inbound", 4, protocol, union(ranges) or None if protocol in (TCP, UDP) else None,
        peer=draw(st.one_of(st.none(), networks(HOME))), action=draw(st.sampled_from(("allow", "deny"))),
        priority=draw(st.integers(1, 3)),
    )  # fmt: skip


@laws
@given(one=sets, other=sets, number=st.integers(0, 25), beyond=st.integers(0, 5))
def test_ranges_do_what_sets_do(one: frozenset[int], other: frozenset[int], number: int, beyond: int) -> None:
    asked = range(number, number + beyond + 1)
    assert union((*ranges_of(one), *ranges_of(other))) == ranges_of(one | other)
    assert intersection(ranges_of(one), ranges_of(other)) == ranges_of(one & other)
    assert difference(ranges_of(one), ranges_of(other)) == ranges_of(one - other)
    assert lowest(ranges_of(one), asked[0], asked[-1]) == min(one.intersection(asked), default=None)
    assert covers(ranges_of(one), asked[0], asked[-1]) == one.issuperset(asked)


@laws
@given(some_networks=st.lists(networks(HOME)))
def test_addresses_are_those_of_the_networks_they_become(some_networks: list[IPv4Network]) -> None:
    addresses = addresses_of([*some_networks, ip_network("2001:db8::/32")], 4)
    assert addresses_of(networks_of(4, addresses), 4) == addresses
    assert {n for first, last in addresses for n in range(first, last + 1)} == {
        int(each) for network in some_networks for each in network
    }


def owner_of(address: int, spans: dict[Span, tuple[int, bool]]) -> int:
    around = [(own, -(-minus_last - first), owner) for (first, minus_last), (owner, own) in spans.items()
              if first <= address <= -minus_last]  # fmt: skip
    return max(around, default=(False, 0, NOBODY))[2]


@laws
@given(owned=owned_of(networks(HOME)), named=st.lists(networks(HOME), unique=True))
def test_the_longest_prefix_owns_an_address_and_those_of_ones_own_vpc_come_first(
    owned: dict[Span, tuple[int, bool]], named: list[IPv4Network]
) -> None:
    number = {span_of(network): n for n, network in enumerate(named)}
    found = [*pieces(owned, 4, number)]
    assert [piece[0] for piece in found] == [0, *(piece[1] + 1 for piece in found[:-1])]
    assert found[-1][1] == (1 << 32) - 1
    for first, last, inside, owner in found:
        for address in {first, (first + last) // 2, last}:
            assert owner == owner_of(address, owned)
            within = [network for network in named if IPv4Address(address) in network]
            assert inside == max(((n.prefixlen, number[span_of(n)]) for n in within), default=(0, -1))[1]


@laws
@given(owned=owned_of(st.sampled_from([*map(IPv4Network, ODD)])))
def test_multicast_has_the_other_owner_and_nothing_else_has(owned: dict[Span, tuple[int, bool]]) -> None:
    multicast = addresses_of(NEVER_AN_INSTANCE, 4)
    changed = with_multicast(owned, 4, lambda owner: owner + 100)
    for first, last, _, owner in pieces(changed, 4):
        if owner != NOBODY:
            assert (owner > 100) == covers(multicast, first, last) == (lowest(multicast, first, last) is not None)
    before, after = (
        union((first, last) for first, last, _, owner in pieces(those, 4) if owner) for those in (owned, changed)
    )
    assert without_multicast(4, before) == without_multicast(4, after)


@laws
@given(prefixes=st.lists(networks(HOME), unique=True, max_size=6), data=st.data())
def test_what_a_vpc_owns_hides_what_its_peers_own_there(prefixes: list[IPv4Network], data: st.DataObject) -> None:
    instances = tuple(
        Instance(f"i{n}", data.draw(st.sampled_from(("default", "peer"))), (prefix,), ())
        for n, prefix in enumerate(prefixes)
    )
    peered = frozenset({frozenset({"default", "peer"})})
    policy = Policy(vpcs=(Vpc("default"), Vpc("peer")), peerings=peered, instances=instances)
    own = addresses_of((prefix for each in instances if each.vpc == "default" for prefix in each.addresses), 4)
    wanted = {
        each.name for each in instances
        if each.vpc == "default" or difference(addresses_of(each.addresses, 4), own)
    }  # fmt: skip
    assert {instances[n].name for _, n in owned_prefixes(policy, "default")[4]} == wanted


@laws
@given(masks=masks)
def test_kinds_are_what_no_mask_tells_apart(masks: list[np.ndarray]) -> None:
    keep, kind = alike(masks)
    seen = [tuple(bool(mask[n]) for mask in masks) for n in range(len(masks[0]))]
    assert len(keep) == len({*seen})
    assert all((kind[a] == kind[b]) == (seen[a] == seen[b]) for a in range(len(seen)) for b in range(len(seen)))
    assert [int(kind[n]) for n in keep] == [*range(len(keep))]


@laws
@given(rules_=st.lists(rules(), max_size=6))
def test_services_are_divided_where_a_rule_begins_or_ends_and_nowhere_else(rules_: list[Rule]) -> None:
    classes = ServiceClasses(rules_)
    starts, of_start = classes.line
    assert sorted({*of_start.tolist()}) == [*range(classes.count)]
    for rule in rules_:
        matching = classes.matching(rule)
        for protocol in (TCP, UDP, 47, ICMP):
            for port in range(11):
                at = int(np.searchsorted(starts, protocol * KEYS + port, "right")) - 1
                ports = rule.ports or ((0, KEYS - 1),)
                matches = rule.protocol in (None, protocol) and any(first <= port <= last for first, last in ports)
                assert matching[of_start[at]] == matches


@laws
@given(rules_=st.lists(rules(), max_size=8))
def test_of_the_rules_that_match_a_cell_the_last_one_painted_wins(rules_: list[Rule]) -> None:
    boxes = Boxes(enumerate(rules_))
    addresses = [HOME + n for n in range(16)]
    peers = [np.array([rule.peer is None or IPv4Address(n) in rule.peer for n in addresses]) for rule in boxes.peers]
    of_service = ServiceClasses(boxes.services)
    winner = np.full((len(addresses), of_service.count), -1)
    for n, block in boxes.blocks(peers, map(of_service.matching, boxes.services)):
        winner[block] = boxes.ranked[n][0]
    for a, address in enumerate(addresses):
        for service in range(of_service.count):
            matching = [
                (rule.priority, rule.action == "allow", n) for n, rule in enumerate(rules_)
                if (rule.peer is None or IPv4Address(address) in rule.peer) and of_service.matching(rule)[service]
            ]  # fmt: skip
            assert winner[a, service] == min(matching, default=(0, False, -1))[2]


def test_places_between_bounds_are_those_of_any_of_them() -> None:
    assert lying_in([(1, 3), (2, 4), (6, 6)], np.arange(8)).tolist() == [n in (1, 2, 3) for n in range(8)]
