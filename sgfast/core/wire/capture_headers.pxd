# Pseudo-headers that capture programs and hardware put in front of a frame. They were never on the wire.
#
# Each function is a HeaderReader (next_header.pxd). Its caller has checked that the minimum number of bytes in the
# table in link.pyx was captured. The function calls `holds` before it reads any byte beyond that minimum.

from libc.stdint cimport uint8_t, uint32_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport be16, be32, load16, load32
from sgfast.core.wire.next_header cimport (
    ETHERTYPE_CUT,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_NONE,
    LINK_ETHERNET,
    LINK_FRAME_RELAY,
    LINK_PPP_HDLC,
    LINK_RADIOTAP,
    LONGEST_8023,
    NEXT_LINK,
    NEXT_LLC,
    holds,
    ip_version,
)

cdef enum:
    # Linux ARPHRD_ numbers for which the protocol field of a cooked header is not an EtherType.
    HARDWARE_FRAME_RELAY = 770
    HARDWARE_RADIOTAP = 803
    HARDWARE_NETLINK = 824
    COOKED_LLC = 4                  # protocol field: an LLC header comes next

    NFLOG_PAYLOAD = 9


cdef inline uint32_t ip_family(uint32_t address_family) noexcept nogil:
    # AF_INET is 2 on every system. AF_INET6 is 10, 24, 28 or 30, depending on the capturing system.
    if address_family == 2:
        return ETHERTYPE_IPV4
    if address_family == 10 or address_family == 24 or address_family == 28 or address_family == 30:
        return ETHERTYPE_IPV6
    return ETHERTYPE_NONE


cdef inline uint32_t family_in_either_order(const uint8_t* header) noexcept nogil:
    # The field is in the capturing host's byte order, which the capture does not record.
    cdef uint32_t ethertype = ip_family(be32(header))
    if ethertype == ETHERTYPE_NONE:
        ethertype = ip_family(load32(header))
    return ethertype


