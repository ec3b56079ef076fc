# The filters' decisions about a packet: which instances own its addresses, whether any filter sees it (SPEC 3), and
# what one end's filter decides (SPEC 4), with inference (SPEC 9.3). This module changes no connection, counter or
# report: slow_path.pxd does that.
#
# A filter of stateless groups has rules but no connections. Only packets without a connection are checked for such
# filters, so established packets cost nothing more.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t

from sgfast.core.base.intrinsics cimport unlikely
from sgfast.core.base.key cimport Address, address_of, is_multicast, may_have_multicast
from sgfast.core.base.types cimport (
    DENY_RULE,
    DISCONNECTED,
    ESTABLISHED,
    INFERRED,
    INVALID,
    MIDSTREAM,
    NO_REASON,
    NO_RULE,
    NO_SLOT,
    NO_VERDICT,
    REPLY_DENIED,
    RULE,
    TCP_SYN,
    Packet,
    ResultRow,
)
from sgfast.core.classify.classifier cimport find_address, find_rule, is_stateless, vpcs_connected
from sgfast.core.conntrack.protocols cimport (
    answer_is_known,
    can_open,
    first_state,
    infer_initiator,
    inferred_state,
    next_state,
    opens_nothing,
    resets,
)
from sgfast.core.conntrack.states cimport KEEPS_DEADLINE, NOT_VALID, REOPENS, STAYS
from sgfast.core.conntrack.storage cimport DIRECTED, Entry, entry_at
from sgfast.core.conntrack.table cimport (
    FROM_HIGH,
    OPENER_SEEN,
    REPLIED,
    REPLY,
    REPLY_PASSED,
    SIDE_DISCONNECTED,
    Table,
    side_connected,
)
from sgfast.core.pipeline.look_ahead cimport Ahead
from sgfast.core.pipeline.plane cimport MIDSTREAM_ALLOW, MIDSTREAM_DENY, Plane
from sgfast.core.tallies.tally cimport Queued


# One packet on its way through the filters.
cdef struct PacketContext:
    const Packet* packet
    const Ahead* ahead      # results of the packet's look-ups ahead, or NULL
    ResultRow* row          # NULL if the caller wants no result
    int64_t now             # engine time, nanoseconds (SPEC 9.1)
    uint32_t slot           # the slot of the packet's key in the table, or NO_SLOT
    Entry* entry            # the entry in `slot`, if there is one
    uint32_t passed_slot    # the slot of `passed` in Plane.attempts
    Entry* passed           # the key's opener that stateless filters let pass (replies.pxd), or NULL
    int32_t instance[2]     # by side: the instance that owns the address, -1 for none
    uint32_t address[2]     # by side: address number
    uint8_t present         # the value of Entry.present for the packet's key, by the owners found
    uint8_t owners_known
    uint8_t wants_word
    # Fields that slow_path.pxd sets, or a module that it calls:
    uint16_t word           # the result word so far (types.pxd)
    # Whether the initiator of the connection that the packet began, or would have begun, is the higher address. For any
    # other packet: whether its source is the higher address.
    uint8_t initiator_high
    uint8_t opener          # a side judged the packet as a new opener
    uint8_t created         # the packet began a connection on some side
    Queued* denial          # the packet's entry in the tally of denials, or NULL


cdef enum:         # Change: the effect on a side's connection
    NOTHING_CHANGES = 0
    GOES_ON = 1             # the connection is in `state` until `deadline`
    IS_DROPPED = 2          # the connection is refused or aborted before any reply (SPEC 5.4)
    BEGINS = 3              # a connection begins in `state`

cdef enum:         # Attempt: the purpose of a denied packet
    NO_ATTEMPT = 0
    WOULD_BEGIN = 1         # to begin a connection, by opening or by inference
    WOULD_OPEN = 2          # to open one, and SPEC 3.6 or the rules denied it, which makes the key moot (SPEC 9.2)


# The decision of one side's filter about a packet. slow_path.pxd applies it.
cdef struct Outcome:
    int64_t deadline
    int32_t rule            # deciding rule, -1 for none
    uint8_t allowed
    uint8_t reason
    uint8_t change          # Change
    uint8_t reply           # the packet comes from the connection's responder
    uint8_t reopens         # the packet replaces a finished connection (SPEC 5.5)
    uint8_t opener          # the packet is judged as a new opener (SPEC 4.8), or would be
    uint8_t attempt         # Attempt
    uint8_t initiator_high  # as in PacketContext
    uint8_t state           # new state of the connection


