"""What a policy opens and closes by its rules alone, as Markdown (SPEC 12.6)."""

from __future__ import annotations

from sgfast.capture.names import printable
from sgfast.reaching import Difference, Row
from sgfast.report.difference import LISTED_RULES, decider_text, headline
from sgfast.report.markdown import code, escaped, more_line, table
from sgfast.report.page import TOP, plural
from sgfast.report.reach import reach_cells


def difference_markdown(found: Difference, top: int | None = None) -> str:
    """``top``: how many rows of a kind it has."""
    most = top or TOP
    lines = [f"### {escaped(headline(found))}", ""]
    if found.not_compared:
        lines += [escaped(found.not_compared), ""]
    for title, rows in (("Opened", found.opened), ("Closed", found.closed)):
        if not rows:
            continue
        lines += [f"#### {title}", ""]
        cells = []
        for row in rows[:most]:
            sources, destinations, services = map(escaped, reach_cells(row))
            cells.append((services, destinations, sources, _coded(row)))
        lines += table(("services", "of", "to", "rules"), cells)
        lines += more_line(len(rows), most, "row")
    lines += [f"- Warning: {escaped(warning)}" for warning in found.warnings]
    return "\n".join(lines) + "\n"


def _coded(row: Row) -> str:
    names = [
        f"{code(each.rule.id)}{decider_text(each)[len(printable(each.rule.id)):]}" for each in row.rules[:LISTED_RULES]
    ]
    more = len(row.rules) - LISTED_RULES
    return ", ".join(names) + (f" and {plural(more, 'more rule')} (`--json` has all)" if more > 0 else "")
