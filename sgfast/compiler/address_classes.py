"""Divides addresses into classes that no rule distinguishes.

Every prefix that an instance owns or a rule names has an *address number*, which look-ups return. An address's class is
all that rules can know of it: the innermost named prefix that contains it (which implies all outer ones), and its
*membership*, that is those groups of its owner that rules name as peers. With ``group_members: by-address`` the groups
of other instances whose prefixes contain the address count, too (SPEC 4.14).

The classes of a later policy extend the earlier ones: named prefixes, memberships and classes keep their numbers, and
what no rule names any more is still distinguished. What was built from earlier classes stays valid as long as each new
class is part of an earlier one (``is_finer``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sgfast.compiler.addresses import ANYWHERE, Owned, named_networks
from sgfast.core.classify.cidr_trie import CidrTrie, nest_prefixes
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Network, Policy, Rule
from sgfast.policy.network_keys import network_key, without_duplicates
from sgfast.policy.networks import NEVER_AN_INSTANCE

Indices = NDArray[np.int64]

# A set of groups in one VPC. An instance's *profile* has all its groups and determines its rule tables. Its
# *membership* has only those that rules name as peers: what other instances' rules can know of it.
Profile = tuple[tuple[int, ...], int]

#: Stands for nothing: no named prefix contains the address, it is in no named group, or it has no owner.
NONE = -1


#: Classes in the order of their places, and those places.
_InOrder = tuple[Indices, Indices]

Halves = NDArray[np.uint64]


@dataclass
class _Prefixes:
    """Prefixes as arrays: the two halves of the address (IPv4: the top bits of the first half), and the length."""

    halves: Halves
    lengths: NDArray[np.uint8]

    @staticmethod
    def of(networks: Sequence[Network], family: int) -> _Prefixes:
        width = 4 if family == 4 else 16
        octets = np.zeros((len(networks), 16), dtype=np.uint8)
        packed = b"".join([network.network_address.packed for network in networks])
        octets[:, :width] = np.frombuffer(packed, dtype=np.uint8).reshape(-1, width)
        lengths = np.array([network.prefixlen for network in networks], dtype=np.uint8)
        return _Prefixes(octets.view(">u8").astype(np.uint64), lengths)

    def __add__(self, other: _Prefixes) -> _Prefixes:
        return _Prefixes(np.concatenate([self.halves, other.halves]), np.concatenate([self.lengths, other.lengths]))

    def __getitem__(self, rows: Indices) -> _Prefixes:
        return _Prefixes(self.halves[rows], self.lengths[rows])

    def within(self, half: np.uint64, length: np.uint8) -> NDArray[np.bool_]:
        """Which of them lie in a prefix of 1 to 64 bits, itself included."""
        is_same: NDArray[np.bool_] = (self.halves[:, 0] ^ half) >> np.uint64(64 - length) == 0
        return is_same & (self.lengths >= length)

    def around(self, half: np.uint64, length: np.uint8) -> NDArray[np.bool_]:
        """Which of them contain such a prefix and more."""
        free = np.uint64(63) - np.minimum(self.lengths, length - np.uint8(1))
        is_same: NDArray[np.bool_] = (self.halves[:, 0] ^ half) >> free >> np.uint64(1) == 0
        return is_same & (self.lengths < length)


@dataclass
class _Family:
    """The prefixes of one family, and what is known about each address number."""

    #: The number of each named prefix, by its key, which never changes.
    named: dict[bytes, int]
    named_prefixes: _Prefixes
    #: Owned prefixes, and the position of each one's owner in the policy.
    owned_prefixes: _Prefixes
    owned_place: NDArray[np.int32]
    trie: CidrTrie
    #: For each address number, counted from the family's first: the owner's position in the policy, and the innermost
    #: named prefix.
    owner_place: NDArray[np.int32]
    inside: NDArray[np.int32]
    #: The number of the owned prefix that makes its owner the owner, and of the next owned one around it; 0: none.
    owned_by: NDArray[np.int32]
    outer: NDArray[np.int32]
    #: Whether it is multicast or broadcast, which is in no group.
    multicast: NDArray[np.bool_]
    #: For each named prefix, by number: the range that it and its contents occupy in the order of named prefixes.
    first: Indices
    last: Indices
    #: For each named prefix, by number: the innermost one that contains it.
    around: Indices


class AddressClasses:
    """Numbers all prefixes, and gives the owner and class of each number. Immutable."""

    def __init__(
        self,
        policy: Policy,
        owned: Owned | None,
        named: Mapping[int, Iterable[Network]],
        numbers: Indices,
        memberships: Sequence[Profile],
        profile_number: Indices,
        earlier: AddressClasses | None = None,
    ) -> None:
        """Build the classes of a policy.

        ``owned`` is None if ``earlier`` has the same instances. ``named`` has the prefixes that rules name, by family.
        ``numbers`` and ``profile_number`` give, by position in the policy, an instance's number and the index of its
        membership in ``memberships``. ``earlier`` holds the classes of an earlier policy with the same groups, VPCs and
        settings.
        """
        self.policy = policy
        self._is_united = False
        #: The numbers of memberships, and of classes by (family, innermost named prefix, membership).
        self._membership: dict[Profile, int] = {} if earlier is None else earlier._membership.copy()
        self._class: dict[tuple[int, int, int], int] = {} if earlier is None else earlier._class.copy()
        known = len(self._class)
        of_profile = np.array([self._number(each) for each in memberships], dtype=np.int64)
        membership_of_place = np.append(of_profile[profile_number], NONE)      # last entry: no owner
        vpc_of_place = np.array([vpc for _, vpc in memberships], dtype=np.int64)[profile_number]
        number_of_place = np.append(numbers, NONE).astype(np.int32)

        self._families: dict[int, _Family] = {}
        owners: list[NDArray[np.int32]] = []
        classes: list[NDArray[np.uint32]] = []
        #: Each family's first address number.
        self._starts: dict[int, int] = {}
        for family in (4, 6):
            start = self._starts[family] = len(owners[0]) if owners else 0
            made = self._families[family] = _family(
                family, None if owned is None else owned[family], named[family],
                None if earlier is None else earlier._families[family], start,
            )  # fmt: skip
            owners.append(number_of_place[made.owner_place])
            in_groups = membership_of_place[made.owner_place]
            if policy.settings.group_members == "by-address":
                in_groups = self._united(made, in_groups, vpc_of_place)
            in_groups[made.multicast] = NONE
            keys = (made.inside.astype(np.int64) + 1) << 32 | (in_groups + 1)
            # Numbered by their first occurrence in address order.
            different, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
            order = np.argsort(first)
            inside, membership = (different[order] >> 32) - 1, (different[order] & 0xFFFFFFFF) - 1
            number = np.zeros(len(different), dtype=np.uint32)
            number[order] = [
                self._class.setdefault((family, *key), len(self._class))
                for key in zip(inside.tolist(), membership.tolist(), strict=True)
            ]
            classes.append(number[inverse.reshape(-1)])
        self.count = len(self._class)
        self.owner: NDArray[np.int32] = np.concatenate(owners)
        self.class_of_address: NDArray[np.uint32] = np.concatenate(classes)
        parents = None if earlier is None else self._parents(earlier, known)
        #: Whether every class is part of an earlier one.
        self.is_finer = parents is not None
        #: For each class, the lower one that it was divided from, or itself.
        self.origin = np.arange(self.count, dtype=np.uint32)
        if earlier is not None and parents is not None:
            self.origin = np.append(earlier.origin, np.array(parents, dtype=np.uint32))
        keyed = np.array(list(self._class), dtype=np.int64).reshape(-1, 3)
        self._class_family, self._class_inside, self._class_membership = keyed.T
        self._matching: dict[tuple[object, ...], Indices] = {}

    def _number(self, membership: Profile) -> int:
        return self._membership.setdefault(membership, len(self._membership)) if membership[0] else NONE

    def _united(self, made: _Family, in_groups: Indices, vpc_of_place: Indices) -> Indices:
        """The memberships of addresses in all owned prefixes around them, as far as these are of their owner's VPC.

        ``in_groups``: what the owners' groups make of them.
        """
        nested = np.flatnonzero((made.owned_by == np.arange(len(made.owned_by))) & (made.outer > 0))
        if not len(nested):
            return in_groups
        self._is_united = True
        profiles = list(self._membership)
        known: dict[tuple[int, int], int] = {}
        vpcs = vpc_of_place[made.owner_place].tolist()
        numbers = in_groups.tolist()
        # Prefixes are in address order, so each one comes after the prefixes that contain it.
        for inner, outer in zip(nested.tolist(), made.outer[nested].tolist(), strict=True):
            pair = numbers[inner], numbers[outer]
            if vpcs[inner] != vpcs[outer] or pair[1] == NONE:
                continue
            if pair not in known:
                groups = {group for number in pair if number != NONE for group in profiles[number][0]}
                known[pair] = self._number((tuple(sorted(groups)), vpcs[inner]))
                profiles = list(self._membership) if known[pair] == len(profiles) else profiles
            numbers[inner] = known[pair]
        united: Indices = np.array(numbers, dtype=np.int64)[made.owned_by]
        return united

    @cached_property
    def _by_place(self) -> dict[int, _InOrder]:
        """For each family, its classes by the position of their innermost named prefix among such prefixes."""
        places = {}
        for family, made in self._families.items():
            classes = np.flatnonzero((self._class_family == family) & (self._class_inside != NONE))
            places[family] = _in_order(classes, made.first[self._class_inside[classes]])
        return places

    @cached_property
    def _by_membership(self) -> dict[int, _InOrder]:
        """For each family, its classes by membership."""
        found = {}
        for family in self._families:
            classes = np.flatnonzero((self._class_family == family) & (self._class_membership != NONE))
            found[family] = _in_order(classes, self._class_membership[classes])
        return found

    @property
    def tries(self) -> dict[int, CidrTrie]:
        return {family: made.trie for family, made in self._families.items()}

    def _parents(self, earlier: AddressClasses, known: int) -> list[int] | None:
        """For each class that is new, the earlier one that it is part of; None if one is part of none."""
        parents = []
        for family, inside, membership in list(self._class)[known:]:
            named = earlier._families[family].named
            while inside >= len(named):
                inside = int(self._families[family].around[inside])
            parent = earlier._class.get((family, inside, membership))
            if parent is None:
                return None
            parents.append(parent)
        return parents

    def knows(self, rules: Iterable[Rule]) -> bool:
        """Whether the classes distinguish everything these rules do, not counting groups as peers."""
        return all(
            network_key(network) in self._families[rule.ethertype].named
            for rule in rules
            for network in named_networks(self.policy, rule)
        )

    def with_members(self, policy: Policy, memberships: Mapping[int, Profile]) -> AddressClasses | None:
        """The classes for a later policy in which these instances, by number, have other memberships; None if that
        needs new classes.
        """
        if memberships and self._is_united:
            return None
        class_of_address = self.class_of_address.copy()
        for instance, membership in memberships.items():
            number = self._membership.get(membership, NONE) if membership[0] else NONE
            if number == NONE and membership[0]:
                return None
            for address in np.flatnonzero(self.owner == instance).tolist():
                family = 4 if address < self._starts[6] else 6
                made, place = self._families[family], address - self._starts[family]
                key = family, int(made.inside[place]), NONE if made.multicast[place] else number
                found = self._class.get(key)
                if found is None:
                    return None
                class_of_address[address] = found
        later = copy(self)
        later.policy = policy
        later.class_of_address = class_of_address
        later.is_finer = True
        return later

    @staticmethod
    def selector(rule: Rule, vpc: int) -> tuple[object, ...]:
        """Identifies a rule's peer as seen from a VPC. Equal selectors match the same classes."""
        match rule.peer:
            case GroupPeer(name):
                return ("group", rule.ethertype, name, vpc)
            case AddressGroupPeer(name):
                return ("address group", rule.ethertype, name)
            case peer:
                return ("prefix", network_key(peer or ANYWHERE[rule.ethertype]))

    def matching(self, rule: Rule, vpc: int) -> Indices:
        """The classes of the addresses that a rule's peer matches, seen from a VPC (SPEC 4.11)."""
        key = self.selector(rule, vpc)
        found = self._matching.get(key)
        if found is None:
            if isinstance(rule.peer, GroupPeer):
                members = np.array(self._memberships_of_group(rule.peer.name, vpc), dtype=np.int64)
                found = _within(*self._by_membership[rule.ethertype], members, members + 1)
            else:
                made = self._families[rule.ethertype]
                numbers = [made.named[network_key(network)] for network in named_networks(self.policy, rule)]
                found = _within(*self._by_place[rule.ethertype], made.first[numbers], made.last[numbers])
            self._matching[key] = found
        return found

    def _memberships_of_group(self, name: str, vpc: int) -> list[int]:
        policy = self.policy
        here = policy.vpcs[vpc]
        by_vpc = self._memberships_by_group.get(name, {})
        found: list[int] = []
        for other in policy.connected_vpcs[here.name]:
            if policy.vpc_by_name[other].region == here.region:
                found += by_vpc.get(other, ())
        return found

    @cached_property
    def _memberships_by_group(self) -> dict[str, dict[str, list[int]]]:
        """The numbers of memberships, by group and VPC."""
        found: dict[str, dict[str, list[int]]] = {}
        for (groups, vpc), number in self._membership.items():
            for group in groups:
                of_group = found.setdefault(self.policy.security_groups[group].name, {})
                of_group.setdefault(self.policy.vpcs[vpc].name, []).append(number)
        return found


