"""Owners of addresses, as one VPC sees them, in ranges without overlaps: for targets that know addresses only."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network, summarize_address_range

from sgfast.errors import AmbiguousAddress, ExportError
from sgfast.policy.matching import groups_of
from sgfast.policy.model import Instance, Network, Policy
from sgfast.policy.networks import NEVER_AN_INSTANCE
from sgfast.policy.yaml_nodes import shown_origin

#: The addresses of a policy times the VPCs that look at them; about half a minute of work.
MAX_LOOKS = 10_000_000

ADDRESS: dict[int, type[IPv4Address] | type[IPv6Address]] = {4: IPv4Address, 6: IPv6Address}

Range = tuple[int, int]
"""The first and the last address, as numbers."""

#: The most address ranges in the sets of one file. nft and the kernel need about a kilobyte of memory for each.
MAX_RANGES = 1_000_000


def views(policy: Policy, vpcs: Iterable[str]) -> dict[str, View]:
    """The view of each VPC. Raises ExportError if that is too much work, AmbiguousAddress if two peers of a VPC own one
    address.
    """
    names = dict.fromkeys(vpcs)
    looks = len(names) * sum(len(instance.addresses) for instance in policy.instances)
    if looks > MAX_LOOKS:
        raise ExportError(
            shown_origin(policy.origin),
            f"for the {len(names):,} VPCs of these instances {looks:,} addresses are looked at, and "
            f"{MAX_LOOKS:,} is the limit: export the instances of fewer VPCs at a time",
        )
    try:
        owners = _Owners(policy, None)
    except AmbiguousAddress:
        return {name: View(policy, name, _Owners(policy, name)) for name in names}
    return {name: View(policy, name, owners) for name in names}


class _Owners:
    """Owners of addresses: among all instances, or among those of a VPC and its peers, as with ``--vpc``."""

    def __init__(self, policy: Policy, vpc: str | None) -> None:
        # It imports numpy, and most exports need no owners.
        from sgfast.compiler.addresses import owned_prefixes

        #: Sorted, disjoint ranges of each family, each with the instance that owns it.
        self.ranges: dict[int, list[tuple[int, int, Instance]]] = {
            family: _divide((network, policy.instances[n]) for network, n in prefixes)
            for family, prefixes in owned_prefixes(policy, vpc).items()
        }
        self.of_instance: dict[tuple[str, int], list[Range]] = defaultdict(list)
        #: The ranges that a VPC's instances own. Each row begins with the address family.
        self.of_vpc: dict[str, list[tuple[int, Range, Instance]]] = defaultdict(list)
        for family, ranges in self.ranges.items():
            for first, last, owner in ranges:
                self.of_instance[owner.name, family].append((first, last))
                self.of_vpc[owner.vpc].append((family, (first, last), owner))


class View:
    """The instances that packets of one VPC may meet (SPEC 7.1): all, or if VPCs have the same addresses, those of the
    VPC and its peers.
    """

    def __init__(self, policy: Policy, vpc: str, owners: _Owners) -> None:
        self.policy = policy
        self.vpc = vpc
        self._owners = owners

    def of_instance(self, family: int, instance: Instance) -> list[Range]:
        return merge(self._owners.of_instance.get((instance.name, family), ()))

    def isolated(self, family: int) -> list[Range]:
        """Addresses of the instances that may not be reached from this VPC (SPEC 3.6)."""
        connected = set(self.policy.connected_vpcs[self.vpc])
        ranges = self._owners.ranges[family]
        return merge([(first, last) for first, last, owner in ranges if owner.vpc not in connected])

    def members(self, groups: Iterable[str]) -> Mapping[tuple[str, int], list[Range]]:
        """Addresses that count as members to this VPC's instances (SPEC 4.11, 4.14), by group and family. A group
        without members is left out.
        """
        wanted = frozenset(groups)
        vpcs = self.policy.vpc_by_name
        found: dict[tuple[str, int], list[Range]] = defaultdict(list)
        total = 0
        for vpc in self.policy.connected_vpcs[self.vpc]:
            if vpcs[vpc].region != vpcs[self.vpc].region:
                continue
            for family, one, owner in self._owners.of_vpc.get(vpc, ()):
                # No prefix begins or ends within a range, so all of it is in the same groups, but for multicast.
                for part in _without_multicast(family, one):
                    seen = wanted & groups_of(self.policy, owner, ip_network(ADDRESS[family](part[0])))
                    total += len(seen)
                    for name in seen:
                        found[name, family].append(part)
        if total > MAX_RANGES:
            raise ExportError(
                shown_origin(self.policy.origin),
                f"the groups that rules name have members with {total:,} ranges of addresses "
                f"together, and {MAX_RANGES:,} is the limit: export fewer instances, or name CIDRs in the rules",
            )
        return {key: merge(ranges) for key, ranges in found.items()}

    def owner(self, family: int, address: int) -> Instance | None:
        owned = self._owners.ranges[family]
        n = bisect_right(owned, address, key=lambda row: row[0]) - 1
        return owned[n][2] if n >= 0 and address <= owned[n][1] else None


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same addresses in the fewest ranges, sorted."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _without_multicast(family: int, one: Range) -> Iterator[Range]:
    first, last = one
    for network in NEVER_AN_INSTANCE:       # in the order of their addresses
        begin, end = range_of(network)
        if network.version == family and first <= end and begin <= last:
            if first < begin:
                yield first, begin - 1
            first = end + 1
    if first <= last:
        yield first, last


def range_of(network: Network) -> Range:
    return int(network.network_address), int(network.broadcast_address)


def networks_of(family: int, ranges: Iterable[Range]) -> Iterator[Network]:
    """The same addresses as CIDRs."""
    for first, last in ranges:
        yield from summarize_address_range(ADDRESS[family](first), ADDRESS[family](last))


def _divide(owned: Iterable[tuple[Network, Instance]]) -> list[tuple[int, int, Instance]]:
    """Disjoint ranges, in order: of prefixes in each other the longest owns an address (SPEC 2.6)."""
    rows = sorted(((*range_of(network), owner) for network, owner in owned), key=lambda row: (row[0], -row[1]))
    found: list[tuple[int, int, Instance]] = []
    around: list[tuple[int, Instance]] = []     # the prefixes that the current address is in, the longest one last
    at = 0

    def fill(until: int) -> None:
        """Give the addresses from ``at`` to before ``until`` to their owners."""
        nonlocal at
        while around and at < until:
            last, owner = around[-1]
            if at <= min(last, until - 1):
                found.append((at, min(last, until - 1), owner))
                at = min(last, until - 1) + 1
            if last < until:
                around.pop()
            else:
                break

    for first, last, owner in rows:
        fill(first)
        at = first
        around.append((last, owner))
    fill(1 << 128)
    return found
