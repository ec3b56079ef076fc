"""The rules that connections need at their ends."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sgfast.policy.matching import Kind
from sgfast.policy.model import Direction


class NeededService(NamedTuple):
    direction: Direction
    family: Literal[4, 6]
    protocol: int
    port: int | None


class Need(NamedTuple):
    """A rule needed at one end of connections of one kind."""

    instance: str
    service: NeededService
    peer: bytes
    peer_instance: str | None


def needs_of(kind: Kind) -> list[Need]:
    rule_needs = []
    family: Literal[4, 6] = 4 if kind.family == 4 else 6
    if kind.egress is not None and not kind.is_free:
        service = NeededService("outbound", family, kind.protocol, kind.port)
        rule_needs.append(Need(kind.egress, service, kind.responder, kind.ingress))
    if kind.ingress is not None:
        service = NeededService("inbound", family, kind.protocol, kind.port)
        rule_needs.append(Need(kind.ingress, service, kind.initiator, kind.egress))
    return rule_needs
