# One packet's way: scope, moot keys, then past the filter of each end (SPEC 3, 9.2). What one filter says is in
# judge.pxd; what the packet leaves behind for the report is noted here.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from sgfast.core.classifier cimport is_stateless, vpcs_connected
from sgfast.core.conntrack cimport (
    FROM_HIGH,
    HEARD,
    MOOT_ICMP,
    MOOT_OTHER,
    MOOT_TCP,
    NO_STATE,
    REASON_SHIFT,
    REFUSED,
    SIDE_DENIED,
    SIDE_DISCONNECTED,
    SIDE_REOPENED,
    SIDE_RESET,
    SIDE_TIMEOUT,
    TUPLE_DENIED,
    TUPLE_LIVE,
    UNBEGUN,
    Table,
    add_key,
    begin_tuple,
    clear_side,
    count_packet,
    end_tuple,
    find_slot,
    latest_deadline,
    make_room,
    mark_opener,
    name_sides,
    same_key,
    set_side,
    side_connected,
    side_lives,
    sweep,
)
from sgfast.core.cuts cimport follows_cut, note_return
from sgfast.core.flow_rows cimport restart_tuple, tell_tuple
from sgfast.core.intrinsics cimport likely, unlikely
from sgfast.core.judge cimport Passage, find_owners, judge_side, judge_stateless, make_live, marks_matter
from sgfast.core.plane cimport Plane, RuleCount
from sgfast.core.rows cimport spell_peer
from sgfast.core.slab cimport NO_SLOT, Entry, entry_at
from sgfast.core.tally cimport TallyRow, count
from sgfast.core.timer_wheel cimport tick_of
from sgfast.core.types cimport (
    ALLOW,
    DENY,
    DISCONNECTED,
    EXEMPT,
    FRAGMENT,
    INFERRED,
    INVALID,
    LOCAL,
    MALFORMED,
    MOOT,
    NOT_IP,
    NO_REASON,
    OPENER_DENIED,
    OUT_OF_SCOPE,
    PROTO_TCP,
    READ_BROKEN,
    READ_EXEMPT,
    READ_FRAGMENT,
    READ_ICMP_ERROR,
    READ_MALFORMED,
    READ_NOT_IP,
    READ_TRACKED,
    RELATED,
    STEP_OPEN,
    TCP_RST,
    TCP_SYN,
    TRUNCATED,
    VPC_ISOLATED,
    WORD_BEGAN,
    WORD_HEARD,
    WORD_HIGH_SHIFT,
    WORD_KNOWN,
    WORD_REASON_SHIFT,
    Packet,
    ResultRow,
    SideRow,
)
from sgfast.core.wire cimport read_quote


# Results --------------------------------------------------------------------------------------------------------------

cdef inline void note_side(Plane* plane, const Packet* p, const Passage* way, SideRow* row, int side, bint allowed) \
        noexcept nogil:
    # One side's verdict: the rule's counters, and the result row if one is wanted.
    cdef RuleCount* rule
    if way.rule >= 0:
        rule = &plane.rule_counts[way.rule]
        rule.packets += 1
        rule.bytes += p.wire
    if row != NULL:
        row.instance = way.instance[side]
        row.rule = way.rule
        row.verdict = ALLOW if allowed else DENY
        row.reason = way.reason


cdef inline void finish(Plane* plane, const Packet* p, ResultRow* row, uint8_t verdict, uint8_t reason) noexcept nogil:
    plane.verdicts[verdict] += 1
    plane.reasons[reason] += 1
    plane.word |= <uint16_t>(verdict | reason << WORD_REASON_SHIFT)
    if row != NULL:
        row.verdict = verdict
        row.reason = reason


