# The slow path: all stages that judge one packet with a connection key.
#
#     find the entry --> owners, scope --> causal mode --> VPCs --> filter of each end --> update of the state
#
# judge.pxd decides. This module applies the decisions to the state: connections, counters, moot marks, and the mark of
# a key whose opener was seen (SPEC 9.3). Four modules note what only reports tell: records.pxd, attempts.pxd,
# reactions.pxd and packet_tallies.pxd.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.intrinsics cimport likely, unlikely
from sgfast.core.base.types cimport (
    ALLOW,
    DENY,
    DISCONNECTED,
    EXEMPT,
    INFERRED,
    INFRASTRUCTURE,
    INVALID,
    LOCAL,
    MOOT,
    NO_REASON,
    NO_SLOT,
    OPENER_DENIED,
    OUT_OF_SCOPE,
    REPLY_DENIED,
    TABLE_FULL,
    VPC_ISOLATED,
    WORD_BEGAN,
    WORD_REASON_SHIFT,
    Packet,
    SideRow,
)
from sgfast.core.conntrack.events cimport tell_packet
from sgfast.core.conntrack.flow_rows cimport make_flow_row, restart_tuple
from sgfast.core.conntrack.lifetime cimport (
    add_key,
    clear_side,
    end_tuple,
    make_room,
    mark_opener,
    note_reply,
    rearm,
    reopen_side,
    set_side,
)
from sgfast.core.conntrack.protocols cimport (
    answers_nothing,
    can_open,
    either_may_call,
    is_of_tcp,
    moot_state,
    resets,
)
from sgfast.core.conntrack.states cimport MOOT_TCP, NO_STATE
from sgfast.core.conntrack.storage cimport DIRECTED, ORIGIN_CALLED, ORIGIN_HIGH, Entry, Origin, flow_sides_at, origin_at
from sgfast.core.conntrack.table cimport (
    DENIED_EVENT,
    FROM_HIGH,
    HEARD,
    OPENED_EVENT,
    OTHER_SENT,
    REFUSED,
    REPLIED,
    SIDE_DENIED,
    SIDE_REOPENED,
    SIDE_RESET,
    SIDE_TIMEOUT,
    TUPLE_DENIED,
    TUPLE_LIVE,
    UNBEGUN,
    UNHEARD,
    UNSEEN,
    FlowRow,
    Table,
    count_packet,
    find_slot,
    latest_deadline,
    same_key,
    side_connected,
)
from sgfast.core.pipeline.attempts cimport count_attempt, end_attempt, note_attempt, note_attempt_answer
from sgfast.core.pipeline.judge cimport (
    BEGINS,
    GOES_ON,
    IS_DROPPED,
    NO_ATTEMPT,
    WOULD_BEGIN,
    WOULD_OPEN,
    Outcome,
    PacketContext,
    decide,
    find_owners,
    isolated,
    judge_side,
    marks_matter,
    set_slot,
    would_allow,
)
from sgfast.core.pipeline.packet_tallies cimport tally_denial, tally_opened, tally_outside
from sgfast.core.pipeline.plane cimport Plane, RuleCount
from sgfast.core.pipeline.reactions cimport denied_flags, from_other_end, note_early_ack, note_reaction, note_two_way
from sgfast.core.pipeline.records cimport begin_record, count_in_record, set_record_bits
from sgfast.core.pipeline.replies cimport (
    drop_passed,
    find_passed,
    follows_denied_reply,
    note_denied_reply,
    note_passed,
)
from sgfast.core.tallies.disconnects cimport follows_cut, note_return
from sgfast.core.tallies.tally cimport count_queued
from sgfast.core.wire.ip cimport BY_ROLE, asks_infrastructure


