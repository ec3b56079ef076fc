"""Add machines that do not exist yet to a policy, as members of some of its groups (SPEC 10.13)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from sgfast.base.errors import ArgumentError, PolicyError
from sgfast.policy.loaded_policy import LoadedPolicy, lines_of
from sgfast.policy.lookup import find, similar, vpc_name
from sgfast.policy.model import Instance, Policy
from sgfast.policy.yaml_nodes import show, shown_origin

Address = IPv4Address | IPv6Address

_NAME = "assumed-machine"


def with_assumed(
    policy: Policy, as_if_in: Iterable[str], *, vpc: str | None = None, candidates: Sequence[Address] = ()
) -> tuple[Policy, tuple[Instance, ...]]:
    """Add machines to a policy. Return the policy, and the machines as instances.

    ``as_if_in``: one text or several, each ``GROUP=ADDRESS`` or ``GROUP``. The address of ``GROUP`` is the only one of
    ``candidates`` that no instance owns. Texts with the same address describe one machine in several groups. ``vpc``:
    the VPC of the machines; None: the only VPC.

    Raises PolicyError if the policy cannot have the machine, ArgumentError if a text is ambiguous.
    """
    groups: dict[Address, dict[str, None]] = {}
    for text in [as_if_in] if isinstance(as_if_in, str) else as_if_in:
        group, address = _parsed(policy, text)
        if address is None:
            address = _only_free(policy, group, vpc, candidates)
        groups.setdefault(address, {})[group] = None
    if not groups:
        return policy, ()
    from sgfast.policy.changed_policy import apply_change
    from sgfast.policy.changes import AddInstance

    lines = lines_of(policy)
    if vpc is None and len(policy.vpcs) > 1:
        raise ArgumentError(f"the policy has {len(policy.vpcs)} VPCs: name the VPC that the assumed machine is in")
    name = vpc_name(policy, vpc) or policy.vpcs[0].name
    machines = []
    for address, joined in groups.items():
        machine = Instance(_free_name(policy), name, (ip_network(address.packed),), tuple(joined))
        try:
            policy = apply_change(policy, AddInstance(machine)).policy
        except PolicyError as error:
            raise PolicyError(f"{shown_origin(policy.origin)}: {error}") from None
        machines.append(machine)
    if isinstance(policy, LoadedPolicy):
        policy.lines = lines
    return policy, tuple(machines)


def _parsed(policy: Policy, text: str) -> tuple[str, Address | None]:
    before, equals, written = text.rpartition("=")
    try:
        is_alone = not equals or find(policy, "security group", text) is not None  # A label may contain "=".
        word = text if is_alone else before
        group = find(policy, "security group", word)
    except PolicyError as error:
        raise PolicyError(f"{shown_origin(policy.origin)}: {error}") from None
    if group is None:
        hint = similar(policy, "security group", word)
        raise PolicyError(f"{shown_origin(policy.origin)}: unknown security group {show(word)}{hint}")
    if is_alone:
        return group, None
    try:
        return group, ip_address(written)
    except ValueError:
        raise ArgumentError(f"{show(written)} is not an address: write {group}=ADDRESS") from None


def _only_free(policy: Policy, group: str, vpc: str | None, candidates: Sequence[Address]) -> Address:
    seen_from = vpc_name(policy, vpc)
    owned = [
        network
        for instance in policy.instances
        if seen_from is None or policy.connected(instance.vpc, seen_from)
        for network in instance.addresses
    ]
    free = [address for address in dict.fromkeys(candidates) if not any(address in network for network in owned)]
    if not free:
        raise ArgumentError(f"no address is known for the machine in {group!r}: write {group}=ADDRESS")
    if len(free) > 1:
        either = " or ".join(map(str, free))
        raise ArgumentError(f"the machine in {group!r} could have the address {either}: write {group}=ADDRESS")
    return free[0]


def _free_name(policy: Policy) -> str:
    name, number = _NAME, 1
    while name in policy.instance_by_name:
        number += 1
        name = f"{_NAME}-{number}"
    return name
