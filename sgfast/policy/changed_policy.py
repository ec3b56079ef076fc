"""A policy after changes (SPEC 6.1). A change produces a new policy, or is rejected as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sgfast.base.errors import PolicyError
from sgfast.base.spelling import did_you_mean
from sgfast.policy.changes import (
    AddAddress,
    AddGroup,
    AddInstance,
    AddMember,
    AddPeering,
    AddRule,
    Change,
    ModifyRule,
    RemoveAddress,
    RemoveGroup,
    RemoveInstance,
    RemoveMember,
    RemovePeering,
    RemoveRule,
    SetAddressGroup,
)
from sgfast.policy.loaded_policy import having, with_group, with_instance
from sgfast.policy.lookup import NamedKind, by_name
from sgfast.policy.model import (
    DEFAULT_GROUP,
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Named,
    Network,
    Policy,
    Rule,
    SecurityGroup,
    mixed_groups,
)
from sgfast.policy.networks import network_key
from sgfast.policy.profiles import PROFILES
from sgfast.policy.ranges import LAST_PORT
from sgfast.policy.templates import RuleNumbers, default_group, next_rule_id


@dataclass(frozen=True, slots=True)
class Changed:
    """The policy after a change, and the groups and instances that the change affects."""

    policy: Policy
    #: Names of groups in which a rule was added, modified or removed, or which an instance joined or left (SPEC 6.3).
    groups: frozenset[str] = frozenset()
    #: Names of instances that joined or left a group, or were added or removed.
    movers: frozenset[str] = frozenset()
    #: Whether only descriptions differ, so that no verdict changes.
    only_words: bool = False

    @property
    def instances(self) -> set[str]:
        """Names of the instances that are or were in one of the affected groups (SPEC 6.3)."""
        members = {item.name for item in self.policy.instances if not self.groups.isdisjoint(item.security_groups)}
        return members | self.movers

    def then(self, change: Change) -> Changed:
        """Combine the earlier changes with one more. Raises PolicyError if it is rejected."""
        after = apply_change(self.policy, change)
        only_words = self.only_words and (after.only_words or after.policy is self.policy)
        return Changed(after.policy, self.groups | after.groups, self.movers | after.movers, only_words)


def unchanged(policy: Policy) -> Changed:
    """Return a policy before its first change, to which ``Changed.then`` adds changes."""
    return Changed(policy, only_words=True)


def apply_changes(policy: Policy, changes: Iterable[Change]) -> Changed:
    """Apply all changes, or raise PolicyError if any of them is rejected."""
    changed = unchanged(policy)
    for change in changes:
        changed = changed.then(change)
    return changed


def apply_change(policy: Policy, change: Change) -> Changed:
    """Apply one change. If the change has no effect, the result has the same policy object. Raises PolicyError if the
    change is rejected.

    Quotas are checked, and whether names are known or taken. Whether names, rules and addresses are valid is not
    checked; ``value_checks`` does that for values that a program made.
    """
    after = _OPERATIONS[type(change)](policy, change)
    if after is policy:
        return Changed(policy)
    groups = frozenset(_affected_groups(policy, after, change))
    movers = frozenset(_movers(change))
    return Changed(after, groups, movers, isinstance(change, ModifyRule) and not groups)


def _affected_groups(before: Policy, after: Policy, change: Change) -> Iterable[str]:
    match change:
        case AddRule(group) | RemoveRule(group) | AddMember(group) | RemoveMember(group):
            return (group,)
        case ModifyRule(group, rule_id):
            old, new = (_rule(policy.group_by_name[group], rule_id) for policy in (before, after))
            return () if replace(old, description=new.description) == new else (group,)
        case AddInstance():
            return after.instances[-1].security_groups
        case RemoveInstance(name):
            return _instance(before, name).security_groups
    return ()


def _movers(change: Change) -> Iterable[str]:
    match change:
        case AddMember(_, name) | RemoveMember(_, name) | RemoveInstance(name):
            return (name,)
        case AddInstance(instance):
            return (instance.name,)
    return ()


# Lookups --------------------------------------------------------------------------------------------------------------


def check_known(policy: Policy, kind: NamedKind, name: str) -> None:
    objects = by_name(policy, kind)
    if name not in objects:
        raise PolicyError(f"unknown {kind} {name!r}{did_you_mean(name, objects)}")


def known_group(policy: Policy, name: str) -> SecurityGroup:
    check_known(policy, "security group", name)
    return policy.group_by_name[name]


def _instance(policy: Policy, name: str) -> Instance:
    check_known(policy, "instance", name)
    return policy.instances[policy._instance_index[name]]


def _rule(group: SecurityGroup, rule_id: str) -> Rule:
    for rule in group.rules:
        if rule.id == rule_id:
            return rule
    hint = did_you_mean(rule_id, (rule.id for rule in group.rules))
    raise PolicyError(f"security group {group.name!r} has no rule {rule_id!r}{hint}")


def check_peer(policy: Policy, rule: Rule, own_group: str) -> None:
    match rule.peer:
        case GroupPeer(name) if name != own_group:
            known_group(policy, name)
        case AddressGroupPeer(name):
            check_known(policy, "address group", name)


def check_ports(policy: Policy, rule: Rule) -> None:
    """Check that the rule is not for port 0 alone if the profile of the policy has no port 0 (SPEC 2.15)."""
    first = PROFILES[policy.settings.profile].first_port
    if rule.ports is not None and rule.ports[0][1] < first:
        raise PolicyError(
            f"ports range from {first} to {LAST_PORT} with the profile {policy.settings.profile}: take port 0 out"
        )


def _check_rule(policy: Policy, rule: Rule, own_group: str) -> None:
    check_peer(policy, rule, own_group)
    check_ports(policy, rule)


def check_addresses(policy: Policy, instance: Instance, addresses: Iterable[Network]) -> None:
    for network in addresses:
        owner = policy._owner_of(instance.vpc, network)
        if owner not in (None, instance.name):
            raise PolicyError(f"{network} already belongs to instance {owner!r} in VPC {instance.vpc!r}")


def _check_id(kind: str, new: Named, named_objects: Iterable[Named]) -> None:
    """Check that no other object of this kind has the provider's id of the new one (SPEC 2.12)."""
    for named_object in named_objects if new.id else ():
        if named_object.id == new.id:
            raise PolicyError(f"{kind} {named_object.name!r} already has the id {new.id!r}")


