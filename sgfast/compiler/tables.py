"""Builds rule tables, which give the winning rule for a class of peer address and a class of protocol and port.

Each security group has one rule table per direction. An instance in several groups is subject to the union of their
rules (SPEC 1). The sets of groups that most instances have get joined tables, so that one look-up suffices. For the
others the data plane looks up each group and takes the rule with the lowest rank. Memory therefore grows with the
number of groups, not with the number of combinations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import eq, is_

import numpy as np
from numpy.typing import NDArray

from sgfast.compiler.address_classes import AddressClasses, Indices, Profile
from sgfast.compiler.dimensions import Dimension, Selector
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

#: If this many cells would be written to make a plain table, it is stored as bit vectors: rules that all overlap would
#: otherwise take time for each cell and rule. It is a second or two.
MAX_PAINTED_CELLS = 1 << 30

#: If more rules of a group than this change at once, building its table anew is less work.
MAX_RULES_CHANGED = 64


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
class _Built:
    """A table, and what a table with few other rules can be made from. Rules are in order of precedence."""

    table: RuleArrays
    order: Sequence[int]
    rules: Sequence[Rule]
    peer: Dimension
    service: Dimension
    #: The row of each rule's selector in each dimension.
    peer_row: Indices
    service_row: Indices


@dataclass(frozen=True, slots=True)
class _Kept:
    built: _Built
    #: Keeps the groups alive, because the key contains their object ids.
    groups: tuple[SecurityGroup, ...]


class TableCache:
    """Tables by the groups they were built from. An unchanged group is the same object in a later policy.

    Valid for one set of address classes and one set of port classes, and for finer ones.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], _Kept] = {}
        self._used: dict[tuple[object, ...], _Kept] = {}
        # ``_kept`` by the names of groups, made when it is first asked.
        self._named: dict[tuple[object, ...], _Built] | None = None

    def get(self, groups: tuple[SecurityGroup, ...], direction: str, vpc: int) -> RuleArrays | None:
        key = (tuple(map(id, groups)), direction, vpc)
        kept = self._used.get(key) or self._kept.get(key)
        if kept is None:
            return None
        self._used[key] = kept
        return kept.built.table

    def put(self, groups: tuple[SecurityGroup, ...], direction: str, vpc: int, built: _Built) -> None:
        self._used[tuple(map(id, groups)), direction, vpc] = _Kept(built, groups)

    def before(self, groups: tuple[SecurityGroup, ...], direction: str, vpc: int) -> _Built | None:
        """What was built for the groups of these names, before some of them changed."""
        if self._named is None:
            self._named = {
                (tuple(group.name for group in kept.groups), *key[1:]): kept.built for key, kept in self._kept.items()
            }
        return self._named.get((tuple(group.name for group in groups), direction, vpc))

    def copy(self) -> TableCache:
        later = TableCache()
        later._kept = self._used | self._kept
        return later

    def forget_unused(self) -> None:
        self._kept, self._used, self._named = self._used, {}, None


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
    rule_numbers: Sequence[Sequence[int]],
    profiles: dict[Profile, int],
    addresses: AddressClasses,
    ports: PortClasses,
    rank: NDArray[np.int32],
    cache: TableCache,
) -> RuleTables:
    """Build the tables. ``rule_numbers``: by group. ``profiles``: how many instances have each. Raises PolicyError if
    they would take too much memory.
    """
    builder = _Builder(policy, rules, addresses, ports, rank)
    groups = policy.security_groups
    directions: tuple[Direction, ...] = ("outbound", "inbound")
    has_rules = {d: [d in {rule.direction for rule in group.rules} for group in groups] for d in directions}
    numbers_of = {group.name: numbers for group, numbers in zip(groups, rule_numbers, strict=True)}

    def order(members: Sequence[SecurityGroup], direction: str) -> list[int]:
        numbers = np.array(
            [n for group in members for n, rule in zip(numbers_of[group.name], group.rules, strict=True)
             if rule.direction == direction], dtype=np.int64,
        )  # fmt: skip
        in_order: list[int] = numbers[np.argsort(rank[numbers], kind="stable")].tolist()
        return in_order

    def table_of(members: tuple[SecurityGroup, ...], direction: str, vpc: int) -> RuleArrays | None:
        """The table of one group; or of several groups, if joining them pays off."""
        table = cache.get(members, direction, vpc)
        if table is not None:
            return table
        before = cache.before(members, direction, vpc)
        built = None
        if len(members) == 1:
            built = builder.build(order(members, direction), vpc, before)
        elif builder.may_join(sum(len(g.rules) for g in members)):
            built = builder.build_joined(order(members, direction), vpc, before)
        if built is None:
            return None
        cache.put(members, direction, vpc, built)
        return built.table

    chosen: list[tuple[RuleArrays, ...]] = [()] * (2 * len(profiles))
    number = {profile: n for n, profile in enumerate(profiles)}
    present = [profile for profile, instances in profiles.items() if instances]
    several = sorted((p for p in present if len(p[0]) > 1), key=lambda p: (-profiles[p], number[p]))
    for profile in (*several, *(p for p in present if len(p[0]) < 2)):
        in_groups, vpc = profile
        for d, direction in enumerate(directions):
            members = tuple(groups[g] for g in in_groups if has_rules[direction][g])
            if not members:
                chosen[2 * number[profile] + d] = (builder.build([], vpc, None).table,)
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
        self, policy: Policy, rules: Sequence[Rule], addresses: AddressClasses, ports: PortClasses,
        rank: NDArray[np.int32],
    ) -> None:  # fmt: skip
        self.built = 0
        self._rules = rules
        self._rank = rank
        self._addresses = addresses
        self._ports = ports
        self._made: dict[tuple[object, ...], _Built] = {}
        self._dimensions: dict[tuple[str, tuple[Selector, ...]], Dimension] = {}
        self._left = MAX_TABLE_BYTES
        self._left_for_joined = MAX_JOINED_BYTES
        self._steps_left = MAX_JOINED_STEPS
        self._refusal = (
            f"{policy.origin}: the rule tables would need more than {MAX_TABLE_BYTES >> 20} MiB: the rules of "
            f"{len(policy.security_groups)} groups distinguish {addresses.count} kinds of address and {ports.count} "
            "kinds of port; use fewer groups, or fewer and wider rules"
        )

    def build(self, order: Sequence[int], vpc: int, before: _Built | None) -> _Built:
        """The table for rules in order of precedence, seen from a VPC. ``before``: the table of earlier rules."""
        built = self._build(order, vpc, before, joined=False)
        assert built is not None
        return built

    def may_join(self, rules: int) -> bool:
        """Whether enough steps are left to join groups with this many rules."""
        self._steps_left -= rules * (self._addresses.count + self._ports.count)
        return self._steps_left >= 0

    def build_joined(self, order: Sequence[int], vpc: int, before: _Built | None) -> _Built | None:
        """Like ``build``, for the rules of several groups; None if the table would be too large to pay off."""
        return self._build(order, vpc, before, joined=True)

    def _build(self, order: Sequence[int], vpc: int, before: _Built | None, joined: bool) -> _Built | None:
        rules = [self._rules[r] for r in order]
        difference = None if before is None else _difference(before, order, rules)
        if before is not None and difference is not None:
            news = [rules[n] for n in difference.added]
            identity: tuple[object, ...] = (
                id(before), tuple(order), tuple(self._addresses.selector(rule, vpc) for rule in news)
            )  # fmt: skip
        else:
            peers = tuple(self._addresses.selector(rule, vpc) for rule in rules)
            identity = (tuple(order), peers)
        if identity in self._made:
            return self._made[identity]
        if before is not None and difference is not None:
            left = self._left, self._left_for_joined
            try:
                built = self._changed(order, rules, vpc, before, difference, joined)
            except PolicyError:
                # What removed rules distinguished is still apart. A table built anew may be smaller.
                self._left, self._left_for_joined = left
                built = self._from_rules(order, rules, vpc, joined)
        else:
            built = self._from_rules(order, rules, vpc, joined)
        if built is not None:
            self.built += 1
            self._made[identity] = built
        return built

    def _from_rules(self, order: Sequence[int], rules: list[Rule], vpc: int, joined: bool) -> _Built | None:
        peers, services = self._selectors(rules, vpc)
        peer, service = self._dimension("peer", peers), self._dimension("service", services)
        rows = (
            np.array([peer.row[self._addresses.selector(rule, vpc)] for rule in rules], dtype=np.int64),
            np.array([service.row[self._ports.selector(rule)] for rule in rules], dtype=np.int64),
        )
        if not self._may_take(peer.count * service.count, joined):
            return None
        if self._is_plain(peer, service):
            first = np.sort(np.unique(rows[0] * max(len(service.row), 1) + rows[1], return_index=True)[1])
            painted = peer.matches()[rows[0][first]] * service.matches()[rows[1][first]]
            if int(painted.sum()) <= MAX_PAINTED_CELLS:
                self._take(4 * peer.count * service.count)
                winner = _winners([order[n] for n in first], rows[0][first], rows[1][first], peer, service)
                table = RuleArrays(peer.of_class, service.of_class, service.count, winner)
                return _Built(table, order, rules, peer, service, *rows)
        return self._with_bit_vectors(order, rules, peer, service, *rows)

    def _changed(
        self, order: Sequence[int], rules: list[Rule], vpc: int, before: _Built, difference: _Difference, joined: bool
    ) -> _Built | None:
        """The table of ``before`` without some rules and with others. The work is that of what differs."""
        news = [rules[n] for n in difference.added]
        peers, services = self._selectors(news, vpc)
        peer, peer_origin = before.peer.extended(peers, self._addresses.origin, self._take)
        service, service_origin = before.service.extended(services, self._ports.origin, self._take)
        rows = []
        for old, row, selectors in (
            (before.peer_row, peer.row, [self._addresses.selector(rule, vpc) for rule in news]),
            (before.service_row, service.row, [self._ports.selector(rule) for rule in news]),
        ):
            # The rules that stay are in the same order as before.
            made = np.zeros(len(order), dtype=np.int64)
            made[difference.stays] = old[difference.stayed]
            made[difference.added] = [row[selector] for selector in selectors]
            rows.append(made)
        if not self._may_take(peer.count * service.count, joined):
            return None
        if before.table.has_bit_vectors or not self._is_plain(peer, service):
            return self._with_bit_vectors(order, rules, peer, service, *rows)
        staying = np.array(order, dtype=np.int32)[difference.stays]
        peers_of_staying, services_of_staying = (of_rule[difference.stays] for of_rule in rows)
        gone = [(before.order[n], int(before.peer_row[n]), int(before.service_row[n])) for n in difference.gone]
        overlapping = [
            np.flatnonzero(
                peer.touching(peer.matching(p))[peers_of_staying]
                & service.touching(service.matching(s))[services_of_staying]
            )
            for _, p, s in gone
        ]
        if sum(map(len, overlapping)) > len(order) + MAX_RULES_CHANGED:
            return self._from_rules(order, rules, vpc, joined)
        self._take(4 * peer.count * service.count)
        winner = before.table.arrays[3].reshape(before.peer.count, before.service.count)
        winner = winner[peer_origin]
        if service.count != before.service.count:
            winner = winner[:, service_origin]
        if gone:
            peers_of, services_of = peer.matching_each(), service.matching_each()
            for (number, p, s), others in zip(gone, overlapping, strict=True):
                next_rules = [
                    (int(staying[n]), peers_of[peers_of_staying[n]], services_of[services_of_staying[n]])
                    for n in others.tolist()
                ]
                _fill_in_for(winner, number, peers_of[p], services_of[s], next_rules)
        for n in difference.added:
            cells = np.ix_(peer.matching(rows[0][n]), service.matching(rows[1][n]))
            won = winner[cells]
            winner[cells] = np.where((won < 0) | (self._rank[won] > self._rank[order[n]]), order[n], won)
        table = RuleArrays(peer.of_class, service.of_class, service.count, winner)
        return _Built(table, order, rules, peer, service, *rows)

    def _with_bit_vectors(
        self, order: Sequence[int], rules: list[Rule], peer: Dimension, service: Dimension, peer_row: Indices,
        service_row: Indices,
    ) -> _Built:  # fmt: skip
        words = (len(order) + 63) // 64
        self._take((peer.count + service.count) * words * 8)
        vectors = [_bit_vectors(peer, peer_row, words), _bit_vectors(service, service_row, words)]
        rule_of_bit = np.array(order, dtype=np.int32)
        table = RuleArrays(peer.of_class, service.of_class, service.count, *vectors, rule_of_bit)
        return _Built(table, order, rules, peer, service, peer_row, service_row)

    def _selectors(
        self, rules: Sequence[Rule], vpc: int
    ) -> tuple[dict[Selector, Callable[[], Indices]], dict[Selector, Callable[[], Indices]]]:
        """The different selectors of rules for peers and for services, each with what finds its classes."""
        return (
            {self._addresses.selector(rule, vpc): partial(self._addresses.matching, rule, vpc) for rule in rules},
            {self._ports.selector(rule): partial(self._ports.matching, rule) for rule in rules},
        )

    def _dimension(self, kind: str, selectors: dict[Selector, Callable[[], Indices]]) -> Dimension:
        key = (kind, tuple(selectors))
        if key not in self._dimensions:
            origin = self._addresses.origin if kind == "peer" else self._ports.origin
            self._take(4 * len(origin))
            self._dimensions[key] = Dimension(len(origin)).extended(selectors, origin, self._take)[0]
        return self._dimensions[key]

    def _may_take(self, cells: int, joined: bool) -> bool:
        """Whether a table of this size is worth it. A table of one group always is."""
        if joined:
            if cells > MAX_TABLE_CELLS or 4 * cells > self._left_for_joined:
                return False
            self._left_for_joined -= 4 * cells
        return True

    def _is_plain(self, peer: Dimension, service: Dimension) -> bool:
        cells = peer.count * service.count
        return cells <= MAX_TABLE_CELLS and 4 * cells <= self._left // 2

    def _take(self, nbytes: int) -> None:
        # Called before memory is allocated, so that no policy exhausts it (SPEC 11).
        self._left -= nbytes
        if self._left < 0:
            raise PolicyError(self._refusal)


