# Every protocol but TCP and ICMP (SPEC 5.2, 5.7): allowed one way so far, or both ways.

from libc.stdint cimport uint8_t

cdef enum:         # OtherState
    UNIDIRECTIONAL = 11
    BIDIRECTIONAL = 12


cdef inline uint8_t other_next(uint8_t state, bint reply) noexcept nogil:
    return BIDIRECTIONAL if reply else state
