# Captures merged by time: the packet that comes next is the earliest of those that come next in each.

from libc.stdint cimport int64_t

from sgfast.core.base.frames cimport Frame, FrameBatch


cdef enum:
    # Captures open at once, which is those that overlap in time. Each takes 768 KiB, and processes may have 1024 files.
    MOST_OPEN = 512


cdef struct Head:
    const Frame* next       # the frame that comes next in a capture
    const Frame* end        # after the last one of its batch
    int64_t time_ns         # of next
    Py_ssize_t place        # among all captures: of two packets at one time the one of the earlier place comes first


cdef class MergedReader:
    cdef list names
    cdef object opening
    cdef list pending           # (time of the first packet, place) of captures not opened yet, the first one last
    cdef dict readers           # CaptureReader by place
    cdef dict held              # by place, the batch that is being merged
    cdef Head heap[MOST_OPEN]
    cdef Py_ssize_t count       # in the heap
    cdef FrameBatch batch
    cdef bint moved             # what keeps the frames alive is not what it was
    cdef bint at_end
    cdef bint busy
    cdef Py_ssize_t bytes_before    # of captures that are done with
    cdef readonly Py_ssize_t packets
    cdef readonly list remarks
    cdef readonly object damage     # None until the end

    cpdef FrameBatch next_batch(self)
    cdef FrameBatch _next_batch(self)
    cdef bint _prepare(self) except -1
    cdef bint _load(self, Head* head) except -1
    cdef int _open(self, Py_ssize_t place) except -1
