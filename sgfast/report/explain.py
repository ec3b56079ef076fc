"""The output of ``sgfast explain``, as text."""

from __future__ import annotations

from sgfast.explaining import Explained, NearMiss, SideExplained, service_of
from sgfast.policy.document_reader import Lines
from sgfast.policy.matching import End, RuleInGroup
from sgfast.policy.rule_text import rule_text
from sgfast.report.amounts import plural
from sgfast.report.page import Page
from sgfast.system.names import printable

#: Maximum number of near misses, and of rules that match but lose, before "and N more".
TOP = 10

_FIELD_NAMES = {"icmp_type": "ICMP type", "icmp_code": "ICMP code"}
_VERDICTS = {"allow": "allowed", "deny": "denied"}


def explain_text(explained: Explained, lines: Lines, *, width: int = 80, colour: bool = False) -> str:
    """Return the text. ``lines`` gives the lines of rules in the document, as far as they are known."""
    page = Page(width, colour)
    verdict = explained.verdict
    reason = f" ({explained.reason})" if explained.reason else ""
    page.heading(
        f"{service_of(explained)} from {_end(explained.source)} to {_end(explained.destination)}: "
        f"{_VERDICTS.get(verdict, verdict)}{reason}"
    )
    if explained.note:
        page.wrapped(explained.note, "  ")
    for choice in explained.choices:
        page.wrapped(choice, "  ")
    for side, end, direction in (
        (explained.egress, explained.source, "Out of"), (explained.ingress, explained.destination, "Into"),
    ):  # fmt: skip
        if side is not None:
            page.line()
            _write_side(page, side, direction, lines, explained)
        elif verdict in _VERDICTS:
            page.line()
            page.wrapped(f"{direction} {end.address}: no instance's address, so no filter")
    return page.text()


def _write_side(
    page: Page, side: SideExplained, direction: str, lines: Lines, explained: Explained
) -> None:
    said = side.verdict if side.reached else f"not reached, would be {side.verdict}"
    said = said.replace("allow", "allowed").replace("deny", "denied")
    groups = "group" if len(side.instance.security_groups) == 1 else "groups"
    page.heading(
        f"{direction} {printable(side.instance.name)}, {groups} "
        f"{', '.join(map(printable, side.instance.security_groups))}: {said} ({side.reason})"
    )
    if side.winner is not None:
        _write_rule(page, "wins", side.winner, lines)
        for found in side.also_match[:TOP]:
            _write_rule(page, "matches, but loses", found, lines)
        if len(side.also_match) > TOP:
            more = plural(len(side.also_match) - TOP, "more rule")
            page.wrapped(f"and {more} that match and lose (--json has all)", "  ")
    elif side.reason == "infrastructure":
        page.wrapped("no rule is asked about it (settings.infrastructure)", "  ")
    elif side.reason == "no-rule":
        if not side.nearest:
            page.wrapped(f"no {side.direction} rule of its {groups} allows anything", "  ")
            return
        count = len(side.nearest[0].misfits)
        page.wrapped(f"no rule matches; the nearest {'miss' if count == 1 else f'miss on {count} fields'}:", "  ")
        for miss in side.nearest[:TOP]:
            _write_rule(page, "", miss, lines)
            for misfit in miss.misfits:
                why = f" ({printable(misfit.why)})" if misfit.why else ""
                field = _FIELD_NAMES.get(misfit.field, misfit.field)
                page.hanging(
                    f"      {field}: ", f"wants {printable(misfit.wanted)}, the packet has {printable(misfit.has)}{why}"
                )
        if len(side.nearest) > TOP:
            more = plural(len(side.nearest) - TOP, "more rule")
            page.wrapped(f"and {more} that are as near (--json has all)", "  ")


def _write_rule(page: Page, what: str, found: RuleInGroup | NearMiss, lines: Lines) -> None:
    rule = found.rule
    line = lines.get(("rules", rule.id))
    where = f"  line {line}" if line is not None else ""
    priority = f", priority {rule.priority}" if rule.priority != 1 else ""
    page.hanging(
        f"  {what + ': ' if what else '  '}", f"{printable(rule.id)}  {printable(rule_text(rule))}{priority}{where}"
    )


def _end(end: End) -> str:
    if end.instance is None:
        return str(end.address)
    label = f' "{printable(end.instance.label)}"' if end.instance.label else ""
    return f"{end.address} ({printable(end.instance.name)}{label})"
