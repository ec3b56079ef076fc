# A heap of packets to come, the earliest first.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


# Packets of a record that come after its start.
cdef struct Later:
    int64_t time_ns
    uint64_t order
    int64_t until_ns        # keeps the connection alive up to this time; then `packets` and `nbytes` are 0
    uint64_t packets
    uint64_t nbytes
    uint64_t position
    uint32_t conversation
    uint8_t way
    uint8_t flags
    uint8_t which           # 1: rejected packets, else 0
    int64_t step            # the time between frames that keep the connection alive


cdef class LaterPackets:
    cdef Later* heap
    cdef Py_ssize_t count, capacity
    cdef uint64_t order

    cdef bint push(self, const Later* later) noexcept nogil
    cdef void pop(self) noexcept nogil
