"""Find the IP header in a frame, for every link type (SPEC 3.1, 3.9).

A layer identifies the next header in the frame: ``("link", 127)``, ``("ethertype", 0x8100)``, ``("llc", 0)``, ... A
reader gets the frame's bytes from the beginning of its layer on. It returns the length of the layer's header and the
next layer, or raises ``NoIp`` or ``Broken``. ``find_ip`` calls readers layer by layer until IP. ``take`` raises
``Broken`` if bytes are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

#: Results of ``find_ip`` if it finds no IP header.
NOT_IP, MALFORMED = "not-ip", "malformed"

#: The maximum number of headers and tags before IP. A frame with more is malformed (SPEC 3.1).
MOST_HEADERS = 40

Layer = tuple[str, int]
Step = tuple[int, Layer]
Order = Literal["big", "little"]

IPV4: Layer = ("ip", 4)
IPV6: Layer = ("ip", 6)
ETHERNET: Layer = ("link", 1)
LLC: Layer = ("llc", 0)
PPP_PROTOCOL: Layer = ("ppp protocol", 0)

ETHERTYPES = {0x0800: IPV4, 0x86DD: IPV6}
VLAN_TAGS = (0x8100, 0x88A8, 0x9100, 0x9200)
MPLS_TAGS = (0x8847, 0x8848)
PPPOE_SESSION = 0x8864
LONGEST_8023 = 1500
PPP_PROTOCOLS: dict[int, Layer] = {
    0x0021: IPV4, 0x0057: IPV6, 0x0281: ("ethertype", 0x8847), 0x0283: ("ethertype", 0x8848),
}  # fmt: skip
#: IP versions by address family number, which operating systems write before a packet.
FAMILIES = {2: IPV4, 10: IPV6, 24: IPV6, 28: IPV6, 30: IPV6}


class NoIp(Exception):
    pass


class Broken(Exception):
    pass


def find_ip(data: bytes, link_type: int) -> tuple[int, int] | str:
    """Return the offset and version of the IP header below all link headers and tags, or ``NOT_IP``, or
    ``MALFORMED``."""
    offset = 0
    layer: Layer = ("link", link_type)
    try:
        for _ in range(MOST_HEADERS):
            if layer[0] == "ip":
                break
            length, layer = READERS[layer[0]](data[offset:], layer[1])
            offset += length
            if offset > len(data):
                raise Broken
        else:
            if layer[0] != "ip":
                raise Broken
    except NoIp:
        return NOT_IP
    except Broken:
        return MALFORMED
    return offset, layer[1]


def take(data: bytes, offset: int, size: int, order: Order = "big") -> int:
    if len(data) < offset + size:
        raise Broken
    return int.from_bytes(data[offset : offset + size], order)


def need(data: bytes, length: int) -> None:
    if len(data) < length:
        raise Broken


def known(layers: dict[int, Layer], number: int) -> Layer:
    if number not in layers:
        raise NoIp
    return layers[number]


def version_of(data: bytes, offset: int) -> Layer:
    """Return the IP layer that the first byte indicates. Raises NoIp if it indicates no IP version."""
    return known({4: IPV4, 6: IPV6}, take(data, offset, 1) >> 4)


def certainly_ip(data: bytes, offset: int) -> Step:
    """Return the IP layer where nothing but IP is valid. Raises Broken if the version is wrong."""
    version = take(data, offset, 1) >> 4
    if version not in (4, 6):
        raise Broken
    return offset, ("ip", version)


# --- Tags, and headers that several link types share


def read_ethertype(data: bytes, ethertype: int) -> Step:
    if ethertype in ETHERTYPES:
        return 0, ETHERTYPES[ethertype]
    if ethertype <= LONGEST_8023:
        return read_llc(data, 0)
    if ethertype in VLAN_TAGS:
        need(data, 4)
        return 4, after_ethertype(take(data, 2, 2))
    if ethertype in MPLS_TAGS:
        need(data, 4)
        bottom_of_stack = data[2] & 1 == 1
        return 4, version_of(data, 4) if bottom_of_stack else ("ethertype", ethertype)
    if ethertype == PPPOE_SESSION:
        need(data, 6)
        return 6, PPP_PROTOCOL
    raise NoIp


def after_ethertype(ethertype: int) -> Layer:
    return ETHERTYPES.get(ethertype, ("ethertype", ethertype))


def read_llc(data: bytes, bridge_padding: int) -> Step:
    """Read an IEEE 802.2 header. IP has its own SAP or, usually, SNAP (RFC 1042). FE-FE-03 is the NLPID of RFC 2684."""
    need(data, 3)
    destination, source, control = data[:3]
    if destination != source or control not in (0x03, 0x13):
        raise NoIp
    if destination == 0x06:
        return 3, IPV4
    if destination == 0xAA:
        length, layer = read_snap(data[3:], bridge_padding)
    elif destination == 0xFE:
        length, layer = read_nlpid(data[3:], bridge_padding)
    else:
        raise NoIp
    return 3 + length, layer


def read_snap(data: bytes, bridge_padding: int) -> Step:
    need(data, 5)
    organisation, protocol = data[:3].hex(), take(data, 3, 2)
    if organisation in ("000000", "0000f8"):
        return 5, after_ethertype(protocol)
    if organisation == "0080c2" and protocol in (1, 7):
        return 5 + bridge_padding, ETHERNET
    raise NoIp


def read_nlpid(data: bytes, bridge_padding: int) -> Step:
    identifier = take(data, 0, 1)
    if identifier == 0x80:
        length, layer = read_snap(data[1:], bridge_padding)
        return 1 + length, layer
    return 1, known({0xCC: IPV4, 0x8E: IPV6, 0xCF: PPP_PROTOCOL}, identifier)


def read_ppp_protocol(data: bytes, _: int) -> Step:
    """Read a PPP protocol number. An odd byte ends the number, so a number below 256 may have one byte (RFC 1661)."""
    size = 1 if take(data, 0, 1) % 2 else 2
    return size, known(PPP_PROTOCOLS, take(data, 0, size))


# --- Link types


def ethernet(data: bytes) -> Step:
    need(data, 14)
    ethertype = take(data, 12, 2)
    is_isl = data[:5] in (b"\x01\x00\x0c\x00\x00", b"\x03\x00\x0c\x00\x00")
    if is_isl and ethertype <= LONGEST_8023:
        if len(data) < 26:
            raise Broken
        if data[5] >> 4 != 0:
            raise NoIp
        return 26, ETHERNET
    return 14, after_ethertype(ethertype)


def typed(length: int, place: int) -> Callable[[bytes], Step]:
    """Return the reader of a header of fixed length that contains an ethertype."""

    def read(data: bytes) -> Step:
        need(data, length)
        return length, after_ethertype(take(data, place, 2))

    return read


def prefixed(length: int, layer: Layer) -> Callable[[bytes], Step]:
    """Return the reader of a header whose bytes are ignored and that precedes a fixed layer."""

    def read(data: bytes) -> Step:
        need(data, length)
        return length, layer

    return read


def family(length: int, orders: tuple[Order, ...]) -> Callable[[bytes], Step]:
    """Return the reader of a header that begins with an address family in one of these byte orders."""

    def read(data: bytes) -> Step:
        need(data, length)
        for order in orders:
            number = take(data, 0, 4, order)
            if number in FAMILIES:
                return length, FAMILIES[number]
        raise NoIp

    return read


def slip(length: int) -> Callable[[bytes], Step]:
    def read(data: bytes) -> Step:
        need(data, length)
        return certainly_ip(data, length)

    return read


def cooked(length: int, protocol_at: int, hardware_at: int) -> Callable[[bytes], Step]:
    """Return the reader of a Linux cooked capture's header. For some kinds of hardware it contains no ethertype."""

    def read(data: bytes) -> Step:
        need(data, length)
        protocol, hardware = take(data, protocol_at, 2), take(data, hardware_at, 2)
        if hardware == 824:  # netlink
            raise NoIp
        if hardware in (770, 803):  # frame relay, radiotap
            return length, ("link", 107 if hardware == 770 else 127)
        if protocol <= LONGEST_8023:
            return length, known({4: LLC}, protocol)
        return length, after_ethertype(protocol)

    return read


