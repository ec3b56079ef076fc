# From the first byte of a frame to its IP header: link headers, and the tags below IP (SPEC 3.1).

from libc.stdint cimport uint8_t, uint32_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport be16


cdef enum:
    # What a header says comes next. Ethertypes are below 0x10000, and up to 1500 they are the length of an 802.3
    # frame: LLC comes next.
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

    # LINKTYPE_ numbers.
    LINK_NULL = 0
    LINK_ETHERNET = 1
    LINK_TOKEN_RING = 6
    LINK_ARCNET_BSD = 7
    LINK_SLIP = 8
    LINK_PPP = 9
    LINK_FDDI = 10
    LINK_RAW_BSD = 12
    LINK_RAW_OPENBSD = 14
    LINK_PPP_HDLC = 50
    LINK_PPP_ETHER = 51
    LINK_ATM_RFC1483 = 100
    LINK_RAW = 101
    LINK_SLIP_BSDOS = 102
    LINK_C_HDLC = 104
    LINK_80211 = 105
    LINK_ATM_CLIP = 106
    LINK_FRAME_RELAY = 107
    LINK_LOOP = 108
    LINK_ENC = 109
    LINK_SLL = 113
    LINK_PFLOG = 117
    LINK_PRISM = 119
    LINK_IP_OVER_FC = 122
    LINK_SUNATM = 123
    LINK_RADIOTAP = 127
    LINK_ARCNET_LINUX = 129
    LINK_IEEE1394 = 138
    LINK_DOCSIS = 143
    LINK_AVS = 163
    LINK_PPP_PPPD = 166
    LINK_JUNIPER_ETHERNET = 178
    LINK_MULTILINK_FRAME_RELAY = 182
    LINK_PPI = 192
    LINK_ERF = 197
    LINK_PPP_WITH_DIRECTION = 204
    LINK_C_HDLC_WITH_DIRECTION = 205
    LINK_FRAME_RELAY_WITH_DIRECTION = 206
    LINK_MPLS = 219
    LINK_IPNET = 226
    LINK_IPV4 = 228
    LINK_IPV6 = 229
    LINK_NFLOG = 239
    LINK_IPOIB = 242
    LINK_PKTAP = 258
    LINK_SLL2 = 276
    LINK_DSA_BROADCOM = 281
    LINK_DSA_BROADCOM_PREPENDED = 282
    LINK_DSA = 284
    LINK_EDSA = 285

    # Headers and tags before IP, the outermost included; a frame with more is malformed, as nothing may be let
    # through only because it is wrapped too often. Linux pushes at most 30 MPLS labels at once, and five or six
    # headers are what radios, tunnels and bridges need at most.
    MOST_HEADERS = 40


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


# ETHERTYPE_IPV4, _IPV6, _NONE or _CUT; where IP begins, at most at the end of what was captured. Frames of every link
# type can be given: those that are not read have no IP inside.
cdef uint32_t find_ip(const Frame* frame, uint32_t* offset) noexcept nogil

# The ethertype of what stands below the link header, be it IP, a tag or something else, and where that begins; or
# ETHERTYPE_NONE or _CUT.
cdef uint32_t find_tags(const Frame* frame, uint32_t* offset) noexcept nogil
