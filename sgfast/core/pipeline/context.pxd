# The state of one packet while it is judged, and the functions that record its verdict.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from sgfast.core.base.intrinsics cimport unlikely
from sgfast.core.base.key cimport Address, address_of, is_multicast, write_address
from sgfast.core.base.types cimport (
    ALLOW,
    DENY,
    DENY_RULE,
    DISCONNECTED,
    LOCAL,
    NO_REASON,
    NO_SLOT,
    NO_VERDICT,
    OUT_OF_SCOPE,
    PROTO_TCP,
    TCP_SYN,
    WORD_REASON_SHIFT,
    Packet,
    ResultRow,
    SideRow,
)
from sgfast.core.classify.classifier cimport find_address, vpcs_connected
from sgfast.core.conntrack.protocols cimport can_open
from sgfast.core.conntrack.storage cimport DIRECTED, Entry, entry_at
from sgfast.core.conntrack.table cimport FlowRow, Table
from sgfast.core.pipeline.look_ahead cimport Ahead
from sgfast.core.pipeline.plane cimport Plane, RuleCount
from sgfast.core.tallies.disconnects cimport follows_cut
from sgfast.core.tallies.tally cimport DENIALS, Queued, TallyKey, key_of_kind, queue_kind


cdef struct PacketContext:
    const Packet* packet
    const Ahead* ahead      # results of its look-ups ahead, or NULL
    ResultRow* row          # NULL if no result is wanted
    int64_t now             # engine time, nanoseconds (SPEC 9.1)
    uint32_t slot           # its key's slot in the table, or NO_SLOT
    Entry* entry            # the entry there, if there is one
    int32_t instance[2]     # by side: the instance that owns the address, -1 for none
    uint32_t address[2]     # by side: address number
    int32_t rule            # deciding rule of the side judged last, -1 for none
    uint8_t reason          # likewise
    uint16_t word           # the outcome word so far (types.pxd)
    uint8_t wants_word
    # Whether the initiator of the connection that it began, or would have begun, is the higher address. For other
    # packets: whether the source is.
    uint8_t initiator_high
    # Cleared together:
    uint8_t owners_known
    uint8_t directed        # an end that is an instance in one direction only (storage.pxd)
    uint8_t reopened        # a finished connection was dropped for it
    uint8_t created         # it began a connection on some side
    uint8_t opener          # it was judged as a new opener (SPEC 4.8), or would have been
    uint8_t opener_denied   # it would have begun a connection, by opening or by inference, and was denied
    # An opener was denied by SPEC 3.6 or by the rules, which makes its key moot (SPEC 9.2). If the groups are
    # stateless, only openers of TCP and ICMP count.
    uint8_t rules_denied
    uint8_t has_attempt_row  # `attempt_row` is the report row of its key's denied attempt, in case it opens now
    Queued* denial          # its entry in the tally of denials, or NULL
    FlowRow attempt_row


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
    c.instance[0] = -1
    c.instance[1] = -1
    c.rule = -1
    c.reason = NO_REASON
    c.word = 0
    c.wants_word = wants_word
    c.initiator_high = p.source_high
    c.denial = NULL
    c.owners_known = False
    c.directed = False
    c.reopened = False
    c.created = False
    c.opener = False
    c.opener_denied = False
    c.rules_denied = False
    c.has_attempt_row = False


cdef inline bint set_slot(PacketContext* c, const Table* t, uint32_t slot) noexcept nogil:
    # Returns whether there is one.
    c.slot = slot
    if slot == NO_SLOT:
        return False
    c.entry = entry_at(&t.slab, slot)
    return True


cdef inline void find_owners(const Plane* plane, PacketContext* c) noexcept nogil:
    cdef const Packet* p = c.packet
    cdef Address address
    cdef int side
    for side in range(2):
        address = address_of(p.key.addr, p.ipv6, side)
        if c.ahead != NULL:
            c.address[side] = c.ahead.address[side]
        else:
            c.address[side] = find_address(plane.rules, p.ipv6, address.high, address.low)
        c.instance[side] = plane.rules.owner[c.address[side]]
        if unlikely(is_multicast(p.ipv6, address.high)):
            c.directed |= c.instance[side] >= 0
            if side != p.source_high:
                c.instance[side] = -1
    c.owners_known = True


cdef inline uint8_t sides_present(const PacketContext* c) noexcept nogil:
    # Bit s: side s has an instance.
    return (c.instance[0] >= 0) | (c.instance[1] >= 0) << 1


