"""Parse frames (SPEC 3.1, 3.2, 3.4, 3.10). Defects of a packet are recorded; other modules judge them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from sgfast.policy.model import DCCP, ICMP, ICMPV6, PORT_PROTOCOLS, SCTP, TCP, UDP, UDPLITE
from sgfast.reference.addresses import Address
from sgfast.reference.fragments import Fragment
from sgfast.reference.link import MALFORMED, find_ip
from sgfast.reference.tcp import tcp_kind

#: A length that no packet reaches.
ENDLESS = 1 << 32

HOP_BY_HOP = 0
FRAGMENT_HEADER = 44
EXTENSION_HEADERS = (HOP_BY_HOP, 43, FRAGMENT_HEADER, 60, 135, 139, 140)
#: Hop-by-hop options: a single byte of padding, and the length of a jumbogram.
PAD1, JUMBO_PAYLOAD = 0, 0xC2
#: The largest value of the payload length field in an IPv6 header.
MOST_WITHOUT_JUMBO = 0xFFFF
#: The required bytes of the transport header (SPEC 3.4).
HEADER_NEEDED = {TCP: 20, UDP: 8, UDPLITE: 8, SCTP: 12, DCCP: 12}

#: ICMP queries and the reply to each (SPEC 5.6).
ICMP_REPLY_TO = {4: {8: 0, 13: 14, 15: 16, 17: 18}, 6: {128: 129}}
ICMPV4_ERRORS = (3, 4, 5, 11, 12)


@dataclass
class Packet:
    """The fields of a frame's headers."""

    version: int
    src: Address
    dst: Address
    protocol: int
    hop_limit: int
    #: The reason why the packet cannot be judged: malformed, truncated or fragment (SPEC 3.4, 3.10); else None.
    problem: str | None = None
    #: The fragment's fields; None if the packet is no fragment. The outermost header counts if they are nested.
    fragment: Fragment | None = None
    #: The length after all extension headers according to the IP header, and the captured bytes of the payload.
    payload_length: int = 0
    payload: bytes = b""
    #: Whether the IP header is valid and fully captured, and the payload begins with a transport header.
    has_transport: bool = False
    sport: int | None = None
    dport: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    icmp_identifier: int = 0
    tcp_flags: int = 0

    @property
    def is_later_fragment(self) -> bool:
        return self.fragment is not None and self.fragment.offset > 0

    @property
    def is_icmp(self) -> bool:
        """Whether the packet is ICMP over IPv4 or ICMPv6 over IPv6. Other combinations are not ICMP (SPEC 5.1)."""
        return self.protocol == (ICMP if self.version == 4 else ICMPV6)

    @property
    def answers_nothing(self) -> bool:
        """Whether the packet's protocol has no answers: IP in IP, GRE, ESP and AH (SPEC 9.2)."""
        return self.protocol in (4, 41, 47, 50, 51)

    @property
    def can_open(self) -> bool:
        """Whether the packet opens a connection if none exists (SPEC 5.4, 5.6, 5.7)."""
        if self.protocol == TCP:
            return tcp_kind(self.tcp_flags) == "syn"
        if self.icmp_type is not None:
            return icmp_role(self.version, self.icmp_type) in ("query", "one-way")
        return True


def number(data: bytes, offset: int, size: int) -> int:
    """Read a big-endian number. The caller must check that its bytes exist."""
    return int.from_bytes(data[offset : offset + size], "big")


def icmp_role(version: int, icmp_type: int) -> str:
    """Return the role of an ICMP type: query, reply, error or one-way (SPEC 4.6, 5.6)."""
    if icmp_type in ICMP_REPLY_TO[version]:
        return "query"
    if icmp_type in ICMP_REPLY_TO[version].values():
        return "reply"
    is_error = icmp_type in ICMPV4_ERRORS if version == 4 else icmp_type < 128
    return "error" if is_error else "one-way"


