"""The data plane's loop: clock, scope, moot keys, both sides, counters. How it is built: ``dataplane.pxd``."""

import os

import numpy as np

from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    WAIT_LOCK,
)
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from sgfast.core.classifier cimport vpcs_connected
from sgfast.core.conntrack cimport (
    ANSWERED,
    FROM_HIGH,
    HEARD,
    MOOT_ICMP,
    MOOT_OTHER,
    MOOT_TCP,
    NO_STATE,
    REASON_SHIFT,
    REFUSED,
    SIDE_DISCONNECTED,
    SIDE_DENIED,
    SIDE_RESET,
    SIDE_TIMEOUT,
    TUPLE_DENIED,
    TUPLE_LIVE,
    UNBEGUN,
    FlowRow,
    Table,
    add_key,
    begin_tuple,
    count_packet,
    end_tuple,
    find_slot,
    free_table,
    guess_slot,
    init_table,
    latest_deadline,
    make_room,
    mark_opener,
    report_living,
    same_key,
    set_side,
    side_lives,
    sweep,
)
from sgfast.core.conntrack_icmp cimport ICMP_ALIVE
from sgfast.core.conntrack_other cimport BIDIRECTIONAL, UNIDIRECTIONAL
from sgfast.core.conntrack_tcp cimport FIN_WAIT, TCP_ESTABLISHED, SYN_SENT, SYN_SENT2, fill_tcp_table
from sgfast.core.frames cimport Frame, FrameBatch
from sgfast.core.intrinsics cimport be32, likely, prefetch, unlikely
from sgfast.core.judge cimport Passage, find_owners, judge_side, marks_matter, make_live
from sgfast.core.plane cimport Plane, RuleCount
from sgfast.core.slab cimport NO_SLOT, Entry, entry_at
from sgfast.core.tally cimport TALLY_CELLS, Tally, TallyRow, count, free_tally, init_tally
from sgfast.core.timer_wheel cimport tick_of
from sgfast.core.types cimport (
    ALLOW,
    DENY,
    EXEMPT,
    FRAGMENT,
    INFERRED,
    INVALID,
    LOCAL,
    MALFORMED,
    MOOT,
    NO_REASON,
    NO_VERDICT,
    NOT_IP,
    OPENER_DENIED,
    OUT_OF_SCOPE,
    PROTO_ICMP,
    PROTO_ICMPV6,
    PROTO_TCP,
    PROTO_UDP,
    READ_BROKEN,
    READ_EXEMPT,
    READ_FRAGMENT,
    READ_ICMP_ERROR,
    READ_MALFORMED,
    READ_NOT_IP,
    READ_TRACKED,
    RELATED,
    STEP_OPEN,
    TCP_ACK,
    TCP_BAD,
    TCP_FIN,
    TCP_RST,
    TCP_SYN,
    TCP_SYNACK,
    TRUNCATED,
    VERDICT_COUNT,
    REASON_COUNT,
    VPC_ISOLATED,
    HeaderRow,
    Packet,
    ResultRow,
    SideRow,
)
from sgfast.core.wire cimport (
    WireContext,
    is_infrastructure,
    read_frame,
    read_quote,
    read_transport,
    set_ipv4,
    set_ipv6,
)

cdef enum:
    # Denied attempts that are remembered for the report, so that a retry does not count twice.
    MAX_ATTEMPTS = 1 << 20

cdef int64_t BACKWARDS_NS = 60 * <int64_t>1000000000     # SPEC 9.1
# 146 years either way of 1970. Differences fit, and so does a deadline after the end, where time stands still.
cdef int64_t CLOCK_END = <int64_t>1 << 62


# The clock (SPEC 9.1) -------------------------------------------------------------------------------------------------

cdef inline void tell_time(Plane* plane, int64_t raw) noexcept nogil:
    cdef int64_t ahead
    raw = max(-CLOCK_END + 1, min(raw, CLOCK_END - 1))
    if unlikely(not plane.started):
        plane.started = True
        plane.clock = raw
        plane.raw_clock = raw
        plane.first_ns = raw
        plane.window_end = raw + plane.timeout[TCP_ESTABLISHED]
        plane.table.marks_until = plane.window_end
        return
    ahead = raw - plane.raw_clock
    if likely(ahead >= 0):
        plane.clock = plane.clock + ahead if likely(ahead <= CLOCK_END - plane.clock) else CLOCK_END
        plane.raw_clock = raw
    elif ahead >= -BACKWARDS_NS:
        plane.late += 1
    else:
        plane.restarts += 1
        plane.raw_clock = raw


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
    if row != NULL:
        row.verdict = verdict
        row.reason = reason