cdef inline uint32_t read_null(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 family u32
    at[0] += 4
    return family_in_either_order(frame.data + at[0] - 4)


cdef inline uint32_t read_loop(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 family u32, big-endian
    at[0] += 4
    return ip_family(be32(frame.data + at[0] - 4))


cdef inline uint32_t read_enc(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 family u32 | 4 other fields
    at[0] += 12
    return family_in_either_order(frame.data + at[0] - 12)


cdef inline uint32_t read_ipnet(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 version | 1 family (Solaris numbers) | 2 other fields
    cdef uint8_t family = frame.data[at[0] + 1]
    at[0] += 24
    if family == 2:
        return ETHERTYPE_IPV4
    return ETHERTYPE_IPV6 if family == 26 else <uint32_t>ETHERTYPE_NONE


cdef inline uint32_t read_pflog(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 length, not counting the padding to a multiple of 4 | 1 family | other fields
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t length = (<uint32_t>header[0] + 3) & ~<uint32_t>3
    if length < 4:
        return ETHERTYPE_CUT
    at[0] += length
    return ip_family(header[1])


cdef inline uint32_t read_nflog(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 family | 1 version | 2 group u16 | attributes: 0 length u16 | 2 type u16 | value, padded to a multiple of 4
    # Attributes are in the capturing host's byte order, which the capture does not record. Types are below 256, so the
    # zero byte of the type field tells the byte order. Each attribute takes at least 4 bytes, so the loop ends.
    cdef uint32_t start = at[0]
    cdef const uint8_t* attribute
    cdef uint32_t length, kind
    cdef uint8_t family = frame.data[start]
    start += 4
    while start != frame.captured:
        if not holds(frame, start, 4):
            return ETHERTYPE_CUT
        attribute = frame.data + start
        if attribute[3]:
            length = be16(attribute)
            kind = be16(attribute + 2)
        else:
            length = load16(attribute)
            kind = load16(attribute + 2)
        if length < 4:
            return ETHERTYPE_CUT
        if kind == NFLOG_PAYLOAD:
            at[0] = start + 4
            return ip_family(family)
        start += (length + 3) & ~<uint32_t>3
    return ETHERTYPE_NONE


cdef inline uint32_t after_cooked(uint32_t hardware, uint32_t protocol) noexcept nogil:
    if hardware == HARDWARE_RADIOTAP:
        return NEXT_LINK | LINK_RADIOTAP
    if hardware == HARDWARE_FRAME_RELAY:
        return NEXT_LINK | LINK_FRAME_RELAY
    if hardware == HARDWARE_NETLINK:
        return ETHERTYPE_NONE
    if protocol > LONGEST_8023:
        return protocol
    return NEXT_LLC if protocol == COOKED_LLC else <uint32_t>ETHERTYPE_NONE


cdef inline uint32_t read_cooked(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 direction | 2 hardware u16 | 4 address | 14 protocol u16
    cdef const uint8_t* header = frame.data + at[0]
    at[0] += 16
    return after_cooked(be16(header + 2), be16(header + 14))


cdef inline uint32_t read_cooked_2(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 protocol u16 | 2 other fields | 8 hardware u16 | 10 other fields
    cdef const uint8_t* header = frame.data + at[0]
    at[0] += 20
    return after_cooked(be16(header + 8), be16(header))


cdef inline uint32_t read_ppi(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 version | 1 flags | 2 length u16 | 4 link type u32 | fields; all little-endian
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t length = load16(header + 2)
    if length < 8:
        return ETHERTYPE_CUT
    at[0] += length
    return NEXT_LINK | load32(header + 4) if load32(header + 4) <= 0xFFFF else <uint32_t>ETHERTYPE_NONE


cdef inline uint32_t read_pktap(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 length u32 | 4 record type u32 (1: packet) | 8 link type u32 | other fields; all little-endian
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t length = load32(header)
    if length < 12 or not holds(frame, at[0], length):
        return ETHERTYPE_CUT
    at[0] += length
    if load32(header + 4) != 1 or load32(header + 8) > 0xFFFF:
        return ETHERTYPE_NONE
    return NEXT_LINK | load32(header + 8)


cdef inline uint32_t read_erf(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 time u64 | 8 type | 9 flags, lengths | 16 extension headers of 8 bytes each
    # The top bit of the type and of each extension header is set if another extension header follows.
    cdef uint32_t start = at[0]
    cdef uint8_t kind = frame.data[start + 8]
    cdef uint8_t next_byte = kind
    start += 16
    while next_byte & 0x80:
        if not holds(frame, start, 8):
            return ETHERTYPE_CUT
        next_byte = frame.data[start]
        start += 8
    kind &= 0x7F
    at[0] = start
    if kind == 1 or kind == 10 or kind == 15 or kind == 19:
        return NEXT_LINK | LINK_PPP_HDLC
    if kind == 5 or kind == 17:
        at[0] = start + 4       # multichannel header
        return NEXT_LINK | LINK_PPP_HDLC
    if kind == 2 or kind == 11 or kind == 16 or kind == 20:
        at[0] = start + 2       # alignment
        return NEXT_LINK | LINK_ETHERNET
    if kind == 22:
        return ETHERTYPE_IPV4
    if kind == 23:
        return ETHERTYPE_IPV6
    return ETHERTYPE_NONE


cdef inline uint32_t read_juniper_ethernet(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 "MGC" | 3 flags | [4 length u16 | that many bytes] | an Ethernet frame, or 4 bytes and an IP packet
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t length = 4
    if be32(header) >> 8 != 0x4D4743:
        return ETHERTYPE_CUT
    if header[3] & 0x80:
        if not holds(frame, at[0], 6):
            return ETHERTYPE_CUT
        length = 6 + be16(header + 4)
    at[0] += length
    if header[3] & 0x02:
        at[0] += 4
        return ip_version(frame, at[0], ETHERTYPE_NONE)
    return NEXT_LINK | LINK_ETHERNET
