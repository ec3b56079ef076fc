"""Compare a rule with an opener field by field (SPEC 4.9), with only the values of the policy.

    ethertype  protocol  ports  icmp_type  icmp_code  source (inbound) or destination (outbound)

Fields are compared independently: a rule for udp/53 differs from a packet to tcp/22 in two fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal, NamedTuple

from sgfast.policy.model import (
    PORT_PROTOCOLS,
    AddressGroupPeer,
    Direction,
    GroupPeer,
    Instance,
    Network,
    Policy,
    Rule,
)
from sgfast.policy.networks import is_multicast
from sgfast.policy.protocols import protocol_name

Address = IPv4Address | IPv6Address
#: The field of a rule, in the words of ``sgfast explain``.
RuleField = Literal["ethertype", "protocol", "ports", "icmp_type", "icmp_code", "source", "destination"]


@dataclass(frozen=True, slots=True)
class RuleInGroup:
    """A rule, and the name of its group.

    ``group``: the name of the security group.
    ``rule``: the rule.
    """

    group: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class End:
    """An end of a packet.

    ``address``: the address.
    ``instance``: the instance that owns the address; None if no instance does.
    """

    address: Address
    instance: Instance | None


class Kind(NamedTuple):
    """A kind of connection: all connections with these values are alike for every rule. Addresses are 4 or 16 bytes.

    ``initiator``: the address that opens the connection.
    ``responder``: the address that the connection is opened to.
    ``egress``: the name of the initiator's instance; None if the address belongs to no instance.
    ``ingress``: the name of the responder's instance, or None.
    ``protocol``: the IP protocol number.
    ``port``: the destination port or ICMP type; None if the protocol has neither.
    ``is_free``: whether the initiator's rules are not evaluated because it is a client of infrastructure (SPEC 3.11).
    ``code``: the ICMP code. Suggested rules are for any code, so it only tells which rules of a given policy match;
    None: only rules for any code do.
    """

    initiator: bytes
    responder: bytes
    egress: str | None
    ingress: str | None
    protocol: int
    port: int | None
    is_free: bool = False
    code: int | None = None

    @property
    def family(self) -> int:
        """The IP version, 4 or 6."""
        return 4 if len(self.initiator) == 4 else 6

    def text(self) -> str:
        """Return both ends and the service in words."""
        source, destination = (str(ip_address(address)) for address in (self.initiator, self.responder))
        service = protocol_name(self.protocol) or f"protocol {self.protocol}"
        if self.port is not None:
            service += f"/{self.port}" if self.protocol in PORT_PROTOCOLS else f" type {self.port}"
        return f"{source} to {destination} {service}"


@dataclass(frozen=True, slots=True)
class Packet:
    """The fields of an opener that rules check. None means that the packet's protocol does not have the field."""

    version: int
    protocol: int
    #: The destination port.
    port: int | None
    icmp_type: int | None
    icmp_code: int | None


def precedence(rule: Rule) -> tuple[int, bool]:
    """Return a sort key. The matching rule with the lowest key wins (SPEC 4.10); of equal ones, the first in the
    document.
    """
    return rule.priority, rule.action != "deny"


def rules_of(policy: Policy, instance: Instance, direction: Direction) -> Iterator[RuleInGroup]:
    """Yield the rules that apply to packets to an instance (inbound) or from it (outbound), in document order."""
    for group in policy.security_groups:
        if group.name in instance.security_groups:
            for rule in group.rules:
                if rule.direction == direction:
                    yield RuleInGroup(group.name, rule)


def compare(
    policy: Policy, rules: Iterable[RuleInGroup], instance: Instance, peer: End, packet: Packet
) -> tuple[list[RuleInGroup], list[tuple[RuleInGroup, tuple[RuleField, ...]]]]:
    """Compare rules with a packet. Return the matching rules in order of precedence (SPEC 4.10), and the nearest rules
    in document order: the allow rules that differ in the fewest fields, each with these fields.
    """
    matching: list[RuleInGroup] = []
    nearest: list[tuple[RuleInGroup, tuple[RuleField, ...]]] = []
    for rule_in_group in rules:
        fields = tuple(misfit_fields(policy, rule_in_group.rule, instance, peer, packet))
        if not fields:
            matching.append(rule_in_group)
        elif rule_in_group.rule.action == "allow" and not (nearest and len(nearest[0][1]) < len(fields)):
            if nearest and len(fields) < len(nearest[0][1]):
                nearest.clear()
            nearest.append((rule_in_group, fields))
    matching.sort(key=lambda rule_in_group: precedence(rule_in_group.rule))
    return matching, nearest


def misfit_fields(policy: Policy, rule: Rule, instance: Instance, peer: End, packet: Packet) -> Iterator[RuleField]:
    """Yield the fields of an instance's rule that do not match a packet between the instance and ``peer``."""
    if rule.ethertype != packet.version:
        yield "ethertype"
    if rule.protocol not in (None, packet.protocol):
        yield "protocol"
    if rule.ports is not None and not any(first <= (packet.port or 0) <= last for first, last in rule.ports):
        yield "ports"
    if rule.icmp_type not in (None, packet.icmp_type):
        yield "icmp_type"
    if rule.icmp_code not in (None, packet.icmp_code):
        yield "icmp_code"
    if not _is_peer(policy, rule, instance, peer):
        yield "source" if rule.direction == "inbound" else "destination"


def _is_peer(policy: Policy, rule: Rule, instance: Instance, peer: End) -> bool:
    match rule.peer:
        case None:
            return True
        case GroupPeer(name):
            return _is_member_for(policy, name, instance, peer)
        case AddressGroupPeer(name):
            return any(peer.address in network for network in policy.address_group_by_name[name].addresses)
        case network:
            return peer.address in network


def _is_member_for(policy: Policy, group: str, instance: Instance, peer: End) -> bool:
    """Return whether ``peer`` counts as a member of the group for rules of ``instance`` (SPEC 4.11)."""
    owner = peer.instance
    if owner is None or not policy.connected(instance.vpc, owner.vpc):
        return False
    if policy.vpc_by_name[instance.vpc].region != policy.vpc_by_name[owner.vpc].region:
        return False
    return group in groups_of(policy, owner, ip_network(peer.address.packed))


def groups_of(policy: Policy, owner: Instance, network: Network) -> frozenset[str]:
    """Return the groups of the addresses in a network, for rules that name groups (SPEC 4.11, 4.14). ``owner``: the
    instance that owns these addresses.
    """
    if is_multicast(network):
        return frozenset()
    if policy.settings.group_members == "by-owner":
        return frozenset(owner.security_groups)
    return frozenset(group for holder in policy._holders(owner.vpc, network) for group in holder.security_groups)