cdef inline void tell_record(Plane* plane, const Entry* e) noexcept nogil:
    # Of the record that the packet belongs to; who began it is known better while it begins. A side that an RST just
    # ended still has its flags.
    cdef int side = e.state[0] == NO_STATE and (e.state[1] != NO_STATE or e.present == 2)
    if e.marks & TUPLE_LIVE and not e.marks & UNBEGUN:
        plane.word |= WORD_KNOWN | (WORD_HEARD if e.marks & HEARD else 0)
        if not plane.word & WORD_BEGAN:
            plane.word |= <uint16_t>((e.flags[side] & FROM_HIGH) << WORD_HIGH_SHIFT)


cdef inline void tally_denial(Plane* plane, const Packet* p, Passage* way, int side, uint8_t reason) noexcept nogil:
    cdef TallyRow key
    plane.denial_tallied = True
    if not way.owners_known:
        find_owners(plane, p, way)
    memset(&key, 0, sizeof(TallyRow))
    spell_peer(key.peer, p, 1 - side)
    key.instance = way.instance[side]
    key.protocol = p.protocol
    key.reason = reason
    key.inbound = side != p.source_high
    key.family = 6 if p.ipv6 else 4
    key.has_ports = p.has_ports
    key.has_icmp = p.has_icmp
    key.port_key = p.port_key
    if p.protocol == PROTO_TCP and p.step != TCP_SYN and p.sport < p.dport:
        key.port_key = p.sport      # the service, most likely: packets of both ends belong together
    count(&plane.denials, &key, p.wire)


cdef inline void deny(Plane* plane, const Packet* p, Passage* way, ResultRow* row, int side, uint8_t reason) \
        noexcept nogil:
    # What comes after a cut is no denial of its own (cuts.pxd).
    cdef bint after_cut = reason == DISCONNECTED
    if plane.cuts.waiting.used:
        after_cut |= follows_cut(&plane.cuts, p, way.opener_denied, plane.now)
    if plane.reporting and not after_cut:
        tally_denial(plane, p, way, side, reason)
    finish(plane, p, row, DENY, reason)


cdef inline void deny_error(
    Plane* plane, const Packet* p, const Packet* quoted, Passage* way, ResultRow* row, int side
) noexcept nogil:
    # An ICMP error; `quoted` is the packet it tells of, NULL if it tells of none.
    cdef bint after_cut = (
        plane.cuts.waiting.used and quoted != NULL and follows_cut(&plane.cuts, quoted, False, plane.now)
    )
    if plane.reporting and not after_cut:
        tally_denial(plane, p, way, side, way.reason)
    finish(plane, p, row, DENY, way.reason)


cdef inline void deny_early(Plane* plane, const Packet* p, Passage* way, ResultRow* row, uint8_t reason) noexcept nogil:
    # Denials before SPEC 4 stand on the first side there is (SPEC 10.3).
    cdef int side = p.source_high
    if way.instance[side] < 0:
        side = 1 - side
    way.reason = reason
    way.rule = -1
    if row != NULL:
        note_side(plane, p, way, &row.egress if side == p.source_high else &row.ingress, side, False)
    deny(plane, p, way, row, side, reason)


# Scope (SPEC 3.3) -----------------------------------------------------------------------------------------------------

cdef inline bint in_scope(Plane* plane, const Packet* p, Passage* way, ResultRow* row) noexcept nogil:
    # Whether some instance's filter sees the packet; if not, its verdict is noted.
    if way.instance[0] < 0 and way.instance[1] < 0:
        finish(plane, p, row, OUT_OF_SCOPE, NO_REASON)
        return False
    if unlikely(way.instance[0] == way.instance[1]):
        finish(plane, p, row, LOCAL, NO_REASON)
        return False
    return True


cdef inline bint isolated(const Plane* plane, const Passage* way) noexcept nogil:
    # SPEC 3.6
    return (
        way.instance[0] >= 0 and way.instance[1] >= 0
        and not vpcs_connected(plane.rules, way.instance[0], way.instance[1])
    )


# Moot keys (SPEC 9.2) -------------------------------------------------------------------------------------------------

