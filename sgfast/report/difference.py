"""What a policy opens and closes by its rules alone, as text and as JSON (SPEC 12.6), and all of the text of
``sgfast diff``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sgfast.capture.names import printable
from sgfast.policy.rule_text import rule_text
from sgfast.reaching import Decider, Difference, Row
from sgfast.report.names import as_text
from sgfast.report.page import MOST_LINES, TOP, Page, plural
from sgfast.report.reach import reach_cells, row_object

if TYPE_CHECKING:
    from sgfast.comparing import DiffResult
    from sgfast.report.rollup import By

#: Maximum number of rules of a row.
LISTED_RULES = 5
#: How many rows of who reaches whom the text has, and how many of the rules behind that: the first that fit are taken.
_SIZES = ((TOP, TOP), (TOP, 5), (TOP, 3), (TOP, 2), *((most, 1) for most in range(TOP, 0, -1)))


def headline(found: Difference) -> str:
    """In one sentence, without a full stop."""
    if found.not_compared:
        return "By the rules alone: not compared"
    parts = [
        f"{plural(len(rows), 'row')} {word}" for rows, word in ((found.opened, "opened"), (found.closed, "closed"))
        if rows
    ]  # fmt: skip
    return "By the rules alone: " + (", ".join(parts) or "NEW opens nothing and closes nothing")


def report_text(
    found: Difference, result: DiffResult | None, *, width: int = 80, colour: bool = False, by: By = "group",
    top: int | None = None,
) -> str:
    """Return the whole report as text; ``result`` is what the captures tell. ``width``: the desired number of columns.
    ``by``: how rows are folded. ``top``: how many rows a list has; without it, as many as let the report have
    ``MOST_LINES`` lines.
    """  # fmt: skip
    captures = None
    if result is not None:
        from sgfast.report.diff_text import DiffText

        captures = DiffText(result, by)
    for most, few in _SIZES if top is None else ((top, top),):
        text = difference_text(found, most=most, width=width, colour=colour)
        text += "\n" + captures.text(most, few, width=width, colour=colour) if captures is not None else ""
        if text.count("\n") <= MOST_LINES:
            break
    return text


def difference_text(found: Difference, *, most: int = TOP, width: int = 80, colour: bool = False) -> str:
    """Return the text. Its names are escaped. ``most``: how many rows of a kind it has."""
    page = Page(width, colour)
    page.heading(headline(found))
    if found.not_compared:
        page.wrapped(printable(found.not_compared), "  ")
    for word, rows in (("opens", found.opened), ("closes", found.closed)):
        for row in rows[:most]:
            page.hanging(f"  {word:6} ", f"{_what(row)}: {_rules(row)}", "red" if word == "opens" else "")
        if left := len(rows[most:]):
            page.wrapped(f"and {plural(left, 'more row')} that NEW {word}: --top {len(rows)} lists all", "  ")
    for warning in found.warnings[:most]:
        page.hanging("Warning: ", printable(warning))
    if more := len(found.warnings[most:]):
        page.hanging("Warning: ", f"and {plural(more, 'more warning')}: --json has all")
    return page.text()


def _what(row: Row) -> str:
    """``tcp/22 of db to 0.0.0.0/0``"""
    sources, destinations, services = reach_cells(row)
    return f"{services} of {destinations} to {sources}"


def _rules(row: Row) -> str:
    rules = [decider_text(each) for each in row.rules[:LISTED_RULES]]
    more = len(row.rules) - LISTED_RULES
    return ", ".join(rules) + (f" and {plural(more, 'more rule')} (--json has all)" if more > 0 else "")


def decider_text(each: Decider) -> str:
    """``db/inbound/3``, ``db/inbound/3 denies``, ``db/inbound/3 of OLD denied``"""
    name = printable(each.rule.id)
    if each.policy == "old":
        return f"{name} of OLD" + (" denied" if each.rule.action == "deny" else "")
    return name + (" denies" if each.rule.action == "deny" else "")


def difference_object(found: Difference) -> dict[str, Any]:
    """Return the fields of the JSON object that are about rules alone."""
    return {
        "old": as_text(found.old.origin),
        "new": as_text(found.new.origin),
        "opened": [_row_object(row) for row in found.opened],
        "closed": [_row_object(row) for row in found.closed],
        "not_compared": found.not_compared or None,
    }


def _row_object(row: Row) -> dict[str, Any]:
    rules = [
        {
            "policy": each.policy, "group": each.group, "rule": each.rule.id, "action": each.rule.action,
            "text": rule_text(each.rule),
        }
        for each in row.rules
    ]  # fmt: skip
    return {**row_object(row), "rules": rules}