cdef void spell_peer(uint8_t* out, const Packet* p, int side) noexcept nogil:
    cdef uint64_t high, low
    cdef int i
    if p.ipv6:
        high = p.key.addr[2 * side]
        low = p.key.addr[2 * side + 1]
    else:
        high = (<uint32_t>p.key.addr[0] if side else p.key.addr[0] >> 32) << 32
        low = 0
    for i in range(8):
        out[i] = <uint8_t>(high >> (56 - 8 * i))
        out[8 + i] = <uint8_t>(low >> (56 - 8 * i))


cdef void tally_denial(Plane* plane, const Packet* p, Passage* way, int side, uint8_t reason) noexcept nogil:
    cdef TallyRow key
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
    if plane.reporting:
        tally_denial(plane, p, way, side, reason)
    finish(plane, p, row, DENY, reason)


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


cdef inline uint8_t moot_flags(const Packet* p, uint8_t reason) noexcept nogil:
    return (FROM_HIGH if p.source_high else 0) | <uint8_t>(reason << REASON_SHIFT)


cdef inline bint can_be_moot(const Plane* plane, const Packet* p) noexcept nogil:
    return plane.causal and p.has_ports and (p.protocol == PROTO_TCP or p.sport != p.dport)


cdef inline bint follows_denied_opener(Plane* plane, const Packet* p, Entry* e, int side) noexcept nogil:
    # The key is moot by `side`'s mark. Whether this packet is; if not, it opens again and is judged.
    cdef uint8_t state = e.state[side]
    cdef bint from_initiator = ((e.flags[side] & FROM_HIGH) != 0) == p.source_high
    e.deadline[side] = plane.clock + plane.timeout[state]
    if from_initiator:
        return p.protocol == PROTO_TCP and p.step != TCP_SYN
    if not e.marks & (ANSWERED | HEARD | REFUSED):
        e.marks |= REFUSED if p.protocol == PROTO_TCP and p.step == TCP_RST else HEARD
    return True


# Denied attempts that leave no tuple: only the report remembers them --------------------------------------------------

cdef void note_attempt(Plane* plane, const Packet* p, const Passage* way, int side, uint8_t reason) noexcept nogil:
    cdef Table* t = &plane.attempts
    cdef uint32_t slot = find_slot(t, &p.key, p.digest, p.hash)
    cdef uint8_t state = moot_state(p)
    cdef int64_t deadline = plane.clock + plane.timeout[state]
    cdef Entry* e
    if slot != NO_SLOT and plane.clock >= latest_deadline(entry_at(&t.slab, slot)):
        end_tuple(t, slot, plane.clock, SIDE_TIMEOUT)
        slot = NO_SLOT
    if slot == NO_SLOT:
        plane.denied += 1
        if not make_room(t, plane.clock):
            return
        slot = add_key(t, &p.key, p.digest, p.hash)
        if slot == NO_SLOT:
            return
        e = entry_at(&t.slab, slot)
        e.present = (way.instance[0] >= 0) | (way.instance[1] >= 0) << 1
        set_side(t, slot, side, state, moot_flags(p, reason), <uint32_t>way.rule, deadline)
        begin_tuple(t, slot, p, p.source_high, DENY, reason)
    e = entry_at(&t.slab, slot)
    side = 0 if e.state[0] else 1       # whichever end tried first
    e.deadline[side] = deadline
    if t.keep_flows:
        count_packet(t, slot, p)


cdef void note_attempt_answer(Plane* plane, const Packet* p) noexcept nogil:
    # A denied packet that opens nothing: it may belong to a denied attempt, most likely as its answer.
    cdef Table* t = &plane.attempts
    cdef uint32_t slot = find_slot(t, &p.key, p.digest, p.hash)
    cdef Entry* e
    cdef int side
    if slot == NO_SLOT:
        return
    e = entry_at(&t.slab, slot)
    side = 0 if e.state[0] else 1
    if not side_lives(e, side, plane.clock):
        return
    e.deadline[side] = plane.clock + plane.timeout[e.state[side]]
    if ((e.flags[side] & FROM_HIGH) != 0) != p.source_high and not e.marks & (ANSWERED | HEARD | REFUSED):
        e.marks |= REFUSED if p.protocol == PROTO_TCP and p.step == TCP_RST else HEARD
    if t.keep_flows:
        count_packet(t, slot, p)


cdef void end_attempt(Plane* plane, const Packet* p) noexcept nogil:
    # The key opened after all: what is denied later is a new attempt.
    cdef uint32_t slot = find_slot(&plane.attempts, &p.key, p.digest, p.hash)
    if slot != NO_SLOT:
        end_tuple(&plane.attempts, slot, plane.clock, SIDE_TIMEOUT)


# Packets --------------------------------------------------------------------------------------------------------------

