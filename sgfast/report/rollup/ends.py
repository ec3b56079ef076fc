"""The ends of kinds of traffic, with finer and coarser names. Names of an instance: its own, its security groups. Names
of an address: the address, the network that rules name or else whether it is private.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.model import AddressGroupPeer, Network, Policy, called
from sgfast.policy.networks import network_key
from sgfast.questions.replaying.kinds import Kinds, grouped

EndKind = Literal[
    "instance", "groups", "address", "address-group", "network", "private", "public", "unknown", "any"
]
#: From fine to coarse.
Level = Literal["end", "group", "any"]

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
    #: The text that reports show in place of the name, such as ``web (sg-0123)`` (SPEC 10.28); empty: show the name.
    words: str = ""
    #: The security groups of the instance, or of each of the instances; none for addresses.
    groups: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        return self.words or self.text


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
    """The two ends of each row of ``kinds``. Instances that a change added or removed have names, too.

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
        self._policy = policy
        self._instances, self._instance_groups = kinds.instances, kinds.groups_under(policy)
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
        self._groups = self._by_group(policy, _Named((policy, *also)))
        in_order = np.arange(unknown_address + 2)
        in_order[: len(self._instances)] = np.argsort(np.argsort(self._instances))
        self._codes: dict[Level, _Codes] = {
            "end": in_order, "group": self._groups[0], "any": np.zeros(len(in_order), dtype=np.int64)
        }

    def _by_group(self, policy: Policy, named: _Named) -> _Labels:
        places, names = named.names(self._addresses)
        of_instances = [
            groups_name(policy, groups) if groups else _UNKNOWN_INSTANCE for groups in self._instance_groups
        ]
        numbers = {name: n for n, name in enumerate(sorted({
            *of_instances, *(names[n] for n in np.unique(places).tolist()), _UNKNOWN_ADDRESS, _UNKNOWN_INSTANCE
        }))}  # fmt: skip
        of_names = np.array([numbers.get(name, -1) for name in names], dtype=np.int64)
        group_numbers = np.array([numbers[name] for name in of_instances], dtype=np.int64)
        unknown = [numbers[_UNKNOWN_ADDRESS], numbers[_UNKNOWN_INSTANCE]]
        return np.concatenate([group_numbers, of_names[places], unknown]), [*numbers]

    def codes(self, level: Level) -> _Codes:
        """Return the number of each end's name at a level, in the order of the names."""
        return self._codes[level]

    def name(self, level: Level, code: int) -> EndName:
        """Return the name of several ends."""
        return self._groups[1][code] if level == "group" else _ANY

    def fine_name(self, end: int) -> EndName:
        if end < len(self._instances):
            name = self._instances[end]
            instance = self._policy.instance_by_name.get(name)
            words = called(instance) if instance is not None and instance.label else ""
            return EndName(name, "instance", words, tuple(dict.fromkeys(self._instance_groups[end])))
        end -= len(self._instances)
        if end < len(self._addresses):
            return EndName(self._addresses.text(end), "address")
        return _UNKNOWN_ADDRESS if end == len(self._addresses) else _UNKNOWN_INSTANCE


def groups_name(policy: Policy, names: Iterable[str]) -> EndName:
    """Return the name of the instances in these security groups, some of which a change may have added."""
    own_names, group_by_name = tuple(dict.fromkeys(names)), policy.group_by_name
    words = ", ".join(called(group_by_name[name]) if name in group_by_name else name for name in own_names)
    text = ", ".join(own_names)
    return EndName(text, "groups", words if words != text else "", own_names)


def address_group_name(policy: Policy, name: str) -> EndName:
    group = policy.address_group_by_name[name]
    return EndName(name, "address-group", called(group) if group.label else "")


class _Named:
    """Names of addresses, taken from the innermost address group or network in a rule."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        named: dict[bytes, tuple[Network, EndName]] = {}
        for policy in policies:
            peers = (rule.peer for group in policy.security_groups for rule in group.rules)
            for name in sorted({peer.name for peer in peers if isinstance(peer, AddressGroupPeer)}):
                named_group = address_group_name(policy, name)
                for network in policy.address_group_by_name[name].addresses:
                    named.setdefault(network_key(network), (network, named_group))
        for policy in policies:
            for group in policy.security_groups:
                for rule in group.rules:
                    if isinstance(rule.peer, IPv4Network | IPv6Network) and rule.peer.prefixlen:
                        named.setdefault(network_key(rule.peer), (rule.peer, _network_name(rule.peer)))
        self._named = _by_family(named.values())
        self._private = _by_family((network, _PRIVATE_NAME) for network in _PRIVATE)

    def names(self, addresses: _Addresses) -> _Labels:
        """Return the number of each address's name, and the names. An address that no rule names is private or public.
        """
        names: list[EndName] = [_PUBLIC_NAME]
        codes = np.zeros(len(addresses), dtype=np.int64)
        for family in (4, 6):
            chosen = np.flatnonzero(addresses.families == family)
            values = _values(addresses.peers if len(chosen) == len(addresses) else addresses.peers[chosen], family)
            # Later names take precedence.
            for stretches in (self._private[family], self._named[family]):
                places, stretch_names = stretches.find(values)
                is_named = np.array([name is not None for name in stretch_names], dtype=bool)[places]
                codes[chosen[is_named]] = places[is_named] + len(names)
                names += [name or _PUBLIC_NAME for name in stretch_names]
        return codes, names


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
    names = list(named)
    return {family: _Stretches([pair for pair in names if pair[0].version == family]) for family in (4, 6)}
