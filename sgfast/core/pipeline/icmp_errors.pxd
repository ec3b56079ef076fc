# ICMP errors (SPEC 4.6). The quoted packet identifies the connection; its source must be the error's destination.

from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memset

from sgfast.core.base.icmp cimport is_unreachable
from sgfast.core.base.key cimport address_of, same_address
from sgfast.core.base.types cimport ALLOW, DENY, INVALID, MOOT, NO_SLOT, OPENER_DENIED, RELATED, VPC_ISOLATED, Packet
from sgfast.core.classify.classifier cimport is_stateless
from sgfast.core.conntrack.storage cimport Entry, entry_at
from sgfast.core.conntrack.table cimport REFUSED, SIDE_DISCONNECTED, Table, find_slot, side_connected
from sgfast.core.pipeline.bookkeeping cimport refuse_attempt, set_record_bits
from sgfast.core.pipeline.causal cimport moot_side
from sgfast.core.pipeline.context cimport (
    PacketContext,
    begin_packet,
    deny_early,
    find_owners,
    finish,
    isolated,
    note_side,
    tally_denial,
)
from sgfast.core.pipeline.filter cimport judge_stateless
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.tallies.disconnects cimport follows_cut
from sgfast.core.wire.ip cimport read_quote


cdef inline bint relates(Plane* plane, PacketContext* c, uint32_t slot, int side) noexcept nogil:
    # Whether a side of the entry has a connection that is live and not disconnected. Sets reason and rule in the
    # context.
    cdef const Entry* e
    c.reason = INVALID
    c.rule = -1
    if slot == NO_SLOT:
        return False
    e = entry_at(&plane.table.slab, slot)
    if not side_connected(e, side, c.now) or e.flags[side] & SIDE_DISCONNECTED:
        return False
    c.reason = RELATED
    c.rule = <int32_t>e.rule[side]
    return True


cdef inline bint relates_to_end(
    Plane* plane, PacketContext* c, uint32_t slot, int side, const PacketContext* of_quoted, int end
) noexcept nogil:
    # Whether the instance on a side of the error owns this end of the quoted packet, though it may be none as a
    # destination, and has such a connection there.
    cdef bint owns = slot != NO_SLOT and c.instance[side] == plane.rules.owner[of_quoted.address[end]]
    return relates(plane, c, slot if owns else <uint32_t>NO_SLOT, end)


cdef inline void deny_error(Plane* plane, PacketContext* c, const Packet* quoted, int side) noexcept nogil:
    # `quoted`: the packet that the error quotes, or NULL if it quotes none that can be read.
    cdef bint after_cut = (
        plane.cuts.waiting.used and quoted != NULL and follows_cut(&plane.cuts, quoted, False, c.now)
    )
    if plane.reporting and not after_cut:
        tally_denial(plane, c, side, c.reason)
    finish(plane, c, DENY, c.reason)


cdef inline void judge_icmp_error(Plane* plane, PacketContext* c) noexcept nogil:
    # Stateless filters judge an error like any packet.
    cdef Table* t = &plane.table
    cdef const Packet* p = c.packet
    cdef Packet quoted
    cdef PacketContext of_quoted
    cdef Entry* e
    cdef uint32_t slot = NO_SLOT        # slot of the connection that the error is about
    cdef int source = p.source_high
    cdef int order[2]
    cdef int moot, side, i
    cdef bint readable, allowed
    cdef bint unreachable = is_unreachable(p.ipv6, p.port_key)
    memset(&quoted, 0, sizeof(Packet))
    readable = read_quote(&plane.wire, p, &quoted.key, &quoted.digest, &quoted.hash, &quoted.source_high)
    quoted.ipv6 = p.ipv6
    quoted.wire = p.wire
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
        if unreachable and plane.attempts.live:
            refuse_attempt(plane, &quoted, c.now)
    if isolated(plane, c):
        deny_early(plane, c, VPC_ISOLATED)
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
            allowed = judge_stateless(plane, c, side)
        elif side != source:
            allowed = relates(plane, c, slot, quoted.source_high)
        else:
            # The instance that sends the error must own the destination of the quoted packet, or its source if that is
            # a multicast address.
            allowed = relates_to_end(plane, c, slot, side, &of_quoted, 1 - quoted.source_high) or relates_to_end(
                plane, c, slot, side, &of_quoted, quoted.source_high
            )
        note_side(plane, c, side, allowed)
        if not allowed:
            deny_error(plane, c, &quoted if readable else NULL, side)
            return
    if unreachable and slot != NO_SLOT:
        entry_at(&t.slab, slot).marks |= REFUSED
    finish(plane, c, ALLOW, c.reason)
