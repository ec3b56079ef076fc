"""The list of what changes cut; it is described in ``cuts.pxd``."""

from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memset

from sgfast.core.conntrack cimport (
    FROM_HIGH,
    MOOT_TCP,
    NO_STATE,
    add_key,
    drop_key,
    find_slot,
    free_table,
    init_table,
)
from sgfast.core.conntrack_tcp cimport CLOSED, TIME_WAIT
from sgfast.core.flow_rows cimport key_of, spell_ends
from sgfast.core.slab cimport NO_SLOT, Entry, entry_at
from sgfast.core.types cimport READ_TRACKED, FlowKey


cdef int init_cuts(Cuts* cuts) except -1:
    memset(cuts, 0, sizeof(Cuts))
    init_table(&cuts.waiting, MAX_CUTS, False, False)
    return 0


cdef void free_cuts(Cuts* cuts) noexcept nogil:
    free_table(&cuts.waiting)
    free(cuts.rows)
    memset(cuts, 0, sizeof(Cuts))


cdef CutRow* next_cut(Cuts* cuts) noexcept nogil:
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


cdef void note_cut(Cuts* cuts, const Table* t, uint32_t slot, int side, uint32_t change, int64_t now) noexcept nogil:
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
    spell_ends(t, slot, e.flags[side] & FROM_HIGH, &row.ends)
    row.cut_ns = now
    row.change = change
    row.rule[0] = -1
    row.rule[1] = -1
    row.finished = e.state[side] == TIME_WAIT or e.state[side] == CLOSED


cdef bint follows_cut(Cuts* cuts, const Packet* p, bint opener, int64_t now) noexcept nogil:
    cdef uint32_t place
    cdef CutRow* row
    if p.outcome != READ_TRACKED:
        return False        # it has no key
    place = find_slot(&cuts.waiting, &p.key, p.digest, p.hash)
    if place == NO_SLOT:
        return False
    row = &cuts.rows[entry_at(&cuts.waiting.slab, place).rule[0]]
    if row.outcome == CUT_NEVER and opener:
        row.outcome = CUT_DENIED
        row.again_ns = now
    if row.outcome == CUT_DENIED:
        return False
    row.packets += 1
    row.bytes += p.wire
    return True


cdef void note_return(
    Cuts* cuts, const Packet* p, const Table* t, uint32_t slot, bint initiator_high, int64_t now
) noexcept nogil:
    cdef uint32_t place = find_slot(&cuts.waiting, &p.key, p.digest, p.hash)
    cdef const Entry* e = entry_at(&t.slab, slot)
    cdef uint32_t number
    cdef int side
    cdef Ends ends
    cdef CutRow* row
    if place == NO_SLOT:
        return
    spell_ends(t, slot, initiator_high, &ends)
    number = entry_at(&cuts.waiting.slab, place).rule[0]
    drop_key(&cuts.waiting, place)
    while number != NO_CUT:
        row = &cuts.rows[number]
        row.outcome = CUT_BACK
        row.again_ns = now
        row.turned = memcmp(row.ends.initiator, ends.initiator, sizeof(ends.initiator)) != 0
        for side in range(2):
            if NO_STATE < e.state[side] < MOOT_TCP:
                row.rule[side != initiator_high] = <int32_t>e.rule[side]
        number = row.previous