def parse_frame(data: bytes, wire_length: int, link_type: int) -> Packet | str:
    """Parse the packet in a frame. Return ``NOT_IP``, or ``MALFORMED`` if not even the addresses can be read."""
    ip_place = find_ip(data, link_type)
    if isinstance(ip_place, str):
        return ip_place
    offset, version = ip_place
    ip = data[offset:]
    if len(ip) < (20 if version == 4 else 40) or ip[0] >> 4 != version:
        return MALFORMED
    rest_of_frame = max(wire_length, len(data)) - offset
    packet = read_ipv4(ip, rest_of_frame) if version == 4 else read_ipv6(ip, rest_of_frame)
    if packet.fragment is not None and packet.fragment.is_impossible:
        packet.problem, packet.fragment, packet.has_transport = MALFORMED, None, False
    if packet.has_transport:
        packet.problem = read_transport(packet)
    return packet


def read_ipv4(ip: bytes, rest_of_frame: int) -> Packet:
    """Parse an IPv4 packet from ``ip``, its captured bytes (at least 20). On the wire there were ``rest_of_frame``
    bytes."""
    packet = Packet(4, IPv4Address(ip[12:16]), IPv4Address(ip[16:20]), protocol=ip[9], hop_limit=ip[8])
    header_length = (ip[0] & 15) * 4
    total_length = number(ip, 2, 2) or rest_of_frame  # 0: segmentation offload (SPEC 3.4)
    if header_length < 20 or total_length < header_length or total_length > rest_of_frame:
        packet.problem = "malformed"
        return packet
    packet.payload_length = total_length - header_length
    more_fragments, offset = number(ip, 6, 2) & 0x2000, (number(ip, 6, 2) & 0x1FFF) * 8
    if more_fragments or offset:
        datagram = (4, packet.src, packet.dst, packet.protocol, number(ip, 4, 2))
        packet.fragment = Fragment(datagram, offset, packet.payload_length, bool(more_fragments), header_length)
    if not packet.is_later_fragment:
        packet.payload = ip[header_length:total_length]  # without padding
        packet.has_transport = True
    return packet


def read_ipv6(ip: bytes, rest_of_frame: int) -> Packet:
    """Parse an IPv6 packet, as ``read_ipv4`` does, from at least 40 bytes."""
    packet = Packet(6, IPv6Address(ip[8:24]), IPv6Address(ip[24:40]), protocol=ip[6], hop_limit=ip[7])
    is_quote = rest_of_frame == ENDLESS  # lengths in a quoted header are not checked
    claimed = number(ip, 4, 2)
    packet.payload_length = claimed or rest_of_frame - 40
    jumbo = jumbo_length(ip[40:]) if packet.protocol == HOP_BY_HOP and not is_quote else None
    if jumbo is not None:
        packet.payload_length = jumbo
        if claimed or jumbo <= MOST_WITHOUT_JUMBO:
            packet.problem = "malformed"
    packet.payload = ip[40 : 40 + packet.payload_length]  # without padding
    if packet.payload_length > rest_of_frame - 40:
        packet.problem = "malformed"
    is_too_long_for_fragments = packet.payload_length > MOST_WITHOUT_JUMBO and not is_quote  # RFC 2675
    while packet.problem is None and not packet.is_later_fragment and packet.protocol in EXTENSION_HEADERS:
        if packet.protocol == FRAGMENT_HEADER and is_too_long_for_fragments:
            packet.problem = "malformed"
        else:
            packet.problem = step_over_extension_header(packet)
    if packet.is_later_fragment:
        packet.payload = b""  # save memory: the payload is unused, and the packet may be pending
    packet.has_transport = packet.problem is None and not packet.is_later_fragment
    return packet


def jumbo_length(header: bytes) -> int | None:
    """Return the length of a jumbogram (RFC 2675) from a hop-by-hop header that may be cut by the snap length.

    Return None if the option is missing, and 0 if it is invalid.
    """
    if len(header) < 2 or len(header) < (header[1] + 1) * 8:
        return None
    options = header[2 : (header[1] + 1) * 8]
    while options:
        if options[0] == JUMBO_PAYLOAD:
            return number(options, 2, 4) if len(options) >= 6 and options[1] == 4 else 0
        is_alone = options[0] == PAD1 or len(options) == 1  # a byte without a length
        options = options[1 if is_alone else 2 + options[1] :]
    return None


