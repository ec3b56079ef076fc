"""A Python script as yardstick: the same job with dpkt, pytricia and a dict of connections.

It parses each frame with dpkt and looks for its connection in a dict. If there is none, it looks up the owners of both
addresses with pytricia and scans the rules of the owners' groups. It omits further features of sgfast: TCP states,
timeouts, ICMP, VPCs, priorities and deny rules.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import dpkt
import pytricia

from sgfast.policy.model import AddressGroupPeer, GroupPeer, Policy

_SYN, _ACK = dpkt.tcp.TH_SYN, dpkt.tcp.TH_ACK


class _Rule(NamedTuple):
    id: str
    protocol: int | None
    ports: tuple[tuple[int, int], ...] | None
    #: The instances that the rule's peer contains; None if the peer is a network.
    members: frozenset[int] | None
    network: int
    mask: int


@dataclass
class _Connection:
    rule: str
    last: float
    packets: int = 0
    bytes: int = 0


class ScriptedFilter:
    """A filter for one replay. All rules of the policy must be allow rules of one IP version."""

    def __init__(self, policy: Policy, family: int) -> None:
        self.owners = pytricia.PyTricia(32, socket.AF_INET) if family == 4 else pytricia.PyTricia(128, socket.AF_INET6)
        members: dict[str, set[int]] = {group.name: set() for group in policy.security_groups}
        for number, instance in enumerate(policy.instances):
            for address in instance.addresses:
                self.owners[str(address)] = number
            for name in instance.security_groups:
                members[name].add(number)
        frozen = {name: frozenset(numbers) for name, numbers in members.items()}
        by_group: dict[str, dict[str, list[_Rule]]] = {}
        for group in policy.security_groups:
            by_group[group.name] = {"inbound": [], "outbound": []}
            for rule in group.rules:
                assert rule.action == "allow" and not isinstance(rule.peer, AddressGroupPeer)
                peers, network, mask = None, 0, 0
                if isinstance(rule.peer, GroupPeer):
                    peers = frozen[rule.peer.name]
                elif rule.peer is not None:
                    network, mask = int(rule.peer.network_address), int(rule.peer.netmask)
                by_group[group.name][rule.direction].append(
                    _Rule(rule.id, rule.protocol, rule.ports, peers, network, mask)
                )
        self.rules = [
            {
                direction: [rule for name in instance.security_groups for rule in by_group[name][direction]]
                for direction in ("inbound", "outbound")
            }
            for instance in policy.instances
        ]
        self.connections: dict[tuple[bytes, int, bytes, int, int], _Connection] = {}
        self.allowed = self.denied = 0

    def replay(self, path: Path) -> None:
        with path.open("rb") as file:
            for time, frame in dpkt.pcap.Reader(file):
                if self.judge(time, frame):
                    self.allowed += 1
                else:
                    self.denied += 1

    def judge(self, time: float, frame: bytes) -> bool:
        ip: Any = dpkt.ethernet.Ethernet(frame).data
        tcp = ip.data
        protocol = ip.p
        key = (ip.src, tcp.sport, ip.dst, tcp.dport, protocol)
        connection = self.connections.get(key) or self.connections.get(
            (ip.dst, tcp.dport, ip.src, tcp.sport, protocol)
        )
        if connection is None:
            if tcp.flags & (_SYN | _ACK) != _SYN:
                return False
            rule = self.opener(ip.src, ip.dst, protocol, tcp.dport)
            if rule is None:
                return False
            connection = self.connections[key] = _Connection(rule, time)
        connection.last = time
        connection.packets += 1
        connection.bytes += len(frame)
        return True

    def opener(self, source: bytes, destination: bytes, protocol: int, port: int) -> str | None:
        """Return the id of the rule that allows the opener on the last side, or None if the opener is denied."""
        sender, receiver = self.owners.get(source), self.owners.get(destination)
        found = None
        if sender is not None:
            found = self.winner(self.rules[sender]["outbound"], destination, receiver, protocol, port)
            if found is None:
                return None
        if receiver is not None:
            found = self.winner(self.rules[receiver]["inbound"], source, sender, protocol, port)
        return found

    @staticmethod
    def winner(rules: list[_Rule], peer: bytes, owner: int | None, protocol: int, port: int) -> str | None:
        number = int.from_bytes(peer, "big")
        for rule in rules:
            if rule.protocol is not None and rule.protocol != protocol:
                continue
            if rule.ports is not None and not any(first <= port <= last for first, last in rule.ports):
                continue
            if owner in rule.members if rule.members is not None else number & rule.mask == rule.network:
                return rule.id
        return None
