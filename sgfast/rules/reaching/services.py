"""Services of packets that open connections, as users write them (SPEC 12.3).

A service is a number, and a set of services is a set of numbers (``rules.services``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from sgfast.base.errors import ArgumentError
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS
from sgfast.policy.protocols import ICMP_NAMES, PROTOCOL_NUMBERS, protocol_name
from sgfast.policy.ranges import Range, Ranges, difference, intersection, union
from sgfast.policy.rule_text import ports_text
from sgfast.rules.services import EVERY_SERVICE, ICMP_OF, KEYS, NO_OPENERS, whole

#: ICMPv6 types that no filter judges, or that not both ends' filters judge by rules (SPEC 3.2, 3.11).
_INFRASTRUCTURE = {"exempt": (*range(130, 138), 143), "by-role": (130, 133, 134, 135, 136), "filtered": ()}

_HOW = "write tcp/443, tcp/80,8000-8080, udp/53, icmp, icmp/8, icmp/8/0, icmp echo-request, gre, protocol 200 or all"


@dataclass(frozen=True)
class ServiceSet:
    """A set of services of IPv4 and one of IPv6."""

    four: Ranges
    six: Ranges

    def of(self, family: int) -> Ranges:
        return self.four if family == 4 else self.six


def openers(family: int, infrastructure: Collection[str]) -> Ranges:
    """Return all services that can open connections over an IP version and that rules judge (SPEC 12.1).

    ``infrastructure``: the policies' settings of that name.
    """
    base = ICMP_OF[family] * KEYS
    types = {*NO_OPENERS[family]}
    if family == 6:
        types.update(number for setting in infrastructure for number in _INFRASTRUCTURE[setting])
    return difference(
        EVERY_SERVICE, union((base + 256 * icmp_type, base + 256 * icmp_type + 255) for icmp_type in types)
    )


# Reading -------------------------------------------------------------------------------------------------------------


def named_service(text: str) -> ServiceSet:
    """Return the services that ``text`` names (SPEC 12.3). Raises ArgumentError if it names none."""
    ranges_of_family: dict[int, list[Range]] = {4: [], 6: []}
    for item in text.split(";"):
        for family, ranges in _item(item.strip().lower(), text).items():
            ranges_of_family[family] += ranges
    return ServiceSet(union(ranges_of_family[4]), union(ranges_of_family[6]))


def _item(item: str, text: str) -> dict[int, list[Range]]:
    if item == "all":
        return _for_both_families([*EVERY_SERVICE])
    if match := re.fullmatch(r"protocols? (\d+)(?:-(\d+))?", item):
        first, last = _bounds(match[1], match[2], 255, "a protocol", text)
        return _for_both_families([(first * KEYS, last * KEYS + KEYS - 1)])
    if match := re.fullmatch(r"(icmp|icmpv6)(?: type |/| )(\S+?)(?:(?: code |/)(\S+))?", item):
        families = (4, 6) if match[1] == "icmp" else (6,)
        return {family: _icmp(family, match[2], match[3] or "0-255", text) for family in families}
    # The name of protocol 107 is a/n.
    name, slash, ports = (item, "", "") if item in PROTOCOL_NUMBERS else item.partition("/")
    number = PROTOCOL_NUMBERS.get(name)
    if number is None:
        raise ArgumentError(f"{text[:80]!r} is no service: {_HOW}")
    if number in ICMP_OF.values():
        families = (4, 6) if number == ICMP else (6,)
        return {family: [whole(ICMP_OF[family])] for family in families}
    if not slash:
        return _for_both_families([whole(number)])
    if number not in PORT_PROTOCOLS:
        raise ArgumentError(f"{text[:80]!r} is no service: {name} has no ports")
    ranges = [_range(part, KEYS - 1, "a port", text) for part in ports.split(",")]
    return _for_both_families([(number * KEYS + first, number * KEYS + last) for first, last in ranges])


def _for_both_families(ranges: list[Range]) -> dict[int, list[Range]]:
    return {4: ranges, 6: ranges}


def _icmp(family: int, types: str, codes: str, text: str) -> list[Range]:
    """Return the ranges of ICMP types and codes. The name of a type of the other IP version gives no range."""
    numbers = {name: number for number, name in ICMP_NAMES[ICMP_OF[family]].items()}
    base = ICMP_OF[family] * KEYS
    wanted_codes = [_range(part, 255, "an ICMP code", text) for part in codes.split(",")]
    keys = []
    for part in types.split(","):
        if part in numbers:
            first = last = numbers[part]
        elif any(part in names.values() for names in ICMP_NAMES.values()):
            continue
        else:
            first, last = _range(part, 255, "an ICMP type", text)
        keys += [
            (base + 256 * icmp_type + low, base + 256 * icmp_type + high)
            for icmp_type in range(first, last + 1) for low, high in wanted_codes
        ]  # fmt: skip
    return keys


def _range(part: str, top: int, name: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
    if match is None:
        raise ArgumentError(f"{text[:80]!r} is no service: {_HOW}")
    return _bounds(match[1], match[2], top, name, text)


def _bounds(first: str, last: str | None, top: int, name: str, text: str) -> tuple[int, int]:
    if len(first) > 9 or len(last or "") > 9 or not int(first) <= int(last or first) <= top:
        raise ArgumentError(f"{text[:80]!r} is no service: {name} is 0 to {top}, and a range begins with its lower end")
    return int(first), int(last or first)


class SingleService(NamedTuple):
    """The service of one packet. Fields that its protocol does not have are None. ICMP without a type is a ping."""

    protocol: int
    port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None


def service_at(number: int, family: int) -> SingleService:
    """Return the service with this number, in packets of an IP version."""
    protocol, key = divmod(number, KEYS)
    if protocol == ICMP_OF[family]:
        return SingleService(protocol, None, *divmod(key, 256))
    return SingleService(protocol, key if protocol in PORT_PROTOCOLS else None)


#: ICMP type and code of a ping, by IP version.
_PING = {4: (8, 0), 6: (128, 0)}


def single_service(text: str) -> SingleService | None:
    """Return the service that ``text`` names if it is a single one, else None (SPEC 14.3). ``icmp`` is a ping, and an
    ICMP type without a code has code 0. Raises ArgumentError if the text names no service.
    """
    services = named_service(text)
    if services.four == services.six:
        if len(services.four) != 1:
            return None
        ((first, last),) = services.four
        protocol, port = divmod(first, KEYS)
        if protocol in PORT_PROTOCOLS:
            return SingleService(protocol, port) if first == last else None
        is_one = (first, last) == whole(protocol) and protocol not in ICMP_OF.values()
        return SingleService(protocol) if is_one else None
    kind_of_family = {
        family: kind for family, protocol in ICMP_OF.items()
        if (kind := _one_type(services.of(family), protocol)) is not None
    }  # fmt: skip
    if len(kind_of_family) != bool(services.four) + bool(services.six):
        return None
    if all(kind in (_ANY_TYPE, _PING[family]) for family, kind in kind_of_family.items()):
        return SingleService(ICMP if 4 in kind_of_family else ICMPV6)
    if len({*kind_of_family.values()}) > 1:
        return None
    return SingleService(ICMP if 4 in kind_of_family else ICMPV6, None, *next(iter(kind_of_family.values())))


_ANY_TYPE = (-1, -1)


def _one_type(services: Ranges, protocol: int) -> tuple[int, int] | None:
    """Return the ICMP type and code if the services are a single type, ``_ANY_TYPE`` if they are all types, else
    None."""
    if services == (whole(protocol),):
        return _ANY_TYPE
    if len(services) != 1 or services[0][0] // KEYS != protocol:
        return None
    first, last = (key % KEYS for key in services[0])
    if first == last or (first % 256 == 0 and last == first + 255):
        return divmod(first, 256)
    return None


# Writing -------------------------------------------------------------------------------------------------------------


def single_service_text(service: SingleService) -> str:
    """Format the service of one packet so that ``single_service`` can read it."""
    protocol, port, icmp_type, icmp_code = service
    name = protocol_name(protocol) or f"protocol {protocol}"
    if protocol in ICMP_OF.values():
        return f"{name} echo-request/0" if icmp_type is None else f"{name}/{icmp_type}/{icmp_code or 0}"
    return name if port is None else f"{name}/{port}"


def services_text(services: Ranges, family: int, everything: Ranges) -> str:
    """Format services so that ``named_service`` can read them. ``everything``: all services that can open connections.

    Where it is shorter, the text is ``all except ...``, which ``named_service`` does not read.
    """
    if services == everything:
        return "all"
    text = "; ".join(_items(services, family, everything))
    if sum(last - first for first, last in services) < 128 * KEYS:
        return text
    without = "all except " + "; ".join(_items(difference(everything, services), family, everything))
    return min(text, without, key=len)


def _items(services: Ranges, family: int, everything: Ranges) -> Iterator[str]:
    entire: list[int] = []
    parts: dict[int, list[Range]] = {}
    for first, last in services:
        for protocol in range(first // KEYS, last // KEYS + 1):
            begin, end = whole(protocol)
            parts.setdefault(protocol, []).append((max(first, begin), min(last, end)))
    for protocol in sorted(parts):
        if tuple(parts[protocol]) == _part(protocol, everything):
            entire.append(protocol)
    for first, last in union((protocol, protocol) for protocol in entire):
        if last - first > 2:
            yield f"protocols {first}-{last}"
        else:
            yield from (_protocol(protocol, family) for protocol in range(first, last + 1))
    for protocol in sorted(parts.keys() - set(entire)):
        keys = union((first % KEYS, last % KEYS) for first, last in parts[protocol])
        if protocol == ICMP_OF[family]:
            yield from _icmp_items(keys, family)
        else:
            yield f"{_protocol(protocol, family)}/{ports_text(keys, None)}"


@cache
def _part(protocol: int, everything: Ranges) -> Ranges:
    return intersection((whole(protocol),), everything)


def _protocol(protocol: int, family: int) -> str:
    name = protocol_name(protocol)
    # The ICMP protocol number of the other IP version does not mean ICMP (SPEC 5.1).
    return name if name is not None and protocol != ICMP_OF[10 - family] else f"protocol {protocol}"


def _icmp_items(keys: Ranges, family: int) -> Iterator[str]:
    name = _protocol(ICMP_OF[family], family)
    types = []
    for first, last in keys:
        begin, end = -(-first // 256), (last + 1) // 256 - 1
        if begin <= end:
            types.append((begin, end))
        for low, high in difference(((first, last),), ((begin * 256, end * 256 + 255),) if begin <= end else ()):
            code = f"{low % 256}" if low == high else f"{low % 256}-{high % 256}"
            if low // 256 == high // 256:
                yield f"{name}/{low // 256}/{code}"
            else:  # the end of one type and the beginning of the next
                yield f"{name}/{low // 256}/{low % 256}-255"
                yield f"{name}/{high // 256}/0-{high % 256}"
    for first, last in types:
        type_name = ICMP_NAMES[ICMP_OF[family]].get(first) if first == last else None
        if type_name is not None:
            yield f"{name} {type_name}"
    unnamed_types = [
        type_range
        for type_range in types
        if type_range[0] != type_range[1] or type_range[0] not in ICMP_NAMES[ICMP_OF[family]]
    ]
    if unnamed_types:
        yield f"{name}/{ports_text(tuple(unnamed_types), None)}"
