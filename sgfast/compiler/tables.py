"""Builds rule tables, which give the winning rule for a class of peer address and a class of protocol and port.

Each security group has one rule table per direction. An instance in several groups is subject to the union of their
rules (SPEC 1). The sets of groups that most instances have get joined tables, so that one look-up suffices. For the
others the data plane looks up each group and takes the rule with the lowest rank. Memory therefore grows with the
number of groups, not with the number of combinations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgfast.compiler.address_classes import AddressClasses, Indices, Profile
from sgfast.compiler.ports import PortClasses
from sgfast.core.classify.classifier import RuleArrays
from sgfast.errors import PolicyError
from sgfast.policy.model import Direction, Policy, Rule, SecurityGroup

#: Larger rule tables are stored as bit vectors (this many cells take 4 MiB as a table).
MAX_TABLE_CELLS = 1 << 20

#: Limits for all joined tables: steps (one per rule and class, a third of a second in total), and memory.
MAX_JOINED_STEPS = 64_000_000
MAX_JOINED_BYTES = 64 << 20

#: Limit for all rule tables of a policy. A larger policy is rejected, because it could exhaust memory (SPEC 11).
MAX_TABLE_BYTES = 2 << 30

Selector = tuple[object, ...]


@dataclass
class RuleTables:
    """The input of ``core.classify.classifier.Classifier``, and statistics about it."""

    tables: list[RuleArrays]
    #: The table numbers for each profile and direction (outbound, inbound). The rule with the lowest rank among theirs
    #: wins.
    of_profile: list[tuple[int, ...]]
    bit_vectors: int
    #: How many were built rather than reused.
    built: int


@dataclass(frozen=True, slots=True)
class _Kept:
    table: RuleArrays
    #: Keeps the groups alive, because the key contains their object ids.
    groups: tuple[SecurityGroup, ...]


class TableCache:
    """Tables by the groups they were built from. An unchanged group is the same object in a later policy.

    Valid for one set of address classes and one set of port classes.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], _Kept] = {}
        self._used: dict[tuple[object, ...], _Kept] = {}

    def get(self, groups: tuple[SecurityGroup, ...], direction: str, vpc: int) -> RuleArrays | None:
        key = (tuple(map(id, groups)), direction, vpc)
        kept = self._used.get(key) or self._kept.get(key)
        if kept is None:
            return None
        self._used[key] = kept
        return kept.table

    def put(self, groups: tuple[SecurityGroup, ...], direction: str, vpc: int, table: RuleArrays) -> None:
        self._used[tuple(map(id, groups)), direction, vpc] = _Kept(table, groups)

    def refined(self, peer_origin: Indices | None, service_origin: Indices | None) -> TableCache:
        """The cache for finer classes. The arguments map each new class to the old class it is part of; None if
        unchanged.
        """
        later = TableCache()
        finer: dict[int, NDArray[np.uint32]] = {}
        tables: dict[int, RuleArrays] = {}

        def of_classes(array: object, origin: Indices | None) -> object:
            assert isinstance(array, np.ndarray)
            if origin is None:
                return array
            if id(array) not in finer:
                finer[id(array)] = array[origin]
            return finer[id(array)]

        for key, kept in self._kept.items():
            peer, service, *rest = kept.table.arrays
            if id(kept.table) not in tables:
                tables[id(kept.table)] = RuleArrays(
                    of_classes(peer, peer_origin), of_classes(service, service_origin), *rest
                )
            later._kept[key] = _Kept(tables[id(kept.table)], kept.groups)
        return later

    def copy(self) -> TableCache:
        later = TableCache()
        later._kept = self._used | self._kept
        return later

    def forget_unused(self) -> None:
        self._kept, self._used = self._used, {}


def precedence(rules: Sequence[Rule], in_order: Sequence[int]) -> NDArray[np.int32]:
    """The rank of each rule by rule number: the lowest of the matching rules wins (SPEC 4.10). ``in_order`` has the
    rule numbers in document order.
    """
    numbers = np.array(in_order, dtype=np.int64)
    priority = np.array([rules[r].priority for r in in_order], dtype=np.int64)
    allows = np.array([rules[r].action != "deny" for r in in_order], dtype=bool)
    rank = np.zeros(len(rules), dtype=np.int32)
    # The sort is stable: among equals, the first in the document stays first.
    rank[numbers[np.lexsort((allows, priority))]] = np.arange(len(in_order), dtype=np.int32)
    return rank


