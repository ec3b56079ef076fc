"""Leave out packets before they are judged: ``--start`` and ``--end``, ``--filter``, ``--dedup``.

Each class has ``apply``, which removes frames from a batch in place and counts them. ``filter_text`` parses filter
expressions.
"""

import os

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from sgfast.core.base.frames cimport Frame, FrameBatch, packets_of
from sgfast.core.base.types cimport PROTO_SCTP, PROTO_TCP, PROTO_UDP, READ_BROKEN, READ_NOT_IP, Packet
from sgfast.core.wire.ip cimport WireContext, read_frame
from sgfast.traffic.preprocess.ip_digest cimport digest, find_ip_packet

# Time window ---------------------------------------------------------------------------------------------------------

EARLIEST, LATEST = -(1 << 63), (1 << 63) - 1       # the range of int64_t


cdef class Window:
    """Keep packets whose own timestamp is in [start, end). The packets may be in any order.

    ``start_ns`` and ``end_ns`` are nanoseconds since the Unix epoch; None means no limit. ``before_start`` and
    ``after_end`` count the packets left out.
    """

    cdef int64_t start
    cdef int64_t end
    cdef bint ends
    cdef readonly int64_t before_start
    cdef readonly int64_t after_end

    def __cinit__(self, start_ns, end_ns):
        # Clamping does not change the result, because no timestamp is that far away.
        self.start = EARLIEST if start_ns is None else max(EARLIEST, min(LATEST, start_ns))
        self.end = LATEST if end_ns is None else max(EARLIEST, min(LATEST, end_ns))
        self.ends = end_ns is not None

    def apply(self, FrameBatch batch not None):
        cdef Frame* frames = batch.frames
        cdef Py_ssize_t count = batch.count
        cdef Py_ssize_t kept_frames = 0
        cdef Py_ssize_t i
        with nogil:
            for i in range(count):
                if frames[i].time_ns < self.start:
                    self.before_start += 1
                elif self.ends and frames[i].time_ns >= self.end:
                    self.after_end += 1
                else:
                    frames[kept_frames] = frames[i]
                    kept_frames += 1
        batch.keep_first(kept_frames)


# Filter expression ---------------------------------------------------------------------------------------------------

cdef enum:
    STACK = 64              # maximum depth of the result stack, whose results are bits of a word

cdef enum:         # Operation
    AND
    OR
    NOT
    FAMILY
    PROTOCOL
    ADDRESS
    PORTS

cdef enum:         # Way: which end an address or port is for
    EITHER
    SOURCE
    DESTINATION
    BOTH

OPERATIONS = {
    "and": AND, "or": OR, "not": NOT, "family": FAMILY, "protocol": PROTOCOL, "address": ADDRESS, "ports": PORTS,
}
WAYS = {"either": EITHER, "src": SOURCE, "dst": DESTINATION, "both": BOTH}


cdef struct Step:
    uint8_t operation
    uint8_t way
    uint8_t family          # 4 or 6; 0: both
    uint8_t protocol        # protocol of PORTS, 0: TCP, UDP and SCTP
    uint16_t first
    uint16_t last
    uint64_t network[2]     # high and low half; IPv4 is in the low half
    uint64_t mask[2]


# The fields of a packet that tests refer to. Family 0: the packet has no readable addresses.
cdef struct Fields:
    uint8_t family
    uint8_t protocol
    bint has_ports
    uint16_t ports[2]               # source, destination
    uint64_t addresses[2][2]        # source, destination; high and low half


cdef inline void read_fields(const Packet* p, Fields* fields) noexcept nogil:
    cdef int source = 2 if p.source_high else 0
    fields.has_ports = False
    if p.parse_result == READ_BROKEN or p.parse_result == READ_NOT_IP:
        fields.family = 0
        return
    fields.protocol = p.protocol
    if p.ipv6:
        fields.family = 6
        fields.addresses[0][0] = p.key.addr[source]
        fields.addresses[0][1] = p.key.addr[source + 1]
        fields.addresses[1][0] = p.key.addr[2 - source]
        fields.addresses[1][1] = p.key.addr[3 - source]
    else:
        fields.family = 4
        fields.addresses[0][0] = 0
        fields.addresses[0][1] = <uint32_t>p.key.addr[0] if p.source_high else p.key.addr[0] >> 32
        fields.addresses[1][0] = 0
        fields.addresses[1][1] = p.key.addr[0] >> 32 if p.source_high else <uint32_t>p.key.addr[0]
    if p.has_ports and (p.protocol == PROTO_TCP or p.protocol == PROTO_UDP or p.protocol == PROTO_SCTP):
        fields.has_ports = True
        fields.ports[0] = p.sport
        fields.ports[1] = p.dport


