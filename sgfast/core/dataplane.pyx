"""The data plane's loop over batches, and what Python sees of it. How it is built: ``dataplane.pxd``."""

import os

import numpy as np

from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    WAIT_LOCK,
)
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from sgfast.core.answers cimport tally_rows
from sgfast.core.change cimport Cut, change_tables
from sgfast.core.clock cimport CLOCK_END, MAX_LATE_NS, Clock, tell_time
from sgfast.core.conntrack cimport (
    MOOT_ICMP,
    MOOT_OTHER,
    MOOT_TCP,
    FlowRow,
    Table,
    free_table,
    guess_slot,
    init_table,
    report_living,
)
from sgfast.core.conntrack_icmp cimport ICMP_ALIVE
from sgfast.core.conntrack_other cimport BIDIRECTIONAL, UNIDIRECTIONAL
from sgfast.core.conntrack_tcp cimport FIN_WAIT, SYN_SENT, SYN_SENT2, TCP_ESTABLISHED, fill_tcp_table
from sgfast.core.cuts cimport Cuts, CutRow, free_cuts, init_cuts
from sgfast.core.frames cimport Frame, FrameBatch
from sgfast.core.intrinsics cimport likely, prefetch
from sgfast.core.passage cimport go_on, judge_packet
from sgfast.core.plane cimport Plane, RuleCount
from sgfast.core.rows cimport read_header, spell_header
from sgfast.core.short_way cimport fill_short_words, pass_established
from sgfast.core.slab cimport NO_SLOT, Entry, entry_at
from sgfast.core.tally cimport TALLY_CELLS, Tally, TallyRow, free_tally, init_tally
from sgfast.core.types cimport (
    ALLOW,
    ESTABLISHED,
    READ_TRACKED,
    REASON_COUNT,
    TCP_ACK,
    TCP_BAD,
    TCP_FIN,
    TCP_RST,
    TCP_SYN,
    TCP_SYNACK,
    VERDICT_COUNT,
    HeaderRow,
    Packet,
    ResultRow,
)
from sgfast.core.wire cimport read_frame


# Batches --------------------------------------------------------------------------------------------------------------

cdef inline void judge_batch(Plane* plane, Packet* packets, Py_ssize_t n, ResultRow* rows) noexcept nogil:
    # Headers were read. Guess, then judge in order.
    cdef Py_ssize_t i
    cdef Packet* p
    cdef uint64_t nbytes = 0
    cdef uint64_t plain = 0
    cdef bint by_itself = rows == NULL and not plane.table.keep_flows
    for i in range(n):
        p = &packets[i]
        if likely(p.outcome == READ_TRACKED):
            p.hint = guess_slot(&plane.table, p.hash)
            if likely(p.hint != NO_SLOT):
                prefetch(entry_at(&plane.table.slab, p.hint))
    for i in range(n):
        p = &packets[i]
        go_on(plane, p)
        nbytes += p.wire
        if likely(by_itself) and likely(pass_established(plane, p)):
            plain += 1
        else:
            judge_packet(plane, p, &rows[i] if rows != NULL else NULL)
    plane.packets += n
    plane.bytes += nbytes
    plane.verdicts[ALLOW] += plain
    plane.reasons[ESTABLISHED] += plain


cdef inline void prefetch_line(const Plane* plane, const Packet* p) noexcept nogil:
    if likely(p.outcome == READ_TRACKED):
        prefetch(&plane.table.buckets[p.hash & plane.table.bucket_mask])


cdef enum:
    # Denied attempts that are remembered for the report, so that a retry does not count twice.
    MAX_ATTEMPTS = 1 << 20


cdef object _rows(const uint8_t* data, Py_ssize_t nbytes, dtype):
    copy = np.empty(nbytes, dtype=np.uint8)
    cdef uint8_t[::1] view = copy
    if nbytes:
        memcpy(&view[0], data, nbytes)
    return copy.view(dtype)


