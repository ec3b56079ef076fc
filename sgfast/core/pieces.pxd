# A packet, or a fragment of one (SPEC 9.4): whose verdict it gets, and when.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from sgfast.core.conntrack cimport TUPLE_LIVE, UNBEGUN, Table, count_packet, find_slot, latest_deadline
from sgfast.core.fragments cimport (
    NO_DATAGRAM,
    PIECE_FIRST,
    PIECE_FOLLOWS,
    PIECE_HELD,
    PIECE_NO_ROOM,
    Datagram,
    Fragments,
    add_piece,
    forget_datagram,
    is_whole,
    note_resolved,
    overdue,
    take_held,
)
from sgfast.core.intrinsics cimport likely
from sgfast.core.judge cimport Passage, find_owners
from sgfast.core.passage cimport finish, judge_read, tally_denial
from sgfast.core.plane cimport Plane
from sgfast.core.slab cimport NO_SLOT, Entry, entry_at
from sgfast.core.types cimport (
    DENY,
    NO_REASON,
    NO_VERDICT,
    PENDING,
    READ_FRAGMENT,
    READ_PIECE,
    READ_TRACKED,
    WORD_FOLLOWS,
    Packet,
    ResultRow,
    SideRow,
)


cdef inline void clear_row(ResultRow* row) noexcept nogil:
    row.egress.instance = -1
    row.egress.rule = -1
    row.egress.verdict = NO_VERDICT
    row.egress.reason = NO_REASON
    row.egress.spare = 0
    row.ingress = row.egress
    row.spare = 0


cdef inline void count_rule(Plane* plane, const SideRow* side, const Packet* p) noexcept nogil:
    if side.rule >= 0:
        plane.rule_counts[side.rule].packets += 1
        plane.rule_counts[side.rule].bytes += p.wire


cdef inline void count_connection(Table* t, const Datagram* d, const Packet* p, int64_t now) noexcept nogil:
    # For the connection report; the connection itself does not notice.
    cdef uint32_t slot = find_slot(t, &d.first.key, d.first.digest, d.first.hash)
    cdef const Entry* e
    if slot == NO_SLOT:
        return
    e = entry_at(&t.slab, slot)
    if e.marks & TUPLE_LIVE and not e.marks & UNBEGUN and now < latest_deadline(e):
        count_packet(t, slot, p)


cdef inline void follow(Plane* plane, const Datagram* d, const Packet* p, ResultRow* row) noexcept nogil:
    # A fragment of a datagram whose verdict is known.
    cdef Packet like
    cdef Passage way
    cdef int side = p.source_high if d.row.egress.verdict == DENY else 1 - p.source_high
    count_rule(plane, &d.row.egress, p)
    count_rule(plane, &d.row.ingress, p)
    if d.tallied:
        like = d.first
        like.wire = p.wire
        memset(&way, 0, sizeof(Passage))
        find_owners(plane, &like, &way)
        way.owners_known = True
        if way.instance[0] >= 0 or way.instance[1] >= 0:
            tally_denial(plane, &like, &way, side, d.row.reason)
    if plane.table.keep_flows and d.first.outcome == READ_TRACKED:
        count_connection(&(<Plane*>d.home).table, d, p, plane.now)
        count_connection(&(<Plane*>d.home).attempts, d, p, plane.now)
    if row != NULL:
        row[0] = d.row
    finish(plane, p, row, d.row.verdict, d.row.reason)
    plane.word |= WORD_FOLLOWS


cdef inline void resolve_held(Plane* plane, uint32_t datagram) noexcept nogil:
    # What waited gets the datagram's verdict, or, where there is none, is denied.
    cdef Fragments* f = plane.fragments
    cdef Packet held
    cdef ResultRow row
    cdef uint8_t wanted
    while take_held(f, datagram, &held, &wanted):
        clear_row(&row)
        if f.datagrams[datagram].known:
            follow(plane, &f.datagrams[datagram], &held, &row)
        else:
            judge_read(plane, &held, &row)
        if wanted:
            note_resolved(f, held.number, &row)


cdef inline void give_up(Plane* plane, uint32_t datagram) noexcept nogil:
    resolve_held(plane, datagram)
    forget_datagram(plane.fragments, datagram)


cdef inline void forget_overdue(Plane* plane, int64_t now, uint64_t number) noexcept nogil:
    cdef uint32_t datagram = overdue(plane.fragments, now, number)
    while datagram != NO_DATAGRAM:
        give_up(plane, datagram)
        datagram = overdue(plane.fragments, now, number)


cdef inline void judge_first(Plane* plane, Datagram* d, Packet* p, ResultRow* row) noexcept nogil:
    # As any packet; what is said of it is kept, with all names, for those that follow.
    cdef uint8_t want_sides = plane.want_sides
    plane.want_sides = True
    plane.denial_tallied = False
    d.row = row[0]
    judge_read(plane, p, &d.row)
    plane.want_sides = want_sides
    row[0] = d.row
    d.tallied = plane.denial_tallied
    d.first = p[0]
    d.first.quote = NULL
    d.home = plane
    d.known = True


cdef inline void judge_piece(Plane* plane, Packet* p, ResultRow* row) noexcept nogil:
    cdef Fragments* f = plane.fragments
    cdef ResultRow unwanted
    cdef uint32_t datagram
    cdef uint16_t word
    cdef int kind
    if row == NULL:
        clear_row(&unwanted)
        row = &unwanted
    forget_overdue(plane, plane.now, p.number)
    kind = add_piece(f, p, plane.now, plane.wire.secret[7], &datagram)
    while kind == PIECE_NO_ROOM:
        give_up(plane, f.oldest[0])     # it may be this one's own: then another one begins
        kind = add_piece(f, p, plane.now, plane.wire.secret[7], &datagram)
    plane.word = 0
    p.hint = NO_SLOT
    p.outcome = READ_FRAGMENT
    if kind == PIECE_FIRST:
        p.outcome = p.piece_read
        judge_first(plane, &f.datagrams[datagram], p, row)
    elif kind == PIECE_FOLLOWS:
        follow(plane, &f.datagrams[datagram], p, row)
    elif kind == PIECE_HELD:
        row.verdict = PENDING
        row.reason = NO_REASON
        plane.word |= PENDING | WORD_FOLLOWS
    else:
        judge_read(plane, p, row)
        plane.word |= WORD_FOLLOWS
    p.outcome = READ_PIECE              # a second plane may judge it, too (beside.pyx)
    if datagram == NO_DATAGRAM:
        return
    if kind != PIECE_HELD:
        word = plane.word
        resolve_held(plane, datagram)
        plane.word = word
    if is_whole(&f.datagrams[datagram]):
        forget_datagram(f, datagram)


cdef inline void judge_packet(Plane* plane, Packet* p, ResultRow* row) noexcept nogil:
    if row != NULL:
        clear_row(row)
    if likely(p.outcome != READ_PIECE):
        judge_read(plane, p, row)
    else:
        judge_piece(plane, p, row)
