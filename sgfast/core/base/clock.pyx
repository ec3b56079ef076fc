"""The replay's clock for Python code (SPEC 9.1). The data plane uses ``clock.pxd``."""

from libc.stdint cimport int64_t

import numpy as np

#: Nanoseconds before and after 1970 at which engine time stops.
CLOCK_END_NS = CLOCK_END
#: The clock restarts if a timestamp goes back by more nanoseconds than this.
LATE_LIMIT_NS = MAX_LATE_NS


cdef class ReplayClock:
    """Clock that turns the capture timestamps of packets, in order, into engine time, which never runs backwards."""

    cdef Clock clock

    def advance(self, times_ns not None):
        """Return the engine time of each packet, as int64. ``times_ns``: capture timestamps, int64, nanoseconds."""
        cdef const int64_t[::1] raw = np.ascontiguousarray(times_ns, dtype=np.int64)
        engine_ns = np.empty(raw.shape[0], dtype=np.int64)
        cdef int64_t[::1] now = engine_ns
        cdef Py_ssize_t i
        for i in range(raw.shape[0]):
            advance_clock(&self.clock, raw[i])
            now[i] = self.clock.now
        return engine_ns
