# The state of one scan of the buffered bytes, for all formats: its position, the frames found, and why it stopped.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport prefetch_read


cdef enum:
    # Bytes. A longer packet or block is damage. Memory is only allocated for bytes that have arrived, whatever length a
    # record claims.
    LONGEST_RECORD = 256 * 1024 * 1024
    # Limits of `guess_first`:
    IN_A_ROW = 8                # number of records that must follow each other
    SEARCHED = 2048             # bytes in which `guess_first` looks for the first record; most packets are shorter
    LONGEST_GUESSED = 1 << 18   # bytes; a larger length is not taken for a record's


cdef enum Stop:
    STOP_NOT        # the scan did not stop early
    STOP_FULL       # the frame array is full
    STOP_MORE       # the record at `next` is incomplete; it takes `need` bytes
    STOP_DAMAGE     # the record at `next` is damaged; see `cause`
    STOP_LINK_TYPE  # the packet at `next` has the unsupported link type `claimed`


cdef struct Scan:
    const uint8_t* data     # the buffered bytes
    int64_t data_offset     # offset of `data` in the capture, bytes
    const uint8_t* next     # the first record that is not consumed
    int64_t zeros           # bytes of records of zeros before `next` that are not in `frames` (pcap.pxd)
    const uint8_t* end
    Frame* frames
    Py_ssize_t capacity     # frames
    uint32_t vpc            # Frame.vpc, unless the packet's interface has its own
    uint64_t position       # Frame.position of the first frame; later frames count up from it
    Py_ssize_t count        # frames found
    Stop stop
    uint64_t need           # bytes
    const char* cause       # one line, with up to two {} for `claimed` and `limit`
    uint64_t claimed
    uint64_t limit


cdef inline void prefetch_later(const uint8_t* record, Py_ssize_t length) noexcept nogil:
    # Prefetches the header of a later record, which is the fourth after this one if all have the same length. Records
    # are not in the first-level cache, as another core may have read them, or the window is larger than that cache.
    prefetch_read(record + 4 * length)


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


# Returns the length of the record at `p` in bytes, header included. Returns 0 if the bytes do not look like a record.
# `first`: the first record of the sequence being tried, possibly `p` itself.
ctypedef Py_ssize_t (*LengthIfRecord)(const void* format, const uint8_t* first, const uint8_t* p) noexcept nogil


cdef inline const uint8_t* guess_first(
    LengthIfRecord length_if_record, const void* format, Py_ssize_t header, const uint8_t* start, const uint8_t* end
) noexcept nogil:
    # Returns the first place from `start` on where IN_A_ROW records seem to follow each other, or NULL. The bytes of a
    # packet may look like records, so the place may be wrong. `header`: length of a record's header, bytes.
    cdef const uint8_t* first = start
    cdef const uint8_t* p
    cdef Py_ssize_t length
    cdef int _record
    while first < start + SEARCHED:
        p = first
        for _record in range(IN_A_ROW):
            if end - p < header:
                return NULL
            length = length_if_record(format, first, p)
            if length == 0 or end - p < length:
                break
            p += length
        else:
            return first
        first += 1
    return NULL
