# Reads of files that any idle thread may do. The thread that goes through a capture in order requests the next windows
# of the file before it needs them. A thread without packets to judge (workers.pxd) does one of these reads. So the
# first thread waits less often for the kernel to copy the file.
#
#     want:       a free place --> WANTED
#     do_next:    WANTED --> BUSY --> DONE       by any thread, in the order of the requests. The thread then calls
#                                                `on_read`, while the bytes are in its cache.
#     finish:     does the read if no thread has begun it, and otherwise waits until it is DONE. Then the place is
#                 free. If this takes long, it returns LATE: the thread that does the read has lost its core. The caller
#                 may then read the same bytes into other memory. The place stays taken until `is_over` returns True, or
#                 until `drop`.
#     drop:       cancels the reads that no thread has begun, and waits for all others. Then their places are free.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from sgfast.core.base.frames cimport Preparation
from sgfast.core.base.intrinsics cimport load_ordered


cdef enum:
    LATE = -2


cdef struct Read:
    uint64_t state          # ReadState
    uint64_t number         # reads are done in the order of these numbers
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
    cdef int process            # PID of the process whose threads do the reads
    cdef uint64_t crowded       # nonzero if this process has more judging threads than cores
    # The preparation of frames for the engine that owns these threads, or NULL. This object frees the preparation.
    cdef const Preparation* preparation

    # Requests a read. Returns NULL if all places are taken. Keep the descriptor open, and the memory at `to` and at
    # `context` valid, until `finish` or `drop` has returned.
    cdef Read* want(
        self, int descriptor, uint8_t* to, Py_ssize_t size, int64_t at, void (*on_read)(void*) noexcept nogil,
        void* context
    ) noexcept nogil
    # Does one read that is WANTED. Returns False if there is none. Call `do_next`, `finish` and `drop` without the GIL.
    cdef bint do_next(self) noexcept nogil
    # Returns the number of bytes read, or LATE.
    cdef Py_ssize_t finish(self, Read* read) noexcept nogil
    # Whether a late read is DONE.
    cdef bint is_over(self, Read* read) noexcept nogil
    cdef void drop(self, Read** reads, Py_ssize_t count) noexcept nogil

    cdef bint begin(self, Read* read) noexcept nogil


cdef inline bint wants_reads(FileReads reads) noexcept nogil:
    return load_ordered(reads.wanted) != 0
