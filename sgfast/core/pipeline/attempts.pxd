# Denied attempts that are not in the connection table. Reports need them, because a retry is not a new attempt (SPEC
# 10.2). So they have a table of their own, `Plane.attempts`.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from sgfast.core.base.types cimport DENY, NO_SLOT, WORD_BEGAN, Packet
from sgfast.core.conntrack.events cimport tell
from sgfast.core.conntrack.lifetime cimport add_key, end_tuple, make_room, name_sides, set_side
from sgfast.core.conntrack.protocols cimport moot_state
from sgfast.core.conntrack.storage cimport Entry, entry_at
from sgfast.core.conntrack.table cimport (
    DENIED_EVENT,
    REFUSED,
    SIDE_DENIED,
    SIDE_TIMEOUT,
    UNBEGUN,
    Table,
    count_packet,
    find_slot,
    latest_deadline,
)
from sgfast.core.pipeline.judge cimport Outcome, PacketContext
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.pipeline.reactions cimport denied_flags, note_reaction
from sgfast.core.pipeline.records cimport begin_record, set_record_bits


cdef inline void count_attempt(Plane* plane, const PacketContext* c) noexcept nogil:
    # Counts the denied attempt that the packet began.
    plane.counters.denied += 1
    if c.denial != NULL:
        c.denial.connections += 1


cdef inline void note_attempt(Plane* plane, PacketContext* c, int side, const Outcome* o) noexcept nogil:
    cdef const Packet* p = c.packet
    cdef Table* t = &plane.attempts
    cdef uint32_t slot = find_slot(t, &p.key, p.digest, p.hash)
    cdef uint8_t state = moot_state(p)
    cdef Entry* e
    if slot != NO_SLOT:
        e = entry_at(&t.slab, slot)
        if c.now >= latest_deadline(e):
            end_tuple(t, slot, e, c.now, SIDE_TIMEOUT)
            slot = NO_SLOT
    if slot == NO_SLOT:
        count_attempt(plane, c)
        if make_room(t, c.now):
            slot = add_key(t, &p.key, p.digest, p.hash)
        if slot == NO_SLOT:
            plane.events.lost += plane.table.events != NULL
            return
        e = entry_at(&t.slab, slot)
        e.present = c.present
        set_side(t, slot, e, side, state, denied_flags(c), <uint32_t>o.rule, c.now + plane.timeout[state])
        begin_record(plane, t, c, slot, e, DENY, o.reason, side)
    count_in_attempt(plane, c, slot, e, False, False)
    if t.keep_flows:
        name_sides(t, slot, c.instance)
    if plane.table.events != NULL and c.word & WORD_BEGAN:
        tell(&plane.events, t, slot, c.now, 2 * p.number, DENIED_EVENT, SIDE_DENIED)


cdef inline void note_attempt_answer(Plane* plane, PacketContext* c, bint allowed) noexcept nogil:
    # Counts a packet that opens nothing in its key's denied attempt. The packet is most likely the attempt's answer.
    cdef const Packet* p = c.packet
    cdef Table* t = &plane.attempts
    cdef uint32_t slot = find_slot(t, &p.key, p.digest, p.hash)
    cdef Entry* e
    if slot != NO_SLOT:
        e = entry_at(&t.slab, slot)
        if c.now < latest_deadline(e) and not e.marks & UNBEGUN:
            count_in_attempt(plane, c, slot, e, allowed, True)


cdef inline void count_in_attempt(
    Plane* plane, PacketContext* c, uint32_t slot, Entry* e, bint allowed, bint opener_seen
) noexcept nogil:
    # A denied packet counts in the attempt. A packet that stateless filters allowed only shows that the attempt was
    # answered. `opener_seen`: the packet opens nothing because the attempt's opener was seen.
    cdef int side = 0 if e.state[0] else 1      # the side that denied the attempt's first opener
    note_reaction(plane, c, e, side, opener_seen)
    if allowed:
        return
    e.deadline[side] = c.now + plane.timeout[e.state[side]]
    set_record_bits(c, e)
    if plane.attempts.keep_flows:
        count_packet(&plane.attempts, slot, c.packet, c.packet.count)


cdef inline void refuse_attempt(Plane* plane, const Packet* quoted, int64_t now) noexcept nogil:
    cdef uint32_t slot = find_slot(&plane.attempts, &quoted.key, quoted.digest, quoted.hash)
    # The result must not depend on whether an expired attempt was freed already.
    if slot != NO_SLOT and now < latest_deadline(entry_at(&plane.attempts.slab, slot)):
        entry_at(&plane.attempts.slab, slot).marks |= REFUSED


cdef inline void end_attempt(Plane* plane, PacketContext* c) noexcept nogil:
    # Ends the attempt of a key that was opened after all, so that a packet denied later begins a new attempt.
    cdef const Packet* p = c.packet
    cdef uint32_t slot = find_slot(&plane.attempts, &p.key, p.digest, p.hash)
    if slot != NO_SLOT:
        end_tuple(&plane.attempts, slot, entry_at(&plane.attempts.slab, slot), c.now, SIDE_TIMEOUT)
        c.passed = NULL
