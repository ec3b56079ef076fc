# Reads of files that any idle thread may do. Who walks over the records of a capture wants its next parts to be read
# before they are needed, and does not wait for the kernel to copy them. Threads that judge do such reads when they have
# nothing else to do (workers.pxd).
#
#     want:       a place --> WANTED
#     do_next:    WANTED --> BUSY --> DONE       by any thread
#     finish:     waits until the read is DONE, or does it here if nobody has begun it; the place is free again

from libc.stdint cimport int64_t, uint8_t, uint64_t

from sgfast.core.base.intrinsics cimport load_ordered


cdef struct Read:
    uint64_t state          # ReadState
    int descriptor
    uint8_t* to
    Py_ssize_t size         # bytes
    int64_t at              # offset in the file, bytes
    Py_ssize_t got          # bytes; fewer at the end of the file and after an error
    uint64_t spare[10]      # pads to two cache lines, as they may be fetched in pairs


cdef class FileReads:
    cdef Read* reads        # [MOST_READS]
    cdef uint64_t* wanted   # those that nobody has begun
    cdef int process        # PID of the process whose threads do them

    # Call these without the GIL. NULL if all places are taken. The memory at `to` and the descriptor must stay valid
    # until the read is finished or dropped.
    cdef Read* want(self, int descriptor, uint8_t* to, Py_ssize_t size, int64_t at) noexcept nogil
    # Returns whether there was one.
    cdef bint do_next(self) noexcept nogil
    # Returns how many bytes were read.
    cdef Py_ssize_t finish(self, Read* read) noexcept nogil
    # Like `finish`, but does not begin it any more.
    cdef void drop(self, Read* read) noexcept nogil

    cdef bint begin(self, Read* read) noexcept nogil
    cdef bint await_done(self, const Read* read) noexcept nogil


cdef inline bint wants_reads(FileReads reads) noexcept nogil:
    return load_ordered(reads.wanted) != 0
