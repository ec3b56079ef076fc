# Removes tunnel headers, so that the engine judges the inner packet instead of the outer one.
#
# A tunnel is recognised by its assigned IP protocol number or UDP destination port:
#
#     vxlan    UDP 4789, or 8472 (old default of Linux)   Ethernet
#     geneve   UDP 6081, version 0                        Ethernet, IP, MPLS
#     gtp-u    UDP 2152, version 1, G-PDU                 IP, by its version field; extension headers are skipped
#     gre      IP protocol 47, version 0 and 1 (PPTP)     Ethernet, IP, MPLS, PPP
#     erspan   GRE of 0x88BE (types I, II), 0x22EB (III)  Ethernet, IP
#     ipip     IP protocol 4                              IPv4, in IPv4 or IPv6
#     6in4     IP protocol 41                             IPv6, in IPv4 or IPv6
#     mpls     IP protocol 137, UDP 6635                  IP, by its version field, or a pseudowire
#              also Ethernet pseudowires below any MPLS labels, with or without a control word
#     pppoe    content of a PPPoE session that SPEC 3.1 does not cover: IP after a compressed protocol field, MPLS
#
# VLAN, MPLS and PPPoE tags directly in front of an IP header are not tunnels: the data plane skips them (SPEC 3.1).
#
# A frame stays unchanged if its tunnel headers cannot be read: cut, broken, not in the first fragment, with unknown
# content or no content. Otherwise the inner packet replaces it, even if the inner packet is malformed or truncated
# (SPEC 3.4). The wire length of the inner packet is what all outer headers leave for it, so outer padding does not
# become payload. An inner packet that claims more was cut by its tunnel, and has the length that it claims (SPEC 9.12).
# Flags, reserved fields and checksums are not checked: an error there concerns the tunnel, not the inner packet.

from libc.stdint cimport uint8_t, uint32_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport be16, be32
from sgfast.core.wire.ip cimport is_extension
from sgfast.core.wire.link cimport find_ip, find_tags
from sgfast.core.wire.next_header cimport (
    ETHERTYPE_CUT,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_NONE,
    LINK_ETHERNET,
    LINK_IPV4,
    LINK_IPV6,
    LINK_RAW,
)

cdef enum:
    PROTOCOL_IPV4 = 4
    PROTOCOL_UDP = 17
    PROTOCOL_IPV6 = 41
    PROTOCOL_GRE = 47
    PROTOCOL_MPLS = 137

    PORT_GTP_U = 2152
    PORT_VXLAN = 4789
    PORT_GENEVE = 6081
    PORT_MPLS = 6635
    PORT_VXLAN_LINUX = 8472

    ETHERTYPE_VLAN = 0x8100
    ETHERTYPE_QINQ = 0x88A8
    ETHERTYPE_QINQ_OLD = 0x9100
    ETHERTYPE_QINQ_OLDER = 0x9200
    ETHERTYPE_ARP = 0x0806
    ETHERTYPE_BRIDGED = 0x6558      # an Ethernet frame
    ETHERTYPE_PPP = 0x880B
    ETHERTYPE_MPLS = 0x8847
    ETHERTYPE_MPLS_MULTICAST = 0x8848
    ETHERTYPE_PPPOE_DISCOVERY = 0x8863
    ETHERTYPE_PPPOE = 0x8864
    ETHERTYPE_ERSPAN = 0x88BE       # types I and II
    ETHERTYPE_ERSPAN_III = 0x22EB

    PPP_IPV4 = 0x0021
    PPP_IPV6 = 0x0057
    PPP_MPLS = 0x0281
    PPP_MPLS_MULTICAST = 0x0283

    GRE_CHECKSUM = 0x8000
    GRE_ROUTING = 0x4000
    GRE_KEY = 0x2000
    GRE_SEQUENCE = 0x1000
    GRE_ACKNOWLEDGMENT = 0x0080     # version 1 only
    GRE_VERSION = 0x0007

    GTP_EXTENSION = 0x04
    GTP_OPTIONAL = 0x07             # extension, sequence number or N-PDU number: the header has four more bytes
    GTP_PROTOCOL = 0x10             # clear for GTP'
    GTP_G_PDU = 255

    ERSPAN_SUBHEADER = 0x01         # in byte 11: the header has eight more bytes

    NO_VNI = 0xFFFFFFFF             # a VNI has 24 bits

