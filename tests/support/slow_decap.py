"""Remove tunnel headers in plain Python, following the protocols' standards, as an oracle of sgfast's decapsulation.

RFC 7348 (VXLAN), 8926 (Geneve), 2784, 2890, 1701 (GRE), 2637 (PPTP's), draft-foschiano-erspan-03, 2003 (IP in IP),
4213 (6in4), 3GPP TS 29.281 (GTP-U), 3032, 4023, 7510, 4448 (MPLS), 2516, 1661 (PPPoE).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sgfast.reference.link import MPLS_TAGS, NOT_IP, PPPOE_SESSION, VLAN_TAGS, find_ip
from sgfast.reference.packets import EXTENSION_HEADERS, FRAGMENT_HEADER, number

MOST_TUNNELS = 4
ETHERNET, RAW, IPV4, IPV6 = 1, 101, 228, 229


@dataclass(frozen=True)
class Part:
    """A part of a frame: its captured bytes, its length on the wire, and the link type of its first header."""

    data: bytes
    wire: int
    link_type: int = -1
    #: Whether it is in the first fragment of a datagram.
    first_fragment: bool = False


class NoTunnelError(Exception):
    pass


def need(condition: object) -> None:
    if not condition:
        raise NoTunnelError


def after(part: Part, length: int) -> Part:
    need(len(part.data) >= length)
    return replace(part, data=part.data[length:], wire=part.wire - length)


def first(part: Part, length: int) -> Part:
    return replace(part, data=part.data[:length], wire=min(part.wire, length))


def decapsulate(data: bytes, wire: int, link_type: int, kinds: set[str]) -> tuple[bytes, int, int, list[str]]:
    """Return the innermost packet's bytes, wire length and link type, and its tunnels, outermost first."""
    part, peeled = Part(data, wire, link_type), []
    while len(peeled) < MOST_TUNNELS:
        try:
            kind, inner = outermost(part, kinds)
            need(inner.wire > 0)
        except NoTunnelError:
            break
        peeled.append(kind)
        part = Part(inner.data, grown(inner), inner.link_type)
    return part.data, part.wire, part.link_type, peeled


def grown(part: Part) -> int:
    """The length that a packet claims: its tunnel may have carried only the beginning."""
    found = find_ip(part.data, part.link_type)
    if isinstance(found, str):
        return part.wire
    ip, version = part.data[found[0] :], found[1]
    if ip and ip[0] >> 4 != version:
        return part.wire
    if version == 4:
        length = number(ip, 2, 2) if len(ip) >= 20 else 20
    else:
        length = 40 + (number(ip, 4, 2) if len(ip) >= 40 else 0)
    return max(part.wire, found[0] + length)


def outermost(part: Part, kinds: set[str]) -> tuple[str, Part]:
    found = find_ip(part.data, part.link_type)
    if found == NOT_IP:
        return tags(part, kinds)
    need(not isinstance(found, str))
    at, version = int(found[0]), found[1]
    protocol, payload = (ipv4 if version == 4 else ipv6)(after(part, at))
    match protocol:
        case 17:
            return udp(payload, kinds)
        case 47:
            return gre(payload, kinds)
        case 4 if "ipip" in kinds:
            return "ipip", replace(payload, link_type=IPV4)
        case 41 if "6in4" in kinds:
            return "6in4", replace(payload, link_type=IPV6)
        case 137 if "mpls" in kinds:
            return "mpls", labels(payload, kinds)
    raise NoTunnelError


def tags(part: Part, kinds: set[str]) -> tuple[str, Part]:
    """Skip the tags of a frame, and find no IP where SPEC 3.1 finds none."""
    places = {1: (14, 12), 113: (16, 14), 276: (20, 0)}
    need(part.link_type in places)
    length, at = places[part.link_type]
    need(len(part.data) >= length)
    ethertype, part = number(part.data, at, 2), after(part, length)
    while ethertype in VLAN_TAGS:
        need(len(part.data) >= 4)
        ethertype, part = number(part.data, 2, 2), after(part, 4)
    if ethertype in MPLS_TAGS and "mpls" in kinds:
        return "mpls", labels(part, kinds)
    if ethertype == PPPOE_SESSION and "pppoe" in kinds:
        return "pppoe", ppp(after(part, 6), kinds)
    raise NoTunnelError


def ipv4(part: Part) -> tuple[int, Part]:
    need(len(part.data) >= 20 and part.data[0] >> 4 == 4)
    length, total, fragment = (part.data[0] & 15) * 4, number(part.data, 2, 2) or part.wire, number(part.data, 6, 2)
    need(length >= 20 and length <= total <= part.wire and fragment & 0x1FFF == 0)
    return part.data[9], replace(after(first(part, total), length), first_fragment=bool(fragment & 0x2000))


def ipv6(part: Part) -> tuple[int, Part]:
    need(len(part.data) >= 40 and part.data[0] >> 4 == 6)
    protocol, length = part.data[6], number(part.data, 4, 2)
    part = after(part, 40)
    need(length <= part.wire)
    if length:
        part = first(part, length)
    while protocol in EXTENSION_HEADERS:
        need(len(part.data) >= 8)
        size = (part.data[1] + 1) * 8
        if protocol == FRAGMENT_HEADER:
            size = 8
            fragment = number(part.data, 2, 2)
            need(fragment >> 3 == 0)
            part = replace(part, first_fragment=part.first_fragment or bool(fragment & 1))
        protocol = part.data[0]
        part = after(part, size)
    return protocol, part


