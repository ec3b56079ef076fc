"""The ends of kinds of traffic, with finer and coarser names. Names of an instance: its own, its security groups, its
VPC. Names of an address: the address, the network that rules name, whether it is private.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.model import AddressGroupPeer, Network, Policy
from sgfast.policy.networks import network_key
from sgfast.replaying.kinds import Kinds, grouped

EndKind = Literal[
    "instance", "groups", "vpc", "address", "address-group", "network", "private", "public", "unknown", "any"
]
#: From fine to coarse.
Level = Literal["end", "group", "scope", "any"]

#: Addresses that are not routed on the internet: private and shared ones, link-local and unique local ones, loopback
#: and multicast.
_PRIVATE: tuple[Network, ...] = (
    *map(IPv4Network, (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8",
        "224.0.0.0/4",
    )),
    *map(IPv6Network, ("fc00::/7", "fe80::/10", "::1/128", "ff00::/8")),
)  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class EndName:
    """Name of an end, or of several ends of one kind."""

    text: str
    kind: EndKind


_PRIVATE_NAME, _PUBLIC_NAME = EndName("private addresses", "private"), EndName("public addresses", "public")
_UNKNOWN_ADDRESS, _UNKNOWN_INSTANCE = EndName("other addresses", "unknown"), EndName("other instances", "unknown")
_ANY = EndName("any", "any")

_Codes = NDArray[np.int64]
#: The number of each end's name, and the names.
_Labels = tuple[_Codes, list[EndName]]


@dataclass(frozen=True)
class _Addresses:
    """Different addresses. ``peers``: uint8 of shape (n, 16), IPv4 in the first four bytes; ``families``: 4 or 6."""

    peers: NDArray[np.uint8]
    families: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.families)

    def text(self, number: int) -> str:
        return str(ip_address(self.peers[number, : 16 if self.families[number] == 6 else 4].tobytes()))


class Ends:
    """The two ends of each row of ``kinds``. Names of removed instances are kept.

    ``also``: other policies whose rules name addresses.
    """

    def __init__(self, policy: Policy, kinds: Kinds, *also: Policy) -> None:
        rows = kinds.rows
        is_outside = (rows["family"] > 0) & (rows["owner"] < 0)
        peers, families = rows["peer"][is_outside], rows["family"][is_outside]
        words = peers.view(np.uint64).reshape(-1, 2)
        order, begins = grouped([words[:, 0], words[:, 1], families])
        numbers = np.empty(len(order), dtype=np.int64)
        numbers[order] = np.cumsum(begins) - 1
        self._instances = kinds.instances
        self._addresses = _Addresses(peers[order[begins]], families[order[begins]])
        # Numbers of ends: first instances, then addresses that no instance owns, then the two unknown ends.
        unknown_address = len(self._instances) + len(self._addresses)
        peer = np.where(rows["family"] == 0, unknown_address, rows["owner"]).astype(np.int64)
        peer[is_outside] = len(self._instances) + numbers
        # Below -1 it is not even known whether the end is an instance.
        here = np.where(rows["instance"] >= 0, rows["instance"], unknown_address + (rows["instance"] == -1))
        inbound = rows["inbound"] == 1
        #: Numbers of ends, by row.
        self.sources: _Codes = np.where(inbound, peer, here).astype(np.int64)
        self.destinations: _Codes = np.where(inbound, here, peer).astype(np.int64)
        self._labels = self._coarse_labels(policy, _Named((policy, *also)))
        self._labels["end"] = np.arange(unknown_address + 2), []

    def _coarse_labels(self, policy: Policy, named: _Named) -> dict[Level, _Labels]:
        by_instance = [_names_of_instance(policy, name) for name in self._instances]
        by_address = named.names(self._addresses)
        labels: dict[Level, _Labels] = {}
        levels: tuple[Level, ...] = ("group", "scope")
        for n, level in enumerate(levels):
            names, places = by_address[n]
            numbers: dict[EndName, int] = {}
            of_instances = [numbers.setdefault(pair[n], len(numbers)) for pair in by_instance]
            of_names = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
            unknown = [numbers.setdefault(name, len(numbers)) for name in (_UNKNOWN_ADDRESS, _UNKNOWN_INSTANCE)]
            codes = np.concatenate([np.array(of_instances, dtype=np.int64), of_names[places], np.array(unknown)])
            labels[level] = codes, [*numbers]
        labels["any"] = np.zeros(len(codes), dtype=np.int64), [_ANY]
        return labels

    def codes(self, level: Level) -> _Codes:
        """Return the number of each end's name at a level."""
        return self._labels[level][0]

    def name(self, level: Level, code: int) -> EndName:
        return self.fine_name(code) if level == "end" else self._labels[level][1][code]

    def fine_name(self, end: int) -> EndName:
        if end < len(self._instances):
            return EndName(self._instances[end], "instance")
        end -= len(self._instances)
        if end < len(self._addresses):
            return EndName(self._addresses.text(end), "address")
        return _UNKNOWN_ADDRESS if end == len(self._addresses) else _UNKNOWN_INSTANCE


