"""Fold kinds of traffic into rows: from whom, to whom, which service, what happens, and why (SPEC 10.24). Kinds that
are folded into one row are added up: no packet and no connection is lost.

    kinds (``questions.replaying.kinds``) -> one part, such as what would break -> rows, by ends, service and reason
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sgfast.base.names import printable
from sgfast.engine import REASONS
from sgfast.policy.model import Policy
from sgfast.questions.replaying import ReplayResult
from sgfast.questions.replaying.kinds import NEVER, Kinds, Rows, coded, joined, rows_at
from sgfast.questions.replaying.listed_kinds import Denied, Service, denied_of, direction_of, peer_of, service_of
from sgfast.report.names import protocol_word, service_name
from sgfast.report.rollup.ends import EndName, Ends, Level

#: Outcomes of traffic. Most parts are counted by connections: denied ones that the other end answered, allowed ones
#: that it did not answer, and allowed ones that it did; connections that two policies treat differently; those that
#: used a rule, and those that no rule is suggested for; and denied attempts. ``BY_PACKETS`` are counted by packets:
#: denied ones; those that nobody ever answered, which are scans or one-way traffic such as syslog. If the captures
#: cannot tell whether packets were answered, ``cannot-tell`` counts them in place of ``one-way``.
TrafficPart = Literal[
    "would-break", "unanswered", "allowed", "denied", "one-way", "cannot-tell", "newly-denied", "newly-allowed",
    "observed", "attempts"
]  # fmt: skip
#: A word in place of a reason's, beside the row's own reason: packets of ``one-way`` whose address had no room, so that
#: it is not known whether somebody answered them.
PERHAPS = "perhaps-answered"
#: In place of ``silent`` if an answer might not be in the captures.
NOT_SEEN = "not-seen"
#: Parts that are counted by packets.
BY_PACKETS: tuple[TrafficPart, ...] = ("denied", "one-way", "cannot-tell")
By = Literal["group", "instance", "address", "service", "rule"]
BY: tuple[By, ...] = get_args(By)

#: The most services that a row names. A row with more services gives their number.
_NAMED_SERVICES = 3
#: The level at which rows name their ends.
_LEVELS: dict[By, Level] = {"group": "group", "instance": "end", "address": "end", "service": "any", "rule": "any"}


@dataclass(frozen=True, slots=True)
class RollupExample:
    """One of the packets or connections that a row adds up."""

    source: str
    destination: str
    service: Service
    #: 1-based, in the captures; 0 if the number is not known.
    packet: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class Passing:
    """The verdict of the policy that does not block, for changed connections, and whether these were answered."""

    verdict: str
    #: The non-blocking policy's rule, at the filter that blocks under the other policy, if only one rule decided.
    rule: str | None
    #: Number of different rules that decided.
    rules: int
    #: Connections that the other end answered in the capture.
    answered: int


@dataclass(frozen=True, slots=True)
class RollupRow:
    source: EndName
    destination: EndName
    #: Number of different instances or addresses at each end; 0 if the number is not known.
    sources: int
    destinations: int
    #: ``tcp/5432``, ``tcp/80, tcp/443``, ``tcp (412 ports)``, ``7 services``.
    service: str
    #: Number of different services.
    services: int
    #: The word of SPEC 10.3. For allowed connections, ``refused`` and ``silent`` say what the instance did, and
    #: ``NOT_SEEN`` says that the captures cannot tell.
    reason: str
    #: The filter that judged: outbound is the source's, inbound the destination's.
    direction: Literal["inbound", "outbound"]
    #: The rule that decided, if only one did.
    rule: str | None
    #: Number of different rules that decided.
    rules: int
    #: Number of denied attempts (in ``would-break``, of those that the other end answered), or of allowed connections.
    connections: int
    #: 0 for allowed and unanswered rows, whose packets are not counted.
    packets: int
    bytes: int
    #: Timestamps; None if not known.
    first_ns: int | None
    last_ns: int | None
    example: RollupExample | None
    #: The largest kind in the row, which is explained; None if its peer is not known.
    kind: Denied | None
    #: The positions of the row's kinds in the rows of ``Kinds``, largest first.
    places: NDArray[np.int64] = field(repr=False, compare=False)
    #: Only in changed rows. All other fields of the row are about the policy that blocks.
    passing: Passing | None = None
    #: Whether the row's word is ``PERHAPS``.
    perhaps_answered: bool = False
    #: Number of connections of which nobody knows who opened them; the row is the likelier reading (SPEC 10.30).
    unsure: int = 0

    @property
    def opener(self) -> Literal["unknown"] | None:
        """``unknown`` if nobody knows who opened any of the row's connections."""
        return "unknown" if 0 < self.connections <= self.unsure else None

    @property
    def answered(self) -> int:
        return 0 if self.passing is None else self.passing.answered

    @property
    def has_ends(self) -> bool:
        """Whether the row is about particular ends, and not about all traffic of a service or a rule."""
        return self.source.kind != "any"

    @property
    def text(self) -> str:
        """``web (12 instances) -> db: tcp/5432``, or the service alone if the row has no ends. Names are escaped."""
        ends = f"{printable(self.source_text)} -> {printable(self.destination_text)}"
        return ends + f": {self.service}" if self.has_ends else self.service

    @property
    def source_text(self) -> str:
        return _end_text(self.source, self.sources)

    @property
    def destination_text(self) -> str:
        return _end_text(self.destination, self.destinations)


