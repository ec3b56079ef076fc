"""Assign packets to VPCs by a policy's marks, or by their addresses (SPEC 7.4)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import chain

import numpy as np

from sgfast.base.errors import AmbiguousAddress, ArgumentError, CaptureError, PolicyError
from sgfast.base.names import printable
from sgfast.core.classify.cidr_trie import CidrTrie
from sgfast.policy.loaded_policy import having
from sgfast.policy.lookup import similar, vpc_name
from sgfast.policy.model import Network, Policy, Vpc
from sgfast.rules.addresses import owned_prefixes, range_of, span_of
from sgfast.traffic.capture.interfaces import InterfaceMarks
from sgfast.traffic.preprocess.vpcs import NO_VPC_OWNS, SEVERAL_VPCS, VpcMarks

#: The maximum number of engines. Each takes a megabyte for its tables before it judges the first packet.
MOST_ENGINES = 1000
#: A VNI has 24 bits.
MOST_VNI = (1 << 24) - 1


class VpcMapping:
    """The marks that assign packets to a policy's VPCs. VPCs are numbered by their position in the policy.

    If VPCs share addresses, packets without a mark are assigned by their addresses. ``other``: a policy with the same
    VPCs, whose instances' addresses count, too.
    """

    def __init__(self, policy: Policy, other: Policy | None = None) -> None:
        self._vpcs = policy.vpcs
        self.marks = VpcMarks(
            {vni: n for n, vpc in enumerate(policy.vpcs) for vni in vpc.vnis},
            {vlan: n for n, vpc in enumerate(policy.vpcs) for vlan in vpc.vlans},
        )
        policies = (policy,) if other is None else (policy, other)
        if any(policy._shares_addresses for policy in policies):
            self.marks.add_owners(*_owners(policies), first_vpc(*policies), _vpcs_of_nobody(policies))
        self.interfaces = InterfaceMarks({mark: n for n, vpc in enumerate(policy.vpcs) for mark in vpc.interfaces})

    @property
    def needs_interfaces(self) -> bool:
        """Whether packets are assigned to VPCs only by their interface or file."""
        return any(vpc.interfaces for vpc in self._vpcs) and not any(vpc.vnis or vpc.vlans for vpc in self._vpcs)

    def of_file(self, path: str) -> int:
        """Return ``Frame.vpc`` for packets of this file. Raises CaptureError if two VPCs' patterns match its name."""
        whole, last = path, os.path.basename(path)
        vpcs_of_file = [
            n for n, vpc in enumerate(self._vpcs)
            if any(fnmatchcase(whole if "/" in pattern else last, pattern) for pattern in vpc.files)
        ]  # fmt: skip
        if len(vpcs_of_file) > 1:
            a, b = (self._vpcs[n].name for n in vpcs_of_file[:2])
            raise CaptureError(
                f"{printable(path)}: the 'file' patterns of VPC {a!r} and of VPC {b!r} both match this capture; "
                "change one of them"
            )
        return vpcs_of_file[0] + 1 if vpcs_of_file else 0


def _owners(policies: Sequence[Policy]) -> tuple[CidrTrie, CidrTrie]:
    """Return the owners of addresses, as ``VpcMarks.add_owners`` takes them. Routers, which have all addresses, do not
    count (SPEC 7.4).
    """
    vpcs: dict[Network, set[int]] = {}
    number = {vpc.name: n for n, vpc in enumerate(policies[0].vpcs)}
    for instance in chain.from_iterable(policy.instances for policy in policies):
        for network in instance.addresses:
            if network.prefixlen:
                vpcs.setdefault(network, set()).add(number[instance.vpc])
    tries = []
    for version in (4, 6):
        networks = sorted((network for network in vpcs if network.version == version), key=span_of)
        owners: list[int] = []
        around: list[tuple[int, int]] = []      # the last address and the owner of the prefixes around the current one
        for network in networks:
            first, last = range_of(network)
            while around and around[-1][0] < first:
                around.pop()
            innermost = {owner for _, owner in around[-1:]} | vpcs[network]
            owners.append(innermost.pop() if len(innermost) == 1 else SEVERAL_VPCS)
            around.append((last, owners[-1]))
        addresses = (network.network_address.packed for network in networks)
        prefixes = np.frombuffer(b"".join(address.ljust(16, b"\0") for address in addresses), np.uint8)
        lengths = [network.prefixlen for network in networks]
        tries.append(CidrTrie(version == 6, prefixes, lengths, owners, NO_VPC_OWNS))
    return tries[0], tries[1]


