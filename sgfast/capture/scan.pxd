# One pass over the bytes at hand: where it stands, the frames it found, and why it stopped. Both formats fill it.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sgfast.core.base.frames cimport Frame


cdef enum:
    # Bytes. A longer packet or block is damage: lengths are claims, and only what arrives is ever allocated.
    LONGEST_RECORD = 256 * 1024 * 1024


cdef enum Stop:
    STOP_NOT        # went through
    STOP_FULL       # no room for another frame
    STOP_MORE       # the record at next is not all there; it takes `need` bytes
    STOP_DAMAGE     # the record at next is damaged; see `cause`
    STOP_LINK_TYPE  # the packet at next has link type `claimed`, which is not supported


cdef struct Scan:
    const uint8_t* data     # what is at hand
    int64_t data_offset     # where it stands in the capture, bytes
    const uint8_t* next     # the first record not yet taken
    const uint8_t* end
    Frame* frames
    Py_ssize_t capacity     # frames
    uint32_t vpc            # Frame.vpc of all frames whose interface does not say otherwise
    Py_ssize_t count        # frames found
    Stop stop
    uint64_t need           # bytes
    const char* cause       # one line with up to two {} for `claimed` and `limit`
    uint64_t claimed
    uint64_t limit


cdef inline void stop_for_more(Scan* scan, uint64_t need) noexcept nogil:
    scan.stop = STOP_MORE
    scan.need = need


cdef inline void stop_damaged(Scan* scan, const char* cause, uint64_t claimed, uint64_t limit) noexcept nogil:
    scan.stop = STOP_DAMAGE
    scan.cause = cause
    scan.claimed = claimed
    scan.limit = limit


cdef inline void stop_at_link_type(Scan* scan, uint32_t link_type) noexcept nogil:
    scan.stop = STOP_LINK_TYPE
    scan.claimed = link_type
