"""Read one rule of a document (SPEC 2.1-2.5) into a normalised ``Rule``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from itertools import chain
from typing import Literal

from yaml.nodes import MappingNode, Node, SequenceNode

from sgfast.policy.keys import PEER_FIELDS, RULE_FIELDS
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    Action,
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
from sgfast.policy.protocols import PROTOCOL_NUMBERS, USUAL_PROTOCOLS, protocol_name
from sgfast.policy.ranges import ALL_PORTS, LAST_PORT, union
from sgfast.policy.rule_text import ports_text
from sgfast.policy.yaml_nodes import show

Ethertype = Literal[4, 6]

DIRECTIONS: dict[str, Direction] = {
    "inbound": "inbound",
    "outbound": "outbound",
    "ingress": "inbound",
    "egress": "outbound",
}
ETHERTYPES: dict[str, Ethertype] = {"IPv4": 4, "IPv6": 6}
ACTIONS: dict[str, Action] = {"allow": "allow", "deny": "deny"}

#: Looser than a name: users may write generated ids (SPEC 2.5), so that a printed policy can be read again.
RULE_ID = re.compile(r"[A-Za-z0-9_.\-/]{1,100}")
RULE_ID_WANTED = "1 to 100 letters, digits and _ - . / (a string)"
PORT_RANGE = re.compile(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?")
DESCRIPTION_CHARACTERS = 255
ONLY_OF_ICMP = "only allowed in a rule for icmp or icmpv6"
NEEDS_A_TYPE = "needs an icmp_type"
#: Interned sets: a policy may have a million rules but only a few different wordings.
_WORDINGS: dict[frozenset[Wording], frozenset[Wording]] = {}
#: Words for "any address" in other policy languages. Here the field is left out instead (SPEC 2.3).
_ANY_WORDS = frozenset(("any", "all", "*", "anywhere"))


class RuleReader:
    """Read the rules of one document, whose group names are already known.

    ``warnings`` receives a sentence for each rule that is valid but cannot match (SPEC 2.4), or is for other ports than
    its text seems to say (SPEC 2.2). ``first_port``: that of the document's profile.
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

    def known(self, kind: Literal["security group", "address group"], text: str, node: Node, path: str) -> str | None:
        """The name of the group that ``text`` means; None: there is none. ``node`` and ``path`` are for errors."""
        return text if text in (self._groups if kind == "security group" else self._address_groups) else None

    def rule(self, node: Node, path: str, id_of: Callable[[Direction, str], str]) -> Rule:
        """Read the rule in ``node``. ``id_of`` gets its direction and the id it was written with ("" if none) and
        returns its id.
        """
        reader = self._reader
        fields = reader.fields(node, path, RULE_FIELDS)
        direction_node = reader.required(fields, "direction", node, path)
        direction = reader.choice(direction_node, path + ".direction", DIRECTIONS)
        written = ""
        if "id" in fields:
            written = reader.matching(fields["id"], path + ".id", RULE_ID.fullmatch, RULE_ID_WANTED)
        rule_id = id_of(direction, written)

        protocol_node = reader.required(fields, "protocol", node, path, ": write all for every protocol")
        protocol = self._protocol(protocol_node, path + ".protocol")
        peer, family = self._peer_of(fields, direction, path)
        ethertype = self._ethertype(fields, path, protocol, family)
        wording: set[Wording] = set()
        if "ethertype" not in fields:
            wording.add("no-ethertype")
        if peer is None and family is not None:
            wording.add("any-address")
        if protocol == ICMP and ethertype == 6:
            protocol = ICMPV6
            wording.add("icmp")
        elif protocol == ICMPV6 and ethertype == 4:
            message = "icmpv6 in an IPv4 rule: use icmp, or make it an IPv6 rule"
            raise reader.error(protocol_node, path + ".protocol", message)
        if isinstance(peer, AddressGroupPeer) and ethertype not in self._families[peer.name]:
            location = reader.location(node, path)
            self._warnings.append(
                f"{location}: the address group {peer.name!r} has no IPv{ethertype} address, "
                "so this rule matches nothing."
            )

        icmp_type, icmp_code = self._icmp(fields, path, protocol)
        action: Action = "allow"
        if "action" in fields:
            action = reader.choice(fields["action"], path + ".action", ACTIONS)
        priority = 1
        if "priority" in fields:
            priority = reader.integer(fields["priority"], path + ".priority", 1, 100)
        return Rule(
            rule_id,
            direction,
            ethertype,
            protocol,
            self._ports_of(fields, path, protocol),
            icmp_type,
            icmp_code,
            peer,
            action,
            priority,
            description(reader, fields, path),
            _WORDINGS.setdefault(frozenset(wording), frozenset(wording)),
        )

    # Protocol, ports, ICMP type (SPEC 2.1, 2.2)

    def _protocol(self, node: Node, path: str) -> int | None:
        reader = self._reader
        wanted = "a protocol's name, a number from 0 to 255, or all"
        value = reader.scalar(node, path, wanted)
        if type(value) is str:
            word = value.lower()
            if word in PROTOCOL_NUMBERS:
                return PROTOCOL_NUMBERS[word]
            if word == "all":
                return None
            if not re.fullmatch(r"[0-9]{1,3}", word):
                hint = reader.did_you_mean(word, USUAL_PROTOCOLS) or reader.did_you_mean(word, PROTOCOL_NUMBERS)
                raise reader.error(node, path, f"unknown protocol {show(value)}{hint}: must be {wanted}")
            value = int(word)
        if type(value) is not int:
            raise reader.wrong_type(node, path, wanted)
        if not 0 <= value <= 255:
            raise reader.error(node, path, f"must be {wanted}, not {show(node.value)}")
        return value

    def _ports_of(
        self, fields: Mapping[str, Node], path: str, protocol: int | None
    ) -> tuple[tuple[int, int], ...] | None:
        if "ports" not in fields:
            return None
        node = fields["ports"]
        path += ".ports"
        if protocol not in PORT_PROTOCOLS:
            raise self._reader.error(node, path, no_ports(protocol))
        if type(node) is SequenceNode:
            items = self._reader.items(node, path)
            if not items:
                raise self._reader.error(node, path, "is an empty list: leave ports out for all ports")
            ranges: list[tuple[int, int]] = []
            for index, item in enumerate(items):
                ranges += self._port_ranges(item, f"{path}[{index}]")
        else:
            ranges = self._port_ranges(node, path)
        ports = union(ranges) if len(ranges) > 1 else tuple(ranges)
        if ports[0][0] >= self._first_port:
            return ports
        are_all = ports == ALL_PORTS
        means = "are all ports, as if ports were left out" if are_all else f"count from port {self._first_port} on"
        self._warnings.append(f"{self._reader.location(node, path)}: ports {ports_text(ports)} {means}.")
        return None if are_all else ((self._first_port, ports[0][1]), *ports[1:])

    def _port_ranges(self, node: Node, path: str) -> list[tuple[int, int]]:
        """``22``, ``22-30`` or ``"22,80,8000-8080"``."""
        wanted = f'a port from {self._first_port} to {LAST_PORT}, a range like 22-30, or a list like "22,80,8000-8080"'
        value = self._reader.scalar(node, path, wanted)
        if type(value) is int:
            if self._first_port <= value <= LAST_PORT:
                return [(value, value)]
        elif type(value) is str:
            ranges = []
            self._reader.visit(len(value) // 4, node, path)  # many rules may share one long text through aliases
            for part in value.split(","):
                match = PORT_RANGE.fullmatch(part)
                if match is None:
                    instead = ": leave ports out for all ports" if part.strip().lower() in _ANY_WORDS else ""
                    raise self._reader.error(node, path, f"{show(part)} is not a port: must be {wanted}{instead}")
                first = int(match[1])
                last = int(match[2] or first)
                if max(first, last) > LAST_PORT or last < self._first_port:
                    raise self._reader.error(node, path, f"{show(part)}: {self._all_ports_text(last)}")
                if first > last:
                    raise self._reader.error(node, path, f"{show(part)} is reversed: write {last}-{first}")
                ranges.append((first, last))
            return ranges
        else:
            raise self._reader.wrong_type(node, path, wanted)
        raise self._reader.error(node, path, f"{show(node.value)}: {self._all_ports_text(value)}")

    def _all_ports_text(self, last: int) -> str:
        """``last``: of a range that is not among them."""
        with_aws = "; only with the profile aws there is port 0" if last == 0 else ""
        return f"ports range from {self._first_port} to {LAST_PORT}{with_aws}"

    def _icmp(self, fields: Mapping[str, Node], path: str, protocol: int | None) -> tuple[int | None, int | None]:
        numbers: list[int | None] = []
        for key in ("icmp_type", "icmp_code"):
            number = None
            if key in fields:
                if protocol not in (ICMP, ICMPV6):
                    raise self._reader.error(fields[key], f"{path}.{key}", ONLY_OF_ICMP)
                number = self._reader.integer(fields[key], f"{path}.{key}", 0, 255)
            numbers.append(number)
        icmp_type, icmp_code = numbers
        if icmp_code is not None and icmp_type is None:
            raise self._reader.error(fields["icmp_code"], f"{path}.icmp_code", NEEDS_A_TYPE)
        return icmp_type, icmp_code

    # Peer and ethertype (SPEC 2.3, 2.4)

    def _ethertype(
        self, fields: Mapping[str, Node], path: str, protocol: int | None, family: Ethertype | None
    ) -> Ethertype:
        if "ethertype" not in fields:
            return family or (6 if protocol == ICMPV6 else 4)
        ethertype = self._reader.choice(fields["ethertype"], path + ".ethertype", ETHERTYPES)
        if family is not None and family != ethertype:
            which = "source" if "source" in fields else "destination"
            message = f"IPv{ethertype}, but the rule's {which} is IPv{family}: make them agree, or leave ethertype out"
            raise self._reader.error(fields["ethertype"], path + ".ethertype", message)
        return ethertype

    def _peer_of(
        self, fields: Mapping[str, Node], direction: Direction, path: str
    ) -> tuple[Peer, Ethertype | None]:
        """The rule's peer, and the address family it is written in, if any.

        0.0.0.0/0 and ::/0 become None, like a peer left out, because changes are detected by comparing values (SPEC
        6.3).
        """
        right, wrong = ("source", "destination") if direction == "inbound" else ("destination", "source")
        if wrong in fields:
            message = f"an {direction} rule has a {right}, not a {wrong}: use {right}"
            raise self._reader.error(fields[wrong], f"{path}.{wrong}", message)
        node = fields.get(right)
        if node is None:
            return None, None
        path = f"{path}.{right}"
        if type(node) is MappingNode:
            return self._peer_form(node, path)
        reader = self._reader
        text = reader.string(node, path, f"an address, a CIDR or a group's name (leave {right} out for any address)")
        meanings: list[str] = []
        if self.known("security group", text, node, path) is not None:
            meanings.append("group")
        if self.known("address group", text, node, path) is not None:
            meanings.append("address_group")
        if looks_like_address(text):
            if not meanings:
                return self._network_peer(node, path, text)
            if _is_network(text):  # a group's name may consist of digits and dots
                meanings.append("cidr")
        if len(meanings) > 1:
            forms = " or ".join(f"{{{form}: {text}}}" for form in meanings)
            raise reader.error(node, path, f"{show(text)} is ambiguous: write {forms}")
        if meanings:
            return self._peer(node, path, meanings[0], text)
        if text.lower() in _ANY_WORDS:
            raise reader.error(node, path, f"unknown security group {show(text)}: leave {right} out for any address")
        message = f"unknown security group {show(text)}: define it or use a CIDR"
        known = chain(self._groups, self._address_groups)
        raise reader.unknown_name(node, path, message, text, known, "security_groups", "address_groups")

    def _peer_form(self, node: Node, path: str) -> tuple[Peer, Ethertype | None]:
        """``{cidr: …}``, ``{group: …}`` or ``{address_group: …}``."""
        fields = self._reader.fields(node, path, PEER_FIELDS)
        if len(fields) != 1:
            raise self._reader.error(node, path, f"must have exactly one of {', '.join(PEER_FIELDS)}")
        ((form, value),) = fields.items()
        text = self._reader.string(value, f"{path}.{form}")
        return self._peer(value, f"{path}.{form}", form, text)

    def _peer(self, node: Node, path: str, form: str, text: str) -> tuple[Peer, Ethertype | None]:
        if form == "cidr":
            return self._network_peer(node, path, text)
        if form == "group":
            group = self.known("security group", text, node, path)
            if group is None:
                message = f"unknown security group {show(text)}: define it"
                raise self._reader.unknown_name(node, path, message, text, self._groups, "security_groups")
            return GroupPeer(group), None
        address_group = self.known("address group", text, node, path)
        if address_group is None:
            message = f"unknown address group {show(text)}: define it"
            raise self._reader.unknown_name(node, path, message, text, self._address_groups, "address_groups")
        return AddressGroupPeer(address_group), None

    def _network_peer(self, node: Node, path: str, text: str) -> tuple[Network | None, Ethertype]:
        address = network(self._reader, node, path, text)
        family: Ethertype = 4 if address.version == 4 else 6
        return address if address.prefixlen else None, family


def _is_network(text: str) -> bool:
    try:
        parse_network(text)
    except ValueError:
        return False
    return True


def network(reader: NodeReader, node: Node, path: str, text: str) -> Network:
    """Parse an address or CIDR (SPEC 2.3)."""
    try:
        return parse_network(text)
    except ValueError as error:
        raise reader.error(node, path, f"{show(text)}: {error}") from None


def description(reader: NodeReader, fields: Mapping[str, Node], path: str) -> str:
    """Read the description of a rule or a group (SPEC 2.1)."""
    node = fields.get("description")
    if node is None:
        return ""
    path += ".description"
    text = reader.string(node, path)
    if wrong := wrong_description(text):
        raise reader.error(node, path, wrong)
    return text


def wrong_description(text: str) -> str:
    """Return what is wrong with the description of a rule or a group (SPEC 2.1), or an empty text."""
    if len(text) > DESCRIPTION_CHARACTERS:
        return f"has {len(text)} characters, but at most {DESCRIPTION_CHARACTERS} are allowed"
    return "must contain neither < nor >" if "<" in text or ">" in text else ""


def no_ports(protocol: int | None) -> str:
    """The error message for ports of a protocol that has none (SPEC 2.2)."""
    name = "all protocols" if protocol is None else protocol_name(protocol) or f"protocol {protocol}"
    instead = ": use icmp_type" if protocol in (ICMP, ICMPV6) else ""
    return f"{name} has no ports; only tcp, udp, udplite, sctp and dccp do{instead}"
