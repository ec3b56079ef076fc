"""Link headers, one after another, until IP (www.tcpdump.org/linktypes.html says what each number means).

A function reads one header at ``at``, steps over it and returns what comes next, in link.pxd's numbers. ``at`` is at
most ``captured`` then; ``holds`` stands before each read. A header that claims to be longer than what was captured
may leave ``at`` beyond it: ``find_ip`` sees that before anything else is read.

Out of line, in a module of its own: what most frames have, Ethernet and IP directly in it, never comes here.
"""

from libc.stdint cimport uint8_t, uint32_t

from sgfast.core.base.intrinsics cimport be32
from sgfast.core.wire.capture_headers cimport (
    read_cooked,
    read_erf,
    read_family,
    read_ipnet,
    read_juniper_ethernet,
    read_nflog,
    read_pflog,
    read_pktap,
    read_ppi,
)
from sgfast.core.wire.ieee80211 cimport read_80211, read_avs, read_prism, read_radiotap


#: LINKTYPE_ numbers of the frames that are read, for callers in Python.
LINK_TYPES = (
    LINK_NULL, LINK_ETHERNET, LINK_TOKEN_RING, LINK_ARCNET_BSD, LINK_SLIP, LINK_PPP, LINK_FDDI, LINK_RAW_BSD,
    LINK_RAW_OPENBSD, LINK_PPP_HDLC, LINK_PPP_ETHER, LINK_ATM_RFC1483, LINK_RAW, LINK_SLIP_BSDOS, LINK_C_HDLC,
    LINK_80211, LINK_ATM_CLIP, LINK_FRAME_RELAY, LINK_LOOP, LINK_ENC, LINK_SLL, LINK_PFLOG, LINK_PRISM,
    LINK_IP_OVER_FC, LINK_SUNATM, LINK_RADIOTAP, LINK_ARCNET_LINUX, LINK_IEEE1394, LINK_DOCSIS, LINK_AVS,
    LINK_PPP_PPPD, LINK_JUNIPER_ETHERNET, LINK_MULTILINK_FRAME_RELAY, LINK_PPI, LINK_ERF, LINK_PPP_WITH_DIRECTION,
    LINK_C_HDLC_WITH_DIRECTION, LINK_FRAME_RELAY_WITH_DIRECTION, LINK_MPLS, LINK_IPNET, LINK_IPV4, LINK_IPV6,
    LINK_NFLOG, LINK_IPOIB, LINK_PKTAP, LINK_SLL2, LINK_DSA_BROADCOM, LINK_DSA_BROADCOM_PREPENDED, LINK_DSA,
    LINK_EDSA,
)


cdef enum:
    ETHERTYPE_VLAN = 0x8100
    ETHERTYPE_QINQ = 0x88A8
    ETHERTYPE_QINQ_OLD = 0x9100     # before 802.1ad
    ETHERTYPE_QINQ_OLDER = 0x9200
    ETHERTYPE_MPLS = 0x8847
    ETHERTYPE_MPLS_UPSTREAM = 0x8848
    ETHERTYPE_PPPOE_SESSION = 0x8864

    LLC_UNNUMBERED = 0x03           # the control byte, without its poll bit
    LLC_POLL = 0x10
    SAP_IP = 0x06
    SAP_SNAP = 0xAA
    SAP_OSI = 0xFE

    OUI_ETHERNET = 0x000000
    OUI_BRIDGE_TUNNEL = 0x0000F8    # ethertypes as well (802.1H)
    OUI_BRIDGED = 0x0080C2          # a whole frame follows (RFC 2427, RFC 2684)
    BRIDGED_ETHERNET_FCS = 0x0001
    BRIDGED_ETHERNET = 0x0007
    ATM_BRIDGE_PAD = 2              # bytes before a frame bridged over ATM

    NLPID_SNAP = 0x80
    NLPID_IPV6 = 0x8E
    NLPID_IPV4 = 0xCC
    NLPID_PPP = 0xCF


cdef uint32_t read_ethernet(const Frame* frame, uint32_t* at) noexcept nogil:
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t ethertype = read_ethertype(frame, at, 12, 14)
    if ethertype <= LONGEST_8023 and (header[0] | 2) == 0x03 and be32(header + 1) == 0x000C0000:
        # Cisco ISL, told by its multicast address: 26 bytes, then a frame of the kind in the upper half of byte 5.
        at[0] += 12
        return NEXT_LINK | LINK_ETHERNET if header[5] >> 4 == 0 else <uint32_t>ETHERTYPE_NONE
    return ethertype


