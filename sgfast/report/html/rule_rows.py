"""Tables of what rules allow for all packets, and their matrix: source, destination, services and rules of each row.

    rows (``reaching``) -> RuleRows -> tables and a matrix, as HTML
                                    -> all rows, as data for rule_rows.js

The script makes no cells: the data has each different cell once, as HTML, and the script only combines cells to rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sgfast.policy.document_reader import Lines
from sgfast.policy.model import Policy
from sgfast.report.amounts import grouped, plural
from sgfast.report.difference import decider_text
from sgfast.report.html.columns import addresses_text, line_words, packed_text, rule_line
from sgfast.report.html.markup import Markup, code, joined, plain, tag
from sgfast.report.html.matrix import MOST_UNFOLDED, SIDE, matrix_table
from sgfast.report.html.rule_matrix import PageTable, RuleMatrix
from sgfast.report.html.tables import MOST_ROWS, Cell, Heading, table
from sgfast.report.reach import LISTED_PARTS, part_text, services_cell
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.rows import Decider

#: Maximum number of rules in a cell before "and N more".
_LISTED_RULES = 3
#: Maximum number of characters of services in a cell. A row that is unfolded shows all.
_LISTED_CHARACTERS = 120
#: Maximum number of characters of services, and of a part, in an unfolded row. JSON has longer texts.
_MOST_CHARACTERS = 20_000

_COLUMNS = (
    Heading("From", "from"), Heading("To", "to"), Heading("Services", "service"), Heading("Rules", "rule"),
)  # fmt: skip


class RuleRows:
    """The tables of one page. ``policies``: by the word in ``Decider``. ``lines``: line numbers of their rules."""

    def __init__(
        self, tables: Sequence[PageTable], policies: Mapping[str, Policy], lines: Mapping[str, Lines]
    ) -> None:
        self._tables = tables
        self._policies = policies
        self._lines = lines
        #: By the kind and the name of a part: the names and addresses of its instances, which the filter finds.
        self._members: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for instance in dict.fromkeys(instance for page_table in tables for instance in page_table.policy.instances):
            words = plain(f"{instance.name} {addresses_text(instance)}")
            for name in (("instance", instance.name), *(("group", group) for group in instance.security_groups)):
                self._members[name].append(words)
        self._folded = self._whole = RuleMatrix(tables, SIDE)
        if self._folded.matrix.has_others:
            whole = RuleMatrix(tables, MOST_UNFOLDED)
            self._whole = self._folded if whole.matrix.has_others else whole

    def matrix(self, caption: str) -> Markup:
        return matrix_table(self._folded.matrix, self._whole.matrix, caption)

    def table(self, page_table: PageTable) -> Markup:
        rows = [
            (
                Cell(_end(row.sources)), Cell(_end(row.destinations)), Cell(_services(services_cell(row))),
                Cell(self._rules(row.rules)),
            )
            for row in page_table.rows[:MOST_ROWS]
        ]  # fmt: skip
        unlisted = len(page_table.rows) - len(rows)
        words = f"And {plural(unlisted, 'row')} more, which a browser with scripts shows."
        note = tag("p", words, class_="note static") if unlisted else ""
        return joined(table(page_table.key, page_table.label, _COLUMNS, rows, "rule-rows"), note)

    def _rules(self, rules: Sequence[Decider]) -> Markup:
        if not rules:
            return Markup("-")
        shown = [
            tag("div", code(decider_text(decider, self._policies)), self._place(decider))
            for decider in rules[:_LISTED_RULES]
        ]
        unlisted = len(rules) - len(shown)
        return joined(*shown, tag("div", f"and {grouped(unlisted)} more", class_="soft") if unlisted else "")

    def _place(self, decider: Decider) -> Markup:
        words = line_words(decider.rule, self._lines[decider.policy])
        return tag("span", words, class_="soft whole") if words else Markup()

    def data(self, room: int) -> tuple[Markup, str]:
        """Return data for the page's script, in at most ``room`` characters, and a sentence on what is left out."""
        share = 1.0
        text = self._packed(share)
        while len(text) > room:
            share *= 0.9 * room / len(text)
            text = self._packed(share)
        data = tag("template", Markup(text), id="rule-rows", data_reader="rules")
        number = sum(len(page_table.rows) for page_table in self._tables)
        kept_rows = sum(_kept(page_table, share) for page_table in self._tables)
        if kept_rows == number:
            return data, ""
        return data, (
            f"The page has room for {grouped(kept_rows)} of {plural(number, 'row')}, those first that are open to "
            "most. --json has all."
        )

    def _packed(self, share: float) -> str:
        """Return data with the first ``share`` of each table's rows. A value of several rows is in the data once."""
        parts: dict[Part, int] = {}
        rules: dict[Decider, int] = {}
        lists: dict[str, dict[Any, int]] = {name: {} for name in ("ends", "services", "rules", "cells", "instances")}

        def place(name: str, value: Any) -> int:
            return lists[name].setdefault(value, len(lists[name]))

        tables = {}
        for n, page_table in enumerate(self._tables):
            rows = []
            for m, row in enumerate(page_table.rows[: _kept(page_table, share)]):
                ends = (
                    place("ends", tuple(parts.setdefault(part, len(parts)) for part in end))
                    for end in (row.sources, row.destinations)
                )
                deciders = tuple(rules.setdefault(decider, len(rules)) for decider in row.rules)
                rows.append((
                    *ends, place("services", plain(services_cell(row), _MOST_CHARACTERS)), place("rules", deciders),
                    place("cells", self._whole.cells_of(n, m)),
                ))  # fmt: skip
            tables[page_table.key] = [*zip(*rows, strict=True)] or [()] * 5
        numbered, deciders_of, whole = [*parts], [*rules], self._whole.matrix
        return packed_text({
            "parts": [[plain(part_text(part)), _is_name(part), _whole(part)] for part in parts],
            "members": [
                [place("instances", member) for member in self._members[part.kind, part.name]] for part in parts
            ],
            "names": [plain(decider_text(decider, self._policies)) for decider in rules],
            "lines": [self._line(decider) for decider in rules],
            "tables": tables, "rows": whole.rows.keys, "columns": whole.columns.keys,
            **{name: [*values] for name, values in lists.items()},
            # The cells, and whether an unfolded row shows more than the cell.
            "shown": {
                "ends": [_shown_end([numbered[n] for n in end]) for end in lists["ends"]],
                "services": [[_services(text), len(text) > _LISTED_CHARACTERS] for text in lists["services"]],
                "rules": [[self._rules([deciders_of[n] for n in numbers])] for numbers in lists["rules"]],
            },
        })  # fmt: skip

    def _line(self, decider: Decider) -> str:
        return rule_line(self._policies[decider.policy], decider.rule, decider.group, self._lines[decider.policy])


