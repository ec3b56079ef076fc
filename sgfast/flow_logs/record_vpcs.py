"""Find the VPC in which a record's addresses are looked up, where two VPCs own one address (SPEC 10.16)."""

from __future__ import annotations

from functools import lru_cache, partial
from ipaddress import ip_address

from sgfast.flow_logs.records import Record
from sgfast.policy.model import Policy
from sgfast.policy.other_vpcs import owners_anywhere

#: Memory limits: the maximum number of interfaces, and of addresses whose VPCs are remembered.
MOST_INTERFACES = 1 << 16
MOST_ADDRESSES = 1 << 16


class RecordVpcs:
    """The VPCs of records, with what earlier records of an interface showed."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        #: The VPCs in which an instance owns an address.
        self.with_address = lru_cache(MOST_ADDRESSES)(partial(_with_address, policy))
        #: The VPCs that each interface may be in.
        self._interfaces: dict[str, frozenset[str]] = {}

    def vpc_of(self, record: Record, named: int | None) -> str | None:
        """Return the VPC of the interface's instance, or of an end that only one VPC has, or whose peer only one VPC
        has; None if several VPCs have both. ``named``: the number of the instance that the interface names, if any.
        """
        if named is not None:
            return self._policy.instances[named].vpc
        ends = [self.with_address(end) for end in (record.src, record.dst)]
        both = [
            [vpc for vpc in here if not there or any(self._policy.connected(vpc, other) for other in there)]
            for here, there in (ends, ends[::-1])
        ]
        found = frozenset(vpc for vpcs in (both if any(both) else ends) for vpc in vpcs)
        known = self._interfaces.get(record.interface, found) & found
        has_room = record.interface in self._interfaces or len(self._interfaces) < MOST_INTERFACES
        if found and record.interface and has_room:
            self._interfaces[record.interface] = known
        if len(both[0]) <= 1 and len(both[1]) <= 1 and any(both) == any(ends):
            return (both[0] or both[1] or [self._policy.vpcs[0].name])[0]
        return next(iter(known)) if len(known) == 1 else None


def _with_address(policy: Policy, address: bytes) -> list[str]:
    return [owner.vpc for owner in owners_anywhere(policy, ip_address(address))]
