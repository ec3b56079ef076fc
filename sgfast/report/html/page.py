"""The page: what would break, who talks to whom, and why; then the timeline, rules, and warnings."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template

import numpy as np

from sgfast.engine import REASONS
from sgfast.replaying import ReplayResult
from sgfast.report.html.answers import LISTS, MOST_BYTES, Answers, List
from sgfast.report.html.chart import caption, chart, numbers
from sgfast.report.html.columns import largest, sums
from sgfast.report.html.markup import Content, Markup, joined, tag, text
from sgfast.report.html.matrix import Matrix, legend, matrix_of, matrix_table
from sgfast.report.html.tables import (
    changes_table,
    cuts_table,
    unused_table,
    used_table,
    verdicts_table,
)
from sgfast.report.html.timeline import Timeline
from sgfast.report.left_out import left_out_words
from sgfast.report.page import connection_counts, grouped, human_bytes, human_seconds, instant, plural
from sgfast.report.rollup import Rollup
from sgfast.report.text import REMINDER, tunnels_text

#: Maximum number of warnings, and of captures, that are listed.
MAX_NAMED = 20

#: Parts of the bar of all packets, in order: name, style and verdicts.
_SHARES = (
    ("Allowed", "allow", ("allow",)),
    ("Denied", "deny", ("deny",)),
    ("Moot", "moot", ("moot",)),
    ("Not judged", "other", ("out-of-scope", "local", "exempt", "not-ip")),
)
_SHARE_NOTES = {
    "allow": "The groups let them through.",
    "deny": "The groups stop them.",
    "moot": "They follow a denied opener, so they would never have been sent.",
    "other": "They are not between instances, exempt, or not IP.",
}
#: Names of the sections in the navigation.
_SHORT = {
    "matrix": "Who to whom", "broken": "Would break", "denied": "Denied", "services": "Not served",
    "allowed": "Allowed", "timeline": "Over time", "changes": "Changes", "rules": "Rules hit", "unused": "Never hit",
    "verdicts": "Verdicts", "about": "About",
}  # fmt: skip
#: More than what page.html and a note add to the parts of a page.
_FRAME_BYTES = 10_000
_BECAUSE = {
    "no-rule": "no rule lets {them} through",
    "deny-rule": "a deny rule stops {them}",
    "vpc-isolated": "the VPCs are not peered",
    "table-full": "the connection table is full",
}


@dataclass(frozen=True, slots=True)
class _Told:
    """What the parts of one page share."""

    result: ReplayResult
    rollup: Rollup
    answers: Answers
    matrix: Matrix


def html_report(result: ReplayResult, timeline: Timeline | None = None) -> str:
    """Return an HTML document, to be written as UTF-8. The page has a chart over time only if there is a ``timeline``
    that got packets of the replay.
    """
    rollup = Rollup(result.policy, result.kinds)
    answers = Answers(result, rollup)
    told = _Told(result, rollup, answers, matrix_of(answers.columns))
    style, script = _asset("page.css"), _asset("page.js")
    sections = _sections(told, timeline)
    links = (tag("a", _SHORT[key], _counted(count), href=f"#{key}") for key, _, count, _ in sections)
    captures = _named(result.captures)
    fixed = {
        "policy": text(_security_policy(style, script)),
        "title": text(f"{_short_name(captures)} against {_short_name(result.policy.origin)}"),
        "style": style,
        "script": script,
        "head": _head(told, captures),
        "navigation": joined(*links),
    }
    content = [_section(key, name, content) for key, name, _, content in sections]
    used = sum(len(part.encode()) for part in (*fixed.values(), *content))
    data, left_out = answers.data(told.matrix, MOST_BYTES - used - _FRAME_BYTES)
    note = tag("p", left_out, class_="alert mild") if left_out else ""
    return Template(_asset("page.html")).substitute(**fixed, sections=joined(note, *content, data))


@cache
def _asset(name: str) -> Markup:
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _security_policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy that allows this script and this style sheet and nothing else."""
    own = f"style-src {_hash(style)}; script-src {_hash(script)}"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


