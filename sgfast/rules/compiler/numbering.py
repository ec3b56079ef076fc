"""Assign numbers to rules and instances that stay the same across policy changes. Results refer to these numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy

from sgfast.policy.loaded_policy import moved_instances
from sgfast.policy.model import Instance, Policy, Rule, SecurityGroup, new_rules


class Numbering:
    """Rules and instances by number. Removed rules and instances stay in their last form, because a connection may
    outlive its rule.
    """

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        #: The name of each rule's group, by rule number.
        self.rule_groups: list[str] = []
        self.instances: list[Instance] = []
        #: By instance number: the names of the groups that the instance was in when it got its number.
        self.instance_groups: list[tuple[str, ...]] = []
        self._rule: dict[tuple[str, str], int] = {}
        self._instance: dict[str, int] = {}
        self._policy = Policy(security_groups=(), instances=())

    @staticmethod
    def restored(
        rules: Iterable[Rule], rule_groups: Iterable[str], instances: Iterable[Instance],
        instance_groups: Iterable[tuple[str, ...]],
        of_rules: Mapping[tuple[str, str], int], of_instances: Mapping[str, int],
    ) -> Numbering:
        """Restore a numbering from the lists and ``numbers`` of another numbering.

        Raises ValueError if they are inconsistent.
        """
        new = Numbering()
        new.rules, new.rule_groups, new.instances = list(rules), list(rule_groups), list(instances)
        new.instance_groups = list(instance_groups)
        new._rule, new._instance = dict(of_rules), dict(of_instances)
        if len(new.rules) != len(new.rule_groups) or len(new.instances) != len(new.instance_groups):
            raise ValueError("the number of rules or instances and the number of their groups differ")
        for numbers, length in ((new._rule.values(), len(new.rules)), (new._instance.values(), len(new.instances))):
            if len(set(numbers)) != len(numbers) or not all(0 <= n < length for n in numbers):
                raise ValueError("an invalid rule or instance number")
        return new

    @property
    def numbers(self) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
        """The numbers of rules by (group, rule id), and of instances by name. A removed rule or instance keeps its
        number, so that it gets the same number if it is added again.
        """
        return self._rule, self._instance

    def of_group(self, group: SecurityGroup) -> list[int]:
        """Return the numbers of the group's rules, in the order of the rules."""
        name, numbers = group.name, self._rule
        return [numbers[name, rule.id] for rule in group.rules]

    def of_instance(self, instance: Instance) -> int:
        return self._instance[instance.name]

    def of_names(self, instances: Iterable[str]) -> list[int]:
        """Return the numbers of the instances with these names. Names without a number are left out."""
        return [self._instance[name] for name in instances if name in self._instance]

    def after(
        self, policy: Policy, renewed: Collection[str] = (), moved: Iterable[int] | None = None
    ) -> Numbering:
        """Return the numbering of a later policy.

        ``renewed``: names of instances that were deleted meanwhile, even if they were added again; those get new
        numbers. ``moved``: the positions at which instances differ from the last policy's; None: not known yet.
        """
        new = copy(self)
        before, now = self._policy.instances, policy.instances
        if self._policy.security_groups is not policy.security_groups:
            # Rules that the last policy had keep their numbers.
            new._number_rules(
                [(group.name, rule) for group in policy.security_groups for rule in new_rules(self._policy, group)]
            )
        moved = moved_instances(self._policy, policy) if moved is None else moved
        new_instances = [*now[len(before) :], *(now[n] for n in moved)]
        if renewed:
            gone = set(renewed)
            new._instance = {name: n for name, n in self._instance.items() if name not in gone}
            new_instances += [instance for instance in now if instance.name not in new._instance]
        new._number_instances(new_instances)
        new._policy = policy
        return new

    def _number_rules(self, new_items: Sequence[tuple[str, Rule]]) -> None:
        # The earlier numbering shares these collections, so they are copied before they change.
        self.rules = self.rules.copy()
        if any((group, rule.id) not in self._rule for group, rule in new_items):
            self.rule_groups, self._rule = self.rule_groups.copy(), self._rule.copy()
        for group, rule in new_items:
            n = self._rule.setdefault((group, rule.id), len(self.rules))
            if n == len(self.rules):
                self.rules.append(rule)
                self.rule_groups.append(group)
            self.rules[n] = rule

    def _number_instances(self, changed: Sequence[Instance]) -> None:
        if changed:
            self.instances = self.instances.copy()
        if any(instance.name not in self._instance for instance in changed):
            self._instance, self.instance_groups = self._instance.copy(), self.instance_groups.copy()
        for instance in changed:
            n = self._instance.setdefault(instance.name, len(self.instances))
            if n == len(self.instances):
                self.instances.append(instance)
                self.instance_groups.append(instance.security_groups)
            self.instances[n] = instance
