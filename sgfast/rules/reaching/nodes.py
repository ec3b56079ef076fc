"""Divide the addresses that one VPC sees into *nodes*: addresses that the policies and the question treat alike.

All addresses of a node are within the same named networks. Either no instance owns them, or their owners are in the
same security groups and the same VPC, and rules see the addresses in the same groups. With two policies this holds
under each policy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.matching import groups_of
from sgfast.policy.model import Network, Policy
from sgfast.policy.ranges import lowest
from sgfast.rules.addresses import (
    ANYWHERE,
    NOBODY,
    NamedNetworks,
    Span,
    addresses_of,
    contexts_of,
    owned_prefixes,
    pieces,
    range_of,
    span_of,
    with_multicast,
)
from sgfast.rules.reaching.ends import NamedEnd

#: The contexts of addresses that no instance owns, and of addresses that senders in the VPC do not have.
OUTSIDE, FOREIGN = -1, -2
#: The maximum number of pieces of addresses that are kept for later questions: some 60 MB.
KEPT_PIECES = 1 << 18

Numbers = NDArray[np.integer[Any]]
Owned = dict[Span, tuple[int, bool]]
Alike = tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...] | None]
"""Criteria for addresses of one node: the innermost named network; the contexts and the memberships, one per policy;
and the owners, or None where the owners may differ within a node."""


class PolicyAccount:
    """A policy whose instances are divided by *context*: their VPC and set of groups.

    An address also has a *membership*: its VPC and the groups that it is in for rules with a group as peer. It equals
    the context of the address's owner, except for addresses in other groups than their owner (SPEC 4.14). A *holding*
    is a number for the addresses of one owner with one membership.
    """

    def __init__(self, policy: Policy, destinations: NamedEnd) -> None:
        """``destinations``: of all questions. Two owners of one address matter only if it is among them (SPEC 7.1)."""
        self.policy = policy
        self._destination_instances = destinations.instances
        networks = destinations.networks if destinations.owned else ()
        self._destination_ranges = {family: addresses_of(networks, family) for family in (4, 6)}
        places_of_context = contexts_of(policy)
        self.contexts = list(places_of_context)
        self.instances = list(places_of_context.values())
        self.context_of = np.zeros(len(policy.instances), dtype=np.int64)
        for n, places in enumerate(self.instances):
            self.context_of[places] = n
        #: The context of each owner.
        self.context_of_owner = [OUTSIDE, *self.context_of.tolist()]
        #: The number of each VPC, and the VPC number of each context; the last two places are for ``FOREIGN`` and
        #: ``OUTSIDE``.
        self._vpc_number = {vpc.name: n for n, vpc in enumerate(policy.vpcs)}
        self._vpc_of_context = np.array([self._vpc_number[vpc] for _, vpc in self.contexts] + [-1, -1], dtype=np.int64)
        self._place = {group.name: n for n, group in enumerate(policy.security_groups)}
        #: The number of each membership, starting with those that equal a context. The next three lists hold each
        #: membership's VPC, each membership's groups, and each group's memberships.
        self._membership: dict[tuple[tuple[int, ...], str], int] = {}
        self._vpc_of: list[str] = []
        self._groups_of: list[frozenset[int]] = []
        self._in_group: list[list[int]] = [[] for _ in policy.security_groups]
        for context in self.contexts:
            self._number(context)
        #: The owner (its position + 1, or ``NOBODY``) and the membership of each holding. Holding 0 is for addresses
        #: without an owner. There follows one holding for each instance with the membership of its own groups.
        self.owner_of = list(range(len(policy.instances) + 1))
        self.membership_of = [OUTSIDE, *self.context_of.tolist()]
        self._holding = {pair: n for n, pair in enumerate(zip(self.owner_of, self.membership_of, strict=True))}
        self._owned: dict[str, dict[int, Owned]] = {}

    def is_own(self, contexts: Numbers, vpc: str) -> NDArray[np.bool_]:
        """Return a mask of the contexts that belong to instances in a VPC."""
        are_own: NDArray[np.bool_] = self._vpc_of_context[contexts] == self._vpc_number.get(vpc, -2)
        return are_own

    def members(self, group: str, vpc: str, memberships: Numbers) -> NDArray[np.bool_]:
        """Return a mask of the memberships whose addresses count as members of the group for rules of instances in a
        VPC (SPEC 4.11)."""
        place = self._place[group]
        candidates: Iterable[int] = self._in_group[place]
        if len(self._in_group[place]) > len(memberships):
            candidates = [n for n in memberships.tolist() if n >= 0 and place in self._groups_of[n]]
        is_member = np.zeros(len(self._membership) + 2, dtype=bool)
        for n in candidates:
            is_member[n] = self._sees(n, vpc)
        are_members: NDArray[np.bool_] = is_member[memberships]
        return are_members

    def groups_seen(self, membership: int, vpc: str) -> frozenset[int]:
        """Return the groups that addresses of a membership are in for rules of instances in a VPC."""
        return self._groups_of[membership] if membership >= 0 and self._sees(membership, vpc) else frozenset()

    def _sees(self, membership: int, vpc: str) -> bool:
        membership_vpc, regions = self._vpc_of[membership], self.policy.vpc_by_name
        return regions[membership_vpc].region == regions[vpc].region and self.policy.connected(membership_vpc, vpc)

    def owned(self, vpc: str, family: int) -> Owned:
        """Return the holdings of instances, as the VPC sees them. Raises AmbiguousAddress (SPEC 7.1)."""
        if vpc not in self._owned:
            owned_of_family: dict[int, Owned] = {4: {}, 6: {}}
            if vpc in self.policy.vpc_by_name:
                for version, prefixes in owned_prefixes(self.policy, vpc, asked=self._matters).items():
                    owned_of_family[version] = {
                        span_of(network): (self._holding_of(network, n), False) for network, n in prefixes
                    }
            self._owned[vpc] = owned_of_family
        return self._owned[vpc][family]

    def _matters(self, instance: str, network: Network) -> bool:
        """Whether it matters that the instance owns the network."""
        destination_ranges = self._destination_ranges[network.version]
        return instance in self._destination_instances or lowest(destination_ranges, *range_of(network)) is not None

    def in_no_group(self, holding: int) -> int:
        """Return the holding of the same owner for addresses that are in no group."""
        owner = self.owner_of[holding]
        return self._with_groups(owner, ()) if owner != NOBODY else NOBODY

    def _holding_of(self, network: Network, place: int) -> int:
        if self.policy.settings.group_members == "by-owner":
            return place + 1
        groups = groups_of(self.policy, self.policy.instances[place], network)
        return self._with_groups(place + 1, tuple(sorted(self._place[group] for group in groups)))

    def _with_groups(self, owner: int, groups: tuple[int, ...]) -> int:
        vpc = self.policy.instances[owner - 1].vpc
        membership = self._number((groups, vpc))
        holding = self._holding.setdefault((owner, membership), len(self._holding))
        if holding == len(self.owner_of):
            self.owner_of.append(owner)
            self.membership_of.append(membership)
        return holding

    def _number(self, membership: tuple[tuple[int, ...], str]) -> int:
        if membership not in self._membership:
            for group in membership[0]:
                self._in_group[group].append(len(self._membership))
            self._membership[membership] = len(self._membership)
            self._vpc_of.append(membership[1])
            self._groups_of.append(frozenset(membership[0]))
        return self._membership[membership]


@dataclass(slots=True)
class Piece:
    """A contiguous range of addresses, with its owner under each policy (its position + 1, or ``NOBODY``)."""

    first: int
    last: int
    owners: tuple[int, ...]


class Nodes:
    """The senders, or the receivers, that one VPC sees."""

    def __init__(self, alike: Mapping[Alike, list[Piece]], pieces_of: list[Counter[int]]) -> None:
        """``alike``: the pieces of each node, by the node's criteria."""
        self.count = len(alike)
        self.parts = [*alike.values()]
        #: The number of pieces of each owner under each policy, including pieces outside the question.
        self.pieces_of = pieces_of
        #: The innermost named network of each node.
        self.inside: Numbers = np.array([inside for inside, *_ in alike], dtype=np.int64)
        #: The context, the membership, and the only owner (``NOBODY`` if there are several or none) of each node, under
        #: each policy.
        self.contexts, self.memberships, self.only = (
            [np.array([of_policies[p] for of_policies in numbers], dtype=np.int64) for p in range(len(pieces_of))]
            for numbers in (
                [contexts for _, contexts, *_ in alike], [memberships for *_, memberships, _ in alike],
                [[_only(parts, p) for p in range(len(pieces_of))] for parts in self.parts],
            )
        )  # fmt: skip


