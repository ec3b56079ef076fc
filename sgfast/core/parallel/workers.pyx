"""Threads that judge together. ``workers.pxd`` explains how."""

import threading

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from sgfast.core.base.clock cimport advance_clock
from sgfast.core.base.intrinsics cimport add_ordered, likely, load_ordered, prefetch, swap_ordered, unlikely
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.base.types cimport READ_FRAGMENT, READ_ICMP_ERROR, READ_TRACKED
from sgfast.core.parallel.backoff cimport back_off, free_parking, init_parking, park_until_change, unpark
from sgfast.core.pipeline.batch cimport BATCH, free_plane, judge_batch, prefetch_line, tally_ended
from sgfast.core.wire.header_rows cimport read_header, write_header_row
from sgfast.core.wire.ip cimport WireContext, read_frame, read_quote

cdef extern from * nogil:
    """
    #include <unistd.h>
    """
    int getpid()

cdef enum:
    STAGING = 32            # packets
    AHEAD = 8               # packets
    # All that is needed of a packet with an IPv4 key: one cache line (types.pxd).
    PLAIN_BYTES = 64
    LINE = 16               # 64-bit words: two cache lines, as they may be fetched in pairs


cdef inline int shard_of(const WireContext* wire, const Packet* p, int shards) noexcept nogil:
    cdef Packet quoted
    cdef uint32_t hash_value = p.hash
    if unlikely(p.outcome != READ_TRACKED):
        if p.outcome != READ_ICMP_ERROR:
            return 0        # it has no connection
        memset(&quoted, 0, sizeof(Packet))
        if not read_quote(wire, p, &quoted.key, &quoted.digest, &quoted.hash, &quoted.source_high):
            return 0
        hash_value = quoted.hash
    return shard_of_hash(hash_value, shards)


