"""Divide addresses and services into classes that rules distinguish, none of them empty.

The compiler's classes are made for look-ups and may be empty: a network that longer prefixes cover completely is still
a class there. Whether a rule ever wins can only be decided with classes that contain something.

    addresses  of one family, seen from one VPC: by the innermost network that a rule names and by those groups that
               they are in and rules name
    services   by protocol, and by ports or ICMP type and code, as far as rules distinguish them
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sgfast.compiler.addresses import named_networks
from sgfast.compiler.ports import KEYS, key_ranges
from sgfast.policy.model import Direction, GroupPeer, Network, Policy, Rule
from sgfast.policy.network_keys import peer_key, without_duplicates
from sgfast.policy.networks import NEVER_AN_INSTANCE

Mask = NDArray[np.bool_]

#: First address and negated last address, so that outer prefixes sort before inner ones.
Span = tuple[int, int]
#: A prefix, the groups that its addresses are in, as far as rules name them, and the position of its instance.
Owned = tuple[Span, frozenset[str], int]

#: ICMP types that open nothing: errors and replies (SPEC 4.6, 5.6).
NO_OPENERS = {4: (0, 3, 4, 5, 11, 12, 14, 16, 18), 6: (*range(128), 129)}

_NOWHERE = -1
#: The owner of addresses that nobody owns.
NOBODY = 0
#: Stands for the instance of addresses that no instance owns, or several.
NOT_ONE = -1


def contexts_of(policy: Policy) -> dict[tuple[tuple[int, ...], str], list[int]]:
    """The sets of groups that instances have, each with the VPC: the positions of the groups, in order, and those of
    the instances. An instance is subject to the rules of all its groups (SPEC 1).
    """
    number = {group.name: n for n, group in enumerate(policy.security_groups)}
    found: dict[tuple[tuple[int, ...], str], list[int]] = {}
    for place, instance in enumerate(policy.instances):
        key = (tuple(sorted({number[name] for name in instance.security_groups})), instance.vpc)
        found.setdefault(key, []).append(place)
    return found


class NamedNetworks:
    """The networks of one family that rules name, in address order, outer before inner."""

    def __init__(self, policies: Sequence[Policy], family: int, more: Iterable[Network] = ()) -> None:
        """``more``: other networks of the family that are to be distinguished."""
        named = [*more]
        for policy in policies:
            # An address group that many rules name is expanded only once.
            one_of_each = {
                peer_key_of(rule): rule
                for group in policy.security_groups for rule in group.rules if rule.ethertype == family
            }  # fmt: skip
            named += [network for rule in one_of_each.values() for network in named_networks(policy, rule)]
        networks = without_duplicates(named)
        self.spans = sorted((int(n.network_address), -int(n.broadcast_address)) for n in networks)
        self.number = {span: n for n, span in enumerate(self.spans)}
        firsts = [first for first, _ in self.spans]
        #: The position after each network and everything inside it.
        self.end = [bisect_right(firsts, -minus_last) for _, minus_last in self.spans]

    def within(self, networks: Iterable[Network]) -> Iterator[tuple[int, int]]:
        """First position inside each of these networks, which must be named, and the one after it."""
        for network in networks:
            n = self.number[int(network.network_address), -int(network.broadcast_address)]
            yield n, self.end[n]


class View:
    """The addresses of one family as the rules of instances in one VPC distinguish them (SPEC 4.11, 7.1)."""

    def __init__(
        self, policy: Policy, vpc: str, named: NamedNetworks, visible: Mapping[str, Sequence[Owned]], family: int
    ) -> None:
        """``visible``: what instances own, in this VPC (first) and in its peers."""
        self._policy = policy
        self._named = named
        memberships: dict[frozenset[str], int] = {frozenset(): NOBODY}
        regions = policy.vpc_by_name
        # The membership and the instance of each owner. NOBODY is the first one.
        owners: list[tuple[int, int]] = [(NOBODY, NOT_ONE)]
        # The owner of each span, and whether it is in this VPC. Its own addresses take precedence over peers'.
        owned: dict[Span, tuple[int, bool]] = {}
        for other, spans in visible.items():
            own, reachable = other == vpc, regions[other].region == regions[vpc].region
            for span, groups, place in spans:
                member = memberships.setdefault(groups, len(memberships)) if reachable else NOBODY
                owned.setdefault(span, (len(owners), own))
                owners.append((member, place))
        owned = with_multicast(owned, family, lambda _: NOBODY)
        self._memberships = len(memberships)
        self._memberships_of: dict[str, list[int]] = {}
        for groups, number in memberships.items():
            for group in groups:
                self._memberships_of.setdefault(group, []).append(number)
        instance_of: dict[tuple[int, int], int] = {}
        for _, _, inside, owner in pieces(named, owned, family):
            member, place = owners[owner]
            if instance_of.setdefault((inside, member), place) != place:
                instance_of[inside, member] = NOT_ONE
        found = sorted(instance_of)
        self.count = len(found)
        self._inside = np.array([inside for inside, _ in found], dtype=np.int64)
        self._member = np.array([member for _, member in found], dtype=np.int64)
        #: The position of the instance that owns all addresses of a class, by class; or NOT_ONE.
        self._instance = np.array([instance_of[each] for each in found], dtype=np.int64)
        self._groups: dict[str, Mask] = {}
        self._instances_in: dict[str, frozenset[int]] = {}

    def matching(self, rule: Rule) -> Mask:
        """The classes that the rule's peer matches. The rule must be of this family."""
        if isinstance(rule.peer, GroupPeer):
            return self._members(rule.peer.name)
        matches = np.zeros(self.count, dtype=bool)
        for first, end in self._named.within(named_networks(self._policy, rule)):
            matches |= (self._inside >= first) & (self._inside < end)
        return matches

    def others(self, place: int | None) -> Mask:
        """The classes with addresses that are not those of the instance at this position; None: all."""
        return np.ones(self.count, dtype=bool) if place is None else self._instance != place

    def instances(self, classes: Mask) -> frozenset[int]:
        """The positions of the instances that own whole classes; NOT_ONE if there are others among these classes."""
        return frozenset(np.unique(self._instance[classes]).tolist())

    def ends(self, rule: Rule) -> Set[int]:
        """The positions of the instances that own all addresses of the rule's peer; NOT_ONE if there are other
        addresses, perhaps with some of these instances. The rule must be of this family.
        """
        if isinstance(rule.peer, GroupPeer):
            group = rule.peer.name
            if group not in self._instances_in:
                self._instances_in[group] = self.instances(self._members(group))
            return self._instances_in[group]
        found: set[int] = set()
        for bounds in self._named.within(named_networks(self._policy, rule)):
            first, end = np.searchsorted(self._inside, bounds)
            found.add(int(self._instance[first]))
            if NOT_ONE in found or (self._instance[first:end] != self._instance[first]).any():
                return {NOT_ONE}
        return found

    def _members(self, group: str) -> Mask:
        if group not in self._groups:
            of_membership = np.zeros(self._memberships, dtype=bool)
            of_membership[self._memberships_of.get(group, [])] = True
            self._groups[group] = of_membership[self._member]
        return self._groups[group]


