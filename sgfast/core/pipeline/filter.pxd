# One side's filter (SPEC 4), with inference (SPEC 9.3). A filter of stateless groups has rules but no connections. Only
# a packet without a connection is checked for it, so established packets do not pay for it.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t

from sgfast.core.base.intrinsics cimport likely, unlikely
from sgfast.core.base.types cimport (
    DENY_RULE,
    DISCONNECTED,
    ESTABLISHED,
    INFERRED,
    INVALID,
    MIDSTREAM,
    NO_RULE,
    NO_SLOT,
    RULE,
    TABLE_FULL,
    TCP_RST,
    TCP_SYN,
    TCP_SYNACK,
    Packet,
)
from sgfast.core.classify.classifier cimport find_rule, is_stateless
from sgfast.core.conntrack.lifetime cimport add_key, clear_side, make_room, note_reply, rearm, reopen_side, set_side
from sgfast.core.conntrack.protocols cimport (
    can_open,
    first_state,
    inferred_state,
    is_icmp_opener,
    next_state,
    opens_nothing,
)
from sgfast.core.conntrack.states cimport KEEPS_DEADLINE, NOT_VALID, REOPENS, STAYS
from sgfast.core.conntrack.storage cimport Entry
from sgfast.core.conntrack.table cimport (
    FROM_HIGH,
    OPENER_SEEN,
    REFUSED,
    REPLIED,
    SIDE_DISCONNECTED,
    SIDE_RESET,
    TUPLE_LIVE,
    UNHEARD,
    Table,
    find_slot,
    side_connected,
)
from sgfast.core.pipeline.context cimport PacketContext, entry_present, find_owners, set_slot
from sgfast.core.pipeline.plane cimport MIDSTREAM_ALLOW, MIDSTREAM_DENY, Plane


cdef inline bint marks_matter(const Plane* plane, int64_t now) noexcept nogil:
    # Whether something may still be inferred, so that it matters which openers were seen.
    return plane.midstream != MIDSTREAM_DENY and (plane.midstream == MIDSTREAM_ALLOW or now < plane.window_end)


cdef inline bint make_live(Plane* plane, PacketContext* c) noexcept nogil:
    # Finds or makes an entry for the packet's key that is live or may become so. False if there is no room (SPEC 5.8).
    cdef Table* t = &plane.table
    cdef const Packet* p = c.packet
    if c.slot == NO_SLOT or not c.entry.marks & TUPLE_LIVE:
        if not make_room(t, c.now):
            return False
        if c.slot != NO_SLOT:
            # Making room may have freed this entry, if its tuple had ended.
            set_slot(c, t, find_slot(t, &p.key, p.digest, p.hash))
        if c.slot == NO_SLOT and not set_slot(c, t, add_key(t, &p.key, p.digest, p.hash)):
            return False
        # A live tuple keeps its value, as a policy change may have set another one (policy_change.pxd).
        c.entry.present = entry_present(c)
    return True


cdef inline int32_t winner_for(
    const Plane* plane, const PacketContext* c, int side, bint inbound, uint16_t port_key
) noexcept nogil:
    # Only openers were looked up ahead. For these, `inbound` and `port_key` are those of the packet itself.
    if c.ahead != NULL:
        return c.ahead.rule[side]
    return find_rule(
        plane.rules, plane.rules.choice[c.instance[side] * 2 + inbound], c.address[1 - side], c.packet.protocol,
        port_key
    )


cdef inline bint judge_stateless(Plane* plane, PacketContext* c, int side) noexcept nogil:
    # A filter without connections applies the rules of the packet's direction to every packet, whatever its flags (SPEC
    # 4.13).
    cdef const Packet* p = c.packet
    c.rule = winner_for(plane, c, side, p.source_high != side, p.port_key)
    if c.rule >= 0 and not plane.rules.denies[c.rule]:
        c.reason = RULE
        return True
    c.reason = NO_RULE if c.rule < 0 else DENY_RULE
    return False


cdef inline bint would_allow(const Plane* plane, const PacketContext* c, int side) noexcept nogil:
    # Whether a side would allow a packet that may open a connection and is valid in any state of one. The key must have
    # an entry.
    cdef const Entry* e = c.entry
    cdef int32_t rule
    if side_connected(e, side, c.now):
        return not e.flags[side] & SIDE_DISCONNECTED
    rule = winner_for(plane, c, side, c.packet.source_high != side, c.packet.port_key)
    return rule >= 0 and not plane.rules.denies[rule]


cdef inline bint infer_initiator(const Packet* p) noexcept nogil:
    # SPEC 9.3: whether the initiator of a connection older than the capture is the higher address.
    if p.step == TCP_SYNACK or p.sport < p.dport:
        return not p.source_high
    return p.source_high