_SIDE = np.dtype([("instance", "<i4"), ("rule", "<i4"), ("verdict", "u1"), ("reason", "u1"), ("spare", "<u2")])
RESULT_DTYPE = np.dtype(
    [("verdict", "u1"), ("reason", "u1"), ("spare", "<u2"), ("egress", _SIDE), ("ingress", _SIDE)]
)
HEADER_DTYPE = np.dtype([
    ("time_ns", "<i8"), ("src", "u1", (16,)), ("dst", "u1", (16,)), ("wire", "<u4"), ("sport", "<u2"),
    ("dport", "<u2"), ("family", "u1"), ("protocol", "u1"), ("tcp_flags", "u1"), ("icmp_type", "u1"),
    ("icmp_code", "u1"), ("has_ports", "u1"), ("has_icmp", "u1"), ("spare", "u1"), ("icmp_id", "<u4"),
])
_ENDS = [
    ("initiator", "u1", (16,)), ("responder", "u1", (16,)), ("ports", "<u4"), ("icmp", "<u2"), ("family", "u1"),
    ("protocol", "u1"), ("has_ports", "u1"), ("spare", "u1"),
]
FLOW_DTYPE = np.dtype([
    ("first_ns", "<i8"), ("last_ns", "<i8"), ("bytes", "<u8", (2,)), ("packets", "<u8", (2,)),
    *_ENDS, ("rule", "<i4", (2,)), ("instance", "<i4", (2,)), ("verdict", "u1"), ("reason", "u1"), ("answer", "u1"),
    ("side_end", "u1", (2,)),
])
CUT_DTYPE = np.dtype([
    ("cut_ns", "<i8"), ("again_ns", "<i8"), ("packets", "<u8"), ("bytes", "<u8"), *_ENDS, ("rule", "<i4", (2,)),
    ("change", "<u4"), ("previous", "<u4"), ("outcome", "u1"), ("turned", "u1"), ("finished", "u1"),
    ("spare_too", "u1"),
])
TALLY_DTYPE = np.dtype([
    ("peer", "u1", (16,)), ("instance", "<i4"), ("port_key", "<u2"), ("protocol", "u1"), ("reason", "u1"),
    ("inbound", "u1"), ("family", "u1"), ("has_ports", "u1"), ("has_icmp", "u1"), ("spare", "<u4"),
    ("packets", "<u8"), ("bytes", "<u8"),
])
_RULE_COUNT = np.dtype([("connections", "<u8"), ("packets", "<u8"), ("bytes", "<u8")])

assert RESULT_DTYPE.itemsize == sizeof(ResultRow)
assert HEADER_DTYPE.itemsize == sizeof(HeaderRow)
assert FLOW_DTYPE.itemsize == sizeof(FlowRow)
assert CUT_DTYPE.itemsize == sizeof(CutRow)
assert TALLY_DTYPE.itemsize == sizeof(TallyRow)

ENTRY_BYTES = sizeof(Entry)


cdef object _tally(Tally* tally):
    if tally.cells == NULL:
        return np.empty(0, dtype=TALLY_DTYPE), tally.other_packets
    rows = _rows(<const uint8_t*>tally.cells, TALLY_CELLS * sizeof(TallyRow), TALLY_DTYPE)
    return rows[rows["packets"] > 0], tally.other_packets


cdef bint earlier_than(
    const Clock* clock, const Frame* frames, Py_ssize_t first, Py_ssize_t end, int64_t at_ns
) noexcept nogil:
    # Whether frames [first, end) surely come before at_ns: what a replay with a change to come asks for every batch,
    # so without telling the time frame by frame. False says nothing. Times that the clock would cut fall under that.
    cdef int64_t latest = frames[first].time_ns
    cdef int64_t earliest = latest
    cdef Py_ssize_t i
    for i in range(first + 1, end):
        latest = max(latest, frames[i].time_ns)
        earliest = min(earliest, frames[i].time_ns)
    if not clock.started or earliest <= -CLOCK_END or latest >= CLOCK_END:
        return False
    latest = max(latest, clock.raw)
    return earliest >= latest - MAX_LATE_NS and latest - clock.raw < at_ns - clock.now


