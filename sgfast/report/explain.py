"""The report of ``sgfast explain``."""

from __future__ import annotations

from sgfast.base.names import printable
from sgfast.policy.document_reader import Lines
from sgfast.policy.matching import End, RuleInGroup
from sgfast.policy.model import Policy, called
from sgfast.policy.rule_text import rule_name, rule_text
from sgfast.report.amounts import plural
from sgfast.report.document import Block, Document, Item, Items, Name, Paragraph, Section, names
from sgfast.report.evidence import CANNOT_TELL
from sgfast.rules.reaching.explaining import ExplainedSide, Explanation, NearMiss, service_of
from sgfast.rules.reaching.misfits import Misfit

#: Maximum number of nearest rules, and of rules that match but lose, before "and N more".
TOP = 10

_FIELD_NAMES = {"icmp_type": "ICMP type", "icmp_code": "ICMP code"}
_VERDICTS = {"allow": "allowed", "deny": "denied", "cannot-tell": CANNOT_TELL.lower()}


def explain_document(explained: Explanation, lines: Lines) -> Document:
    """Return the report. ``lines``: the line numbers of the document's rules, as far as they are known."""
    verdict = explained.verdict
    reason = f" ({explained.reason})" if explained.reason else ""
    heading = (
        f"{service_of(explained)} from ", *_end_words(explained.source), " to ", *_end_words(explained.destination),
        f": {_VERDICTS.get(verdict, verdict)}{reason}",
    )  # fmt: skip
    document = [Section(heading, [*map(Paragraph, filter(None, (explained.note, *explained.choices)))])]
    for side, end, direction in (
        (explained.egress, explained.source, "Out of"), (explained.ingress, explained.destination, "Into"),
    ):  # fmt: skip
        if side is not None:
            document.append(_side_section(explained.policy, side, direction, lines))
        elif verdict in _VERDICTS:
            unless = "" if verdict != "cannot-tell" else ", unless an instance of another VPC is meant"
            words = f"{direction} {end.address}: no instance's address, so no filter{unless}"
            document.append(Section("", [Paragraph(words)]))
    return document


def _side_section(policy: Policy, side: ExplainedSide, direction: str, lines: Lines) -> Section:
    outcome = side.verdict if side.reached else f"not reached, would be {side.verdict}"
    outcome = outcome.replace("allow", "allowed").replace("deny", "denied")
    groups = "group" if len(side.instance.security_groups) == 1 else "groups"
    blocks: list[Block] = []
    if side.winner is not None:
        blocks.append(Items([_rule_item(policy, "wins:", side.winner, lines)]))
        losers = [_rule_item(policy, "matches, but loses:", loser, lines) for loser in side.also_match[:TOP]]
        blocks += [*([Items(losers)] if losers else []), *_more_rules(len(side.also_match), "that match and lose")]
    elif side.reason == "infrastructure":
        blocks.append(Paragraph("no rule is asked about it (settings.infrastructure)"))
    elif side.reason == "no-rule" and not side.nearest:
        blocks.append(Paragraph(f"no {side.direction} rule of its {groups} allows anything"))
    elif side.reason == "no-rule":
        count = len(side.nearest[0].misfits)
        blocks.append(Paragraph(f"no rule matches; the nearest {'miss' if count == 1 else f'miss on {count} fields'}:"))
        blocks.append(Items([_rule_item(policy, " ", miss, lines) for miss in side.nearest[:TOP]]))
        blocks += _more_rules(len(side.nearest), "that are as near")
    heading = (
        f"{direction} ", Name(called(side.instance)), f", {groups} ",
        *names(called(policy.group_by_name[name]) for name in side.instance.security_groups),
        f": {outcome} ({side.reason})",
    )  # fmt: skip
    return Section(heading, blocks)


def _rule_item(policy: Policy, label: str, explained_rule: RuleInGroup | NearMiss, lines: Lines) -> Item:
    rule = policy._first_twin(explained_rule.rule)
    line = lines.get(("rules", rule.id))
    line_text = f"  line {line}" if line is not None else ""
    priority = f", priority {rule.priority}" if rule.priority != 1 else ""
    misfits = explained_rule.misfits if isinstance(explained_rule, NearMiss) else ()
    name = rule_name(policy, rule, explained_rule.group)
    # Any other name than the id has the rule's words in it.
    text = f"  {printable(rule_text(rule, policy))}" if name == rule.id else ""
    words = (Name(name), f"{text}{priority}{line_text}")
    return Item(label, words, below=[*map(_misfit_item, misfits)])


def _misfit_item(misfit: Misfit) -> Item:
    why = f" ({printable(misfit.why)})" if misfit.why else ""
    rule_value, packet_value = printable(misfit.wanted), printable(misfit.has)
    label = f"  {_FIELD_NAMES.get(misfit.field, misfit.field)}:"
    return Item(label, f"wants {rule_value}, the packet has {packet_value}{why}")


def _more_rules(number: int, kind: str) -> list[Paragraph]:
    unlisted = number - TOP
    return [Paragraph(f"and {plural(unlisted, 'more rule')} {kind} (--json has all)")] if unlisted > 0 else []


def _end_words(end: End) -> list[str]:
    if end.instance is None:
        return [str(end.address)]
    return [f"{end.address} (", Name(called(end.instance)), ")"]