cdef inline bint judge_opener(Plane* plane, PacketContext* c, int side) noexcept nogil:
    # Judges a packet without a connection on this side (SPEC 4.7, 4.8).
    cdef const Packet* p = c.packet
    cdef bint initiator_high = p.source_high
    cdef uint16_t port_key = p.port_key
    cdef bint inferred = False
    cdef bint stateless
    cdef uint8_t state, flags
    if not c.owners_known:
        find_owners(plane, c)
    stateless = is_stateless(plane.rules, c.instance[side])
    if stateless:
        c.opener |= can_open(p)
        if judge_stateless(plane, c, side):
            return True
        c.opener_denied |= can_open(p)
        # In other protocols nothing identifies the answer, nor shows that there would be none (SPEC 9.2).
        c.rules_denied |= p.step == TCP_SYN or is_icmp_opener(p)
        return False

    c.rule = -1
    if can_open(p):
        state = first_state(p)
    elif opens_nothing(p):
        c.reason = INVALID
        return False
    elif p.step == TCP_RST or not marks_matter(plane, c.now) or (
        c.slot != NO_SLOT and c.entry.marks & OPENER_SEEN
    ):
        c.reason = MIDSTREAM
        return False
    else:
        # The connection seems to be older than the capture: infer its initiator.
        inferred = True
        state = inferred_state(p)
        initiator_high = infer_initiator(p)
        if initiator_high != p.source_high:
            port_key = p.sport

    c.opener |= not inferred
    if unlikely(c.instance[side] < 0):
        # There was a connection with an address that, as a destination, belongs to no instance (SPEC 3.3).
        c.reason = INVALID
        return False
    c.initiator_high = initiator_high
    c.rule = winner_for(plane, c, side, initiator_high != side, port_key)
    if c.rule < 0 or plane.rules.denies[c.rule]:
        c.reason = NO_RULE if c.rule < 0 else DENY_RULE
        c.opener_denied = True
        c.rules_denied |= not inferred
        return False
    if not make_live(plane, c):
        c.reason = TABLE_FULL
        c.rule = -1
        c.opener_denied = True
        return False
    flags = FROM_HIGH | UNHEARD if initiator_high else UNHEARD
    if inferred:
        flags |= REPLIED
    set_side(&plane.table, c.slot, side, state, flags, <uint32_t>c.rule, c.now + plane.timeout[state])
    if inferred and initiator_high != p.source_high:
        note_reply(&plane.table, c.slot, side, False)
    plane.rule_counts[c.rule].connections += 1
    c.created = True
    c.reason = INFERRED if inferred else RULE
    return True


cdef inline bint judge_side(Plane* plane, PacketContext* c, int side) noexcept nogil:
    # Whether a side allows the packet. Sets reason and rule in the context.
    cdef Table* t = &plane.table
    cdef const Packet* p = c.packet
    cdef Entry* e
    cdef int64_t deadline
    cdef bint reply
    cdef uint8_t state
    if unlikely(c.slot == NO_SLOT):
        return judge_opener(plane, c, side)
    e = c.entry
    if unlikely(not side_connected(e, side, c.now)):
        return judge_opener(plane, c, side)

    c.rule = <int32_t>e.rule[side]
    c.reason = ESTABLISHED
    if unlikely(e.flags[side] & SIDE_DISCONNECTED):
        c.reason = DISCONNECTED
        return False
    reply = ((e.flags[side] & FROM_HIGH) != 0) != p.source_high
    state = next_state(p, reply, e.state[side])
    if unlikely(state >= KEEPS_DEADLINE):
        if state == NOT_VALID:
            c.reason = INVALID
            c.rule = -1
            return False
        if state == REOPENS:
            reopen_side(t, c.slot, side, c.now, not c.reopened)
            c.reopened = True
            return judge_opener(plane, c, side)
        state = e.state[side] if state == STAYS else state - KEEPS_DEADLINE
        deadline = e.deadline[side]
    else:
        deadline = c.now + plane.timeout[state]
    if unlikely(p.step == TCP_RST and not e.flags[side] & REPLIED):
        # Refused or aborted before any reply: dropped at once (SPEC 5.4).
        if reply:
            e.marks |= REFUSED
        clear_side(t, c.slot, side, SIDE_RESET)
        return True

    e.state[side] = state
    if likely(deadline >= e.deadline[side]):
        e.deadline[side] = deadline
    else:
        e.deadline[side] = deadline
        rearm(t, c.slot)
    # One branch for two conditions: a packet's direction is unpredictable, but being the first reply is rare. Bit 3 of
    # the flags is UNHEARD.
    if unlikely(<uint8_t>reply & e.flags[side] >> 3):
        note_reply(t, c.slot, side, p.step == TCP_RST)
    return True
