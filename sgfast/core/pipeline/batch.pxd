# The door of the pipeline: packets whose headers were read, a batch at a time, in order. It is compiled once and called
# once for each batch.
#
#     frame --wire--> Packet --batch--> fast path, or verdict: filter of each side --> bookkeeping

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.intrinsics cimport likely, prefetch
from sgfast.core.base.types cimport READ_TRACKED, Packet, ResultRow
from sgfast.core.classify.classifier cimport Classifier
from sgfast.core.pipeline.plane cimport Plane

cdef enum:
    BATCH = 32              # packets


cdef inline void prefetch_line(const Plane* plane, const Packet* p) noexcept nogil:
    # The index line where a packet's key would be: to be called some packets before judge_batch.
    if likely(p.outcome == READ_TRACKED):
        prefetch(&plane.table.buckets[p.hash & plane.table.bucket_mask])


# Judges `n` packets in order. `now`: what the clock says, by packet (SPEC 9.1). `numbers`: each packet's number; NULL:
# they follow `first`. `rows`: of the results, `words`: of the outcome words, from packet `first` on; or NULL.
cdef void judge_batch(
    Plane* plane, Packet* packets, const int64_t* now, const uint64_t* numbers, uint64_t first, Py_ssize_t n,
    ResultRow* rows, uint16_t* words) noexcept nogil

# Gives back what ended before `now`.
cdef void sweep_all(Plane* plane, int64_t now) noexcept nogil
# Counts ended tuples for the summary (outcomes.pxd).
cdef void tally_ended(Plane* plane) noexcept nogil
# Fragments that nobody waits for any more before packet `number`, or of one datagram (fragments.pxd).
cdef void resolve_overdue(Plane* plane, int64_t now, uint64_t number) noexcept nogil
cdef void resolve_datagram(Plane* plane, uint32_t datagram, int64_t now) noexcept nogil

# `timeouts_ns`: by Timeout (states.pxd), nanoseconds. `secret`: eight words of 64 bits, that key the hash. An exception
# leaves what free_plane may be given.
cdef int make_plane(
    Plane* plane, Classifier classifier, bint causal, int midstream, timeouts_ns, uint32_t max_connections, bint exempt,
    bint keep_flows, bint reporting, list secret) except -1
cdef void free_plane(Plane* plane) noexcept nogil
