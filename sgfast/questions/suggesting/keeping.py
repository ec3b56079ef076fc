"""Add to a policy the fewest rules that let through what would break, and take away what was not used if that is asked
for (SPEC 10.15).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgfast.policy.loaded_policy import having
from sgfast.policy.matching import Kind, RuleInGroup
from sgfast.policy.model import Policy
from sgfast.questions.replaying import ReplayResult
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.removal import unseen_rules
from sgfast.questions.suggesting.missing import Missing, missing_rules
from sgfast.questions.suggesting.observing import REPLY_DENIED, BreakObserver, Progress, TrafficTotals, observe
from sgfast.questions.suggesting.rules import Limits
from sgfast.traffic.flow_logs.unlogged import UnseenRule, unlogged_groups

#: The maximum number of replays. Rules that were added after one replay may make other connections break in the next
#: one, or may make an earlier added rule unnecessary.
MOST_REPLAYS = 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A policy with added rules, and what came of it."""

    policy: Policy
    missing: Missing
    #: The connections that the added rules let through, by kind.
    claimed: dict[Kind, TrafficTotals]
    #: The denied connections of the replays with the given policy and with the new one.
    before: BreakObserver
    after: BreakObserver
    #: The results of the first and of the last replay.
    result: ReplayResult
    last: ReplayResult
    #: Whether nothing else breaks than what no rule mends.
    is_done: bool
    #: Whether connections that nobody answered count as breaking.
    unanswered: bool

    @property
    def left_out(self) -> dict[str, dict[Kind, TrafficTotals]]:
        """The connections that the new policy still denies, by reason and kind, without those of ``claimed``."""
        unmended = {
            reason: {kind: self.after.wanted[kind] for kind in kinds if kind in self.after.wanted}
            for reason, kinds in self.missing.left_out.items()
        }
        denied = self.after.left_out
        return denied | {reason: denied.get(reason, {}) | kinds for reason, kinds in unmended.items() if kinds}

    @property
    def still_broken(self) -> int:
        """The number of connections of ``claimed`` that the new policy denies."""
        return sum(self.after.wanted[kind].connections for kind in self.claimed if kind in self.after.wanted)

    @property
    def also_allowed(self) -> int:
        """The number of other connections that the given policy denies, and the new one does not."""
        now: Counter[Kind] = Counter()
        for kinds in self.after.left_out.values():
            now.update({kind: totals.connections for kind, totals in kinds.items()})
        was: Counter[Kind] = Counter()
        for kinds in self.before.left_out.values():
            was.update({kind: totals.connections for kind, totals in kinds.items()})
        return (was - now).total()


def keep(
    policy: Policy, captures: Sequence[str | os.PathLike[str]], limits: Limits, unanswered: bool,
    options: ReplayOptions, progress: Progress | None,
) -> Kept:  # fmt: skip
    """Find the rules that ``policy`` lacks for the connections of captures that would break.

    A rule may let connections begin that make others break, or that show what was taken for one to be part of another
    one (SPEC 9.2). So the captures are replayed until nothing new breaks and every rule is needed.
    """
    kinds_to_mend: dict[Kind, TrafficTotals] = {}
    #: Kinds that a replay did not need any more. If they break again after that, they stay.
    dropped: set[Kind] = set()
    #: Kinds whose openers a rule let through, and whose replies a stateless filter denied all the same.
    stopped: dict[Kind, TrafficTotals] = {}
    before: BreakObserver | None = None
    for _ in range(MOST_REPLAYS):
        mendable = {kind: evidence for kind, evidence in kinds_to_mend.items() if kind not in stopped}
        missing = missing_rules(policy, mendable, limits)
        if stopped:
            missing = replace(missing, left_out={**missing.left_out, REPLY_DENIED: stopped})
        mended = kinds_to_mend.keys() - {kind for kinds in missing.left_out.values() for kind in kinds}
        mended_policy = missing.added_to(policy)
        after = BreakObserver(unanswered, policy.settings, mended)
        replayed = observe(mended_policy, captures, after, options, progress)
        if before is None:
            before, result = after, replayed
        broken = {kind: evidence for kind, evidence in after.wanted.items() if kind not in kinds_to_mend}
        unanswerable = mended & after.left_out.get(REPLY_DENIED, {}).keys()
        idle = mended - after.allowed - dropped - unanswerable
        if not broken and not idle and not unanswerable:
            break
        stopped |= {kind: kinds_to_mend[kind] for kind in unanswerable}
        dropped |= idle
        kinds_to_mend = {kind: evidence for kind, evidence in kinds_to_mend.items() if kind not in idle} | broken
    claimed = {kind: evidence for kind, evidence in kinds_to_mend.items() if kind in mended}
    is_done = not broken and not mended & after.wanted.keys()
    assert before is not None
    return Kept(mended_policy, missing, claimed, before, after, result, replayed, is_done, unanswered)


def without_unused(
    policy: Policy, kept: Kept, captures: Sequence[str | os.PathLike[str]], options: ReplayOptions,
    progress: Progress | None,
) -> tuple[Kept, tuple[RuleInGroup, ...], list[UnseenRule]]:  # fmt: skip
    """Take away the allow rules of ``policy`` that no packet of the captures used, neither a rule nor its twin (SPEC
    2.16), and return them, too. Then the unused rules that stay, as flow logs may not show what uses them. Rules of
    groups that were not wholly logged stay, too. ``is_done`` says whether the captures break no more than before.
    """
    used = {hits.rule.id for hits in kept.last.rules if hits.packets}
    unlogged = unlogged_groups(policy, kept.last.records)
    unseen = unseen_rules(kept.last)
    used |= {unseen_rule.rule.id for unseen_rule in unseen}
    twins, before = kept.policy.twins, {rule.id for group in policy.security_groups for rule in group.rules}
    unused = {
        rule.id for group in kept.policy.security_groups for rule in group.rules
        if rule.action == "allow" and rule.id in before and group.name not in unlogged
        and rule.id not in used and not (rule.id in twins and twins[rule.id].id in used)
    }  # fmt: skip
    smaller_policy = having(
        kept.policy,
        security_groups=tuple(
            replace(group, rules=tuple(rule for rule in group.rules if rule.id not in unused))
            for group in kept.policy.security_groups
        ),
    )
    after = BreakObserver(kept.unanswered, policy.settings, ())
    last = observe(smaller_policy, captures, after, options, progress)
    broken = {kind: totals.connections for kind, totals in after.wanted.items()}
    is_same = broken == {kind: totals.connections for kind, totals in kept.after.wanted.items()}
    removed = tuple(
        RuleInGroup(group.name, rule) for group in policy.security_groups for rule in group.rules if rule.id in unused
    )
    return replace(kept, policy=smaller_policy, last=last, is_done=kept.is_done and is_same), removed, unseen