cdef inline int moot_side(const Entry* e, int64_t now) noexcept nogil:
    # The side whose mark makes the key moot, or -1.
    if e.state[0] >= MOOT_TCP and now < e.deadline[0]:
        return 0
    if e.state[1] >= MOOT_TCP and now < e.deadline[1]:
        return 1
    return -1


cdef inline uint8_t moot_state(const Packet* p) noexcept nogil:
    if p.protocol == PROTO_TCP:
        return MOOT_TCP
    if p.has_icmp:
        return MOOT_ICMP
    return MOOT_OTHER


cdef inline uint8_t moot_flags(const Passage* way, uint8_t reason) noexcept nogil:
    return (FROM_HIGH if way.initiator_high else 0) | <uint8_t>(reason << REASON_SHIFT)


cdef inline bint can_be_moot(const Plane* plane, const Packet* p) noexcept nogil:
    return plane.causal and p.has_ports and (p.protocol == PROTO_TCP or p.sport != p.dport)


cdef inline bint make_moot(Plane* plane, const Packet* p, const Passage* way, int side, uint8_t reason) noexcept nogil:
    # The mark stands on a side without a connection, of the denying one if it has none. Where both have one there is no
    # mark: what a change of the policy leaves of a tuple that lives at both ends is not undone by an opener.
    cdef Entry* e = entry_at(&plane.table.slab, way.slot)
    cdef uint8_t state = moot_state(p)
    if side_connected(e, side, plane.now):
        side = 1 - side
    if side_connected(e, side, plane.now):
        return False
    set_side(
        &plane.table, way.slot, side, state, moot_flags(way, reason), <uint32_t>way.rule,
        plane.now + plane.timeout[state]
    )
    return True


cdef inline void hear(const Packet* p, Entry* e) noexcept nogil:
    # The other end of a denied opener sent this: moot or denied, it tells what that end did.
    e.marks |= REFUSED if p.protocol == PROTO_TCP and p.step == TCP_RST else HEARD


cdef inline bint follows_denied_opener(Plane* plane, const Packet* p, Entry* e, int side) noexcept nogil:
    # The key is moot by `side`'s mark. Whether this packet is; if not, it opens again and is judged.
    cdef uint8_t state = e.state[side]
    cdef bint from_initiator = ((e.flags[side] & FROM_HIGH) != 0) == p.source_high
    e.deadline[side] = plane.now + plane.timeout[state]
    if from_initiator:
        return p.protocol == PROTO_TCP and p.step != TCP_SYN
    hear(p, e)
    return True


# Denied attempts that leave no tuple: only the report remembers them --------------------------------------------------

cdef inline void note_attempt(
    Plane* plane, const Packet* p, const Passage* way, int side, uint8_t reason
) noexcept nogil:
    cdef Table* t = &plane.attempts
    cdef uint32_t slot = find_slot(t, &p.key, p.digest, p.hash)
    cdef uint8_t state = moot_state(p)
    cdef int64_t deadline = plane.now + plane.timeout[state]
    cdef Entry* e
    if slot != NO_SLOT and plane.now >= latest_deadline(entry_at(&t.slab, slot)):
        end_tuple(t, slot, plane.now, SIDE_TIMEOUT)
        slot = NO_SLOT
    if slot == NO_SLOT:
        plane.denied += 1
        if not make_room(t, plane.now):
            return
        slot = add_key(t, &p.key, p.digest, p.hash)
        if slot == NO_SLOT:
            return
        e = entry_at(&t.slab, slot)
        e.present = (way.instance[0] >= 0) | (way.instance[1] >= 0) << 1
        set_side(t, slot, side, state, moot_flags(way, reason), <uint32_t>way.rule, deadline)
        begin_tuple(t, slot, p, way.initiator_high, DENY, reason, side)
        plane.word |= <uint16_t>(WORD_BEGAN | way.initiator_high << WORD_HIGH_SHIFT)
    e = entry_at(&t.slab, slot)
    side = 0 if e.state[0] else 1       # whichever end tried first
    e.deadline[side] = deadline
    if ((e.flags[side] & FROM_HIGH) != 0) != p.source_high:
        hear(p, e)
    tell_record(plane, e)
    if t.keep_flows:
        count_packet(t, slot, p)
        name_sides(t, slot, way.instance)


