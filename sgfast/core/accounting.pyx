"""Read the results of the data plane, for reports; see ``accounting.pxd``."""

import threading

import numpy as np

cimport cython
from cpython.pythread cimport PyThread_acquire_lock, PyThread_release_lock, WAIT_LOCK
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from sgfast.core.base.bucket cimport Bucket
from sgfast.core.base.key cimport KIND_IPV6, Address, FlowKey, address_of
from sgfast.core.base.types cimport NO_SLOT
from sgfast.core.classify.classifier cimport find_address
from sgfast.core.conntrack.events cimport status_of
from sgfast.core.conntrack.flow_rows cimport key_of, write_ends
from sgfast.core.conntrack.lifetime cimport list_live, report_live, report_slot
from sgfast.core.conntrack.storage cimport Entry, FlowRecord, entry_at, flow_at, origin_at
from sgfast.core.conntrack.table cimport (
    FROM_HIGH,
    IS_OPEN,
    NOT_REMEMBERED,
    REPORT_ALL,
    TUPLE_DENIED,
    EventRow,
    Events,
    FlowRow,
    RememberedRow,
    side_connected,
)
from sgfast.core.dtypes cimport copied_rows
from sgfast.core.pipeline.batch cimport tally_ended
from sgfast.core.pipeline.plane cimport Plane, RuleCount
from sgfast.core.tallies.disconnects cimport CutRow
from sgfast.core.tallies.tally cimport TALLIES, Tally, TallyRow, add_row, free_tallies, init_tallies

from sgfast.core.dtypes import CUT_DTYPE, EVENT_DTYPE, FLOW_DTYPE, REMEMBERED_DTYPE, RULE_COUNT_DTYPE, TALLY_DTYPE


TALLY_NAMES = ("denials", "unanswered", "refused", "broken", "began", "outside")


cdef void fill_remembered(const Plane* plane, uint32_t slot, int64_t now, RememberedRow* row) noexcept nogil:
    # Writes the row of a tuple that a filter remembers. The initiator is that of the first side that remembers it.
    cdef const Table* t = &plane.table
    cdef const Entry* e = entry_at(&t.slab, slot)
    cdef const FlowRecord* flow
    cdef bint ipv6 = (e.kind & KIND_IPV6) != 0
    cdef bint high = (e.flags[0 if side_connected(e, 0, now) else 1] & FROM_HIGH) != 0
    cdef FlowKey key
    cdef Address own_address
    cdef int side, role
    memset(row, 0, sizeof(RememberedRow))
    key_of(t, slot, &key)
    write_ends(t, slot, high, &row.ends)
    row.status = status_of(e, now)
    row.denied = (e.marks & TUPLE_DENIED) != 0
    for side in range(2):
        role = side != high
        row.rule[role] = -1
        row.instance[role] = -1
        if side_connected(e, side, now):
            own_address = address_of(key.addr, ipv6, side)
            row.instance[role] = plane.rules.owner[find_address(plane.rules, ipv6, own_address.high, own_address.low)]
            row.rule[role] = <int32_t>e.rule[side]
            row.state[role] = e.state[side]
            row.deadline[role] = e.deadline[side]
    if t.keep_flows:
        flow = flow_at(&t.slab, slot)
        row.recorded = True
        row.ends.icmp = origin_at(&t.slab, slot).icmp
        row.number = flow.number
        row.first_ns = flow.first_ns
        for side in range(2):
            row.packets[side] = flow.packets[side ^ (high != flow.initiator_high)]
            row.bytes[side] = flow.bytes[side ^ (high != flow.initiator_high)]


cdef void finish_table(Plane* plane, Table* t, int64_t now) noexcept nogil:
    # Tallies the live tuples, some thousands at a time.
    cdef uint32_t slot = 0
    while slot != NO_SLOT:
        slot = report_live(t, now, slot, 1 << 16)
        tally_ended(plane)


# Merging planes: counters are added up, and rows are put in one order. No thread may judge at the same time.

cdef object merged_flows(FlowRow** rows, const Py_ssize_t* counts, int n):
    # Merges `n` lists of rows into one array, in the order of the flows' first packets.
    cdef uint8_t[::1] view
    cdef size_t at = 0
    cdef size_t nbytes
    cdef int i
    merged = np.empty(sum([counts[i] for i in range(n)]), dtype=FLOW_DTYPE)
    view = merged.view(np.uint8)
    for i in range(n):
        nbytes = <size_t>counts[i] * sizeof(FlowRow)
        if nbytes:
            memcpy(&view[at], rows[i], nbytes)
            at += nbytes
    numbers = merged["number"]
    if (np.diff(numbers.view(np.int64)) >= 0).all():
        return merged
    return merged[np.argsort(numbers, kind="stable")]


