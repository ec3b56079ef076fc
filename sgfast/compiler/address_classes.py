"""Divide addresses into classes that no rule distinguishes.

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.algebra.addresses import ANYWHERE, Owned, named_networks
from sgfast.core.classify.cidr_trie import CidrTrie, nest_prefixes
from sgfast.policy.loaded_policy import exchanged
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Network, Policy, Rule
from sgfast.policy.networks import NEVER_AN_INSTANCE, network_key, without_duplicates

Indices = NDArray[np.int64]

# A set of groups in one VPC. An instance's *profile* has all its groups and determines its rule tables. Its
# *membership* has only those that rules name as peers: what other instances' rules can know of it.
Profile = tuple[tuple[int, ...], int]

#: Stands for nothing: no named prefix contains the address, it is in no named group, or it has no owner.
NONE = -1


#: Classes in the order of their places, and those places.
_InOrder = tuple[Indices, Indices]

Halves = NDArray[np.uint64]

#: If the addresses of more instances than this change at once, all owned prefixes are collected anew.
MAX_MOVED = 64


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

    def position(self, halves: Halves, length: np.uint8) -> int:
        """Count the prefixes that come before this one. They must be in order."""
        begin, end = (self.halves[:, 0].searchsorted(halves[0], side) for side in ("left", "right"))
        low, lengths = self.halves[begin:end, 1], self.lengths[begin:end]
        return int(begin + np.count_nonzero((low < halves[1]) | ((low == halves[1]) & (lengths < length))))

    def within(self, half: np.uint64, length: np.uint8) -> NDArray[np.bool_]:
        """Mask of the prefixes that lie in a prefix of 1 to 64 bits, itself included."""
        is_same: NDArray[np.bool_] = (self.halves[:, 0] ^ half) >> np.uint64(64 - length) == 0
        return is_same & (self.lengths >= length)

    def around(self, half: np.uint64, length: np.uint8) -> NDArray[np.bool_]:
        """Mask of the prefixes that contain such a prefix and more."""
        free = np.uint64(63) - np.minimum(self.lengths, length - np.uint8(1))
        is_same: NDArray[np.bool_] = (self.halves[:, 0] ^ half) >> free >> np.uint64(1) == 0
        return is_same & (self.lengths < length)


@dataclass
class _Family:
    """The prefixes of one family, and what is known about each."""

    #: The number of each named prefix, by its key, which never changes.
    named: dict[bytes, int]
    #: All prefixes in order of addresses, then of lengths, each once. Of each, the number if it is named, and the
    #: position in the policy of the instance that owns it; NONE: it is neither.
    prefixes: _Prefixes
    number: NDArray[np.int32]
    owner: NDArray[np.int32]
    #: The address number of the background, which is outside all prefixes, and then of each prefix. This field
    #: and those after it have the background first.
    address: Indices
    trie: CidrTrie
    #: The owner of the addresses there, and the innermost named prefix.
    owner_place: Indices
    inside: NDArray[np.int32]
    #: The owned prefix that makes its owner the owner, and the next owned one around it; 0: none.
    owned_by: NDArray[np.int32]
    outer: NDArray[np.int32]
    #: Whether it is multicast or broadcast, which is in no group.
    multicast: NDArray[np.bool_]
    #: The range that each named prefix, by number, and its contents occupy in the order of named prefixes.
    first: Indices
    last: Indices
    #: The innermost named prefix that contains each named prefix, by number.
    around: Indices


@dataclass(frozen=True, slots=True)
class Moved:
    """Prefixes of one family that have other owners than before, with the owners' positions in the policy."""

    gone: list[tuple[Network, int]]
    owned: list[tuple[Network, int]]


