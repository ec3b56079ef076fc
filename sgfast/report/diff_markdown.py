"""The differences as Markdown for a pull request on GitHub or GitLab. Markup in foreign names is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sgfast.capture.names import printable
from sgfast.comparing import CHANGES, Change, DiffResult
from sgfast.report.diff import answered, example_words, headline, peers, rule_words, why
from sgfast.report.diff_text import TITLES
from sgfast.report.left_out import left_out_words
from sgfast.report.names import service_name
from sgfast.report.page import grouped, human_bytes, plural
from sgfast.report.text import REMINDER, tunnels_text

#: Maximum number of table rows before "and N more".
TOP = 20

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
#: Markdown makes links and mentions of URLs, mail addresses and @names, without any markup. An empty comment after
#: these characters prevents that. Readers do not see the comment.
_LINK = re.compile(r"(@|:(?=//)|\bwww(?=\.))", re.IGNORECASE)
_COMMENT = "<!-- -->"


def diff_markdown(result: DiffResult) -> str:
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
    for change in CHANGES:
        lines += _groups(result, change)
    if result.rules:
        lines += ["#### Rules that make the difference", ""]
        lines += _table(
            ("rule", "in group", "", "OLD", "NEW", "newly denied", "newly allowed"),
            (
                (code(effect.rule), code(effect.group), effect.status,
                 *("" if rule is None else escaped(rule_words(rule)) for rule in (effect.old, effect.new)),
                 grouped(effect.newly_denied), grouped(effect.newly_allowed))
                for effect in result.rules[:TOP]
            ),
        )  # fmt: skip
        lines += _more(len(result.rules) - TOP, "rule")
    if result.moved:
        lines += ["#### Allowed by both, but by another rule", ""]
        lines += _table(
            ("connections", "OLD", "NEW"),
            ((grouped(m.connections), code(m.old_rule), code(m.new_rule)) for m in result.moved[:TOP]),
        )
        lines += _more(len(result.moved) - TOP, "pair")
    notes = [f"Tunnels {tunnels_text(result.decapsulated)}"] if result.decapsulated is not None else []
    notes += [f"Warning: {escaped(printable(warning))}" for warning in result.warnings]
    if result.damaged is not None:
        notes.append(f"**Damage: {escaped(printable(str(result.damaged)))}; the report ends there**")
    notes.append(REMINDER)
    return "\n".join(lines + [f"- {note}" for note in notes]) + "\n"


def _groups(result: DiffResult, change: Change) -> list[str]:
    groups, total = result.of(change), result.total(change)
    if not total.connections:
        return []
    lines = [
        f"#### {TITLES[change]}: {plural(total.connections, 'connection')}, {answered(total)}", "",
        f"{plural(total.packets, 'packet')}, {human_bytes(total.bytes)}.", "",
    ]  # fmt: skip
    lines += _table(
        ("connections", "answered", "filter", "service", "peer", "OLD", "NEW", "packets", "for example"),
        (
            (grouped(g.connections), grouped(g.answered), f"{code(g.service.instance)} {g.direction}",
             escaped(service_name(g.service)), escaped(peers(g)),
             *(f"{j.verdict}: {code(why(j, rule))}" for j, rule in ((g.old, g.old_rule), (g.new, g.new_rule))),
             f"{grouped(g.packets)} ({human_bytes(g.bytes)})", escaped(example_words(g.examples[0])))
            for g in groups[:TOP]
        ),
    )  # fmt: skip
    others = result.others.get(change)
    return lines + _more(len(groups) - TOP + (others.connections if others is not None else 0), "kind")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _more(number: int, noun: str) -> list[str]:
    return [f"and {plural(number, f'more {noun}')}", ""] if number > 0 else []


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
