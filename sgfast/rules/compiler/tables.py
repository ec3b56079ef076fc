"""Build rule tables, which give the winning rule for a class of peer address and a class of protocol and port.

Each security group has one rule table per direction. An instance in several groups is subject to the union of their
rules (SPEC 1). Each set of groups that many instances have gets a joined table, so that one look-up suffices. Groups
that many other sets of groups have in common get a joined table, too. For each group without a joined table, the data
plane makes a look-up of its own, and it takes the rule with the lowest rank. The size of joined tables is limited, so
memory grows with the number of groups, not with the number of their combinations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache as cache_result
from functools import partial
from operator import eq, is_

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import PolicyError
from sgfast.core.classify.classifier import LIST_FLAG, RuleArrays
from sgfast.policy.model import Direction, Policy, Rule, SecurityGroup
from sgfast.rules.compiler.address_classes import AddressClasses, Context, Indices
from sgfast.rules.compiler.dimensions import Dimension, Selector
from sgfast.rules.compiler.ports import PortClasses
from sgfast.rules.services import service_key

#: The limit for the cells of a plain rule table: 2 MiB, and 4 MiB while the table is made. A larger table is stored as
#: bit vectors.
MAX_TABLE_CELLS = 1 << 20

#: The limits for building the joined tables of a policy. A step is one rule and one class; all steps together take a
#: third of a second.
MAX_JOINED_STEPS = 64_000_000
MAX_JOINED_BYTES = 64 << 20
#: A group is common if at least this fraction of all sets of groups contains it.
COMMON_PART = 1 / 32
#: Common groups get a joined table only if at least this many sets of groups have exactly these common groups.
COMMON_SETS = 8
#: The limit for the steps that build joined tables of common groups. MAX_JOINED_STEPS applies to other joined tables.
MAX_COMMON_STEPS = 32_000_000

#: The limit for the memory of all rule tables of a policy. A policy that needs more could exhaust memory (SPEC 11), so
#: it is rejected.
MAX_TABLE_BYTES = 2 << 30

#: The limit for the cells that are written to make a plain table (a second or two). A cell is written once for each
#: rule that matches it, so many overlapping rules would take too long. Their table is stored as bit vectors.
MAX_PAINTED_CELLS = 1 << 30

#: The limit for the rules of a group that may change at once. If more change, building the table anew is less work than
#: changing it.
MAX_RULES_CHANGED = 64


@dataclass
class RuleTables:
    """Rule tables as ``core.classify.classifier.Classifier`` takes them, with statistics about them."""

    tables: list[RuleArrays]
    #: For each context and direction (outbound, inbound): the number of its only table; or ``LIST_FLAG`` and the place
    #: in ``lists`` where the list of its tables begins.
    chosen: NDArray[np.uint32]
    #: Lists of table numbers. The rule with the lowest rank among all tables of a list wins.
    lists: NDArray[np.uint32]
    #: The number of tables that are stored as bit vectors.
    bit_vectors: int
    #: The number of tables that were built rather than reused.
    built: int


@dataclass(frozen=True, slots=True)
class _Built:
    """A table with the data to derive a table that differs in a few rules. Rules are in order of precedence."""

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
    """A table in the cache, with the groups that it was built from."""

    built: _Built
    groups: tuple[SecurityGroup, ...]
    key: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Last:
    """The last tables that were made, with their groups and contexts."""

    groups: tuple[SecurityGroup, ...]
    #: Each context, and whether any instance had this context when the tables were made.
    contexts: list[tuple[Context, bool]]
    #: The numbers of the contexts that have tables.
    with_tables: set[int]
    #: The place of each table in ``rule_tables``, by the ``id()`` of the table. The table without rules has key None.
    places: dict[int | None, int]
    rule_tables: RuleTables

    def serves(self, contexts: list[tuple[Context, bool]]) -> bool:
        """Return whether ``contexts`` begins with the last contexts in the same order."""
        begin = contexts[: len(self.contexts)]
        return [context for context, _ in begin] == [context for context, _ in self.contexts]


class TableCache:
    """Tables by the groups from which they were built. An unchanged group is the same object in a later policy.

    The tables stay valid as long as later address classes and port classes only divide the earlier ones.
    """

    def __init__(self) -> None:
        # Tables by the names of groups, direction and VPC.
        self._table_by_key: dict[tuple[object, ...], _Kept] = {}
        # The tables of each context, by direction.
        self._contexts: dict[Context, list[tuple[_Kept, ...]]] = {}
        self.last: _Last | None = None

    def of_context(self, context: Context) -> list[tuple[_Kept, ...]] | None:
        """Return the tables that this context used last, for each direction; None if it has none."""
        return self._contexts.get(context)

    def use(self, contexts: dict[Context, list[tuple[_Kept, ...]]], forget: bool) -> None:
        """Keep the tables of these contexts. ``forget``: drop the tables of all other contexts."""
        if forget:
            self._contexts = contexts
            self._table_by_key = {
                table.key: table for tables in contexts.values() for in_direction in tables for table in in_direction
            }
        else:
            self._contexts |= contexts

    def get(self, groups: tuple[SecurityGroup, ...], direction: str, vpc: int) -> _Kept | None:
        """Return the table of the groups with these names, which may be older than the groups; None: no table."""
        return self._table_by_key.get(self._key(groups, direction, vpc))

    def put(self, groups: tuple[SecurityGroup, ...], direction: str, vpc: int, built: _Built) -> _Kept:
        key = self._key(groups, direction, vpc)
        self._table_by_key[key] = _Kept(built, groups, key)
        return self._table_by_key[key]

    @staticmethod
    def _key(groups: tuple[SecurityGroup, ...], direction: str, vpc: int) -> tuple[object, ...]:
        return tuple(group.name for group in groups), direction, vpc

    def copy(self) -> TableCache:
        later = TableCache()
        later._table_by_key, later._contexts, later.last = self._table_by_key.copy(), self._contexts.copy(), self.last
        return later


def rule_tables(
    policy: Policy,
    rules: Sequence[Rule],
    numbers_of: Sequence[Mapping[Direction, Indices]],
    contexts: dict[Context, int],
    addresses: AddressClasses,
    ports: PortClasses,
    rank: NDArray[np.int32],
    cache: TableCache,
) -> RuleTables:
    """Build the rule tables of a policy.

    ``numbers_of``: the numbers of each group's rules, by direction. ``contexts``: the number of instances that have
    each context. Raises PolicyError if the tables would take too much memory.
    """
    groups = policy.security_groups
    listed = [(context, instances > 0) for context, instances in contexts.items()]
    last = cache.last
    if last is not None and last.groups is groups and last.contexts == listed:
        return replace(last.rule_tables, built=0)
    builder = _Builder(policy, rules, addresses, ports, rank)
    directions: tuple[Direction, ...] = ("outbound", "inbound")

    def table_of(in_groups: Sequence[int], direction: Direction, vpc: int, common: bool = False) -> _Kept | None:
        """Return the table of these groups; None if they are several and a joined table would cost too much.

        ``common``: the groups are common groups, whose joined tables have a limit of their own (MAX_COMMON_STEPS).
        """
        members = tuple(groups[g] for g in in_groups)
        kept_table = cache.get(members, direction, vpc)
        if kept_table is not None and all(map(is_, kept_table.groups, members)):
            return kept_table
        if len(members) > 1 and not builder.may_join(sum(len(group.rules) for group in members), common):
            return None
        numbers = np.concatenate([np.zeros(0, dtype=np.int64), *(numbers_of[g][direction] for g in in_groups)])
        order: list[int] = numbers[np.argsort(rank[numbers], kind="stable")].tolist()
        build = builder.build if len(members) < 2 else builder.build_joined
        built = build(order, vpc, None if kept_table is None else kept_table.built)
        return None if built is None else cache.put(members, direction, vpc, built)

    @cache_result
    def common_groups() -> dict[Context, frozenset[int]]:
        return _common_groups([context for context, has_instances in listed if has_instances])

    def tables_of(context: Context, direction: Direction) -> tuple[_Kept, ...]:
        in_groups = [g for g in context[0] if len(numbers_of[g][direction])]
        joined = table_of(in_groups, direction, context[1])
        if joined is not None:
            return (joined,)
        common = common_groups().get(context, frozenset())
        shared_groups = [g for g in in_groups if g in common]
        if len(shared_groups) > 1:
            joined = table_of(shared_groups, direction, context[1], common=True)
        separate_groups = in_groups if joined is None else [g for g in in_groups if g not in common]
        parts = [joined, *(table_of([g], direction, context[1]) for g in separate_groups)]
        return tuple(part for part in parts if part is not None)

    # If the groups are the same, the earlier tables stay, and only contexts without tables get new tables.
    earlier = last if last is not None and last.groups is groups and last.serves(listed) else None
    before = groups if last is None else last.groups
    changed = {g for g, (old, new) in enumerate(zip(before, groups, strict=True)) if old is not new}
    chosen: dict[int, list[tuple[_Kept, ...]]] = {}
    several: list[tuple[int, Context]] = []
    single: list[tuple[int, Context]] = []
    for n, (context, has_instances) in enumerate(listed):
        if not has_instances or (earlier is not None and n in earlier.with_tables):
            continue
        kept_tables = cache.of_context(context) if changed.isdisjoint(context[0]) else None
        if kept_tables is None:
            (several if len(context[0]) > 1 else single).append((n, context))
        else:
            chosen[n] = kept_tables
    # Joined tables have a limit, so the most frequent sets of groups come first.
    several.sort(key=lambda number_and_context: (-contexts[number_and_context[1]], number_and_context[0]))
    for n, context in [*several, *single]:
        chosen[n] = [tables_of(context, direction) for direction in directions]
    cache.use({listed[n][0]: tables for n, tables in chosen.items()}, forget=earlier is None)
    cache.last = _listed(groups, listed, chosen, builder.built, earlier)
    return cache.last.rule_tables


def _common_groups(contexts: Sequence[Context]) -> dict[Context, frozenset[int]]:
    """Find the common groups of each context. A context is left out if too few others have the same common groups."""
    several = [context for context in contexts if len(context[0]) > 1]
    sets = Counter(g for groups, _ in several for g in groups)
    common = frozenset(g for g, n in sets.items() if n >= COMMON_PART * len(several))
    parts = {context: common.intersection(context[0]) for context in several}
    sharing = Counter((part, vpc) for (_, vpc), part in parts.items())
    return {context: part for context, part in parts.items() if sharing[part, context[1]] >= COMMON_SETS}


def _listed(
    groups: tuple[SecurityGroup, ...],
    contexts: list[tuple[Context, bool]],
    chosen: dict[int, list[tuple[_Kept, ...]]],
    built: int,
    earlier: _Last | None,
) -> _Last:
    """List the tables of contexts behind the tables of ``earlier``. ``chosen``: tables by context and direction."""
    # Profiles may share a table, which is listed once. All tables without rules are the same, so only one is listed.
    places: dict[int | None, int] = {} if earlier is None else earlier.places.copy()
    tables: list[RuleArrays] = [] if earlier is None else [*earlier.rule_tables.tables]
    of_context = []
    for in_direction in [in_direction for per_direction in chosen.values() for in_direction in per_direction]:
        numbers = []
        for kept_table in in_direction:
            table = kept_table.built.table
            place = places.setdefault(id(table) if kept_table.built.order else None, len(tables))
            if place == len(tables):
                tables.append(table)
            numbers.append(place)
        of_context.append(tuple(numbers))
    choice = np.zeros((len(contexts), 2), dtype=np.uint32)
    lists = np.zeros(0, dtype=np.uint32) if earlier is None else earlier.rule_tables.lists
    if earlier is not None:
        choice[: len(earlier.contexts)] = earlier.rule_tables.chosen
    choice[[*chosen]], new_lists = _choices(of_context, tables, len(lists))
    rule_tables = RuleTables(
        tables, choice, np.append(lists, new_lists), sum([table.has_bit_vectors for table in tables]), built
    )
    with_tables = {*chosen} if earlier is None else {*chosen, *earlier.with_tables}
    return _Last(groups, contexts, with_tables, places, rule_tables)


def _choices(
    of_context: Sequence[tuple[int, ...]], tables: Sequence[RuleArrays], first: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return ``RuleTables.chosen``, and the part of ``RuleTables.lists`` that begins at place ``first``."""
    lists: list[int] = []
    begins: dict[tuple[int, ...], int] = {}
    chosen = []
    for numbers in of_context:
        if len(numbers) == 1:
            chosen.append(numbers[0])
            continue
        if numbers not in begins:
            begins[numbers] = first + len(lists)
            small = [number for number in numbers if tables[number].is_small]
            large = [number for number in numbers if not tables[number].is_small]
            lists += [len(small), len(large), *small, *large]
        chosen.append(LIST_FLAG | begins[numbers])
    return np.array(chosen, dtype=np.uint32).reshape(-1, 2), np.array(lists, dtype=np.uint32)


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
        self._built_tables: dict[tuple[object, ...], _Built] = {}
        self._dimensions: dict[tuple[str, tuple[Selector, ...]], Dimension] = {}
        self._bytes_left = MAX_TABLE_BYTES
        self._joined_bytes_left = MAX_JOINED_BYTES
        # The steps left for joined tables of whole sets of groups, and for joined tables of common groups.
        self._steps_left = [MAX_JOINED_STEPS, MAX_COMMON_STEPS]
        self._refusal = (
            f"{policy.origin}: the rule tables would need more than {MAX_TABLE_BYTES >> 20} MiB: the rules of "
            f"{len(policy.security_groups)} groups distinguish {addresses.count} kinds of address and {ports.count} "
            "kinds of port; use fewer groups, or fewer and wider rules"
        )

    def build(self, order: Sequence[int], vpc: int, before: _Built | None) -> _Built:
        """Build the table of rules in order of precedence, as seen from a VPC. ``before``: the table to derive from."""
        built = self._build(order, vpc, before, joined=False)
        assert built is not None
        return built

    def may_join(self, rules: int, common: bool) -> bool:
        """Use up the steps for joining groups with this many rules. Return whether enough steps were left."""
        self._steps_left[common] -= rules * (self._addresses.count + self._ports.count)
        return self._steps_left[common] >= 0

    def build_joined(self, order: Sequence[int], vpc: int, before: _Built | None) -> _Built | None:
        """Build a table as ``build`` does, for rules of several groups; None if it would be too large to pay off."""
        return self._build(order, vpc, before, joined=True)

    def _build(self, order: Sequence[int], vpc: int, before: _Built | None, joined: bool) -> _Built | None:
        rules = [self._rules[r] for r in order]
        if before is not None and before.order == order and all(map(is_, before.rules, rules)):
            return before
        difference = None if before is None else _difference(before, order, rules)
        matched = self._matched(rules if difference is None else [rules[n] for n in difference.added], vpc)
        identity = (None if difference is None else id(before), tuple(order), tuple(matched.peers))
        if identity in self._built_tables:
            return self._built_tables[identity]
        if before is not None and difference is not None:
            bytes_left = self._bytes_left, self._joined_bytes_left
            try:
                built = self._changed(order, rules, vpc, before, difference, matched, joined)
            except PolicyError:
                # The changed table still distinguishes classes for removed rules. A table built anew may be smaller.
                self._bytes_left, self._joined_bytes_left = bytes_left
                built = self._from_rules(order, rules, self._matched(rules, vpc), joined)
        else:
            built = self._from_rules(order, rules, matched, joined)
        if built is not None:
            self.built += 1
            self._built_tables[identity] = built
        return built

    def _from_rules(self, order: Sequence[int], rules: list[Rule], matched: _Matched, joined: bool) -> _Built | None:
        peer, service = self._dimension("peer", matched.of_peer), self._dimension("service", matched.of_service)
        rows = (
            np.array([peer.row[selector] for selector in matched.peers], dtype=np.int64),
            np.array([service.row[selector] for selector in matched.services], dtype=np.int64),
        )
        if not self._may_take(peer.count * service.count, joined):
            return None
        if self._is_plain(peer, service):
            first = np.sort(np.unique(rows[0] * max(len(service.row), 1) + rows[1], return_index=True)[1])
            painted = peer.matches()[rows[0][first]] * service.matches()[rows[1][first]]
            if int(painted.sum()) <= MAX_PAINTED_CELLS:
                self._take(4 * peer.count * service.count)
                winner = _winners([order[n] for n in first], rows[0][first], rows[1][first], peer, service)
                return self._with_cells(winner, order, rules, peer, service, *rows)
        return self._with_bit_vectors(order, rules, peer, service, *rows)

    def _changed(
        self, order: Sequence[int], rules: list[Rule], vpc: int, before: _Built, difference: _Difference,
        matched: _Matched, joined: bool,
    ) -> _Built | None:  # fmt: skip
        """Derive a table from ``before`` by removing and adding rules. The work grows with the rules that differ."""
        peer, peer_origin = before.peer.extended(matched.of_peer, self._addresses.origin, self._take)
        service, service_origin = before.service.extended(matched.of_service, self._ports.origin, self._take)
        rows = []
        for old, row, selectors in (
            (before.peer_row, peer.row, matched.peers),
            (before.service_row, service.row, matched.services),
        ):
            # The rules that stay keep their order, so their rows can be copied.
            new_rows = np.zeros(len(order), dtype=np.int64)
            new_rows[difference.stays] = old[difference.stayed]
            new_rows[difference.added] = [row[selector] for selector in selectors]
            rows.append(new_rows)
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
            return self._from_rules(order, rules, self._matched(rules, vpc), joined)
        self._take(4 * peer.count * service.count)
        numbers = before.table.cells.reshape(before.peer.count, before.service.count)[peer_origin]
        if service.count != before.service.count:
            numbers = numbers[:, service_origin]
        winner = numbers.astype(np.int32)
        winner -= 1
        if gone:
            peers_of, services_of = peer.matching_each(), service.matching_each()
            for (number, p, s), rivals in zip(gone, overlapping, strict=True):
                next_rules = [
                    (int(staying[n]), peers_of[peers_of_staying[n]], services_of[services_of_staying[n]])
                    for n in rivals.tolist()
                ]
                _fill_in_for(winner, number, peers_of[p], services_of[s], next_rules)
        for n in difference.added:
            cells = np.ix_(peer.matching(rows[0][n]), service.matching(rows[1][n]))
            won = winner[cells]
            winner[cells] = np.where((won < 0) | (self._rank[won] > self._rank[order[n]]), order[n], won)
        return self._with_cells(winner, order, rules, peer, service, *rows)

    def _with_cells(
        self, winner: NDArray[np.int32], order: Sequence[int], rules: list[Rule], peer: Dimension, service: Dimension,
        peer_row: Indices, service_row: Indices,
    ) -> _Built:  # fmt: skip
        """Make a plain table from ``winner``, which is changed. The caller has counted its bytes (``_take``)."""
        winner += 1     # in place: a large table has a million cells
        table = RuleArrays(peer.of_class, service.of_class, service.count, winner)
        self._take(table.cells.nbytes - winner.nbytes)
        return _Built(table, order, rules, peer, service, peer_row, service_row)

    def _with_bit_vectors(
        self, order: Sequence[int], rules: list[Rule], peer: Dimension, service: Dimension, peer_row: Indices,
        service_row: Indices,
    ) -> _Built:  # fmt: skip
        words = (len(order) + 63) // 64 or 1
        self._take((peer.count + service.count) * words * 8)
        vectors = [_bit_vectors(peer, peer_row, words), _bit_vectors(service, service_row, words)]
        rules_of_bits = np.array(order, dtype=np.int64) + 1
        table = RuleArrays(peer.of_class, service.of_class, service.count, rules_of_bits, *vectors)
        return _Built(table, order, rules, peer, service, peer_row, service_row)

    def _matched(self, rules: Sequence[Rule], vpc: int) -> _Matched:
        peers = [self._addresses.selector(rule, vpc) for rule in rules]
        services = [service_key(rule) for rule in rules]
        return _Matched(
            peers,
            services,
            {peer: partial(self._addresses.matching, rule, vpc) for peer, rule in zip(peers, rules, strict=True)},
            {selector: partial(self._ports.matching, rule) for selector, rule in zip(services, rules, strict=True)},
        )

    def _dimension(self, kind: str, selectors: dict[Selector, Callable[[], Indices]]) -> Dimension:
        key = (kind, tuple(selectors))
        if key not in self._dimensions:
            origin = self._addresses.origin if kind == "peer" else self._ports.origin
            joined = Dimension(len(origin))
            self._dimensions[key] = joined.extended(selectors, origin, self._take)[0]
            if not selectors:
                self._take(joined.of_class.nbytes)
        return self._dimensions[key]

    def _may_take(self, cells: int, joined: bool) -> bool:
        """Return whether a table of this size may be built. Only joined tables have a limit, which this counts down."""
        if joined:
            if cells > MAX_TABLE_CELLS or 4 * cells > self._joined_bytes_left:
                return False
            self._joined_bytes_left -= 4 * cells
        return True

    def _is_plain(self, peer: Dimension, service: Dimension) -> bool:
        cells = peer.count * service.count
        return cells <= MAX_TABLE_CELLS and 4 * cells <= self._bytes_left // 2

    def _take(self, nbytes: int) -> None:
        # Call this before memory is allocated, so that no policy exhausts it (SPEC 11).
        self._bytes_left -= nbytes
        if self._bytes_left < 0:
            raise PolicyError(self._refusal)


