# Applies a policy change to connections (SPEC 6.3 to 6.7, 3.6) in one walk over the table, so that packets need no
# check for it. A disconnected connection stays in the table, marked as disconnected (SPEC 6.4). If it were deleted, the
# server's next packet would open an outbound connection, and let the client's packets back in as replies. This does
# happen if connections are forgotten instead (SPEC 6.13).

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.icmp cimport opener_port_key
from sgfast.core.base.key cimport KIND_IPV6, Address, FlowKey, address_of, is_multicast
from sgfast.core.classify.classifier cimport Tables, find_address, find_rule, vpcs_connected
from sgfast.core.conntrack.events cimport has_connection, tell_forgotten, tell_over
from sgfast.core.conntrack.flow_rows cimport key_of
from sgfast.core.conntrack.lifetime cimport clear_side, end_tuple
from sgfast.core.conntrack.protocols cimport is_finished
from sgfast.core.conntrack.states cimport MOOT_TCP, NO_STATE
from sgfast.core.conntrack.storage cimport DIRECTED, Entry, entry_at, flow_at
from sgfast.core.conntrack.table cimport (
    CUT_EVENT,
    ENDED_EVENT,
    FROM_HIGH,
    SIDE_CUT,
    SIDE_DISCONNECTED,
    SIDE_FORGOTTEN,
    SIDE_REMOVED,
    SIDE_TIMEOUT,
    TUPLE_LIVE,
    Table,
    side_connected,
)
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.tallies.disconnects cimport note_cut


cdef enum:         # the effect of a change on a tuple
    NOT_CUT = 0
    CUT_LIVING = 1
    CUT_FINISHED = 2        # the tuple's connection had ended already (SPEC 6.12)


cdef struct Cutting:        # the number of tuples cut on at least one side, and how many of these had ended
    uint64_t cut
    uint64_t finished


cdef struct Cut:
    const uint8_t* inbound      # by instance number: whether its inbound connections are cut; NULL: none
    uint8_t unmatched           # cut connections whose opener the new rules would not allow
    uint8_t forgets             # forget cut connections instead of disconnecting them
    int64_t clock               # engine time of the last packet, nanoseconds
    int64_t now                 # engine time of the change, not earlier than `clock`


cdef inline bint may_open(const Tables* new, const Entry* e, int side, int32_t instance, uint32_t peer) noexcept nogil:
    # Whether the new rules of a connection's instance would allow its opener.
    cdef bint initiator_high = (e.flags[side] & FROM_HIGH) != 0
    cdef bint inbound = initiator_high != side
    cdef int32_t rule = find_rule(
        new, new.choice[instance * 2 + inbound], peer, e.protocol, opener_port_key(e.kind, e.ports, initiator_high)
    )
    return rule >= 0 and not new.denies[rule]


