"""Replies to openers that stateless filters let pass. ``replies.pxd`` explains each function."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.icmp cimport opener_port_key
from sgfast.core.base.types cimport (
    DENY,
    NO_SLOT,
    REPLY_DENIED,
    TCP_SYN,
    WORD_BEGAN,
    WORD_HEARD,
    WORD_HIGH_SHIFT,
    WORD_KNOWN,
    Packet,
)
from sgfast.core.classify.classifier cimport is_stateless
from sgfast.core.conntrack.events cimport tell
from sgfast.core.conntrack.lifetime cimport add_key, end_tuple, make_room, name_sides, set_side
from sgfast.core.conntrack.protocols cimport answers_nothing, can_open, is_of_tcp, moot_state
from sgfast.core.conntrack.states cimport MOOT_OTHER, NO_STATE
from sgfast.core.conntrack.storage cimport Entry, FlowRecord, entry_at, flow_at, origin_at
from sgfast.core.conntrack.table cimport (
    DENIED_EVENT,
    FROM_HIGH,
    REPLY,
    REPLY_AWAITED,
    REPLY_PASSED,
    REPLY_STOPPED,
    SIDE_DENIED,
    SIDE_NONE,
    SIDE_RESET,
    SIDE_TIMEOUT,
    UNBEGUN,
    Table,
    count_packet,
    find_slot,
    latest_deadline,
    side_connected,
)
from sgfast.core.pipeline.attempts cimport count_attempt
from sgfast.core.pipeline.judge cimport Outcome, PacketContext, isolated
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.pipeline.reactions cimport from_other_end, note_reaction
from sgfast.core.pipeline.records cimport begin_record, set_record_bits


cdef inline int side_of(const Entry* e) noexcept nogil:
    # Returns the side that holds the state of an entry of `Plane.attempts`.
    return 0 if e.state[0] else 1


cdef uint32_t passed_opener(const Plane* plane, const Packet* p, int64_t now) noexcept nogil:
    cdef const Table* t = &plane.attempts
    cdef uint32_t slot = find_slot(t, &p.key, p.digest, p.hash)
    cdef const Entry* e
    if slot == NO_SLOT:
        return NO_SLOT
    e = entry_at(&t.slab, slot)
    return slot if e.flags[side_of(e)] & REPLY and now < latest_deadline(e) else <uint32_t>NO_SLOT


cdef void find_passed(const Plane* plane, PacketContext* c) noexcept nogil:
    c.passed_slot = passed_opener(plane, c.packet, c.now)
    if c.passed_slot != NO_SLOT:
        c.passed = entry_at(&plane.attempts.slab, c.passed_slot)


cdef bint reply_makes_moot(const Plane* plane, const Entry* e) noexcept nogil:
    cdef int side = side_of(e)
    return plane.causal and e.state[side] != MOOT_OTHER and e.flags[side] & REPLY == REPLY_STOPPED


cdef inline bint all_connected(const Plane* plane, const PacketContext* c) noexcept nogil:
    # Whether every filter on the packet's way has its connection: a change took the filter away that denied the reply.
    cdef int side
    if c.slot == NO_SLOT or isolated(plane, c):
        return False
    for side in range(2):
        if c.instance[side] >= 0 and not side_connected(c.entry, side, c.now):
            return False
    return True


cdef bint follows_denied_reply(Plane* plane, PacketContext* c) noexcept nogil:
    cdef const Packet* p = c.packet
    cdef Entry* e = c.passed
    cdef int side = side_of(e)
    if not reply_makes_moot(plane, e) or all_connected(plane, c):
        return False
    if not from_other_end(p, e, side) and (can_open(p) or not is_of_tcp(p)):
        return False
    count_in_denied(plane, c, e, side)
    return True


cdef inline void count_in_denied(Plane* plane, PacketContext* c, Entry* e, int side) noexcept nogil:
    # Counts a packet in the attempt whose first reply was denied.
    e.deadline[side] = c.now + plane.timeout[e.state[side]]
    note_reaction(plane, c, e, side, True)
    set_record_bits(c, e)
    if plane.attempts.keep_flows:
        count_packet(&plane.attempts, c.passed_slot, c.packet, c.packet.count)


cdef void drop_passed(Plane* plane, PacketContext* c) noexcept nogil:
    cdef Entry* e = c.passed
    if e.marks & UNBEGUN:
        end_tuple(&plane.attempts, c.passed_slot, e, c.now, SIDE_RESET)
    else:
        e.flags[side_of(e)] &= <uint8_t>~REPLY
    c.passed = NULL


cdef void note_denied_reply(Plane* plane, PacketContext* c, int side, const Outcome* o) noexcept nogil:
    cdef Table* t = &plane.attempts
    cdef Entry* e = c.passed
    cdef uint32_t slot = c.passed_slot
    cdef int was = side_of(e)
    cdef uint8_t flags = (e.flags[was] & ~REPLY) | REPLY_STOPPED
    cdef bint begins = (e.marks & UNBEGUN) != 0
    cdef FlowRecord* flow = NULL
    cdef uint64_t number = 0
    cdef int64_t first_ns = 0
    if not begins:
        e.flags[was] = flags
        count_in_denied(plane, c, e, was)
        return
    set_side(t, slot, e, side, e.state[was], flags, <uint32_t>o.rule, c.now + plane.timeout[e.state[was]])
    if side != was:
        e.state[was] = NO_STATE
    count_attempt(plane, c)
    if t.keep_flows:
        # The record begins with the opener.
        flow = flow_at(&t.slab, slot)
        number = flow.number
        first_ns = flow.first_ns
    begin_record(plane, t, c, slot, e, DENY, REPLY_DENIED, side)
    if t.keep_origins and c.packet.has_icmp:
        origin_at(&t.slab, slot).icmp = opener_port_key(e.kind, e.ports, c.initiator_high)
    if t.keep_flows:
        flow.number = number
        flow.first_ns = first_ns
        name_sides(t, slot, c.instance)
    count_in_denied(plane, c, e, side)
    if plane.table.events != NULL:
        tell(&plane.events, t, slot, c.now, 2 * c.packet.number, DENIED_EVENT, SIDE_DENIED)


cdef void note_passed(Plane* plane, PacketContext* c) noexcept nogil:
    cdef const Packet* p = c.packet
    cdef Table* t = &plane.attempts
    cdef Entry* e = c.passed
    cdef uint8_t state = moot_state(p)
    cdef int64_t deadline = c.now + plane.timeout[state]
    cdef uint32_t slot
    cdef int side
    if e != NULL:
        side = side_of(e)
        if from_other_end(p, e, side) and p.step != TCP_SYN:
            tell_way(c, e.flags[side] & FROM_HIGH, True)
            e.flags[side] = (e.flags[side] & ~REPLY) | REPLY_PASSED
            if state != MOOT_OTHER and e.marks & UNBEGUN:
                # This connection works. The next opener begins another one.
                end_tuple(t, c.passed_slot, e, c.now, SIDE_RESET)
            return
        tell_way(c, p.source_high, False)
        if not can_open(p):
            return
        if not from_other_end(p, e, side):
            e.deadline[side] = deadline
            if state != MOOT_OTHER:
                e.flags[side] = (e.flags[side] & ~REPLY) | REPLY_AWAITED
            if t.keep_flows:
                count_packet(t, c.passed_slot, p, p.count)
            return
        end_tuple(t, c.passed_slot, e, c.now, SIDE_RESET)
    elif not can_open(p) or answers_nothing(p) or not (
        is_stateless(plane.rules, c.instance[0]) or is_stateless(plane.rules, c.instance[1])
    ):
        return
    slot = find_slot(t, &p.key, p.digest, p.hash)
    if slot != NO_SLOT:
        e = entry_at(&t.slab, slot)
        if c.now < latest_deadline(e) and from_other_end(p, e, side_of(e)):
            return      # it answers a denied attempt
        end_tuple(t, slot, e, c.now, SIDE_TIMEOUT)
    if not make_room(t, c.now):
        return
    slot = add_key(t, &p.key, p.digest, p.hash)
    if slot == NO_SLOT:
        return
    e = entry_at(&t.slab, slot)
    e.present = c.present
    side = 0 if is_stateless(plane.rules, c.instance[0]) else 1
    set_side(t, slot, e, side, state, REPLY_AWAITED | (FROM_HIGH if p.source_high else 0), NO_SLOT, deadline)
    plane.awaits_replies = True
    tell_way(c, p.source_high, False)
    if t.keep_flows:
        flow_at(&t.slab, slot).side_end[side] = SIDE_NONE
        flow_at(&t.slab, slot).number = p.number
        flow_at(&t.slab, slot).first_ns = p.time_ns
        flow_at(&t.slab, slot).initiator_high = p.source_high
        count_packet(t, slot, p, p.count)


cdef inline void tell_way(PacketContext* c, bint initiator_high, bint heard) noexcept nogil:
    # Sets the bits of the result word if no connection's record describes the packet: who opened, whether it replies.
    if c.wants_word and not c.word & (WORD_BEGAN | WORD_KNOWN):
        c.word |= <uint16_t>(WORD_KNOWN | initiator_high << WORD_HIGH_SHIFT | (WORD_HEARD if heard else 0))
