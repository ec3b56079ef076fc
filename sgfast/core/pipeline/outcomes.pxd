# Counts ended tuples for the summary by what the other end did: connections that were allowed but not answered, and
# connections that were denied although the other end answered (SPEC 10.4). When they began, and with which packet, is
# in the tallies of what began and of denials.

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcpy

from sgfast.core.base.icmp cimport icmp_query
from sgfast.core.base.types cimport ALLOW, NO_REASON
from sgfast.core.conntrack.table cimport FlowRow, Table
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.tallies.tally cimport Tally, TallyRow, queue_row

cdef enum:
    # Rows of ended tuples that are counted together, while they are still in the cache.
    ENDED_TOGETHER = 32


cdef inline void tally_row(Plane* plane, const FlowRow* row) noexcept nogil:
    # An allowed connection is counted only for its responder, and a denied one for the side that denied it.
    cdef bint inbound = not row.denied_out
    cdef uint16_t port_key = <uint16_t>(row.ends.ports & 0xFFFF) if row.ends.has_ports else row.ends.icmp
    cdef Tally* tally = &plane.broken
    cdef TallyRow* counted
    cdef bint is_reply
    if row.counted_for < 0:
        return
    if row.verdict == ALLOW:
        tally = &plane.refused if row.answer == 2 else &plane.unanswered
        if row.ends.icmp and icmp_query(row.ends.family == 6, <uint8_t>(row.ends.icmp >> 8), &is_reply):
            port_key &= 0xFF00      # as what began is counted (bookkeeping.pxd)
    counted = queue_row(&plane.queue, tally)
    memcpy(counted.peer, &row.ends.initiator[0] if inbound else &row.ends.responder[0], 16)
    counted.instance = row.counted_for
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
    cdef const FlowRow* row
    while t.tallied < t.ended_count:
        row = &t.ended[t.tallied]
        # Allowed but not answered, or denied but answered.
        if (row.verdict == ALLOW) != (row.answer == 1):
            tally_row(plane, row)
        t.tallied += 1
    if not t.keep_flows:
        t.ended_count = 0
        t.tallied = 0