@dataclass(frozen=True, slots=True)
class Folded:
    """The largest rows, those with most connections (or packets, if denied) first, and the sums of the other rows."""

    rows: tuple[RollupRow, ...]
    unlisted_rows: int
    unlisted_connections: int
    unlisted_packets: int
    #: Sums of all rows.
    connections: int
    packets: int
    #: Only for changed rows.
    unlisted_answered: int

    @property
    def every(self) -> int:
        """The number of all rows."""
        return len(self.rows) + self.unlisted_rows

    def and_rows_of(self, other: Folded) -> Folded:
        """Return both together, the rows of ``other`` last."""
        sums = {
            column.name: getattr(self, column.name) + getattr(other, column.name) for column in fields(self)
            if column.name != "rows"
        }  # fmt: skip
        return Folded((*self.rows, *other.rows), **sums)


@dataclass(frozen=True)
class _Members:
    """The kinds of a part: their numbers, the count of each, and the numbers of their reasons' words."""

    places: NDArray[np.int64]
    counts: NDArray[np.int64]
    words: NDArray[np.int64]
    #: Whether the members are all kinds, in order.
    are_all: bool

    def __len__(self) -> int:
        return len(self.places)

    def of(self, column: NDArray[Any]) -> NDArray[Any]:
        """Return the values of the members, from a column that has a value for each kind."""
        return column if self.are_all else column[self.places]


@dataclass(frozen=True)
class _Groups:
    """Members of a part in groups, each of which becomes a row."""

    members: _Members
    #: The group of each member. Groups are numbered in the order of their ends and services.
    of_members: NDArray[np.int64]
    #: By group, two sums over its members: of counts, and of ``_firsts``.
    sums: NDArray[np.int64]
    firsts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sums)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The numbers of the groups, largest group first. Equally large ones keep their order."""
        return np.lexsort((-self.sums, -self.firsts))

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The members by group, and the end of each group among them. NumPy sorts numbers of 16 bits fastest."""
        numbers = self.of_members
        small = numbers.astype(np.uint16) if len(self) <= 1 << 16 else numbers
        return np.argsort(small, kind="stable"), np.cumsum(np.bincount(numbers, minlength=len(self)))

    def of_group(self, number: int) -> NDArray[np.int64]:
        """Return the members of a group, largest first. Equally large ones keep their order."""
        order, ends = self._sorted
        chosen = order[ends[number - 1] if number else 0 : ends[number]]
        return chosen[np.argsort(-self.members.counts[chosen], kind="stable")]