cdef uint32_t read_snap(const Frame* frame, uint32_t* at, uint32_t bridge_pad) noexcept nogil:
    # 0 OUI, 3 bytes | 3 protocol u16
    cdef uint32_t oui
    cdef uint32_t protocol = read_ethertype(frame, at, 3, 5)
    if protocol == ETHERTYPE_CUT:
        return ETHERTYPE_CUT
    oui = be32(frame.data + at[0] - 5) >> 8
    if oui == OUI_ETHERNET or oui == OUI_BRIDGE_TUNNEL:
        return protocol
    if oui == OUI_BRIDGED and (protocol == BRIDGED_ETHERNET or protocol == BRIDGED_ETHERNET_FCS):
        at[0] += bridge_pad
        return NEXT_LINK | LINK_ETHERNET
    return ETHERTYPE_NONE


cdef uint32_t read_nlpid(const Frame* frame, uint32_t* at, uint32_t bridge_pad) noexcept nogil:
    # The OSI network layer protocol identifier, one byte (RFC 2427).
    cdef uint8_t nlpid
    if not holds(frame, at[0], 1):
        return ETHERTYPE_CUT
    nlpid = frame.data[at[0]]
    at[0] += 1
    if nlpid == NLPID_IPV4:
        return ETHERTYPE_IPV4
    if nlpid == NLPID_IPV6:
        return ETHERTYPE_IPV6
    if nlpid == NLPID_SNAP:
        return read_snap(frame, at, bridge_pad)
    if nlpid == NLPID_PPP:
        return NEXT_PPP_PROTOCOL
    return ETHERTYPE_NONE


cdef uint32_t read_llc(const Frame* frame, uint32_t* at, uint32_t bridge_pad) noexcept nogil:
    # 0 destination SAP | 1 source SAP | 2 control
    cdef const uint8_t* header = frame.data + at[0]
    if not holds(frame, at[0], 3):
        return ETHERTYPE_CUT
    at[0] += 3
    if header[0] != header[1] or header[2] & ~LLC_POLL != LLC_UNNUMBERED:
        return ETHERTYPE_NONE
    if header[0] == SAP_SNAP:
        return read_snap(frame, at, bridge_pad)
    if header[0] == SAP_IP:
        return ETHERTYPE_IPV4
    if header[0] == SAP_OSI:
        return read_nlpid(frame, at, bridge_pad)
    return ETHERTYPE_NONE


cdef uint32_t read_mpls(const Frame* frame, uint32_t* at, uint32_t ethertype) noexcept nogil:
    # One label. Nothing says what the last one is about but the first byte after it.
    cdef uint32_t start = at[0]
    if not holds(frame, start, 4):
        return ETHERTYPE_CUT
    at[0] = start + 4
    return ip_version(frame, start + 4, ETHERTYPE_NONE) if frame.data[start + 2] & 1 else ethertype


cdef uint32_t read_ppp_protocol(const Frame* frame, uint32_t* at) noexcept nogil:
    # Two bytes, or one where the first is odd (compressed, RFC 1661).
    cdef uint32_t start = at[0]
    cdef uint32_t protocol
    if not holds(frame, start, 1):
        return ETHERTYPE_CUT
    protocol = frame.data[start]
    if protocol & 1:
        at[0] = start + 1
    else:
        protocol = read_ethertype(frame, at, 0, 2)
        if protocol == ETHERTYPE_CUT:
            return ETHERTYPE_CUT
    if protocol == 0x0021:
        return ETHERTYPE_IPV4
    if protocol == 0x0057:
        return ETHERTYPE_IPV6
    if protocol == 0x0281 or protocol == 0x0283:
        return ETHERTYPE_MPLS
    return ETHERTYPE_NONE


