"""Determine which instances own which addresses, and which networks rules name."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from itertools import chain

from sgfast.errors import AmbiguousAddress, PolicyError
from sgfast.policy.lookup import similar
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Network, Policy, Rule

ANYWHERE: dict[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}

#: The prefixes of each family, each with the position in the policy of the instance that owns it.
Owned = dict[int, list[tuple[Network, int]]]


def visible_instances(policy: Policy, vpc: str | None) -> list[int]:
    """Positions of the instances whose addresses a capture may show (SPEC 7.1). Raises PolicyError for an unknown VPC.
    """
    if vpc is None:
        return list(range(len(policy.instances)))
    if vpc not in policy.vpc_by_name:
        known = ", ".join(v.name for v in policy.vpcs)
        hint = similar(policy, "VPC", vpc)
        raise PolicyError(f"{policy.origin}: unknown VPC {vpc!r}: the policy has {known}{hint}")
    return sorted(chain.from_iterable(policy.places_by_vpc.get(seen, ()) for seen in policy.connected_vpcs[vpc]))


def named_networks(policy: Policy, rule: Rule) -> Iterable[Network]:
    match rule.peer:
        case GroupPeer():
            return ()
        case AddressGroupPeer(name):
            return [n for n in policy.address_group_by_name[name].addresses if n.version == rule.ethertype]
        case None:
            return (ANYWHERE[rule.ethertype],)
        case network:
            return (network,)


def owned_prefixes(policy: Policy, vpc: str | None) -> Owned:
    """The owned prefixes that a capture may show. Rejects addresses that two visible VPCs own (SPEC 7.1)."""
    visible = visible_instances(policy, vpc)
    if len({policy.instances[n].vpc for n in visible}) > 1:
        return _owned_in_several_vpcs(policy, vpc, visible)
    owned: Owned = {4: [], 6: []}
    for n in visible:
        for network in policy.instances[n].addresses:
            owned[network.version].append((network, n))
    return owned


def _owned_in_several_vpcs(policy: Policy, vpc: str | None, visible: list[int]) -> Owned:
    # If a VPC is named, its own instances take precedence and hide the parts of peers' addresses they cover.
    visible = sorted(visible, key=lambda n: policy.instances[n].vpc != vpc)
    found: Owned = {4: [], 6: []}
    owned: dict[int, list[tuple[int, int, Network, int]]] = {4: [], 6: []}
    own: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for n in visible:
        for network in policy.instances[n].addresses:
            first, last = int(network.network_address), int(network.broadcast_address)
            owned[network.version].append((first, -last, network, n))
            if policy.instances[n].vpc == vpc:
                own[network.version].append((first, last))
    for family, rows in owned.items():
        shadow = _merge(own[family])
        rows.sort(key=lambda row: row[:2])
        # Prefixes are nested or disjoint, so only those that contain the current one need to be checked.
        cover: list[tuple[int, Network, int]] = []
        at = 0
        for first, minus_last, network, n in rows:
            last = -minus_last
            mine = policy.instances[n].vpc == vpc
            if not mine:
                while at < len(shadow) and shadow[at][1] < first:
                    at += 1
                if at < len(shadow) and shadow[at][0] <= first and last <= shadow[at][1]:
                    continue
            while cover and cover[-1][0] < first:
                cover.pop()
            for _, other_network, m in cover:
                other = policy.instances[m]
                if other.vpc != policy.instances[n].vpc and vpc not in (other.vpc, policy.instances[n].vpc):
                    advice = (
                        "name the VPC the capture was taken in (--vpc)" if vpc is None
                        else f"from VPC {vpc!r} these two peers cannot be distinguished"
                    )
                    raise AmbiguousAddress(
                        f"{policy.origin}: {network} of instance {policy.instances[n].name!r} (VPC "
                        f"{policy.instances[n].vpc!r}) and {other_network} of instance {other.name!r} (VPC "
                        f"{other.vpc!r}) overlap: {advice}"
                    )
            cover.append((last, network, n))
            found[family].append((network, n))
    return found


def _merge(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
