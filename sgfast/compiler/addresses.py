"""Addresses: who owns which, and the classes no rule tells apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

import numpy as np
from numpy.typing import NDArray

from sgfast.core.cidr_trie import CidrTrie
from sgfast.errors import AmbiguousAddress, PolicyError
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Network, Policy, Rule

Indices = NDArray[np.int64]

ANYWHERE: dict[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}

# A set of groups in one VPC. An instance's *profile* is all its groups: what its rule tables depend on. Its
# *membership* is those of them that rules name as peers: what others' rules can know of it.
Profile = tuple[tuple[int, ...], int]


@dataclass
class Addresses:
    """Every prefix that matters to an address, in one family."""

    family: int
    owner: dict[Network, int] = field(default_factory=dict)
    named: set[Network] = field(default_factory=set)


def visible_instances(policy: Policy, vpc: str | None) -> list[int]:
    """Numbers of the instances whose addresses a capture may show (SPEC 7.1). PolicyError for an unknown VPC."""
    if vpc is None:
        return list(range(len(policy.instances)))
    if vpc not in policy.vpc_by_name:
        known = ", ".join(v.name for v in policy.vpcs)
        raise PolicyError(f"{policy.origin}: no VPC {vpc!r}: the document has {known}")
    return [n for n, instance in enumerate(policy.instances) if policy.connected(instance.vpc, vpc)]


def named_networks(policy: Policy, rule: Rule) -> Iterable[Network]:
    match rule.peer:
        case GroupPeer():
            return ()
        case AddressGroupPeer(name):
            return [n for n in policy.address_group_by_name[name].addresses if n.version == rule.ethertype]
        case None:
            return (ANYWHERE[rule.ethertype],)
        case network:
            return (network,)


def add_owners(policy: Policy, vpc: str | None, families: dict[int, Addresses]) -> None:
    """Fills in who owns what, refusing addresses that two visible VPCs own (SPEC 7.1)."""
    # With a VPC named, its own instances come first; what they cover of a peer's addresses is out of sight.
    visible = sorted(visible_instances(policy, vpc), key=lambda n: policy.instances[n].vpc != vpc)
    owned: dict[int, list[tuple[int, int, Network, int]]] = {4: [], 6: []}
    own: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for n in visible:
        for network in policy.instances[n].addresses:
            first, last = int(network.network_address), int(network.broadcast_address)
            owned[network.version].append((first, -last, network, n))
            if policy.instances[n].vpc == vpc:
                own[network.version].append((first, last))
    for family, rows in owned.items():
        shadow = _merge(own[family])
        rows.sort(key=lambda row: row[:2])
        # Prefixes are nested or disjoint, so it is enough to look at the ones that cover the present one.
        cover: list[tuple[int, Network, int]] = []
        at = 0
        for first, minus_last, network, n in rows:
            last = -minus_last
            mine = policy.instances[n].vpc == vpc
            if not mine:
                while at < len(shadow) and shadow[at][1] < first:
                    at += 1
                if at < len(shadow) and shadow[at][0] <= first and last <= shadow[at][1]:
                    continue
            while cover and cover[-1][0] < first:
                cover.pop()
            for _, other_network, m in cover:
                other = policy.instances[m]
                if other.vpc != policy.instances[n].vpc and vpc not in (other.vpc, policy.instances[n].vpc):
                    advice = (
                        "name the VPC the capture was taken in (--vpc)" if vpc is None
                        else f"VPC {vpc!r} cannot tell two peers of it apart"
                    )
                    raise AmbiguousAddress(
                        f"{policy.origin}: {network} of instance {policy.instances[n].name!r} (VPC "
                        f"{policy.instances[n].vpc!r}) and {other_network} of instance {other.name!r} (VPC "
                        f"{other.vpc!r}) are the same addresses: {advice}"
                    )
            cover.append((last, network, n))
            families[family].owner[network] = n


def _merge(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


class AddressClasses:
    """Numbers every prefix, and tells for each number the owner and the class.

    A class is what rules can know of an address: the prefixes named in rules that hold it, and the membership of its
    owner.
    """

    def __init__(
        self,
        policy: Policy,
        memberships: Sequence[Profile],
        families: dict[int, Addresses],
        membership_of_instance: Mapping[int, int],
    ) -> None:
        self.policy = policy
        self.named = {family: addresses.named for family, addresses in families.items()}
        self._membership_number = {membership: n for n, membership in enumerate(memberships)}
        #: By group: (membership, VPC) of those in it.
        self._memberships_of_group: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for n, (groups, vpc) in enumerate(memberships):
            for group in groups:
                self._memberships_of_group[policy.security_groups[group].name].append((n, vpc))
        self.tries: dict[int, CidrTrie] = {}
        classes = self._classes = dict[tuple[int, int, int], int]()
        keys: list[tuple[int, int]] = []
        self._classes_of_family: dict[int, list[int]] = {4: [], 6: []}
        self._classes_of_membership: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._classes_of_prefix: dict[Network, list[int]] = defaultdict(list)
        owners: list[int] = []
        class_of_address: list[int] = []

        def class_number(family: int, inside: int, membership: int, chain: tuple[Network, ...]) -> int:
            key = (family, inside, membership)
            number = classes.get(key)
            if number is None:
                number = classes[key] = len(classes)
                self._classes_of_family[family].append(number)
                if membership >= 0:
                    self._classes_of_membership[family, membership].append(number)
                for network in chain:
                    self._classes_of_prefix[network].append(number)
            return number

        for family, addresses in families.items():
            # "Inside" numbers a chain of nested named prefixes by its innermost one.
            background = len(owners)
            owners.append(-1)
            keys.append((family, -1))
            class_of_address.append(class_number(family, -1, -1, ()))
            networks = sorted(addresses.owner.keys() | addresses.named)
            prefixes = np.zeros((len(networks), 16), dtype=np.uint8)
            packed = b"".join(n.network_address.packed for n in networks)
            width = 4 if family == 4 else 16
            prefixes[:, :width] = np.frombuffer(packed, dtype=np.uint8).reshape(-1, width)
            stack: list[tuple[int, int, int, tuple[Network, ...]]] = []
            for n, network in enumerate(networks):
                first = int(network.network_address)
                while stack and stack[-1][0] < first:
                    stack.pop()
                _, inside, owner, chain = stack[-1] if stack else (0, -1, -1, ())
                owner = addresses.owner.get(network, owner)
                if network in addresses.named:
                    inside, chain = n, (*chain, network)
                stack.append((int(network.broadcast_address), inside, owner, chain))
                owners.append(owner)
                keys.append((family, inside))
                class_of_address.append(
                    class_number(family, inside, membership_of_instance[owner] if owner >= 0 else -1, chain)
                )
            self.tries[family] = CidrTrie(
                family == 6,
                prefixes,
                np.array([n.prefixlen for n in networks], dtype=np.uint8),
                np.arange(background + 1, background + 1 + len(networks), dtype=np.uint32),
                background,
            )
        self.count = len(classes)
        self.owner = np.array(owners, dtype=np.int32)
        self.class_of_address = np.array(class_of_address, dtype=np.uint32)
        # By address number, what its class depends on beside the membership of its owner.
        self._keys = keys
        self._matching: dict[tuple[object, ...], Indices] = {}

    def knows(self, rules: Iterable[Rule]) -> bool:
        """Whether the classes tell apart all that these rules do; groups as peers apart."""
        return all(
            network in self.named[rule.ethertype] for rule in rules for network in named_networks(self.policy, rule)
        )

    def with_members(self, policy: Policy, memberships: Mapping[int, Profile]) -> AddressClasses | None:
        """For a later policy in which these instances' memberships are others; None if that makes new classes.

        The classes, and so what rules match, stay as they are.
        """
        class_of_address = self.class_of_address.copy()
        for instance, membership in memberships.items():
            number = self._membership_number.get(membership, -1) if membership[0] else -1
            if number < 0 and membership[0]:
                return None
            for address in np.flatnonzero(self.owner == instance).tolist():
                found = self._classes.get((*self._keys[address], number))
                if found is None:
                    return None
                class_of_address[address] = found
        later = copy(self)
        later.policy = policy
        later.class_of_address = class_of_address
        return later

    @staticmethod
    def selector(rule: Rule, vpc: int) -> tuple[object, ...]:
        """What a rule's peer is, seen from a VPC. The same selector, the same classes."""
        match rule.peer:
            case GroupPeer(name):
                return ("group", rule.ethertype, name, vpc)
            case AddressGroupPeer(name):
                return ("address group", rule.ethertype, name)
            case peer:
                return ("prefix", peer or ANYWHERE[rule.ethertype])

    def matching(self, rule: Rule, vpc: int) -> Indices:
        """The classes of the addresses a rule's peer matches, seen from a VPC (SPEC 4.11)."""
        key = self.selector(rule, vpc)
        found = self._matching.get(key)
        if found is None:
            if isinstance(rule.peer, GroupPeer):
                numbers = self._classes_of_group(rule.peer.name, rule.ethertype, vpc)
            else:
                networks = named_networks(self.policy, rule)
                numbers = {n for network in networks for n in self._classes_of_prefix[network]}
            found = self._matching[key] = np.array(sorted(numbers), dtype=np.int64)
        return found

    def _classes_of_group(self, name: str, family: int, vpc: int) -> set[int]:
        here = self.policy.vpcs[vpc]
        numbers: set[int] = set()
        for membership, other in self._memberships_of_group[name]:
            there = self.policy.vpcs[other]
            if here.region == there.region and self.policy.connected(here.name, there.name):
                numbers.update(self._classes_of_membership.get((family, membership), ()))
        return numbers
