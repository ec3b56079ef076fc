"""A question about all packets that open connections: between two ends, for some services, under one policy or two.

    for scene in Question([policy], sources, destinations, services).scenes():
        scene.relations[0].to(receiver)        the services that may reach a receiver, from each sender

A scene is what one VPC sees of one family.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from operator import itemgetter

import numpy as np

from sgfast.policy.elsewhere import elsewhere_text, owners_elsewhere
from sgfast.policy.model import Policy
from sgfast.reaching.ends import End
from sgfast.reaching.nodes import OUTSIDE, Account, Ground, Nodes, Piece
from sgfast.reaching.ranges import Ranges, intersection, union
from sgfast.reaching.relation import Budget, KeptTables, Relation, Sets
from sgfast.reaching.services import ServiceSet, openers
from sgfast.reaching.views import Views

#: The most notes of one question. A note is about an address of an instance whose VPC is not peered.
MAX_NOTES = 3


@dataclass(frozen=True, slots=True)
class Scene:
    family: int
    vpc: str
    ground: Ground
    senders: Nodes
    receivers: Nodes
    #: The number of pieces of each owner among all senders, and among all receivers, under each policy.
    pieces_of_sender: list[dict[int, int]]
    pieces_of_receiver: list[dict[int, int]]
    #: One for each policy.
    relations: list[Relation]
    #: The queried services.
    base: Ranges


class Question:
    def __init__(
        self, policies: Sequence[Policy], sources: End, destinations: End, services: ServiceSet,
        notes: list[str] | None = None,
    ) -> None:  # fmt: skip
        """``notes`` takes sentences about addresses that the ends name and that belong to instances of VPCs that are
        not peered (SPEC 12.1).
        """
        self.accounts = [Account(policy) for policy in policies]
        self.sources, self.destinations = self._ends = sources, destinations
        infrastructure = {policy.settings.infrastructure for policy in policies}
        self.everything = {family: openers(family, infrastructure) for family in (4, 6)}
        self.base = {family: intersection(services.of(family), self.everything[family]) for family in (4, 6)}
        self.sets = Sets()
        self.budget = Budget(policies[-1].origin)
        #: An address of an instance that the sources name, and one that the destinations name, by family and VPC, under
        #: the last policy.
        self.named: dict[int, tuple[dict[str, Piece], dict[str, Piece]]] = {4: ({}, {}), 6: ({}, {})}
        self._views = [Views(account.policy, account.contexts) for account in self.accounts]
        self.grounds = {family: Ground(self.accounts, family, (sources, destinations)) for family in (4, 6)}
        self._notes = notes
        self._kept = {(family, p): KeptTables() for family in (4, 6) for p in range(len(policies))}
        self._all_owned: dict[int, Ranges] = {}

    def scenes(self) -> Iterator[Scene]:
        """The scenes, those of IPv4 first. TooMuch if they would take too long."""
        for family in (4, 6):
            ground = self.grounds[family]
            for vpc in self._vpcs(family) if self.base[family] else ():
                senders, pieces_of_sender = ground.senders(vpc, self.sources)
                receivers, pieces_of_receiver = ground.receivers(vpc, self.destinations)
                for nodes, end, found in zip((senders, receivers), self._ends, self.named[family], strict=True):
                    self._find_named(vpc, nodes, end, found)
                if self._notes is not None and len(self._notes) < MAX_NOTES:
                    self._note_elsewhere(family, vpc, senders, receivers)
                self.budget.pairs(senders.count, receivers.count)
                relations = [
                    Relation(ground, p, vpc, senders, receivers, self.base[family], self.sets, self.budget,
                             self._kept[family, p])
                    for p in range(len(self.accounts))
                ]
                yield Scene(
                    family, vpc, ground, senders, receivers, pieces_of_sender, pieces_of_receiver, relations,
                    self.base[family],
                )  # fmt: skip

    def _find_named(self, vpc: str, nodes: Nodes, end: End, found: dict[str, Piece]) -> None:
        """Note one of the addresses of the VPC's own instances that the end names, if there are any."""
        instances = self.accounts[-1].policy.instances
        is_own = self.accounts[-1].is_own(nodes.contexts[-1], vpc)
        for n in np.flatnonzero(is_own).tolist() if end.instances else ():
            for piece in nodes.parts[n]:
                if instances[piece.owners[-1] - 1].name in end.instances:
                    found[vpc] = piece
                    return

    def _note_elsewhere(self, family: int, vpc: str, senders: Nodes, receivers: Nodes) -> None:
        """Tell of addresses that no instance owns, as the VPC sees them, but instances of other VPCs do."""
        assert self._notes is not None
        policy = self.accounts[-1].policy
        of_version = IPv4Address if family == 4 else IPv6Address
        for nodes, there, end in zip((senders, receivers), (receivers, senders), self._ends, strict=True):
            is_named = end.kind in ("network", "address-group")
            if not is_named or not self.accounts[-1].is_own(there.contexts[-1], vpc).any():
                continue
            for n in np.flatnonzero(nodes.contexts[-1] == OUTSIDE).tolist():
                for piece in nodes.parts[n]:
                    first = self._first_owned(family, piece)
                    if first is not None and len(self._notes) < MAX_NOTES:
                        address = of_version(first)
                        owners = owners_elsewhere(policy, vpc, address)
                        note = owners and elsewhere_text(vpc, address, owners)
                        if note and note not in self._notes:
                            self._notes.append(note)

    def _first_owned(self, family: int, piece: Piece) -> int | None:
        """The first address of a piece that an instance of any VPC owns."""
        if family not in self._all_owned:
            self._all_owned[family] = union(
                (int(network.network_address), int(network.broadcast_address))
                for instance in self.accounts[-1].policy.instances
                for network in instance.addresses if network.version == family
            )  # fmt: skip
        owned = self._all_owned[family]
        n = bisect_left(owned, piece.first, key=itemgetter(1))
        return max(owned[n][0], piece.first) if n < len(owned) and owned[n][0] <= piece.last else None

    def _vpcs(self, family: int) -> list[str]:
        """The VPCs that have to be looked at. TooMuch if they see too much."""
        steps: Counter[str] = Counter()
        for views in self._views:
            for vpc, seen in views.asked(family, *self._ends):
                steps[vpc] += seen + len(self.grounds[family].named.spans)
        self.budget.views(steps.total(), len(steps))
        return list(steps)
