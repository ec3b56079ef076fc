"""List events; ``events.pxd`` explains each function."""

from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc

from sgfast.core.conntrack.flow_rows cimport fill_flow_row
from sgfast.core.conntrack.protocols cimport is_finished
from sgfast.core.conntrack.states cimport TIME_WAIT
from sgfast.core.conntrack.storage cimport Entry, FlowRecord, flow_at
from sgfast.core.conntrack.table cimport (
    CUT_EVENT,
    ENDED_EVENT,
    IS_CUT,
    IS_DENIED,
    IS_OPEN,
    IS_OVER,
    NOT_REMEMBERED,
    OPENED_EVENT,
    SIDE_CLOSED,
    SIDE_DENIED,
    SIDE_DISCONNECTED,
    SIDE_FORGOTTEN,
    SIDE_OPEN,
    SIDE_REMOVED,
    SIDE_RESET,
    SIDE_TIMEOUT,
    TUPLE_DENIED,
    TUPLE_LIVE,
    Events,
    EventRow,
    Table,
    side_connected,
)


cdef uint8_t status_of(const Entry* e, int64_t now) noexcept nogil:
    cdef uint8_t status = NOT_REMEMBERED
    cdef int side
    if not e.kind or not e.marks & TUPLE_LIVE:
        return NOT_REMEMBERED
    for side in range(2):
        if side_connected(e, side, now):
            if e.marks & TUPLE_DENIED:
                return IS_DENIED
            if e.flags[side] & SIDE_DISCONNECTED:
                return IS_CUT
            status = max(status, <uint8_t>IS_OVER if is_finished(e.state[side]) else <uint8_t>IS_OPEN)
    return status


cdef void tell(
    Events* events, Table* t, uint32_t slot, int64_t time_ns, uint64_t place, uint8_t kind, uint8_t how
) noexcept nogil:
    cdef Py_ssize_t capacity
    cdef EventRow* row
    if events.count == events.capacity:
        capacity = min(max(1024, 2 * events.capacity), events.most)
        row = NULL
        if capacity > events.count:
            row = <EventRow*>realloc(events.rows, <size_t>capacity * sizeof(EventRow))
        if row == NULL:
            events.lost += 1
            return
        events.rows = row
        events.capacity = capacity
    row = &events.rows[events.count]
    events.count += 1
    fill_flow_row(t, slot, time_ns, SIDE_OPEN, &row.flow)
    row.time_ns = time_ns
    row.place = place
    row.kind = kind
    row.how = how


cdef void tell_over(
    Table* t, uint32_t slot, int64_t time_ns, uint64_t place, uint8_t kind, uint8_t how
) noexcept nogil:
    if flow_at(&t.slab, slot).watched:
        flow_at(&t.slab, slot).watched = False
        tell(t.events, t, slot, time_ns, place, kind, how)


cdef void tell_packet(
    Table* t, uint32_t slot, const Entry* e, int64_t now, uint64_t number, bint begins, bint creates, uint8_t kind
) noexcept nogil:
    cdef FlowRecord* flow = flow_at(&t.slab, slot)
    cdef uint8_t how
    # If a connection's end was told already, it may be open again at the filter that forgot it.
    if begins or (creates and not flow.watched and status_of(e, now) == IS_OPEN):
        flow.watched = kind == OPENED_EVENT
        tell(t.events, t, slot, now, 2 * number, kind, SIDE_DENIED)
    elif status_of(e, now) == IS_OVER or not has_connection(e):
        how = SIDE_CLOSED if TIME_WAIT in (e.state[0], e.state[1]) else SIDE_RESET
        tell_over(t, slot, now, 2 * number, ENDED_EVENT, how)


cdef void tell_forgotten(Table* t, uint32_t slot, const Entry* e, int64_t now, uint8_t how) noexcept nogil:
    cdef const uint8_t* ends = flow_at(&t.slab, slot).side_end
    cdef uint64_t place = t.events.place
    cdef uint8_t kind = ENDED_EVENT
    cdef int side
    if how == SIDE_REMOVED:
        now = t.events.changed_ns
        if SIDE_FORGOTTEN in (ends[0], ends[1]):
            kind = CUT_EVENT
            how = SIDE_FORGOTTEN
        elif SIDE_REMOVED not in (ends[0], ends[1]):
            how = SIDE_TIMEOUT
    if how == SIDE_TIMEOUT:
        # The time is the last deadline of a connection, whenever the tuple is found. A change of the policy has cleared
        # the state of a connection that timed out before it.
        place = 0
        now = INT64_MIN
        for side in range(2):
            if is_connection(e.state[side]) or ends[side] == SIDE_TIMEOUT:
                now = max(now, e.deadline[side])
    tell_over(t, slot, now, place, kind, how)
