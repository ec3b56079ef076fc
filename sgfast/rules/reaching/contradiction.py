"""Find a packet that contradicts a statement about all packets between two ends (SPEC 12.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

import numpy as np

from sgfast.policy.matching import Address, End
from sgfast.policy.model import TCP, UDP, Policy
from sgfast.policy.ranges import Ranges, difference, lowest
from sgfast.rules.addresses import ADDRESS, NOBODY
from sgfast.rules.reaching.ends import NamedEnd
from sgfast.rules.reaching.nodes import OUTSIDE, Piece
from sgfast.rules.reaching.question import Question, Scene, SharedGround
from sgfast.rules.reaching.relation import EMPTY
from sgfast.rules.reaching.services import ServiceSet, SingleService, service_at
from sgfast.rules.services import ICMP_OF, KEYS

#: Well-known services, in the order in which they are preferred as examples.
_WELL_KNOWN = (
    (TCP, (22, 3389, 443, 80, 5432, 3306, 1433, 1521, 6379, 27017, 9200, 445, 23, 21, 25, 8080, 8443)),
    (UDP, (53, 123, 161, 514)),
)  # fmt: skip
#: The first address that looks like an ordinary one, by IP version.
_ORDINARY = {4: int(IPv4Address("1.0.0.0")), 6: int(IPv6Address("2000::"))}


@dataclass(frozen=True, slots=True)
class Opener:
    """A packet that opens a connection."""

    source: End
    destination: End
    #: The VPC in which the addresses are looked up, as by ``Engine(vpc=...)``; None for a packet between two VPCs that
    #: are not peered.
    vpc: str | None
    service: SingleService


def first_contradiction(
    policy: Policy, sources: NamedEnd, destinations: NamedEnd, services: ServiceSet, wanted: Literal["allow", "deny"],
    notes: list[str] | None = None,
) -> Opener | None:  # fmt: skip
    """Find an opener from ``sources`` to ``destinations`` for one of ``services`` that does not get the wanted verdict,
    or return None if all get it. The result is exact, without trying packets (SPEC 12.4). ``notes`` receives sentences
    about addresses in VPCs that are not peered (SPEC 12.1), as far as the search went.

    Raises TooMuch if the answer would take too long, AmbiguousAddress if two peers of a VPC own an address.
    """
    return contradiction(policy, sources, destinations, services, wanted, notes)[0]


def contradiction(
    policy: Policy, sources: NamedEnd, destinations: NamedEnd, services: ServiceSet, wanted: Literal["allow", "deny"],
    notes: list[str] | None = None, shared: SharedGround | None = None,
) -> tuple[Opener | None, bool]:  # fmt: skip
    """Return ``first_contradiction``, and whether a filter judges any of these openers. ``shared``: what questions
    about the policy have in common.
    """
    question = Question([policy], sources, destinations, services, notes, shared)
    opposite: Literal["allow", "deny"] = "deny" if wanted == "allow" else "allow"
    is_about_something = False
    for scene in question.scenes():
        opener = _opener_in_scene(question, scene, wanted)
        if opener is not None:
            return opener, True
        is_about_something = is_about_something or _opener_in_scene(question, scene, opposite) is not None
    isolated = _isolated(policy, question)
    return isolated if wanted == "allow" else None, is_about_something or isolated is not None


def _opener_in_scene(question: Question, scene: Scene, expected_verdict: str) -> Opener | None:
    relation, sets = scene.relations[0], question.sets
    everything = sets.number(scene.base)
    is_outside = [nodes.contexts[0] == OUTSIDE for nodes in (scene.senders, scene.receivers)]
    # Try instances first, because they have names.
    for receiver in np.argsort(is_outside[1], kind="stable").tolist():
        allowed = relation.allowed("inbound", receiver)
        if expected_verdict == "deny":
            wrong = allowed != EMPTY
        else:
            wrong = (allowed != everything) & relation.judged("inbound", receiver)
        places = np.flatnonzero(wrong & ~relation.is_local("inbound", receiver))
        if len(places):
            sender = int(places[np.argmin(is_outside[0][places])])
            allowed_services = sets.ranges[int(allowed[sender])]
            services = allowed_services if expected_verdict == "deny" else difference(scene.base, allowed_services)
            source, destination = _two_ends(scene.senders.parts[sender], scene.receivers.parts[receiver])
            return _opener(question, scene.family, scene.vpc, source, destination, services)
    return None


def _two_ends(senders: Sequence[Piece], receivers: Sequence[Piece]) -> tuple[Piece, Piece]:
    """Return a sender and a receiver that are different instances. The caller ensures that such a pair exists."""
    source = min(senders, key=lambda piece: piece.owners)
    destination = min(receivers, key=lambda piece: piece.owners)
    if source.owners[0] != destination.owners[0] or source.owners[0] == NOBODY:
        return source, destination
    for receiver in receivers:
        if receiver.owners != source.owners:
            return source, receiver
    return next(sender for sender in senders if sender.owners != destination.owners), destination


def _isolated(policy: Policy, question: Question) -> Opener | None:
    """Return an opener between two named instances whose VPCs are not peered, or None (SPEC 3.6, 12.1)."""
    for family, (senders, receivers) in question.named.items():
        for vpc, source in senders.items():
            for receiver_vpc, destination in receivers.items():
                if not policy.connected(vpc, receiver_vpc):
                    return _opener(question, family, None, source, destination, question.base[family])
    return None


def _opener(
    question: Question, family: int, vpc: str | None, source: Piece, destination: Piece, services: Ranges
) -> Opener:
    instances = question.accounts[-1].policy.instances
    source_end, destination_end = (
        End(_address(piece, family), instances[owner - 1] if (owner := piece.owners[-1]) != NOBODY else None)
        for piece in (source, destination)
    )
    return Opener(source_end, destination_end, vpc, service_at(_telling(services, family), family))


def _telling(services: Ranges, family: int) -> int:
    """Return one of the services as an example: a well-known one, else a ping, else the first."""
    example_services = [protocol * KEYS + port for protocol, ports in _WELL_KNOWN for port in ports]
    example_services.append(ICMP_OF[family] * KEYS + 256 * (8 if family == 4 else 128))
    return next((n for n in example_services if lowest(services, n, n) is not None), services[0][0])


def _address(piece: Piece, family: int) -> Address:
    first = max(piece.first, min(_ORDINARY[family], piece.last))
    # Avoid a network's first address, which is valid but looks odd as an example.
    return ADDRESS[family](min(first + (piece.last - piece.first > 1), piece.last))
