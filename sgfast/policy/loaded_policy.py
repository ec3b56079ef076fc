"""Policies that readers and changes make. They have the lines of their document, and lookups that changes carry over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from sgfast.policy.model import Instance, Network, OwnersByLength, Policy, SecurityGroup

Value = TypeVar("Value")

#: The number of values that ``differing`` compares at once.
_COMPARED = 128


class LoadedPolicy(Policy):
    """A policy with facts about its origin and checks. Two policies with the same values are equal whatever these are.
    """

    #: The class of the policies that readers make. ``sgfast.api`` sets its own class, with methods for users.
    _made_as: ClassVar[type[LoadedPolicy]]

    #: The lines that ``lines_of`` returns.
    lines: dict[tuple[str, str], int] | None = None
    #: Whether all values are known to be valid in a document. False for a policy that a program made, until
    #: ``value_checks.check_made_policy`` has checked it.
    _is_checked = False
    #: If this policy was made from another one by replacing or adding one instance: the instances of the other policy,
    #: and the position of this instance.
    _replaced: tuple[tuple[Instance, ...] | None, int] = (None, 0)

    @cached_property
    def _compiled(self) -> dict[str | None, Any]:
        """Compiled tables that ``rules.reaching.filters`` keeps, by VPC. Copies of the policy do not have them."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        # Lookups that cannot be pickled are made again.
        return {
            name: value for name, value in self.__dict__.items()
            if name != "_compiled" and not isinstance(value, MappingProxyType)
        }  # fmt: skip

    @staticmethod
    def _read(**values: Any) -> LoadedPolicy:
        """Make a policy from values that have been checked."""
        policy = LoadedPolicy._made_as(**values)
        policy._is_checked = True
        return policy


LoadedPolicy._made_as = LoadedPolicy


def lines_of(policy: Policy) -> dict[tuple[str, str], int]:
    """Return the line of each item in the policy's document, by section and name. Empty for a changed policy."""
    return (policy.lines if isinstance(policy, LoadedPolicy) else None) or {}


def having(policy: Policy, **values: Any) -> Policy:
    """Return a copy with other values. The values are not checked, so they must be valid."""
    after = replace(policy, **values)
    if isinstance(policy, LoadedPolicy) and isinstance(after, LoadedPolicy):
        after._is_checked = policy._is_checked
    return after


def with_instance(policy: Policy, instance: Instance) -> Policy:
    """Return a copy of the policy in which ``instance`` replaces the instance with its name, or is added.

    A replaced instance must have the same VPC, id, device and label. Lookups that have been made are carried over.
    """
    n = policy._instance_index.get(instance.name, len(policy.instances))
    is_new = n == len(policy.instances)
    instances = [*policy.instances]
    instances[n : n + 1] = [instance]
    after = having(policy, instances=tuple(instances))
    if isinstance(after, LoadedPolicy):
        after._replaced = policy.instances, n
        _keep(policy, after, ("group_of_rule",) if is_new else ("group_of_rule", "also_called"))
        after._instance_index = policy._instance_index | {instance.name: n} if is_new else policy._instance_index
        if "owners" in policy.__dict__:
            after.owners = _owners_after(policy.owners, () if is_new else policy.instances[n].addresses, instance)
    return after


def with_group(policy: Policy, group: SecurityGroup) -> Policy:
    """Return a copy of the policy in which ``group`` replaces the group with its name. Lookups that have been made are
    carried over.
    """
    before = policy.group_by_name[group.name]
    after = having(policy, security_groups=tuple([group if old is before else old for old in policy.security_groups]))
    if isinstance(after, LoadedPolicy):
        _keep(policy, after, ("_instance_index", "instance_by_name", "also_called", "owners", "group_of_rule"))
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
    """Return the positions at which the instances of two policies differ, up to the end of the shorter list."""
    # If ``after`` was made from ``before`` by replacing an instance, only this instance must be compared.
    instances, n = after._replaced if isinstance(after, LoadedPolicy) else (None, 0)
    if instances is before.instances:
        return [n] if n < len(instances) and instances[n] != after.instances[n] else []
    return differing(before.instances, after.instances)


def differing(before: tuple[Value, ...], after: tuple[Value, ...]) -> list[int]:
    """Return the positions at which two tuples differ, up to the end of the shorter one. Changes keep most objects, and
    comparing an object with itself is fast.
    """
    positions: list[int] = []
    if before is after:
        return positions
    for start in range(0, min(len(before), len(after)), _COMPARED):
        old, new = before[start : start + _COMPARED], after[start : start + _COMPARED]
        if old != new:
            pairs = enumerate(zip(old, new, strict=False))
            positions += [start + n for n, (a, b) in pairs if a is not b and a != b]
    return positions


def exchanged(before: Sequence[Value], after: Sequence[Value]) -> tuple[list[Value], list[Value]]:
    """Return the objects that only the first sequence has, and the objects that only the second has."""
    old, new = dict(zip(map(id, before), before, strict=True)), dict(zip(map(id, after), after, strict=True))
    return [item for n, item in old.items() if n not in new], [item for n, item in new.items() if n not in old]


def _owners_after(owners: OwnersByLength, before: Sequence[Network], after: Instance) -> OwnersByLength:
    """Return the owners after an instance with the addresses ``before`` has changed. Unchanged parts are shared."""
    lost, gained = exchanged(before, after.addresses)
    later = owners.copy()
    copied: set[tuple[int, int]] = set()
    for networks, is_owned in ((lost, False), (gained, True)):
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
