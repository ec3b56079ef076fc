"""Rule tables, each against the plain arrays that it was made from (SPEC 4.8, 4.10)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sgfast import HEADER_DTYPE
from sgfast.core.classify.cidr_trie import CidrTrie
from sgfast.core.classify.classifier import LIST_FLAG, Classifier, RuleArrays, narrow
from sgfast.policy.model import TCP

SEED = 1
WIDE = 1 << 16
#: The numbers that 16 bits just hold, and those that they do not.
EDGES = (0, 1, WIDE - 2, WIDE - 1, WIDE, WIDE + 1)


@dataclass
class Table:
    """A rule table. ``rule[peer, service]``: the number of the winning rule, -1 for none."""

    peer_class: NDArray[Any]
    service_class: NDArray[Any]
    rule: NDArray[np.int32]
    is_bits: bool = False

    def arrays(self) -> RuleArrays:
        classes = narrow(self.peer_class), narrow(self.service_class), self.rule.shape[1]
        if not self.is_bits:
            return RuleArrays(*classes, self.rule + 1)
        # One bit for each winner.
        peers, services = np.nonzero(self.rule >= 0)
        vectors = [np.zeros((count, (len(peers) + 63) // 64 or 1), np.uint64) for count in self.rule.shape]
        for bit, ends in enumerate(zip(peers, services, strict=True)):
            for vector, end in zip(vectors, ends, strict=True):
                vector[end, bit // 64] |= np.uint64(1 << bit % 64)
        return RuleArrays(*classes, self.rule[peers, services] + 1, *vectors)

    def winner(self, address_class: int, port_class: int) -> int:
        return int(self.rule[self.peer_class[address_class], self.service_class[port_class]])


def classifier_of(
    arrays: list[RuleArrays], address_classes: Sequence[int], port_classes: Sequence[int], rank: NDArray[np.int32]
) -> Classifier:
    """The nth address has the nth class and is that of instance n, and the nth port has the nth class. The nth instance
    has the nth table; the next one has all. There are as many instances as addresses.
    """
    count = len(address_classes)
    rows = np.zeros((count, 16), np.uint8)
    rows[:, 3] = range(count)
    places = [*range(len(arrays)), LIST_FLAG, *[0] * count][:count]
    small = [n for n, each in enumerate(arrays) if each.is_small]
    others = [n for n, each in enumerate(arrays) if not each.is_small]
    ports = np.zeros(WIDE, np.int64)
    ports[: len(port_classes)] = port_classes
    return Classifier(
        CidrTrie(False, rows, [32] * count, list(range(count)), count), CidrTrie(True, rows[:0], [], [], count),
        np.array([*range(count), -1]), np.array([*address_classes, 0]), np.arange(WIDE + 2), np.zeros(256),
        {TCP: narrow(ports)}, np.arange(WIDE + 2), np.repeat(places, 2),
        np.array([len(small), len(others), *small, *others]), arrays, rank, np.zeros(len(rank), np.uint8),
        np.zeros(count), np.zeros(2), np.zeros(0),
    )  # fmt: skip


def found_both_ways(classifier: Classifier, instance: int, peer: int, port: int) -> int:
    alone = classifier.rule_for(instance, True, bytes([0, 0, 0, peer]), TCP, port)
    headers: NDArray[Any] = np.zeros(1, HEADER_DTYPE)
    headers["family"], headers["protocol"], headers["has_ports"] = 4, TCP, True
    headers["src"][0, 3], headers["dst"][0, 3], headers["dport"] = peer, instance, port
    winners = np.zeros((1, 2), np.int32)
    classifier.match(headers, winners)
    assert winners[0, 1] == alone
    return alone


def drawn_table(rng: random.Random, peers: int, services: int, rules: int, is_bits: bool) -> Table:
    """``peers``, ``services`` and ``rules``: how many there are to choose from. The first and the last occur."""
    rule = np.full((peers, services), -1, np.int32)
    for peer in {*range(min(peers, 6)), *range(max(peers - 6, 0), peers)}:
        for service in {*range(min(services, 6)), *range(max(services - 6, 0), services)}:
            if rng.random() < 0.7:
                rule[peer, service] = rules - 1 - rng.randrange(min(rules, 40))
    peer_class, service_class = (np.arange(WIDE + 2) % count for count in (peers, services))
    return Table(peer_class, service_class, rule, is_bits)


@pytest.mark.parametrize("is_bits", [False, True], ids=["cells", "bits"])
@pytest.mark.parametrize(("peers", "services"), [(9, 7), (WIDE + 2, 1), (1, WIDE + 2), (WIDE, 1)])
def test_numbers_that_16_bits_do_not_hold_are_found_in_tables(peers: int, services: int, is_bits: bool) -> None:
    print("seed", SEED)
    rng = random.Random(SEED)
    tables = [drawn_table(rng, peers, services, rules, is_bits) for rules in (100, WIDE - 1, WIDE, WIDE + 100)]
    tables.append(drawn_table(rng, 9, 7, 50, False))
    rank = np.array(rng.sample(range(WIDE + 100), WIDE + 100), np.int32)
    arrays = [table.arrays() for table in tables]
    assert not any(each.is_small for each in arrays)
    classifier = classifier_of(arrays, EDGES, EDGES, rank)
    seen = set()
    for owner in range(len(EDGES)):
        asked = tables if owner == len(tables) else [tables[owner]]
        for peer, address_class in enumerate(EDGES):
            for port, port_class in enumerate(EDGES):
                rules = [table.winner(address_class, port_class) for table in asked]
                best = min((rule for rule in rules if rule >= 0), key=lambda rule: rank[rule], default=-1)
                assert found_both_ways(classifier, owner, peer, port) == best
                seen.add(best)
    assert min(seen) == -1 and max(seen) >= WIDE


def test_what_the_boxes_of_a_small_table_hold_is_what_its_cells_hold() -> None:
    print("seed", SEED)
    rng = random.Random(SEED)
    small = joined = 0
    for _ in range(200):
        table = Table(drawn_classes(rng), drawn_classes(rng), np.full((4, 4), -1, np.int32))
        for _ in range(rng.randint(0, 20)):
            table.rule[rng.randrange(4), rng.randrange(4)] = rng.randrange(3)
        peers, services = len(table.peer_class), len(table.service_class)
        arrays = table.arrays()
        dense = Table(np.arange(peers), np.arange(services), np.arange(3, 3 + peers * services).reshape(peers, -1))
        rank = rng.sample(range(500), 500)
        classifier = classifier_of(
            [arrays, dense.arrays()], range(peers), range(services), np.array(rank, dtype=np.int32)
        )
        for peer in range(peers):
            for service in range(services):
                rule = table.winner(peer, service)
                assert found_both_ways(classifier, 0, peer, service) == rule
                if peers > 2:
                    other = dense.winner(peer, service)
                    best = rule if rule >= 0 and rank[rule] < rank[other] else other
                    assert found_both_ways(classifier, 2, peer, service) == best
        small += arrays.is_small
        cells = table.rule[table.peer_class][:, table.service_class]
        joined += arrays.is_small and int((cells >= 0).sum()) > 8
    assert 40 < small < 160 and joined > 10


def drawn_classes(rng: random.Random) -> NDArray[Any]:
    """Runs of up to four joined classes."""
    runs = rng.choices(range(4), k=rng.randint(1, 7))
    return np.repeat(runs, [rng.randint(1, 3) for _ in runs])


def test_a_table_of_more_classes_than_boxes_can_number_is_not_small() -> None:
    rule = np.array([[-1], [0]], np.int32)
    for classes, is_small in ((WIDE, True), (WIDE + 1, False)):
        last = np.zeros(classes, np.int64)
        last[WIDE - 1 :] = 1
        for ends in ((last, np.zeros(1, np.int64)), (np.zeros(1, np.int64), last)):
            table = Table(*ends, rule if len(ends[0]) > 1 else rule.T)
            arrays = table.arrays()
            assert arrays.is_small == is_small
            peers, services = ([WIDE - 2, WIDE - 1] if len(end) > 1 else [0, 0] for end in ends)
            classifier = classifier_of([arrays], peers, services, np.zeros(1, np.int32))
            assert [found_both_ways(classifier, 0, n, n) for n in (0, 1)] == [-1, 0]
