"""The output of ``sgfast explain``, as a report and as a JSON object (``report.schema("explain")``)."""

from __future__ import annotations

from typing import Any

from sgfast.capture.names import printable
from sgfast.explaining import Explained, Misfit, NearMiss, SideExplained, service_of
from sgfast.policy.document import Lines
from sgfast.policy.matching import End, RuleInGroup
from sgfast.policy.model import WORDS
from sgfast.policy.protocols import protocol_name
from sgfast.policy.rule_text import rule_text
from sgfast.report.amounts import plural
from sgfast.report.document import Block, Document, Item, Items, Name, Paragraph, Section, names
from sgfast.report.names import as_text

#: Maximum number of near misses, and of rules that match but lose, before "and N more".
TOP = 10

_FIELD_NAMES = {"icmp_type": "ICMP type", "icmp_code": "ICMP code"}
_VERDICTS = {"allow": "allowed", "deny": "denied"}


def explain_document(explained: Explained, lines: Lines) -> Document:
    """Return the report. ``lines`` gives the lines of rules in the document, as far as they are known."""
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
            document.append(_side_section(side, direction, lines))
        elif verdict in _VERDICTS:
            words = f"{direction} {end.address}: no instance's address, so no filter"
            document.append(Section("", [Paragraph(words)]))
    return document


def _side_section(side: SideExplained, direction: str, lines: Lines) -> Section:
    said = side.verdict if side.reached else f"not reached, would be {side.verdict}"
    said = said.replace("allow", "allowed").replace("deny", "denied")
    groups = "group" if len(side.instance.security_groups) == 1 else "groups"
    blocks: list[Block] = []
    if side.winner is not None:
        blocks.append(Items([_rule_item("wins:", side.winner, lines)]))
        losers = [_rule_item("matches, but loses:", found, lines) for found in side.also_match[:TOP]]
        blocks += [*([Items(losers)] if losers else []), *_more_rules(len(side.also_match), "that match and lose")]
    elif side.reason == "infrastructure":
        blocks.append(Paragraph("no rule is asked about it (settings.infrastructure)"))
    elif side.reason == "no-rule" and not side.nearest:
        blocks.append(Paragraph(f"no {side.direction} rule of its {groups} allows anything"))
    elif side.reason == "no-rule":
        count = len(side.nearest[0].misfits)
        blocks.append(Paragraph(f"no rule matches; the nearest {'miss' if count == 1 else f'miss on {count} fields'}:"))
        blocks.append(Items([_rule_item(" ", miss, lines) for miss in side.nearest[:TOP]]))
        blocks += _more_rules(len(side.nearest), "that are as near")
    heading = (
        f"{direction} ", Name(side.instance.name), f", {groups} ", *names(side.instance.security_groups),
        f": {said} ({side.reason})",
    )  # fmt: skip
    return Section(heading, blocks)


def _rule_item(label: str, found: RuleInGroup | NearMiss, lines: Lines) -> Item:
    rule = found.rule
    line = lines.get(("rules", rule.id))
    where = f"  line {line}" if line is not None else ""
    priority = f", priority {rule.priority}" if rule.priority != 1 else ""
    misfits = found.misfits if isinstance(found, NearMiss) else ()
    words = (Name(rule.id), f"  {printable(rule_text(rule))}{priority}{where}")
    return Item(label, words, below=[*map(_misfit_item, misfits)])


def _misfit_item(misfit: Misfit) -> Item:
    why = f" ({printable(misfit.why)})" if misfit.why else ""
    wanted, has = printable(misfit.wanted), printable(misfit.has)
    return Item(f"  {_FIELD_NAMES.get(misfit.field, misfit.field)}:", f"wants {wanted}, the packet has {has}{why}")


def _more_rules(number: int, what: str) -> list[Paragraph]:
    left = number - TOP
    return [Paragraph(f"and {plural(left, 'more rule')} {what} (--json has all)")] if left > 0 else []


def _end_words(end: End) -> list[str]:
    if end.instance is None:
        return [str(end.address)]
    label = f' "{printable(end.instance.label)}"' if end.instance.label else ""
    return [f"{end.address} (", Name(end.instance.name), f"{label})"]


def explain_summary(explained: Explained, lines: Lines) -> dict[str, Any]:
    """Return the JSON object."""
    return {
        "policy": as_text(explained.policy.origin),
        "vpc": explained.vpc,
        "from": _end_object(explained, explained.source),
        "to": _end_object(explained, explained.destination),
        "protocol": protocol_name(explained.protocol) or explained.protocol,
        "port": explained.port,
        "sport": explained.sport,
        "icmp_type": explained.icmp_type,
        "icmp_code": explained.icmp_code,
        "verdict": explained.verdict,
        "reason": explained.reason,
        "note": explained.note or None,
        "choices": list(explained.choices),
        "egress": _side_object(explained, explained.egress, lines),
        "ingress": _side_object(explained, explained.ingress, lines),
    }


def _end_object(explained: Explained, end: End) -> dict[str, Any]:
    owner = end.instance
    return {
        "address": str(end.address),
        "instance": None if owner is None else owner.name,
        "vpc": None if owner is None else owner.vpc,
        **{word: getattr(owner, word, "") or None for word in WORDS},
        "assumed": owner in explained.assumed,
    }


def _side_object(explained: Explained, side: SideExplained | None, lines: Lines) -> dict[str, Any] | None:
    if side is None:
        return None
    return {
        "instance": side.instance.name,
        "direction": side.direction,
        "groups": list(side.instance.security_groups),
        "reached": side.reached,
        "verdict": side.verdict,
        "reason": side.reason,
        "winner": None if side.winner is None else _rule_object(explained, side.winner, lines),
        "also_match": [_rule_object(explained, found, lines) for found in side.also_match],
        "nearest": [
            {
                **_rule_object(explained, miss, lines),
                "misfits": [
                    {"field": each.field, "wanted": each.wanted, "has": each.has, "why": each.why or None}
                    for each in miss.misfits
                ],
            }
            for miss in side.nearest
        ],
    }


def _rule_object(explained: Explained, found: RuleInGroup | NearMiss, lines: Lines) -> dict[str, Any]:
    rule = found.rule
    return {
        "rule": rule.id,
        "group": found.group,
        "group_id": explained.policy.group_by_name[found.group].id or None,
        "action": rule.action,
        "priority": rule.priority,
        "text": rule_text(rule),
        "line": lines.get(("rules", rule.id)),
    }
