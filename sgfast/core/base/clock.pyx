"""The replay's clock for Python code (SPEC 9.1); ``clock.pxd`` is what the data plane uses."""

from libc.stdint cimport int64_t

import numpy as np

#: Nanoseconds from 1970, either way, beyond which time stands still.
CLOCK_END_NS = CLOCK_END
#: A packet that is later than its predecessor by more nanoseconds than this restarts the clock.
LATE_LIMIT_NS = MAX_LATE_NS


cdef class ReplayClock:
    """Turn the captures' times of packets, in order, into engine time, which never runs backwards."""

    cdef Clock clock

    def advance(self, times_ns not None):
        """``times_ns``: int64, nanoseconds, one for each packet. Returns engine time at each of them, as int64."""
        cdef const int64_t[::1] raw = np.ascontiguousarray(times_ns, dtype=np.int64)
        engine_ns = np.empty(raw.shape[0], dtype=np.int64)
        cdef int64_t[::1] now = engine_ns
        cdef Py_ssize_t i
        for i in range(raw.shape[0]):
            advance_clock(&self.clock, raw[i])
            now[i] = self.clock.now
        return engine_ns