cdef inline bint within(const Step* step, const uint64_t* address) noexcept nogil:
    return (
        (address[0] & step.mask[0]) == step.network[0] and (address[1] & step.mask[1]) == step.network[1]
    )


cdef inline bint test(const Step* step, const Fields* fields) noexcept nogil:
    cdef bint source, destination
    if fields.family == 0 or (step.family != 0 and step.family != fields.family):
        return False
    if step.operation == FAMILY:
        return True
    if step.operation == PROTOCOL:
        return step.protocol == fields.protocol
    if step.operation == ADDRESS:
        source = within(step, fields.addresses[0])
        destination = within(step, fields.addresses[1])
    else:
        if not fields.has_ports or (step.protocol != 0 and step.protocol != fields.protocol):
            return False
        source = step.first <= fields.ports[0] <= step.last
        destination = step.first <= fields.ports[1] <= step.last
    if step.way == SOURCE:
        return source
    if step.way == DESTINATION:
        return destination
    if step.way == BOTH:
        return source and destination
    return source or destination


cdef inline bint matches(const Step* steps, Py_ssize_t count, const Fields* fields) noexcept nogil:
    # The lowest bit of `stack` is the top of the stack.
    cdef uint64_t stack = 0
    cdef Py_ssize_t i
    for i in range(count):
        if steps[i].operation == AND:
            stack = (stack >> 1) & (stack | ~<uint64_t>1)
        elif steps[i].operation == OR:
            stack = (stack >> 1) | (stack & 1)
        elif steps[i].operation == NOT:
            stack ^= 1
        else:
            stack = (stack << 1) | <uint64_t>test(&steps[i], fields)
    return stack & 1


cdef class Filter:
    """Keep the packets that ``text`` matches; ``dropped`` counts all others. Raises ReadingError for invalid text."""

    cdef Step* steps
    cdef Py_ssize_t count
    cdef WireContext wire       # all zero, because a filter looks up no connection
    cdef readonly int64_t dropped

    def __cinit__(self, str text not None):
        from sgfast.traffic.preprocess.filter_text import parse_filter

        program = parse_filter(text)
        self.steps = <Step*>calloc(<size_t>len(program), sizeof(Step))
        if self.steps == NULL:
            raise MemoryError
        cdef Py_ssize_t depth = 0
        for instruction in program:
            self._take(&self.steps[self.count], instruction)
            self.count += 1
            depth += -1 if instruction.operation in ("and", "or") else instruction.operation != "not"
            if not 1 <= depth <= STACK:
                raise ValueError("a filter program uses more results than there are, or keeps too many")
        if depth != 1:
            raise ValueError("a filter program must leave exactly one result")

    def __dealloc__(self):
        free(self.steps)

    cdef int _take(self, Step* step, given) except -1:
        step.operation = OPERATIONS[given.operation]
        step.way = WAYS[given.way]
        step.family = given.family
        step.protocol = given.protocol
        step.first = given.first
        step.last = given.last
        if given.network is not None:
            address, mask = int(given.network.network_address), int(given.network.netmask)
            step.network[0] = address >> 64
            step.network[1] = address & 0xFFFFFFFFFFFFFFFF
            step.mask[0] = mask >> 64
            step.mask[1] = mask & 0xFFFFFFFFFFFFFFFF
        return 0

    def apply(self, FrameBatch batch not None):
        cdef Frame* frames = batch.frames
        cdef Py_ssize_t count = batch.count
        cdef Py_ssize_t kept_frames = 0
        cdef Py_ssize_t i
        cdef Packet packet
        cdef Fields fields
        memset(&packet, 0, sizeof(Packet))
        memset(&fields, 0, sizeof(Fields))
        with nogil:
            for i in range(count):
                read_frame(&self.wire, &frames[i], &packet)
                read_fields(&packet, &fields)
                if matches(self.steps, self.count, &fields):
                    frames[kept_frames] = frames[i]
                    kept_frames += 1
                else:
                    self.dropped += packets_of(&frames[i])
        batch.keep_first(kept_frames)


