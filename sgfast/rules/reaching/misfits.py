"""Explain why a rule does not match a packet: the field that differs, what the rule wants, and what the packet has."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from sgfast.policy.matching import End, Packet, RuleField, groups_of
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Instance, Policy, Rule, called
from sgfast.policy.networks import is_multicast_address
from sgfast.policy.rule_text import peer_text, ports_text, protocol_text

#: The maximum number of a peer's groups listed by name. The text only counts the further groups.
_LISTED_GROUPS = 5


@dataclass(frozen=True, slots=True)
class Misfit:
    """A field of a rule that does not match the packet.

    ``field``: the field of the rule.
    ``wanted``: the value that the rule wants.
    ``has``: the value that the packet has.
    ``why``: further explanation for people; may be empty.
    """

    field: RuleField
    wanted: str
    has: str
    why: str = ""


def misfit_of(
    policy: Policy, rule: Rule, field: RuleField, here: Instance, other_end: End, packet: Packet
) -> Misfit:
    """Return how a field of a rule of ``here`` differs from a packet from or to ``other_end``."""
    match field:
        case "ethertype":
            return Misfit(field, f"IPv{rule.ethertype}", f"IPv{packet.version}")
        case "protocol":
            return Misfit(field, protocol_text(rule.protocol), protocol_text(packet.protocol))
        case "ports":
            return Misfit(field, ports_text(rule.ports or ()), _or_none(packet.port))
        case "icmp_type":
            return Misfit(field, str(rule.icmp_type), _or_none(packet.icmp_type))
        case "icmp_code":
            return Misfit(field, str(rule.icmp_code), _or_none(packet.icmp_code))
    peer = str(other_end.address) + (f" ({called(other_end.instance)})" if other_end.instance is not None else "")
    return Misfit(field, peer_text(rule, policy), peer, _why_no_peer(policy, rule, here, other_end))


def _or_none(number: int | None) -> str:
    return "none" if number is None else str(number)


def _why_no_peer(policy: Policy, rule: Rule, here: Instance, other_end: End) -> str:
    match rule.peer:
        case GroupPeer(name):
            return _why_no_member(policy, name, here, other_end)
        case AddressGroupPeer(name):
            count = len(policy.address_group_by_name[name].addresses)
            return f"none of its {count} prefixes contains the address" if count else "it has no addresses"
    return ""


def _why_no_member(policy: Policy, group: str, here: Instance, other_end: End) -> str:
    other_instance = other_end.instance
    if other_instance is None:
        return "the address belongs to no instance, and only instances are in groups"
    network = ip_network(other_end.address.packed)
    if is_multicast_address(other_end.address):
        return "a multicast or broadcast address is in no group"
    if group not in groups_of(policy, other_instance, network):
        names = other_instance.security_groups[:_LISTED_GROUPS]
        groups = ", ".join(called(policy.group_by_name[name]) for name in names)
        if len(other_instance.security_groups) > _LISTED_GROUPS:
            groups += f" and {len(other_instance.security_groups) - _LISTED_GROUPS} more"
        if not any(group in instance.security_groups for instance in policy.instances):
            return f"the group has no members; {called(other_instance)} is in {groups}"
        return f"{called(other_instance)} is not a member: it is in {groups}"
    if not policy.connected(here.vpc, other_instance.vpc):
        vpcs = [called(policy.vpc_by_name[instance.vpc]) for instance in (other_instance, here)]
        return f"{called(other_instance)} is a member, but in VPC {vpcs[0]}, which is not peered with {vpcs[1]}"
    here_region, far_region = (policy.vpc_by_name[instance.vpc].region for instance in (here, other_instance))
    far_place, near_place = _region(far_region), _region(here_region)
    return f"{called(other_instance)} is a member, but in {far_place}, and {called(here)} is in {near_place}"


def _region(region: str) -> str:
    return f"region {region}" if region else "no named region"
