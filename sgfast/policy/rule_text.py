"""Short texts for rules and packets in reports: ``tcp/22 from 10.0.0.0/8``."""

from __future__ import annotations

from collections.abc import Mapping

from sgfast.policy.model import AddressGroupPeer, GroupPeer, Rule
from sgfast.policy.protocols import protocol_name

#: The limit for the port ranges that are written out. After these, only the number of ranges is written.
_LISTED_RANGES = 8


def protocol_text(protocol: int | None) -> str:
    return "all" if protocol is None else protocol_name(protocol) or str(protocol)


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


def peer_text(rule: Rule) -> str:
    """Write the peer of a rule: ``0.0.0.0/0``, ``group web``, ``address group offices``."""
    match rule.peer:
        case None:
            return "0.0.0.0/0" if rule.ethertype == 4 else "::/0"
        case GroupPeer(name):
            return f"group {name}"
        case AddressGroupPeer(name):
            return f"address group {name}"
        case network:
            return str(network)


def rule_text(rule: Rule, twins: Mapping[str, Rule] | None = None) -> str:
    """Write a rule: ``tcp/22 from 10.0.0.0/8``, with the ethertype if the peer does not show it. ``twins``: the rules
    of the policy that are for both IP versions together with another one (SPEC 2.16), whose ethertype is left out.
    """
    text = f"{service_text(rule)} {'from' if rule.direction == 'inbound' else 'to'} {peer_text(rule)}"
    if isinstance(rule.peer, GroupPeer | AddressGroupPeer) and rule.id not in (twins or {}):
        text += f", IPv{rule.ethertype}"
    return ("deny " if rule.action == "deny" else "") + text
