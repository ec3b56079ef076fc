# The limits of a connection table apply to the tables of all shards together (SPEC 5.8). A shard does not know how full
# the other tables are. So the caller dispatches only as many packets as certainly fit. Then it counts the entries of
# all tables again.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from sgfast.core.base.types cimport TABLE_FULL
from sgfast.core.conntrack.lifetime cimport end_expired
from sgfast.core.pipeline.batch cimport sweep_all
from sgfast.core.pipeline.plane cimport MAX_ATTEMPTS, Plane

cdef enum:
    # Packets that are dispatched while a table is full, before it is checked again.
    ROOM_WHEN_FULL = 4096


cdef inline uint64_t room_of(uint64_t used, uint64_t limit, bint over) noexcept nogil:
    # At the limit a packet may still find room, as some tuple may end just in time. Until a packet has found no room
    # (`over`), the limit is checked for each packet.
    if used < limit:
        return limit - used
    return ROOM_WHEN_FULL if over else 1


cdef inline uint64_t share_room(
    Plane** planes, int count, int64_t now, uint32_t max_connections, uint32_t max_marks
) noexcept nogil:
    # Sets the limits of each plane's tables. Returns how many packets may be dispatched before the limits of all tables
    # together could be reached. Each packet adds at most one tuple, attempt or mark. The planes must be drained. `now`:
    # engine time of the next packet.
    cdef uint64_t tuples = 0
    cdef uint64_t attempts = 0
    cdef uint64_t marks = 0
    cdef uint64_t room
    cdef bint over = False
    cdef Plane* plane
    cdef int i
    for i in range(count):
        plane = planes[i]
        tuples += plane.table.live
        attempts += plane.attempts.live
        marks += plane.table.mark_count
        over |= plane.table.evicted or plane.table.moot_evicted or plane.counters.reasons[TABLE_FULL]
        over |= plane.attempts.evicted or plane.attempts.moot_evicted
    if tuples >= max_connections or attempts >= MAX_ATTEMPTS:
        # Tuples and attempts that have ended by `now` do not count, even in the current tick.
        tuples = 0
        attempts = 0
        for i in range(count):
            plane = planes[i]
            sweep_all(plane, now)
            end_expired(&plane.table, now)
            end_expired(&plane.attempts, now)
            tuples += plane.table.live
            attempts += plane.attempts.live
    for i in range(count):
        # When a limit is reached, no table grows. A shard that needs room for a new tuple evicts an old one.
        plane = planes[i]
        plane.table.max_live = max_connections if tuples < max_connections else plane.table.live
        plane.attempts.max_live = <uint32_t>MAX_ATTEMPTS if attempts < MAX_ATTEMPTS else plane.attempts.live
        plane.table.max_marks = max_marks if marks < max_marks else plane.table.mark_count
    room = min(room_of(tuples, max_connections, over), room_of(attempts, MAX_ATTEMPTS, over))
    if planes[0].table.keep_marks:
        room = min(room, room_of(marks, max_marks, True))
    return room
