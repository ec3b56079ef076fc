# Judges any packet except a fragment. Packets with a connection key go to the slow path. All others are judged here, by
# the result of parsing their headers.

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memset

from sgfast.core.base.icmp cimport is_unreachable
from sgfast.core.base.intrinsics cimport likely, unlikely
from sgfast.core.base.key cimport address_of, same_address
from sgfast.core.base.types cimport (
    ALLOW,
    CUT_BY_TUNNEL,
    DENY,
    EXEMPT,
    FRAGMENT,
    INFRASTRUCTURE,
    INVALID,
    MALFORMED,
    MOOT,
    NOT_CUT_SHORT,
    NOT_IP,
    NO_REASON,
    NO_SLOT,
    OPENER_DENIED,
    READ_BROKEN,
    READ_EXEMPT,
    READ_ICMP_ERROR,
    READ_MALFORMED,
    READ_NOT_IP,
    READ_SERVER,
    READ_STRAY,
    READ_TRACKED,
    RELATED,
    TRUNCATED,
    VPC_ISOLATED,
    Packet,
)
from sgfast.core.classify.classifier cimport is_stateless
from sgfast.core.conntrack.storage cimport Entry, entry_at
from sgfast.core.conntrack.table cimport REFUSED, SIDE_DISCONNECTED, Table, find_slot, side_connected
from sgfast.core.pipeline.attempts cimport refuse_attempt
from sgfast.core.pipeline.judge cimport (
    Outcome,
    PacketContext,
    begin_packet,
    decide,
    find_owners,
    isolated,
    judge_stateless,
)
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.pipeline.records cimport set_record_bits
from sgfast.core.pipeline.replies cimport passed_opener, reply_makes_moot
from sgfast.core.pipeline.slow_path cimport (
    deny,
    deny_early,
    finish,
    in_scope,
    is_sent_freely,
    judge_tracked,
    moot_side,
    note_side,
)
from sgfast.core.wire.ip cimport read_quote


cdef inline void judge_packet(Plane* plane, PacketContext* c) noexcept nogil:
    # Judges any packet except a fragment.
    if likely(c.packet.parse_result == READ_TRACKED):
        judge_tracked(plane, c)
    else:
        judge_without_key(plane, c)


cdef inline void judge_without_key(Plane* plane, PacketContext* c) noexcept nogil:
    # Judges a packet without a connection key, by the result of parsing its headers.
    cdef uint8_t read = c.packet.parse_result
    cdef int source = c.packet.source_high
    cdef Outcome o
    if read == READ_NOT_IP:
        finish(plane, c, NOT_IP, NO_REASON)
        return
    if read == READ_BROKEN:
        plane.counters.no_addresses += c.packet.cut != NOT_CUT_SHORT
        plane.counters.cut_by_tunnel += c.packet.cut == CUT_BY_TUNNEL
        finish(plane, c, DENY, MALFORMED)
        return
    if read == READ_EXEMPT:
        finish(plane, c, EXEMPT, NO_REASON)
        return
    find_owners(plane, c)
    # If the end whose filter must judge the packet is no instance, the packet is exempt. A stray is never exempt: if it
    # is a first fragment, the fragments of its datagram contradict each other (SPEC 9.4).
    if (read == READ_SERVER and c.instance[source] < 0) or (
        read != READ_STRAY and is_sent_freely(plane, c.packet) and c.instance[1 - source] < 0
    ):
        finish(plane, c, EXEMPT, NO_REASON)
        return
    if not in_scope(plane, c):
        return
    if read == READ_ICMP_ERROR:
        judge_icmp_error(plane, c)
        return
    decide(c, False, TRUNCATED, -1, &o)
    if read == READ_SERVER:
        o.reason = INFRASTRUCTURE
    elif read == READ_MALFORMED:
        o.reason = MALFORMED
    elif read == READ_STRAY:
        plane.counters.fragments_denied += 1
        o.reason = FRAGMENT
    else:
        plane.counters.cut_by_tunnel += c.packet.cut == CUT_BY_TUNNEL
    deny_early(plane, c, &o)


# ICMP errors (SPEC 4.6) -----------------------------------------------------------------------------------------------
#
# The quoted packet identifies the connection. Its source must be the error's destination.