def token_ring(data: bytes) -> Step:
    need(data, 14)
    if data[1] >> 6 != 1:
        raise NoIp
    if data[8] < 0x80:
        return 14, LLC
    route = take(data, 14, 1) % 32
    if route < 2:
        raise Broken
    return 14 + route, LLC


def fddi(data: bytes) -> Step:
    need(data, 13)
    if data[0] >> 4 not in (0x5, 0xD):
        raise NoIp
    return 13, LLC


def arcnet(system_at: int) -> Callable[[bytes], Step]:
    def read(data: bytes) -> Step:
        system = take(data, system_at, 1)
        if system == 240:
            return system_at + 1, IPV4
        layer = known({212: IPV4, 196: IPV6}, system)
        length = system_at + 4
        need(data, length)
        if data[length - 3] == 0xFF:
            length += 4
            need(data, length)
        split = data[length - 3]
        if split and split % 2 == 0:
            raise NoIp
        return length, layer

    return read


def ppp(data: bytes) -> Step:
    need(data, 2)
    if data[0] in (0x0F, 0x8F):
        return typed(4, 2)(data)
    return (2 if data[:2] == b"\xff\x03" else 0), PPP_PROTOCOL


def frame_relay(data: bytes) -> Step:
    for address in (2, 3, 4):
        need(data, address + 1)
        if data[address - 1] % 2:
            break
    else:
        raise NoIp
    if data[address] != 0x03:
        return typed(address + 2, address)(data)
    header = address + 1
    if data[header : header + 1] == b"\0":
        header += 1
    length, layer = read_nlpid(data[header:], 0)
    return header + length, layer