cdef enum Kind:
    NO_TUNNEL = -1
    VXLAN
    GENEVE
    GRE
    IPIP
    SIX_IN_FOUR
    ERSPAN
    GTP_U
    MPLS
    PPPOE
    KIND_COUNT


cdef struct Span:
    const uint8_t* data
    uint32_t captured       # bytes available at data
    uint32_t wire           # bytes on the wire, according to all outer headers; at least `captured`


cdef struct Content:
    # The inner packet, without its bytes. When a function below succeeds, the Span points to these bytes.
    uint32_t link_type
    uint32_t vni            # for VXLAN and Geneve, else NO_VNI
    bint first_fragment     # of the outer packet


cdef inline bint skip(Span* span, uint32_t length) noexcept nogil:
    # Skips a header. Returns False if the header is incomplete.
    if span.captured < length:
        return False
    span.data += length
    span.captured -= length
    span.wire -= length
    return True


cdef inline void shorten(Span* span, uint32_t length) noexcept nogil:
    # Limits the span to the length that a header claims. A claim longer than the span changes nothing.
    span.wire = min(span.wire, length)
    span.captured = min(span.captured, length)


cdef inline uint32_t ip_version_ethertype(uint8_t first_byte) noexcept nogil:
    if first_byte >> 4 == 4:
        return ETHERTYPE_IPV4
    return ETHERTYPE_IPV6 if first_byte >> 4 == 6 else <uint32_t>ETHERTYPE_NONE


cdef inline bint is_vlan(uint32_t ethertype) noexcept nogil:
    return (
        ethertype == ETHERTYPE_VLAN or ethertype == ETHERTYPE_QINQ
        or ethertype == ETHERTYPE_QINQ_OLD or ethertype == ETHERTYPE_QINQ_OLDER
    )


# Tunnel content ------------------------------------------------------------------------------------------------------

cdef inline bint find_ip_by_version(Span* span, Content* content) noexcept nogil:
    cdef uint32_t ethertype
    if span.captured == 0:
        content.link_type = LINK_RAW        # cut before the version field: the inner packet is malformed (SPEC 3.1)
        return True
    ethertype = ip_version_ethertype(span.data[0])
    content.link_type = LINK_IPV4 if ethertype == ETHERTYPE_IPV4 else LINK_IPV6
    return ethertype == ETHERTYPE_IPV4 or ethertype == ETHERTYPE_IPV6


cdef inline bint looks_like_ethernet(const uint8_t* data, uint32_t captured) noexcept nogil:
    cdef uint32_t ethertype
    if captured < 14:
        return False
    ethertype = be16(data + 12)
    if ethertype == ETHERTYPE_IPV4 or ethertype == ETHERTYPE_IPV6:
        return captured == 14 or ip_version_ethertype(data[14]) == ethertype
    return (
        is_vlan(ethertype) or ethertype == ETHERTYPE_ARP or ethertype == ETHERTYPE_MPLS
        or ethertype == ETHERTYPE_PPPOE or ethertype == ETHERTYPE_PPPOE_DISCOVERY
    )


cdef inline bint find_pseudowire(Span* span, Content* content) noexcept nogil:
    # Finds an Ethernet frame below MPLS labels. No field announces an Ethernet frame or its control word, so the
    # function looks for a known EtherType in the right place. A control word begins with four zero bits.
    content.link_type = LINK_ETHERNET
    if span.captured >= 4 and span.data[0] >> 4 == 0 and looks_like_ethernet(span.data + 4, span.captured - 4):
        return skip(span, 4)
    return looks_like_ethernet(span.data, span.captured)


cdef inline bint find_below_labels(Span* span, uint32_t kinds, Content* content) noexcept nogil:
    cdef bint bottom = False
    while not bottom:
        bottom = span.captured >= 4 and span.data[2] & 1
        if not skip(span, 4):
            return False
    if find_ip_by_version(span, content):
        return True
    return kinds & (1 << MPLS) and find_pseudowire(span, content)


cdef inline bint find_by_ethertype(Span* span, uint32_t ethertype, uint32_t kinds, Content* content) noexcept nogil:
    if ethertype == ETHERTYPE_BRIDGED:
        content.link_type = LINK_ETHERNET
    elif ethertype == ETHERTYPE_IPV4:
        content.link_type = LINK_IPV4
    elif ethertype == ETHERTYPE_IPV6:
        content.link_type = LINK_IPV6
    elif ethertype == ETHERTYPE_MPLS or ethertype == ETHERTYPE_MPLS_MULTICAST:
        return find_below_labels(span, kinds, content)
    else:
        return False
    return True


