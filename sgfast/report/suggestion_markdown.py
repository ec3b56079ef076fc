"""Suggested rules, and what they do not allow, as Markdown for a pull request (SPEC 10.15)."""

from __future__ import annotations

from sgfast.report.answer_rows import left_words
from sgfast.report.left_out import left_out_counts
from sgfast.report.markdown import TOP, capture_words, closing, code, left_line, more_line, rows_table, table
from sgfast.report.page import grouped, human_bytes, plural
from sgfast.report.rollup import MOST_FIT, By
from sgfast.report.rollup.observed import ObservedRollup
from sgfast.report.suggestion import claim_words, headline, suggested_words
from sgfast.suggesting import LeftOut, Suggestion


def suggestion_markdown(found: Suggestion, by: By = "group", top: int | None = None) -> str:
    """``by``: how what is left out is folded. ``top``: how many rows a table has."""
    most = top or TOP
    lines = [f"### {headline(found)}", ""]
    lines += [f"Replayed with {capture_words(found.captures)}, {claim_words(found.check)}.", ""]
    if found.rules:
        rows = (
            (grouped(each.evidence.connections), human_bytes(each.evidence.bytes), code(each.group),
             code(suggested_words(each.rule)))
            for each in found.rules[:most]
        )  # fmt: skip
        lines += table(("connections", "bytes", "group", "rule"), rows) + more_line(len(found.rules), most, "rule")
    for left in found.left_out:
        lines += _left_out(found, left, by, most)
    packets = [(number, word) for word, number in found.other_packets.items()]
    packets += left_out_counts(found.packets_left_out)
    notes = [f"{plural(number, 'packet')} left out: {word}" for number, word in packets]
    return "\n".join(lines + closing(notes, found.warnings, found.damaged, most)) + "\n"


def _left_out(found: Suggestion, left: LeftOut, by: By, most: int) -> list[str]:
    folded = ObservedRollup(found.policy, left.kinds).fold("observed", by=by, most=most, at_least=MOST_FIT)
    lines = [f"#### Left out: {plural(left.evidence.connections, 'connection')}: {left.reason}", ""]
    if not folded.rows:
        return lines
    lines += rows_table(("connections",), (), [(row, (grouped(row.connections),), ()) for row in folded.rows])
    return lines + left_line(left_words(folded), folded.every)