cdef inline void note_attempt_answer(Plane* plane, const Packet* p, bint allowed) noexcept nogil:
    # A denied packet that opens nothing: it may belong to a denied attempt, most likely as its answer. An allowed one,
    # which stateless filters let pass, only tells that the attempt was answered.
    cdef Table* t = &plane.attempts
    cdef uint32_t slot = find_slot(t, &p.key, p.digest, p.hash)
    cdef Entry* e
    cdef int side
    if slot == NO_SLOT:
        return
    e = entry_at(&t.slab, slot)
    side = 0 if e.state[0] else 1
    if not side_lives(e, side, plane.now):
        return
    if ((e.flags[side] & FROM_HIGH) != 0) != p.source_high:
        hear(p, e)
    if allowed:
        return
    e.deadline[side] = plane.now + plane.timeout[e.state[side]]
    tell_record(plane, e)
    if t.keep_flows:
        count_packet(t, slot, p)


cdef inline void refuse_attempt(Plane* plane, const Packet* quoted) noexcept nogil:
    cdef uint32_t slot = find_slot(&plane.attempts, &quoted.key, quoted.digest, quoted.hash)
    # One whose time is up may be there still, or not: that must make no difference.
    if slot != NO_SLOT and plane.now < latest_deadline(entry_at(&plane.attempts.slab, slot)):
        entry_at(&plane.attempts.slab, slot).marks |= REFUSED


cdef inline void end_attempt(Plane* plane, const Packet* p) noexcept nogil:
    # The key opened after all: what is denied later is a new attempt.
    cdef uint32_t slot = find_slot(&plane.attempts, &p.key, p.digest, p.hash)
    if slot != NO_SLOT:
        end_tuple(&plane.attempts, slot, plane.now, SIDE_TIMEOUT)


# Packets --------------------------------------------------------------------------------------------------------------

