# Reads of files that any idle thread may do. The thread that goes through a capture in order asks for the next windows
# of the file before it needs them. A thread that has no packets to judge (workers.pxd) does one of these reads. So the
# first thread waits less often for the kernel to copy the file.
#
#     want:       a free place --> WANTED
#     do_next:    WANTED --> BUSY --> DONE       by any thread, in the order in which they were wanted. The thread then
#                                                calls `on_read`, while the bytes are in its cache.
#     finish:     does the read if nobody has begun it, and otherwise waits until it is DONE. The place is free then. If
#                 this takes long, it returns LATE: the thread that does the read has lost its core. The caller may then
#                 read the same bytes into other memory. The place stays taken until `is_over` returns True, or `drop`.
#     drop:       takes back the reads that nobody has begun, and waits for the others. Their places are free then.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from sgfast.core.base.frames cimport Preparation
from sgfast.core.base.intrinsics cimport load_ordered


cdef enum:
    LATE = -2


cdef struct Read:
    uint64_t state          # ReadState
    uint64_t number         # they are done in this order
    int descriptor
    uint8_t* to
    Py_ssize_t size         # bytes
    int64_t at              # offset in the file, bytes
    Py_ssize_t got          # bytes; fewer than `size` at the end of the file, and after an error
    void (*on_read)(void*) noexcept nogil   # called with `context` by the thread that has read all bytes
    void* context
    uint64_t spare[7]       # pads to two cache lines, as they may be fetched in pairs


cdef class FileReads:
    cdef Read* reads            # [MOST_READS]
    cdef uint64_t* wanted       # number of reads that are WANTED
    cdef uint64_t* numbered     # number of reads so far
    cdef int process            # PID of the process whose threads do them
    cdef uint64_t crowded       # there are fewer cores than threads that judge in this process
    # The preparation of frames that the engine whose threads these are wants, or NULL. It is freed with this object.
    cdef const Preparation* preparation

    # Asks for a read. Returns NULL if all places are taken. Keep the descriptor open, and the memory at `to` and at
    # `context` valid, until `finish` or `drop` has returned.
    cdef Read* want(
        self, int descriptor, uint8_t* to, Py_ssize_t size, int64_t at, void (*on_read)(void*) noexcept nogil,
        void* context
    ) noexcept nogil
    # Does one read that is WANTED. Returns False if there is none. Call `do_next`, `finish` and `drop` without the GIL.
    cdef bint do_next(self) noexcept nogil
    # Returns how many bytes were read, or LATE.
    cdef Py_ssize_t finish(self, Read* read) noexcept nogil
    # Whether a late read is DONE.
    cdef bint is_over(self, Read* read) noexcept nogil
    cdef void drop(self, Read** reads, Py_ssize_t count) noexcept nogil

    cdef bint begin(self, Read* read) noexcept nogil


cdef inline bint wants_reads(FileReads reads) noexcept nogil:
    return load_ordered(reads.wanted) != 0
