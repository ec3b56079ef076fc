"""Policies as readers and changes make them: with the lines of their document, and with lookups that changes keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from sgfast.policy.model import Instance, Network, OwnersByLength, Policy, SecurityGroup

Value = TypeVar("Value")

#: Number of values that ``differing`` compares at once.
_COMPARED = 128


class LoadedPolicy(Policy):
    """A policy with what is known about it beside its values. Only the values count when two are compared."""

    #: The class of policies that are read. ``sgfast.api``, on top, puts its own here, which has the questions.
    made_as: ClassVar[type[LoadedPolicy]]

    #: The lines that ``lines_of`` returns.
    lines: dict[tuple[str, str], int] | None = None
    #: Whether all values are known to be valid in a document. In a policy that a program made they are not, until
    #: ``value_checks.check_made_policy`` has checked them.
    is_checked = False
    #: The instances of the policy that this one was made from by replacing one of them, and the position of that one.
    _replaced: tuple[tuple[Instance, ...] | None, int] = (None, 0)

    @staticmethod
    def read(**values: Any) -> LoadedPolicy:
        """A policy whose values have been checked."""
        policy = LoadedPolicy.made_as(**values)
        policy.is_checked = True
        return policy


LoadedPolicy.made_as = LoadedPolicy


def lines_of(policy: Policy) -> dict[tuple[str, str], int]:
    """The line of each thing in the policy's document, by section and name. A policy that was changed has none."""
    return (policy.lines if isinstance(policy, LoadedPolicy) else None) or {}


def having(policy: Policy, **values: Any) -> Policy:
    """A copy with other values, which sgfast made. They are not checked again."""
    after = replace(policy, **values)
    if isinstance(policy, LoadedPolicy) and isinstance(after, LoadedPolicy):
        after.is_checked = policy.is_checked
    return after


def with_instance(policy: Policy, instance: Instance) -> Policy:
    """A copy of the policy with this instance in place of the one with its name, which is in the same VPC and which
    the provider calls the same; or with one more. Lookups that have been made are carried over.
    """
    n = policy.instance_index.get(instance.name, len(policy.instances))
    is_new = n == len(policy.instances)
    instances = [*policy.instances]
    instances[n : n + 1] = [instance]
    after = having(policy, instances=tuple(instances))
    if isinstance(after, LoadedPolicy):
        after._replaced = policy.instances, n
        _keep(policy, after, ("group_of_rule",) if is_new else ("group_of_rule", "also_called"))
        after.instance_index = policy.instance_index | {instance.name: n} if is_new else policy.instance_index
        if "owners" in policy.__dict__:
            after.owners = _owners_after(policy.owners, () if is_new else policy.instances[n].addresses, instance)
    return after


def with_group(policy: Policy, group: SecurityGroup) -> Policy:
    """A copy of the policy with this group in place of the one with its name. Lookups that have been made are carried
    over.
    """
    before = policy.group_by_name[group.name]
    after = having(policy, security_groups=tuple([group if old is before else old for old in policy.security_groups]))
    if isinstance(after, LoadedPolicy):
        _keep(policy, after, ("instance_index", "instance_by_name", "also_called", "owners", "group_of_rule"))
        was, now = ([rule.id for rule in rules] for rules in (before.rules, group.rules))
        if was != now and "group_of_rule" in policy.__dict__:
            after.group_of_rule = of_rule = policy.group_of_rule.copy()
            for rule_id in was:
                of_rule.pop(rule_id, None)
            of_rule.update(dict.fromkeys(now, group.name))
    return after


def _keep(policy: Policy, after: Policy, lookups: Sequence[str]) -> None:
    for name in lookups:
        if name in policy.__dict__:
            setattr(after, name, policy.__dict__[name])


def moved_instances(before: Policy, after: Policy) -> list[int]:
    """Positions at which the instances of two policies differ, up to the end of the shorter list."""
    # If one was made from the other, only the replaced instance need be compared.
    instances, n = after._replaced if isinstance(after, LoadedPolicy) else (None, 0)
    if instances is before.instances:
        return [n] if n < len(instances) and instances[n] != after.instances[n] else []
    return differing(before.instances, after.instances)


def differing(before: tuple[Value, ...], after: tuple[Value, ...]) -> list[int]:
    """Positions at which two tuples differ, up to the shorter one's end. A change keeps the objects it does not touch,
    so that most of them need not be looked into.
    """
    found: list[int] = []
    if before is after:
        return found
    for start in range(0, min(len(before), len(after)), _COMPARED):
        old, new = before[start : start + _COMPARED], after[start : start + _COMPARED]
        if old != new:
            pairs = enumerate(zip(old, new, strict=False))
            found += [start + n for n, (a, b) in pairs if a is not b and a != b]
    return found


def exchanged(before: Sequence[Value], after: Sequence[Value]) -> tuple[list[Value], list[Value]]:
    """The objects that only the first or only the second sequence has."""
    old, new = dict(zip(map(id, before), before, strict=True)), dict(zip(map(id, after), after, strict=True))
    return [each for n, each in old.items() if n not in new], [each for n, each in new.items() if n not in old]


def _owners_after(owners: OwnersByLength, before: Sequence[Network], after: Instance) -> OwnersByLength:
    """The owners once an instance, which had the addresses ``before``, has changed. Unchanged parts are shared."""
    gone, come = exchanged(before, after.addresses)
    later = owners.copy()
    copied: set[tuple[int, int]] = set()
    for networks, is_owned in ((gone, False), (come, True)):
        for network in networks:
            place, length = (after.vpc, network.version), network.prefixlen
            if (network.version, length) not in copied:
                copied.add((network.version, length))
                by_length = later.get(place, {})
                later[place] = by_length | {length: by_length.get(length, {}).copy()}
            if is_owned:
                later[place][length][network.network_address.packed] = after.name
            else:
                later[place][length].pop(network.network_address.packed, None)
    return later
