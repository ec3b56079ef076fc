# What the data plane finds in frames of each link type, www.tcpdump.org/linktypes.html.

from libc.stdint cimport uint32_t


cdef enum:
    LINKTYPE_ETHERNET = 1
    LINKTYPE_ATM_RFC1483 = 100
    LINKTYPE_RAW = 101
    LINKTYPE_ATM_CLIP = 106

    # What some systems' libpcap wrote for these: their own DLT_ numbers.
    DLT_ATM_RFC1483 = 11
    DLT_RAW = 12
    DLT_RAW_OPENBSD = 14
    DLT_ATM_CLIP = 19


cdef enum LinkKind:
    LINK_WITH_IP        # read
    LINK_WITHOUT_IP     # none of its frames holds IP
    LINK_UNKNOWN        # not read; what its frames hold is not known


cdef inline uint32_t canonical_link_type(uint32_t written) noexcept nogil:
    if written == DLT_RAW or written == DLT_RAW_OPENBSD:
        return LINKTYPE_RAW
    if written == DLT_ATM_RFC1483:
        return LINKTYPE_ATM_RFC1483
    return LINKTYPE_ATM_CLIP if written == DLT_ATM_CLIP else written


cdef inline LinkKind kind_of_link(uint32_t link_type) noexcept nogil:
    # The first are those that sgfast.core.wire.link reads; names.py has all their names.
    if link_type in (
        0, 1, 6, 7, 8, 9, 10, 50, 51, 100, 101, 102, 104, 105, 106, 107, 108, 109, 113, 117, 119, 122, 123, 127, 129,
        138, 143, 163, 166, 178, 182, 192, 197, 204, 205, 206, 219, 226, 228, 229, 239, 242, 258, 276, 281, 282, 284,
        285,
    ):
        return LINK_WITH_IP
    # Telephone signalling, serial and field buses, USB, Bluetooth, CAN, and sockets of other kinds.
    if link_type in (
        114, 139, 140, 141, 142, 144, 165, 177, 186, 187, 189, 190, 201, 220, 227, 231, 248, 249, 251, 253, 254, 255,
        256, 265, 266, 271, 272, 288,
    ):
        return LINK_WITHOUT_IP
    return LINK_UNKNOWN
