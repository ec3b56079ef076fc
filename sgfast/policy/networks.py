"""Parse addresses and CIDRs written by users (SPEC 2.3, 2.6), and use networks as keys.

Python's hash of an IPv6 network is a remainder. The author of a file or the sender of packets can choose thousands of
networks with equal hashes, so that a dict or a set takes quadratic time (SPEC 11). The hash of bytes includes a secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

from sgfast.policy.model import AddressGroupPeer, GroupPeer, Network, Peer

#: Multicast and broadcast addresses: as destination they are never an instance (SPEC 3.3), and they are in no security
#: group (SPEC 4.14).
NEVER_AN_INSTANCE: tuple[Network, ...] = (
    IPv4Network("224.0.0.0/4"), IPv4Network("255.255.255.255/32"), IPv6Network("ff00::/8"),
)  # fmt: skip


def is_multicast(network: Network) -> bool:
    """Return whether a network lies completely in one of ``NEVER_AN_INSTANCE``."""
    for reserved in NEVER_AN_INSTANCE:      # A loop is fastest, and this is called for each address of large policies.
        if (
            reserved.version == network.version and reserved.prefixlen <= network.prefixlen
            and network.network_address in reserved
        ):  # fmt: skip
            return True
    return False


def is_multicast_address(address: IPv4Address | IPv6Address) -> bool:
    """Return whether a packet to this address has no instance as its receiver (SPEC 3.3)."""
    return any(address in network for network in NEVER_AN_INSTANCE)


def looks_like_address(text: str) -> bool:
    """Return whether a text is an address or CIDR, valid or not, rather than a name (SPEC 2.7)."""
    address = text.partition("/")[0]
    return ":" in text or "/" in text or address.replace(".", "").isdigit()


def parse_network(text: str, *, host_bits: bool = False) -> Network:
    """Parse an address (as a /32 or /128) or a CIDR. Raises ValueError with the reason if it is not valid.

    Host bits are an error, or are cleared if ``host_bits`` is true. Unlike ``ip_network``, this refuses a netmask after
    the slash, and an IPv6 zone.
    """
    address_text, slash, length_text = text.partition("/")
    six = ":" in address_text
    bits = 128 if six else 32
    length = bits
    if slash:
        if not (length_text.isascii() and length_text.isdigit() and len(length_text) <= 3 and int(length_text) <= bits):
            raise ValueError(f"the prefix length must be a number from 0 to {bits}")
        length = int(length_text)
    if "%" in address_text:
        raise ValueError("an address with a zone (%) is not allowed")
    try:
        value = int(IPv6Address(address_text) if six else IPv4Address(address_text))
    except AddressValueError:
        raise ValueError(f"not an IPv{6 if six else 4} address") from None
    below = value & ((1 << (bits - length)) - 1)
    network: Network = IPv6Network((value - below, length)) if six else IPv4Network((value - below, length))
    if below and not host_bits:
        raise ValueError(f"host bits are set: write {network} for the network or {address_text} for the single address")
    return network


def network_key(network: Network) -> bytes:
    """Return a key that is equal for equal networks: the address in network byte order and the prefix length, 5 or 17
    bytes.
    """
    return network.network_address.packed + bytes([network.prefixlen])


def peer_key(peer: Peer) -> bytes | GroupPeer | AddressGroupPeer | None:
    """Return a key that is equal for equal peers."""
    if peer is None or isinstance(peer, GroupPeer | AddressGroupPeer):
        return peer
    return network_key(peer)


def without_duplicates(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Remove duplicates. The order of the networks stays."""
    return tuple({network_key(network): network for network in networks}.values())
