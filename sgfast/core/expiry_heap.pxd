# The tuples that may end within one tick of the timer wheel, the earliest first: a binary heap.
#
# Only a full table asks for more than ticks (SPEC 5.8): then every new tuple wants to know what has ended by now, to
# the nanosecond. An item is a hint. A tuple may have been prolonged since, or ended and its slot be another's; whoever
# takes an item looks at the entry. What must hold is that no tuple ends earlier than some item says.

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef struct HeapItem:
    int64_t deadline
    uint32_t slot


cdef struct ExpiryHeap:
    HeapItem* items
    uint32_t count
    uint32_t capacity
    uint64_t tick           # whose tuples these are; 0: nobody's, the heap must be filled before it is used


cdef void free_heap(ExpiryHeap* heap) noexcept nogil
cdef bint push_expiry(ExpiryHeap* heap, int64_t deadline, uint32_t slot) noexcept nogil     # False: no memory
cdef uint32_t pop_expiry(ExpiryHeap* heap) noexcept nogil       # the earliest's slot; the heap must not be empty
