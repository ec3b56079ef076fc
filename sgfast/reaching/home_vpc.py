"""Find the VPC in which a question's addresses are looked up (SPEC 12.1), and make an engine that sees it."""

from __future__ import annotations

from collections.abc import Sequence

from sgfast.compiler import Compiler
from sgfast.engine import Engine, is_multicast
from sgfast.errors import AmbiguousAddress
from sgfast.policy.loaded_policy import having
from sgfast.policy.matching import Address
from sgfast.policy.model import Instance, Policy
from sgfast.policy.other_vpcs import owner_in


def engine_about(
    policy: Policy, vpc: str | None, ends: Sequence[Address | Instance], compiler: Compiler | None = None
) -> Engine:
    """Return an engine for packets between two ends. If peers of the VPC own one address, it knows only instances that
    have an address of the ends, and of an end that is an instance, only those of its VPC. Raises AmbiguousAddress if
    even then two own an address.
    """
    try:
        return Engine(policy, vpc=vpc, compiler=compiler)
    except AmbiguousAddress:
        near = tuple(each for each in policy.instances if any(_has_addresses_of(each, end) for end in ends))
        return Engine(having(policy, instances=near), vpc=vpc)


def _has_addresses_of(instance: Instance, end: Address | Instance) -> bool:
    if isinstance(end, Instance):
        return instance.vpc == end.vpc and any(
            one.version == other.version and one.overlaps(other)
            for one in instance.addresses for other in end.addresses
        )  # fmt: skip
    return any(end in network for network in instance.addresses)


def home_vpc(policy: Policy, source: Address | Instance, destination: Address | Instance) -> str:
    """Return the VPC in which addresses are looked up if the caller names none: that of the source's instance, or else
    of the destination's (SPEC 12.1). Raises AmbiguousAddress if only an address could name the VPC and several have it.
    """
    if isinstance(source, Instance):
        return source.vpc
    if isinstance(destination, Instance):
        owners = [each for each in _owners(policy, source) if policy.connected(each.vpc, destination.vpc)]
        if any(owner.vpc == destination.vpc for owner in owners):
            return destination.vpc  # its own addresses hide those of its peers
        _refuse_several(policy, source, owners)
        return owners[0].vpc if owners else destination.vpc
    senders = _owners(policy, source)
    receivers = [] if is_multicast(destination) else _owners(policy, destination)
    for address, owners, others in ((source, senders, receivers), (destination, receivers, senders)):
        near = [each for each in owners if any(policy.connected(each.vpc, other.vpc) for other in others)]
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
