"""Find the VPC in which a question's addresses are looked up (SPEC 12.1)."""

from __future__ import annotations

from collections.abc import Sequence

from sgfast.base.errors import AmbiguousAddress
from sgfast.policy.matching import Address
from sgfast.policy.model import Instance, Policy
from sgfast.policy.networks import is_multicast_address
from sgfast.policy.other_vpcs import owner_in


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
