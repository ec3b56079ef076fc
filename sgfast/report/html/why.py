"""Why packets were denied, in a sentence, and the rule that came nearest to allowing them.

Rules are those of the policy as the replay began: what changes did to them later, the list of changes says.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from sgfast.compiler.addresses import named_networks
from sgfast.compiler.ports import key_ranges
from sgfast.policy.model import ICMP, ICMPV6, AddressGroupPeer, GroupPeer, Instance, Peer, Policy, Rule
from sgfast.policy.protocols import protocol_name
from sgfast.replaying import Broken, Denied
from sgfast.report.page import grouped
from sgfast.report.text import icmp_name

#: Rules and networks that are compared for all rows together: with more, the rest goes without a nearest rule.
MOST_COMPARED = 200_000

#: By reason, where the rules have no part in it.
_SENTENCES = {
    "invalid": "It belongs to no connection and cannot open one.",
    "midstream": "It belongs to a TCP connection that nobody saw begin.",
    "disconnected": "A change of the policy cut its connection.",
    "malformed": "The packet contradicts itself.",
    "truncated": "The capture cut off the packet's header.",
    "fragment": "The first fragment of its datagram did not come within 30 seconds, or its fragments overlap.",
}
_REPLIES = {ICMP: (0, 14, 16, 18), ICMPV6: (129,)}
_ERRORS = {ICMP: (3, 4, 5, 11, 12), ICMPV6: tuple(range(128))}

#: What may keep a rule from matching; of as many, the one that is easiest to put right first.
_FIELDS = ("ethertype", "port", "ICMP type", "peer", "protocol")


class Reasons:
    """What the rules of a policy have to do with denials. Raises nothing for names the policy does not know."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._left = MOST_COMPARED
        self._known: dict[tuple[Peer, int, str], bool] = {}
        self._places = {group.name: n for n, group in enumerate(policy.security_groups)}

    def why(self, kind: Denied | Broken) -> str:
        """One sentence."""
        here, service = self._policy.instance_by_name.get(kind.service.instance), kind.service
        match kind.reason:
            case "no-rule":
                groups = f"of {_listed(here.security_groups)} " if here is not None else ""
                return f"No {kind.direction} rule {groups}matches."
            case "deny-rule":
                winner = self._winner(kind)
                by = f": {winner.id}, priority {winner.priority}" if winner is not None else ""
                return f"A deny rule wins{by}."
            case "vpc-isolated":
                there = self._policy.instance_by_name.get(kind.peer_name or "")
                if here is None or there is None:
                    return "The two VPCs are not peered."
                return f"VPC {here.vpc} ({here.name}) and VPC {there.vpc} ({there.name}) are not peered."
            case "table-full":
                most = grouped(self._policy.settings.max_connections)
                return f"The connection table is full: settings.max_connections is {most}."
            case "invalid" if service.icmp_type in _REPLIES.get(service.protocol, ()):
                return "A reply whose request was not let through, or never seen."
            case "invalid" if service.icmp_type in _ERRORS.get(service.protocol, ()):
                return "An ICMP error about no connection that lives."
        return _SENTENCES.get(kind.reason, kind.reason)

    def nearest(self, kind: Denied | Broken) -> str:
        """Which rule came nearest and what keeps it from matching; empty where no rule is near or none was asked."""
        if kind.reason != "no-rule":
            return ""
        best: tuple[int, int, Rule, list[str]] | None = None
        for rule, differs in self._compared(kind):
            if rule.action == "allow" and len(differs) <= 2:
                key = len(differs), sum(map(_FIELDS.index, differs))
                if best is None or key < best[:2]:
                    best = *key, rule, differs
        if best is None:
            return ""
        rule, differs = best[2:]
        if not differs:
            return f"{rule.id} allowed it when the replay began; a change took that away."
        keeps = [self._difference(rule, field, kind) for field in differs]
        return f"Nearest: {rule.id}, but " + " and ".join(keeps) + "."

    def _winner(self, kind: Denied | Broken) -> Rule | None:
        """Of the rules that match, the one that decides (SPEC 4.10)."""
        matching = [rule for rule, differs in self._compared(kind) if not differs]
        return min(matching, key=lambda rule: (rule.priority, rule.action == "allow"), default=None)

    def _compared(self, kind: Denied | Broken) -> Iterator[tuple[Rule, list[str]]]:
        """The rules of the filter, and what keeps each from matching."""
        here = self._policy.instance_by_name.get(kind.service.instance)
        if here is None:
            return
        peer = ip_address(kind.peer)
        there = self._policy.instance_by_name.get(kind.peer_name or "")
        for place in sorted(self._places[name] for name in here.security_groups):
            for rule in self._policy.security_groups[place].rules:
                if rule.direction == kind.direction:
                    self._left -= 1
                    if self._left < 0:
                        return
                    yield rule, self._differences(rule, kind, here, peer, there)

    def _differences(
        self, rule: Rule, kind: Denied | Broken, here: Instance, peer: IPv4Address | IPv6Address, there: Instance | None
    ) -> list[str]:
        service = kind.service
        differs = []
        # A network is of one family: that the rule is of the other follows.
        if rule.ethertype != peer.version and (rule.peer is None or isinstance(rule.peer, GroupPeer)):
            differs.append("ethertype")
        if rule.protocol not in (None, service.protocol):
            differs.append("protocol")
        elif (ranges := key_ranges(rule)) is not None:
            icmp = service.icmp_type is not None
            key = (service.icmp_type or 0) << 8 | (service.icmp_code or 0) if icmp else service.port or 0
            if not any(first <= key <= last for first, last in ranges):
                differs.append("ICMP type" if icmp else "port")
        if not self._peer_matches(rule, here, peer, there):
            differs.append("peer")
        return differs

    def _peer_matches(
        self, rule: Rule, here: Instance, peer: IPv4Address | IPv6Address, there: Instance | None
    ) -> bool:
        if rule.peer is None:
            return True
        if isinstance(rule.peer, GroupPeer):
            if there is None or rule.peer.name not in there.security_groups:
                return False
            regions = self._policy.vpc_by_name
            return (
                self._policy.connected(here.vpc, there.vpc)
                and regions[here.vpc].region == regions[there.vpc].region
            )
        known = rule.peer, rule.ethertype, str(peer)
        if known not in self._known:
            networks = list(named_networks(self._policy, rule))
            self._left -= len(networks)
            self._known[known] = any(peer in network for network in networks)
        return self._known[known]

    def _difference(self, rule: Rule, field: str, kind: Denied | Broken) -> str:
        match field:
            case "ethertype":
                return f"it is an IPv{rule.ethertype} rule"
            case "protocol":
                return f"it is for {protocol_words(rule)}"
            case "port":
                return f"its {'port is' if _is_one(rule) else 'ports are'} {port_words(rule)}"
            case "ICMP type":
                return f"its ICMP type is {port_words(rule)}"
        end = "source" if rule.direction == "inbound" else "destination"
        words = f"its {end} is {peer_words(rule)}"
        if isinstance(rule.peer, GroupPeer):
            there = self._policy.instance_by_name.get(kind.peer_name or "")
            member = there is not None and rule.peer.name in there.security_groups
            # A member that does not count: groups do not reach beyond their region (SPEC 4.11).
            words += f", and {kind.peer_name or kind.peer} is {'in another region' if member else 'not in that group'}"
        return words


