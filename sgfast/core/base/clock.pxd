# Time is the capture's, and never runs backwards (SPEC 9.1).

from libc.stdint cimport int64_t, uint8_t, uint64_t

from sgfast.core.base.intrinsics cimport likely, unlikely


cdef extern from *:
    """
    /* 146 years either way of 1970: differences fit, and so does a deadline after the end, where time stands still. */
    #define SGFAST_CLOCK_END ((int64_t)1 << 62)
    /* A time that is further back than this is a restart (SPEC 9.1). */
    #define SGFAST_MAX_LATE_NS ((int64_t)60 * 1000000000)
    """
    const int64_t CLOCK_END "SGFAST_CLOCK_END"
    const int64_t MAX_LATE_NS "SGFAST_MAX_LATE_NS"


cdef struct Clock:
    int64_t now             # nanoseconds
    int64_t raw             # the capture's own time of the packet that set `now`
    int64_t earliest        # of the capture's own times
    int64_t latest          # likewise, up to the last restart
    uint64_t late
    uint64_t restarts
    uint8_t started


cdef inline void tell_time(Clock* clock, int64_t raw) noexcept nogil:
    cdef int64_t ahead
    raw = max(-CLOCK_END + 1, min(raw, CLOCK_END - 1))
    if unlikely(not clock.started):
        clock.started = True
        clock.now = raw
        clock.raw = raw
        clock.earliest = raw
        clock.latest = raw
        return
    ahead = raw - clock.raw
    if likely(ahead >= 0):
        clock.now = clock.now + ahead if likely(ahead <= CLOCK_END - clock.now) else CLOCK_END
        clock.raw = raw
        return
    clock.earliest = min(clock.earliest, raw)
    if ahead >= -MAX_LATE_NS:
        clock.late += 1
    else:
        clock.restarts += 1
        clock.latest = max(clock.latest, clock.raw)
        clock.raw = raw