cdef inline void clear_row(ResultRow* row) noexcept nogil:
    row.egress.instance = -1
    row.egress.rule = -1
    row.egress.verdict = NO_VERDICT
    row.egress.reason = NO_REASON
    row.egress.spare = 0
    row.ingress = row.egress
    row.spare = 0


cdef inline void begin_packet(
    PacketContext* c, const Packet* p, ResultRow* row, bint wants_word, int64_t now
) noexcept nogil:
    c.packet = p
    c.ahead = NULL
    c.row = row
    c.now = now
    c.slot = NO_SLOT
    c.entry = NULL
    c.passed = NULL
    c.instance[0] = -1
    c.instance[1] = -1
    c.owners_known = False
    c.wants_word = wants_word
    c.word = 0
    c.initiator_high = p.source_high
    c.opener = False
    c.created = False
    c.denial = NULL


cdef inline bint set_slot(PacketContext* c, const Table* t, uint32_t slot) noexcept nogil:
    # Sets the slot and the entry of the packet. Returns False for NO_SLOT.
    c.slot = slot
    if slot == NO_SLOT:
        return False
    c.entry = entry_at(&t.slab, slot)
    return True


cdef inline void find_owners(const Plane* plane, PacketContext* c) noexcept nogil:
    if not c.owners_known:
        look_owners_up(plane, c)


cdef inline void look_owners_up(const Plane* plane, PacketContext* c) noexcept nogil:
    cdef const Packet* p = c.packet
    cdef Address address
    cdef int side
    for side in range(2):
        if c.ahead != NULL:
            c.address[side] = c.ahead.address[side]
        else:
            address = address_of(p.key.addr, p.ipv6, side)
            c.address[side] = find_address(plane.rules, p.ipv6, address.high, address.low)
        c.instance[side] = plane.rules.owner[c.address[side]]
    c.present = 0
    if unlikely(may_have_multicast(p.key.addr, p.ipv6)):
        for side in range(2):
            if is_multicast(p.ipv6, address_of(p.key.addr, p.ipv6, side).high):
                if c.instance[side] >= 0:
                    c.present |= DIRECTED
                if side != p.source_high:
                    c.instance[side] = -1
    c.present |= (c.instance[0] >= 0) | (c.instance[1] >= 0) << 1
    c.owners_known = True


cdef inline bint isolated(const Plane* plane, const PacketContext* c) noexcept nogil:
    # Whether the VPCs of the packet's two instances are not connected (SPEC 3.6).
    return (
        c.instance[0] >= 0 and c.instance[1] >= 0 and not vpcs_connected(plane.rules, c.instance[0], c.instance[1])
    )


cdef inline bint marks_matter(const Plane* plane, int64_t now) noexcept nogil:
    # Whether a connection may still be inferred, so that it matters which openers were seen.
    return plane.midstream != MIDSTREAM_DENY and (plane.midstream == MIDSTREAM_ALLOW or now < plane.window_end)


# The filter of one side -----------------------------------------------------------------------------------------------

cdef inline void decide(const PacketContext* c, bint allowed, uint8_t reason, int32_t rule, Outcome* o) noexcept nogil:
    # Fills in an outcome that changes no connection.
    o.rule = rule
    o.allowed = allowed
    o.reason = reason
    o.change = NOTHING_CHANGES
    o.reply = False
    o.reopens = False
    o.opener = False
    o.attempt = NO_ATTEMPT
    o.initiator_high = c.initiator_high


cdef inline void judge_side(const Plane* plane, PacketContext* c, int side, Outcome* o) noexcept nogil:
    # Judges a packet by the side's connection if there is one, and otherwise by its rules.
    cdef const Packet* p = c.packet
    cdef const Entry* e = c.entry
    cdef uint8_t state
    if unlikely(c.slot == NO_SLOT) or unlikely(not side_connected(e, side, c.now)):
        judge_opener(plane, c, side, o)
        return
    decide(c, True, ESTABLISHED, <int32_t>e.rule[side], o)
    if unlikely(e.flags[side] & SIDE_DISCONNECTED):
        o.allowed = False
        o.reason = DISCONNECTED
        return
    o.change = GOES_ON
    o.reply = ((e.flags[side] & FROM_HIGH) != 0) != p.source_high
    state = next_state(p, o.reply, e.state[side])
    if unlikely(state >= KEEPS_DEADLINE):
        if state == NOT_VALID:
            decide(c, False, INVALID, -1, o)
            return
        if state == REOPENS:
            judge_opener(plane, c, side, o)
            o.reopens = True
            return
        o.state = e.state[side] if state == STAYS else state - KEEPS_DEADLINE
        o.deadline = e.deadline[side]
    else:
        o.state = state
        o.deadline = c.now + plane.timeout[state]
    if unlikely(resets(p) and not e.flags[side] & REPLIED):
        o.change = IS_DROPPED


