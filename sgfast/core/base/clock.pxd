# Engine time follows the capture's timestamps, and never runs backwards (SPEC 9.1).

from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint64_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport likely, unlikely


cdef extern from *:
    """
    /* 146 years from 1970, either way. Differences fit 64 bits, and so do deadlines after the end, where time stops. */
    #define SGFAST_CLOCK_END ((int64_t)1 << 62)
    /* A timestamp that goes back by more than this restarts the clock (SPEC 9.1). */
    #define SGFAST_MAX_LATE_NS ((int64_t)60 * 1000000000)
    """
    const int64_t CLOCK_END "SGFAST_CLOCK_END"
    const int64_t MAX_LATE_NS "SGFAST_MAX_LATE_NS"


cdef struct Clock:
    int64_t now             # engine time, nanoseconds
    int64_t raw             # capture timestamp of the packet that set `now`
    int64_t earliest        # earliest capture timestamp
    int64_t latest          # latest capture timestamp up to the last restart; after that it is `raw`
    uint64_t late           # timestamps that went back by up to MAX_LATE_NS
    int64_t most_late       # the most that a late timestamp went back, nanoseconds
    uint64_t restarts       # timestamps that went back by more than MAX_LATE_NS
    uint8_t started


cdef inline void advance_clock(Clock* clock, int64_t raw) noexcept nogil:
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
        clock.most_late = max(clock.most_late, -ahead)
    else:
        clock.restarts += 1
        clock.latest = max(clock.latest, clock.raw)
        clock.raw = raw


# A faster way to advance the clock for many packets. Nearly all timestamps are later than the one before, so engine
# time differs from them by a constant. Call `begin_run`, then `time_of` for each packet, then `end_run`. No other code
# may use the clock during a run.
cdef struct Run:
    int64_t raw             # Clock.raw
    int64_t latest          # up to this timestamp the clock does not reach its end
    int64_t ahead           # engine time minus timestamp


cdef inline void begin_run(const Clock* clock, Run* run) noexcept nogil:
    run.raw = clock.raw
    run.ahead = clock.now - clock.raw
    run.latest = min(CLOCK_END - 1, CLOCK_END - run.ahead) if clock.started else INT64_MIN


cdef inline void end_run(Clock* clock, const Run* run) noexcept nogil:
    clock.raw = run.raw
    clock.now = run.raw + run.ahead


cdef inline int64_t time_of(Clock* clock, Run* run, int64_t raw) noexcept nogil:
    # Advances the clock for one packet. Returns the packet's engine time.
    if likely(run.raw <= raw) and likely(raw <= run.latest):
        run.raw = raw
    else:
        end_run(clock, run)
        advance_clock(clock, raw)
        begin_run(clock, run)
    return run.raw + run.ahead


cdef inline bint earlier_than(
    const Clock* clock, const Frame* frames, Py_ssize_t first, Py_ssize_t end, int64_t at_ns
) noexcept nogil:
    # Whether frames [first, end) certainly come before at_ns (nanoseconds). A replay with a pending change calls this
    # for every batch, so the clock is not run frame by frame. False means unknown, even if the clock would limit a
    # timestamp.
    cdef int64_t latest = frames[first].time_ns
    cdef int64_t earliest = latest
    cdef Py_ssize_t i
    for i in range(first + 1, end):
        latest = max(latest, frames[i].time_ns)
        earliest = min(earliest, frames[i].time_ns)
    if not clock.started or earliest <= -CLOCK_END or latest >= CLOCK_END:
        return False
    latest = max(latest, clock.raw)
    return earliest >= latest - MAX_LATE_NS and latest - clock.raw < at_ns - clock.now