cdef inline void keep_tuples(
    Plane* plane, const Packet* p, Passage* way, int moot, int denied_side, uint8_t verdict, uint8_t reason
) noexcept nogil:
    # After the verdict: what the packet leaves behind. `moot`: the side that made the key moot before, or -1.
    cdef Table* t = &plane.table
    cdef Entry* e
    cdef uint8_t state
    cdef bint begins = way.created
    if way.rules_denied and moot < 0 and can_be_moot(plane, p) and make_live(plane, p, way):
        state = moot_state(p)
        set_side(
            t, way.slot, denied_side, state, moot_flags(p, reason), <uint32_t>way.rule,
            plane.clock + plane.timeout[state]
        )
        begins = True

    if way.slot != NO_SLOT:
        e = entry_at(&t.slab, way.slot)
        if e.marks & TUPLE_LIVE:
            if e.marks & UNBEGUN and (begins or e.state[0] or e.state[1]):
                begin_tuple(t, way.slot, p, p.source_high if not (
                    way.created and reason == INFERRED
                ) else (e.flags[0] if e.state[0] else e.flags[1]) & FROM_HIGH, verdict, reason)
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
            if verdict == DENY and e.marks & TUPLE_DENIED and not e.marks & (ANSWERED | HEARD | REFUSED):
                state = e.flags[0] if e.state[0] else e.flags[1]
                if (state & FROM_HIGH) != p.source_high:
                    e.marks |= REFUSED if p.protocol == PROTO_TCP and p.step == TCP_RST else HEARD

    if unlikely(way.opener and p.step == TCP_SYN and p.protocol == PROTO_TCP and marks_matter(plane)):
        if way.slot == NO_SLOT:
            way.slot = add_key(t, &p.key, p.digest, p.hash)
        if way.slot != NO_SLOT:
            mark_opener(t, way.slot)

    if way.slot != NO_SLOT:
        e = entry_at(&t.slab, way.slot)
        if unlikely(e.state[0] == NO_STATE and e.state[1] == NO_STATE and e.marks & TUPLE_LIVE):
            end_tuple(t, way.slot, plane.clock, SIDE_RESET)
            way.slot = NO_SLOT
    if plane.reporting and verdict == DENY and (
        way.slot == NO_SLOT or not entry_at(&t.slab, way.slot).marks & TUPLE_LIVE
    ):
        if way.opener_denied:
            note_attempt(plane, p, way, denied_side, reason)
        elif plane.attempts.live:
            note_attempt_answer(plane, p)


cdef inline void judge_tracked(Plane* plane, const Packet* p, ResultRow* row) noexcept nogil:
    cdef Table* t = &plane.table
    cdef Passage way
    cdef Entry* e
    cdef int source = p.source_high
    cdef int destination = 1 - source
    cdef int moot = -1
    cdef uint8_t present = 0
    cdef bint plain = False
    way.slot = p.hint
    way.owners_known = False
    way.was_live = False
    way.reopened = False
    way.created = False
    way.opener = False
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
        # The common case: whoever has a filter here has a live connection in it.
        plain = (
            present != 0
            and (not present & 1 or (side_lives(e, 0, plane.clock) and e.state[0] < MOOT_TCP))
            and (not present & 2 or (side_lives(e, 1, plane.clock) and e.state[1] < MOOT_TCP))
        )
        if unlikely(not plain) and e.marks & TUPLE_LIVE:
            if plane.clock >= latest_deadline(e):
                end_tuple(t, way.slot, plane.clock, SIDE_TIMEOUT)
                way.slot = find_slot(t, &p.key, p.digest, p.hash)
            else:
                way.was_live = True
                moot = moot_side(e, plane.clock)
    if plain:
        way.was_live = True
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

    # The egress side judges first; what it denies the ingress side never sees (SPEC 3.7).
    if present >> source & 1:
        if not judge_side(plane, p, &way, source):
            note_side(plane, p, &way, &row.egress if row != NULL else NULL, source, False)
            deny(plane, p, &way, row, source, way.reason)
            keep_tuples(plane, p, &way, moot, source, DENY, way.reason)
            return
        note_side(plane, p, &way, &row.egress if row != NULL else NULL, source, True)
    if present >> destination & 1:
        if not judge_side(plane, p, &way, destination):
            note_side(plane, p, &way, &row.ingress if row != NULL else NULL, destination, False)
            deny(plane, p, &way, row, destination, way.reason)
            keep_tuples(plane, p, &way, moot, destination, DENY, way.reason)
            return
        note_side(plane, p, &way, &row.ingress if row != NULL else NULL, destination, True)
    finish(plane, p, row, ALLOW, way.reason)
    if unlikely(not plain or t.keep_flows or way.reopened or p.step == TCP_RST):
        keep_tuples(plane, p, &way, moot, destination, ALLOW, way.reason)


