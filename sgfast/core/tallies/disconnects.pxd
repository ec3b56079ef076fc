# Follows the connections that policy changes cut (SPEC 6.3, 6.4, 6.12), for the report.
#
# The key of a cut connection waits here until a packet opens it again and is allowed. Until then, the capture's
# remaining packets of the connection are not listed as denials: after the change they would be retransmissions at most.
# But an opener that the rules deny is listed as a denial, and so is every packet after it that is not denied as
# disconnected.
#
# Only denied packets, and packets that open a connection, are looked up here, and only while some key waits.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memset

from sgfast.core.base.key cimport FlowKey
from sgfast.core.base.types cimport DISCONNECTED, NO_SLOT, READ_TRACKED, Packet
from sgfast.core.conntrack.flow_rows cimport key_of, write_ends
from sgfast.core.conntrack.lifetime cimport add_key, drop_key, free_table, init_table
from sgfast.core.conntrack.protocols cimport is_finished
from sgfast.core.conntrack.states cimport MOOT_TCP, NO_STATE
from sgfast.core.conntrack.storage cimport Entry, entry_at
from sgfast.core.conntrack.table cimport FROM_HIGH, Ends, Table, find_slot

cdef enum:
    # The largest number of cut connections that are listed. More are only counted in the numbers of their change.
    MAX_CUTS = 1 << 20
    NO_CUT = 0xFFFFFFFF


cdef enum:         # CutFate
    CUT_NEVER = 0           # no packet opened the key again
    CUT_BACK = 1
    CUT_DENIED = 2          # an opener arrived and was denied


# One connection that was cut by one change.
cdef packed struct CutRow:
    int64_t cut_ns
    int64_t again_ns        # when the connection came back, or the first opener was denied
    uint64_t packets        # packets after the cut that open no connection
    uint64_t bytes
    Ends ends
    int32_t rule[2]         # the rules under which it came back: egress side, ingress side; -1 if there is no such side
    uint32_t change         # number of the policy change, from 0
    uint32_t previous       # row of the same key, cut earlier and still waiting, or NO_CUT
    uint8_t fate
    uint8_t turned          # the connection's former responder opened it again
    uint8_t finished        # the connection was already closed or reset when it was cut
    uint8_t spare


cdef struct Cuts:
    Table waiting           # by key; rule[0] of an entry is the number of the key's latest row
    CutRow* rows
    uint32_t count
    uint32_t capacity
    uint64_t untold         # cuts that are not listed: beyond MAX_CUTS, or no memory


cdef inline int init_cuts(Cuts* cuts) except -1:
    memset(cuts, 0, sizeof(Cuts))
    init_table(&cuts.waiting, MAX_CUTS, False, False, False)
    return 0


cdef inline void free_cuts(Cuts* cuts) noexcept nogil:
    free_table(&cuts.waiting)
    free(cuts.rows)
    memset(cuts, 0, sizeof(Cuts))


cdef inline CutRow* next_cut(Cuts* cuts) noexcept nogil:
    cdef uint32_t capacity
    cdef CutRow* grown
    if cuts.count == cuts.capacity:
        capacity = cuts.capacity * 2 if cuts.capacity else 256
        grown = <CutRow*>realloc(cuts.rows, <size_t>capacity * sizeof(CutRow)) if cuts.count < MAX_CUTS else NULL
        if grown == NULL:
            cuts.untold += 1
            return NULL
        cuts.rows = grown
        cuts.capacity = capacity
    cuts.count += 1
    return &cuts.rows[cuts.count - 1]


cdef inline void note_cut(
    Cuts* cuts, const Table* t, uint32_t slot, int side, uint32_t change, int64_t now
) noexcept nogil:
    # Records that a side of a tuple was cut. Call it at most once per tuple and change.
    cdef const Entry* e = entry_at(&t.slab, slot)
    cdef FlowKey key
    cdef uint32_t place
    cdef CutRow* row
    key_of(t, slot, &key)
    place = find_slot(&cuts.waiting, &key, e.digest, e.hash)
    row = next_cut(cuts)
    if row == NULL:
        return
    memset(row, 0, sizeof(CutRow))
    row.previous = NO_CUT
    if place == NO_SLOT:
        place = add_key(&cuts.waiting, &key, e.digest, e.hash)
        if place == NO_SLOT:
            cuts.count -= 1
            cuts.untold += 1
            return
    else:
        row.previous = entry_at(&cuts.waiting.slab, place).rule[0]
    entry_at(&cuts.waiting.slab, place).rule[0] = cuts.count - 1
    write_ends(t, slot, e.flags[side] & FROM_HIGH, &row.ends)
    row.cut_ns = now
    row.change = change
    row.rule[0] = -1
    row.rule[1] = -1
    row.finished = is_finished(e.state[side])


cdef inline bint follows_cut(
    Cuts* cuts, const Packet* p, bint opener, uint8_t reason, int64_t now
) noexcept nogil:
    # Counts a packet that was denied for `reason` in the row of the cut that it follows. Returns False if it follows
    # no cut.
    cdef uint32_t place
    cdef CutRow* row
    if p.parse_result != READ_TRACKED:
        return False        # the packet has no key
    place = find_slot(&cuts.waiting, &p.key, p.digest, p.hash)
    if place == NO_SLOT:
        return False
    row = &cuts.rows[entry_at(&cuts.waiting.slab, place).rule[0]]
    if row.fate == CUT_NEVER and opener:
        row.fate = CUT_DENIED
        row.again_ns = now
    if row.fate == CUT_DENIED and reason != DISCONNECTED:
        return False
    row.packets += p.count
    row.bytes += p.wire
    return True


cdef inline void note_return(
    Cuts* cuts, const Packet* p, const Table* t, uint32_t slot, bint initiator_high, int64_t now
) noexcept nogil:
    # Records that a packet opened the connection in `slot` and was allowed.
    cdef uint32_t place = find_slot(&cuts.waiting, &p.key, p.digest, p.hash)
    cdef const Entry* e = entry_at(&t.slab, slot)
    cdef uint32_t number
    cdef int side
    cdef Ends ends
    cdef CutRow* row
    if place == NO_SLOT:
        return
    write_ends(t, slot, initiator_high, &ends)
    number = entry_at(&cuts.waiting.slab, place).rule[0]
    drop_key(&cuts.waiting, place)
    while number != NO_CUT:
        row = &cuts.rows[number]
        row.fate = CUT_BACK
        row.again_ns = now
        row.turned = memcmp(row.ends.initiator, ends.initiator, sizeof(ends.initiator)) != 0
        for side in range(2):
            if NO_STATE < e.state[side] < MOOT_TCP:
                row.rule[side != initiator_high] = <int32_t>e.rule[side]
        number = row.previous