class AddressClasses:
    """Numbers all prefixes, and gives the owner and class of each number. Immutable."""

    def __init__(
        self,
        policy: Policy,
        owned: Owned | Mapping[int, Moved],
        named: Mapping[int, Iterable[Network]],
        numbers: Indices,
        memberships: Sequence[Profile],
        profile_number: Indices,
        earlier: AddressClasses | None = None,
    ) -> None:
        """Build the classes of a policy.

        ``owned`` has all owned prefixes, or how they differ from those of ``earlier``, by family. ``named`` has the
        prefixes that rules name, by family. ``numbers`` and ``profile_number`` give, by position in the policy, an
        instance's number and the index of its membership in ``memberships``. ``earlier`` holds the classes of an
        earlier policy with the same groups, VPCs and settings.
        """
        self.policy = policy
        self._is_united = False
        #: The numbers of memberships, and of classes by ``_key``.
        self._membership: dict[Profile, int] = {} if earlier is None else earlier._membership.copy()
        self._class: dict[int, int] = {} if earlier is None else earlier._class.copy()
        known = len(self._class)
        of_profile = np.array([self._number(each) for each in memberships], dtype=np.int64)
        membership_of_place = np.append(of_profile[profile_number], NONE)      # last entry: no owner
        vpc_of_place = np.array([vpc for _, vpc in memberships], dtype=np.int64)[profile_number]
        number_of_place = np.append(numbers, NONE).astype(np.int32)

        self._families: dict[int, _Family] = {}
        end = 0 if earlier is None or isinstance(owned[4], list) else len(earlier.owner)
        is_new = end == 0
        for family in (4, 6):
            theirs, last = owned[family], None if earlier is None else earlier._families[family]
            if isinstance(theirs, Moved):
                assert last is not None
                made = _later_family(family, last, theirs, named[family], end)
            else:
                made = _family(family, theirs, named[family], last, end)
            self._families[family] = made
            end = max(end, int(made.address.max()) + 1)
        #: The owner by address number.
        self.owner: NDArray[np.int32] = np.zeros(end, dtype=np.int32)
        self._key = np.zeros(end, dtype=np.int64)
        self._multicast = np.zeros(end, dtype=bool)
        for family, made in self._families.items():
            self.owner[made.address] = number_of_place[made.owner_place]
            in_groups = membership_of_place[made.owner_place]
            if policy.settings.group_members == "by-address":
                in_groups = self._united(made, in_groups, vpc_of_place)
            in_groups[made.multicast] = NONE
            self._key[made.address] = _key(family, made.inside.astype(np.int64), in_groups)
            self._multicast[made.address] = made.multicast
        self.class_of_address: NDArray[np.uint32] = np.zeros(end, dtype=np.uint32)
        changed = np.arange(end)
        if earlier is not None and not is_new:
            before = len(earlier._key)
            self.class_of_address[:before] = earlier.class_of_address
            changed = np.append(np.flatnonzero(self._key[:before] != earlier._key), changed[before:])
        # Numbered by their first occurrence.
        different, first, inverse = np.unique(self._key[changed], return_index=True, return_inverse=True)
        number = np.zeros(len(different), dtype=np.uint32)
        news: list[int] = []
        for n in np.argsort(first).tolist():
            key = int(different[n])
            number[n] = self._class.setdefault(key, len(self._class))
            if number[n] >= known + len(news):
                news.append(key)
        self.class_of_address[changed] = number[inverse.reshape(-1)]
        self.count = len(self._class)
        of_news = _parts(np.array(news, dtype=np.int64))
        parents = None if earlier is None else self._parents(earlier, of_news)
        #: Whether every class is part of an earlier one.
        self.is_finer = parents is not None
        #: By class: the number of the earlier class of which it is a part, or its own number.
        self.origin = np.arange(self.count, dtype=np.uint32)
        if earlier is not None and parents is not None:
            self.origin = np.append(earlier.origin, np.array(parents, dtype=np.uint32))
        #: The parts of each class, as ``_parts`` returns them: family, innermost named prefix, membership.
        self._of_class: list[Indices] = list(of_news)
        if earlier is not None:
            self._of_class = [np.append(*both) for both in zip(earlier._of_class, of_news, strict=True)]
        self._matching: dict[tuple[object, ...], Indices] = {}

    def _number(self, membership: Profile) -> int:
        return self._membership.setdefault(membership, len(self._membership)) if membership[0] else NONE

    def _united(self, made: _Family, in_groups: Indices, vpc_of_place: Indices) -> Indices:
        """The memberships of addresses if those of all owned prefixes around them count, too (SPEC 4.14), as far as
        these are in their owner's VPC.

        ``in_groups``: the memberships that the owners' own groups give.
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
        """Classes of each family, by the position of their innermost named prefix among such prefixes."""
        places = {}
        of_family, inside, _ = self._of_class
        for family, made in self._families.items():
            classes = np.flatnonzero((of_family == family) & (inside != NONE))
            places[family] = _in_order(classes, made.first[inside[classes]])
        return places

    @cached_property
    def _by_membership(self) -> dict[int, _InOrder]:
        """Classes of each family, by membership."""
        found = {}
        of_family, _, membership = self._of_class
        for family in self._families:
            classes = np.flatnonzero((of_family == family) & (membership != NONE))
            found[family] = _in_order(classes, membership[classes])
        return found

    @property
    def tries(self) -> dict[int, CidrTrie]:
        return {family: made.trie for family, made in self._families.items()}

    def _parents(self, earlier: AddressClasses, of_news: tuple[Indices, Indices, Indices]) -> list[int] | None:
        """The earlier class that each new class is part of; None if one is part of none."""
        parents = []
        for family, inside, membership in zip(*(each.tolist() for each in of_news), strict=True):
            named = earlier._families[family].named
            while inside >= len(named):
                inside = int(self._families[family].around[inside])
            parent = earlier._class.get(_key(family, inside, membership))
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
        class_of_address, keys = self.class_of_address.copy(), self._key.copy()
        for instance, membership in memberships.items():
            number = self._membership.get(membership, NONE) if membership[0] else NONE
            if number == NONE and membership[0]:
                return None
            for address in np.flatnonzero((self.owner == instance) & ~self._multicast).tolist():
                family, inside, _ = _parts(keys[address])
                keys[address] = _key(family, inside, number)
                found = self._class.get(int(keys[address]))
                if found is None:
                    return None
                class_of_address[address] = found
        later = copy(self)
        later.policy = policy
        later.class_of_address, later._key = class_of_address, keys
        later.is_finer = True
        return later

    @staticmethod
    def selector(rule: Rule, vpc: int) -> tuple[object, ...]:
        """Identify a rule's peer as seen from a VPC. Equal selectors match the same classes."""
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


