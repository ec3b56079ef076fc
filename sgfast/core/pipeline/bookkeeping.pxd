# The records that a packet leaves behind once its verdict is known: its part of the connection report (SPEC 10.4), its
# denied attempt, and the mark that its opener was seen (SPEC 9.3).

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t

from sgfast.core.base.intrinsics cimport unlikely
from sgfast.core.base.key cimport KIND_ICMP_QUERY, address_of, write_address
from sgfast.core.base.types cimport (
    ALLOW,
    DENY,
    INFERRED,
    NO_SLOT,
    TCP_SYN,
    WORD_BEGAN,
    WORD_HEARD,
    WORD_HIGH_SHIFT,
    WORD_KNOWN,
    Packet,
)
from sgfast.core.conntrack.flow_rows cimport restart_tuple
from sgfast.core.conntrack.lifetime cimport (
    add_key,
    begin_tuple,
    end_tuple,
    make_room,
    mark_opener,
    name_sides,
    set_side,
)
from sgfast.core.conntrack.protocols cimport moot_state
from sgfast.core.conntrack.states cimport MOOT_TCP, NO_STATE
from sgfast.core.conntrack.storage cimport Entry, entry_at, origin_at
from sgfast.core.conntrack.table cimport (
    FROM_HIGH,
    HEARD,
    REFUSED,
    SIDE_RESET,
    SIDE_TIMEOUT,
    TUPLE_DENIED,
    TUPLE_LIVE,
    UNBEGUN,
    Table,
    count_packet,
    find_slot,
    latest_deadline,
    side_lives,
)
from sgfast.core.pipeline.causal cimport from_other_end, lift_moot, make_moot, moot_flags, note_other_end
from sgfast.core.pipeline.context cimport PacketContext, entry_present, set_slot
from sgfast.core.pipeline.filter cimport make_live, marks_matter
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.tallies.disconnects cimport note_return
from sgfast.core.tallies.tally cimport BEGAN, Queued, TallyKey, key_of_kind, link_origin, queue_kind


cdef inline void set_record_bits(PacketContext* c, const Entry* e) noexcept nogil:
    # Sets the outcome word's bits about the packet's record, initiator included. For a record that just began,
    # begin_record has set the initiator already. A side that an RST just ended still has its flags.
    cdef int side = e.state[0] == NO_STATE and (e.state[1] != NO_STATE or (e.present & 3) == 2)
    if c.wants_word and e.marks & TUPLE_LIVE and not e.marks & UNBEGUN:
        c.word |= WORD_KNOWN | (WORD_HEARD if e.marks & HEARD else 0)
        if not c.word & WORD_BEGAN:
            c.word |= <uint16_t>((e.flags[side] & FROM_HIGH) << WORD_HIGH_SHIFT)


cdef inline void count_in_record(Table* t, const PacketContext* c, uint32_t slot) noexcept nogil:
    if t.keep_flows and not entry_at(&t.slab, slot).marks & UNBEGUN:
        count_packet(t, slot, c.packet)
        if c.owners_known:
            name_sides(t, slot, c.instance)


cdef inline void begin_record(
    Plane* plane, Table* t, PacketContext* c, uint32_t slot, uint8_t verdict, uint8_t reason, int denied_side
) noexcept nogil:
    # A packet that follows a cut is in no list of denials (context.pxd, deny).
    cdef int32_t counted_for = c.instance[denied_side if denied_side >= 0 else 1 - c.initiator_high]
    if verdict == DENY and c.denial == NULL:
        counted_for = -1
    begin_tuple(t, slot, c.packet, counted_for, c.initiator_high, verdict, reason, denied_side)
    if c.denial != NULL and t.keep_origins:
        link_origin(&plane.queue, c.denial, origin_at(&t.slab, slot))
    c.word |= <uint16_t>(WORD_BEGAN | c.initiator_high << WORD_HIGH_SHIFT)


cdef inline void count_attempt(Plane* plane, const PacketContext* c) noexcept nogil:
    # A packet began a denied attempt.
    plane.denied += 1
    if c.denial != NULL:
        c.denial.connections += 1


# Denied attempts that leave no tuple: only the report remembers them --------------------------------------------------