@dataclass(frozen=True, slots=True)
class _Difference:
    """Positions of rules. Among the earlier ones: which are gone, and which stayed. Among the later ones: which stay,
    and which were added. What stays keeps its order.
    """

    gone: list[int]
    stayed: Indices
    stays: Indices
    added: list[int]


def _difference(before: _Built, order: Sequence[int], rules: Sequence[Rule]) -> _Difference | None:
    """How rules differ from earlier ones; None if building a table anew is better."""
    # What removed rules distinguished is still apart. Building anew from time to time forgets it.
    if max(len(before.peer.row), len(before.service.row)) > 2 * len(order) + MAX_RULES_CHANGED:
        return None
    first = _same(before.order, before.rules, order, rules)
    last = _same(before.order[first:][::-1], before.rules[first:][::-1], order[first:][::-1], rules[first:][::-1])
    old = range(first, len(before.order) - last)
    new = range(first, len(order) - last)
    was = {(before.order[n], id(before.rules[n])): n for n in old}
    now = {(order[n], id(rules[n])): n for n in new}
    stayed = [n for key, n in was.items() if key in now]
    stays = [n for key, n in now.items() if key in was]
    gone = [n for key, n in was.items() if key not in now]
    added = [n for key, n in now.items() if key not in was]
    if max(len(gone), len(added)) > MAX_RULES_CHANGED or [before.order[n] for n in stayed] != [order[n] for n in stays]:
        return None
    return _Difference(
        gone,
        np.array([*range(first), *stayed, *range(old.stop, len(before.order))], dtype=np.int64),
        np.array([*range(first), *stays, *range(new.stop, len(order))], dtype=np.int64),
        added,
    )


