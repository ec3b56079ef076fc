# Several threads judge together (``jobs`` of the library and the command). A hash of the key, which is the same for
# both directions, assigns each connection to a shard. Each shard has a plane of its own. An ICMP error goes to the
# shard of the connection that it quotes.
#
#     read:       file --> window --> frames --> packets, with a list for each shard
#                                                        by any idle thread, ahead of the caller (capture/ahead.pxd)
#     caller:     frames --> block of a ring             in order, as the clock depends on all packets (SPEC 9.1)
#     parse:      block --> packets, as above            by any thread, if the frames do not come from a window
#     judge:      list of a shard --> its plane          block after block, by one thread at a time
#
# Each thread does any of this work, and the caller does the same when it has to wait. Only the caller goes through the
# packets in order and runs the clock. A thread marks a shard as busy while it works on the shard, so the shard's
# packets are judged in order, whichever thread judges them. The last shard to finish a block frees the block's place in
# the ring.
#
# The verdict of a fragment may apply to fragments of any shard. So one thread judges all packets of a block that has
# fragments. Each shard stops before such a block. The thread that stopped the last shard judges the block.
#
# A cache line that one core has written takes a while to reach another core. So a thread prefetches the lines that it
# needs next. It prefetches them for writing (`take_over`), even if it reads them first, because it will write most of
# them soon, and a write takes longer while another core also holds the line.
#
# A thread may lose its core to another program for some milliseconds while it works on a shard or a window. Meanwhile
# the other threads work on other shards, and the ring has room for the blocks that wait for that shard. If the caller
# needs the window, it reads the window again. If two threads share a core, one of them moves away (cores.pxd).
#
# Only `drain` waits for all packets, for callers that want results. Without it, the next part of the capture is read at
# the same time. `release` waits until no thread needs the frames any more.
#
# As long as no table is full, the results are the same as those of a single plane (`shared_limits.pxd`).

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.clock cimport Clock
from sgfast.core.base.file_reads cimport FileReads
from sgfast.core.base.frames cimport Frame
from sgfast.core.base.types cimport HeaderRow, Packet, ResultRow
from sgfast.core.base.backoff cimport Parking
from sgfast.core.parallel.parsing cimport Parsed, Parser, Prepared
from sgfast.core.pipeline.batch cimport BATCH
from sgfast.core.pipeline.plane cimport Plane

cdef enum:
    PLACES = 128            # blocks of the ring


cdef struct Block:
    # Fields that the caller writes before it publishes the block:
    const Frame* frames     # NULL if the packets are header rows
    const HeaderRow* rows
    HeaderRow* headers      # place for headers, or NULL
    Py_ssize_t count        # packets
    uint64_t number         # number of the first packet
    Clock clock             # before the first packet
    bint is_prepared        # the frames were parsed beforehand
    bint in_order           # engine time is each packet's timestamp plus `ahead`
    int64_t ahead           # nanoseconds
    # Filled by the thread that parses the block, unless the block was prepared:
    Parsed content
    # Shared by several threads, so each is on its own cache lines. A block's number is the count of earlier blocks.
    uint64_t* parsed        # number + 1 of the last block that was parsed in this place
    uint64_t* left          # number of shards that have not finished the block
    uint64_t* done          # number + 1 of the last block that all shards have finished


cdef struct Shard:
    Plane* plane
    # Shared by several threads:
    uint64_t* judged        # number of blocks that the shard has finished
    uint64_t* stopped       # number + 1 of the last block with fragments that the shard has reached
    uint64_t* busy          # nonzero while a thread works on the shard


# Packets of one shard that were taken out of a block to be judged together.
cdef struct Taken:
    Packet packets[BATCH]
    int64_t now[BATCH]
    uint64_t numbers[BATCH]
    Py_ssize_t count


cdef class Workers:
    cdef int jobs
    cdef int shard_count
    cdef Shard* shards
    cdef Parser* parser
    cdef Block* blocks              # the ring
    cdef Parsed* buffers            # for blocks that were not prepared; free from `buffers_used` on
    cdef char* memory               # memory of the buffers
    cdef size_t buffer_bytes        # size of each buffer, in whole cache lines
    cdef int buffer_count
    cdef int buffers_used
    cdef uint64_t finished          # blocks at the front that all shards have finished, as far as is known
    cdef uint64_t* lines            # memory of the counters that threads share
    # Counts of blocks from the first one on:
    cdef uint64_t* published        # blocks that may be parsed
    cdef uint64_t* claimed          # blocks that some thread parses or has parsed
    cdef uint64_t released          # blocks whose frames are certainly not needed; used by the caller only
    cdef int core_count             # cores that these threads may use; 0 if their number is not known
    cdef uint64_t* cores            # the core of each thread, on cache lines of its own
    cdef uint64_t* events           # number of times that new work was announced; idle workers watch it
    cdef Py_ssize_t quiet           # packets published since threads were last woken up
    cdef int process                # PID of the process with the threads; a forked child has none of them
    cdef uint64_t ended
    cdef Parking* parkings          # by worker
    cdef FileReads reads            # file reads for threads without other work
    # Places for results, indexed by packet number minus `first`, or NULL.
    cdef ResultRow* rows
    cdef uint16_t* words            # likewise for result words (types.pxd)
    cdef uint64_t first

    # Call these without the GIL, from one thread at a time. `add` puts packets into blocks, numbered from `number` on.
    # Frames must stay valid until they are released, and `rows` and `headers` until `drain`.
    # `prepared`: the preparation of the batch that contains the frames, or NULL.
    cdef void add(
        self, const Frame* frames, Prepared* prepared, const HeaderRow* rows, Py_ssize_t n, Clock* clock,
        uint64_t number, HeaderRow* headers) noexcept nogil
    # Waits until the frames of the first `count` blocks are not needed any more.
    cdef void release(self, uint64_t count) noexcept nogil
    # Returns the number of blocks whose frames are not needed any more.
    cdef uint64_t all_released(self) noexcept nogil
    cdef void drain(self) noexcept nogil
    cdef void retire(self) noexcept nogil       # drains, then ends the threads

    cdef uint64_t* line(self, Py_ssize_t number) noexcept nogil
    cdef Block* free_block(self, bint prepared) noexcept nogil
    cdef void use_prepared(self, Block* block, Prepared* prepared, Py_ssize_t number, Clock* clock) noexcept nogil
    cdef void note_core(self, int worker) noexcept nogil
    cdef bint work(self, int worker) noexcept nogil
    cdef bint parse_next(self) noexcept nogil
    cdef void parse(self, Block* block) noexcept nogil
    cdef bint judge(self, int number) noexcept nogil
    cdef bint may_judge(self, const Shard* shard, uint64_t at) noexcept nogil
    cdef void judge_until(self, int number, Block* block, Py_ssize_t until) noexcept nogil
    cdef bint judge_mixed(self, Shard* shard, Block* block, uint64_t at) noexcept nogil
    cdef void judge_fragment(self, Block* block, Py_ssize_t at) noexcept nogil
    cdef void announce(self, Py_ssize_t packets) noexcept nogil
    cdef void unpark_all(self) noexcept nogil