def _vpcs_of_nobody(policies: Sequence[Policy]) -> tuple[int, int]:
    """Return the VPCs of IPv4 and IPv6 packets between addresses that no instance but a router owns: the router's."""
    vpcs_of_nobody = []
    for version in (4, 6):
        routers = {
            instance.vpc for policy in policies for instance in policy.instances
            if any(not network.prefixlen and network.version == version for network in instance.addresses)
        }  # fmt: skip
        vpcs = {n for n, vpc in enumerate(policies[0].vpcs) if vpc.name in routers} or {first_vpc(*policies)}
        vpcs_of_nobody.append(vpcs.pop() if len(vpcs) == 1 else SEVERAL_VPCS)
    return vpcs_of_nobody[0], vpcs_of_nobody[1]


def with_vnis(policy: Policy, texts: Sequence[str]) -> Policy:
    """Return the policy with VNIs mapped to VPCs by texts such as ``7001=prod``, besides those that it maps itself.

    Raises ArgumentError for a text that maps no VNI to a VPC, and for a VNI that is mapped to two VPCs.
    """
    vnis = {vpc.name: [*vpc.vnis] for vpc in policy.vpcs}
    owner = {vni: vpc.name for vpc in policy.vpcs for vni in vpc.vnis}
    for text in texts:
        number, _, word = text.partition("=")
        if not (number.isascii() and number.isdigit() and len(number) <= 8 and int(number) <= MOST_VNI and word):
            raise ArgumentError(f"{text[:80]!r} is not VNI=VPC with a VNI from 0 to {MOST_VNI}, such as 7001=prod")
        vni, name = int(number), vpc_name(policy, word)
        if name not in vnis:
            known_names = ", ".join(vnis) + similar(policy, "VPC", word)
            raise ArgumentError(f"unknown VPC {word[:80]!r}: the policy has {known_names}")
        if owner.setdefault(vni, name) != name:
            raise ArgumentError(f"VNI {vni} is mapped to two VPCs, {owner[vni]} and {name}")
        if vni not in vnis[name]:
            vnis[name].append(vni)
    return having(policy, vpcs=tuple(replace(vpc, vnis=tuple(vnis[vpc.name])) for vpc in policy.vpcs))


def seen_from(policy: Policy, vpc: int) -> str | None:
    """Return the name of VPC number ``vpc``, or None for -1: packets without a mark are seen from all VPCs.

    Raises AmbiguousAddress for -1 if several VPCs own one address.
    """
    if vpc >= 0:
        return policy.vpcs[vpc].name
    try:
        owned_prefixes(policy, None)
    except AmbiguousAddress as error:
        marks = ", and match no vni, vlan, interface or file of a VPC" if policy.is_mapped else ""
        raise AmbiguousAddress(
            f"{error}; there are packets of which no address is owned in one VPC only{marks}"
        ) from error
    return None


def is_mapped(policy: Policy, vpc: str | None) -> bool:
    """Return whether packets are assigned to VPCs. ``vpc``: the VPC from which all are seen, if the user names one."""
    return vpc is None and (policy.is_mapped or policy._shares_addresses)


def vpc_mapping_of(policy: Policy, vpc: str | None) -> VpcMapping | None:
    """Return the mapping of packets to VPCs, or None if packets are not mapped."""
    return VpcMapping(policy) if is_mapped(policy, vpc) else None


def seen_vpcs(policy: Policy, vpc: str | None) -> list[str | None]:
    """Return the VPCs from which packets may be seen; None in the list means all VPCs."""
    if not is_mapped(policy, vpc):
        return [vpc]
    if not policy._shares_addresses:
        return [vpc.name for vpc in policy.vpcs if vpc.is_mapped]
    # A change cannot add an address if addresses name the VPCs, as captures are read before it is applied.
    return [None, *(vpc.name for vpc in policy.vpcs if _is_clear(policy, vpc))]


def first_vpc(*policies: Policy) -> int:
    """Return the number of the VPC that judges packets of no VPC, and that has an engine even without packets: of the
    VPCs whose peers share no address in any of these policies, the first one with marks, or else the first one.

    Raises AmbiguousAddress if there is none.
    """
    vpcs = policies[0].vpcs
    for n in sorted(range(len(vpcs)), key=lambda n: not vpcs[n].is_mapped):
        if all(_is_clear(policy, vpcs[n]) for policy in policies):
            return n
    for policy in policies:
        owned_prefixes(policy, vpcs[0].name)
    raise AssertionError("the addresses of the first VPC's peers are not shared")


def _is_clear(policy: Policy, vpc: Vpc) -> bool:
    try:
        owned_prefixes(policy, vpc.name)
    except AmbiguousAddress:
        return False
    return True


def refuse_too_many(policy: Policy, existing: int, *, engines: int = 1) -> None:
    """Raise PolicyError if a VPC's engines would be too many in addition to the ``existing`` ones.

    ``engines`` is the number of engines for each VPC.
    """
    if existing + engines > MOST_ENGINES:
        raise PolicyError(
            f"{printable(policy.origin)}: there are packets of more than {MOST_ENGINES // engines:,} VPCs; use "
            "captures of fewer VPCs at a time"
        )
