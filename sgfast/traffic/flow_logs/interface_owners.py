"""The instances that have an address, or that name an interface, and what follows for the interfaces of logs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Literal

from sgfast.policy.model import Instance, Network

#: The role of an interface, by the addresses that all of its records of one IP version share.
Role = Literal["", "outside", "other-owner", "perhaps-other-owner"]

#: The addresses that an interface's records share, of IPv4 and of IPv6. None: there are none of this version.
Shared = tuple[list[bytes] | None, list[bytes] | None]

#: Networks in which network interfaces of clouds have addresses. A record never has a public IPv4 address as that of
#: its own interface.
_OF_INTERFACES = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
#: The lengths of the parts of a UUID, which Neutron, OTC and Huawei Cloud have as ids.
_UUID = [8, 4, 4, 4, 12]


class InterfaceOwners:
    """Instances by their addresses and by the words for their interfaces: an instance's id or name. An instance may be
    given several times, with different addresses. Routers, which have all addresses, own none here.
    """

    def __init__(self, instances: Iterable[Instance]) -> None:
        self._hosts: dict[bytes, list[Instance]] = defaultdict(list)
        self._prefixes: list[tuple[Network, Instance]] = []
        self._named: dict[str, list[Instance]] = defaultdict(list)
        for instance in instances:
            for network in instance.addresses:
                if network.prefixlen == network.max_prefixlen:
                    self._hosts[network.network_address.packed].append(instance)
                elif network.prefixlen:
                    self._prefixes.append((network, instance))
            for word in {instance.id, instance.name} - {""}:
                self._named[word].append(instance)

    def of(self, address: bytes) -> list[Instance]:
        """Return the owners of an address: those of the address alone, or those with the longest prefix."""
        if address in self._hosts:
            return self._hosts[address]
        number = ip_address(address)
        around = [(network.prefixlen, instance) for network, instance in self._prefixes if number in network]
        longest = max((length for length, _ in around), default=0)
        return [instance for length, instance in around if length == longest]

    def starts(self) -> Iterator[tuple[int, bytes, bool]]:
        """Yield the places at which the owners of addresses change, in order: the IP version, the first address, as 16
        bytes that end with zeros, and whether instances own what follows.
        """
        for version, length in ((4, 4), (6, 16)):
            changes: Counter[int] = Counter()
            networks = [network for network, _ in self._prefixes if network.version == version]
            ranges = [(int(network.network_address), int(network.broadcast_address)) for network in networks]
            ranges += [(int.from_bytes(host),) * 2 for host in self._hosts if len(host) == length]
            for first, last in ranges:
                changes[first] += 1
                changes[last + 1] -= 1
            owned = 0
            # Two ranges that touch differ in their owners, although nothing begins or ends in sum.
            for number in sorted(changes):
                owned += changes[number]
                if number < 1 << 8 * length:
                    yield version, number.to_bytes(length).ljust(16, b"\0"), owned > 0

    # The role of an interface -----------------------------------------------------------------------------------------

    def role(self, word: str, shared: Sequence[bytes], dropped: bytes) -> Role:
        """Return what an interface is whose records of one IP version share one or two addresses. ``dropped``: where
        they share one, an address that only some of them have.
        """
        if len(shared) == 1:
            if not self.of(shared[0]):
                return "outside"
            return "other-owner" if self._is_others(shared[0], word, dropped) else ""
        first, second = shared
        owners = {first: second, second: first}
        if any(self._is_others(mine, word, peer) and not self._may_be_at(peer, word) for mine, peer in owners.items()):
            return "perhaps-other-owner"
        return ""

    def own_address(self, word: str, shared: Sequence[bytes]) -> tuple[bytes, bool] | None:
        """Return the address of an instance that is the interface's own, and whether that is sure; None if none is."""
        if word in self._named:
            hosts = {address for instance in self._named[word] for address in _hosts_of(instance)}
            named = [address for address in shared if address in hosts]
            return (named[0], True) if len(named) == 1 else None
        owned = [address for address in shared if self.of(address)]
        return (owned[0], len(shared) == 1) if len(owned) == 1 else None

    def _is_others(self, address: bytes, word: str, peer: bytes) -> bool:
        """Return whether an interface with this address is not that of its owner. ``peer``: an address at the other end
        of a record, which shows an instance with several addresses that has had one peer only.
        """
        owners = self._hosts.get(address, ())
        is_own = any(instance in self._named.get(word, ()) for instance in self._hosts.get(peer, ()))
        return bool(owners) and not is_own and all(_names_another(owner, word) for owner in owners)

    def _may_be_at(self, address: bytes, word: str) -> bool:
        """Return whether the interface may be that of an owner of this address."""
        return any(not _names_another(owner, word) for owner in self.of(address))

    # The instances that were logged -----------------------------------------------------------------------------------

    def logged(
        self, interfaces: Mapping[str, Shared], idle: Iterable[str], without_interface: Iterable[bytes]
    ) -> set[str]:
        """Return the names of the instances of which logs have a record of their own interface. ``interfaces``: those
        with records, by their words. ``idle``: words of interfaces with an interval without traffic.
        ``without_interface``: addresses in records that name no interface.
        """
        named_words = [word for word in {*interfaces, *idle} if word in self._named]
        logged_names = {instance.name for word in named_words for instance in self._named[word]}
        logged_names |= {owner.name for address in without_interface for owner in self.of(address)}
        for version in (0, 1):
            unnamed: dict[str, list[bytes]] = {}
            taken_addresses: set[bytes] = set()
            for word, shared in interfaces.items():
                addresses = shared[version]
                if word in self._named:
                    taken_addresses |= {address for instance in self._named[word] for address in _hosts_of(instance)}
                elif addresses:
                    unnamed[word] = addresses
            for word, address in _own_addresses(unnamed, taken_addresses).items():
                logged_names |= {owner.name for owner in self.of(address) if not _names_another(owner, word)}
        return logged_names


