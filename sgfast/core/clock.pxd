# Time is the capture's, and never runs backwards (SPEC 9.1).

from libc.stdint cimport int64_t

from sgfast.core.conntrack_tcp cimport TCP_ESTABLISHED
from sgfast.core.intrinsics cimport likely, unlikely
from sgfast.core.plane cimport Plane


cdef inline void tell_time(Plane* plane, int64_t raw) noexcept nogil:
    # 146 years either way of 1970: differences fit, and so does a deadline after the end, where time stands still.
    cdef int64_t end = <int64_t>1 << 62
    cdef int64_t ahead
    raw = max(-end + 1, min(raw, end - 1))
    if unlikely(not plane.started):
        plane.started = True
        plane.clock = raw
        plane.raw_clock = raw
        plane.earliest_ns = raw
        plane.latest_ns = raw
        plane.window_end = raw + plane.timeout[TCP_ESTABLISHED]
        plane.table.marks_until = plane.window_end
        return
    ahead = raw - plane.raw_clock
    if likely(ahead >= 0):
        plane.clock = plane.clock + ahead if likely(ahead <= end - plane.clock) else end
        plane.raw_clock = raw
        return
    plane.earliest_ns = min(plane.earliest_ns, raw)
    if ahead >= -60 * <int64_t>1000000000:
        plane.late += 1
    else:
        plane.restarts += 1
        plane.latest_ns = max(plane.latest_ns, plane.raw_clock)
        plane.raw_clock = raw
