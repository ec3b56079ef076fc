# Merges captures by time: the next packet is the earliest among the next packets of all captures.

from libc.stdint cimport int64_t

from sgfast.core.base.frames cimport BatchPool, Frame, FrameBatch


cdef enum:
    # Limit of captures that are open at a time, which are those that overlap in time. Each open capture takes 900 KiB,
    # or a few times that if batches last, and the usual limit of a process is 1024 open files.
    MAX_OPEN = 512


cdef struct Head:
    const Frame* next       # the next frame of a capture
    const Frame* end        # the end of the capture's batch
    int64_t time_ns         # time of `next`
    Py_ssize_t place        # index of the capture; with equal times the lower index comes first


cdef class MergedReader:
    cdef list names
    cdef object opening
    cdef list pending           # (time of the first packet, place) of captures not opened yet, latest first
    cdef dict readers           # place -> CaptureReader
    cdef dict held              # place -> batch that is being merged
    cdef Head heap[MAX_OPEN]
    cdef Py_ssize_t count       # heads in the heap
    cdef FrameBatch batch
    cdef BatchPool pool         # source of batches that last, or None
    cdef bint moved             # the set of batches in `held` changed
    cdef bint at_end
    cdef bint busy
    cdef Py_ssize_t bytes_before    # bytes read from captures that have ended
    cdef readonly Py_ssize_t packets
    cdef readonly list remarks
    cdef readonly object damage     # None until the end

    cpdef FrameBatch next_batch(self)
    cdef FrameBatch _next_batch(self)
    cdef bint _prepare(self) except -1
    cdef bint _load(self, Head* head) except -1
    cdef int _open(self, Py_ssize_t place) except -1
