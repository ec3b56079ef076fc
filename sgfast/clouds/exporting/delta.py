"""The steps that change the groups of one policy into the groups of another policy (SPEC 13.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

from sgfast.base.errors import ExportError
from sgfast.policy.matching import RuleInGroup
from sgfast.policy.model import (
    DEFAULT_GROUP,
    AddressGroup,
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Policy,
    Rule,
    SecurityGroup,
    Vpc,
)
from sgfast.policy.yaml_nodes import shown_origin

Item = TypeVar("Item", SecurityGroup, AddressGroup, Instance, Vpc)


@dataclass(frozen=True, slots=True)
class Membership:
    """A step that sets the groups of an instance."""

    instance: Instance
    #: The names of the groups that the instance is in after the step.
    groups: tuple[str, ...]
    #: The names of the groups that the instance is in before all steps.
    had: tuple[str, ...]
    #: The instance's name in the old policy; its own name if the old policy does not have it.
    old_name: str


@dataclass(frozen=True, slots=True)
class PolicyDelta:
    """The steps from the groups of ``old`` to the groups of ``new``, in the order in which they are made.

    Additions come before removals, so that no packet is denied in between that both policies allow. Objects have their
    names in ``new``. Deleted objects have their names in ``old``.
    """

    old: Policy | None
    new: Policy
    address_groups: tuple[AddressGroup, ...]
    #: Address groups that stay, with only the addresses to add.
    addresses: tuple[AddressGroup, ...]
    #: Security groups to make.
    groups: tuple[SecurityGroup, ...]
    #: The rules to add, including the rules of new groups.
    rules: tuple[RuleInGroup, ...]
    #: The memberships of instances that join groups. These instances are in their groups of both policies meanwhile.
    memberships: tuple[Membership, ...]
    #: The memberships of instances that leave groups. These instances are then only in their groups of ``new``.
    memberships_taken: tuple[Membership, ...]
    #: The rules to remove, with their ids in ``old``. A cloud does not delete a group while a rule of another group
    #: names it, so this includes rules of deleted groups that name other deleted groups.
    rules_taken: tuple[RuleInGroup, ...]
    #: The rules that stay in groups that stay, with their ids in ``old``.
    rules_kept: tuple[RuleInGroup, ...]
    groups_deleted: tuple[SecurityGroup, ...]
    #: Address groups that stay, with only the addresses to remove.
    addresses_taken: tuple[AddressGroup, ...]
    address_groups_deleted: tuple[AddressGroup, ...]
    #: Groups of ``old`` that are also in ``new``, by their names in ``new``.
    kept_groups: Mapping[str, SecurityGroup]
    kept_address_groups: Mapping[str, AddressGroup]

    @property
    def members(self) -> list[Membership]:
        """The first membership step of each instance whose groups change."""
        return [*{step.instance.name: step for step in (*self.memberships_taken, *self.memberships)}.values()]

    @property
    def groups_there(self) -> dict[str, SecurityGroup]:
        """The groups that exist before all steps, by their names in the delta."""
        groups = {name: self.new.group_by_name[name] for name in self.kept_groups}
        kept_names = {was.name for was in self.kept_groups.values()}
        old = self.old.security_groups if self.old is not None else ()
        return groups | {group.name: group for group in old if group.name not in kept_names}

    def mentioned(self, more: Iterable[RuleInGroup] = ()) -> set[tuple[str, str]]:
        """Return kind ("group" or "addresses") and name of all groups that the steps or ``more`` rules mention."""
        mentioned = {("group", deleted_group.name) for deleted_group in self.groups_deleted}
        of_addresses = (self.addresses, self.addresses_taken, self.address_groups_deleted)
        mentioned.update(("addresses", addresses.name) for addresses in chain(*of_addresses))
        for group_rule in (*self.rules, *self.rules_taken, *more):
            mentioned.add(("group", group_rule.group))
            match group_rule.rule.peer:
                case GroupPeer(name):
                    mentioned.add(("group", name))
                case AddressGroupPeer(name):
                    mentioned.add(("addresses", name))
        for member in (*self.memberships, *self.memberships_taken):
            mentioned.update(("group", name) for name in member.groups)
        return mentioned


def policy_delta(old: Policy | None, new: Policy) -> PolicyDelta:
    """Find the steps from ``old`` to ``new``. Without ``old``, the account has instances and VPCs, but no groups.

    Two objects are the same if their provider's ids are equal, or else if their names are equal. An object of ``new``
    gets its id in ``old``. Raises ExportError if the policies differ in more than groups, rules and memberships.
    """
    before = old or Policy((), security_groups=())
    origin = shown_origin(new.origin)
    groups = _same(before.security_groups, new.security_groups, "security group", origin)
    kept_address_groups = _same(before.address_groups, new.address_groups, "address group", origin)
    vpcs = _same(before.vpcs, new.vpcs, "VPC", origin)
    instances = _same_instances(before, new, {was.name: name for name, was in vpcs.items()})
    if old is not None:
        _refuse_other_differences(old, new, groups, instances, vpcs)
        new = replace(
            new,
            vpcs=_with_ids(new.vpcs, vpcs),
            address_groups=_with_ids(new.address_groups, kept_address_groups),
            security_groups=_with_ids(new.security_groups, groups),
            instances=_with_ids(new.instances, instances),
        )
    new_name = {was.name: name for name, was in groups.items()}
    new_address_group = {was.name: name for name, was in kept_address_groups.items()}

    def renamed(rule: Rule) -> Rule:
        """Replace the names of ``old`` in a rule's peer by the names of ``new``."""
        match rule.peer:
            case GroupPeer(name) if new_name.get(name, name) != name:
                return replace(rule, peer=GroupPeer(new_name[name]))
            case AddressGroupPeer(name) if new_address_group.get(name, name) != name:
                return replace(rule, peer=AddressGroupPeer(new_address_group[name]))
        return rule

    added: list[RuleInGroup] = []
    removed_rules: list[RuleInGroup] = []
    stay: list[RuleInGroup] = []
    for group in new.security_groups:
        was = groups.get(group.name)
        earlier = [] if was is None else [renamed(rule) for rule in was.rules]
        new_rules = {rule.without_words(): rule for rule in group.rules}
        old_rules = {rule.without_words() for rule in earlier}
        added += [RuleInGroup(group.name, rule) for wordless, rule in new_rules.items() if wordless not in old_rules]
        removed_rules += [RuleInGroup(group.name, rule) for rule in earlier if rule.without_words() not in new_rules]
        stay += [RuleInGroup(group.name, rule) for rule in earlier if rule.without_words() in new_rules]
    gone = [group for group in before.security_groups if group.name not in new_name]
    # No cloud lets users delete the group "default".
    deleted = [group for group in gone if DEFAULT_GROUP not in (group.name, group.label)]
    names = {group.name for group in deleted}
    for group in gone:
        removed_rules += [
            RuleInGroup(group.name, rule) for rule in group.rules
            if isinstance(rule.peer, GroupPeer) and rule.peer.name != group.name and rule.peer.name in names
        ]  # fmt: skip
    joining, leaving = _memberships(new, instances, new_name)
    address_groups = new.address_group_by_name
    return PolicyDelta(
        old,
        new,
        tuple(group for group in new.address_groups if group.name not in kept_address_groups),
        tuple(_surplus((group, kept_address_groups.get(group.name, group)) for group in new.address_groups)),
        tuple(group for group in new.security_groups if group.name not in groups),
        tuple(added),
        tuple(joining),
        tuple(leaving),
        tuple(removed_rules),
        tuple(stay),
        tuple(deleted),
        tuple(_surplus((replace(was, name=name), address_groups[name]) for name, was in kept_address_groups.items())),
        tuple(group for group in before.address_groups if group.name not in new_address_group),
        groups,
        kept_address_groups,
    )


