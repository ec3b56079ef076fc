"""A stretch of time: ``--start`` and ``--end``."""

from libc.stdint cimport int64_t

from sgfast.core.base.frames cimport Frame, FrameBatch

EARLIEST, LATEST = -(1 << 63), (1 << 63) - 1       # what 64 bits hold


cdef class Window:
    """Keeps the packets of [start, end), each by its own timestamp, in whatever order they come.

    ``start_ns``, ``end_ns``: nanoseconds since the Unix epoch; None: no limit. ``before_start`` and ``after_end`` count
    what was left out.
    """

    cdef int64_t start
    cdef int64_t end
    cdef bint ends
    cdef readonly int64_t before_start
    cdef readonly int64_t after_end

    def __init__(self, start_ns, end_ns):
        # No timestamp is so far away: where a limit is cut to fit, nothing changes.
        self.start = EARLIEST if start_ns is None else max(EARLIEST, min(LATEST, start_ns))
        self.end = LATEST if end_ns is None else max(EARLIEST, min(LATEST, end_ns))
        self.ends = end_ns is not None

    def apply(self, FrameBatch batch not None):
        cdef Frame* frames = batch.frames
        cdef Py_ssize_t count = batch.count
        cdef Py_ssize_t kept = 0
        cdef Py_ssize_t i
        with nogil:
            for i in range(count):
                if frames[i].time_ns < self.start:
                    self.before_start += 1
                elif self.ends and frames[i].time_ns >= self.end:
                    self.after_end += 1
                else:
                    frames[kept] = frames[i]
                    kept += 1
        batch.count = kept
