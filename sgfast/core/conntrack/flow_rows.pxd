# Builds report rows from tuples: the connection report lists the rows, and the summary counts them. A row stays in its
# table until it is taken (``AccountingPlane.take_flows``) or, if flows are not kept, until it is counted.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memset

from sgfast.core.base.icmp cimport opener_port_key
from sgfast.core.base.intrinsics cimport unlikely
from sgfast.core.base.key cimport KIND_ICMP_QUERY, KIND_IPV6, KIND_PORTS, FlowKey, address_of, write_address
from sgfast.core.base.types cimport ALLOW, DENY, NO_SLOT
from sgfast.core.conntrack.states cimport CLOSED, MOOT_TCP, NO_STATE, TIME_WAIT
from sgfast.core.conntrack.storage cimport (
    ORIGIN_CALLED,
    ORIGIN_DENIED_OUT,
    ORIGIN_HIGH,
    Entry,
    FlowRecord,
    FlowSides,
    Origin,
    addresses_at,
    entry_at,
    flow_at,
    flow_sides_at,
    origin_at,
)
from sgfast.core.conntrack.table cimport (
    HEARD,
    REFUSED,
    REPORT_ALL,
    REPORT_NONE,
    SIDE_CLOSED,
    SIDE_OPEN,
    SIDE_RESET,
    SIDE_TIMEOUT,
    TUPLE_DENIED,
    TUPLE_LIVE,
    UNBEGUN,
    Ends,
    FlowRow,
    Table,
)


cdef inline uint8_t side_end_of(const Entry* e, int side, uint8_t recorded, int64_t now, uint8_t cause) noexcept nogil:
    # Returns how a side ended. `recorded`: the side's end in its flow record; `cause`: why the tuple ends.
    if recorded != SIDE_OPEN:
        return recorded
    if e.state[side] == CLOSED:
        return SIDE_RESET
    if e.state[side] == TIME_WAIT:
        return SIDE_CLOSED
    if cause == SIDE_OPEN and now >= e.deadline[side]:
        return SIDE_TIMEOUT
    return cause


cdef inline void key_of(const Table* t, uint32_t slot, FlowKey* key) noexcept nogil:
    cdef const Entry* e = entry_at(&t.slab, slot)
    memset(key, 0, sizeof(FlowKey))
    key.ports = e.ports
    key.protocol = e.protocol
    key.kind = e.kind
    if e.kind & KIND_IPV6:
        memcpy(key.addr, addresses_at(&t.slab, slot), sizeof(key.addr))
    else:
        key.addr[0] = e.digest


cdef inline void write_ends(const Table* t, uint32_t slot, bint initiator_high, Ends* ends) noexcept nogil:
    cdef FlowKey key
    cdef bint ipv6
    key_of(t, slot, &key)
    memset(ends, 0, sizeof(Ends))
    ipv6 = (key.kind & KIND_IPV6) != 0
    write_address(ends.initiator, address_of(key.addr, ipv6, initiator_high), ipv6)
    write_address(ends.responder, address_of(key.addr, ipv6, not initiator_high), ipv6)
    ends.family = 6 if ipv6 else 4
    ends.protocol = key.protocol
    ends.has_ports = (key.kind & KIND_PORTS) != 0
    if ends.has_ports:
        ends.ports = (key.ports << 16 | key.ports >> 16) if initiator_high else key.ports
    else:
        ends.icmp = opener_port_key(key.kind, key.ports, initiator_high)
        if key.kind & KIND_ICMP_QUERY:
            ends.ports = key.ports >> 16 << 16


cdef inline FlowRow* next_row(Table* t) noexcept nogil:
    cdef Py_ssize_t capacity
    cdef FlowRow* grown
    if t.ended_count == t.ended_capacity:
        capacity = t.ended_capacity * 2 if t.ended_capacity else 1024
        grown = <FlowRow*>realloc(t.ended, <size_t>capacity * sizeof(FlowRow))
        if grown == NULL:
            t.ended_lost += 1
            return NULL
        t.ended = grown
        t.ended_capacity = capacity
    t.ended_count += 1
    return &t.ended[t.ended_count - 1]


cdef inline bint is_plain(const Entry* e) noexcept nogil:
    # Whether the summary does not count the tuple: it was allowed and answered, or denied and not answered.
    if e.marks & TUPLE_DENIED:
        return not e.marks & HEARD
    return (e.marks & HEARD) != 0


