"""Threads that judge together. ``workers.pxd`` explains how."""

import threading

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from sgfast.core.base.clock cimport advance_clock
from sgfast.core.base.file_reads cimport FileReads
from sgfast.core.base.intrinsics cimport (
    add_ordered,
    likely,
    load_ordered,
    prefetch,
    swap_if_ordered,
    swap_ordered,
    take_over,
    unlikely,
)
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.base.types cimport READ_FRAGMENT, READ_ICMP_ERROR, READ_TRACKED
from sgfast.core.base.backoff cimport back_off, free_parking, init_parking, park_until_change, unpark
from sgfast.core.pipeline.batch cimport BATCH, free_plane, guess_batch, judge_batch, prefetch_line, tally_ended
from sgfast.core.wire.header_rows cimport read_header, write_header_row
from sgfast.core.wire.ip cimport WireContext, read_frame, read_quote

cdef extern from * nogil:
    """
    #include <unistd.h>
    """
    int getpid()

cdef enum:
    # All that is needed of a packet with an IPv4 key: one cache line (types.pxd).
    PLAIN_BYTES = 64
    LINE = 16               # 64-bit words: two cache lines, as they may be fetched in pairs
    INDICES = 32            # of 16 bits, in a cache line
    BLOCK = 1024            # packets
    # Blocks of the ring: these, and some for each job.
    BLOCKS = 8
    BLOCKS_PER_JOB = 2
    HEADERS = 48            # bytes of a frame that are read if it is plain TCP in IPv4
    ENOUGH = 256            # packets for which a thread is woken up, or stays with a shard


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


cdef inline void take(
    const Plane* plane, const Block* block, uint16_t* cursor, Py_ssize_t until, Taken* taken
) noexcept nogil:
    # Takes up to BATCH packets before index `until` out of the list that goes on at `cursor`. They lie apart, so they
    # are copied.
    cdef const Packet* p
    cdef Packet* place
    cdef Py_ssize_t at = cursor[0]
    cdef Py_ssize_t ahead
    cdef Py_ssize_t count = 0
    while at < until and count < BATCH:
        p = &block.packets[at]
        place = &taken.packets[count]
        if likely(p.outcome == READ_TRACKED and not p.ipv6):
            memcpy(place, p, PLAIN_BYTES)
        else:
            place[0] = p[0]
        prefetch_line(plane, place)
        taken.now[count] = block.now[at]
        taken.numbers[count] = block.number + at
        count += 1
        at = block.next[at]
    taken.count = count
    cursor[0] = <uint16_t>at
    # Those that are taken next may have to come from another core.
    ahead = at
    while ahead < until and count > 0:
        take_over(&block.packets[ahead])
        ahead = block.next[ahead]
        count -= 1


cdef inline void ask_early(const Block* block, Py_ssize_t at) noexcept nogil:
    # Asks for the cache lines that are needed to parse packet `at`, and for a later frame. Some of these addresses may
    # be behind the last frame or behind the packet's bytes. That does no harm, as nothing is read or written.
    cdef const Frame* frame
    if at >= block.count:
        return
    take_over(&block.packets[at])
    if likely(block.frames != NULL):
        frame = &block.frames[at]
        take_over(&frame[BATCH].position)
        take_over(frame.data)
        take_over(&frame.data[HEADERS - 1])


