# Judges fragments (SPEC 9.4): which verdict each fragment gets, and when.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sgfast.core.base.types cimport (
    CUT_BY_TUNNEL,
    DENY,
    DISCONNECTED,
    NO_REASON,
    NO_SLOT,
    PENDING,
    READ_FRAGMENT,
    READ_STRAY,
    READ_TRACKED,
    REPLY_DENIED,
    TRUNCATED,
    WORD_FOLLOWS,
    Packet,
    ResultRow,
    SideRow,
)
from sgfast.core.conntrack.storage cimport Entry, entry_at
from sgfast.core.conntrack.table cimport TUPLE_LIVE, UNBEGUN, Table, count_packet, find_slot, latest_deadline
from sgfast.core.fragments.datagrams cimport (
    FRAGMENT_FIRST,
    FRAGMENT_FOLLOWS,
    FRAGMENT_HELD,
    FRAGMENT_NO_ROOM,
    NO_DATAGRAM,
    Datagram,
    Fragments,
    add_fragment,
    forget_datagram,
    is_whole,
    note_resolved,
    overdue,
    take_held,
)
from sgfast.core.pipeline.judge cimport PacketContext, begin_packet, clear_row
from sgfast.core.pipeline.packet_tallies cimport tally_denial
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.pipeline.slow_path cimport finish
from sgfast.core.pipeline.without_key cimport judge_packet
from sgfast.core.tallies.disconnects cimport follows_cut


cdef inline void count_rule(Plane* plane, const SideRow* side, const Packet* p) noexcept nogil:
    if side.rule >= 0:
        plane.rule_counts[side.rule].packets += p.count
        plane.rule_counts[side.rule].bytes += p.wire


cdef inline void count_connection(Table* t, const Datagram* d, const Packet* p, int64_t now) noexcept nogil:
    # Counts a fragment in its connection's record. The connection itself does not change.
    cdef uint32_t slot = find_slot(t, &d.first.key, d.first.digest, d.first.hash)
    cdef const Entry* e
    if slot == NO_SLOT:
        return
    e = entry_at(&t.slab, slot)
    if e.marks & TUPLE_LIVE and not e.marks & UNBEGUN and now < latest_deadline(e):
        count_packet(t, slot, p, p.count)


cdef inline void follow(Plane* plane, PacketContext* c, const Datagram* d) noexcept nogil:
    # Gives a fragment the known verdict of its datagram.
    cdef const Packet* p = c.packet
    cdef Packet like_first
    cdef PacketContext of_first
    cdef bint leaving = d.row.egress.verdict == DENY
    cdef const SideRow* denied = &d.row.egress if leaving else &d.row.ingress
    cdef int side = p.source_high if leaving else 1 - p.source_high
    plane.counters.cut_by_tunnel += d.row.reason == TRUNCATED and d.first.cut == CUT_BY_TUNNEL
    count_rule(plane, &d.row.egress, p)
    count_rule(plane, &d.row.ingress, p)
    like_first = d.first
    like_first.wire = p.wire
    like_first.time_ns = p.time_ns
    like_first.number = p.number
    like_first.count = p.count
    # A first fragment that was denied but not tallied follows a cut, and so does the rest of its datagram.
    if plane.reporting and d.row.verdict == DENY and (
        d.tallied or not (
            follows_cut(&(<Plane*>d.home).cuts, &like_first, False, d.row.reason, c.now)
            or d.row.reason == DISCONNECTED
        )
    ):
        begin_packet(&of_first, &like_first, NULL, False, c.now)
        # A change may have taken the address from the instance whose filter denied the first fragment.
        of_first.instance[side] = denied.instance
        of_first.owners_known = True
        if d.row.reason == REPLY_DENIED:
            of_first.initiator_high = 1 - like_first.source_high
        tally_denial(plane, &of_first, side, d.row.reason, denied.rule)
    if plane.table.keep_flows and d.first.parse_result == READ_TRACKED:
        count_connection(&(<Plane*>d.home).table, d, p, c.now)
        count_connection(&(<Plane*>d.home).attempts, d, p, c.now)
    if c.row != NULL:
        c.row[0] = d.row
    finish(plane, c, d.row.verdict, d.row.reason)
    c.word |= WORD_FOLLOWS


