"""Turn records of flow logs into the packets that an engine judges.

A record says what happened to a connection in an interval. It waits in ``record_queue.pyx`` until all records of its
time have come, and later ones, which may tell that a port is a service's. Then the records are noted in the order of
time: what they say about their connections. ``openers.pxd`` decides who opened each connection, and
``record_packets.pyx`` makes the packets.
"""

from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp

from sgfast.core.base.frames cimport POSITION_BITS
from sgfast.core.base.icmp cimport icmp_is_error, icmp_query, query_type
from sgfast.core.base.intrinsics cimport fold
from sgfast.core.base.types cimport PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP
from sgfast.core.wire.ip cimport transport_header_length
from sgfast.traffic.flow_logs.conversation_table cimport MOST_CONVERSATIONS, NO_CONVERSATION, ConversationTable
from sgfast.clouds.logs.record_row cimport Row
from sgfast.traffic.flow_logs.interfaces cimport Interfaces, note_shown
from sgfast.traffic.flow_logs.openers cimport (
    ACK,
    CLOSE_SECONDS,
    FIN,
    ICMP_WITHOUT_TYPE,
    JUDGED,
    READINGS_DIFFER,
    RST,
    SYN,
    Conversation,
)
from sgfast.traffic.flow_logs.questions cimport (
    IS_LIKELIER,
    IS_OTHER,
    OTHER_VERDICT,
    SAME_VERDICT,
    QuestionRow,
    fill_question,
)
from sgfast.traffic.flow_logs.record_packets cimport (
    FRAMES,
    FRAMES_OF_RECORD,
    ICMP_ERROR,
    NO_PACKETS,
    NO_PORTS,
    NO_PROTOCOL,
    NO_ROOM,
    NO_TIME,
    NS,
    OUTSIDE_WINDOW,
    UNKNOWN,
    RecordPackets,
    Waiting,
    kind_of,
)
from sgfast.traffic.flow_logs.record_queue cimport RecordQueue
from sgfast.traffic.flow_logs.refusals cimport note_refusal
from sgfast.traffic.flow_logs.single_senders cimport (
    HISTORY_FIN,
    HISTORY_RST,
    HISTORY_SYN,
    HISTORY_SYNACK,
    may_be_openers,
    may_be_refusals,
    shows_answer,
)

from zlib import crc32

import numpy as np

from sgfast.clouds.logs.columns import RECORD_DTYPE

cdef enum:
    MOST_INTERFACES = 1 << 20           # as many as words are numbered
    MANY_WAITING = 1 << 18              # from so many records on, each waits for a short time
    MOST_WAITING = 1 << 20              # so many at most wait
    HOURS = 1 << 21                     # more than until LAST_TIME
    REJECTED = 2                        # as in columns.py

# The latest time of a record, year 2116: keys for sorting have room for it.
cdef int64_t LAST_TIME = <int64_t>1 << 62
# More bytes, and packets, than a network can carry in an interval.
cdef uint64_t MOST_OF_RECORD = <uint64_t>1 << 48
# Logs have a gap if no record begins for longer. It is more than the longest interval of a cloud.
cdef int64_t GAP = 900 * <int64_t>NS
cdef int64_t HOUR = 3600 * <int64_t>NS
# Records are released by turns, so that the answer does not depend on how many are added at once.
TURN_NS = 600 * <int64_t>NS
cdef int64_t TURN = TURN_NS
# The times below are differences of records' starts. Before an opener is decided, the records that start up to AHEAD
# later are noted, as they may tell more about its connection. REFUSED_MINUTES is longer.
cdef int64_t AHEAD = HOUR
# The time that a record waits while many wait. All records that start up to AHEAD later have been read then, if the
# order in files is wrong by an hour at most.
cdef int64_t SHORT_WAIT = HOUR + AHEAD
# The least time that a record waits while few wait. Later records may show that a port is a service's.
cdef int64_t LONG_WAIT = 12 * HOUR
# The time between two releases while few wait.
cdef int64_t LONG_TURN = 12 * HOUR
# A conversation without a record for so long is forgotten.
cdef int64_t FORGOTTEN = HOUR
# Any odd number with many bits.
cdef uint64_t TIE_KEY = 0x9E3779B97F4A7C15

