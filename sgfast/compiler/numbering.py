"""The numbers results name rules and instances by; a number keeps its meaning when the policy changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sgfast.policy.model import Instance, Policy, Rule, differing


class Numbering:
    """Lists by number. What left the policy stays in them, as it was last: a connection may outlive its rule."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        #: By rule number: the name of the group it stands in.
        self.rule_groups: list[str] = []
        self.instances: list[Instance] = []
        self._rule: dict[tuple[str, str], int] = {}
        self._instance: dict[str, int] = {}
        self._policy = Policy(security_groups=(), instances=())

    @staticmethod
    def restored(
        rules: Iterable[Rule], rule_groups: Iterable[str], instances: Iterable[Instance],
        of_rules: Mapping[tuple[str, str], int], of_instances: Mapping[str, int],
    ) -> Numbering:
        """What the lists and ``numbers`` of another one say. ValueError where they do not fit together."""
        new = Numbering()
        new.rules, new.rule_groups, new.instances = list(rules), list(rule_groups), list(instances)
        new._rule, new._instance = dict(of_rules), dict(of_instances)
        if len(new.rules) != len(new.rule_groups):
            raise ValueError("not one group for each rule")
        for numbers, length in ((new._rule.values(), len(new.rules)), (new._instance.values(), len(new.instances))):
            if len(set(numbers)) != len(numbers) or not all(0 <= n < length for n in numbers):
                raise ValueError("a number that is none")
        return new

    @property
    def numbers(self) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
        """By group and rule id, and by instance: what has a number now, or gets the same one if it comes back."""
        return self._rule, self._instance

    def of_rule(self, group: str, rule: Rule) -> int:
        return self._rule[group, rule.id]

    def of_instance(self, instance: Instance) -> int:
        return self._instance[instance.name]

    def of_names(self, instances: Iterable[str]) -> list[int]:
        """The numbers of the instances of these names, as far as they have one."""
        return [self._instance[name] for name in instances if name in self._instance]

    def after(
        self, policy: Policy, renewed: Iterable[str] = (), moved: Iterable[int] | None = None
    ) -> Numbering:
        """For a later policy. ``renewed``: names of instances that were deleted meanwhile, even if they are back.
        ``moved``: where the last policy's instances are others, if that is known.
        """
        new = Numbering()
        new.rules, new.rule_groups, new.instances = self.rules.copy(), self.rule_groups.copy(), self.instances.copy()
        new._rule, new._instance = self._rule.copy(), self._instance.copy()
        for name in renewed:
            new._instance.pop(name, None)
        # What is the same object as before has its numbers.
        known = {id(group) for group in self._policy.security_groups}
        for group in policy.security_groups:
            for rule in () if id(group) in known else group.rules:
                n = new._rule.setdefault((group.name, rule.id), len(new.rules))
                if n == len(new.rules):
                    new.rules.append(rule)
                    new.rule_groups.append(group.name)
                new.rules[n] = rule
        before, now = self._policy.instances, policy.instances
        others = [*now[len(before) :], *(now[n] for n in (differing(before, now) if moved is None else moved))]
        if renewed:
            others += [instance for instance in now if instance.name not in new._instance]
        for instance in others:
            n = new._instance.setdefault(instance.name, len(new.instances))
            if n == len(new.instances):
                new.instances.append(instance)
            new.instances[n] = instance
        new._policy = policy
        return new
