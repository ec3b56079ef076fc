"""Tables of answers without traffic (SPEC 14.21): who may open what, and what became of expectations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from sgfast.policy.expectations import Expectation, Word
from sgfast.policy.model import PORT_PROTOCOLS
from sgfast.policy.protocols import protocol_name
from sgfast.rows import BATCH_ROWS, Table
from sgfast.rows.arrow import Array
from sgfast.rows.columns import Words, flags, numbers, numbers_of, words_of
from sgfast.rows.row_schema import DIFFERENCE_TABLE, OUTCOME_TABLE, REACH_TABLE, Column
from sgfast.rules.reaching.explaining import ExplainedSide, Explanation, sentence
from sgfast.rules.reaching.names import Part

Opened = tuple[Sequence[Part], Sequence[Part], Sequence[int], str, Sequence[tuple[str, str]]]
"""A row of an answer: sources, destinations, IP versions, services; its rules, by the policy's name and their ids."""

Proved = tuple[Expectation, str, bool, Sequence[Word], Explanation | None]
"""An expectation, its outcome, whether that is certain, the words that mean nobody, and a counterexample."""

_WITH_PORTS = frozenset(map(protocol_name, PORT_PROTOCOLS))


class ReachTables:
    """The table of ``reach``: ``rows``."""

    def __init__(self, rows: Sequence[Opened]) -> None:
        self._rows = rows

    @property
    def rows(self) -> Table:
        """A row for each source, destination and service of each row of the answer."""
        return _combinations(REACH_TABLE.columns, self._rows, ("new",))

    def __repr__(self) -> str:
        return "<Tables of an answer of reach: rows>"


class ExpectationsTables:
    """The table of ``test``: ``outcomes``."""

    def __init__(self, outcomes: Sequence[Proved]) -> None:
        self._outcomes = outcomes

    @property
    def outcomes(self) -> Table:
        """A row for each expectation, in the order of the file."""
        expectations, answers = [outcome[0] for outcome in self._outcomes], [outcome[4] for outcome in self._outcomes]
        columns = [
            words_of([expectation.name or None for expectation in expectations]),
            numbers_of([expectation.line or None for expectation in expectations]),
            *(
                words_of([", ".join(word.text for word in getattr(expectation, words)) for expectation in expectations])
                for words in ("sources", "destinations", "services")
            ),
            words_of([expectation.verdict for expectation in expectations]),
            words_of([expectation.why or None for expectation in expectations]),
            words_of([outcome[1] for outcome in self._outcomes]),
            flags([outcome[2] for outcome in self._outcomes]),
            words_of([", ".join(word.text for word in outcome[3]) or None for outcome in self._outcomes]),
            words_of([None if answer is None else sentence(answer) for answer in answers]),
            words_of([None if answer is None else _decider(answer.egress) for answer in answers]),
            words_of([None if answer is None else _decider(answer.ingress) for answer in answers]),
        ]
        return Table(OUTCOME_TABLE.columns, len(expectations), lambda: [columns])

    def __repr__(self) -> str:
        return "<Tables of a test: outcomes>"


def _decider(side: ExplainedSide | None) -> str | None:
    return side.winner.rule.id if side is not None and side.reached and side.winner is not None else None


def difference_table(rows: Sequence[Opened]) -> Table:
    """Return the table of the rows that only one of two policies allows."""
    return _combinations(DIFFERENCE_TABLE.columns, rows, ("old", "new"))


def _combinations(columns: Sequence[Column], rows: Sequence[Opened], policies: Sequence[str]) -> Table:
    """Return a table of each source of a row with each of its destinations and services.

    A few rows of an answer may have many millions of combinations. They are numbered, and made when they are read.
    ``policies``: those whose rules are columns.
    """
    ends = [row[0] for row in rows], [row[1] for row in rows]
    services = [_services(row[3]) for row in rows]
    counts = np.array([[*map(len, part_lists)] for part_lists in (*ends, services)], np.int64)
    firsts = np.cumsum(counts, axis=1) - counts
    begins = np.concatenate(([0], np.cumsum(counts.prod(axis=0))))
    total = int(begins[-1])

    def batches() -> Iterator[list[Array]]:
        sources, destinations = map(_end_words, ends)
        versions = Words([", ".join(map(str, row[2])) for row in rows])
        of_services = [Words(words) for words in zip(*map(_with_protocol, chain(*services)), strict=True)]
        deciders = [
            Words([", ".join(rule for policy, rule in row[4] if policy == policy_name) or None for row in rows])
            for policy_name in policies
        ]
        for at in range(0, total, BATCH_ROWS):
            place = np.arange(at, min(at + BATCH_ROWS, total))
            row = np.searchsorted(begins, place, side="right") - 1
            _, of_destinations, of_service = counts[:, row]
            pair, service = np.divmod(place - begins[row], of_service)
            source, destination = np.divmod(pair, of_destinations) + firsts[:2, row]
            service += firsts[2, row]
            yield [
                numbers(row + 1),
                *(words.column(source) for words in sources),
                *(words.column(destination) for words in destinations),
                versions.column(row),
                *(words.column(service) for words in of_services),
                *(words.column(row) for words in deciders),
            ]

    return Table(columns, total, batches)


def _end_words(ends: Sequence[Sequence[Part]]) -> list[Words]:
    parts = [*chain(*ends)]
    return [
        Words([part.name or part.kind for part in parts]), Words([part.kind for part in parts]),
        Words([", ".join(part.addresses) or None for part in parts]),
        Words([", ".join(part.without) or None for part in parts]),
        Words([", ".join(part.vpcs) or None for part in parts]),
    ]  # fmt: skip


def _services(text: str) -> list[str]:
    """Return the services of a row one by one. What is left out of all services stays together."""
    return [text] if text.startswith("all except ") else text.split("; ")


def _with_protocol(service: str) -> tuple[str, str | None, str | None]:
    """Return the service, its protocol and its ports, as far as it has them."""
    if service.startswith("all"):
        return service, None, None
    # The text is tcp/80,443, icmp/8/0, icmp echo-request, gre, protocol 200 or protocols 2-5.
    before, _, ports = service.partition("/")
    words = before.split(" ")
    protocol = words[1] if words[0] in ("protocol", "protocols") else words[0]
    return service, protocol, ports if ports and protocol in _WITH_PORTS else None