def _names_of_instance(policy: Policy, name: str) -> tuple[EndName, EndName]:
    """Return the names of an instance by security groups, and by VPC."""
    instance = policy.instance_by_name.get(name)
    if instance is None:
        return EndName("removed instances", "groups"), EndName("removed instances", "vpc")
    groups = ", ".join(dict.fromkeys(instance.security_groups))
    vpc = f"VPC {instance.vpc}" if len(policy.vpcs) > 1 else "instances"
    return EndName(groups, "groups"), EndName(vpc, "vpc")


class _Named:
    """Names of addresses, taken from the innermost address group or network in a rule."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        named: dict[bytes, tuple[Network, EndName]] = {}
        for policy in policies:
            peers = (rule.peer for group in policy.security_groups for rule in group.rules)
            for name in sorted({peer.name for peer in peers if isinstance(peer, AddressGroupPeer)}):
                for network in policy.address_group_by_name[name].addresses:
                    named.setdefault(network_key(network), (network, EndName(name, "address-group")))
        for policy in policies:
            for group in policy.security_groups:
                for rule in group.rules:
                    if isinstance(rule.peer, IPv4Network | IPv6Network) and rule.peer.prefixlen:
                        named.setdefault(network_key(rule.peer), (rule.peer, _network_name(rule.peer)))
        self._named = _by_family(named.values())
        self._private = _by_family((network, _PRIVATE_NAME) for network in _PRIVATE)

    def names(self, addresses: _Addresses) -> tuple[tuple[list[EndName], _Codes], tuple[list[EndName], _Codes]]:
        """Return the names by rules and those by scope (private or public), each with the number of each address's."""
        scopes, names = [_PUBLIC_NAME], [_PUBLIC_NAME]
        of_scope, of_name = (np.zeros(len(addresses), dtype=np.int64) for _ in range(2))
        for family in (4, 6):
            chosen = np.flatnonzero(addresses.families == family)
            values = _values(addresses.peers if len(chosen) == len(addresses) else addresses.peers[chosen], family)
            private, private_names = self._private[family].find(values)
            named, known_names = self._named[family].find(values)
            scope = private + len(scopes)
            scopes += [name or _PUBLIC_NAME for name in private_names]
            of_scope[chosen] = scope
            # An address that no rule names gets the name of its scope.
            names += [name or _PUBLIC_NAME for name in known_names]
            of_name[chosen] = named + len(names) - len(known_names)
            unnamed = np.array([name is None for name in known_names], dtype=bool)[named]
            of_name[chosen[unnamed]] = -1 - scope[unnamed]
        behind = len(names) + np.arange(len(scopes))
        of_name = np.where(of_name < 0, behind[(-1 - of_name) % len(scopes)], of_name)
        return (names + scopes, of_name), (scopes, of_scope)


def _network_name(network: Network) -> EndName:
    if network.prefixlen == network.max_prefixlen:
        return EndName(str(network.network_address), "address")
    return EndName(str(network), "network")


class _Stretches:
    """Networks of one family, nested or disjoint, split into stretches with the name of the innermost network."""

    def __init__(self, named: list[tuple[Network, EndName]]) -> None:
        self._starts: list[int] = [0]
        self._names: list[EndName | None] = [None]
        inside: list[tuple[int, EndName]] = []
        for network, name in sorted(named, key=lambda pair: (int(pair[0].network_address), pair[0].prefixlen)):
            first = int(network.network_address)
            self._leave(inside, first)
            inside.append((int(network.broadcast_address), name))
            self._begin(first, name)
        self._leave(inside, 1 << 129)

    def _begin(self, at: int, name: EndName | None) -> None:
        if self._starts[-1] == at:
            self._names[-1] = name
        else:
            self._starts.append(at)
            self._names.append(name)

    def _leave(self, inside: list[tuple[int, EndName]], before: int) -> None:
        while inside and inside[-1][0] < before:
            last, _ = inside.pop()
            self._begin(last + 1, inside[-1][1] if inside else None)

    def find(self, values: Sequence[int] | NDArray[np.int64]) -> tuple[_Codes, list[EndName | None]]:
        """Return the number of each address's stretch, and the names of all stretches. ``values``: from ``_values``."""
        if isinstance(values, np.ndarray):
            return np.searchsorted(np.array(self._starts), values, "right") - 1, self._names
        return np.array([bisect_right(self._starts, value) - 1 for value in values], dtype=np.int64), self._names


def _values(peers: NDArray[np.uint8], family: int) -> Sequence[int] | NDArray[np.int64]:
    """Return addresses of one family as numbers: an array for IPv4, a list for IPv6, which needs more bits."""
    if family == 4:
        return np.ascontiguousarray(peers[:, :4]).view(">u4").reshape(-1).astype(np.int64)
    return [int.from_bytes(peer.tobytes()) for peer in peers]


def _by_family(named: Iterable[tuple[Network, EndName]]) -> dict[int, _Stretches]:
    found = list(named)
    return {family: _Stretches([pair for pair in found if pair[0].version == family]) for family in (4, 6)}