cdef inline void note_attempt(Plane* plane, PacketContext* c, int side, uint8_t reason) noexcept nogil:
    cdef const Packet* p = c.packet
    cdef Table* t = &plane.attempts
    cdef uint32_t slot = find_slot(t, &p.key, p.digest, p.hash)
    cdef uint8_t state = moot_state(p)
    cdef int64_t deadline = c.now + plane.timeout[state]
    cdef Entry* e
    if slot != NO_SLOT and c.now >= latest_deadline(entry_at(&t.slab, slot)):
        end_tuple(t, slot, c.now, SIDE_TIMEOUT)
        slot = NO_SLOT
    if slot == NO_SLOT:
        count_attempt(plane, c)
        if not make_room(t, c.now):
            return
        slot = add_key(t, &p.key, p.digest, p.hash)
        if slot == NO_SLOT:
            return
        entry_at(&t.slab, slot).present = entry_present(c)
        set_side(t, slot, side, state, moot_flags(c), <uint32_t>c.rule, deadline)
        begin_record(plane, t, c, slot, DENY, reason, side)
    e = entry_at(&t.slab, slot)
    side = 0 if e.state[0] else 1       # the side that denied the attempt's first opener
    e.deadline[side] = deadline
    if from_other_end(p, e, side):
        note_other_end(p, e)
    set_record_bits(c, e)
    if t.keep_flows:
        count_packet(t, slot, p)
        name_sides(t, slot, c.instance)


cdef inline void note_attempt_answer(Plane* plane, PacketContext* c, bint allowed) noexcept nogil:
    # A packet that opens nothing may belong to a denied attempt, most likely as its answer. A denied packet counts in
    # the attempt. An allowed one, which stateless filters let pass, only shows that the attempt was answered.
    cdef const Packet* p = c.packet
    cdef Table* t = &plane.attempts
    cdef uint32_t slot = find_slot(t, &p.key, p.digest, p.hash)
    cdef Entry* e
    cdef int side
    if slot == NO_SLOT:
        return
    e = entry_at(&t.slab, slot)
    side = 0 if e.state[0] else 1
    if not side_lives(e, side, c.now):
        return
    if from_other_end(p, e, side):
        note_other_end(p, e)
    if allowed:
        return
    e.deadline[side] = c.now + plane.timeout[e.state[side]]
    set_record_bits(c, e)
    if t.keep_flows:
        count_packet(t, slot, p)


cdef inline void refuse_attempt(Plane* plane, const Packet* quoted, int64_t now) noexcept nogil:
    cdef uint32_t slot = find_slot(&plane.attempts, &quoted.key, quoted.digest, quoted.hash)
    # An expired attempt may or may not have been freed yet; that must make no difference.
    if slot != NO_SLOT and now < latest_deadline(entry_at(&plane.attempts.slab, slot)):
        entry_at(&plane.attempts.slab, slot).marks |= REFUSED


cdef inline void end_attempt(Plane* plane, const PacketContext* c) noexcept nogil:
    # The key opened after all, so what is denied later is a new attempt.
    cdef const Packet* p = c.packet
    cdef uint32_t slot = find_slot(&plane.attempts, &p.key, p.digest, p.hash)
    if slot != NO_SLOT:
        end_tuple(&plane.attempts, slot, c.now, SIDE_TIMEOUT)


# After the verdict ----------------------------------------------------------------------------------------------------

cdef inline bint lives(const Plane* plane, const PacketContext* c) noexcept nogil:
    return c.slot != NO_SLOT and (c.entry.marks & TUPLE_LIVE) != 0


cdef inline void mark_seen(Plane* plane, PacketContext* c) noexcept nogil:
    # Nothing is inferred for a key whose opener was seen, allowed or denied (SPEC 9.3).
    cdef const Packet* p = c.packet
    if not c.opener or p.step != TCP_SYN or not marks_matter(plane, c.now):
        return
    if c.slot == NO_SLOT:
        set_slot(c, &plane.table, add_key(&plane.table, &p.key, p.digest, p.hash))
    if c.slot != NO_SLOT:
        mark_opener(&plane.table, c.slot)


cdef inline void end_if_empty(Plane* plane, PacketContext* c) noexcept nogil:
    # A tuple is over when no side has a connection or a mark.
    cdef const Entry* e
    if not lives(plane, c):
        return
    e = c.entry
    if e.state[0] == NO_STATE and e.state[1] == NO_STATE:
        end_tuple(&plane.table, c.slot, c.now, SIDE_RESET)
        c.slot = NO_SLOT


