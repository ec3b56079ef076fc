# The data plane: frames in, verdicts out (SPEC 3, 4, 9.1 to 9.3).
#
# Frames are processed in batches of BATCH, in three passes:
#
#     read      reads every frame's headers to a key and a hash; prefetches the index line
#     guess     finds the slot that the line names; prefetches the entry
#     judge     judges strictly in order, as packet n + 1 depends on packet n
#
# The first two passes only hide memory latency: the next batch is read while the entries of this batch are loaded. The
# third pass checks the guesses, so no verdict depends on how a capture is divided into batches.
#
# With several jobs, frames go to the workers, which read their headers and judge them (workers.pxd).
#
# accounting.pxd reads flows, tallies and counters.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.clock cimport Clock
from sgfast.core.base.frames cimport Frame, FrameBatch
from sgfast.core.base.types cimport HeaderRow, Packet, ResultRow
from sgfast.core.classify.classifier cimport Classifier
from sgfast.core.fragments.datagrams cimport Fragments
from sgfast.core.parallel.parsing cimport Prepared
from sgfast.core.parallel.workers cimport Workers
from sgfast.core.pipeline.plane cimport Plane


# The outputs that the caller wants for each packet, NULL for unwanted ones; and the preparation of the frames.
cdef struct Outputs:
    ResultRow* results
    HeaderRow* headers
    uint16_t* words         # result words (types.pxd)
    bint later              # with several jobs, the workers may write the outputs after the call has returned
    Prepared* prepared      # preparation of the batch that contains the frames, or NULL


cdef class DataPlane:
    cdef Plane** planes     # one plane, or the planes of the workers' shards
    cdef int plane_count
    cdef readonly int jobs
    cdef Workers workers    # None with one job
    cdef list kept          # batches whose frames the workers may need, each in the place of its last block
    cdef uint64_t let_go    # blocks whose batches were taken out of `kept`
    cdef bint outstanding   # the last call wants its results later: the workers may still write them
    cdef list filled_later  # the arrays of such calls, kept until `take_resolved`
    cdef Fragments* fragments
    cdef Clock clock
    cdef uint64_t judged    # packets judged by this data plane
    # Packets that other data planes judged, up to this one's last packet (records.pyx). Packet numbers count them, too.
    cdef uint64_t judged_elsewhere
    cdef Classifier classifier
    cdef void* lock         # held for a whole call; never wait for it while holding the GIL
    # Two adjacent batches for one job. The next batch is read before the current one is judged.
    cdef Packet* packets[2]
    cdef int64_t* now[2]    # engine time, nanoseconds
    cdef uint32_t max_connections
    cdef uint32_t max_marks
    cdef uint64_t room      # packets that may be dispatched before the tables' limits are checked

    # Judge packets in order. These functions take the lock; `results` may be NULL. Call them without the GIL.
    cdef void judge_frames(self, const Frame* frames, Py_ssize_t n, ResultRow* results) noexcept nogil
    cdef void judge_headers(self, const HeaderRow* rows, Py_ssize_t n, ResultRow* results) noexcept nogil
    # Judges one packet; `row` must be zeroed. Call with the GIL.
    cdef void judge_one(self, const HeaderRow* header, ResultRow* row) noexcept
    # One of `frames` and `rows` is NULL. Returns the number of blocks that the workers have got so far. When these
    # blocks are released, the frames are not needed any more.
    cdef uint64_t judge(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, const Outputs* outputs) noexcept nogil
    cdef void judge_here(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, const Outputs* outputs) noexcept nogil
    cdef Py_ssize_t read_batch(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t start, Py_ssize_t n, int which) noexcept nogil
    cdef void dispatch(
        self, const Frame* frames, const HeaderRow* rows, Py_ssize_t n, const Outputs* outputs) noexcept nogil
    cdef int check_frames(self, const Frame* frames, Py_ssize_t n) except -1
    cdef int keep(self, FrameBatch batch, uint64_t blocks) except -1
    cdef void release(self, uint64_t blocks) noexcept nogil
    cdef void drain(self) noexcept nogil
    cdef void end_waiting(self) noexcept nogil
    cdef void catch_up(self) noexcept nogil
    cdef void lock_drained(self)
    cdef void unlock(self)
    cdef void start_clock(self, int64_t time_ns) noexcept nogil
    cdef void grant_room(self, int64_t time_ns) noexcept nogil
    cdef bint grow_counts(self, Py_ssize_t before, Py_ssize_t rules) noexcept nogil
    cdef ResultRow* result_rows(self, results, Py_ssize_t n) except? NULL