def rule_tables(
    policy: Policy,
    rules: Sequence[Rule],
    number_of: Callable[[str, Rule], int],
    profiles: dict[Profile, int],
    addresses: AddressClasses,
    ports: PortClasses,
    rank: NDArray[np.int32],
    cache: TableCache,
) -> RuleTables:
    """Build the tables. ``profiles``: how many instances have each. Raises PolicyError if they would take too much
    memory.
    """
    builder = _Builder(policy, rules, addresses, ports)
    groups = policy.security_groups
    directions: tuple[Direction, ...] = ("outbound", "inbound")
    has_rules = {d: [any(rule.direction == d for rule in group.rules) for group in groups] for d in directions}

    def order(members: Sequence[SecurityGroup], direction: str) -> list[int]:
        numbers = (number_of(g.name, rule) for g in members for rule in g.rules if rule.direction == direction)
        return sorted(numbers, key=rank.__getitem__)

    def table_of(members: tuple[SecurityGroup, ...], direction: str, vpc: int) -> RuleArrays | None:
        """The table of one group; or of several groups, if joining them pays off."""
        table = cache.get(members, direction, vpc)
        if table is None:
            if len(members) == 1:
                table = builder.table(order(members, direction), vpc)
            elif builder.may_join(sum(len(g.rules) for g in members)):
                table = builder.joined_table(order(members, direction), vpc)
            if table is not None:
                cache.put(members, direction, vpc, table)
        return table

    chosen: list[tuple[RuleArrays, ...]] = [()] * (2 * len(profiles))
    number = {profile: n for n, profile in enumerate(profiles)}
    present = [profile for profile, instances in profiles.items() if instances]
    several = sorted((p for p in present if len(p[0]) > 1), key=lambda p: (-profiles[p], number[p]))
    for profile in (*several, *(p for p in present if len(p[0]) < 2)):
        in_groups, vpc = profile
        for d, direction in enumerate(directions):
            members = tuple(groups[g] for g in in_groups if has_rules[direction][g])
            if not members:
                chosen[2 * number[profile] + d] = (builder.table([], vpc),)
                continue
            table = table_of(members, direction, vpc)
            if table is not None:
                chosen[2 * number[profile] + d] = (table,)
            else:
                parts = (table_of((group,), direction, vpc) for group in members)
                chosen[2 * number[profile] + d] = tuple(part for part in parts if part is not None)
    cache.forget_unused()
    # Profiles may share tables; each table is listed once.
    places: dict[int, int] = {}
    tables: list[RuleArrays] = []
    of_profile = []
    for some in chosen:
        for table in some:
            if places.setdefault(id(table), len(tables)) == len(tables):
                tables.append(table)
        of_profile.append(tuple(places[id(table)] for table in some))
    return RuleTables(tables, of_profile, sum(table.has_bit_vectors for table in tables), builder.built)


