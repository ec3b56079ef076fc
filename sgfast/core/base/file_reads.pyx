"""Reads of files that any idle thread may do. ``file_reads.pxd`` explains the design."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free

from sgfast.core.base.backoff cimport back_off
from sgfast.core.base.intrinsics cimport add_ordered, load_ordered, swap_if_ordered, swap_ordered
from sgfast.core.base.memory cimport allocate_pages

cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <time.h>
    #include <unistd.h>
    static inline int64_t sg_monotonic_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
    """
    int64_t monotonic_ns "sg_monotonic_ns"()
    int getpid()
    Py_ssize_t pread(int descriptor, void* to, size_t size, int64_t at)

cdef enum ReadState:
    FREE = 0
    TAKEN           # the read's fields are being written
    WANTED
    BUSY
    DONE

cdef enum:
    MOST_READS = 16
    CHECKS = 64             # number of checks between two looks at the time
    LATE_NS = 250_000       # reading a window and its headers takes a quarter of this, or half on a slow processor


cdef inline void do_read(Read* read) noexcept nogil:
    # If fewer bytes are read, the capture reader reads on from there in the usual way, and so finds the reason.
    read.got = pread(read.descriptor, read.to, <size_t>read.size, read.at)
    if read.got == read.size:
        read.on_read(read.context)
    swap_ordered(&read.state, DONE)


cdef class FileReads:
    """Up to 16 reads, which any thread may do. Only one thread at a time may request, finish and drop reads."""

    def __cinit__(self):
        # Memory for the places, and one cache line for each counter.
        self.reads = <Read*>allocate_pages((MOST_READS + 2) * sizeof(Read))
        if self.reads == NULL:
            raise MemoryError
        self.wanted = &self.reads[MOST_READS].number
        self.numbered = &self.reads[MOST_READS + 1].number
        self.process = getpid()

    def __dealloc__(self):
        free(self.reads)
        free(<void*>self.preparation)

    @property
    def waiting(self):
        """The number of reads that no thread has begun."""
        return load_ordered(self.wanted)

    cdef Read* want(
        self, int descriptor, uint8_t* to, Py_ssize_t size, int64_t at, void (*on_read)(void*) noexcept nogil,
        void* context
    ) noexcept nogil:
        cdef Read* read
        cdef int i
        for i in range(MOST_READS):
            read = &self.reads[i]
            if load_ordered(&read.state) == FREE and swap_if_ordered(&read.state, FREE, TAKEN):
                swap_ordered(&read.number, add_ordered(self.numbered, 1))
                read.descriptor = descriptor
                read.to = to
                read.size = size
                read.at = at
                read.on_read = on_read
                read.context = context
                add_ordered(self.wanted, 1)
                swap_ordered(&read.state, WANTED)
                return read
        return NULL

    cdef bint begin(self, Read* read) noexcept nogil:
        # Marks a read as begun. Returns False if another thread has begun it.
        if not swap_if_ordered(&read.state, WANTED, BUSY):
            return False
        add_ordered(self.wanted, <uint64_t>-1)
        return True

    cdef bint do_next(self) noexcept nogil:
        cdef Read* first
        cdef Read* read
        cdef int i
        while wants_reads(self):
            first = NULL
            for i in range(MOST_READS):
                read = &self.reads[i]
                if load_ordered(&read.state) == WANTED and (
                    first == NULL or load_ordered(&read.number) < load_ordered(&first.number)
                ):
                    first = read
            if first == NULL:
                return False
            if self.begin(first):
                do_read(first)
                return True
        return False

    cdef Py_ssize_t finish(self, Read* read) noexcept nogil:
        cdef Py_ssize_t got = -1
        cdef int64_t began = 0
        cdef int64_t now
        cdef int turn = 0
        if self.begin(read):
            do_read(read)
        # A forked child has no threads that could ever do the read.
        elif getpid() == self.process:
            while load_ordered(&read.state) != DONE:
                # While this thread waits, it does a read that is needed later.
                if not self.do_next():
                    if turn % CHECKS == 0:
                        now = monotonic_ns()
                        began = now if turn == 0 else began
                        if now - began > LATE_NS:
                            return LATE
                    back_off(turn, load_ordered(&self.crowded))
                    turn += 1
        if load_ordered(&read.state) == DONE:
            got = read.got
        swap_ordered(&read.state, FREE)
        return got

    cdef bint is_over(self, Read* read) noexcept nogil:
        return load_ordered(&read.state) == DONE and swap_ordered(&read.state, FREE) == DONE

    cdef void drop(self, Read** reads, Py_ssize_t count) noexcept nogil:
        cdef Py_ssize_t i
        cdef int turn = 0
        for i in range(count):
            if self.begin(reads[i]):
                swap_ordered(&reads[i].state, DONE)
        for i in range(count):
            # A forked child does not wait for the reading threads: they exist only in its parent, and write only to the
            # parent's memory.
            while load_ordered(&reads[i].state) != DONE and getpid() == self.process:
                back_off(turn, load_ordered(&self.crowded))
                turn += 1
            swap_ordered(&reads[i].state, FREE)
