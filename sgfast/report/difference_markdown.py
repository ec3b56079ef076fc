"""What a policy opens and closes by its rules alone, as Markdown (SPEC 12.6)."""

from __future__ import annotations

from sgfast.capture.names import printable
from sgfast.reaching import Difference, Row
from sgfast.report.diff_markdown import code, escaped
from sgfast.report.difference import LISTED_RULES, decider_text, headline
from sgfast.report.page import TOP, plural
from sgfast.report.reach import reach_cells


def difference_markdown(found: Difference, top: int | None = None) -> str:
    """``top``: how many rows of a kind it has."""
    most = top or TOP
    lines = [f"### {escaped(headline(found))}", ""]
    if found.not_compared:
        lines += [escaped(printable(found.not_compared)), ""]
    for title, rows in (("Opened", found.opened), ("Closed", found.closed)):
        if not rows:
            continue
        lines += [f"#### {title}", "", "| services | of | to | rules |", "|---|---|---|---|"]
        for row in rows[:most]:
            sources, destinations, services = map(escaped, reach_cells(row))
            lines.append(f"| {services} | {destinations} | {sources} | {_coded(row)} |")
        lines.append("")
        if left := len(rows[most:]):
            lines += [f"and {plural(left, 'more row')}: `--top {len(rows)}` lists all", ""]
    lines += [f"- Warning: {escaped(printable(warning))}" for warning in found.warnings]
    return "\n".join(lines) + "\n"


def _coded(row: Row) -> str:
    names = [
        f"{code(each.rule.id)}{decider_text(each)[len(printable(each.rule.id)):]}" for each in row.rules[:LISTED_RULES]
    ]
    more = len(row.rules) - LISTED_RULES
    return ", ".join(names) + (f" and {plural(more, 'more rule')} (`--json` has all)" if more > 0 else "")