class _Builder:
    def __init__(
        self, policy: Policy, rules: Sequence[Rule], addresses: AddressClasses, ports: PortClasses
    ) -> None:
        self.built = 0
        self._rules = rules
        self._addresses = addresses
        self._ports = ports
        self._made: dict[tuple[tuple[int, ...], tuple[Selector, ...]], RuleArrays] = {}
        self._dimensions: dict[tuple[str, tuple[Selector, ...]], _Dimension] = {}
        self._left = MAX_TABLE_BYTES
        self._left_for_joined = MAX_JOINED_BYTES
        self._steps_left = MAX_JOINED_STEPS
        self._refusal = (
            f"{policy.origin}: the rule tables would need more than {MAX_TABLE_BYTES >> 20} MiB: the rules of "
            f"{len(policy.security_groups)} groups distinguish {addresses.count} kinds of address and {ports.count} "
            "kinds of port; use fewer groups, or fewer and wider rules"
        )

    def table(self, order: Sequence[int], vpc: int) -> RuleArrays:
        """The table for rules in order of precedence, seen from a VPC."""
        table = self._build(order, vpc, joined=False)
        assert table is not None
        return table

    def may_join(self, rules: int) -> bool:
        """Whether enough steps are left to join groups with this many rules."""
        self._steps_left -= rules * (self._addresses.count + self._ports.count)
        return self._steps_left >= 0

    def joined_table(self, order: Sequence[int], vpc: int) -> RuleArrays | None:
        """Like ``table``, for the rules of several groups; None if it would be too large to pay off."""
        return self._build(order, vpc, joined=True)

    def _build(self, order: Sequence[int], vpc: int, joined: bool) -> RuleArrays | None:
        peers = [self._addresses.selector(self._rules[r], vpc) for r in order]
        services = [self._ports.selector(self._rules[r]) for r in order]
        identity = (tuple(order), tuple(peers))
        if identity in self._made:
            return self._made[identity]
        peer = self._dimension(
            "peer", self._addresses.count, dict(zip(peers, order, strict=True)),
            lambda r: self._addresses.matching(self._rules[r], vpc),
        )  # fmt: skip
        service = self._dimension(
            "service", self._ports.count, dict(zip(services, order, strict=True)),
            lambda r: self._ports.matching(self._rules[r]),
        )  # fmt: skip
        cells = peer.count * service.count
        if joined:
            if cells > MAX_TABLE_CELLS or 4 * cells > self._left_for_joined:
                return None
            self._left_for_joined -= 4 * cells
        pairs = list(zip(order, peers, services, strict=True))
        if cells <= MAX_TABLE_CELLS and 4 * cells <= self._left // 2:
            self._take(4 * cells)
            table = _winner_table(pairs, peer, service)
        else:
            self._take((peer.count + service.count) * ((len(order) + 63) // 64) * 8)
            table = _bit_vector_table(pairs, peer, service)
        self.built += 1
        self._made[identity] = table
        return table

    def _dimension(
        self, kind: str, count: int, rule_of_selector: dict[Selector, int], matching: Callable[[int], Indices]
    ) -> _Dimension:
        key = (kind, tuple(rule_of_selector))
        if key not in self._dimensions:
            self._take(4 * count)
            self._dimensions[key] = _Dimension(count, rule_of_selector, matching, self._take)
        return self._dimensions[key]

    def _take(self, nbytes: int) -> None:
        # Called before memory is allocated, so that no policy exhausts it (SPEC 11).
        self._left -= nbytes
        if self._left < 0:
            raise PolicyError(self._refusal)


class _Dimension:
    """Joins classes that the rules of one table do not distinguish."""

    def __init__(
        self,
        count: int,
        rule_of_selector: dict[Selector, int],
        matching: Callable[[int], Indices],
        take: Callable[[int], None],
    ) -> None:
        code = np.zeros(count, dtype=np.int64)
        rules = list(rule_of_selector.values())
        for start in range(0, len(rules), 32):
            bits = np.zeros(count, dtype=np.int64)
            for bit, rule in enumerate(rules[start : start + 32]):
                bits[matching(rule)] |= 1 << bit
            _, code = np.unique(code << 32 | bits, return_inverse=True)
            code = code.reshape(-1)
        self.of_class = code.astype(np.uint32)
        self.count = int(code.max()) + 1 if count else 1
        # [selector][joined class]: whether it matches, one bit each.
        width = (self.count + 7) // 8
        take(len(rules) * width)
        self._matches = np.zeros((len(rules), width), dtype=np.uint8)
        self._row = {selector: row for row, selector in enumerate(rule_of_selector)}
        for row, rule in enumerate(rules):
            mask = np.zeros(self.count, dtype=bool)
            mask[code[matching(rule)]] = True
            self._matches[row] = np.packbits(mask)

    def matching(self, selector: Selector) -> Indices:
        """The joined classes that a selector matches."""
        return np.flatnonzero(np.unpackbits(self._matches[self._row[selector]], count=self.count))


def _winner_table(
    pairs: Sequence[tuple[int, Selector, Selector]], peer: _Dimension, service: _Dimension
) -> RuleArrays:
    winner = np.full((peer.count, service.count), -1, dtype=np.int32)
    for rule, peers, services in reversed(pairs):
        winner[np.ix_(peer.matching(peers), service.matching(services))] = rule
    return RuleArrays(peer.of_class, service.of_class, service.count, winner)


def _bit_vector_table(
    pairs: Sequence[tuple[int, Selector, Selector]], peer: _Dimension, service: _Dimension
) -> RuleArrays:
    words = (len(pairs) + 63) // 64
    peer_rules = np.zeros((peer.count, words), dtype=np.uint64)
    service_rules = np.zeros((service.count, words), dtype=np.uint64)
    for n, (_, peers, services) in enumerate(pairs):
        bit = np.uint64(1 << (n & 63))
        peer_rules[peer.matching(peers), n >> 6] |= bit
        service_rules[service.matching(services), n >> 6] |= bit
    rule_of_bit = np.array([rule for rule, _, _ in pairs], dtype=np.int32)
    return RuleArrays(peer.of_class, service.of_class, service.count, peer_rules, service_rules, rule_of_bit)