cdef inline void judge_opener(const Plane* plane, PacketContext* c, int side, Outcome* o) noexcept nogil:
    # Judges a packet without a connection on this side (SPEC 4.7, 4.8).
    cdef const Packet* p = c.packet
    cdef uint16_t port_key = p.port_key
    cdef uint8_t initiator_high = p.source_high
    cdef bint opens = can_open(p)
    find_owners(plane, c)
    if is_stateless(plane.rules, c.instance[side]):
        judge_stateless(plane, c, side, o)
        if unlikely(c.passed != NULL) and not o.allowed and is_awaited(c):
            o.reason = REPLY_DENIED
            o.attempt = WOULD_BEGIN
            o.initiator_high = 1 - p.source_high
            return
        o.opener = opens
        if opens and not o.allowed:
            o.attempt = WOULD_OPEN if answer_is_known(p) else WOULD_BEGIN
        return
    decide(c, False, INVALID, -1, o)
    if opens:
        o.opener = True
        o.state = first_state(p)
    elif opens_nothing(p):
        return
    elif resets(p) or not marks_matter(plane, c.now) or (c.slot != NO_SLOT and c.entry.marks & OPENER_SEEN):
        o.reason = MIDSTREAM
        return
    else:
        # The connection seems to be older than the capture: infer its initiator.
        o.state = inferred_state(p)
        initiator_high = infer_initiator(p)
        if initiator_high != p.source_high:
            port_key = p.sport
    if unlikely(c.instance[side] < 0):
        # There was a connection with an address that belongs to no instance as a destination (SPEC 3.3).
        return
    o.initiator_high = initiator_high
    o.rule = winner_for(plane, c, side, initiator_high != side, port_key)
    if o.rule < 0 or plane.rules.denies[o.rule]:
        o.reason = NO_RULE if o.rule < 0 else DENY_RULE
        o.attempt = WOULD_OPEN if opens else WOULD_BEGIN
        return
    o.allowed = True
    o.reason = RULE if opens else INFERRED
    o.change = BEGINS
    o.reply = initiator_high != p.source_high
    o.deadline = c.now + plane.timeout[o.state]


cdef inline bint is_awaited(const PacketContext* c) noexcept nogil:
    # Whether stateless filters let the key's opener pass, and this packet may be the first reply to it.
    cdef const Entry* e = c.passed
    cdef uint8_t flags = e.flags[0 if e.state[0] else 1]
    if ((flags & FROM_HIGH) != 0) == c.packet.source_high or c.packet.step == TCP_SYN or c.created:
        return False
    return flags & REPLY != REPLY_PASSED


cdef inline void judge_stateless(const Plane* plane, const PacketContext* c, int side, Outcome* o) noexcept nogil:
    # Applies the rules of the packet's direction, whatever its flags: this filter has no connections (SPEC 4.13).
    cdef const Packet* p = c.packet
    cdef int32_t rule = winner_for(plane, c, side, p.source_high != side, p.port_key)
    if rule < 0:
        decide(c, False, NO_RULE, -1, o)
    elif plane.rules.denies[rule]:
        decide(c, False, DENY_RULE, rule, o)
    else:
        decide(c, True, RULE, rule, o)


cdef inline int32_t winner_for(
    const Plane* plane, const PacketContext* c, int side, bint inbound, uint16_t port_key
) noexcept nogil:
    # Returns the winning rule. Only openers were looked up ahead, with their own `inbound` and `port_key`.
    if c.ahead != NULL:
        return c.ahead.rule[side]
    return find_rule(
        plane.rules, plane.rules.choice[c.instance[side] * 2 + inbound], c.address[1 - side], c.packet.protocol,
        port_key
    )


cdef inline bint would_allow(const Plane* plane, const PacketContext* c, int side) noexcept nogil:
    # Whether a side would allow a packet that may open a connection and is valid in every state of a connection. The
    # key must have an entry.
    cdef const Entry* e = c.entry
    cdef int32_t rule
    if side_connected(e, side, c.now):
        return not e.flags[side] & SIDE_DISCONNECTED
    rule = winner_for(plane, c, side, c.packet.source_high != side, c.packet.port_key)
    return rule >= 0 and not plane.rules.denies[rule]
