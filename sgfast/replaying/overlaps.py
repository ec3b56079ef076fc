"""Changes after which two VPCs that a capture may show own one address (SPEC 7.1), found before the first packet.

Looking once takes as long as all instances take, so many changes are looked at as one, of which each part is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sgfast.compiler.addresses import owned_prefixes
from sgfast.errors import AmbiguousAddress
from sgfast.policy.change_file import TimedChange
from sgfast.policy.changes import (
    AddAddress,
    AddInstance,
    AddPeering,
    RemoveAddress,
    RemoveInstance,
    apply_change,
)
from sgfast.policy.model import Instance, Policy


def refuse_ambiguous(policy: Policy, changes: Sequence[TimedChange], vpc: str | None) -> None:
    """Raises AmbiguousAddress that names the first change which makes an address of ``policy`` ambiguous."""
    if not _may_matter(policy, changes, vpc):
        return
    done, size = 0, len(changes)
    while done < len(changes):
        part = changes[done : done + size]
        if len(part) > 1 and not _is_clear(_worst(policy, part, vpc), vpc):
            size = len(part) // 2
            continue
        done += len(part)
        size *= 2
        if len(part) > 1 and done == len(changes):
            return
        for timed in part:
            policy = apply_change(policy, timed.change).policy
        if len(part) == 1:
            _look(replace(policy, origin=part[0].place), vpc)


def _may_matter(policy: Policy, changes: Sequence[TimedChange], vpc: str | None) -> bool:
    if len(policy.vpcs) < 2:
        return False
    kinds = {type(timed.change) for timed in changes}
    if vpc is None:
        return not kinds.isdisjoint((AddInstance, AddAddress))
    # Its own addresses come first: only two peers can be mistaken for each other.
    pairs = policy.peerings | {_pair(timed.change) for timed in changes if isinstance(timed.change, AddPeering)}
    return sum(vpc in pair for pair in pairs) > 1 and not kinds.isdisjoint(
        (AddInstance, AddAddress, AddPeering, RemoveInstance, RemoveAddress)
    )


def _worst(policy: Policy, changes: Sequence[TimedChange], vpc: str | None) -> Policy:
    """What is ambiguous after one of the changes is so here: all that ever is there together, but of ``vpc`` itself,
    whose addresses cover those of its peers, what always is."""
    where = {}
    more, gone, pairs = [], set(), set()
    for timed in changes:
        match timed.change:
            case AddPeering() as peering:
                pairs.add(_pair(peering))
            case AddInstance(instance):
                where[instance.name] = instance.vpc
                more.append(instance)
            case AddAddress(name, address):
                more.append(Instance(name, where.get(name) or policy.instance_by_name[name].vpc, (address,), ()))
            case RemoveInstance(name):
                gone.add(name)
            case RemoveAddress(name):
                gone.add(name)
    kept = [i for i in policy.instances if i.vpc != vpc or i.name not in gone]
    kept += [i for i in more if i.vpc != vpc]
    return replace(policy, instances=tuple(kept), peerings=policy.peerings | pairs)


def _pair(peering: AddPeering) -> frozenset[str]:
    return frozenset((peering.vpc_a, peering.vpc_b))


def _is_clear(policy: Policy, vpc: str | None) -> bool:
    try:
        _look(policy, vpc)
    except AmbiguousAddress:
        return False
    return True


def _look(policy: Policy, vpc: str | None) -> None:
    owned_prefixes(policy, vpc)
