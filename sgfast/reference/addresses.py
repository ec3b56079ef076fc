"""Owners of addresses (SPEC 2.6, 3.3, 7.1)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from sgfast.base.errors import PolicyError
from sgfast.policy.model import Instance, Network, Policy

Address = IPv4Address | IPv6Address
End = tuple[Address, int | None]
"""One end of a connection: its address, and its port or None."""
Prefixes = list[tuple[Network, Instance]]

NEVER_AN_INSTANCE = (IPv4Network("224.0.0.0/4"), IPv4Network("255.255.255.255/32"), IPv6Network("ff00::/8"))


def is_multicast_or_broadcast(address: Address) -> bool:
    """Return whether the address is multicast or broadcast, which no instance owns as destination (SPEC 3.3)."""
    return any(address in network for network in NEVER_AN_INSTANCE)


def longest_prefix_owner(prefixes: Prefixes, address: Address) -> Instance | None:
    """Return the instance with the longest prefix that contains the address, or None (SPEC 2.6)."""
    owners = [(prefix.prefixlen, instance) for prefix, instance in prefixes if address in prefix]
    return max(owners, key=lambda owner: owner[0])[1] if owners else None


def visible_prefixes(policy: Policy, vpc: str | None) -> tuple[Prefixes, Prefixes]:
    """Return the prefixes to search first, which are the VPC's own, and then those of its peers (SPEC 7.1)."""
    everything = [(prefix, instance) for instance in policy.instances for prefix in instance.addresses]
    if vpc is None:
        refuse_overlaps(everything)
        return everything, []
    if vpc not in policy.vpc_by_name:
        raise PolicyError(f"{policy.origin}: there is no VPC {vpc!r}")
    own_prefixes = [(prefix, instance) for prefix, instance in everything if instance.vpc == vpc]
    own_set = {key(prefix) for prefix, _ in own_prefixes}
    peers = [
        (prefix, instance)
        for prefix, instance in everything
        if instance.vpc != vpc and policy.connected(vpc, instance.vpc)
        and own_set.isdisjoint(map(key, supernets(prefix)))
    ]
    refuse_overlaps(peers)
    return own_prefixes, peers


def key(prefix: Network) -> tuple[bytes, int]:
    """Return a dict key. Python's hash of IPv6 networks is a remainder, so attackers could make many collide."""
    return prefix.network_address.packed, prefix.prefixlen


def supernets(prefix: Network) -> list[Network]:
    """Return all prefixes that contain this prefix, including itself."""
    return [prefix.supernet(new_prefix=length) for length in range(prefix.prefixlen + 1)]


def refuse_overlaps(prefixes: Prefixes) -> None:
    """Raise AmbiguousAddress if an address belongs to instances of two VPCs (SPEC 7.1)."""
    owners: dict[tuple[bytes, int], list[Instance]] = {}
    for prefix, instance in prefixes:
        owners.setdefault(key(prefix), []).append(instance)
    if len({instance.vpc for _, instance in prefixes}) < 2:
        return
    for prefix, instance in prefixes:
        for outer in supernets(prefix):
            for neighbour in owners.get(key(outer), ()):
                if neighbour.vpc != instance.vpc:
                    raise PolicyError(
                        f"{prefix} of {instance.name!r} (VPC {instance.vpc!r}) overlaps {outer} of {neighbour.name!r} "
                        f"(VPC {neighbour.vpc!r}): say which VPC the capture was taken in, with --vpc"
                    )