cdef inline uint8_t entry_present(const PacketContext* c) noexcept nogil:
    # The value of Entry.present for the packet's key.
    return sides_present(c) | (DIRECTED if c.directed else 0)


# Recording the verdict ------------------------------------------------------------------------------------------------

cdef inline void note_side(Plane* plane, PacketContext* c, int side, bint allowed) noexcept nogil:
    # Records one side's verdict: in the rule's counters, and in the result if one is wanted.
    cdef const Packet* p = c.packet
    cdef RuleCount* rule
    cdef SideRow* row
    if c.rule >= 0:
        rule = &plane.rule_counts[c.rule]
        rule.packets += 1
        rule.bytes += p.wire
    if c.row != NULL:
        row = &c.row.egress if side == p.source_high else &c.row.ingress
        row.instance = c.instance[side]
        row.rule = c.rule
        row.verdict = ALLOW if allowed else DENY
        row.reason = c.reason


cdef inline void finish(Plane* plane, PacketContext* c, uint8_t verdict, uint8_t reason) noexcept nogil:
    # Records the packet's verdict. Call it exactly once per packet.
    plane.verdicts[verdict] += 1
    plane.reasons[reason] += 1
    c.word |= <uint16_t>(verdict | reason << WORD_REASON_SHIFT)
    if c.row != NULL:
        c.row.verdict = verdict
        c.row.reason = reason


cdef inline void tally_denial(Plane* plane, PacketContext* c, int side, uint8_t reason) noexcept nogil:
    # Counts a packet that begins an inferred connection in the connection's direction, as outcomes.pxd does.
    cdef const Packet* p = c.packet
    cdef uint16_t port_key = p.port_key
    cdef TallyKey key
    if not c.owners_known:
        find_owners(plane, c)
    if c.initiator_high != p.source_high:
        port_key = p.sport      # the responder's packet, of a connection that would have been inferred
    elif p.protocol == PROTO_TCP and p.step != TCP_SYN and p.sport < p.dport:
        port_key = p.sport      # most likely the service, so that packets of both directions are one group
    key = key_of_kind(
        c.instance[side], port_key, p.protocol, reason, side != c.initiator_high, p.ipv6, p.has_ports, p.has_icmp,
        c.rule if reason == DENY_RULE else -1
    )
    write_address(<uint8_t*>key.peer, address_of(p.key.addr, p.ipv6, 1 - side), p.ipv6)
    c.denial = queue_kind(&plane.queue, &plane.tallies[DENIALS], &key, p.time_ns, p.number)
    c.denial.packets = 1
    c.denial.bytes = p.wire


cdef inline void deny(Plane* plane, PacketContext* c, int side, uint8_t reason) noexcept nogil:
    # A packet that follows a cut is no denial of its own (disconnects.pxd).
    cdef bint after_cut = reason == DISCONNECTED
    if plane.cuts.waiting.used:
        after_cut |= follows_cut(&plane.cuts, c.packet, c.opener_denied and can_open(c.packet), c.now)
    if plane.reporting and not after_cut:
        tally_denial(plane, c, side, reason)
    finish(plane, c, DENY, reason)


cdef inline int deny_early(Plane* plane, PacketContext* c, uint8_t reason) noexcept nogil:
    # Denies a packet before SPEC 4 applies. The denial is reported on the first side that the packet has (SPEC 10.3),
    # which is returned.
    cdef int side = c.packet.source_high
    if c.instance[side] < 0:
        side = 1 - side
    c.reason = reason
    c.rule = -1
    if c.row != NULL:
        note_side(plane, c, side, False)
    deny(plane, c, side, reason)
    return side


# Scope (SPEC 3.3, 3.6) ------------------------------------------------------------------------------------------------

cdef inline bint in_scope(Plane* plane, PacketContext* c) noexcept nogil:
    # Whether any filter sees the packet. If not, its verdict is recorded.
    if c.instance[0] < 0 and c.instance[1] < 0:
        finish(plane, c, OUT_OF_SCOPE, NO_REASON)
        return False
    if unlikely(c.instance[0] == c.instance[1]):
        finish(plane, c, LOCAL, NO_REASON)
        return False
    return True


cdef inline bint isolated(const Plane* plane, const PacketContext* c) noexcept nogil:
    return (
        c.instance[0] >= 0 and c.instance[1] >= 0 and not vpcs_connected(plane.rules, c.instance[0], c.instance[1])
    )
