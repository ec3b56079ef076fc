# One packet's verdict: scope, moot keys, then the filter of each end (SPEC 3). A single filter is in filter.pxd; what
# the packet leaves behind is in bookkeeping.pxd. Fragments come here through fragments.pxd.

from libc.stdint cimport uint8_t

from sgfast.core.base.intrinsics cimport likely, unlikely
from sgfast.core.base.types cimport (
    ALLOW,
    DENY,
    EXEMPT,
    FRAGMENT,
    INFRASTRUCTURE,
    MALFORMED,
    MOOT,
    NOT_IP,
    NO_REASON,
    NO_SLOT,
    OPENER_DENIED,
    READ_BROKEN,
    READ_EXEMPT,
    READ_ICMP_ERROR,
    READ_MALFORMED,
    READ_NOT_IP,
    READ_SERVER,
    READ_STRAY,
    READ_TRACKED,
    TCP_RST,
    TRUNCATED,
    VPC_ISOLATED,
    Packet,
)
from sgfast.core.conntrack.flow_rows cimport make_flow_row
from sgfast.core.conntrack.lifetime cimport end_tuple
from sgfast.core.conntrack.protocols cimport can_open
from sgfast.core.conntrack.storage cimport DIRECTED, Entry
from sgfast.core.conntrack.table cimport (
    SIDE_REOPENED,
    SIDE_TIMEOUT,
    TUPLE_DENIED,
    TUPLE_LIVE,
    Table,
    count_packet,
    find_slot,
    latest_deadline,
    same_key,
    side_connected,
)
from sgfast.core.pipeline.bookkeeping cimport settle_allowed, settle_denied, settle_established, set_record_bits
from sgfast.core.pipeline.causal cimport follows_denied_opener, moot_side
from sgfast.core.pipeline.context cimport (
    PacketContext,
    deny,
    deny_early,
    find_owners,
    finish,
    in_scope,
    isolated,
    note_side,
    set_slot,
    sides_present,
)
from sgfast.core.pipeline.filter cimport judge_side
from sgfast.core.pipeline.icmp_errors cimport judge_icmp_error
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.wire.ip cimport BY_ROLE, asks_infrastructure


cdef inline bint is_sent_freely(const Plane* plane, const Packet* p) noexcept nogil:
    # Whether the sender's filter has no say, but the receiver's has (SPEC 3.11). Reading the headers does not tell them
    # from other packets: whether there is a receiver is known only here.
    return plane.wire.infrastructure == BY_ROLE and asks_infrastructure(p)


