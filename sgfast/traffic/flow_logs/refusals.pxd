# The minutes in which the cloud rejected packets of a conversation, by the end that sent them. A ring of bits holds the
# latest ones.

from libc.stdint cimport int64_t, uint64_t

from sgfast.traffic.flow_logs.openers cimport REFUSED_MINUTES, REFUSED_WORDS, Conversation


cdef inline int64_t minute_of(int64_t time_ns) noexcept nogil:
    return time_ns // (60 * <int64_t>1000000000)


cdef inline void note_refusal(Conversation* c, int way, int64_t from_ns, int64_t until_ns) noexcept nogil:
    # Marks the minutes between two times as those in which the cloud rejected packets of an end.
    cdef uint64_t* minutes = c.refused_minutes[way]
    cdef int64_t first = minute_of(from_ns)
    cdef int64_t last = minute_of(until_ns)
    cdef int64_t latest = c.refused_minute[way]
    cdef int64_t minute
    if last > latest:
        for minute in range(max(latest + 1, last - REFUSED_MINUTES + 1), last + 1):
            minutes[minute >> 6 & (REFUSED_WORDS - 1)] &= ~(<uint64_t>1 << (minute & 63))
        c.refused_minute[way] = latest = last
    for minute in range(max(first, latest - REFUSED_MINUTES + 1), last + 1):
        minutes[minute >> 6 & (REFUSED_WORDS - 1)] |= <uint64_t>1 << (minute & 63)


cdef inline bint was_refused(const Conversation* c, int way, int64_t from_ns, int64_t until_ns) noexcept nogil:
    # Returns whether the cloud rejected packets that an end sent between two times. Both count in whole minutes.
    cdef int64_t latest = c.refused_minute[way]
    cdef int64_t minute
    for minute in range(max(minute_of(from_ns), latest - REFUSED_MINUTES + 1), min(minute_of(until_ns), latest) + 1):
        if c.refused_minutes[way][minute >> 6 & (REFUSED_WORDS - 1)] >> (minute & 63) & 1:
            return True
    return False
