# Packets whose headers were read, a batch at a time: guess, then judge in order.

from libc.stdint cimport int64_t, uint16_t, uint64_t

from sgfast.core.conntrack cimport FROM_HIGH, count_packet, guess_slot
from sgfast.core.intrinsics cimport likely, prefetch
from sgfast.core.passage cimport sweep_all
from sgfast.core.pieces cimport judge_packet
from sgfast.core.plane cimport Plane
from sgfast.core.short_way cimport pass_established
from sgfast.core.slab cimport NO_SLOT, Entry, FlowRecord, entry_at, flow_at
from sgfast.core.types cimport (
    ALLOW,
    ESTABLISHED,
    READ_TRACKED,
    WORD_HEARD,
    WORD_HIGH_SHIFT,
    WORD_KNOWN,
    WORD_PLAIN,
    WORD_REASON_SHIFT,
    Packet,
    ResultRow,
)

cdef enum:
    BATCH = 32
    # The outcome word of whatever takes the short way, but for who began its connection.
    PLAIN_WORD = ALLOW | ESTABLISHED << WORD_REASON_SHIFT | WORD_KNOWN | WORD_HEARD | WORD_PLAIN


cdef inline void prefetch_line(const Plane* plane, const Packet* p) noexcept nogil:
    if likely(p.outcome == READ_TRACKED):
        prefetch(&plane.table.buckets[p.hash & plane.table.bucket_mask])


cdef inline void prefetch_flow(const FlowRecord* flow) noexcept nogil:
    # It is longer than a cache line.
    prefetch(flow)
    prefetch(&flow.initiator_high)


cdef inline void judge_batch(
    Plane* plane, Packet* packets, const int64_t* now, const uint64_t* numbers, uint64_t first, Py_ssize_t n,
    ResultRow* rows, uint16_t* words
) noexcept nogil:
    # `now`: what the clock says, by packet (SPEC 9.1). `numbers`: which packet of the engine each one is; NULL: they
    # follow `first`. `rows`: of the results from that of `first` on, or NULL; `words`: likewise.
    cdef Py_ssize_t i
    cdef Packet* p
    cdef const Entry* e
    cdef uint64_t nbytes = 0
    cdef uint64_t plain = 0
    cdef bint keep_flows = plane.table.keep_flows
    for i in range(n):
        p = &packets[i]
        if likely(p.outcome == READ_TRACKED):
            p.hint = guess_slot(&plane.table, p.hash)
            if likely(p.hint != NO_SLOT):
                prefetch(entry_at(&plane.table.slab, p.hint))
                if keep_flows:
                    prefetch_flow(flow_at(&plane.table.slab, p.hint))
    for i in range(n):
        p = &packets[i]
        plane.now = now[i]
        sweep_all(plane)
        nbytes += p.wire
        if likely(rows == NULL) and likely(pass_established(plane, p)):
            plain += 1
            if keep_flows:
                count_packet(&plane.table, p.hint, p)
            if words != NULL:
                e = entry_at(&plane.table.slab, p.hint)
                words[i if numbers == NULL else numbers[i] - first] = <uint16_t>(
                    PLAIN_WORD | (e.flags[e.present >> 1 & ~e.present & 1] & FROM_HIGH) << WORD_HIGH_SHIFT
                )
        else:
            p.number = first + i if numbers == NULL else numbers[i]
            plane.word = 0
            judge_packet(plane, p, &rows[p.number - first] if rows != NULL else NULL)
            if words != NULL:
                words[p.number - first] = plane.word
    plane.packets += n
    plane.bytes += nbytes
    plane.verdicts[ALLOW] += plain
    plane.reasons[ESTABLISHED] += plain