cdef inline void keep_tuples(
    Plane* plane, const Packet* p, Passage* way, int moot, int denied_side, uint8_t verdict, uint8_t reason
) noexcept nogil:
    # After the verdict: what the packet leaves behind. `moot`: the side that made the key moot before, or -1.
    cdef Table* t = &plane.table
    cdef Entry* e
    cdef uint8_t state
    cdef bint begins = way.created
    cdef bint over = False
    if way.rules_denied and moot < 0 and can_be_moot(plane, p) and make_live(plane, p, way):
        begins = make_moot(plane, p, way, denied_side, reason)
    elif unlikely(moot >= 0 and way.slot != NO_SLOT):
        e = entry_at(&t.slab, way.slot)
        if verdict == ALLOW:
            # No longer moot; the mark may stand on a side that has no instance any more. Stateless filters let it pass
            # and leave no connection: then the attempt is over, and is told of with its mark.
            over = e.state[moot] >= MOOT_TCP and e.state[1 - moot] == NO_STATE
            if e.state[moot] >= MOOT_TCP and not over:
                clear_side(t, way.slot, moot, SIDE_DENIED)
            e.present = (way.instance[0] >= 0) | (way.instance[1] >= 0) << 1
        elif e.state[moot] < MOOT_TCP:
            # The side that made it moot lets the opener pass now, but the other one does not.
            make_moot(plane, p, way, 1 - moot, reason)

    if way.slot != NO_SLOT:
        e = entry_at(&t.slab, way.slot)
        if unlikely(way.created and verdict == ALLOW and e.marks & (TUPLE_DENIED | UNBEGUN) == TUPLE_DENIED):
            restart_tuple(t, way.slot, &plane.attempt if plane.attempt_told else NULL)
        if e.marks & TUPLE_LIVE and not over:
            if e.marks & UNBEGUN and (begins or e.state[0] or e.state[1]):
                begin_tuple(
                    t, way.slot, p, way.initiator_high, verdict, reason, denied_side if verdict == DENY else -1
                )
                plane.word |= <uint16_t>(WORD_BEGAN | way.initiator_high << WORD_HIGH_SHIFT)
                if verdict == DENY:
                    plane.denied += 1
                else:
                    if reason == INFERRED:
                        plane.inferred += 1
                    else:
                        plane.opened += 1
                    if plane.attempts.live:
                        end_attempt(plane, p)
            if t.keep_flows and not e.marks & UNBEGUN:
                count_packet(t, way.slot, p)
                if way.owners_known:
                    name_sides(t, way.slot, way.instance)
            if verdict == DENY and e.marks & TUPLE_DENIED:
                state = e.flags[0] if e.state[0] else e.flags[1]
                if (state & FROM_HIGH) != p.source_high:
                    hear(p, e)
            tell_record(plane, e)

    if unlikely(plane.cuts.waiting.used) and way.created and verdict == ALLOW:
        note_return(&plane.cuts, p, t, way.slot, way.initiator_high, plane.now)

    if unlikely(way.opener and p.step == TCP_SYN and p.protocol == PROTO_TCP and marks_matter(plane)):
        if way.slot == NO_SLOT:
            way.slot = add_key(t, &p.key, p.digest, p.hash)
        if way.slot != NO_SLOT:
            mark_opener(t, way.slot)

    if way.slot != NO_SLOT:
        e = entry_at(&t.slab, way.slot)
        if unlikely((over or (e.state[0] == NO_STATE and e.state[1] == NO_STATE)) and e.marks & TUPLE_LIVE):
            end_tuple(t, way.slot, plane.now, SIDE_RESET)
            way.slot = NO_SLOT
    if plane.reporting and (way.slot == NO_SLOT or not entry_at(&t.slab, way.slot).marks & TUPLE_LIVE):
        if way.opener_denied:
            note_attempt(plane, p, way, denied_side, reason)
        elif plane.attempts.live:
            note_attempt_answer(plane, p, verdict == ALLOW)


