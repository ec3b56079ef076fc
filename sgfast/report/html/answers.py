"""Tables of connections that would break, and of traffic that was denied, not served or allowed, by groups. They hold
the largest rows, which the page's script replaces by rows of all kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgfast.core.base.reasons import REASON_OF, REASON_TABLE
from sgfast.policy.document_reader import Lines
from sgfast.policy.model import Policy
from sgfast.policy.rule_text import rule_of_id
from sgfast.questions.replaying import ReplayResult
from sgfast.report.amounts import grouped, human_bytes, plural
from sgfast.report.answer_rows import rule_lines
from sgfast.report.denial_reasons import MAX_COMPARED, Reasons
from sgfast.report.html.columns import Columns, columns_of, packed, rule_line, title_of
from sgfast.report.html.markup import Content, Markup, code, joined, tag
from sgfast.report.html.tables import MOST_ROWS, Cell, Heading, badge, table
from sgfast.report.log_records import decimals
from sgfast.report.rollup import BY_PACKETS, NOT_SEEN, Folded, Rollup, RollupRow, TrafficPart
from sgfast.report.rollup.ends import EndName, groups_name
from sgfast.report.row_rules import RuleFinder

ANSWERS = {"refused": "refused, by an RST or ICMP unreachable", "silent": "no answer", NOT_SEEN: "cannot tell"}

_FROM, _TO, _SERVICE = Heading("From", "from"), Heading("To", "to"), Heading("Service", "service")
_CONNECTIONS = Heading("Connections", "connections", True)


@dataclass(frozen=True, slots=True)
class List:
    """A table of the page. ``key``: the key of its section."""

    key: str
    part: TrafficPart
    label: str
    columns: tuple[Heading, ...]


LISTS = (
    List("broken", "would-break", "Connections that worked in the capture and would not",
         (_CONNECTIONS, _FROM, _TO, _SERVICE, Heading("Why", "why"))),
    List("denied", "one-way", "Denied packets that nobody answered",
         (Heading("Packets", "packets", True), Heading("Bytes", "bytes", True), _FROM, _TO, _SERVICE,
          Heading("Why", "why"))),
    List("unknown", "cannot-tell", "Denied packets, answered or not",
         (Heading("Packets", "packets", True), Heading("Bytes", "bytes", True), _FROM, _TO, _SERVICE,
          Heading("Why", "why"))),
    List("services", "unanswered", "Services that did not answer",
         (_CONNECTIONS, _FROM, _TO, _SERVICE, Heading("Answer", "answer"))),
    List("allowed", "allowed", "Connections that were allowed",
         (_CONNECTIONS, _FROM, _TO, _SERVICE, Heading("Rule", "rule"))),
)  # fmt: skip


class Answers:
    """The tables of one page. ``rollup``: the roll-up of the result's kinds."""

    def __init__(self, result: ReplayResult, rollup: Rollup, lines: Lines) -> None:
        self._rollup = rollup
        self._cells = Cells(result.policy)
        self._lines = lines
        #: By row of what would break: the rules that it lacks, as lines.
        self._lacking: list[str] = []
        self.columns = traffic_columns(result, rollup, self._cells.reasons, lines, self._lacks(result))

    def _lacks(self, result: ReplayResult) -> NDArray[np.int64]:
        """Return by kind the index of the rules that its row lacks; -1 for kinds in other rows than the largest."""
        numbers = np.full(len(self._rollup.kinds.rows), -1)
        finder = RuleFinder(result.policy, self._rollup)
        for number, row in enumerate(self._rollup.fold("would-break", most=MOST_ROWS).rows):
            self._lacking.append("\n".join(rule_lines(result.policy, finder.of(row))))
            numbers[row.places] = number
        return numbers

    def total(self, shown: List) -> int:
        return self._rollup.total(shown.part)

    def table(self, shown: List) -> Markup:
        folded = self._rollup.fold(shown.part, most=MOST_ROWS)
        rows = [self._cells.of(shown.columns, row) for row in folded.rows]
        return joined(table(shown.key, shown.label, shown.columns, rows, "kinds"), left_note(shown.part, folded))

    def data(self, room: int) -> tuple[Markup, str]:
        """Return data for the page's script, in at most ``room`` characters, and sentences on what is left out."""
        tables = {
            "broken": [["breaks"]], "denied": [["silence"]], "unknown": [["unclear"]],
            "allowed": [["allowed"]],
            "services": [["refused", "refused"], ["silent", NOT_SEEN if self._rollup.answers_unknown else "silent"]],
        }  # fmt: skip
        return kinds_data(
            "kinds", self.columns, self._cells.reasons, self._lines, room,
            {"tables": tables, "answers": ANSWERS, "lacking": self._lacking},
            "--connections FILE, or --json --by address --top N",
        )  # fmt: skip


