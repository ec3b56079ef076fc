# What two engines that judged the same packets disagree about, connection by connection, for `sgfast diff`.
#
# A packet *passes* if it is allowed, or no filter sees it; otherwise it is blocked. Where one engine lets it pass and
# the other does not it is *changed*, one way or the other. Changed packets are put together to changed connections: a
# unit is what a record of the connection report is (SPEC 10.4) for the engine that lets it pass. Where that engine
# keeps no record of it, as no filter sees it, it is what a record is for the engine that blocks it.
#
#     outcome words of both --compare--> units, by key and way --when they end--> groups
#
# So matching goes by packets: records may begin and end in one engine as they like, a unit has the packets that are
# changed in one record of the one that lets it pass. Most packets are equal for both, which costs a look at two words.
# Units and groups are bounded; what finds no room is counted.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.types cimport VERDICT_COUNT, HeaderRow, Packet
from sgfast.core.wire.ip cimport WireContext

cdef enum:
    MOST_UNITS = 1 << 20
    GROUPS = 1 << 16            # more than a person reads
    EXAMPLES = 3
    AT_ONCE = 32                # packets: what is needed of one is prefetched while others are looked at


cdef enum:         # Way
    CLOSES = 0                  # passed, is blocked
    OPENS = 1                   # was blocked, passes


cdef packed struct UnitKey:     # 40 bytes
    uint64_t addr[4]            # as in FlowKey; words that are not used are 0
    uint32_t ports
    uint8_t protocol
    uint8_t kind                # FlowKey.kind; 0 for a packet that has no key: its addresses and protocol stand for it
    uint8_t way
    uint8_t spare


cdef struct Unit:
    UnitKey key
    uint32_t hash               # of the key; the same for both ways
    uint64_t first              # packet; 0: no unit, it is over
    uint64_t packets
    uint64_t bytes
    int64_t first_ns
    int64_t last_ns
    uint16_t port_key           # of the opener
    uint8_t old                 # verdict and reason of the first changed packet, as in its outcome word
    uint8_t new
    uint8_t initiator_high
    uint8_t passes_recorded     # the engine that lets it pass keeps a record of it
    uint8_t answered
    uint8_t ipv6
    uint8_t turned              # for the engine that blocks it the other end opened
    uint8_t inward              # the packet that was blocked first came from who for that engine did not open


# A packet that is changed, or may say something of a unit.
cdef struct Told:
    Packet packet
    Packet quoted               # of an ICMP error
    bint quotes                 # whose key it is
    uint16_t old                # outcome words
    uint16_t new
    uint64_t number
    UnitKey key                 # of either way
    uint32_t hash


# Changed connections of one kind: CHANGED_DTYPE. Of the first ones each is told.
cdef packed struct GroupRow:
    uint8_t initiator[16]       # network byte order; IPv4 in the first four bytes
    uint8_t responder[16]
    uint16_t port_key           # the responder's port, or ICMP type << 8 | code
    uint8_t protocol
    uint8_t family
    uint8_t has_ports
    uint8_t has_icmp
    uint8_t old
    uint8_t new
    uint16_t turned_port        # if `turned`: where the opener goes for the engine that blocks
    uint8_t turned              # for that one the responder opened
    uint8_t inward              # the packet came from who did not open, for that one: it met that end's filter first
    uint8_t unused[4]           # 48 bytes up to here tell groups apart
    uint64_t connections
    uint64_t answered
    uint64_t packets
    uint64_t bytes
    int64_t first_ns
    int64_t last_ns
    uint64_t example_packet[EXAMPLES]
    int64_t example_ns[EXAMPLES]
    uint16_t example_port[EXAMPLES]     # the initiator's
    uint16_t spare


# Where openers go; ValueError if they are no contiguous HEADER_DTYPE or fewer than `n`.
cdef HeaderRow* opener_rows(openers, Py_ssize_t n) except? NULL


cdef class ChangedConnections:
    cdef WireContext wire
    cdef Unit* units
    cdef uint32_t unit_count
    cdef uint32_t unit_capacity
    cdef uint32_t* index        # of units, NO_UNIT: none
    cdef uint32_t index_mask
    cdef GroupRow* groups
    cdef uint32_t group_count
    cdef uint32_t* group_index
    cdef uint64_t judged        # packets
    cdef uint64_t verdicts[VERDICT_COUNT][VERDICT_COUNT]        # packets: [OLD][NEW]
    cdef uint64_t cut_short     # units that were over only for want of room
    cdef GroupRow others[2]     # by way: what found no group

    cdef Told told[AT_ONCE]

    cdef Py_ssize_t compare_frames(
        self, const Frame* frames, Py_ssize_t n, const uint16_t* old, const uint16_t* new, HeaderRow* openers,
        const uint64_t* numbers) except -1 nogil
    cdef bint read_told(self, const void* frame, uint16_t old, uint16_t new, uint64_t number, Told* t) noexcept nogil
    cdef int look(self, int count) except -1 nogil
    cdef int look_at(self, const Told* t) except -1 nogil
    cdef Unit* find(self, const UnitKey* key, uint32_t hash_value) noexcept nogil
    cdef Unit* find_or_make(self, const UnitKey* key, uint32_t hash_value) except? NULL nogil
    cdef void end_unit(self, Unit* unit) noexcept nogil
    cdef int grow(self) except -1 nogil
