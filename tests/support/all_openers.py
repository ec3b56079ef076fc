"""Verdicts of all packets that open connections in a small universe, by the reference model alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from ipaddress import ip_address, ip_network

from checked_policies import BLOCKS, GRE, TCP, UDP
from winners import Address, Service, winner

from sgfast.policy.model import ICMP, ICMPV6, Instance, Policy
from sgfast.reference.addresses import is_multicast_or_broadcast
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.rules import _peer_matches
from sgfast.reference.table import GroupRule, Side
from sgfast.rules.reaching.ends import NamedEnd, named_end
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.rows import Row
from sgfast.rules.reaching.services import ServiceSet, named_service
from sgfast.rules.services import KEYS

#: All addresses that the policies of ``checked_policies`` distinguish, and some others.
ADDRESSES: dict[int, tuple[Address, ...]] = {
    4: (*BLOCKS[4], ip_address("8.8.8.8"), ip_address("224.0.0.9")),
    6: (*BLOCKS[6], ip_address("2a00::1"), ip_address("ff02::9")),
}
_PORTED: tuple[Service, ...] = tuple((number, port, None, None) for number in (TCP, UDP) for port in (0, 1, 2, 3, 10))
SERVICES: dict[int, tuple[Service, ...]] = {
    4: (*_PORTED, (GRE, None, None, None), *((ICMP, None, kind, code) for kind in (8, 9, 13) for code in (0, 1))),
    6: (*_PORTED, (GRE, None, None, None), (ICMPV6, None, 128, 0), (ICMPV6, None, 200, 1)),
}


#: Ends and services used in questions about these policies.
ENDS = (
    "any", "any", "internet", "group:a", "group:b", "group:c", "instance:i0", "instance:i1", "address-group:some",
    "10.0.0.0/31", "10.0.0.2", "8.8.8.8", "2001:db8::/127", "224.0.0.0/4",
)  # fmt: skip
QUERIED_SERVICES = ("all", "all", "tcp", "udp", "tcp/1", "tcp/2-9", "udp/0,3", "icmp", "icmp/8", "icmp/9/1", "gre")


@dataclass(frozen=True)
class Packet:
    """A packet of the universe. ``vpc`` is the VPC in which its addresses are looked up."""

    vpc: str
    source: Address
    destination: Address
    service: Service

    def is_one_of(self, services: ServiceSet) -> bool:
        protocol, port, icmp_type, icmp_code = self.service
        number = protocol * KEYS + (port or 0) + 256 * (icmp_type or 0) + (icmp_code or 0)
        return any(first <= number <= last for first, last in services.of(self.source.version))


class Truth:
    """A policy's verdict on each packet that comes from an instance of the packet's VPC, or that comes from no instance
    and goes to an instance of that VPC (SPEC 12.1).
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._known: dict[tuple[object, ...], Policy] = {}
        self.engines = {vpc.name: ReferenceEngine(policy, vpc=vpc.name) for vpc in policy.vpcs}

    def owner(self, vpc: str, address: Address, is_destination: bool) -> Instance | None:
        if is_destination and is_multicast_or_broadcast(address):
            return None
        return self.engines[vpc]._owner(address)

    def is_between(self, packet: Packet, source: NamedEnd, destination: NamedEnd) -> bool:
        for end, address, is_destination in ((source, packet.source, False), (destination, packet.destination, True)):
            owner = self.owner(packet.vpc, address, is_destination)
            is_in = any(address in network for network in end.networks)
            is_in &= not any(address in network for network in end.without)
            if not (is_in and (owner is None or end.owned)) and (owner is None or owner.name not in end.instances):
                return False
        return True

    @cached_property
    def verdicts(self) -> dict[Packet, str]:
        """Return ``allow`` or ``deny`` for each packet of the universe that filters judge."""
        return {
            packet: verdict
            for vpc in self.engines
            for family in (4, 6)
            for source in ADDRESSES[family]
            for destination in ADDRESSES[family]
            for packet, verdict in self._between(vpc, source, destination)
        }

    @property
    def allowed(self) -> set[Packet]:
        return {packet for packet, verdict in self.verdicts.items() if verdict == "allow"}

    def _between(self, vpc: str, source: Address, destination: Address) -> Iterator[tuple[Packet, str]]:
        sender, receiver = self.owner(vpc, source, False), self.owner(vpc, destination, True)
        here = sender or receiver
        if here is None or here.vpc != vpc or sender is receiver:
            return
        for service in SERVICES[source.version]:
            packet = Packet(vpc, source, destination, service)
            yield packet, "allow" if self.passes(packet, sender, receiver) else "deny"

    def passes(self, packet: Packet, sender: Instance | None, receiver: Instance | None) -> bool:
        return all(
            winner is not None and winner.rule.action == "allow" for winner in self._winners(packet, sender, receiver)
        )

    def deciding(self, packet: Packet) -> set[tuple[str, str]]:
        """Return the rules that win, by group and id."""
        sender = self.owner(packet.vpc, packet.source, False)
        receiver = self.owner(packet.vpc, packet.destination, True)
        return {(winner.group, winner.rule.id) for winner in self._winners(packet, sender, receiver) if winner}

    def _winners(
        self, packet: Packet, sender: Instance | None, receiver: Instance | None
    ) -> Iterator[GroupRule | None]:
        for here, outbound, far, there in (
            (sender, True, packet.destination, receiver), (receiver, False, packet.source, sender),
        ):  # fmt: skip
            if here is not None:
                policy = self._relevant_rules(Side(here, outbound, far, there))
                yield winner(policy, here, outbound, far, there, packet.service)

    def _relevant_rules(self, side: Side) -> Policy:
        """Return the policy without rules that cannot match packets of this side and peer, which is faster to
        evaluate."""
        key = (side.instance.name, side.leaving, side.peer, side.peer_instance and side.peer_instance.name)
        if key not in self._known:
            direction = "outbound" if side.leaving else "inbound"
            groups = []
            for group in self.policy.security_groups:
                rules = tuple(
                    rule for rule in group.rules
                    if rule.direction == direction and rule.ethertype == side.peer.version
                    and _peer_matches(self.policy, rule, side)
                )  # fmt: skip
                groups.append(replace(group, rules=rules))
            self._known[key] = replace(self.policy, security_groups=tuple(groups))
        return self._known[key]