def traffic_columns(
    result: ReplayResult, rollup: Rollup, reasons: Reasons, lines: Lines, lacks: NDArray[np.int64]
) -> Columns:
    """Return the kinds with their counts. ``breaks``, ``allowed``, ``refused`` and ``silent`` count connections;
    ``attempts``, ``packets`` and ``bytes`` count denied traffic. ``unclear`` counts denied packets that were perhaps
    answered. The script derives ``silence``: those that nobody answered.
    """
    rows, unanswered = rollup.kinds.rows, rollup.counts["unanswered"]
    rule_lines = {hits.rule.id: rule_line(result.policy, hits.rule, hits.group, lines) for hits in result.rules}
    counted = {
        "breaks": rollup.counts["would-break"][""], "allowed": rollup.counts["allowed"][""],
        "refused": unanswered["refused"], "silent": unanswered[NOT_SEEN if rollup.answers_unknown else "silent"],
        "attempts": np.where(rows["packets"] > 0, rows["connections"], 0), "packets": rows["packets"],
        "bytes": rows["bytes"], "unclear": rollup.counts["cannot-tell"][""],
    }  # fmt: skip
    return columns_of(
        rollup, result.policy, reasons, rule_lines, result.first_time_ns or 0, decimals(result.records), counted,
        {"lacks": lacks},
    )  # fmt: skip


def kinds_data(
    key: str, columns: Columns, reasons: Reasons, lines: Lines, room: int, more: Mapping[str, object], options: str
) -> tuple[Markup, str]:
    """Return data for kinds.js, in at most ``room`` characters, and sentences on what the data leaves out. ``more``:
    further data. ``options``: the options that list all kinds.
    """
    near = {deciding_rule.rule.id: deciding_rule for cause in columns.causes for deciding_rule in cause.rules}
    places = {rule: n for n, rule in enumerate(near)}
    causes = [
        [_why(cause.reason, cause.why, cause.nearest), [places[deciding_rule.rule.id] for deciding_rule in cause.rules]]
        for cause in columns.causes
    ]
    text, kept_kinds = packed(columns, room, {
        "near": [rule_line(reasons.policy, in_group.rule, in_group.group, lines) for in_group in near.values()],
        "causes": causes,
        "meanings": {reason.word: _why(reason.word, reason.sentence) for reason in REASON_TABLE}, **more,
    })  # fmt: skip
    words = []
    added_up = len(columns) - kept_kinds
    if added_up:
        words.append(
            f"The page has room for the {plural(kept_kinds, 'largest kind', 'largest kinds')} of traffic. The other "
            f"{grouped(added_up)} are added up by group and protocol; no count is lost. To see all, use {options}."
        )
    if reasons.is_exhausted:
        words.append(
            "The policy has so many rules that the nearest ones were only looked for until "
            f"{grouped(MAX_COMPARED)} rules were compared, for the largest kinds of traffic first."
        )
    return tag("template", Markup(text), id=key, data_reader="kinds"), " ".join(words)


class Cells:
    """Make the cells of a roll-up's rows, by the keys of their columns. ``policy``: the policy that denies."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.reasons = Reasons(policy)

    def of(self, columns: Sequence[Heading], row: RollupRow, more: Mapping[str, Cell] | None = None) -> list[Cell]:
        cells = {
            "connections": Cell(grouped(row.connections), row.connections),
            "packets": Cell(grouped(row.packets), row.packets),
            "bytes": Cell(human_bytes(row.bytes), row.bytes),
            "from": Cell(self._end(row.source, row.sources)),
            "to": Cell(self._end(row.destination, row.destinations)),
            "service": Cell(code(row.service)),
            "answer": Cell(ANSWERS.get(row.reason, "")),
            "rule": Cell(
                plural(row.rules, "rule") if row.rule is None else code(rule_of_id(self._policy, row.rule))
            ),
            **(more or {}),
        }
        if any(column.key == "why" for column in columns):
            cause = None if row.kind is None else self.reasons.cause(row.kind)
            if cause is not None:
                cells["why"] = Cell(_why(row.reason, cause.why, cause.nearest))
            else:
                cells["why"] = Cell(_why(row.reason, REASON_OF[row.reason].sentence if row.reason in REASON_OF else ""))
        return [cells[column.key] for column in columns]

    def _end(self, name: EndName, number: int) -> Content:
        if name.kind == "instance":
            instance = tag("b", name.called, title=title_of(self._policy, name.text) or None)
            if not name.groups:
                return instance
            groups = groups_name(self._policy, name.groups).called
            return joined(instance, " ", tag("span", f"in {groups}", class_="soft"))
        if name.kind == "groups":
            count = tag("span", f"({plural(number, 'instance')})", class_="soft whole")
            return joined(tag("b", name.called), " ", count)
        if name.kind == "address":
            return code(name.text)
        if name.kind in ("private", "public"):
            return f"{grouped(number)} {name.called}"
        return joined(name.called, " ", tag("span", f"({plural(number, 'address', 'addresses')})", class_="soft whole"))


def _why(reason: str, sentence: str, nearest: str = "") -> Markup:
    """Return the cell that says why traffic is denied. The page's data has the same cell for each cause."""
    style = badge("deny" if reason != "disconnected" else "cut", reason)
    return joined(style, " ", sentence, tag("span", nearest, class_="hint") if nearest else "")


def left_note(part: TrafficPart, found: Folded) -> Markup:
    """Return a note on left-out rows for readers without scripts, who see only the rows in the page."""
    if not found.unlisted_rows:
        return Markup()
    packets = part in BY_PACKETS
    count = plural(found.unlisted_packets, "packet") if packets else plural(found.unlisted_connections, "connection")
    words = f"And {plural(found.unlisted_rows, 'row')} more ({count}), which a browser with scripts shows."
    return tag("p", words, class_="note static")
