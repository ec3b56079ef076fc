"""Read a rule of a document (SPEC 2.1-2.5) as a normalised ``Rule``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from itertools import chain
from typing import Literal

from yaml.nodes import MappingNode, Node

from sgfast.policy.field_kinds import PORT_RANGE, Written
from sgfast.policy.fields import ADDRESS, PEER, RULE
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    AddressGroup,
    AddressGroupPeer,
    Direction,
    GroupPeer,
    Network,
    Peer,
    Rule,
    Wording,
)
from sgfast.policy.networks import looks_like_address, parse_network
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.protocols import protocol_name
from sgfast.policy.ranges import ALL_PORTS, LAST_PORT, Ranges, union
from sgfast.policy.rule_text import ports_text
from sgfast.policy.yaml_nodes import show

Ethertype = Literal[4, 6]
GroupKind = Literal["security group", "address group"]

ONLY_OF_ICMP = "only allowed in a rule for icmp or icmpv6"
NEEDS_A_TYPE = "needs an icmp_type"
#: Each different wording once, because a policy may have a million rules but has only a few different wordings.
_WORDINGS: dict[frozenset[Wording], frozenset[Wording]] = {}
#: Words for "any address" in other policy languages. In a policy, the field is left out instead (SPEC 2.3).
_ANY_WORDS = frozenset(("any", "all", "*", "anywhere"))


class RuleReader:
    """Reads the rules of one document, whose group names are already known.

    ``warnings``: a list that receives a sentence for each valid rule that cannot match (SPEC 2.4), or whose ports
    differ from its text (SPEC 2.2). ``first_port``: the first port that the document's profile allows.
    """

    def __init__(
        self,
        reader: NodeReader,
        groups: Set[str],
        address_groups: Mapping[str, AddressGroup],
        warnings: list[str],
        first_port: int,
    ) -> None:
        self._reader = reader
        self._first_port = first_port
        self._groups = groups
        self._address_groups = address_groups
        self._warnings = warnings
        self._families = {
            name: frozenset(network.version for network in group.addresses) for name, group in address_groups.items()
        }

    def find_group(self, kind: GroupKind, text: str, node: Node, path: str) -> str | None:
        """Return the name of the group that ``text`` means, or None. ``node`` and ``path`` are for errors."""
        return text if text in (self._groups if kind == "security group" else self._address_groups) else None

    def rule(self, node: Node, path: str, id_of: Callable[[Direction, str], str]) -> Rule:
        """Read the rule in ``node``. ``id_of``: a function from the rule's direction and its written id, or "", to its
        id.
        """
        written = RULE.read(self._reader, node, path)
        direction: Direction = written.read("direction")
        rule_id = id_of(direction, written.read("id"))
        protocol: int | None = written.read("protocol")
        peer, family = self._peer_of(written, direction)
        ethertype = self._ethertype(written, protocol, family)
        wording: set[Wording] = set()
        if "ethertype" not in written.nodes:
            wording.add("no-ethertype")
        if peer is None and family is not None:
            wording.add("any-address")
        if protocol == ICMP and ethertype == 6:
            protocol = ICMPV6
            wording.add("icmp")
        elif protocol == ICMPV6 and ethertype == 4:
            raise written.error("protocol", "icmpv6 in an IPv4 rule: use icmp, or make it an IPv6 rule")
        if isinstance(peer, AddressGroupPeer) and ethertype not in self._families[peer.name]:
            location = self._reader.location(node, path)
            self._warnings.append(
                f"{location}: the address group {peer.name!r} has no IPv{ethertype} address, "
                "so this rule matches nothing."
            )
        icmp_type, icmp_code = self._icmp(written, protocol)
        action, priority = written.read("action"), written.read("priority")
        return Rule(
            rule_id,
            direction,
            ethertype,
            protocol,
            self._ports_of(written, protocol),
            icmp_type,
            icmp_code,
            peer,
            action,
            priority,
            written.read("description"),
            _WORDINGS.setdefault(frozenset(wording), frozenset(wording)),
        )

    # Ports, ICMP type (SPEC 2.1, 2.2)

    def _ports_of(self, written: Written, protocol: int | None) -> Ranges | None:
        if "ports" not in written.nodes:
            return None
        if protocol not in PORT_PROTOCOLS:
            raise written.error("ports", no_ports(protocol))
        items = written.items("ports")
        if not items:
            raise written.error("ports", "is an empty list: leave ports out for all ports")
        ranges = [port_range for item, path in items for port_range in self._port_ranges(item, path)]
        ports = union(ranges) if len(ranges) > 1 else tuple(ranges)
        if ports[0][0] >= self._first_port:
            return ports
        are_all = ports == ALL_PORTS
        means = "are all ports, as if ports were left out" if are_all else f"count from port {self._first_port} on"
        location = self._reader.location(written.nodes["ports"], written.at("ports"))
        self._warnings.append(f"{location}: ports {ports_text(ports)} {means}.")
        return None if are_all else ((self._first_port, ports[0][1]), *ports[1:])

    def _port_ranges(self, node: Node, path: str) -> list[tuple[int, int]]:
        """Read ports: ``22``, ``22-30`` or ``"22,80,8000-8080"``."""
        syntax = f'a port from {self._first_port} to {LAST_PORT}, a range like 22-30, or a list like "22,80,8000-8080"'
        value = self._reader.scalar(node, path, syntax)
        if type(value) is int:
            if self._first_port <= value <= LAST_PORT:
                return [(value, value)]
        elif type(value) is str:
            ranges = []
            self._reader.visit(len(value) // 4, node, path)  # Aliases may repeat one long text in many rules.
            for part in value.split(","):
                match = PORT_RANGE.fullmatch(part)
                if match is None:
                    instead = ": leave ports out for all ports" if part.strip().lower() in _ANY_WORDS else ""
                    raise self._reader.error(node, path, f"{show(part)} is not a port: must be {syntax}{instead}")
                first = int(match[1])
                last = int(match[2] or first)
                if max(first, last) > LAST_PORT or last < self._first_port:
                    raise self._reader.error(node, path, f"{show(part)}: {self._all_ports_text(last)}")
                if first > last:
                    raise self._reader.error(node, path, f"{show(part)} is reversed: write {last}-{first}")
                ranges.append((first, last))
            return ranges
        else:
            raise self._reader.wrong_type(node, path, syntax)
        raise self._reader.error(node, path, f"{show(node.value)}: {self._all_ports_text(value)}")

    def _all_ports_text(self, last: int) -> str:
        """Write for an error which ports a rule may have. ``last``: the end of the invalid range."""
        with_aws = "; only with the profile aws there is port 0" if last == 0 else ""
        return f"ports range from {self._first_port} to {LAST_PORT}{with_aws}"

    def _icmp(self, written: Written, protocol: int | None) -> tuple[int | None, int | None]:
        numbers: list[int | None] = []
        for key in ("icmp_type", "icmp_code"):
            if key in written.nodes and protocol not in (ICMP, ICMPV6):
                raise written.error(key, ONLY_OF_ICMP)
            numbers.append(written.read(key))
        icmp_type, icmp_code = numbers
        if icmp_code is not None and icmp_type is None:
            raise written.error("icmp_code", NEEDS_A_TYPE)
        return icmp_type, icmp_code

    # Peer and ethertype (SPEC 2.3, 2.4)

    def _ethertype(self, written: Written, protocol: int | None, family: Ethertype | None) -> Ethertype:
        ethertype: Ethertype | None = written.read("ethertype")
        if ethertype is None:
            return family or (6 if protocol == ICMPV6 else 4)
        if family is not None and family != ethertype:
            end = "source" if "source" in written.nodes else "destination"
            message = f"IPv{ethertype}, but the rule's {end} is IPv{family}: make them agree, or leave ethertype out"
            raise written.error("ethertype", message)
        return ethertype

    def _peer_of(self, written: Written, direction: Direction) -> tuple[Peer, Ethertype | None]:
        """Read a rule's peer. Return it with the address family in which it is written, if any.

        0.0.0.0/0 and ::/0 become None, like a peer that is left out, because changes are detected by comparing values
        (SPEC 6.3).
        """
        right, wrong = ("source", "destination") if direction == "inbound" else ("destination", "source")
        if wrong in written.nodes:
            raise written.error(wrong, f"an {direction} rule has a {right}, not a {wrong}: use {right}")
        node = written.nodes.get(right)
        if node is None:
            return None, None
        path = written.at(right)
        if type(node) is MappingNode:
            return self._peer_form(node, path)
        reader = self._reader
        text = reader.string(node, path, f"an address, a CIDR or a group's name (leave {right} out for any address)")
        meanings: list[str] = []
        if self.find_group("security group", text, node, path) is not None:
            meanings.append("group")
        if self.find_group("address group", text, node, path) is not None:
            meanings.append("address_group")
        if looks_like_address(text):
            if not meanings:
                return self._network_peer(node, path)
            if _is_network(text):  # The name of a group may consist of digits and dots.
                meanings.append("cidr")
        if len(meanings) > 1:
            forms = " or ".join(f"{{{form}: {text}}}" for form in meanings)
            raise written.error(right, f"{show(text)} is ambiguous: write {forms}")
        if meanings:
            return self._peer(node, path, meanings[0])
        if text.lower() in _ANY_WORDS:
            raise written.error(right, f"unknown security group {show(text)}: leave {right} out for any address")
        message = f"unknown security group {show(text)}: define it or use a CIDR"
        known_names = chain(self._groups, self._address_groups)
        raise reader.unknown_name(node, path, message, text, known_names, "security_groups", "address_groups")

    def _peer_form(self, node: Node, path: str) -> tuple[Peer, Ethertype | None]:
        """Read a peer that is a mapping: ``{cidr: …}``, ``{group: …}`` or ``{address_group: …}``."""
        written = PEER.read(self._reader, node, path)
        if len(written.nodes) != 1:
            raise self._reader.error(node, path, f"must have exactly one of {', '.join(PEER.by_key)}")
        ((form, value),) = written.nodes.items()
        return self._peer(value, written.at(form), form)

    def _peer(self, node: Node, path: str, form: str) -> tuple[Peer, Ethertype | None]:
        text = self._reader.string(node, path)
        if form == "cidr":
            return self._network_peer(node, path)
        if form == "group":
            group = self.find_group("security group", text, node, path)
            if group is None:
                message = f"unknown security group {show(text)}: define it"
                raise self._reader.unknown_name(node, path, message, text, self._groups, "security_groups")
            return GroupPeer(group), None
        address_group = self.find_group("address group", text, node, path)
        if address_group is None:
            message = f"unknown address group {show(text)}: define it"
            raise self._reader.unknown_name(node, path, message, text, self._address_groups, "address_groups")
        return AddressGroupPeer(address_group), None

    def _network_peer(self, node: Node, path: str) -> tuple[Network | None, Ethertype]:
        address: Network = ADDRESS.read(self._reader, node, path)
        family: Ethertype = 4 if address.version == 4 else 6
        return address if address.prefixlen else None, family


def _is_network(text: str) -> bool:
    try:
        parse_network(text)
    except ValueError:
        return False
    return True


def no_ports(protocol: int | None) -> str:
    """Return the error message for ports of a protocol that has no ports (SPEC 2.2)."""
    name = "all protocols" if protocol is None else protocol_name(protocol) or f"protocol {protocol}"
    instead = ": use icmp_type" if protocol in (ICMP, ICMPV6) else ""
    return f"{name} has no ports; only tcp, udp, udplite, sctp and dccp do{instead}"
