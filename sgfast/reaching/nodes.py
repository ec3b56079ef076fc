"""Divides the addresses that one VPC sees into *nodes*, which neither the policies nor the question tell apart inside.

All addresses of a node are within the same named networks. Either no instance owns them, or their owners are in the
same security groups and the same VPC. With two policies this holds for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.compiler.addresses import ANYWHERE, owned_prefixes
from sgfast.policy.model import Network, Policy
from sgfast.policy.networks import parse_network
from sgfast.reaching.ends import End
from sgfast.space import NOBODY, NamedNetworks, Span, contexts_of, pieces

#: The context of addresses that no instance owns, and of those that the VPC's openers do not come from.
OUTSIDE, FOREIGN = -1, -2

#: Destinations that are never an instance (SPEC 3.3).
_NEVER_AN_INSTANCE = tuple(map(parse_network, ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8")))

Numbers = NDArray[np.integer[Any]]
Owned = dict[Span, tuple[int, bool]]


class Account:
    """A policy, with its instances by *context*: the same set of groups, in the same VPC."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        found = contexts_of(policy)
        self.contexts = list(found)
        self.instances = list(found.values())
        self.context_of = np.zeros(len(policy.instances), dtype=np.int64)
        for n, places in enumerate(self.instances):
            self.context_of[places] = n
        self._in_group: dict[str, list[int]] = {group.name: [] for group in policy.security_groups}
        for n, (groups, _) in enumerate(self.contexts):
            for g in groups:
                self._in_group[policy.security_groups[g].name].append(n)
        self._owned: dict[str, dict[int, Owned]] = {}

    def members(self, group: str, vpc: str) -> NDArray[np.bool_]:
        """By context: whether its instances are members of the group to the rules of instances in a VPC (SPEC 4.11).
        The last two places are those of ``OUTSIDE`` and ``FOREIGN``.
        """
        policy = self.policy
        found = np.zeros(len(self.contexts) + 2, dtype=bool)
        for n in self._in_group[group]:
            other = self.contexts[n][1]
            same_region = policy.vpc_by_name[other].region == policy.vpc_by_name[vpc].region
            found[n] = same_region and policy.connected(other, vpc)
        return found

    def owned(self, vpc: str, family: int) -> Owned:
        """What instances own as the VPC sees it; each owner is a position + 1. AmbiguousAddress: SPEC 7.1."""
        if vpc not in self._owned:
            found: dict[int, Owned] = {4: {}, 6: {}}
            if vpc in self.policy.vpc_by_name:
                for version, prefixes in owned_prefixes(self.policy, vpc).items():
                    found[version] = {_span(network): (n + 1, False) for network, n in prefixes}
            self._owned[vpc] = found
        return self._owned[vpc][family]


@dataclass(slots=True)
class Piece:
    """Addresses without a gap, with the owner under each policy (its position + 1, or ``NOBODY``)."""

    first: int
    last: int
    owners: tuple[int, ...]


class Nodes:
    """The senders, or the receivers, that one VPC sees."""

    def __init__(
        self, policies: int, inside: list[int], contexts: list[tuple[int, ...]], parts: list[list[Piece]]
    ) -> None:
        self.count = len(parts)
        self.parts = parts
        #: The innermost named network.
        self.inside: Numbers = np.array(inside, dtype=np.int64)
        #: For each policy.
        self.contexts: list[Numbers] = [
            np.array([each[p] for each in contexts], dtype=np.int64) for p in range(policies)
        ]
        #: For each policy: the only owner, or ``NOBODY`` if there are several or none.
        self.only: list[Numbers] = [
            np.array([_only(pieces_of, p) for pieces_of in parts], dtype=np.int64) for p in range(policies)
        ]


def _only(parts: list[Piece], policy: int) -> int:
    owner = parts[0].owners[policy]
    return owner if all(part.owners[policy] == owner for part in parts) else NOBODY


