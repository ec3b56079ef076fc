"""Instances, security groups, and a model of their filters (SPEC 3 to 5), small enough to be seen to be right."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, NamedTuple

ICMP, TCP, UDP, GRE, ESP = 1, 6, 17, 47, 50
PROTOCOLS = {ICMP: "icmp", TCP: "tcp", UDP: "udp", GRE: "gre", ESP: "esp"}
NUMBERS = {name: number for number, name in PROTOCOLS.items()}


class Instance(NamedTuple):
    name: str
    address: str
    interface: str
    groups: tuple[str, ...]


class Rule(NamedTuple):
    """A rule that allows. ``protocol`` None is every protocol; ``peer`` is a group, a CIDR, or "" for any address."""

    group: str
    direction: str
    protocol: int | None
    ports: tuple[int, int] | None
    peer: str

    def document(self, name: str) -> dict[str, Any]:
        made: dict[str, Any] = {"id": name, "direction": self.direction}
        made["protocol"] = "all" if self.protocol is None else PROTOCOLS[self.protocol]
        if self.ports:
            first, last = self.ports
            made["ports"] = first if first == last else f"{first}-{last}"
        if self.peer:
            made["source" if self.direction == "inbound" else "destination"] = self.peer
        return made


@dataclass
class Account:
    instances: list[Instance]
    #: Whether the policy names interfaces as ``id``.
    has_ids: bool = True
    stateless: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.by_address = {instance.address: instance for instance in self.instances}

    def name(self, address: str) -> str:
        """Return the name by which reports know an address."""
        return self.by_address[address].name if address in self.by_address else address

    def members(self, group: str) -> list[Instance]:
        return [instance for instance in self.instances if group in instance.groups]

    def groups(self) -> list[str]:
        return sorted({group for instance in self.instances for group in instance.groups})

    def document(self, rules: dict[str, Rule]) -> dict[str, Any]:
        groups: dict[str, dict[str, Any]] = {name: {"name": name, "rules": []} for name in self.groups()}
        for name in self.stateless:
            groups[name]["stateful"] = False
        for name, rule in rules.items():
            groups[rule.group]["rules"].append(rule.document(name))
        instances = [
            {"name": i.name, "addresses": [i.address], "security_groups": list(i.groups)}
            | ({"id": i.interface, "device": "i-" + i.interface[4:]} if self.has_ids else {})
            for i in self.instances
        ]  # fmt: skip
        return {"version": 1, "settings": {"profile": "aws"}, "security_groups": list(groups.values()),
                "instances": instances}  # fmt: skip


class Filters:
    """The filters of an account's instances under some rules, none of which denies."""

    def __init__(self, account: Account, rules: dict[str, Rule]) -> None:
        self._account = account
        self._rules: dict[tuple[str, str], list[Rule]] = {}
        for rule in rules.values():
            self._rules.setdefault((rule.group, rule.direction), []).append(rule)
        self._known: dict[tuple[str, str, int, int, int], str] = {}

    def denial(self, opener: str, responder: str, protocol: int, opener_port: int, port: int) -> str:
        """Return why a connection does not come about, or "" if it does."""
        key = (opener, responder, protocol, opener_port, port)
        if key not in self._known:
            self._known[key] = self._denial(*key)
        return self._known[key]

    def _denial(self, opener: str, responder: str, protocol: int, opener_port: int, port: int) -> str:
        if not (self.admits(opener, "outbound", protocol, port, responder)
                and self.admits(responder, "inbound", protocol, port, opener)):  # fmt: skip
            return "no-rule"
        replied = ((responder, "outbound", opener), (opener, "inbound", responder))
        for end, direction, peer in replied:
            if self._is_stateless(end) and not self.admits(end, direction, protocol, opener_port, peer):
                return "reply-denied"
        return ""

    def _is_stateless(self, address: str) -> bool:
        instance = self._account.by_address.get(address)
        return instance is not None and instance.groups[0] in self._account.stateless

    def admits(self, address: str, direction: str, protocol: int, port: int, peer: str) -> bool:
        instance = self._account.by_address.get(address)
        if instance is None:
            return True
        return any(
            rule.protocol in (None, protocol)
            and (rule.ports is None or rule.ports[0] <= port <= rule.ports[1])
            and self._is_peer(rule.peer, peer)
            for group in instance.groups for rule in self._rules.get((group, direction), ())
        )  # fmt: skip

    def _is_peer(self, peer: str, address: str) -> bool:
        if not peer:
            return True
        if "/" in peer:
            return IPv4Address(address) in IPv4Network(peer)
        instance = self._account.by_address.get(address)
        return instance is not None and peer in instance.groups