# Rules in words ------------------------------------------------------------------------------------------------------


def protocol_words(rule: Rule) -> str:
    if rule.protocol is None:
        return "all protocols"
    return protocol_name(rule.protocol) or f"protocol {rule.protocol}"


def port_words(rule: Rule) -> str:
    """``80-81, 443``, an ICMP type, or nothing where the rule takes all."""
    if rule.icmp_type is not None:
        assert rule.protocol is not None
        return icmp_name(rule.protocol, rule.icmp_type) + (f"/{rule.icmp_code}" if rule.icmp_code is not None else "")
    if rule.ports is None:
        return ""
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in rule.ports[:8]]
    if len(rule.ports) > 8:
        shown.append(f"{len(rule.ports) - 8} more")
    return ", ".join(shown)


def peer_words(rule: Rule) -> str:
    match rule.peer:
        case None:
            return f"any IPv{rule.ethertype} address"
        case GroupPeer(name):
            return f"group {name}"
        case AddressGroupPeer(name):
            return f"address group {name}"
        case network:
            whole = network.prefixlen == network.max_prefixlen
            return str(network.network_address) if whole else str(network)


def _is_one(rule: Rule) -> bool:
    return rule.ports is not None and len(rule.ports) == 1 and rule.ports[0][0] == rule.ports[0][1]


def _listed(names: tuple[str, ...]) -> str:
    shown = names if len(names) <= 3 else (*names[:2], f"{len(names) - 2} more groups")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
