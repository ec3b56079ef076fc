"""The findings about a policy as Markdown for a pull request (SPEC 10.12)."""

from __future__ import annotations

from collections.abc import Sequence

from sgfast.checking import CODES, Checked
from sgfast.policy.document import Lines
from sgfast.report.check import Entry, counts_words, entries
from sgfast.report.check_traffic import used_rows, window_text
from sgfast.report.markdown import TOP, capture_words, closing, code, escaped, left_line, more_line, rows_table, table
from sgfast.report.page import grouped, plural
from sgfast.report.rollup import By


def check_markdown(
    origin: str, warnings: Sequence[str], checked: Checked, lines: Lines, *, by: By = "group", top: int | None = None
) -> str:
    """``by``: how the connections that used a rule are folded. ``top``: how many rows a table has."""
    most, found, traffic = top or TOP, entries(checked, lines), checked.traffic
    said = [f"### Findings about {code(origin)}: {counts_words(checked)}", ""]
    if traffic is not None:
        said += [f"With {capture_words(traffic.captures)}: {window_text(traffic)}.", ""]
    listed = found[:most]
    if listed:
        rows = (
            (each.code, each.severity, "" if each.line is None else str(each.line), code(each.about),
             escaped(each.message))
            for each in listed
        )  # fmt: skip
        said += table(("code", "severity", "line", "about", "finding"), rows) + more_line(len(found), most, "row")
    for each in listed:
        said += _used(checked, each, by, most)
    notes = [f"Left out: {sentence}" for sentence in checked.left_out]
    notes += [f"{each}: {escaped(CODES[each].advice)}" for each in sorted({each.code for each in listed})]
    damage = None if traffic is None else traffic.damaged
    said += closing(notes, warnings, damage, most, of_captures=traffic is not None)
    return "\n".join(said) + "\n"


def _used(checked: Checked, entry: Entry, by: By, most: int) -> list[str]:
    finding = entry.findings[0]
    if finding.connections is None or checked.traffic is None:
        return []
    folded, left, lists = used_rows(checked.traffic.policy, finding, finding.connections, by, most)
    said = [f"#### {entry.code}: {plural(finding.connections, 'connection')} used {code(entry.about)}", ""]
    if folded.rows:
        said += rows_table(("connections",), (), [(row, (grouped(row.connections),), ()) for row in folded.rows])
    return said + (left_line(left, folded.every, lists) if folded.left_rows else [f"and {left}", ""] if left else [])
