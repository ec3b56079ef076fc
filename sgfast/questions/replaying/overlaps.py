"""Find changes that would let two VPCs own an address, which makes it ambiguous (SPEC 7.1), before the first packet.

A check takes time proportional to the number of instances. So many changes are checked at once, and singly only if
that check fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sgfast.base.errors import AmbiguousAddress
from sgfast.policy.change_file import TimedChange
from sgfast.policy.changed_policy import apply_change
from sgfast.policy.changes import AddAddress, AddInstance, AddPeering, RemoveAddress, RemoveInstance
from sgfast.policy.model import Instance, Policy
from sgfast.rules.addresses import owned_prefixes


def refuse_ambiguous(policy: Policy, changes: Sequence[TimedChange], vpc: str | None) -> None:
    """Raise AmbiguousAddress, naming the first change that makes an address of ``policy`` ambiguous, if there is
    one."""
    if not _may_matter(policy, changes, vpc):
        return
    checked_count, size = 0, len(changes)
    while checked_count < len(changes):
        part = changes[checked_count : checked_count + size]
        if len(part) > 1 and not _is_unambiguous(_worst_case(policy, part, vpc), vpc):
            size = len(part) // 2
            continue
        checked_count += len(part)
        size *= 2
        if len(part) > 1 and checked_count == len(changes):
            return
        for timed in part:
            policy = apply_change(policy, timed.change).policy
        if len(part) == 1:
            _check(replace(policy, origin=part[0].place), vpc)


def _may_matter(policy: Policy, changes: Sequence[TimedChange], vpc: str | None) -> bool:
    if len(policy.vpcs) < 2:
        return False
    kinds = {type(timed.change) for timed in changes}
    if vpc is None:
        return not kinds.isdisjoint((AddInstance, AddAddress))
    # The VPC's own addresses take precedence, so an address is only ambiguous if two of its peers own it.
    pairs = policy.peerings | {_pair(timed.change) for timed in changes if isinstance(timed.change, AddPeering)}
    return sum(vpc in pair for pair in pairs) > 1 and not kinds.isdisjoint(
        (AddInstance, AddAddress, AddPeering, RemoveInstance, RemoveAddress)
    )


def _worst_case(policy: Policy, changes: Sequence[TimedChange], vpc: str | None) -> Policy:
    """Return a policy in which every address is ambiguous that is ambiguous after any of the changes.

    It has every instance, address and peering that exists at any time. For ``vpc`` itself, whose addresses take
    precedence over those of its peers, it only has the instances that exist all the time.
    """
    vpc_of = {}
    added, removed, pairs = [], set(), set()
    for timed in changes:
        match timed.change:
            case AddPeering() as peering:
                pairs.add(_pair(peering))
            case AddInstance(instance):
                vpc_of[instance.name] = instance.vpc
                added.append(instance)
            case AddAddress(name, address):
                own_vpc = vpc_of.get(name) or policy.instance_by_name[name].vpc
                added.append(Instance(name, own_vpc, (address,), ()))
            case RemoveInstance(name):
                removed.add(name)
            case RemoveAddress(name):
                removed.add(name)
    instances = [i for i in policy.instances if i.vpc != vpc or i.name not in removed]
    instances += [i for i in added if i.vpc != vpc]
    return replace(policy, instances=tuple(instances), peerings=policy.peerings | pairs)


def _pair(peering: AddPeering) -> frozenset[str]:
    return frozenset((peering.vpc_a, peering.vpc_b))


def _is_unambiguous(policy: Policy, vpc: str | None) -> bool:
    try:
        _check(policy, vpc)
    except AmbiguousAddress:
        return False
    return True


def _check(policy: Policy, vpc: str | None) -> None:
    owned_prefixes(policy, vpc)