cdef inline void judge_tracked(Plane* plane, const Packet* p, ResultRow* row) noexcept nogil:
    cdef Table* t = &plane.table
    cdef Passage way
    cdef Entry* e
    cdef int source = p.source_high
    cdef int destination = 1 - source
    cdef int moot = -1
    cdef int side, last
    cdef uint8_t present = 0
    cdef bint plain = False
    cdef bint allowed
    cdef SideRow* side_row = NULL
    way.slot = p.hint
    way.owners_known = False
    way.reopened = False
    way.created = False
    way.opener = False
    way.initiator_high = p.source_high
    way.opener_denied = False
    way.rules_denied = False
    way.instance[0] = -1
    way.instance[1] = -1
    way.rule = -1
    if unlikely(way.slot == NO_SLOT) or not same_key(t, way.slot, &p.key, p.digest):
        way.slot = find_slot(t, &p.key, p.digest, p.hash)
    if likely(way.slot != NO_SLOT):
        e = entry_at(&t.slab, way.slot)
        present = e.present
        # The common case: whoever has a filter here has a live connection in it. With one filter, which end has it
        # is as random as addresses are: the number of the side is computed, not branched on.
        if present == 3:
            plain = side_connected(e, 0, plane.now) and side_connected(e, 1, plane.now)
        else:
            plain = present != 0 and side_connected(e, present >> 1, plane.now)
        if unlikely(not plain) and e.marks & TUPLE_LIVE:
            if plane.now >= latest_deadline(e):
                end_tuple(t, way.slot, plane.now, SIDE_TIMEOUT)
                way.slot = find_slot(t, &p.key, p.digest, p.hash)
            else:
                moot = moot_side(e, plane.now)
    if plain:
        if plane.want_sides:
            find_owners(plane, p, &way)
    else:
        find_owners(plane, p, &way)
        if not in_scope(plane, p, &way, row):
            return
        present = (way.instance[0] >= 0) | (way.instance[1] >= 0) << 1
        if moot >= 0:
            e = entry_at(&t.slab, way.slot)
            if follows_denied_opener(plane, p, e, moot):
                if t.keep_flows:
                    count_packet(t, way.slot, p)
                tell_record(plane, e)
                finish(plane, p, row, MOOT, OPENER_DENIED)
                return
        if unlikely(isolated(plane, &way)):
            if p.step == STEP_OPEN or p.step == TCP_SYN:
                way.opener = True
                way.opener_denied = True
                way.rules_denied = True
            deny_early(plane, p, &way, row, VPC_ISOLATED)
            keep_tuples(plane, p, &way, moot, source if way.instance[source] >= 0 else destination, DENY, VPC_ISOLATED)
            return

    if unlikely(not plain and way.slot != NO_SLOT and entry_at(&t.slab, way.slot).marks & TUPLE_DENIED):
        plane.attempt_told = tell_tuple(t, way.slot, plane.now, SIDE_REOPENED, &plane.attempt)

    # The egress side judges first; what it denies the ingress side never sees (SPEC 3.7).
    side = source if present == 3 else present >> 1
    last = destination if present == 3 else side
    while True:
        if row != NULL:
            side_row = &row.egress if side == source else &row.ingress
        allowed = judge_side(plane, p, &way, side)
        note_side(plane, p, &way, side_row, side, allowed)
        if unlikely(not allowed):
            deny(plane, p, &way, row, side, way.reason)
            keep_tuples(plane, p, &way, moot, side, DENY, way.reason)
            return
        if likely(side == last):
            break
        side = last
    finish(plane, p, row, ALLOW, way.reason)
    if unlikely(not plain or t.keep_flows or way.reopened or p.step == TCP_RST):
        keep_tuples(plane, p, &way, moot, destination, ALLOW, way.reason)
    else:
        tell_record(plane, entry_at(&t.slab, way.slot))


cdef inline bint same_address(const Packet* a, int side_a, const Packet* b, int side_b) noexcept nogil:
    if a.ipv6:
        return (
            a.key.addr[2 * side_a] == b.key.addr[2 * side_b]
            and a.key.addr[2 * side_a + 1] == b.key.addr[2 * side_b + 1]
        )
    return <uint32_t>(a.key.addr[0] >> (0 if side_a else 32)) == <uint32_t>(b.key.addr[0] >> (0 if side_b else 32))


cdef inline bint relates(Plane* plane, uint32_t slot, int side, Passage* way) noexcept nogil:
    # Whether a side has a live, connected connection in the entry (SPEC 4.6).
    cdef const Entry* e
    way.reason = INVALID
    way.rule = -1
    if slot == NO_SLOT:
        return False
    e = entry_at(&plane.table.slab, slot)
    if not side_lives(e, side, plane.now) or e.state[side] >= MOOT_TCP or e.flags[side] & SIDE_DISCONNECTED:
        return False
    way.reason = RELATED
    way.rule = <int32_t>e.rule[side]
    return True


