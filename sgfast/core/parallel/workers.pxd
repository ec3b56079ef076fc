# Several threads judge together (``jobs`` of the library and the command). Connections are distributed over shards by a
# hash of their keys, which is the same for both directions. Each shard has a plane of its own. An ICMP error goes to
# the shard of the connection it quotes.
#
#     caller:     frames --headers, clock--> queue of a shard     the clock depends on all packets (SPEC 9.1)
#     workers:    queue of a shard --> its plane                   nothing else does
#
# A worker serves some shards, and other shards when those have nothing to do. The caller does the same when a queue is
# full. A thread marks a shard as busy while it works on it, so the shard's packets are judged in order, whichever
# thread judges them. Only `drain` waits for the workers, for callers that want results. Otherwise the next part of the
# capture is read meanwhile.
#
# As long as no table is full, results are those of a single plane (``dataplane.pyx`` enforces the limits).

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.clock cimport Clock
from sgfast.core.base.frames cimport Frame
from sgfast.core.base.types cimport HeaderRow, Packet, ResultRow
from sgfast.core.parallel.backoff cimport Parking
from sgfast.core.pipeline.plane cimport Plane

cdef enum:
    MOST_JOBS = 64
    QUEUE = 1024            # packets, a power of two


cdef inline int shard_of_hash(uint32_t hash_value, int shards) noexcept nogil:
    # Uses other bits than the tables do: their lowest bits select the bucket, the highest eight are the tag.
    return <int>((<uint64_t>(hash_value * <uint32_t>0x9E3779B1 >> 8 & 0xFFFF) * <uint64_t>shards) >> 16)


cdef struct Shard:
    Plane* plane
    Packet* packets         # [QUEUE]
    int64_t* now            # [QUEUE]: engine time, nanoseconds
    uint64_t* numbers       # [QUEUE]: packet numbers
    # Running counts of packets. Used only by the thread that fills the queue:
    uint64_t filled         # packets put into the queue
    uint64_t room_until     # the queue surely has room until `filled` reaches this
    # Shared by several threads, so each is on cache lines of its own:
    uint64_t* published     # packets put in that workers may take
    uint64_t* judged        # packets judged
    uint64_t* busy          # nonzero while a thread works on the shard


cdef class Workers:
    cdef int jobs
    cdef int shard_count
    cdef Shard* shards
    cdef Packet* staging            # packets being distributed
    cdef uint64_t* lines            # memory of the shards' shared counters, and of `publications`
    cdef uint64_t* publications     # how often packets were published; idle workers watch it
    cdef int process                # PID of the process that has the threads; a forked child has none
    cdef uint64_t ended
    cdef Parking* parkings          # by worker
    # Where results go, indexed by packet number minus `first`, or NULL.
    cdef ResultRow* rows
    cdef uint16_t* words            # likewise
    cdef uint64_t first

    # Call these without the GIL, from one thread at a time. `enqueue` puts packets into the queues, numbered from
    # `number` on. It returns whether a packet is judged by bytes of its frame, which must then stay valid until
    # `drain`.
    cdef bint enqueue(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, Clock* clock, uint64_t number,
        HeaderRow* headers) noexcept nogil
    cdef void drain(self) noexcept nogil
    cdef void retire(self) noexcept nogil       # drains, then ends the threads

    cdef void judge_alone(self, Packet* p, int64_t now, uint64_t number) noexcept nogil
    cdef void make_room(self, Shard* shard) noexcept nogil
    cdef bint work_on(self, Shard* shard) noexcept nogil
    cdef bint work(self, int worker) noexcept nogil
    cdef void publish(self, Shard* shard) noexcept nogil
    cdef void unpark_all(self) noexcept nogil
