"""Indexes of a policy for the checks: which sets of groups apply where, and which addresses each VPC sees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sgfast.policy.matching import groups_of
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Policy, Rule
from sgfast.rules.addresses import (
    NOBODY,
    NamedNetworks,
    Span,
    contexts_of,
    named_networks,
    pieces,
    span_of,
    with_multicast,
)
from sgfast.rules.plane import lying_in
from sgfast.rules.services import Mask

#: A prefix, the groups that contain its addresses and that rules name, and the position of its instance.
Prefix = tuple[Span, frozenset[str], int]

#: In place of an instance's position, for addresses that no instance owns, or several.
NOT_ONE = -1
#: The most prefixes processed for all views together.
MAX_PREFIXES = 1_000_000


@dataclass(frozen=True, slots=True)
class Context:
    """A set of groups that instances in one VPC have. All rules of these groups apply to the instances (SPEC 1)."""

    #: Positions of the groups in the policy, in order.
    groups: tuple[int, ...]
    vpc: str
    #: Positions of the instances. Empty for a group without instances, which is checked as if it had one.
    instances: tuple[int, ...]


class Budget:
    """A budget of steps. If it is spent, ``take`` refuses; the question stays open, and the report mentions it."""

    def __init__(self, steps: int) -> None:
        self._steps_left = steps

    def take(self, steps: int) -> bool:
        if steps > self._steps_left:
            return False
        self._steps_left -= steps
        return True


class PeerClasses:
    """Classes of one family's addresses, as the rules of instances in one VPC distinguish them (SPEC 4.11, 7.1): by the
    innermost network that a rule names, and by the groups that contain the address and that rules name.
    """

    def __init__(
        self, policy: Policy, vpc: str, named: NamedNetworks, visible: Mapping[str, Sequence[Prefix]], family: int
    ) -> None:
        """``visible``: the prefixes of instances, by VPC: this VPC first, then its peers."""
        self._policy = policy
        self._named = named
        memberships: dict[frozenset[str], int] = {frozenset(): NOBODY}
        regions = policy.vpc_by_name
        # The membership and the instance of each owner. The first owner is NOBODY.
        owners: list[tuple[int, int]] = [(NOBODY, NOT_ONE)]
        # The owner of each span, and whether it is in this VPC, whose addresses take precedence over its peers'.
        owned: dict[Span, tuple[int, bool]] = {}
        for seen_vpc, spans in visible.items():
            is_own_vpc, reachable = seen_vpc == vpc, regions[seen_vpc].region == regions[vpc].region
            for span, groups, place in spans:
                member = memberships.setdefault(groups, len(memberships)) if reachable else NOBODY
                owned.setdefault(span, (len(owners), is_own_vpc))
                owners.append((member, place))
        owned = with_multicast(owned, family, lambda _: NOBODY)
        self._memberships = len(memberships)
        self._memberships_of: dict[str, list[int]] = {}
        for groups, number in memberships.items():
            for group in groups:
                self._memberships_of.setdefault(group, []).append(number)
        instance_of: dict[tuple[int, int], int] = {}
        for _, _, inside, owner in pieces(owned, family, named.number):
            member, place = owners[owner]
            if instance_of.setdefault((inside, member), place) != place:
                instance_of[inside, member] = NOT_ONE
        classes = sorted(instance_of)
        self.count = len(classes)
        self._inside = np.array([inside for inside, _ in classes], dtype=np.int64)
        self._member = np.array([member for _, member in classes], dtype=np.int64)
        #: The position of the instance that owns all addresses of a class, by class; or NOT_ONE.
        self._instance = np.array([instance_of[key] for key in classes], dtype=np.int64)
        self._groups: dict[str, Mask] = {}
        self._instances_in: dict[str, frozenset[int]] = {}

    def matching(self, rule: Rule) -> Mask:
        """Return the classes that the rule's peer matches. The rule must be of this family."""
        if isinstance(rule.peer, GroupPeer):
            return self._members(rule.peer.name)
        return lying_in(self._named.within(named_networks(self._policy, rule)), self._inside)

    def others(self, place: int | None) -> Mask:
        """Return the classes with addresses that are not those of the instance at a position; None: all classes."""
        return np.ones(self.count, dtype=bool) if place is None else self._instance != place

    def instances(self, classes: Mask) -> frozenset[int]:
        """Return the positions of the instances that own whole classes; NOT_ONE if a class has no single owner."""
        return frozenset(np.unique(self._instance[classes]).tolist())

    def ends(self, rule: Rule) -> Set[int]:
        """Return the positions of the instances that own all addresses of the rule's peer; only NOT_ONE if the peer has
        other addresses. The rule must be of this family.
        """
        if isinstance(rule.peer, GroupPeer):
            group = rule.peer.name
            if group not in self._instances_in:
                self._instances_in[group] = self.instances(self._members(group))
            return self._instances_in[group]
        end_instances: set[int] = set()
        for bounds in self._named.within(named_networks(self._policy, rule)):
            first, end = np.searchsorted(self._inside, bounds)
            end_instances.add(int(self._instance[first]))
            if NOT_ONE in end_instances or (self._instance[first:end] != self._instance[first]).any():
                return {NOT_ONE}
        return end_instances

    def _members(self, group: str) -> Mask:
        if group not in self._groups:
            of_membership = np.zeros(self._memberships, dtype=bool)
            of_membership[self._memberships_of.get(group, [])] = True
            self._groups[group] = of_membership[self._member]
        return self._groups[group]