def moved_prefixes(before: Policy, after: Policy, differing: Sequence[int]) -> dict[int, Moved] | None:
    """Differences between the owners of prefixes, by family; None if there are several VPCs, whose prefixes hide each
    other, or if many differ. ``differing``: the positions of instances that do, up to the shorter policy's end.
    """
    if len(after.vpcs) > 1 or len(differing) + abs(len(before.instances) - len(after.instances)) > MAX_MOVED:
        return None
    found = {4: Moved([], []), 6: Moved([], [])}
    common = min(len(before.instances), len(after.instances))
    for n in (*differing, *range(common, max(len(before.instances), len(after.instances)))):
        old, new = (policy.instances[n].addresses if n < len(policy.instances) else () for policy in (before, after))
        gone, owned = exchanged(old, new)
        for network in gone:
            found[network.version].gone.append((network, n))
        for network in owned:
            found[network.version].owned.append((network, n))
    return found


def _in_order(classes: Indices, places: Indices) -> _InOrder:
    order = np.argsort(places, kind="stable")
    return classes[order], places[order]


def _within(classes: Indices, places: Indices, first: Indices, last: Indices) -> Indices:
    """The classes whose places lie in any of these ranges, ``last`` excluded. ``places`` are in order. The work grows
    with the ranges and the classes found, not with all classes.
    """
    if len(first) == 1:     # as for most rules
        only = slice(*places.searchsorted((first[0], last[0])).tolist())
        return np.sort(classes[only])
    order = np.argsort(first, kind="stable")
    begin, end = np.searchsorted(places, first[order]), np.searchsorted(places, last[order])
    # A range may begin in an earlier one: only what is beyond that is taken.
    begin[1:] = np.maximum(begin[1:], np.maximum.accumulate(end)[:-1])
    stretches = [classes[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True) if a < b]
    return np.sort(np.concatenate(stretches)) if stretches else np.zeros(0, dtype=np.int64)


def _key(family: int, inside: Any, membership: Any) -> Any:
    """All that rules can know of an address, as one number; also of several as arrays."""
    return (family == 6) << 62 | (inside + 1) << 32 | (membership + 1)


def _parts(key: Any) -> tuple[Any, Any, Any]:
    """The arguments of ``_key``."""
    return 4 + 2 * (key >> 62), ((key >> 32) & 0x3FFFFFFF) - 1, (key & 0xFFFFFFFF) - 1


def _family(
    family: int, owned: list[tuple[Network, int]], named: Iterable[Network], earlier: _Family | None, start: int
) -> _Family:
    """Build a family. ``earlier``: the numbers of named prefixes. ``start`` is the first address number."""
    numbers = {} if earlier is None else earlier.named.copy()
    news = [network for network in without_duplicates(named) if network_key(network) not in numbers]
    for network in news:
        numbers[network_key(network)] = len(numbers)
    named_prefixes = _Prefixes.of(news, family)
    if earlier is not None:
        is_named = earlier.number != NONE
        in_order = np.argsort(earlier.number[is_named])
        named_prefixes = earlier.prefixes[np.flatnonzero(is_named)[in_order]] + named_prefixes
    owned_prefixes = _Prefixes.of([network for network, _ in owned], family)

    # Sorted, with each prefix only once, whether owned, named or both.
    never = _never(family)
    pairs = list(zip(never.halves[:, 0], never.lengths, strict=True))
    apart = never[np.flatnonzero([owned_prefixes.around(*pair).any() for pair in pairs])]
    prefixes = named_prefixes + owned_prefixes + apart
    number = np.full(len(prefixes.lengths), NONE, dtype=np.int32)
    number[: len(numbers)] = np.arange(len(numbers))
    owner = np.full(len(prefixes.lengths), NONE, dtype=np.int32)
    owner[len(numbers) : len(numbers) + len(owned)] = [place for _, place in owned]
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
    address = np.arange(start, start + 1 + len(starts))
    return _nested(family, numbers, prefixes, number, owner, address, None, ())


