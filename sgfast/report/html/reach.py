"""The page of ``sgfast reach``: who may open connections to whom by the rules alone, as a matrix and as rows."""

from __future__ import annotations

from sgfast.policy.document_reader import Lines
from sgfast.report.amounts import grouped, plural
from sgfast.report.document import Item, Name
from sgfast.report.html.markup import Markup, joined, tag
from sgfast.report.html.matrix import LegendEntry, legend
from sgfast.report.html.page import (
    PageSection,
    about_section,
    alert,
    intro,
    listed,
    make_page,
    none,
    short_name,
    warnings_counted,
    written,
)
from sgfast.report.html.rule_matrix import PageTable
from sgfast.report.html.rule_rows import RuleRows
from sgfast.report.reach import parts_text, services_cell
from sgfast.report.twins import with_first_twins
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.rows import ReachResult

#: The most rows open to any address that the beginning of the page lists.
_FIRST = 3
_OPEN = LegendEntry("may be opened", "allow")

_MATRIX = (
    "A row is where connections come from, a column is where they go: security groups of instances, and networks that "
    "rules name. A cell says for which services some of them may open connections. The larger a square, the more "
    "services. A click on a square, a row or a column chooses what the table below shows."
)
_ROWS = (
    "Everybody in the first column may open connections to everybody in the second one, for all of the services. The "
    "rules are those that allow it: an outbound one of the sender, an inbound one of the receiver, or both. A network "
    "stands for those of its addresses that no instance has. The filter also finds the instances of a group, by name "
    "and address; sgfast reach --from NAME --to NAME asks about one instance, group or address."
)


def reach_html(found: ReachResult, lines: Lines) -> str:
    """Return an HTML document, to be written as UTF-8. ``found``: a result with its rules. ``lines``: line numbers of
    the policy document's rules, as ``load_policy`` gives them.
    """
    policies = {"new": found.policy}
    listed_rows = with_first_twins(found.rows, policies)
    table = PageTable(_OPEN, found.policy, listed_rows, "rows", "Who may open connections to whom")
    rows = RuleRows([table], policies, {"new": lines})
    sections = []
    if found.rows:
        matrix = joined(intro(_MATRIX), legend([_OPEN]), rows.matrix("Services by who may reach whom"))
        sections.append(PageSection("matrix", "Who to whom", "Who may reach whom", matrix))
        listed = joined(intro(_ROWS), rows.table(table))
    else:
        listed = none("No rules of these filters let such a connection through.")
    sections.append(PageSection("rows", "Rows", table.label, listed, grouped(len(found.rows))))
    sections.append(PageSection("about", "About", "About this report", _about(found), warnings_counted(found.warnings)))
    title = f"Who may reach whom under {short_name(found.policy.origin)}"
    return make_page("reach report", title, _head(found), sections, rows.data, ("rule_rows",))


def _head(reach: ReachResult) -> Markup:
    is_all = reach.sources.kind == reach.destinations.kind == "any"
    ends = "to whom" if is_all and reach.rows else f"from {reach.sources.name} to {reach.destinations.name}"
    headline = "Who may open connections" if reach.rows else "Nobody may open a connection"
    origin = written((Name(reach.policy.origin), f" · by its rules alone · services: {reach.asked}"))
    return joined(
        tag("h1", f"{headline} {ends}", class_="calm"),
        tag("p", _lede(reach), class_="lede"),
        tag("p", origin, class_="about"),
        alert(None, reach.warnings, "this report"),
    )


def _lede(reach: ReachResult) -> str:
    if not reach.rows:
        return ""
    everybody = [row for row in reach.rows if any(map(_is_anybody, row.sources))]
    if not everybody:
        return f"{plural(len(reach.rows), 'row')}. None of them is open to any address."
    first = (f"{parts_text(row.destinations)} ({services_cell(row)})" for row in everybody[:_FIRST])
    unlisted = len(everybody) - _FIRST
    more_rows = f"; and {plural(unlisted, 'more row')}" if unlisted > 0 else ""
    return f"Any address may open connections to {'; to '.join(first)}{more_rows}."


def _is_anybody(part: Part) -> bool:
    is_any = part.kind in ("any", "internet") and not part.addresses
    return is_any or (part.kind == "network" and part.name in ("0.0.0.0/0", "::/0"))


def _about(reach: ReachResult) -> Markup:
    return about_section([
        Item("Policy", Name(reach.policy.origin)),
        Item("From", reach.sources.name),
        Item("To", reach.destinations.name),
        Item("Services", reach.asked),
        Item("Rows", grouped(len(reach.rows))),
        *listed("Warning", reach.warnings),
        Item("Remember", "Only the first packet of a connection is meant; its replies are let through."),
    ])  # fmt: skip
