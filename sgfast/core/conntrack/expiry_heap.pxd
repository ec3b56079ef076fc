# A binary heap of the tuples that may end within one tick of the timer wheel, the earliest first.
#
# Only a full table needs a finer resolution than ticks (SPEC 5.8): for each new tuple it must know which tuples have
# ended by now, to the nanosecond. An item is only a hint: its tuple may have been prolonged, or may have ended and its
# slot been reused, so the entry must be checked. Invariant: each tuple that ends in the tick has an item whose deadline
# is not later than the tuple's end.

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
    uint64_t tick           # the tick in which the tuples may end; 0 if the heap is invalid and must be filled


cdef inline void free_heap(ExpiryHeap* heap) noexcept nogil:
    free(heap.items)
    memset(heap, 0, sizeof(ExpiryHeap))


cdef inline bint push_expiry(ExpiryHeap* heap, int64_t deadline, uint32_t slot) noexcept nogil:
    # Adds an item. Returns False if there is no memory. `deadline` in nanoseconds.
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
    # Removes the earliest item and returns its slot. The heap must not be empty.
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
