# The entry point of the pipeline: takes packets whose headers were read, in order, one batch at a time. It is compiled
# only once, and called once per batch.
#
#     frame --wire--> Packet --batch--> fast path, or slow path

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.intrinsics cimport likely, prefetch
from sgfast.core.base.types cimport READ_TRACKED, Packet, ResultRow
from sgfast.core.classify.classifier cimport Classifier
from sgfast.core.pipeline.plane cimport Plane

cdef enum:
    BATCH = 16              # packets


cdef inline void prefetch_line(const Plane* plane, const Packet* p) noexcept nogil:
    # Prefetches the index bucket of a packet's key. Call this some packets before guess_batch.
    if likely(p.parse_result == READ_TRACKED):
        prefetch(&plane.table.buckets[p.hash & plane.table.bucket_mask])


# Guesses the entry of each packet, and prefetches the entry. Then call judge_batch, which compares the keys. Read the
# next packets before that call, because the entries take a while to arrive in the cache.
cdef void guess_batch(Plane* plane, Packet* packets, Py_ssize_t n) noexcept nogil
# Judges `n` packets in order. `now`: engine time of each packet, nanoseconds (SPEC 9.1). `numbers`: the packets'
# numbers, or NULL if they are consecutive from `first` on. `rows`, `words`: results and result words, indexed by
# packet number minus `first`, or NULL.
cdef void judge_batch(
    Plane* plane, Packet* packets, const int64_t* now, const uint64_t* numbers, uint64_t first, Py_ssize_t n,
    ResultRow* rows, uint16_t* words) noexcept nogil

# Frees the entries that ended before the tick of `now`.
cdef void sweep_all(Plane* plane, int64_t now) noexcept nogil
# Adds to the tallies what is not counted yet: ended tuples (endings.pxd), and the queue's entries (tally.pxd). After
# this the tallies are complete.
cdef void tally_ended(Plane* plane) noexcept nogil
# Resolve held fragments (fragments.pxd): the fragments of datagrams that are overdue before packet `number`, or the
# fragments of one datagram.
cdef void resolve_overdue(Plane* plane, int64_t now, uint64_t number) noexcept nogil
cdef void resolve_datagram(Plane* plane, uint32_t datagram, int64_t now) noexcept nogil

# `timeouts_ns`: nanoseconds, by Timeout (states.pxd). `secret`: eight 64-bit words that key the hash. After an
# exception the plane can still be passed to free_plane.
cdef int make_plane(
    Plane* plane, Classifier classifier, bint causal, int midstream, timeouts_ns, uint32_t max_connections,
    uint8_t infrastructure, bint keep_flows, bint reporting, Py_ssize_t events,
    list secret) except -1
cdef void free_plane(Plane* plane) noexcept nogil