def with_multicast(
    owned: dict[Span, tuple[int, bool]], family: int, owner_there: Callable[[int], int]
) -> dict[Span, tuple[int, bool]]:
    """The argument of ``pieces``, with other owners where addresses are multicast or broadcast (SPEC 3.3, 4.11).
    ``owner_there`` gives the other owner for an owner.
    """
    changed = owned.copy()
    for network in NEVER_AN_INSTANCE:
        first, minus_last = int(network.network_address), -int(network.broadcast_address)
        if network.version != family:
            continue
        around = [span for span in owned if span[0] <= first and span[1] <= minus_last]
        if around:
            changed[first, minus_last] = owner_there(owned[max(around)][0]), True
        for span in owned:
            if first <= span[0] and minus_last <= span[1]:
                changed[span] = owner_there(owned[span][0]), True
    return changed


def pieces(
    named: NamedNetworks, owned: Mapping[Span, tuple[int, bool]], family: int
) -> Iterator[tuple[int, int, int, int]]:
    """Cut a family's addresses where they differ. For each piece, in order: its first and last address, the innermost
    named network (-1: none), and its owner.

    ``owned``: the owner of each span, and whether it takes precedence over all that do not, however long their prefixes
    are. ``NOBODY`` owns the rest.
    """
    at = 0
    # Prefixes are nested or disjoint, so everything on the stack contains the current address.
    stack = [((1 << (32 if family == 4 else 128)) - 1, _NOWHERE, NOBODY, False)]
    for span in sorted(owned.keys() | named.number.keys()):
        first = span[0]
        while stack[-1][0] < first:
            last, inside, owner, _ = stack.pop()
            if at <= last:
                yield at, last, inside, owner
                at = last + 1
        _, inside, owner, own = stack[-1]
        if at < first:
            yield at, first - 1, inside, owner
            at = first
        new_owner, owners_own = owned.get(span, (NOBODY, False))
        if span in owned and (owners_own or not own):
            owner, own = new_owner, owners_own
        stack.append((-span[1], named.number.get(span, inside), owner, own))
    while stack:
        last, inside, owner, _ = stack.pop()
        if at <= last:
            yield at, last, inside, owner
            at = last + 1


