# Link headers on the wire whose length or form varies: Ethernet and other networks, serial lines, ATM. Headers of fixed
# length and form are in the table in link.pyx.
#
# Each function is a HeaderReader (next_header.pxd). Its caller has checked that the minimum number of bytes in the
# table in link.pyx was captured. The function calls `holds` before it reads any byte beyond that minimum.

from libc.stdint cimport uint8_t, uint32_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport be16, be32
from sgfast.core.wire.next_header cimport (
    ETHERTYPE_CUT,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_NONE,
    LINK_ATM_RFC1483,
    LINK_ETHERNET,
    LINK_FRAME_RELAY,
    LONGEST_8023,
    NEXT_LINK,
    NEXT_LLC,
    NEXT_PPP_PROTOCOL,
    holds,
    ip_version,
    read_ethertype,
)
from sgfast.core.wire.tags cimport ATM_BRIDGE_PAD, LLC_UNNUMBERED, read_llc, read_nlpid


cdef inline uint32_t read_ethernet(const Frame* frame, uint32_t* at) noexcept nogil:
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t ethertype = be16(header + 12)
    if ethertype <= LONGEST_8023 and (header[0] | 2) == 0x03 and be32(header + 1) == 0x000C0000:
        # Cisco ISL, recognised by its multicast address: 26 bytes, then a frame of the type in byte 5's upper half.
        at[0] += 26
        return NEXT_LINK | LINK_ETHERNET if header[5] >> 4 == 0 else <uint32_t>ETHERTYPE_NONE
    at[0] += 14
    return ethertype


# Serial lines.

cdef inline uint32_t read_ppp(const Frame* frame, uint32_t* at) noexcept nogil:
    # PPP with or without address and control bytes, or Cisco HDLC, which is recognised by its first byte.
    cdef const uint8_t* header = frame.data + at[0]
    if header[0] == 0x0F or header[0] == 0x8F:
        return read_ethertype(frame, at, 2, 4)
    if be16(header) == 0xFF03:
        at[0] += 2
    return NEXT_PPP_PROTOCOL


cdef inline uint32_t read_frame_relay(const Frame* frame, uint32_t* at) noexcept nogil:
    # Q.922 address (2 to 4 bytes, the last one odd) | control | [padding] | NLPID (RFC 2427)
    # Cisco's own encapsulation has an EtherType after the address.
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


cdef inline uint32_t read_multilink_frame_relay(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 begin, end and control bits | 1 sequence number (FRF.16). Only the first fragment carries a frame relay header.
    cdef uint8_t bits = frame.data[at[0]]
    at[0] += 2
    return NEXT_LINK | LINK_FRAME_RELAY if bits & 0xA0 == 0x80 else <uint32_t>ETHERTYPE_NONE


# ATM and cable.

cdef inline uint32_t read_atm(const Frame* frame, uint32_t* at) noexcept nogil:
    return read_llc(frame, at, ATM_BRIDGE_PAD)


cdef inline uint32_t read_sunatm(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 direction, traffic type (low 4 bits) | 1 VPI | 2 VCI u16
    cdef uint32_t start = at[0]
    cdef uint8_t traffic = frame.data[start] & 0x0F
    at[0] = start + 4
    if traffic == 2:
        return NEXT_LINK | LINK_ATM_RFC1483
    if traffic != 1:
        return ETHERTYPE_NONE
    # LAN emulation: the LECID of the sender (0xFF00 marks a control frame), then an Ethernet frame.
    if not holds(frame, start, 6):
        return ETHERTYPE_CUT
    at[0] = start + 6
    return NEXT_LINK | LINK_ETHERNET if be16(frame.data + start + 4) != 0xFF00 else <uint32_t>ETHERTYPE_NONE


cdef inline uint32_t read_docsis(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 frame control (bit 0: has an extended header) | 1 length of the extended header | 2 length u16
    # | extended header | checksum u16
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t extended
    cdef uint8_t element
    if header[0] & 0xC0:
        return ETHERTYPE_NONE       # not a packet: ATM cells or management
    extended = header[1] if header[0] & 1 else 0
    if extended >= 3:
        # The baseline privacy element comes first: upstream, downstream, or upstream version 2.
        if not holds(frame, at[0], 7):
            return ETHERTYPE_CUT
        element = header[4] >> 4
        if (element == 1 or element == 2 or element == 7) and header[6] & 0x80:
            return ETHERTYPE_NONE
    at[0] += 6 + extended
    return NEXT_LINK | LINK_ETHERNET


# Other networks.

cdef inline uint32_t read_token_ring(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 access control | 1 frame control | 2 destination | 8 source | 14 [route] | LLC
    # There is a route if the top bit of the source is set.
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t route
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


cdef inline uint32_t read_fddi(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 frame control | 1 destination | 7 source | 13 LLC
    cdef uint8_t control = frame.data[at[0]]
    at[0] += 13
    return NEXT_LLC if control & 0x70 == 0x50 else <uint32_t>ETHERTYPE_NONE


cdef inline uint32_t read_arcnet_system(const Frame* frame, uint32_t* at, uint32_t system_at) noexcept nogil:
    # 0 source | 1 destination | [2 bytes added by Linux] | system code | split flag | sequence number u16 (RFC 1201)
    # The older format (RFC 1051) ends with the system code. The split flag is 0 for an unfragmented packet and odd for
    # the first fragment.
    cdef const uint8_t* system = frame.data + at[0] + system_at
    cdef uint32_t ethertype
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
    if system[1] == 0xFF:       # exception packet: the header is repeated
        if not holds(frame, at[0], 4):
            return ETHERTYPE_CUT
        at[0] += 4
        system += 4
    return ethertype if system[1] == 0 or system[1] & 1 else <uint32_t>ETHERTYPE_NONE


cdef inline uint32_t read_arcnet(const Frame* frame, uint32_t* at) noexcept nogil:
    return read_arcnet_system(frame, at, 2)


cdef inline uint32_t read_arcnet_linux(const Frame* frame, uint32_t* at) noexcept nogil:
    return read_arcnet_system(frame, at, 4)
