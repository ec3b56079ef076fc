"""Ended tuples into tallies; which ones stands in ``answers.pxd``."""

from libc.stdint cimport uint16_t
from libc.string cimport memset

from sgfast.core.conntrack cimport SIDE_DENIED, FlowRow, Table
from sgfast.core.intrinsics cimport be32
from sgfast.core.judge cimport Passage, find_owners
from sgfast.core.rows cimport spell_peer
from sgfast.core.tally cimport Tally, TallyRow, count, prefetch_cell
from sgfast.core.types cimport ALLOW, Packet
from sgfast.core.wire cimport set_ipv4, set_ipv6


cdef Tally* tally_of(Plane* plane, const FlowRow* row, TallyRow* key) noexcept nogil:
    # Where an ended tuple is counted: allowed, but nobody answered; or denied, though somebody did. NULL: nowhere.
    cdef Tally* tally
    cdef Packet p
    cdef Passage way
    cdef int judge
    if (row.verdict == ALLOW) == (row.answer == 1):
        return NULL
    memset(&p, 0, sizeof(Packet))
    p.ipv6 = row.ends.family == 6
    if p.ipv6:
        set_ipv6(&p.key, row.ends.initiator, row.ends.responder, &p.source_high)
    else:
        set_ipv4(&p.key, be32(row.ends.initiator), be32(row.ends.responder), &p.source_high)
    find_owners(plane, &p, &way)
    judge = 1 - p.source_high
    memset(key, 0, sizeof(TallyRow))
    key.protocol = row.ends.protocol
    key.has_ports = row.ends.has_ports
    key.has_icmp = row.ends.icmp != 0
    key.port_key = <uint16_t>(row.ends.ports & 0xFFFF) if row.ends.has_ports else row.ends.icmp
    if row.verdict == ALLOW:
        if way.instance[judge] < 0:
            return NULL
        tally = &plane.refused if row.answer == 2 else &plane.unanswered
    else:
        if row.side_end[0] == SIDE_DENIED or way.instance[judge] < 0:
            judge = p.source_high
        if way.instance[judge] < 0:
            return NULL         # deleted meanwhile
        tally = &plane.broken
        key.reason = row.reason
        key.family = row.ends.family
        spell_peer(key.peer, &p, 1 - judge)
    key.inbound = judge != p.source_high
    key.instance = way.instance[judge]
    return tally


cdef void tally_rows(Plane* plane, Table* t) noexcept nogil:
    # A few at a time: where each is counted is a cache miss.
    cdef TallyRow keys[16]
    cdef Tally* tallies[16]
    cdef Py_ssize_t i = t.tallied
    cdef int found, n
    while i < t.ended_count:
        found = 0
        while i < t.ended_count and found < 16:
            tallies[found] = tally_of(plane, &t.ended[i], &keys[found])
            if tallies[found] != NULL:
                prefetch_cell(tallies[found], &keys[found])
                found += 1
            i += 1
        for n in range(found):
            count(tallies[n], &keys[n], 0)
    if not t.keep_flows:
        t.ended_count = 0
    t.tallied = t.ended_count


cdef void tally_ended(Plane* plane) noexcept nogil:
    if plane.reporting:
        tally_rows(plane, &plane.table)
        tally_rows(plane, &plane.attempts)
