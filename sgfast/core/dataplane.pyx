"""The data plane's loop over batches, and its Python interface. ``dataplane.pxd`` explains the design.

``accounting.pyx`` reports the results of judging.
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
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

from sgfast.core.base.clock cimport Run, advance_clock, begin_run, earlier_than, end_run, time_of
from sgfast.core.base.frames cimport FrameBatch, is_of_record
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.conntrack.events cimport MAX_EVENTS
from sgfast.core.conntrack.lifetime cimport end_expired
from sgfast.core.conntrack.states cimport TCP_ESTABLISHED
from sgfast.core.conntrack.storage cimport Entry, FlowRecord
from sgfast.core.conntrack.table cimport Table, has_place
from sgfast.core.conntrack.timer_wheel cimport tick_of
from sgfast.core.dtypes cimport bytes_of_rows, copied_rows
from sgfast.core.fragments.datagrams cimport NO_DATAGRAM, ResolvedRow, free_fragments, init_fragments
from sgfast.core.parallel.parsing cimport MOST_JOBS
from sgfast.core.parallel.shared_limits cimport share_room
from sgfast.core.parallel.workers cimport PLACES
from sgfast.core.pipeline.apart cimport judge_apart
from sgfast.core.pipeline.batch cimport (
    BATCH,
    free_plane,
    guess_batch,
    judge_batch,
    make_plane,
    prefetch_line,
    resolve_datagram,
    resolve_overdue,
    sweep_all,
    tally_ended,
)
from sgfast.core.pipeline.fast_path cimport close_fast_path
from sgfast.core.pipeline.plane cimport RuleCount
from sgfast.core.tallies.tally cimport TALLIES
from sgfast.core.update.policy_change cimport Cut, Cutting, change_tables
from sgfast.core.wire.header_rows cimport read_header, write_header_row
from sgfast.core.wire.ip cimport INFRASTRUCTURE_COUNT, read_frame

from sgfast.core.dtypes import HEADER_DTYPE, RESOLVED_DTYPE, RESULT_DTYPE


cdef bint is_brief(DataPlane plane, int64_t time_ns) noexcept nogil:
    # Whether judging a packet of this time takes only a few cache misses: no other thread is involved, the table
    # neither frees ended tuples, nor evicts any, nor grows, and nothing is tallied. The caller must hold the lock.
    cdef Clock clock = plane.clock
    cdef const Table* t = &plane.planes[0].table
    if plane.jobs > 1 or not clock.started or plane.planes[0].keeps_attempts:
        return False
    advance_clock(&clock, time_ns)
    return tick_of(clock.now) == t.wheel.tick and has_place(t)


cdef Packet laid_out
assert <char*>&laid_out.key.addr[1] - <char*>&laid_out == 64    # most packets need only one cache line (types.pxd)

ENTRY_BYTES = sizeof(Entry)
FLOW_RECORD_BYTES = sizeof(FlowRecord)
#: The largest number of threads that judge together.
MAX_JOBS = <int>MOST_JOBS
NONE_RESOLVED = np.zeros(0, dtype=RESOLVED_DTYPE)


# Workers use the classifier and the arrays of results until `__dealloc__` ends the workers. If a data plane were in a
# cycle of references, the garbage collector would clear the classifier and the arrays while workers still use them. So
# the collector does not track data planes. This leaks nothing: no object in a data plane can refer back to it.
@cython.no_gc
cdef class DataPlane:
    """The engine's C half: a classifier, a clock, and a connection table, or one table for each shard of several
    workers.

    ``timeouts_ns``: (tcp_established, tcp_fin_wait, tcp_other, icmp, bidirectional, unidirectional), nanoseconds.
    ``midstream``: 0 deny, 1 infer, 2 allow. ``infrastructure``: 0 filtered, 1 exempt, 2 by-role. ``keep_flows``: every
    ended tuple becomes a row, which takes memory until it is taken (``AccountingPlane.take_flows``). ``reporting``:
    tally denied and unanswered traffic, and tell retries from new attempts. ``events``: list what happens to
    connections (``AccountingPlane.take_events``). ``secret``: 8 words that key the hash; random by default. ``jobs``:
    the number of threads that judge (``workers.pxd``); MemoryError if they cannot be started.

    Calls may come from any thread. A lock is held while packets are judged. The GIL is released, except for a single
    packet that is judged at once.
    """

    def __cinit__(
        self, Classifier classifier not None, *, bint causal=False, int midstream=0, timeouts_ns not None,
        uint32_t max_connections=4000000, int infrastructure=1, bint keep_flows=False, bint reporting=False,
        bint events=False, secret=None, int jobs=1
    ):
        cdef int i, tally
        if (
            not 0 <= midstream <= 2 or not 1 <= max_connections < 0x80000000
            or not 0 <= infrastructure < INFRASTRUCTURE_COUNT
        ):
            raise ValueError("an option is out of range")
        if not 1 <= jobs <= MOST_JOBS:
            raise ValueError(f"jobs is 1 to {<int>MOST_JOBS}, not {jobs}")
        words = [int.from_bytes(os.urandom(8), "little") for _ in range(8)] if secret is None else list(secret)
        if len(words) != 8 or not all(isinstance(word, int) and 0 <= word < 1 << 64 for word in words):
            raise ValueError("the hash is keyed by eight integers of 64 bits")
        self.jobs = jobs
        self.max_connections = max_connections
        self.lock = PyThread_allocate_lock()
        self.packets[0] = <Packet*>allocate_pages(2 * BATCH * sizeof(Packet))
        self.packets[1] = self.packets[0] + BATCH
        self.plane_count = 1 if jobs == 1 else 2 * jobs
        self.planes = <Plane**>calloc(self.plane_count, sizeof(Plane*))
        self.now[0] = <int64_t*>calloc(2 * BATCH, sizeof(int64_t))
        self.now[1] = self.now[0] + BATCH
        self.classifier = classifier
        self.fragments = <Fragments*>malloc(sizeof(Fragments))
        if (
            self.lock == NULL or self.packets[0] == NULL or self.planes == NULL or self.now[0] == NULL
            or self.fragments == NULL
        ):
            raise MemoryError
        init_fragments(self.fragments)
        if jobs > 1:
            self.workers = Workers(jobs)
            self.kept = [None] * PLACES
            self.filled_later = []
        for i in range(self.plane_count):
            self.planes[i] = self.workers.shards[i].plane if jobs > 1 else <Plane*>calloc(1, sizeof(Plane))
            if self.planes[i] == NULL:
                raise MemoryError
            make_plane(
                self.planes[i], classifier, causal, midstream, timeouts_ns, max_connections, <uint8_t>infrastructure,
                keep_flows, reporting, MAX_EVENTS // self.plane_count if events else 0, words
            )
            self.planes[i].fragments = self.fragments
            for tally in range(TALLIES):
                self.planes[i].tallies[tally].beside_others = jobs > 1
        if jobs > 1:
            self.workers.parser.wire = self.planes[0].wire
        self.max_marks = self.planes[0].table.max_marks

    def __dealloc__(self):
        if self.workers is not None:
            with nogil:
                self.workers.retire()       # this frees the planes, too
        elif self.planes != NULL and self.planes[0] != NULL:
            free_plane(self.planes[0])
            free(self.planes[0])
        free(self.planes)
        free(self.packets[0])
        free(self.now[0])
        if self.fragments != NULL:
            free_fragments(self.fragments)
        free(self.fragments)
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef ResultRow* result_rows(self, results, Py_ssize_t n) except? NULL:
        return <ResultRow*>bytes_of_rows(
            results, RESULT_DTYPE, n, "results must be a contiguous array of RESULT_DTYPE, one row a packet"
        )

    cdef void judge_frames(self, const Frame* frames, Py_ssize_t n, ResultRow* results) noexcept nogil:
        cdef Outputs outputs = Outputs(results, NULL, NULL, False, NULL)
        self.release(self.judge(frames, NULL, n, &outputs))

    cdef void judge_headers(self, const HeaderRow* rows, Py_ssize_t n, ResultRow* results) noexcept nogil:
        cdef Outputs outputs = Outputs(results, NULL, NULL, False, NULL)
        self.release(self.judge(NULL, rows, n, &outputs))

    cdef uint64_t judge(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, const Outputs* outputs
    ) noexcept nogil:
        cdef uint64_t blocks = 0
        PyThread_acquire_lock(self.lock, WAIT_LOCK)
        if n > 0 and not self.clock.started:
            self.start_clock(frames.time_ns if frames != NULL else rows.time_ns)
        if self.jobs == 1:
            self.fragments.wanted = outputs.results != NULL or outputs.words != NULL
            self.judge_here(frames, rows, n, outputs)
        else:
            self.dispatch(frames, rows, n, outputs)
            blocks = self.workers.published[0]
        PyThread_release_lock(self.lock)
        return blocks

    cdef void release(self, uint64_t blocks) noexcept nogil:
        # Waits until no frame in these blocks is needed.
        if self.workers is not None:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.workers.release(blocks)
            PyThread_release_lock(self.lock)

    cdef int keep(self, FrameBatch batch, uint64_t blocks) except -1:
        # Keeps a batch until its frames, of which the last are in block `blocks`, are not needed any more. If the batch
        # may be filled again, waits until its frames are not needed.
        cdef uint64_t released
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            if not batch.lasting:
                self.workers.release(blocks)
            released = self.workers.all_released()
            PyThread_release_lock(self.lock)
        while self.let_go < released:
            self.kept[self.let_go % PLACES] = None
            self.let_go += 1
        if blocks > released:
            self.kept[(blocks - 1) % PLACES] = batch
        return 0

    cdef void judge_one(self, const HeaderRow* header, ResultRow* row) noexcept:
        # Releasing and retaking the GIL takes as long as judging a packet, and longer if another thread wants the GIL.
        # So the GIL is kept if the lock is free and the packet does not take long. No thread may wait for the lock
        # while holding the GIL: the thread that holds the lock may need the GIL (save_plane).
        cdef bint judged = False
        cdef Outputs outputs = Outputs(row, NULL, NULL, False, NULL)
        if PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            if is_brief(self, header.time_ns):
                self.judge_here(NULL, header, 1, &outputs)
                judged = True
            PyThread_release_lock(self.lock)
        if not judged:
            with nogil:
                self.judge_headers(header, 1, row)

    cdef void start_clock(self, int64_t time_ns) noexcept nogil:
        # The first packet starts the period in which connections may be older than the capture (SPEC 9.3).
        cdef Plane* plane
        cdef int i
        advance_clock(&self.clock, time_ns)
        for i in range(self.plane_count):
            plane = self.planes[i]
            plane.window_end = self.clock.now + plane.timeout[TCP_ESTABLISHED]
            plane.table.marks_until = plane.window_end

    cdef void judge_here(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, const Outputs* outputs
    ) noexcept nogil:
        # While a batch is judged, the cache lines for the next batch are being loaded.
        cdef Plane* plane = self.planes[0]
        cdef ResultRow* results = outputs.results
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t size, following, i
        cdef int half = 0
        plane.want_sides = results != NULL
        size = self.read_batch(frames, rows, 0, n, 0)
        guess_batch(plane, self.packets[0], size)
        while size > 0:
            following = self.read_batch(frames, rows, start + size, n, 1 - half)
            judge_batch(
                plane, self.packets[half], self.now[half], NULL, self.judged + 1, size,
                &results[start] if results != NULL else NULL, &outputs.words[start] if outputs.words != NULL else NULL
            )
            self.judged += size
            if outputs.headers != NULL:
                for i in range(size):
                    write_header_row(&self.packets[half][i], &outputs.headers[start + i])
            start += size
            half = 1 - half
            size = following
            guess_batch(plane, self.packets[half], size)
        tally_ended(plane)

    cdef Py_ssize_t read_batch(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t start, Py_ssize_t n, int which
    ) noexcept nogil:
        # Reads the headers of the next batch, which begins with packet `start`. Returns the number of packets in the
        # batch. There are two loops, because a branch in a common loop costs 2 % of a packet's time.
        cdef Run run
        cdef Plane* plane = self.planes[0]
        cdef Packet* packets = self.packets[which]
        cdef int64_t* now = self.now[which]
        cdef Py_ssize_t size = min(n - start, <Py_ssize_t>BATCH)
        cdef Py_ssize_t i
        begin_run(&self.clock, &run)
        if frames != NULL:
            for i in range(size):
                read_frame(&plane.wire, &frames[start + i], &packets[i])
                prefetch_line(plane, &packets[i])
                now[i] = time_of(&self.clock, &run, packets[i].time_ns)
        else:
            for i in range(size):
                read_header(&plane.wire, &rows[start + i], &packets[i])
                prefetch_line(plane, &packets[i])
                now[i] = time_of(&self.clock, &run, packets[i].time_ns)
        end_run(&self.clock, &run)
        return size

    cdef void dispatch(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, const Outputs* outputs
    ) noexcept nogil:
        # Results are complete when the workers are drained. If the caller wants no results, or wants them later, a
        # later call drains the workers.
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t count
        cdef bint wants_results = outputs.results != NULL or outputs.words != NULL
        cdef bint wants_rows = wants_results or outputs.headers != NULL
        if wants_rows or self.outstanding:
            self.drain()
            self.outstanding = wants_rows and outputs.later
            self.workers.rows = outputs.results
            self.workers.words = outputs.words
            self.workers.first = self.judged + 1
        if self.fragments.wanted != wants_results:
            # The workers are idle, so none of them reads `outputs` now. Either this or the last call wants results.
            self.fragments.wanted = wants_results
        while start < n:
            if self.room == 0:
                self.grant_room(frames[start].time_ns if frames != NULL else rows[start].time_ns)
            count = <Py_ssize_t>min(<uint64_t>(n - start), self.room)
            self.workers.add(
                &frames[start] if frames != NULL else NULL, outputs.prepared,
                &rows[start] if rows != NULL else NULL, count, &self.clock,
                self.judged + 1, &outputs.headers[start] if outputs.headers != NULL else NULL
            )
            self.judged += count
            self.room -= count
            start += count
        if wants_rows and not outputs.later:
            self.drain()
            self.workers.rows = NULL
            self.workers.words = NULL

    cdef void drain(self) noexcept nogil:
        # Judges and counts all queued packets, and brings all planes up to the last packet's time. The caller must hold
        # the lock.
        cdef Plane* plane
        cdef int i
        if self.workers is None:
            tally_ended(self.planes[0])
            return
        self.workers.drain()
        for i in range(self.plane_count):
            plane = self.planes[i]
            if not self.clock.started:
                continue
            # Connections that have ended by now are reported at once, not when the shard's next packet comes.
            sweep_all(plane, self.clock.now)
            tally_ended(plane)

    cdef void catch_up(self) noexcept nogil:
        # If events are wanted, ends all connections whose deadlines have come, even in the wheel's current tick.
        # Before the call, the lock must be held and the workers must be drained.
        cdef int i
        for i in range(self.plane_count if self.clock.started and self.planes[0].table.events != NULL else 0):
            sweep_all(self.planes[i], self.clock.now)
            end_expired(&self.planes[i].table, self.clock.now)

    cdef void lock_drained(self):
        # Takes the lock, without the GIL, and drains the workers. The state does not change until `unlock`.
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.drain()

    cdef void unlock(self):
        PyThread_release_lock(self.lock)

    cdef void grant_room(self, int64_t time_ns) noexcept nogil:
        # Sets `room`. `time_ns`: timestamp of the next packet.
        cdef Clock clock = self.clock
        self.drain()
        advance_clock(&clock, time_ns)
        self.room = share_room(self.planes, self.plane_count, clock.now, self.max_connections, self.max_marks)

    @property
    def file_reads(self):
        """The file reads that idle threads do, or None with one job."""
        return self.workers.reads if self.workers is not None else None

    def frames_before(self, FrameBatch batch not None, Py_ssize_t first, int64_t at_ns):
        """Count the frames from ``first`` on before engine time ``at_ns`` (SPEC 9.1). The clock does not move."""
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
            advance_clock(&clock, batch.frames[i].time_ns)
            if clock.now >= at_ns:
                return i - first
        return max(batch.count - first, 0)

    def begin(self, int64_t time_ns):
        """Start the clock at ``time_ns`` unless it runs: other engines judged earlier packets (SPEC 9.3)."""
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            if not self.clock.started:
                self.start_clock(time_ns)
            PyThread_release_lock(self.lock)

    def advance(self, int64_t now_ns):
        """Move the clock up to ``now_ns`` unless it is later: other engines judged packets since this engine's last
        one.
        """
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.clock.now = max(self.clock.now, now_ns)
            PyThread_release_lock(self.lock)

    def process_frames(
        self, FrameBatch batch not None, results=None, headers=None, Py_ssize_t first=0, Py_ssize_t number=-1,
        words=None, *, bint later=False
    ):
        """Judge the frames of a batch in order, or ``number`` of them from ``first`` on.

        ``results``, ``headers``, ``words``: None, or arrays of RESULT_DTYPE, of HEADER_DTYPE and of uint16 for result
        words (``types.pxd``). They are filled from index 0 on. ValueError if an array is shorter than the number of
        frames to judge. ``later``: with several jobs, the workers may fill the arrays after the call, until
        ``take_resolved`` or the next call. Use it from one thread only.
        """
        cdef Py_ssize_t n = batch.count - first if number < 0 else number
        cdef Outputs outputs = Outputs(NULL, NULL, NULL, later, NULL)
        cdef uint16_t[::1] word_view
        cdef const Frame* frames = batch.frames + first
        cdef uint64_t blocks
        if first < 0 or n < 0 or n > batch.count - first:
            raise ValueError("no such frames")
        self.check_frames(frames, n)
        if results is not None:
            outputs.results = self.result_rows(results, n)
        if headers is not None and n:
            outputs.headers = <HeaderRow*>bytes_of_rows(
                headers, HEADER_DTYPE, n, "headers must be a contiguous array of HEADER_DTYPE, one row a packet"
            )
        if words is not None and n:
            word_view = words
            if word_view.shape[0] < n:
                raise ValueError("words must be a contiguous array of uint16, one a packet")
            outputs.words = &word_view[0]
        if self.workers is not None and batch.prepared_for is self.workers.reads:
            outputs.prepared = <Prepared*>batch.prepared
        if later and self.workers is not None:
            self.filled_later.append((results, headers, words))
        with nogil:
            blocks = self.judge(frames, NULL, n, &outputs)
        if self.workers is not None and n > 0:
            self.keep(batch, blocks)

    def close_fast_path(self):
        """Send all later packets through the whole pipeline, which gives the same results."""
        for i in range(self.plane_count):
            close_fast_path(self.planes[i])

    def weigh(self):
        """Let each frame count as what its record says (``LINK_RECORD``): all later frames must be of flow logs."""
        for i in range(self.plane_count):
            self.planes[i].weighs = True
        self.close_fast_path()

    cdef int check_frames(self, const Frame* frames, Py_ssize_t n) except -1:
        # Raises ValueError unless all frames are of flow logs, if they are to be weighed.
        cdef Py_ssize_t i
        for i in range(n if self.planes[0].weighs else 0):
            if not is_of_record(&frames[i]):
                raise ValueError("the frames must be of flow logs")
        return 0

    def process_headers(self, headers not None, results not None):
        """Judge packets given as an array of HEADER_DTYPE, in order, into ``results`` (RESULT_DTYPE)."""
        if self.planes[0].weighs:
            raise ValueError("the frames must be of flow logs")
        cdef Py_ssize_t n = len(headers)
        cdef const uint8_t[::1] view
        cdef const HeaderRow* header_rows
        cdef ResultRow* rows
        if headers.dtype != HEADER_DTYPE or not headers.flags.c_contiguous:
            raise ValueError("headers must be a contiguous array of HEADER_DTYPE")
        rows = self.result_rows(results, n)
        if n == 0:
            return
        view = headers.view(np.uint8).reshape(-1)       # the array may be read-only
        header_rows = <const HeaderRow*>&view[0]
        with nogil:
            self.judge_headers(header_rows, n, rows)

    def ask(self, headers not None, results not None, int32_t[:, ::1] replies not None):
        """Judge each header row as the opener of a connection, apart from all other connections: nothing changes.

        ``headers``, ``results``: contiguous rows of HEADER_DTYPE and RESULT_DTYPE. An opener whose first reply a filter
        without connections denies is denied, too. ``replies``: becomes the rules that allow this reply at such filters,
        at the opener's end and at the other one; -1 for none.
        """
        cdef Py_ssize_t n = len(headers)
        cdef const uint8_t[::1] view
        cdef const HeaderRow* rows
        cdef ResultRow* out = self.result_rows(results, n)
        cdef Packet packet
        cdef Py_ssize_t i
        if n == 0:
            return
        if headers.dtype != HEADER_DTYPE or not headers.flags.c_contiguous:
            raise ValueError("headers must be contiguous and of HEADER_DTYPE")
        if replies.shape[0] != n or replies.shape[1] != 2:
            raise ValueError("replies must have two numbers for each header")
        view = headers.view(np.uint8)
        rows = <const HeaderRow*>&view[0]
        with nogil:
            for i in range(n):
                read_header(&self.planes[0].wire, &rows[i], &packet)
                judge_apart(self.planes[0], &packet, &out[i], &replies[i, 0])

    def change(self, Classifier classifier not None, cut_inbound, bint cut_unmatched, bint forget, int64_t now_ns):
        """Switch to a later policy's classifier (SPEC 6). Return how many tuples were cut, and how many of these had
        ended before (SPEC 6.12).

        ``cut_inbound``: uint8 by instance number, whether the instance's inbound connections are cut; or None.
        ``cut_unmatched``: cut connections whose opener the new rules would not allow. ``forget``: forget cut
        connections instead of disconnecting them. ``now_ns``: engine time, nanoseconds.
        """
        cdef Cut cut
        cdef const uint8_t[::1] flags
        cdef Py_ssize_t before = self.classifier.rule_count
        cdef Cutting cutting = Cutting(0, 0)
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
        cut.forgets = forget
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.drain()
            cut.clock = self.clock.now
            cut.now = max(now_ns, self.clock.now) if self.clock.started else now_ns
            grown = self.grow_counts(before, classifier.rule_count)
            if grown:
                # Overdue fragments are given up first, under the old policy (SPEC 6.9).
                resolve_overdue(self.planes[0], cut.now, self.judged + self.judged_elsewhere)
                self.catch_up()
                for i in range(self.plane_count):
                    self.planes[i].events.place = 2 * (self.judged + self.judged_elsewhere) + 1
                    change_tables(self.planes[i], &classifier.tables, &cut, &cutting)
            PyThread_release_lock(self.lock)
        if not grown:
            raise MemoryError
        # The old classifier is replaced only now, as the walk still used it. No other thread replaces it: Engine makes
        # changes one after the other. Threads without a GIL may read `classifier` at this moment, so the lock is taken.
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
        old = self.classifier
        self.classifier = classifier
        PyThread_release_lock(self.lock)
        del old
        return cutting.cut, cutting.finished

    cdef bint grow_counts(self, Py_ssize_t before, Py_ssize_t rules) noexcept nogil:
        # Grows the rule counters of all planes. Returns False if there is no memory; then the larger number of rules
        # must not be used.
        cdef RuleCount* counts
        cdef int i
        for i in range(self.plane_count):
            counts = <RuleCount*>realloc(self.planes[i].rule_counts, (rules + 1) * sizeof(RuleCount))
            if counts == NULL:
                return False
            self.planes[i].rule_counts = counts
            memset(&counts[before], 0, (rules + 1 - before) * sizeof(RuleCount))
        return True

    def take_resolved(self, *, bint everything=False):
        """Return the results of PENDING packets that were resolved since the last call, as RESOLVED_DTYPE, by packet
        number.

        ``everything``: the captures are over, so all held fragments are resolved.
        """
        cdef Fragments* f = self.fragments
        cdef ResolvedRow* rows
        cdef Py_ssize_t count
        # Under the lock, rows are only detached: making arrays may run Python code, and so another thread.
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.drain()
            if f.oldest[0] != NO_DATAGRAM:
                resolve_overdue(self.planes[0], self.clock.now, self.judged + self.judged_elsewhere + 1)
            if everything:
                self.end_waiting()
            rows = f.resolved
            count = f.resolved_count
            f.resolved = NULL
            f.resolved_count = 0
            f.resolved_capacity = 0
            PyThread_release_lock(self.lock)
        if self.workers is not None:
            self.filled_later.clear()
        if count == 0:
            free(rows)
            return NONE_RESOLVED
        try:
            resolved_rows = copied_rows(<const uint8_t*>rows, count * sizeof(ResolvedRow), RESOLVED_DTYPE)
        finally:
            free(rows)
        return resolved_rows[np.argsort(resolved_rows["number"], kind="stable")]

    cdef void end_waiting(self) noexcept nogil:
        # Resolves all held fragments. The caller must hold the lock.
        self.drain()
        while self.fragments.oldest[1] != NO_DATAGRAM:
            resolve_datagram(self.planes[0], self.fragments.oldest[1], self.clock.now)
