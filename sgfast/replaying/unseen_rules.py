"""Rules that no record shows in use, although traffic that flow logs do not show may use them (SPEC 10.12)."""

from __future__ import annotations

from sgfast.flow_logs.unlogged import UnseenRule, unlogged_groups, unseen_rule
from sgfast.replaying.results import ReplayResult


def unseen_rules(result: ReplayResult) -> list[UnseenRule]:
    """Return these rules, without the second halves of twins (SPEC 2.16), and without those of groups that were not
    wholly logged.
    """
    policy = result.policy
    unlogged = unlogged_groups(policy, result.records)
    used = {policy._first_twin(hits.rule).id for hits in result.rules if hits.packets or hits.connections}
    found: dict[str, UnseenRule] = {}
    for group in policy.security_groups:
        for rule in group.rules if group.name not in unlogged else ():
            first = policy._first_twin(rule)
            unseen = unseen_rule(group.name, rule, result.records, result.openers)
            if unseen is not None and first.id not in used:
                found.setdefault(first.id, UnseenRule(group.name, first, unseen.use))
    return [*found.values()]
