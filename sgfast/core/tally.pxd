# Counting packets by who was refused what: a small hash table that is full at a fixed size, for the report.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    TALLY_GROUPS = 1 << 16      # more groups than a person reads; the rest is counted as others
    TALLY_CELLS = 1 << 17


cdef packed struct TallyRow:
    uint8_t peer[16]            # network byte order; IPv4 in the first four bytes
    int32_t instance            # whose filter
    uint16_t port_key           # destination port, or ICMP type << 8 | code
    uint8_t protocol
    uint8_t reason
    uint8_t inbound
    uint8_t family
    uint8_t has_ports
    uint8_t has_icmp
    uint32_t spare
    uint64_t packets            # 0: a free cell
    uint64_t bytes


cdef struct Tally:
    TallyRow* cells
    uint32_t groups
    uint64_t secret
    uint64_t other_packets      # of groups that found no room


cdef int init_tally(Tally* tally, uint64_t secret) except -1
cdef void free_tally(Tally* tally) noexcept nogil
cdef void prefetch_cell(const Tally* tally, const TallyRow* key) noexcept nogil
cdef void count(Tally* tally, const TallyRow* key, uint64_t nbytes) noexcept nogil
# A row of another tally, counters and all. False: there is no room.
cdef bint add_row(Tally* tally, const TallyRow* row) noexcept nogil