def _in_order(classes: Indices, places: Indices) -> _InOrder:
    order = np.argsort(places, kind="stable")
    return classes[order], places[order]


def _within(classes: Indices, places: Indices, first: Indices, last: Indices) -> Indices:
    """The classes whose places lie in any of these ranges, ``last`` excluded. ``places`` are in order. The work is that
    of the ranges and of what is found, not that of all classes.
    """
    order = np.argsort(first, kind="stable")
    begin, end = np.searchsorted(places, first[order]), np.searchsorted(places, last[order])
    # A range may begin in an earlier one: only what is beyond that is taken.
    begin[1:] = np.maximum(begin[1:], np.maximum.accumulate(end)[:-1])
    stretches = [classes[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True) if a < b]
    return np.sort(np.concatenate(stretches)) if stretches else np.zeros(0, dtype=np.int64)


def _family(
    family: int, owned: list[tuple[Network, int]] | None, named: Iterable[Network], earlier: _Family | None, start: int
) -> _Family:
    """Build a family. ``start`` is the number of its background, the addresses outside all prefixes."""
    numbers = {} if earlier is None else earlier.named.copy()
    news = [network for network in without_duplicates(named) if network_key(network) not in numbers]
    for network in news:
        numbers[network_key(network)] = len(numbers)
    named_prefixes = _Prefixes.of(news, family)
    if earlier is not None:
        named_prefixes = earlier.named_prefixes + named_prefixes
    if owned is not None:
        owned_prefixes = _Prefixes.of([network for network, _ in owned], family)
        owned_place = np.array([place for _, place in owned], dtype=np.int32)
    else:
        assert earlier is not None
        owned_prefixes, owned_place = earlier.owned_prefixes, earlier.owned_place

    # Sorted, with each prefix only once, whether owned, named or both.
    never = _Prefixes.of([network for network in NEVER_AN_INSTANCE if network.version == family], family)
    pairs = list(zip(never.halves[:, 0], never.lengths, strict=True))
    apart = never[np.flatnonzero([owned_prefixes.around(*pair).any() for pair in pairs])]
    prefixes = named_prefixes + owned_prefixes + apart
    number = np.full(len(prefixes.lengths), NONE, dtype=np.int32)
    number[: len(numbers)] = np.arange(len(numbers))
    owner = np.full(len(prefixes.lengths), NONE, dtype=np.int32)
    owner[len(numbers) : len(numbers) + len(owned_place)] = owned_place
    order = np.lexsort((prefixes.lengths, prefixes.halves[:, 1], prefixes.halves[:, 0]))
    prefixes = prefixes[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (prefixes.halves[1:] != prefixes.halves[:-1]).any(axis=1) | (
        prefixes.lengths[1:] != prefixes.lengths[:-1]
    )
    starts = np.flatnonzero(new)
    prefixes = prefixes[starts]
    if len(starts):
        number, owner = (np.maximum.reduceat(values[order], starts) for values in (number, owner))

    outer, inside, first, last, around = nest_prefixes(
        prefixes.halves, prefixes.lengths, owner, number, len(numbers)
    )
    owned_by = np.where(owner == NONE, outer, np.arange(len(starts), dtype=np.int32))
    multicast = np.zeros(len(starts), dtype=bool)
    for pair in pairs:
        multicast |= prefixes.within(*pair)
    trie = CidrTrie(
        family == 6,
        prefixes.halves.astype(">u8").view(np.uint8).reshape(-1, 16),
        prefixes.lengths,
        np.arange(start + 1, start + 1 + len(starts), dtype=np.uint32),
        start,
    )
    background = np.array([NONE], dtype=np.int32)
    owned_by, outer = (np.concatenate([background, rows]) + np.int32(1) for rows in (owned_by, outer))
    return _Family(
        numbers, named_prefixes, owned_prefixes, owned_place, trie, np.concatenate([background, owner])[owned_by],
        np.concatenate([background, inside]), owned_by, outer, np.concatenate([[False], multicast]), first, last,
        around,
    )  # fmt: skip