class Ground:
    """The addresses of one family, as far as policies and the ends of a question tell them apart."""

    def __init__(self, accounts: Sequence[Account], family: int, ends: Sequence[End]) -> None:
        self.accounts = accounts
        self.family = family
        more = [ANYWHERE[family], *(n for end in ends for n in (*end.networks, *end.without) if n.version == family)]
        self.named = NamedNetworks([account.policy for account in accounts], family, more)

    def senders(self, vpc: str, end: End) -> tuple[Nodes, list[dict[int, int]]]:
        """Who may open connections from a VPC: its own instances, and what no instance owns. Also how many pieces each
        owner has, under each policy.
        """
        return self._nodes(vpc, end, [account.owned(vpc, self.family) for account in self.accounts], vpc)

    def receivers(self, vpc: str, end: End) -> tuple[Nodes, list[dict[int, int]]]:
        """Where connections from a VPC may go, and how many pieces each owner has, under each policy."""
        owned = [_without_multicast(account.owned(vpc, self.family), self.family) for account in self.accounts]
        return self._nodes(vpc, end, owned, None)

    def _nodes(
        self, vpc: str, end: End, owned: Sequence[Owned], only_vpc: str | None
    ) -> tuple[Nodes, list[dict[int, int]]]:
        """``only_vpc``: instances of other VPCs are ``FOREIGN``."""
        cut = list(_together([list(pieces(self.named, each, self.family)) for each in owned]))
        apart = _not_one_to_one([owners for _, _, _, owners in cut])
        context_by_owner = [self._contexts(account, vpc, only_vpc) for account in self.accounts]
        names = self.accounts[-1].policy.instances
        asked_networks = self._within(end)
        total: list[dict[int, int]] = [{} for _ in self.accounts]
        number: dict[tuple[object, ...], int] = {}
        inside_of: list[int] = []
        contexts_of: list[tuple[int, ...]] = []
        parts: list[list[Piece]] = []
        for first, last, inside, owners in cut:
            for of_policy, owner in zip(total, owners, strict=True):
                of_policy[owner] = of_policy.get(owner, 0) + 1
            owner = owners[-1]
            is_asked = asked_networks[inside] and (owner == NOBODY or end.owned)
            if not is_asked and (owner == NOBODY or names[owner - 1].name not in end.instances):
                continue
            contexts = tuple([by_owner[o] for by_owner, o in zip(context_by_owner, owners, strict=True)])
            if max(contexts) == FOREIGN:
                continue
            key = (inside, contexts, owners if owners in apart else None)
            n = number.setdefault(key, len(parts))
            if n == len(parts):
                inside_of.append(inside)
                contexts_of.append(contexts)
                parts.append([])
            parts[n].append(Piece(first, last, owners))
        return Nodes(len(self.accounts), inside_of, contexts_of, parts), total

    def _contexts(self, account: Account, vpc: str, only_vpc: str | None) -> list[int]:
        """The context by owner. A VPC that a policy does not have has no openers."""
        if vpc not in account.policy.vpc_by_name:
            return [FOREIGN]
        of_context = np.arange(len(account.contexts))
        if only_vpc is not None:
            of_context[[other != only_vpc for _, other in account.contexts]] = FOREIGN
        return [OUTSIDE, *of_context[account.context_of].tolist()]

    def _within(self, end: End) -> list[bool]:
        """By named network: whether its addresses are among those of an end."""
        found = np.zeros(len(self.named.spans), dtype=bool)
        for networks, is_in in ((end.networks, True), (end.without, False)):
            for first, behind in self.named.within(n for n in networks if n.version == self.family):
                found[first:behind] = is_in
        listed: list[bool] = found.tolist()
        return listed


def _together(
    layers: Sequence[list[tuple[int, int, int, int]]]
) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
    """The pieces of all policies, cut where any of them is."""
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
    """The pairs of owners, under two policies, of which one has another partner elsewhere: what is one instance to one
    policy is two ends to the other.
    """
    pairs = set(owners)
    if not pairs or len(next(iter(pairs))) < 2:
        return set()
    partners: list[dict[int, int]] = [{}, {}]
    for pair in pairs:
        for p, owner in enumerate(pair):
            partners[p][owner] = partners[p].get(owner, 0) + 1
    return {pair for pair in pairs if any(owner != NOBODY and partners[p][owner] > 1 for p, owner in enumerate(pair))}


def _without_multicast(owned: Owned, family: int) -> Owned:
    never = [_span(network) for network in _NEVER_AN_INSTANCE if network.version == family]
    inside = [
        (first, minus_last) for first, minus_last in owned
        if any(outer[0] <= first and -minus_last <= -outer[1] for outer in never)
    ]  # fmt: skip
    around = any(span[0] <= outer[0] and -outer[1] <= -span[1] for span in owned for outer in never)
    if not inside and not around:
        return owned
    gone = set(inside)
    return {span: owner for span, owner in owned.items() if span not in gone} | dict.fromkeys(never, (NOBODY, True))


def _span(network: Network) -> Span:
    return int(network.network_address), -int(network.broadcast_address)