cdef inline void judge_tracked(Plane* plane, PacketContext* c) noexcept nogil:
    # Judges a packet that has a connection key.
    cdef const Packet* p = c.packet
    cdef int source = p.source_high
    cdef bint established = find_entry(plane, c)
    cdef bint free = False
    cdef int moot = -1
    cdef const FlowRow* attempt = NULL
    cdef FlowRow attempt_row
    cdef uint8_t present
    cdef int side, last
    cdef Outcome o
    if established:
        present = c.entry.present
        if plane.want_sides:
            find_owners(plane, c)
    else:
        find_owners(plane, c)
        present = c.present & 3
        if unlikely(is_sent_freely(plane, p)):
            free = True
            if c.instance[1 - source] < 0:
                finish(plane, c, EXEMPT, NO_REASON)
                return
        if not in_scope(plane, c):
            return
        if c.slot != NO_SLOT:
            moot = moot_side(c.entry, c.now)
        if moot >= 0 and is_moot(plane, c, moot):
            if plane.table.keep_flows:
                count_packet(&plane.table, c.slot, p, p.count)
            set_record_bits(c, c.entry)
            finish(plane, c, MOOT, OPENER_DENIED)
            return
        if unlikely(plane.awaits_replies):
            find_passed(plane, c)
            if c.passed != NULL and follows_denied_reply(plane, c):
                finish(plane, c, MOOT, OPENER_DENIED)
                return
        if unlikely(isolated(plane, c)):
            decide(c, False, VPC_ISOLATED, -1, &o)
            if can_open(p):
                c.opener = True
                o.attempt = WOULD_OPEN
            side = deny_early(plane, c, &o)
            settle_denied(plane, c, moot, side, &o)
            return
        if unlikely(c.slot != NO_SLOT and c.entry.marks & TUPLE_DENIED):
            # The packet may open the key now. Its report row is made before the sides change.
            if make_flow_row(&plane.table, c.slot, c.now, SIDE_REOPENED, &attempt_row):
                attempt = &attempt_row
        if unlikely(free and present == 3):
            decide(c, True, INFRASTRUCTURE, -1, &o)
            note_side(plane, c, source, &o)
            present = 2 - source        # only the receiver's side judges the packet

    # The egress side judges first. The ingress side never sees a packet that the egress side denies (SPEC 3.7). A
    # single filter is on a side as random as the addresses, so the side's number is computed: no branch depends on it.
    side = source if present == 3 else present >> 1
    last = 1 - source if present == 3 else side
    while True:
        judge_side(plane, c, side, &o)
        settle_side(plane, c, side, &o)
        if unlikely(not o.allowed):
            deny(plane, c, side, &o, p)
            settle_denied(plane, c, moot, side, &o)
            return
        if likely(side == last):
            break
        side = last
    finish(plane, c, ALLOW, o.reason)
    # A reopened side begins a new tuple, which `settle_allowed` records.
    if likely(established and not c.entry.marks & UNBEGUN and not resets(p)):
        settle_established(plane, c)
    else:
        settle_allowed(plane, c, moot, o.reason, attempt)


cdef inline bint find_entry(Plane* plane, PacketContext* c) noexcept nogil:
    # Finds the entry of the packet's key, and ends the entry's tuple if its deadlines have passed. Returns True in the
    # common case: each side with a filter has a live connection.
    cdef Table* t = &plane.table
    cdef const Packet* p = c.packet
    cdef const Entry* e
    c.slot = p.hint
    c.entry = <Entry*>p.entry
    if unlikely(c.slot == NO_SLOT) or not same_key(t, c.slot, c.entry, &p.key, p.digest):
        if not set_slot(c, t, find_slot(t, &p.key, p.digest, p.hash)):
            return False
    e = c.entry
    if e.present == 3:
        if side_connected(e, 0, c.now) and side_connected(e, 1, c.now):
            return True
    elif likely(e.present < DIRECTED):
        if e.present != 0 and side_connected(e, e.present >> 1, c.now):
            return True
    if e.marks & TUPLE_LIVE and c.now >= latest_deadline(e):
        end_tuple(t, c.slot, c.entry, c.now, SIDE_TIMEOUT)
        set_slot(c, t, find_slot(t, &p.key, p.digest, p.hash))
    return False


cdef inline bint in_scope(Plane* plane, PacketContext* c) noexcept nogil:
    # Whether any filter sees the packet (SPEC 3.3, 3.6). If no filter does, this function records the packet's verdict.
    if c.instance[0] < 0 and c.instance[1] < 0:
        if plane.reporting:
            tally_outside(plane, c.packet)
        finish(plane, c, OUT_OF_SCOPE, NO_REASON)
        return False
    if unlikely(c.instance[0] == c.instance[1]):
        finish(plane, c, LOCAL, NO_REASON)
        return False
    return True


