"""Find the addresses of instances that the ends of a packet name (SPEC 14.5)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from sgfast.base.errors import ArgumentError, PolicyError
from sgfast.policy.lookup import find, similar
from sgfast.policy.model import Instance, Policy
from sgfast.policy.yaml_nodes import show, shown_origin

#: An end of a packet: an address, or any word for an instance.
NamedAddress = str | IPv4Address | IPv6Address

#: The most addresses that a message lists.
_LISTED_ADDRESSES = 5


def addresses_of_ends(
    policy: Policy, src: NamedAddress, dst: NamedAddress, *, prefers_ipv6: bool
) -> tuple[NamedAddress, NamedAddress]:
    """Return the ends of a packet, with addresses in the place of instances' names. ``prefers_ipv6``: the IP version if
    both ends have both. Raises PolicyError and ArgumentError as ``Engine.check`` does.
    """
    named = [_named(policy, end) for end in (src, dst)]
    if named == [None, None]:
        return src, dst
    known_names = [
        {network.version for network in instance.addresses} if instance is not None else {ip_address(end).version}
        for end, instance in zip((src, dst), named, strict=True)
    ]  # fmt: skip
    common = known_names[0] & known_names[1]
    if not common:
        raise ArgumentError(f"{src} and {dst} have no IP version in common")
    version = max(common) if prefers_ipv6 else min(common)
    source, destination = (
        end if instance is None else _only_address(policy, instance, version)
        for end, instance in zip((src, dst), named, strict=True)
    )
    return source, destination


def single_addresses(policy: Policy, end: NamedAddress) -> tuple[bytes | None, bytes | None] | None:
    """Return the packed IPv4 and IPv6 address of the instance that ``end`` names, or None for a version that it lacks.
    Return None for an address, and for an instance with several addresses of one IP version.
    """
    instance = _named(policy, end)
    if instance is None:
        return None
    packed_ends: list[bytes | None] = [None, None]
    for network in instance.addresses:
        if packed_ends[network.version == 6] is not None or network.num_addresses > 1:
            return None
        packed_ends[network.version == 6] = network.network_address.packed
    return packed_ends[0], packed_ends[1]


def _named(policy: Policy, end: NamedAddress) -> Instance | None:
    """Return the instance that an end names, or None if the end is an address."""
    if not isinstance(end, str):
        return None
    try:
        ip_address(end)
    except ValueError:
        pass
    else:
        return None
    origin = shown_origin(policy.origin)
    try:
        name = find(policy, "instance", end)
    except PolicyError as error:
        raise PolicyError(f"{origin}: {error}") from None
    if name is None:
        hint = similar(policy, "instance", end)
        raise ArgumentError(f"{origin}: {show(end)} is neither an address nor an instance of the policy{hint}")
    return policy.instance_by_name[name]


def _only_address(policy: Policy, instance: Instance, version: int) -> NamedAddress:
    networks = [network for network in instance.addresses if network.version == version]
    if len(networks) == 1 and networks[0].num_addresses == 1:
        return networks[0].network_address
    listed = ", ".join(
        str(network.network_address) if network.num_addresses == 1 else f"an address in {network}"
        for network in networks[:_LISTED_ADDRESSES]
    )
    and_more = f" and {len(networks) - _LISTED_ADDRESSES} more" if len(networks) > _LISTED_ADDRESSES else ""
    raise PolicyError(
        f"{shown_origin(policy.origin)}: instance {show(instance.name)} has several IPv{version} addresses: "
        f"write {'one of ' if len(networks) > 1 else ''}{listed}{and_more}"
    )