# Duplicates ----------------------------------------------------------------------------------------------------------

# ``tcpdump -i any`` captures a packet on every interface that it passes. A mirror of two ports sends a packet twice if
# it crosses both. For the instances these copies are one packet, so all copies but the first are left out.

cdef enum:
    # Maximum time between copies. Copies on two interfaces of a host are microseconds apart, and copies from two ports
    # of a mirror milliseconds (a switch's queue). Retransmissions come later: TCP on Linux waits 200 ms, resolvers and
    # pings wait seconds. A fast retransmission may come sooner, but usually has a new IPv4 identification.
    MAX_APART_NS = 50000000
    # The number of kept packets that are remembered for comparison, a power of two. This number covers 4 ms at a
    # million packets a second, and all 50 ms at 80,000 a second. More packets would not fit in a core's cache.
    REMEMBERED = 4096
    BUCKETS = 2 * REMEMBERED
    NEVER = -1
    # The least interval of keepalives, whose packets are equal. The fastest BFD sessions send every 3.3 ms. Two copies
    # of one packet, captured on several interfaces, are closer together.
    MIN_KEEPALIVE_NS = 1000000
    # The intervals of keepalives vary: BFD shortens each by up to a quarter, and a lost packet doubles one. Each is at
    # least this part of the interval before. A copy comes much sooner.
    KEEPALIVE_PART = 4


cdef struct Kept:
    uint64_t digest
    int64_t time_ns
    uint64_t before         # number of the previous kept packet in its bucket, 0: none


cdef struct Repeats:
    int64_t latest_ns       # time of the latest packet that equals a kept one, or of that packet itself
    uint64_t apart_ns       # time between it and the one before, from 1 to MAX_APART_NS, 0: there is none


