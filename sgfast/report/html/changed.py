"""Sections about captures in a comparison: tables of the connections that one of two policies blocks and the other lets
pass, by groups, like the tables of ``answers`` for one policy; and a table of the rules behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sgfast.engine import VERDICTS
from sgfast.policy.document_reader import Lines
from sgfast.policy.model import Policy, Rule, called
from sgfast.policy.rule_text import rule_of_id
from sgfast.questions.comparing import NewVerdict, RuleEffect, TrafficDiff
from sgfast.report.amounts import grouped, human_bytes, plural
from sgfast.report.diff import answered, blocking, blocking_verdict, passing_of, rule_words
from sgfast.report.html.answers import Cells, kinds_data, left_note
from sgfast.report.html.columns import columns_of, line_words, rule_line, rules_of
from sgfast.report.html.markup import Markup, code, joined, tag
from sgfast.report.html.page import PageSection, intro, none
from sgfast.report.html.tables import MAX_ROWS, MOST_ROWS, Cell, Heading, badge, more, table
from sgfast.report.log_records import decimals
from sgfast.report.rollup import RollupRow
from sgfast.report.rollup.changed import ChangedRollup, changed_rollups
from sgfast.report.twins import effects_by_rule, moves_by_rule

_COLUMNS = (
    Heading("Connections", "connections", True), Heading("Answered", "answered", True), Heading("From", "from"),
    Heading("To", "to"), Heading("Service", "service"), Heading("OLD", "old"), Heading("NEW", "new"),
)  # fmt: skip
_TITLES: dict[NewVerdict, tuple[str, str]] = {
    "newly-denied": ("Newly denied", "Traffic that NEW newly denies"),
    "newly-allowed": ("Newly allowed", "Traffic that NEW newly allows"),
}
_NONE: dict[NewVerdict, str] = {
    "newly-denied": "NEW denies no connection of this traffic that OLD allows.",
    "newly-allowed": "NEW allows no connection of this traffic that OLD denies.",
}


class VerdictSections:
    """Sections about the captures of ``result``. ``lines``: line numbers of rules, by document: ``old``, ``new``."""

    def __init__(self, result: TrafficDiff, lines: Mapping[str, Lines]) -> None:
        self._result, self._lines = result, lines
        self._tables = [
            _VerdictSection(result, verdict, rollup, lines) for verdict, rollup in changed_rollups(result).items()
        ]

    def sections(self) -> list[PageSection]:
        sections = [kind_table.section() for kind_table in self._tables]
        result = self._result
        if effects := effects_by_rule(result):
            content = _effects(result, effects, self._lines)
            title, count = "Rules that make the difference", grouped(len(effects))
            sections.append(PageSection("rules", "Rules", title, content, count))
        if result.moved:
            connections = sum(move.connections for move in result.moved) + result.moved_others
            title = "Allowed by both, but by another rule"
            count = plural(connections, "connection")
            sections.append(PageSection("moved", "Other rules", title, _moved(result), count, is_printed=False))
        return sections

    def data(self, room: int) -> list[tuple[Markup, str]]:
        """Return data for kinds.js, in at most ``room`` characters, and sentences on what the data leaves out."""
        kind_data = []
        for n, kind_table in enumerate(self._tables):
            kind_data.append(kind_table.data(room // (len(self._tables) - n)))
            room -= len(kind_data[-1][0])
        return kind_data


class _VerdictSection:
    def __init__(
        self, result: TrafficDiff, verdict: NewVerdict, rollup: ChangedRollup, lines: Mapping[str, Lines]
    ) -> None:
        self._result, self._verdict, self._rollup = result, verdict, rollup
        self._blocks, self._passes = ("new", "old") if verdict == "newly-denied" else ("old", "new")
        self._lines = lines[self._blocks]
        self._cells = Cells(blocking(result, verdict))
        rows, kinds = rollup.kinds.rows, result.kinds[verdict]
        policies = {"old": result.old, "new": result.new}
        rule_lines = {name: _rule_lines(policies[name], lines[name]) for name in policies}
        passing, self._passing = rules_of(rows["passing_rule"], kinds.passing_rules, rule_lines[self._passes])
        self._columns = columns_of(
            rollup, policies[self._blocks], self._cells.reasons, rule_lines[self._blocks], result.first_time_ns or 0,
            decimals(result.records),
            {name: rows[of] for name, of in (("connections", "connections"), ("answered", "broken"),
                                             ("packets", "packets"), ("bytes", "bytes"))},
            {"passes": rows["passes"], "passing": passing},
        )  # fmt: skip

    def section(self) -> PageSection:
        total = self._result.total(self._verdict)
        count = plural(total.connections, "connection")
        if not total.connections:
            return PageSection(self._verdict, *_TITLES[self._verdict], none(_NONE[self._verdict]), count)
        counts = (
            f"{count}, {answered(total)}; {plural(total.packets, 'packet')}, "
            f"{human_bytes(total.bytes)}."
        )
        folded = self._rollup.fold(self._verdict, most=MOST_ROWS)
        rows = [self._cells.of(_COLUMNS, row, self._verdict_cells(row)) for row in folded.rows]
        shown = table(self._verdict, _TITLES[self._verdict][1], _COLUMNS, rows, self._key)
        content = joined(intro(counts), shown, left_note(self._verdict, folded))
        return PageSection(self._verdict, *_TITLES[self._verdict], content, count)

    @property
    def _key(self) -> str:
        return f"kinds-{self._verdict}"

    def _verdict_cells(self, row: RollupRow) -> dict[str, Cell]:
        passing = passing_of(row)
        blocks = blocking(self._result, self._verdict)
        lets_pass = self._result.old if self._passes == "old" else self._result.new
        rules = _rules(blocks, row.rule, row.rules)
        blocked = joined(badge("deny", blocking_verdict(row)), f" {row.reason} ", rules)
        passed = joined(badge("allow", passing.verdict), " ", _rules(lets_pass, passing.rule, passing.rules))
        return {
            "answered": Cell(grouped(row.answered), row.answered), self._blocks: Cell(blocked),
            self._passes: Cell(passed),
        }  # fmt: skip

    def data(self, room: int) -> tuple[Markup, str]:
        beside = {
            "tables": {self._verdict: [["connections"]]}, "blocks": self._blocks, "verdicts": VERDICTS,
            "passing": self._passing, "answers": {},
        }  # fmt: skip
        options = "--json --by address --top N"
        return kinds_data(self._key, self._columns, self._cells.reasons, self._lines, room, beside, options)


def _rule_lines(policy: Policy, lines: Lines) -> dict[str, str]:
    return {
        rule.id: rule_line(policy, rule, group.name, lines)
        for group in policy.security_groups for rule in group.rules
    }  # fmt: skip


def _rules(policy: Policy, rule: str | None, rules: int) -> Markup:
    if rule is not None:
        return code(rule_of_id(policy, rule))
    return tag("span", plural(rules, "rule")) if rules else Markup()


def _effects(result: TrafficDiff, effects: Sequence[RuleEffect], lines: Mapping[str, Lines]) -> Markup:
    """Return the rules that decide on changed connections."""
    columns = (
        Heading("Rule", "rule"), Heading("Group", "group"), Heading("Status", "status"),
        Heading("Newly denied", "denied", True), Heading("Newly allowed", "allowed", True), Heading("OLD", "old"),
        Heading("NEW", "new"),
    )  # fmt: skip

    def group_called(effect: RuleEffect) -> str:
        return called((result.old if effect.new is None else result.new).group_by_name[effect.group])

    def rule_cell(rule: Rule | None, word: str, policy: Policy) -> Cell:
        if rule is None:
            return Cell("-")
        place = tag("span", line_words(rule, lines[word]), class_="soft")
        return Cell(joined(rule_words(rule, policy), place))

    rows = [
        (
            Cell(code(effect.rule)), Cell(group_called(effect)), Cell(tag("span", effect.status, class_="whole")),
            Cell(grouped(effect.newly_denied), effect.newly_denied),
            Cell(grouped(effect.newly_allowed), effect.newly_allowed),
            rule_cell(effect.old, "old", result.old), rule_cell(effect.new, "new", result.new),
        )
        for effect in effects[:MAX_ROWS]
    ]  # fmt: skip
    unlisted = effects[MAX_ROWS:]
    connections = sum(effect.newly_denied + effect.newly_allowed for effect in unlisted)
    return joined(
        table("rules", "Rules that make the difference", columns, rows),
        more(len(unlisted), "rule", plural(connections, "changed connection")),
    )


def _moved(result: TrafficDiff) -> Markup:
    columns = (Heading("Connections", "connections", True), Heading("OLD", "old"), Heading("NEW", "new"))
    moves = moves_by_rule(result)
    rows = [
        (Cell(grouped(move.connections), move.connections), Cell(code(rule_of_id(result.old, move.old_rule))),
         Cell(code(rule_of_id(result.new, move.new_rule))))
        for move in moves[:MAX_ROWS]
    ]  # fmt: skip
    unlisted = sum(move.connections for move in moves[MAX_ROWS:]) + result.moved_others
    shown = table("moved", "Connections that both allow, by another rule", columns, rows)
    return joined(shown, more(unlisted, "connection"))
