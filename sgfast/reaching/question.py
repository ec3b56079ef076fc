"""A question about all packets that open connections: between two ends, for some services, under one policy or two.

    for scene in Question([policy], sources, destinations, services).scenes():
        scene.relations[0].to(receiver)        the services that may reach a receiver, from each sender

A scene is what one VPC sees of one family.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgfast.policy.model import Policy
from sgfast.reaching.ends import End
from sgfast.reaching.nodes import Account, Ground, Nodes, Piece
from sgfast.reaching.ranges import Ranges, intersection
from sgfast.reaching.relation import Budget, Relation, Sets
from sgfast.reaching.services import ServiceSet, openers


@dataclass(frozen=True, slots=True)
class Scene:
    family: int
    vpc: str
    ground: Ground
    senders: Nodes
    receivers: Nodes
    #: How many pieces each owner has among all senders, and among all receivers, under each policy.
    pieces_of_sender: list[dict[int, int]]
    pieces_of_receiver: list[dict[int, int]]
    #: One for each policy.
    relations: list[Relation]
    #: The services that are asked for.
    base: Ranges


class Question:
    def __init__(
        self, policies: Sequence[Policy], sources: End, destinations: End, services: ServiceSet
    ) -> None:
        self.accounts = [Account(policy) for policy in policies]
        self.sources, self.destinations = sources, destinations
        infrastructure = {policy.settings.infrastructure for policy in policies}
        self.everything = {family: openers(family, infrastructure) for family in (4, 6)}
        self.base = {family: intersection(services.of(family), self.everything[family]) for family in (4, 6)}
        self.sets = Sets()
        self.budget = Budget(policies[-1].origin)
        #: For each family and VPC of the last policy: one of its instances among the senders, and among the receivers.
        self.own: dict[tuple[int, str], tuple[Piece | None, Piece | None]] = {}
        self.grounds = {family: Ground(self.accounts, family, (sources, destinations)) for family in (4, 6)}

    def scenes(self) -> Iterator[Scene]:
        """The scenes, those of IPv4 first. TooMuch if they would take too long."""
        for family in (4, 6):
            ground = self.grounds[family]
            for vpc in self._vpcs(family) if self.base[family] else ():
                senders, pieces_of_sender = ground.senders(vpc, self.sources)
                receivers, pieces_of_receiver = ground.receivers(vpc, self.destinations)
                self.own[family, vpc] = self._first_own(vpc, senders), self._first_own(vpc, receivers)
                self.budget.pairs(senders.count, receivers.count)
                relations = [
                    Relation(ground, p, vpc, senders, receivers, self.base[family], self.sets, self.budget)
                    for p in range(len(self.accounts))
                ]
                yield Scene(
                    family, vpc, ground, senders, receivers, pieces_of_sender, pieces_of_receiver, relations,
                    self.base[family],
                )  # fmt: skip

    def _first_own(self, vpc: str, nodes: Nodes) -> Piece | None:
        contexts = self.accounts[-1].contexts
        places = enumerate(nodes.contexts[-1].tolist())
        return next((nodes.parts[n][0] for n, each in places if each >= 0 and contexts[each][1] == vpc), None)

    def _vpcs(self, family: int) -> list[str]:
        """The VPCs with instances of the family."""
        found: dict[str, int] = {}
        for account in self.accounts:
            for instance in account.policy.instances:
                number = sum(network.version == family for network in instance.addresses)
                if number:
                    found[instance.vpc] = found.get(instance.vpc, 0) + number
        for account in self.accounts:
            for vpc in found.keys() & account.policy.vpc_by_name.keys():
                seen = sum(found.get(other, 0) for other in account.policy.connected_vpcs[vpc])
                self.budget.prefixes(seen + len(self.grounds[family].named.spans))
        return list(found)
