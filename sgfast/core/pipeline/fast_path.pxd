# The fast path: packets of established connections, which change only deadlines and counters. All other packets take
# the slow path (slow_path.pxd), which would give established packets the same verdicts.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from sgfast.core.base.intrinsics cimport likely, load16, load64, unlikely
from sgfast.core.base.key cimport Address, address_of, same_addresses
from sgfast.core.base.types cimport (
    ALLOW,
    ESTABLISHED,
    READ_TRACKED,
    STEP_OPEN,
    TCP_ACK,
    Packet,
    ResultRow,
    SideRow,
)
from sgfast.core.classify.classifier cimport find_address
from sgfast.core.conntrack.states cimport BIDIRECTIONAL, TCP_ESTABLISHED
from sgfast.core.conntrack.storage cimport Entry, addresses_at
from sgfast.core.conntrack.table cimport SIDE_DISCONNECTED, UNHEARD, UNSEEN
from sgfast.core.pipeline.judge cimport clear_row
from sgfast.core.pipeline.plane cimport FastPath, Plane, RuleCount


cdef enum:
    # The bytes `step` and `parse_result` of a Packet, read as one number.
    PLAIN_TCP = TCP_ACK | READ_TRACKED << 8
    PLAIN_OTHER = STEP_OPEN | READ_TRACKED << 8


cdef inline void allow_plain(RuleCount* rules, Entry* e, uint64_t side, uint32_t wire, int64_t deadline) noexcept nogil:
    cdef RuleCount* rule = &rules[e.rule[side]]
    rule.packets += 1
    rule.bytes += wire
    e.deadline[side] = deadline


cdef inline bint is_plain(const Packet* p) noexcept nogil:
    # Whether pass_established may allow the packet, by its step and parse result.
    cdef uint16_t plain = load16(&p.step)
    return plain == PLAIN_TCP or plain == PLAIN_OTHER


cdef inline Py_ssize_t pass_established(
    Plane* plane, const Packet* packets, const int64_t* now, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    # Allows packets from `first` on, up to the first packet that is neither an ACK of an established TCP connection nor
    # a packet of another protocol whose connection was allowed both ways. Each side with a filter must have such a
    # connection: live, not disconnected, with a reply seen (SPEC 4.3). Returns the index of the first other packet, or
    # `end`; that packet changes nothing. All states and flags to compare are in the last eight bytes of an entry. The
    # caller counts verdicts, updates flow records, and writes results.
    cdef RuleCount* rules = plane.rule_counts
    cdef const FastPath* fast
    cdef const Packet* p
    cdef Entry* e
    cdef uint64_t word, sides
    cdef int64_t deadline
    cdef uint16_t plain
    cdef uint64_t nbytes = 0
    cdef Py_ssize_t i = first
    while i < end:
        p = &packets[i]
        plain = load16(&p.step)
        if likely(plain == PLAIN_TCP):
            fast = &plane.fast[0]
        elif plain == PLAIN_OTHER:
            fast = &plane.fast[1]
        else:
            break
        e = <Entry*>p.entry
        word = load64(&e.protocol)
        sides = word >> 56 & 3
        if (
            (word ^ load16(&p.key.protocol)) & fast.mask[sides] != fast.word[sides]
            or e.digest != p.digest or e.ports != p.key.ports
            or now[i] >= e.deadline[sides >> 1]
        ):
            break
        if unlikely(p.ipv6):
            if not same_addresses(addresses_at(&plane.table.slab, p.hint), p.key.addr):
                break
        deadline = now[i] + fast.timeout
        if sides == 3:
            if now[i] >= e.deadline[0]:
                break
            allow_plain(rules, e, 0, p.wire, deadline)
        allow_plain(rules, e, sides >> 1, p.wire, deadline)
        nbytes += p.wire
        i += 1
    plane.counters.bytes += nbytes
    return i


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


cdef inline void fill_fast_paths(Plane* plane) noexcept nogil:
    # Call this after the timeouts are set.
    cdef Entry mask, entry
    cdef FastPath* fast
    cdef int sides, side, is_other
    for is_other in range(2):
        fast = &plane.fast[is_other]
        fast.timeout = plane.timeout[BIDIRECTIONAL if is_other else TCP_ESTABLISHED]
        for sides in range(4):
            memset(&mask, 0, sizeof(Entry))
            memset(&entry, 0, sizeof(Entry))
            mask.protocol = 0xFF
            mask.kind = 0xFF
            mask.present = 0xFF
            entry.present = <uint8_t>sides if sides else 0xFF       # no filter: must match no entry
            for side in range(2):
                if sides >> side & 1:
                    mask.state[side] = 0xFF
                    mask.flags[side] = SIDE_DISCONNECTED | UNHEARD | UNSEEN
                    entry.state[side] = BIDIRECTIONAL if is_other else TCP_ESTABLISHED
            fast.mask[sides] = load64(&mask.protocol)
            fast.word[sides] = load64(&entry.protocol)


cdef inline void close_fast_path(Plane* plane) noexcept nogil:
    # Sends all later packets to the slow path, as no entry matches these words.
    cdef int is_other
    for is_other in range(2):
        memset(plane.fast[is_other].mask, 0, sizeof(plane.fast[is_other].mask))
        memset(plane.fast[is_other].word, 0xFF, sizeof(plane.fast[is_other].word))
