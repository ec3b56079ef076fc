"""A comparison of two policies by their rules alone, as a report (SPEC 12.6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sgfast.base.names import printable
from sgfast.policy.gaps import ComparedFilter
from sgfast.policy.model import Policy
from sgfast.policy.rule_text import rule_name
from sgfast.report.amounts import plural
from sgfast.report.document import (
    TOP,
    Block,
    Document,
    Item,
    Items,
    Name,
    Paragraph,
    Section,
    Style,
    Words,
    more,
    warning_items,
)
from sgfast.report.evidence import CANNOT_TELL, evidence_blocks
from sgfast.report.reach import LISTED_PARTS, most_names, reach_cells
from sgfast.report.twins import with_first_twins
from sgfast.rules.reaching.difference import Difference
from sgfast.rules.reaching.rows import Decider, Row

#: The most rules that a row lists.
LISTED_RULES = 5


def headline(found: Difference) -> str:
    """Return the result in one sentence, without a full stop."""
    if found.not_compared:
        return "By the rules alone: not compared"
    if found.evidence.conclusive == "no":
        return f"{CANNOT_TELL}: {found.evidence.open_reasons[0].sentence}{_unread_words(found)}"
    parts = [
        f"{plural(len(rows), 'row')} {word}" for rows, word in ((found.opened, "opened"), (found.closed, "closed"))
        if rows
    ]  # fmt: skip
    return f"By the rules alone: {', '.join(parts) or nothing_words(found)}{_unread_words(found)}"


def nothing_words(found: Difference) -> str:
    """Return the words for a NEW that opens and closes nothing by the rules that are read."""
    return "NEW opens nothing and closes nothing" + (" of what is read" if found.unread_filters else "")


def _unread_words(difference: Difference) -> str:
    """Return ``; of 3 filters that are not read, 1 is added``; "" if all filters are read."""
    counts = Counter(compared.change for compared in difference.unread_filters)
    if not counts:
        return ""
    changes = [f"{number:,} {word}" for word, number in counts.items() if word != "same"]
    filters = plural(counts.total(), "filter")
    if changes:
        return f"; not read: {filters}, {', '.join(changes)}"
    return f"; not read: {filters}, the same in both"


def unread_items(difference: Difference, most: int) -> list[Item]:
    """Return the filters that are not read and change."""
    return [
        Item(f"{compared.change:7}", (Name(compared.name), f"{_kind_words(compared)}, which is not read"), "yellow")
        for compared in difference.unread_filters[:most] if compared.change != "same"
    ]  # fmt: skip


def _kind_words(compared: ComparedFilter) -> str:
    return "" if compared.kind in compared.name else f" ({compared.kind})"


def difference_document(difference: Difference, most: int = TOP, *, doubts: bool = True) -> Document:
    """Return the report. ``most``: the most rows of a kind. ``doubts``: whether it tells the reasons to doubt it."""
    blocks: list[Block] = evidence_blocks(difference.evidence) if doubts else []
    if difference.not_compared:
        blocks.append(Paragraph(printable(difference.not_compared)))
    policies = {"old": difference.old, "new": difference.new}
    for word, all_rows in (("opens", difference.opened), ("closes", difference.closed)):
        rows = with_first_twins(all_rows, policies)
        style: Style = "red" if word == "opens" else ""
        if rows:
            shown = [Item(f"{word:6}", difference_words(row, policies, most), style) for row in rows[:most]]
            blocks.append(Items(shown))
        blocks += more(plural(len(rows) - most, "more row") + f" that NEW {word}" if rows[most:] else "", len(rows))
        longest = most_names(rows[:most])
        blocks += more("more names" if longest > max(most, LISTED_PARTS) else "", longest)
    if unread := unread_items(difference, most):
        changed = sum(compared.change != "same" for compared in difference.unread_filters)
        blocks += [Items(unread), *more(plural(changed - most, "more filter") if changed > most else "", changed)]
    if warnings := warning_items(difference.warnings, most):
        blocks.append(Items(warnings))
    return [Section(headline(difference), blocks)]


def difference_words(row: Row, policies: Mapping[str, Policy], most: int) -> Words:
    """Return ``tcp/22 of db to 0.0.0.0/0: db/inbound/3``. ``most``: the most names of an end, beyond LISTED_PARTS."""
    sources, destinations, services = reach_cells(row, max(most, LISTED_PARTS))
    words: list[str] = [f"{services} of {destinations} to {sources}: "]
    for number, decider in enumerate(row.rules[:LISTED_RULES]):
        words += [", " * bool(number), Name(_rule_called(decider, policies)), _policy_words(decider)]
    if (unlisted := len(row.rules) - LISTED_RULES) > 0:
        words += [f" and {plural(unlisted, 'more rule')} (", Name("--json"), " has all)"]
    return words


def decider_text(each: Decider, policies: Mapping[str, Policy]) -> str:
    """Return ``db/inbound/3``, ``db/inbound/3 denies``, ``db/inbound/3 of OLD denied``. ``policies``: by the word in
    ``Decider``.
    """
    return printable(_rule_called(each, policies)) + _policy_words(each)


def _rule_called(decider: Decider, policies: Mapping[str, Policy]) -> str:
    return rule_name(policies[decider.policy], decider.rule, decider.group)


def _policy_words(decider: Decider) -> str:
    if decider.policy == "old":
        return " of OLD" + (" denied" if decider.rule.action == "deny" else "")
    return " denies" if decider.rule.action == "deny" else ""
