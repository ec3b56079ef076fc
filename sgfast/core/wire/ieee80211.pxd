# 802.11 frames, and the headers that radios put in front of them.
#
# Each function is a HeaderReader (next_header.pxd). Its caller has checked that the minimum number of bytes in the
# table in link.pyx was captured. The function calls `holds` before it reads any byte beyond that minimum.
#
# Only unencrypted data frames hold readable IP. Of an aggregate (A-MSDU), which holds several packets, only the first
# packet is read. Of a fragmented frame, only the first fragment is read.

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
    # Bits of the first byte of a frame.
    FRAME_KIND = 0x0F           # version (must be 0) and type
    FRAME_IS_DATA = 0x08
    FRAME_WITHOUT_DATA = 0x40
    FRAME_HAS_QOS = 0x80
    # Bits of the second byte.
    FRAME_BOTH_WAYS = 0x03      # to and from the distribution system: four addresses
    FRAME_PROTECTED = 0x40
    FRAME_HAS_HT_CONTROL = 0x80     # if the frame has QoS
    # Bits of the first QoS byte.
    QOS_IS_AGGREGATE = 0x80
    AGGREGATE_HEADER = 14       # bytes for destination, source and length

    # Radiotap: bits of the presence mask, and a bit of the flags field.
    RADIOTAP_TIME = 1
    RADIOTAP_FLAGS = 2
    RADIOTAP_PADDED = 0x20

    PRISM_HEADER = 144          # bytes


cdef inline uint32_t read_data_frame(const Frame* frame, uint32_t* at, bint padded) noexcept nogil:
    # 0 frame control | 2 duration | 4 three addresses | 22 fragment and sequence number u16 | [24 fourth address]
    # | [QoS u16] | [HT control u32] | [padding to a multiple of 4]
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
        return ETHERTYPE_NONE       # not the first fragment
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
    # 0 version | 1 padding | 2 length u16 | 4 presence mask u32, repeated while its top bit is set
    # | [time u64, aligned] | [flags u8] | other fields; all little-endian
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
    # 0 version u32 | 4 length u32 | other fields
    cdef uint32_t length = be32(frame.data + at[0] + 4)
    if length < 8 or not holds(frame, at[0], length):
        return ETHERTYPE_CUT
    at[0] += length
    return NEXT_LINK | LINK_80211


cdef inline uint32_t read_prism(const Frame* frame, uint32_t* at) noexcept nogil:
    # A Prism header always has the same length. AVS headers occur under the same link type, with another version.
    if be32(frame.data + at[0]) >> 12 == 0x80211:
        return NEXT_LINK | LINK_AVS
    at[0] += PRISM_HEADER
    return NEXT_LINK | LINK_80211