cdef inline bint is_sent_freely(const Plane* plane, const Packet* p) noexcept nogil:
    # Whether only the receiver's filter judges the packet, not the sender's (SPEC 3.11). The headers alone cannot make
    # such a packet exempt: whether the receiver is an instance is known only here.
    return plane.wire.infrastructure == BY_ROLE and asks_infrastructure(p)


cdef enum:
    ANSWER_WITHIN = 1_000_000_000       # nanoseconds after a denied packet, of what may be its answer (SPEC 9.2)


# Causal mode: moot keys (SPEC 9.2) ------------------------------------------------------------------------------------
#
# A key is moot if its traffic would not have happened, because its opener was denied. The side that denied the opener
# stores the moot mark in the place of a connection. `is_moot` runs before the filters. The filters' decisions make a
# key moot or lift its mark.

cdef inline int moot_side(const Entry* e, int64_t now) noexcept nogil:
    # Returns the side whose mark makes the key moot, or -1.
    if e.state[0] >= MOOT_TCP and now < e.deadline[0]:
        return 0
    if e.state[1] >= MOOT_TCP and now < e.deadline[1]:
        return 1
    return -1


cdef inline bint may_pass(const Plane* plane, const PacketContext* c) noexcept nogil:
    # Whether all filters would allow the packet. No state changes.
    cdef int side
    for side in range(2):
        if c.instance[side] >= 0 and not would_allow(plane, c, side):
            return False
    return not isolated(plane, c)


cdef inline bint tells_answers(const Plane* plane, const Packet* p) noexcept nogil:
    # Whether times tell answers from openers in the packet's protocol. Flow logs have no time of a single packet.
    return not plane.weighs and not answers_nothing(p)


cdef inline bint is_moot(Plane* plane, const PacketContext* c, int side) noexcept nogil:
    # Whether the packet is moot, given that the mark of `side` makes its key moot. A packet that is not moot is a new
    # opener, and the filters judge it. Every packet extends the mark's deadline.
    cdef const Packet* p = c.packet
    cdef Entry* e = c.entry
    cdef int64_t silence = c.now + plane.timeout[e.state[side]] - e.deadline[side]
    cdef bint is_answer
    e.deadline[side] = c.now + plane.timeout[e.state[side]]
    if from_other_end(p, e, side):
        is_answer = silence <= ANSWER_WITHIN and not e.flags[side] & OTHER_SENT
        e.flags[side] |= OTHER_SENT
        if plane.weighs and p.is_answer and not answers_nothing(p):
            # Flow logs have no time of a single packet, but tell who opened the connection (SPEC 10.30).
            pass
        elif either_may_call(p) and not (is_answer and tells_answers(plane, p)) and may_pass(plane, c):
            return False
    elif can_open(p) or not is_of_tcp(p):
        e.flags[side] &= <uint8_t>~OTHER_SENT
        return False
    note_reaction(plane, c, e, side, True)
    return True


cdef inline void make_moot(Plane* plane, const PacketContext* c, int side, int32_t rule) noexcept nogil:
    # Sets the moot mark on a side without a connection: preferably on the denying side. If both sides have connections,
    # the key does not become moot (SPEC 6.11).
    cdef const Entry* e = c.entry
    cdef uint8_t state = moot_state(c.packet)
    if side_connected(e, side, c.now):
        side = 1 - side
    if side_connected(e, side, c.now):
        return
    set_side(
        &plane.table, c.slot, c.entry, side, state, denied_flags(c), <uint32_t>rule, c.now + plane.timeout[state]
    )


cdef inline bint lift_moot(Plane* plane, PacketContext* c, int moot) noexcept nogil:
    # Removes the moot mark of a key whose opener was allowed. Returns False and keeps the mark if the tuple is over: if
    # stateless filters allowed the opener, there is no connection.
    cdef Entry* e = c.entry
    # The mark may be on a side that no longer has an instance.
    e.present = c.present
    if e.state[moot] < MOOT_TCP:
        return True     # a connection took the mark's place
    if e.state[1 - moot] == NO_STATE:
        return False
    clear_side(&plane.table, c.slot, e, moot, SIDE_DENIED)
    return True


# One side -------------------------------------------------------------------------------------------------------------

