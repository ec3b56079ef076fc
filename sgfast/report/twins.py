"""Rules and their twins (SPEC 2.16) as one line of a report: the IPv4 rule, with the numbers of both added up."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sgfast.policy.model import Policy

if TYPE_CHECKING:
    from sgfast.questions.comparing import MovedTraffic, RuleEffect, TrafficDiff
    from sgfast.questions.replaying import ReplayResult, RuleHits
    from sgfast.questions.suggesting import Suggestion
    from sgfast.questions.suggesting.rules import SuggestedRule
    from sgfast.rules.reaching.rows import Row

Line = TypeVar("Line", bound=Any)


def hits_by_rule(result: ReplayResult) -> list[RuleHits]:
    """Return the use of each rule of a replay."""
    if not result.policy.twins:
        return result.rules
    lines = [replace(each, rule=result.policy._first_twin(each.rule)) for each in result.rules]
    return _added(lines, lambda each: each.rule.id, ("connections", "packets", "bytes"))


def effects_by_rule(result: TrafficDiff) -> list[RuleEffect]:
    """Return the rules that decide on changed connections, those that decide on most first."""
    lines = []
    for each in result.rules:
        old = None if each.old is None else result.old._first_twin(each.old)
        new = None if each.new is None else result.new._first_twin(each.new)
        named = new or old
        assert named is not None, "a rule of one of the policies"
        lines.append(replace(each, rule=named.id, old=old, new=new))
    found = _added(
        lines, lambda each: (each.old and each.old.id, each.new and each.new.id), ("newly_denied", "newly_allowed")
    )
    return sorted(found, key=lambda each: -each.newly_denied - each.newly_allowed)


def moves_by_rule(result: TrafficDiff) -> list[MovedTraffic]:
    """Return the connections that another rule allows than before, most first."""
    lines = [
        replace(each, old_rule=_called(result.old, each.old_rule), new_rule=_called(result.new, each.new_rule))
        for each in result.moved
    ]
    found = _added(lines, lambda each: (each.old_rule, each.new_rule), ("connections",))
    return sorted(found, key=lambda each: -each.connections)


def suggested_by_rule(found: Suggestion) -> list[SuggestedRule]:
    """Return the suggested rules with their evidence."""
    if not found.policy.twins:
        return [*found.rules]
    lines: dict[str, SuggestedRule] = {}
    for each in found.rules:
        rule = found.policy._first_twin(each.rule)
        evidence = replace(each.evidence, examples=list(each.evidence.examples))
        if rule.id in lines:
            lines[rule.id].evidence.add(evidence)
        else:
            lines[rule.id] = replace(each, rule=rule, evidence=evidence)
    return [*lines.values()]


def with_first_twins(rows: Iterable[Row], policies: Mapping[str, Policy]) -> list[Row]:
    """Return rows that list each deciding rule and its twin once. ``policies``: by the word in ``Decider``."""
    if not any(policy.twins for policy in policies.values()):
        return [*rows]
    return [
        replace(row, rules=tuple(dict.fromkeys(
            replace(each, rule=policies[each.policy]._first_twin(each.rule)) for each in row.rules
        )))
        for row in rows
    ]  # fmt: skip


def _called(policy: Policy, rule: str) -> str:
    """Return the id by which reports call a rule."""
    twin = policy.twins.get(rule)
    return twin.id if twin is not None and twin.ethertype == 4 else rule


def _added(lines: Sequence[Line], key: Callable[[Line], Hashable], counts: Sequence[str]) -> list[Line]:
    """Add up the counts of lines with the same key."""
    found: dict[Hashable, Line] = {}
    for each in lines:
        known = found.setdefault(key(each), each)
        if known is not each:
            sums = {count: getattr(known, count) + getattr(each, count) for count in counts}
            found[key(each)] = replace(known, **sums)
    return [*found.values()]
