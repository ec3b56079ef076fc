"""Adapt an export's names, descriptions and addresses to what a policy allows (SPEC 2.1, 2.3, 2.7)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, summarize_address_range

from sgfast.clouds.importing.object_location import Location, one_line
from sgfast.policy.model import Network
from sgfast.policy.networks import parse_network
from sgfast.policy.yaml_nodes import show

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_NAME_CHARACTERS = 64
_DESCRIPTION_CHARACTERS = 255
_WORD_CHARACTERS = 255

# Names (SPEC 2.7) ----------------------------------------------------------------------------------------------------


def assign_names(locations: Sequence[Location]) -> dict[str, str]:
    """Choose the name of each object of one kind in the policy, by id. It is the object's own name. If that is not
    valid or not unique, it is the id, changed and numbered as necessary.
    """
    ids = {location.id for location in locations}
    count = Counter(location.name for location in locations)
    names: dict[str, str] = {}
    for location in locations:
        name = location.name
        if _NAME.fullmatch(name) and count[name] == 1 and (name not in ids or name == location.id):
            names[location.id] = name
    taken_names = {*names.values(), *(location.id for location in locations if _NAME.fullmatch(location.id))}
    tried: Counter[str] = Counter()
    for location in locations:
        if location.id in names:
            continue
        if _NAME.fullmatch(location.id):
            names[location.id] = location.id
            continue
        base = re.sub(r"[^A-Za-z0-9_.\-]+", "-", location.id)[:_NAME_CHARACTERS].strip("-") or "unnamed"
        name = base
        while name in taken_names:
            tried[base] += 1
            suffix = f"-{tried[base] + 1}"
            name = base[: _NAME_CHARACTERS - len(suffix)] + suffix
        taken_names.add(name)
        names[location.id] = name
    return names


def free_name(name: str, taken: Iterable[str]) -> str:
    taken_names = set(taken)
    numbered = (f"{name}-{n}" for n in range(2, len(taken_names) + 3))
    return next(free for free in (name, *numbered) if free not in taken_names)


def shared_name(address: Network) -> str:
    return "shared-" + address_text(address).replace(":", "-").replace("/", "_")


def valid_description(text: str) -> str:
    """Convert ``text`` into a valid description (SPEC 2.1): printable, without < and >, not too long."""
    text = one_line(text, 4 * _DESCRIPTION_CHARACTERS).replace("<", r"\x3c").replace(">", r"\x3e")
    return text if len(text) <= _DESCRIPTION_CHARACTERS else text[: _DESCRIPTION_CHARACTERS - 1] + "…"


def valid_id(text: str) -> bool:
    return 1 <= len(text) <= _WORD_CHARACTERS and text.isprintable()


def valid_label(text: str) -> str:
    """Convert ``text`` into a valid label (SPEC 2.12): printable and not too long."""
    text = one_line(text, _WORD_CHARACTERS - 1)
    return text if len(text) <= _WORD_CHARACTERS else text[: _WORD_CHARACTERS - 1] + "…"


# Values --------------------------------------------------------------------------------------------------------------


def one_network(location: Location, text: str) -> Network:
    """Parse an address or CIDR. Host bits are ignored like clouds do."""
    try:
        return parse_network(text, host_bits=True)
    except ValueError as error:
        raise location.error(f"{show(text)}: {error}") from None


def networks_of(location: Location, text: str) -> list[Network]:
    """Parse an address, a CIDR, or a range of addresses, which may need several CIDRs."""
    first, dash, last = (part.strip() for part in text.partition("-"))
    if not dash:
        return [one_network(location, first)]
    ends = [one_network(location, first), one_network(location, last)]
    low, high = (end.network_address for end in ends)
    if any(end.num_addresses != 1 for end in ends) or low.version != high.version or int(low) > int(high):
        raise location.error(f"{show(text)} is not a range of addresses")
    if isinstance(low, IPv4Address) and isinstance(high, IPv4Address):
        return [*summarize_address_range(low, high)]
    assert isinstance(low, IPv6Address) and isinstance(high, IPv6Address)
    return [*summarize_address_range(low, high)]


def address_text(network: Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)
