# What a link header says comes next, and what all readers of headers use (SPEC 3.1).
#
# A reader reads one header at `at`, steps over it and returns what comes next, in the numbers below. A header that
# claims to be longer than what was captured may leave `at` beyond it: link.pyx sees that before anything else is read.

from libc.stdint cimport uint8_t, uint32_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport be16


ctypedef uint32_t (*HeaderReader)(const Frame* frame, uint32_t* at) noexcept nogil


cdef enum:
    # Ethertypes are below 0x10000, and up to 1500 they are the length of an 802.3 frame: LLC comes next.
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86DD
    LONGEST_8023 = 1500         # bytes
    ETHERTYPE_NONE = 0x10000    # no IP inside
    ETHERTYPE_CUT = 0x10001     # a header is cut short, contradicts itself, or claims the wrong IP version

    # LINKTYPE_ numbers are ORed to this.
    NEXT_LINK = 0x20000

    # Headers that no LINKTYPE_ number begins with.
    NEXT_LLC = 0x40000
    NEXT_PPP_PROTOCOL = 0x40001         # PPP without address and control
    NEXT_80211_PADDED = 0x40002         # the header of an 802.11 frame is padded to words

    # LINKTYPE_ numbers that code names; link.pyx has all of them.
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
    # The protocol is not told: IP begins with its version.
    cdef uint8_t version
    if not holds(frame, at, 1):
        return ETHERTYPE_CUT
    version = frame.data[at] >> 4
    if version == 4:
        return ETHERTYPE_IPV4
    if version == 6:
        return ETHERTYPE_IPV6
    return otherwise


cdef inline uint32_t read_ethertype(const Frame* frame, uint32_t* at, uint32_t place, uint32_t length) noexcept nogil:
    # A header of length bytes with an ethertype at place.
    cdef uint32_t start = at[0]
    if not holds(frame, start, length):
        return ETHERTYPE_CUT
    at[0] = start + length
    return be16(frame.data + start + place)


cdef inline uint32_t skip(const Frame* frame, uint32_t* at, uint32_t length, uint32_t after) noexcept nogil:
    # A header of length bytes that tells nothing.
    if not holds(frame, at[0], length):
        return ETHERTYPE_CUT
    at[0] += length
    return after