cdef class Workers:
    """``jobs`` threads, the caller's included, with two shards each. MemoryError if they cannot be started."""

    def __cinit__(self, int jobs):
        cdef Py_ssize_t i
        cdef Shard* shard
        cdef Block* block
        if not 2 <= jobs <= MOST_JOBS:
            raise ValueError(f"jobs is 1 to {<int>MOST_JOBS}, not {jobs}")
        self.jobs = jobs
        self.shard_count = 2 * jobs
        self.block_count = BLOCKS + BLOCKS_PER_JOB * jobs
        self.process = getpid()
        self.reads = FileReads()
        self.shards = <Shard*>calloc(self.shard_count, sizeof(Shard))
        self.blocks = <Block*>calloc(self.block_count, sizeof(Block))
        self.lines = <uint64_t*>allocate_pages(3 * (self.shard_count + self.block_count + 1) * LINE * sizeof(uint64_t))
        self.parkings = <Parking*>calloc(jobs, sizeof(Parking))
        if self.shards == NULL or self.blocks == NULL or self.lines == NULL or self.parkings == NULL:
            raise MemoryError
        self.published = self.line(0)
        self.claimed = self.line(1)
        self.events = self.line(2)
        for i in range(self.shard_count):
            shard = &self.shards[i]
            shard.plane = <Plane*>allocate_pages(sizeof(Plane))
            if shard.plane == NULL:
                raise MemoryError
            shard.judged = self.line(3 * i + 3)
            shard.stopped = self.line(3 * i + 4)
            shard.busy = self.line(3 * i + 5)
        for i in range(<Py_ssize_t>self.block_count):
            block = &self.blocks[i]
            block.packets = <Packet*>allocate_pages(BLOCK * sizeof(Packet))
            block.now = <int64_t*>allocate_pages(BLOCK * sizeof(int64_t))
            block.next = <uint16_t*>allocate_pages(BLOCK * sizeof(uint16_t))
            block.first = <uint16_t*>allocate_pages((self.shard_count + 1) * sizeof(uint16_t))
            if block.packets == NULL or block.now == NULL or block.next == NULL or block.first == NULL:
                raise MemoryError
            block.parsed = self.line(3 * (self.shard_count + i) + 3)
            block.left = self.line(3 * (self.shard_count + i) + 4)
            block.done = self.line(3 * (self.shard_count + i) + 5)
        for i in range(1, jobs):
            if not init_parking(&self.parkings[i]):
                raise MemoryError
        try:
            for worker in range(1, jobs):
                # Daemon threads: the process may end without them, as they hold nothing that needs cleaning up.
                threading.Thread(target=self.serve, args=(worker,), name=f"sgfast-{worker}", daemon=True).start()
        except BaseException as error:
            self.retire()
            if isinstance(error, RuntimeError):
                raise MemoryError(f"{jobs} threads cannot be started: {error}") from error
            raise

    cdef uint64_t* line(self, Py_ssize_t number) noexcept nogil:
        return &self.lines[number * LINE]

    def __dealloc__(self):
        # Each thread holds a reference, so all of them have ended.
        cdef Py_ssize_t i
        for i in range(self.shard_count if self.shards != NULL else 0):
            if self.shards[i].plane != NULL:
                free_plane(self.shards[i].plane)
            free(self.shards[i].plane)
        for i in range(<Py_ssize_t>self.block_count if self.blocks != NULL else 0):
            free(self.blocks[i].packets)
            free(self.blocks[i].now)
            free(self.blocks[i].next)
            free(self.blocks[i].first)
        for i in range(1, self.jobs if self.parkings != NULL else 0):
            free_parking(&self.parkings[i])
        free(self.shards)
        free(self.blocks)
        free(self.lines)
        free(self.parkings)

    # The caller's part ------------------------------------------------------------------------------------------------

    cdef void add(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, Clock* clock, uint64_t number,
        HeaderRow* headers
    ) noexcept nogil:
        cdef Clock own_clock = clock[0]     # it stays in registers
        cdef Block* block
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t i
        while start < n:
            block = self.free_block()
            block.frames = &frames[start] if frames != NULL else NULL
            block.rows = &rows[start] if rows != NULL else NULL
            block.headers = &headers[start] if headers != NULL else NULL
            block.count = min(n - start, <Py_ssize_t>BLOCK)
            block.number = number + start
            block.clock = own_clock
            for i in range(start, start + block.count):
                advance_clock(&own_clock, frames[i].time_ns if frames != NULL else rows[i].time_ns)
            swap_ordered(block.left, self.shard_count)
            add_ordered(self.published, 1)
            self.quiet += block.count
            self.announce(self.quiet)
            if self.quiet >= ENOUGH:
                self.quiet = 0
            start += block.count
        clock[0] = own_clock

    cdef Block* free_block(self) noexcept nogil:
        cdef uint64_t number = self.published[0]
        cdef Block* block = &self.blocks[number % self.block_count]
        cdef int turn = 0
        while number >= self.block_count and load_ordered(block.done) != number - self.block_count + 1:
            # Work instead of waiting.
            if not self.work(0):
                back_off(turn)
                turn += 1
        return block

    cdef uint64_t all_released(self) noexcept nogil:
        cdef const Block* block
        cdef uint64_t at = self.released
        while at < self.published[0]:
            block = &self.blocks[at % self.block_count]
            # If another block has its place, it is done.
            if at + self.block_count >= self.published[0] and (
                load_ordered(block.parsed) != at + 1 or (block.borrowed and load_ordered(block.done) != at + 1)
            ):
                break
            at += 1
        self.released = at
        return at

    cdef void release(self, uint64_t count) noexcept nogil:
        cdef int turn = 0
        while self.all_released() < count:
            if not self.work(0):
                back_off(turn)
                turn += 1

    cdef void drain(self) noexcept nogil:
        cdef uint64_t count = self.published[0]
        cdef int turn = 0
        # Shards take blocks in order, so whoever is through with the last one is through with all.
        while count and load_ordered(self.blocks[(count - 1) % self.block_count].done) != count:
            if not self.work(0):
                back_off(turn)
                turn += 1

    cdef void retire(self) noexcept nogil:
        if getpid() != self.process:
            return      # the threads belong to the parent process
        self.drain()
        swap_ordered(&self.ended, 1)
        add_ordered(self.events, 1)
        self.unpark_all()

    # Working ----------------------------------------------------------------------------------------------------------

    cdef bint work(self, int worker) noexcept nogil:
        # Parses one block or judges some packets. Returns whether there was anything to do. The thread's own shards
        # come first, because their tables are in its cache. Their packets are, too, if it has just parsed them.
        cdef int first = 2 * worker
        cdef int i
        for i in range(2):
            if self.judge(first + i):
                return True
        if self.parse_next():
            return True
        for i in range(2, self.shard_count):
            if self.judge((first + i) % self.shard_count):
                return True
        return self.reads.do_next()

    cdef bint parse_next(self) noexcept nogil:
        cdef uint64_t number = load_ordered(self.claimed)
        cdef Block* block
        cdef Py_ssize_t count
        while number < load_ordered(self.published):
            if swap_if_ordered(self.claimed, number, number + 1):
                block = &self.blocks[number % self.block_count]
                count = block.count         # the block may be filled again as soon as it is parsed
                self.parse(block)
                swap_ordered(block.parsed, number + 1)
                self.announce(count)
                return True
            number = load_ordered(self.claimed)
        return False

    cdef void parse(self, Block* block) noexcept nogil:
        cdef const WireContext* wire = &self.shards.plane.wire      # the same for all planes
        cdef uint16_t* ends[2 * MOST_JOBS + 1]      # where the next packet of each list is linked
        cdef const Frame* frames = block.frames
        cdef Packet* packets = block.packets
        cdef Packet* p
        cdef Clock clock = block.clock
        cdef Py_ssize_t count = block.count
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t end, i
        cdef int shards = self.shard_count
        cdef int number
        cdef bint borrowed = False
        for i in range(shards + 1):
            ends[i] = &block.first[i]
        for i in range(min(count, <Py_ssize_t>BATCH)):
            ask_early(block, i)
        while start < count:
            end = min(start + <Py_ssize_t>BATCH, count)
            for i in range(start, end):
                ask_early(block, i + BATCH)
                if frames != NULL:
                    read_frame(wire, &frames[i], &packets[i])
                else:
                    read_header(wire, &block.rows[i], &packets[i])
            for i in range(start, end):
                p = &packets[i]
                if unlikely(block.headers != NULL):
                    write_header_row(p, &block.headers[i])
                # The caller did the same. If it wrote the times down, they would have to come from its core.
                advance_clock(&clock, p.time_ns)
                block.now[i] = clock.now
                number = shards
                if likely(p.outcome != READ_FRAGMENT):
                    number = shard_of(wire, p, shards)
                borrowed |= p.outcome == READ_ICMP_ERROR or p.outcome == READ_FRAGMENT
                ends[number][0] = <uint16_t>i
                ends[number] = &block.next[i]
            start = end
        for i in range(shards + 1):
            ends[i][0] = NO_PACKET
        block.borrowed = borrowed

    cdef bint judge(self, int number) noexcept nogil:
        # Judges some of a shard's packets, unless another thread is at it. Returns whether the shard went on.
        cdef Shard* shard = &self.shards[number]
        cdef uint64_t began = load_ordered(shard.judged)
        cdef uint64_t at, end
        cdef Block* block
        if not self.may_judge(shard, began) or swap_ordered(shard.busy, 1):
            return False
        began = load_ordered(shard.judged)
        at = began
        end = at + max(1, ENOUGH * self.shard_count // BLOCK)
        while at < end and self.may_judge(shard, at):
            block = &self.blocks[at % self.block_count]
            if likely(block.first[self.shard_count] == NO_PACKET):
                self.judge_until(number, block, block.count)
                if not add_ordered(block.left, <uint64_t>-1):
                    swap_ordered(block.done, at + 1)
            elif not self.judge_mixed(shard, block, at):
                break
            at += 1
            swap_ordered(shard.judged, at)
        swap_ordered(shard.busy, 0)
        return at != began

    cdef bint may_judge(self, const Shard* shard, uint64_t at) noexcept nogil:
        return (
            load_ordered(self.blocks[at % self.block_count].parsed) == at + 1 and load_ordered(shard.stopped) != at + 1
        )

    cdef void judge_until(self, int number, Block* block, Py_ssize_t until) noexcept nogil:
        # Judges a shard's packets before index `until` of a block. While some are judged, the lines that the next ones
        # need are on their way.
        cdef Plane* plane = self.shards[number].plane
        cdef uint16_t* at = &block.first[number]
        cdef Taken taken[2]
        cdef int which = 0
        cdef Py_ssize_t i
        # The list leads from one of these lines to the next, so they would come one after the other.
        for i in range((until - at[0] + INDICES - 1) // INDICES):
            prefetch(&block.next[at[0] + i * INDICES])
        take(plane, block, at, until, &taken[0])
        if taken[0].count == 0:
            return
        guess_batch(plane, taken[0].packets, taken[0].count)
        plane.want_sides = self.rows != NULL
        while taken[which].count:
            take(plane, block, at, until, &taken[1 - which])
            judge_batch(
                plane, taken[which].packets, taken[which].now, taken[which].numbers, self.first, taken[which].count,
                self.rows, self.words
            )
            which = 1 - which
            guess_batch(plane, taken[which].packets, taken[which].count)
        tally_ended(plane)

    cdef bint judge_mixed(self, Shard* shard, Block* block, uint64_t at) noexcept nogil:
        # Brings a shard to a block that has fragments. If all others wait there, judges the block for all of them, and
        # returns True.
        cdef uint16_t* fragment = &block.first[self.shard_count]
        cdef int i
        swap_ordered(shard.stopped, at + 1)
        if add_ordered(block.left, <uint64_t>-1):
            return False
        while fragment[0] != NO_PACKET:
            for i in range(self.shard_count):
                self.judge_until(i, block, fragment[0])
            self.judge_fragment(block, fragment[0])
            fragment[0] = block.next[fragment[0]]
        for i in range(self.shard_count):
            self.judge_until(i, block, block.count)
        for i in range(self.shard_count):
            swap_ordered(self.shards[i].judged, at + 1)
        self.announce(block.count)
        swap_ordered(block.done, at + 1)
        return True

    cdef void judge_fragment(self, Block* block, Py_ssize_t at) noexcept nogil:
        cdef Packet* p = &block.packets[at]
        cdef uint64_t number = block.number + at
        cdef Plane* plane
        p.outcome = p.fragment_outcome
        plane = self.shards[shard_of(&self.shards.plane.wire, p, self.shard_count)].plane
        p.outcome = READ_FRAGMENT
        plane.want_sides = self.rows != NULL
        judge_batch(plane, p, &block.now[at], &number, self.first, 1, self.rows, self.words)
        tally_ended(plane)

    def serve(self, int worker):
        """The loop of a worker thread, until ``retire``."""
        cdef uint64_t seen
        if not 1 <= worker < self.jobs:
            raise ValueError(f"no such thread: {worker}")
        with nogil:
            while not load_ordered(&self.ended):
                seen = load_ordered(self.events)
                if self.work(worker):
                    continue
                if load_ordered(&self.ended):
                    break
                park_until_change(&self.parkings[worker], self.events, seen)

    cdef void announce(self, Py_ssize_t packets) noexcept nogil:
        # There is something new to do. For a few packets nobody is woken up: that takes longer than to judge them.
        add_ordered(self.events, 1)
        if packets >= ENOUGH and getpid() == self.process:
            self.unpark_all()

    cdef void unpark_all(self) noexcept nogil:
        cdef int i
        for i in range(1, self.jobs):
            unpark(&self.parkings[i])