def _own_addresses(interfaces: Mapping[str, list[bytes]], taken_addresses: set[bytes]) -> dict[str, bytes]:
    """Return the own address of each interface of which it is sure, none of ``taken_addresses``."""
    own_addresses: dict[str, bytes] = {}
    pairs: dict[tuple[bytes, ...], list[str]] = defaultdict(list)
    for word, addresses in interfaces.items():
        private = [address for address in addresses if len(address) == 16 or _is_of_interface(address)]
        if len(private or addresses) == 1:
            own_addresses[word] = (private or addresses)[0]
        else:
            pairs[tuple(sorted(addresses))].append(word)
    while pairs:
        owned = taken_addresses | {*own_addresses.values()}
        settled = [pair for pair, words in pairs.items() if len(words) > 1 or len(owned.intersection(pair)) == 1]
        if not settled:
            break
        for pair in settled:
            # Two interfaces that show the same two addresses have one each.
            words, free = pairs.pop(pair), [address for address in pair if address not in owned] or list(pair)
            own_addresses |= dict(zip(words, free * len(words) if len(free) == 1 else free, strict=False))
    return own_addresses


def _is_of_interface(address: bytes) -> bool:
    return any(IPv4Address(address) in network for network in _OF_INTERFACES)


def _hosts_of(instance: Instance) -> list[bytes]:
    hosts = (network for network in instance.addresses if network.prefixlen == network.max_prefixlen)
    return [host.network_address.packed for host in hosts]


def _names_another(instance: Instance, word: str) -> bool:
    """Return whether the policy names another interface for an instance. A word of another kind, such as the id of a
    machine, tells nothing about interfaces.
    """
    return bool(instance.id) and word not in (instance.id, instance.name) and _kind(instance.id) == _kind(word)


def _kind(word: str) -> str:
    """Return the beginning that words of one kind have in common: ``eni`` of ``eni-0123``."""
    parts = word.split("-")
    return "uuid" if [len(part) for part in parts] == _UUID else parts[0] if len(parts) > 1 else ""
