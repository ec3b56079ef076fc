"""The matrix of who may reach whom by the rules alone, from rows of ``reaching``.

An instance belongs to the row of its security groups, as it does in the matrix of traffic. Addresses of no instance
belong to the network, or the address group, that the row names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import log2

import numpy as np

from sgfast.policy.model import Policy
from sgfast.policy.ranges import Ranges, difference, intersection, union
from sgfast.report.amounts import grouped
from sgfast.report.html.columns import labels
from sgfast.report.html.matrix import Axis, LegendEntry, Matrix, Square, axis
from sgfast.report.rollup.ends import EndName, address_group_name, groups_name
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.rows import Row
from sgfast.rules.reaching.services import named_service, openers, services_text
from sgfast.rules.services import KEYS

#: The names for all addresses, and for all public addresses, that belong to no instance.
_ANYBODY, _INTERNET = EndName("any address", "network"), EndName("internet", "network")
#: The most characters of services in a cell. If they need more, the cell shows their number.
_SHORT = 9
#: The most characters of a cell's description.
_LONG = 300

#: By position in the list of groups: the instance if the end is only one, else None.
_Places = dict[int, str | None]
#: For one row: each family, with the places of its senders and of its receivers.
_OfRow = list[tuple[int, _Places, _Places]]
#: By table and row.
_Placed = list[list[_OfRow]]


@dataclass(frozen=True, slots=True)
class PageTable:
    outcome: LegendEntry
    #: The policy that has the names of the rows' ends.
    policy: Policy
    rows: Sequence[Row]
    #: The key of the page's section for the table.
    key: str
    label: str


class RuleMatrix:
    """``matrix``, and for each row the cells that count it: row * number of columns + column."""

    def __init__(self, page_tables: Sequence[PageTable], side: int) -> None:
        names: dict[EndName, int] = {}
        ends = [_Ends(page_table.policy, names) for page_table in page_tables]
        infrastructure = {page_table.policy.settings.infrastructure for page_table in page_tables}
        self._everything = {family: openers(family, infrastructure) for family in (4, 6)}
        self._ranges = cache(self._read)
        self._outcomes = [page_table.outcome for page_table in page_tables]
        places = [
            [
                [(family, table_ends.of(row.sources, family), table_ends.of(row.destinations, family))
                 for family in row.families]
                for row in page_table.rows
            ]
            for page_table, table_ends in zip(page_tables, ends, strict=True)
        ]  # fmt: skip
        self._rows, self._columns = self._axes(page_tables, places, [*names], side)
        self._cells_of = [[self._cells(of_row) for of_row in of_table] for of_table in places]
        self.matrix = Matrix(self._outcomes, self._rows, self._columns, self._squares(page_tables))

    def _axes(
        self, page_tables: Sequence[PageTable], places: _Placed, names: Sequence[EndName], side: int
    ) -> tuple[Axis, Axis]:
        """Return the axes of senders and of receivers, ends with most services first."""
        sizes = np.zeros((2, len(names)), dtype=np.int64)
        for page_table, of_table in zip(page_tables, places, strict=True):
            for row, of_row in zip(page_table.rows, of_table, strict=True):
                for family, *end_places in of_row:
                    size = _size(self._ranges(row.services, family))
                    for n, end in enumerate(end_places):
                        sizes[n, [*end]] += size
        groups = labels(names)
        # Rules alone do not tell what works today.
        breaks = np.zeros(len(names), dtype=np.int64)
        rows, columns = (axis(groups, size, breaks, np.flatnonzero(size).tolist(), side) for size in sizes)
        return rows, columns

    def _squares(self, page_tables: Sequence[PageTable]) -> dict[tuple[int, int], Square]:
        # By cell, outcome and family: the services of its rows.
        services: dict[int, list[dict[int, set[str]]]] = {}
        for n, (page_table, of_rows) in enumerate(zip(page_tables, self._cells_of, strict=True)):
            for row, cells in zip(page_table.rows, of_rows, strict=True):
                for family, cell in cells:
                    service_texts = services.setdefault(cell, [{4: set(), 6: set()} for _ in page_tables])
                    service_texts[n][family].add(row.services)
        width = len(self._columns.labels)
        return {
            divmod(cell, width): self._cell(*divmod(cell, width), cell_services)
            for cell, cell_services in services.items()
        }

    def cells_of(self, table: int, row: int) -> tuple[int, ...]:
        return tuple(sorted({cell for _, cell in self._cells_of[table][row]}))

    def _cells(self, of_row: _OfRow) -> set[tuple[int, int]]:
        """Return the cells of a row, each with the family in which the row is counted there."""
        cells: set[tuple[int, int]] = set()
        for family, sources, destinations in of_row:
            for source in _folded(sources, self._rows):
                for destination in _folded(destinations, self._columns):
                    # A single instance sends no packets to itself.
                    if source[1] is None or source[1] != destination[1]:
                        cells.add((family, source[0] * len(self._columns.labels) + destination[0]))
        return cells

    def _read(self, text: str, family: int) -> Ranges:
        """Return the services that a text of ``services_text`` names."""
        without = text.removeprefix("all except ")
        named, everything = named_service(without).of(family), self._everything[family]
        return intersection(everything, named) if without == text else difference(everything, named)

    def _cell(self, row: int, column: int, services: Sequence[dict[int, set[str]]]) -> Square:
        sizes, words, short = [], [], []
        for outcome, by_family in zip(self._outcomes, services, strict=True):
            ranges = {
                family: union(text_ranges for text in texts for text_ranges in self._ranges(text, family))
                for family, texts in by_family.items()
            }
            sizes.append(max(map(_size, ranges.values())))
            if not sizes[-1]:
                continue
            texts = {
                family: services_text(family_ranges, family, self._everything[family])
                for family, family_ranges in ranges.items()
            }
            same = len({text for text in texts.values() if text}) == 1
            of_both = [f"{text} (IPv{family})" for family, text in texts.items() if text]
            words.append(f"{outcome.words}: {max(texts.values()) if same else '; '.join(of_both)}")
            short.append(outcome.mark.strip() + _shortened(max(texts.values(), key=len)))
        if len(short) > 1:
            # A cell has no room for the word twice.
            short = [short_text.removesuffix(" services") for short_text in short]
        description = f"{self._rows.labels[row]} → {self._columns.labels[column]}: {', '.join(words)}"
        # The logarithm keeps a single port visible beside all ports of all protocols.
        share = log2(1 + max(sizes)) / log2(1 + 256 * KEYS)
        shown = description if len(description) <= _LONG else f"{description[:_LONG]} …"
        return Square(sizes, share, shown, " ".join(short), self._outcomes[0].mark != "" and sizes[0] > 0)


def _size(services: Ranges) -> int:
    return sum(last - first + 1 for first, last in services)


def _shortened(services: str) -> str:
    if len(services) <= _SHORT:
        return services
    if services.startswith("all except"):
        return "most"
    return f"{grouped(services.count(';') + services.count(',') + 1)} services"


def _folded(places: _Places, ends: Axis) -> set[tuple[int, str | None]]:
    """Return the rows or columns of an axis, each with the instance if there is only one in it."""
    instance_of_place: dict[int, str | None] = {}
    for place, instance in places.items():
        number = int(ends.place[place])
        instance_of_place[number] = None if number in instance_of_place else instance
    return set(instance_of_place.items())


class _Ends:
    """The ends of rows as positions in ``names``, where new names are added."""

    def __init__(self, policy: Policy, names: dict[EndName, int]) -> None:
        self._names = names
        self._policy = policy
        #: By family and security groups: the names of instances.
        self._instances: dict[int, dict[tuple[str, ...], list[str]]] = {4: {}, 6: {}}
        for instance in policy.instances:
            for family in {network.version for network in instance.addresses}:
                self._instances[family].setdefault(instance.security_groups, []).append(instance.name)
        self._of_part = cache(self._places)
        self.of = cache(self._places_of_parts)

    def _places_of_parts(self, parts: tuple[Part, ...], family: int) -> _Places:
        instance_of_place: _Places = {}
        for part in parts:
            for place, instance in self._of_part(part, family).items():
                instance_of_place[place] = instance if instance_of_place.get(place, instance) == instance else None
        return instance_of_place

    def _places(self, part: Part, family: int) -> _Places:
        match part.kind:
            case "any":
                return {**self._members(family, lambda groups: True), self._number(_ANYBODY): None}
            case "internet":
                return {self._number(_INTERNET): None}
            case "instances":
                return self._members(family, lambda groups: not set(part.without) & set(groups), part.without)
            case "group":
                return self._members(family, lambda groups: part.name in groups)
            case "instance":
                instance = self._policy.instance_by_name[part.name]
                addresses = part.addresses or map(str, instance.addresses)
                if not any((":" in address) == (family == 6) for address in addresses):
                    return {}
                return {self._number(groups_name(self._policy, instance.security_groups)): part.name}
            case "network" if (":" in part.name) != (family == 6):
                return {}
            case "network" if part.name in ("0.0.0.0/0", "::/0") and not part.without:
                return {self._number(_ANYBODY): None}
            case "network":
                return {self._number(EndName(part.name, "network")): None}
            case "address-group":
                return {self._number(address_group_name(self._policy, part.name)): None}

    def _members(
        self, family: int, are_meant: Callable[[tuple[str, ...]], bool], without: Sequence[str] = ()
    ) -> _Places:
        """Return the instances of a family whose groups ``are_meant`` accepts, except those named in ``without``."""
        left_out = Counter(
            instance.security_groups
            for name in without if (instance := self._policy.instance_by_name.get(name)) is not None
        )  # fmt: skip
        instance_of_place: _Places = {}
        for groups, instances in self._instances[family].items():
            remaining = len(instances) - left_out[groups]
            if remaining > 0 and are_meant(groups):
                only = next(name for name in instances if name not in without) if remaining == 1 else None
                number = self._number(groups_name(self._policy, groups))
                instance_of_place[number] = None if number in instance_of_place else only
        return instance_of_place

    def _number(self, name: EndName) -> int:
        return self._names.setdefault(name, len(self._names))


