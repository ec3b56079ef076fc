"""Divide addresses into classes that no rule distinguishes.

Every prefix that an instance owns or a rule names has an *address number*, which look-ups return. Two properties
determine the class of an address. One is the innermost named prefix that contains the address, which implies all outer
prefixes. The other is its *membership*: the groups of its owner that rules name as peers. With ``group_members:
by-address``, groups of other instances count, too, if a prefix of such an instance contains the address (SPEC 4.14).

The classes of a later policy extend the earlier classes. Named prefixes, memberships and classes keep their numbers.
Classes that only removed rules distinguished stay apart. Rule tables built from earlier classes stay valid as long as
each new class is part of an earlier class (``is_finer``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.classify.cidr_trie import CidrTrie, nest_prefixes
from sgfast.policy.loaded_policy import exchanged
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Network, Policy, Rule
from sgfast.policy.networks import NEVER_AN_INSTANCE, network_key, without_duplicates
from sgfast.rules.addresses import ANYWHERE, Owned, named_networks

Indices = NDArray[np.int64]

# A set of groups in one VPC, by their positions in the policy. An instance's *context* has all groups of the instance
# and determines its rule tables. Its *membership* has only the groups that rules name as peers.
Context = tuple[tuple[int, ...], int]

#: The number for "none": no named prefix contains the address, the address is in no named group, or it has no owner.
NONE = -1


#: Classes in the order of their places, and the place of each class.
_InOrder = tuple[Indices, Indices]

Halves = NDArray[np.uint64]

#: The limit for the instances whose changed prefixes are tracked one by one. If more instances change at once, all
#: owned prefixes are collected anew.
MAX_MOVED = 64


@dataclass
class _Prefixes:
    """Prefixes as arrays of addresses and lengths. An address has two halves of 64 bits; an IPv4 address is the upper
    32 bits of the first half.
    """

    halves: Halves
    lengths: NDArray[np.uint8]

    @staticmethod
    def from_networks(networks: Sequence[Network], family: int) -> _Prefixes:
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
        """Count the prefixes that sort before the given prefix. ``self`` must be sorted."""
        begin, end = (self.halves[:, 0].searchsorted(halves[0], side) for side in ("left", "right"))
        low, lengths = self.halves[begin:end, 1], self.lengths[begin:end]
        return int(begin + np.count_nonzero((low < halves[1]) | ((low == halves[1]) & (lengths < length))))

    def within(self, half: np.uint64, length: np.uint8) -> NDArray[np.bool_]:
        """Return a mask of the prefixes that are equal to the given prefix of 1 to 64 bits, or inside it."""
        is_same: NDArray[np.bool_] = (self.halves[:, 0] ^ half) >> np.uint64(64 - length) == 0
        return is_same & (self.lengths >= length)

    def around(self, half: np.uint64, length: np.uint8) -> NDArray[np.bool_]:
        """Return a mask of the prefixes that contain the given prefix of 1 to 64 bits and are shorter."""
        free = np.uint64(63) - np.minimum(self.lengths, length - np.uint8(1))
        is_same: NDArray[np.bool_] = (self.halves[:, 0] ^ half) >> free >> np.uint64(1) == 0
        return is_same & (self.lengths < length)


@dataclass
class _Family:
    """The prefixes of one address family, with the owner and the innermost named prefix of each."""

    #: The number of each named prefix, by its key (``network_key``). The number never changes.
    named: dict[bytes, int]
    #: All prefixes in order of addresses, then of lengths, without duplicates.
    prefixes: _Prefixes
    #: The number of each prefix if a rule names it, else NONE.
    number: NDArray[np.int32]
    #: The position in the policy of the instance that owns each prefix, or NONE.
    owner: NDArray[np.int32]
    #: The address numbers: first that of the background (all addresses outside the prefixes), then that of each prefix.
    #: The fields from here to ``multicast`` have an entry for the background before the entries for the prefixes.
    address: Indices
    trie: CidrTrie
    #: The position in the policy of the instance that owns the addresses, or NONE.
    owner_place: Indices
    #: The number of the innermost named prefix that contains the addresses, or NONE.
    inside: NDArray[np.int32]
    #: The innermost owned prefix that contains the addresses, and the next owned prefix around that one; 0: none.
    owned_by: NDArray[np.int32]
    outer: NDArray[np.int32]
    #: Whether the addresses are multicast or broadcast, and so in no group.
    multicast: NDArray[np.bool_]
    #: For each named prefix, by number: the range of the prefix and its contents among the sorted named prefixes.
    first: Indices
    last: Indices
    #: For each named prefix, by number: the innermost named prefix that contains it.
    around: Indices


@dataclass(frozen=True, slots=True)
class Moved:
    """The prefixes of one family whose owners changed, with the owners' positions in the policy."""

    #: Prefixes with their former owners, and prefixes with their new owners.
    gone: list[tuple[Network, int]]
    owned: list[tuple[Network, int]]


