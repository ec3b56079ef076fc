# Counts ended tuples for the summary by what the other end did: connections that were allowed but not answered, and
# connections that were denied although the other end answered (SPEC 10.4). When they began, and with which packet, is
# in the tallies of what began and of denials.

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memset

from sgfast.core.base.icmp cimport icmp_query
from sgfast.core.base.intrinsics cimport be32
from sgfast.core.base.key cimport address_of, set_ipv4, set_ipv6, write_address
from sgfast.core.base.types cimport ALLOW, Packet
from sgfast.core.conntrack.table cimport SIDE_DENIED, FlowRow, Table
from sgfast.core.pipeline.context cimport PacketContext, begin_packet, find_owners
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.tallies.tally cimport Tally, TallyRow, count_tally, prefetch_kind


cdef inline Tally* tally_of(Plane* plane, const FlowRow* row, TallyRow* key) noexcept nogil:
    # The tally in which an ended tuple counts: allowed but not answered, or denied but answered. NULL if in none. Fills
    # `key`.
    cdef Tally* tally
    cdef Packet p
    cdef PacketContext c
    cdef int judge
    cdef bint is_reply
    if (row.verdict == ALLOW) == (row.answer == 1):
        return NULL
    memset(&p, 0, sizeof(Packet))
    p.ipv6 = row.ends.family == 6
    if p.ipv6:
        set_ipv6(&p.key, row.ends.initiator, row.ends.responder, &p.source_high)
    else:
        set_ipv4(&p.key, be32(row.ends.initiator), be32(row.ends.responder), &p.source_high)
    begin_packet(&c, &p, NULL, 0)
    find_owners(plane, &c)
    judge = 1 - p.source_high
    memset(key, 0, sizeof(TallyRow))
    key.protocol = row.ends.protocol
    key.has_ports = row.ends.has_ports
    key.has_icmp = row.ends.icmp != 0
    key.port_key = <uint16_t>(row.ends.ports & 0xFFFF) if row.ends.has_ports else row.ends.icmp
    if row.verdict == ALLOW:
        if c.instance[judge] < 0:
            return NULL
        tally = &plane.refused if row.answer == 2 else &plane.unanswered
        if key.has_icmp and icmp_query(p.ipv6, <uint8_t>(row.ends.icmp >> 8), &is_reply):
            key.port_key &= 0xFF00      # as what began is counted (bookkeeping.pxd)
    else:
        if row.side_end[0] == SIDE_DENIED or c.instance[judge] < 0:
            judge = p.source_high
        if c.instance[judge] < 0:
            return NULL         # the instance was deleted meanwhile
        tally = &plane.broken
        key.reason = row.reason
    key.family = row.ends.family
    key.rule = -1
    write_address(key.peer, address_of(p.key.addr, p.ipv6, 1 - judge), p.ipv6)
    key.inbound = judge != p.source_high
    key.instance = c.instance[judge]
    return tally


cdef inline void tally_rows(Plane* plane, Table* t) noexcept nogil:
    # In small batches: each look-up in a tally is a cache miss, and prefetches overlap the misses.
    cdef TallyRow keys[16]
    cdef Tally* tallies[16]
    cdef Py_ssize_t i = t.tallied
    cdef int found, n
    while i < t.ended_count:
        found = 0
        while i < t.ended_count and found < 16:
            tallies[found] = tally_of(plane, &t.ended[i], &keys[found])
            if tallies[found] != NULL:
                prefetch_kind(tallies[found], &keys[found])
                found += 1
            i += 1
        for n in range(found):
            count_tally(tallies[n], &keys[n], 0, 0, 0, 0)
    if not t.keep_flows:
        t.ended_count = 0
    t.tallied = t.ended_count


cdef inline void count_ended(Plane* plane) noexcept nogil:
    # Counts the rows of ended tuples that are not tallied yet, if the plane reports. Rows are dropped unless flows are
    # kept.
    if plane.reporting:
        tally_rows(plane, &plane.table)
        tally_rows(plane, &plane.attempts)
