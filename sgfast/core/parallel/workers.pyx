"""Threads that judge together. ``workers.pxd`` explains the design."""

import threading

from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from sgfast.core.base.clock cimport Clock, Run, begin_run, end_run, time_of
from sgfast.core.base.cores cimport allowed_cores, core_of_thread, leave_cores
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
from sgfast.core.base.memory cimport allocate_pages, map_lazily, unmap_pages
from sgfast.core.base.types cimport READ_FRAGMENT, READ_TRACKED
from sgfast.core.base.backoff cimport back_off, free_parking, init_parking, park_until_change, unpark
from sgfast.core.parallel.parsing cimport (
    BLOCK,
    MOST_JOBS,
    NO_PACKET,
    parse_block,
    parse_first,
    preparation_of_frames,
    shard_of,
)
from sgfast.core.pipeline.batch cimport BATCH, free_plane, guess_batch, judge_batch, prefetch_line, tally_ended
from sgfast.core.wire.header_rows cimport write_header_row

cdef extern from * nogil:
    """
    #include <unistd.h>
    """
    int getpid()

cdef enum:
    # The part of a packet that judging needs if its key is IPv4: one cache line (types.pxd).
    PLAIN_BYTES = 64
    LINE = 16               # 64-bit words: two cache lines, as they may be fetched in pairs
    INDICES = 32            # indices of 16 bits in a cache line
    # The usual number of blocks in progress: BLOCKS, and BLOCKS_PER_JOB for each job. So many blocks have buffers.
    BLOCKS = 8
    BLOCKS_PER_JOB = 2
    ENOUGH = 256            # packets that are worth waking a thread, or staying with a shard

cdef enum:
    NO_CORE = <uint64_t>-1

# Worker threads of all engines in this process.
cdef uint64_t workers_alive = 0


cdef inline void run_clock(Clock* clock, Parsed* parsed, Py_ssize_t count) noexcept nogil:
    cdef Run run
    cdef Py_ssize_t i
    begin_run(clock, &run)
    for i in range(count):
        parsed.now[i] = time_of(clock, &run, parsed.packets[i].time_ns)
    end_run(clock, &run)


cdef inline void take(
    const Plane* plane, const Block* block, uint16_t* cursor, Py_ssize_t until, Taken* taken
) noexcept nogil:
    # Takes up to BATCH packets before index `until` out of the list that continues at `cursor`. The packets are not
    # adjacent in memory, so they are copied.
    cdef const Packet* p
    cdef Packet* place
    cdef Py_ssize_t at = cursor[0]
    cdef Py_ssize_t ahead
    cdef Py_ssize_t count = 0
    while at < until and count < BATCH:
        p = &block.content.packets[at]
        place = &taken.packets[count]
        if likely(p.parse_result == READ_TRACKED and not p.ipv6 and not plane.weighs):
            memcpy(place, p, PLAIN_BYTES)
        else:
            place[0] = p[0]
        prefetch_line(plane, place)
        taken.now[count] = p.time_ns + block.ahead if block.in_order else block.content.now[at]
        taken.numbers[count] = block.number + at
        count += 1
        at = block.content.next[at]
    taken.count = count
    cursor[0] = <uint16_t>at
    # The next packets to be taken may have to come from another core's cache.
    ahead = at
    while ahead < until and count > 0:
        take_over(&block.content.packets[ahead])
        ahead = block.content.next[ahead]
        count -= 1