class AddressClasses:
    """The address classes of a policy, and the owner and class of each address number. Immutable."""

    def __init__(
        self,
        policy: Policy,
        owned: Owned | Mapping[int, Moved],
        named: Mapping[int, Iterable[Network]],
        numbers: Indices,
        memberships: Sequence[Context],
        context_number: Indices,
        earlier: AddressClasses | None = None,
    ) -> None:
        """Build the classes of a policy.

        ``owned``: all owned prefixes by family, or the changes of owners since ``earlier``. ``named``: the prefixes
        that rules name, by family. ``numbers``: the number of each instance, by position in the policy.
        ``context_number``: the index in ``memberships`` of each instance's membership, by position in the policy.
        ``earlier``: the classes of an earlier policy with the same groups, VPCs and settings.
        """
        self.policy = policy
        self._is_united = False
        #: The number of each membership, and the number of each class by its ``_key``.
        self._membership: dict[Context, int] = {} if earlier is None else earlier._membership.copy()
        self._class: dict[int, int] = {} if earlier is None else earlier._class.copy()
        earlier_count = len(self._class)
        of_context = np.array([self._number(context) for context in memberships], dtype=np.int64)
        membership_of_place = np.append(of_context[context_number], NONE)      # last entry: no owner
        vpc_of_place = np.array([vpc for _, vpc in memberships], dtype=np.int64)[context_number]
        number_of_place = np.append(numbers, NONE).astype(np.int32)

        self._families: dict[int, _Family] = {}
        end = 0 if earlier is None or isinstance(owned[4], list) else len(earlier.owner)
        is_new = end == 0
        for family in (4, 6):
            owned_of_family, last = owned[family], None if earlier is None else earlier._families[family]
            if isinstance(owned_of_family, Moved):
                assert last is not None
                built_family = _later_family(family, last, owned_of_family, named[family], end)
            else:
                built_family = _family(family, owned_of_family, named[family], last, end)
            self._families[family] = built_family
            end = max(end, int(built_family.address.max()) + 1)
        #: The owner by address number.
        self.owner: NDArray[np.int32] = np.zeros(end, dtype=np.int32)
        self._key = np.zeros(end, dtype=np.int64)
        self._multicast = np.zeros(end, dtype=bool)
        for family, built_family in self._families.items():
            self.owner[built_family.address] = number_of_place[built_family.owner_place]
            in_groups = membership_of_place[built_family.owner_place]
            if policy.settings.group_members == "by-address":
                in_groups = self._united(built_family, in_groups, vpc_of_place)
            in_groups[built_family.multicast] = NONE
            self._key[built_family.address] = _key(family, built_family.inside.astype(np.int64), in_groups)
            self._multicast[built_family.address] = built_family.multicast
        self.class_of_address: NDArray[np.uint32] = np.zeros(end, dtype=np.uint32)
        changed = np.arange(end)
        if earlier is not None and not is_new:
            before = len(earlier._key)
            self.class_of_address[:before] = earlier.class_of_address
            changed = np.append(np.flatnonzero(self._key[:before] != earlier._key), changed[before:])
        # New classes are numbered in the order of their first occurrence.
        different, first, inverse = np.unique(self._key[changed], return_index=True, return_inverse=True)
        number = np.zeros(len(different), dtype=np.uint32)
        new_keys: list[int] = []
        for n in np.argsort(first).tolist():
            key = int(different[n])
            number[n] = self._class.setdefault(key, len(self._class))
            if number[n] >= earlier_count + len(new_keys):
                new_keys.append(key)
        self.class_of_address[changed] = number[inverse.reshape(-1)]
        self.count = len(self._class)
        of_new = _parts(np.array(new_keys, dtype=np.int64))
        parents = None if earlier is None else self._parents(earlier, of_new)
        #: Whether every class is part of an earlier one.
        self.is_finer = parents is not None
        #: For each class: the number of the earlier class that it is a part of, or its own number.
        self.origin = np.arange(self.count, dtype=np.uint32)
        if earlier is not None and parents is not None:
            self.origin = np.append(earlier.origin, np.array(parents, dtype=np.uint32))
        #: Three arrays with an entry for each class: its family, its innermost named prefix and its membership.
        self._of_class: list[Indices] = list(of_new)
        if earlier is not None:
            self._of_class = [np.append(*columns) for columns in zip(earlier._of_class, of_new, strict=True)]
        self._matching: dict[tuple[object, ...], Indices] = {}

    def _number(self, membership: Context) -> int:
        return self._membership.setdefault(membership, len(self._membership)) if membership[0] else NONE

    def _united(self, prefix_family: _Family, in_groups: Indices, vpc_of_place: Indices) -> Indices:
        """Add the groups of outer owned prefixes of the same VPC to the memberships (``by-address``, SPEC 4.14).

        ``in_groups``: the memberships that come from the owners' own groups.
        """
        is_owned = prefix_family.owned_by == np.arange(len(prefix_family.owned_by))
        nested = np.flatnonzero(is_owned & (prefix_family.outer > 0))
        if not len(nested):
            return in_groups
        self._is_united = True
        contexts = list(self._membership)
        number_of_pair: dict[tuple[int, int], int] = {}
        vpcs = vpc_of_place[prefix_family.owner_place].tolist()
        numbers = in_groups.tolist()
        # Prefixes are in address order, so each prefix comes after all prefixes that contain it.
        for inner, outer in zip(nested.tolist(), prefix_family.outer[nested].tolist(), strict=True):
            pair = numbers[inner], numbers[outer]
            if vpcs[inner] != vpcs[outer] or pair[1] == NONE:
                continue
            if pair not in number_of_pair:
                groups = {group for number in pair if number != NONE for group in contexts[number][0]}
                number_of_pair[pair] = self._number((tuple(sorted(groups)), vpcs[inner]))
                contexts = list(self._membership) if number_of_pair[pair] == len(contexts) else contexts
            numbers[inner] = number_of_pair[pair]
        united: Indices = np.array(numbers, dtype=np.int64)[prefix_family.owned_by]
        return united

    @cached_property
    def _by_place(self) -> dict[int, _InOrder]:
        """The classes of each family, sorted by the position of their innermost named prefix (``_Family.first``)."""
        places = {}
        of_family, inside, _ = self._of_class
        for family, prefix_family in self._families.items():
            classes = np.flatnonzero((of_family == family) & (inside != NONE))
            places[family] = _in_order(classes, prefix_family.first[inside[classes]])
        return places

    @cached_property
    def _by_membership(self) -> dict[int, _InOrder]:
        """The classes of each family, sorted by the number of their membership."""
        classes_of_family = {}
        of_family, _, membership = self._of_class
        for family in self._families:
            classes = np.flatnonzero((of_family == family) & (membership != NONE))
            classes_of_family[family] = _in_order(classes, membership[classes])
        return classes_of_family

    @property
    def tries(self) -> dict[int, CidrTrie]:
        return {family: prefix_family.trie for family, prefix_family in self._families.items()}

    def _parents(self, earlier: AddressClasses, of_new: tuple[Indices, Indices, Indices]) -> list[int] | None:
        """Find the earlier class that contains each new class. Return None if any new class has no such class."""
        parents = []
        for family, inside, membership in zip(*(column.tolist() for column in of_new), strict=True):
            named = earlier._families[family].named
            while inside >= len(named):
                inside = int(self._families[family].around[inside])
            parent = earlier._class.get(_key(family, inside, membership))
            if parent is None:
                return None
            parents.append(parent)
        return parents

    def knows(self, rules: Iterable[Rule]) -> bool:
        """Return whether the classes distinguish all networks that these rules name. Groups as peers do not count."""
        return all(
            network_key(network) in self._families[rule.ethertype].named
            for rule in rules
            for network in named_networks(self.policy, rule)
        )

    def with_members(self, policy: Policy, memberships: Mapping[int, Context]) -> AddressClasses | None:
        """Return the classes of a later policy in which some instances changed their membership, or None if that needs
        new classes. ``memberships``: the new membership of each such instance, by instance number.
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
                class_number = self._class.get(int(keys[address]))
                if class_number is None:
                    return None
                class_of_address[address] = class_number
        later = copy(self)
        later.policy = policy
        later.class_of_address, later._key = class_of_address, keys
        later.is_finer = True
        return later

    @staticmethod
    def selector(rule: Rule, vpc: int) -> tuple[object, ...]:
        """Return a key for a rule's peer as seen from a VPC. Equal keys match the same classes."""
        match rule.peer:
            case GroupPeer(name):
                return ("group", rule.ethertype, name, vpc)
            case AddressGroupPeer(name):
                return ("address group", rule.ethertype, name)
            case peer:
                return ("prefix", network_key(peer or ANYWHERE[rule.ethertype]))

    def matching(self, rule: Rule, vpc: int) -> Indices:
        """Find the classes of the addresses that a rule's peer matches, as seen from a VPC (SPEC 4.11)."""
        key = self.selector(rule, vpc)
        matching_classes = self._matching.get(key)
        if matching_classes is None:
            if isinstance(rule.peer, GroupPeer):
                members = np.array(self._memberships_of_group(rule.peer.name, vpc), dtype=np.int64)
                matching_classes = _within(*self._by_membership[rule.ethertype], members, members + 1)
            else:
                prefix_family = self._families[rule.ethertype]
                numbers = [prefix_family.named[network_key(network)] for network in named_networks(self.policy, rule)]
                begins, ends = prefix_family.first[numbers], prefix_family.last[numbers]
                matching_classes = _within(*self._by_place[rule.ethertype], begins, ends)
            self._matching[key] = matching_classes
        return matching_classes

    def _memberships_of_group(self, name: str, vpc: int) -> list[int]:
        policy = self.policy
        here = policy.vpcs[vpc]
        by_vpc = self._memberships_by_group.get(name, {})
        membership_numbers: list[int] = []
        for peer_vpc in policy._connected_vpcs[here.name]:
            if policy.vpc_by_name[peer_vpc].region == here.region:
                membership_numbers += by_vpc.get(peer_vpc, ())
        return membership_numbers

    @cached_property
    def _memberships_by_group(self) -> dict[str, dict[str, list[int]]]:
        """The numbers of the memberships that contain each group, by the names of group and VPC."""
        numbers_by_group: dict[str, dict[str, list[int]]] = {}
        for (groups, vpc), number in self._membership.items():
            for group in groups:
                of_group = numbers_by_group.setdefault(self.policy.security_groups[group].name, {})
                of_group.setdefault(self.policy.vpcs[vpc].name, []).append(number)
        return numbers_by_group