def check_not_mixed(policy: Policy, instance: Instance) -> None:
    mixed = mixed_groups(instance, policy.group_by_name)
    if mixed:
        raise PolicyError(mixed)


# Rules ----------------------------------------------------------------------------------------------------------------


def _add_rule(policy: Policy, change: AddRule) -> Policy:
    group = known_group(policy, change.group)
    if len(group.rules) >= policy.quotas.rules_per_group:
        raise PolicyError(
            f"security group {group.name!r} already has {len(group.rules)} rules, and the quota is "
            f"{policy.quotas.rules_per_group}: raise quotas.rules_per_group"
        )
    _check_rule(policy, change.rule, group.name)
    rule = change.rule
    numbers = dict(group.numbers)
    owners = policy.group_of_rule
    if rule.id in owners:
        raise PolicyError(f"security group {owners[rule.id]!r} already has a rule {rule.id!r}")
    if not rule.id:
        rule = replace(rule, id=next_rule_id(group, rule.direction, numbers, owners))
    else:
        numbers[rule.direction] += 1
    return with_group(
        policy,
        replace(group, rules=(*group.rules, rule), numbered=(numbers["inbound"], numbers["outbound"]))
    )


def _remove_rule(policy: Policy, change: RemoveRule) -> Policy:
    group = known_group(policy, change.group)
    gone = _rule(group, change.rule)
    numbers = group.numbers
    rules = tuple(rule for rule in group.rules if rule is not gone)
    after = replace(group, rules=rules, numbered=(numbers["inbound"], numbers["outbound"]))
    for direction, number in numbers.items():
        digits = gone.id.removeprefix(f"{group.name}/{direction}/")
        # A number of ten digits need not be remembered, because no group ever has a billion rules.
        if digits != gone.id and len(digits) < 10 and digits.isdecimal() and int(digits) > number:
            after = replace(after, gone=group.gone | {gone.id})
    return with_group(policy, after)