cdef uint32_t read_ppp(const Frame* frame, uint32_t* at) noexcept nogil:
    # With or without address and control; or Cisco's HDLC, told by its first byte.
    cdef uint32_t start = at[0]
    cdef uint8_t first
    if not holds(frame, start, 2):
        return ETHERTYPE_CUT
    first = frame.data[start]
    if first == 0x0F or first == 0x8F:
        return read_ethertype(frame, at, 2, 4)
    if be16(frame.data + start) == 0xFF03:
        at[0] = start + 2
    return NEXT_PPP_PROTOCOL


cdef uint32_t read_frame_relay(const Frame* frame, uint32_t* at) noexcept nogil:
    # Q.922 address of 2 to 4 bytes, its last one odd | control | [padding] | NLPID (RFC 2427). Cisco's own way: an
    # ethertype after the address.
    cdef uint32_t start = at[0]
    cdef uint32_t length
    for length in range(2, 5):
        if not holds(frame, start, length + 1):
            return ETHERTYPE_CUT
        if frame.data[start + length - 1] & 1:
            break
    else:
        return ETHERTYPE_NONE
    if frame.data[start + length] != LLC_UNNUMBERED:
        return read_ethertype(frame, at, length, length + 2)
    length += 1
    if holds(frame, start, length + 1) and frame.data[start + length] == 0:
        length += 1
    at[0] = start + length
    return read_nlpid(frame, at, 0)


