# Disagreements between two engines that judged the same packets, connection by connection, for `sgfast diff`.
#
# A packet *passes* if it is allowed, or if no filter sees it; otherwise it is *blocked*. A packet is *changed* if it
# passes in one engine and is blocked in the other. Changed packets are grouped into changed connections: a unit
# corresponds to one record of the connection report (SPEC 10.4) of the engine in which its packets pass. If that engine
# keeps no record, because no filter sees the packets, the unit corresponds to a record of the engine that blocks them.
#
#     result words of both --compare--> units, by key and way --when they end--> groups
#
# So the engines are compared packet by packet. Records may begin and end differently in each engine; a unit holds the
# changed packets of one record of the passing engine. Most packets have equal results, and cost only a comparison of
# two words. The numbers of units and groups are limited. If there is no room for a new group, a connection is counted
# in a group without its addresses. If there is no room for such a group either, it is counted without its port.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.types cimport VERDICT_COUNT, HeaderRow, Packet
from sgfast.core.wire.ip cimport WireContext

cdef enum:
    MAX_UNITS = 1 << 20
    GROUPS = 1 << 16            # more groups than a person reads
    ADDRESSLESS = 3 << 15       # groups without addresses are made up to this number of rows
    # All groups without ports fit: 256 protocols, two ways, at most 8 results that pass and 12 that block.
    MOST_GROUPS = 9 << 14
    GROUP_INDEX = 1 << 18
    EXAMPLES = 3
    AT_ONCE = 32                # candidates per batch: the data of one is prefetched while others are examined


cdef enum:         # Way
    CLOSES = 0                  # passes in OLD, is blocked in NEW
    OPENS = 1                   # is blocked in OLD, passes in NEW


cdef packed struct UnitKey:     # 40 bytes
    uint64_t addr[4]            # as in FlowKey; unused words are 0
    uint32_t ports
    uint8_t protocol
    uint8_t kind                # FlowKey.kind; 0 for a packet without a key, identified by its addresses and protocol
    uint8_t way
    uint8_t spare


cdef struct Unit:
    UnitKey key
    uint32_t hash               # hash of the key; the same for both ways
    uint64_t first              # number of the unit's first packet; 0 if the unit is over
    uint64_t packets
    uint64_t bytes
    int64_t first_ns
    int64_t last_ns
    uint16_t port_key           # port key of the opener
    uint8_t old                 # verdict and reason of the unit's first packet, as in the result word
    uint8_t new
    uint8_t initiator_high
    uint8_t passes_recorded     # the passing engine keeps a record of the connection
    uint8_t answered
    uint8_t ipv6
    uint8_t turned              # in the blocking engine the other end is the initiator
    uint8_t inward              # the unit's first packet came from the responder of the blocking engine


# A packet that is changed, or that may affect a unit that is not over.
cdef struct Candidate:
    Packet packet
    Packet quoted               # the packet that an ICMP error quotes
    bint quotes                 # `quoted` is valid, and `key` is its key
    uint16_t old                # result words
    uint16_t new
    uint64_t number
    UnitKey key                 # with `way` left 0
    uint32_t hash


# Changed connections of one kind: CHANGED_DTYPE. The first EXAMPLES connections are kept as examples.
cdef packed struct GroupRow:
    uint8_t initiator[16]       # network byte order; IPv4 in the first four bytes
    uint8_t responder[16]
    uint16_t port_key           # the responder's port, or ICMP type << 8 | code
    uint8_t protocol
    uint8_t family              # 0: the addresses are not known
    uint8_t has_ports
    uint8_t has_icmp
    uint8_t old
    uint8_t new
    uint16_t turned_port        # if `turned`: the opener's destination port in the blocking engine
    uint8_t turned              # in the blocking engine the responder is the initiator
    uint8_t inward              # in the blocking engine the packet came from the responder
    uint8_t unused[4]           # the 48 bytes up to here are the group's key
    uint64_t connections
    uint64_t answered
    uint64_t packets
    uint64_t bytes
    int64_t first_ns
    int64_t last_ns
    uint64_t number             # number of the first packet
    uint64_t example_packet[EXAMPLES]
    int64_t example_ns[EXAMPLES]
    uint16_t example_port[EXAMPLES]     # initiator's port
    uint16_t spare


# Returns the rows of `openers`. ValueError unless it is a contiguous array of HEADER_DTYPE with at least `n` rows.
cdef HeaderRow* opener_rows(openers, Py_ssize_t n) except? NULL


cdef class ChangedConnections:
    cdef WireContext wire
    cdef Unit* units
    cdef uint32_t unit_count
    cdef uint32_t unit_capacity
    cdef uint32_t* index        # hash table of unit numbers; NO_UNIT: free
    cdef uint32_t index_mask
    cdef GroupRow* groups
    cdef uint32_t group_count
    cdef uint32_t* group_index  # hash table of group numbers, each plus 1; 0: free
    cdef uint64_t judged        # packets compared
    cdef uint64_t verdicts[VERDICT_COUNT][VERDICT_COUNT]        # packets, by verdict: [OLD][NEW]
    cdef uint64_t cut_short     # units ended early for lack of room

    cdef Candidate candidates[AT_ONCE]

    cdef Py_ssize_t compare_frames(
        self, const Frame* frames, Py_ssize_t n, const uint16_t* old, const uint16_t* new, HeaderRow* openers,
        const uint64_t* numbers) except -1 nogil
    cdef bint read_candidate(
        self, const void* frame, uint16_t old, uint16_t new, uint64_t number, Candidate* t) noexcept nogil
    cdef int examine_all(self, int count) except -1 nogil
    cdef int examine(self, const Candidate* t) except -1 nogil
    cdef Unit* find(self, const UnitKey* key, uint32_t hash_value) noexcept nogil
    cdef Unit* find_or_make(self, const UnitKey* key, uint32_t hash_value) except? NULL nogil
    cdef GroupRow* find_group(self, const GroupRow* key, uint32_t most) noexcept nogil
    cdef GroupRow* group_of(self, const GroupRow* key) noexcept nogil
    cdef void end_unit(self, Unit* unit) noexcept nogil
    cdef int grow(self) except -1 nogil