cdef class Dedup:
    """Leave out IP packets that repeat a recent packet byte for byte, from the IP header to the end of the capture.

    TTL or hop limit and IPv4's header checksum may differ, because there may be a router between the copies. Recent
    means within 50 ms and among the last 4096 packets kept. ``dropped`` counts the packets left out. Packets that are
    not IP or have an incomplete IP header are kept. Equal packets of two VPCs (``Frame.vpc``) are kept, because VPCs
    may use the same addresses.
    """

    cdef Kept* first            # the first REMEMBERED packets kept
    cdef Kept* ring             # kept packet n is at n % REMEMBERED until kept packet n + REMEMBERED replaces it
    cdef uint64_t* newest       # by bucket: number of the last packet kept, 0: none
    cdef Repeats* repeats       # of kept packet n, at n % REMEMBERED; only if packets are looked at
    cdef uint64_t number        # number of the last packet kept, 1-based
    # The number of the kept packet that equals the last packet, whatever time lies between them; 0: there is none.
    cdef uint64_t equal
    cdef uint64_t secret[4]
    cdef readonly int64_t dropped

    def __cinit__(self, secret=None):
        self.first = <Kept*>calloc(REMEMBERED, sizeof(Kept))
        self.ring = <Kept*>calloc(REMEMBERED, sizeof(Kept))
        self.newest = <uint64_t*>calloc(BUCKETS, sizeof(uint64_t))
        self.repeats = <Repeats*>calloc(REMEMBERED, sizeof(Repeats))
        if self.first == NULL or self.ring == NULL or self.newest == NULL or self.repeats == NULL:
            raise MemoryError
        if secret is None:
            secret = [int.from_bytes(os.urandom(8), "little") for _ in range(4)]
        self.secret[0], self.secret[1], self.secret[2], self.secret[3] = secret

    def __dealloc__(self):
        free(self.first)
        free(self.ring)
        free(self.newest)
        free(self.repeats)

    cdef int is_copy(self, const Frame* frame) noexcept nogil:
        # Returns 1 for a copy, 0 for any other IP packet, which is remembered, or NEVER for a packet that is not IP.
        cdef bint ipv6 = False
        cdef uint32_t length = 0
        cdef const uint8_t* ip = find_ip_packet(frame, &ipv6, &length)
        cdef uint64_t h, n
        cdef Kept* earlier
        cdef uint64_t* newest
        if ip == NULL:
            return NEVER
        h = digest(self.secret, ip, length, ipv6, frame.vpc)
        newest = &self.newest[h & (BUCKETS - 1)]
        n = newest[0]
        self.equal = 0
        while n != 0 and self.number - n < REMEMBERED:
            earlier = &self.ring[n & (REMEMBERED - 1)]
            if earlier.digest == h:
                self.equal = n
                # All earlier packets with this digest are older.
                if apart(frame.time_ns, earlier.time_ns) <= MAX_APART_NS:
                    return 1
                break
            n = earlier.before
        self.remember(h, frame.time_ns)
        if self.number <= REMEMBERED:
            self.first[self.number - 1] = self.ring[self.number & (REMEMBERED - 1)]
        return 0

    cdef bint is_keepalive(self, int64_t time_ns, bint is_copy) noexcept nogil:
        # Returns whether the last packet is a keepalive: the interval since the latest equal packet is about as long as
        # the interval before. Notes the packet's time.
        cdef Repeats* before = &self.repeats[self.equal & (REMEMBERED - 1)]
        cdef Repeats now = Repeats(time_ns, 0)
        cdef bint is_steady = False
        if self.equal != 0:
            now.apart_ns = max(min(apart(time_ns, before.latest_ns), <uint64_t>MAX_APART_NS), <uint64_t>1)
            is_steady = (
                before.apart_ns != 0 and now.apart_ns >= MIN_KEEPALIVE_NS
                and now.apart_ns >= before.apart_ns // KEEPALIVE_PART
            )
        self.repeats[(self.equal if is_copy else self.number) & (REMEMBERED - 1)] = now
        return is_steady

    cdef void remember(self, uint64_t h, int64_t time_ns) noexcept nogil:
        cdef uint64_t* newest = &self.newest[h & (BUCKETS - 1)]
        cdef Kept* earlier
        self.number += 1
        earlier = &self.ring[self.number & (REMEMBERED - 1)]
        earlier.digest = h
        earlier.time_ns = time_ns
        earlier.before = newest[0]
        newest[0] = self.number

    def go_on(self, seen not None):
        """Continue after the packets ``latest`` of another instance with the same secret."""
        cdef uint64_t h
        cdef int64_t time_ns
        for h, time_ns in seen:
            self.remember(h, time_ns)

    @property
    def earliest(self):
        """(digest, time) of the first packets kept, which may be copies of packets before this instance's first one.

        Not meaningful after ``go_on``.
        """
        cdef uint64_t n
        return [(self.first[n].digest, self.first[n].time_ns) for n in range(min(self.number, <uint64_t>REMEMBERED))]

    @property
    def latest(self):
        """(digest, time) of the last packets kept, oldest first. Later packets are compared with these packets."""
        cdef uint64_t n
        cdef uint64_t start = self.number - REMEMBERED + 1 if self.number >= REMEMBERED else 1
        return [
            (self.ring[n & (REMEMBERED - 1)].digest, self.ring[n & (REMEMBERED - 1)].time_ns)
            for n in range(start, self.number + 1)
        ]

    def apply(self, FrameBatch batch not None):
        cdef Frame* frames = batch.frames
        cdef Py_ssize_t count = batch.count
        cdef Py_ssize_t kept_frames = 0
        cdef Py_ssize_t i
        with nogil:
            for i in range(count):
                if self.is_copy(&frames[i]) != 1:
                    frames[kept_frames] = frames[i]
                    kept_frames += 1
            self.dropped += count - kept_frames
        batch.keep_first(kept_frames)

    def look(self, FrameBatch batch not None, Py_ssize_t first, Py_ssize_t number):
        """Return how many of ``number`` packets from ``first`` on are IP, and how many of these are copies. Drop no
        packet. Equal packets that are sent steadily, as keepalives are, are no copies. ValueError if there are no such
        packets.
        """
        cdef Py_ssize_t packets = 0
        cdef Py_ssize_t copies = 0
        cdef Py_ssize_t i
        cdef int copy_kind
        if first < 0 or number < 0 or number > batch.count - first:
            raise ValueError("no such packets")
        with nogil:
            for i in range(first, first + number):
                copy_kind = self.is_copy(&batch.frames[i])
                if copy_kind == NEVER:
                    continue
                packets += 1
                copies += not self.is_keepalive(batch.frames[i].time_ns, copy_kind) and copy_kind == 1
        return packets, copies


cdef inline uint64_t apart(int64_t a, int64_t b) noexcept nogil:
    # Unsigned, because the difference of two times may need 64 bits.
    return <uint64_t>a - <uint64_t>b if a > b else <uint64_t>b - <uint64_t>a