def _modify_rule(policy: Policy, change: ModifyRule) -> Policy:
    group = known_group(policy, change.group)
    old = _rule(group, change.rule)
    new = replace(change.new, id=old.id)
    if new.direction != old.direction:
        raise PolicyError(f"rule {old.id!r} is {old.direction}, which cannot change: remove it and add a new rule")
    _check_rule(policy, new, group.name)
    # A rule that only differs in its spelling still replaces the old rule, because the next change merges with the
    # spelling.
    if new == old and new.wording == old.wording:
        return policy
    return with_group(policy, replace(group, rules=tuple(new if rule is old else rule for rule in group.rules)))


# Membership -----------------------------------------------------------------------------------------------------------


def _add_member(policy: Policy, change: AddMember) -> Policy:
    known_group(policy, change.group)
    instance = _instance(policy, change.instance)
    if change.group in instance.security_groups:
        return policy
    after = replace(instance, security_groups=(*instance.security_groups, change.group))
    check_not_mixed(policy, after)
    return with_instance(policy, after)


def _remove_member(policy: Policy, change: RemoveMember) -> Policy:
    known_group(policy, change.group)
    instance = _instance(policy, change.instance)
    if change.group not in instance.security_groups:
        raise PolicyError(f"instance {instance.name!r} is not in security group {change.group!r}")
    groups = tuple(name for name in instance.security_groups if name != change.group)
    if not groups:
        raise PolicyError(f"instance {instance.name!r} would be left without a security group")
    return with_instance(policy, replace(instance, security_groups=groups))


# Instances and addresses ----------------------------------------------------------------------------------------------


def _add_instance(policy: Policy, change: AddInstance) -> Policy:
    instance = change.instance
    if instance.name in policy._instance_index:
        raise PolicyError(f"instance {instance.name!r} already exists")
    _check_id("instance", instance, policy.instances)
    check_known(policy, "VPC", instance.vpc)
    if not instance.security_groups:
        if DEFAULT_GROUP not in policy.group_by_name:
            policy = _add_group(policy, AddGroup(default_group()))
        instance = replace(instance, security_groups=(DEFAULT_GROUP,))
    for name in instance.security_groups:
        known_group(policy, name)
    check_not_mixed(policy, instance)
    check_addresses(policy, instance, instance.addresses)
    return with_instance(policy, instance)


def _remove_instance(policy: Policy, change: RemoveInstance) -> Policy:
    gone = _instance(policy, change.instance)
    return having(policy, instances=tuple(instance for instance in policy.instances if instance is not gone))


def _add_address(policy: Policy, change: AddAddress) -> Policy:
    instance = _instance(policy, change.instance)
    if change.address in instance.addresses:
        return policy
    check_addresses(policy, instance, (change.address,))
    return with_instance(policy, replace(instance, addresses=(*instance.addresses, change.address)))


def _remove_address(policy: Policy, change: RemoveAddress) -> Policy:
    instance = _instance(policy, change.instance)
    if change.address not in instance.addresses:
        raise PolicyError(f"instance {instance.name!r} has no address {change.address}")
    addresses = tuple(address for address in instance.addresses if address != change.address)
    if not addresses:
        raise PolicyError(f"instance {instance.name!r} would be left without an address")
    return with_instance(policy, replace(instance, addresses=addresses))


# Groups, peerings, address groups -------------------------------------------------------------------------------------


