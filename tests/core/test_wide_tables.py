"""Tables whose numbers need more than 16 bits, each against the arrays that they were made from (SPEC 4.8, 4.10)."""

from __future__ import annotations

import random
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
    """A rule table as plain arrays. ``rule[peer, service]``: the number of the winning rule, -1 for none."""

    peer_class: NDArray[np.int64]
    service_class: NDArray[np.int64]
    rule: NDArray[np.int32]
    is_bits: bool

    def arrays(self) -> RuleArrays:
        classes = narrow(self.peer_class), narrow(self.service_class), self.rule.shape[1]
        if not self.is_bits:
            return RuleArrays(*classes, self.rule)
        # One bit for each winner.
        peers, services = np.nonzero(self.rule >= 0)
        vectors = [np.zeros((count, (len(peers) + 63) // 64 or 1), np.uint64) for count in self.rule.shape]
        for bit, ends in enumerate(zip(peers, services, strict=True)):
            for vector, end in zip(vectors, ends, strict=True):
                vector[end, bit // 64] |= np.uint64(1 << bit % 64)
        return RuleArrays(*classes, self.rule[peers, services], *vectors)

    def winner(self, address_class: int, port_class: int) -> int:
        return int(self.rule[self.peer_class[address_class], self.service_class[port_class]])


def drawn_table(rng: random.Random, peers: int, services: int, rules: int, is_bits: bool) -> Table:
    """``peers``, ``services`` and ``rules``: how many there are to choose from; the last of them occur."""
    rule = np.full((peers, services), -1, np.int32)
    for peer in {*range(min(peers, 6)), *range(max(peers - 6, 0), peers)}:
        for service in {*range(min(services, 6)), *range(max(services - 6, 0), services)}:
            if rng.random() < 0.7:
                rule[peer, service] = rules - 1 - rng.randrange(min(rules, 40))
    classes = [np.arange(WIDE + 2) % count for count in (peers, services)]
    return Table(*classes, rule, is_bits)


@pytest.mark.parametrize("is_bits", [False, True], ids=["cells", "bits"])
@pytest.mark.parametrize(("peers", "services"), [(9, 7), (WIDE + 2, 1), (1, WIDE + 2), (WIDE, 1)])
def test_numbers_that_16_bits_do_not_hold_are_found_in_tables(peers: int, services: int, is_bits: bool) -> None:
    print("seed", SEED)
    rng = random.Random(SEED)
    tables = [drawn_table(rng, peers, services, rules, is_bits) for rules in (100, WIDE - 1, WIDE, WIDE + 100)]
    tables.append(drawn_table(rng, 9, 7, 50, False))
    rank = np.array(rng.sample(range(WIDE + 100), WIDE + 100), np.int32)
    # There are six addresses, each with a class at an edge. The nth is that of instance n, which has table n. The last
    # instance has all tables.
    rows = np.zeros((len(EDGES), 16), np.uint8)
    rows[:, 3] = range(len(EDGES))
    numbers = list(range(len(EDGES)))
    places = [*range(len(tables)), LIST_FLAG]
    classifier = Classifier(
        CidrTrie(False, rows, [32] * len(EDGES), numbers, len(EDGES)),
        CidrTrie(True, rows[:0], [], [], len(EDGES)),
        np.array([*numbers, -1]), np.array([*EDGES, 0]), np.arange(WIDE + 2), np.zeros(256), {TCP: narrow_ports()},
        np.arange(WIDE + 2), np.repeat(places, 2), np.array([len(tables), *range(len(tables))]),
        [table.arrays() for table in tables], rank, np.zeros(len(rank), np.uint8), np.zeros(len(EDGES)), np.zeros(2),
        np.zeros(0),
    )  # fmt: skip
    headers: NDArray[Any] = np.zeros(1, HEADER_DTYPE)
    winners = np.zeros((1, 2), np.int32)
    seen = set()
    for owner in numbers:
        for peer, address_class in enumerate(EDGES):
            for port, port_class in zip((0, 1, 65532, 65533, 65534, 65535), EDGES, strict=True):
                asked = tables if owner == len(tables) else [tables[owner]]
                found = [table.winner(address_class, port_class) for table in asked]
                best = min((rule for rule in found if rule >= 0), key=lambda rule: rank[rule], default=-1)
                assert classifier.rule_for(owner, True, bytes([0, 0, 0, peer]), TCP, port) == best
                headers["family"], headers["protocol"], headers["has_ports"] = 4, TCP, True
                headers["src"][0, 3], headers["dst"][0, 3], headers["dport"] = peer, owner, port
                classifier.match(headers, winners)
                assert winners[0, 1] == best
                seen.add(best)
    assert min(seen) == -1 and max(seen) >= WIDE


def narrow_ports() -> NDArray[Any]:
    """The class of each port: those at both ends are at the edges."""
    classes = np.arange(WIDE)
    classes[[0, 1, 65532, 65533, 65534, 65535]] = EDGES
    return narrow(classes)