cdef inline void settle_side(Plane* plane, PacketContext* c, int side, Outcome* o) noexcept nogil:
    # Applies the decision of a side's filter. A full table denies a connection that the filter lets begin (SPEC 5.8).
    cdef Table* t = &plane.table
    cdef Entry* e = c.entry
    cdef bint is_later
    if o.change == GOES_ON:
        e.state[side] = o.state
        is_later = o.deadline >= e.deadline[side]
        e.deadline[side] = o.deadline
        if unlikely(not is_later):
            rearm(t, c.slot, e)
        # One branch tests several conditions: a packet's direction is unpredictable, but the first packet of an end is
        # rare. Bit 3 of the flags is UNHEARD, for replies, and bit 4 is UNSEEN.
        if unlikely(e.flags[side] >> (4 - o.reply) & 1):
            note_first(plane, c, side, o.reply)
    elif o.change == IS_DROPPED:
        if o.reply:
            e.marks |= REFUSED
        clear_side(t, c.slot, e, side, SIDE_RESET)
    else:
        if unlikely(o.reopens):
            reopen_side(t, c.slot, e, side, c.now)
        c.opener |= o.opener
        c.initiator_high = o.initiator_high
        if o.change == BEGINS:
            begin_side(plane, c, side, o)
    note_side(plane, c, side, o)


cdef inline void note_first(Plane* plane, const PacketContext* c, int side, bint reply) noexcept nogil:
    # The packet is the first one of its end that this side sees.
    cdef Entry* e = c.entry
    cdef bint is_second = side_connected(e, 1 - side, c.now) and not e.flags[1 - side] & UNSEEN
    if reply:
        note_two_way(plane, e)
        note_reply(&plane.table, e, side, resets(c.packet))
        return
    e.flags[side] &= <uint8_t>~UNSEEN
    plane.counters.two_way += not is_second


cdef inline void begin_side(Plane* plane, PacketContext* c, int side, Outcome* o) noexcept nogil:
    cdef uint8_t flags = UNHEARD
    if not make_live(plane, c):
        decide(c, False, TABLE_FULL, -1, o)
        o.attempt = WOULD_BEGIN
        return
    if o.initiator_high:
        flags |= FROM_HIGH
    if o.reason == INFERRED:
        flags |= REPLIED
    set_side(&plane.table, c.slot, c.entry, side, o.state, flags, <uint32_t>o.rule, o.deadline)
    if o.reply:
        note_reply(&plane.table, c.entry, side, False)
        c.entry.flags[side] |= UNSEEN
    plane.rule_counts[o.rule].connections += 1
    c.created = True


cdef inline bint make_live(Plane* plane, PacketContext* c) noexcept nogil:
    # Finds or makes an entry for the packet's key. Returns False if the table has no room (SPEC 5.8).
    cdef Table* t = &plane.table
    cdef const Packet* p = c.packet
    if c.slot == NO_SLOT or not c.entry.marks & TUPLE_LIVE:
        plane.events.place = 2 * p.number
        if not make_room(t, c.now):
            return False
        if c.slot != NO_SLOT:
            # `make_room` may have freed this entry if its tuple had ended.
            set_slot(c, t, find_slot(t, &p.key, p.digest, p.hash))
        if c.slot == NO_SLOT and not set_slot(c, t, add_key(t, &p.key, p.digest, p.hash)):
            return False
        # A live tuple keeps its `present`, as a policy change may have set another value (policy_change.pxd).
        c.entry.present = c.present
    return True


cdef inline void note_side(Plane* plane, PacketContext* c, int side, const Outcome* o) noexcept nogil:
    # Records one side's verdict: in the rule's counters, and in the result if the caller wants one.
    cdef RuleCount* rule
    cdef SideRow* row
    if o.rule >= 0:
        rule = &plane.rule_counts[o.rule]
        rule.packets += c.packet.count
        rule.bytes += c.packet.wire
    if c.row != NULL:
        row = &c.row.egress if side == c.packet.source_high else &c.row.ingress
        row.instance = c.instance[side]
        row.rule = o.rule
        row.verdict = ALLOW if o.allowed else DENY
        row.reason = o.reason


# The packet's verdict -------------------------------------------------------------------------------------------------

