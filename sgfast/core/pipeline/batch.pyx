"""Run batches through the pipeline, and make and free planes. ``batch.pxd`` explains each function."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from sgfast.core.base.bucket cimport Bucket, match_tag
from sgfast.core.base.intrinsics cimport ctz32, likely, load16, unlikely
from sgfast.core.base.types cimport (
    ALLOW,
    ESTABLISHED,
    NO_SLOT,
    READ_FRAGMENT,
    TCP_SYN,
    WORD_FAST,
    WORD_HEARD,
    WORD_HIGH_SHIFT,
    WORD_KNOWN,
    WORD_REASON_SHIFT,
)
from sgfast.core.conntrack.lifetime cimport free_table, init_table, list_displaced, prefetch_buckets, sweep
from sgfast.core.conntrack.states cimport STATE_COUNT, TIMEOUT_COUNT, TIMEOUT_OF_STATE
from sgfast.core.conntrack.storage cimport Entry, entry_at, flow_at, prefetch_addresses
from sgfast.core.conntrack.table cimport (
    FROM_HIGH,
    REPORT_ALL,
    REPORT_NONE,
    REPORT_OUTCOMES,
    Table,
    count_packet,
    guess_slot,
)
from sgfast.core.conntrack.timer_wheel cimport end_of_tick, tick_of
from sgfast.core.pipeline.fast_path cimport PLAIN_OTHER, fill_fast_paths, is_plain, pass_established, write_established
from sgfast.core.pipeline.fragments cimport forget_overdue, give_up, judge_fragment
from sgfast.core.pipeline.judge cimport PacketContext, begin_packet, clear_row
from sgfast.core.pipeline.look_ahead cimport Ahead, look_up_addresses, look_up_rules
from sgfast.core.pipeline.endings cimport ENDED_TOGETHER, count_ended
from sgfast.core.pipeline.plane cimport MAX_ATTEMPTS, MIDSTREAM_DENY, MIDSTREAM_INFER, RuleCount
from sgfast.core.pipeline.without_key cimport judge_packet
from sgfast.core.tallies.disconnects cimport free_cuts, init_cuts
from sgfast.core.tallies.tally cimport count_queued, free_tallies, init_tallies
from sgfast.core.wire.ip cimport init_wire

cdef enum:
    # The bytes `step` and `parse_result` of a Packet, read as one number.
    OPENS_TCP = TCP_SYN | READ_TRACKED << 8
    # The result word of a packet on the fast path, except for the initiator bit.
    FAST_WORD = ALLOW | ESTABLISHED << WORD_REASON_SHIFT | WORD_KNOWN | WORD_HEARD | WORD_FAST


cdef inline void prefetch_bucket(const Table* t, const Packet* p) noexcept nogil:
    prefetch(&t.buckets[p.hash & t.bucket_mask])


cdef inline void prefetch_guess(const Table* t, const Packet* p) noexcept nogil:
    # Call this after the entry's bucket was fetched.
    cdef uint32_t slot = guess_slot(t, p.hash)
    if slot != NO_SLOT:
        prefetch(entry_at(&t.slab, slot))


cdef inline void sweep_ended(Plane* plane, int64_t now) noexcept nogil:
    if unlikely(tick_of(now) != plane.table.wheel.tick):
        sweep(&plane.table, now)
        if plane.keeps_attempts:
            sweep(&plane.attempts, now)


cdef inline bint may_open(const Packet* p) noexcept nogil:
    # Whether the policy is looked up ahead for the packet. Most other packets without an entry follow an opener in the
    # same batch.
    cdef uint16_t opener = load16(&p.step)
    return p.hint == NO_SLOT and (opener == OPENS_TCP or opener == PLAIN_OTHER)


cdef uint32_t judge_slowly(
    Plane* plane, Packet* p, const Ahead* ahead, ResultRow* row, uint16_t* word, int64_t now
) noexcept nogil:
    # Judges a packet on the slow path. Returns its key's slot, or NO_SLOT. Inlined, it would cost the loop registers.
    cdef PacketContext c
    if row != NULL:
        clear_row(row)
    begin_packet(&c, p, row, word != NULL, now)
    if may_open(p):
        c.ahead = ahead
    if likely(p.parse_result != READ_FRAGMENT):
        judge_packet(plane, &c)
    else:
        judge_fragment(plane, &c, p)
    if word != NULL:
        word[0] = c.word
    return c.slot


cdef void guess_batch(Plane* plane, Packet* packets, Py_ssize_t n) noexcept nogil:
    cdef Table* t = &plane.table
    cdef const Bucket* bucket
    cdef Packet* p
    cdef uint32_t places
    cdef Py_ssize_t i
    for i in range(n):
        p = &packets[i]
        # A packet without a key has the hash of an earlier packet, and its guess is not used. These lines do the same
        # as guess_slot, with five instructions less.
        bucket = &t.buckets[p.hash & t.bucket_mask]
        places = match_tag(bucket, p.hash)
        if unlikely(places == 0):
            p.hint = NO_SLOT
            p.entry = &t.slab.nothing
            continue
        p.hint = bucket.slots[<uint32_t>ctz32(places)]
        p.entry = entry_at(&t.slab, p.hint)
        prefetch(p.entry)
        if unlikely(p.ipv6):
            prefetch_addresses(&t.slab, p.hint)
    for i in range(n if t.keep_flows else 0):
        if packets[i].hint != NO_SLOT:
            prefetch(flow_at(&t.slab, packets[i].hint))


cdef void look_ahead(Plane* plane, const Packet* packets, Py_ssize_t n, Ahead* ahead) noexcept nogil:
    cdef uint16_t openers[BATCH]
    cdef uint32_t displaced[BATCH]  # entries that may have to leave a full table for the openers
    cdef bint attempts = plane.attempts.live > 0
    cdef int count = 0
    cdef int displaced_count, k
    cdef Py_ssize_t i
    for i in range(n):
        if may_open(&packets[i]):
            openers[count] = <uint16_t>i
            count += 1
    if count == 0:
        return
    displaced_count = list_displaced(&plane.table, count, displaced)
    for k in range(count):
        look_up_addresses(plane, &packets[openers[k]], &ahead[openers[k]])
        if attempts:
            prefetch_bucket(&plane.attempts, &packets[openers[k]])
    for k in range(count):
        look_up_rules(plane, &packets[openers[k]], &ahead[openers[k]])
        if attempts:
            prefetch_guess(&plane.attempts, &packets[openers[k]])
    prefetch_buckets(&plane.table, displaced, displaced_count)


cdef void note_established(
    Plane* plane, const Packet* p, uint64_t at, ResultRow* rows, uint16_t* words
) noexcept nogil:
    # Counts a packet that the fast path has allowed in its flow record. Writes the packet's result and result word, if
    # the caller wants them. `at`: the packet's index in `rows` and `words`.
    cdef const Entry* e = <const Entry*>p.entry
    if plane.table.keep_flows:
        count_packet(&plane.table, p.hint, p, 1)
    if words != NULL:
        words[at] = <uint16_t>(FAST_WORD | (e.flags[e.present >> 1 & ~e.present & 1] & FROM_HIGH) << WORD_HIGH_SHIFT)
    if rows != NULL:
        write_established(plane, p, e, &rows[at])


cdef void judge_batch(
    Plane* plane, Packet* packets, const int64_t* now, const uint64_t* numbers, uint64_t first, Py_ssize_t n,
    ResultRow* rows, uint16_t* words
) noexcept nogil:
    cdef Ahead ahead[BATCH]
    cdef bint looked = False
    cdef bint noted = plane.table.keep_flows or rows != NULL or words != NULL
    cdef Packet* p
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t passed, k
    cdef uint64_t fast = 0
    cdef uint64_t nbytes = 0
    cdef uint64_t at
    cdef uint32_t slot
    cdef Py_ssize_t end = 0     # index after the last packet that is surely in the wheel's current tick
    while i < n:
        if i == end:
            sweep_ended(plane, now[i])
            end = n if now[n - 1] < end_of_tick(now[i]) else i + 1
        passed = pass_established(plane, packets, now, i, end) if is_plain(&packets[i]) else i
        if passed > i:
            fast += passed - i
            for k in range(i, passed if noted else i):
                at = <uint64_t>k if numbers == NULL else numbers[k] - first
                note_established(plane, &packets[k], at, rows, words)
            i = passed
            if i == end:
                continue
        if not looked:
            look_ahead(plane, &packets[i], n - i, &ahead[i])
            looked = True
        p = &packets[i]
        p.number = first + i if numbers == NULL else numbers[i]
        at = p.number - first
        if likely(not plane.weighs):
            p.count = 1
        nbytes += p.wire
        slot = judge_slowly(
            plane, p, &ahead[i], &rows[at] if rows != NULL else NULL, &words[at] if words != NULL else NULL, now[i]
        )
        i += 1
        # The packets of a handshake often follow each other.
        if i < n and packets[i].hint == NO_SLOT and packets[i].hash == p.hash and slot != NO_SLOT:
            packets[i].hint = slot
            packets[i].entry = entry_at(&plane.table.slab, slot)
    # Ended tuples are counted here, while their rows are still in the cache.
    if plane.reporting and plane.table.ended_count - plane.table.tallied >= ENDED_TOGETHER:
        count_ended(plane, &plane.table)
    plane.counters.bytes += nbytes
    plane.counters.verdicts[ALLOW] += fast
    plane.counters.reasons[ESTABLISHED] += fast


cdef void sweep_all(Plane* plane, int64_t now) noexcept nogil:
    sweep_ended(plane, now)


cdef void tally_ended(Plane* plane) noexcept nogil:
    if plane.reporting:
        count_ended(plane, &plane.table)
        count_ended(plane, &plane.attempts)
        count_queued(&plane.queue)


cdef void resolve_overdue(Plane* plane, int64_t now, uint64_t number) noexcept nogil:
    forget_overdue(plane, now, number)


cdef void resolve_datagram(Plane* plane, uint32_t datagram, int64_t now) noexcept nogil:
    give_up(plane, datagram, now)


# Planes ---------------------------------------------------------------------------------------------------------------

cdef int make_plane(
    Plane* plane, Classifier classifier, bint causal, int midstream, timeouts_ns, uint32_t max_connections,
    uint8_t infrastructure, bint keep_flows, bint reporting, Py_ssize_t events, list secret
) except -1:
    cdef uint64_t[8] words
    cdef int64_t[TIMEOUT_COUNT] timeouts
    cdef bint records = keep_flows or events > 0
    cdef uint8_t reports = REPORT_ALL if keep_flows else REPORT_OUTCOMES if reporting else REPORT_NONE
    cdef int i
    memset(plane, 0, sizeof(Plane))
    plane.rules = &classifier.tables
    plane.rule_counts = <RuleCount*>calloc(classifier.rule_count + 1, sizeof(RuleCount))
    if plane.rule_counts == NULL:
        raise MemoryError
    init_table(&plane.table, max_connections, midstream != MIDSTREAM_DENY, records, reporting or records)
    init_table(&plane.attempts, MAX_ATTEMPTS, False, records, reporting or records)
    plane.table.reports = reports
    plane.attempts.reports = reports
    plane.events.most = events
    plane.table.events = &plane.events if events > 0 else NULL
    init_cuts(&plane.cuts)
    plane.table.marks_expire = midstream == MIDSTREAM_INFER
    plane.causal = causal
    plane.midstream = midstream
    plane.reporting = reporting
    plane.keeps_attempts = reporting or events > 0 or plane.rules.stateless != NULL
    for i in range(8):
        words[i] = secret[i]
    init_wire(&plane.wire, infrastructure, words)
    for i in range(TIMEOUT_COUNT):
        timeouts[i] = timeouts_ns[i]
    for i in range(1, STATE_COUNT):
        plane.timeout[i] = timeouts[TIMEOUT_OF_STATE[i]]
    fill_fast_paths(plane)
    init_tallies(plane.tallies, plane.wire.secret[7])
    return 0


cdef void free_plane(Plane* plane) noexcept nogil:
    free_table(&plane.table)
    free_table(&plane.attempts)
    free_cuts(&plane.cuts)
    free_tallies(plane.tallies)
    free(plane.rule_counts)
    free(plane.events.rows)
