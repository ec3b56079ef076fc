"""The ends of kinds of traffic, named more and more coarsely: an instance, its security groups, its VPC; an address,
what the rules call it, whether it is private.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.model import AddressGroupPeer, GroupPeer, Network, Policy
from sgfast.policy.network_keys import network_key
from sgfast.replaying.kinds import Kinds, coded

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
class Name:
    """What an end, or several ends of one kind, are called."""

    text: str
    kind: EndKind


_PRIVATE_NAME, _PUBLIC_NAME = Name("private addresses", "private"), Name("public addresses", "public")
_UNKNOWN_ADDRESS, _UNKNOWN_INSTANCE = Name("other addresses", "unknown"), Name("other instances", "unknown")
_ANY = Name("any", "any")

_Codes = NDArray[np.int64]


class Ends:
    """The two ends of each row of ``kinds``. Names of instances that a change took away stay."""

    def __init__(self, policy: Policy, kinds: Kinds) -> None:
        rows = kinds.rows
        instances = len(kinds.instances)
        addresses, there = self._addresses(rows)
        # Numbers of ends: instances, addresses, and what is not known.
        unknown_address, unknown_instance = instances + len(addresses), instances + len(addresses) + 1
        peer = np.where(rows["family"] == 0, unknown_address, np.where(rows["owner"] >= 0, rows["owner"], 0))
        outside = (rows["family"] > 0) & (rows["owner"] < 0)
        peer[outside] = instances + there
        here = np.where(rows["instance"] >= 0, rows["instance"], unknown_instance)
        inbound = rows["inbound"] == 1
        #: Numbers of ends, by row.
        self.sources: _Codes = np.where(inbound, peer, here).astype(np.int64)
        self.destinations: _Codes = np.where(inbound, here, peer).astype(np.int64)
        fine = [Name(name, "instance") for name in kinds.instances]
        fine += [Name(str(ip_address(packed)), "address") for packed in addresses]
        by_instance = [_names_of_instance(policy, name) for name in kinds.instances]
        by_address = _Named(policy).names(addresses)
        unknown = [_UNKNOWN_ADDRESS, _UNKNOWN_INSTANCE]
        self._names: dict[Level, list[Name]] = {
            "end": fine + unknown,
            "group": [one for one, _ in by_instance] + [one for one, _ in by_address] + unknown,
            "scope": [two for _, two in by_instance] + [two for _, two in by_address] + unknown,
            "any": [_ANY] * (len(fine) + 2),
        }
        self._labels = {level: _numbered(names) for level, names in self._names.items()}

    @staticmethod
    def _addresses(rows: NDArray[Any]) -> tuple[list[bytes], _Codes]:
        """The addresses that no instance owns, and the number of each row's, for those rows."""
        outside = rows[(rows["family"] > 0) & (rows["owner"] < 0)]
        if not len(outside):
            return [], np.zeros(0, dtype=np.int64)
        words = np.ascontiguousarray(outside["peer"]).view(np.uint64)
        codes = coded(words[:, 0], words[:, 1], outside["family"])
        _, first = np.unique(codes, return_index=True)
        packed = [row["peer"][: 16 if row["family"] == 6 else 4].tobytes() for row in outside[first]]
        return packed, codes

    def codes(self, level: Level) -> _Codes:
        """For each end, the number of its name at a level."""
        return self._labels[level][0]

    def name(self, level: Level, code: int) -> Name:
        return self._labels[level][1][code]

    def fine_name(self, end: int) -> Name:
        return self._names["end"][end]


def _numbered(names: list[Name]) -> tuple[_Codes, list[Name]]:
    numbers: dict[Name, int] = {}
    codes = [numbers.setdefault(name, len(numbers)) for name in names]
    return np.array(codes, dtype=np.int64), [*numbers]


def _names_of_instance(policy: Policy, name: str) -> tuple[Name, Name]:
    """By security groups, and by VPC."""
    instance = policy.instance_by_name.get(name)
    if instance is None:
        return Name("removed instances", "groups"), Name("removed instances", "vpc")
    groups = ", ".join(dict.fromkeys(instance.security_groups))
    vpc = f"VPC {instance.vpc}" if len(policy.vpcs) > 1 else "instances"
    return Name(groups, "groups"), Name(vpc, "vpc")


class _Named:
    """What the rules call addresses: by the innermost address group or network that a rule names."""

    def __init__(self, policy: Policy) -> None:
        named: dict[bytes, tuple[Network, Name]] = {}
        peers = {rule.peer for group in policy.security_groups for rule in group.rules if _is_name(rule.peer)}
        for peer in sorted((peer for peer in peers if isinstance(peer, AddressGroupPeer)), key=lambda peer: peer.name):
            for network in policy.address_group_by_name[peer.name].addresses:
                named.setdefault(network_key(network), (network, Name(peer.name, "address-group")))
        for group in policy.security_groups:
            for rule in group.rules:
                if isinstance(rule.peer, IPv4Network | IPv6Network) and rule.peer.prefixlen:
                    named.setdefault(network_key(rule.peer), (rule.peer, _network_name(rule.peer)))
        self._named = _by_family(named.values())
        self._private = _by_family((network, _PRIVATE_NAME) for network in _PRIVATE)

    def names(self, addresses: list[bytes]) -> list[tuple[Name, Name]]:
        """By what rules call each address, and by whether it is private."""
        found = []
        for packed in addresses:
            family, value = (4 if len(packed) == 4 else 6), int.from_bytes(packed, "big")
            scope = _innermost(self._private[family], value) or _PUBLIC_NAME
            found.append((_innermost(self._named[family], value) or scope, scope))
        return found


def _is_name(peer: object) -> bool:
    return isinstance(peer, AddressGroupPeer | GroupPeer)


def _network_name(network: Network) -> Name:
    if network.prefixlen == network.max_prefixlen:
        return Name(str(network.network_address), "address")
    return Name(str(network), "network")


#: Where stretches of addresses begin, in order, and what each is called.
_Flat = tuple[list[int], list[Name | None]]


def _by_family(named: Iterable[tuple[Network, Name]]) -> dict[int, _Flat]:
    found = list(named)
    return {family: _flat([pair for pair in found if pair[0].version == family]) for family in (4, 6)}


def _flat(named: list[tuple[Network, Name]]) -> _Flat:
    """Networks, which are nested or disjoint, as stretches with the name of the innermost."""
    starts: list[int] = [0]
    names: list[Name | None] = [None]
    inside: list[tuple[int, Name]] = []

    def begin(at: int, name: Name | None) -> None:
        if starts[-1] == at:
            names[-1] = name
        else:
            starts.append(at)
            names.append(name)

    def leave(before: int) -> None:
        while inside and inside[-1][0] < before:
            last, _ = inside.pop()
            begin(last + 1, inside[-1][1] if inside else None)

    for network, name in sorted(named, key=lambda pair: (int(pair[0].network_address), pair[0].prefixlen)):
        first = int(network.network_address)
        leave(first)
        inside.append((int(network.broadcast_address), name))
        begin(first, name)
    leave(1 << 129)
    return starts, names


def _innermost(flat: _Flat, address: int) -> Name | None:
    starts, names = flat
    return names[bisect_right(starts, address) - 1]
