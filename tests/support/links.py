"""Builders of frames of every link type, for tests. As in ``frames``, an outer layer's builder takes the inner layer.

``LINKS`` has one entry for each way to carry IP: the LINKTYPE_ number, and a function from an IP packet to a frame.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from frames import Layer, ethernet, mpls, null, pppoe, sll, sll2, vlan

Wrap = Callable[[Layer], bytes]

NO_FCS = 0x0007


def is_ipv6(ip: Layer) -> bool:
    return ip.protocol == 0x86DD


def ethertype(ip: Layer) -> bytes:
    return struct.pack(">H", ip.protocol)


def snap(ip: Layer, organisation: int = 0) -> bytes:
    """Build LLC and SNAP headers with the packet."""
    return b"\xaa\xaa\x03" + struct.pack(">I", organisation)[1:] + ethertype(ip) + ip


def bridged(ip: Layer, *, padding: int = 0) -> bytes:
    """Build a bridged Ethernet frame behind the organisation code of RFC 2427 or RFC 2684, without LLC."""
    return b"\x00\x80\xc2" + struct.pack(">H", NO_FCS) + bytes(padding) + ethernet(ip)


def ieee8023(payload: bytes) -> bytes:
    """Build an Ethernet frame with a length in place of the ethertype."""
    return bytes(12) + struct.pack(">H", len(payload)) + payload


def isl(frame: bytes, *, kind: int = 0) -> bytes:
    head = b"\x01\x00\x0c\x00\x00" + bytes([kind << 4]) + bytes(6) + struct.pack(">H", len(frame) + 12)
    return head + b"\xaa\xaa\x03" + bytes(9) + frame


def ppp(ip: Layer, *, compressed: bool = False) -> bytes:
    number = 0x57 if is_ipv6(ip) else 0x21
    return (bytes([number]) if compressed else bytes([0, number])) + ip


def ppp_mpls(ip: Layer) -> bytes:
    return b"\x02\x81" + mpls(ip, 2)


def cisco_hdlc(ip: Layer) -> bytes:
    return b"\x0f\x00" + ethertype(ip) + ip


def nlpid(ip: Layer) -> bytes:
    return (b"\x8e" if is_ipv6(ip) else b"\xcc") + ip


ADDRESSES = {2: b"\x04\x11", 3: b"\x04\x10\x01", 4: b"\x04\x10\x00\x01"}


def frame_relay(body: bytes, address: int = 2) -> bytes:
    return ADDRESSES[address] + body


def ieee80211(
    body: bytes,
    *,
    quality: int | None = None,
    control: bool = False,
    four: bool = False,
    padded: bool = False,
    flags: int = 0x02,
    kind: int = 0x08,
    fragment: int = 0,
) -> bytes:
    """Build a data frame. ``quality``: its QoS field. ``control``: with HT control. ``padded``: pad the header to
    words."""
    first = kind | (0x80 if quality is not None else 0)
    head = struct.pack("<BBH18sH", first, flags | (3 if four else 0) | (0x80 if control else 0), 0, bytes(18), fragment)
    if four:
        head += bytes(6)
    if quality is not None:
        head += struct.pack("<H", quality)
        if control:
            head += bytes(4)
    if padded:
        head += bytes(-len(head) % 4)
    return head + body


def aggregate(*frames: bytes) -> bytes:
    """Build the body of an A-MSDU: padded frames, each with addresses and a length."""
    parts = [bytes(12) + struct.pack(">H", len(frame)) + frame for frame in frames]
    return b"".join(part + bytes(-len(part) % 4) for part in parts)


def radiotap(frame: bytes, *, flags: int | None = None, time: bool = False, words: int = 1) -> bytes:
    present = (1 if time else 0) | (2 if flags is not None else 0)
    masks = [present] + [0] * (words - 1)
    masks = [mask | 1 << 31 for mask in masks[:-1]] + [masks[-1]]
    fields = b""
    if time:
        fields += bytes(-(4 + 4 * words) % 8 + 8)
    if flags is not None:
        fields += bytes([flags])
    return struct.pack("<BBH", 0, 0, 4 + 4 * words + len(fields)) + struct.pack(f"<{words}I", *masks) + fields + frame


def avs(frame: bytes) -> bytes:
    return struct.pack(">II", 0x80211001, 64) + bytes(56) + frame


def prism(frame: bytes) -> bytes:
    return struct.pack("<II16s", 0x44, 144, b"wlan0") + bytes(120) + frame


def ppi(frame: bytes, link_type: int, fields: bytes = b"") -> bytes:
    return struct.pack("<BBHI", 0, 0, 8 + len(fields), link_type) + fields + frame


def pktap(frame: bytes, link_type: int, *, record: int = 1) -> bytes:
    return struct.pack("<III", 108, record, link_type) + bytes(96) + frame


def erf(frame: bytes, kind: int, extensions: int = 0) -> bytes:
    if extensions:
        kind |= 0x80
    more = b"".join(bytes([0x80 if left else 0]) + bytes(7) for left in reversed(range(extensions)))
    return bytes(8) + struct.pack(">BBHHH", kind, 4, 16, 0, len(frame)) + more + frame


def nflog(ip: Layer, order: str = "<", *, family: int | None = None) -> bytes:
    family = (10 if is_ipv6(ip) else 2) if family is None else family
    attributes = [(1, bytes(4)), (10, b"abc\0def\0g"), (9, bytes(ip))]
    data = bytes([family, 0, 0, 5])
    for number, value in attributes:
        data += struct.pack(order + "HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
    return data


def pflog(ip: Layer, length: int = 61) -> bytes:
    head = bytes([length, 24 if is_ipv6(ip) else 2])
    return head + bytes(length + -length % 4 - 2) + ip


def token_ring(body: bytes, route: bytes = b"") -> bytes:
    return b"\x10\x40" + bytes(6) + (b"\x80" if route else b"\0") + bytes(5) + route + body


def arcnet(ip: Layer, offset: bytes = b"") -> bytes:
    return b"\x01\x02" + offset + (b"\xc4" if is_ipv6(ip) else b"\xd4") + b"\0\0\1" + ip


def arcnet_exception(ip: Layer) -> bytes:
    """Build an exception frame, for lengths that ARCNET cannot send directly. It repeats the header's fields."""
    system = b"\xc4" if is_ipv6(ip) else b"\xd4"
    return b"\x01\x02" + system + b"\xff\xff\xff" + system + b"\0\0\1" + ip


