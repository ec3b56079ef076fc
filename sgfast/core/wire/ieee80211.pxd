# 802.11 frames, and the headers that radios put in front of them.
#
# HeaderReaders of next_header.pxd, called only where as many bytes were captured as the table in link.pyx says; `holds`
# stands before each look at more of them.
#
# Only data frames that are not encrypted have IP inside. An aggregate (A-MSDU) holds several packets: its first is
# read. Of a frame in fragments the first is read.

from libc.stdint cimport uint8_t, uint32_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport be32, load16, load32
from sgfast.core.wire.next_header cimport (
    ETHERTYPE_CUT,
    ETHERTYPE_NONE,
    LINK_80211,
    LINK_AVS,
    NEXT_80211_PADDED,
    NEXT_LINK,
    NEXT_LLC,
    holds,
)

cdef enum:
    # The first byte of a frame.
    FRAME_KIND = 0x0F           # version 0, and the type
    FRAME_IS_DATA = 0x08
    FRAME_WITHOUT_DATA = 0x40
    FRAME_HAS_QOS = 0x80
    # The second.
    FRAME_BOTH_WAYS = 0x03      # between access points: four addresses
    FRAME_PROTECTED = 0x40
    FRAME_HAS_HT_CONTROL = 0x80     # with QoS
    # The first byte of QoS.
    QOS_IS_AGGREGATE = 0x80
    AGGREGATE_HEADER = 14       # bytes: destination, source, length

    # Which fields a radiotap header has, and the field of flags.
    RADIOTAP_TIME = 1
    RADIOTAP_FLAGS = 2
    RADIOTAP_PADDED = 0x20

    PRISM_HEADER = 144          # bytes


cdef inline uint32_t read_data_frame(const Frame* frame, uint32_t* at, bint padded) noexcept nogil:
    # 0 control | 2 duration | 4 three addresses | 22 fragment and sequence number u16 | [24 fourth address]
    # | [QoS u16] | [HT control u32] | [padding to words]
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t length = 24
    cdef uint32_t aggregate = 0
    if not holds(frame, at[0], 2):
        return ETHERTYPE_CUT
    if header[0] & FRAME_KIND != FRAME_IS_DATA or header[0] & FRAME_WITHOUT_DATA or header[1] & FRAME_PROTECTED:
        return ETHERTYPE_NONE
    if header[1] & FRAME_BOTH_WAYS == FRAME_BOTH_WAYS:
        length += 6
    if not holds(frame, at[0], length):
        return ETHERTYPE_CUT
    if header[22] & 0x0F:
        return ETHERTYPE_NONE       # a later fragment
    if header[0] & FRAME_HAS_QOS:
        if not holds(frame, at[0], length + 2):
            return ETHERTYPE_CUT
        if header[length] & QOS_IS_AGGREGATE:
            aggregate = AGGREGATE_HEADER
        length += 6 if header[1] & FRAME_HAS_HT_CONTROL else 2
    if padded:
        length = (length + 3) & ~<uint32_t>3
    at[0] += length + aggregate
    return NEXT_LLC


cdef inline uint32_t read_80211(const Frame* frame, uint32_t* at) noexcept nogil:
    return read_data_frame(frame, at, False)


cdef inline uint32_t read_radiotap(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 version | 1 padding | 2 length u16 | 4 which fields there are u32, more of them while the upper bit is set
    # | [time u64, aligned] | [flags u8] | more; little-endian
    cdef const uint8_t* header = frame.data + at[0]
    cdef uint32_t length = load16(header + 2)
    cdef uint32_t present
    cdef uint32_t fields = 8
    if length < 8 or not holds(frame, at[0], length):
        return ETHERTYPE_CUT
    at[0] += length
    present = load32(header + 4)
    while load32(header + fields - 4) & <uint32_t>0x80000000:
        fields += 4
        if fields > length:
            return ETHERTYPE_CUT
    if not present & RADIOTAP_FLAGS:
        return NEXT_LINK | LINK_80211
    if present & RADIOTAP_TIME:
        fields = ((fields + 7) & ~<uint32_t>7) + 8
    if fields >= length:
        return ETHERTYPE_CUT
    return NEXT_80211_PADDED if header[fields] & RADIOTAP_PADDED else NEXT_LINK | LINK_80211


cdef inline uint32_t read_avs(const Frame* frame, uint32_t* at) noexcept nogil:
    # 0 version u32 | 4 length u32 | more
    cdef uint32_t length = be32(frame.data + at[0] + 4)
    if length < 8 or not holds(frame, at[0], length):
        return ETHERTYPE_CUT
    at[0] += length
    return NEXT_LINK | LINK_80211


cdef inline uint32_t read_prism(const Frame* frame, uint32_t* at) noexcept nogil:
    # As long as it ever was; or the header that came after it, told by its version.
    if be32(frame.data + at[0]) >> 12 == 0x80211:
        return NEXT_LINK | LINK_AVS
    at[0] += PRISM_HEADER
    return NEXT_LINK | LINK_80211