def _only(parts: list[Piece], policy: int) -> int:
    owner = parts[0].owners[policy]
    return owner if all(part.owners[policy] == owner for part in parts) else NOBODY


@dataclass(frozen=True, slots=True)
class _Cut:
    """The addresses of one family as one VPC sees them, cut into pieces."""

    #: The first and the last address, the innermost named network, and the holding under each policy.
    pieces: list[tuple[int, int, int, tuple[int, ...]]]
    inside: Numbers
    #: The owner of each piece under the last policy.
    owner: Numbers
    #: The number of pieces of each owner under each policy.
    pieces_of: list[Counter[int]]
    #: Pairs of owners, as ``_not_one_to_one`` returns them.
    unequal_owners: set[tuple[int, ...]]


class Ground:
    """The addresses of one family, divided by the policies and the ends of a question."""

    def __init__(self, accounts: Sequence[PolicyAccount], family: int, ends: Sequence[NamedEnd]) -> None:
        self.accounts = accounts
        self.family = family
        end_networks = (network for end in ends for network in (*end.networks, *end.without))
        other_networks = [ANYWHERE[family], *(network for network in end_networks if network.version == family)]
        self.named = NamedNetworks([account.policy for account in accounts], family, other_networks)
        self._cuts: dict[tuple[str, bool], _Cut] = {}
        self._room = KEPT_PIECES

    def senders(self, vpc: str, end: NamedEnd) -> Nodes:
        """Return the senders of connections from a VPC: its own instances, and addresses that no instance owns."""
        return self._nodes(vpc, end, vpc)

    def receivers(self, vpc: str, end: NamedEnd) -> Nodes:
        return self._nodes(vpc, end, None)

    def _cut(self, vpc: str, *, senders: bool) -> _Cut:
        """Cut the addresses that a VPC sees. Later questions about the same networks find some of the results here."""
        if (vpc, senders) in self._cuts:
            return self._cuts[vpc, senders]
        owned = [
            with_multicast(
                account.owned(vpc, self.family), self.family, account.in_no_group if senders else lambda _: NOBODY
            )
            for account in self.accounts
        ]
        cut_pieces = list(_together([list(pieces(spans, self.family, self.named.number)) for spans in owned]))
        owner_by_holding = [account.owner_of for account in self.accounts]
        owners = [_of_each_policy(owner_by_holding, holdings) for *_, holdings in cut_pieces]
        cut = _Cut(
            cut_pieces, np.array([inside for _, _, inside, _ in cut_pieces], dtype=np.int64),
            np.array([owners_of_piece[-1] for owners_of_piece in owners], dtype=np.int64),
            [Counter(of_policy) for of_policy in zip(*owners, strict=True)], _not_one_to_one(owners),
        )  # fmt: skip
        self._room -= len(cut_pieces)
        if self._room >= 0:
            self._cuts[vpc, senders] = cut
        return cut

    def _nodes(self, vpc: str, end: NamedEnd, only_vpc: str | None) -> Nodes:
        """Divide the addresses into nodes. If ``only_vpc`` is given, instances of other VPCs are ``FOREIGN``."""
        cut = self._cut(vpc, senders=only_vpc is not None)
        owner_by_holding = [account.owner_of for account in self.accounts]
        context_of = [self._context_of(account, vpc, only_vpc) for account in self.accounts]
        instance_places = self.accounts[-1].policy._instance_index
        named_places = [instance_places[name] + 1 for name in end.instances if name in instance_places]
        queried = self._within(end)[cut.inside] & ((cut.owner == NOBODY) | end.owned)
        pieces_of_key: dict[Alike, list[Piece]] = {}
        for place in np.flatnonzero(queried | np.isin(cut.owner, np.array(named_places, dtype=np.int64))).tolist():
            first, last, inside, holdings = cut.pieces[place]
            owners = _of_each_policy(owner_by_holding, holdings)
            contexts = tuple([of(owner) for of, owner in zip(context_of, owners, strict=True)])
            if max(contexts) == FOREIGN:
                continue
            memberships = _of_each_policy([account.membership_of for account in self.accounts], holdings)
            key = (inside, contexts, memberships, owners if owners in cut.unequal_owners else None)
            pieces_of_key.setdefault(key, []).append(Piece(first, last, owners))
        return Nodes(pieces_of_key, cut.pieces_of)

    def _context_of(self, account: PolicyAccount, vpc: str, only_vpc: str | None) -> Callable[[int], int]:
        """Return a function that maps an owner to its context. A VPC that a policy does not have contains no
        senders."""
        if vpc not in account.policy.vpc_by_name:
            return lambda owner: FOREIGN
        context_of_owner, contexts = account.context_of_owner, account.contexts

        def context_in_vpc(owner: int) -> int:
            context = context_of_owner[owner]
            return context if context == OUTSIDE or contexts[context][1] == only_vpc else FOREIGN

        return context_of_owner.__getitem__ if only_vpc is None else context_in_vpc

    def _within(self, end: NamedEnd) -> NDArray[np.bool_]:
        """Return for each named network whether the end includes its addresses."""
        is_inside = np.zeros(len(self.named.spans), dtype=bool)
        for networks, is_in in ((end.networks, True), (end.without, False)):
            for first, behind in self.named.within(n for n in networks if n.version == self.family):
                is_inside[first:behind] = is_in
        return is_inside