@dataclass(frozen=True, slots=True)
class _Matched:
    """The selectors of rules, as one VPC sees them."""

    #: The peer selector and the service selector of each rule.
    peers: list[Selector]
    services: list[Selector]
    #: For each different selector, a function that finds the classes that it matches.
    of_peer: dict[Selector, Callable[[], Indices]]
    of_service: dict[Selector, Callable[[], Indices]]


@dataclass(frozen=True, slots=True)
class _Difference:
    """The positions at which two lists of rules differ. Rules in both lists have the same order in both."""

    #: Positions in the earlier list: of rules that were removed, and of rules that stay.
    gone: list[int]
    stayed: Indices
    #: Positions in the later list: of rules that stay, and of rules that were added.
    stays: Indices
    added: list[int]


def _difference(before: _Built, order: Sequence[int], rules: Sequence[Rule]) -> _Difference | None:
    """Compare the rules with those of an earlier table. Return None if the table should rather be built anew."""
    # Changed tables keep classes apart that only removed rules distinguished. A table built anew joins them again.
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
    """Count the rules at the beginning that are the same objects with the same numbers."""
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
    """Give the cells that the removed rule ``gone`` won to the next rules that match them.

    ``peers``, ``services``: the joined classes that ``gone`` matches. ``next_rules``: the rules that overlap ``gone``,
    in order of precedence, each with the joined classes that it matches.
    """
    cells = np.ix_(peers, services)
    won = winner[cells]
    open_cells = won == gone
    won[open_cells] = -1
    open_count = int(open_cells.sum())
    place_of_peer = np.full(winner.shape[0], -1)
    place_of_peer[peers] = np.arange(len(peers))
    place_of_service = np.full(winner.shape[1], -1)
    place_of_service[services] = np.arange(len(services))
    for rule, rule_peers, rule_services in next_rules:
        if not open_count:
            break
        rows, columns = place_of_peer[rule_peers], place_of_service[rule_services]
        part = np.ix_(rows[rows >= 0], columns[columns >= 0])
        is_open = open_cells[part]
        open_count -= int(is_open.sum())
        won[part] = np.where(is_open, rule, won[part])
        open_cells[part] = False
    winner[cells] = won


def _bit_vectors(dimension: Dimension, row: Indices, words: int) -> NDArray[np.uint64]:
    """Make a bit vector for each joined class. It has one bit for each rule, in order of precedence: 1 if the rule
    matches the class.
    """
    vectors = np.zeros((dimension.count, words), dtype=np.uint64)
    matching = dimension.matching_each()
    bits = np.uint64(1) << np.arange(64, dtype=np.uint64)
    for word in range((len(row) + 63) // 64):
        of_rules = [matching[n] for n in row[64 * word : 64 * word + 64].tolist()]
        set_bits = np.repeat(bits[: len(of_rules)], list(map(len, of_rules)))
        np.bitwise_or.at(vectors[:, word], np.concatenate(of_rules), set_bits)
    return vectors