cdef dict merged_tallies(Plane** planes, int n):
    # Returns the tallies by name: (rows, number of packets and connections without a row, for lack of memory).
    cdef Tally[TALLIES] sums
    cdef Tally* tally
    cdef uint32_t k
    cdef int i, number
    if n == 1:
        return read_tallies(planes[0].tallies)
    init_tallies(sums, planes[0].wire.secret[7])
    try:
        for number in range(TALLIES):
            for i in range(n):
                tally = &planes[i].tallies[number]
                sums[number].lost += tally.lost
                for k in range(tally.count):
                    if not add_row(&sums[number], &tally.rows[k]):
                        sums[number].lost += tally.rows[k].packets + tally.rows[k].connections
        return read_tallies(sums)
    finally:
        free_tallies(sums)


cdef dict read_tallies(const Tally* tallies):
    cdef int i
    return {name: (tally_rows(&tallies[i]), tallies[i].lost) for i, name in enumerate(TALLY_NAMES)}


cdef object tally_rows(const Tally* tally):
    return copied_rows(<const uint8_t*>tally.rows, tally.count * sizeof(TallyRow), TALLY_DTYPE)


cdef object merged_cuts(Plane** planes, int n):
    # Returns (rows, number of cuts that are not listed).
    cdef int i
    rows = [
        copied_rows(<const uint8_t*>planes[i].cuts.rows, planes[i].cuts.count * sizeof(CutRow), CUT_DTYPE)
        for i in range(n)
    ]
    return np.concatenate(rows), sum([planes[i].cuts.untold for i in range(n)])


cdef object merged_rule_counts(Plane** planes, int n, Py_ssize_t rules):
    cdef Py_ssize_t nbytes = rules * sizeof(RuleCount)
    cdef int i
    counts = copied_rows(<const uint8_t*>planes[0].rule_counts, nbytes, RULE_COUNT_DTYPE)
    for i in range(1, n):
        plane_counts = copied_rows(<const uint8_t*>planes[i].rule_counts, nbytes, RULE_COUNT_DTYPE)
        for name in RULE_COUNT_DTYPE.names:
            counts[name] += plane_counts[name]
    return counts


cdef dict merged_counters(Plane** planes, int n):
    # Returns the counters by name; verdicts and reasons as lists by their number.
    cdef const Table* t
    cdef dict counters
    cdef int i
    all_counters = []
    for i in range(n):
        t = &planes[i].table
        counters = planes[i].counters
        counters["live_tuples"], counters["entries"] = t.live, t.used
        counters["evicted"], counters["moot_evicted"] = t.evicted, t.moot_evicted
        counters["lost_flows"] = t.ended_lost + planes[i].attempts.ended_lost
        counters["table_bytes"] = t.slab.nbytes + (<uint64_t>t.bucket_mask + 1) * sizeof(Bucket)
        all_counters.append(counters)
    sums = {name: np.sum([one_plane[name] for one_plane in all_counters], axis=0).tolist() for name in all_counters[0]}
    return sums | {"changes": planes[0].changes}


