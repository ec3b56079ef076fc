# The tuples that may end within one tick of the timer wheel, the earliest first: a binary heap.
#
# Only a full table asks for more than ticks (SPEC 5.8): then every new tuple wants to know what has ended by now, to
# the nanosecond. An item is a hint. A tuple may have been prolonged since, or ended and its slot be another's; whoever
# takes an item looks at the entry. What must hold is that no tuple ends earlier than some item says.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset


cdef struct HeapItem:
    int64_t deadline
    uint32_t slot


cdef struct ExpiryHeap:
    HeapItem* items
    uint32_t count
    uint32_t capacity
    uint64_t tick           # whose tuples these are; 0: nobody's, the heap must be filled before it is used


cdef inline void free_heap(ExpiryHeap* heap) noexcept nogil:
    free(heap.items)
    memset(heap, 0, sizeof(ExpiryHeap))


cdef inline bint push_expiry(ExpiryHeap* heap, int64_t deadline, uint32_t slot) noexcept nogil:
    # False: there is no memory.
    cdef uint32_t at = heap.count
    cdef uint32_t parent, capacity
    cdef HeapItem* grown
    if heap.count == heap.capacity:
        if heap.capacity >= <uint32_t>1 << 31:
            return False
        capacity = heap.capacity * 2 if heap.capacity else 1024
        grown = <HeapItem*>realloc(heap.items, <size_t>capacity * sizeof(HeapItem))
        if grown == NULL:
            return False
        heap.items = grown
        heap.capacity = capacity
    heap.count += 1
    while at:
        parent = (at - 1) >> 1
        if heap.items[parent].deadline <= deadline:
            break
        heap.items[at] = heap.items[parent]
        at = parent
    heap.items[at].deadline = deadline
    heap.items[at].slot = slot
    return True


cdef inline uint32_t pop_expiry(ExpiryHeap* heap) noexcept nogil:
    # The slot of the earliest item; the heap must not be empty.
    cdef uint32_t earliest = heap.items[0].slot
    cdef uint32_t at = 0
    cdef uint32_t child
    cdef HeapItem last
    heap.count -= 1
    last = heap.items[heap.count]
    while True:
        child = 2 * at + 1
        if child >= heap.count:
            break
        if child + 1 < heap.count and heap.items[child + 1].deadline < heap.items[child].deadline:
            child += 1
        if last.deadline <= heap.items[child].deadline:
            break
        heap.items[at] = heap.items[child]
        at = child
    heap.items[at] = last
    return earliest
