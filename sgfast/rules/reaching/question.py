"""A question about all packets that open connections: between two ends, for some services, under one policy or two.

    for scene in Question([policy], sources, destinations, services).scenes():
        scene.relations[0].allowed("inbound", receiver)    for each sender, the services that may reach the receiver

A scene is the view of one VPC for one IP version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

from sgfast.policy.model import Policy
from sgfast.policy.other_vpcs import elsewhere_text, owners_elsewhere
from sgfast.policy.ranges import Ranges, intersection, lowest
from sgfast.rules.addresses import ADDRESS, ANYWHERE, NamedNetworks, Span, contexts_of, span_of
from sgfast.rules.reaching.ends import ANY, NamedEnd
from sgfast.rules.reaching.nodes import OUTSIDE, Ground, Nodes, Piece, PolicyAccount
from sgfast.rules.reaching.relation import KeptTables, Relation, Sets, WorkLimits
from sgfast.rules.reaching.services import ServiceSet, openers

#: The steps for each VPC, and for each set of groups whose instances it sees. Each address costs one more step.
VPC_STEPS, CONTEXT_STEPS = 200, 10
#: The maximum number of notes of one question. A note is about an address of an instance in a VPC that is not peered.
MAX_NOTES = 3
#: The maximum number of divisions of addresses that questions share: one for each set of networks of an IP version that
#: they name.
KEPT_GROUNDS = 8


class Views:
    """The VPCs that a question is about, and the work required for each of them (SPEC 11.1)."""

    def __init__(self, policy: Policy, contexts: Iterable[tuple[tuple[int, ...], str]] | None = None) -> None:
        """``contexts``: the policy's contexts, if the caller knows them."""
        self._policy = policy
        #: The number of addresses and prefixes of each VPC's instances, by IP version.
        self._prefixes: dict[int, Counter[str]] = {4: Counter(), 6: Counter()}
        for instance in policy.instances:
            for network in instance.addresses:
                self._prefixes[network.version][instance.vpc] += 1
        self._contexts = Counter(vpc for _, vpc in (contexts_of(policy) if contexts is None else contexts))

    @cached_property
    def networks(self) -> dict[int, int]:
        """The number of networks that the rules name, by IP version."""
        return {family: len(NamedNetworks([self._policy], family).spans) for family in (4, 6)}

    def vpcs_to_search(self, family: int, sources: NamedEnd, destinations: NamedEnd) -> Iterator[tuple[str, int]]:
        """Yield the VPCs to search for packets between two ends, with the steps that each of them takes."""
        prefixes, connected = self._prefixes[family], self._policy._connected_vpcs
        senders, receivers = (self._named(end) for end in (sources, destinations))
        all_send, all_receive = (bool(end.networks) and end.owned for end in (sources, destinations))
        peer_count = self._contexts if destinations.networks else receivers
        for vpc in prefixes:
            is_asked = vpc in senders or vpc in receivers or (all_receive and bool(sources.networks))
            if not is_asked and all_send:
                is_asked = bool(destinations.networks) or any(peer in receivers for peer in connected[vpc])
            if is_asked:
                yield vpc, VPC_STEPS + sum(prefixes[peer] + CONTEXT_STEPS * peer_count[peer] for peer in connected[vpc])

    def _named(self, end: NamedEnd) -> Counter[str]:
        """Return the number of different sets of groups, by VPC, among the instances that the end names."""
        instances = self._policy.instance_by_name
        named = {(instances[name].vpc, instances[name].security_groups) for name in end.instances if name in instances}
        return Counter(vpc for vpc, _ in named)


class SharedGround:
    """The addresses of one policy, divided for many questions. Only networks that a question names divide them anew."""

    def __init__(self, policy: Policy) -> None:
        self.account = PolicyAccount(policy, ANY)
        self.views = Views(policy, self.account.contexts)
        self._grounds: dict[tuple[int, frozenset[Span]], Ground] = {}

    def ground(self, family: int, ends: Sequence[NamedEnd]) -> Ground:
        networks = chain.from_iterable((*end.networks, *end.without) for end in ends)
        named = {span_of(network) for network in networks if network.version == family}
        key = family, frozenset(named - {span_of(ANYWHERE[family])})
        if key not in self._grounds:
            if len(self._grounds) == KEPT_GROUNDS:
                del self._grounds[next(iter(self._grounds))]
            self._grounds[key] = Ground([self.account], family, ends)
        return self._grounds[key]


@dataclass(frozen=True, slots=True)
class Scene:
    family: int
    vpc: str
    ground: Ground
    senders: Nodes
    receivers: Nodes
    #: The relation under each policy.
    relations: list[Relation]
    #: The queried services.
    base: Ranges


