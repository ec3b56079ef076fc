# One packet's way past one side's filter: SPEC 4, and inference (SPEC 9.3). A filter of stateless groups, of which SPEC
# knows nothing, never has a connection: so it is asked for where there is none, and the established never gets there.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.classifier cimport find_address, find_rule, is_stateless
from sgfast.core.conntrack cimport (
    FROM_HIGH,
    OPENER_SEEN,
    REFUSED,
    REPLIED,
    SIDE_DISCONNECTED,
    SIDE_RESET,
    TUPLE_LIVE,
    UNHEARD,
    Table,
    add_key,
    clear_side,
    find_slot,
    make_room,
    note_reply,
    rearm,
    reopen_side,
    set_side,
    side_connected,
)
from sgfast.core.conntrack_icmp cimport ICMP_ALIVE, icmp_next
from sgfast.core.conntrack_other cimport UNIDIRECTIONAL, other_next
from sgfast.core.conntrack_tcp cimport (
    FIN_WAIT,
    SYN_RECV,
    SYN_SENT,
    TCP_ESTABLISHED,
    TCP_INVALID,
    TCP_REOPENS,
    TCP_STAYS,
    tcp_next,
)
from sgfast.core.intrinsics cimport likely, unlikely
from sgfast.core.plane cimport MIDSTREAM_ALLOW, MIDSTREAM_DENY, Plane
from sgfast.core.slab cimport NO_SLOT, Entry, entry_at
from sgfast.core.types cimport (
    DENY_RULE,
    DISCONNECTED,
    ESTABLISHED,
    INFERRED,
    INVALID,
    KIND_ICMP_QUERY,
    KIND_ONE_WAY,
    MIDSTREAM,
    NO_RULE,
    RULE,
    STEP_OPEN,
    STEP_REPLY,
    TABLE_FULL,
    TCP_BAD,
    TCP_FIN,
    TCP_RST,
    TCP_SYN,
    TCP_SYNACK,
    Packet,
)


# What is known of a packet while it is judged.
cdef struct Passage:
    uint32_t slot           # its key's entry, or NO_SLOT
    int32_t instance[2]     # by side: who owns the address, -1: nobody
    uint32_t address[2]     # by side: address number
    uint8_t owners_known
    uint8_t reopened        # a finished connection was forgotten for it
    uint8_t created         # it began a connection on some side
    uint8_t opener          # it was judged as a new opener (SPEC 4.8), or would have been
    uint8_t initiator_high  # of the connection it began or would have begun: the initiator is the higher address
    uint8_t opener_denied   # it would have begun a connection, opening or inferred, and was denied
    # ... opening, by 3.6 or by rules, which makes a key moot (SPEC 9.2); by stateless groups' rules TCP only.
    uint8_t rules_denied
    uint8_t reason          # of the side judged last
    int32_t rule            # likewise, -1: none


cdef inline bint is_multicast(bint ipv6, uint64_t high) noexcept nogil:
    # A multicast or broadcast destination is no instance (SPEC 3.3).
    if ipv6:
        return high >> 56 == 0xFF
    return <uint32_t>high >> 28 == 14 or ~<uint32_t>high == 0


cdef inline void find_owners(const Plane* plane, const Packet* p, Passage* way) noexcept nogil:
    cdef uint64_t words[4]
    cdef int destination = 1 - p.source_high
    cdef int side
    if p.ipv6:
        words[0], words[1], words[2], words[3] = p.key.addr[0], p.key.addr[1], p.key.addr[2], p.key.addr[3]
    else:
        words[0] = p.key.addr[0] >> 32
        words[2] = <uint32_t>p.key.addr[0]
        words[1] = 0
        words[3] = 0
    for side in range(2):
        way.address[side] = find_address(plane.rules, p.ipv6, words[2 * side], words[2 * side + 1])
        way.instance[side] = plane.rules.owner[way.address[side]]
    if unlikely(is_multicast(p.ipv6, words[2 * destination])):
        way.instance[destination] = -1
    way.owners_known = True


cdef inline bint marks_matter(const Plane* plane) noexcept nogil:
    return plane.midstream != MIDSTREAM_DENY and (
        plane.midstream == MIDSTREAM_ALLOW or plane.now < plane.window_end
    )


cdef inline bint make_live(Plane* plane, const Packet* p, Passage* way) noexcept nogil:
    # An entry for the packet's key that is live or may become so; False: there is no room (SPEC 5.8).
    cdef Table* t = &plane.table
    cdef Entry* e
    if way.slot == NO_SLOT or not entry_at(&t.slab, way.slot).marks & TUPLE_LIVE:
        if not make_room(t, plane.now):
            return False
        # Making room may have given back the entry of a tuple that ended.
        way.slot = find_slot(t, &p.key, p.digest, p.hash)
        if way.slot == NO_SLOT:
            way.slot = add_key(t, &p.key, p.digest, p.hash)
            if way.slot == NO_SLOT:
                return False
        # Of a tuple that lives already a change of the policy may have said otherwise (change.pxd).
        e = entry_at(&t.slab, way.slot)
        e.present = (way.instance[0] >= 0) | (way.instance[1] >= 0) << 1
    return True


cdef inline int32_t winner_for(
    const Plane* plane, const Packet* p, const Passage* way, int side, bint inbound, uint16_t port_key
) noexcept nogil:
    return find_rule(
        plane.rules, plane.rules.choice[way.instance[side] * 2 + inbound], way.address[1 - side],
        p.protocol, port_key
    )


