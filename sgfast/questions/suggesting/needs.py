"""The rules that connections need at their ends, and the rule that wins there."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sgfast.policy.matching import Kind
from sgfast.policy.model import Direction, Policy, Rule
from sgfast.rules.reaching.filters import Filters, filters_about, filters_between


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


class Winners:
    """The rule that wins at each end of connections (SPEC 4.10)."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        #: If VPCs share addresses: the filters by the VPCs of both ends. Otherwise those of all VPCs, by ().
        self._filters: dict[tuple[str, ...], Filters] = {}

    def are_connected(self, *names: str | None) -> bool:
        """Return whether packets may pass between the VPCs of both ends. None: an end is no instance."""
        ends = self._vpcs_of(*names)
        return len(ends) < 2 or self._policy.connected(*ends)

    def of(self, need: Need, code: int | None = None) -> Rule | None:
        """Return the rule that wins at the need's end; None if no rule matches. ``code``: as in ``Kind``."""
        policy = self._policy
        ends = self._vpcs_of(need.instance, need.peer_instance) if policy._shares_addresses else ()
        if ends not in self._filters:
            self._filters[ends] = filters_between(policy, *ends) if ends else filters_about(policy, None, ())
        return self._filters[ends].winner(need.instance, need.peer, *need.service, code)

    def _vpcs_of(self, *names: str | None) -> tuple[str, ...]:
        return tuple([self._policy.instance_by_name[name].vpc for name in names if name is not None])