cdef inline bint find_in_ppp(Span* span, uint32_t kinds, Content* content) noexcept nogil:
    # Address and control bytes are optional, and the protocol field may lack its first byte if that is 0 (RFC 1661).
    cdef uint32_t protocol
    if span.captured >= 2 and be16(span.data) == 0xFF03:
        skip(span, 2)
    if span.captured >= 1 and span.data[0] & 1:
        protocol = span.data[0]
        skip(span, 1)
    elif span.captured >= 2:
        protocol = be16(span.data)
        skip(span, 2)
    else:
        return False
    if protocol == PPP_IPV4:
        return find_by_ethertype(span, ETHERTYPE_IPV4, kinds, content)
    if protocol == PPP_IPV6:
        return find_by_ethertype(span, ETHERTYPE_IPV6, kinds, content)
    if protocol == PPP_MPLS or protocol == PPP_MPLS_MULTICAST:
        return find_below_labels(span, kinds, content)
    return False


# Tunnels -------------------------------------------------------------------------------------------------------------

cdef inline bint enter_ipv4(Span* span, uint8_t* protocol, bint* first_fragment) noexcept nogil:
    # Advances from an IP header to its payload. Returns False if the header contradicts itself (SPEC 3.4) or is cut, or
    # if the packet is not the first fragment.
    cdef uint32_t length, total, fragment
    if span.captured < 20 or span.data[0] >> 4 != 4:
        return False
    length = (span.data[0] & 15) * 4
    total = be16(span.data + 2)
    if total == 0:
        total = span.wire       # segmentation offload
    fragment = be16(span.data + 6)
    if length < 20 or total < length or total > span.wire or fragment & 0x1FFF:
        return False
    protocol[0] = span.data[9]
    first_fragment[0] = (fragment & 0x2000) != 0
    shorten(span, total)
    return skip(span, length)


cdef inline bint enter_ipv6(Span* span, uint8_t* protocol, bint* first_fragment) noexcept nogil:
    cdef uint32_t payload, length
    if span.captured < 40 or span.data[0] >> 4 != 6:
        return False
    payload = be16(span.data + 4)
    protocol[0] = span.data[6]
    skip(span, 40)
    if payload > span.wire:
        return False
    if payload:
        shorten(span, payload)
    while is_extension(protocol[0]):
        if span.captured < 8:
            return False
        length = 8 if protocol[0] == 44 else (<uint32_t>span.data[1] + 1) * 8
        if protocol[0] == 44:
            if be16(span.data + 2) & 0xFFF8:
                return False
            first_fragment[0] |= (span.data[3] & 1) != 0
        protocol[0] = span.data[0]
        if not skip(span, length):
            return False
    return True


cdef inline bint enter_gtp(Span* span, Content* content) noexcept nogil:
    cdef uint8_t flags, following
    cdef uint32_t length
    if span.captured < 8:
        return False
    flags = span.data[0]
    if flags >> 5 != 1 or not flags & GTP_PROTOCOL or span.data[1] != GTP_G_PDU:
        return False
    shorten(span, 8 + <uint32_t>be16(span.data + 2))
    if flags & GTP_OPTIONAL:
        if span.captured < 12:
            return False
        following = span.data[11] if flags & GTP_EXTENSION else 0
        skip(span, 12)
        while following:
            length = <uint32_t>span.data[0] * 4 if span.captured else 0
            if length == 0 or span.captured < length:
                return False
            following = span.data[length - 1]
            skip(span, length)
    else:
        skip(span, 8)
    return find_ip_by_version(span, content)


cdef inline bint enter_geneve(Span* span, uint32_t kinds, Content* content) noexcept nogil:
    cdef uint32_t ethertype
    if span.captured < 8 or span.data[0] >> 6 != 0:
        return False
    ethertype = be16(span.data + 2)
    content.vni = be32(span.data + 4) >> 8
    if not skip(span, 8 + (<uint32_t>span.data[0] & 0x3F) * 4):
        return False
    return find_by_ethertype(span, ethertype, kinds, content)