_services, _network = cache(named_service), cache(ip_network)


def row_allows(row: Row, packet: Packet, truth: Truth) -> bool:
    """Return whether a row contains the packet."""
    negated = row.services.startswith("all except ")
    is_listed = packet.is_one_of(_services(row.services.removeprefix("all except ")))
    return (
        packet.source.version in row.families
        and is_listed != negated
        and any(_contains(part, packet, truth, False) for part in row.sources)
        and any(_contains(part, packet, truth, True) for part in row.destinations)
    )


def _contains(part: Part, packet: Packet, truth: Truth, is_destination: bool) -> bool:
    address = packet.destination if is_destination else packet.source
    owner = truth.owner(packet.vpc, address, is_destination)

    def is_in(networks: Iterable[str]) -> bool:
        return any(address in _network(network) for network in networks)

    match part.kind:
        case "any":
            return True
        case "internet":
            named = named_end(truth.policy, "internet")
            is_public = address in named.networks[address.version == 6] and not is_in(map(str, named.without))
            is_included = not part.addresses or is_in(part.addresses)
            return owner is None and is_public and is_included and not is_in(part.without)
        case "instances":
            return owner is not None and not {owner.name, *owner.security_groups} & {*part.without}
        case "group":
            return owner is not None and part.name in owner.security_groups
        case "instance":
            return owner is not None and owner.name == part.name and (not part.addresses or is_in(part.addresses))
        case "address-group":
            networks = truth.policy.address_group_by_name[part.name].addresses
            return owner is None and is_in(map(str, networks))
        case "network":
            return owner is None and is_in([part.name]) and not is_in(part.without)