cdef inline bint is_reported(const Table* t, const Entry* e) noexcept nogil:
    if e.marks & (TUPLE_LIVE | UNBEGUN) != TUPLE_LIVE:
        return False
    return t.reports == REPORT_ALL or (t.reports != REPORT_NONE and not is_plain(e))


cdef inline void fill_flow_row(Table* t, uint32_t slot, int64_t now, uint8_t side_end, FlowRow* row) noexcept nogil:
    # Builds the report row of a tuple as if the tuple ended now.
    cdef Entry* e = entry_at(&t.slab, slot)
    cdef const Origin* origin = origin_at(&t.slab, slot)
    cdef const FlowRecord* flow
    cdef const FlowSides* sides
    cdef int side
    cdef int high = origin.ends & ORIGIN_HIGH
    memset(row, 0, sizeof(FlowRow))
    write_ends(t, slot, high, &row.ends)
    row.ends.icmp = origin.icmp
    row.verdict = DENY if e.marks & TUPLE_DENIED else ALLOW
    row.reason = origin.reason
    row.denied_out = (origin.ends & ORIGIN_DENIED_OUT) != 0
    row.counted_for = origin.counted_for
    row.rule[0] = -1
    row.rule[1] = -1
    row.instance[0] = -1
    row.instance[1] = -1
    if t.keep_flows:
        flow = flow_at(&t.slab, slot)
        sides = flow_sides_at(&t.slab, slot)
        row.number = flow.number
        row.first_ns = flow.first_ns
        row.last_ns = flow.last_ns
        for side in range(2):
            row.packets[side] = flow.packets[side]
            row.bytes[side] = flow.bytes[side]
            # Row sides are by role, entry sides by address. In a row, side 0 (egress) is the initiator's.
            row.rule[side != high] = <int32_t>sides.rule[side]
            row.instance[side != high] = sides.instance[side]
            row.side_end[side != high] = side_end_of(e, side, flow.side_end[side], now, side_end)
    if e.marks & HEARD:
        row.answer = 1
    elif e.marks & REFUSED:
        row.answer = 2


cdef inline bint make_flow_row(Table* t, uint32_t slot, int64_t now, uint8_t side_end, FlowRow* row) noexcept nogil:
    # Builds the report row of a tuple. Returns False, and builds no row, if the tuple is not reported.
    if not is_reported(t, entry_at(&t.slab, slot)):
        return False
    fill_flow_row(t, slot, now, side_end, row)
    return True


cdef inline void report_tuple(
    Table* t, uint32_t slot, const Entry* e, int64_t now, uint8_t side_end
) noexcept nogil:
    cdef const Origin* origin
    cdef uint64_t* endings
    cdef FlowRow* row
    if not is_reported(t, e):
        return
    origin = origin_at(&t.slab, slot)
    if unlikely(origin.ends & ORIGIN_CALLED) and not e.marks & (HEARD | TUPLE_DENIED):
        origin.attempt[1] += 1
    endings = origin.endings if not is_plain(e) else NULL
    if endings != NULL:
        endings[1 if e.marks & (TUPLE_DENIED | REFUSED) == REFUSED else 0] += 1
        if t.reports != REPORT_ALL:
            return
    row = next_row(t)
    if row != NULL:
        fill_flow_row(t, slot, now, side_end, row)
        if endings != NULL:
            row.counted_for = -1


cdef inline void restart_tuple(Table* t, uint32_t slot, Entry* e, const FlowRow* attempt_row) noexcept nogil:
    # Ends a denied attempt and begins a connection, because the attempt's key was opened after all. `attempt_row`: the
    # report row of the attempt, or NULL.
    cdef FlowRow* row = next_row(t) if attempt_row != NULL else NULL
    cdef FlowRecord* flow
    cdef FlowSides* sides
    cdef int side
    if row != NULL:
        row[0] = attempt_row[0]
    # Sides that have connections keep these.
    e.marks = (e.marks & ~(REFUSED | HEARD | TUPLE_DENIED)) | UNBEGUN
    if not t.keep_flows:
        return
    flow = flow_at(&t.slab, slot)
    sides = flow_sides_at(&t.slab, slot)
    memset(flow, 0, sizeof(FlowRecord))
    for side in range(2):
        sides.rule[side] = NO_SLOT
        sides.instance[side] = -1       # the address may have had another owner during the attempt
        if NO_STATE < e.state[side] < MOOT_TCP:
            sides.rule[side] = e.rule[side]
            flow.side_end[side] = SIDE_OPEN
