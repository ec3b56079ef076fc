"""Tables of what would break, what was denied, not served and allowed, by groups. They have the largest rows, and the
page's script puts the rows of all kinds in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgfast.policy.document import Lines
from sgfast.replaying import ReplayResult
from sgfast.report.html.columns import Columns, columns_of, packed, rule_line, title_of
from sgfast.report.html.markup import Content, Markup, joined, plain, tag
from sgfast.report.html.tables import MOST_ROWS, REASONS_TOLD, Cell, Column, badge, table
from sgfast.report.page import grouped, human_bytes, plural
from sgfast.report.rollup import BY_PACKETS, Folded, Part, Rollup, Row
from sgfast.report.rollup.ends import Name
from sgfast.report.why import MAX_COMPARED, Reasons

#: A text of this length has no line break, even on a phone.
_WHOLE = 22

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

    def __init__(self, result: ReplayResult, rollup: Rollup, lines: Lines) -> None:
        self._result = result
        self._rollup = rollup
        self._reasons = Reasons(result.policy)
        self._lines = lines
        self.columns: Columns = columns_of(result, rollup, self._reasons, lines)

    def total(self, one: List) -> int:
        return self._rollup.total(one.part)

    def table(self, one: List) -> Markup:
        found = self._rollup.fold(one.part, most=MOST_ROWS, fitting=False)
        rows = [self._cells(one, row) for row in found.rows]
        return joined(table(one.key, one.label, one.columns, rows, "kinds"), _left(one, found))

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
        cause = self._reasons.cause(row.kind)
        return joined(style, " ", cause.why, tag("span", cause.nearest, class_="hint") if cause.nearest else "")

    def data(self, room: int) -> tuple[Markup, str]:
        """What the page's script reads, in at most ``room`` characters, and sentences on what is not in it."""
        near = {each.rule.id: each for cause in self.columns.causes for each in cause.rules}
        places = {rule: n for n, rule in enumerate(near)}
        more = {
            "near": [rule_line(each.rule, each.group, self._lines) for each in near.values()],
            "causes": [
                [plain(cause.why), plain(cause.nearest), [places[each.rule.id] for each in cause.rules]]
                for cause in self.columns.causes
            ],
            "answers": ANSWERS,
            "meanings": {word: meaning for word, (_, meaning) in REASONS_TOLD.items()},
        }
        text, kept = packed(self.columns, room, more)
        words = []
        left = len(self.columns) - kept
        if left:
            words.append(
                f"The page has room for the {plural(kept, 'largest kind', 'largest kinds')} of traffic. The other "
                f"{grouped(left)} are added up by group and protocol; no count is lost. To see all, use "
                "--connections FILE, or --json --by address --top N."
            )
        if self._reasons.is_exhausted:
            words.append(
                "The policy has so many rules that the nearest ones were only looked for until "
                f"{grouped(MAX_COMPARED)} rules were compared, for the largest kinds of traffic first."
            )
        return tag("template", Markup(text), id="kinds"), " ".join(words)


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