class Rollup:
    """Roll up the kinds of a replay with ``policy``. ``also``: other policies whose rules name addresses.
    ``answers_unknown``: the captures cannot tell which connections nobody answered.
    """

    def __init__(self, policy: Policy, kinds: Kinds, *also: Policy, answers_unknown: bool = False) -> None:
        self.answers_unknown = answers_unknown
        rows = with_first_twins(policy, self._whole(kinds), "rule", kinds.rules)
        kinds = self.kinds = replace(kinds, rows=rows)
        self.ends = Ends(policy, kinds, *also)
        self.services = Services(kinds)
        self._grouped = cache(self._group)
        self._members = cache(self._members_of)
        #: By part and reason's word: the count of each kind. With "" and ``PERHAPS``, the kind's own reason applies.
        self.counts: dict[TrafficPart, dict[str, NDArray[np.int64]]] = self._counts(kinds.rows)
        #: By kind: the count that orders rows before any other, in every part.
        self._firsts = self._first(kinds.rows)

    def total(self, part: TrafficPart) -> int:
        """Count the connections of a part, or its packets if the part is one of ``BY_PACKETS``."""
        return int(sum(counts.sum() for counts in self.counts[part].values()))

    def fold(self, part: TrafficPart, *, by: By = "group", most: int) -> Folded:
        """Return the ``most`` largest rows of a part, largest first, and the sums of the others."""
        groups = self._grouped(part, by)
        rows = [self._row(part, groups, n, _LEVELS[by]) for n in groups.order[:most].tolist()]
        kinds, counts = self.kinds.rows, groups.members.counts
        if part in BY_PACKETS:
            counts = kinds["connections"][groups.members.places].astype(np.int64)
        connections, packets = int(counts.sum()), int(kinds["packets"][groups.members.places].sum())
        return Folded(
            tuple(rows), len(groups) - len(rows), connections - sum(row.connections for row in rows),
            packets - sum(row.packets for row in rows), connections, packets,
            int(groups.firsts.sum()) - sum(row.answered for row in rows),
        )  # fmt: skip

    def _members_of(self, part: TrafficPart) -> _Members:
        counted = [(np.flatnonzero(counts), counts) for counts in self.counts[part].values()]
        return _Members(
            np.concatenate([places for places, _ in counted]),
            np.concatenate([counts[places] for places, counts in counted]),
            np.concatenate([np.full(len(places), n) for n, (places, _) in enumerate(counted)]),
            [len(places) for places, _ in counted if len(places)] == [len(self.kinds.rows)],
        )

    def _group(self, part: TrafficPart, by: By) -> _Groups:
        members, rows = self._members(part), self.kinds.rows
        # The last column orders first.
        columns = [members.words, *map(members.of, self._columns(rows, by))]
        if by != "rule":
            columns += [members.of(rows["inbound"])] if by != "service" else []
            columns.append(members.of(self.services.exact))
            ends = self.ends.codes(_LEVELS[by])
            columns += [ends[members.of(numbers)] for numbers in (self.ends.destinations, self.ends.sources)]
        codes = coded(*columns)
        count = int(codes.max()) + 1 if len(codes) else 0
        firsts = members.of(self._firsts)
        return _Groups(members, codes, _added(members.counts, codes, count), _added(firsts, codes, count))

    def _row(self, part: TrafficPart, groups: _Groups, number: int, level: Level) -> RollupRow:
        group = groups.of_group(number)
        places, counts = groups.members.places[group], groups.members.counts[group]
        rows = rows_at(self.kinds.rows, places)
        source_name, sources = self._end(level, self.ends.sources[places])
        destination_name, destinations = self._end(level, self.ends.destinations[places])
        word = list(self.counts[part])[int(groups.members.words[group[0]])]
        first = rows[np.argmin(rows["first_ns"])]
        is_timed = first["first_ns"] != NEVER[0]
        rules = _different(rows["rule"] + 1) - 1
        largest = rows[0]
        is_known = self._is_packet_known(largest)
        return RollupRow(
            source_name, destination_name, sources, destinations,
            *self.services.text_and_count(places),
            word if word not in ("", PERHAPS) else REASONS[int(largest["reason"])] or "",
            direction_of(largest),
            only(rules, self.kinds.rules), int((rules >= 0).sum()),
            int((rows["connections"] if part in BY_PACKETS else counts).sum()), int(rows["packets"].sum()),
            int(rows["bytes"].sum()), int(first["first_ns"]) if is_timed else None,
            int(rows["last_ns"].max()) if is_timed else None, self._example(first) if is_timed else None,
            denied_of(self.kinds, largest) if is_known else None, places, self._passing(rows),
            word == PERHAPS, int(rows["unsure"].sum()),
        )  # fmt: skip

    def _end(self, level: Level, ends: NDArray[np.int64]) -> tuple[EndName, int]:
        """Return the name of the ends of a row, and the number of different ends."""
        different = _different(ends)
        if len(different) == 1:
            return self.ends.fine_name(int(different[0])), 1
        return self.ends.name(level, int(self.ends.codes(level)[ends[0]])), len(different)

    def _example(self, row: Any) -> RollupExample | None:
        if row["family"] == 0 or row["instance"] < 0:
            return None
        instance, peer = self.kinds.instances[row["instance"]], peer_of(self.kinds, row)[0]
        source, destination = (peer, instance) if row["inbound"] else (instance, peer)
        return RollupExample(source, destination, service_of(self.kinds, row), int(row["number"]), int(row["first_ns"]))

    # Hooks for roll-ups of other kinds (``rollup.changed``, ``rollup.observed``) --------------------------

    def _whole(self, kinds: Kinds) -> Rows:
        """Return the rows, with all counts of a kind joined in one row."""
        return joined(kinds)

    def _counts(self, rows: Rows) -> dict[TrafficPart, dict[str, NDArray[np.int64]]]:
        refused, silent = rows["refused"].astype(np.int64), rows["silent"].astype(np.int64)
        packets, answered = rows["packets"].astype(np.int64), (rows["broken"] > 0) | (rows["meant"] > 0)
        unanswered = np.where(answered, 0, packets)
        # If any denied packet was answered, those that are counted without an address may have been answered, too.
        perhaps = (rows["family"] == 0) & answered.any()
        # Or a packet of the other end was an answer or an opener (SPEC 9.2).
        unclear = rows["unclear"] > 0
        unknown = np.where(self.answers_unknown | unclear, unanswered, 0)
        known_one_way = np.where(perhaps, 0, unanswered - unknown)
        allowed = np.where(rows["packets"] > 0, 0, rows["connections"].astype(np.int64) - refused - silent)
        return {
            "would-break": {"": rows["broken"].astype(np.int64)},
            "unanswered": {"refused": refused, NOT_SEEN if self.answers_unknown else "silent": silent},
            # If a table was full, the outcome of a kind's connections is counted in another row than their beginning.
            "allowed": {"": allowed.clip(0)},
            "denied": {"": packets},
            "one-way": {"": known_one_way, PERHAPS: np.where(perhaps, unanswered - unknown, 0)},
            "cannot-tell": {"": unknown},
            "attempts": {"": np.where(rows["packets"] > 0, rows["connections"].astype(np.int64), 0)},
        }

    def _first(self, rows: Rows) -> NDArray[np.int64]:
        return np.zeros(len(rows), dtype=np.int64)

    def _columns(self, rows: Rows, by: By) -> list[NDArray[Any]]:
        """Return the columns that distinguish rows, besides ends and services."""
        return [rows["reason"]] + ([rows["rule"]] if by == "rule" else [])

    def _is_packet_known(self, row: Any) -> bool:
        """Return whether the packet of a kind is known, so that rules can be compared with it."""
        return bool(row["family"] > 0 and row["instance"] >= 0)

    def _passing(self, rows: Rows) -> Passing | None:
        """Return None: only changed kinds have a second policy. ``rows``: kinds of one ``RollupRow``, largest first."""
        return None


