"""Make rows from a relation: who may open what to whom, exactly and in few rows (SPEC 12.5).

For each receiver, the services that the same senders may open make one row. Rows with equal senders and equal services
are merged, then rows with equal receivers and equal services.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sgfast.base.evidence import SOUND, Evidence, EvidenceReason
from sgfast.base.notebook import SHOWN_ROWS, Shown, html_table
from sgfast.policy.model import Direction, Policy, Rule
from sgfast.policy.ranges import Ranges, union
from sgfast.rules.plane import alike
from sgfast.rules.reaching.ends import ANY, NamedEnd
from sgfast.rules.reaching.names import ORDER, WITH_INSTANCES, NodeNames, Part, Region, in_order
from sgfast.rules.reaching.nodes import FOREIGN, OUTSIDE, Numbers
from sgfast.rules.reaching.question import Question, Scene
from sgfast.rules.reaching.relation import EMPTY
from sgfast.rules.reaching.services import named_service, services_text
from sgfast.rules.services import Mask

if TYPE_CHECKING:
    from sgfast.rules.reaching.tables import Opened, ReachTables
else:
    # At run time this name means anything: importing its module would delay every command.
    ReachTables = Any

RowKey = tuple[int, Region, int, Region, int]
"""Senders and receivers, each as a set of numbered instance nodes and a region; and the number of a set of services."""


@dataclass(frozen=True, slots=True)
class Decider:
    """A rule that decides packets of a row.

    ``policy``: the policy that contains the rule.
    ``group``: the name of the security group.
    ``rule``: the rule.
    """

    policy: Literal["old", "new"]
    group: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Row:
    """Every source may open connections to every destination of the same IP version for all of the services.

    ``sources``: the parts that open connections.
    ``destinations``: the parts that connections are opened to.
    ``families``: the IP versions, 4 and 6.
    ``services``: the services in the form that ``named_service`` reads.
    ``rules``: between two policies, the rules that make a difference. Else, if requested, the rules that allow the row.
    """

    sources: tuple[Part, ...]
    destinations: tuple[Part, ...]
    families: tuple[int, ...]
    services: str
    rules: tuple[Decider, ...] = ()

    @property
    def has_unknown(self) -> bool:
        """Whether the row is about a group of which no file says who is in it (SPEC 12.8)."""
        return any(part.is_unknown for part in (*self.sources, *self.destinations))

    @property
    def _opened(self) -> Opened:
        """The row for tables."""
        rules = [(labelled.policy, labelled.rule.id) for labelled in self.rules]
        return self.sources, self.destinations, self.families, self.services, rules


Rules = dict[Decider, None]
_NAMES: tuple[Literal["old", "new"], ...] = ("old", "new")


def deciders(
    question: Question, scene: Scene, policy: int, direction: Direction, own_nodes: Mask, other_nodes: Mask,
    services: int,
) -> list[Decider]:
    """Return the rules in the filters of ``own_nodes`` that win for one of the services from or to ``other_nodes``."""
    relation, account = scene.relations[policy], question.accounts[policy]
    # A single policy counts as the new one.
    name = _NAMES[policy - len(question.accounts)]
    return [
        Decider(name, account.policy.security_groups[group].name, rule)
        for context in np.unique(relation.contexts(direction)[own_nodes]).tolist() if context not in (OUTSIDE, FOREIGN)
        for group, rule in relation.winners(context, direction, other_nodes, services)
    ]  # fmt: skip


class RowMaker:
    """Collector of the rows of one IP version."""

    def __init__(
        self, question: Question, family: int, policy: int = 0, *, simpler: bool = True, vpcs: bool = False
    ) -> None:
        """``policy`` is the position of the policy whose names the rows' ends have. With ``simpler`` the services of
        rows may overlap if this makes the rows simpler. ``vpcs``: name the VPCs of all instances."""
        self._question = question
        self._family = family
        self._policy = policy
        self._simpler = simpler
        self._vpcs = vpcs
        self.senders = NodeNames(question, family, question.sources, policy)
        self.receivers = NodeNames(question, family, question.destinations, policy)
        self._rows: dict[RowKey, Rules] = {}

    def add(
        self, scene: Scene, wanted: Callable[[Direction, int], Numbers],
        why: Callable[[Mask, Mask, int], Iterable[Decider]],
    ) -> None:  # fmt: skip
        """Add a scene. ``wanted`` returns the sets of services between a node and each node at the other end, like
        ``Relation.allowed``. ``why`` returns the rules that decide for given senders, receivers and set of services.
        """
        self.senders.add(scene, scene.senders)
        self.receivers.add(scene, scene.receivers)
        relation = scene.relations[self._policy]
        senders, contexts = relation.contexts("outbound"), relation.contexts("inbound")
        # Many receivers have the same sets of services, so divided sets are kept.
        parts_of_sets: dict[bytes, list[tuple[Mask, int]]] = {}
        for receiver in np.flatnonzero(contexts >= 0).tolist():
            is_other = ~relation.is_local("inbound", receiver)
            for nodes, services in self._parts(wanted("inbound", receiver), parts_of_sets):
                if (nodes & is_other).any():
                    rules = why(nodes & is_other, _only(contexts, receiver), services)
                    self._note((*self.senders.of(nodes), self.receivers.bit(receiver), (), services), rules)
        parts_of_sets = {}
        for sender in np.flatnonzero(senders >= 0).tolist():
            for nodes, services in self._parts(wanted("outbound", sender) * (contexts == OUTSIDE), parts_of_sets):
                rules = why(_only(senders, sender), nodes, services)
                self._note((self.senders.bit(sender), (), 0, self.receivers.of(nodes)[1], services), rules)

    def _parts(self, sets: Numbers, parts_of_sets: dict[bytes, list[tuple[Mask, int]]]) -> list[tuple[Mask, int]]:
        key = sets.tobytes()
        if key not in parts_of_sets:
            parts_of_sets[key] = list(self._divided(sets))
        self._question.budget.parts(len(parts_of_sets[key]))
        return parts_of_sets[key]

    def _note(self, key: RowKey, rules: Iterable[Decider]) -> None:
        self._rows.setdefault(key, {}).update(dict.fromkeys(rules))

    def _divided(self, sets: Numbers) -> Iterator[tuple[Mask, int]]:
        """Divide services by the nodes that may open them. Yield for each part a mask of its nodes and the number of
        its set of services. The set has the services that only these nodes may open, or, if simpler, all that they may
        open.
        """
        numbers, place = np.unique(sets, return_inverse=True)
        if not numbers.any():
            return
        if np.count_nonzero(numbers) == 1:
            yield sets != EMPTY, int(numbers[-1])
            return
        ranges = [self._question.sets.ranges[number] for number in numbers.tolist()]
        ends = [np.array(range_list, dtype=np.int64).reshape(-1, 2) for range_list in ranges]
        bounds = np.unique(
            np.concatenate([np.concatenate((range_ends[:, 0], range_ends[:, 1] + 1)) for range_ends in ends])
        )
        cover = np.zeros((len(numbers), len(bounds)), dtype=np.int8)
        for n, range_ends in enumerate(ends):
            cover[n, np.searchsorted(bounds, range_ends[:, 0])] += 1
            cover[n, np.searchsorted(bounds, range_ends[:, 1] + 1)] -= 1
        covers = np.cumsum(cover, axis=1)[:, :-1] > 0
        keep, kind = alike(list(covers))
        for n, stretch in enumerate(keep.tolist()):
            column = covers[:, stretch]
            if column.any():
                of_all: Mask = np.logical_and.reduce(covers[column])
                choices = [_ranges(bounds, kind == n), *([_ranges(bounds, of_all)] if self._simpler else [])]
                yield column[place.reshape(-1)], self._question.sets.number(min(choices, key=len))

    def rows(self) -> Iterator[Row]:
        everything = self._question.everything[self._family]
        for (sources, region_from, destinations, region_to, services), rules in _merged(self._rows):
            yield Row(
                self._named(self.senders, sources, region_from), self._named(self.receivers, destinations, region_to),
                (self._family,), services_text(self._question.sets.ranges[services], self._family, everything),
                tuple(rules),
            )  # fmt: skip


    def _named(self, names: NodeNames, instances: int, region: Region) -> tuple[Part, ...]:
        parts = names.named(instances, region)
        return in_vpcs(parts, names.vpcs_of(instances)) if self._vpcs else parts


def in_vpcs(parts: Iterable[Part], vpcs: tuple[str, ...]) -> tuple[Part, ...]:
    """Return the parts with the VPCs of their instances, if they have any."""
    return tuple(replace(part, vpcs=vpcs) if part.kind in WITH_INSTANCES else part for part in parts)


def _only(nodes: Numbers, node: int) -> Mask:
    mask = np.zeros(len(nodes), dtype=bool)
    mask[node] = True
    return mask


def _ranges(bounds: Numbers, stretches: Mask) -> Ranges:
    """Return the stretches between bounds as ranges."""
    places = np.flatnonzero(stretches)
    return union(zip(bounds[places].tolist(), (bounds[places + 1] - 1).tolist(), strict=True))


@dataclass(slots=True)
class _Merged:
    instances: int = 0
    regions: dict[Region, None] = field(default_factory=dict)
    rules: Rules = field(default_factory=dict)

    def add(self, instances: int, region: Region, rules: Rules) -> None:
        self.instances |= instances
        if region:
            self.regions[region] = None
        self.rules.update(rules)

    def rows(self) -> Iterator[tuple[int, Region]]:
        """Yield the ends of rows. Each row has one region, and the first row also has the instances."""
        for n, region in enumerate(self.regions or {(): None}):
            yield self.instances if n == 0 else 0, region


def _merged(rows: Mapping[RowKey, Rules]) -> Iterator[tuple[RowKey, Rules]]:
    """Merge rows of equal senders and services, then those of equal receivers and services."""
    to: defaultdict[tuple[int, Region, int], _Merged] = defaultdict(_Merged)
    for (sources, region_from, destinations, region_to, services), rules in rows.items():
        to[sources, region_from, services].add(destinations, region_to, rules)
    from_: defaultdict[tuple[int, Region, int], _Merged] = defaultdict(_Merged)
    for (sources, region_from, services), merged in to.items():
        for destinations, region_to in merged.rows():
            # No row leads from a region to a region, because neither end would be an instance.
            from_[destinations, region_to, services].add(sources, region_from if destinations else (), merged.rules)
    for (destinations, region_to, services), merged in from_.items():
        for sources, region_from in merged.rows():
            yield (sources, region_from, destinations, region_to, services), merged.rules


def in_both_families(rows: Iterable[Row]) -> list[Row]:
    """Merge rows of IPv4 and IPv6 that have the same ends and services."""
    row_of_ends: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (*_without_networks(row.sources), *_without_networks(row.destinations), row.services)
        row_before = row_of_ends.get(key)
        if row_before is None:
            row_of_ends[key] = row
            continue
        families = tuple(sorted({*row_before.families, *row.families}))
        if len(families) == len(row_before.families):
            row_of_ends[key, row] = row  # two rows of one family with different networks
            continue
        sources = in_order({*row_before.sources, *row.sources})
        destinations = in_order({*row_before.destinations, *row.destinations})
        rules = tuple(dict.fromkeys((*row_before.rules, *row.rules)))
        row_of_ends[key] = Row(sources, destinations, families, row.services, rules)
    return list(row_of_ends.values())


def _without_networks(parts: tuple[Part, ...]) -> tuple[tuple[Part, ...], bool]:
    parts_left = tuple(part for part in parts if part.kind not in ("network", "address-group"))
    return parts_left, len(parts_left) < len(parts)


@dataclass(frozen=True, slots=True)
class ReachResult(Shown):
    """The connections that may be opened between two ends, as rows.

    ``policy``: the policy that the answer is about.
    ``sources``: the end that opens connections.
    ``destinations``: the end that connections are opened to.
    ``asked``: the services, as the caller wrote them.
    ``rows``: the connections that are possible.
    ``warnings``: full sentences about what the user should know.
    ``evidence``: whether somebody may be an instance of a VPC that is not peered (SPEC 12.1).
    """

    policy: Policy
    sources: NamedEnd
    destinations: NamedEnd
    asked: str
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    evidence: Evidence = SOUND

    @property
    def tables(self) -> ReachTables:
        """Tables for pandas, polars, DuckDB and pyarrow (SPEC 14.21)."""
        from sgfast.rules.reaching.tables import ReachTables

        return ReachTables([row._opened for row in self.rows])

    def __repr__(self) -> str:
        rows = f"{len(self.rows)} row{'s' * (len(self.rows) != 1)}"
        return f"<ReachResult from {self.sources.name} to {self.destinations.name} ({self.asked}): {rows}>"

    def _repr_html_(self) -> str:
        return rows_as_html(self.rows)


def rows_as_html(rows: Sequence[Row]) -> str:
    """Format the first rows for a notebook."""
    cells = [
        (
            *(", ".join(part.text for part in parts) for parts in (row.sources, row.destinations)), row.services,
            ", ".join(f"IPv{family}" for family in row.families),
        )
        for row in rows[:SHOWN_ROWS]
    ]  # fmt: skip
    return html_table(("from", "to", "services", "IP"), cells, len(rows))


def reach(
    policy: Policy, sources: NamedEnd = ANY, destinations: NamedEnd = ANY, services: str = "all", *, rules: bool = False
) -> ReachResult:
    """Find exactly the connections that may be opened from ``sources`` to ``destinations`` (SPEC 12.5).

    ``services`` is read by ``named_service``. With ``rules`` each row gets the rules that allow it. Raises
    ArgumentError if ``services`` are not valid, TooMuch if the answer would take too long, AmbiguousAddress if two
    peers of a VPC own the same address.
    """
    notes: list[str] = []
    question = Question([policy], sources, destinations, named_service(services), notes)
    makers = {family: RowMaker(question, family) for family in (4, 6)}
    for scene in question.scenes():
        relation = scene.relations[0]
        why = partial(_allowing, question, scene) if rules else _nothing
        makers[scene.family].add(scene, relation.allowed, why)
    rows = in_both_families(row for maker in makers.values() for row in maker.rows())
    rows, warnings = with_rules(question, sorted(rows, key=rank))
    warnings = (*notes, *stateless_warnings(policy), *warnings)
    # Where nobody may open anything, it is no matter who has the address.
    reasons = [
        EvidenceReason("other-vpc", "partly", len(rows), 1.0, note, "write the instance's name instead of its address")
        for note in notes[: bool(rows)]
    ]
    return ReachResult(policy, sources, destinations, services, tuple(rows), warnings, Evidence.of(reasons))


def with_rules(question: Question, rows: list[Row]) -> tuple[list[Row], tuple[str, ...]]:
    """Return the rows. If not all rules could be found, remove the rules of all rows and return a warning."""
    if not question.budget.is_searched_out:
        return rows, ()
    words = "the rules that decide are not named: so many rows have so many of them that it would take too long"
    return [replace(row, rules=()) for row in rows], (words,)


def _allowing(question: Question, scene: Scene, senders: Mask, receivers: Mask, services: int) -> list[Decider]:
    # Rules of receivers come first, because they are more informative: most senders may open anything.
    return [
        *deciders(question, scene, 0, "inbound", receivers, senders, services),
        *deciders(question, scene, 0, "outbound", senders, receivers, services),
    ]


def _nothing(senders: Mask, receivers: Mask, services: int) -> list[Decider]:
    return []


def rank(row: Row) -> tuple[object, ...]:
    """Return a sort key that puts rows with wide ends first: everybody, the widest networks, groups, instances."""
    return _breadth(row.sources), _breadth(row.destinations), row.families, row.services


def _breadth(parts: tuple[Part, ...]) -> tuple[object, ...]:
    widest = min((int(part.name.rpartition("/")[2]) for part in parts if part.kind == "network"), default=0)
    return ORDER.index(parts[0].kind), widest, parts[0].name, -len(parts)


def stateless_warnings(policy: Policy) -> tuple[str, ...]:
    """Return a warning if the filters of some instances also judge replies (SPEC 2.8)."""
    groups = {group.name for group in policy.security_groups if not group.stateful}
    count = sum(not groups.isdisjoint(instance.security_groups) for instance in policy.instances)
    if not count:
        return ()
    subject = "1 instance is" if count == 1 else f"{count:,} instances are"
    return (f"{subject} in stateless groups: replies are judged by rules, too, and are not part of this answer",)
