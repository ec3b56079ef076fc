"""The page of a replay: what would break, who talks to whom, and why; then the timeline, rules, and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sgfast.engine import REASONS
from sgfast.policy.document_reader import Lines
from sgfast.questions.replaying import ReplayResult, RuleHits
from sgfast.questions.replaying.removal import unseen_rules
from sgfast.report.amounts import grouped, human_bytes, human_seconds, plural
from sgfast.report.cloud_actions import rejected_words
from sgfast.report.document import Item, Name
from sgfast.report.evidence import CANNOT_TELL, qualified
from sgfast.report.html.answers import LISTS, Answers, List
from sgfast.report.html.chart import caption, chart, numbers
from sgfast.report.html.columns import largest, sums
from sgfast.report.html.markup import Content, Markup, joined, tag
from sgfast.report.html.matrix import MOST_UNFOLDED, SIDE, legend, matrix_table
from sgfast.report.html.page import (
    PageSection,
    about_section,
    alert,
    captures_named,
    damage_listed,
    doubts,
    intro,
    left_out,
    listed,
    make_page,
    none,
    short_name,
    warnings_counted,
    written,
)
from sgfast.report.html.tables import (
    MAX_ROWS,
    changes_table,
    cuts_table,
    rejected_table,
    unused_table,
    used_table,
    verdicts_table,
)
from sgfast.report.html.timeline import Timeline
from sgfast.report.html.traffic_matrix import matrix_of, outcomes
from sgfast.report.html.uncertain import uncertain_section
from sgfast.report.log_records import decimals, record_items, reminder
from sgfast.report.replay import (
    connection_counts,
    packets_after,
    speed_item,
    time_items,
    tunnel_items,
    unreadable,
    vpc_called,
)
from sgfast.report.rollup import BY_PACKETS, Rollup, TrafficPart, rollup_of
from sgfast.report.twins import hits_by_rule
from sgfast.report.uncertain_openers import uncertain_words
from sgfast.rows.verdicts import VerdictWord
from sgfast.traffic.flow_logs.unlogged import said_of_unlogged, said_of_unseen

#: Parts of the bar of all packets, in order: name, style and verdicts.
_SHARES: tuple[tuple[str, str, tuple[VerdictWord, ...]], ...] = (
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
_BECAUSE = {
    "no-rule": "no rule lets {them} through",
    "reply-denied": "a stateless filter denies the reply",
    "deny-rule": "a deny rule stops {them}",
    "vpc-isolated": "the VPCs are not peered",
    "table-full": "the connection table is full",
}


@dataclass(frozen=True, slots=True)
class _Report:
    """The data that all sections of one page use."""

    result: ReplayResult
    rollup: Rollup
    answers: Answers
    lines: Lines


def html_report(result: ReplayResult, timeline: Timeline | None = None, lines: Lines | None = None) -> str:
    """Return an HTML document, to be written as UTF-8. The page has a chart over time only if there is a ``timeline``
    that got packets of the replay. ``lines``: the line numbers of the document's rules, as
    ``sgfast.policy.loaded_policy.lines_of`` gives them.

    For example:

        with open("report.html", "w", encoding="utf-8") as file:
            file.write(html_report(result, timeline))
    """
    rollup = rollup_of(result)
    report = _Report(result, rollup, Answers(result, rollup, lines or {}), lines or {})
    captures = captures_named(result.captures)
    return make_page(
        "replay report", f"{short_name(captures)} against {short_name(result.policy.origin)}", _head(report, captures),
        _sections(report, timeline), report.answers.data, ("kinds", "timeline"),
    )  # fmt: skip


# The beginning of the page: what would break ------------------------------------------------------------------------


def _head(report: _Report, captures: str) -> Markup:
    result = report.result
    options = [result.mode, f"midstream {result.midstream}"]
    if result.vpc is not None:
        options.append(f"VPC {vpc_called(result.policy, result.vpc)}")
    if result.engine != "fast":
        options.append(f"{result.engine} engine")
    judged = written((Name(captures), " against ", Name(result.policy.origin), f" · {', '.join(options)}"))
    headline, style = _headline(report)
    return joined(
        tag("h1", headline, class_=style),
        tag("p", _lede(report), class_="lede"),
        tag("p", judged, class_="about"),
        left_out(result),
        doubts(result.evidence),
        alert(result.damaged, result.warnings, "this replay"),
        _shares(result),
    )


def _headline(report: _Report) -> tuple[str, str]:
    result, broken = report.result, report.rollup.total("would-break")
    would_break = f"{plural(broken, 'connection')} that worked would break"
    if result.evidence.conclusive == "no":
        return CANNOT_TELL + (f" all: {would_break}" if broken else ""), "calm"
    if broken:
        headline, style = would_break, "bad"
    elif result.engine == "reference":
        headline, style = f"{plural(result.verdicts['deny'], 'packet')} of {grouped(result.packets)} denied", "calm"
    else:
        is_all_allowed = not result.verdicts["deny"] and result.rejected is None
        headline = "Nothing is denied" if is_all_allowed else "Nothing that worked would break"
        uncertain = uncertain_words(result.openers)
        if uncertain:
            headline = f"Nothing that was judged would break, {uncertain[0]}"
        is_sure = result.evidence.conclusive == "yes" and not report.rollup.total("cannot-tell")
        style = "good" if is_sure and not uncertain else "partly"
    return qualified(result.evidence, headline), style


def _lede(report: _Report) -> str:
    result = report.result
    rejected = rejected_words(result)
    if not result.packets:
        return f"There is nothing else to judge: {rejected}." if rejected else "There is nothing to judge."
    parts = []
    broken = report.rollup.total("would-break")
    if broken:
        columns = report.answers.columns
        kinds = columns.kinds
        here = columns.group[np.where(kinds["inbound"] == 1, kinds["destination"], kinds["source"])]
        denying_groups = largest(columns.groups, sums(here, kinds["breaks"], len(columns.groups)))
        why = largest((word or "" for word in REASONS), sums(kinds["reason"], kinds["breaks"], len(REASONS)))
        they, them = ("It was", "it") if broken == 1 else ("They were", "them")
        parts.append(f"{they} answered; these groups deny {them}{_places(denying_groups)}.")
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
    elif result.verdicts["deny"] and not report.rollup.total("cannot-tell"):
        parts.append(
            f"{plural(result.verdicts['deny'], 'packet is', 'packets are')} denied, but none of them opened a "
            "connection that was answered in the capture."
        )
    if rejected:
        parts.append(f"By the cloud's log, {rejected}.")
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


def _places(counted_places: Sequence[tuple[str, int]]) -> str:
    places = [f"{grouped(count)} at {name}" for name, count in counted_places[:3]]
    if len(counted_places) == 1:
        return f" at {counted_places[0][0]}"
    if len(counted_places) > 3:
        places.append(f"{grouped(sum(count for _, count in counted_places[3:]))} elsewhere")
    return ": " + ", ".join(places)


def _shares(result: ReplayResult) -> Markup:
    """Return a bar of all packets, divided by verdict, with a legend."""
    parts, legend = [], []
    start = 0.0
    for name, style, verdicts in _SHARES:
        packets = sum(result.verdicts[verdict] for verdict in verdicts)
        share = 100 * packets / result.packets if result.packets else 0.0
        number, unit = plural(packets, "packet").split()
        if packets:
            parts.append(tag("rect", class_=f"fill-{style}", x=f"{start:.3f}%", width=f"{share:.3f}%", height=10))
        start += share
        legend.append(
            tag(
                "div",
                tag("dt", tag("span", class_=f"dot {style}"), name),
                tag("dd", tag("strong", number), " ", tag("span", f"{unit}, {share:.1f} %")),
                tag("dd", _SHARE_NOTES[style], class_="soft"),
            )
        )
    bar = tag("svg", *parts, class_="bar", width="100%", height=10, aria_hidden="true")
    return joined(bar, tag("dl", *legend, class_="shares"))


# Sections ------------------------------------------------------------------------------------------------------------


def _sections(report: _Report, timeline: Timeline | None) -> list[PageSection]:
    result, lines = report.result, report.lines
    sections: list[PageSection] = []
    if len(result.kinds.rows):
        sections.append(PageSection("matrix", "Who to whom", "Who talks to whom", _matrix(report)))
    if result.engine == "fast" and result.packets:
        sections += [section for shown in LISTS for section in _answers(report, shown)]
    sections += uncertain_section(result.policy, result.openers)
    if result.rejected is not None:
        sections += _rejected(result.rejected)
    if timeline is not None and timeline.first_time_ns is not None:
        sections.append(PageSection("timeline", "Over time", "Over time", _timeline(result, timeline)))
    if result.changes or result.changes_left:
        count = grouped(len(result.changes))
        sections.append(PageSection("changes", "Changes", "Changes", _changes(result), count))
    rules = hits_by_rule(result)
    hit = sum(1 for hits in rules if hits.packets)
    never = len(rules) - hit
    used = used_table(result.policy, rules, lines) if hit else none("No rule was hit.")
    sections.append(PageSection("rules", "Rules hit", "Rules that were hit", used, grouped(hit), is_printed=False))
    unused = _unused(result, rules, lines) if never else none("Every rule was hit.")
    sections.append(PageSection("unused", "Never hit", "Rules never hit", unused, plural(never, "rule")))
    if result.packets:
        sections.append(PageSection("verdicts", "Verdicts", "Verdicts and reasons", verdicts_table(result)))
    sections.append(
        PageSection("about", "About", "About this replay", _about(result), warnings_counted(result.warnings))
    )
    return sections


def _matrix(report: _Report) -> Markup:
    words = (
        "A row is where connections come from, a column is where they go. The larger a square, the more connections. "
        "The number is that of connections that would break (✕), or else of all. A click on a square, a row or a "
        "column chooses what the tables below show."
    )
    entries = outcomes(answers_unknown=report.rollup.answers_unknown)
    folded, whole = (matrix_of(report.answers.columns, entries, side) for side in (SIDE, MOST_UNFOLDED))
    table = matrix_table(folded, whole, "Connections by the groups they come from and go to")
    return joined(intro(words), legend(entries), table)


#: By key: the name of a section in the navigation, and its heading.
_NAMES = {
    "broken": ("Would break", "What would break"),
    "denied": ("Denied", "Denied and not answered"),
    "unknown": ("Cannot tell", "Denied, perhaps answered"),
    "services": ("Not served", "Allowed, not served"),
    "allowed": ("Allowed", "Allowed"),
}
_INTROS = {
    "broken": "These connections were answered. With these groups they could not be opened.",
    "denied": "Nobody answered these packets in the capture, so nothing that worked depends on them.",
    "unknown": "Answers to these packets may be missing in the captures, for the reasons at the top of this page. "
    "Or the other end's packet was either a late answer or a call of its own.",
    "services": "The groups allow these connections, but the instance refused them or never answered.",
    "allowed": "These connections work with these groups.",
}
_NONE = {
    "broken": "No connection that was answered in the capture is denied.",
    "denied": "Nothing else was denied.",
}


def _answers(report: _Report, shown: List) -> list[PageSection]:
    """Return the section of a list; nothing if the list is empty and has no text for this."""
    total = report.answers.total(shown)
    count = plural(total, "packet" if shown.part in BY_PACKETS else "connection")
    notes = _denied_notes(report) if shown.key == "denied" else []
    if shown.key == "denied" and report.rollup.answers_unknown:
        return []
    if not total and not notes:
        return [PageSection(shown.key, *_NAMES[shown.key], none(_NONE[shown.key]), count)] if shown.key in _NONE else []
    table = report.answers.table(shown) if total else Markup()
    if shown.key == "allowed":
        table = tag("details", tag("summary", "The connections"), table)
    content = joined(intro(_INTROS[shown.key]), table, *notes)
    return [PageSection(shown.key, *_NAMES[shown.key], content, count, shown.key not in ("services", "allowed"))]


def _rejected(attempts: ReplayResult) -> list[PageSection]:
    """Return the sections of attempts that the cloud rejected: those that would open, and those denied here, too."""
    rollup = rollup_of(attempts)
    blocked = "The cloud rejected these attempts, by a group or by a network ACL."
    sections: tuple[tuple[str, TrafficPart, str, str, str], ...] = (
        ("rejected", "allowed", "Would open", "Rejected, would open", f"{blocked} These groups let them in."),
        ("rejected-denied", "attempts", "Rejected", "Rejected, denied here, too", f"{blocked} So do these groups."),
    )
    return [
        PageSection(
            key, name, heading,
            joined(intro(words), rejected_table(key, heading, rollup.fold(part, by="group", most=MAX_ROWS))),
            plural(total, "attempt"),
        )
        for key, part, name, heading, words in sections if (total := rollup.total(part))
    ]  # fmt: skip


def _denied_notes(report: _Report) -> list[Markup]:
    """Return paragraphs about denials that are in no table."""
    result = report.result
    words = []
    if after_cuts := packets_after(result):
        words.append(f"{plural(after_cuts, 'packet')} of cut connections are not among them: see Changes.")
    if result.kinds.lost:
        words.append(f"{plural(result.kinds.lost, 'packet')} or connections are not listed for lack of memory.")
    if (unlisted := unreadable(result, report.rollup)) > 0:
        words.append(f"{plural(unlisted, 'packet')} without readable addresses (malformed).")
    return [tag("p", sentence, class_="note") for sentence in words]


def _timeline(result: ReplayResult, timeline: Timeline) -> Markup:
    words: list[Content] = [caption(timeline)]
    if result.changes:
        words.append(" ▾ marks changes of the policy, by their numbers in the list below.")
    if result.earlier_packets:
        words.append(f" It shows only this replay's packets, not the {grouped(result.earlier_packets)} before them.")
    return joined(
        intro(*words),
        tag("div", chart(timeline, result.changes), class_="timeline"),
        tag("p", class_="readout", aria_live="polite", hidden=True),
        numbers(timeline),
    )


def _changes(result: ReplayResult) -> Markup:
    parts: list[Content] = []
    digits = decimals(result.records)
    if after := packets_after(result):
        parts.append(intro(
            f"The traffic was captured without these cuts: {plural(after, 'packet')} of cut connections came later. "
            "With these changes they could only be retransmissions."
        ))  # fmt: skip
    if result.changes:
        parts.append(changes_table(result.changes, digits))
    if any(change.connections for change in result.changes):
        parts += [tag("h3", "Connections cut"), cuts_table(result.policy, result.changes, digits)]
    if result.changes_left:
        words = f"{plural(result.changes_left, 'change')} would come after the last packet."
        parts.append(tag("p", words, class_="note"))
    return joined(*parts)


def _unused(result: ReplayResult, rules: Sequence[RuleHits], lines: Lines) -> Markup:
    span = "this capture"
    if result.first_time_ns is not None and result.last_time_ns is not None:
        span = f"the {human_seconds((result.last_time_ns - result.first_time_ns) / 1e9)} of this capture"
    doubts = said_of_unlogged(result.policy, result.records)
    doubts += said_of_unseen(result.policy, unseen_rules(result))
    if doubts:
        words = " ".join((f"Nothing that could be judged in {span} needed these rules.", *doubts))
    elif result.evidence.carries("absence"):
        words = f"Nothing in {span} needed these rules. Other traffic may still need them."
    else:
        words = f"Nothing that could be judged in {span} needed these rules. Packets that are missing may need them."
    return joined(intro(words), unused_table(result.policy, rules, lines))


def _about(result: ReplayResult) -> Markup:
    opened = connection_counts(result.connections)
    if inferred := result.connections.get("inferred"):
        opened.append(f"{grouped(inferred)} began before the capture (who opened them was inferred)")
    return about_section([
        *listed("Capture", [*map(Name, result.captures)]),
        Item("Policy", Name(result.policy.origin)),
        Item("Packets", f"{grouped(result.packets)}, {human_bytes(result.bytes)}"),
        *time_items(result), Item("Connections", ", ".join(opened) or "none"),
        *tunnel_items(result.decapsulated), *record_items(result.records),
        *listed("Warning", result.warnings), *damage_listed(result.damaged),
        Item("Remember", reminder(result.records)), *([speed_item(result)] if result.packets else []),
    ])  # fmt: skip