cdef inline bint relates(Plane* plane, uint32_t slot, int side, Passage* way) noexcept nogil:
    # Whether a side has a live, connected connection in the entry (SPEC 4.6).
    cdef const Entry* e
    way.reason = INVALID
    way.rule = -1
    if slot == NO_SLOT:
        return False
    e = entry_at(&plane.table.slab, slot)
    if not side_lives(e, side, plane.clock) or e.state[side] >= MOOT_TCP or e.flags[side] & SIDE_DISCONNECTED:
        return False
    way.reason = RELATED
    way.rule = <int32_t>e.rule[side]
    return True


cdef void judge_icmp_error(Plane* plane, const Packet* p, Passage* way, ResultRow* row) noexcept nogil:
    # SPEC 4.6. The quoted packet names the connection; its source must be the error's destination.
    cdef Table* t = &plane.table
    cdef Packet quoted
    cdef Passage quoted_way
    cdef Entry* e
    cdef uint32_t slot = NO_SLOT
    cdef int source = p.source_high
    cdef int destination = 1 - source
    cdef int quoted_source, quoted_destination, moot
    cdef bint readable, to_sender
    cdef bint unreachable = (p.port_key >> 8) == (1 if p.ipv6 else 3)
    memset(&quoted, 0, sizeof(Packet))
    memset(&quoted_way, 0, sizeof(Passage))
    readable = read_quote(&plane.wire, p, &quoted.key, &quoted.digest, &quoted.hash, &quoted.source_high)
    quoted.ipv6 = p.ipv6
    quoted_source = quoted.source_high
    quoted_destination = 1 - quoted_source
    if readable:
        slot = find_slot(t, &quoted.key, quoted.digest, quoted.hash)
        if slot != NO_SLOT:
            e = entry_at(&t.slab, slot)
            moot = moot_side(e, plane.clock)
            if moot >= 0:
                if unreachable and not e.marks & (ANSWERED | HEARD | REFUSED):
                    e.marks |= REFUSED
                finish(plane, p, row, MOOT, OPENER_DENIED)
                return
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
        if way.instance[source] != quoted_way.instance[quoted_destination]:
            relates(plane, NO_SLOT, 0, way)
        else:
            relates(plane, slot, quoted_destination, way)
        note_side(plane, p, way, &row.egress if row != NULL else NULL, source, way.reason == RELATED)
        if way.reason != RELATED:
            deny(plane, p, way, row, source, INVALID)
            return
    if way.instance[destination] >= 0:
        relates(plane, slot, quoted_source, way)
        note_side(plane, p, way, &row.ingress if row != NULL else NULL, destination, way.reason == RELATED)
        if way.reason != RELATED:
            deny(plane, p, way, row, destination, INVALID)
            return
    e = entry_at(&t.slab, slot)
    if unreachable and not e.marks & (ANSWERED | HEARD | REFUSED):
        e.marks |= REFUSED
    finish(plane, p, row, ALLOW, RELATED)


cdef inline bint same_address(const Packet* a, int side_a, const Packet* b, int side_b) noexcept nogil:
    if a.ipv6:
        return (
            a.key.addr[2 * side_a] == b.key.addr[2 * side_b]
            and a.key.addr[2 * side_a + 1] == b.key.addr[2 * side_b + 1]
        )
    return <uint32_t>(a.key.addr[0] >> (0 if side_a else 32)) == <uint32_t>(b.key.addr[0] >> (0 if side_b else 32))


cdef void judge_odd(Plane* plane, const Packet* p, ResultRow* row) noexcept nogil:
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
        plane.later_fragments += 1
        deny_early(plane, p, &way, row, FRAGMENT)
    else:
        deny_early(plane, p, &way, row, TRUNCATED)


cdef inline void judge_packet(Plane* plane, Packet* p, ResultRow* row) noexcept nogil:
    tell_time(plane, p.time_ns)
    if unlikely(tick_of(plane.clock) != plane.table.wheel.tick):
        sweep(&plane.table, plane.clock)
        if plane.reporting:
            sweep(&plane.attempts, plane.clock)
    plane.packets += 1
    plane.bytes += p.wire
    if row != NULL:
        row.egress.instance = -1
        row.egress.rule = -1
        row.egress.verdict = NO_VERDICT
        row.egress.reason = NO_REASON
        row.egress.spare = 0
        row.ingress = row.egress
        row.spare = 0
    if likely(p.outcome == READ_TRACKED):
        judge_tracked(plane, p, row)
    else:
        judge_odd(plane, p, row)


# Batches --------------------------------------------------------------------------------------------------------------