cdef class Workers:
    """``jobs`` threads, the caller's included, with two shards each. MemoryError if the threads cannot be started."""

    def __cinit__(self, int jobs):
        cdef Py_ssize_t i
        cdef Shard* shard
        cdef Block* block
        cdef Parsed* buffer
        if not 2 <= jobs <= MOST_JOBS:
            raise ValueError(f"jobs is 1 to {<int>MOST_JOBS}, not {jobs}")
        self.jobs = jobs
        self.shard_count = 2 * jobs
        self.buffer_count = BLOCKS + BLOCKS_PER_JOB * jobs
        self.process = getpid()
        self.reads = FileReads()
        self.parser = <Parser*>calloc(1, sizeof(Parser))
        self.reads.preparation = &self.parser.preparation
        self.shards = <Shard*>calloc(self.shard_count, sizeof(Shard))
        self.blocks = <Block*>calloc(PLACES, sizeof(Block))
        self.buffers = <Parsed*>calloc(self.buffer_count, sizeof(Parsed))
        self.buffer_bytes = BLOCK * (sizeof(Packet) + sizeof(int64_t) + sizeof(uint16_t)) + 4 * MOST_JOBS + 64
        self.memory = <char*>map_lazily(self.buffer_count * self.buffer_bytes)
        self.lines = <uint64_t*>allocate_pages((3 * (self.shard_count + PLACES + 1) + jobs) * LINE * sizeof(uint64_t))
        self.parkings = <Parking*>calloc(jobs, sizeof(Parking))
        if (
            self.shards == NULL or self.blocks == NULL or self.lines == NULL or self.parkings == NULL
            or self.parser == NULL or self.buffers == NULL or self.memory == NULL
        ):
            raise MemoryError
        self.parser.preparation = preparation_of_frames()
        self.parser.shards = self.shard_count
        self.published = self.line(0)
        self.claimed = self.line(1)
        self.events = self.line(2)
        self.cores = self.line(3 * (self.shard_count + PLACES + 1))
        for i in range(jobs):
            self.cores[i * LINE] = NO_CORE
        self.core_count = allowed_cores()
        add_ordered(&workers_alive, jobs - 1)
        for i in range(self.shard_count):
            shard = &self.shards[i]
            shard.plane = <Plane*>allocate_pages(sizeof(Plane))
            if shard.plane == NULL:
                raise MemoryError
            shard.judged = self.line(3 * i + 3)
            shard.stopped = self.line(3 * i + 4)
            shard.busy = self.line(3 * i + 5)
        for i in range(PLACES):
            block = &self.blocks[i]
            block.parsed = self.line(3 * (self.shard_count + i) + 3)
            block.left = self.line(3 * (self.shard_count + i) + 4)
            block.done = self.line(3 * (self.shard_count + i) + 5)
        for i in range(self.buffer_count):
            buffer = &self.buffers[i]
            buffer.packets = <Packet*>&self.memory[i * self.buffer_bytes]
            buffer.now = <int64_t*>&buffer.packets[BLOCK]
            buffer.next = <uint16_t*>&buffer.now[BLOCK]
            buffer.first = &buffer.next[BLOCK]
        for i in range(1, jobs):
            if not init_parking(&self.parkings[i]):
                raise MemoryError
        try:
            for worker in range(1, jobs):
                # Daemon threads: the process may end without them, as they hold no resources that need cleaning up.
                threading.Thread(target=self.serve, args=(worker,), name=f"sgfast-{worker}", daemon=True).start()
        except BaseException as error:
            self.retire()
            if isinstance(error, RuntimeError):
                raise MemoryError(f"{jobs} threads cannot be started: {error}") from error
            raise

    cdef uint64_t* line(self, Py_ssize_t number) noexcept nogil:
        return &self.lines[number * LINE]

    def __dealloc__(self):
        # Each thread holds a reference to this object, so all threads have ended.
        cdef Py_ssize_t i
        for i in range(self.shard_count if self.shards != NULL else 0):
            if self.shards[i].plane != NULL:
                free_plane(self.shards[i].plane)
            free(self.shards[i].plane)
        for i in range(1, self.jobs if self.parkings != NULL else 0):
            free_parking(&self.parkings[i])
        free(self.shards)
        free(self.blocks)
        free(self.buffers)
        unmap_pages(self.memory, self.buffer_count * self.buffer_bytes)
        free(self.lines)
        free(self.parkings)

    # The caller's part ------------------------------------------------------------------------------------------------

    cdef void add(
        self, const Frame* frames, Prepared* prepared, const HeaderRow* rows, Py_ssize_t n, Clock* clock,
        uint64_t number, HeaderRow* headers
    ) noexcept nogil:
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t place, i
        cdef bint use
        cdef Block* block
        cdef Run run
        while start < n:
            use = False
            place = 0
            if prepared != NULL:
                place = &frames[start] - prepared.frames
                use = (
                    place % BLOCK == 0 and n - start >= min(prepared.count - place, <Py_ssize_t>BLOCK)
                    and prepared.unused[place // BLOCK]
                )
            block = self.free_block(use)
            block.frames = &frames[start] if frames != NULL else NULL
            block.rows = &rows[start] if rows != NULL else NULL
            block.headers = &headers[start] if headers != NULL else NULL
            block.count = min(n - start, BLOCK - place % BLOCK)
            block.number = number + start
            block.clock = clock[0]
            block.is_prepared = use
            block.in_order = False
            if use:
                self.use_prepared(block, prepared, place // BLOCK, clock)
            if not block.in_order:
                begin_run(clock, &run)
                for i in range(start, start + block.count):
                    time_of(clock, &run, frames[i].time_ns if frames != NULL else rows[i].time_ns)
                end_run(clock, &run)
            self.note_core(0)
            swap_ordered(block.left, self.shard_count)
            add_ordered(self.published, 1)
            self.quiet += block.count
            self.announce(self.quiet)
            if self.quiet >= ENOUGH:
                self.quiet = 0
            start += block.count

    cdef void use_prepared(self, Block* block, Prepared* prepared, Py_ssize_t number, Clock* clock) noexcept nogil:
        cdef int64_t first = block.frames.time_ns
        cdef int64_t last = block.frames[block.count - 1].time_ns
        cdef Run run
        if number == 0:
            parse_first(self.parser, prepared)
        prepared.unused[number] = False
        block.content = prepared.blocks[number]
        block.content.borrowed = True        # the packets, too
        begin_run(clock, &run)
        block.ahead = run.ahead
        block.in_order = (
            prepared.in_order[number] and run.raw <= first and last <= run.latest
            and (number > 0 or block.count == 1 or first <= block.frames[1].time_ns)
        )
        if block.in_order:
            run.raw = last
            end_run(clock, &run)

    cdef Block* free_block(self, bint prepared) noexcept nogil:
        # `prepared`: the block needs no buffers.
        cdef uint64_t number = self.published[0]
        cdef Block* block = &self.blocks[number % PLACES]
        cdef Block* oldest
        cdef int turn = 0
        while True:
            while self.finished < number:
                oldest = &self.blocks[self.finished % PLACES]
                if load_ordered(oldest.done) != self.finished + 1:
                    break
                if not oldest.is_prepared:
                    self.buffers_used -= 1
                    self.buffers[self.buffers_used] = oldest.content
                self.finished += 1
            if number - self.finished < <uint64_t>self.buffer_count:
                break
            # Work instead of waiting.
            if not self.work(0):
                # A shard may be late because its thread has lost its core. Meanwhile the other shards may continue.
                if prepared and number - self.finished < PLACES:
                    break
                back_off(turn, load_ordered(&self.reads.crowded))
                turn += 1
        if not prepared:
            block.content = self.buffers[self.buffers_used]
            self.buffers_used += 1
        return block

    cdef uint64_t all_released(self) noexcept nogil:
        cdef const Block* block
        cdef uint64_t at = self.released
        while at < self.published[0]:
            block = &self.blocks[at % PLACES]
            # If another block has this place, the block `at` is done.
            if at + PLACES >= self.published[0] and (
                load_ordered(block.parsed) != at + 1 or (block.content.borrowed and load_ordered(block.done) != at + 1)
            ):
                break
            at += 1
        self.released = at
        return at

    cdef void release(self, uint64_t count) noexcept nogil:
        cdef int turn = 0
        while self.all_released() < count:
            if not self.work(0):
                back_off(turn, load_ordered(&self.reads.crowded))
                turn += 1

    cdef void drain(self) noexcept nogil:
        cdef uint64_t count = self.published[0]
        cdef int turn = 0
        # Shards take blocks in order, so if all shards are done with the last block, all blocks are done.
        while count and load_ordered(self.blocks[(count - 1) % PLACES].done) != count:
            if not self.work(0):
                back_off(turn, load_ordered(&self.reads.crowded))
                turn += 1

    cdef void retire(self) noexcept nogil:
        if getpid() != self.process:
            return      # the threads belong to the parent process
        self.drain()
        if not swap_ordered(&self.ended, 1):
            add_ordered(&workers_alive, <uint64_t>(1 - self.jobs))
        add_ordered(self.events, 1)
        self.unpark_all()

    cdef void note_core(self, int worker) noexcept nogil:
        # If two threads run on one core, the thread with the higher number moves to another core.
        cdef uint64_t core = core_of_thread()
        cdef uint64_t crowded = self.core_count < 1 + <int>load_ordered(&workers_alive)
        cdef int other_worker
        if load_ordered(&self.reads.crowded) != crowded:
            swap_ordered(&self.reads.crowded, crowded)
        if load_ordered(&self.cores[worker * LINE]) != core:
            swap_ordered(&self.cores[worker * LINE], core)
        if crowded or core == NO_CORE:
            return
        for other_worker in range(worker):
            if load_ordered(&self.cores[other_worker * LINE]) == core:
                leave_cores(self.cores, worker, LINE)
                swap_ordered(&self.cores[worker * LINE], core_of_thread())
                return

    # Working ----------------------------------------------------------------------------------------------------------

    cdef bint work(self, int worker) noexcept nogil:
        # Parses one block or judges some packets. Returns whether there was work. The thread's own shards come first,
        # because their tables are in its cache. Packets that the thread has just parsed are in its cache, too.
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
                block = &self.blocks[number % PLACES]
                count = block.count         # the block may be filled again as soon as it is parsed
                self.parse(block)
                swap_ordered(block.parsed, number + 1)
                self.announce(count)
                return True
            number = load_ordered(self.claimed)
        return False

    cdef void parse(self, Block* block) noexcept nogil:
        cdef Parsed* parsed = &block.content
        cdef Py_ssize_t i
        if not block.is_prepared:
            parse_block(self.parser, block.frames, block.rows, block.count, parsed)
        if not block.in_order:
            # The caller ran the clock, too. If it stored the times, these would have to come from its core.
            run_clock(&block.clock, parsed, block.count)
        if unlikely(block.headers != NULL):
            for i in range(block.count):
                write_header_row(&parsed.packets[i], &block.headers[i])

    cdef bint judge(self, int number) noexcept nogil:
        # Judges some of a shard's packets, unless another thread judges them. Returns whether the shard advanced.
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
            block = &self.blocks[at % PLACES]
            if likely(block.content.first[self.shard_count] == NO_PACKET):
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
            load_ordered(self.blocks[at % PLACES].parsed) == at + 1 and load_ordered(shard.stopped) != at + 1
        )

    cdef void judge_until(self, int number, Block* block, Py_ssize_t until) noexcept nogil:
        # Judges a shard's packets before index `until` of a block. While one batch is judged, the cache lines that the
        # next batch needs are being loaded.
        cdef Plane* plane = self.shards[number].plane
        cdef uint16_t* at = &block.content.first[number]
        cdef Taken taken[2]
        cdef int half = 0
        cdef Py_ssize_t i
        # The list leads from one of these lines to the next, so without this they would be loaded one after the other.
        for i in range((until - at[0] + INDICES - 1) // INDICES):
            prefetch(&block.content.next[at[0] + i * INDICES])
        take(plane, block, at, until, &taken[0])
        if taken[0].count == 0:
            return
        guess_batch(plane, taken[0].packets, taken[0].count)
        plane.want_sides = self.rows != NULL
        while taken[half].count:
            take(plane, block, at, until, &taken[1 - half])
            judge_batch(
                plane, taken[half].packets, taken[half].now, taken[half].numbers, self.first, taken[half].count,
                self.rows, self.words
            )
            half = 1 - half
            guess_batch(plane, taken[half].packets, taken[half].count)
        tally_ended(plane)

    cdef bint judge_mixed(self, Shard* shard, Block* block, uint64_t at) noexcept nogil:
        # Records that a shard has reached a block with fragments. If all shards have reached it, judges the block for
        # all of them, and returns True.
        cdef uint16_t* fragment = &block.content.first[self.shard_count]
        cdef int i
        swap_ordered(shard.stopped, at + 1)
        if add_ordered(block.left, <uint64_t>-1):
            return False
        while fragment[0] != NO_PACKET:
            for i in range(self.shard_count):
                self.judge_until(i, block, fragment[0])
            self.judge_fragment(block, fragment[0])
            fragment[0] = block.content.next[fragment[0]]
        for i in range(self.shard_count):
            self.judge_until(i, block, block.count)
        for i in range(self.shard_count):
            swap_ordered(self.shards[i].judged, at + 1)
        self.announce(block.count)
        swap_ordered(block.done, at + 1)
        return True

    cdef void judge_fragment(self, Block* block, Py_ssize_t at) noexcept nogil:
        cdef Packet* p = &block.content.packets[at]
        cdef int64_t now = p.time_ns + block.ahead if block.in_order else block.content.now[at]
        cdef uint64_t number = block.number + at
        cdef Plane* plane
        p.parse_result = p.fragment_parse_result
        plane = self.shards[shard_of(self.parser, p)].plane
        p.parse_result = READ_FRAGMENT
        plane.want_sides = self.rows != NULL
        judge_batch(plane, p, &now, &number, self.first, 1, self.rows, self.words)
        tally_ended(plane)

    def serve(self, int worker):
        """Run the loop of a worker thread, until ``retire``."""
        cdef uint64_t seen_events
        if not 1 <= worker < self.jobs:
            raise ValueError(f"no such thread: {worker}")
        with nogil:
            while not load_ordered(&self.ended):
                seen_events = load_ordered(self.events)
                self.note_core(worker)
                if self.work(worker):
                    continue
                if load_ordered(&self.ended):
                    break
                park_until_change(&self.parkings[worker], self.events, seen_events, load_ordered(&self.reads.crowded))

    cdef void announce(self, Py_ssize_t packets) noexcept nogil:
        # Announces new work. For a few packets no thread is woken up: that takes longer than judging them.
        add_ordered(self.events, 1)
        if packets >= ENOUGH and getpid() == self.process:
            self.unpark_all()

    cdef void unpark_all(self) noexcept nogil:
        cdef int i
        for i in range(1, self.jobs):
            unpark(&self.parkings[i])