def summary(delta: PolicyDelta) -> str:
    """Summarize the steps: ``makes 2 security groups, adds 5 rules, changes the groups of 3 instances``."""
    parts = [
        f"{verb} {number:,} {item}{'s' if number != 1 else ''}"
        for verb, number, item in (
            ("makes", len(delta.address_groups), "address group"),
            ("adds addresses to", len(delta.addresses), "address group"),
            ("makes", len(delta.groups), "security group"),
            ("adds", len(delta.rules), "rule"),
            ("changes the groups of", len(delta.members), "instance"),
            ("takes away", len(delta.rules_taken), "rule"),
            ("deletes", len(delta.groups_deleted), "security group"),
            ("takes addresses from", len(delta.addresses_taken), "address group"),
            ("deletes", len(delta.address_groups_deleted), "address group"),
        )
        if number
    ]
    return ", ".join(parts) or "changes nothing"


def _same(before: Iterable[Item], after: Iterable[Item], kind: str, origin: str) -> dict[str, Item]:
    """Find the objects of ``before`` that are also in ``after``, by their names in ``after``."""
    by_id = {item.id: item for item in before if item.id}
    by_name = {item.name: item for item in before}
    same_items: dict[str, Item] = {}
    new_names: dict[str, str] = {}
    for item in after:
        was = by_id.get(item.id) or by_name.get(item.name)
        if was is None:
            continue
        if was.id != item.id and was.id and item.id:
            raise ExportError(
                origin,
                f"{kind} {item.name!r}: has the id {was.id} in the old policy, and {item.id} in the new one; "
                "give one of them another name",
            )
        if was.name in new_names:
            message = f"{kind} {was.name!r}: is both {new_names[was.name]!r} and {item.name!r} in the new policy"
            raise ExportError(origin, f"{message}; give one of them another name or id")
        new_names[was.name] = item.name
        same_items[item.name] = was
    return same_items


