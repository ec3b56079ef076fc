"""Make the packets of records: an opener, answers, and the others that each record counts.

A record becomes a few frames of LINK_RECORD (``frames.pxd``) in the order of time. The first one is the connection's
opener; ``openers.pxd`` has decided whose it is. Frames without packets keep the connection alive between a record's
start and end.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from sgfast.core.base.frames cimport LINK_RECORD, BatchPool, Frame, FrameBatch
from sgfast.core.base.intrinsics cimport fold
from sgfast.core.base.types cimport PROTO_TCP
from sgfast.traffic.flow_logs.conversation_table cimport ConversationTable
from sgfast.traffic.flow_logs.later_packets cimport Later, LaterPackets
from sgfast.traffic.flow_logs.record_frames cimport FRAME_ROOM, write_record_frame
from sgfast.traffic.flow_logs.openers cimport (
    ACK,
    FATES,
    FIN,
    ICMP_WITHOUT_TYPE,
    JUDGED,
    NO_INTERFACE,
    NO_OPENER,
    READINGS_DIFFER,
    RST,
    SYN,
    Conversation,
    is_icmp,
    is_refused,
)
from sgfast.traffic.flow_logs.questions cimport is_answered
from sgfast.traffic.flow_logs.refusals cimport was_refused

import numpy as np

# The most bytes, and packets, of a frame.
cdef uint64_t MOST_OF_FRAME = 0xFFFFFFFF
# If one end's log is silent for longer, the other end's records count. It is more than their clocks differ.
cdef int64_t SILENCE = 120 * <int64_t>NS
# A record keeps its connection alive for no longer.
cdef int64_t LONGEST = 31 * 86400 * <int64_t>NS

#: Timeouts of a connection, by the place of its kind: TCP, ICMP, other protocols.
TIMEOUTS = (
    ("tcp_established", "tcp_fin_wait", "tcp_other"), ("icmp",), ("bidirectional", "unidirectional")
)

#: The words for the fates of undecided records (``openers.pxd``).
UNDECIDED = (None, "readings-differ", "icmp-type")

#: The words for LeftOut.
LEFT_OUT = (
    "other-end", "copy", "time-window", "no-time", "no-ports", "no-protocol", "icmp-error", "no-room", "no-packets",
    "no-opener", "other-owner", "nat-gateway",
)


cdef class RecordPackets:
    """The packets of records, in batches of frames. ``shortest``, ``longest``, ``is_one_stream``: as for
    ``Connections``, which owns ``table``.
    """

    def __cinit__(self, ConversationTable table not None, shortest not None, longest not None, bint is_one_stream):
        cdef int i
        self.table = table
        self.later = LaterPackets()
        self.pool = BatchPool(FRAMES)
        self.is_one_stream = is_one_stream
        self.now_ns = -(1 << 62)
        self.frames_left = FIRST_FRAMES
        for i, names in enumerate(TIMEOUTS):
            # Records may have times in whole seconds.
            self.lifetime[i] = int((max(getattr(longest, name) for name in names) + 1) * NS)
            # A packet within a record may bring the connection into a state that has a shorter timeout.
            self.step[i] = max(int(min(getattr(shortest, name) for name in names) * 0.9 * NS), NS // 4)
        self.long_step = max(int(shortest.tcp_established * 0.9 * NS), NS // 4)

    def __dealloc__(self):
        free(self.asked_about)

    def note_changes(self, times_ns not None):
        """Take the times of the policy's changes, to count the records during which it changes."""
        self.changes = np.sort(np.array(times_ns, np.int64))
        self.change_count = len(times_ns)

    # The fate of the records -----------------------------------------------------------------------------------------

    cdef void leave_out(self, int why) noexcept nogil:
        self.left_out_records[why] += 1

    @property
    def undecided(self):
        """The numbers of undecided records and of their connections, by the words of UNDECIDED."""
        return {
            UNDECIDED[i]: (self.undecided_records[i], self.undecided_connections[i])
            for i in range(1, FATES) if self.undecided_records[i] or self.undecided_connections[i]
        }

    @property
    def asked(self):
        """An array of shape (n, 4) with a row for each question about a connection: packets and bytes that were not
        judged, the connections that were judged, and the most attempts that they are if the policy denies them.
        """
        if not self.question_count:
            return np.zeros((0, 4), np.uint64)
        return np.asarray(<uint64_t[:self.question_count, :4]><uint64_t*>self.asked_about).copy()

    cdef int expect(self, Py_ssize_t questions) except -1:
        # Makes room for more questions.
        cdef Py_ssize_t count = self.question_count + questions
        cdef Py_ssize_t i
        cdef Asked* grown = <Asked*>realloc(self.asked_about, count * sizeof(Asked))
        if grown == NULL:
            raise MemoryError
        self.asked_about = grown
        for i in range(self.question_count, count):
            grown[i] = Asked(0, 0, 0, 0)
        self.question_count = count
        return 0

    @property
    def left_out(self):
        """The numbers of records left out, by the words of LEFT_OUT."""
        return {word: self.left_out_records[i] for i, word in enumerate(LEFT_OUT) if self.left_out_records[i]}

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

    cdef bint has_room(self) noexcept nogil:
        # Returns whether the batches have room for what one record may become at once.
        return self.accepted.count + FRAMES_OF_RECORD <= FRAMES and self.rejections.count + FRAMES_OF_RECORD <= FRAMES

    cdef void make(self, const Waiting* w) noexcept nogil:
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
        if not w.rejected and w.interface != UNKNOWN and w.start_ns < c.end_ns[w.way]:
            self.overlapping += w.is_record
        c.end_ns[w.way] = w.end_ns
        if w.named and c.fate != ICMP_WITHOUT_TYPE:
            # If two records name different openers, they are about two connections.
            if c.opener != w.named - 1:
                c.begun = False
            c.opener = w.named - 1
            c.fate = JUDGED
            c.is_unsure = False
            c.question = 0
        if c.fate == NO_OPENER or ((w.rejected or blocked) and not self.is_attempt(c, w)):
            self.left_out_records[PERHAPS_NO_OPENER] += w.is_record
            return
        if c.fate != JUDGED:
            self.undecided_records[c.fate] += w.is_record
            if not c.is_counted:
                self.undecided_connections[c.fate] += 1
                self.undecided_answered += c.fate == READINGS_DIFFER and is_answered(c)
                self.count_directions(c)
                self.count_begun(c)
            if c.question:
                self.asked_about[c.question - 1].packets += w.packets
                self.asked_about[c.question - 1].nbytes += w.nbytes
            c.is_counted = True
            return
        if not self.takes_frames(c, w):
            self.left_out_records[NO_ROOM] += w.is_record
            return
        if w.is_record and self.changes_until(w.end_ns) > self.changes_until(w.start_ns):
            self.in_changes += 1
        self.decided += not c.is_decided
        if w.rejected or blocked:
            c.is_decided = True
            self.rejected += w.is_record
            self.put(0 if self.is_one_stream else 1, c, w.way, SYN, w.packets, w.nbytes, w.start_ns, w.position)
            return
        if not c.is_decided:
            self.unsure_connections += c.is_unsure
            self.count_directions(c)
        c.is_decided = True
        self.judged += w.is_record
        self.without_interface += w.interface == UNKNOWN and w.is_record != 0
        if c.protocol == PROTO_TCP:
            self.make_tcp(c, w)
        else:
            self.make_others(c, w)

    cdef bint takes_frames(self, const Conversation* c, const Waiting* w) noexcept nogil:
        # Takes the frames that a record needs after its start from the budget. Returns False if too few are left. Each
        # line of a hostile log may be about another connection that lasted for a month.
        cdef int64_t needed = <int64_t>(max(w.packets, w.nbytes) // MOST_OF_FRAME)
        if not w.rejected:
            needed += min(w.end_ns - w.start_ns, LONGEST) // self.step_of(c, w)
        self.frames_left += MORE_FRAMES
        if needed > self.frames_left:
            return False
        self.frames_left -= needed
        return True

    cdef int64_t step_of(self, const Conversation* c, const Waiting* w) noexcept nogil:
        # Returns the time between two packets that keep a connection alive.
        cdef int kind = kind_of(c)
        # Where flags show that no FIN came before the end, only the state of an answered connection matters.
        if kind == 0 and w.flags != UNKNOWN and c.accepted >> (1 - c.opener) & 1:
            return self.long_step
        return self.step[kind]

    cdef void count_directions(self, const Conversation* c) noexcept nogil:
        # Counts whether a connection has records of both directions, or of one that shows an answer: the sender was
        # answered, or it answers.
        if c.accepted == 3:
            self.two_way += 1
        elif c.accepted:
            self.one_way += is_answered(c) or c.opener != c.accepted >> 1

    cdef void count_begun(self, const Conversation* c) noexcept nogil:
        if c.question:
            self.asked_about[c.question - 1].connections += 1

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
        # No record has the answer, but the opener's packets show it.
        cdef bint answer_is_unseen = not answered and by_opener and c.shows_answer >> c.opener & 1
        # A record without flags whose sizes show a refusal holds an RST.
        cdef int flags = w.flags if w.flags != UNKNOWN or not is_refused(c) else SYN if by_opener else RST
        cdef bint has_flags = flags != UNKNOWN
        cdef uint64_t packets_left = w.packets
        cdef uint8_t later_flags = ACK
        cdef bint is_new     # whether a new connection has the same ports
        if by_opener and not c.answered and w.start_ns < answer_ns and w.end_ns <= answer_ns:
            answered = False
        if by_opener and has_flags and (is_refused(c) or (c.flags[1 - w.way] & (SYN | RST) == RST and (
            flags & SYN or not (w.shows_answer or c.no_refusal >> (1 - w.way) & 1)
        ))):
            answered = False        # refused, perhaps several times, as scans by FINs are
        if has_flags and flags & RST:
            later_flags = RST if by_opener else RST | ACK
        elif has_flags and flags & FIN and (answered or answer_is_unseen):
            later_flags = FIN | ACK
        elif not answered and not answer_is_unseen:
            # The opener's packets are retries, which do not keep a connection alive (SPEC 5.4).
            if not c.begun:
                self.count_begun(c)
            c.begun = True
            self.put(0, c, w.way, SYN, packets_left, w.nbytes, w.start_ns, w.position)
            c.made_ns = max(c.made_ns, w.end_ns)
            return
        if has_flags:
            is_new = c.closed and by_opener and (flags & (SYN | ACK)) == SYN
        else:
            is_new = w.start_ns > c.made_ns + self.lifetime[0]
        if not c.begun or is_new:
            if is_new and w.start_ns - c.alive_ns < self.step[0]:
                # The last FIN is acknowledged. Otherwise a SYN would belong to the connection before.
                self.put(0, c, c.opener, ACK, 0, 0, w.start_ns, w.position)
            self.count_begun(c)
            c.begun = True
            c.answered = c.closed = c.finished = False
            packets_left -= self.put_first(c, w, packets_left, by_opener, SYN)
        if answer_is_unseen and not c.answered:
            c.answered = True
            self.put(0, c, 1 - c.opener, SYN | ACK, 0, 0, w.start_ns, w.position)
            self.put(0, c, c.opener, ACK, 0, 0, w.start_ns, w.position)
        if not by_opener and not c.answered:
            self.ask(c, SYN, w.start_ns, w.position)
            c.answered = True
            if not (has_flags and flags & (RST | SYN) == RST):
                packets_left -= self.put_first(c, w, packets_left, True, SYN | ACK)
                self.put(0, c, c.opener, ACK, 0, 0, w.start_ns, w.position)     # the handshake is done
        elif packets_left == w.packets and packets_left > 1 and w.end_ns > w.start_ns and c.answered:
            packets_left -= self.put_first(c, w, packets_left, True, ACK)
        if has_flags and flags & (FIN | RST):
            c.finished |= 3 if flags & RST else 1 << w.way
            c.closed = c.finished == 3
        if packets_left:
            self.wait(c, w, packets_left, later_flags)
        self.keep_alive(c, w, ACK)
        c.made_ns = max(c.made_ns, w.end_ns)

    cdef void make_others(self, Conversation* c, const Waiting* w) noexcept nogil:
        cdef uint64_t packets_left = w.packets
        if not c.begun or w.start_ns > c.made_ns + self.lifetime[kind_of(c)]:
            self.count_begun(c)
            c.begun = True
            c.answered = False
            packets_left -= self.put_first(c, w, packets_left, w.way == c.opener, 0)
        elif w.way != c.opener:
            self.ask(c, 0, w.start_ns, w.position)
        if w.way != c.opener and not c.answered:
            # The record may have the bounds of an interval as its times: at its end, nobody waits for an answer.
            c.answered = True
            packets_left -= self.put_first(c, w, packets_left, True, 0)
        elif packets_left == w.packets and (packets_left > 1 or w.end_ns == w.start_ns):
            packets_left -= self.put_first(c, w, packets_left, True, 0)
        if packets_left:
            self.wait(c, w, packets_left, 0)
        self.keep_alive(c, w, 0)
        c.made_ns = max(c.made_ns, w.end_ns)

    cdef uint64_t put_first(
        self, Conversation* c, const Waiting* w, uint64_t left, bint counts, uint8_t flags
    ) noexcept nogil:
        # Makes one packet at the start of a record. With `counts`, it is one of the record's packets. Without, it is an
        # opener that no record has. Returns the number of packets taken from the record.
        cdef uint64_t nbytes = w.nbytes - share(w, left - 1) - (w.nbytes - share(w, left)) if counts else 0
        self.put(0, c, w.way if counts else c.opener, flags, counts, nbytes, w.start_ns, w.position)
        return counts

    cdef void ask(self, Conversation* c, uint8_t flags, int64_t time_ns, uint64_t position) noexcept nogil:
        # Makes an opener that counts no packet, if the connection may have timed out since the last opener. Without it,
        # the answer that follows would be taken for an opener.
        if time_ns - c.asked_ns > self.step[kind_of(c)]:
            self.put(0, c, c.opener, flags, 0, 0, time_ns, position)

    cdef void wait(self, Conversation* c, const Waiting* w, uint64_t left, uint8_t flags) noexcept nogil:
        # Queues the last packets of a record for its end.
        cdef Later later = Later(w.end_ns, 0, 0, left, share(w, left), w.position, w.conversation, w.way, flags, 0, 0)
        self.leave(&later)

    cdef void keep_alive(self, Conversation* c, const Waiting* w, uint8_t flags) noexcept nogil:
        # Queues packets between the record's start and end, which keep the connection alive and count nothing.
        cdef int64_t step = self.step_of(c, w)
        cdef int64_t until_ns = min(w.end_ns, w.start_ns + LONGEST)
        cdef Later later = Later(
            w.start_ns + step, 0, until_ns, 0, 0, w.position, w.conversation, w.way, flags, 0, step
        )
        if later.time_ns < until_ns:
            self.leave(&later)

    cdef void leave(self, const Later* later) noexcept nogil:
        # Queues packets for a later time. If memory runs out, their record is counted as lost.
        cdef Conversation* c = &self.table.conversations[later.conversation]
        if self.later.push(later):
            c.pending += 1
        else:
            self.lost += 1

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
                if c.question and time_ns - c.asked_ns > self.step[kind_of(c)]:
                    self.asked_about[c.question - 1].attempts += 1
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
    return (c.refused_by[w.way] == UNKNOWN or c.refused_by[w.way] != w.interface) and was_refused(
        c, w.way, w.start_ns - SILENCE, w.end_ns + SILENCE
    )


cdef inline uint64_t share(const Waiting* w, uint64_t packets) noexcept nogil:
    # Returns the bytes of the last `packets` of a record.
    if packets == w.packets:
        return w.nbytes
    return <uint64_t>(<double>w.nbytes / <double>w.packets * <double>packets)