def docsis(frame: bytes, extended: bytes = b"") -> bytes:
    head = struct.pack(">BBH", 1 if extended else 0, len(extended), len(frame) + len(extended))
    return head + extended + bytes(2) + frame


def juniper(flags: int, body: bytes, extension: bytes = b"") -> bytes:
    if extension:
        return b"MGC" + bytes([flags | 0x80]) + struct.pack(">H", len(extension)) + extension + body
    return b"MGC" + bytes([flags]) + body


def cooked_hardware(frame: bytes, hardware: int, protocol: int) -> bytes:
    return struct.pack(">HHH8sH", 0, hardware, 6, bytes(8), protocol) + frame


def family(ip: Layer) -> int:
    return 30 if is_ipv6(ip) else 2


LINKS: dict[str, tuple[int, Wrap]] = {
    "Ethernet": (1, ethernet),
    "Ethernet, VLAN": (1, lambda ip: ethernet(vlan(vlan(ip), tpid=0x88A8))),
    "Ethernet, MPLS": (1, lambda ip: ethernet(mpls(ip, 3))),
    "Ethernet, PPPoE": (1, lambda ip: ethernet(pppoe(ip))),
    "Ethernet, PPPoE, MPLS": (1, lambda ip: ethernet(Layer(bytes(6) + ppp_mpls(ip), 0x8864))),
    "Ethernet, PPPoE, a byte saved": (1, lambda ip: ethernet(Layer(bytes(6) + ppp(ip, compressed=True), 0x8864))),
    "Ethernet, 802.3": (1, lambda ip: ieee8023(snap(ip))),
    "Ethernet, 802.3, bridge tunnel": (1, lambda ip: ieee8023(snap(ip, 0xF8))),
    "Ethernet, 802.3, VLAN": (1, lambda ip: ieee8023(snap(vlan(ip)))),
    "Ethernet, VLAN, 802.3": (1, lambda ip: ethernet(vlan(snap(ip), 200))),
    "Ethernet, ISL": (1, lambda ip: isl(ethernet(ip))),
    "Ethernet, ISL, 802.3": (1, lambda ip: isl(ieee8023(snap(ip)))),
    "raw": (101, bytes),
    "raw, BSD": (12, bytes),
    "raw, OpenBSD": (14, bytes),
    "loopback": (0, lambda ip: null(ip, family(ip))),
    "loopback, big-endian": (0, lambda ip: null(ip, family(ip), byteorder="big")),
    "OpenBSD loopback": (108, lambda ip: null(ip, family(ip), byteorder="big")),
    "enc": (109, lambda ip: struct.pack("<III", family(ip), 1, 1) + ip),
    "enc, big-endian": (109, lambda ip: struct.pack(">III", family(ip), 1, 1) + ip),
    "cooked": (113, sll),
    "cooked, LLC": (113, lambda ip: sll(snap(ip), 4)),
    "cooked, radiotap": (113, lambda ip: cooked_hardware(radiotap(ieee80211(snap(ip))), 803, 4)),
    "cooked, frame relay": (113, lambda ip: cooked_hardware(frame_relay(b"\x03" + nlpid(ip)), 770, 0)),
    "cooked, version 2": (276, sll2),
    "cooked, version 2, LLC": (276, lambda ip: sll2(snap(ip), 4)),
    "SLIP": (8, lambda ip: bytes(16) + ip),
    "SLIP, BSD/OS": (102, lambda ip: bytes(24) + ip),
    "PPP": (9, ppp),
    "PPP, a byte saved": (9, lambda ip: ppp(ip, compressed=True)),
    "PPP, framed": (9, lambda ip: b"\xff\x03" + ppp(ip)),
    "PPP, framed, MPLS": (9, lambda ip: b"\xff\x03" + ppp_mpls(ip)),
    "PPP, Cisco HDLC": (9, cisco_hdlc),
    "PPP in HDLC": (50, lambda ip: b"\xff\x03" + ppp(ip)),
    "PPP in HDLC, Cisco's": (50, cisco_hdlc),
    "PPP, direction": (204, lambda ip: b"\1\xff\x03" + ppp(ip)),
    "pppd": (166, lambda ip: b"\1\x03" + ppp(ip)),
    "PPPoE": (51, lambda ip: b"\x11\0\0\1\0\0" + ppp(ip)),
    "Cisco HDLC": (104, cisco_hdlc),
    "Cisco HDLC, multicast, MPLS": (104, lambda ip: b"\x8f\0\x88\x47" + mpls(ip)),
    "Cisco HDLC, direction": (205, lambda ip: b"\0" + cisco_hdlc(ip)),
    "frame relay": (107, lambda ip: frame_relay(b"\x03" + nlpid(ip))),
    "frame relay, long address": (107, lambda ip: frame_relay(b"\x03" + nlpid(ip), 4)),
    "frame relay, padded": (107, lambda ip: frame_relay(b"\x03\0" + nlpid(ip), 3)),
    "frame relay, SNAP": (107, lambda ip: frame_relay(b"\x03\0\x80" + snap(ip)[3:])),
    "frame relay, bridged": (107, lambda ip: frame_relay(b"\x03\0\x80" + bridged(ip))),
    "frame relay, PPP": (107, lambda ip: frame_relay(b"\x03\xcf" + ppp(ip))),
    "frame relay, Cisco's": (107, lambda ip: frame_relay(ethertype(ip) + ip)),
    "frame relay, direction": (206, lambda ip: b"\0" + frame_relay(b"\x03" + nlpid(ip))),
    "frame relay, multilink": (182, lambda ip: b"\xc0\x01" + frame_relay(b"\x03" + nlpid(ip))),
    "ATM": (100, snap),
    "ATM, bridged": (100, lambda ip: b"\xaa\xaa\x03" + bridged(ip, padding=2)),
    "ATM, NLPID": (100, lambda ip: b"\xfe\xfe\x03" + nlpid(ip)),
    "ATM, classical": (106, snap),
    "ATM, Sun": (123, lambda ip: b"\x82\0\0\x20" + snap(ip)),
    "ATM, Sun, LAN emulation": (123, lambda ip: b"\x01\0\0\x20\0\x07" + ethernet(ip)),
    "802.11": (105, lambda ip: ieee80211(snap(ip))),
    "802.11, four addresses": (105, lambda ip: ieee80211(snap(ip), four=True)),
    "802.11, QoS": (105, lambda ip: ieee80211(snap(ip), quality=5)),
    "802.11, QoS, HT control": (105, lambda ip: ieee80211(snap(ip), quality=5, control=True, four=True)),
    "802.11, aggregate": (105, lambda ip: ieee80211(aggregate(snap(ip), snap(ip)), quality=0x80)),
    "802.11, first fragment": (105, lambda ip: ieee80211(snap(ip), flags=0x06)),
    "802.11, poll": (105, lambda ip: ieee80211(b"\xaa\xaa\x13" + snap(ip)[3:], kind=0x28)),
    "radiotap": (127, lambda ip: radiotap(ieee80211(snap(ip)))),
    "radiotap, many words, time": (127, lambda ip: radiotap(ieee80211(snap(ip)), flags=0x10, time=True, words=3)),
    "radiotap, padded, two words, time": (
        127, lambda ip: radiotap(ieee80211(snap(ip), quality=0, padded=True), flags=0x20, time=True, words=2),
    ),
    "radiotap, padded": (127, lambda ip: radiotap(ieee80211(snap(ip), quality=0, padded=True), flags=0x20)),
    "radiotap, padded, time": (
        127, lambda ip: radiotap(ieee80211(snap(ip), quality=0, padded=True), flags=0x30, time=True),
    ),
    "radiotap, padded, aggregate": (
        127,
        lambda ip: radiotap(ieee80211(aggregate(snap(ip)), quality=0x80, padded=True), flags=0x20, words=2),
    ),
    "Prism": (119, lambda ip: prism(ieee80211(snap(ip)))),
    "Prism, AVS": (119, lambda ip: avs(ieee80211(snap(ip)))),
    "AVS": (163, lambda ip: avs(ieee80211(snap(ip), quality=0))),
    "PPI, 802.11": (192, lambda ip: ppi(ieee80211(snap(ip)), 105, bytes(24))),
    "PPI, Ethernet": (192, lambda ip: ppi(ethernet(ip), 1)),
    "PPI, radiotap": (192, lambda ip: ppi(radiotap(ieee80211(snap(ip))), 127)),
    "PKTAP, Ethernet": (258, lambda ip: pktap(ethernet(ip), 1)),
    "PKTAP, raw": (258, lambda ip: pktap(ip, 12)),
    "token ring": (6, lambda ip: token_ring(snap(ip))),
    "token ring, routed": (6, lambda ip: token_ring(snap(ip), b"\x06\x80\x12\x34\x56\x70")),
    "FDDI": (10, lambda ip: b"\x57" + bytes(12) + snap(ip)),
    "ARCNET": (7, arcnet),
    "ARCNET, exception": (7, arcnet_exception),
    "ARCNET, Linux": (129, lambda ip: arcnet(ip, b"\0\0")),
    "Fibre Channel": (122, lambda ip: bytes(16) + snap(ip)),
    "FireWire": (138, lambda ip: bytes(16) + ethertype(ip) + ip),
    "InfiniBand": (242, lambda ip: bytes(40) + ethertype(ip) + b"\0\0" + ip),
    "nflog": (239, nflog),
    "nflog, big-endian": (239, lambda ip: nflog(ip, ">")),
    "pflog": (117, pflog),
    "pflog, whole words": (117, lambda ip: pflog(ip, 100)),
    "ipnet": (226, lambda ip: bytes([1, 26 if is_ipv6(ip) else 2]) + bytes(22) + ip),
    "ERF, Ethernet": (197, lambda ip: erf(b"\0\0" + ethernet(ip), 2)),
    "ERF, Ethernet, more headers": (197, lambda ip: erf(b"\0\0" + ethernet(ip), 20, 3)),
    "ERF, HDLC": (197, lambda ip: erf(cisco_hdlc(ip), 1)),
    "ERF, HDLC, PPP": (197, lambda ip: erf(b"\xff\x03" + ppp(ip), 10, 1)),
    "ERF, HDLC, channels": (197, lambda ip: erf(bytes(4) + cisco_hdlc(ip), 5)),
    "ERF, IP": (197, lambda ip: erf(ip, 23 if is_ipv6(ip) else 22)),
    "DOCSIS": (143, lambda ip: docsis(ethernet(ip))),
    "DOCSIS, extended": (143, lambda ip: docsis(ethernet(ip), b"\x30")),
    "DOCSIS, privacy off": (143, lambda ip: docsis(ethernet(ip), b"\x14\x10\x00\x01\x00")),
    "Juniper Ethernet": (178, lambda ip: juniper(1, ethernet(ip))),
    "Juniper Ethernet, extended": (178, lambda ip: juniper(1, ethernet(ip), bytes(12))),
    "Juniper, no Ethernet": (178, lambda ip: juniper(2, bytes(4) + ip)),
    "MPLS": (219, lambda ip: mpls(ip, 2)),
    "Broadcom tag": (281, lambda ip: bytes(16) + ethertype(ip) + ip),
    "Broadcom tag in front": (282, lambda ip: bytes(4) + ethernet(vlan(ip))),
    "DSA tag": (284, lambda ip: bytes(16) + ethertype(ip) + ip),
    "DSA tag, long": (285, lambda ip: bytes(20) + ethertype(ip) + ip),
}  # fmt: skip
#: Ways that carry only one IP version, which is the third value.
LINKS_OF_ONE_VERSION: dict[str, tuple[int, Wrap, int]] = {
    "IPv4": (228, bytes, 4),
    **{
        f"loopback, IPv6 of {system}": (0, lambda ip, number=number: null(ip, number), 6)  # type: ignore[misc]
        for system, number in (("Linux", 10), ("NetBSD", 24), ("FreeBSD", 28))
    },
    "IPv6": (229, bytes, 6),
    "802.3, SAP of IP": (1, lambda ip: ieee8023(b"\x06\x06\x03" + ip), 4),
    "ARCNET, RFC 1051": (7, lambda ip: b"\1\2\xf0" + ip, 4),
    "ARCNET, Linux, RFC 1051": (129, lambda ip: b"\1\2\0\0\xf0" + ip, 4),
}
