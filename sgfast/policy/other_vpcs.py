"""Find the VPC in which a question's addresses are looked up, and the owners of an address in VPCs that are not peered
with it (SPEC 12.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

from sgfast.base.errors import AmbiguousAddress
from sgfast.policy.matching import Address
from sgfast.policy.model import Instance, Policy, called
from sgfast.policy.networks import is_multicast_address
from sgfast.policy.ranges import covers

#: The limit for the owners of an address that a text names.
_LISTED_OWNERS = 3


def owner_in(policy: Policy, vpc: str, address: Address) -> Instance | None:
    """Return the instance of a VPC with the longest prefix around an address (SPEC 2.6). Peered VPCs do not count."""
    holders = policy._holders(vpc, ip_network(address.packed))
    return max(
        holders, key=lambda holder: max(network.prefixlen for network in holder.addresses if address in network),
        default=None,
    )  # fmt: skip


def owners_elsewhere(policy: Policy, vpc: str, address: Address) -> list[Instance]:
    """Return the owners of an address in all VPCs that are not peered with ``vpc``, one for each VPC. An instance with
    all addresses is a router, and does not count.
    """
    return [owner for owner in owners_anywhere(policy, address) if not policy.connected(owner.vpc, vpc)]


def owners_anywhere(policy: Policy, address: Address) -> list[Instance]:
    """Return the owners of an address, one for each VPC that has one, without routers."""
    if not covers(policy._owned_ranges[address.version], int(address), int(address)):
        return []
    owners = (owner_in(policy, vpc.name, address) for vpc in policy.vpcs)
    return [
        owner for owner in owners
        if owner is not None and any(prefix.prefixlen and address in prefix for prefix in owner.addresses)
    ]  # fmt: skip


def owners_text(policy: Policy, owners: list[Instance]) -> str:
    """Write the owners for a sentence: ``dev-1's in VPC dev, which is not peered``."""
    texts = [f"{called(owner)}'s in VPC {called(policy.vpc_by_name[owner.vpc])}" for owner in owners[:_LISTED_OWNERS]]
    if len(owners) > _LISTED_OWNERS:
        texts.append(f"that of {len(owners) - _LISTED_OWNERS:,} more")
    *first_texts, last = texts
    if not first_texts:
        return f"{last}, which is not peered"
    return f"{', '.join(first_texts)} and {last}, which are not peered"


def elsewhere_text(policy: Policy, vpc: str, address: Address, owners: list[Instance]) -> str:
    """Explain why none of these owners counts for an address: a clause without a capital letter and a full stop."""
    return (
        f"no instance that VPC {called(policy.vpc_by_name[vpc])} sees has {address}: it is "
        f"{owners_text(policy, owners)}; it is judged as an address that no instance owns, and nobody can tell "
        f"whether it is one (write {owners[0].name} to ask about the instance)"
    )


def home_vpc(policy: Policy, source: Address | Instance, destination: Address | Instance) -> str:
    """Return the VPC in which addresses are looked up if the caller names none: that of the source's instance, or else
    of the destination's (SPEC 12.1). Raises AmbiguousAddress if only an address could name the VPC and several have it.
    """
    if isinstance(source, Instance):
        return source.vpc
    if isinstance(destination, Instance):
        owners = [owner for owner in _owners(policy, source) if policy.connected(owner.vpc, destination.vpc)]
        if any(owner.vpc == destination.vpc for owner in owners):
            return destination.vpc  # its own addresses hide those of its peers
        _refuse_several(policy, source, owners)
        return owners[0].vpc if owners else destination.vpc
    senders = _owners(policy, source)
    receivers = [] if is_multicast_address(destination) else _owners(policy, destination)
    for address, owners, peers in ((source, senders, receivers), (destination, receivers, senders)):
        near = [owner for owner in owners if any(policy.connected(owner.vpc, peer.vpc) for peer in peers)]
        _refuse_several(policy, address, near or owners)
        if owners:
            return (near or owners)[0].vpc
    return policy.vpcs[0].name  # no filter judges the packet, whichever VPC it is in


def _owners(policy: Policy, address: Address) -> list[Instance]:
    return [owner for vpc in policy.vpcs if (owner := owner_in(policy, vpc.name, address)) is not None]


def _refuse_several(policy: Policy, address: Address, owners: Sequence[Instance]) -> None:
    if len(owners) > 1:
        raise AmbiguousAddress(
            f"{policy.origin}: {address} is an address of instance {owners[0].name!r} (VPC {owners[0].vpc!r}) and "
            f"of instance {owners[1].name!r} (VPC {owners[1].vpc!r}): name the VPC that is meant (--vpc), or an "
            "instance"
        )
