# Time is the capture's, and never runs backwards (SPEC 9.1).

from libc.stdint cimport int64_t, uint8_t, uint64_t

from sgfast.core.intrinsics cimport likely, unlikely


cdef struct Clock:
    int64_t now             # nanoseconds
    int64_t raw             # the capture's own time of the packet that set `now`
    int64_t earliest        # of the capture's own times
    int64_t latest          # likewise, up to the last restart
    uint64_t late
    uint64_t restarts
    uint8_t started


cdef inline void tell_time(Clock* clock, int64_t raw) noexcept nogil:
    # 146 years either way of 1970: differences fit, and so does a deadline after the end, where time stands still.
    cdef int64_t end = <int64_t>1 << 62
    cdef int64_t ahead
    raw = max(-end + 1, min(raw, end - 1))
    if unlikely(not clock.started):
        clock.started = True
        clock.now = raw
        clock.raw = raw
        clock.earliest = raw
        clock.latest = raw
        return
    ahead = raw - clock.raw
    if likely(ahead >= 0):
        clock.now = clock.now + ahead if likely(ahead <= end - clock.now) else end
        clock.raw = raw
        return
    clock.earliest = min(clock.earliest, raw)
    if ahead >= -60 * <int64_t>1000000000:
        clock.late += 1
    else:
        clock.restarts += 1
        clock.latest = max(clock.latest, clock.raw)
        clock.raw = raw