def _add_group(policy: Policy, change: AddGroup) -> Policy:
    group = change.group
    if group.name in policy.group_by_name:
        raise PolicyError(f"security group {group.name!r} already exists")
    _check_id("security group", group, policy.security_groups)
    if group.vpc:
        check_known(policy, "VPC", group.vpc)
    if len(policy.security_groups) >= policy.quotas.security_groups:
        raise PolicyError(
            f"security group {group.name!r} would be number {len(policy.security_groups) + 1}, over the quota of "
            f"{policy.quotas.security_groups}: raise quotas.security_groups"
        )
    if len(group.rules) > policy.quotas.rules_per_group:
        raise PolicyError(
            f"security group {group.name!r} has {len(group.rules)} rules, over the quota of "
            f"{policy.quotas.rules_per_group}: raise quotas.rules_per_group"
        )
    for rule in group.rules:
        _check_rule(policy, rule, group.name)
    numbers = RuleNumbers(group.name)
    rules_with_ids = [(rule, numbers.id_of(rule.direction, rule.id)) for rule in group.rules]
    group = replace(group, rules=tuple([rule if rule.id else replace(rule, id=new) for rule, new in rules_with_ids]))
    ids = [rule.id for rule in group.rules]
    used_ids = {rule.id for present in policy.security_groups for rule in present.rules}
    for n, rule_id in enumerate(ids):
        if rule_id in used_ids or rule_id in ids[:n]:
            raise PolicyError(f"rule {rule_id!r} already exists")
    return having(policy, security_groups=(*policy.security_groups, group))


def _remove_group(policy: Policy, change: RemoveGroup) -> Policy:
    gone = known_group(policy, change.group)
    if gone.name == DEFAULT_GROUP:
        raise PolicyError(f"the group {DEFAULT_GROUP!r} cannot be deleted")
    for instance in policy.instances:
        if gone.name in instance.security_groups:
            raise PolicyError(f"instance {instance.name!r} is still in security group {gone.name!r}")
    for group in policy.security_groups:
        for rule in group.rules:
            if rule.peer == GroupPeer(gone.name) and group is not gone:
                raise PolicyError(f"rule {rule.id!r} still names security group {gone.name!r}")
    return having(policy, security_groups=tuple(group for group in policy.security_groups if group is not gone))


def _add_peering(policy: Policy, change: AddPeering) -> Policy:
    pair = _pair(policy, change.vpc_a, change.vpc_b)
    return policy if pair in policy.peerings else having(policy, peerings=policy.peerings | {pair})


def _remove_peering(policy: Policy, change: RemovePeering) -> Policy:
    pair = _pair(policy, change.vpc_a, change.vpc_b)
    if pair not in policy.peerings:
        raise PolicyError(f"VPCs {change.vpc_a!r} and {change.vpc_b!r} are not peered")
    return having(policy, peerings=policy.peerings - {pair})


def _pair(policy: Policy, vpc_a: str, vpc_b: str) -> frozenset[str]:
    check_known(policy, "VPC", vpc_a)
    check_known(policy, "VPC", vpc_b)
    if vpc_a == vpc_b:
        raise PolicyError(f"VPC {vpc_a!r} cannot be peered with itself")
    return frozenset((vpc_a, vpc_b))


def _set_address_group(policy: Policy, change: SetAddressGroup) -> Policy:
    check_known(policy, "address group", change.name)
    before = policy.address_group_by_name[change.name]
    if set(map(network_key, before.addresses)) == set(map(network_key, change.addresses)):
        return policy
    new = replace(before, addresses=change.addresses)
    groups = tuple(new if group.name == change.name else group for group in policy.address_groups)
    return having(policy, address_groups=groups)


_OPERATIONS: dict[type, Callable[..., Policy]] = {
    AddRule: _add_rule, RemoveRule: _remove_rule, ModifyRule: _modify_rule, AddMember: _add_member,
    RemoveMember: _remove_member, AddInstance: _add_instance, RemoveInstance: _remove_instance,
    AddAddress: _add_address, RemoveAddress: _remove_address, AddGroup: _add_group, RemoveGroup: _remove_group,
    AddPeering: _add_peering, RemovePeering: _remove_peering, SetAddressGroup: _set_address_group,
}  # fmt: skip