def _of_each_policy(numbers: Sequence[Sequence[int]], places: Sequence[int]) -> tuple[int, ...]:
    """Return the number at each policy's place in that policy's sequence."""
    return tuple([of_policy[place] for of_policy, place in zip(numbers, places, strict=True)])


def _together(
    layers: Sequence[list[tuple[int, int, int, int]]]
) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
    """Yield the pieces of all policies together, divided wherever a piece of any policy ends."""
    if len(layers) == 1:
        for first, last, inside, owner in layers[0]:
            yield first, last, inside, (owner,)
        return
    at = 0
    places = [0] * len(layers)
    while places[0] < len(layers[0]):
        current = [layer[n] for layer, n in zip(layers, places, strict=True)]
        last = min(piece[1] for piece in current)
        yield at, last, current[0][2], tuple([piece[3] for piece in current])
        at = last + 1
        places = [n + (piece[1] == last) for n, piece in zip(places, current, strict=True)]


def _not_one_to_one(owners: Sequence[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Return the pairs of owners, one owner per policy, of which one owner is also in another pair. The addresses of
    one instance under one policy then belong to different owners under the other."""
    pairs = set(owners)
    if not pairs or len(next(iter(pairs))) < 2:
        return set()
    partners = [Counter(owners) for owners in zip(*pairs, strict=True)]
    return {pair for pair in pairs if any(owner != NOBODY and partners[p][owner] > 1 for p, owner in enumerate(pair))}