cdef uint32_t read_multilink_frame_relay(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 begin, end, control bits | 1 sequence number (FRF.16). Only what begins has a header.
    cdef uint32_t start = at[0]
    if not holds(frame, start, 2):
        return ETHERTYPE_CUT
    at[0] = start + 2
    return NEXT_LINK | LINK_FRAME_RELAY if frame.data[start] & 0xA0 == 0x80 else <uint32_t>ETHERTYPE_NONE


cdef uint32_t read_token_ring(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 access control | 1 frame control | 2 destination | 8 source | 14 [route, told by the source's upper bit] | LLC
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t route
    if not holds(frame, at[0], 14):
        return ETHERTYPE_CUT
    if header[1] & 0xC0 != 0x40:
        return ETHERTYPE_NONE
    if header[8] & 0x80:
        if not holds(frame, at[0], 15):
            return ETHERTYPE_CUT
        route = header[14] & 0x1F
        if route < 2:
            return ETHERTYPE_CUT
        at[0] += route
    at[0] += 14
    return NEXT_LLC


cdef uint32_t read_fddi(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 frame control | 1 destination | 7 source | 13 LLC
    cdef uint32_t start = at[0]
    if not holds(frame, start, 13):
        return ETHERTYPE_CUT
    at[0] = start + 13
    return NEXT_LLC if frame.data[start] & 0x70 == 0x50 else <uint32_t>ETHERTYPE_NONE


cdef uint32_t read_arcnet(const Frame* frame, uint32_t* at, uint32_t system_at) noexcept nogil:
    # 0 source | 1 destination | [2 bytes of Linux's] | system code | split flag | sequence number u16 (RFC 1201); the
    # older way (RFC 1051) ends with the system code. The flag is 0 for a whole packet, odd for the first of several.
    cdef const uint8_t* system = frame.data + at[0] + system_at
    cdef uint32_t ethertype
    if not holds(frame, at[0], system_at + 1):
        return ETHERTYPE_CUT
    at[0] += system_at + 1
    if system[0] == 240:
        return ETHERTYPE_IPV4
    if system[0] == 212:
        ethertype = ETHERTYPE_IPV4
    elif system[0] == 196:
        ethertype = ETHERTYPE_IPV6
    else:
        return ETHERTYPE_NONE
    if not holds(frame, at[0], 3):
        return ETHERTYPE_CUT
    at[0] += 3
    if system[1] == 0xFF:       # an exception packet says it all again
        if not holds(frame, at[0], 4):
            return ETHERTYPE_CUT
        at[0] += 4
        system += 4
    return ethertype if system[1] == 0 or system[1] & 1 else <uint32_t>ETHERTYPE_NONE


cdef uint32_t read_sunatm(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 direction, 4 bits of traffic type | 1 VPI | 2 VCI u16
    cdef uint32_t start = at[0]
    cdef uint8_t traffic
    if not holds(frame, start, 4):
        return ETHERTYPE_CUT
    traffic = frame.data[start] & 0x0F
    at[0] = start + 4
    if traffic == 2:
        return NEXT_LINK | LINK_ATM_RFC1483
    if traffic != 1:
        return ETHERTYPE_NONE
    # LAN emulation: the sender's number, which is 0xFF00 in control frames, then Ethernet.
    if not holds(frame, start, 6):
        return ETHERTYPE_CUT
    at[0] = start + 6
    return NEXT_LINK | LINK_ETHERNET if be16(frame.data + start + 4) != 0xFF00 else <uint32_t>ETHERTYPE_NONE


cdef uint32_t read_docsis(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 frame control | 1 length of the extended header, if there is one (bit 0) | 2 length u16 | that | checksum u16
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t extended
    cdef uint8_t element
    if not holds(frame, at[0], 6):
        return ETHERTYPE_CUT
    if header[0] & 0xC0:
        return ETHERTYPE_NONE       # no packet: ATM cells, management
    extended = header[1] if header[0] & 1 else 0
    if extended >= 3:
        # Baseline privacy is the first element: upstream, downstream, upstream version 2.
        if not holds(frame, at[0], 7):
            return ETHERTYPE_CUT
        element = header[4] >> 4
        if (element == 1 or element == 2 or element == 7) and header[6] & 0x80:
            return ETHERTYPE_NONE
    at[0] += 6 + extended
    return NEXT_LINK | LINK_ETHERNET


cdef uint32_t read_slip(const Frame* frame, uint32_t* at, uint32_t length) noexcept nogil:
    if not holds(frame, at[0], length):
        return ETHERTYPE_CUT
    at[0] += length
    return ip_version(frame, at[0], ETHERTYPE_CUT)


cdef uint32_t read_link(const Frame* frame, uint32_t* at, uint32_t link) noexcept nogil:
    if link == LINK_ETHERNET:
        return read_ethernet(frame, at)
    elif link == LINK_RAW_BSD or link == LINK_RAW_OPENBSD or link == LINK_RAW:
        return ip_version(frame, at[0], ETHERTYPE_CUT)
    elif link == LINK_SLL:
        return read_cooked(frame, at, 14, 2, 16)
    elif link == LINK_SLL2:
        return read_cooked(frame, at, 0, 8, 20)
    elif link == LINK_NULL:
        return read_family(frame, at, 4, False)
    elif link == LINK_LOOP:
        return read_family(frame, at, 4, True)
    elif link == LINK_ENC:
        return read_family(frame, at, 12, False)
    elif link == LINK_IPNET:
        return read_ipnet(frame, at)
    elif link == LINK_PFLOG:
        return read_pflog(frame, at)
    elif link == LINK_NFLOG:
        return read_nflog(frame, at)
    elif link == LINK_IPV4:
        return ETHERTYPE_IPV4
    elif link == LINK_IPV6:
        return ETHERTYPE_IPV6
    elif link == LINK_TOKEN_RING:
        return read_token_ring(frame, at)
    elif link == LINK_ARCNET_BSD:
        return read_arcnet(frame, at, 2)
    elif link == LINK_ARCNET_LINUX:
        return read_arcnet(frame, at, 4)
    elif link == LINK_SLIP:
        return read_slip(frame, at, 16)
    elif link == LINK_SLIP_BSDOS:
        return read_slip(frame, at, 24)
    elif link == LINK_PPP or link == LINK_PPP_HDLC:
        return read_ppp(frame, at)
    elif link == LINK_PPP_WITH_DIRECTION:
        return skip(frame, at, 1, NEXT_LINK | LINK_PPP)
    elif link == LINK_PPP_PPPD:  # the direction in place of the address
        return skip(frame, at, 2, NEXT_PPP_PROTOCOL)
    elif link == LINK_PPP_ETHER:
        return ETHERTYPE_PPPOE_SESSION
    elif link == LINK_FDDI:
        return read_fddi(frame, at)
    elif link == LINK_ATM_RFC1483 or link == LINK_ATM_CLIP:
        return read_llc(frame, at, ATM_BRIDGE_PAD)
    elif link == LINK_SUNATM:
        return read_sunatm(frame, at)
    elif link == LINK_C_HDLC:
        return read_ethertype(frame, at, 2, 4)
    elif link == LINK_C_HDLC_WITH_DIRECTION:
        return skip(frame, at, 1, NEXT_LINK | LINK_C_HDLC)
    elif link == LINK_FRAME_RELAY:
        return read_frame_relay(frame, at)
    elif link == LINK_FRAME_RELAY_WITH_DIRECTION:
        return skip(frame, at, 1, NEXT_LINK | LINK_FRAME_RELAY)
    elif link == LINK_MULTILINK_FRAME_RELAY:
        return read_multilink_frame_relay(frame, at)
    elif link == LINK_80211:
        return read_80211(frame, at, False)
    elif link == LINK_PRISM:
        return read_prism(frame, at)
    elif link == LINK_RADIOTAP:
        return read_radiotap(frame, at)
    elif link == LINK_AVS:
        return read_avs(frame, at)
    elif link == LINK_IP_OVER_FC:
        return skip(frame, at, 16, NEXT_LLC)
    elif link == LINK_IEEE1394:
        return read_ethertype(frame, at, 16, 18)
    elif link == LINK_DOCSIS:
        return read_docsis(frame, at)
    elif link == LINK_JUNIPER_ETHERNET:
        return read_juniper_ethernet(frame, at)
    elif link == LINK_PPI:
        return read_ppi(frame, at)
    elif link == LINK_ERF:
        return read_erf(frame, at)
    elif link == LINK_MPLS:
        return ETHERTYPE_MPLS
    elif link == LINK_IPOIB:
        return read_ethertype(frame, at, 40, 44)
    elif link == LINK_PKTAP:
        return read_pktap(frame, at)
    elif link == LINK_DSA_BROADCOM or link == LINK_DSA:  # 4 bytes after the addresses
        return read_ethertype(frame, at, 16, 18)
    elif link == LINK_DSA_BROADCOM_PREPENDED:
        return skip(frame, at, 4, NEXT_LINK | LINK_ETHERNET)
    elif link == LINK_EDSA:
        return read_ethertype(frame, at, 20, 22)
    return ETHERTYPE_NONE


cdef uint32_t read_tag(const Frame* frame, uint32_t* at, uint32_t ethertype) noexcept nogil:
    if ethertype == ETHERTYPE_VLAN or ethertype == ETHERTYPE_QINQ:
        return read_ethertype(frame, at, 2, 4)
    if ethertype == ETHERTYPE_QINQ_OLD or ethertype == ETHERTYPE_QINQ_OLDER:
        return read_ethertype(frame, at, 2, 4)
    if ethertype == ETHERTYPE_MPLS or ethertype == ETHERTYPE_MPLS_UPSTREAM:
        return read_mpls(frame, at, ethertype)
    if ethertype == ETHERTYPE_PPPOE_SESSION:
        return skip(frame, at, 6, NEXT_PPP_PROTOCOL)
    if ethertype <= LONGEST_8023:
        return read_llc(frame, at, 0)
    return ETHERTYPE_NONE


cdef uint32_t find_ip(const Frame* frame, uint32_t* offset) noexcept nogil:
    return walk(frame, offset, False)


cdef uint32_t find_tags(const Frame* frame, uint32_t* offset) noexcept nogil:
    return walk(frame, offset, True)


cdef uint32_t walk(const Frame* frame, uint32_t* offset, bint to_tags) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t headers = 0
    cdef uint32_t coming = NEXT_LINK | frame.link_type if frame.link_type <= 0xFFFF else <uint32_t>ETHERTYPE_NONE
    while True:
        if at > frame.captured:
            return ETHERTYPE_CUT
        if coming == ETHERTYPE_IPV4 or coming == ETHERTYPE_IPV6 or (to_tags and LONGEST_8023 < coming < ETHERTYPE_NONE):
            offset[0] = at
            return coming
        if coming == ETHERTYPE_NONE or coming == ETHERTYPE_CUT:
            return coming
        if headers == MOST_HEADERS:
            return ETHERTYPE_CUT
        headers += 1
        if coming < ETHERTYPE_NONE:
            coming = read_tag(frame, &at, coming)
        elif coming == NEXT_LLC:
            coming = read_llc(frame, &at, 0)
        elif coming == NEXT_PPP_PROTOCOL:
            coming = read_ppp_protocol(frame, &at)
        elif coming == NEXT_80211_PADDED:
            coming = read_80211(frame, &at, True)
        else:
            coming = read_link(frame, &at, coming & 0xFFFF)