cdef inline Kind enter_udp(Span* span, uint32_t kinds, Content* content) noexcept nogil:
    cdef uint32_t length, port
    if span.captured < 8:
        return NO_TUNNEL
    length = be16(span.data + 4)
    # In a first fragment the UDP length is that of the whole datagram.
    if length < 8 or (length > span.wire and not content.first_fragment):
        return NO_TUNNEL
    port = be16(span.data + 2)
    shorten(span, length)
    skip(span, 8)
    if (port == PORT_VXLAN or port == PORT_VXLAN_LINUX) and kinds & (1 << VXLAN):
        content.link_type = LINK_ETHERNET
        content.vni = be32(span.data + 4) >> 8 if span.captured >= 8 else <uint32_t>NO_VNI
        return VXLAN if skip(span, 8) else NO_TUNNEL
    if port == PORT_GENEVE and kinds & (1 << GENEVE):
        return GENEVE if enter_geneve(span, kinds, content) else NO_TUNNEL
    if port == PORT_GTP_U and kinds & (1 << GTP_U):
        return GTP_U if enter_gtp(span, content) else NO_TUNNEL
    if port == PORT_MPLS and kinds & (1 << MPLS):
        return MPLS if find_below_labels(span, kinds, content) else NO_TUNNEL
    return NO_TUNNEL


cdef inline bint enter_erspan(Span* span, uint32_t ethertype, bint has_sequence, Content* content) noexcept nogil:
    cdef uint32_t frame_type
    cdef bint subheader
    content.link_type = LINK_ETHERNET
    if ethertype == ETHERTYPE_ERSPAN and not has_sequence:
        return True         # type I has no header
    if span.captured < 8:
        return False
    if span.data[0] >> 4 == 1:
        return skip(span, 8)
    if span.data[0] >> 4 != 2 or span.captured < 12:
        return False
    frame_type = span.data[10] >> 2 & 31
    subheader = span.data[11] & ERSPAN_SUBHEADER
    if frame_type == 2:
        content.link_type = LINK_RAW
    return (frame_type == 0 or frame_type == 2) and skip(span, 20 if subheader else 12)


cdef inline bint skip_gre_routing(Span* span) noexcept nogil:
    # Skips source route entries (RFC 1701) up to the empty one.
    cdef uint32_t family, length
    while True:
        if span.captured < 4:
            return False
        family = be16(span.data)
        length = span.data[3]
        skip(span, 4)
        if family == 0 and length == 0:
            return True
        if not skip(span, length):
            return False


cdef inline Kind enter_gre(Span* span, uint32_t kinds, Content* content) noexcept nogil:
    cdef uint32_t flags, ethertype
    cdef uint32_t length = 4
    if span.captured < 4:
        return NO_TUNNEL
    flags = be16(span.data)
    ethertype = be16(span.data + 2)
    if flags & GRE_VERSION == 1:
        # PPTP: the key field begins with the length of the payload.
        if ethertype != ETHERTYPE_PPP or not flags & GRE_KEY or not kinds & (1 << GRE) or span.captured < 8:
            return NO_TUNNEL
        length = 8 + (4 if flags & GRE_SEQUENCE else 0) + (4 if flags & GRE_ACKNOWLEDGMENT else 0)
        shorten(span, length + be16(span.data + 4))
        return GRE if skip(span, length) and find_in_ppp(span, kinds, content) else NO_TUNNEL
    if flags & GRE_VERSION:
        return NO_TUNNEL
    if flags & (GRE_CHECKSUM | GRE_ROUTING):
        length += 4
    if flags & GRE_KEY:
        length += 4
    if flags & GRE_SEQUENCE:
        length += 4
    if not skip(span, length) or (flags & GRE_ROUTING and not skip_gre_routing(span)):
        return NO_TUNNEL
    if ethertype == ETHERTYPE_ERSPAN or ethertype == ETHERTYPE_ERSPAN_III:
        if not kinds & (1 << ERSPAN) or not enter_erspan(span, ethertype, flags & GRE_SEQUENCE, content):
            return NO_TUNNEL
        return ERSPAN
    if not kinds & (1 << GRE):
        return NO_TUNNEL
    if ethertype == ETHERTYPE_PPP:
        return GRE if find_in_ppp(span, kinds, content) else NO_TUNNEL
    return GRE if find_by_ethertype(span, ethertype, kinds, content) else NO_TUNNEL