def _hash(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _short_name(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2] or name


def _named(captures: tuple[str, ...]) -> str:
    shown = ", ".join(captures[:3])
    return shown + (f" and {plural(len(captures) - 3, 'more capture')}" if len(captures) > 3 else "")


# Head ----------------------------------------------------------------------------------------------------------------


def _head(told: _Told, captures: str) -> Markup:
    result = told.result
    options = [result.mode, f"midstream {result.midstream}"]
    if result.vpc is not None:
        options.append(f"VPC {result.vpc}")
    if result.engine != "fast":
        options.append(f"{result.engine} engine")
    about = joined(
        tag("span", captures, class_="code"), " against ", tag("span", result.policy.origin, class_="code"),
        f" · {', '.join(options)}",
    )  # fmt: skip
    left_out = () if result.left_out is None else (f"Left out: {left_out_words(result.left_out)}.",)
    headline, style = _headline(told)
    return joined(
        tag("p", about, class_="about"),
        *(tag("p", words, class_="about") for words in left_out),
        tag("h1", headline, class_=style),
        tag("p", _lede(told), class_="lede"),
        _alert(result),
        _shares(result),
    )


def _headline(told: _Told) -> tuple[str, str]:
    result, broken = told.result, told.rollup.total("would-break")
    if not result.packets:
        return "No packets", "calm"
    if not _judged(result):
        return "No packet touched an instance's address", "calm"
    if broken:
        return f"{plural(broken, 'connection')} that worked would break", "bad"
    if result.engine == "reference":
        return f"{plural(result.verdicts['deny'], 'packet')} of {grouped(result.packets)} denied", "calm"
    if result.verdicts["deny"]:
        return "Nothing that worked would break", "good"
    return "Nothing is denied", "good"


def _lede(told: _Told) -> str:
    result = told.result
    if not result.packets:
        return "The captures are empty or could not be read."
    if not _judged(result):
        return "Is this the right policy, and the right --vpc?"
    parts = []
    broken = told.rollup.total("would-break")
    if broken:
        columns = told.answers.columns
        kinds = columns.kinds
        here = columns.group[np.where(kinds["inbound"] == 1, kinds["destination"], kinds["source"])]
        where = largest(columns.groups, sums(here, kinds["breaks"], len(columns.groups)))
        why = largest((word or "" for word in REASONS), sums(kinds["reason"], kinds["breaks"], len(REASONS)))
        them = "it" if broken == 1 else "them"
        parts.append(f"The other end answered {them} in the capture; these groups deny {them}{_places(where)}.")
        causes = [
            (count, _BECAUSE.get(reason, f"they are {reason}").format(them="it" if count == 1 else "them"))
            for reason, count in why[:3]
        ]
        if len(why) == 1:
            parts.append(f"Why: {causes[0][1]}.")
        else:
            parts.append("Why: " + "; ".join(f"{words} ({grouped(count)})" for count, words in causes) + ".")
    elif result.engine == "reference":
        parts.append("The reference engine keeps no list of what would break, nor of what was denied.")
    elif result.verdicts["deny"]:
        parts.append(
            f"{plural(result.verdicts['deny'], 'packet is', 'packets are')} denied, but none of them opened a "
            "connection that was answered in the capture."
        )
    if result.changes:
        cut = sum(change.disconnected for change in result.changes)
        parts.append(
            f"{plural(len(result.changes), 'change')} of the policy cut {plural(cut, 'connection') if cut else 'none'}"
            + (f"; {_came_back(result)}." if cut and result.engine == "fast" else ".")
        )
    return " ".join(parts)


def _came_back(result: ReplayResult) -> str:
    back = sum(change.came_back or 0 for change in result.changes)
    finished = sum(change.finished or 0 for change in result.changes)
    if finished == sum(change.disconnected for change in result.changes):
        return "all had finished before"
    words = f"{grouped(back) if back else 'none'} came back"
    return words + (f", {grouped(finished)} had finished before" if finished else "")


def _places(where: Sequence[tuple[str, int]]) -> str:
    places = [f"{grouped(count)} at {name}" for name, count in where[:3]]
    if len(where) == 1:
        return f" at {where[0][0]}"
    if len(where) > 3:
        places.append(f"{grouped(sum(count for _, count in where[3:]))} elsewhere")
    return ": " + ", ".join(places)


def _judged(result: ReplayResult) -> int:
    return result.packets - sum(result.verdicts[verdict] for verdict in ("out-of-scope", "exempt", "not-ip"))


def _alert(result: ReplayResult) -> Markup:
    parts: list[Markup] = []
    if result.damaged is not None:
        parts.append(tag("p", tag("b", "Damaged capture. "), f"{result.damaged}; the report ends there.", role="alert",
                         class_="alert"))  # fmt: skip
    if result.warnings:
        words = plural(len(result.warnings), "warning")
        parts.append(tag("p", tag("a", words, href="#about"), " about this replay.", class_="alert mild"))
    return joined(*parts)


def _shares(result: ReplayResult) -> Markup:
    """Return a bar of all packets with a legend."""
    parts, legend = [], []
    start = 0.0
    for name, style, verdicts in _SHARES:
        packets = sum(result.verdicts[verdict] for verdict in verdicts)
        share = 100 * packets / result.packets if result.packets else 0.0
        if packets:
            parts.append(tag("rect", class_=f"fill-{style}", x=f"{start:.3f}%", width=f"{share:.3f}%", height=10))
        start += share
        legend.append(
            tag(
                "div",
                tag("dt", tag("span", class_=f"dot {style}"), name),
                tag("dd", tag("strong", grouped(packets)), tag("span", f"{share:.1f} %")),
                tag("dd", _SHARE_NOTES[style], class_="soft"),
            )
        )
    bar = tag("svg", *parts, class_="bar", width="100%", height=10, aria_hidden="true")
    return joined(bar, tag("dl", *legend, class_="shares"))


# Sections ------------------------------------------------------------------------------------------------------------


def _section(key: str, name: str, content: Markup) -> Markup:
    return tag("section", tag("h2", name), content, id=key, aria_label=name)


def _counted(count: int | None) -> Markup:
    return Markup() if count is None else tag("span", grouped(count), class_="count")


def _sections(told: _Told, timeline: Timeline | None) -> list[tuple[str, str, int | None, Markup]]:
    """Return key, name, number for the navigation and content of each section."""
    result = told.result
    start_ns = result.first_time_ns or 0
    found: list[tuple[str, str, int | None, Markup]] = []
    if len(result.kinds.rows):
        found.append(("matrix", "Who talks to whom", None, _matrix(told.matrix)))
    if result.engine == "fast" and result.packets:
        found += [section for one in LISTS for section in _answers(told, one)]
    if timeline is not None and timeline.first_ns is not None:
        found.append(("timeline", "Over time", None, _timeline(result, timeline)))
    if result.changes or result.changes_left:
        found.append(("changes", "Changes", len(result.changes), _changes(result, start_ns)))
    hit = sum(1 for hits in result.rules if hits.packets)
    never = len(result.rules) - hit
    found.append(("rules", "Rules that were hit", hit, used_table(result) if hit else _none("No rule was hit.")))
    found.append(("unused", "Rules never hit", never, _unused(result) if never else _none("Every rule was hit.")))
    if result.packets:
        found.append(("verdicts", "Verdicts and reasons", None, verdicts_table(result)))
    found.append(("about", "About this replay", len(result.warnings) or None, _about(result)))
    return found


def _intro(*words: Content) -> Markup:
    return tag("p", *words, class_="intro")


def _none(words: str) -> Markup:
    return tag("p", words, class_="none")


def _matrix(matrix: Matrix) -> Markup:
    intro = (
        "A row is where connections come from, a column is where they go. The larger a square, the more connections. "
        "The number is that of connections that would break (✕), or else of all. A click on a square, a row or a "
        "column chooses what the tables below show."
    )
    return joined(_intro(intro), legend(), matrix_table(matrix))


_TITLES = {
    "broken": "What would break",
    "denied": "Denied and not answered",
    "services": "Allowed, not served",
    "allowed": "Allowed",
}
_INTROS = {
    "broken": "The other end answered these connections in the capture. With these groups they could not be opened.",
    "denied": "Nobody answered these packets in the capture, so nothing that worked depends on them.",
    "services": "The groups allow these connections, but the instance refused them or never answered.",
    "allowed": "These connections work with these groups.",
}
_NONE = {
    "broken": "No connection that was answered in the capture is denied.",
    "denied": "Nothing else was denied.",
}


def _answers(told: _Told, one: List) -> list[tuple[str, str, int | None, Markup]]:
    """The section of a list, if there is something to say."""
    total = told.answers.total(one)
    notes = _denied_notes(told) if one.key == "denied" else []
    if not total and not notes:
        return [(one.key, _TITLES[one.key], 0, _none(_NONE[one.key]))] if one.key in _NONE else []
    table = told.answers.table(one) if total else Markup()
    if one.key == "allowed":
        table = tag("details", tag("summary", "The connections"), table)
    return [(one.key, _TITLES[one.key], total, joined(_intro(_INTROS[one.key]), table, *notes))]


def _denied_notes(told: _Told) -> list[Markup]:
    """What was denied and is in no table."""
    result = told.result
    after_cuts = sum(change.packets_after or 0 for change in result.changes)
    unlisted = result.verdicts["deny"] - after_cuts - told.rollup.total("denied") - result.kinds.lost
    words = []
    if after_cuts:
        words.append(f"{plural(after_cuts, 'packet')} of cut connections are not among them: see Changes.")
    if result.kinds.lost:
        words.append(f"{plural(result.kinds.lost, 'packet')} or connections are not listed for lack of memory.")
    if unlisted > 0:
        words.append(f"{plural(unlisted, 'packet')} without readable addresses (malformed).")
    return [tag("p", each, class_="note") for each in words]


def _timeline(result: ReplayResult, timeline: Timeline) -> Markup:
    intro: list[Content] = [caption(timeline)]
    if result.changes:
        intro.append(" ▾ marks changes of the policy, by their numbers in the list below.")
    if result.earlier_packets:
        intro.append(f" It shows only this replay's packets, not the {grouped(result.earlier_packets)} before them.")
    return joined(
        _intro(*intro),
        tag("div", chart(timeline, result.changes), class_="timeline"),
        tag("p", class_="readout", aria_live="polite", hidden=True),
        numbers(timeline),
    )


def _changes(result: ReplayResult, start_ns: int) -> Markup:
    parts: list[Content] = []
    after = sum(change.packets_after or 0 for change in result.changes)
    if after:
        parts.append(_intro(
            f"The traffic was captured without these cuts: {plural(after, 'packet')} of cut connections came later. "
            "With these changes they could only be retransmissions."
        ))  # fmt: skip
    if result.changes:
        parts.append(changes_table(result.changes, start_ns))
    if any(change.connections for change in result.changes):
        parts += [tag("h3", "Connections cut"), cuts_table(result.changes, start_ns)]
    if result.changes_left:
        words = f"{plural(result.changes_left, 'change')} would come after the last packet."
        parts.append(tag("p", words, class_="note"))
    return joined(*parts)


def _unused(result: ReplayResult) -> Markup:
    span = "this capture"
    if result.first_time_ns is not None and result.last_time_ns is not None:
        span = f"the {human_seconds((result.last_time_ns - result.first_time_ns) / 1e9)} of this capture"
    return joined(_intro(f"Nothing in {span} needed these rules. Other traffic may still need them."),
                  unused_table(result))  # fmt: skip


def _about(result: ReplayResult) -> Markup:
    items: list[tuple[str, Content]] = []
    for number, capture in enumerate(result.captures[:MAX_NAMED]):
        items.append(("Capture" if not number else "", tag("span", capture, class_="code")))
    if len(result.captures) > MAX_NAMED:
        items.append(("", f"and {plural(len(result.captures) - MAX_NAMED, 'more capture')}"))
    items.append(("Policy", tag("span", result.policy.origin, class_="code")))
    items.append(("Packets", f"{grouped(result.packets)}, {human_bytes(result.bytes)}"))
    if result.first_time_ns is not None and result.last_time_ns is not None:
        span = human_seconds((result.last_time_ns - result.first_time_ns) / 1e9)
        items.append(("First packet", f"{instant(result.first_time_ns)} UTC"))
        items.append(("Last packet", f"{instant(result.last_time_ns)} UTC, {span} later"))
    counts = result.connections
    opened = connection_counts(counts)
    if counts.get("inferred"):
        opened.append(f"{grouped(counts['inferred'])} began before the capture (who opened them was inferred)")
    items.append(("Connections", ", ".join(opened) or "none"))
    if result.decapsulated is not None:
        items.append(("Tunnels", tunnels_text(result.decapsulated)))
    for number, warning in enumerate(result.warnings[:MAX_NAMED]):
        items.append(("Warning" if not number else "", warning))
    if len(result.warnings) > MAX_NAMED:
        items.append(("", f"and {plural(len(result.warnings) - MAX_NAMED, 'more warning')}"))
    if result.damaged is not None:
        items.append(("Damage", f"{result.damaged}; the report ends there"))
    items.append(("Remember", REMINDER))
    if result.packets:
        rate = grouped(round(result.packets_per_second))
        took = human_seconds(result.elapsed_seconds)
        items.append(("Speed", f"{rate} packets/s ({took}, without start-up)"))
    return tag("dl", *(joined(tag("dt", name), tag("dd", words)) for name, words in items), class_="about")
