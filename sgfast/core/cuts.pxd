# What became of the connections that changes of the policy cut (SPEC 6.3, 6.4), for the report.
#
# A key that was cut waits here until a packet opens it again and is allowed. Until then, what the capture still has of
# the connection is no denial of its own: in the changed world it would be a retransmission at most. An opener that the
# rules deny meanwhile is one, and ends that.
#
# Only packets that are denied, and such that open a connection, ever look here, and only while some key waits.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from sgfast.core.conntrack cimport Ends, Table
from sgfast.core.types cimport Packet

cdef enum:
    # Connections told of one by one; the others are in the numbers of each change only.
    MAX_CUTS = 1 << 20
    NO_CUT = 0xFFFFFFFF


cdef enum:         # CutOutcome
    CUT_NEVER = 0           # nothing opened the key again
    CUT_BACK = 1
    CUT_DENIED = 2          # an opener came, and what the rules say by then denied it


# One connection that one change cut.
cdef packed struct CutRow:
    int64_t cut_ns
    int64_t again_ns        # when it came back, or first tried to
    uint64_t packets        # that came after the cut and open nothing
    uint64_t bytes
    Ends ends
    int32_t rule[2]         # it came back under, of the egress side and the ingress side; -1: no such side
    uint32_t change         # the how-manieth change of the engine
    uint32_t previous       # of the same key, cut before and still waiting, or NO_CUT
    uint8_t outcome
    uint8_t turned          # what came back was opened by the other end
    uint8_t finished        # it was over when it was cut, closed or reset, and only not yet forgotten
    uint8_t spare


cdef struct Cuts:
    Table waiting           # by key; rule[0] of an entry is its latest row's number
    CutRow* rows
    uint32_t count
    uint32_t capacity
    uint64_t untold         # beyond MAX_CUTS, or no memory


cdef int init_cuts(Cuts* cuts) except -1
cdef void free_cuts(Cuts* cuts) noexcept nogil

# Side `side` of the connection in a table's slot was cut. Once for each tuple and change.
cdef void note_cut(Cuts* cuts, const Table* t, uint32_t slot, int side, uint32_t change, int64_t now) noexcept nogil
# A denied packet: whether it follows a cut, and is counted there.
cdef bint follows_cut(Cuts* cuts, const Packet* p, bint opener, int64_t now) noexcept nogil
# A packet that opened what is in a table's slot, and was allowed.
cdef void note_return(
    Cuts* cuts, const Packet* p, const Table* t, uint32_t slot, bint initiator_high, int64_t now) noexcept nogil
