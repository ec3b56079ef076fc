# The common case by itself: a packet of a connection that is established, which changes nothing but deadlines and
# counters. Whatever is not just so goes the long way (passage.pxd), which would say the same.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from sgfast.core.conntrack cimport SIDE_DISCONNECTED, UNHEARD
from sgfast.core.conntrack_tcp cimport TCP_ESTABLISHED
from sgfast.core.intrinsics cimport load64
from sgfast.core.plane cimport Plane, RuleCount
from sgfast.core.slab cimport NO_SLOT, Entry, entry_at
from sgfast.core.types cimport KIND_PORTS, KIND_USED, PROTO_TCP, READ_TRACKED, TCP_ACK, Packet


cdef inline void allow_plain(Plane* plane, Entry* e, int side, uint32_t wire, int64_t deadline) noexcept nogil:
    cdef RuleCount* rule = &plane.rule_counts[e.rule[side]]
    rule.packets += 1
    rule.bytes += wire
    e.deadline[side] = deadline


cdef inline bint pass_established(Plane* plane, const Packet* p) noexcept nogil:
    # An ACK of a TCP connection over IPv4 that is established, answered and connected wherever it has a filter: nothing
    # changes but deadlines and counters (SPEC 4.3). False: it is something else, and nothing was done. Says nothing
    # that judge_tracked would not say; the last eight bytes of an entry hold all that must be as it should. Totals are
    # the caller's.
    cdef Entry* e
    cdef uint64_t word
    cdef int64_t deadline
    cdef int which
    if p.step != TCP_ACK or p.outcome != READ_TRACKED or p.hint == NO_SLOT:
        return False
    e = entry_at(&plane.table.slab, p.hint)
    word = load64(&e.protocol)
    which = <int>(word >> 56) & 3
    if (
        word & plane.plain_mask[which] != plane.plain_word[which]
        or e.digest != p.digest or e.ports != p.key.ports
        or plane.clock.now >= e.deadline[which >> 1]
    ):
        return False
    deadline = plane.clock.now + plane.timeout[TCP_ESTABLISHED]
    if which == 3:
        if plane.clock.now >= e.deadline[0]:
            return False
        allow_plain(plane, e, 0, p.wire, deadline)
    allow_plain(plane, e, which >> 1, p.wire, deadline)
    return True


cdef inline void fill_plain_words(Plane* plane) noexcept nogil:
    # By Entry.present: which bits of an entry's last eight bytes count for pass_established, and what they must be.
    cdef Entry mask, entry
    cdef int which, side
    for which in range(4):
        memset(&mask, 0, sizeof(Entry))
        memset(&entry, 0, sizeof(Entry))
        mask.protocol = 0xFF
        mask.kind = 0xFF
        mask.present = 0xFF
        entry.protocol = PROTO_TCP
        entry.kind = KIND_USED | KIND_PORTS
        entry.present = <uint8_t>which if which else 0xFF      # no filter: matches no entry
        for side in range(2):
            if which >> side & 1:
                mask.state[side] = 0xFF
                mask.flags[side] = SIDE_DISCONNECTED | UNHEARD
                entry.state[side] = TCP_ESTABLISHED
        plane.plain_mask[which] = load64(&mask.protocol)
        plane.plain_word[which] = load64(&entry.protocol)