cdef inline void judge_icmp_error(Plane* plane, const Packet* p, Passage* way, ResultRow* row) noexcept nogil:
    # SPEC 4.6. The quoted packet names the connection; its source must be the error's destination. Stateless filters
    # judge it as any packet.
    cdef Table* t = &plane.table
    cdef Packet quoted
    cdef Passage quoted_way
    cdef Entry* e
    cdef uint32_t slot = NO_SLOT
    cdef int source = p.source_high
    cdef int destination = 1 - source
    cdef int quoted_source, quoted_destination, moot
    cdef bint readable, to_sender, allowed
    # "Fragmentation needed" refuses nothing.
    cdef bint unreachable = p.port_key >> 8 == 1 if p.ipv6 else (p.port_key >> 8 == 3 and p.port_key & 255 != 4)
    memset(&quoted, 0, sizeof(Packet))
    memset(&quoted_way, 0, sizeof(Passage))
    readable = read_quote(&plane.wire, p, &quoted.key, &quoted.digest, &quoted.hash, &quoted.source_high)
    quoted.ipv6 = p.ipv6
    quoted.wire = p.wire
    quoted_source = quoted.source_high
    quoted_destination = 1 - quoted_source
    if readable:
        slot = find_slot(t, &quoted.key, quoted.digest, quoted.hash)
        if slot != NO_SLOT:
            e = entry_at(&t.slab, slot)
            tell_record(plane, e)
            moot = moot_side(e, plane.now)
            if moot >= 0:
                if unreachable:
                    e.marks |= REFUSED
                finish(plane, p, row, MOOT, OPENER_DENIED)
                return
        if unreachable and plane.attempts.live:
            refuse_attempt(plane, &quoted)
    if isolated(plane, way):
        deny_early(plane, p, way, row, VPC_ISOLATED)
        return
    to_sender = False
    if readable:
        find_owners(plane, &quoted, &quoted_way)
        to_sender = same_address(p, destination, &quoted, quoted_source)
    if not to_sender:
        slot = NO_SLOT
    if way.instance[source] >= 0:
        if is_stateless(plane.rules, way.instance[source]):
            allowed = judge_stateless(plane, p, way, source)
        elif way.instance[source] != quoted_way.instance[quoted_destination]:
            allowed = relates(plane, NO_SLOT, 0, way)
        else:
            allowed = relates(plane, slot, quoted_destination, way)
        note_side(plane, p, way, &row.egress if row != NULL else NULL, source, allowed)
        if not allowed:
            deny_error(plane, p, &quoted if readable else NULL, way, row, source)
            return
    if way.instance[destination] >= 0:
        if is_stateless(plane.rules, way.instance[destination]):
            allowed = judge_stateless(plane, p, way, destination)
        else:
            allowed = relates(plane, slot, quoted_source, way)
        note_side(plane, p, way, &row.ingress if row != NULL else NULL, destination, allowed)
        if not allowed:
            deny_error(plane, p, &quoted if readable else NULL, way, row, destination)
            return
    if unreachable and slot != NO_SLOT:
        entry_at(&t.slab, slot).marks |= REFUSED
    finish(plane, p, row, ALLOW, way.reason)


cdef inline void judge_odd(Plane* plane, const Packet* p, ResultRow* row) noexcept nogil:
    # Every outcome of reading but a connection key.
    cdef Passage way
    if p.outcome == READ_NOT_IP:
        finish(plane, p, row, NOT_IP, NO_REASON)
        return
    if p.outcome == READ_BROKEN:
        finish(plane, p, row, DENY, MALFORMED)
        return
    if p.outcome == READ_EXEMPT:
        finish(plane, p, row, EXEMPT, NO_REASON)
        return
    memset(&way, 0, sizeof(Passage))
    find_owners(plane, p, &way)
    if not in_scope(plane, p, &way, row):
        return
    if p.outcome == READ_ICMP_ERROR:
        judge_icmp_error(plane, p, &way, row)
    elif p.outcome == READ_MALFORMED:
        deny_early(plane, p, &way, row, MALFORMED)
    elif p.outcome == READ_FRAGMENT:
        plane.fragments_denied += 1
        deny_early(plane, p, &way, row, FRAGMENT)
    else:
        deny_early(plane, p, &way, row, TRUNCATED)


cdef inline void sweep_all(Plane* plane) noexcept nogil:
    if unlikely(tick_of(plane.now) != plane.table.wheel.tick):
        sweep(&plane.table, plane.now)
        if plane.reporting:
            sweep(&plane.attempts, plane.now)


cdef inline void judge_read(Plane* plane, Packet* p, ResultRow* row) noexcept nogil:
    # Anything but a fragment. `row`: NULL, or says nothing yet.
    if likely(p.outcome == READ_TRACKED):
        judge_tracked(plane, p, row)
    else:
        judge_odd(plane, p, row)