EARLIEST, LATEST = -(1 << 63), (1 << 63) - 1       # the range of int64_t

#: A connection of which either end may be the opener, with the likelier one as the source (``questions.pxd``).
QUESTION_DTYPE = np.dtype([
    ("first_ns", "<i8"), ("last_ns", "<i8"), ("src", "u1", (16,)), ("dst", "u1", (16,)), ("sport", "<u2"),
    ("dport", "<u2"), ("vpc", "<u2"), ("family", "u1"), ("protocol", "u1"), ("icmp_type", "u1"), ("icmp_code", "u1"),
    ("is_answered", "u1"), ("has_two_openers", "u1"), ("has_no_type", "u1"),
])
assert QUESTION_DTYPE.itemsize == sizeof(QuestionRow)

globals().update(
    SAME_VERDICT=SAME_VERDICT, OTHER_VERDICT=OTHER_VERDICT, IS_LIKELIER=IS_LIKELIER, IS_OTHER=IS_OTHER
)


cdef class Connections:
    """Records of flow logs, which become frames. ``add`` records in about the order of time. Before the first record of
    a turn of TURN_NS, call ``turn_to``, and after the last record ``end``. While records are due, call ``release``, and
    then ``next_batch`` until it returns None.

    ``shortest``, ``longest``: the timeouts of the policies that judge (``policy.settings.timeouts``). ``from_ns``,
    ``until_ns``: the first time and the one after the last, or None. ``is_one_stream``: frames of rejected records are
    among the others. ``words``: the names of interfaces by number, which may grow. ``ask``: gets rows of QUESTION_DTYPE
    about connections that either end may have opened, and returns an answer to each (``questions.pxd``); None: the
    likelier end opened them. ``owners``: the instances that have an address (``InterfaceOwners``).
    """

    cdef ConversationTable table
    #: The interfaces of the records.
    cdef readonly Interfaces interfaces
    #: The packets of the records.
    cdef readonly RecordPackets packets
    cdef RecordQueue queue
    cdef Waiting* ready             # released records, in the order of time
    cdef Py_ssize_t ready_count, at
    cdef int64_t first_ns, newest_ns        # the first start, and the latest one that was noted
    cdef int64_t turn_ns            # the latest turn that has begun
    cdef int64_t due_ns             # records that start before this time are to be released
    cdef int64_t released_ns        # those that start before this time were
    cdef bint is_ordered            # the records that are due are in the order of time
    cdef int64_t* begins            # the first start by interface, from UNKNOWN on; LAST_TIME: not seen
    cdef Py_ssize_t begins_capacity
    cdef uint8_t* hours             # a flag for each hour since 1970: a record begins in it
    cdef int64_t going_ns           # the first start after the latest gap of all logs
    cdef bint any
    cdef bint is_complete           # all records were added
    cdef bint ended                 # and released
    cdef object words, ask
    cdef uint32_t[::1] hashes       # of these words
    cdef Py_ssize_t hashed
    cdef int64_t from_ns, until_ns
    #: The records that came when others of their time had been judged.
    cdef readonly uint64_t late
    #: The connections that were forgotten early, as there were too many.
    cdef readonly uint64_t forgotten
    #: The records whose number of packets, or of bytes, the log does not say.
    cdef readonly uint64_t without_packets, without_bytes

    def __cinit__(
        self, shortest not None, longest not None, from_ns=None, until_ns=None, *, bint is_one_stream=False, words=(),
        ask=None, owners=None
    ):
        self.table = ConversationTable()
        self.queue = RecordQueue(self.table)
        self.interfaces = Interfaces(self.table, words, owners)
        self.packets = RecordPackets(self.table, shortest, longest, is_one_stream)
        self.hours = <uint8_t*>calloc(HOURS, 1)
        if self.hours == NULL:
            raise MemoryError
        self.from_ns = EARLIEST if from_ns is None else max(EARLIEST, min(LATEST, from_ns))
        self.until_ns = LATEST if until_ns is None else max(EARLIEST, min(LATEST, until_ns))
        self.is_ordered = True
        self.due_ns = self.released_ns = self.newest_ns = self.going_ns = self.turn_ns = -(1 << 62)
        self.words = words
        self.ask = ask
        self.hashes = np.empty(0, np.uint32)

    def __dealloc__(self):
        free(self.ready)
        free(self.begins)
        free(self.hours)

    @property
    def silent_hours(self):
        """The number of hours between the first and the last record in which no record begins. Only stretches of a day
        or more count."""
        gaps = np.diff(np.flatnonzero(np.asarray(<uint8_t[:HOURS]>self.hours))) - 1
        return int(gaps[gaps >= 24].sum())

    # Records come in --------------------------------------------------------------------------------------------------

    def add(self, rows not None, uint64_t number, int vpc=0):
        """Add rows of RECORD_DTYPE from the file with this number, from 1. ``vpc``: ``Frame.vpc`` of the file."""
        cdef const uint8_t[::1] view
        cdef const Row* row
        cdef Py_ssize_t n = len(rows)
        cdef Py_ssize_t i
        if rows.dtype != RECORD_DTYPE:
            raise TypeError("rows must be of RECORD_DTYPE")
        if n == 0:
            return
        self.queue.make_room(2 * n)
        view = np.ascontiguousarray(rows).view(np.uint8)
        row = <const Row*>&view[0]
        if len(self.words) > len(self.hashes):
            self.hashes = np.resize(self.hashes, 2 * len(self.words))
        while self.hashed < len(self.words):
            self.hashes[self.hashed] = crc32(self.words[self.hashed].encode())
            self.hashed += 1
        with nogil:
            for i in range(n):
                self.add_row(&row[i], number << POSITION_BITS | <uint64_t>row[i].line, <uint16_t>vpc)

    cdef int add_row(self, const Row* row, uint64_t position, uint16_t vpc) except -1 nogil:
        cdef const uint8_t* src = row.src
        cdef const uint8_t* dst = row.dst
        cdef int64_t end_ns = row.start_ns if row.end_ns == UNKNOWN else row.end_ns
        cdef bint icmp = row.protocol == (PROTO_ICMPV6 if row.family == 6 else PROTO_ICMP)
        cdef bint reply = False
        cdef bint has_icmp = icmp and row.icmp_type != UNKNOWN
        cdef uint8_t icmp_type = <uint8_t>row.icmp_type if has_icmp else 0
        cdef int cause = -1
        cdef Conversation* c
        cdef int16_t flags = row.tcp_flags
        cdef int16_t flags_back = UNKNOWN
        cdef int way, query
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
        if cause != OUTSIDE_WINDOW:
            self.interfaces.note_record(row, end_ns)
        if cause >= 0:
            self.packets.leave_out(cause)
            return 0
        if has_icmp:
            query = icmp_query(row.family == 6, icmp_type, &reply)
            icmp_type = <uint8_t>query_type(row.family == 6, query) if query else icmp_type
        if not self.any or row.start_ns < self.first_ns:
            self.first_ns = row.start_ns
        self.any = True
        self.hours[row.start_ns // HOUR] = True
        self.late += row.start_ns < self.released_ns
        way = memcmp(src, dst, 16)
        way = way > 0 or (way == 0 and row.sport > row.dport)
        c = self.table.find(src, dst, way, row, vpc, has_icmp * (1 + (1 - way if reply else way)), icmp_type)
        if c == NULL:
            self.packets.leave_out(NO_ROOM)
            return 0
        if row.interface < 0 and c.pending == 0:
            self.interfaces.note_ends(c)
        if has_icmp:
            named = 1 + (1 - way if reply else way)
        if row.opener:
            named = 1 + (way if row.opener == 1 else 1 - way)
        if row.history:
            flags = flags_of(row.history)
            flags_back = flags_of(row.history >> 16)
        self.without_packets += row.packets == UNKNOWN
        self.without_bytes += row.bytes == UNKNOWN
        # A record that counts both ways may have no packet of one of them.
        if row.packets == 0 and row.packets_back <= 0:
            self.packets.leave_out(NO_PACKETS)
            return 0
        if row.packets != 0:
            self.keep(
                c, row, way, end_ns, row.packets, row.bytes, flags, <uint16_t>row.history, position, named, True
            )
        if row.packets_back > 0:
            self.keep(
                c, row, 1 - way, end_ns, row.packets_back, row.bytes_back, flags_back, <uint16_t>(row.history >> 16),
                position, named, row.packets == 0
            )
        return 0

    cdef void keep(
        self, Conversation* c, const Row* row, int way, int64_t end_ns, int64_t packets, int64_t nbytes, int16_t flags,
        uint16_t history, uint64_t position, uint8_t named, bint is_record
    ) noexcept nogil:
        # Lets a record wait.
        cdef Waiting* waiting = &self.queue.records[self.queue.end]
        cdef uint64_t interface = 0
        cdef uint64_t tie
        if 0 <= row.interface < self.hashed:
            interface = self.hashes[row.interface]
        c.pending += 1
        self.queue.end += 1
        waiting.is_noted = False
        waiting.start_ns = row.start_ns
        waiting.end_ns = end_ns
        waiting.packets = min(<uint64_t>packets, MOST_OF_RECORD) if packets > 0 else 1
        waiting.nbytes = min(<uint64_t>nbytes, MOST_OF_RECORD) if nbytes > 0 else 0
        waiting.position = position
        waiting.conversation = <uint32_t>(c - self.table.conversations)
        waiting.flags = flags if c.protocol == PROTO_TCP else UNKNOWN
        waiting.way = <uint8_t>way
        waiting.rejected = row.action == REJECTED
        waiting.is_record = is_record
        waiting.named = named
        # Zeek takes the first packet that it sees for the opener's.
        waiting.is_guess = row.history != 0 and kind_of(c) == 2
        waiting.shows_answer = c.protocol == PROTO_TCP and not waiting.rejected and shows_answer(
            waiting.packets, waiting.nbytes, (end_ns - row.start_ns) // NS, flags, history & ~HISTORY_SYNACK
        )
        waiting.interface = row.interface
        waiting.no_refusal = c.protocol != PROTO_TCP or not may_be_refusals(
            waiting.packets, waiting.nbytes, c.family == 6
        )
        waiting.no_opener = c.protocol != PROTO_TCP or waiting.flags != UNKNOWN or not may_be_openers(
            waiting.packets, waiting.nbytes, (end_ns - row.start_ns) // NS, c.family == 6
        )
        if not waiting.rejected and c.seen != 3:
            c.seen |= 1 << way
            if c.seen == 3:
                self.table.count_uses(c)
        tie = fold(waiting.packets ^ TIE_KEY, waiting.nbytes << 2 | waiting.rejected << 1 | <uint64_t>way)
        tie = fold(tie ^ interface, <uint64_t>end_ns ^ TIE_KEY)
        waiting.tie = <uint32_t>(tie ^ tie >> 32)

    # Records are noted ------------------------------------------------------------------------------------------------

    cdef void note_until(self, int64_t until_ns) noexcept nogil:
        # Notes the records in order that start before this time.
        cdef Waiting* w
        while self.queue.noted < self.queue.ordered and self.queue.records[self.queue.noted].start_ns < until_ns:
            w = &self.queue.records[self.queue.noted]
            if not w.is_noted:
                self.note(w)
                w.is_noted = True
            self.queue.noted += 1

    cdef inline int64_t longest_silence(self, const Conversation* c, int way) noexcept nogil:
        # Returns the longest time, in ns, between a conversation's latest record and the start of the next one. AWS
        # may write the start of a direction's first record up to CLOSE_SECONDS late.
        cdef int64_t late_ns = 0 if (c.accepted | c.rejected) >> way & 1 else CLOSE_SECONDS * <int64_t>NS
        return self.packets.lifetime[kind_of(c)] + late_ns

    cdef void note(self, Waiting* w) noexcept nogil:
        # Notes what a record says about its connection.
        cdef Conversation* c = self.queue.conversation_of(w)
        cdef int way = w.way
        cdef int64_t logged_ns
        if w.start_ns > self.newest_ns + GAP:
            self.going_ns = w.start_ns
        logged_ns = self.logged_since(w)
        self.newest_ns = max(self.newest_ns, w.start_ns)
        if c != NULL and (c.accepted or c.rejected) and w.start_ns > c.last_ns + self.longest_silence(c, way):
            # This is another connection, which either end may have opened.
            self.table.retire(c)
            c = self.queue.conversation_of(w)
        if c == NULL:
            if w.is_record:
                self.packets.leave_out(NO_ROOM)
            return
        note_shown(c, w.interface)
        c.logged_ns = min(c.logged_ns, logged_ns)
        if w.is_guess and w.start_ns < logged_ns + self.packets.lifetime[kind_of(c)]:
            w.named = 0
        c.named |= w.named
        c.shows_answer |= w.shows_answer << way
        c.no_refusal |= w.no_refusal << way
        c.no_opener |= w.no_opener << way
        if w.rejected:
            if not c.rejected >> way & 1 or w.start_ns < c.refused_ns[way]:
                c.refused_ns[way] = w.start_ns
            note_refusal(c, way, w.start_ns, w.end_ns)
            c.refused_by[way] = w.interface
            c.rejected |= 1 << way
        else:
            if not c.accepted >> way & 1 or w.start_ns < c.first_ns[way]:
                c.first_ns[way] = w.start_ns
            c.flags[way] |= <uint8_t>w.flags if w.flags > 0 else 0
            c.accepted |= 1 << way
        if w.flags > 0 and w.flags & SYN:
            c.sent_syn |= 1 << (1 - way if w.flags & ACK else way)
        c.last_ns = max(c.last_ns, w.end_ns)

    cdef int64_t logged_since(self, const Waiting* w) noexcept nogil:
        # Returns the time from which on the log surely has the record's interface: its first record, or the first one
        # after a gap of all logs.
        cdef Py_ssize_t at = w.interface + 1
        cdef Py_ssize_t capacity, i
        cdef int64_t* grown
        if not 0 <= at <= MOST_INTERFACES:
            return w.start_ns
        if at >= self.begins_capacity:
            capacity = max(2 * self.begins_capacity, at + 1, 64)
            grown = <int64_t*>realloc(self.begins, capacity * sizeof(int64_t))
            if grown == NULL:
                return w.start_ns
            for i in range(self.begins_capacity, capacity):
                grown[i] = LAST_TIME
            self.begins = grown
            self.begins_capacity = capacity
        self.begins[at] = min(self.begins[at], w.start_ns)
        return max(self.begins[at], self.going_ns)

    # Records are released ---------------------------------------------------------------------------------------------

    def turn_to(self, int64_t time_ns):
        """Note that all records up to this time were added, but for a few."""
        cdef int64_t waited_ns
        if time_ns > LAST_TIME or time_ns // TURN * TURN <= self.turn_ns:
            return
        self.turn_ns = time_ns // TURN * TURN
        waited_ns = self.turn_ns - max(self.due_ns, self.first_ns)
        if waited_ns >= LONG_WAIT + LONG_TURN:
            self.let_go(self.turn_ns - LONG_WAIT)
        elif waited_ns >= SHORT_WAIT + TURN and self.queue.count() >= MANY_WAITING:
            self.let_go(self.turn_ns - SHORT_WAIT)

    def end(self):
        """Note that all records were added."""
        self.is_complete = True
        self.let_go(LAST_TIME + 1)

    cdef void let_go(self, int64_t due_ns):
        self.due_ns = due_ns
        self.is_ordered = False

    @property
    def is_due(self):
        """Whether records wait that must be released before others are added."""
        if self.is_complete:
            return not self.ended
        return self.queue.count() > 0 and (self.has_due() or self.is_crowded())

    cdef bint has_due(self):
        return not self.is_ordered or (
            self.queue.begin < self.queue.ordered and self.queue.records[self.queue.begin].start_ns < self.due_ns
        )

    cdef bint is_crowded(self):
        # Each waiting record has a conversation, which stays for a while.
        return self.queue.count() >= MOST_WAITING or self.table.used >= MOST_CONVERSATIONS // 4 * 3

    def release(self):
        """Let the records of the next turn go, for ``next_batch``."""
        cdef RecordQueue queue = self.queue
        cdef Waiting* records
        cdef Py_ssize_t i, n
        cdef int64_t turn_end_ns
        cdef int64_t[::1] keys
        cdef const int64_t[::1] places
        cdef Waiting* w
        cdef int opener
        if self.at != self.ready_count:
            raise ValueError("take all batches first")
        if queue.count() and not self.has_due():
            # There is no room for more records: these wait for a shorter time.
            self.let_go(max(self.due_ns, queue.middle_ns()))
        if not self.is_ordered:
            queue.order_until(self.due_ns + AHEAD)
            self.is_ordered = True
        turn_end_ns = self.due_ns
        if queue.begin < queue.ordered:
            turn_end_ns = min(turn_end_ns, (queue.records[queue.begin].start_ns // TURN + 1) * TURN)
        with nogil:
            self.note_until(turn_end_ns + AHEAD)
        self.interfaces.judge()
        records = &queue.records[queue.begin]
        n = 0
        while queue.begin < queue.noted and queue.records[queue.begin].start_ns < turn_end_ns:
            queue.begin += 1
            n += 1
        self.decide(records, n)
        self.interfaces.judge()
        key_array = np.empty(n, np.int64)
        keys = key_array
        with nogil:
            for i in range(n):
                w = &records[i]
                if w.conversation != NO_CONVERSATION:
                    # Where records start at one time, the opener's comes first.
                    opener = w.named - 1 if w.named else self.table.conversations[w.conversation].opener
                    keys[i] = (w.start_ns & ~<int64_t>1) | (w.way != opener)
        places = np.argsort(key_array, kind="stable")
        free(self.ready)
        self.ready = <Waiting*>malloc(max(n, 1) * sizeof(Waiting))
        if self.ready == NULL:
            raise MemoryError
        self.at = self.ready_count = 0
        with nogil:
            for i in range(n):
                w = &records[places[i]]
                if w.conversation != NO_CONVERSATION:
                    self.ready[self.ready_count] = w[0]
                    self.ready_count += 1
        self.interfaces.note_passed_on(self.ready, self.ready_count)
        self.released_ns = max(self.released_ns, turn_end_ns)
        self.ended = self.is_complete and queue.count() == 0

    cdef int decide(self, const Waiting* records, Py_ssize_t count) except -1:
        # Decides who opened the connections of these records, and asks about those that either end may have opened.
        cdef Py_ssize_t i
        cdef Py_ssize_t n = 0
        cdef Conversation* c
        cdef uint32_t[::1] numbers
        cdef uint8_t[::1] view
        cdef const uint8_t[::1] answers
        number_array = np.empty(count, np.uint32)
        numbers = number_array
        with nogil:
            for i in range(count):
                if records[i].conversation == NO_CONVERSATION:
                    continue
                c = &self.table.conversations[records[i].conversation]
                if c.known:
                    continue
                self.table.decide(c, self.may_be_older(c))
                if c.is_unsure or (c.fate == ICMP_WITHOUT_TYPE and c.accepted):
                    numbers[n] = records[i].conversation
                    n += 1
        if n == 0 or self.ask is None:
            return 0
        questions = np.empty(n, QUESTION_DTYPE)
        view = questions.view(np.uint8)
        with nogil:
            for i in range(n):
                fill_question(&(<QuestionRow*>&view[0])[i], &self.table.conversations[numbers[i]])
        answers = self.ask(questions)
        for i in range(n):
            c = &self.table.conversations[numbers[i]]
            c.question = <uint32_t>(self.packets.question_count + i + 1)
            if c.fate != JUDGED:
                continue
            if answers[i] == OTHER_VERDICT:
                c.fate = READINGS_DIFFER
            elif answers[i] != SAME_VERDICT:
                c.is_unsure = False
                c.opener = c.opener if answers[i] == IS_LIKELIER else 1 - c.opener
        self.packets.expect(n)
        return 0

    cdef bint may_be_older(self, const Conversation* c) noexcept nogil:
        cdef int64_t first = self.newest_ns
        cdef int way
        for way in range(2):
            if c.accepted >> way & 1:
                first = min(first, c.first_ns[way])
        return first < c.logged_ns + self.packets.lifetime[kind_of(c)]

    def next_batch(self):
        """Return ``(batch, is_rejected)``: the next frames, and whether they are attempts that the cloud rejected. None
        if more records are needed.
        """
        cdef RecordPackets packets = self.packets
        cdef Waiting* w
        cdef Conversation* c
        cdef int cause
        if packets.accepted is None:
            packets.accepted = packets.begun_batch(0)
        if packets.rejections is None:
            packets.rejections = packets.begun_batch(1)
        with nogil:
            if self.at == 0:
                self.interfaces.look_at(self.ready, self.ready_count)
            while packets.has_room():
                w = &self.ready[self.at] if self.at < self.ready_count else NULL
                if packets.later.count and (
                    packets.later.heap[0].time_ns < w.start_ns if w != NULL
                    else (self.ended or packets.later.heap[0].time_ns < self.released_ns)
                ):
                    packets.make_later()
                elif w != NULL:
                    c = &self.table.conversations[w.conversation]
                    cause = self.interfaces.cause_of(c, w)
                    if cause < 0:
                        packets.make(w)
                    else:
                        c.pending -= 1
                        packets.left_out_records[cause] += w.is_record
                    self.at += 1
                else:
                    break
        if not (packets.accepted.count or packets.rejections.count):
            self.forget()
            return None
        if packets.rejections.count + FRAMES_OF_RECORD > FRAMES or not packets.accepted.count:
            batch, packets.rejections = packets.rejections, None
            return batch, True
        batch, packets.accepted = packets.accepted, None
        return batch, False

    cdef void forget(self) noexcept nogil:
        # Forgets conversations that have had no record for an hour, and all without waiting ones if there are too many.
        self.forget_before(self.released_ns - FORGOTTEN)
        if self.table.used > MOST_CONVERSATIONS // 2:
            self.forget_before(LAST_TIME)

    cdef void forget_before(self, int64_t last_ns) noexcept nogil:
        cdef Conversation* c
        cdef uint32_t i
        for i in range(self.table.count):
            c = &self.table.conversations[i]
            if not c.pending and (c.is_retired or c.last_ns < last_ns):
                self.forgotten += last_ns == LAST_TIME
                self.table.remove(i)


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