cdef inline void judge_batch(Plane* plane, Packet* packets, Py_ssize_t n, ResultRow* rows) noexcept nogil:
    # Headers were read. Guess, then judge in order.
    cdef Py_ssize_t i
    cdef Packet* p
    for i in range(n):
        p = &packets[i]
        if likely(p.outcome == READ_TRACKED):
            p.hint = guess_slot(&plane.table, p.hash)
            if likely(p.hint != NO_SLOT):
                prefetch(entry_at(&plane.table.slab, p.hint))
    for i in range(n):
        judge_packet(plane, &packets[i], &rows[i] if rows != NULL else NULL)


cdef inline void prefetch_line(const Plane* plane, const Packet* p) noexcept nogil:
    if likely(p.outcome == READ_TRACKED):
        prefetch(&plane.table.buckets[p.hash & plane.table.bucket_mask])


cdef inline void spell_header(const Packet* p, HeaderRow* row) noexcept nogil:
    memset(row, 0, sizeof(HeaderRow))
    row.time_ns = p.time_ns
    row.wire = p.wire
    if p.outcome == READ_NOT_IP or p.outcome == READ_BROKEN:
        return
    spell_peer(row.src, p, p.source_high)
    spell_peer(row.dst, p, 1 - p.source_high)
    row.family = 6 if p.ipv6 else 4
    row.protocol = p.protocol
    row.tcp_flags = p.tcp_flags
    row.sport = p.sport
    row.dport = p.dport
    row.has_ports = p.has_ports
    row.has_icmp = p.has_icmp
    if p.has_icmp:
        row.icmp_type = p.port_key >> 8
        row.icmp_code = p.port_key & 255


cdef void read_header(const WireContext* context, const HeaderRow* row, Packet* p) noexcept nogil:
    # A header row as if it had come as a frame whose lengths are all in order.
    cdef uint8_t transport[20]
    cdef uint32_t length = 20
    memset(p, 0, sizeof(Packet))
    p.time_ns = row.time_ns
    p.wire = row.wire
    p.protocol = row.protocol
    p.ipv6 = row.family == 6
    if row.family != 4 and row.family != 6:
        p.outcome = READ_NOT_IP
        return
    if p.ipv6:
        set_ipv6(&p.key, row.src, row.dst, &p.source_high)
    else:
        set_ipv4(&p.key, be32(row.src), be32(row.dst), &p.source_high)
    memset(transport, 0, sizeof(transport))
    if row.protocol == (PROTO_ICMPV6 if p.ipv6 else PROTO_ICMP):
        length = 8
        transport[0] = row.icmp_type
        transport[1] = row.icmp_code
        transport[4] = (row.icmp_id >> 8) & 255
        transport[5] = row.icmp_id & 255
    else:
        transport[0] = row.sport >> 8
        transport[1] = row.sport & 255
        transport[2] = row.dport >> 8
        transport[3] = row.dport & 255
        if row.protocol == PROTO_TCP:
            transport[12] = 5 << 4
            transport[13] = row.tcp_flags
        elif row.protocol == PROTO_UDP:
            length = 8
            transport[5] = 8
    if context.exempt and is_infrastructure(p, transport, length, 255):
        p.outcome = READ_EXEMPT
        return
    read_transport(context, p, transport, length, length, False)


cdef object _rows(const uint8_t* data, Py_ssize_t nbytes, dtype):
    copy = np.empty(nbytes, dtype=np.uint8)
    cdef uint8_t[::1] view = copy
    if nbytes:
        memcpy(&view[0], data, nbytes)
    return copy.view(dtype)


_SIDE = np.dtype([("instance", "<i4"), ("rule", "<i4"), ("verdict", "u1"), ("reason", "u1"), ("spare", "<u2")])
RESULT_DTYPE = np.dtype(
    [("verdict", "u1"), ("reason", "u1"), ("spare", "<u2"), ("egress", _SIDE), ("ingress", _SIDE)]
)
HEADER_DTYPE = np.dtype([
    ("time_ns", "<i8"), ("src", "u1", (16,)), ("dst", "u1", (16,)), ("wire", "<u4"), ("sport", "<u2"),
    ("dport", "<u2"), ("family", "u1"), ("protocol", "u1"), ("tcp_flags", "u1"), ("icmp_type", "u1"),
    ("icmp_code", "u1"), ("has_ports", "u1"), ("has_icmp", "u1"), ("spare", "u1"), ("icmp_id", "<u4"),
])
FLOW_DTYPE = np.dtype([
    ("first_ns", "<i8"), ("last_ns", "<i8"), ("bytes", "<u8", (2,)), ("packets", "<u8", (2,)),
    ("initiator", "u1", (16,)), ("responder", "u1", (16,)), ("rule", "<i4", (2,)), ("ports", "<u4"),
    ("icmp", "<u2"), ("family", "u1"), ("protocol", "u1"), ("verdict", "u1"), ("reason", "u1"), ("answer", "u1"),
    ("has_ports", "u1"), ("side_end", "u1", (2,)),
])
TALLY_DTYPE = np.dtype([
    ("peer", "u1", (16,)), ("instance", "<i4"), ("port_key", "<u2"), ("protocol", "u1"), ("reason", "u1"),
    ("inbound", "u1"), ("family", "u1"), ("has_ports", "u1"), ("has_icmp", "u1"), ("spare", "<u4"),
    ("packets", "<u8"), ("bytes", "<u8"),
])
_RULE_COUNT = np.dtype([("connections", "<u8"), ("packets", "<u8"), ("bytes", "<u8")])