cdef inline void finish(Plane* plane, PacketContext* c, uint8_t verdict, uint8_t reason) noexcept nogil:
    # Records the packet's verdict. Call it exactly once per packet.
    plane.counters.verdicts[verdict] += c.packet.count
    plane.counters.reasons[reason] += c.packet.count
    c.word |= <uint16_t>(verdict | reason << WORD_REASON_SHIFT)
    if c.row != NULL:
        c.row.verdict = verdict
        c.row.reason = reason


cdef inline void deny(
    Plane* plane, PacketContext* c, int side, const Outcome* o, const Packet* named
) noexcept nogil:
    # Records that a side denied the packet. `named`: the packet with the connection's key, which is the denied packet
    # itself or the packet that it quotes. A packet that follows a cut is not tallied as a denial (disconnects.pxd).
    cdef bint after_cut = o.reason == DISCONNECTED
    if plane.cuts.waiting.used:
        after_cut |= follows_cut(&plane.cuts, named, o.attempt != NO_ATTEMPT and can_open(named), o.reason, c.now)
    if plane.reporting and not after_cut:
        tally_denial(plane, c, side, o.reason, o.rule)
    finish(plane, c, DENY, o.reason)


cdef inline int deny_early(Plane* plane, PacketContext* c, const Outcome* o) noexcept nogil:
    # Denies a packet before SPEC 4 applies. Reports the denial on the packet's first side (SPEC 10.3), and returns that
    # side.
    cdef int side = c.packet.source_high
    if c.instance[side] < 0:
        side = 1 - side
    note_side(plane, c, side, o)
    deny(plane, c, side, o, c.packet)
    return side


# After the verdict ----------------------------------------------------------------------------------------------------

cdef inline void settle_established(Plane* plane, PacketContext* c) noexcept nogil:
    # Records an allowed packet of a live tuple.
    cdef Table* t = &plane.table
    count_in_record(plane, c)
    set_record_bits(c, c.entry)
    if unlikely(t.events != NULL):
        tell_packet(t, c.slot, c.entry, c.now, c.packet.number, c.word & WORD_BEGAN, c.created, OPENED_EVENT)


cdef inline void settle_allowed(
    Plane* plane, PacketContext* c, int moot, uint8_t reason, const FlowRow* attempt
) noexcept nogil:
    # Records an allowed packet that may have begun or ended a connection. `moot`: the side whose mark made the key moot
    # before this packet, or -1. `attempt`: the report row of the key's denied attempt, or NULL.
    cdef Table* t = &plane.table
    cdef const Entry* e
    cdef uint64_t* unsure = NULL
    cdef bint over = unlikely(moot >= 0) and c.slot != NO_SLOT and not lift_moot(plane, c, moot)
    if lives(c) and not over:
        e = c.entry
        if unlikely(c.created and e.marks & (TUPLE_DENIED | UNBEGUN) == TUPLE_DENIED):
            unsure = unsure_attempt(plane, c)
            restart_tuple(t, c.slot, c.entry, attempt)
        if e.marks & UNBEGUN and has_side(e):
            note_opened(plane, c, reason)
            if unlikely(unsure != NULL):
                origin_at(&t.slab, c.slot).ends |= ORIGIN_CALLED
                origin_at(&t.slab, c.slot).attempt = unsure
        settle_established(plane, c)
    if unlikely(plane.cuts.waiting.used) and c.created:
        note_return(&plane.cuts, c.packet, t, c.slot, c.initiator_high, c.now)
    mark_seen(plane, c)
    if unlikely(over):
        end_tuple(t, c.slot, c.entry, c.now, SIDE_RESET)
        c.slot = NO_SLOT
    end_if_empty(plane, c)
    if plane.keeps_attempts and plane.attempts.live and not lives(c):
        note_attempt_answer(plane, c, True)
    if unlikely(plane.rules.stateless != NULL) or unlikely(c.passed != NULL):
        note_passed(plane, c)


cdef inline uint64_t* unsure_attempt(Plane* plane, const PacketContext* c) noexcept nogil:
    # Returns the counters of the other end's denied attempt of which the packet may be a late answer, although it opens
    # the key. NULL: there is none.
    cdef const Packet* p = c.packet
    cdef const Origin* origin
    if not plane.table.keep_origins or not plane.causal or c.entry.marks & (HEARD | REFUSED):
        return NULL
    origin = origin_at(&plane.table.slab, c.slot)
    if ((origin.ends & ORIGIN_HIGH) != 0) == p.source_high or not either_may_call(p) or not tells_answers(plane, p):
        return NULL
    count_queued(&plane.queue)      # the counters are those of a row from now on
    return origin.endings


