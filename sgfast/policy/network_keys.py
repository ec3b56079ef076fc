"""Networks as keys. Python's own hash of an IPv6 network is a remainder: whoever writes a file, or sends packets, can
choose thousands of networks with equal hashes, which make a dict or a set take quadratic time (SPEC 11). Bytes have a
hash with a secret.
"""

from __future__ import annotations

from collections.abc import Iterable

from sgfast.policy.model import AddressGroupPeer, GroupPeer, Network, Peer


def network_key(network: Network) -> bytes:
    """Equal for equal networks: the address in network byte order and the prefix length, 5 or 17 bytes."""
    return network.network_address.packed + bytes([network.prefixlen])


def peer_key(peer: Peer) -> bytes | GroupPeer | AddressGroupPeer | None:
    """Equal for equal peers."""
    if peer is None or isinstance(peer, GroupPeer | AddressGroupPeer):
        return peer
    return network_key(peer)


def without_duplicates(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The networks in their order, each once."""
    return tuple({network_key(network): network for network in networks}.values())
