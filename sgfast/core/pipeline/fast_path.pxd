# The fast path: packets of established connections, which change nothing but deadlines and counters. All other packets
# take the slow path (verdict.pxd), which would give these the same verdicts.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from sgfast.core.base.intrinsics cimport load16, load64, unlikely
from sgfast.core.base.key cimport Address, address_of
from sgfast.core.base.types cimport (
    ALLOW,
    ESTABLISHED,
    NO_SLOT,
    READ_TRACKED,
    STEP_OPEN,
    TCP_ACK,
    Packet,
    ResultRow,
    SideRow,
)
from sgfast.core.classify.classifier cimport find_address
from sgfast.core.conntrack.states cimport BIDIRECTIONAL, TCP_ESTABLISHED
from sgfast.core.conntrack.storage cimport Entry, addresses_at, entry_at
from sgfast.core.conntrack.table cimport SIDE_DISCONNECTED, UNHEARD
from sgfast.core.pipeline.context cimport clear_row
from sgfast.core.pipeline.plane cimport Plane, RuleCount


cdef inline void allow_plain(Plane* plane, Entry* e, int side, uint32_t wire, int64_t deadline) noexcept nogil:
    cdef RuleCount* rule = &plane.rule_counts[e.rule[side]]
    rule.packets += 1
    rule.bytes += wire
    e.deadline[side] = deadline


cdef inline bint pass_established(Plane* plane, const Packet* p, int64_t now) noexcept nogil:
    # Allows an ACK of an established TCP connection, or a packet of another protocol whose connection was allowed both
    # ways. Each side that has a filter must have such a connection: live, not disconnected, with a reply seen (SPEC
    # 4.3). Returns False for any other packet, and changes nothing then. All states and flags to compare are in the
    # last eight bytes of an entry. The caller updates the totals and the flow record, and writes the result.
    cdef Entry* e
    cdef const uint64_t* addr
    cdef uint64_t word
    cdef int64_t deadline
    cdef int which
    cdef bint other = p.step == STEP_OPEN
    if not (p.step == TCP_ACK or other) or p.outcome != READ_TRACKED or p.hint == NO_SLOT:
        return False
    e = entry_at(&plane.table.slab, p.hint)
    word = load64(&e.protocol)
    which = <int>(word >> 56) & 3
    if (
        (word ^ load16(&p.key.protocol)) & plane.fast_mask[which] != plane.fast_word[other][which]
        or e.digest != p.digest or e.ports != p.key.ports
        or now >= e.deadline[which >> 1]
    ):
        return False
    if unlikely(p.ipv6):
        addr = addresses_at(&plane.table.slab, p.hint)
        if (
            addr[0] != p.key.addr[0] or addr[1] != p.key.addr[1]
            or addr[2] != p.key.addr[2] or addr[3] != p.key.addr[3]
        ):
            return False
    deadline = now + plane.timeout[BIDIRECTIONAL if other else TCP_ESTABLISHED]
    if which == 3:
        if now >= e.deadline[0]:
            return False
        allow_plain(plane, e, 0, p.wire, deadline)
    allow_plain(plane, e, which >> 1, p.wire, deadline)
    return True


cdef inline void write_established(
    const Plane* plane, const Packet* p, const Entry* e, ResultRow* row
) noexcept nogil:
    # Writes the result row of a packet that the fast path has allowed.
    cdef SideRow* side_row
    cdef Address address
    cdef int side
    clear_row(row)
    row.verdict = ALLOW
    row.reason = ESTABLISHED
    for side in range(2):
        if e.present >> side & 1:
            side_row = &row.egress if side == p.source_high else &row.ingress
            address = address_of(p.key.addr, p.ipv6, side)
            side_row.instance = plane.rules.owner[find_address(plane.rules, p.ipv6, address.high, address.low)]
            side_row.rule = <int32_t>e.rule[side]
            side_row.verdict = ALLOW
            side_row.reason = ESTABLISHED


cdef inline void fill_fast_words(Plane* plane) noexcept nogil:
    # Precomputes, by Entry.present, which bits of an entry's last eight bytes are compared, and their required values.
    # Protocol and kind are compared with the packet's.
    cdef Entry mask, entry
    cdef int which, side, other
    for which in range(4):
        for other in range(2):
            memset(&mask, 0, sizeof(Entry))
            memset(&entry, 0, sizeof(Entry))
            mask.protocol = 0xFF
            mask.kind = 0xFF
            mask.present = 0xFF
            entry.present = <uint8_t>which if which else 0xFF       # no filter: must match no entry
            for side in range(2):
                if which >> side & 1:
                    mask.state[side] = 0xFF
                    mask.flags[side] = SIDE_DISCONNECTED | UNHEARD
                    entry.state[side] = BIDIRECTIONAL if other else TCP_ESTABLISHED
            plane.fast_mask[which] = load64(&mask.protocol)
            plane.fast_word[other][which] = load64(&entry.protocol)


cdef inline void close_fast_path(Plane* plane) noexcept nogil:
    # No entry matches such words, so all later packets take the slow path.
    memset(plane.fast_mask, 0, sizeof(plane.fast_mask))
    memset(plane.fast_word, 0xFF, sizeof(plane.fast_word))
