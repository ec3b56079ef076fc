"""What a policy opens and closes by its rules alone, for the three formats of ``sgfast diff`` (SPEC 12.6)."""

from __future__ import annotations

from typing import Any

from sgfast.capture.names import printable
from sgfast.policy.rule_text import rule_text
from sgfast.reaching import Decider, Difference, Row
from sgfast.report.diff_markdown import code, escaped
from sgfast.report.page import Page, plural
from sgfast.report.reach import reach_cells, row_object
from sgfast.report.summary import as_text

#: Maximum number of rows of a kind before "and N more", in text and in Markdown. JSON has all of them.
TOP = 10
#: Maximum number of rules of a row.
_LISTED_RULES = 5


def headline(found: Difference) -> str:
    """In one sentence, without a full stop."""
    if found.not_compared:
        return "By the rules alone: not compared"
    parts = [
        f"{plural(len(rows), 'row')} {word}" for rows, word in ((found.opened, "opened"), (found.closed, "closed"))
        if rows
    ]  # fmt: skip
    return "By the rules alone: " + (", ".join(parts) or "NEW opens nothing and closes nothing")


def difference_text(found: Difference, *, width: int = 80, colour: bool = False) -> str:
    """Return the text. Its names are escaped."""
    page = Page(width, colour)
    page.heading(headline(found))
    if found.not_compared:
        page.wrapped(printable(found.not_compared), "  ")
    for word, rows in (("opens", found.opened), ("closes", found.closed)):
        for row in rows[:TOP]:
            page.hanging(f"  {word:6} ", f"{_what(row)}: {_rules(row)}", "red" if word == "opens" else "")
        if len(rows) > TOP:
            page.wrapped(f"and {plural(len(rows) - TOP, 'more row')} that NEW {word} (--json has all)", "  ")
    for warning in found.warnings:
        page.hanging("Warning: ", printable(warning))
    return page.text()


def _what(row: Row) -> str:
    """``tcp/22 of db to 0.0.0.0/0``"""
    sources, destinations, services = reach_cells(row)
    return f"{services} of {destinations} to {sources}"


def _rules(row: Row) -> str:
    rules = [_rule(each) for each in row.rules[:_LISTED_RULES]]
    more = len(row.rules) - _LISTED_RULES
    return ", ".join(rules) + (f" and {plural(more, 'more rule')}" if more > 0 else "")


def _rule(each: Decider) -> str:
    name = printable(each.rule.id)
    if each.policy == "old":
        return f"{name} of OLD" + (" denied" if each.rule.action == "deny" else "")
    return name + (" denies" if each.rule.action == "deny" else "")


def difference_markdown(found: Difference) -> str:
    lines = [f"### {escaped(headline(found))}", ""]
    if found.not_compared:
        lines += [escaped(printable(found.not_compared)), ""]
    for title, rows in (("Opened", found.opened), ("Closed", found.closed)):
        if not rows:
            continue
        lines += [f"#### {title}", "", "| services | of | to | rules |", "|---|---|---|---|"]
        for row in rows[:TOP]:
            sources, destinations, services = map(escaped, reach_cells(row))
            lines.append(f"| {services} | {destinations} | {sources} | {_coded(row)} |")
        lines.append("")
        if len(rows) > TOP:
            lines += [f"and {plural(len(rows) - TOP, 'more row')}", ""]
    lines += [f"- Warning: {escaped(printable(warning))}" for warning in found.warnings]
    return "\n".join(lines) + "\n"


def _coded(row: Row) -> str:
    names = [f"{code(each.rule.id)}{_rule(each)[len(printable(each.rule.id)):]}" for each in row.rules[:_LISTED_RULES]]
    more = len(row.rules) - _LISTED_RULES
    return ", ".join(names) + (f" and {plural(more, 'more rule')}" if more > 0 else "")


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
