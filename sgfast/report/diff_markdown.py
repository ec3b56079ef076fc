"""The differences as Markdown for a pull request on GitHub or GitLab. Markup in foreign names is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sgfast.capture.names import printable
from sgfast.comparing import DiffResult
from sgfast.report.diff import answered, headline, judgements, rule_words
from sgfast.report.diff_text import TITLES, left_words
from sgfast.report.left_out import left_out_words
from sgfast.report.page import grouped, human_bytes, plural
from sgfast.report.rollup import By
from sgfast.report.rollup.changed import changed_rollups
from sgfast.report.text import REMINDER, nearest_text, tunnels_text
from sgfast.report.why import Reasons

#: Maximum number of table rows before "and N more".
TOP = 20

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
#: Markdown makes links and mentions of URLs, mail addresses and @names, without any markup. An empty comment after
#: these characters prevents that. Readers do not see the comment.
_LINK = re.compile(r"(@|:(?=//)|\bwww(?=\.))", re.IGNORECASE)
_COMMENT = "<!-- -->"


def diff_markdown(result: DiffResult, by: By = "group", top: int | None = None) -> str:
    """``by``: how rows are folded. ``top``: how many rows a table has."""
    most = top or TOP
    lines = [f"### {escaped(headline(result))}", ""]
    captures = ", ".join(code(name) for name in result.captures[:3])
    if len(result.captures) > 3:
        captures += f" and {plural(len(result.captures) - 3, 'more capture')}"
    lines += [
        f"{plural(result.packets, 'packet')} of {captures} through {code(result.old.origin)} (OLD) and "
        f"{code(result.new.origin)} (NEW); {result.mode}, midstream {result.midstream}"
        + ("" if result.vpc is None else f", VPC {code(result.vpc)}")
        + ".",
        "",
    ]
    if result.left_out is not None:
        lines += [f"Left out: {left_out_words(result.left_out)}.", ""]
    lines += _changed(result, by, most)
    if result.rules:
        lines += ["#### Rules that make the difference", ""]
        lines += _table(
            ("rule", "in group", "", "OLD", "NEW", "newly denied", "newly allowed"),
            (
                (code(effect.rule), code(effect.group), effect.status,
                 *("" if rule is None else escaped(rule_words(rule)) for rule in (effect.old, effect.new)),
                 grouped(effect.newly_denied), grouped(effect.newly_allowed))
                for effect in result.rules[:most]
            ),
        )  # fmt: skip
        lines += _more(len(result.rules), most, "rule")
    if result.moved:
        lines += ["#### Allowed by both, but by another rule", ""]
        lines += _table(
            ("connections", "OLD", "NEW"),
            ((grouped(m.connections), code(m.old_rule), code(m.new_rule)) for m in result.moved[:most]),
        )
        lines += _more(len(result.moved), most, "pair")
        if result.moved_others:
            lines += [f"and {plural(result.moved_others, 'connection')} of further pairs", ""]
    notes = [f"Tunnels {tunnels_text(result.decapsulated)}"] if result.decapsulated is not None else []
    notes += [f"Warning: {escaped(printable(warning))}" for warning in result.warnings]
    if result.damaged is not None:
        notes.append(f"**Damage: {escaped(printable(str(result.damaged)))}; the report ends there**")
    notes.append(REMINDER)
    return "\n".join(lines + [f"- {note}" for note in notes]) + "\n"


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
            rows.append((
                grouped(row.connections), grouped(row.answered), code(row.source_text), code(row.destination_text),
                escaped(row.service), escaped(old), escaped(f"{new}; {near}" if near else new),
                f"{grouped(row.packets)} ({human_bytes(row.bytes)})",
                "" if row.example is None else grouped(row.example.packet),
            ))  # fmt: skip
        lines += _table(
            ("connections", "answered", "from", "to", "service", "OLD", "NEW", "packets", "first packet"), rows
        )
        if folded.left_rows:
            lines += [f"and {left_words(folded)}: `--top {len(folded.rows) + folded.left_rows}` lists all", ""]
    return lines


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _more(number: int, most: int, noun: str) -> list[str]:
    left = number - most
    return [f"and {plural(left, f'more {noun}')}: `--top {number}` lists all", ""] if left > 0 else []


def escaped(text: str) -> str:
    """Escape markup, so that a line of text appears unchanged, with no links in it."""
    return _LINK.sub(rf"\1{_COMMENT}", _MARKUP.sub(r"\\\1", text))


def code(name: str) -> str:
    """Format a name as code, or as escaped text where code cannot hold it: a table's cell would end at ``|``."""
    text = printable(name)
    if "|" in text or not text.strip():
        return escaped(text)
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (max(map(len, re.findall("`+", text))) + 1)
    return f"{fence} {text} {fence}"
