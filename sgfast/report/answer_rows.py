"""Who reaches whom, in words: the lists of a replay's answer, as its text and its Markdown tell them (SPEC 10.24)."""

from __future__ import annotations

from dataclasses import dataclass

from sgfast.capture.names import printable
from sgfast.replaying import ReplayResult
from sgfast.report.names import service_name
from sgfast.report.page import grouped, plural
from sgfast.report.rollup import BY_PACKETS, By, Folded, Part, Rollup, Row
from sgfast.report.why import Reasons

HEADINGS: dict[Part, str] = {
    "would-break": "Would break: the other end answered in the capture, but these groups deny it",
    "one-way": "Denied packets that nobody answered: nothing that worked depends on them",
    "unanswered": "Allowed by the groups, but not served by the instance",
    "allowed": "Allowed",
}
_ANSWERS = {"refused": "refused: RST or ICMP unreachable", "silent": "no answer"}


@dataclass(frozen=True, slots=True)
class AnswerRow:
    row: Row
    #: Connections, or packets if the list is one of ``BY_PACKETS``.
    amount: str
    #: What the instance did, or the word of SPEC 10.3 with the rule that decided.
    reason: str
    #: The rule that came nearest to allowing what would break; "" if there is none.
    nearest: str


@dataclass(frozen=True, slots=True)
class AnswerList:
    heading: str
    #: "connections" or "packets".
    counted: str
    #: Most important first.
    rows: tuple[AnswerRow, ...]
    #: What is not listed, such as ``3 more rows (6 packets)``; "" if all rows are listed.
    left: str
    #: The value of ``--top`` that lists all rows.
    every: int


class Answers:
    """The lists of one replay, folded by the same. Each can be had in as many rows as there is room for."""

    def __init__(self, result: ReplayResult, by: By) -> None:
        self.by = by
        self.rollup = Rollup(result.policy, result.kinds)
        self._reasons = Reasons(result.policy)
        #: By place of a row: the nearest rule. A shorter list has some of the same rows.
        self._nearest: dict[int, str] = {}

    def listed(self, part: Part, most: int) -> AnswerList | None:
        """The list in at most so many rows; None if nothing is in it."""
        folded = self.rollup.fold(part, by=self.by, most=max(most, 1))
        if not folded.rows:
            return None
        if most < 1:
            folded = folded.without_rows()
        rows = tuple(
            AnswerRow(
                row, grouped(row.packets if part in BY_PACKETS else row.connections), _reason(row, part),
                self._near(row) if part == "would-break" else "",
            )
            for row in folded.rows
        )  # fmt: skip
        counted = "packets" if part in BY_PACKETS else "connections"
        return AnswerList(HEADINGS[part], counted, rows, left_words(folded, counted), folded.every)

    def _near(self, row: Row) -> str:
        if row.place not in self._nearest:
            self._nearest[row.place] = nearest_text(row, self._reasons)
        return self._nearest[row.place]


def left_words(folded: Folded, counted: str = "connections") -> str:
    """``3 more rows (6 packets)``; "" if all rows are listed."""
    if not folded.left_rows:
        return ""
    left = folded.left_packets if counted == "packets" else folded.left_connections
    return f"{plural(folded.left_rows, 'more row' if folded.rows else 'row')} ({plural(left, counted[:-1])})"


def answer_text(row: Row) -> str:
    """``web (12 instances) -> db: tcp/5432``; of rows that are not about ends, what they are about."""
    ends = f"{printable(row.source_text)} -> {printable(row.destination_text)}"
    return ends + f": {row.service}" if row.has_ends else row.service


def _reason(row: Row, part: Part) -> str:
    if part == "unanswered":
        return _ANSWERS[row.reason]
    rule = f" {printable(row.rule)}" if row.rule is not None else ""
    return row.reason + rule + (", perhaps answered" if row.perhaps_answered else "")


def nearest_text(row: Row, reasons: Reasons) -> str:
    """The rule that came nearest to allowing it; if the row has several services, that of the largest."""
    near = reasons.nearest_rules(row.kind) if row.kind is not None else []
    if row.kind is None or not near:
        return ""
    (rule, differs), more = near[0], len(near) - 1
    which = f"for {service_name(row.kind.service)} the nearest" if row.services > 1 else "nearest"
    return f"{which} is {printable(rule)}{f' (and {more} more)' if more else ''}: {printable(', and '.join(differs))}"
