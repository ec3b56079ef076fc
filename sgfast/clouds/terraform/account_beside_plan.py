"""Add to a plan the groups, lists and instances of the account of which the plan says nothing (SPEC 10.14).

A plan holds what one configuration manages. Its prior state and its result, both as drafts, get everything else from a
policy of the account as it is today. What the plan manages counts as the plan has it: what it takes away does not come
back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sgfast.clouds.importing.draft import Draft, DraftInstance, DraftRule, protocol_of
from sgfast.clouds.importing.object_location import Location
from sgfast.clouds.importing.values import address_text, one_network
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Named, Network, Policy, Rule
from sgfast.policy.networks import network_key
from sgfast.policy.ranges import union


def add_account(drafts: Sequence[Draft], account: Policy) -> None:
    """Add to the drafts of a plan what ``account`` has beside it. ``drafts``: the prior state, and the result."""
    beside = _Beside(drafts, account)
    for draft in drafts:
        beside.add_to(draft)


class _Beside:
    def __init__(self, drafts: Sequence[Draft], account: Policy) -> None:
        self._account = account
        prior = drafts[0]
        self._groups = _Known(location for draft in drafts for location in draft.group_locations)
        self._lists = _Known(location for draft in drafts for location in draft.address_group_locations)
        managed = [instance for draft in drafts for instance in draft.instances]
        self._instances = {instance.location.id for instance in managed}
        self._vpcs = _Known(location for draft in drafts for location in draft.vpc_locations)
        vpcs = {*self._vpcs.ids, *(instance.vpc for instance in managed)}
        #: The only VPC of the plan, which the only VPC of a policy without ids is.
        self._only_vpc = vpcs.pop() if len(vpcs) == 1 and len(account.vpcs) == 1 and not account.vpcs[0].id else None
        self._owned = {
            (instance.vpc, network_key(one_network(instance.location, text)))
            for instance in managed for text in instance.addresses
        }  # fmt: skip
        self._peerings = {frozenset(pair) for draft in drafts for pair in draft.peering_pairs}
        #: Rules of the prior state, which are among those of today.
        self._old_rules = {(group, meaning(rule)) for group, rule in prior.rules}
        self._old_ids = {rule.id for _, rule in prior.rules if rule.id}

    def add_to(self, draft: Draft) -> None:
        account, gaps = self._account, self._account.gaps
        for vpc in account.vpcs:
            if (identity := self._vpc(vpc.name)) and identity not in {location.id for location in draft.vpc_locations}:
                draft.vpc(self._location("VPC", vpc, identity), vpc.region)
        for a, b in map(sorted, account.peerings):
            pair = self._vpc(a), self._vpc(b)
            if frozenset(pair) not in self._peerings:
                draft.peering(Location(account.origin, "VPC peering", " and ".join(pair)), *pair)
        for address_group in account.address_groups:
            identity = self._lists.id_of(address_group)
            if address_group.name not in gaps.lists and identity not in self._lists.ids:
                location = self._location(draft.list_word, address_group, identity)
                draft.address_group(location, map(address_text, address_group.addresses))
        for group in account.security_groups:
            identity = self._groups.id_of(group)
            if group.name not in gaps.memberless:
                draft.whole_groups.add(identity)
            if group.name in gaps.unresolved or identity in self._groups.ids:
                continue
            location = self._location("security group", group, identity)
            draft.group(location, group.description, stateful=group.stateful)
            for rule in map(self._rule, group.rules):
                is_of_plan = (identity, meaning(rule)) in self._old_rules or rule.id in self._old_ids
                if not is_of_plan:
                    rule.location = location.part(f"rule {rule.id}")
                    draft.rule(identity, rule)
        for instance in account.instances:
            identity, home = instance.id or instance.name, self._vpc(instance.vpc)
            is_managed = any((home, network_key(network)) in self._owned for network in instance.addresses)
            if is_managed or identity in self._instances:
                continue
            joined = [self._groups.id_of(account.group_by_name[name]) for name in instance.security_groups]
            groups = [group for group in joined if draft.has_group(group) or group not in self._groups.ids]
            location = self._location("instance", instance, identity)
            addresses = [*map(address_text, instance.addresses)]
            draft.instance(DraftInstance(location, home, addresses, groups, device=instance.device))

    def _location(self, kind: str, item: Named, identity: str) -> Location:
        words = item.label or (item.name if item.name != identity else "")
        return Location(self._account.origin, kind, identity, words)

    def _vpc(self, name: str) -> str:
        return self._vpcs.id_of(self._account.vpc_by_name[name]) if self._only_vpc is None else self._only_vpc

    def _rule(self, rule: Rule) -> DraftRule:
        draft_rule = DraftRule(
            Location(self._account.origin, "rule", rule.id), rule.direction, rule.ethertype, rule.protocol, rule.ports,
            rule.icmp_type, rule.icmp_code, action=rule.action, priority=rule.priority, description=rule.description,
            id=rule.id,
        )  # fmt: skip
        match rule.peer:
            case GroupPeer(name):
                draft_rule.group = self._groups.id_of(self._account.group_by_name[name])
            case AddressGroupPeer(name):
                draft_rule.address_group = self._lists.id_of(self._account.address_group_by_name[name])
            case None:
                pass
            case network:
                draft_rule.cidr = address_text(network)
        return draft_rule


class _Known:
    """The objects of one kind that a plan manages, and their ids."""

    def __init__(self, locations: Iterable[Location]) -> None:
        by_id = {location.id: location for location in locations}
        self.ids = frozenset(by_id)
        self._by_name = {location.name: location.id for location in by_id.values() if location.name}

    def id_of(self, item: Named) -> str:
        """Return the id of an object of today's policy: its own, or that of the plan's object of this name."""
        if item.id or item.name in self.ids:
            return item.id or item.name
        return self._by_name.get(item.name, item.name)


def meaning(rule: DraftRule) -> tuple[Any, ...]:
    """Return what a rule says, however it is written."""
    network: Network | None = one_network(rule.location, rule.cidr) if rule.cidr else None
    peer = None if network is None or not network.prefixlen else str(network)
    ports = None if rule.ports is None else tuple(union(rule.ports))
    return (
        rule.direction, rule.ethertype, protocol_of(rule), ports, rule.icmp_type, rule.icmp_code, peer, rule.group,
        rule.address_group, rule.action, rule.priority,
    )  # fmt: skip
