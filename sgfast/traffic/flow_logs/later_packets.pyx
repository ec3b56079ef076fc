"""A heap of packets to come, the earliest first."""

from libc.stdlib cimport free, malloc, realloc


cdef class LaterPackets:
    def __cinit__(self):
        self.capacity = 1 << 10
        self.heap = <Later*>malloc(self.capacity * sizeof(Later))
        if self.heap == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.heap)

    cdef bint push(self, const Later* later) noexcept nogil:
        # Returns False if there is no memory.
        cdef Py_ssize_t at = self.count
        cdef Py_ssize_t above
        cdef Later* heap
        if at == self.capacity:
            heap = <Later*>realloc(self.heap, 2 * self.capacity * sizeof(Later))
            if heap == NULL:
                return False
            self.heap = heap
            self.capacity *= 2
        heap = self.heap
        self.count += 1
        self.order += 1
        while at > 0:
            above = (at - 1) >> 1
            if heap[above].time_ns <= later.time_ns:
                break
            heap[at] = heap[above]
            at = above
        heap[at] = later[0]
        heap[at].order = self.order
        return True

    cdef void pop(self) noexcept nogil:
        cdef Later* heap = self.heap
        cdef Later last
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t child
        self.count -= 1
        last = heap[self.count]
        while True:
            child = 2 * at + 1
            if child >= self.count:
                break
            if child + 1 < self.count and is_before(&heap[child + 1], &heap[child]):
                child += 1
            if not is_before(&heap[child], &last):
                break
            heap[at] = heap[child]
            at = child
        heap[at] = last


cdef inline bint is_before(const Later* a, const Later* b) noexcept nogil:
    return a.time_ns < b.time_ns or (a.time_ns == b.time_ns and a.order < b.order)