def rollup_of(result: ReplayResult) -> Rollup:
    """Return the roll-up of a replay."""
    return Rollup(result.policy, result.kinds, answers_unknown=result.evidence.doubts("answers"))


def _added(numbers: NDArray[np.int64], codes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the sum of the numbers with each code."""
    sums = np.zeros(count, dtype=np.int64)
    if numbers.any():
        np.add.at(sums, codes, numbers)
    return sums


def _different(numbers: NDArray[Any]) -> NDArray[np.int64]:
    """Return each number once, in order. No number may be negative, or much larger than how many there are."""
    return np.flatnonzero(np.bincount(numbers))


def with_first_twins(policy: Policy, rows: Rows, column: str, names: Sequence[str]) -> Rows:
    """Return rows whose numbers of rules are those of their first twins (SPEC 2.16). ``names``: the ids of rules by
    number.
    """
    if not policy.twins:
        return rows
    numbers = {name: n for n, name in enumerate(names)}
    # Numbers below 0 stay as they are.
    first = np.arange(len(names), dtype=np.int64)
    for name, twin in policy.twins.items():
        if twin.ethertype == 4 and name in numbers and twin.id in numbers:
            first[numbers[name]] = numbers[twin.id]
    rows = rows.copy()
    has_rule = rows[column] >= 0
    rows[column][has_rule] = np.take(first, rows[column][has_rule])
    return rows


def only(rules: NDArray[Any], names: Sequence[str]) -> str | None:
    """Return the rule if only one decided. ``rules``: numbers of different rules; below 0 where none decided."""
    return names[int(rules[0])] if len(rules) == 1 and rules[0] >= 0 else None


class Services:
    """The services of kinds."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        rows = kinds.rows
        self._protocols = rows["protocol"].astype(np.int64)
        #: The number of each kind's service, in the order of protocols and ports.
        self.exact: NDArray[np.int64] = coded(
            rows["has_icmp"], rows["has_ports"], rows["port_key"], rows["protocol"]
        )

    def text_and_count(self, places: NDArray[np.int64]) -> tuple[str, int]:
        """Return the services as text, and their number. ``places``: of the kinds in a row, largest first."""
        exact = self.exact[places]
        _, first = np.unique(exact, return_index=True)
        if len(first) <= _NAMED_SERVICES:
            rows = self._kinds.rows[places[np.sort(first)]]
            return ", ".join(dict.fromkeys(service_name(service_of(self._kinds, row)) for row in rows)), len(first)
        protocols = np.unique(self._protocols[places]).tolist()
        if len(protocols) > 1:
            return f"{len(first):,} services", len(first)
        name = protocol_word(protocols[0])
        kinds = "ports" if self._kinds.rows[places[0]]["has_ports"] else "types"
        return f"{name} ({len(first):,} {kinds})", len(first)


def _end_text(name: EndName, number: int) -> str:
    match name.kind:
        case "groups" if number > 1:
            return f"{name.called} ({number:,} instances)"
        case "address-group" | "network" if number > 1:
            return f"{name.called} ({number:,} addresses)"
        case "private" | "public" if number > 1:
            return f"{number:,} {name.called}"
    return name.called