def moved_prefixes(before: Policy, after: Policy, differing: Sequence[int]) -> dict[int, Moved] | None:
    """Find the prefixes whose owners changed, by family.

    Return None if many instances changed, or if there are several VPCs: their prefixes may hide each other.
    ``differing``: the positions of changed instances, among the positions that both policies have.
    """
    if len(after.vpcs) > 1 or len(differing) + abs(len(before.instances) - len(after.instances)) > MAX_MOVED:
        return None
    moved_of_family = {4: Moved([], []), 6: Moved([], [])}
    common = min(len(before.instances), len(after.instances))
    for n in (*differing, *range(common, max(len(before.instances), len(after.instances)))):
        old, new = (policy.instances[n].addresses if n < len(policy.instances) else () for policy in (before, after))
        gone, owned = exchanged(old, new)
        for network in gone:
            moved_of_family[network.version].gone.append((network, n))
        for network in owned:
            moved_of_family[network.version].owned.append((network, n))
    return moved_of_family


def _in_order(classes: Indices, places: Indices) -> _InOrder:
    order = np.argsort(places, kind="stable")
    return classes[order], places[order]


def _within(classes: Indices, places: Indices, first: Indices, last: Indices) -> Indices:
    """Find the classes whose places lie in any of the ranges from ``first`` to before ``last``. ``places`` are sorted.
    The work grows with the number of ranges and of found classes, not with the number of all classes.
    """
    if len(first) == 1:     # a faster way for the peer of most rules, a single CIDR
        only = slice(*places.searchsorted((first[0], last[0])).tolist())
        return np.sort(classes[only])
    order = np.argsort(first, kind="stable")
    begin, end = np.searchsorted(places, first[order]), np.searchsorted(places, last[order])
    # Ranges may overlap. Only the part after the end of all earlier ranges is taken from each.
    begin[1:] = np.maximum(begin[1:], np.maximum.accumulate(end)[:-1])
    stretches = [classes[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True) if a < b]
    return np.sort(np.concatenate(stretches)) if stretches else np.zeros(0, dtype=np.int64)


