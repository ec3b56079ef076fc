"""Indexes a policy for the checks: which sets of groups apply where, and which addresses each VPC sees."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property

from sgfast.policy.matching import groups_of
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Policy, Rule
from sgfast.space import NamedNetworks, Owned, View, contexts_of

#: The most prefixes processed for all views together.
MAX_PREFIXES = 1_000_000


@dataclass(frozen=True, slots=True)
class Context:
    """A set of groups that instances in one VPC have: they are subject to the union of its rules (SPEC 1)."""

    #: Positions of the groups in the policy, in order.
    groups: tuple[int, ...]
    vpc: str
    #: Positions of the instances. Empty for a group without instances, which is checked as if it had one.
    instances: tuple[int, ...]


class Budget:
    """A budget of steps. If it refuses, the question stays open, and the report says so."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def take(self, steps: int) -> bool:
        if steps > self._left:
            return False
        self._left -= steps
        return True


class PolicyIndex:
    """A policy's contexts, and its addresses as each VPC sees them."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._prefixes_left = Budget(MAX_PREFIXES)
        self._named: dict[int, NamedNetworks] = {}
        self._views: dict[tuple[str, int], View | None] = {}

    @cached_property
    def contexts(self) -> list[Context]:
        """The contexts that instances are in, fewest groups first, then one for each group without instances."""
        found = contexts_of(self.policy)
        used = {group for groups, _ in found for group in groups}
        contexts = [Context(groups, vpc, tuple(places)) for (groups, vpc), places in found.items()]
        contexts.sort(key=lambda context: len(context.groups))
        vpc = self.policy.vpcs[0].name
        return contexts + [Context((n,), vpc, ()) for n in range(len(self.policy.security_groups)) if n not in used]

    @cached_property
    def members(self) -> dict[str, list[int]]:
        """The positions of each group's instances."""
        found: dict[str, list[int]] = {group.name: [] for group in self.policy.security_groups}
        for place, instance in enumerate(self.policy.instances):
            for name in set(instance.security_groups):
                found[name].append(place)
        return found

    @cached_property
    def named_groups(self) -> frozenset[str]:
        return frozenset(
            rule.peer.name
            for group in self.policy.security_groups
            for rule in group.rules
            if isinstance(rule.peer, GroupPeer)
        )

    @cached_property
    def _peers(self) -> dict[str, list[str]]:
        peers: dict[str, list[str]] = {vpc.name: [] for vpc in self.policy.vpcs}
        for pair in self.policy.peerings:
            for one in pair:
                peers[one] += [other for other in pair if other != one]
        return peers

    @cached_property
    def _owned(self) -> dict[int, dict[str, list[Owned]]]:
        """Owned prefixes by family and VPC."""
        owned: dict[int, dict[str, list[Owned]]] = {4: {}, 6: {}}
        known: dict[frozenset[str], frozenset[str]] = {}
        for place, instance in enumerate(self.policy.instances):
            for network in instance.addresses:
                groups = groups_of(self.policy, instance, network)
                if groups not in known:
                    known[groups] = self.named_groups & groups
                span = (int(network.network_address), -int(network.broadcast_address))
                owned[network.version].setdefault(instance.vpc, []).append((span, known[groups], place))
        return owned

    @cached_property
    def members_by_family(self) -> dict[tuple[str, int], set[int]]:
        """The positions of the instances that have an address of a family in a group, as rules that name it see it."""
        found: dict[tuple[str, int], set[int]] = defaultdict(set)
        for place, instance in enumerate(self.policy.instances):
            for network in instance.addresses:
                for group in groups_of(self.policy, instance, network):
                    found[group, network.version].add(place)
        return found

    def named(self, family: int) -> NamedNetworks:
        if family not in self._named:
            self._named[family] = NamedNetworks([self.policy], family)
        return self._named[family]

    def view(self, vpc: str, family: int) -> View | None:
        """The addresses as a VPC sees them; None if that is too much work."""
        key = (vpc, family)
        if key not in self._views:
            named = self.named(family)
            self._views[key] = None
            of_vpc = self._owned[family]
            visible = {vpc: of_vpc.get(vpc, [])} | {peer: of_vpc[peer] for peer in self._peers[vpc] if peer in of_vpc}
            if self._prefixes_left.take(len(named.spans) + sum(map(len, visible.values()))):
                self._views[key] = View(self.policy, vpc, named, visible, family)
        return self._views[key]

    def is_nobody(self, rule: Rule, vpc: str, only: int | None = None) -> bool | None:
        """Whether a rule's peer is nobody, seen from a VPC; None if that is too much work. ``only``: the position of
        the only instance there that the rule applies to, which is no peer of itself.
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
        """The position of the only instance that is in a group and a VPC, by the group's position and the VPC."""
        found: dict[tuple[int, str], int] = {}
        for g, group in enumerate(self.policy.security_groups):
            counts = Counter(self.policy.instances[n].vpc for n in self.members[group.name])
            found |= {
                (g, self.policy.instances[n].vpc): n for n in self.members[group.name]
                if counts[self.policy.instances[n].vpc] == 1
            }  # fmt: skip
        return found

    @cached_property
    def _families_of_address_group(self) -> dict[str, set[int]]:
        return {
            group.name: {network.version for network in group.addresses} for group in self.policy.address_groups
        }
