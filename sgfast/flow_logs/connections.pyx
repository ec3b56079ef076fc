"""Turn records of flow logs into the packets that an engine judges.

A record says what happened to a connection in an interval. It waits until all records of its time have come. Then they
are noted in the order of time: what they say about their connections. Later ``openers.pxd`` decides who opened each
connection, and ``record_packets.pyx`` makes the packets.
"""

from libc.stdint cimport INT64_MAX, int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memmove

from sgfast.core.base.frames cimport POSITION_BITS
from sgfast.core.base.icmp cimport icmp_is_error, icmp_query, query_type
from sgfast.core.base.intrinsics cimport fold
from sgfast.core.base.types cimport PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP
from sgfast.core.wire.ip cimport transport_header_length
from sgfast.flow_logs.conversation_table cimport MOST_CONVERSATIONS, NO_CONVERSATION, ConversationTable
from sgfast.flow_logs.formats.record_row cimport Row
from sgfast.flow_logs.interfaces cimport Interfaces, note_shown
from sgfast.flow_logs.openers cimport (
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
from sgfast.flow_logs.questions cimport IS_LIKELIER, IS_OTHER, OTHER_VERDICT, SAME_VERDICT, QuestionRow, fill_question
from sgfast.flow_logs.record_packets cimport (
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
from sgfast.flow_logs.refusals cimport note_refusal
from sgfast.flow_logs.single_senders cimport (
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

from sgfast.flow_logs.formats.columns import RECORD_DTYPE

cdef enum:
    MOST_INTERFACES = 1 << 20           # as many as words are numbered
    MOST_WAITING = 1 << 20
    MOST_TIES = 64                      # more than one connection has records of one start
    HOURS = 1 << 21                     # more than until LAST_TIME
    REJECTED = 2                        # as in columns.py

# The latest time of a record, year 2116: keys for sorting have room for it.
cdef int64_t LAST_TIME = <int64_t>1 << 62
# More bytes, and packets, than a network can carry in an interval.
cdef uint64_t MOST_OF_RECORD = <uint64_t>1 << 48
# Logs have a gap if no record begins for longer. It is more than the longest interval of a cloud.
cdef int64_t GAP = 900 * <int64_t>NS
cdef int64_t HOUR = 3600 * <int64_t>NS
# Records are released at times that are whole turns. So the answer does not depend on how many are added at once.
TURN_NS = 600 * <int64_t>NS
cdef int64_t TURN = TURN_NS
# The following times are those of records. After this one, all records of a time have come, whatever their order in the
# files, and are noted.
cdef int64_t DELAY = HOUR
# After this one, openers are decided. Records noted in the meantime may tell more about a connection.
cdef int64_t PATIENCE = HOUR + 2 * TURN
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
    """Records of flow logs, which become frames. ``add`` records in about the order of time, and whenever ``is_due``,
    call ``release``, and then ``next_batch`` until it returns None. Before the first record of a turn of TURN_NS, call
    ``turn_to`` and look whether ``is_due``.

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
    cdef Waiting* waiting           # those noted come first
    cdef Py_ssize_t waiting_count, noted_count, waiting_capacity
    cdef Waiting* ready             # released records, in the order of time
    cdef Py_ssize_t ready_count, at
    cdef int64_t first_ns, newest_ns        # the first start, and the latest one that was noted
    cdef int64_t turn_ns            # the latest turn that has begun
    cdef int64_t looked_ns, released_ns     # records up to these times were looked at, and released
    cdef int64_t* begins            # the first start by interface, from UNKNOWN on; LAST_TIME: not seen
    cdef Py_ssize_t begins_capacity
    cdef uint8_t* hours             # a flag for each hour since 1970: a record begins in it
    cdef int64_t going_ns           # the first start after the latest gap of all logs
    cdef bint any, ended
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
        self.waiting_capacity = 1 << 12
        self.table = ConversationTable()
        self.interfaces = Interfaces(self.table, words, owners)
        self.packets = RecordPackets(self.table, shortest, longest, is_one_stream)
        self.waiting = <Waiting*>malloc(self.waiting_capacity * sizeof(Waiting))
        self.hours = <uint8_t*>calloc(HOURS, 1)
        if self.waiting == NULL or self.hours == NULL:
            raise MemoryError
        self.from_ns = EARLIEST if from_ns is None else max(EARLIEST, min(LATEST, from_ns))
        self.until_ns = LATEST if until_ns is None else max(EARLIEST, min(LATEST, until_ns))
        self.looked_ns = self.released_ns = self.newest_ns = self.going_ns = self.turn_ns = -(1 << 62)
        self.words = words
        self.ask = ask
        self.hashes = np.empty(0, np.uint32)

    def __dealloc__(self):
        free(self.waiting)
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
        if self.waiting_count + 2 * n > self.waiting_capacity:
            self.make_room(2 * n)
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
        cdef Waiting* waiting = &self.waiting[self.waiting_count]
        cdef uint64_t interface = 0
        cdef uint64_t tie
        if 0 <= row.interface < self.hashed:
            interface = self.hashes[row.interface]
        c.pending += 1
        self.waiting_count += 1
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
        tie = fold(waiting.packets ^ TIE_KEY, waiting.nbytes << 2 | waiting.rejected << 1 | <uint64_t>way)
        tie = fold(tie ^ interface, <uint64_t>end_ns ^ TIE_KEY)
        waiting.tie = <uint32_t>(tie ^ tie >> 32)

    # Records are noted ------------------------------------------------------------------------------------------------

    cdef int note_until(self, int64_t until_ns) except -1:
        # Sorts the records that start before this time by their starts, and notes them.
        cdef Py_ssize_t i, kept, n, others, end
        cdef Waiting* due
        cdef Waiting* sorted_due
        cdef int64_t[::1] starts
        cdef const int64_t[::1] order
        n = 0
        for i in range(self.noted_count, self.waiting_count):
            n += self.waiting[i].start_ns < until_ns
        if n == 0:
            return 0
        due = <Waiting*>malloc(n * sizeof(Waiting))
        if due == NULL:
            raise MemoryError
        try:
            start_array = np.empty(n, np.int64)
            starts = start_array
            n = 0
            kept = self.noted_count
            for i in range(self.noted_count, self.waiting_count):
                if self.waiting[i].start_ns < until_ns:
                    starts[n] = self.waiting[i].start_ns
                    due[n] = self.waiting[i]
                    n += 1
                else:
                    self.waiting[kept] = self.waiting[i]
                    kept += 1
            order = np.argsort(start_array, kind="stable")
            others = kept - self.noted_count
            memmove(
                &self.waiting[self.noted_count + n], &self.waiting[self.noted_count], others * sizeof(Waiting)
            )
            with nogil:
                sorted_due = &self.waiting[self.noted_count]
                for i in range(n):
                    sorted_due[i] = due[order[i]]
                i = 0
                while i < n:
                    end = i + 1
                    while end < n and sorted_due[end].start_ns == sorted_due[i].start_ns:
                        end += 1
                    self.sort_ties(sorted_due, i, end)
                    while i < end:
                        if self.note(&sorted_due[i]):
                            self.waiting[self.noted_count] = sorted_due[i]
                            self.noted_count += 1
                        i += 1
            memmove(
                &self.waiting[self.noted_count], &self.waiting[self.waiting_count - others], others * sizeof(Waiting)
            )
            self.waiting_count = self.noted_count + others
        finally:
            free(due)
        return 0

    cdef void sort_ties(self, Waiting* waiting, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
        # Sorts the records of one start and connection by their content, so that it does not matter which file came
        # first. Records of different connections keep their order, in which their conversations are in memory.
        cdef Py_ssize_t i, at
        cdef int steps
        cdef uint32_t before
        cdef Conversation* c
        cdef Waiting w
        for i in range(begin, end):
            c = self.current(&waiting[i])
            if c == NULL:
                continue
            before = c.latest
            c.latest = <uint32_t>i
            waiting[i].before = before
            at = i
            steps = 0
            while begin <= before < at and waiting[before].conversation == waiting[at].conversation:
                if waiting[before].tie <= waiting[at].tie or steps == MOST_TIES:
                    break
                steps += 1
                w = waiting[at]
                waiting[at] = waiting[before]
                waiting[before] = w
                waiting[before].before, waiting[at].before = waiting[at].before, waiting[before].before
                at = before
                before = waiting[at].before

    cdef inline int64_t longest_silence(self, const Conversation* c, int way) noexcept nogil:
        # Returns the longest time, in ns, between a conversation's latest record and the start of the next one. AWS
        # may write a start that is too late in the first record of a direction.
        cdef int64_t late_ns = 0 if (c.accepted | c.rejected) >> way & 1 else CLOSE_SECONDS * <int64_t>NS
        return self.packets.lifetime[kind_of(c)] + late_ns

    cdef bint note(self, Waiting* w) noexcept nogil:
        # Notes what a record says about its connection. Returns False if there is no room for that.
        cdef Conversation* c = self.current(w)
        cdef int way = w.way
        cdef int64_t logged_ns
        if w.start_ns > self.newest_ns + GAP:
            self.going_ns = w.start_ns
        logged_ns = self.logged_since(w)
        self.newest_ns = max(self.newest_ns, w.start_ns)
        if c != NULL and (c.accepted or c.rejected) and w.start_ns > c.last_ns + self.longest_silence(c, way):
            # This is another connection, which either end may have opened.
            self.table.retire(c)
            c = self.current(w)
        if c == NULL:
            if w.is_record:
                self.packets.leave_out(NO_ROOM)
            return False
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
            if c.accepted != 3 and c.accepted | 1 << way == 3:
                self.table.count_uses(c)
            c.accepted |= 1 << way
        if w.flags > 0 and w.flags & SYN:
            c.sent_syn |= 1 << (1 - way if w.flags & ACK else way)
        c.last_ns = max(c.last_ns, w.end_ns)
        return True

    cdef Conversation* current(self, Waiting* w) noexcept nogil:
        # Returns the conversation of a record. A record of a retired conversation moves to the one that replaces it.
        # Returns NULL if the table is full.
        cdef Conversation* c
        cdef Conversation* retired
        cdef uint32_t number = w.conversation
        if number == NO_CONVERSATION:
            return NULL
        c = &self.table.conversations[number]
        if not c.is_retired:
            return c
        c = self.table.successor(number)
        retired = &self.table.conversations[number]
        retired.pending -= 1
        if c != NULL:
            c.pending += 1
        w.conversation = <uint32_t>(c - self.table.conversations) if c != NULL else NO_CONVERSATION
        return c

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
        if time_ns <= LAST_TIME:
            self.turn_ns = max(self.turn_ns, time_ns // TURN * TURN)

    @property
    def is_due(self):
        """Whether records wait that must be released before others are added."""
        return self.waiting_count > 0 and (
            self.is_crowded() or self.turn_ns - max(self.looked_ns, self.first_ns) > PATIENCE
        )

    cdef bint is_crowded(self):
        # Each waiting record has a conversation, which stays for a while.
        return self.waiting_count >= MOST_WAITING or self.table.used >= MOST_CONVERSATIONS // 4 * 3

    def release(self, *, everything=False):
        """Let the records go that have waited long enough, or ``everything`` at the end, for ``next_batch``."""
        cdef Py_ssize_t i, kept, n
        cdef int64_t until = self.turn_ns - PATIENCE
        cdef int64_t noted_until = self.turn_ns - DELAY
        cdef int64_t[::1] keys
        cdef int64_t[::1] places
        cdef const int64_t[::1] sorted_places
        cdef Conversation* decided
        cdef int opener
        if self.at != self.ready_count:
            raise ValueError("take all batches first")
        self.ended = everything
        if everything:
            until = noted_until = INT64_MAX
        elif self.is_crowded():
            noted_until = INT64_MAX
            # There is no room for more records: these wait for less than an hour.
            starts = np.empty(self.waiting_count, np.int64)
            keys = starts
            for i in range(self.waiting_count):
                keys[i] = self.waiting[i].start_ns
            until = max(until, int(np.partition(starts, self.waiting_count // 2)[self.waiting_count // 2]))
        self.note_until(noted_until)
        self.interfaces.judge()
        self.decide_until(until)
        self.interfaces.judge()
        key_array, place_array = np.empty(self.noted_count, np.int64), np.empty(self.noted_count, np.int64)
        keys, places = key_array, place_array
        n = 0
        with nogil:
            for i in range(self.noted_count):
                if self.waiting[i].start_ns > until:
                    continue
                decided = &self.table.conversations[self.waiting[i].conversation]
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
            for i in range(self.noted_count):
                if self.waiting[i].start_ns > until:
                    self.waiting[kept] = self.waiting[i]
                    kept += 1
            memmove(
                &self.waiting[kept], &self.waiting[self.noted_count],
                (self.waiting_count - self.noted_count) * sizeof(Waiting)
            )
        self.interfaces.note_passed_on(self.ready, n)
        self.waiting_count -= self.noted_count - kept
        self.noted_count = kept
        # After a pause of the log there may be nothing to release.
        self.looked_ns = max(self.looked_ns, until)
        if n:
            self.released_ns = max(self.released_ns, until if not everything else self.newest_ns)

    cdef int decide_until(self, int64_t until_ns) except -1:
        # Decides who opened the connections of the noted records that start until then, and asks about those that
        # either end may have opened.
        cdef Py_ssize_t i
        cdef Py_ssize_t n = 0
        cdef Conversation* c
        cdef uint32_t[::1] numbers
        cdef uint8_t[::1] view
        cdef const uint8_t[::1] answers
        number_array = np.empty(self.noted_count, np.uint32)
        numbers = number_array
        with nogil:
            for i in range(self.noted_count):
                c = &self.table.conversations[self.waiting[i].conversation]
                if self.waiting[i].start_ns > until_ns or c.known:
                    continue
                self.table.decide(c, self.may_be_older(c))
                if c.is_unsure or (c.fate == ICMP_WITHOUT_TYPE and c.accepted):
                    numbers[n] = self.waiting[i].conversation
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
        cdef RecordPackets made = self.packets
        cdef Waiting* w
        cdef Conversation* c
        cdef int cause
        if made.accepted is None:
            made.accepted = made.begun_batch(0)
        if made.rejections is None:
            made.rejections = made.begun_batch(1)
        with nogil:
            if self.at == 0:
                self.interfaces.look_at(self.ready, self.ready_count)
            while made.has_room():
                w = &self.ready[self.at] if self.at < self.ready_count else NULL
                if made.later.count and (
                    made.later.heap[0].time_ns < w.start_ns if w != NULL
                    else (self.ended or made.later.heap[0].time_ns <= self.released_ns)
                ):
                    made.make_later()
                elif w != NULL:
                    c = &self.table.conversations[w.conversation]
                    cause = self.interfaces.cause_of(c, w)
                    if cause < 0:
                        made.make(w)
                    else:
                        c.pending -= 1
                        made.left_out_records[cause] += w.is_record
                    self.at += 1
                else:
                    break
        if not (made.accepted.count or made.rejections.count):
            self.forget()
            return None
        if made.rejections.count + FRAMES_OF_RECORD > FRAMES or not made.accepted.count:
            batch, made.rejections = made.rejections, None
            return batch, True
        batch, made.accepted = made.accepted, None
        return batch, False

    cdef void forget(self) noexcept nogil:
        # Forgets conversations that have had no record for an hour, and all without waiting ones if there are too many.
        cdef bint many = self.table.used > MOST_CONVERSATIONS // 2
        cdef Conversation* c
        cdef uint32_t i
        for i in range(self.table.count):
            c = &self.table.conversations[i]
            if not c.pending and (many or c.is_retired or c.last_ns + FORGOTTEN < self.released_ns):
                self.forgotten += many and not c.is_retired
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
