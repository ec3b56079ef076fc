"""The data plane's loop over batches, and what Python sees of it. How it is built: ``dataplane.pxd``.

What was judged is told by ``accounting.pyx``.
"""

import os

import numpy as np

cimport cython
from cpython.pythread cimport (
    NOWAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    WAIT_LOCK,
)
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

from sgfast.core.base.clock cimport CLOCK_END, MAX_LATE_NS, tell_time
from sgfast.core.base.frames cimport FrameBatch
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.base.types cimport TABLE_FULL
from sgfast.core.conntrack.lifetime cimport end_expired
from sgfast.core.conntrack.states cimport TCP_ESTABLISHED
from sgfast.core.conntrack.storage cimport Entry
from sgfast.core.conntrack.table cimport Table, has_place
from sgfast.core.conntrack.timer_wheel cimport tick_of
from sgfast.core.dtypes cimport copied_rows
from sgfast.core.fragments.datagrams cimport NO_DATAGRAM, ResolvedRow, free_fragments, init_fragments
from sgfast.core.parallel.workers cimport MOST_JOBS
from sgfast.core.pipeline.batch cimport (
    BATCH,
    free_plane,
    judge_batch,
    make_plane,
    prefetch_line,
    resolve_datagram,
    resolve_overdue,
    sweep_all,
    tally_ended,
)
from sgfast.core.pipeline.plane cimport MAX_ATTEMPTS, RuleCount
from sgfast.core.update.policy_change cimport Cut, change_tables
from sgfast.core.wire.header_rows cimport read_header, spell_header
from sgfast.core.wire.ip cimport read_frame

from sgfast.core.dtypes import HEADER_DTYPE, RESOLVED_DTYPE, RESULT_DTYPE


cdef bint is_brief(DataPlane plane, int64_t time_ns) noexcept nogil:
    # Whether a packet of this time is judged within a few cache misses: no other thread does it, the table neither
    # gives back what ended, nor makes room, nor grows, and nothing is tallied.
    cdef Clock clock = plane.clock
    cdef const Table* t = &plane.planes[0].table
    if plane.jobs > 1 or not clock.started or plane.planes[0].reporting:
        return False
    tell_time(&clock, time_ns)
    return tick_of(clock.now) == t.wheel.tick and has_place(t)


cdef enum:
    # Packets that are dealt out, when a table is full, before it is looked at again.
    ROOM_WHEN_FULL = 4096


cdef inline uint64_t room_of(uint64_t used, uint64_t most, bint over) noexcept nogil:
    # At the limit a packet may still find room, as something ends in time; until something did not, each is asked for.
    if used < most:
        return most - used
    return ROOM_WHEN_FULL if over else 1


cdef Packet laid_out
assert <char*>&laid_out.key.addr[1] - <char*>&laid_out == 64    # what is asked of most packets is one line (types.pxd)

ENTRY_BYTES = sizeof(Entry)
#: Threads that may judge together.
MAX_JOBS = <int>MOST_JOBS
NONE_RESOLVED = np.zeros(0, dtype=RESOLVED_DTYPE)


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


