# Counts ended tuples for the summary by what the other end did: connections that were allowed but not answered, and
# connections that were denied although the other end answered (SPEC 10.4). When they began, and with which packet, is
# in the tallies of what began and of denials.

from libc.stdint cimport int32_t, uint8_t, uint16_t
from libc.string cimport memcpy

from sgfast.core.base.icmp cimport icmp_query
from sgfast.core.base.intrinsics cimport prefetch
from sgfast.core.base.key cimport Address, is_multicast, read_address
from sgfast.core.base.types cimport ALLOW, NO_REASON
from sgfast.core.classify.classifier cimport find_address
from sgfast.core.conntrack.table cimport SIDE_DENIED, FlowRow, Table
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.tallies.tally cimport Tally, TallyRow, queue_row


# Who owns the ends of a tuple is not stored with it, and to look it up takes some cache misses. So it is looked up for
# several tuples together, and the misses overlap.
cdef enum:
    ENDED_TOGETHER = 32


cdef struct EndedRow:
    const FlowRow* row
    const int32_t* initiator    # the number of the instance that owns it; NULL: not looked up
    const int32_t* responder    # likewise; NULL: no instance


cdef inline bint is_mismatch(const FlowRow* row) noexcept nogil:
    # Whether it was allowed but not answered, or denied but answered.
    return (row.verdict == ALLOW) != (row.answer == 1)


cdef inline const int32_t* find_owner(const Plane* plane, Address address, bint ipv6) noexcept nogil:
    cdef const int32_t* owner = &plane.rules.owner[find_address(plane.rules, ipv6, address.high, address.low)]
    prefetch(owner)
    return owner


cdef inline void look_up_ends(const Plane* plane, const FlowRow* row, EndedRow* ended) noexcept nogil:
    # A packet to a multicast address has no destination instance (SPEC 3.3). An allowed connection is reported only for
    # its responder.
    cdef bint ipv6 = row.ends.family == 6
    cdef Address responder = read_address(row.ends.responder, ipv6)
    ended.row = row
    ended.responder = NULL
    ended.initiator = NULL
    if not is_multicast(ipv6, responder.high):
        ended.responder = find_owner(plane, responder, ipv6)
    if row.verdict != ALLOW:
        ended.initiator = find_owner(plane, read_address(row.ends.initiator, ipv6), ipv6)


cdef inline void tally_row(Plane* plane, const EndedRow* ended) noexcept nogil:
    cdef const FlowRow* row = ended.row
    cdef bint ipv6 = row.ends.family == 6
    cdef bint inbound = True
    cdef int32_t instance = ended.responder[0] if ended.responder != NULL else -1
    cdef uint16_t port_key = <uint16_t>(row.ends.ports & 0xFFFF) if row.ends.has_ports else row.ends.icmp
    cdef Tally* tally = &plane.broken
    cdef TallyRow* counted
    cdef bint is_reply
    if row.verdict == ALLOW:
        tally = &plane.refused if row.answer == 2 else &plane.unanswered
        if row.ends.icmp and icmp_query(ipv6, <uint8_t>(row.ends.icmp >> 8), &is_reply):
            port_key &= 0xFF00      # as what began is counted (bookkeeping.pxd)
    elif row.side_end[0] == SIDE_DENIED or instance < 0:
        inbound = False
        instance = ended.initiator[0]
    if instance < 0:
        return                      # there is no instance, or it was deleted meanwhile
    counted = queue_row(&plane.queue, tally)
    memcpy(counted.peer, &row.ends.initiator[0] if inbound else &row.ends.responder[0], 16)
    counted.instance = instance
    counted.port_key = port_key
    counted.protocol = row.ends.protocol
    counted.reason = row.reason if row.verdict != ALLOW else <uint8_t>NO_REASON
    counted.inbound = inbound
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
