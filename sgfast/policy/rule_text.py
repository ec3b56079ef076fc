"""Texts for rules: short ones for reports, such as ``tcp/22 from 10.0.0.0/8``, and lines of policy documents."""

from __future__ import annotations

from sgfast.base.errors import ArgumentError
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    AddressGroupPeer,
    GroupPeer,
    Network,
    Policy,
    Rule,
    called,
)
from sgfast.policy.protocols import protocol_name

#: The limit for the port ranges that are written out. After these, only the number of ranges is written.
_LISTED_RANGES = 8


def protocol_text(protocol: int | None) -> str:
    return "all" if protocol is None else protocol_name(protocol) or str(protocol)


def check_packet_fields(protocol: int, port: object, sport: object, icmp_type: object, icmp_code: object) -> None:
    """Raise ArgumentError if the destination port of a packet is missing, or if it has a field that its protocol does
    not have. A field that is None is not given.
    """
    name = protocol_text(protocol)
    if protocol in PORT_PROTOCOLS and port is None:
        raise ArgumentError(f"{name} has ports: give the destination port")
    if protocol not in PORT_PROTOCOLS and (port is not None or sport is not None):
        raise ArgumentError(f"{name} has no ports")
    if protocol not in (ICMP, ICMPV6) and (icmp_type is not None or icmp_code is not None):
        raise ArgumentError(f"{name} has no ICMP type or code")
    if icmp_code is not None and icmp_type is None:
        raise ArgumentError("an ICMP code needs an ICMP type")


def ports_text(ports: tuple[tuple[int, int], ...], listed: int | None = _LISTED_RANGES) -> str:
    """Write ports: ``22,8000-8080``. ``listed``: the limit for the ranges that are written out; None: no limit."""
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ports[:listed])
    return text + (f",... ({len(ports)} ranges)" if listed is not None and len(ports) > listed else "")


def service_text(rule: Rule) -> str:
    """Write the service of a rule: ``all``, ``tcp/22``, ``icmp type 8 code 0``."""
    text = protocol_text(rule.protocol)
    if rule.ports is not None:
        text += f"/{ports_text(rule.ports)}"
    if rule.icmp_type is not None:
        text += f" type {rule.icmp_type}"
    if rule.icmp_code is not None:
        text += f" code {rule.icmp_code}"
    return text


def peer_text(rule: Rule, policy: Policy | None = None) -> str:
    """Write the peer of a rule: ``0.0.0.0/0``, ``group web``, ``address group offices``. ``policy``: to call groups as
    reports do.
    """
    match rule.peer:
        case None:
            return "0.0.0.0/0" if rule.ethertype == 4 else "::/0"
        case GroupPeer(name):
            return f"group {name if policy is None else called(policy.group_by_name[name])}"
        case AddressGroupPeer(name):
            return f"address group {name if policy is None else called(policy.address_group_by_name[name])}"
        case network:
            return str(network)


def rule_text(rule: Rule, policy: Policy | None = None) -> str:
    """Write a rule: ``tcp/22 from 10.0.0.0/8``, with the ethertype if the peer does not show it. ``policy``: to call
    groups as reports do, and to leave out the ethertype of a rule that is for both IP versions (SPEC 2.16).
    """
    text = f"{service_text(rule)} {'from' if rule.direction == 'inbound' else 'to'} {peer_text(rule, policy)}"
    is_twin = policy is not None and rule.id in policy.twins
    if isinstance(rule.peer, GroupPeer | AddressGroupPeer) and not is_twin:
        text += f", IPv{rule.ethertype}"
    return ("deny " if rule.action == "deny" else "") + text


def rule_name(policy: Policy, rule: Rule, group_name: str) -> str:
    """Return how reports name a rule (SPEC 10.28): ``web/inbound/2``, or, if its id does not begin with a name that its
    group goes by, ``"office", inbound tcp/22 from 10.0.0.0/8 (sgr-0123 in web)``.
    """
    group = policy.group_by_name.get(group_name)
    known_as = group.label or group.name if group else group_name
    if rule.id.startswith(f"{known_as}/"):
        return rule.id
    described = f'"{rule.description}", ' if rule.description else ""
    return f"{described}{rule.direction} {rule_text(rule, policy)} ({rule.id} in {known_as})"


def rule_of_id(policy: Policy, rule_id: str) -> str:
    """Return how reports name the rule with this id. A rule that the policy does not have is named by its id."""
    group = policy.group_by_name.get(policy.group_of_rule.get(rule_id, ""))
    rule = next((listed_rule for listed_rule in group.rules if listed_rule.id == rule_id), None) if group else None
    return rule_id if group is None or rule is None else rule_name(policy, rule, group.name)


def short(network: Network) -> str:
    """Format a network. A single address has no prefix length."""
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def quoted(text: str) -> str:
    """Return the text as a YAML scalar, without quotes if YAML is sure to read it as the same text."""
    plain = text.isascii() and text[:1].isalpha() and all(c.isalnum() or c in "_-." for c in text)
    dotted = text.count(".") == 3 and all(c.isdigit() or c in "./" for c in text)
    if (plain and text.lower() not in ("null", "true", "false")) or dotted:
        return text
    # Unicode line separators are escaped, because YAML would fold them into spaces.
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


def rule_in_document(rule: Rule, policy: Policy, *, with_id: bool = False) -> str:
    """Return a rule of a group of the policy as one line: ``{direction: inbound, protocol: tcp, ports: 22, ...}``."""
    parts = [f"id: {quoted(rule.id)}"] if with_id else []
    parts.append(f"direction: {rule.direction}")
    if rule.peer is None or isinstance(rule.peer, GroupPeer | AddressGroupPeer):
        parts.append(f"ethertype: IPv{rule.ethertype}")
    protocol = "all" if rule.protocol is None else protocol_name(rule.protocol) or str(rule.protocol)
    parts.append(f"protocol: {quoted(protocol)}")
    if rule.ports is not None:
        ports = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in rule.ports)
        parts.append(f"ports: {ports}" if ports.isdigit() else f'ports: "{ports}"')
    if rule.icmp_type is not None:
        parts.append(f"icmp_type: {rule.icmp_type}")
    if rule.icmp_code is not None:
        parts.append(f"icmp_code: {rule.icmp_code}")
    peer = "source" if rule.direction == "inbound" else "destination"
    if isinstance(rule.peer, GroupPeer):
        # Write `{group: NAME}` if the name alone could mean an address or an address group.
        name = rule.peer.name
        is_clear = name[0].isalpha() and name not in policy.address_group_by_name
        parts.append(f"{peer}: {quoted(name)}" if is_clear else f"{peer}: {{group: {quoted(name)}}}")
    elif isinstance(rule.peer, AddressGroupPeer):
        parts.append(f"{peer}: {{address_group: {quoted(rule.peer.name)}}}")
    elif rule.peer is None:
        parts.append(f"{peer}: " + ("0.0.0.0/0" if rule.ethertype == 4 else '"::/0"'))
    else:
        parts.append(f"{peer}: {quoted(short(rule.peer))}")
    if rule.action != "allow":
        parts.append(f"action: {rule.action}")
    if rule.priority != 1:
        parts.append(f"priority: {rule.priority}")
    if rule.description:
        parts.append(f"description: {quoted(rule.description)}")
    return f"{{{', '.join(parts)}}}"
