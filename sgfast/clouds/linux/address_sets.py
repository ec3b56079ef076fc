"""Owners of addresses as one VPC sees them, in ranges without overlaps, for targets that only know addresses."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import ip_network

from sgfast.base.errors import AmbiguousAddress, ExportError
from sgfast.policy.matching import groups_of
from sgfast.policy.model import Instance, Policy
from sgfast.policy.ranges import Range, Ranges, union
from sgfast.policy.yaml_nodes import shown_origin
from sgfast.rules.addresses import ADDRESS, NOBODY, owned_prefixes, pieces, span_of, without_multicast

#: The limit for the addresses of a policy times the VPCs that see them; about half a minute of work.
MAX_LOOKS = 10_000_000

#: The limit for the address ranges in the sets of one file. nft and the kernel need about a kilobyte of memory for a
#: range.
MAX_RANGES = 1_000_000


def views(policy: Policy, vpcs: Iterable[str]) -> dict[str, VpcView]:
    """Return the view of each VPC. Raises ExportError if that is too much work, AmbiguousAddress if two peers of a VPC
    own the same address.
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
        return {name: VpcView(policy, name, _Owners(policy, name)) for name in names}
    return {name: VpcView(policy, name, owners) for name in names}


class _Owners:
    """The owners of addresses among all instances, or among the instances of a VPC and its peers (like ``--vpc``)."""

    def __init__(self, policy: Policy, vpc: str | None) -> None:
        #: By family: sorted, disjoint ranges, each with the instance that owns it.
        self.ranges: dict[int, list[tuple[int, int, Instance]]] = {}
        for family, prefixes in owned_prefixes(policy, vpc).items():
            # The instance with the longest prefix owns an address (SPEC 2.6).
            owned = {span_of(network): (n + 1, False) for network, n in prefixes}
            self.ranges[family] = [
                (first, last, policy.instances[owner - 1])
                for first, last, _, owner in pieces(owned, family) if owner != NOBODY
            ]  # fmt: skip
        self.of_instance: dict[tuple[str, int], list[Range]] = defaultdict(list)
        #: By VPC: the ranges that its instances own, as rows of address family, range and owner.
        self.of_vpc: dict[str, list[tuple[int, Range, Instance]]] = defaultdict(list)
        for family, ranges in self.ranges.items():
            for first, last, owner in ranges:
                self.of_instance[owner.name, family].append((first, last))
                self.of_vpc[owner.vpc].append((family, (first, last), owner))


class VpcView:
    """The owners of addresses that packets of one VPC may have (SPEC 7.1): all instances. If VPCs have the same
    addresses, only the instances of the VPC and its peers.
    """

    def __init__(self, policy: Policy, vpc: str, owners: _Owners) -> None:
        self.policy = policy
        self.vpc = vpc
        self._owners = owners

    def of_instance(self, family: int, instance: Instance) -> Ranges:
        return union(self._owners.of_instance.get((instance.name, family), ()))

    def isolated(self, family: int) -> Ranges:
        """Return the addresses of the instances that this VPC cannot reach (SPEC 3.6)."""
        connected = set(self.policy._connected_vpcs[self.vpc])
        ranges = self._owners.ranges[family]
        return union((first, last) for first, last, owner in ranges if owner.vpc not in connected)

    def members(self, groups: Iterable[str]) -> Mapping[tuple[str, int], Ranges]:
        """Return the addresses that are members of the groups in the rules of this VPC's instances (SPEC 4.11, 4.14),
        by group and family. A group without members is left out.
        """
        wanted_groups = frozenset(groups)
        vpcs = self.policy.vpc_by_name
        ranges_of_groups: dict[tuple[str, int], list[Range]] = defaultdict(list)
        total = 0
        for vpc in self.policy._connected_vpcs[self.vpc]:
            if vpcs[vpc].region != vpcs[self.vpc].region:
                continue
            for family, addresses, owner in self._owners.of_vpc.get(vpc, ()):
                # No prefix begins or ends within a range, so all its addresses except multicast are in the same groups.
                for part in without_multicast(family, (addresses,)):
                    member_of = wanted_groups & groups_of(self.policy, owner, ip_network(ADDRESS[family](part[0])))
                    total += len(member_of)
                    for name in member_of:
                        ranges_of_groups[name, family].append(part)
        if total > MAX_RANGES:
            raise ExportError(
                shown_origin(self.policy.origin),
                f"the groups that rules name have members with {total:,} ranges of addresses "
                f"together, and {MAX_RANGES:,} is the limit: export fewer instances, or name CIDRs in the rules",
            )
        return {key: union(ranges) for key, ranges in ranges_of_groups.items()}

    def owner(self, family: int, address: int) -> Instance | None:
        owned = self._owners.ranges[family]
        n = bisect_right(owned, address, key=lambda row: row[0]) - 1
        return owned[n][2] if n >= 0 and address <= owned[n][1] else None