def _kept(page_table: PageTable, share: float) -> int:
    return int(len(page_table.rows) * share)


def _services(services: str) -> Markup:
    """Return a cell of services, cut behind a comma or a semicolon if it is too long."""
    if len(services) > _LISTED_CHARACTERS:
        cut = services[:_LISTED_CHARACTERS]
        services = cut[: max(cut.rfind(","), cut.rfind(";")) + 1] + " …"
    return code(services)


def _whole(part: Part) -> str:
    """Return the text of a part with all its names if cells shorten the part; else an empty text."""
    whole = part_text(part, max(len(part.without), len(part.addresses)))
    return "" if whole == part_text(part) else plain(whole, _MOST_CHARACTERS)


def _is_name(part: Part) -> bool:
    return part.kind in ("group", "instance", "instances", "any", "internet")


def _shown_end(parts: Sequence[Part]) -> tuple[Markup, bool]:
    return _end(parts), len(parts) > LISTED_PARTS or any(map(_whole, parts))


def _end(parts: Sequence[Part]) -> Markup:
    shown = [tag("b", part_text(part)) if _is_name(part) else code(part_text(part)) for part in parts[:LISTED_PARTS]]
    words = joined(*(joined(", " if n else "", markup) for n, markup in enumerate(shown)))
    unlisted = len(parts) - len(shown)
    return joined(words, tag("span", f" and {grouped(unlisted)} more", class_="soft") if unlisted else "")
