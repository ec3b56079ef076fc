"""Tables of what would break, what was denied, not served and allowed, by groups. They have the largest rows, and the
page's script puts the rows of all kinds in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgfast.replaying import ReplayResult
from sgfast.report.html.columns import Columns, columns_of, packed, rule_line, title_of
from sgfast.report.html.markup import Content, Markup, joined, tag
from sgfast.report.html.matrix import Matrix
from sgfast.report.html.tables import REASONS_TOLD, Cell, Column, badge, table
from sgfast.report.page import grouped, human_bytes, plural
from sgfast.report.rollup import BY_PACKETS, Folded, Part, Rollup, Row
from sgfast.report.rollup.ends import Name
from sgfast.report.why import Reasons

#: The rows of a table that stand in the page as HTML, for browsers without script and for paper, and that are explained
#: by the nearest rules.
MOST_ROWS = 150

#: The page has at most this many bytes: mail takes it, and a browser opens it at once.
MOST_BYTES = 5_000_000
#: A text of this length has no line break, even on a phone.
_WHOLE = 22
#: Less than this room is not tried.
_LEAST_ROOM = 200_000

ANSWERS = {"refused": "refused, by an RST or ICMP unreachable", "silent": "no answer"}

_FROM, _TO, _SERVICE = Column("From", "from"), Column("To", "to"), Column("Service", "service")
_CONNECTIONS = Column("Connections", "connections", True)


@dataclass(frozen=True, slots=True)
class List:
    """A table. ``key``: that of its section."""

    key: str
    part: Part
    label: str
    columns: tuple[Column, ...]


LISTS = (
    List("broken", "would-break", "Connections that worked in the capture and would not",
         (_CONNECTIONS, _FROM, _TO, _SERVICE, Column("Why", "why"))),
    List("denied", "one-way", "Denied packets that nobody answered",
         (Column("Packets", "packets", True), Column("Bytes", "bytes", True), _FROM, _TO, _SERVICE,
          Column("Why", "why"))),
    List("services", "unanswered", "Services that did not answer",
         (_CONNECTIONS, _FROM, _TO, _SERVICE, Column("Answer", "answer"))),
    List("allowed", "allowed", "Connections that were allowed",
         (_CONNECTIONS, _FROM, _TO, _SERVICE, Column("Rule", "rule"))),
)  # fmt: skip


class Answers:
    """The tables of one page. ``rollup``: of the result's kinds."""

    def __init__(self, result: ReplayResult, rollup: Rollup) -> None:
        self._result = result
        self._rollup = rollup
        self._reasons = Reasons(result.policy)
        self.columns: Columns = columns_of(result, rollup)
        # By row: the nearest rules, each as a line.
        self._near: dict[str, list[str]] = {}
        self._lines = {hits.rule.id: rule_line(hits.rule, hits.group) for hits in result.rules}

    def total(self, one: List) -> int:
        return self._rollup.total(one.part)

    def table(self, one: List) -> Markup:
        found = self._rollup.fold(one.part, most=MOST_ROWS, fitting=False)
        keys = [self.columns.key(row.place, row.reason) for row in found.rows]
        for key, row in zip(keys, found.rows, strict=True):
            near = self._reasons.nearest_rules(row.kind) if row.kind is not None else []
            if near:
                self._near[key] = [self._lines.get(rule, rule) for rule, _ in near]
        rows = [self._cells(one, row) for row in found.rows]
        return joined(table(one.key, one.label, one.columns, rows, keys), _left(one, found))

    def _cells(self, one: List, row: Row) -> Sequence[Cell]:
        cells = {
            "connections": Cell(grouped(row.connections), row.connections),
            "packets": Cell(grouped(row.packets), row.packets),
            "bytes": Cell(human_bytes(row.bytes), row.bytes),
            "from": Cell(self._end(row.source, row.sources)),
            "to": Cell(self._end(row.destination, row.destinations)),
            "service": Cell(_code(row.service)),
            "answer": Cell(ANSWERS.get(row.reason, "")),
            "rule": Cell(_code(row.rule) if row.rule is not None else "several rules"),
        }
        if any(column.key == "why" for column in one.columns):
            cells["why"] = Cell(self._why(row))
        return [cells[column.key] for column in one.columns]

    def _end(self, name: Name, number: int) -> Content:
        if name.kind == "instance":
            return tag("b", name.text, title=title_of(self._result.policy, name.text) or None)
        if name.kind in ("groups", "vpc"):
            return joined(tag("b", name.text), " ", tag("span", f"({plural(number, 'instance')})", class_="soft whole"))
        if name.kind == "address":
            return _code(name.text)
        return joined(name.text, " ", tag("span", f"({plural(number, 'address', 'addresses')})", class_="soft whole"))

    def _why(self, row: Row) -> Markup:
        style = badge("deny" if row.reason != "disconnected" else "cut", row.reason)
        if row.kind is None:
            return joined(style, " ", REASONS_TOLD.get(row.reason, ("", ""))[1])
        nearest = self._reasons.nearest(row.kind)
        return joined(
            style, " ", self._reasons.why(row.kind), tag("span", nearest, class_="hint") if nearest else ""
        )  # fmt: skip

    def data(self, matrix: Matrix, room: int) -> tuple[Markup, str]:
        """What the page's script reads, in at most ``room`` characters, and a sentence on what is not in it. Comes
        after the tables, which find the nearest rules.
        """
        more = {
            "from": matrix.sources, "to": matrix.destinations, "near": self._near, "answers": ANSWERS,
            "meanings": {word: meaning for word, (_, meaning) in REASONS_TOLD.items()},
        }  # fmt: skip
        text, kept = packed(self.columns, max(room, _LEAST_ROOM), more)
        left = len(self.columns) - kept
        if not left:
            return tag("template", Markup(text), id="kinds"), ""
        words = (
            f"The page has room for the {plural(kept, 'largest kind', 'largest kinds')} of traffic. The other "
            f"{grouped(left)} are added up by group and protocol; no count is lost. To see all, use "
            "--connections FILE, or --json --by address --top N."
        )
        return tag("template", Markup(text), id="kinds"), words


def _code(words: str) -> Markup:
    # What fits on one line of a phone is not broken.
    return tag("span", words, class_="code whole" if len(words) <= _WHOLE else "code")


def _left(one: List, found: Folded) -> Markup:
    """For those who see no more than the rows in the page."""
    if not found.left_rows:
        return Markup()
    packets = one.part in BY_PACKETS
    count = plural(found.left_packets, "packet") if packets else plural(found.left_connections, "connection")
    words = f"And {plural(found.left_rows, 'row')} more ({count}), which a browser with scripts shows."
    return tag("p", words, class_="note static")