cdef inline void judge_tracked(Plane* plane, PacketContext* c) noexcept nogil:
    # Judges a packet that has a connection key.
    cdef Table* t = &plane.table
    cdef const Packet* p = c.packet
    cdef const Entry* e
    cdef int source = p.source_high
    cdef int moot = -1
    cdef int side, last
    cdef uint8_t present = 0
    cdef bint established = False
    cdef bint free = False
    cdef bint allowed
    c.slot = p.hint
    c.entry = <Entry*>p.entry
    if unlikely(c.slot == NO_SLOT) or not same_key(t, c.slot, c.entry, &p.key, p.digest):
        set_slot(c, t, find_slot(t, &p.key, p.digest, p.hash))
    if likely(c.slot != NO_SLOT):
        e = c.entry
        present = e.present
        # The common case: each side that has a filter has a live connection. If there is only one filter, its side is
        # as random as the addresses, so the side's number is computed rather than branched on.
        if present == 3:
            established = side_connected(e, 0, c.now) and side_connected(e, 1, c.now)
        elif likely(present < DIRECTED):
            established = present != 0 and side_connected(e, present >> 1, c.now)
        if unlikely(not established) and e.marks & TUPLE_LIVE:
            if c.now >= latest_deadline(e):
                end_tuple(t, c.slot, c.now, SIDE_TIMEOUT)
                set_slot(c, t, find_slot(t, &p.key, p.digest, p.hash))
            else:
                moot = moot_side(e, c.now)
    if established:
        if plane.want_sides:
            find_owners(plane, c)
    else:
        find_owners(plane, c)
        if unlikely(is_sent_freely(plane, p)):
            free = True
            if c.instance[1 - source] < 0:
                finish(plane, c, EXEMPT, NO_REASON)
                return
        if not in_scope(plane, c):
            return
        present = sides_present(c)
        if moot >= 0 and follows_denied_opener(plane, c, moot):
            if t.keep_flows:
                count_packet(t, c.slot, p)
            set_record_bits(c, c.entry)
            finish(plane, c, MOOT, OPENER_DENIED)
            return
        if unlikely(isolated(plane, c)):
            c.opener = c.opener_denied = c.rules_denied = can_open(p)
            side = deny_early(plane, c, VPC_ISOLATED)
            settle_denied(plane, c, moot, side, VPC_ISOLATED)
            return
        if unlikely(c.slot != NO_SLOT and c.entry.marks & TUPLE_DENIED):
            c.has_attempt_row = make_flow_row(t, c.slot, c.now, SIDE_REOPENED, &c.attempt_row)
        if unlikely(free and present == 3):
            c.reason = INFRASTRUCTURE
            note_side(plane, c, source, True)
            present = 2 - source        # only the receiver's side judges

    # The egress side judges first. The ingress side never sees what it denies (SPEC 3.7).
    side = source if present == 3 else present >> 1
    last = 1 - source if present == 3 else side
    while True:
        allowed = judge_side(plane, c, side)
        note_side(plane, c, side, allowed)
        if unlikely(not allowed):
            deny(plane, c, side, c.reason)
            settle_denied(plane, c, moot, side, c.reason)
            return
        if likely(side == last):
            break
        side = last
    finish(plane, c, ALLOW, c.reason)
    if likely(established and not c.reopened and p.step != TCP_RST):
        settle_established(plane, c)
    else:
        settle_allowed(plane, c, moot)


cdef inline void judge_without_key(Plane* plane, PacketContext* c) noexcept nogil:
    # Judges a packet without a connection key, by the outcome of reading it.
    cdef uint8_t outcome = c.packet.outcome
    if outcome == READ_NOT_IP:
        finish(plane, c, NOT_IP, NO_REASON)
        return
    if outcome == READ_BROKEN:
        finish(plane, c, DENY, MALFORMED)
        return
    if outcome == READ_EXEMPT:
        finish(plane, c, EXEMPT, NO_REASON)
        return
    find_owners(plane, c)
    # If no instance is at the end whose filter has a say, the packet is exempt. A stray never is: if it is a first
    # fragment, the fragments of its datagram contradict each other (SPEC 9.4).
    if (outcome == READ_SERVER and c.instance[c.packet.source_high] < 0) or (
        outcome != READ_STRAY and is_sent_freely(plane, c.packet) and c.instance[1 - c.packet.source_high] < 0
    ):
        finish(plane, c, EXEMPT, NO_REASON)
        return
    if not in_scope(plane, c):
        return
    if outcome == READ_ICMP_ERROR:
        judge_icmp_error(plane, c)
    elif outcome == READ_SERVER:
        deny_early(plane, c, INFRASTRUCTURE)
    elif outcome == READ_MALFORMED:
        deny_early(plane, c, MALFORMED)
    elif outcome == READ_STRAY:
        plane.fragments_denied += 1
        deny_early(plane, c, FRAGMENT)
    else:
        deny_early(plane, c, TRUNCATED)


cdef inline void judge_packet(Plane* plane, PacketContext* c) noexcept nogil:
    # Judges any packet except a fragment.
    if likely(c.packet.outcome == READ_TRACKED):
        judge_tracked(plane, c)
    else:
        judge_without_key(plane, c)
