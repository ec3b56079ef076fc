# Transitions of protocols without a state table of their own (SPEC 5.2, 5.6, 5.7).

from libc.stdint cimport uint8_t

from sgfast.core.conntrack.states cimport BIDIRECTIONAL, ICMP_ALIVE


cdef inline uint8_t icmp_next() noexcept nogil:
    # Returns the next state for ICMP queries and one-way ICMP: every valid packet refreshes the timeout. The querier is
    # part of the key, so both ends can ping each other with the same identifier.
    return ICMP_ALIVE


cdef inline uint8_t generic_next(uint8_t state, bint reply) noexcept nogil:
    # Returns the next state for all protocols except TCP and ICMP: packets were allowed in one direction, or in both.
    return BIDIRECTIONAL if reply else state