@cython.no_gc_clear
cdef class DataPlane:
    """The engine's C half: a classifier, a connection table, a clock; or a table for each of several workers.

    ``timeouts_ns``: (tcp_established, tcp_fin_wait, tcp_other, icmp, bidirectional, unidirectional), nanoseconds.
    ``midstream``: 0 deny, 1 infer, 2 allow. ``keep_flows``: every ended tuple becomes a row, and takes memory until it
    is taken (``AccountingPlane.take_flows``).
    ``reporting``: tallies of what was denied or unanswered, and attempts told apart from retries. ``secret``: 8 words
    that key the hash; random by default. ``jobs``: how many threads judge (``workers.pxd``); MemoryError if they
    cannot be started.

    Calls may come from any thread; a lock is held while packets are judged, and the GIL is released but for a single
    packet that is judged at once.
    """

    def __cinit__(
        self, Classifier classifier not None, *, bint causal=False, int midstream=0, timeouts_ns not None,
        uint32_t max_connections=4000000, bint exempt=True, bint keep_flows=False, bint reporting=False, secret=None,
        int jobs=1
    ):
        cdef int i
        if not 0 <= midstream <= 2 or not 1 <= max_connections < 0x80000000:
            raise ValueError("an option is out of range")
        if not 1 <= jobs <= MOST_JOBS:
            raise ValueError(f"jobs is 1 to {<int>MOST_JOBS}, not {jobs}")
        words = [int.from_bytes(os.urandom(8), "little") for _ in range(8)] if secret is None else list(secret)
        if len(words) != 8 or not all(isinstance(word, int) and 0 <= word < 1 << 64 for word in words):
            raise ValueError("the hash is keyed by eight integers of 64 bits")
        self.jobs = jobs
        self.max_connections = max_connections
        self.lock = PyThread_allocate_lock()
        self.packets = <Packet*>allocate_pages(BATCH * sizeof(Packet))
        self.plane_count = 1 if jobs == 1 else 2 * jobs
        self.planes = <Plane**>calloc(self.plane_count, sizeof(Plane*))
        self.now = <int64_t*>calloc(BATCH, sizeof(int64_t))
        self.classifier = classifier
        self.fragments = <Fragments*>malloc(sizeof(Fragments))
        if (
            self.lock == NULL or self.packets == NULL or self.planes == NULL or self.now == NULL
            or self.fragments == NULL
        ):
            raise MemoryError
        init_fragments(self.fragments)
        if jobs > 1:
            self.workers = Workers(jobs)
        for i in range(self.plane_count):
            self.planes[i] = self.workers.shards[i].plane if jobs > 1 else <Plane*>calloc(1, sizeof(Plane))
            if self.planes[i] == NULL:
                raise MemoryError
            make_plane(
                self.planes[i], classifier, causal, midstream, timeouts_ns, max_connections, exempt, keep_flows,
                reporting, words
            )
            self.planes[i].fragments = self.fragments
        self.most_marks = self.planes[0].table.max_marks

    def __dealloc__(self):
        if self.workers is not None:
            with nogil:
                self.workers.retire()       # its planes end with it
        elif self.planes != NULL and self.planes[0] != NULL:
            free_plane(self.planes[0])
            free(self.planes[0])
        free(self.planes)
        free(self.packets)
        free(self.now)
        if self.fragments != NULL:
            free_fragments(self.fragments)
        free(self.fragments)
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

    cdef void judge_frames(self, const Frame* frames, Py_ssize_t n, ResultRow* results) noexcept nogil:
        cdef Wanted wanted = Wanted(results, NULL, NULL)
        self.judge(frames, NULL, n, &wanted)

    cdef void judge_headers(self, const HeaderRow* rows, Py_ssize_t n, ResultRow* results) noexcept nogil:
        cdef Wanted wanted = Wanted(results, NULL, NULL)
        self.judge(NULL, rows, n, &wanted)

    cdef void judge(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, const Wanted* wanted
    ) noexcept nogil:
        PyThread_acquire_lock(self.lock, WAIT_LOCK)
        if n > 0 and not self.clock.started:
            self.start_clock(frames.time_ns if frames != NULL else rows.time_ns)
        self.fragments.wanted = wanted.results != NULL or wanted.words != NULL
        if self.jobs == 1:
            self.judge_here(frames, rows, n, wanted)
        else:
            self.deal_out(frames, rows, n, wanted)
        PyThread_release_lock(self.lock)

    cdef void judge_one(self, const HeaderRow* header, ResultRow* row) noexcept:
        # To give the GIL up and get it back takes as long as judging a packet, longer where another thread wants it.
        # So it is kept where neither the lock nor the packet makes anybody wait. Nobody may wait for the lock with the
        # GIL: who has the lock may want the GIL (save_plane).
        cdef bint judged = False
        cdef Wanted wanted = Wanted(row, NULL, NULL)
        if PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            if is_brief(self, header.time_ns):
                self.judge_here(NULL, header, 1, &wanted)
                judged = True
            PyThread_release_lock(self.lock)
        if not judged:
            with nogil:
                self.judge_headers(header, 1, row)

    cdef void start_clock(self, int64_t time_ns) noexcept nogil:
        # With the first packet a time begins in which connections are taken to be older than the capture (SPEC 9.3).
        cdef Plane* plane
        cdef int i
        tell_time(&self.clock, time_ns)
        for i in range(self.plane_count):
            plane = self.planes[i]
            plane.window_end = self.clock.now + plane.timeout[TCP_ESTABLISHED]
            plane.table.marks_until = plane.window_end

    cdef void judge_here(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, const Wanted* wanted
    ) noexcept nogil:
        cdef Plane* plane = self.planes[0]
        cdef ResultRow* results = wanted.results
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t size, i
        plane.want_sides = results != NULL
        while start < n:
            size = min(n - start, <Py_ssize_t>BATCH)
            if frames != NULL:
                for i in range(size):
                    read_frame(&plane.wire, &frames[start + i], &self.packets[i])
                    tell_time(&self.clock, self.packets[i].time_ns)
                    self.now[i] = self.clock.now
                    prefetch_line(plane, &self.packets[i])
            else:
                for i in range(size):
                    read_header(&plane.wire, &rows[start + i], &self.packets[i])
                    tell_time(&self.clock, self.packets[i].time_ns)
                    self.now[i] = self.clock.now
                    prefetch_line(plane, &self.packets[i])
            judge_batch(
                plane, self.packets, self.now, NULL, self.judged + 1, size,
                &results[start] if results != NULL else NULL, &wanted.words[start] if wanted.words != NULL else NULL
            )
            self.judged += size
            if wanted.headers != NULL:
                for i in range(size):
                    spell_header(&self.packets[i], &wanted.headers[start + i])
            start += size
        tally_ended(plane)

    cdef void deal_out(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, const Wanted* wanted
    ) noexcept nogil:
        # What becomes of the packets is known when the workers are drained, but for those that want to know now.
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t some
        cdef bint borrowed = False
        cdef bint told = wanted.results != NULL or wanted.words != NULL
        if told:
            self.drain()
            self.workers.rows = wanted.results
            self.workers.words = wanted.words
            self.workers.first = self.judged + 1
        while start < n:
            if self.room == 0:
                self.grant_room(frames[start].time_ns if frames != NULL else rows[start].time_ns)
            some = <Py_ssize_t>min(<uint64_t>(n - start), self.room)
            borrowed |= self.workers.deal(
                &frames[start] if frames != NULL else NULL, &rows[start] if rows != NULL else NULL, some, &self.clock,
                self.judged + 1, &wanted.headers[start] if wanted.headers != NULL else NULL
            )
            self.judged += some
            self.room -= some
            start += some
        # An ICMP error's quote is in the frame, which the caller may use for another one.
        if told or self.planes[0].table.keep_flows or borrowed:
            self.drain()
            self.workers.rows = NULL
            self.workers.words = NULL

    cdef void drain(self) noexcept nogil:
        # Under the lock: everything is judged, and known as far as the last packet.
        cdef Plane* plane
        cdef int i
        if self.workers is None:
            return
        self.workers.drain()
        for i in range(self.plane_count):
            plane = self.planes[i]
            if not self.clock.started:
                continue
            # What ended by then is told of now, not when the shard's next packet comes.
            sweep_all(plane, self.clock.now)
            tally_ended(plane)

    cdef void hold(self):
        # For whoever wants to know what is known: it stays so until `let_go`. (Who waits for the lock has no GIL.)
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.drain()

    cdef void let_go(self):
        PyThread_release_lock(self.lock)

    cdef void grant_room(self, int64_t time_ns) noexcept nogil:
        # How many packets may be judged, the next one being of that time, before it could matter that a limit is of all
        # tables together (SPEC 5.8): each packet adds at most one tuple, attempt or mark.
        cdef Clock clock = self.clock
        cdef uint64_t tuples = 0
        cdef uint64_t attempts = 0
        cdef uint64_t marks = 0
        cdef bint over = False
        cdef Plane* plane
        cdef int i
        self.drain()
        tell_time(&clock, time_ns)
        for i in range(self.plane_count):
            plane = self.planes[i]
            tuples += plane.table.live
            attempts += plane.attempts.live
            marks += plane.table.mark_count
            over |= plane.table.evicted or plane.table.moot_evicted or plane.reasons[TABLE_FULL]
            over |= plane.attempts.evicted or plane.attempts.moot_evicted
        if tuples >= self.max_connections or attempts >= MAX_ATTEMPTS:
            # What ended by then does not count, though its tick is not over.
            tuples = 0
            attempts = 0
            for i in range(self.plane_count):
                plane = self.planes[i]
                sweep_all(plane, clock.now)
                end_expired(&plane.table, clock.now)
                end_expired(&plane.attempts, clock.now)
                tuples += plane.table.live
                attempts += plane.attempts.live
        for i in range(self.plane_count):
            # Where a limit is reached, each table keeps what it has: who has to go for a new tuple is up to each shard.
            plane = self.planes[i]
            plane.table.max_live = self.max_connections if tuples < self.max_connections else plane.table.live
            plane.attempts.max_live = <uint32_t>MAX_ATTEMPTS if attempts < MAX_ATTEMPTS else plane.attempts.live
            plane.table.max_marks = self.most_marks if marks < self.most_marks else plane.table.mark_count
        self.room = min(room_of(tuples, self.max_connections, over), room_of(attempts, MAX_ATTEMPTS, over))
        if self.planes[0].table.keep_marks:
            self.room = min(self.room, room_of(marks, self.most_marks, True))

    def frames_before(self, FrameBatch batch not None, Py_ssize_t first, int64_t at_ns):
        """How many frames from ``first`` on come before ``at_ns`` on the clock (SPEC 9.1), which does not move."""
        cdef Py_ssize_t i
        cdef Clock clock
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            clock = self.clock
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

    def begin(self, int64_t time_ns):
        """Lets time begin then, unless it has: packets that are judged elsewhere came before (SPEC 9.3)."""
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            if not self.clock.started:
                self.start_clock(time_ns)
            PyThread_release_lock(self.lock)

    def advance(self, int64_t now_ns):
        """Lets it be ``now_ns``, unless it is later: packets that are judged elsewhere came since the last one."""
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.clock.now = max(self.clock.now, now_ns)
            PyThread_release_lock(self.lock)

    def process_frames(
        self, FrameBatch batch not None, results=None, headers=None, Py_ssize_t first=0, Py_ssize_t number=-1,
        words=None
    ):
        """Judges a batch of frames in order, or ``number`` of them from ``first`` on.

        ``results``, ``headers``: arrays of RESULT_DTYPE and HEADER_DTYPE to fill from their beginning, at least as long
        as the frames judged, or None. ValueError when they are not. ``words``: likewise, uint16, for outcome words
        (``types.pxd``).
        """
        cdef Py_ssize_t n = batch.count - first if number < 0 else number
        cdef Wanted wanted = Wanted(NULL, NULL, NULL)
        cdef uint8_t[::1] view
        cdef uint16_t[::1] word_view
        cdef const Frame* frames = batch.frames + first
        if first < 0 or n < 0 or n > batch.count - first:
            raise ValueError("no such frames")
        if results is not None:
            wanted.results = self.result_rows(results, n)
        if headers is not None and n:
            if headers.dtype != HEADER_DTYPE or not headers.flags.c_contiguous or len(headers) < n:
                raise ValueError("headers must be a contiguous array of HEADER_DTYPE, one row a packet")
            view = headers.view(np.uint8).reshape(-1)
            wanted.headers = <HeaderRow*>&view[0]
        if words is not None and n:
            word_view = words
            if word_view.shape[0] < n:
                raise ValueError("words must be a contiguous array of uint16, one a packet")
            wanted.words = &word_view[0]
        with nogil:
            self.judge(frames, NULL, n, &wanted)

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
        cdef Py_ssize_t before = self.classifier.rule_count
        cdef uint64_t disconnected = 0
        cdef bint grown
        cdef int i
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
            self.drain()
            grown = self.grow_counts(before, classifier.rule_count)
            if grown:
                # Nobody waits any more for what was overdue by then, and that is said by the old policy.
                resolve_overdue(self.planes[0], now_ns, self.judged + self.elsewhere)
                for i in range(self.plane_count):
                    disconnected += change_tables(self.planes[i], &classifier.tables, &cut)
                    tally_ended(self.planes[i])
            PyThread_release_lock(self.lock)
        if not grown:
            raise MemoryError
        # Only now: the walk still asked the old one. Nobody else changes it: Engine takes changes one after the other.
        old = self.classifier
        self.classifier = classifier
        del old
        return disconnected

    cdef bint grow_counts(self, Py_ssize_t before, Py_ssize_t rules) noexcept nogil:
        # All of them, or none is used: False, there is no memory.
        cdef RuleCount* counts
        cdef int i
        for i in range(self.plane_count):
            counts = <RuleCount*>realloc(self.planes[i].rule_counts, (rules + 1) * sizeof(RuleCount))
            if counts == NULL:
                return False
            self.planes[i].rule_counts = counts
            memset(&counts[before], 0, (rules + 1 - before) * sizeof(RuleCount))
        return True

    @property
    def connections(self):
        """How many there are, including those whose time is up and that were not missed yet."""
        cdef int i
        self.hold()
        try:
            return sum([self.planes[i].table.live for i in range(self.plane_count)])
        finally:
            self.let_go()

    def take_resolved(self, *, bint everything=False):
        """Packets since the last call whose result was PENDING, and no longer is, as RESOLVED_DTYPE, by number.

        ``everything``: the captures are over, none waits any more.
        """
        cdef Fragments* f = self.fragments
        cdef ResolvedRow* rows
        cdef Py_ssize_t count
        # Only taken away under the lock: making arrays may run Python code, and another thread with it.
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            if f.oldest[0] != NO_DATAGRAM:
                self.drain()
                resolve_overdue(self.planes[0], self.clock.now, self.judged + self.elsewhere + 1)
            if everything:
                self.end_waiting()
            rows = f.resolved
            count = f.resolved_count
            f.resolved = NULL
            f.resolved_count = 0
            f.resolved_capacity = 0
            PyThread_release_lock(self.lock)
        if count == 0:
            free(rows)
            return NONE_RESOLVED
        try:
            found = copied_rows(<const uint8_t*>rows, count * sizeof(ResolvedRow), RESOLVED_DTYPE)
        finally:
            free(rows)
        return found[np.argsort(found["number"], kind="stable")]

    cdef void end_waiting(self) noexcept nogil:
        # Under the lock: no fragment waits any more.
        if self.fragments.oldest[1] != NO_DATAGRAM:
            self.drain()
        while self.fragments.oldest[1] != NO_DATAGRAM:
            resolve_datagram(self.planes[0], self.fragments.oldest[1], self.clock.now)
