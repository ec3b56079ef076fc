# The link types whose frames the data plane can read, www.tcpdump.org/linktypes.html.

from libc.stdint cimport uint32_t


cdef enum:
    LINKTYPE_NULL = 0
    LINKTYPE_ETHERNET = 1
    LINKTYPE_RAW = 101
    LINKTYPE_LOOP = 108
    LINKTYPE_LINUX_SLL = 113
    LINKTYPE_IPV4 = 228
    LINKTYPE_IPV6 = 229
    LINKTYPE_LINUX_SLL2 = 276

    # What some systems' libpcap wrote for LINKTYPE_RAW: their own DLT_RAW.
    DLT_RAW = 12
    DLT_RAW_OPENBSD = 14


cdef inline uint32_t canonical_link_type(uint32_t written) noexcept nogil:
    return LINKTYPE_RAW if written == DLT_RAW or written == DLT_RAW_OPENBSD else written


cdef inline bint is_supported_link_type(uint32_t link_type) noexcept nogil:
    return (link_type == LINKTYPE_NULL or link_type == LINKTYPE_ETHERNET or link_type == LINKTYPE_RAW
            or link_type == LINKTYPE_LOOP or link_type == LINKTYPE_LINUX_SLL or link_type == LINKTYPE_IPV4
            or link_type == LINKTYPE_IPV6 or link_type == LINKTYPE_LINUX_SLL2)
