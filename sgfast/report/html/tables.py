"""The tables of the page. They are complete in HTML; the page's script only sorts and hides rows.

Each table has a limited number of rows, because a page that is too large for a browser is useless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgfast.core.base.reasons import REASON_TABLE
from sgfast.policy.document_reader import Lines
from sgfast.policy.model import Policy, called
from sgfast.policy.rule_text import rule_of_id
from sgfast.questions.replaying import ChangeDone, CutConnection, ReplayResult, RuleHits
from sgfast.report.amounts import grouped, human_bytes, instant, plural
from sgfast.report.denial_reasons import peer_words, port_words, protocol_words
from sgfast.report.html.columns import line_words
from sgfast.report.html.markup import Content, Markup, joined, tag
from sgfast.report.replay import cut_name
from sgfast.report.rollup import Folded

#: Maximum number of rows in a table.
MAX_ROWS = 400
#: Limit of HTML rows in a table whose rows are all in the page's data. HTML rows are for browsers without script, and
#: for paper.
MOST_ROWS = 150


@dataclass(frozen=True, slots=True)
class Heading:
    name: str
    #: The column's name in links (``#denied?sort=packets``).
    key: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """``sort``: the sort key, if the cell is not sorted by its text."""

    content: Content
    sort: float | None = None


def table(
    key: str, label: str, columns: Sequence[Heading], rows: Sequence[Sequence[Cell]], answers: str | None = None
) -> Markup:
    """Return a table. ``answers``: the name of the page's data with all rows, if ``rows`` are only the first ones.
    """
    # The roles keep it a table for screen readers, even if the style sheet turns it into a list of cards.
    head = [
        tag("th", column.name, role="columnheader", scope="col", data_key=column.key,
            class_="number" if column.numeric else None)
        for column in columns
    ]  # fmt: skip
    body = []
    for row in rows:
        cells = [
            tag("td", cell.content, role="cell", data_label=column.name, data_sort=cell.sort,
                class_="number" if column.numeric else None)
            for column, cell in zip(columns, row, strict=True)
        ]  # fmt: skip
        body.append(tag("tr", *cells, role="row"))
    return tag(
        "table",
        tag("caption", label),
        tag("thead", tag("tr", *head, role="row"), role="rowgroup"),
        tag("tbody", *body, role="rowgroup"),
        role="table", class_="list", data_table=key, data_answers=answers,
    )  # fmt: skip


def _count(number: int | None) -> Cell:
    return Cell("?" if number is None else grouped(number), -1 if number is None else number)


def _bytes(number: int) -> Cell:
    return Cell(human_bytes(number), number)


def _instant(time_ns: int | None, decimals: int) -> Cell:
    if time_ns is None:
        return Cell("-", 1e300)
    return Cell(tag("span", instant(time_ns, decimals), class_="instant"), time_ns)


def badge(style: str, words: str) -> Markup:
    return tag("span", words, class_=f"badge {style}")


def more(unlisted: int, noun: str, sums: str = "") -> Markup:
    """Return a note on the number of rows that a table leaves out; empty if none. ``sums``: their sum in words."""
    if unlisted <= 0:
        return Markup()
    return tag("p", f"And {plural(unlisted, noun)} more{sums and f' ({sums})'}, not listed here.", class_="note")


# Attempts that the cloud rejected ------------------------------------------------------------------------------------


def rejected_table(key: str, label: str, folded: Folded) -> Markup:
    """Return rows of rejected attempts."""
    columns = (
        Heading("Attempts", "attempts", True), Heading("From", "from"), Heading("To", "to"),
        Heading("Service", "service"), Heading("Reason", "reason"), Heading("Rule", "rule"),
    )  # fmt: skip
    rows = [
        [_count(row.connections), Cell(row.source_text), Cell(row.destination_text), Cell(row.service),
         Cell(row.reason), Cell(row.rule or ("several" if row.rules else ""))]
        for row in folded.rows
    ]  # fmt: skip
    return joined(table(key, label, columns, rows), more(folded.unlisted_rows, "row"))


# Changes -------------------------------------------------------------------------------------------------------------


def changes_table(changes: Sequence[ChangeDone], decimals: int) -> Markup:
    columns = (
        Heading("No.", "number", True), Heading("At (UTC)", "at", True), Heading("Change", "change"),
        Heading("Cut", "cut", True), Heading("Came back", "back", True), Heading("Denied again", "denied", True),
        Heading("Packets after", "after", True),
    )  # fmt: skip
    numbered = list(enumerate(changes, 1))
    # The changes that cut most connections are shown, in their original order.
    shown = sorted(sorted(numbered, key=lambda item: -item[1].disconnected)[:MAX_ROWS], key=lambda item: item[0])
    rows = [
        (Cell(number, number), _instant(change.time_ns, decimals), Cell(tag("span", change.text, class_="code")),
         _count(change.disconnected), _count(change.came_back), _count(change.denied_again),
         _count(change.packets_after))
        for number, change in shown
    ]  # fmt: skip
    unlisted = sum(change.disconnected for change in changes) - sum(change.disconnected for _, change in shown)
    return joined(
        table("changes", "Changes of the policy", columns, rows),
        more(len(changes) - MAX_ROWS, "change", plural(unlisted, "cut connection")),
    )


def cuts_table(policy: Policy, changes: Sequence[ChangeDone], decimals: int) -> Markup:
    columns = (
        Heading("Connection", "connection"), Heading("Change", "change", True), Heading("Cut at (UTC)", "at", True),
        Heading("Packets after", "after", True), Heading("Outcome", "outcome"),
        Heading("Again at (UTC)", "again", True),
    )  # fmt: skip
    followed = [(n, change, cut) for n, change in enumerate(changes, 1) for cut in change.connections]
    rows = [
        (Cell(_connection(cut)), _count(number), _instant(change.time_ns, decimals), _count(cut.packets_after),
         Cell(_outcome(policy, cut)), _instant(cut.opener_time_ns, decimals))
        for number, change, cut in followed[:MAX_ROWS]
    ]  # fmt: skip
    unlisted = sum(change.disconnected for change in changes) - len(rows)
    return joined(table("cut", "Connections that changes cut", columns, rows), more(unlisted, "connection"))


def _connection(cut: CutConnection) -> Markup:
    protocol, initiator, responder = cut_name(cut)
    ends = (tag("span", initiator, class_="code"), " → ", tag("span", responder, class_="code"))
    return joined(tag("span", protocol, class_="soft"), " ", *ends)


def _outcome(policy: Policy, cut: CutConnection) -> Markup:
    finished = tag("span", " It had finished.", class_="soft") if cut.finished else Markup()
    if cut.outcome == "back":
        rules = [rule_of_id(policy, rule) for rule in (cut.egress_rule, cut.ingress_rule) if rule is not None]
        turned = "opened by the other end, " if cut.turned else ""
        return joined(badge("allow", "back"), f" {turned}under {' and '.join(rules)}", finished)
    if cut.outcome == "denied":
        return joined(badge("deny", "denied"), " when it tried again", finished)
    if cut.finished:
        return joined(badge("", "finished"), " before the cut: nothing was lost")
    return joined(badge("cut", "gone"), " not opened again")


# Rules ---------------------------------------------------------------------------------------------------------------


def _rule_cells(policy: Policy, hits: RuleHits, lines: Lines) -> tuple[Cell, Cell, Cell]:
    rule, group = hits.rule, policy.group_by_name.get(hits.group)
    ports = port_words(rule)
    end = "from" if rule.direction == "inbound" else "to"
    match = joined(
        rule.direction, " ", tag("span", f"{protocol_words(rule)}{' ' if ports else ''}{ports}", class_="code"),
        f" {end} {peer_words(rule, policy)}",
        tag("span", f", priority {rule.priority}", class_="soft") if rule.priority != 1 else "",
        tag("span", rule.description, class_="hint") if rule.description else "",
    )  # fmt: skip
    action = badge("deny", "deny") if rule.action == "deny" else badge("allow", "allow")
    name = joined(tag("span", rule.id, class_="code"), tag("span", line_words(rule, lines), class_="soft whole"))
    return Cell(name), Cell(called(group) if group else hits.group), Cell(joined(action, " ", match))


def used_table(policy: Policy, rules: Sequence[RuleHits], lines: Lines) -> Markup:
    used = sorted((hits for hits in rules if hits.packets), key=lambda hits: -hits.packets)
    columns = (
        Heading("Rule", "rule"), Heading("Group", "group"), Heading("Effect", "effect"),
        Heading("Connections", "connections", True), Heading("Packets", "packets", True),
        Heading("Bytes", "bytes", True),
    )  # fmt: skip
    rows = [
        (*_rule_cells(policy, hits, lines), _count(hits.connections), _count(hits.packets), _bytes(hits.bytes))
        for hits in used[:MAX_ROWS]
    ]
    unlisted = sum(hits.packets for hits in used[MAX_ROWS:])
    note = more(len(used) - MAX_ROWS, "rule", plural(unlisted, "packet"))
    return joined(table("rules", "Rules that were hit", columns, rows), note)


def unused_table(policy: Policy, rules: Sequence[RuleHits], lines: Lines) -> Markup:
    unused = [hits for hits in rules if not hits.packets]
    columns = (Heading("Rule", "rule"), Heading("Group", "group"), Heading("Effect", "effect"))
    rows = [_rule_cells(policy, hits, lines) for hits in unused[:MAX_ROWS]]
    return joined(table("unused", "Rules never hit", columns, rows), more(len(unused) - MAX_ROWS, "rule"))


# Verdicts -------------------------------------------------------------------------------------------------------------


_VERDICTS = {
    "allow": ("allow", "The groups let it through."),
    "deny": ("deny", "The groups stop it."),
    "moot": ("moot", "Follows a denied opener: it would never have been sent."),
    "out-of-scope": ("other", "Neither end is an instance of the policy."),
    "local": ("other", "Both ends are the same instance."),
    "exempt": ("other", "DHCP or neighbour discovery, which is not filtered."),
    "not-ip": ("other", "The frame holds no IP packet."),
}


def verdicts_table(result: ReplayResult) -> Markup:
    """Return a table of all verdicts that occurred, each followed by its reasons."""
    columns = (
        Heading("Verdict", "verdict"), Heading("Reason", "reason"), Heading("Packets", "packets", True),
        Heading("Share", "share", True), Heading("Meaning", "meaning"),
    )  # fmt: skip
    rows = []
    for verdict, packets in result.verdicts.items():
        style, meaning = _VERDICTS[verdict]
        name = badge(style if style != "other" else "", verdict)
        lines = [("all", packets, meaning)] if packets else []
        lines += [
            (reason.word, result.reasons[reason.word], reason.sentence)
            for reason in REASON_TABLE
            if reason.word in result.reasons and reason.verdict == verdict != "moot"
        ]
        for reason, count, words in lines:
            share = 100 * count / max(result.packets, 1)
            rows.append((Cell(name), Cell(reason), _count(count), Cell(f"{share:.1f} %", share), Cell(words)))
    return table("verdicts", "Packets by verdict and reason", columns, rows)