class Question:
    def __init__(
        self, policies: Sequence[Policy], sources: NamedEnd, destinations: NamedEnd, services: ServiceSet,
        notes: list[str] | None = None, shared: SharedGround | None = None,
    ) -> None:  # fmt: skip
        """``notes`` takes sentences about addresses that the ends name and that belong to instances of VPCs that are
        not peered (SPEC 12.1). ``shared``: of the only policy.
        """
        if any(policy._shares_addresses for policy in policies):
            shared = None  # The destinations say which owner of an address matters (SPEC 7.1).
        self.accounts = [shared.account] if shared else [PolicyAccount(policy, destinations) for policy in policies]
        self.sources, self.destinations = self._ends = sources, destinations
        infrastructure = {policy.settings.infrastructure for policy in policies}
        self.everything = {family: openers(family, infrastructure) for family in (4, 6)}
        self.base = {family: intersection(services.of(family), self.everything[family]) for family in (4, 6)}
        self.sets = Sets()
        self.budget = WorkLimits(policies[-1].origin)
        #: By IP version: for each VPC one address of an instance that the sources name, and one that the destinations
        #: name, under the last policy.
        self.named: dict[int, tuple[dict[str, Piece], dict[str, Piece]]] = {4: ({}, {}), 6: ({}, {})}
        self._views = (
            [shared.views] if shared else [Views(account.policy, account.contexts) for account in self.accounts]
        )
        self.grounds = {
            family: shared.ground(family, self._ends) if shared else Ground(self.accounts, family, self._ends)
            for family in (4, 6)
        }
        self._notes = notes
        self._kept_tables = {(family, p): KeptTables() for family in (4, 6) for p in range(len(policies))}

    def scenes(self) -> Iterator[Scene]:
        """Yield the scenes, first those of IPv4. Raises TooMuch if they would take too long."""
        for family in (4, 6):
            ground = self.grounds[family]
            for vpc in self._vpcs(family) if self.base[family] else ():
                senders, receivers = ground.senders(vpc, self.sources), ground.receivers(vpc, self.destinations)
                for nodes, end, address_of in zip((senders, receivers), self._ends, self.named[family], strict=True):
                    self._find_named(vpc, nodes, end, address_of)
                if self._notes is not None and len(self._notes) < MAX_NOTES:
                    self._note_elsewhere(family, vpc, senders, receivers)
                self.budget.pairs(senders.count, receivers.count)
                relations = [
                    Relation(ground, p, vpc, senders, receivers, self.base[family], self.sets, self.budget,
                             self._kept_tables[family, p])
                    for p in range(len(self.accounts))
                ]
                yield Scene(family, vpc, ground, senders, receivers, relations, self.base[family])

    def _find_named(self, vpc: str, nodes: Nodes, end: NamedEnd, address_of: dict[str, Piece]) -> None:
        """Record one address of the VPC's own instances that the end names, if there is any."""
        instances = self.accounts[-1].policy.instances
        is_own = self.accounts[-1].is_own(nodes.contexts[-1], vpc)
        for n in np.flatnonzero(is_own).tolist() if end.instances else ():
            for piece in nodes.parts[n]:
                if instances[piece.owners[-1] - 1].name in end.instances:
                    address_of[vpc] = piece
                    return

    def _note_elsewhere(self, family: int, vpc: str, senders: Nodes, receivers: Nodes) -> None:
        """Add notes about addresses without an owner in the VPC's view that belong to instances of other VPCs."""
        assert self._notes is not None
        policy = self.accounts[-1].policy
        for nodes, other_nodes, end in zip((senders, receivers), (receivers, senders), self._ends, strict=True):
            is_named = end.kind in ("network", "address-group")
            if not is_named or not self.accounts[-1].is_own(other_nodes.contexts[-1], vpc).any():
                continue
            for n in np.flatnonzero(nodes.contexts[-1] == OUTSIDE).tolist():
                for piece in nodes.parts[n]:
                    first = lowest(policy._owned_ranges[family], piece.first, piece.last)
                    if first is not None and len(self._notes) < MAX_NOTES:
                        address = ADDRESS[family](first)
                        owners = owners_elsewhere(policy, vpc, address)
                        note = owners and elsewhere_text(policy, vpc, address, owners)
                        if note and note not in self._notes:
                            self._notes.append(note)

    def _vpcs(self, family: int) -> list[str]:
        """Return the VPCs to search. Raises TooMuch if they see too many addresses."""
        steps: Counter[str] = Counter()
        for views in self._views:
            for vpc, step_count in views.vpcs_to_search(family, *self._ends):
                steps[vpc] += step_count + len(self.grounds[family].named.spans)
        self.budget.views(steps.total(), len(steps))
        return list(steps)