def _later_family(family: int, before: _Family, moved: Moved, named: Iterable[Network], start: int) -> _Family:
    """The family with more named prefixes and other owners. ``start``: the first address number that is free. Prefixes
    that nobody owns any more stay where they are.
    """
    numbers = before.named
    news = [network for network in without_duplicates(named) if network_key(network) not in numbers]
    if not news and not moved.gone and not moved.owned:
        return before
    if news:
        numbers = numbers | {network_key(network): len(numbers) + n for n, network in enumerate(news)}
    never = [
        each for each in NEVER_AN_INSTANCE if each.version == family
        and any(owned.prefixlen < each.prefixlen and each.network_address in owned for owned, _ in moved.owned)
    ]  # fmt: skip
    owners = [network for network, _ in (*moved.gone, *moved.owned)]
    networks = without_duplicates([*news, *owners, *never])
    wanted = _Prefixes.of(networks, family)
    order = np.lexsort((wanted.lengths, wanted.halves[:, 1], wanted.halves[:, 0]))
    wanted = wanted[order]
    places = np.array([before.prefixes.position(*each) for each in zip(wanted.halves, wanted.lengths, strict=True)])
    following = before.prefixes[np.minimum(places, len(before.number) - 1)] if len(before.number) else None
    is_new = np.ones(len(places), dtype=bool)
    if following is not None:
        is_new = (
            (places == len(before.number)) | (following.halves != wanted.halves).any(axis=1)
            | (following.lengths != wanted.lengths)
        )  # fmt: skip
    at = places[is_new]
    prefixes = _Prefixes(
        np.insert(before.prefixes.halves, at, wanted.halves[is_new], axis=0),
        np.insert(before.prefixes.lengths, at, wanted.lengths[is_new]),
    )
    number, owner = (np.insert(values, at, NONE) for values in (before.number, before.owner))
    address = np.insert(before.address, at + 1, start + np.arange(len(at)))
    rows = places + np.cumsum(is_new) - is_new
    row = {network_key(networks[n]): each for n, each in zip(order.tolist(), rows.tolist(), strict=True)}
    for network in news:
        number[row[network_key(network)]] = numbers[network_key(network)]
    for network, place in moved.gone:
        if owner[row[network_key(network)]] == place:
            owner[row[network_key(network)]] = NONE
    for network, place in moved.owned:
        owner[row[network_key(network)]] = place
    return _nested(family, numbers, prefixes, number, owner, address, before.trie, rows[is_new].tolist())


def _never(family: int) -> _Prefixes:
    return _Prefixes.of([network for network in NEVER_AN_INSTANCE if network.version == family], family)


def _nested(
    family: int, named: dict[bytes, int], prefixes: _Prefixes, number: NDArray[np.int32], owner: NDArray[np.int32],
    address: Indices, trie: CidrTrie | None, added: Sequence[int],
) -> _Family:  # fmt: skip
    """The family of these prefixes. ``trie``: a trie that has all of them except the rows in ``added``."""
    outer, inside, first, last, around = nest_prefixes(prefixes.halves, prefixes.lengths, owner, number, len(named))
    owned_by = np.where(owner == NONE, outer, np.arange(len(owner), dtype=np.int32))
    never = _never(family)
    multicast = np.zeros(len(owner), dtype=bool)
    for pair in zip(never.halves[:, 0], never.lengths, strict=True):
        multicast |= prefixes.within(*pair)
    if trie is None or added:
        octets = prefixes.halves.astype(">u8").view(np.uint8).reshape(-1, 16)
        values = address[1:].astype(np.uint32)
        trie = CidrTrie(family == 6, octets, prefixes.lengths, values, int(address[0]), trie, added)
    background = np.array([NONE], dtype=np.int32)
    owned_by, outer = (np.concatenate([background, rows]) + np.int32(1) for rows in (owned_by, outer))
    owner_place = np.concatenate([background, owner]).take(owned_by)
    return _Family(
        named, prefixes, number, owner, address, trie, owner_place.astype(np.int64),
        np.concatenate([background, inside]), owned_by, outer, np.concatenate([[False], multicast]), first, last,
        around,
    )  # fmt: skip