def multilink_frame_relay(data: bytes) -> Step:
    need(data, 2)
    begins, is_control = bool(data[0] & 0x80), bool(data[0] & 0x20)
    if is_control or not begins:
        raise NoIp
    return 2, ("link", 107)


def llc_over_atm(data: bytes) -> Step:
    """Read LLC over ATM. Bridged frames have two bytes of padding before them (RFC 2684)."""
    return read_llc(data, 2)


def sun_atm(data: bytes) -> Step:
    need(data, 4)
    match data[0] % 16:
        case 1:
            if take(data, 4, 2) == 0xFF00:
                raise NoIp
            return 6, ETHERNET
        case 2:
            return 4, ("link", 100)
    raise NoIp


def docsis(data: bytes) -> Step:
    need(data, 6)
    if data[0] >> 6:
        raise NoIp
    extended = data[1] if data[0] % 2 else 0
    if extended >= 3:
        need(data, 7)
        if data[4] >> 4 in (1, 2, 7) and data[6] >= 0x80:  # encrypted
            raise NoIp
    return 6 + extended, ETHERNET


def ieee80211(data: bytes, *, padded: bool = False) -> Step:
    need(data, 2)
    version, kind, subtype, flags = data[0] % 4, data[0] >> 2 & 3, data[0] >> 4, data[1]
    is_data, is_empty, has_quality = kind == 2, bool(subtype & 4), bool(subtype & 8)
    is_encrypted = bool(flags & 0x40)
    if version or not is_data or is_empty or is_encrypted:
        raise NoIp
    length = 30 if flags & 3 == 3 else 24
    need(data, length)
    if data[22] % 16:
        raise NoIp
    inner = 0
    if has_quality:
        quality = take(data, length, 2, "little")
        if quality & 0x80:  # an aggregate: skip the header of its first frame
            inner = 14
        length += 2
        if flags & 0x80:
            length += 4
    if padded:
        length += -length % 4
    return length + inner, LLC


def radiotap(data: bytes) -> Step:
    need(data, 8)
    length = take(data, 2, 2, "little")
    if length < 8:
        raise Broken
    need(data, length)
    at = 4
    present = []
    while True:
        if at + 4 > length:
            raise Broken
        present.append(take(data, at, 4, "little"))
        at += 4
        if present[-1] < 1 << 31:
            break
    if present[0] & 1 and present[0] & 2:
        at += -at % 8 + 8
    if present[0] & 2:
        if at >= length:
            raise Broken
        if data[at] & 0x20:
            return length, ("padded 802.11", 0)
    return length, ("link", 105)


def avs(data: bytes) -> Step:
    length = take(data, 4, 4)
    if length < 8:
        raise Broken
    return length, ("link", 105)


def prism(data: bytes) -> Step:
    need(data, 8)
    if data.hex().startswith("80211"):
        return 0, ("link", 163)
    return 144, ("link", 105)