cdef inline void settle_denied(Plane* plane, PacketContext* c, int moot, int side, const Outcome* o) noexcept nogil:
    # Records a packet that `side` denied. If the egress side allowed the packet before, that side keeps its connection
    # (SPEC 3.7).
    cdef Entry* e
    if unlikely(o.reason == REPLY_DENIED):
        if lives(c) and not c.entry.marks & TUPLE_DENIED:
            # A stateful filter tracks this connection. The denied packet is the answer of the other end.
            c.entry.marks |= REFUSED if resets(c.packet) else HEARD
        note_denied_reply(plane, c, side, o)
        end_if_empty(plane, c)
        return
    if unlikely(c.passed != NULL) and o.attempt != NO_ATTEMPT:
        drop_passed(plane, c)
    if moot < 0:
        if o.attempt == WOULD_OPEN and plane.causal and make_live(plane, c):
            make_moot(plane, c, side, o.rule)
    elif c.slot != NO_SLOT and c.entry.state[moot] < MOOT_TCP:
        # The side that made the key moot allows the opener now, but the other side denies it.
        make_moot(plane, c, 1 - moot, o.rule)
    if lives(c):
        e = c.entry
        if e.marks & UNBEGUN and has_side(e):
            begin_record(plane, &plane.table, c, c.slot, e, DENY, o.reason, side)
            if plane.table.keep_flows:
                flow_sides_at(&plane.table.slab, c.slot).rule[side] = <uint32_t>o.rule
            count_attempt(plane, c)
        count_in_record(plane, c)
        if e.marks & TUPLE_DENIED:
            note_reaction(plane, c, e, 0 if e.state[0] else 1, o.attempt == NO_ATTEMPT)
        elif o.reason == INVALID:
            note_early_ack(plane, c, e)
        set_record_bits(c, e)
        if unlikely(plane.table.events != NULL):
            tell_packet(
                &plane.table, c.slot, e, c.now, c.packet.number, c.word & WORD_BEGAN, False, DENIED_EVENT
            )
    mark_seen(plane, c)
    end_if_empty(plane, c)
    if plane.keeps_attempts and not lives(c):
        if o.attempt != NO_ATTEMPT:
            note_attempt(plane, c, side, o)
        elif plane.attempts.live:
            note_attempt_answer(plane, c, False)


cdef inline void note_opened(Plane* plane, PacketContext* c, uint8_t reason) noexcept nogil:
    # Counts a connection that the packet opened. All filters on its way have allowed it.
    begin_record(plane, &plane.table, c, c.slot, c.entry, ALLOW, reason, -1)
    if reason == INFERRED:
        plane.counters.inferred += 1
    else:
        plane.counters.opened += 1
    if plane.reporting:
        tally_opened(plane, c, reason)
    if plane.attempts.live:
        end_attempt(plane, c)


cdef inline bint lives(const PacketContext* c) noexcept nogil:
    return c.slot != NO_SLOT and (c.entry.marks & TUPLE_LIVE) != 0


cdef inline bint has_side(const Entry* e) noexcept nogil:
    # A tuple is over when no side has a connection or a mark.
    return e.state[0] != NO_STATE or e.state[1] != NO_STATE


cdef inline void end_if_empty(Plane* plane, PacketContext* c) noexcept nogil:
    if lives(c) and not has_side(c.entry):
        end_tuple(&plane.table, c.slot, c.entry, c.now, SIDE_RESET)
        c.slot = NO_SLOT


cdef inline void mark_seen(Plane* plane, PacketContext* c) noexcept nogil:
    # Marks the key of an opener, allowed or denied. No connection of a marked key is inferred (SPEC 9.3).
    cdef const Packet* p = c.packet
    if not c.opener or not is_of_tcp(p) or not marks_matter(plane, c.now):
        return
    if c.slot == NO_SLOT:
        set_slot(c, &plane.table, add_key(&plane.table, &p.key, p.digest, p.hash))
    if c.slot != NO_SLOT:
        mark_opener(&plane.table, c.slot, c.entry)
