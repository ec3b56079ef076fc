"""Reads of files that any idle thread may do. ``file_reads.pxd`` explains how."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free

from sgfast.core.base.backoff cimport back_off
from sgfast.core.base.intrinsics cimport add_ordered, load_ordered, swap_if_ordered, swap_ordered
from sgfast.core.base.memory cimport allocate_pages

cdef extern from * nogil:
    """
    #include <errno.h>
    #include <unistd.h>
    /* Reads until there are `size` bytes, or no more. */
    static Py_ssize_t sg_read_at(int descriptor, uint8_t *to, Py_ssize_t size, int64_t at) {
        Py_ssize_t got = 0;
        while (got < size) {
            ssize_t count = pread(descriptor, to + got, (size_t)(size - got), (off_t)(at + got));
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0) break;
            got += count;
        }
        return got;
    }
    """
    int getpid()
    Py_ssize_t read_at "sg_read_at"(int descriptor, uint8_t* to, Py_ssize_t size, int64_t at)

cdef enum ReadState:
    FREE = 0
    TAKEN           # its fields are being written
    WANTED
    BUSY
    DONE

cdef enum:
    MOST_READS = 16


cdef class FileReads:
    """Up to 16 reads, which any thread may do that calls ``do_next``. One thread at a time may ask for them."""

    def __cinit__(self):
        # The places, and a line for `wanted`.
        self.reads = <Read*>allocate_pages((MOST_READS + 1) * sizeof(Read))
        if self.reads == NULL:
            raise MemoryError
        self.wanted = <uint64_t*>&self.reads[MOST_READS]
        self.process = getpid()

    def __dealloc__(self):
        free(self.reads)

    @property
    def waiting(self):
        """The number of reads that nobody has begun."""
        return load_ordered(self.wanted)

    cdef Read* want(self, int descriptor, uint8_t* to, Py_ssize_t size, int64_t at) noexcept nogil:
        cdef Read* read
        cdef int i
        for i in range(MOST_READS):
            read = &self.reads[i]
            if load_ordered(&read.state) == FREE and swap_if_ordered(&read.state, FREE, TAKEN):
                read.descriptor = descriptor
                read.to = to
                read.size = size
                read.at = at
                read.got = 0
                add_ordered(self.wanted, 1)
                swap_ordered(&read.state, WANTED)
                return read
        return NULL

    cdef bint begin(self, Read* read) noexcept nogil:
        # Whether nobody had begun it.
        if not swap_if_ordered(&read.state, WANTED, BUSY):
            return False
        add_ordered(self.wanted, <uint64_t>-1)
        return True

    cdef bint do_next(self) noexcept nogil:
        cdef Read* read
        cdef int i
        if not wants_reads(self):
            return False
        for i in range(MOST_READS):
            read = &self.reads[i]
            if load_ordered(&read.state) == WANTED and self.begin(read):
                read.got = read_at(read.descriptor, read.to, read.size, read.at)
                swap_ordered(&read.state, DONE)
                return True
        return False

    cdef Py_ssize_t finish(self, Read* read) noexcept nogil:
        cdef Py_ssize_t got
        if self.begin(read):
            got = read_at(read.descriptor, read.to, read.size, read.at)
        elif self.await_done(read):
            got = read.got
        else:
            got = 0
        swap_ordered(&read.state, FREE)
        return got

    cdef void drop(self, Read* read) noexcept nogil:
        if not self.begin(read):
            self.await_done(read)
        swap_ordered(&read.state, FREE)

    cdef bint await_done(self, const Read* read) noexcept nogil:
        # Whether it came to that. A forked child has no threads that would do it, and its memory is its own.
        cdef int turn = 0
        if getpid() != self.process:
            return load_ordered(&read.state) == DONE
        while load_ordered(&read.state) != DONE:
            # Another one, which is needed next, instead of waiting.
            if not self.do_next():
                back_off(turn)
                turn += 1
        return True
