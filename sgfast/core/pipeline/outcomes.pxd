# Counts ended tuples for the summary by what the other end did: connections that were allowed but not answered, and
# connections that were denied although the other end answered (SPEC 10.4). When they began, and with which packet, is
# in the tallies of what began and of denials.

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memset

from sgfast.core.base.icmp cimport icmp_query
from sgfast.core.base.intrinsics cimport be32
from sgfast.core.base.key cimport address_of, set_ipv4, set_ipv6, write_address
from sgfast.core.base.types cimport ALLOW, NO_REASON, Packet
from sgfast.core.conntrack.table cimport SIDE_DENIED, FlowRow, Table
from sgfast.core.pipeline.context cimport PacketContext, begin_packet, find_owners
from sgfast.core.pipeline.look_ahead cimport Ahead, look_up_addresses
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.tallies.tally cimport Tally, TallyRow, queue_row


# Who owns the ends of a tuple is not stored with it, and to look it up takes some cache misses. So it is looked up for
# several tuples together, and the misses overlap.
cdef enum:
    ENDED_TOGETHER = 32


cdef struct EndedRow:
    const FlowRow* row
    Packet ends                 # as its initiator would send it; only what is needed to find owners is set
    Ahead ahead


cdef inline bint is_mismatch(const FlowRow* row) noexcept nogil:
    # Whether it was allowed but not answered, or denied but answered.
    return (row.verdict == ALLOW) != (row.answer == 1)


cdef inline void look_up_ends(const Plane* plane, const FlowRow* row, EndedRow* ended) noexcept nogil:
    cdef Packet* p = &ended.ends
    ended.row = row
    p.ipv6 = row.ends.family == 6
    if p.ipv6:
        set_ipv6(&p.key, row.ends.initiator, row.ends.responder, &p.source_high)
    else:
        set_ipv4(&p.key, be32(row.ends.initiator), be32(row.ends.responder), &p.source_high)
    look_up_addresses(plane, p, &ended.ahead)


cdef inline void tally_row(Plane* plane, const EndedRow* ended) noexcept nogil:
    cdef const FlowRow* row = ended.row
    cdef const Packet* p = &ended.ends
    cdef Tally* tally
    cdef PacketContext c
    cdef TallyRow* counted
    cdef uint16_t port_key
    cdef int judge = 1 - p.source_high
    cdef bint is_reply
    begin_packet(&c, p, NULL, 0)
    c.ahead = &ended.ahead
    find_owners(plane, &c)
    port_key = <uint16_t>(row.ends.ports & 0xFFFF) if row.ends.has_ports else row.ends.icmp
    if row.verdict == ALLOW:
        if c.instance[judge] < 0:
            return
        tally = &plane.refused if row.answer == 2 else &plane.unanswered
        if row.ends.icmp and icmp_query(p.ipv6, <uint8_t>(row.ends.icmp >> 8), &is_reply):
            port_key &= 0xFF00      # as what began is counted (bookkeeping.pxd)
    else:
        if row.side_end[0] == SIDE_DENIED or c.instance[judge] < 0:
            judge = p.source_high
        if c.instance[judge] < 0:
            return                  # the instance was deleted meanwhile
        tally = &plane.broken
    counted = queue_row(&plane.queue, tally)
    write_address(counted.peer, address_of(p.key.addr, p.ipv6, 1 - judge), p.ipv6)
    counted.instance = c.instance[judge]
    counted.port_key = port_key
    counted.protocol = row.ends.protocol
    counted.reason = row.reason if row.verdict != ALLOW else <uint8_t>NO_REASON
    counted.inbound = judge != p.source_high
    counted.family = row.ends.family
    counted.has_ports = row.ends.has_ports
    counted.has_icmp = row.ends.icmp != 0
    counted.rule = -1
    counted.connections = 1


cdef inline void count_ended(Plane* plane, Table* t) noexcept nogil:
    # Counts the ended tuples that are not counted yet. Then it drops their rows, unless flows are kept.
    cdef EndedRow ended[ENDED_TOGETHER]
    cdef int count, i
    while t.tallied < t.ended_count:
        count = 0
        while t.tallied < t.ended_count and count < ENDED_TOGETHER:
            if is_mismatch(&t.ended[t.tallied]):
                look_up_ends(plane, &t.ended[t.tallied], &ended[count])
                count += 1
            t.tallied += 1
        for i in range(count):
            tally_row(plane, &ended[i])
    if not t.keep_flows:
        t.ended_count = 0
        t.tallied = 0