class Services:
    """Protocols and their keys (port, or ICMP type * 256 + code), as far as some rules distinguish them."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        ranges_of: dict[int, set[tuple[int, int]]] = {}
        for rule in rules:
            if rule.protocol is not None:
                ranges_of.setdefault(rule.protocol, set()).update(key_ranges(rule) or ())
        self._starts: dict[int, NDArray[np.int64]] = {}
        self._base: dict[int, int] = {}
        count = 0
        for protocol, ranges in ranges_of.items():
            edges = {0, *(first for first, _ in ranges), *(last + 1 for _, last in ranges)} - {KEYS}
            self._starts[protocol] = np.array(sorted(edges), dtype=np.int64)
            self._base[protocol] = count
            count += len(edges)
        #: The last class holds all protocols that no rule names.
        self.count = count + (len(ranges_of) < 256)

    @cached_property
    def line(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All services in order, as numbers: protocol * 65536 + key. Where each stretch of one class begins, and its
        class.
        """
        others = KEYS * np.delete(np.arange(256), list(self._starts))
        starts = [others, *(protocol * KEYS + own for protocol, own in self._starts.items())]
        classes = [
            np.full(len(others), self.count - 1),
            *(self._base[protocol] + np.arange(len(own)) for protocol, own in self._starts.items()),
        ]
        in_order = np.argsort(line := np.concatenate(starts))
        return line[in_order], np.concatenate(classes)[in_order]

    def matching(self, rule: Rule) -> Mask:
        if rule.protocol is None:
            return np.ones(self.count, dtype=bool)
        matches = np.zeros(self.count, dtype=bool)
        starts, base = self._starts[rule.protocol], self._base[rule.protocol]
        ranges = key_ranges(rule)
        if ranges is None:
            matches[base : base + len(starts)] = True
            return matches
        ends = np.array(ranges, dtype=np.int64).reshape(-1, 2)
        # The change, from one class to the next, in how many ranges cover it.
        cover = np.zeros(len(starts) + 1, dtype=np.int64)
        np.add.at(cover, np.searchsorted(starts, ends[:, 0]), 1)
        np.add.at(cover, np.searchsorted(starts, ends[:, 1] + 1), -1)
        matches[base : base + len(starts)] = np.cumsum(cover)[:-1] > 0
        return matches


def unasked_types(family: int, direction: Direction, infrastructure: str, *, stateful: bool) -> frozenset[int]:
    """ICMP types that are judged without rules (SPEC 3.2, 3.11, 4.6, 5.6), by the setting ``infrastructure``.
    ``stateful``: the filter remembers connections.
    """
    types = {*NO_OPENERS[family]} if stateful else set()
    if family == 6 and infrastructure == "exempt":
        types.update((130, 131, 132, 143))      # with another hop limit than 255 the others are judged
    if family == 6 and infrastructure == "by-role":
        types.update((130, 134, 135, 136))
        if direction == "outbound":
            types.add(133)
    return frozenset(types)


def joined(masks: Sequence[Mask]) -> NDArray[np.bool_]:
    """Join the classes that no mask distinguishes: masks of (n, classes) become (n, fewer classes)."""
    keep, _ = alike(masks)
    return np.array([mask[keep] for mask in masks], dtype=bool)


def alike(masks: Sequence[Mask]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kinds of classes that no mask distinguishes: one class of each kind, and the kind of each class."""
    count = len(masks[0])
    code = np.zeros(count, dtype=np.int64)
    keep = np.zeros(1, dtype=np.int64)
    for start in range(0, len(masks), 32):
        bits = np.zeros(count, dtype=np.int64)
        for bit, mask in enumerate(masks[start : start + 32]):
            bits[mask] |= 1 << bit
        _, keep, code = np.unique(code << 32 | bits, return_index=True, return_inverse=True)
        code = code.reshape(-1)
    return keep, code


def peer_key_of(rule: Rule) -> tuple[object, ...]:
    """A key that is equal for rules with equal peers."""
    return rule.ethertype, peer_key(rule.peer)


def service_key(rule: Rule) -> tuple[object, ...]:
    return rule.protocol, key_ranges(rule)
