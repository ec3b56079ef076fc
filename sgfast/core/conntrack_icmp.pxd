# ICMP queries and one-way ICMP (SPEC 5.1, 5.6): a single state that every valid packet prolongs. Which end asked is
# part of the key, so both ends may ping each other with one identifier.

from libc.stdint cimport uint8_t

cdef enum:         # IcmpState
    ICMP_ALIVE = 10


cdef inline uint8_t icmp_next() noexcept nogil:
    return ICMP_ALIVE
