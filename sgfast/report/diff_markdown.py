"""The differences as Markdown for a pull request on GitHub or GitLab. Markup in foreign names is escaped."""

from __future__ import annotations

from sgfast.comparing import DiffResult
from sgfast.report.answer_rows import nearest_text
from sgfast.report.diff import answered, headline, judgements, rule_words
from sgfast.report.diff_text import TITLES, left_words
from sgfast.report.left_out import left_out_words
from sgfast.report.markdown import TOP, capture_words, closing, code, escaped, left_line, more_line, rows_table, table
from sgfast.report.page import grouped, human_bytes, plural
from sgfast.report.rollup import By
from sgfast.report.rollup.changed import changed_rollups
from sgfast.report.text import times_and_tunnels
from sgfast.report.why import Reasons


def diff_markdown(result: DiffResult, by: By = "group", top: int | None = None) -> str:
    """``by``: how rows are folded. ``top``: how many rows a table has."""
    most = top or TOP
    lines = [f"### {escaped(headline(result))}", ""]
    lines += [
        f"{plural(result.packets, 'packet')} of {capture_words(result.captures)} through {code(result.old.origin)} "
        f"(OLD) and {code(result.new.origin)} (NEW); {result.mode}, midstream {result.midstream}"
        + ("" if result.vpc is None else f", VPC {code(result.vpc)}")
        + ".",
        "",
    ]
    if result.left_out is not None:
        lines += [f"Left out: {left_out_words(result.left_out)}.", ""]
    lines += _changed(result, by, most)
    if result.rules:
        lines += ["#### Rules that make the difference", ""]
        lines += table(
            ("rule", "in group", "", "OLD", "NEW", "newly denied", "newly allowed"),
            (
                (code(effect.rule), code(effect.group), effect.status,
                 *("" if rule is None else escaped(rule_words(rule)) for rule in (effect.old, effect.new)),
                 grouped(effect.newly_denied), grouped(effect.newly_allowed))
                for effect in result.rules[:most]
            ),
        )  # fmt: skip
        lines += more_line(len(result.rules), most, "rule")
    if result.moved:
        lines += ["#### Allowed by both, but by another rule", ""]
        lines += table(
            ("connections", "OLD", "NEW"),
            ((grouped(m.connections), code(m.old_rule), code(m.new_rule)) for m in result.moved[:most]),
        )
        lines += more_line(len(result.moved), most, "pair")
        if result.moved_others:
            lines += [f"and {plural(result.moved_others, 'connection')} of further pairs", ""]
    notes = [f"{label} {words}" for label, words in times_and_tunnels(result)]
    return "\n".join(lines + closing(notes, result.warnings, result.damaged, most)) + "\n"


def _changed(result: DiffResult, by: By, most: int) -> list[str]:
    """The tables of what is newly denied and newly allowed."""
    lines, reasons = list[str](), Reasons(result.new)
    for change, rollup in changed_rollups(result).items():
        total = result.total(change)
        if not total.connections:
            continue
        folded = rollup.fold(change, by=by, most=most)
        lines += [
            f"#### {TITLES[change]}: {plural(total.connections, 'connection')}, {answered(total)}", "",
            f"{plural(total.packets, 'packet')}, {human_bytes(total.bytes)}.", "",
        ]  # fmt: skip
        rows = []
        for row in folded.rows:
            old, new = judgements(row, change)
            near = nearest_text(row, reasons) if change == "newly-denied" else ""
            rows.append((row, (grouped(row.connections), grouped(row.answered)), (
                escaped(old), escaped(f"{new}; {near}" if near else new),
                f"{grouped(row.packets)} ({human_bytes(row.bytes)})",
                "" if row.example is None else grouped(row.example.packet),
            )))  # fmt: skip
        lines += rows_table(("connections", "answered"), ("OLD", "NEW", "packets", "first packet"), rows)
        lines += left_line(left_words(folded), folded.every)
    return lines