def step_over_extension_header(packet: Packet) -> str | None:
    """Remove one IPv6 extension header from the payload. Return a problem that prevents this, or None (SPEC 3.4)."""
    payload = packet.payload
    length = 8  # the minimum, and the length of every fragment header
    if packet.protocol != FRAGMENT_HEADER and len(payload) >= 2:
        length = (payload[1] + 1) * 8
    if length > packet.payload_length:
        return "malformed"
    if length > len(payload):
        return "truncated"
    is_fragment_header = packet.protocol == FRAGMENT_HEADER
    packet.protocol = payload[0]
    packet.payload = payload[length:]
    packet.payload_length -= length
    return note_fragment(packet, payload) if is_fragment_header else None


def note_fragment(packet: Packet, header: bytes) -> str | None:
    """Read an IPv6 fragment header, already removed from the payload. Return a problem, or None (SPEC 3.10)."""
    more_fragments, offset = number(header, 2, 2) & 1, number(header, 2, 2) & 0xFFF8
    if packet.fragment is not None:
        # The outer datagram's first fragment decides its verdict, so it must contain the inner datagram's beginning.
        return "fragment" if offset else None
    if more_fragments or offset:  # otherwise the packet is whole ("atomic")
        datagram = (6, packet.src, packet.dst, number(header, 4, 4))
        packet.fragment = Fragment(datagram, offset, packet.payload_length, bool(more_fragments))
    return None


def read_transport(packet: Packet) -> str | None:
    """Read ports, flags and ICMP fields. Return a problem of the transport header, or None (SPEC 3.4)."""
    payload = packet.payload
    needed = 8 if packet.is_icmp else HEADER_NEEDED.get(packet.protocol, 0)
    read_ports_or_icmp(packet)
    if packet.payload_length < needed:
        return "malformed"
    if len(payload) < needed:
        return "truncated"
    if packet.protocol == TCP:
        packet.tcp_flags = payload[13]
        data_offset = (payload[12] >> 4) * 4
        if data_offset < 20 or data_offset > packet.payload_length:
            return "malformed"
    if packet.protocol == UDP:
        udp_length = number(payload, 4, 2)
        # The UDP length in a first fragment is that of the whole datagram.
        if udp_length < 8 or (udp_length > packet.payload_length and packet.fragment is None):
            return "malformed"
    return None


def read_ports_or_icmp(packet: Packet) -> None:
    """Read ports or ICMP fields if they were captured, even if the rest of the header is missing (SPEC 10.3)."""
    payload = packet.payload
    if packet.is_icmp and len(payload) >= 2:
        packet.icmp_type, packet.icmp_code = payload[0], payload[1]
        packet.icmp_identifier = number(payload, 4, 2) if len(payload) >= 6 else 0
    if packet.protocol in PORT_PROTOCOLS and len(payload) >= 4:
        packet.sport, packet.dport = number(payload, 0, 2), number(payload, 2, 2)


def is_infrastructure(packet: Packet) -> bool:
    """Return whether the packet is DHCP, neighbour discovery or multicast listener discovery (SPEC 3.2)."""
    if not packet.has_transport:
        return False
    if packet.protocol == UDP:
        return {packet.sport, packet.dport} == ({67, 68} if packet.version == 4 else {546, 547})
    if packet.version == 6 and packet.icmp_type is not None:
        is_neighbour_discovery = 133 <= packet.icmp_type <= 137
        return (is_neighbour_discovery and packet.hop_limit == 255) or packet.icmp_type in (130, 131, 132, 143)
    return False


def infrastructure_role(packet: Packet) -> str | None:
    """Return who sends such infrastructure traffic by the table of SPEC 3.11: ``client``, ``server`` or ``anyone``.

    Return None for the table's last line and for other traffic.
    """
    if not packet.has_transport:
        return None
    if packet.protocol == UDP:
        client, server = (68, 67) if packet.version == 4 else (546, 547)
        return {(client, server): "client", (server, client): "server"}.get((packet.sport or 0, packet.dport or 0))
    if packet.version == 6 and packet.icmp_type is not None:
        return {133: "client", 134: "server", 135: "anyone", 136: "anyone", 130: "anyone"}.get(packet.icmp_type)
    return None