cdef inline void tally_opened(Plane* plane, const PacketContext* c) noexcept nogil:
    # Counts a connection at the responder if that is an instance, and else at the initiator.
    cdef const Packet* p = c.packet
    cdef const Entry* e = c.entry
    cdef int judge = 1 - c.initiator_high
    cdef uint16_t port_key = p.port_key
    cdef TallyKey key
    cdef Queued* queued
    cdef int side
    if c.instance[judge] < 0:
        judge = c.initiator_high
    side = judge if NO_STATE < e.state[judge] < MOOT_TCP else 1 - judge
    if p.has_ports and p.source_high != c.initiator_high:
        port_key = p.sport      # the responder's packet, of a connection that was inferred
    elif p.key.kind & KIND_ICMP_QUERY:
        port_key &= 0xFF00      # as the report of connections has it
    key = key_of_kind(
        c.instance[judge], port_key, p.protocol, c.reason, judge != c.initiator_high, p.ipv6, p.has_ports, p.has_icmp,
        <int32_t>e.rule[side] if NO_STATE < e.state[side] < MOOT_TCP else -1
    )
    write_address(<uint8_t*>key.peer, address_of(p.key.addr, p.ipv6, 1 - judge), p.ipv6)
    queued = queue_kind(&plane.queue, &plane.tallies[BEGAN], &key, p.time_ns, p.number)
    queued.connections = 1
    if judge != c.initiator_high:       # at the initiator, nobody asks whether it was answered
        link_origin(&plane.queue, queued, origin_at(&plane.table.slab, c.slot))


cdef inline void note_opened(Plane* plane, PacketContext* c) noexcept nogil:
    # The packet began a connection, and all its sides allowed it.
    begin_record(plane, &plane.table, c, c.slot, ALLOW, c.reason, -1)
    if c.reason == INFERRED:
        plane.inferred += 1
    else:
        plane.opened += 1
    if plane.reporting:
        tally_opened(plane, c)
    if plane.attempts.live:
        end_attempt(plane, c)


cdef inline void settle_established(Plane* plane, PacketContext* c) noexcept nogil:
    # An allowed packet that neither began nor ended a connection.
    count_in_record(&plane.table, c, c.slot)
    set_record_bits(c, c.entry)


cdef inline void settle_allowed(Plane* plane, PacketContext* c, int moot) noexcept nogil:
    # `moot`: the side whose mark made the key moot before this packet, or -1.
    cdef Table* t = &plane.table
    cdef const Entry* e
    cdef bint over = unlikely(moot >= 0) and c.slot != NO_SLOT and not lift_moot(plane, c, moot)
    if lives(plane, c) and not over:
        e = c.entry
        if unlikely(c.created and e.marks & (TUPLE_DENIED | UNBEGUN) == TUPLE_DENIED):
            # The key was that of a denied attempt.
            restart_tuple(t, c.slot, &c.attempt_row if c.has_attempt_row else NULL)
        if e.marks & UNBEGUN and (c.created or e.state[0] or e.state[1]):
            note_opened(plane, c)
        settle_established(plane, c)
    if unlikely(plane.cuts.waiting.used) and c.created:
        note_return(&plane.cuts, c.packet, t, c.slot, c.initiator_high, c.now)
    mark_seen(plane, c)
    if unlikely(over):
        end_tuple(t, c.slot, c.now, SIDE_RESET)
        c.slot = NO_SLOT
    end_if_empty(plane, c)
    if plane.reporting and plane.attempts.live and not lives(plane, c):
        note_attempt_answer(plane, c, True)


cdef inline void settle_denied(Plane* plane, PacketContext* c, int moot, int side, uint8_t reason) noexcept nogil:
    # `side`: the side that denied the packet. A side before it may have allowed the packet, and then keeps its
    # connection (SPEC 3.7).
    cdef Table* t = &plane.table
    cdef Entry* e
    cdef bint begins = c.created
    if moot < 0:
        if c.rules_denied and plane.causal and make_live(plane, c):
            begins = make_moot(plane, c, side)
    elif c.slot != NO_SLOT and c.entry.state[moot] < MOOT_TCP:
        # The side that made the key moot allows the opener now, but the other side does not.
        make_moot(plane, c, 1 - moot)
    if lives(plane, c):
        e = c.entry
        if e.marks & UNBEGUN and (begins or e.state[0] or e.state[1]):
            begin_record(plane, t, c, c.slot, DENY, reason, side)
            count_attempt(plane, c)
        count_in_record(t, c, c.slot)
        if e.marks & TUPLE_DENIED and from_other_end(c.packet, e, 0 if e.state[0] else 1):
            note_other_end(c.packet, e)
        set_record_bits(c, e)
    mark_seen(plane, c)
    end_if_empty(plane, c)
    if plane.reporting and not lives(plane, c):
        if c.opener_denied:
            note_attempt(plane, c, side, reason)
        elif plane.attempts.live:
            note_attempt_answer(plane, c, False)