def _same(
    before: Sequence[int], rules_before: Sequence[Rule], after: Sequence[int], rules_after: Sequence[Rule]
) -> int:
    """How many rules at the beginning are the same objects with the same numbers."""
    same = bytes(map(eq, before, after)).find(0), bytes(map(is_, rules_before, rules_after)).find(0)
    return min(min(len(before), len(after)) if n < 0 else n for n in same)


def _winners(
    order: Sequence[int], peer_row: Indices, service_row: Indices, peer: Dimension, service: Dimension
) -> NDArray[np.int32]:
    winner = np.full((peer.count, service.count), -1, dtype=np.int32)
    peers, services = peer.matching_each(), service.matching_each()
    for rule, p, s in reversed(list(zip(order, peer_row.tolist(), service_row.tolist(), strict=True))):
        winner[peers[p][:, None], services[s]] = rule
    return winner


def _fill_in_for(
    winner: NDArray[np.int32], gone: int, peers: NDArray[np.int32], services: NDArray[np.int32],
    next_rules: Sequence[tuple[int, NDArray[np.int32], NDArray[np.int32]]],
) -> None:  # fmt: skip
    """Let the next rules win where a rule that is gone has won. ``next_rules``: those that overlap it, in order, each
    with the joined classes that it matches.
    """
    cells = np.ix_(peers, services)
    won = winner[cells]
    open_cells = won == gone
    won[open_cells] = -1
    left = int(open_cells.sum())
    place_of_peer = np.full(winner.shape[0], -1)
    place_of_peer[peers] = np.arange(len(peers))
    place_of_service = np.full(winner.shape[1], -1)
    place_of_service[services] = np.arange(len(services))
    for rule, rule_peers, rule_services in next_rules:
        if not left:
            break
        rows, columns = place_of_peer[rule_peers], place_of_service[rule_services]
        part = np.ix_(rows[rows >= 0], columns[columns >= 0])
        is_open = open_cells[part]
        left -= int(is_open.sum())
        won[part] = np.where(is_open, rule, won[part])
        open_cells[part] = False
    winner[cells] = won


def _bit_vectors(dimension: Dimension, row: Indices, words: int) -> NDArray[np.uint64]:
    """For each joined class: a bit for each rule, in order of precedence, that matches it."""
    vectors = np.zeros((dimension.count, words), dtype=np.uint64)
    matching = dimension.matching_each()
    bits = np.uint64(1) << np.arange(64, dtype=np.uint64)
    for word in range(words):
        of_rules = [matching[n] for n in row[64 * word : 64 * word + 64].tolist()]
        set_bits = np.repeat(bits[: len(of_rules)], list(map(len, of_rules)))
        np.bitwise_or.at(vectors[:, word], np.concatenate(of_rules), set_bits)
    return vectors