def _same_instances(before: Policy, new: Policy, vpcs: Mapping[str, str]) -> dict[str, Instance]:
    """Find the instances of ``before`` that are also in ``new``, by ``_same`` or by equal addresses in the same VPC."""
    same_instances = _same(before.instances, new.instances, "instance", shown_origin(new.origin))
    matched_names = {was.name for was in same_instances.values()}
    by_addresses = {
        (vpcs.get(was.vpc), frozenset(was.addresses)): was for was in before.instances if was.name not in matched_names
    }
    for instance in new.instances:
        if instance.name not in same_instances:
            was = by_addresses.get((instance.vpc, frozenset(instance.addresses)))
            if was is not None:
                same_instances[instance.name] = was
    return same_instances


def _with_ids(items: Iterable[Item], kept_items: Mapping[str, Item]) -> tuple[Item, ...]:
    """Return the objects with the provider's ids that the old policy has for them (``kept_items``)."""

    def with_id(item: Item) -> Item:
        was = kept_items.get(item.name)
        return item if was is None or item.id else replace(item, id=was.id or was.name)

    return tuple(map(with_id, items))


def _refuse_other_differences(
    old: Policy,
    new: Policy,
    groups: Mapping[str, SecurityGroup],
    instances: Mapping[str, Instance],
    vpcs: Mapping[str, Vpc],
) -> None:
    origin = shown_origin(new.origin)
    only = "an export changes groups, rules and memberships only; make this change first, and import the account again"
    new_name = {was.name: name for name, was in vpcs.items()}
    peerings = {frozenset(new_name.get(name, name) for name in pair) for pair in old.peerings}
    if peerings != new.peerings:
        pair = min(sorted(ends) for ends in peerings ^ new.peerings)
        raise ExportError(origin, f"the peering of {' and '.join(map(repr, pair))}: is in one policy only; {only}")
    for name, vpc in vpcs.items():
        if vpc.region != new.vpc_by_name[name].region:
            raise ExportError(origin, f"VPC {name!r}: is in another region in the old policy; {only}")
    for name, instance in instances.items():
        now = new.instance_by_name[name]
        if (new_name.get(instance.vpc), set(instance.addresses)) != (now.vpc, set(now.addresses)):
            raise ExportError(origin, f"instance {name!r}: has another VPC or addresses in the old policy; {only}")
    for name, group in groups.items():
        now_in = new.group_by_name[name].vpc
        if group.vpc and now_in and new_name.get(group.vpc) != now_in:
            message = f"security group {name!r}: is in another VPC in the old policy; give the new one another name"
            raise ExportError(origin, message)
        if group.stateful != new.group_by_name[name].stateful:
            message = f"security group {name!r}: is stateful in one policy only; give the new one another name"
            raise ExportError(origin, message)


def _memberships(
    new: Policy, instances: Mapping[str, Instance], new_name: Mapping[str, str]
) -> tuple[list[Membership], list[Membership]]:
    joining: list[Membership] = []
    leaving: list[Membership] = []
    for instance in new.instances:
        was = instances.get(instance.name)
        had = () if was is None else tuple(new_name.get(name, name) for name in was.security_groups)
        old_name = instance.name if was is None else was.name
        all_groups = tuple(dict.fromkeys((*had, *instance.security_groups)))
        if len(all_groups) > len(had):
            joining.append(Membership(instance, all_groups, had, old_name))
        if len(all_groups) > len(instance.security_groups):
            leaving.append(Membership(instance, instance.security_groups, had, old_name))
    return joining, leaving


def _surplus(pairs: Iterable[tuple[AddressGroup, AddressGroup]]) -> Iterator[AddressGroup]:
    """Yield the first address group of each pair with only the addresses that the second group lacks."""
    for group, counterpart in pairs:
        counterpart_addresses: set[Any] = set(counterpart.addresses)
        if surplus := tuple(address for address in group.addresses if address not in counterpart_addresses):
            yield replace(group, addresses=surplus)
