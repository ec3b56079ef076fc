"""Turn records of flow logs into the packets that an engine judges: an opener, answers, and the others that each record
counts.

A record says what happened to a connection in an interval. It waits for other records of its connection, up to an hour
of record time, and then becomes a few frames of LINK_RECORD (``frames.pxd``) in the order of time. The first frame is
the opener; ``openers.pxd`` says whose it is. Frames without packets keep the connection alive between a record's start
and end.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp

from sgfast.core.base.frames cimport LINK_RECORD, POSITION_BITS, BatchPool, Frame, FrameBatch
from sgfast.core.base.icmp cimport icmp_is_error, icmp_query, query_type
from sgfast.core.base.intrinsics cimport fold
from sgfast.core.base.types cimport PROTO_TCP
from sgfast.core.wire.ip cimport transport_header_length
from sgfast.flow_logs.conversation_table cimport MOST_CONVERSATIONS, ConversationTable
from sgfast.flow_logs.formats.record_row cimport Row
from sgfast.flow_logs.later_packets cimport Later, LaterPackets
from sgfast.flow_logs.record_frames cimport FRAME_ROOM, write_record_frame
from sgfast.flow_logs.openers cimport (
    ACK,
    CAUSES,
    DECIDED,
    FIN,
    ICMP_WITHOUT_TYPE,
    NO_INTERFACE,
    NO_OPENER,
    RST,
    SYN,
    Conversation,
    is_icmp,
)

import numpy as np

from sgfast.flow_logs.formats.columns import RECORD_DTYPE

cdef enum:
    MOST_INTERFACES = 1 << 20           # as many as words are numbered
    MOST_WAITING = 1 << 20
    FRAMES = 1 << 12                    # of a batch
    PORT_BYTES = 1 << 13                # a bit for each port
    NS = 1000000000
    # Values of columns.py.
    UNKNOWN = -1
    REJECTED = 2
    # Bits of Row.history, from zeek.HISTORY_LETTERS.
    HISTORY_SYN = 1 << 0
    HISTORY_SYNACK = 1 << 1
    HISTORY_FIN = 1 << 4
    HISTORY_RST = 1 << 5

# The latest time of a record, year 2116: keys for sorting have room for it.
cdef int64_t LAST_TIME = <int64_t>1 << 62
# Packets and bytes of a frame, and of a record: the latter is more than a network can carry in an interval.
cdef uint64_t MOST_OF_FRAME = 0xFFFFFFFF
cdef uint64_t MOST_OF_RECORD = <uint64_t>1 << 48
# Logs have a gap if no record begins for longer. It is more than the longest interval of a cloud.
cdef int64_t GAP = 900 * <int64_t>NS
# If one end's log is silent for longer, the other end's records count. It is more than their clocks differ.
cdef int64_t SILENCE = 120 * <int64_t>NS
# A record keeps its connection alive for no longer.
cdef int64_t LONGEST = 31 * 86400 * <int64_t>NS

EARLIEST, LATEST = -(1 << 63), (1 << 63) - 1       # the range of int64_t

#: The time that a record waits for others of its connection, in record time.
PATIENCE_NS = 3600 * 10**9
#: The record time after which the next records are made packets of.
TURN_NS = 600 * 10**9

#: Timeouts of a connection, by the place of its kind: TCP, ICMP, other protocols.
TIMEOUTS = (
    ("tcp_established", "tcp_fin_wait", "tcp_other"), ("icmp",), ("bidirectional", "unidirectional")
)

#: Causes of undecided records, in the order of Cause (``openers.pxd``).
UNDECIDED = (None, "no-sign", "disputed", "icmp-type", "no-opener")

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
    LEFT_OUT_COUNT = 9

#: The words for LeftOut.
LEFT_OUT = (
    "other-end", "copy", "time-window", "no-time", "no-ports", "no-protocol", "icmp-error", "no-room", "no-packets",
)


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
    int32_t interface


cdef class Connections:
    """Records of flow logs, which become frames. ``add`` records in about the order of time, and whenever ``is_due``,
    call ``release``, and then ``next_batch`` until it returns None.

    ``shortest``, ``longest``: the timeouts of the policies that judge (``policy.settings.timeouts``). ``from_ns``,
    ``until_ns``: the first time and the one after the last, or None. ``is_one_stream``: frames of rejected records are
    among the others.
    """

    cdef ConversationTable table
    cdef int64_t patience_ns
    cdef Waiting* waiting
    cdef Py_ssize_t waiting_count, waiting_capacity
    cdef LaterPackets later
    cdef Waiting* ready             # released records, in the order of time
    cdef Py_ssize_t ready_count, at
    cdef int64_t first_ns, newest_ns        # the first and the latest start
    cdef int64_t looked_ns, released_ns, now_ns     # up to these times records were looked at, released, made
    cdef int64_t* begins            # the first start by interface, from UNKNOWN on; LAST_TIME: not seen
    cdef Py_ssize_t begins_capacity
    cdef int64_t going_ns           # the first start after the latest gap of all logs
    cdef bint any, ended
    cdef int64_t from_ns, until_ns
    # Nanoseconds, of TCP, ICMP and other protocols: the longest life of a connection, and the time between packets that
    # keep it alive whatever its state is. Then that of TCP once it was answered.
    cdef int64_t lifetime[3]
    cdef int64_t step[3]
    cdef int64_t long_step
    cdef bint is_one_stream
    cdef int64_t[::1] changes       # times in ns, in order
    cdef Py_ssize_t change_count
    cdef uint8_t* undecided_ports_seen      # a bit for each port by protocol, of undecided records that may have passed
    #: The decided connections, and attempts that the cloud rejected.
    cdef readonly uint64_t decided
    #: The undecided records of ICMP.
    cdef readonly uint64_t undecided_icmp
    #: The records during which the policy changed.
    cdef readonly uint64_t in_changes
    #: The judged records that do not name their interface: both ends' ones of the same packets may be among them.
    cdef readonly uint64_t without_interface
    cdef BatchPool pool
    # Frames of accepted records and of rejected ones, and the memory of each; None if the next one is to be begun.
    cdef FrameBatch accepted, rejections
    cdef uint8_t* rooms[2]
    #: The records that became packets of connections, and of attempts that the cloud rejected.
    cdef readonly uint64_t judged, rejected
    #: The records that came when others of their time had been judged.
    cdef readonly uint64_t late
    cdef readonly uint64_t forgotten
    cdef uint64_t undecided_records[CAUSES]
    cdef uint64_t undecided_connections[CAUSES]
    cdef uint64_t left_out_records[LEFT_OUT_COUNT]
    #: The records whose number of packets, or of bytes, the log does not say.
    cdef readonly uint64_t without_packets, without_bytes

    def __cinit__(self, shortest not None, longest not None, from_ns=None, until_ns=None, *, bint is_one_stream=False):
        cdef int i
        self.patience_ns = PATIENCE_NS
        self.waiting_capacity = 1 << 12
        self.table = ConversationTable()
        self.later = LaterPackets()
        self.waiting = <Waiting*>malloc(self.waiting_capacity * sizeof(Waiting))
        self.undecided_ports_seen = <uint8_t*>calloc(256 * PORT_BYTES, 1)
        if self.waiting == NULL or self.undecided_ports_seen == NULL:
            raise MemoryError
        self.from_ns = EARLIEST if from_ns is None else max(EARLIEST, min(LATEST, from_ns))
        self.until_ns = LATEST if until_ns is None else max(EARLIEST, min(LATEST, until_ns))
        for i, names in enumerate(TIMEOUTS):
            # Records may have times in whole seconds.
            self.lifetime[i] = int((max(getattr(longest, name) for name in names) + 1) * NS)
            # Packets within a record may have changed the state to one that lives shorter.
            self.step[i] = max(int(min(getattr(shortest, name) for name in names) * 0.9 * NS), NS // 4)
        self.long_step = max(int(shortest.tcp_established * 0.9 * NS), NS // 4)
        self.is_one_stream = is_one_stream
        self.pool = BatchPool(FRAMES)
        self.now_ns = self.looked_ns = self.released_ns = self.newest_ns = self.going_ns = -(1 << 62)

    def __dealloc__(self):
        free(self.waiting)
        free(self.ready)
        free(self.begins)
        free(self.undecided_ports_seen)

    def note_changes(self, times_ns not None):
        """Take the times of the policy's changes, to count the records during which it changes."""
        self.changes = np.sort(np.array(times_ns, np.int64))
        self.change_count = len(times_ns)

    # Records come in --------------------------------------------------------------------------------------------------

    def add(self, rows not None, uint64_t number, int vpc=0):
        """Add rows of RECORD_DTYPE from the file with this number, from 1. ``vpc``: ``Frame.vpc`` of the file."""
        cdef const uint8_t[::1] view
        cdef const Row* row
        cdef Py_ssize_t n = len(rows)
        cdef Py_ssize_t i, at
        cdef const int64_t[::1] order
        if rows.dtype != RECORD_DTYPE:
            raise TypeError("rows must be of RECORD_DTYPE")
        if n == 0:
            return
        if self.waiting_count + 2 * n > self.waiting_capacity:
            self.make_room(2 * n)
        view = np.ascontiguousarray(rows).view(np.uint8)
        row = <const Row*>&view[0]
        # A file is not in the order of time, and it matters what was logged before.
        order = np.argsort(rows["start_ns"], kind="stable")
        with nogil:
            for i in range(n):
                at = order[i]
                self.add_row(&row[at], number << POSITION_BITS | <uint64_t>row[at].line, <uint16_t>vpc)

    cdef int make_room(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t capacity = max(2 * self.waiting_capacity, self.waiting_count + more)
        cdef Waiting* grown = <Waiting*>realloc(self.waiting, capacity * sizeof(Waiting))
        if grown == NULL:
            raise MemoryError
        self.waiting = grown
        self.waiting_capacity = capacity
        return 0

    cdef int add_row(self, const Row* row, uint64_t position, uint16_t vpc) except -1 nogil:
        cdef const uint8_t* src = row.src
        cdef const uint8_t* dst = row.dst
        cdef int64_t end_ns = row.start_ns if row.end_ns == UNKNOWN else row.end_ns
        cdef bint icmp = row.protocol == (58 if row.family == 6 else 1)
        cdef bint reply = False
        cdef bint has_icmp = icmp and row.icmp_type != UNKNOWN
        cdef uint8_t icmp_type = <uint8_t>row.icmp_type if has_icmp else 0
        cdef int cause = -1
        cdef Conversation* c
        cdef int16_t flags = row.tcp_flags
        cdef int16_t flags_back = UNKNOWN
        cdef int way, query
        cdef int64_t logged_ns
        cdef uint8_t named = 0
        # Behind NAT, the interface's own addresses are not those of the connection.
        if row.has_pkt & 1:
            src = row.pkt_src
        if row.has_pkt & 2:
            dst = row.pkt_dst
        if row.start_ns < 0 or end_ns < row.start_ns or end_ns > LAST_TIME:
            cause = NO_TIME
        elif row.protocol < 0:
            cause = NO_PROTOCOL
        elif end_ns < self.from_ns or row.start_ns >= self.until_ns:
            cause = OUTSIDE_WINDOW
        elif not icmp and transport_header_length(row.family == 6, <uint8_t>row.protocol) and not row.has_ports:
            cause = NO_PORTS
        elif has_icmp and icmp_is_error(row.family == 6, icmp_type):
            cause = ICMP_ERROR
        if cause >= 0:
            self.left_out_records[cause] += 1
            return 0
        if has_icmp:
            query = icmp_query(row.family == 6, icmp_type, &reply)
            icmp_type = <uint8_t>query_type(row.family == 6, query) if query else icmp_type
        if not self.any or row.start_ns < self.first_ns:
            self.first_ns = row.start_ns
        self.any = True
        if row.start_ns > self.newest_ns + GAP:
            self.going_ns = row.start_ns
        logged_ns = self.logged_since(row)
        self.newest_ns = max(self.newest_ns, row.start_ns)
        self.late += row.start_ns < self.released_ns
        way = memcmp(src, dst, 16)
        way = way > 0 or (way == 0 and row.sport > row.dport)
        c = self.table.find(src, dst, way, row, vpc, has_icmp * (1 + (1 - way if reply else way)), icmp_type)
        if c == NULL:
            self.left_out_records[NO_ROOM] += 1
            return 0
        c.logged_ns = min(c.logged_ns, logged_ns)
        if has_icmp:
            c.icmp_code = <uint8_t>row.icmp_code
            named = 1 + (1 - way if reply else way)
            c.named |= named
        if row.opener:
            named = 1 + (way if row.opener == 1 else 1 - way)
            c.named |= named
        if row.history:
            flags = flags_of(row.history)
            flags_back = flags_of(row.history >> 16)
        self.without_packets += row.packets == UNKNOWN
        self.without_bytes += row.bytes == UNKNOWN
        # A record that counts both ways may have no packet of one of them.
        if row.packets == 0 and row.packets_back <= 0:
            self.left_out_records[NO_PACKETS] += 1
            return 0
        if row.packets != 0:
            self.take(c, row, way, end_ns, row.packets, row.bytes, flags, position, named, True)
        if row.packets_back > 0:
            self.take(
                c, row, 1 - way, end_ns, row.packets_back, row.bytes_back, flags_back, position, named,
                row.packets == 0
            )
        return 0

    cdef int64_t logged_since(self, const Row* row) noexcept nogil:
        # Returns the time from which on the log surely has the record's interface: its first record, or the first one
        # after a gap of all logs.
        cdef Py_ssize_t at = row.interface + 1
        cdef Py_ssize_t capacity, i
        cdef int64_t* grown
        if not 0 <= at <= MOST_INTERFACES:
            return row.start_ns
        if at >= self.begins_capacity:
            capacity = max(2 * self.begins_capacity, at + 1, 64)
            grown = <int64_t*>realloc(self.begins, capacity * sizeof(int64_t))
            if grown == NULL:
                return row.start_ns
            for i in range(self.begins_capacity, capacity):
                grown[i] = LAST_TIME
            self.begins = grown
            self.begins_capacity = capacity
        self.begins[at] = min(self.begins[at], row.start_ns)
        return max(self.begins[at], self.going_ns)

    cdef void take(
        self, Conversation* c, const Row* row, int way, int64_t end_ns, int64_t packets, int64_t nbytes, int16_t flags,
        uint64_t position, uint8_t named, bint is_record
    ) noexcept nogil:
        # Notes what a record says about its connection. Then the record waits.
        cdef bint rejected = row.action == REJECTED
        cdef Waiting* waiting
        if rejected:
            if not c.rejected >> way & 1 or row.start_ns < c.refused_ns[way]:
                c.refused_ns[way] = row.start_ns
            c.refused_until_ns[way] = max(c.refused_until_ns[way], end_ns)
            c.refused_by[way] = row.interface
            c.rejected |= 1 << way
        elif not c.accepted >> way & 1 or row.start_ns < c.first_ns[way]:
            c.first_ns[way] = row.start_ns
        if not rejected:
            c.accepted |= 1 << way
            c.flags[way] |= <uint8_t>flags if flags > 0 else 0
        if c.protocol == PROTO_TCP and flags > 0 and flags & SYN:
            c.sent_syn |= 1 << (1 - way if flags & ACK else way)
        c.last_ns = max(c.last_ns, end_ns)
        c.pending += 1
        waiting = &self.waiting[self.waiting_count]
        self.waiting_count += 1
        waiting.start_ns = row.start_ns
        waiting.end_ns = end_ns
        waiting.packets = min(<uint64_t>packets, MOST_OF_RECORD) if packets > 0 else 1
        waiting.nbytes = min(<uint64_t>nbytes, MOST_OF_RECORD) if nbytes > 0 else 0
        waiting.position = position
        waiting.conversation = <uint32_t>(c - self.table.conversations)
        waiting.flags = flags if c.protocol == PROTO_TCP else UNKNOWN
        waiting.way = <uint8_t>way
        waiting.rejected = rejected
        waiting.is_record = is_record
        waiting.named = named
        waiting.interface = row.interface

    # Records are released ---------------------------------------------------------------------------------------------

    @property
    def is_due(self):
        """Whether records wait that must be released before others are added."""
        return self.waiting_count > 0 and (
            self.is_crowded() or self.newest_ns - max(self.looked_ns, self.first_ns) >= PATIENCE_NS + TURN_NS
        )

    cdef bint is_crowded(self):
        # Each waiting record has a conversation, which stays for a while.
        return self.waiting_count >= MOST_WAITING or self.table.used >= MOST_CONVERSATIONS // 4 * 3

    def release(self, *, everything=False):
        """Let the records go that have waited long enough, or ``everything`` at the end, for ``next_batch``."""
        cdef Py_ssize_t i, kept, n
        cdef int64_t until = self.newest_ns - <int64_t>PATIENCE_NS
        cdef int64_t[::1] keys
        cdef int64_t[::1] places
        cdef const int64_t[::1] sorted_places
        cdef Conversation* decided
        cdef int opener
        if self.at != self.ready_count:
            raise ValueError("take all batches first")
        self.ended = everything
        if everything:
            until = (1 << 63) - 1
        elif self.is_crowded():
            # There is no room for more records: these wait for less than an hour.
            starts = np.empty(self.waiting_count, np.int64)
            keys = starts
            for i in range(self.waiting_count):
                keys[i] = self.waiting[i].start_ns
            until = max(until, int(np.partition(starts, self.waiting_count // 2)[self.waiting_count // 2]))
        key_array, place_array = np.empty(self.waiting_count, np.int64), np.empty(self.waiting_count, np.int64)
        keys, places = key_array, place_array
        n = 0
        with nogil:
            for i in range(self.waiting_count):
                if self.waiting[i].start_ns > until:
                    continue
                decided = &self.table.conversations[self.waiting[i].conversation]
                if not decided.known:
                    self.table.decide(decided, self.may_be_older(decided))
                # The opener's record goes before the answers of the same second.
                opener = self.waiting[i].named - 1 if self.waiting[i].named else decided.opener
                keys[n] = (self.waiting[i].start_ns & ~<int64_t>1) | (self.waiting[i].way != opener)
                places[n] = i
                n += 1
        sorted_array = place_array[:n][np.argsort(key_array[:n], kind="stable")]
        free(self.ready)
        self.ready = <Waiting*>malloc(max(n, 1) * sizeof(Waiting))
        if self.ready == NULL:
            raise MemoryError
        self.at = 0
        self.ready_count = n
        sorted_places = sorted_array
        with nogil:
            for i in range(n):
                self.ready[i] = self.waiting[sorted_places[i]]
            kept = 0
            for i in range(self.waiting_count):
                if self.waiting[i].start_ns > until:
                    self.waiting[kept] = self.waiting[i]
                    kept += 1
        self.waiting_count = kept
        # After a pause of the log there may be nothing to release.
        self.looked_ns = max(self.looked_ns, until)
        if n:
            self.released_ns = max(self.released_ns, until if not everything else self.newest_ns)

    cdef bint may_be_older(self, const Conversation* c) noexcept nogil:
        cdef int64_t first = self.newest_ns
        cdef int way
        for way in range(2):
            if c.accepted >> way & 1:
                first = min(first, c.first_ns[way])
        return first < c.logged_ns + self.lifetime[kind_of(c)]

    def next_batch(self):
        """Return ``(batch, is_rejected)``: the next frames, and whether they are attempts that the cloud rejected. None
        if more records are needed.
        """
        cdef Waiting* w
        cdef bint is_rejected
        if self.accepted is None:
            self.accepted = self.begun_batch(0)
        if self.rejections is None:
            self.rejections = self.begun_batch(1)
        with nogil:
            # A record becomes at most four frames at once.
            while self.accepted.count + 4 <= FRAMES and self.rejections.count + 4 <= FRAMES:
                w = &self.ready[self.at] if self.at < self.ready_count else NULL
                if self.later.count and (
                    self.later.heap[0].time_ns < w.start_ns if w != NULL
                    else (self.ended or self.later.heap[0].time_ns <= self.released_ns)
                ):
                    self.make_later()
                elif w != NULL:
                    self.make_packets(w)
                    self.at += 1
                else:
                    break
        if not (self.accepted.count or self.rejections.count):
            self.forget()
            return None
        is_rejected = self.rejections.count + 4 > FRAMES or not self.accepted.count
        batch = self.rejections if is_rejected else self.accepted
        if is_rejected:
            self.rejections = None
        else:
            self.accepted = None
        return batch, bool(is_rejected)

    cdef FrameBatch begun_batch(self, int which):
        cdef FrameBatch batch = self.pool.take()
        cdef uint8_t[::1] room
        memory = bytearray(FRAMES * FRAME_ROOM)
        room = memory
        batch.keep_alive = memory
        batch.count = 0
        batch.position_base = 0
        self.rooms[which] = &room[0]
        return batch

    cdef void forget(self) noexcept nogil:
        # Forgets conversations that have had no record for an hour, and all without waiting ones if there are too many.
        cdef bint many = self.table.used > MOST_CONVERSATIONS // 2
        cdef Conversation* c
        cdef uint32_t i
        for i in range(self.table.count):
            c = &self.table.conversations[i]
            if not c.pending and (many or c.last_ns + self.patience_ns < self.released_ns):
                self.forgotten += many
                self.table.remove(i)

    # Packets are made -------------------------------------------------------------------------------------------------

    cdef void make_packets(self, const Waiting* w) noexcept nogil:
        # Makes the packets of a record that are at its start. The others wait for its end.
        cdef Conversation* c = &self.table.conversations[w.conversation]
        cdef bint blocked = is_blocked(c, w)
        c.pending -= 1
        if c.interface[w.way] == NO_INTERFACE or w.start_ns > c.end_ns[w.way] + SILENCE:
            # The log of the interface before may have ended, while the connection goes on.
            c.interface[w.way] = w.interface
        elif c.interface[w.way] != w.interface:
            self.left_out_records[OTHER_END] += w.is_record
            return
        if is_copy(c, w, self.table.secret):
            self.left_out_records[COPY] += w.is_record
            return
        c.end_ns[w.way] = w.end_ns
        if not c.known:
            # It was forgotten between two releases.
            self.table.decide(c, self.may_be_older(c))
        if w.named and c.cause != ICMP_WITHOUT_TYPE:
            # Two records that name other openers are about two connections.
            if c.opener != w.named - 1:
                c.begun = False
            c.opener = w.named - 1
            c.cause = DECIDED
        if c.cause != DECIDED or ((w.rejected or blocked) and not self.is_attempt(c, w)):
            self.undecided_records[c.cause if c.cause != DECIDED else <int>NO_OPENER] += w.is_record
            if w.is_record and is_icmp(c):
                self.undecided_icmp += 1
            if not c.is_counted:
                self.undecided_connections[c.cause if c.cause != DECIDED else <int>NO_OPENER] += 1
            if c.cause != DECIDED:
                # Either port may be that of the service.
                self.note_port(c, 0)
                self.note_port(c, 1)
            c.is_counted = True
            return
        if c.is_guess and not c.is_decided:
            self.note_port(c, c.opener)
        self.decided += not c.is_decided
        c.is_decided = True
        if w.rejected or blocked:
            self.rejected += w.is_record
            self.put(0 if self.is_one_stream else 1, c, w.way, SYN, w.packets, w.nbytes, w.start_ns, w.position)
            return
        self.judged += w.is_record
        if w.is_record and self.changes_until(w.end_ns) > self.changes_until(w.start_ns):
            self.in_changes += 1
        self.without_interface += w.interface == UNKNOWN and w.is_record != 0
        if c.protocol == PROTO_TCP:
            self.make_tcp(c, w)
        else:
            self.make_others(c, w)

    cdef void note_port(self, const Conversation* c, int end) noexcept nogil:
        # Notes that an end's port may be that of a service.
        cdef uint8_t* ports = self.undecided_ports_seen + c.protocol * PORT_BYTES
        ports[c.ports[end] >> 3] |= 1 << (c.ports[end] & 7)

    cdef Py_ssize_t changes_until(self, int64_t time_ns) noexcept nogil:
        # Returns the number of changes up to this time.
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self.change_count
        cdef Py_ssize_t middle
        while low < high:
            middle = (low + high) >> 1
            if self.changes[middle] <= time_ns:
                low = middle + 1
            else:
                high = middle
        return low

    cdef bint is_attempt(self, Conversation* c, const Waiting* w) noexcept nogil:
        # Whether rejected packets are openers for sure: the cloud also rejects packets of connections that have ended.
        if is_icmp(c):
            return c.has_icmp and c.opener == w.way
        if c.protocol == PROTO_TCP and w.flags != UNKNOWN:
            return w.flags & (FIN | SYN | RST | ACK) == SYN
        return c.opener == w.way and not c.accepted >> (1 - w.way) & 1

    cdef void make_tcp(self, Conversation* c, const Waiting* w) noexcept nogil:
        cdef bint by_opener = w.way == c.opener
        cdef int64_t answer_ns = c.first_ns[1 - c.opener]
        cdef bint answered = c.accepted >> (1 - c.opener) & 1
        cdef bint has_flags = w.flags != UNKNOWN
        cdef uint64_t left = w.packets
        cdef uint8_t rest = ACK
        cdef bint again     # whether a new connection has the same ports
        if by_opener and not c.answered and w.start_ns < answer_ns and w.end_ns <= answer_ns:
            answered = False
        if by_opener and has_flags and w.flags & SYN and c.flags[1 - w.way] & (SYN | RST) == RST:
            answered = False        # refused, perhaps several times
        if has_flags and w.flags & RST:
            rest = RST if by_opener else RST | ACK
        elif has_flags and w.flags & FIN:
            rest = FIN | ACK
        elif not answered:
            # The opener's packets are retries, which do not keep a connection alive (SPEC 5.4).
            c.begun = True
            self.put(0, c, w.way, SYN, left, w.nbytes, w.start_ns, w.position)
            c.made_ns = max(c.made_ns, w.end_ns)
            return
        if has_flags:
            again = c.closed and by_opener and (w.flags & (SYN | ACK)) == SYN
        else:
            again = w.start_ns > c.made_ns + self.lifetime[0]
        if not c.begun or again:
            if again and w.start_ns - c.alive_ns < self.step[0]:
                # The last FIN is acknowledged. Otherwise a SYN would belong to the connection before.
                self.put(0, c, c.opener, ACK, 0, 0, w.start_ns, w.position)
            c.begun = True
            c.answered = c.closed = c.finished = False
            left -= self.put_first(c, w, left, by_opener, SYN)
        if not by_opener and not c.answered:
            self.ask(c, SYN, w.start_ns, w.position)
            c.answered = True
            if not (has_flags and w.flags & (RST | SYN) == RST):
                left -= self.put_first(c, w, left, True, SYN | ACK)
                self.put(0, c, c.opener, ACK, 0, 0, w.start_ns, w.position)     # the handshake is done
        elif left == w.packets and left > 1 and w.end_ns > w.start_ns and c.answered:
            left -= self.put_first(c, w, left, True, ACK)
        if has_flags and w.flags & (FIN | RST):
            c.finished |= 3 if w.flags & RST else 1 << w.way
            c.closed = c.finished == 3
        if left:
            self.wait(c, w, left, rest)
        self.keep_alive(c, w, ACK)
        c.made_ns = max(c.made_ns, w.end_ns)

    cdef void make_others(self, Conversation* c, const Waiting* w) noexcept nogil:
        cdef uint64_t left = w.packets
        if not c.begun or w.start_ns > c.made_ns + self.lifetime[kind_of(c)]:
            c.begun = True
            c.answered = False
            left -= self.put_first(c, w, left, w.way == c.opener, 0)
        elif w.way != c.opener:
            self.ask(c, 0, w.start_ns, w.position)
        if w.way != c.opener and not c.answered:
            # The record may have the bounds of an interval as its times: at its end, nobody waits for an answer.
            c.answered = True
            left -= self.put_first(c, w, left, True, 0)
        elif left == w.packets and (left > 1 or w.end_ns == w.start_ns):
            left -= self.put_first(c, w, left, True, 0)
        if left:
            self.wait(c, w, left, 0)
        self.keep_alive(c, w, 0)
        c.made_ns = max(c.made_ns, w.end_ns)

    cdef uint64_t put_first(
        self, Conversation* c, const Waiting* w, uint64_t left, bint counts, uint8_t flags
    ) noexcept nogil:
        # Makes one packet at a record's start. If it does not count, it is the opener that no record counts. Returns
        # the packets taken from the record.
        cdef uint64_t nbytes = w.nbytes - share(w, left - 1) - (w.nbytes - share(w, left)) if counts else 0
        self.put(0, c, w.way if counts else c.opener, flags, counts, nbytes, w.start_ns, w.position)
        return counts

    cdef void ask(self, Conversation* c, uint8_t flags, int64_t time_ns, uint64_t position) noexcept nogil:
        # Makes an opener that no record counts, if the connection may have been forgotten since the last one. What
        # follows is an answer for sure, and must not be taken for an opener.
        if time_ns - c.asked_ns > self.step[kind_of(c)]:
            self.put(0, c, c.opener, flags, 0, 0, time_ns, position)

    cdef void wait(self, Conversation* c, const Waiting* w, uint64_t left, uint8_t flags) noexcept nogil:
        # Lets the last packets of a record wait for its end.
        cdef Later later = Later(w.end_ns, 0, 0, left, share(w, left), w.position, w.conversation, w.way, flags, 0, 0)
        self.leave(&later)

    cdef void keep_alive(self, Conversation* c, const Waiting* w, uint8_t flags) noexcept nogil:
        # Lets packets that count nothing come between the record's start and end.
        cdef int kind = kind_of(c)
        # Where flags show that no FIN came before the end, only the state of an answered connection matters.
        cdef bint is_long = kind == 0 and w.flags != UNKNOWN and c.accepted >> (1 - c.opener) & 1
        cdef int64_t step = self.long_step if is_long else self.step[kind]
        cdef int64_t until_ns = min(w.end_ns, w.start_ns + LONGEST)
        cdef Later later = Later(
            w.start_ns + step, 0, until_ns, 0, 0, w.position, w.conversation, w.way, flags, 0, step
        )
        if later.time_ns < until_ns:
            self.leave(&later)

    cdef void leave(self, const Later* later) noexcept nogil:
        # Leaves packets to a later time. If there is no memory, they are missing.
        cdef Conversation* c = &self.table.conversations[later.conversation]
        if self.later.push(later):
            c.pending += 1
        else:
            self.forgotten += 1

    cdef void make_later(self) noexcept nogil:
        cdef Later later = self.later.heap[0]
        cdef Conversation* c = &self.table.conversations[later.conversation]
        cdef int kind = kind_of(c)
        cdef bint is_needed = c.answered
        self.later.pop()
        c.pending -= 1
        # Before TCP is answered, only a SYN belongs to the connection. Of other protocols, the packets of one end do.
        if kind:
            is_needed = later.time_ns - c.alive_ns >= later.step // 2
        if is_needed or not later.until_ns:
            if kind and later.way != c.opener and not later.which:
                self.ask(c, 0, later.time_ns, later.position)
            self.put(
                later.which, c, later.way, later.flags, later.packets, later.nbytes, later.time_ns, later.position
            )
        if later.until_ns:
            later.time_ns += later.step
            if later.time_ns < later.until_ns:
                self.leave(&later)

    cdef void put(
        self, int which, Conversation* c, int way, uint8_t flags, uint64_t packets, uint64_t nbytes,
        int64_t time_ns, uint64_t position
    ) noexcept nogil:
        # Adds a frame. What it has no room for is left to later ones.
        cdef Frame* frame
        cdef Later later
        cdef uint64_t most = min(packets, MOST_OF_FRAME)
        cdef Py_ssize_t count = self.rejections.count if which else self.accepted.count
        if which == 0:
            self.now_ns = time_ns = max(self.now_ns, time_ns)
            c.alive_ns = time_ns
            if way == c.opener and (c.protocol != PROTO_TCP or flags == SYN):
                c.asked_ns = time_ns
        if nbytes > MOST_OF_FRAME and most:
            most = min(most, max(1, <uint64_t>(<double>packets / <double>nbytes * <double>MOST_OF_FRAME)))
        frame = &self.rejections.frames[count] if which else &self.accepted.frames[count]
        frame.data = self.rooms[which] + count * FRAME_ROOM
        frame.captured = write_record_frame(
            <uint8_t*>frame.data, c, way, flags, most, <uint32_t>min(nbytes, MOST_OF_FRAME)
        )
        frame.wire = frame.captured
        frame.time_ns = time_ns
        frame.link_type = LINK_RECORD
        frame.vpc = c.vpc
        frame.cut_by_tunnel = 0
        frame.position = position
        if which:
            self.rejections.count = count + 1
        else:
            self.accepted.count = count + 1
        if packets > most or nbytes > MOST_OF_FRAME:
            later = Later(
                time_ns, 0, 0, packets - most, nbytes - min(nbytes, MOST_OF_FRAME), position,
                <uint32_t>(c - self.table.conversations), <uint8_t>way, flags, <uint8_t>which, 0
            )
            self.leave(&later)

    # The fate of the records -----------------------------------------------------------------------------------------

    @property
    def undecided(self):
        """The numbers of undecided records and of their connections, by the words of UNDECIDED."""
        return {
            UNDECIDED[i]: (self.undecided_records[i], self.undecided_connections[i])
            for i in range(1, CAUSES) if self.undecided_records[i] or self.undecided_connections[i]
        }

    @property
    def undecided_ports(self):
        """The ports of both ends of undecided records, in order, by protocol."""
        bits = np.asarray(<uint8_t[:256, :PORT_BYTES]>self.undecided_ports_seen)
        return {
            int(protocol): tuple(np.flatnonzero(np.unpackbits(bits[protocol], bitorder="little")).tolist())
            for protocol in np.flatnonzero(bits.any(axis=1))
        }

    @property
    def left_out(self):
        """The numbers of records left out, by the words of LEFT_OUT."""
        return {word: self.left_out_records[i] for i, word in enumerate(LEFT_OUT) if self.left_out_records[i]}


cdef inline bint is_copy(Conversation* c, const Waiting* w, uint64_t secret) noexcept nogil:
    # Returns whether one of the latest records is the same one. The files that have it may be far apart, but records
    # are in the order of time now, so that few others have come between.
    cdef uint64_t* marks = &c.marks[3 * w.way]
    cdef uint64_t mark = fold(<uint64_t>w.start_ns ^ secret, <uint64_t>w.end_ns ^ (secret >> 7))
    cdef int i
    mark = fold(mark ^ (w.packets << 1 | w.rejected), w.nbytes ^ secret) | 1
    for i in range(3):
        if marks[i] == mark:
            return True
    marks[2] = marks[1]
    marks[1] = marks[0]
    marks[0] = mark
    return False


cdef inline bint is_blocked(const Conversation* c, const Waiting* w) noexcept nogil:
    # Returns whether the cloud rejected a record's packets at another interface. What it rejected at another time, such
    # as before a rule was added, tells nothing.
    if not c.rejected >> w.way & 1 or c.accepted >> (1 - w.way) & 1:
        return False
    return (c.refused_by[w.way] == UNKNOWN or c.refused_by[w.way] != w.interface) and (
        w.start_ns <= c.refused_until_ns[w.way] + SILENCE and w.end_ns >= c.refused_ns[w.way] - SILENCE
    )


cdef inline uint64_t share(const Waiting* w, uint64_t packets) noexcept nogil:
    # Returns the bytes of the last `packets` of a record.
    if packets == w.packets:
        return w.nbytes
    return <uint64_t>(<double>w.nbytes / <double>w.packets * <double>packets)


cdef inline int kind_of(const Conversation* c) noexcept nogil:
    # Returns the place of a connection's timeouts.
    return 0 if c.protocol == PROTO_TCP else 1 if is_icmp(c) else 2


cdef inline int16_t flags_of(uint32_t history) noexcept nogil:
    # Returns one end's TCP flags, in AWS's encoding, from its letters of Zeek's history.
    cdef int16_t flags = 0
    if history & HISTORY_SYN:
        flags |= SYN
    if history & HISTORY_SYNACK:
        flags |= SYN | ACK
    if history & HISTORY_FIN:
        flags |= FIN
    if history & HISTORY_RST:
        flags |= RST
    return flags
