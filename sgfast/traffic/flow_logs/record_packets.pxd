# Makes the packets of records, as frames in the order of time.

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.frames cimport BatchPool, FrameBatch
from sgfast.core.base.types cimport PROTO_TCP
from sgfast.traffic.flow_logs.conversation_table cimport ConversationTable
from sgfast.traffic.flow_logs.later_packets cimport Later, LaterPackets
from sgfast.traffic.flow_logs.openers cimport FATES, Conversation, is_icmp

cdef enum:
    FRAMES = 1 << 12            # of a batch
    FRAMES_OF_RECORD = 6        # the most that are made of a record at once
    # The budget of frames that are made of records after their starts: at the beginning, and more for each record.
    FIRST_FRAMES = 1 << 26
    MORE_FRAMES = 1 << 10
    UNKNOWN = -1                # as in columns.py
    NS = 1000000000

# Why a record is left out.
cdef enum:         # LeftOut
    OTHER_END = 0           # the other end's record of the same packets
    COPY = 1
    OUTSIDE_WINDOW = 2
    NO_TIME = 3
    NO_PORTS = 4
    NO_PROTOCOL = 5
    ICMP_ERROR = 6
    NO_ROOM = 7
    NO_PACKETS = 8
    PERHAPS_NO_OPENER = 9
    OTHER_OWNER = 10        # an interface had the address of an instance at another time
    NAT_GATEWAY = 11        # a NAT gateway's record of packets that are counted already
    LEFT_OUT_COUNT = 12


# A record that waits, or one direction of a record that counts both.
cdef struct Waiting:
    int64_t start_ns
    int64_t end_ns
    uint64_t packets
    uint64_t nbytes
    uint64_t position       # as in Frame
    uint32_t conversation
    int16_t flags           # -1: unknown
    uint8_t way
    uint8_t rejected
    uint8_t is_record       # whether it counts as a record; 0 for the second direction of one
    uint8_t named           # 1 + the opener's way if the record names it, else 0
    uint8_t is_guess        # the opener that it names is known only if the connection is younger than the log
    uint8_t shows_answer    # its packets show that the other end answered
    uint8_t no_refusal      # they are more than RSTs in answer to openers, and more than openers
    uint8_t no_opener
    uint8_t is_noted
    int32_t interface
    uint32_t tie            # a hash of the rest: the order of records of one connection and start
    uint32_t before         # the record of this connection that was sorted before


# The fate of a connection that a question was about.
cdef struct Asked:
    uint64_t packets        # in records that are not judged, as the readings differ
    uint64_t nbytes
    uint64_t connections    # 1 if it was not judged, else those that began
    uint64_t attempts       # if the policy denies it, at most so many attempts of its opener


cdef class RecordPackets:
    cdef ConversationTable table
    cdef LaterPackets later
    cdef BatchPool pool
    # Frames of accepted records and of rejected ones, and the memory of each; None if the next one is to be begun.
    cdef FrameBatch accepted, rejections
    cdef uint8_t* rooms[2]
    cdef bint is_one_stream
    cdef int64_t now_ns             # the latest packet made
    # Nanoseconds, of TCP, ICMP and other protocols: the longest life of a connection, and the time between packets that
    # keep it alive whatever its state is. Then that of TCP once it was answered.
    cdef int64_t lifetime[3]
    cdef int64_t step[3]
    cdef int64_t long_step
    cdef int64_t[::1] changes       # the times of the policy's changes in ns, ascending
    cdef Py_ssize_t change_count
    cdef Asked* asked_about         # by the number of the question
    cdef Py_ssize_t question_count
    #: The records that became packets of connections, and of attempts that the cloud rejected.
    cdef readonly uint64_t judged, rejected
    #: The decided connections, and attempts that the cloud rejected.
    cdef readonly uint64_t decided
    #: The judged connections of which either end may be the opener, with one verdict.
    cdef readonly uint64_t unsure_connections
    #: The connections with records of both directions, and those whose records of one direction show an answer.
    cdef readonly uint64_t two_way, one_way
    #: The undecided connections that were answered.
    cdef readonly uint64_t undecided_answered
    #: The records during which the policy changed.
    cdef readonly uint64_t in_changes
    #: The judged records that do not name their interface: both ends' ones of the same packets may be among them.
    cdef readonly uint64_t without_interface
    #: The accepted records that overlap in time with an earlier one of the same interface, connection and direction.
    cdef readonly uint64_t overlapping
    #: The records whose later packets are missing because memory ran out.
    cdef readonly uint64_t lost
    #: The frames that are left in this budget. A record that needs more of them is left out.
    cdef public int64_t frames_left
    cdef uint64_t undecided_records[FATES]
    cdef uint64_t undecided_connections[FATES]
    cdef uint64_t left_out_records[LEFT_OUT_COUNT]

    cdef FrameBatch begun_batch(self, int which)
    cdef bint has_room(self) noexcept nogil
    cdef void leave_out(self, int why) noexcept nogil
    cdef void make(self, const Waiting* w) noexcept nogil
    cdef bint takes_frames(self, const Conversation* c, const Waiting* w) noexcept nogil
    cdef int64_t step_of(self, const Conversation* c, const Waiting* w) noexcept nogil
    cdef int expect(self, Py_ssize_t questions) except -1
    cdef void count_begun(self, const Conversation* c) noexcept nogil
    cdef void count_directions(self, const Conversation* c) noexcept nogil
    cdef Py_ssize_t changes_until(self, int64_t time_ns) noexcept nogil
    cdef bint is_attempt(self, Conversation* c, const Waiting* w) noexcept nogil
    cdef void make_tcp(self, Conversation* c, const Waiting* w) noexcept nogil
    cdef void make_others(self, Conversation* c, const Waiting* w) noexcept nogil
    cdef uint64_t put_first(
        self, Conversation* c, const Waiting* w, uint64_t left, bint counts, uint8_t flags
    ) noexcept nogil
    cdef void ask(self, Conversation* c, uint8_t flags, int64_t time_ns, uint64_t position) noexcept nogil
    cdef void wait(self, Conversation* c, const Waiting* w, uint64_t left, uint8_t flags) noexcept nogil
    cdef void keep_alive(self, Conversation* c, const Waiting* w, uint8_t flags) noexcept nogil
    cdef void leave(self, const Later* later) noexcept nogil
    cdef void make_later(self) noexcept nogil
    cdef void put(
        self, int which, Conversation* c, int way, uint8_t flags, uint64_t packets, uint64_t nbytes,
        int64_t time_ns, uint64_t position
    ) noexcept nogil


cdef inline int kind_of(const Conversation* c) noexcept nogil:
    # Returns the place of a connection's timeouts.
    return 0 if c.protocol == PROTO_TCP else 1 if is_icmp(c) else 2