cdef inline int change_entry(Plane* plane, uint32_t slot, const Tables* new, const Cut* cut) noexcept nogil:
    # Applies the change to one tuple. Returns whether a side was cut, and whether the first cut side had ended.
    cdef Table* t = &plane.table
    cdef const Tables* old = plane.rules
    cdef Entry* e = entry_at(&t.slab, slot)
    cdef bint ipv6 = (e.kind & KIND_IPV6) != 0
    cdef FlowKey key
    cdef Address end
    cdef uint32_t was[2]            # address numbers of the old tables
    cdef uint32_t address[2]
    cdef int32_t instance[2]
    cdef int32_t before
    cdef int side
    cdef int first_cut = NOT_CUT
    cdef bint multicast[2]
    cdef bint directed = False
    cdef bint inbound, counts
    key_of(t, slot, &key)
    for side in range(2):
        end = address_of(key.addr, ipv6, side)
        was[side] = find_address(old, ipv6, end.high, end.low)
        address[side] = find_address(new, ipv6, end.high, end.low)
        instance[side] = new.owner[address[side]]
        multicast[side] = is_multicast(ipv6, end.high)
        if multicast[side]:
            directed |= instance[side] >= 0
            if e.state[side] == NO_STATE:       # the address was a destination
                instance[side] = -1
    for side in range(2):
        if e.state[side] == NO_STATE or e.state[side] >= MOOT_TCP:
            continue
        before = old.owner[was[side]]
        # The side is also removed if both ends belong to one instance now, so that no filter sees the packets (SPEC
        # 6.11). But this side's filter still sees packets to a multicast address.
        if before != instance[side] or (instance[0] == instance[1] and not multicast[1 - side]):
            # A connection that had expired earlier was not removed, even if it is still in the table.
            clear_side(t, slot, e, side, SIDE_REMOVED if side_connected(e, side, cut.now) else SIDE_TIMEOUT)
            continue
        # The clock does not move, so a packet may still come before the time of the change. A connection that ends
        # between the clock and the change is cut as well, but is not counted.
        if not side_connected(e, side, cut.clock) or e.flags[side] & SIDE_DISCONNECTED:
            continue
        inbound = ((e.flags[side] & FROM_HIGH) != 0) != side
        if before < 0:
            continue
        if (inbound and cut.inbound != NULL and cut.inbound[before]) or (
            cut.unmatched and not may_open(new, e, side, before, address[1 - side])
        ):
            counts = side_connected(e, side, cut.now)
            if counts and first_cut == NOT_CUT:
                first_cut = CUT_FINISHED if is_finished(e.state[side]) else CUT_LIVING
                if plane.reporting:
                    note_cut(&plane.cuts, t, slot, side, <uint32_t>plane.changes, cut.now)
            if cut.forgets:
                clear_side(t, slot, e, side, SIDE_FORGOTTEN if counts else SIDE_TIMEOUT)
                continue
            e.flags[side] |= SIDE_DISCONNECTED
            if t.keep_flows and counts:
                flow_at(&t.slab, slot).side_end[side] = SIDE_CUT
            if t.events != NULL:
                if counts:
                    tell_over(t, slot, cut.now, t.events.place, CUT_EVENT, SIDE_CUT)
                else:
                    tell_over(t, slot, e.deadline[side], 0, ENDED_EVENT, SIDE_TIMEOUT)
    # Established packets check only `present`. With 0 they take the slow path, which checks the VPCs (SPEC 3.6).
    e.present = (instance[0] >= 0) | (instance[1] >= 0) << 1
    if e.present == 3 and not vpcs_connected(new, instance[0], instance[1]):
        e.present = 0
    # Packets of moot keys take the slow path, too, as the mark's side may have lost its instance (SPEC 9.2).
    if e.state[0] >= MOOT_TCP or e.state[1] >= MOOT_TCP:
        e.present = 0
    if directed:
        e.present |= DIRECTED
    if t.events != NULL and not has_connection(e):
        tell_forgotten(t, slot, e, cut.clock, SIDE_REMOVED)
    if e.state[0] == NO_STATE and e.state[1] == NO_STATE:
        end_tuple(t, slot, e, cut.clock, SIDE_REMOVED)
    return first_cut


cdef inline void change_tables(Plane* plane, const Tables* new, const Cut* cut, Cutting* done) noexcept nogil:
    # Switches from the current tables to the new ones. Adds the numbers of cut tuples to `done`.
    cdef Table* t = &plane.table
    cdef uint64_t before = done.cut
    cdef uint32_t slot
    cdef int cuts
    plane.events.changed_ns = cut.now
    for slot in range(t.slab.fresh):
        if entry_at(&t.slab, slot).kind and entry_at(&t.slab, slot).marks & TUPLE_LIVE:
            cuts = change_entry(plane, slot, new, cut)
            done.cut += cuts != NOT_CUT
            done.finished += cuts == CUT_FINISHED
    plane.rules = new
    plane.keeps_attempts |= new.stateless != NULL
    plane.counters.disconnected += done.cut - before
    plane.changes += 1
