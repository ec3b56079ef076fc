"""Match the rules of two policies with each other, and count traffic that is allowed by another rule than before."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgfast.core.classify.classifier import Classifier
from sgfast.engine import Engine
from sgfast.policy.model import Rule
from sgfast.policy.networks import peer_key
from sgfast.questions.comparing.results import NEW_VERDICTS, ChangedGroup, MovedTraffic, RuleEffect

Rows = NDArray[Any]

#: Values in place of a winning rule's number: no rule wins; there is no such side.
NO_WINNER, NO_SIDE_THERE = -1, -2

#: The maximum number of pairs of rules for which moved traffic is counted separately; the rest has only a total.
MOST_MOVES = 1 << 14


class RulePairs:
    """Pairs of the rules of two engines within each group: first rules with the same meaning, then those with the same
    id.

    Ids alone are not enough: most ids are numbered, and the numbers shift when a rule is removed.
    """

    def __init__(self, old: Engine, new: Engine) -> None:
        self.old, self.new = old, new
        #: The number of OLD's rule, indexed by the number of NEW's rule; -1 if there is none.
        self.old_of = np.full(len(new.rules) + 1, -1, dtype=np.int64)
        self._new_of: dict[int, int] = {}
        of_group: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for side, engine in enumerate((old, new)):
            for number, group in enumerate(engine.compiled.numbering.rule_groups):
                of_group[group][side].append(number)
        for olds, news in of_group.values():
            self._pair(olds, news, lambda rule: (rule.id, _meaning(rule)))
            self._pair(olds, news, _meaning)
            self._pair(olds, news, lambda rule: rule.id)

    def _pair(self, olds: list[int], news: list[int], name: Any) -> None:
        free = defaultdict(list)
        for number in reversed(olds):
            if number not in self._new_of:
                free[name(self.old.rules[number])].append(number)
        for number in news:
            if self.old_of[number] < 0 and free[name(self.new.rules[number])]:
                old_number = free[name(self.new.rules[number])].pop()
                self.old_of[number] = old_number
                self._new_of[old_number] = number

    def status(self, number: int, *, is_old: bool) -> Literal["removed", "added", "changed", "same"]:
        """Return the status of a rule, given its number in its own policy."""
        twin_number = self._new_of.get(number, -1) if is_old else int(self.old_of[number])
        if twin_number < 0:
            return "removed" if is_old else "added"
        before, after = (number, twin_number) if is_old else (twin_number, number)
        return "same" if _meaning(self.old.rules[before]) == _meaning(self.new.rules[after]) else "changed"

    def say_the_same(self, old: int, new: int) -> bool:
        """Return whether two rules, given by number, are in the same group and have the same meaning."""
        of_old, of_new = (engine.compiled.numbering.rule_groups for engine in (self.old, self.new))
        return of_old[old] == of_new[new] and _meaning(self.old.rules[old]) == _meaning(self.new.rules[new])

    def effects(self, decisions: Iterable[tuple[ChangedGroup, int, int]]) -> list[RuleEffect]:
        """Return the effects of the rules that differ.

        ``decisions``: each group with the numbers of the deciding rules of OLD and NEW (negative: no rule).
        """
        counts: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
        for group, old, new in decisions:
            pairs = set()
            if old >= 0 and self.status(old, is_old=True) != "same":
                pairs.add((old, self._new_of.get(old, -1)))
            if new >= 0 and self.status(new, is_old=False) != "same":
                pairs.add((int(self.old_of[new]), new))
            for pair in pairs:
                counts[pair][group.change] += group.connections
        effects = [
            self._effect(*pair, *(counted[verdict] for verdict in NEW_VERDICTS)) for pair, counted in counts.items()
        ]
        return sorted(effects, key=lambda e: (-e.newly_denied - e.newly_allowed, e.group, e.rule, e.status))

    def _effect(self, old: int, new: int, newly_denied: int, newly_allowed: int) -> RuleEffect:
        engine, number = (self.new, new) if new >= 0 else (self.old, old)
        return RuleEffect(
            engine.rules[number].id, engine.compiled.numbering.rule_groups[number],
            "removed" if new < 0 else "added" if old < 0 else "changed",
            self.old.rules[old] if old >= 0 else None, self.new.rules[new] if new >= 0 else None,
            newly_denied, newly_allowed,
        )  # fmt: skip


class Moves:
    """Count connections that both policies allow, but by different rules."""

    def __init__(self, pairs: RulePairs) -> None:
        self._pairs = pairs
        self._counts: Counter[tuple[int, int]] = Counter()
        self.others = 0

    def count(self, openers: Rows) -> None:
        """Count connections by their openers (HEADER_DTYPE). Both policies must allow each of them as a new
        connection."""
        old = winners(self._pairs.old.compiled.classifier, openers).ravel()
        new = winners(self._pairs.new.compiled.classifier, openers).ravel()
        moved = (old >= 0) & (new >= 0) & (self._pairs.old_of[new] != old)
        if not moved.any():
            return
        moved_pairs, counts = np.unique(np.stack((old[moved], new[moved])), axis=1, return_counts=True)
        for before, after, connections in zip(*moved_pairs.tolist(), counts.tolist(), strict=True):
            if self._pairs.say_the_same(before, after):
                continue        # duplicates of one rule in a policy
            if (before, after) in self._counts or len(self._counts) < MOST_MOVES:
                self._counts[before, after] += connections
            else:
                self.others += connections

    def result(self) -> list[MovedTraffic]:
        old, new = self._pairs.old, self._pairs.new
        moved = [
            MovedTraffic(
                old.rules[before].id, old.compiled.numbering.rule_groups[before],
                new.rules[after].id, new.compiled.numbering.rule_groups[after], connections,
            )
            for (before, after), connections in self._counts.items()
        ]  # fmt: skip
        return together([moved])


def together(several: Iterable[Iterable[MovedTraffic]]) -> list[MovedTraffic]:
    """Add up traffic that moved between the same two rules, and sort it by most connections."""
    counts: Counter[MovedTraffic] = Counter()
    for moved in several:
        for traffic in moved:
            counts[replace(traffic, connections=0)] += traffic.connections
    return sorted(
        (replace(traffic, connections=connections) for traffic, connections in counts.items()),
        key=lambda m: (-m.connections, m.old_group, m.old_rule, m.new_group, m.new_rule),
    )


def winners(classifier: Classifier, openers: Rows) -> NDArray[np.int32]:
    """Return an array (n, 2) with the numbers of each opener's winning rules, egress and ingress (SPEC 4.8, 3.3)."""
    rule_numbers = np.full((len(openers), 2), NO_SIDE_THERE, dtype=np.int32)
    classifier.match(openers, rule_numbers)
    first = openers["dst"][:, 0]
    is_multicast = np.where(
        openers["family"] == 6, first == 0xFF, (first >> 4 == 14) | (openers["dst"][:, :4] == 0xFF).all(axis=1)
    )
    rule_numbers[is_multicast, 1] = NO_SIDE_THERE
    return rule_numbers


def _meaning(rule: Rule) -> tuple[object, ...]:
    return peer_key(rule.peer), replace(rule.without_words(), peer=None)