@cython.no_gc
cdef class AccountingPlane(DataPlane):
    """A data plane that reports its results: flows that ended or still live, tallies, counters."""

    def __cinit__(self, *arguments, **options):
        self.finishing = threading.Lock()

    def finish(self, *, Py_ssize_t most=0x7FFFFFFF):
        """Report the tuples still in the table, at the end of a replay. They stay in the table.

        Call it until it returns True. Each call reports about ``most`` tuples, so that not all rows need to be in
        memory together. Packets that other threads judge between calls may not be reported.
        """
        with self.finishing:
            return self.finish_some(most)

    cdef bint finish_some(self, Py_ssize_t most) except -1:
        cdef Plane* plane
        cdef const uint64_t[::1] places
        cdef Py_ssize_t n
        cdef int i
        if self.planes[0].table.reports != REPORT_ALL:
            # Rows are not kept, so reporting all tuples at once needs no memory.
            with nogil:
                PyThread_acquire_lock(self.lock, WAIT_LOCK)
                self.drain()
                self.end_waiting()
                for i in range(self.plane_count):
                    plane = self.planes[i]
                    finish_table(plane, &plane.table, self.clock.now)
                    finish_table(plane, &plane.attempts, self.clock.now)
                PyThread_release_lock(self.lock)
            return True
        if self.unreported is None:
            self.unreported = self.list_places()
        part, self.unreported = self.unreported[:most], self.unreported[most:]
        places = part
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            for n in range(places.shape[0]):
                plane = self.planes[places[n] >> 33]
                report_slot(
                    &plane.attempts if places[n] >> 32 & 1 else &plane.table, <uint32_t>places[n], self.clock.now
                )
            for i in range(self.plane_count):
                tally_ended(self.planes[i])
            PyThread_release_lock(self.lock)
        if len(self.unreported):
            return False
        self.unreported = None
        return True

    cdef object list_places(self):
        # Returns the places of live tuples (plane << 33 | attempts << 32 | slot), in the order of their first packets.
        cdef uint64_t* rows
        cdef uint64_t count = 0
        cdef int i
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.drain()
            self.end_waiting()
            for i in range(2 * self.plane_count):
                count += self.table(i).live
            rows = <uint64_t*>malloc((2 * count + 1) * sizeof(uint64_t))
            count = 0
            for i in range(2 * self.plane_count if rows != NULL else 0):
                count += list_live(self.table(i), <uint64_t>i << 32, &rows[2 * count])
            PyThread_release_lock(self.lock)
        if rows == NULL:
            raise MemoryError
        try:
            pairs = copied_rows(<const uint8_t*>rows, 2 * count * sizeof(uint64_t), np.dtype(np.uint64)).reshape(-1, 2)
        finally:
            free(rows)
        return np.ascontiguousarray(pairs[np.argsort(pairs[:, 0], kind="stable"), 1])

    cdef Table* table(self, int number) noexcept nogil:
        # Returns a table: number 2 * plane for the plane's connections, 2 * plane + 1 for its attempts.
        cdef Plane* plane = self.planes[number >> 1]
        return &plane.attempts if number & 1 else &plane.table

    @property
    def hash_key(self):
        """The words that key the hash."""
        return [self.planes[0].wire.secret[i] for i in range(8)]

    def take_flows(self):
        """Return the tuples that ended since the last call, as FLOW_DTYPE, in the order of their first packets."""
        cdef FlowRow** rows
        cdef Py_ssize_t* counts
        cdef Table* t
        cdef int i
        rows = <FlowRow**>calloc(2 * self.plane_count, sizeof(FlowRow*))
        counts = <Py_ssize_t*>calloc(2 * self.plane_count, sizeof(Py_ssize_t))
        try:
            if rows == NULL or counts == NULL:
                raise MemoryError
            # Under the lock, rows are only detached, as in `take_resolved`.
            with nogil:
                PyThread_acquire_lock(self.lock, WAIT_LOCK)
                self.drain()
                for i in range(2 * self.plane_count):
                    t = self.table(i)
                    rows[i] = t.ended
                    counts[i] = t.ended_count
                    t.ended = NULL
                    t.ended_count = 0
                    t.ended_capacity = 0
                    t.tallied = 0
                PyThread_release_lock(self.lock)
            return merged_flows(rows, counts, 2 * self.plane_count)
        finally:
            for i in range(2 * self.plane_count if rows != NULL else 0):
                free(rows[i])
            free(rows)
            free(counts)

    cdef dict tallies_now(self):
        return merged_tallies(self.planes, self.plane_count)

    cdef object rule_counts_now(self):
        return merged_rule_counts(self.planes, self.plane_count, self.classifier.rule_count)

    cdef dict counters_now(self):
        return {
            "packets": self.judged,
            **merged_counters(self.planes, self.plane_count),
            "late": self.clock.late,
            "most_late_ns": self.clock.most_late,
            "restarts": self.clock.restarts,
            "first_ns": self.clock.earliest if self.clock.started else None,
            "last_ns": max(self.clock.latest, self.clock.raw) if self.clock.started else None,
            "clock_ns": self.clock.now if self.clock.started else None,
        }

    @property
    def tallies(self):
        """The tallies by name of TALLY_NAMES, each ``(rows, lost)``: rows of TALLY_DTYPE, and the number of packets and
        connections without a row for lack of memory. ``instance``: the instance whose filter judged; in ``began``, the
        responder if that is an instance, else the initiator. ``tallies/tally.pxd`` explains what each tally counts.
        """
        self.lock_drained()
        try:
            return self.tallies_now()
        finally:
            self.unlock()

    @property
    def cuts(self):
        """``(rows, untold)``: the fates of connections that changes cut, as CUT_DTYPE (``tallies/disconnects.pxd``),
        and the number of cuts that are not listed.

        The row numbers in ``previous`` count within each plane's own list.
        """
        self.lock_drained()
        try:
            return merged_cuts(self.planes, self.plane_count)
        finally:
            self.unlock()

    @property
    def connections(self):
        """The number of live tuples, including expired tuples that were not removed yet."""
        cdef int i
        self.lock_drained()
        try:
            return sum([self.planes[i].table.live for i in range(self.plane_count)])
        finally:
            self.unlock()

    def count_open(self):
        """Count the connections that are open at the clock's time (SPEC 14.12)."""
        cdef const Table* t
        cdef uint64_t open_count = 0
        cdef uint32_t slot
        cdef int i
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.drain()
            for i in range(self.plane_count):
                t = &self.planes[i].table
                for slot in range(t.slab.fresh):
                    open_count += status_of(entry_at(&t.slab, slot), self.clock.now) == IS_OPEN
            PyThread_release_lock(self.lock)
        return open_count

    def remembered(self):
        """Return what a filter remembers at the clock's time, as REMEMBERED_DTYPE, in the order of the ends."""
        cdef const Table* t
        cdef RememberedRow* rows
        cdef uint64_t count = 0
        cdef uint64_t room = 0
        cdef uint32_t slot
        cdef int i
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.drain()
            for i in range(self.plane_count):
                room += self.planes[i].table.live
            rows = <RememberedRow*>malloc((room + 1) * sizeof(RememberedRow))
            for i in range(self.plane_count if rows != NULL else 0):
                t = &self.planes[i].table
                for slot in range(t.slab.fresh):
                    if status_of(entry_at(&t.slab, slot), self.clock.now) != NOT_REMEMBERED:
                        fill_remembered(self.planes[i], slot, self.clock.now, &rows[count])
                        count += 1
            PyThread_release_lock(self.lock)
        if rows == NULL:
            raise MemoryError
        try:
            tuples = copied_rows(<const uint8_t*>rows, count * sizeof(RememberedRow), REMEMBERED_DTYPE)
        finally:
            free(rows)
        ends = [np.ascontiguousarray(tuples[name]).view(">u8").reshape(-1, 2) for name in ("responder", "initiator")]
        columns = [words[:, n] for words in ends for n in (1, 0)]
        return tuples[np.lexsort((tuples["icmp"], tuples["ports"], *columns, tuples["protocol"], tuples["family"]))]

    def take_events(self):
        """Return the events since the last call as EVENT_DTYPE, in the order of time (``conntrack/events.pxd``)."""
        cdef Events* events
        cdef EventRow** rows
        cdef Py_ssize_t* counts
        cdef int i
        rows = <EventRow**>calloc(self.plane_count, sizeof(EventRow*))
        counts = <Py_ssize_t*>calloc(self.plane_count, sizeof(Py_ssize_t))
        try:
            if rows == NULL or counts == NULL:
                raise MemoryError
            with nogil:
                PyThread_acquire_lock(self.lock, WAIT_LOCK)
                self.drain()
                self.catch_up()
                for i in range(self.plane_count):
                    events = &self.planes[i].events
                    rows[i] = events.rows
                    counts[i] = events.count
                    events.rows = NULL
                    events.count = 0
                    events.capacity = 0
                PyThread_release_lock(self.lock)
            event_rows = np.concatenate([
                copied_rows(<const uint8_t*>rows[i], counts[i] * sizeof(EventRow), EVENT_DTYPE)
                for i in range(self.plane_count)
            ])
        finally:
            for i in range(self.plane_count if rows != NULL else 0):
                free(rows[i])
            free(rows)
            free(counts)
        return event_rows[np.lexsort((event_rows["number"], event_rows["place"], event_rows["time_ns"]))]

    @property
    def lost_events(self):
        """The number of events that were not kept, as too many waited, or for lack of memory."""
        cdef uint64_t lost = 0
        cdef int i
        self.lock_drained()
        for i in range(self.plane_count):
            lost += self.planes[i].events.lost
        self.unlock()
        return lost

    @property
    def rule_counts(self):
        """Counters by rule number, as RULE_COUNT_DTYPE."""
        self.lock_drained()
        try:
            return self.rule_counts_now()
        finally:
            self.unlock()

    @property
    def counters(self):
        """All counters by name; verdicts and reasons as lists by their number."""
        self.lock_drained()
        try:
            return self.counters_now()
        finally:
            self.unlock()