assert RESULT_DTYPE.itemsize == sizeof(ResultRow)
assert HEADER_DTYPE.itemsize == sizeof(HeaderRow)
assert FLOW_DTYPE.itemsize == sizeof(FlowRow)
assert TALLY_DTYPE.itemsize == sizeof(TallyRow)

ENTRY_BYTES = sizeof(Entry)


cdef object _tally(Tally* tally):
    if tally.cells == NULL:
        return np.empty(0, dtype=TALLY_DTYPE), tally.other_packets
    rows = _rows(<const uint8_t*>tally.cells, TALLY_CELLS * sizeof(TallyRow), TALLY_DTYPE)
    return rows[rows["packets"] > 0], tally.other_packets


cdef class DataPlane:
    """The engine's C half: a classifier, a connection table, a clock.

    ``timeouts_ns``: (tcp_established, tcp_fin_wait, tcp_other, icmp, bidirectional, unidirectional), nanoseconds.
    ``midstream``: 0 deny, 1 infer, 2 allow. ``keep_flows``: every ended tuple becomes a row of ``take_flows``.
    ``reporting``: tallies of what was denied or unanswered, and attempts told apart from retries. ``secret``: 8 words
    that key the hash; random by default.

    Calls may come from any thread; the GIL is released and a lock held while packets are judged.
    """

    def __cinit__(
        self, Classifier classifier not None, *, bint causal=False, int midstream=0, timeouts_ns not None,
        uint32_t max_connections=4000000, bint exempt=True, bint keep_flows=False, bint reporting=False, secret=None
    ):
        cdef Plane* plane = &self.plane
        cdef int i
        if not 0 <= midstream <= 2 or not 1 <= max_connections < 0x80000000:
            raise ValueError("an option is out of range")
        memset(plane, 0, sizeof(Plane))
        self.lock = PyThread_allocate_lock()
        self.packets = <Packet*>calloc(BATCH, sizeof(Packet))
        self.classifier = classifier
        plane.rules = &classifier.tables
        plane.rule_counts = <RuleCount*>calloc(classifier.rule_count + 1, sizeof(RuleCount))
        if self.lock == NULL or self.packets == NULL or plane.rule_counts == NULL:
            raise MemoryError
        init_table(&plane.table, max_connections, midstream != 0, keep_flows)
        init_table(&plane.attempts, MAX_ATTEMPTS, False, keep_flows)
        plane.table.marks_expire = midstream == 1
        plane.table.report_odd = reporting
        plane.attempts.report_odd = reporting
        plane.causal = causal
        plane.midstream = midstream
        plane.reporting = reporting

        words = [int.from_bytes(os.urandom(8), "little") for _ in range(8)] if secret is None else list(secret)
        for i in range(8):
            plane.wire.secret[i] = words[i]
        plane.wire.secret[3] |= 1
        plane.wire.exempt = exempt
        for i in range(64):
            plane.wire.tcp_step[i] = TCP_BAD
        # SPEC 5.4: the combinations of FIN 1, SYN 2, RST 4, ACK 16 and URG 32 that Linux takes for valid.
        for flags, step in (
            (0x02, TCP_SYN), (0x22, TCP_SYN), (0x12, TCP_SYNACK), (0x11, TCP_FIN), (0x31, TCP_FIN), (0x10, TCP_ACK),
            (0x30, TCP_ACK), (0x04, TCP_RST), (0x14, TCP_RST),
        ):
            plane.wire.tcp_step[<int>flags] = step
        fill_tcp_table(&plane.tcp)
        established, fin_wait, other, icmp, bidirectional, unidirectional = timeouts_ns
        for i in range(SYN_SENT, SYN_SENT2 + 1):
            plane.timeout[i] = other
        plane.timeout[TCP_ESTABLISHED] = established
        plane.timeout[FIN_WAIT] = fin_wait
        plane.timeout[ICMP_ALIVE] = icmp
        plane.timeout[UNIDIRECTIONAL] = unidirectional
        plane.timeout[BIDIRECTIONAL] = bidirectional
        plane.timeout[MOOT_TCP] = established
        plane.timeout[MOOT_OTHER] = unidirectional
        plane.timeout[MOOT_ICMP] = icmp
        init_tally(&plane.denials, plane.wire.secret[7])
        init_tally(&plane.unanswered, plane.wire.secret[7])
        init_tally(&plane.refused, plane.wire.secret[7])
        init_tally(&plane.broken, plane.wire.secret[7])

    def __dealloc__(self):
        free_table(&self.plane.table)
        free_table(&self.plane.attempts)
        free_tally(&self.plane.denials)
        free_tally(&self.plane.unanswered)
        free_tally(&self.plane.refused)
        free_tally(&self.plane.broken)
        free(self.plane.rule_counts)
        free(self.packets)
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef ResultRow* result_rows(self, results, Py_ssize_t n) except? NULL:
        cdef uint8_t[::1] view
        if results.dtype != RESULT_DTYPE or not results.flags.c_contiguous or len(results) < n:
            raise ValueError("results must be a contiguous array of RESULT_DTYPE, one row a packet")
        if n == 0:
            return NULL
        view = results.view(np.uint8).reshape(-1)
        return <ResultRow*>&view[0]

    def process_frames(self, FrameBatch batch not None, results=None, headers=None):
        """Judges a batch of frames in order.

        ``results``, ``headers``: arrays of RESULT_DTYPE and HEADER_DTYPE to fill, at least as long as the batch, or
        None. ValueError when they are not.
        """
        cdef Py_ssize_t n = batch.count
        cdef Py_ssize_t start, size, i
        cdef ResultRow* rows = NULL
        cdef HeaderRow* header_rows = NULL
        cdef uint8_t[::1] view
        cdef Plane* plane = &self.plane
        cdef const Frame* frames = batch.frames
        if results is not None:
            rows = self.result_rows(results, n)
        if headers is not None and n:
            if headers.dtype != HEADER_DTYPE or not headers.flags.c_contiguous or len(headers) < n:
                raise ValueError("headers must be a contiguous array of HEADER_DTYPE, one row a packet")
            view = headers.view(np.uint8).reshape(-1)
            header_rows = <HeaderRow*>&view[0]
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            plane.want_sides = rows != NULL
            start = 0
            while start < n:
                size = min(n - start, <Py_ssize_t>BATCH)
                for i in range(size):
                    read_frame(&plane.wire, &frames[start + i], &self.packets[i])
                    prefetch_line(plane, &self.packets[i])
                judge_batch(plane, self.packets, size, rows + start if rows != NULL else NULL)
                if header_rows != NULL:
                    for i in range(size):
                        spell_header(&self.packets[i], header_rows + start + i)
                start += size
            if plane.reporting:
                self.tally_ended()
            PyThread_release_lock(self.lock)

    def process_headers(self, headers not None, results not None):
        """Judges packets given as an array of HEADER_DTYPE, in order, into ``results`` (RESULT_DTYPE)."""
        cdef Py_ssize_t n = len(headers)
        cdef Py_ssize_t start, size, i
        cdef const uint8_t[::1] view
        cdef const HeaderRow* header_rows
        cdef ResultRow* rows
        cdef Plane* plane = &self.plane
        if headers.dtype != HEADER_DTYPE or not headers.flags.c_contiguous:
            raise ValueError("headers must be a contiguous array of HEADER_DTYPE")
        rows = self.result_rows(results, n)
        if n == 0:
            return
        view = headers.view(np.uint8).reshape(-1)
        header_rows = <const HeaderRow*>&view[0]
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            plane.want_sides = True
            start = 0
            while start < n:
                size = min(n - start, <Py_ssize_t>BATCH)
                for i in range(size):
                    read_header(&plane.wire, &header_rows[start + i], &self.packets[i])
                    prefetch_line(plane, &self.packets[i])
                judge_batch(plane, self.packets, size, rows + start)
                start += size
            PyThread_release_lock(self.lock)

    cdef void tally_ended(self) noexcept nogil:
        self.tally_table(&self.plane.table, self.tallied)
        self.tally_table(&self.plane.attempts, self.tallied + 1)

    cdef void tally_table(self, Table* t, Py_ssize_t* tallied) noexcept nogil:
        # What ended since the last call: allowed, but nobody answered; or denied, though somebody did.
        cdef Plane* plane = &self.plane
        cdef Tally* tally
        cdef TallyRow key
        cdef Packet p
        cdef Passage way
        cdef FlowRow* row
        cdef Py_ssize_t i
        cdef int judge
        for i in range(tallied[0], t.ended_count):
            row = &t.ended[i]
            if (row.verdict == ALLOW) == (row.answer == 1):
                continue
            memset(&p, 0, sizeof(Packet))
            p.ipv6 = row.family == 6
            if p.ipv6:
                set_ipv6(&p.key, row.initiator, row.responder, &p.source_high)
            else:
                set_ipv4(&p.key, be32(row.initiator), be32(row.responder), &p.source_high)
            find_owners(plane, &p, &way)
            judge = 1 - p.source_high
            memset(&key, 0, sizeof(TallyRow))
            key.protocol = row.protocol
            key.has_ports = row.has_ports
            key.has_icmp = row.icmp != 0
            key.port_key = <uint16_t>(row.ports & 0xFFFF) if row.has_ports else row.icmp
            if row.verdict == ALLOW:
                if way.instance[judge] < 0:
                    continue
                tally = &plane.refused if row.answer == 2 else &plane.unanswered
            else:
                if row.answer != 1:
                    continue
                if row.side_end[0] == SIDE_DENIED or way.instance[judge] < 0:
                    judge = p.source_high
                tally = &plane.broken
                key.reason = row.reason
                key.family = row.family
                spell_peer(key.peer, &p, 1 - judge)
            key.inbound = judge != p.source_high
            key.instance = way.instance[judge]
            count(tally, &key, 0)
        if not t.keep_flows:
            t.ended_count = 0
        tallied[0] = t.ended_count

    def finish(self):
        """Reports the tuples still in the table, for the end of a replay; they stay."""
        PyThread_acquire_lock(self.lock, WAIT_LOCK)
        report_living(&self.plane.table, self.plane.clock)
        report_living(&self.plane.attempts, self.plane.clock)
        if self.plane.reporting:
            self.tally_ended()
        PyThread_release_lock(self.lock)

    def take_flows(self):
        """Ended tuples since the last call, as an array of FLOW_DTYPE."""
        cdef Table* t
        parts = []
        PyThread_acquire_lock(self.lock, WAIT_LOCK)
        t = &self.plane.table
        parts.append(_rows(<const uint8_t*>t.ended, t.ended_count * sizeof(FlowRow), FLOW_DTYPE))
        t.ended_count = 0
        self.tallied[0] = 0
        self.tallied[1] = 0
        t = &self.plane.attempts
        parts.append(_rows(<const uint8_t*>t.ended, t.ended_count * sizeof(FlowRow), FLOW_DTYPE))
        t.ended_count = 0
        PyThread_release_lock(self.lock)
        return np.concatenate(parts)

    @property
    def denials(self):
        """``(rows, others)``: denied packets by instance, peer, protocol, port and reason, as TALLY_DTYPE."""
        return _tally(&self.plane.denials)

    @property
    def unanswered(self):
        """``(rows, others)``: allowed connections to an instance that it never answered, as TALLY_DTYPE."""
        return _tally(&self.plane.unanswered)

    @property
    def refused(self):
        """``(rows, others)``: allowed connections to an instance that it refused, as TALLY_DTYPE."""
        return _tally(&self.plane.refused)

    @property
    def broken(self):
        """``(rows, others)``: connections that were denied though the other end answered them, as TALLY_DTYPE.

        ``instance`` is whose filter denied it.
        """
        return _tally(&self.plane.broken)

    @property
    def rule_counts(self):
        """Structured array by rule number: connections, packets, bytes."""
        return _rows(
            <const uint8_t*>self.plane.rule_counts, self.classifier.rule_count * sizeof(RuleCount), _RULE_COUNT
        )

    @property
    def counters(self):
        """Everything counted, by name; verdicts and reasons as lists by their number."""
        cdef Plane* plane = &self.plane
        cdef int i
        return {
            "packets": plane.packets,
            "bytes": plane.bytes,
            "verdicts": [plane.verdicts[i] for i in range(VERDICT_COUNT)],
            "reasons": [plane.reasons[i] for i in range(REASON_COUNT)],
            "opened": plane.opened,
            "inferred": plane.inferred,
            "denied": plane.denied,
            "late": plane.late,
            "restarts": plane.restarts,
            "later_fragments": plane.later_fragments,
            "first_ns": plane.first_ns if plane.started else None,
            "clock_ns": plane.clock if plane.started else None,
            "live_tuples": plane.table.live,
            "entries": plane.table.used,
            "evicted": plane.table.evicted,
            "lost_flows": plane.table.ended_lost + plane.attempts.ended_lost,
            "table_bytes": plane.table.slab.nbytes + (<uint64_t>plane.table.bucket_mask + 1) * 64,
        }
