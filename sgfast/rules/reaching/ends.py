"""Ends of connections, as users name them (SPEC 12.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import chain
from typing import Literal

from sgfast.base.errors import PolicyError
from sgfast.base.spelling import did_you_mean
from sgfast.policy.lookup import NamedKind, find, names
from sgfast.policy.model import Network, Policy
from sgfast.policy.networks import looks_like_address, parse_network
from sgfast.policy.yaml_nodes import show, shown_origin
from sgfast.rules.addresses import ANYWHERE

#: The parts of 0.0.0.0/0 and 2000::/3 that are not the internet: blocks in IANA's registries of special-purpose
#: addresses for private networks, documentation, tests, tunnels and protocols; and multicast. IPv6 addresses outside
#: 2000::/3 are not assigned.
SPECIAL: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
        ),
    )
)  # fmt: skip
_PUBLIC: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("2000::/3"))

#: The kind of word that names an end (SPEC 12.2).
EndKind = Literal["instance", "group", "address-group", "network", "internet", "any"]

_PREFIXES: dict[str, NamedKind] = {
    "instance": "instance", "group": "security group", "address-group": "address group",
}  # fmt: skip


@dataclass(frozen=True)
class NamedEnd:
    """One end of the connections that a question is about: a set of instances and a set of addresses.

    ``kind``: the kind of word that names the end.
    ``name``: the name of the end, or the network, for messages.
    ``instances``: the names of instances that the end contains with all their addresses.
    ``networks``: the addresses that the end contains, except those in ``without``.
    ``without``: the networks that ``networks`` does not contain.
    ``owned``: whether the end also contains such addresses if an instance owns them.
    """

    kind: EndKind
    name: str
    instances: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    without: tuple[Network, ...] = ()
    owned: bool = True


ANY = NamedEnd("any", "any", networks=tuple(ANYWHERE.values()))


def named_end(policy: Policy, text: str, suggest: Callable[[str, Iterable[str]], str] = did_you_mean) -> NamedEnd:
    """Return the end that ``text`` names: ``any``, ``internet``, an instance, a security group or an address group by
    name, id or label (SPEC 2.12), an address or a CIDR. The prefixes in ``group:web``, ``instance:web`` and
    ``address-group:web`` state the kind (SPEC 12.2).

    Raises PolicyError if it names none of these, or several. ``suggest`` makes a hint from a word and the known words.
    """
    if text == "any":
        return ANY
    if text == "internet":
        return NamedEnd("internet", text, networks=_PUBLIC, without=SPECIAL, owned=False)
    prefix, colon, word = text.partition(":")
    origin = shown_origin(policy.origin)
    try:
        if colon and prefix in _PREFIXES:
            name = find(policy, _PREFIXES[prefix], word)
            if name is None:
                kind = _PREFIXES[prefix]
                raise PolicyError(f"{show(text)}: there is no such {kind}{suggest(word, names(policy, kind))}")
            return _named_end(policy, prefix, name)
        names_of = ((prefix, find(policy, kind, text)) for prefix, kind in _PREFIXES.items())
        names_by_prefix = {prefix: name for prefix, name in names_of if name is not None}
        # Names take precedence over ids and labels.
        names_by_prefix = {prefix: name for prefix, name in names_by_prefix.items() if name == text} or names_by_prefix
        if len(names_by_prefix) > 1:
            choices = " or ".join(f"{prefix}:{text}" for prefix in names_by_prefix)
            raise PolicyError(f"{show(text)} means several things: write {choices}")
        for prefix, name in names_by_prefix.items():
            return _named_end(policy, prefix, name)
        if looks_like_address(text):
            try:
                network = parse_network(text)
            except ValueError as error:
                raise PolicyError(f"{show(text)}: {error}") from None
            return NamedEnd("network", str(network), networks=(network,))
        if find(policy, "VPC", text) is not None:
            raise PolicyError(f"{show(text)} is a VPC: name what is in it by a group, an instance or a CIDR")
        hint = suggest(text, chain(names(policy, *_PREFIXES.values()), ("internet", "any")))
        raise PolicyError(
            f"{show(text)} is no instance, security group or address group of the policy, no address, no CIDR, and "
            f"neither internet nor any{hint}"
        )
    except PolicyError as error:
        raise PolicyError(f"{origin}: {error}") from None


def _named_end(policy: Policy, prefix: str, name: str) -> NamedEnd:
    if prefix == "instance":
        return NamedEnd("instance", name, instances=frozenset({name}))
    if prefix == "group":
        members = (instance.name for instance in policy.instances if name in instance.security_groups)
        return NamedEnd("group", name, instances=frozenset(members))
    return NamedEnd("address-group", name, networks=policy.address_group_by_name[name].addresses)