def _key(family: int, inside: Any, membership: Any) -> Any:
    """Pack the properties of a class into one number. Arrays are packed element by element."""
    return (family == 6) << 62 | (inside + 1) << 32 | (membership + 1)


def _parts(key: Any) -> tuple[Any, Any, Any]:
    """Unpack a number that ``_key`` made: return family, innermost named prefix and membership."""
    return 4 + 2 * (key >> 62), ((key >> 32) & 0x3FFFFFFF) - 1, (key & 0xFFFFFFFF) - 1


def _family(
    family: int, owned: list[tuple[Network, int]], named: Iterable[Network], earlier: _Family | None, start: int
) -> _Family:
    """Build a family. Prefixes named in ``earlier`` keep their numbers. ``start``: the first address number."""
    numbers = {} if earlier is None else earlier.named.copy()
    new_networks = [network for network in without_duplicates(named) if network_key(network) not in numbers]
    for network in new_networks:
        numbers[network_key(network)] = len(numbers)
    named_prefixes = _Prefixes.from_networks(new_networks, family)
    if earlier is not None:
        is_named = earlier.number != NONE
        in_order = np.argsort(earlier.number[is_named])
        named_prefixes = earlier.prefixes[np.flatnonzero(is_named)[in_order]] + named_prefixes
    owned_prefixes = _Prefixes.from_networks([network for network, _ in owned], family)

    # Sort the prefixes. A prefix that is both owned and named becomes one row.
    never = _never(family)
    pairs = list(zip(never.halves[:, 0], never.lengths, strict=True))
    never_inside = never[np.flatnonzero([owned_prefixes.around(*pair).any() for pair in pairs])]
    prefixes = named_prefixes + owned_prefixes + never_inside
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
    """Derive a family from ``before`` with more named prefixes and with other owners (``moved``).

    ``start``: the first free address number. Prefixes that have lost their owner stay in the family.
    """
    numbers = before.named
    new_networks = [network for network in without_duplicates(named) if network_key(network) not in numbers]
    if not new_networks and not moved.gone and not moved.owned:
        return before
    if new_networks:
        numbers = numbers | {network_key(network): len(numbers) + n for n, network in enumerate(new_networks)}
    never = [
        reserved for reserved in NEVER_AN_INSTANCE if reserved.version == family
        and any(owned.prefixlen < reserved.prefixlen and reserved.network_address in owned for owned, _ in moved.owned)
    ]  # fmt: skip
    owners = [network for network, _ in (*moved.gone, *moved.owned)]
    networks = without_duplicates([*new_networks, *owners, *never])
    new_prefixes = _Prefixes.from_networks(networks, family)
    order = np.lexsort((new_prefixes.lengths, new_prefixes.halves[:, 1], new_prefixes.halves[:, 0]))
    new_prefixes = new_prefixes[order]
    sorted_prefixes = zip(new_prefixes.halves, new_prefixes.lengths, strict=True)
    places = np.array([before.prefixes.position(*prefix) for prefix in sorted_prefixes])
    following = before.prefixes[np.minimum(places, len(before.number) - 1)] if len(before.number) else None
    is_new = np.ones(len(places), dtype=bool)
    if following is not None:
        is_new = (
            (places == len(before.number)) | (following.halves != new_prefixes.halves).any(axis=1)
            | (following.lengths != new_prefixes.lengths)
        )  # fmt: skip
    at = places[is_new]
    prefixes = _Prefixes(
        np.insert(before.prefixes.halves, at, new_prefixes.halves[is_new], axis=0),
        np.insert(before.prefixes.lengths, at, new_prefixes.lengths[is_new]),
    )
    number, owner = (np.insert(values, at, NONE) for values in (before.number, before.owner))
    address = np.insert(before.address, at + 1, start + np.arange(len(at)))
    rows = places + np.cumsum(is_new) - is_new
    row = {network_key(networks[n]): row_number for n, row_number in zip(order.tolist(), rows.tolist(), strict=True)}
    for network in new_networks:
        number[row[network_key(network)]] = numbers[network_key(network)]
    for network, place in moved.gone:
        if owner[row[network_key(network)]] == place:
            owner[row[network_key(network)]] = NONE
    for network, place in moved.owned:
        owner[row[network_key(network)]] = place
    return _nested(family, numbers, prefixes, number, owner, address, before.trie, rows[is_new].tolist())


def _never(family: int) -> _Prefixes:
    return _Prefixes.from_networks([network for network in NEVER_AN_INSTANCE if network.version == family], family)


def _nested(
    family: int, named: dict[bytes, int], prefixes: _Prefixes, number: NDArray[np.int32], owner: NDArray[np.int32],
    address: Indices, trie: CidrTrie | None, added: Sequence[int],
) -> _Family:  # fmt: skip
    """Build the family of these prefixes. ``trie``: a trie with all of the prefixes except the rows in ``added``."""
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
