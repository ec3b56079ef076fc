# The numbers by which readers report the next header, and helpers for all readers (SPEC 3.1).
#
# A reader parses the header at `at`, advances `at` past it and returns the type of the next header as one of the
# numbers below. A header may claim more bytes than were captured, so `at` may end up beyond the frame. link.pyx checks
# that before the next header is read.

from libc.stdint cimport uint8_t, uint32_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport be16


ctypedef uint32_t (*HeaderReader)(const Frame* frame, uint32_t* at) noexcept nogil


cdef enum:
    # EtherTypes are below 0x10000. A value up to 1500 is the length of an 802.3 frame, and an LLC header comes next.
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86DD
    LONGEST_8023 = 1500         # bytes
    ETHERTYPE_NONE = 0x10000    # the frame holds no IP
    ETHERTYPE_CUT = 0x10001     # a header is cut short or contradicts itself, or the IP version is wrong

    # Flag for a LINKTYPE_ number in the low bits.
    NEXT_LINK = 0x20000

    # Headers that have no LINKTYPE_ number.
    NEXT_LLC = 0x40000
    NEXT_PPP_PROTOCOL = 0x40001         # PPP without its address and control bytes
    NEXT_80211_PADDED = 0x40002         # 802.11 frame whose header is padded to a multiple of 4 bytes

    # For headers in the table of link.pyx that have a fixed length.
    NEXT_IP = 0x80000                   # IP of the version in its first byte
    ETHERTYPE_AT = 0x100000             # flag: the low bits are the offset of the EtherType

    # The LINKTYPE_ numbers that the code refers to; link.pyx has the full list.
    LINK_ETHERNET = 1
    LINK_PPP = 9
    LINK_PPP_HDLC = 50
    LINK_ATM_RFC1483 = 100
    LINK_RAW = 101
    LINK_C_HDLC = 104
    LINK_80211 = 105
    LINK_FRAME_RELAY = 107
    LINK_RADIOTAP = 127
    LINK_AVS = 163
    LINK_IPV4 = 228
    LINK_IPV6 = 229


cdef inline bint holds(const Frame* frame, uint32_t at, uint32_t length) noexcept nogil:
    return at <= frame.captured and frame.captured - at >= length


cdef inline uint32_t ip_version(const Frame* frame, uint32_t at, uint32_t otherwise) noexcept nogil:
    # Returns the EtherType by the version in the first byte of the IP header, as no field names the protocol.
    cdef uint8_t version
    if not holds(frame, at, 1):
        return ETHERTYPE_CUT
    version = frame.data[at] >> 4
    if version == 4:
        return ETHERTYPE_IPV4
    if version == 6:
        return ETHERTYPE_IPV6
    return otherwise


cdef inline uint32_t read_ethertype(const Frame* frame, uint32_t* at, uint32_t offset, uint32_t length) noexcept nogil:
    # Skips a header of `length` bytes that has an EtherType at `offset`.
    cdef uint32_t start = at[0]
    if not holds(frame, start, length):
        return ETHERTYPE_CUT
    at[0] = start + length
    return be16(frame.data + start + offset)


cdef inline uint32_t skip(const Frame* frame, uint32_t* at, uint32_t length, uint32_t after) noexcept nogil:
    # Skips a header of `length` bytes whose content does not matter.
    if not holds(frame, at[0], length):
        return ETHERTYPE_CUT
    at[0] += length
    return after
