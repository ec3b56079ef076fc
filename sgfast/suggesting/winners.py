"""Find the rule that wins for one end of a connection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network

from sgfast.policy.matching import End, Packet, RuleInGroup, groups_of, misfit_fields, precedence, rules_of
from sgfast.policy.model import ICMP, ICMPV6, AddressGroupPeer, Direction, GroupPeer, Network, Policy, Rule
from sgfast.suggesting.needs import Need


class Winners:
    """Find the rule that wins for one end of a connection (SPEC 4.10)."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._known: dict[tuple[tuple[str, ...], Direction, Packet], _ByPeer] = {}

    def are_connected(self, *names: str | None) -> bool:
        """Return whether packets may pass between the VPCs of both ends. None: an end is no instance."""
        ends = [self._policy.instance_by_name[name].vpc for name in names if name is not None]
        return len(ends) < 2 or self._policy.connected(*ends)

    def of(self, need: Need, code: int | None = None) -> Rule | None:
        """Return the rule that wins at the need's end; None if no rule matches. ``code``: as in ``Kind``."""
        instances, version = self._policy.instance_by_name, need.service.family
        here = instances[need.instance]
        peer = End(ip_address(need.peer), None if need.peer_instance is None else instances[need.peer_instance])
        protocol, port = need.service.protocol, need.service.port
        is_icmp = protocol == (ICMP if version == 4 else ICMPV6)
        packet = Packet(version, protocol, None if is_icmp else port, port if is_icmp else None, code)
        key = here.security_groups, need.service.direction, packet
        if key not in self._known:
            fitting = [
                each for each in rules_of(self._policy, here, need.service.direction)
                if {*misfit_fields(self._policy, each.rule, here, peer, packet)} <= {"source", "destination"}
            ]  # fmt: skip
            self._known[key] = _ByPeer(self._policy, sorted(fitting, key=lambda each: precedence(each.rule)))
        for each in self._known[key].near(peer):
            if not any(misfit_fields(self._policy, each.rule, here, peer, packet)):
                return each.rule
        return None


class _ByPeer:
    """Rules that match a service, by their peers. Many connections differ in their peer only."""

    def __init__(self, policy: Policy, rules: Sequence[RuleInGroup]) -> None:
        """``rules``: in order of precedence."""
        self._policy, self._rules = policy, rules
        self._any: list[int] = []
        self._named: defaultdict[str, list[int]] = defaultdict(list)
        #: By the number of host bits: the places of rules by the bits of their prefix.
        self._prefixes: defaultdict[int, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for place, each in enumerate(rules):
            match each.rule.peer:
                case None:
                    self._any.append(place)
                case GroupPeer(name):
                    self._named[name].append(place)
                case AddressGroupPeer(name):
                    for network in policy.address_group_by_name[name].addresses:
                        self._add(network, place)
                case network:
                    self._add(network, place)

    def _add(self, network: Network, place: int) -> None:
        host_bits = network.max_prefixlen - network.prefixlen
        self._prefixes[host_bits][int(network.network_address) >> host_bits].append(place)

    def near(self, peer: End) -> Iterator[RuleInGroup]:
        """Yield the rules that may match a peer, in order of precedence."""
        number = int(peer.address)
        places = [*self._any]
        if peer.instance is not None and self._named:
            for group in groups_of(self._policy, peer.instance, ip_network(peer.address.packed)):
                places += self._named.get(group, ())
        for host_bits, by_bits in self._prefixes.items():
            places += by_bits.get(number >> host_bits, ())
        yield from (self._rules[place] for place in sorted(places))
