# Finds the IP header in a frame, behind the link header and any tags (SPEC 3.1).

from libc.stdint cimport uint32_t

from sgfast.core.base.frames cimport Frame


cdef enum LinkKind:
    LINK_UNKNOWN        # unknown or not supported: frames may hold IP
    LINK_WITHOUT_IP     # frames never hold IP
    LINK_WITH_IP        # supported


# Returns ETHERTYPE_IPV4, _IPV6, _NONE or _CUT. Stores the offset of the IP header, which is at most the captured
# length. The frame may have any link type; for an unsupported link type the result is ETHERTYPE_NONE.
cdef uint32_t find_ip(const Frame* frame, uint32_t* offset) noexcept nogil

# Returns the EtherType of the header behind the link header (IP, a tag or another protocol) and stores its offset.
# Returns ETHERTYPE_NONE or _CUT if there is no such header.
cdef uint32_t find_tags(const Frame* frame, uint32_t* offset) noexcept nogil

# Maps a link type number of a capture file to the LINKTYPE_ number with the same meaning.
cdef uint32_t canonical_link_type(uint32_t number) noexcept nogil

cdef LinkKind kind_of_link(uint32_t link_type) noexcept nogil
