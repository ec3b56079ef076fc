"""Find the rules that a policy lacks for given connections (SPEC 10.15)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from sgfast.policy.loaded_policy import having
from sgfast.policy.matching import Kind
from sgfast.policy.model import Policy, Rule
from sgfast.policy.profiles import PROFILES
from sgfast.policy.templates import next_rule_id
from sgfast.questions.suggesting.denials import Denials
from sgfast.questions.suggesting.needs import Need, Winners, needs_of
from sgfast.questions.suggesting.observing import TrafficTotals
from sgfast.questions.suggesting.rules import Limits, SuggestedRule, suggest_rules

#: Reasons for which no rule is added.
DENY_RULE = "a deny rule is for these, and no added rule may overrule it"
NOT_PEERED = "denied whatever the rules: vpc-isolated"
NOTHING_MISSING = "denied for another reason than a missing rule"


@dataclass(frozen=True, slots=True)
class Missing:
    """Rules to add to a policy, and the connections for which there are none."""

    #: The rules, by group and direction. Their ids are those that the groups' next rules get (SPEC 2.5).
    rules: tuple[SuggestedRule, ...] = ()
    #: The connections that no added rule lets through, by reason and kind.
    left_out: Mapping[str, dict[Kind, TrafficTotals]] = field(default_factory=dict)

    def added_to(self, policy: Policy) -> Policy:
        """Return the policy with the rules behind those of their groups, whatever the quotas."""
        added: defaultdict[str, list[Rule]] = defaultdict(list)
        for suggested in self.rules:
            added[suggested.group].append(suggested.rule)
        return having(
            policy,
            security_groups=tuple(
                replace(group, rules=(*group.rules, *added[group.name])) if group.name in added else group
                for group in policy.security_groups
            ),
        )


def missing_rules(
    policy: Policy, kinds: Mapping[Kind, TrafficTotals], limits: Limits | None = None, winners: Winners | None = None
) -> Missing:
    """Return the fewest rules that ``policy`` lacks to let connections of these kinds through.

    ``kinds``: connections that the policy denies, with their evidence, which the rules get. The instances of a kind are
    those of the policy. ``limits``: how far rules may exceed these connections. ``winners``: what an earlier call found
    out about the same policy.

    Only an end without a matching rule gets one: the sender, the receiver, or both. An added rule never overrules a
    deny rule, because it has the priority of the policy's last deny rule, where denials come first (SPEC 4.10). A kind
    that a deny rule is for, or that no rule mends, is in ``left_out`` with its reason.
    """
    limits = limits or Limits()
    if PROFILES[policy.settings.profile].unites_versions:
        limits = replace(limits, both_versions=True)
    winners = winners or Winners(policy)
    left_out: defaultdict[str, dict[Kind, TrafficTotals]] = defaultdict(dict)
    needs_of_kind: dict[Kind, list[Need]] = {}
    for kind, evidence in kinds.items():
        rule_of_need = {need: winners.of(need, kind.code) for need in needs_of(kind)}
        unmet = [need for need, rule in rule_of_need.items() if rule is None]
        if not winners.are_connected(kind.egress, kind.ingress):
            left_out[NOT_PEERED][kind] = evidence
        elif any(rule is not None and rule.action == "deny" for rule in rule_of_need.values()):
            left_out[DENY_RULE][kind] = evidence
        elif not unmet:
            left_out[NOTHING_MISSING][kind] = evidence
        else:
            needs_of_kind[kind] = unmet
    denials = Denials(policy, winners, adds_only=True)
    suggested = suggest_rules(
        policy, {kind: kinds[kind] for kind in needs_of_kind}, limits, needs_of_kind.__getitem__, denials
    )
    for kind in needs_of_kind:
        if kind in suggested.too_few:
            left_out[limits.too_few][kind] = kinds[kind]
    return Missing(tuple(_for_policy(policy, suggested.rules)), dict(left_out))


def _for_policy(policy: Policy, rules: Iterable[SuggestedRule]) -> Iterable[SuggestedRule]:
    """Yield the rules with ids that the policy does not have yet, and behind all its deny rules."""
    numbers = {group.name: dict(group.numbers) for group in policy.security_groups}
    denials = (rule for group in policy.security_groups for rule in group.rules if rule.action == "deny")
    priority = max((rule.priority for rule in denials), default=1)
    for suggested in rules:
        group, direction = policy.group_by_name[suggested.group], suggested.rule.direction
        rule_id = next_rule_id(group, direction, numbers[group.name], policy.group_of_rule)
        yield replace(suggested, rule=replace(suggested.rule, id=rule_id, priority=priority))