def udp(part: Part, kinds: set[str]) -> tuple[str, Part]:
    need(len(part.data) >= 8)
    port, length = number(part.data, 2, 2), number(part.data, 4, 2)
    need(length >= 8 and (length <= part.wire or part.first_fragment))
    part = after(first(part, length), 8)
    kind = {4789: "vxlan", 8472: "vxlan", 6081: "geneve", 2152: "gtp-u", 6635: "mpls"}.get(port)
    need(kind in kinds)
    match kind:
        case "vxlan":
            return kind, replace(after(part, 8), link_type=ETHERNET)
        case "geneve":
            need(len(part.data) >= 8 and part.data[0] >> 6 == 0)
            ethertype = number(part.data, 2, 2)
            return kind, by_ethertype(after(part, 8 + part.data[0] % 64 * 4), ethertype, kinds)
        case "gtp-u":
            return kind, gtp(part)
        case _:
            return "mpls", labels(part, kinds)


def gtp(part: Part) -> Part:
    need(len(part.data) >= 8)
    flags, message = part.data[0], part.data[1]
    need(flags >> 5 == 1 and flags & 0x10 and message == 255)
    part = first(part, 8 + number(part.data, 2, 2))
    if not flags & 7:
        return by_version(after(part, 8))
    need(len(part.data) >= 12)
    kind = part.data[11] if flags & 4 else 0
    part = after(part, 12)
    while kind:
        need(part.data)
        length = part.data[0] * 4
        need(0 < length <= len(part.data))
        kind = part.data[length - 1]
        part = after(part, length)
    return by_version(part)


def gre(part: Part, kinds: set[str]) -> tuple[str, Part]:
    need(len(part.data) >= 4)
    flags, ethertype = number(part.data, 0, 2), number(part.data, 2, 2)
    checksum, routing, key, sequence = (bool(flags & bit) for bit in (0x8000, 0x4000, 0x2000, 0x1000))
    if flags & 7 == 1:
        need("gre" in kinds and ethertype == 0x880B and key and len(part.data) >= 8)
        length = 8 + 4 * sequence + 4 * bool(flags & 0x80)
        return "gre", ppp(after(first(part, length + number(part.data, 4, 2)), length), kinds)
    need(flags & 7 == 0)
    part = after(part, 4 + 4 * (checksum or routing) + 4 * key + 4 * sequence)
    while routing:
        need(len(part.data) >= 4)
        family, length = number(part.data, 0, 2), part.data[3]
        part = after(part, 4)
        routing = (family, length) != (0, 0)
        if routing:
            part = after(part, length)
    if ethertype in (0x88BE, 0x22EB):
        need("erspan" in kinds)
        return "erspan", erspan(part, ethertype, sequence)
    need("gre" in kinds)
    return "gre", ppp(part, kinds) if ethertype == 0x880B else by_ethertype(part, ethertype, kinds)


def erspan(part: Part, ethertype: int, sequence: bool) -> Part:
    if ethertype == 0x88BE and not sequence:
        return replace(part, link_type=ETHERNET)
    need(len(part.data) >= 8)
    version = part.data[0] >> 4
    if version == 1:
        return replace(after(part, 8), link_type=ETHERNET)
    need(version == 2 and len(part.data) >= 12)
    links = {0: ETHERNET, 2: RAW}
    frame_type = part.data[10] >> 2 & 31
    need(frame_type in links)
    return replace(after(part, 20 if part.data[11] & 1 else 12), link_type=links[frame_type])


def by_ethertype(part: Part, ethertype: int, kinds: set[str]) -> Part:
    if ethertype in MPLS_TAGS:
        return labels(part, kinds)
    links = {0x6558: ETHERNET, 0x0800: IPV4, 0x86DD: IPV6}
    need(ethertype in links)
    return replace(part, link_type=links[ethertype])


def by_version(part: Part) -> Part:
    if not part.data:
        return replace(part, link_type=RAW)
    links = {4: IPV4, 6: IPV6}
    need(part.data[0] >> 4 in links)
    return replace(part, link_type=links[part.data[0] >> 4])


def labels(part: Part, kinds: set[str]) -> Part:
    bottom = False
    while not bottom:
        need(len(part.data) >= 4)
        bottom = part.data[2] % 2 == 1
        part = after(part, 4)
    try:
        return by_version(part)
    except NoTunnelError:
        need("mpls" in kinds)
    if part.data[0] < 16 and is_ethernet(part.data[4:]):
        return replace(after(part, 4), link_type=ETHERNET)
    need(is_ethernet(part.data))
    return replace(part, link_type=ETHERNET)


def is_ethernet(data: bytes) -> bool:
    if len(data) < 14:
        return False
    ethertype = number(data, 12, 2)
    if ethertype in (0x0800, 0x86DD):
        return len(data) == 14 or data[14] >> 4 == {0x0800: 4, 0x86DD: 6}[ethertype]
    return ethertype in (*VLAN_TAGS, 0x0806, 0x8847, 0x8863, 0x8864)


def ppp(part: Part, kinds: set[str]) -> Part:
    if part.data[:2] == b"\xff\x03":
        part = after(part, 2)
    size = 1 if part.data and part.data[0] % 2 else 2
    need(len(part.data) >= size)
    protocol, part = number(part.data, 0, size), after(part, size)
    ethertypes = {0x21: 0x0800, 0x57: 0x86DD, 0x281: 0x8847, 0x283: 0x8848}
    need(protocol in ethertypes)
    return by_ethertype(part, ethertypes[protocol], kinds)
