"""Machines that stand for the members of groups of which no file of an export says who is in them (SPEC 12.8).

A group of another account, or of another state of Terraform, has members all the same. So a comparison gives each such
group a machine with an address that no rule names by itself, under both policies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from itertools import count
from typing import Literal

from sgfast.policy.loaded_policy import having
from sgfast.policy.model import AddressGroup, Direction, GroupPeer, Instance, Network, Policy, Rule, SecurityGroup
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.rows import Row

#: The addresses of the machines follow these, which nobody has: the reserved block of IPv4, the discard-only of IPv6.
_FIRST = IPv4Address("240.0.0.0"), IPv6Address("100::")
#: The beginning of the ids of rules that stand for rules that no file has.
_MADE_UP = "\0unknown/"
_VERSIONS: tuple[Literal[4, 6], ...] = (4, 6)


@dataclass(frozen=True, slots=True)
class _Marked:
    """Names under one policy."""

    groups: frozenset[str]
    lists: frozenset[str]
    #: The groups of the machines, by the names of these.
    group_of: dict[str, str]


class UnknownMembers:
    """Two policies with machines for the members that nobody knows. ``policies``: OLD and NEW with these."""

    def __init__(self, old: Policy, new: Policy) -> None:
        """``old`` and ``new`` call the same VPC by the same name."""
        self.policies: list[Policy] = [old, new]
        self._marked = [_Marked(frozenset(), frozenset(), {})] * 2
        groups_by_key = [{_key(group): group for group in policy.security_groups} for policy in self.policies]
        unknown = dict.fromkeys(
            key for policy, groups in zip(self.policies, groups_by_key, strict=True) for key, group in groups.items()
            if group.name in policy.gaps.unresolved or group.name in policy.gaps.memberless
        )  # fmt: skip
        if not unknown and not (old.gaps.lists or new.gaps.lists):
            return
        addresses = _free_addresses(self.policies)
        vpcs = _vpcs(self.policies, groups_by_key)
        machines_of_group = {key: [(vpc, next(addresses)) for vpc in vpcs[key]] for key in unknown}
        lists = dict.fromkeys(
            _key(address_group) for policy in self.policies for address_group in policy.address_groups
            if address_group.name in policy.gaps.lists
        )  # fmt: skip
        of_lists = {key: next(addresses) for key in lists}
        for n, groups in enumerate(groups_by_key):
            self._fill(n, groups_by_key, groups, machines_of_group, of_lists)

    def _fill(
        self, n: int, groups_by_key: Sequence[dict[str, SecurityGroup]], groups: dict[str, SecurityGroup],
        machines_of_group: dict[str, list[tuple[str, tuple[Network, ...]]]], of_lists: dict[str, tuple[Network, ...]],
    ) -> None:  # fmt: skip
        policy, other_policy = self.policies[n], self.policies[1 - n]
        after = dict(groups)
        machines: list[Instance] = []
        group_of: dict[str, str] = {}
        for key, places in machines_of_group.items():
            sides = ((policy, groups), (other_policy, groups_by_key[1 - n]))
            groups_of_key = [(its_policy, by_key[key]) for its_policy, by_key in sides if key in by_key]
            group = groups.get(key) or SecurityGroup(_free(key, policy.group_by_name))
            # Nobody knows the other rules of a group that no file has: they pass the same under both policies.
            if all(its_group.name in its_policy.gaps.unresolved for its_policy, its_group in groups_of_key):
                told_directions = {rule.direction for _, its_group in groups_of_key for rule in its_group.rules}
                group = replace(group, rules=(*group.rules, *_passing(group.name, told_directions)))
            after[key] = group
            for vpc, networks in places:
                if vpc in policy.vpc_by_name:
                    name = _free(f"{group.name} in {vpc}", (*policy.instance_by_name, *group_of))
                    group_of[name] = group.name
                    machines.append(Instance(name, vpc, networks, (group.name,)))
        address_groups = [
            replace(address_group, addresses=of_lists[_key(address_group)])
            if _key(address_group) in of_lists and not address_group.addresses else address_group
            for address_group in policy.address_groups
        ]
        names = frozenset(after[key].name for key in machines_of_group)
        self._marked[n] = _Marked(names, policy.gaps.lists, group_of)
        self.policies[n] = having(
            policy, security_groups=tuple(after.values()), address_groups=tuple(address_groups),
            instances=(*policy.instances, *machines),
        )  # fmt: skip

    def marked(self, row: Row, policy: int) -> Row:
        """Return a row in which groups of unknown members are marked, and machines are called by their groups."""
        marked = self._marked[policy]
        if not (marked.groups or marked.lists):
            return row
        rules = tuple(rule_row for rule_row in row.rules if not rule_row.rule.id.startswith(_MADE_UP))
        return replace(
            row, sources=self._parts(row.sources, marked), destinations=self._parts(row.destinations, marked),
            rules=rules,
        )  # fmt: skip

    @staticmethod
    def _parts(parts: Iterable[Part], marked: _Marked) -> tuple[Part, ...]:
        marked_parts = []
        for part in parts:
            if part.kind == "instance" and part.name in marked.group_of:
                part = replace(part, kind="group", name=marked.group_of[part.name], addresses=(), is_unknown=True)
            elif part.name in {"group": marked.groups, "address-group": marked.lists}.get(part.kind, ()):
                part = replace(part, is_unknown=True)
            marked_parts.append(part)
        return tuple(dict.fromkeys(marked_parts))


def _key(group: SecurityGroup | AddressGroup) -> str:
    """Return what a group is known by under both policies."""
    return group.id or group.name


def _free(name: str, taken_names: Iterable[str]) -> str:
    name_set = set(taken_names)
    return name if name not in name_set else next(
        free for number in count(2) if (free := f"{name} ({number})") not in name_set
    )


def _passing(group: str, told_directions: set[Direction]) -> Iterator[Rule]:
    """Yield rules that let everything pass in the directions of which no file has a rule."""
    ways: tuple[Direction, ...] = ("inbound", "outbound")
    for way in ways:
        for version in _VERSIONS if way not in told_directions else ():
            yield Rule(f"{_MADE_UP}{group}/{way}/{version}", way, version)


def _free_addresses(policies: Sequence[Policy]) -> Iterator[tuple[Network, ...]]:
    owned = {network for policy in policies for instance in policy.instances for network in instance.addresses}
    for number in count(1):
        networks = tuple(ip_network(first + number) for first in _FIRST)
        if owned.isdisjoint(networks):
            yield networks


def _vpcs(policies: Sequence[Policy], groups_by_key: Sequence[dict[str, SecurityGroup]]) -> dict[str, list[str]]:
    """Return the VPCs in which a group's members may be, by the group's key: those of its known members, and of the
    members of groups with which its rules connect it. Without any, the first one.
    """
    vpcs_by_key: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for policy, groups in zip(policies, groups_by_key, strict=True):
        keys = {group.name: key for key, group in groups.items()}
        of_members: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for instance in policy.instances:
            for name in instance.security_groups:
                of_members[name][instance.vpc] = None
        for group in policy.security_groups:
            vpcs_by_key[keys[group.name]].update(of_members[group.name])
            for rule in group.rules:
                if isinstance(rule.peer, GroupPeer):
                    vpcs_by_key[keys[rule.peer.name]].update(of_members[group.name])
                    vpcs_by_key[keys[group.name]].update(of_members[rule.peer.name])
    return {key: [*vpcs_by_key[key]] or [policies[1].vpcs[0].name] for groups in groups_by_key for key in groups}