cdef inline bint judge_stateless(Plane* plane, const Packet* p, Passage* way, int side) noexcept nogil:
    # A filter without connections: every packet meets the rules of its direction, whatever its flags. Which packet of a
    # pair is the answer only TCP's flags would tell, so what is denied makes nothing moot but where it is a SYN.
    way.rule = winner_for(plane, p, way, side, p.source_high != side, p.port_key)
    if way.rule >= 0 and not plane.rules.denies[way.rule]:
        way.reason = RULE
        return True
    way.reason = NO_RULE if way.rule < 0 else DENY_RULE
    return False


cdef inline bint judge_opener(Plane* plane, const Packet* p, Passage* way, int side) noexcept nogil:
    # SPEC 4.7, 4.8: no connection on this side.
    cdef bint initiator_high = p.source_high
    cdef uint16_t port_key = p.port_key
    cdef uint8_t state, flags
    cdef bint inferred = False
    cdef int32_t rule
    cdef bint opens
    if not way.owners_known:
        find_owners(plane, p, way)
    if is_stateless(plane.rules, way.instance[side]):
        opens = p.step == TCP_SYN or p.step == STEP_OPEN
        way.opener |= opens
        if judge_stateless(plane, p, way, side):
            return True
        way.opener_denied |= opens
        way.rules_denied |= p.step == TCP_SYN
        return False
    way.rule = -1
    if p.step < STEP_OPEN:
        state = SYN_SENT
        if p.step != TCP_SYN:
            if p.step == TCP_BAD:
                way.reason = INVALID
                return False
            if p.step == TCP_RST or not marks_matter(plane) or (
                way.slot != NO_SLOT and entry_at(&plane.table.slab, way.slot).marks & OPENER_SEEN
            ):
                way.reason = MIDSTREAM
                return False
            # SPEC 9.3: older than the capture, it seems. Who began it?
            inferred = True
            state = TCP_ESTABLISHED
            if p.step == TCP_SYNACK:
                state = SYN_RECV
                initiator_high = not p.source_high
            else:
                if p.step == TCP_FIN:
                    state = FIN_WAIT
                if p.sport < p.dport:
                    initiator_high = not p.source_high
            if initiator_high != p.source_high:
                port_key = p.sport
    elif p.step == STEP_REPLY:
        way.reason = INVALID
        return False
    else:
        state = ICMP_ALIVE if p.key.kind & (KIND_ICMP_QUERY | KIND_ONE_WAY) else UNIDIRECTIONAL

    way.opener |= not inferred
    if unlikely(way.instance[side] < 0):
        # A connection was here of an address that is nobody's as a destination (SPEC 3.3).
        way.reason = INVALID
        return False
    way.initiator_high = initiator_high
    rule = winner_for(plane, p, way, side, initiator_high != side, port_key)
    if rule < 0 or plane.rules.denies[rule]:
        way.reason = NO_RULE if rule < 0 else DENY_RULE
        way.rule = rule
        way.opener_denied = True
        way.rules_denied |= not inferred
        return False
    if not make_live(plane, p, way):
        way.reason = TABLE_FULL
        way.opener_denied = True
        return False
    flags = FROM_HIGH | UNHEARD if initiator_high else UNHEARD
    if inferred:
        flags |= REPLIED
    set_side(
        &plane.table, way.slot, side, state, flags, <uint32_t>rule, plane.now + plane.timeout[state]
    )
    if inferred and initiator_high != p.source_high:
        note_reply(&plane.table, way.slot, side, False)
    plane.rule_counts[rule].connections += 1
    way.created = True
    way.reason = INFERRED if inferred else RULE
    way.rule = rule
    return True


cdef inline bint judge_side(Plane* plane, const Packet* p, Passage* way, int side) noexcept nogil:
    # Whether a side allows the packet; reason and rule are left in `way`.
    cdef Table* t = &plane.table
    cdef Entry* e
    cdef int64_t deadline
    cdef bint reply
    cdef uint8_t state
    if unlikely(way.slot == NO_SLOT):
        return judge_opener(plane, p, way, side)
    e = entry_at(&t.slab, way.slot)
    if unlikely(not side_connected(e, side, plane.now)):
        return judge_opener(plane, p, way, side)

    way.rule = <int32_t>e.rule[side]
    way.reason = ESTABLISHED
    if unlikely(e.flags[side] & SIDE_DISCONNECTED):
        way.reason = DISCONNECTED
        return False
    reply = ((e.flags[side] & FROM_HIGH) != 0) != p.source_high
    if p.step < STEP_OPEN:
        state = tcp_next(&plane.tcp, reply, p.step, e.state[side])
        if unlikely(state >= TCP_STAYS):
            if state == TCP_INVALID:
                way.reason = INVALID
                way.rule = -1
                return False
            if state == TCP_REOPENS:
                reopen_side(t, way.slot, side, plane.now, not way.reopened)
                way.reopened = True
                return judge_opener(plane, p, way, side)
            state = e.state[side]
            deadline = e.deadline[side]
        else:
            deadline = plane.now + plane.timeout[state]
        if unlikely(p.step == TCP_RST and not e.flags[side] & REPLIED):
            # Refused or given up: forgotten at once (SPEC 5.4).
            if reply:
                e.marks |= REFUSED
            clear_side(t, way.slot, side, SIDE_RESET)
            return True
    else:
        state = icmp_next() if e.state[side] == ICMP_ALIVE else other_next(e.state[side], reply)
        deadline = plane.now + plane.timeout[state]

    e.state[side] = state
    if likely(deadline >= e.deadline[side]):
        e.deadline[side] = deadline
    else:
        e.deadline[side] = deadline
        rearm(t, way.slot)
    # One branch for two conditions: which way a packet goes is a coin toss, whether it is the first reply is not.
    if unlikely(<uint8_t>reply & e.flags[side] >> 3):
        note_reply(t, way.slot, side, p.step == TCP_RST)
    return True
