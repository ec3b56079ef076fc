# The slow path: all stages that judge one packet with a connection key.
#
#     find the entry --> owners, scope --> causal mode --> VPCs --> filter of each end --> update of the state
#
# judge.pxd decides. This module applies the decisions to the state: connections, counters, moot marks, the packet's
# part of the connection report (SPEC 10.4), the packet's denied attempt, and the mark of a key whose opener was seen
# (SPEC 9.3).

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.intrinsics cimport likely, unlikely
from sgfast.core.base.key cimport KIND_ICMP_QUERY, address_of, write_address
from sgfast.core.base.types cimport (
    ALLOW,
    DENY,
    DENY_RULE,
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
    TABLE_FULL,
    VPC_ISOLATED,
    WORD_BEGAN,
    WORD_HEARD,
    WORD_HIGH_SHIFT,
    WORD_KNOWN,
    WORD_REASON_SHIFT,
    Packet,
    SideRow,
)
from sgfast.core.conntrack.flow_rows cimport make_flow_row, restart_tuple
from sgfast.core.conntrack.lifetime cimport (
    add_key,
    begin_tuple,
    clear_side,
    end_tuple,
    make_room,
    mark_opener,
    name_sides,
    note_reply,
    rearm,
    reopen_side,
    set_side,
)
from sgfast.core.conntrack.protocols cimport (
    can_open,
    either_may_call,
    is_from_service,
    is_of_tcp,
    moot_state,
    resets,
    shows_answer,
)
from sgfast.core.conntrack.states cimport MOOT_TCP, NO_STATE
from sgfast.core.conntrack.storage cimport DIRECTED, Entry, entry_at, origin_at
from sgfast.core.conntrack.table cimport (
    FROM_HIGH,
    HEARD,
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
from sgfast.core.pipeline.plane cimport Plane, RuleCount
from sgfast.core.tallies.disconnects cimport follows_cut, note_return
from sgfast.core.tallies.tally cimport (
    BEGAN,
    DENIALS,
    OUTSIDE,
    Queued,
    TallyKey,
    key_of_kind,
    link_origin,
    queue_kind,
)
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
                count_packet(&plane.table, c.slot, p)
            set_record_bits(c, c.entry)
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


cdef inline void tally_outside(Plane* plane, const Packet* p) noexcept nogil:
    # Counts a packet in the networks of its two addresses, once if both are in the same network.
    cdef TallyKey key = key_of_kind(-1, 0, 0, NO_REASON, False, p.ipv6, False, False, -1)
    cdef uint8_t other[16]
    cdef int length = 8 if p.ipv6 else 3        # of the networks, in bytes
    memset(other, 0, sizeof(other))
    write_address(<uint8_t*>key.peer, address_of(p.key.addr, p.ipv6, 0), p.ipv6)
    write_address(other, address_of(p.key.addr, p.ipv6, 1), p.ipv6)
    memset(<uint8_t*>key.peer + length, 0, 16 - length)
    memset(other + length, 0, 16 - length)
    queue_kind(&plane.queue, &plane.tallies[OUTSIDE], &key, p.time_ns, p.number).packets = 1
    if memcmp(key.peer, other, sizeof(other)) != 0:
        memcpy(key.peer, other, sizeof(other))
        queue_kind(&plane.queue, &plane.tallies[OUTSIDE], &key, p.time_ns, p.number).packets = 1


cdef inline bint is_sent_freely(const Plane* plane, const Packet* p) noexcept nogil:
    # Whether only the receiver's filter judges the packet, not the sender's (SPEC 3.11). The headers alone cannot make
    # such a packet exempt: whether the receiver is an instance is known only here.
    return plane.wire.infrastructure == BY_ROLE and asks_infrastructure(p)


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


cdef inline bint from_other_end(const Packet* p, const Entry* e, int side) noexcept nogil:
    # Whether the packet's sender is not the sender of the opener that `side` denied.
    return ((e.flags[side] & FROM_HIGH) != 0) != p.source_high


cdef inline void note_two_way(Plane* plane, const Entry* e) noexcept nogil:
    # Counts a tuple whose other end sends its first packet. Call it before the packet is marked in the entry.
    if not e.marks & (HEARD | REFUSED):
        plane.counters.two_way += 1


cdef inline void note_one_way(Plane* plane, Entry* e) noexcept nogil:
    # The initiator sent a packet which shows that the other end has answered.
    if not e.marks & (HEARD | REFUSED):
        plane.counters.one_way += 1
        e.marks |= HEARD


cdef inline void note_reaction(
    Plane* plane, const PacketContext* c, Entry* e, int side, bint opener_seen
) noexcept nogil:
    # This packet belongs to a connection whose first packet `side` denied. Even if it is moot or denied, a packet of
    # the other end shows how that end reacted. So does a packet after the opener that only makes sense after an answer.
    cdef const Packet* p = c.packet
    if from_other_end(p, e, side):
        if not e.flags[side] & UNSEEN:
            note_two_way(plane, e)
        e.marks |= REFUSED if resets(p) else HEARD
    elif e.flags[side] & UNSEEN:
        e.flags[side] &= <uint8_t>~UNSEEN
        plane.counters.two_way += 1
    elif opener_seen and shows_answer(p):
        note_one_way(plane, e)


cdef inline bint may_pass(const Plane* plane, const PacketContext* c) noexcept nogil:
    # Whether all filters would allow the packet. No state changes.
    cdef int side
    for side in range(2):
        if c.instance[side] >= 0 and not would_allow(plane, c, side):
            return False
    return not isolated(plane, c)


cdef inline bint is_moot(Plane* plane, const PacketContext* c, int side) noexcept nogil:
    # Whether the packet is moot, given that the mark of `side` makes its key moot. A packet that is not moot is a new
    # opener, and the filters judge it. Every packet extends the mark's deadline.
    cdef const Packet* p = c.packet
    cdef Entry* e = c.entry
    e.deadline[side] = c.now + plane.timeout[e.state[side]]
    if from_other_end(p, e, side):
        if either_may_call(p) and may_pass(plane, c):
            return False
    elif can_open(p) or not is_of_tcp(p):
        return False
    note_reaction(plane, c, e, side, True)
    return True


cdef inline uint8_t denied_flags(const PacketContext* c) noexcept nogil:
    # The flags of the side that denies the first packet of a connection.
    return (FROM_HIGH if c.initiator_high else 0) | (UNSEEN if c.initiator_high != c.packet.source_high else 0)


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
        rule.packets += 1
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
    plane.counters.verdicts[verdict] += 1
    plane.counters.reasons[reason] += 1
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
        after_cut |= follows_cut(&plane.cuts, named, o.attempt != NO_ATTEMPT and can_open(named), c.now)
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


cdef inline void tally_denial(
    Plane* plane, PacketContext* c, int side, uint8_t reason, int32_t rule
) noexcept nogil:
    # Tallies a denied packet. If its connection would have been inferred, that connection's direction counts, as in
    # outcomes.pxd.
    cdef const Packet* p = c.packet
    cdef uint16_t port_key = p.port_key
    cdef TallyKey key
    find_owners(plane, c)
    if c.initiator_high != p.source_high:
        port_key = p.sport      # the responder's packet, of a connection that would have been inferred
    elif is_from_service(p):
        port_key = p.sport      # so that packets of both directions are one group
    key = key_of_kind(
        c.instance[side], port_key, p.protocol, reason, side != c.initiator_high, p.ipv6, p.has_ports, p.has_icmp,
        rule if reason == DENY_RULE else -1
    )
    write_address(<uint8_t*>key.peer, address_of(p.key.addr, p.ipv6, 1 - side), p.ipv6)
    c.denial = queue_kind(&plane.queue, &plane.tallies[DENIALS], &key, p.time_ns, p.number)
    c.denial.packets = 1
    c.denial.bytes = p.wire


# After the verdict ----------------------------------------------------------------------------------------------------

cdef inline void settle_established(Plane* plane, PacketContext* c) noexcept nogil:
    # Records an allowed packet of a live tuple.
    count_in_record(plane, c)
    set_record_bits(c, c.entry)


cdef inline void settle_allowed(
    Plane* plane, PacketContext* c, int moot, uint8_t reason, const FlowRow* attempt
) noexcept nogil:
    # Records an allowed packet that may have begun or ended a connection. `moot`: the side whose mark made the key moot
    # before this packet, or -1. `attempt`: the report row of the key's denied attempt, or NULL.
    cdef Table* t = &plane.table
    cdef const Entry* e
    cdef bint over = unlikely(moot >= 0) and c.slot != NO_SLOT and not lift_moot(plane, c, moot)
    if lives(c) and not over:
        e = c.entry
        if unlikely(c.created and e.marks & (TUPLE_DENIED | UNBEGUN) == TUPLE_DENIED):
            restart_tuple(t, c.slot, c.entry, attempt)
        if e.marks & UNBEGUN and has_side(e):
            note_opened(plane, c, reason)
        settle_established(plane, c)
    if unlikely(plane.cuts.waiting.used) and c.created:
        note_return(&plane.cuts, c.packet, t, c.slot, c.initiator_high, c.now)
    mark_seen(plane, c)
    if unlikely(over):
        end_tuple(t, c.slot, c.entry, c.now, SIDE_RESET)
        c.slot = NO_SLOT
    end_if_empty(plane, c)
    if plane.reporting and plane.attempts.live and not lives(c):
        note_attempt_answer(plane, c, True)


cdef inline void settle_denied(Plane* plane, PacketContext* c, int moot, int side, const Outcome* o) noexcept nogil:
    # Records a packet that `side` denied. If the egress side allowed the packet before, that side keeps its connection
    # (SPEC 3.7).
    cdef Entry* e
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
            count_attempt(plane, c)
        count_in_record(plane, c)
        if e.marks & TUPLE_DENIED:
            note_reaction(plane, c, e, 0 if e.state[0] else 1, o.attempt == NO_ATTEMPT)
        elif o.reason == INVALID:
            note_early_ack(plane, c, e)
        set_record_bits(c, e)
    mark_seen(plane, c)
    end_if_empty(plane, c)
    if plane.reporting and not lives(c):
        if o.attempt != NO_ATTEMPT:
            note_attempt(plane, c, side, o)
        elif plane.attempts.live:
            note_attempt_answer(plane, c, False)


cdef inline void note_early_ack(Plane* plane, const PacketContext* c, Entry* e) noexcept nogil:
    # The filter denies an ACK that the initiator sends while no answer was seen. It shows that there was one.
    cdef int side = 0 if e.state[0] else 1
    if ((e.flags[side] & FROM_HIGH) != 0) == c.packet.source_high and shows_answer(c.packet):
        note_one_way(plane, e)


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


# The packet's part of the connection report ---------------------------------------------------------------------------

cdef inline void set_record_bits(PacketContext* c, const Entry* e) noexcept nogil:
    # Sets the outcome word's bits about the packet's record, initiator included. For a record that just began,
    # begin_record has set the initiator already. A side that an RST just ended still has its flags.
    cdef int side = e.state[0] == NO_STATE and (e.state[1] != NO_STATE or (e.present & 3) == 2)
    if c.wants_word and e.marks & TUPLE_LIVE and not e.marks & UNBEGUN:
        c.word |= WORD_KNOWN | (WORD_HEARD if e.marks & HEARD else 0)
        if not c.word & WORD_BEGAN:
            c.word |= <uint16_t>((e.flags[side] & FROM_HIGH) << WORD_HIGH_SHIFT)


cdef inline void count_in_record(Plane* plane, const PacketContext* c) noexcept nogil:
    if plane.table.keep_flows and not c.entry.marks & UNBEGUN:
        count_packet(&plane.table, c.slot, c.packet)
        if c.owners_known:
            name_sides(&plane.table, c.slot, c.instance)


cdef inline void begin_record(
    Plane* plane, Table* t, PacketContext* c, uint32_t slot, Entry* e, uint8_t verdict, uint8_t reason,
    int denied_side
) noexcept nogil:
    # A denied packet without a tallied denial follows a cut. Its record counts for no instance.
    cdef int32_t counted_for = c.instance[denied_side if denied_side >= 0 else 1 - c.initiator_high]
    if verdict == DENY and c.denial == NULL:
        counted_for = -1
    begin_tuple(t, slot, e, c.packet, counted_for, c.initiator_high, verdict, reason, denied_side)
    if c.denial != NULL and t.keep_origins:
        link_origin(&plane.queue, c.denial, origin_at(&t.slab, slot))
    c.word |= <uint16_t>(WORD_BEGAN | c.initiator_high << WORD_HIGH_SHIFT)


cdef inline void note_opened(Plane* plane, PacketContext* c, uint8_t reason) noexcept nogil:
    # Records that the packet began a connection and that all its sides allowed the packet.
    begin_record(plane, &plane.table, c, c.slot, c.entry, ALLOW, reason, -1)
    if reason == INFERRED:
        plane.counters.inferred += 1
    else:
        plane.counters.opened += 1
    if plane.reporting:
        tally_opened(plane, c, reason)
    if plane.attempts.live:
        end_attempt(plane, c)


cdef inline void tally_opened(Plane* plane, const PacketContext* c, uint8_t reason) noexcept nogil:
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
        port_key &= 0xFF00      # only the ICMP type, as in the connection report
    key = key_of_kind(
        c.instance[judge], port_key, p.protocol, reason, judge != c.initiator_high, p.ipv6, p.has_ports, p.has_icmp,
        <int32_t>e.rule[side] if NO_STATE < e.state[side] < MOOT_TCP else -1
    )
    write_address(<uint8_t*>key.peer, address_of(p.key.addr, p.ipv6, 1 - judge), p.ipv6)
    queued = queue_kind(&plane.queue, &plane.tallies[BEGAN], &key, p.time_ns, p.number)
    queued.connections = 1
    if judge != c.initiator_high:       # no report counts answers at the initiator
        link_origin(&plane.queue, queued, origin_at(&plane.table.slab, c.slot))


# Denied attempts without a tuple: only the report remembers them ------------------------------------------------------

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
        if not make_room(t, c.now):
            return
        slot = add_key(t, &p.key, p.digest, p.hash)
        if slot == NO_SLOT:
            return
        e = entry_at(&t.slab, slot)
        e.present = c.present
        set_side(t, slot, e, side, state, denied_flags(c), <uint32_t>o.rule, c.now + plane.timeout[state])
        begin_record(plane, t, c, slot, e, DENY, o.reason, side)
    count_in_attempt(plane, c, slot, e, False, False)
    if t.keep_flows:
        name_sides(t, slot, c.instance)


cdef inline void note_attempt_answer(Plane* plane, PacketContext* c, bint allowed) noexcept nogil:
    # Counts a packet that opens nothing in its key's denied attempt. The packet is most likely the attempt's answer.
    cdef const Packet* p = c.packet
    cdef Table* t = &plane.attempts
    cdef uint32_t slot = find_slot(t, &p.key, p.digest, p.hash)
    cdef Entry* e
    if slot != NO_SLOT:
        e = entry_at(&t.slab, slot)
        if c.now < latest_deadline(e):
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
        count_packet(&plane.attempts, slot, c.packet)


cdef inline void refuse_attempt(Plane* plane, const Packet* quoted, int64_t now) noexcept nogil:
    cdef uint32_t slot = find_slot(&plane.attempts, &quoted.key, quoted.digest, quoted.hash)
    # The result must not depend on whether an expired attempt was freed already.
    if slot != NO_SLOT and now < latest_deadline(entry_at(&plane.attempts.slab, slot)):
        entry_at(&plane.attempts.slab, slot).marks |= REFUSED


cdef inline void end_attempt(Plane* plane, const PacketContext* c) noexcept nogil:
    # Ends the attempt of a key that was opened after all, so that a packet denied later begins a new attempt.
    cdef const Packet* p = c.packet
    cdef uint32_t slot = find_slot(&plane.attempts, &p.key, p.digest, p.hash)
    if slot != NO_SLOT:
        end_tuple(&plane.attempts, slot, entry_at(&plane.attempts.slab, slot), c.now, SIDE_TIMEOUT)