cdef inline Kind enter_ip(Span* span, bint ipv6, uint32_t kinds, Content* content) noexcept nogil:
    cdef uint8_t protocol = 0
    cdef bint is_valid
    if ipv6:
        is_valid = enter_ipv6(span, &protocol, &content.first_fragment)
    else:
        is_valid = enter_ipv4(span, &protocol, &content.first_fragment)
    if not is_valid:
        return NO_TUNNEL
    if protocol == PROTOCOL_UDP:
        return enter_udp(span, kinds, content)
    if protocol == PROTOCOL_GRE:
        return enter_gre(span, kinds, content)
    if protocol == PROTOCOL_IPV4 and kinds & (1 << IPIP):
        content.link_type = LINK_IPV4
        return IPIP
    if protocol == PROTOCOL_IPV6 and kinds & (1 << SIX_IN_FOUR):
        content.link_type = LINK_IPV6
        return SIX_IN_FOUR
    if protocol == PROTOCOL_MPLS and kinds & (1 << MPLS) and find_below_labels(span, kinds, content):
        return MPLS
    return NO_TUNNEL


cdef inline Kind enter_tags(const Frame* frame, Span* span, uint32_t kinds, Content* content) noexcept nogil:
    # Handles frames with tags but without an IP header behind them: labels with a pseudowire, or other PPP content.
    cdef uint32_t at = 0
    cdef uint32_t ethertype = find_tags(frame, &at)
    if ethertype == ETHERTYPE_CUT or not skip(span, at):
        return NO_TUNNEL
    while is_vlan(ethertype):
        if span.captured < 4:
            return NO_TUNNEL
        ethertype = be16(span.data + 2)
        skip(span, 4)
    if (ethertype == ETHERTYPE_MPLS or ethertype == ETHERTYPE_MPLS_MULTICAST) and kinds & (1 << MPLS):
        return MPLS if find_below_labels(span, kinds, content) else NO_TUNNEL
    if ethertype == ETHERTYPE_PPPOE and kinds & (1 << PPPOE):
        return PPPOE if skip(span, 6) and find_in_ppp(span, kinds, content) else NO_TUNNEL
    return NO_TUNNEL


cdef inline bint grow_to_claim(Frame* frame) noexcept nogil:
    # Sets the wire length of a packet that was cut before the capture, as if only the capture had cut it (SPEC 3.4).
    # Returns whether it was cut: its IP header claims more bytes than the wire carried, or is not complete.
    cdef uint32_t at = 0
    cdef uint32_t claimed = 0
    cdef uint32_t ethertype = find_ip(frame, &at)
    if ethertype == ETHERTYPE_CUT:
        return True
    if at < frame.captured and ip_version_ethertype(frame.data[at]) != ethertype:
        return False
    if ethertype == ETHERTYPE_IPV4:
        claimed = be16(frame.data + at + 2) if frame.captured - at >= 20 else 20
    elif ethertype == ETHERTYPE_IPV6:
        claimed = 40 + (<uint32_t>be16(frame.data + at + 4) if frame.captured - at >= 40 else 0)
    if claimed <= frame.wire - at:
        return False
    frame.wire = at + claimed
    return True


cdef inline Kind peel(Frame* frame, uint32_t kinds, uint32_t* vni) noexcept nogil:
    # Replaces a frame by the content of its outermost tunnel and stores the tunnel's VNI. If there is no tunnel,
    # returns NO_TUNNEL and changes nothing.
    cdef Span span
    cdef Content content
    cdef Kind kind
    cdef bint whole
    cdef uint32_t at = 0
    cdef uint32_t ethertype = find_ip(frame, &at)
    if ethertype == ETHERTYPE_CUT:
        return NO_TUNNEL
    span.data = frame.data
    span.captured = frame.captured
    span.wire = frame.wire
    content.link_type = 0
    content.vni = NO_VNI
    content.first_fragment = False
    if ethertype == ETHERTYPE_IPV4 or ethertype == ETHERTYPE_IPV6:
        skip(&span, at)
        kind = enter_ip(&span, ethertype == ETHERTYPE_IPV6, kinds, &content)
    else:
        kind = enter_tags(frame, &span, kinds, &content)
    if kind == NO_TUNNEL or span.wire == 0:
        return NO_TUNNEL
    frame.data = span.data
    frame.captured = span.captured
    frame.wire = span.wire
    frame.link_type = content.link_type
    vni[0] = content.vni
    whole = frame.captured == frame.wire
    if grow_to_claim(frame) and whole:
        frame.cut_by_tunnel = True
    return kind
