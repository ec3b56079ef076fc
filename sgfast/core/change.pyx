"""The table's walk when the policy changes; what it does stands in ``change.pxd``."""

from libc.stdint cimport int32_t, uint16_t, uint32_t

from sgfast.core.classifier cimport find_address, find_rule, vpcs_connected
from sgfast.core.conntrack cimport (
    FROM_HIGH,
    MOOT_TCP,
    NO_STATE,
    SIDE_CUT,
    SIDE_DISCONNECTED,
    SIDE_REMOVED,
    SIDE_TIMEOUT,
    TUPLE_LIVE,
    Table,
    clear_side,
    end_tuple,
    side_connected,
)
from sgfast.core.cuts cimport note_cut
from sgfast.core.judge cimport is_multicast
from sgfast.core.slab cimport Entry, addresses_at, entry_at, flow_at
from sgfast.core.types cimport KIND_ICMP_QUERY, KIND_IPV6, KIND_ONE_WAY


cdef uint16_t opener_port_key(const Entry* e, bint initiator_high) noexcept nogil:
    # What the rules' ports met when it was opened: the responder's port, or ICMP type and code (of a query: 0).
    cdef uint32_t query
    if e.kind & KIND_ICMP_QUERY:
        if e.kind & KIND_IPV6:
            return 128 << 8
        query = e.ports & 0xFFFF
        return <uint16_t>((8 if query == 1 else 13 + (query - 2) * 2) << 8)
    if e.kind & KIND_ONE_WAY:
        return <uint16_t>((e.ports >> 16) << 8 | (e.ports & 0xFF))
    return <uint16_t>(e.ports >> 16 if initiator_high else e.ports & 0xFFFF)


cdef bint may_open(const Tables* new, const Entry* e, int side, int32_t instance, uint32_t peer) noexcept nogil:
    # Whether the rules of a connection's instance would let its opener pass.
    cdef bint initiator_high = (e.flags[side] & FROM_HIGH) != 0
    cdef bint inbound = initiator_high != side
    cdef int32_t rule = find_rule(
        new, new.choice[instance * 2 + inbound], peer, e.protocol, opener_port_key(e, initiator_high)
    )
    return rule >= 0 and not new.denies[rule]


cdef bint change_entry(Plane* plane, uint32_t slot, const Tables* new, const Cut* cut) noexcept nogil:
    # Whether some side of the tuple was cut.
    cdef Table* t = &plane.table
    cdef const Tables* old = plane.rules
    cdef Entry* e = entry_at(&t.slab, slot)
    cdef bint ipv6 = (e.kind & KIND_IPV6) != 0
    cdef const uint64_t* addr
    cdef uint64_t words[4]
    cdef uint32_t address[2]
    cdef int32_t instance[2]
    cdef int32_t before
    cdef int side
    cdef bint cuts = False
    cdef bint inbound
    if ipv6:
        addr = addresses_at(&t.slab, slot)
        words[0], words[1], words[2], words[3] = addr[0], addr[1], addr[2], addr[3]
    else:
        words[0], words[1], words[2], words[3] = e.digest >> 32, 0, <uint32_t>e.digest, 0
    for side in range(2):
        address[side] = find_address(new, ipv6, words[2 * side], words[2 * side + 1])
        instance[side] = new.owner[address[side]]
        if is_multicast(ipv6, words[2 * side]):
            instance[side] = -1
    for side in range(2):
        if e.state[side] == NO_STATE or e.state[side] >= MOOT_TCP:
            continue
        before = old.owner[find_address(old, ipv6, words[2 * side], words[2 * side + 1])]
        # Also where both ends are one instance's now, and no filter sees what passes between them (SPEC 3.3).
        if before != instance[side] or instance[0] == instance[1]:
            # If its time was up before, nothing was removed, whether or not anybody had noticed.
            clear_side(t, slot, side, SIDE_REMOVED if side_connected(e, side, cut.now) else SIDE_TIMEOUT)
            continue
        if not side_connected(e, side, cut.now) or e.flags[side] & SIDE_DISCONNECTED:
            continue
        inbound = ((e.flags[side] & FROM_HIGH) != 0) != side
        if before < 0:
            continue
        if (inbound and cut.inbound != NULL and cut.inbound[before]) or (
            cut.unmatched and not may_open(new, e, side, before, address[1 - side])
        ):
            e.flags[side] |= SIDE_DISCONNECTED
            if t.keep_flows:
                flow_at(&t.slab, slot).side_end[side] = SIDE_CUT
            if plane.reporting and not cuts:
                note_cut(&plane.cuts, t, slot, side, <uint32_t>plane.changes, cut.now)
            cuts = True
    # An established packet goes by `present` alone, and with 0 the long way, where VPCs are looked at (SPEC 3.6).
    e.present = (instance[0] >= 0) | (instance[1] >= 0) << 1
    if e.present == 3 and not vpcs_connected(new, instance[0], instance[1]):
        e.present = 0
    # Nor is a moot key (SPEC 9.2), where the mark's side has lost its instance.
    if e.state[0] >= MOOT_TCP or e.state[1] >= MOOT_TCP:
        e.present = 0
    if e.state[0] == NO_STATE and e.state[1] == NO_STATE:
        end_tuple(t, slot, cut.now, SIDE_REMOVED)
    return cuts


cdef uint64_t change_tables(Plane* plane, const Tables* new, const Cut* cut) noexcept nogil:
    cdef Table* t = &plane.table
    cdef uint64_t cuts = 0
    cdef uint32_t slot
    for slot in range(t.slab.fresh):
        if entry_at(&t.slab, slot).kind and entry_at(&t.slab, slot).marks & TUPLE_LIVE:
            cuts += change_entry(plane, slot, new, cut)
    plane.rules = new
    plane.disconnected += cuts
    plane.changes += 1
    return cuts
