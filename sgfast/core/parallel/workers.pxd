# Several threads judge together (``jobs`` of the library and the command). Connections are dealt out to shards by a
# hash of their keys, the same for both directions; each shard has a plane of its own. An ICMP error goes with the
# connection it quotes.
#
#     who calls:  frames --headers, clock--> queue of a shard     the clock depends on all packets (SPEC 9.1)
#     workers:    queue of a shard --> its plane                   nothing else does
#
# A worker looks after some shards, and after others when those have nothing for it; so does who calls, when a queue is
# full. Who works on a shard holds it; so its packets are judged in order, whoever they are judged by. Nobody waits for
# the workers but who wants to know what came of it (`drain`): meanwhile the next part of the capture is read.
#
# Below the limits of the tables results are those of one plane (``dataplane.pyx`` heeds the limits).

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
    # By other bits than those that tables look at: the lowest are their lines, the highest eight their tags.
    return <int>((<uint64_t>(hash_value * <uint32_t>0x9E3779B1 >> 8 & 0xFFFF) * <uint64_t>shards) >> 16)


cdef struct Shard:
    Plane* plane
    Packet* packets         # [QUEUE]
    int64_t* now            # likewise: what the clock says
    uint64_t* numbers       # likewise: which packet of the engine it is
    # Counts of packets since ever; of who fills the queue:
    uint64_t filled         # put in
    uint64_t room_until     # there was room for
    # On cache lines of their own, as several threads look at them:
    uint64_t* shown         # put in, and others may take them
    uint64_t* taken         # judged
    uint64_t* held          # whether somebody works on it


cdef class Workers:
    cdef int jobs
    cdef int shard_count
    cdef Shard* shards
    cdef Packet* handful            # being dealt out
    cdef uint64_t* lines            # what shards have on lines of their own, and `shows`
    cdef uint64_t* shows            # how often something was shown: what waits for work looks here
    cdef int process                # whose threads they are: a child of fork has none
    cdef uint64_t ended
    cdef Parking* parkings          # by worker
    # Where results go: of the packets from number `first` on, or NULL.
    cdef ResultRow* rows
    cdef uint16_t* words            # likewise
    cdef uint64_t first

    # Without the GIL, by one thread at a time. `deal`: into the queues, the first packet being the `number`-th; whether
    # some packet is judged by bytes of its frame, which must not go away before.
    cdef bint deal(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, Clock* clock, uint64_t number,
        HeaderRow* headers) noexcept nogil
    cdef void drain(self) noexcept nogil
    cdef void retire(self) noexcept nogil       # drained; the threads end

    cdef void judge_alone(self, Packet* p, int64_t now, uint64_t number) noexcept nogil
    cdef void make_room(self, Shard* shard) noexcept nogil
    cdef bint work_on(self, Shard* shard) noexcept nogil
    cdef bint work(self, int worker) noexcept nogil
    cdef void show_shard(self, Shard* shard) noexcept nogil
    cdef void unpark_all(self) noexcept nogil