def juniper_ethernet(data: bytes) -> Step:
    need(data, 4)
    if data[:3] != b"MGC":
        raise Broken
    length = 6 + take(data, 4, 2) if data[3] & 0x80 else 4
    if data[3] & 2:
        need(data, length + 4)
        return length + 4, version_of(data, length + 4)
    return length, ETHERNET


def ppi(data: bytes) -> Step:
    need(data, 8)
    length, link_type = take(data, 2, 2, "little"), take(data, 4, 4, "little")
    if length < 8 or length > len(data):
        raise Broken
    return length, ("link", link_type)


def pktap(data: bytes) -> Step:
    need(data, 12)
    length, record, link_type = (take(data, at, 4, "little") for at in (0, 4, 8))
    if length < 12 or length > len(data):
        raise Broken
    if record != 1:
        raise NoIp
    return length, ("link", link_type)


def erf(data: bytes) -> Step:
    need(data, 16)
    length = 16
    extension = data[8]
    while extension & 0x80:
        need(data, length + 8)
        extension = data[length]
        length += 8
    match data[8] & 0x7F:
        case 1 | 10 | 15 | 19:
            return length, ("link", 50)
        case 5 | 17:
            return length + 4, ("link", 50)
        case 2 | 11 | 16 | 20:
            return length + 2, ETHERNET
        case 22:
            return length, IPV4
        case 23:
            return length, IPV6
    raise NoIp


def pflog(data: bytes) -> Step:
    need(data, 4)
    length = data[0] + -data[0] % 4
    if length < 4:
        raise Broken
    need(data, length)
    return length, known(FAMILIES, data[1])


def nflog(data: bytes) -> Step:
    need(data, 4)
    at = 4
    while at != len(data):
        attribute = data[at : at + 4]
        need(attribute, 4)
        order: Order = "big" if attribute[3] else "little"
        length, kind = take(attribute, 0, 2, order), take(attribute, 2, 2, order)
        if length < 4:
            raise Broken
        if kind == 9:
            return at + 4, known(FAMILIES, data[0])
        at += length + -length % 4
        if at > len(data):
            raise Broken
    raise NoIp


def ipnet(data: bytes) -> Step:
    need(data, 24)
    return 24, known({2: IPV4, 26: IPV6}, data[1])


LINKS: dict[int, Callable[[bytes], Step]] = {
    0: family(4, ("big", "little")),
    1: ethernet,
    6: token_ring,
    7: arcnet(2),
    8: slip(16),
    9: ppp,
    10: fddi,
    12: lambda data: certainly_ip(data, 0),
    14: lambda data: certainly_ip(data, 0),
    50: ppp,
    51: prefixed(0, ("ethertype", PPPOE_SESSION)),
    100: llc_over_atm,
    101: lambda data: certainly_ip(data, 0),
    102: slip(24),
    104: typed(4, 2),
    105: ieee80211,
    106: llc_over_atm,
    107: frame_relay,
    108: family(4, ("big",)),
    109: family(12, ("big", "little")),
    113: cooked(16, protocol_at=14, hardware_at=2),
    117: pflog,
    119: prism,
    122: prefixed(16, LLC),
    123: sun_atm,
    127: radiotap,
    129: arcnet(4),
    138: typed(18, 16),
    143: docsis,
    163: avs,
    166: prefixed(2, PPP_PROTOCOL),
    178: juniper_ethernet,
    182: multilink_frame_relay,
    192: ppi,
    197: erf,
    204: prefixed(1, ("link", 9)),
    205: prefixed(1, ("link", 104)),
    206: prefixed(1, ("link", 107)),
    219: prefixed(0, ("ethertype", 0x8847)),
    226: ipnet,
    228: prefixed(0, IPV4),
    229: prefixed(0, IPV6),
    239: nflog,
    242: typed(44, 40),
    258: pktap,
    276: cooked(20, protocol_at=0, hardware_at=8),
    281: typed(18, 16),
    282: prefixed(4, ETHERNET),
    284: typed(18, 16),
    285: typed(22, 20),
}


def read_link(data: bytes, link_type: int) -> Step:
    if link_type not in LINKS:
        raise NoIp
    return LINKS[link_type](data)


READERS: dict[str, Callable[[bytes, int], Step]] = {
    "link": read_link,
    "ethertype": read_ethertype,
    "llc": read_llc,
    "ppp protocol": read_ppp_protocol,
    "padded 802.11": lambda data, _: ieee80211(data, padded=True),
}