cdef class Workers:
    """``jobs`` threads, the caller's included, and twice as many shards. MemoryError if they cannot be started."""

    def __cinit__(self, int jobs):
        cdef int i
        cdef Shard* shard
        if not 2 <= jobs <= MOST_JOBS:
            raise ValueError(f"jobs is 1 to {<int>MOST_JOBS}, not {jobs}")
        self.jobs = jobs
        self.shard_count = 2 * jobs
        self.process = getpid()
        self.shards = <Shard*>calloc(self.shard_count, sizeof(Shard))
        self.lines = <uint64_t*>allocate_pages((3 * self.shard_count + 1) * LINE * sizeof(uint64_t))
        self.staging = <Packet*>allocate_pages(STAGING * sizeof(Packet))
        self.parkings = <Parking*>calloc(jobs, sizeof(Parking))
        if self.shards == NULL or self.lines == NULL or self.staging == NULL or self.parkings == NULL:
            raise MemoryError
        self.publications = &self.lines[3 * self.shard_count * LINE]
        for i in range(self.shard_count):
            shard = &self.shards[i]
            shard.plane = <Plane*>allocate_pages(sizeof(Plane))
            shard.packets = <Packet*>allocate_pages(QUEUE * sizeof(Packet))
            shard.now = <int64_t*>allocate_pages(QUEUE * sizeof(int64_t))
            shard.numbers = <uint64_t*>allocate_pages(QUEUE * sizeof(uint64_t))
            if shard.plane == NULL or shard.packets == NULL or shard.now == NULL or shard.numbers == NULL:
                raise MemoryError
            shard.room_until = QUEUE
            shard.published = &self.lines[3 * i * LINE]
            shard.judged = &self.lines[(3 * i + 1) * LINE]
            shard.busy = &self.lines[(3 * i + 2) * LINE]
        for i in range(1, jobs):
            if not init_parking(&self.parkings[i]):
                raise MemoryError

    def __init__(self, int jobs):
        try:
            for worker in range(1, jobs):
                # Daemon threads: the process may end without them, as they hold nothing that needs cleaning up.
                threading.Thread(target=self.serve, args=(worker,), name=f"sgfast-{worker}", daemon=True).start()
        except BaseException as error:
            self.retire()
            if isinstance(error, RuntimeError):
                raise MemoryError(f"{jobs} threads cannot be started: {error}") from error
            raise

    def __dealloc__(self):
        # Each thread holds a reference, so all of them have ended.
        cdef int i
        for i in range(self.shard_count if self.shards != NULL else 0):
            if self.shards[i].plane != NULL:
                free_plane(self.shards[i].plane)
            free(self.shards[i].plane)
            free(self.shards[i].packets)
            free(self.shards[i].now)
            free(self.shards[i].numbers)
        for i in range(1, self.jobs if self.parkings != NULL else 0):
            free_parking(&self.parkings[i])
        free(self.shards)
        free(self.lines)
        free(self.staging)
        free(self.parkings)

    # Distribution -----------------------------------------------------------------------------------------------------

    cdef bint enqueue(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, Clock* clock, uint64_t number,
        HeaderRow* headers
    ) noexcept nogil:
        cdef const WireContext* wire = &self.shards.plane.wire      # the same for all planes
        cdef Packet* p
        cdef Packet* place
        cdef Shard* shard
        cdef uint64_t at
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t size, i
        cdef bint borrowed = False
        while start < n:
            # Several packets are read before they are moved: a packet just written field by field is slow to copy.
            size = min(n - start, <Py_ssize_t>STAGING)
            if frames != NULL:
                for i in range(size):
                    read_frame(wire, &frames[start + i], &self.staging[i])
            else:
                for i in range(size):
                    read_header(wire, &rows[start + i], &self.staging[i])
            for i in range(size):
                p = &self.staging[i]
                if unlikely(headers != NULL):
                    write_header_row(p, &headers[start + i])
                advance_clock(clock, p.time_ns)
                if unlikely(p.outcome == READ_FRAGMENT):
                    self.judge_alone(p, clock.now, number + start + i)
                    continue
                shard = &self.shards[shard_of(wire, p, self.shard_count)]
                if unlikely(shard.filled == shard.room_until):
                    self.make_room(shard)
                at = shard.filled & (QUEUE - 1)
                # Another core had these lines last, so they take a while to come.
                prefetch(&shard.packets[(at + AHEAD) & (QUEUE - 1)])
                place = &shard.packets[at]
                if likely(p.outcome == READ_TRACKED and not p.ipv6):
                    memcpy(place, p, PLAIN_BYTES)
                else:
                    place[0] = p[0]
                    borrowed |= p.outcome == READ_ICMP_ERROR
                shard.now[at] = clock.now
                shard.numbers[at] = number + start + i
                shard.filled += 1
                if not shard.filled & (BATCH - 1):
                    self.publish(shard)
            start += size
        return borrowed

    cdef void judge_alone(self, Packet* p, int64_t now, uint64_t number) noexcept nogil:
        # Judges a fragment after everything before it, as its verdict may go to fragments of any shard.
        cdef Shard* shard
        p.outcome = p.fragment_outcome
        shard = &self.shards[shard_of(&self.shards.plane.wire, p, self.shard_count)]
        p.outcome = READ_FRAGMENT
        self.drain()
        shard.plane.want_sides = self.rows != NULL
        judge_batch(shard.plane, p, &now, &number, self.first, 1, self.rows, self.words)
        tally_ended(shard.plane)

    cdef void make_room(self, Shard* shard) noexcept nogil:
        cdef int turn = 0
        self.publish(shard)
        shard.room_until = load_ordered(shard.judged) + QUEUE
        while shard.filled == shard.room_until:
            # Work instead of waiting.
            if not self.work_on(shard) and not self.work(0):
                back_off(turn)
                turn += 1
            shard.room_until = load_ordered(shard.judged) + QUEUE

    cdef void publish(self, Shard* shard) noexcept nogil:
        if shard.published[0] == shard.filled:
            return
        swap_ordered(shard.published, shard.filled)
        add_ordered(self.publications, 1)
        if getpid() == self.process:
            self.unpark_all()

    cdef void drain(self) noexcept nogil:
        cdef int i
        cdef int turn = 0
        for i in range(self.shard_count):
            self.publish(&self.shards[i])
        for i in range(self.shard_count):
            while load_ordered(self.shards[i].judged) != self.shards[i].filled:
                if not self.work_on(&self.shards[i]) and not self.work(0):
                    back_off(turn)
                    turn += 1

    cdef void retire(self) noexcept nogil:
        if getpid() != self.process:
            return      # the threads belong to the parent process
        self.drain()
        swap_ordered(&self.ended, 1)
        add_ordered(self.publications, 1)
        self.unpark_all()

    # Working ----------------------------------------------------------------------------------------------------------

    cdef bint work_on(self, Shard* shard) noexcept nogil:
        # Judges some packets of a shard's queue, unless another thread is at it. Returns whether there were any.
        cdef uint64_t at
        cdef Py_ssize_t count, i
        cdef Packet* packets
        if load_ordered(shard.published) == load_ordered(shard.judged) or swap_ordered(shard.busy, 1):
            return False
        at = shard.judged[0]
        count = <Py_ssize_t>(load_ordered(shard.published) - at)
        if count:
            packets = &shard.packets[at & (QUEUE - 1)]
            count = min(count, <Py_ssize_t>BATCH, <Py_ssize_t>(QUEUE - (at & (QUEUE - 1))))
            # Another core wrote the packets.
            for i in range(count):
                prefetch(&packets[i])
            for i in range(count):
                prefetch_line(shard.plane, &packets[i])
            shard.plane.want_sides = self.rows != NULL
            judge_batch(
                shard.plane, packets, &shard.now[at & (QUEUE - 1)], &shard.numbers[at & (QUEUE - 1)], self.first, count,
                self.rows, self.words
            )
            tally_ended(shard.plane)
            swap_ordered(shard.judged, at + count)
        swap_ordered(shard.busy, 0)
        return count != 0

    cdef bint work(self, int worker) noexcept nogil:
        # Works on one of the worker's own shards, or on any other if those have nothing to do. Returns whether there
        # was work.
        cdef int number = (worker - 1) * self.shard_count // (self.jobs - 1) if worker else 0
        cdef int _
        for _ in range(self.shard_count):
            if self.work_on(&self.shards[number]):
                return True
            number = number + 1 if number + 1 < self.shard_count else 0
        return False

    def serve(self, int worker):
        """The loop of a worker thread, until ``retire``."""
        cdef uint64_t seen
        with nogil:
            while not load_ordered(&self.ended):
                seen = load_ordered(self.publications)
                if self.work(worker):
                    continue
                if load_ordered(&self.ended):
                    break
                park_until_change(&self.parkings[worker], self.publications, seen)

    cdef void unpark_all(self) noexcept nogil:
        cdef int i
        for i in range(1, self.jobs):
            unpark(&self.parkings[i])