cdef class DataPlane:
    """The engine's C half: a classifier, a connection table, a clock.

    ``timeouts_ns``: (tcp_established, tcp_fin_wait, tcp_other, icmp, bidirectional, unidirectional), nanoseconds.
    ``midstream``: 0 deny, 1 infer, 2 allow. ``keep_flows``: every ended tuple becomes a row of ``take_flows``,
    and takes memory until it is taken.
    ``reporting``: tallies of what was denied or unanswered, and attempts told apart from retries. ``secret``: 8 words
    that key the hash; random by default.

    Calls may come from any thread; the GIL is released and a lock held while packets are judged.
    """

    def __cinit__(
        self, Classifier classifier not None, *, bint causal=False, int midstream=0, timeouts_ns not None,
        uint32_t max_connections=4000000, bint exempt=True, bint keep_flows=False, bint reporting=False, secret=None
    ):
        cdef Plane* plane = &self.plane
        cdef int i
        if not 0 <= midstream <= 2 or not 1 <= max_connections < 0x80000000:
            raise ValueError("an option is out of range")
        memset(plane, 0, sizeof(Plane))
        self.lock = PyThread_allocate_lock()
        self.packets = <Packet*>calloc(BATCH, sizeof(Packet))
        self.classifier = classifier
        plane.rules = &classifier.tables
        plane.rule_counts = <RuleCount*>calloc(classifier.rule_count + 1, sizeof(RuleCount))
        if self.lock == NULL or self.packets == NULL or plane.rule_counts == NULL:
            raise MemoryError
        init_table(&plane.table, max_connections, midstream != 0, keep_flows)
        init_table(&plane.attempts, MAX_ATTEMPTS, False, keep_flows)
        init_cuts(&plane.cuts)
        plane.table.marks_expire = midstream == 1
        plane.table.report_odd = reporting
        plane.attempts.report_odd = reporting
        plane.causal = causal
        plane.midstream = midstream
        plane.reporting = reporting

        words = [int.from_bytes(os.urandom(8), "little") for _ in range(8)] if secret is None else list(secret)
        if len(words) != 8 or not all(isinstance(word, int) and 0 <= word < 1 << 64 for word in words):
            raise ValueError("the hash is keyed by eight integers of 64 bits")
        for i in range(8):
            plane.wire.secret[i] = words[i]
        plane.wire.secret[3] |= 1
        plane.wire.exempt = exempt
        for i in range(64):
            plane.wire.tcp_step[i] = TCP_BAD
        # SPEC 5.4: the combinations of FIN 1, SYN 2, RST 4, ACK 16 and URG 32 that Linux takes for valid.
        for flags, step in (
            (0x02, TCP_SYN), (0x22, TCP_SYN), (0x12, TCP_SYNACK), (0x11, TCP_FIN), (0x31, TCP_FIN), (0x10, TCP_ACK),
            (0x30, TCP_ACK), (0x04, TCP_RST), (0x14, TCP_RST),
        ):
            plane.wire.tcp_step[<int>flags] = step
        fill_tcp_table(&plane.tcp)
        fill_short_words(plane)
        established, fin_wait, other, icmp, bidirectional, unidirectional = timeouts_ns
        for i in range(SYN_SENT, SYN_SENT2 + 1):
            plane.timeout[i] = other
        plane.timeout[TCP_ESTABLISHED] = established
        plane.timeout[FIN_WAIT] = fin_wait
        plane.timeout[ICMP_ALIVE] = icmp
        plane.timeout[UNIDIRECTIONAL] = unidirectional
        plane.timeout[BIDIRECTIONAL] = bidirectional
        plane.timeout[MOOT_TCP] = established
        plane.timeout[MOOT_OTHER] = unidirectional
        plane.timeout[MOOT_ICMP] = icmp
        init_tally(&plane.denials, plane.wire.secret[7])
        init_tally(&plane.unanswered, plane.wire.secret[7])
        init_tally(&plane.refused, plane.wire.secret[7])
        init_tally(&plane.broken, plane.wire.secret[7])

    def __dealloc__(self):
        free_table(&self.plane.table)
        free_table(&self.plane.attempts)
        free_cuts(&self.plane.cuts)
        free_tally(&self.plane.denials)
        free_tally(&self.plane.unanswered)
        free_tally(&self.plane.refused)
        free_tally(&self.plane.broken)
        free(self.plane.rule_counts)
        free(self.packets)
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef ResultRow* result_rows(self, results, Py_ssize_t n) except? NULL:
        cdef uint8_t[::1] view
        if results.dtype != RESULT_DTYPE or not results.flags.c_contiguous or len(results) < n:
            raise ValueError("results must be a contiguous array of RESULT_DTYPE, one row a packet")
        if n == 0:
            return NULL
        view = results.view(np.uint8).reshape(-1)
        return <ResultRow*>&view[0]

    cdef void judge_frames(
        self, const Frame* frames, Py_ssize_t n, ResultRow* rows, HeaderRow* headers
    ) noexcept nogil:
        cdef Plane* plane = &self.plane
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t size, i
        PyThread_acquire_lock(self.lock, WAIT_LOCK)
        plane.want_sides = rows != NULL
        while start < n:
            size = min(n - start, <Py_ssize_t>BATCH)
            for i in range(size):
                read_frame(&plane.wire, &frames[start + i], &self.packets[i])
                prefetch_line(plane, &self.packets[i])
            judge_batch(plane, self.packets, size, rows + start if rows != NULL else NULL)
            if headers != NULL:
                for i in range(size):
                    spell_header(&self.packets[i], headers + start + i)
            start += size
        if plane.reporting:
            self.tally_ended()
        PyThread_release_lock(self.lock)

    cdef void judge_headers(self, const HeaderRow* headers, Py_ssize_t n, ResultRow* rows) noexcept nogil:
        cdef Plane* plane = &self.plane
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t size, i
        PyThread_acquire_lock(self.lock, WAIT_LOCK)
        plane.want_sides = rows != NULL
        while start < n:
            size = min(n - start, <Py_ssize_t>BATCH)
            for i in range(size):
                read_header(&plane.wire, &headers[start + i], &self.packets[i])
                prefetch_line(plane, &self.packets[i])
            judge_batch(plane, self.packets, size, rows + start if rows != NULL else NULL)
            start += size
        if plane.reporting:
            self.tally_ended()
        PyThread_release_lock(self.lock)

    def frames_before(self, FrameBatch batch not None, Py_ssize_t first, int64_t at_ns):
        """How many frames from ``first`` on come before ``at_ns`` on the clock (SPEC 9.1), which does not move."""
        cdef Py_ssize_t i
        cdef Clock clock
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            clock = self.plane.clock
            PyThread_release_lock(self.lock)
        if first < 0:
            raise ValueError("no such frame")
        if first < batch.count and earlier_than(&clock, batch.frames, first, batch.count, at_ns):
            return batch.count - first
        for i in range(first, batch.count):
            tell_time(&clock, batch.frames[i].time_ns)
            if clock.now >= at_ns:
                return i - first
        return max(batch.count - first, 0)

    def process_frames(
        self, FrameBatch batch not None, results=None, headers=None, Py_ssize_t first=0, Py_ssize_t number=-1
    ):
        """Judges a batch of frames in order, or ``number`` of them from ``first`` on.

        ``results``, ``headers``: arrays of RESULT_DTYPE and HEADER_DTYPE to fill from their beginning, at least as long
        as the frames judged, or None. ValueError when they are not.
        """
        cdef Py_ssize_t n = batch.count - first if number < 0 else number
        cdef ResultRow* rows = NULL
        cdef HeaderRow* header_rows = NULL
        cdef uint8_t[::1] view
        cdef const Frame* frames = batch.frames + first
        if first < 0 or n < 0 or n > batch.count - first:
            raise ValueError("no such frames")
        if results is not None:
            rows = self.result_rows(results, n)
        if headers is not None and n:
            if headers.dtype != HEADER_DTYPE or not headers.flags.c_contiguous or len(headers) < n:
                raise ValueError("headers must be a contiguous array of HEADER_DTYPE, one row a packet")
            view = headers.view(np.uint8).reshape(-1)
            header_rows = <HeaderRow*>&view[0]
        with nogil:
            self.judge_frames(frames, n, rows, header_rows)

    def process_headers(self, headers not None, results not None):
        """Judges packets given as an array of HEADER_DTYPE, in order, into ``results`` (RESULT_DTYPE)."""
        cdef Py_ssize_t n = len(headers)
        cdef const uint8_t[::1] view
        cdef const HeaderRow* header_rows
        cdef ResultRow* rows
        if headers.dtype != HEADER_DTYPE or not headers.flags.c_contiguous:
            raise ValueError("headers must be a contiguous array of HEADER_DTYPE")
        rows = self.result_rows(results, n)
        if n == 0:
            return
        view = headers.view(np.uint8).reshape(-1)
        header_rows = <const HeaderRow*>&view[0]
        with nogil:
            self.judge_headers(header_rows, n, rows)

    def change(self, Classifier classifier not None, cut_inbound, bint cut_unmatched, int64_t now_ns):
        """Goes over to a later policy's classifier (SPEC 6). Returns how many tuples were disconnected.

        ``cut_inbound``: uint8 by instance number, whose inbound connections are cut; or None. ``now_ns``: of the clock.
        """
        cdef Cut cut
        cdef const uint8_t[::1] flags
        cdef RuleCount* counts
        cdef Py_ssize_t before = self.classifier.rule_count
        cdef uint64_t disconnected
        cdef Classifier old
        if classifier.rule_count < before or classifier.instance_count < self.classifier.instance_count:
            raise ValueError("a later policy keeps the numbers of rules and instances")
        cut.inbound = NULL
        if cut_inbound is not None:
            if cut_inbound.dtype != np.uint8 or len(cut_inbound) < classifier.instance_count:
                raise ValueError("one byte for each instance")
            flags = cut_inbound
            if len(cut_inbound):
                cut.inbound = &flags[0]
        cut.unmatched = cut_unmatched
        cut.now = now_ns
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            counts = <RuleCount*>realloc(self.plane.rule_counts, (classifier.rule_count + 1) * sizeof(RuleCount))
            if counts != NULL:
                self.plane.rule_counts = counts
                memset(&counts[before], 0, (classifier.rule_count + 1 - before) * sizeof(RuleCount))
                disconnected = change_tables(&self.plane, &classifier.tables, &cut)
            PyThread_release_lock(self.lock)
        if counts == NULL:
            raise MemoryError
        # Only now: the walk still asked the old one. Nobody else changes it: Engine takes changes one after the other.
        old = self.classifier
        self.classifier = classifier
        del old
        return disconnected

    cdef void tally_ended(self) noexcept nogil:
        tally_rows(&self.plane, &self.plane.table, self.tallied)
        tally_rows(&self.plane, &self.plane.attempts, self.tallied + 1)

    def finish(self, *, uint32_t most=0x7FFFFFFF):
        """Reports the tuples still in the table, for the end of a replay; they stay.

        About ``most`` at a time, so that the rows of all of them need not be in memory together: to be called until it
        returns True.
        """
        cdef Table* tables[2]
        cdef int i
        cdef bint done
        tables[0] = &self.plane.table
        tables[1] = &self.plane.attempts
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            for i in range(2):
                if self.report_from[i] != NO_SLOT:
                    self.report_from[i] = report_living(tables[i], self.plane.clock.now, self.report_from[i], most)
            if self.plane.reporting:
                self.tally_ended()
            done = self.report_from[0] == NO_SLOT and self.report_from[1] == NO_SLOT
            if done:
                self.report_from[0] = 0
                self.report_from[1] = 0
            PyThread_release_lock(self.lock)
        return done

    def take_flows(self):
        """Ended tuples since the last call, as an array of FLOW_DTYPE."""
        cdef Table* tables[2]
        cdef FlowRow* rows[2]
        cdef Py_ssize_t counts[2]
        cdef int i
        tables[0] = &self.plane.table
        tables[1] = &self.plane.attempts
        # Only taken away under the lock: making arrays may run Python code, and another thread with it.
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            for i in range(2):
                rows[i] = tables[i].ended
                counts[i] = tables[i].ended_count
                tables[i].ended = NULL
                tables[i].ended_count = 0
                tables[i].ended_capacity = 0
                self.tallied[i] = 0
            PyThread_release_lock(self.lock)
        try:
            return np.concatenate(
                [_rows(<const uint8_t*>rows[i], counts[i] * sizeof(FlowRow), FLOW_DTYPE) for i in range(2)]
            )
        finally:
            free(rows[0])
            free(rows[1])

    @property
    def denials(self):
        """``(rows, others)``: denied packets by instance, peer, protocol, port and reason, as TALLY_DTYPE."""
        return _tally(&self.plane.denials)

    @property
    def unanswered(self):
        """``(rows, others)``: allowed connections to an instance that it never answered, as TALLY_DTYPE."""
        return _tally(&self.plane.unanswered)

    @property
    def refused(self):
        """``(rows, others)``: allowed connections to an instance that it refused, as TALLY_DTYPE."""
        return _tally(&self.plane.refused)

    @property
    def broken(self):
        """``(rows, others)``: connections that were denied though the other end answered them, as TALLY_DTYPE.

        ``instance`` is whose filter denied it.
        """
        return _tally(&self.plane.broken)

    @property
    def cuts(self):
        """``(rows, untold)``: what became of connections that changes cut, as CUT_DTYPE (``core/cuts.pxd``)."""
        cdef Cuts* cuts = &self.plane.cuts
        return _rows(<const uint8_t*>cuts.rows, cuts.count * sizeof(CutRow), CUT_DTYPE), cuts.untold

    @property
    def rule_counts(self):
        """Structured array by rule number: connections, packets, bytes."""
        return _rows(
            <const uint8_t*>self.plane.rule_counts, self.classifier.rule_count * sizeof(RuleCount), _RULE_COUNT
        )

    @property
    def counters(self):
        """Everything counted, by name; verdicts and reasons as lists by their number."""
        cdef Plane* plane = &self.plane
        cdef int i
        return {
            "packets": plane.packets,
            "bytes": plane.bytes,
            "verdicts": [plane.verdicts[i] for i in range(VERDICT_COUNT)],
            "reasons": [plane.reasons[i] for i in range(REASON_COUNT)],
            "opened": plane.opened,
            "inferred": plane.inferred,
            "denied": plane.denied,
            "disconnected": plane.disconnected,
            "changes": plane.changes,
            "late": plane.clock.late,
            "restarts": plane.clock.restarts,
            "later_fragments": plane.later_fragments,
            "first_ns": plane.clock.earliest if plane.clock.started else None,
            "last_ns": max(plane.clock.latest, plane.clock.raw) if plane.clock.started else None,
            "clock_ns": plane.clock.now if plane.clock.started else None,
            "live_tuples": plane.table.live,
            "entries": plane.table.used,
            "evicted": plane.table.evicted,
            "moot_evicted": plane.table.moot_evicted,
            "lost_flows": plane.table.ended_lost + plane.attempts.ended_lost,
            "table_bytes": plane.table.slab.nbytes + (<uint64_t>plane.table.bucket_mask + 1) * 64,
        }
