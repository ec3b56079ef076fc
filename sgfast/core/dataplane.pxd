# The data plane: frames in, verdicts out (SPEC 3, 4, 9.1 to 9.3).
#
# Frames go through in batches of BATCH, in three passes:
#
#     read      every frame's headers to a key and a hash; the index line is prefetched
#     guess     which slot the line names; the entry is prefetched
#     judge     strictly in order, for packet n + 1 depends on packet n
#
# The first two passes only hide memory latency. What they guess is checked in the third, so no verdict depends on
# how a capture is cut into batches.

from libc.stdint cimport uint32_t

from sgfast.core.classifier cimport Classifier
from sgfast.core.conntrack cimport Table
from sgfast.core.frames cimport Frame
from sgfast.core.plane cimport Plane
from sgfast.core.types cimport HeaderRow, Packet, ResultRow

cdef enum:
    BATCH = 128


cdef class DataPlane:
    cdef Plane plane
    cdef Classifier classifier
    cdef void* lock         # one thread at a time, for a whole call; taken without the GIL
    cdef Packet* packets    # BATCH of them
    cdef Py_ssize_t[2] tallied  # ended tuples the tallies have seen: of the table, of the attempts
    cdef uint32_t[2] report_from    # where `finish` goes on: of the table, of the attempts
    # Judge in order, under the lock; rows and headers may be NULL. To be called without the GIL.
    cdef void judge_frames(self, const Frame* frames, Py_ssize_t n, ResultRow* rows, HeaderRow* headers) noexcept nogil
    cdef void judge_headers(self, const HeaderRow* headers, Py_ssize_t n, ResultRow* rows) noexcept nogil
    cdef ResultRow* result_rows(self, results, Py_ssize_t n) except? NULL
    cdef void tally_ended(self) noexcept nogil
