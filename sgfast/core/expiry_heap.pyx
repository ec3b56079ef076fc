"""Who ends next within a tick; what the heap promises stands in ``expiry_heap.pxd``."""

from libc.stdlib cimport free, realloc
from libc.string cimport memset


cdef void free_heap(ExpiryHeap* heap) noexcept nogil:
    free(heap.items)
    memset(heap, 0, sizeof(ExpiryHeap))


cdef bint push_expiry(ExpiryHeap* heap, int64_t deadline, uint32_t slot) noexcept nogil:
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


cdef uint32_t pop_expiry(ExpiryHeap* heap) noexcept nogil:
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
