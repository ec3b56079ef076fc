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
    lines = [replace(hits, rule=result.policy._first_twin(hits.rule)) for hits in result.rules]
    return _added(lines, lambda hits: hits.rule.id, ("connections", "packets", "bytes"))


def effects_by_rule(result: TrafficDiff) -> list[RuleEffect]:
    """Return the rules that decide on changed connections, those that decide on most first."""
    lines = []
    for effect in result.rules:
        old = None if effect.old is None else result.old._first_twin(effect.old)
        new = None if effect.new is None else result.new._first_twin(effect.new)
        named = new or old
        assert named is not None, "a rule of one of the policies"
        lines.append(replace(effect, rule=named.id, old=old, new=new))
    counts = ("newly_denied", "newly_allowed")
    effects = _added(lines, lambda effect: (effect.old and effect.old.id, effect.new and effect.new.id), counts)
    return sorted(effects, key=lambda effect: -effect.newly_denied - effect.newly_allowed)


def moves_by_rule(result: TrafficDiff) -> list[MovedTraffic]:
    """Return the connections that another rule allows than before, most first."""
    lines = [
        replace(moved, old_rule=_called(result.old, moved.old_rule), new_rule=_called(result.new, moved.new_rule))
        for moved in result.moved
    ]
    moves = _added(lines, lambda moved: (moved.old_rule, moved.new_rule), ("connections",))
    return sorted(moves, key=lambda moved: -moved.connections)


def suggested_by_rule(suggestion: Suggestion) -> list[SuggestedRule]:
    """Return the suggested rules with their evidence."""
    if not suggestion.policy.twins:
        return [*suggestion.rules]
    lines: dict[str, SuggestedRule] = {}
    for suggested in suggestion.rules:
        rule = suggestion.policy._first_twin(suggested.rule)
        evidence = replace(suggested.evidence, examples=list(suggested.evidence.examples))
        if rule.id in lines:
            lines[rule.id].evidence.add(evidence)
        else:
            lines[rule.id] = replace(suggested, rule=rule, evidence=evidence)
    return [*lines.values()]


def with_first_twins(rows: Iterable[Row], policies: Mapping[str, Policy]) -> list[Row]:
    """Return rows that list each deciding rule and its twin once. ``policies``: by the word in ``Decider``."""
    if not any(policy.twins for policy in policies.values()):
        return [*rows]
    return [
        replace(row, rules=tuple(dict.fromkeys(
            replace(decider, rule=policies[decider.policy]._first_twin(decider.rule)) for decider in row.rules
        )))
        for row in rows
    ]  # fmt: skip


def _called(policy: Policy, rule: str) -> str:
    """Return the id by which reports call a rule."""
    twin = policy.twins.get(rule)
    return twin.id if twin is not None and twin.ethertype == 4 else rule


def _added(lines: Sequence[Line], key: Callable[[Line], Hashable], counts: Sequence[str]) -> list[Line]:
    """Add up the counts of lines with the same key."""
    added: dict[Hashable, Line] = {}
    for line in lines:
        first_line = added.setdefault(key(line), line)
        if first_line is not line:
            sums = {count: getattr(first_line, count) + getattr(line, count) for count in counts}
            added[key(line)] = replace(first_line, **sums)
    return [*added.values()]
