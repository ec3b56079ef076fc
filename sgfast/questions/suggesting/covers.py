"""Choose the groups that stand for given instances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set

from sgfast.policy.model import Policy

#: The maximum number of groups of which all combinations are tried; beyond it groups are chosen greedily.
_FEW_GROUPS = 10

#: The groups that each instance is in.
Choices = Mapping[str, Sequence[str]]


class Covers:
    """Groups whose members include given instances: those with the fewest other members that a policy denies, then
    those with the fewest other members, then the fewest groups.
    """

    def __init__(self, policy: Policy) -> None:
        self.members: dict[str, set[str]] = {group.name: set() for group in policy.security_groups}
        for instance in policy.instances:
            for group in instance.security_groups:
                self.members[group].add(instance.name)
        self._place = {group.name: n for n, group in enumerate(policy.security_groups)}

    def best(self, instances: Set[str], choices: Choices, is_denied: Callable[[str], bool]) -> list[str]:
        """Return the best groups for all the instances.

        ``choices``: the groups that may stand for each instance. ``is_denied``: whether the policy denies what the rule
        would allow another member.
        """
        chosen = self._only_groups(instances, choices)
        covered = self._all_of(chosen)
        uncovered = instances - covered
        groups = self._smallest_first(uncovered, choices)
        if len(groups) < 2:
            return chosen + groups
        # Bits of members: those to be covered, the others, and those of them that the policy denies.
        names = sorted(self._all_of(groups) - covered | uncovered)
        bit = {name: 1 << n for n, name in enumerate(names)}
        members = [sum(bit[name] for name in self.members[group] if name in bit) for group in groups]
        wanted_bits = sum(bit[name] for name in uncovered)
        other_bits = sum(bit[name] for name in names if name not in instances)
        denied = sum(bit[name] for name in names if name not in instances and is_denied(name))
        pick = _exact if len(groups) <= _FEW_GROUPS else _greedy
        return chosen + [groups[n] for n in pick(members, wanted_bits, other_bits, denied)]

    def _all_of(self, groups: Iterable[str]) -> set[str]:
        return set().union(*(self.members[group] for group in groups))

    def _only_groups(self, instances: Iterable[str], choices: Choices) -> list[str]:
        """Return the groups that are an instance's only choice, in document order."""
        lists = (choices[name] for name in instances)
        return sorted({groups[0] for groups in lists if len(groups) == 1}, key=self._place.__getitem__)

    def _smallest_first(self, instances: Iterable[str], choices: Choices) -> list[str]:
        candidates = {group for name in instances for group in choices[name]}
        return sorted(candidates, key=lambda group: (len(self.members[group]), self._place[group]))


def _exact(members: Sequence[int], wanted_bits: int, other_bits: int, denied: int) -> list[int]:
    """Return the places of the best groups, trying all combinations. The arguments are sets of instances, as bits."""
    best, best_cost = 0, (1 << 62, 1 << 62, 1 << 62)
    united = [0] * (1 << len(members))
    for choice in range(1, len(united)):
        last = choice & -choice
        union = united[choice] = united[choice ^ last] | members[last.bit_length() - 1]
        if wanted_bits & ~union:
            continue
        cost = (union & denied).bit_count(), (union & other_bits).bit_count(), choice.bit_count()
        if cost < best_cost:
            best, best_cost = choice, cost
    return [n for n in range(len(members)) if best >> n & 1]


def _greedy(members: Sequence[int], wanted_bits: int, other_bits: int, denied: int) -> list[int]:
    """Return the places of groups that are about the best: each step takes one with the fewest others for each instance
    that it adds. In the end, groups that the rest makes unnecessary are left out.
    """
    chosen: list[int] = []
    union = 0

    def cost(n: int) -> tuple[float, float, int]:
        added = members[n] & ~union
        gained = (added & wanted_bits).bit_count()
        if not gained:
            return float("inf"), 0.0, 0
        return (added & denied).bit_count() / gained, (added & other_bits).bit_count() / gained, -gained

    while wanted_bits & ~union:
        best = min(range(len(members)), key=cost)
        chosen.append(best)
        union |= members[best]
    for n in [*chosen]:
        rest_bits = 0
        for chosen_place in chosen:
            rest_bits |= members[chosen_place] if chosen_place != n else 0
        if not wanted_bits & ~rest_bits:
            chosen.remove(n)
    return chosen