cdef inline void resolve_held(Plane* plane, uint32_t datagram, int64_t now) noexcept nogil:
    # Gives the held fragments the verdict of their datagram, or judges them as strays if the datagram has no verdict.
    cdef Fragments* f = plane.fragments
    cdef PacketContext c
    cdef Packet packet
    cdef ResultRow row
    cdef uint8_t wants_result
    while take_held(f, datagram, &packet, &wants_result):
        clear_row(&row)
        begin_packet(&c, &packet, &row, True, now)
        if f.datagrams[datagram].known:
            follow(plane, &c, &f.datagrams[datagram])
        else:
            judge_packet(plane, &c)
        if wants_result:
            note_resolved(f, packet.number, &row)


cdef inline void give_up(Plane* plane, uint32_t datagram, int64_t now) noexcept nogil:
    resolve_held(plane, datagram, now)
    forget_datagram(plane.fragments, datagram)


cdef inline void forget_overdue(Plane* plane, int64_t now, uint64_t number) noexcept nogil:
    cdef uint32_t datagram = overdue(plane.fragments, now, number)
    while datagram != NO_DATAGRAM:
        give_up(plane, datagram, now)
        datagram = overdue(plane.fragments, now, number)


cdef inline void judge_first(Plane* plane, PacketContext* c, Datagram* d) noexcept nogil:
    # Judges the first fragment like any packet. Its result, with instances, is kept for the datagram's other fragments.
    cdef ResultRow* row = c.row
    cdef uint8_t want_sides = plane.want_sides
    plane.want_sides = True
    clear_row(&d.row)
    c.row = &d.row
    judge_packet(plane, c)
    c.row = row
    plane.want_sides = want_sides
    if row != NULL:
        row[0] = d.row
    d.tallied = c.denial != NULL
    d.first = c.packet[0]
    d.first.quote = NULL
    d.home = plane
    d.known = True


cdef inline void judge_fragment(Plane* plane, PacketContext* c, Packet* p) noexcept nogil:
    # `p` is the packet of `c`. Its parse result changes while it is judged, and is restored at the end.
    cdef Fragments* f = plane.fragments
    cdef uint32_t datagram
    cdef int kind
    forget_overdue(plane, c.now, p.number)
    kind = add_fragment(f, p, c.now, plane.wire.secret[7], &datagram)
    while kind == FRAGMENT_NO_ROOM:
        give_up(plane, f.oldest[0], c.now)      # this may forget the fragment's own datagram; then a new one begins
        kind = add_fragment(f, p, c.now, plane.wire.secret[7], &datagram)
    p.hint = NO_SLOT
    p.parse_result = READ_STRAY
    if kind == FRAGMENT_FIRST:
        p.parse_result = p.fragment_parse_result
        judge_first(plane, c, &f.datagrams[datagram])
    elif kind == FRAGMENT_FOLLOWS:
        follow(plane, c, &f.datagrams[datagram])
    elif kind == FRAGMENT_HELD:
        if c.row != NULL:
            c.row.verdict = PENDING
            c.row.reason = NO_REASON
        c.word |= PENDING | WORD_FOLLOWS
    else:
        judge_packet(plane, c)
        c.word |= WORD_FOLLOWS
    p.parse_result = READ_FRAGMENT           # a second plane may judge the packet (paired.pyx)
    if datagram == NO_DATAGRAM:
        return
    if kind != FRAGMENT_HELD:
        resolve_held(plane, datagram, c.now)
    if is_whole(&f.datagrams[datagram]):
        forget_datagram(f, datagram)
