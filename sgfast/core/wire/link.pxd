# From the first byte of a frame to its IP header: link headers, and the tags below IP (SPEC 3.1).

from libc.stdint cimport uint32_t

from sgfast.core.base.frames cimport Frame


cdef enum LinkKind:
    LINK_UNKNOWN        # not read; what its frames hold is not known
    LINK_WITHOUT_IP     # none of its frames holds IP
    LINK_WITH_IP        # read


# ETHERTYPE_IPV4, _IPV6, _NONE or _CUT; where IP begins, at most at the end of what was captured. Frames of every link
# type can be given: those that are not read have no IP inside.
cdef uint32_t find_ip(const Frame* frame, uint32_t* offset) noexcept nogil

# The ethertype of what stands below the link header, be it IP, a tag or something else, and where that begins; or
# ETHERTYPE_NONE or _CUT.
cdef uint32_t find_tags(const Frame* frame, uint32_t* offset) noexcept nogil

# The LINKTYPE_ number that a capture file means by a number.
cdef uint32_t canonical_link_type(uint32_t written) noexcept nogil

cdef LinkKind kind_of_link(uint32_t link_type) noexcept nogil