cdef inline void judge_related(
    const Plane* plane, const PacketContext* c, uint32_t slot, int side, Outcome* o
) noexcept nogil:
    # Allows an error if a side of the entry has a connection that is live and not disconnected.
    cdef const Entry* e
    decide(c, False, INVALID, -1, o)
    if slot == NO_SLOT:
        return
    e = entry_at(&plane.table.slab, slot)
    if not side_connected(e, side, c.now) or e.flags[side] & SIDE_DISCONNECTED:
        return
    decide(c, True, RELATED, <int32_t>e.rule[side], o)


cdef inline void judge_related_at(
    const Plane* plane, const PacketContext* c, uint32_t slot, int side, const PacketContext* of_quoted, int end,
    Outcome* o
) noexcept nogil:
    # Like judge_related, but denies the error unless the instance on `side` of the error owns this end of the quoted
    # packet. An owner counts even if the address, as a destination, is no instance.
    cdef bint owns = slot != NO_SLOT and c.instance[side] == plane.rules.owner[of_quoted.address[end]]
    judge_related(plane, c, slot if owns else <uint32_t>NO_SLOT, end, o)


cdef inline void judge_icmp_error(Plane* plane, PacketContext* c) noexcept nogil:
    # Judges an ICMP error. Stateless filters judge it like any packet.
    cdef Table* t = &plane.table
    cdef const Packet* p = c.packet
    cdef Packet quoted
    cdef PacketContext of_quoted
    cdef Entry* e
    cdef uint32_t slot = NO_SLOT        # slot of the connection that the error is about
    cdef uint32_t passed
    cdef int source = p.source_high
    cdef int order[2]
    cdef int moot, side, i
    cdef bint readable
    cdef Outcome o
    cdef bint unreachable = is_unreachable(p.ipv6, p.port_key)
    memset(&quoted, 0, sizeof(Packet))
    readable = read_quote(&plane.wire, p, &quoted.key, &quoted.digest, &quoted.hash, &quoted.source_high)
    quoted.ipv6 = p.ipv6
    quoted.wire = p.wire
    quoted.count = p.count
    if not readable:
        quoted.parse_result = READ_BROKEN
    if readable:
        slot = find_slot(t, &quoted.key, quoted.digest, quoted.hash)
        if slot != NO_SLOT:
            e = entry_at(&t.slab, slot)
            set_record_bits(c, e)
            moot = moot_side(e, c.now)
            if moot >= 0:
                if unreachable:
                    e.marks |= REFUSED
                finish(plane, c, MOOT, OPENER_DENIED)
                return
        if unlikely(plane.awaits_replies):
            passed = passed_opener(plane, &quoted, c.now)
            if passed != NO_SLOT and reply_makes_moot(plane, entry_at(&plane.attempts.slab, passed)):
                finish(plane, c, MOOT, OPENER_DENIED)
                return
        if unreachable and plane.attempts.live:
            refuse_attempt(plane, &quoted, c.now)
    if isolated(plane, c):
        decide(c, False, VPC_ISOLATED, -1, &o)
        deny_early(plane, c, &o)
        return
    begin_packet(&of_quoted, &quoted, NULL, False, c.now)
    if readable:
        find_owners(plane, &of_quoted)
        if not same_address(
            address_of(p.key.addr, p.ipv6, 1 - source), address_of(quoted.key.addr, p.ipv6, quoted.source_high)
        ):
            slot = NO_SLOT
    order[0] = source
    order[1] = 1 - source
    for i in range(2):
        side = order[i]
        if c.instance[side] < 0:
            continue
        if is_stateless(plane.rules, c.instance[side]):
            judge_stateless(plane, c, side, &o)
        elif side != source:
            judge_related(plane, c, slot, quoted.source_high, &o)
        else:
            # The instance that sends the error must own the destination of the quoted packet, or its source if that is
            # a multicast address.
            judge_related_at(plane, c, slot, side, &of_quoted, 1 - quoted.source_high, &o)
            if not o.allowed:
                judge_related_at(plane, c, slot, side, &of_quoted, quoted.source_high, &o)
        note_side(plane, c, side, &o)
        if not o.allowed:
            deny(plane, c, side, &o, &quoted)
            return
    if unreachable and slot != NO_SLOT:
        entry_at(&t.slab, slot).marks |= REFUSED
    finish(plane, c, ALLOW, o.reason)