class PolicyIndex:
    """A policy's contexts, and its addresses as each VPC sees them."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._prefixes_left = Budget(MAX_PREFIXES)
        self._named: dict[int, NamedNetworks] = {}
        self._views: dict[tuple[str, int], PeerClasses | None] = {}

    @cached_property
    def contexts(self) -> list[Context]:
        """The contexts of instances, those with fewest groups first, then one for each group without instances. If such
        a group does not say its VPC, it is the first one.
        """
        contexts_by_key = contexts_of(self.policy)
        used = {group for groups, _ in contexts_by_key for group in groups}
        contexts = [Context(groups, vpc, tuple(places)) for (groups, vpc), places in contexts_by_key.items()]
        contexts.sort(key=lambda context: len(context.groups))
        groups, first = self.policy.security_groups, self.policy.vpcs[0].name
        return contexts + [
            Context((n,), empty_group.vpc or first, ()) for n, empty_group in enumerate(groups) if n not in used
        ]

    @cached_property
    def members(self) -> dict[str, list[int]]:
        """The positions of each group's instances."""
        members_of: dict[str, list[int]] = {group.name: [] for group in self.policy.security_groups}
        for place, instance in enumerate(self.policy.instances):
            for name in set(instance.security_groups):
                members_of[name].append(place)
        return members_of

    @cached_property
    def named_groups(self) -> frozenset[str]:
        return frozenset(
            rule.peer.name
            for group in self.policy.security_groups
            for rule in group.rules
            if isinstance(rule.peer, GroupPeer)
        )

    @cached_property
    def _owned(self) -> dict[int, dict[str, list[Prefix]]]:
        """Owned prefixes by family and VPC."""
        owned: dict[int, dict[str, list[Prefix]]] = {4: {}, 6: {}}
        named_of_groups: dict[frozenset[str], frozenset[str]] = {}
        for place, instance in enumerate(self.policy.instances):
            for network in instance.addresses:
                groups = groups_of(self.policy, instance, network)
                if groups not in named_of_groups:
                    named_of_groups[groups] = self.named_groups & groups
                of_vpc = owned[network.version].setdefault(instance.vpc, [])
                of_vpc.append((span_of(network), named_of_groups[groups], place))
        return owned

    @cached_property
    def members_by_family(self) -> dict[tuple[str, int], set[int]]:
        """The positions of a group's instances with an address of a family, as rules that name the group see it."""
        members_of: dict[tuple[str, int], set[int]] = defaultdict(set)
        for place, instance in enumerate(self.policy.instances):
            for network in instance.addresses:
                for group in groups_of(self.policy, instance, network):
                    members_of[group, network.version].add(place)
        return members_of

    def named(self, family: int) -> NamedNetworks:
        if family not in self._named:
            self._named[family] = NamedNetworks([self.policy], family)
        return self._named[family]

    def view(self, vpc: str, family: int) -> PeerClasses | None:
        """Return the classes of addresses that a VPC sees; None if that is too much work."""
        key = (vpc, family)
        if key not in self._views:
            named = self.named(family)
            self._views[key] = None
            of_vpc = self._owned[family]
            visible = {
                seen_vpc: of_vpc[seen_vpc] for seen_vpc in self.policy._connected_vpcs[vpc] if seen_vpc in of_vpc
            }
            if self._prefixes_left.take(len(named.spans) + sum(map(len, visible.values()))):
                self._views[key] = PeerClasses(self.policy, vpc, named, visible, family)
        return self._views[key]

    def is_nobody(self, rule: Rule, vpc: str, only: int | None = None) -> bool | None:
        """Return whether a rule's peer is nobody, seen from a VPC; None if that is too much work. ``only``: position
        of the only instance in the VPC that the rule applies to; it is no peer of itself.
        """
        peer, families = rule.peer, self._families_of_address_group
        if isinstance(peer, AddressGroupPeer) and rule.ethertype not in families[peer.name]:
            return True
        if rule.peer is None or (only is None and not isinstance(rule.peer, GroupPeer)):
            return False
        view = self.view(vpc, rule.ethertype)
        return None if view is None else view.ends(rule) <= {only}

    @cached_property
    def only_member(self) -> dict[tuple[int, str], int]:
        """The position of the only instance in a group and a VPC, by the group's position and the VPC."""
        members_of: dict[tuple[int, str], list[int]] = defaultdict(list)
        for g, group in enumerate(self.policy.security_groups):
            for n in self.members[group.name]:
                members_of[g, self.policy.instances[n].vpc].append(n)
        return {key: members[0] for key, members in members_of.items() if len(members) == 1}

    @cached_property
    def _families_of_address_group(self) -> dict[str, set[int]]:
        return {
            group.name: {network.version for network in group.addresses} for group in self.policy.address_groups
        }
