"""Packets that an expression matches: ``--filter``. ``filter_text`` says what the words mean."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from sgfast.core.base.frames cimport Frame, FrameBatch
from sgfast.core.base.types cimport PROTO_SCTP, PROTO_TCP, PROTO_UDP, READ_BROKEN, READ_NOT_IP, Packet
from sgfast.core.wire.ip cimport WireContext, read_frame

from sgfast.preprocess.filter_text import parse_filter

cdef enum:
    STACK = 64              # results at once, bits of a word

cdef enum:         # Operation
    AND
    OR
    NOT
    FAMILY
    PROTOCOL
    ADDRESS
    PORTS

cdef enum:         # Way: which end is meant
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
    uint8_t family          # 4, 6, or 0: either
    uint8_t protocol        # of ports: 0 is TCP, UDP and SCTP
    uint16_t first
    uint16_t last
    uint64_t network[2]     # high and low half; IPv4 in the low one
    uint64_t mask[2]


# What the tests ask of a packet; family 0: it has no addresses that can be read.
cdef struct Asked:
    uint8_t family
    uint8_t protocol
    bint has_ports
    uint16_t ports[2]               # source, destination
    uint64_t addresses[2][2]        # source, destination; high and low half


cdef inline void ask(const Packet* p, Asked* asked) noexcept nogil:
    cdef int source = 2 if p.source_high else 0
    asked.has_ports = False
    if p.outcome == READ_BROKEN or p.outcome == READ_NOT_IP:
        asked.family = 0
        return
    asked.protocol = p.protocol
    if p.ipv6:
        asked.family = 6
        asked.addresses[0][0] = p.key.addr[source]
        asked.addresses[0][1] = p.key.addr[source + 1]
        asked.addresses[1][0] = p.key.addr[2 - source]
        asked.addresses[1][1] = p.key.addr[3 - source]
    else:
        asked.family = 4
        asked.addresses[0][0] = 0
        asked.addresses[0][1] = <uint32_t>p.key.addr[0] if p.source_high else p.key.addr[0] >> 32
        asked.addresses[1][0] = 0
        asked.addresses[1][1] = p.key.addr[0] >> 32 if p.source_high else <uint32_t>p.key.addr[0]
    if p.has_ports and (p.protocol == PROTO_TCP or p.protocol == PROTO_UDP or p.protocol == PROTO_SCTP):
        asked.has_ports = True
        asked.ports[0] = p.sport
        asked.ports[1] = p.dport


cdef inline bint within(const Step* step, const uint64_t* address) noexcept nogil:
    return (
        (address[0] & step.mask[0]) == step.network[0] and (address[1] & step.mask[1]) == step.network[1]
    )


cdef inline bint test(const Step* step, const Asked* asked) noexcept nogil:
    cdef bint source, destination
    if asked.family == 0 or (step.family != 0 and step.family != asked.family):
        return False
    if step.operation == FAMILY:
        return True
    if step.operation == PROTOCOL:
        return step.protocol == asked.protocol
    if step.operation == ADDRESS:
        source = within(step, asked.addresses[0])
        destination = within(step, asked.addresses[1])
    else:
        if not asked.has_ports or (step.protocol != 0 and step.protocol != asked.protocol):
            return False
        source = step.first <= asked.ports[0] <= step.last
        destination = step.first <= asked.ports[1] <= step.last
    if step.way == SOURCE:
        return source
    if step.way == DESTINATION:
        return destination
    if step.way == BOTH:
        return source and destination
    return source or destination


cdef inline bint matches(const Step* steps, Py_ssize_t count, const Asked* asked) noexcept nogil:
    # The lowest bit is the top of the stack.
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
            stack = (stack << 1) | <uint64_t>test(&steps[i], asked)
    return stack & 1


cdef class Filter:
    """Keeps the packets that ``text`` matches; ``dropped`` counts the others. ReadingError if it is no expression."""

    cdef Step* steps
    cdef Py_ssize_t count
    cdef WireContext wire       # all zero: no connection is looked up by what is read here
    cdef readonly int64_t dropped

    def __init__(self, str text not None):
        program = parse_filter(text)
        if self.steps != NULL:
            raise RuntimeError("a filter is made once")
        self.steps = <Step*>calloc(<size_t>len(program), sizeof(Step))
        if self.steps == NULL:
            raise MemoryError
        cdef Py_ssize_t depth = 0
        for given in program:
            self._take(&self.steps[self.count], given)
            self.count += 1
            depth += -1 if given.operation in ("and", "or") else given.operation != "not"
            if not 1 <= depth <= STACK:
                raise ValueError("a filter program needs more results than there are, or has too many")
        if depth != 1:
            raise ValueError("a filter program leaves one result")

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
        cdef Py_ssize_t kept = 0
        cdef Py_ssize_t i
        cdef Packet packet
        cdef Asked asked
        memset(&packet, 0, sizeof(Packet))
        memset(&asked, 0, sizeof(Asked))
        with nogil:
            for i in range(count):
                read_frame(&self.wire, &frames[i], &packet)
                ask(&packet, &asked)
                if matches(self.steps, self.count, &asked):
                    frames[kept] = frames[i]
                    kept += 1
            self.dropped += count - kept
        batch.count = kept
