"""Find the instances that own an address in VPCs that are not peered with a VPC (SPEC 12.1)."""

from __future__ import annotations

from ipaddress import ip_network

from sgfast.policy.matching import Address
from sgfast.policy.model import Instance, Policy, called
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
