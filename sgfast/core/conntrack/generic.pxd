# Protocols without a state table of their own (SPEC 5.2, 5.6, 5.7).

from libc.stdint cimport uint8_t

from sgfast.core.conntrack.states cimport BIDIRECTIONAL, ICMP_ALIVE


cdef inline uint8_t icmp_next() noexcept nogil:
    # ICMP queries and one-way ICMP: every valid packet prolongs. Which end asked is part of the key, so both ends may
    # ping each other with one identifier.
    return ICMP_ALIVE


cdef inline uint8_t generic_next(uint8_t state, bint reply) noexcept nogil:
    # Every protocol but TCP and ICMP: allowed one way so far, or both ways.
    return BIDIRECTIONAL if reply else state
