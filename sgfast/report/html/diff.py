"""The page of ``sgfast diff``: what the rules of NEW open and close, then the effect on captured traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sgfast.policy.document_reader import Lines
from sgfast.questions.comparing import TrafficDiff
from sgfast.report.amounts import grouped, human_bytes, plural
from sgfast.report.diff import headline as traffic_headline
from sgfast.report.difference import nothing_words
from sgfast.report.document import Item, Name
from sgfast.report.evidence import CANNOT_TELL
from sgfast.report.html.changed import VerdictSections
from sgfast.report.html.markup import Markup, joined, tag
from sgfast.report.html.matrix import LegendEntry, legend
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
from sgfast.report.html.rule_matrix import PageTable
from sgfast.report.html.rule_rows import RuleRows
from sgfast.report.html.uncertain import uncertain_section
from sgfast.report.log_records import reminder
from sgfast.report.reach import parts_text, services_cell
from sgfast.report.replay import time_items, tunnel_items, vpc_called
from sgfast.report.twins import with_first_twins
from sgfast.rules.reaching.difference import Difference

_OPENED, _CLOSED = LegendEntry("opened", "deny", "+ "), LegendEntry("closed", "allow", "- ")

_MATRIX = (
    "A row is where connections come from, a column is where they go: security groups of instances, and networks that "
    "rules name. A cell says which services NEW opens (+) and closes (-) for some of them. The larger a square, the "
    "more services. A click on a square, a row or a column chooses what the tables below show."
)
_INTROS = {
    "opened": "Under NEW, everybody in the first column may open connections to everybody in the second one, for all "
    "of the services. Under OLD they may not. The rules are those that make the difference.",
    "closed": "Under OLD, everybody in the first column may open connections to everybody in the second one, for all "
    "of the services. Under NEW they may not. The rules are those that make the difference.",
}
_NONE = {"opened": "NEW opens nothing.", "closed": "NEW closes nothing."}
_NONE_READ = "Nothing of what is read."
_NAMES = {"opened": ("Opened", "What NEW opens"), "closed": ("Closed", "What NEW closes")}


def diff_html(
    found: Difference, result: TrafficDiff | None, warnings: Sequence[str], lines: Mapping[str, Lines]
) -> str:
    """Return an HTML document, to be written as UTF-8. ``result``: the comparison by captures, if there are any.
    ``lines``: line numbers of the rules, by document (``old``, ``new``), as ``load_policy`` gives them.
    """
    policies = {"old": found.old, "new": found.new}
    opened, closed = (with_first_twins(rows, policies) for rows in (found.opened, found.closed))
    tables = [
        PageTable(_OPENED, found.new, opened, "opened", _NAMES["opened"][1]),
        PageTable(_CLOSED, found.old, closed, "closed", _NAMES["closed"][1]),
    ]
    rows = RuleRows(tables, policies, lines)
    changed = VerdictSections(result, lines) if result is not None else None
    sections = []
    if found.opened or found.closed:
        drawn = rows.matrix("Services that NEW opens and closes, by who may reach whom")
        matrix = joined(intro(_MATRIX), legend([_OPENED, _CLOSED]), drawn)
        sections.append(PageSection("matrix", "Who to whom", "Who may reach whom: what changes", matrix))
    for page_table in tables if not found.not_compared else ():
        key = page_table.key
        empty = _NONE[key] if found.evidence.carries("verdicts") else _NONE_READ
        content = joined(intro(_INTROS[key]), rows.table(page_table)) if page_table.rows else none(empty)
        sections.append(PageSection(key, *_NAMES[key], content, plural(len(page_table.rows), "row")))
    if changed is not None:
        sections += changed.sections()
    if result is not None:
        sections += uncertain_section(result.new, result.openers)
    listed = _about(found, result, warnings)
    sections.append(PageSection("about", "About", "About this comparison", listed, warnings_counted(warnings)))

    def data(room: int) -> tuple[Markup, str]:
        read = [rows.data(room // 2 if changed is not None else room)]
        if changed is not None:
            read += changed.data(room - len(read[0][0]))
        return joined(*(markup for markup, _ in read)), " ".join(words for _, words in read if words)

    title = f"{short_name(found.old.origin)} replaced by {short_name(found.new.origin)}"
    return make_page("diff report", title, _head(found, result, warnings), sections, data, ("rule_rows", "kinds"))


def _head(difference: Difference, result: TrafficDiff | None, warnings: Sequence[str]) -> Markup:
    names = written(("OLD is ", Name(difference.old.origin), ", NEW is ", Name(difference.new.origin)))
    headline, style = _headline(difference)
    parts = [
        tag("h1", headline, class_=style), tag("p", _lede(difference, result), class_="lede"),
        tag("p", names, class_="about"),
    ]  # fmt: skip
    if result is not None:
        vpc = [f"VPC {vpc_called(result.new, result.vpc)}"] if result.vpc else []
        options = [result.mode, f"midstream {result.midstream}", *vpc]
        captures = written((Name(captures_named(result.captures)), f" · {', '.join(options)}"))
        parts += [tag("p", captures, class_="about"), left_out(result)]
    parts.append(doubts(difference.evidence if result is None else result.evidence))
    parts.append(alert(None if result is None else result.damaged, warnings, "this comparison"))
    return joined(*parts)


def _headline(difference: Difference) -> tuple[str, str]:
    if difference.not_compared:
        return "The rules alone were not compared", "calm"
    changes = any(unread_filter.change != "same" for unread_filter in difference.unread_filters)
    unread = "; filters that are not read change, too" if changes else ""
    if difference.evidence.conclusive == "no":
        return CANNOT_TELL + unread, "calm"
    if difference.opened:
        return (
            f"NEW opens connections that OLD denies{', and closes others' if difference.closed else ''}{unread}",
            "bad",
        )
    if difference.closed:
        return f"NEW closes connections and opens none{unread}", "calm"
    return nothing_words(difference) + unread, "calm" if difference.evidence.open_reasons else "good"


def _lede(difference: Difference, result: TrafficDiff | None) -> str:
    parts = [difference.not_compared] if difference.not_compared else []
    for word, rows in (("opens", difference.opened), ("closes", difference.closed)):
        if rows:
            first = f"{services_cell(rows[0])} of {parts_text(rows[0].destinations)} to {parts_text(rows[0].sources)}"
            more_rows = f", and {plural(len(rows) - 1, 'more row')}" if len(rows) > 1 else ""
            parts.append(f"It {word} {first}{more_rows}.")
    if result is not None:
        sentence = traffic_headline(result)
        parts.append(f"For the captured traffic: {sentence[:1].lower()}{sentence[1:]}.")
    return " ".join(parts)


def _about(difference: Difference, result: TrafficDiff | None, warnings: Sequence[str]) -> Markup:
    policies = [
        Item("OLD", Name(difference.old.origin)), Item("NEW", Name(difference.new.origin)),
        *listed("Not read", [
            (Name(unread.name), f" ({unread.kind}), {unread.change}") for unread in difference.unread_filters
        ]),
    ]  # fmt: skip
    if result is None:
        return about_section([*policies, *listed("Warning", warnings)])
    packets = Item("Packets", f"{grouped(result.packets)}, {human_bytes(result.bytes)}")
    return about_section([
        *policies, *listed("Capture", [*map(Name, result.captures)]), packets, *time_items(result),
        *tunnel_items(result.decapsulated), *listed("Warning", warnings), *damage_listed(result.damaged),
        Item("Remember", reminder(result.records)),
    ])  # fmt: skip
