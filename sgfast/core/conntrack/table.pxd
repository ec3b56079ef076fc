# The connection table: one entry for each key, with the connections of up to two sides (SPEC 3.7, 5).
#
#     hash --index--> slot --slab--> entry: side 0 | side 1       one probe for both sides of a packet
#
# Side 0 is the filter at the lower address, side 1 the filter at the higher address. Each side has its own state,
# deadline, rule and initiator. In causal mode the side that denied an opener stores the moot mark of the key (SPEC 9.2)
# in the place of the connection that the side does not have.
#
# The index is an array of buckets (bucket.pxd). Only the index is ever resized.
#
# A *tuple* is the whole state stored under one key. A tuple is live while one of its sides has a live connection or
# moot mark. At most `max_live` tuples are live (SPEC 5.8). A tuple that has ended may remain as a mark that its opener
# was seen, which inference needs (SPEC 9.3). The number of such marks has a limit of its own.

from libc.stdint cimport INT64_MIN, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.bucket cimport FULL_BUCKET, Bucket, match_tag
from sgfast.core.base.intrinsics cimport ctz32, likely
from sgfast.core.base.key cimport KIND_IPV6, FlowKey, same_addresses
from sgfast.core.base.types cimport NO_SLOT, Packet
from sgfast.core.conntrack.expiry_heap cimport ExpiryHeap
from sgfast.core.conntrack.states cimport MOOT_TCP, NO_STATE
from sgfast.core.conntrack.storage cimport Entry, FlowRecord, Slab, addresses_at, entry_at, flow_at
from sgfast.core.conntrack.timer_wheel cimport Wheel

cdef enum:         # SideFlag
    FROM_HIGH = 1           # the initiator is the higher address
    REPLIED = 2             # a packet in reply direction was allowed, or is assumed to have been (SPEC 9.3)
    SIDE_DISCONNECTED = 4   # the connection is disconnected (SPEC 6.3)
    UNHEARD = 8             # no packet in reply direction was seen yet; must be bit 3, as settle_side shifts it
    UNSEEN = 16             # no packet of the initiator was seen yet; must be bit 4, as settle_side shifts it
    # The reply to an opener of `Plane.attempts` that stateless filters let pass (replies.pxd).
    REPLY_AWAITED = 32
    REPLY_PASSED = 64
    REPLY_STOPPED = 96
    REPLY = 96              # the mask of these three
    # The other end of a moot key sent a packet since the last one of the initiator (SPEC 9.2).
    OTHER_SENT = 128

cdef enum:         # TupleMark
    TUPLE_LIVE = 1
    OPENER_SEEN = 2         # in the mark list (SPEC 9.3)
    EVICTABLE = 4           # in the age list
    ANSWERED = 8            # has or had a REPLIED connection, and so cannot be evicted (SPEC 5.8)
    REFUSED = 16            # the other end sent an RST, or an ICMP unreachable came back
    TUPLE_DENIED = 32       # began with a denied opener
    # The other end answered with a packet other than an RST, allowed or not, or the initiator's packets show an answer.
    HEARD = 128
    UNBEGUN = 64            # the first packet is still being judged; a tuple that ends now is not reported

cdef enum:         # SideEnd
    SIDE_NONE = 0           # this side had no connection
    SIDE_OPEN = 1           # live when the report was made
    SIDE_CLOSED = 2
    SIDE_RESET = 3
    SIDE_TIMEOUT = 4
    SIDE_EVICTED = 5
    SIDE_REOPENED = 6
    SIDE_DENIED = 7
    SIDE_CUT = 8            # disconnected by a change of the policy
    SIDE_REMOVED = 9        # the instance or its address was removed
    SIDE_FORGOTTEN = 10     # forgotten by a change of the policy
    SIDE_END_COUNT = 11

cdef enum:         # Reports: the ended tuples that become rows
    REPORT_NONE = 0
    REPORT_OUTCOMES = 1     # those that the summary counts: allowed ones without an answer, denied ones with one
    REPORT_ALL = 2


# The two ends of a tuple, by role, for the reports.
cdef packed struct Ends:
    uint8_t initiator[16]   # network byte order; IPv4 in the first four bytes
    uint8_t responder[16]
    uint32_t ports          # initiator's port << 16 | responder's port; or an ICMP identifier << 16
    uint16_t icmp           # ICMP type << 8 | code of the opener; 0 for parts that the entry does not record
    uint8_t family
    uint8_t protocol
    uint8_t has_ports
    uint8_t spare


# One ended tuple, for the reports.
cdef packed struct FlowRow:
    uint64_t number         # number of the tuple's first packet; 0 if flows are not kept
    int64_t first_ns
    int64_t last_ns
    uint64_t bytes[2]       # from the initiator, from the responder
    uint64_t packets[2]
    Ends ends
    int32_t rule[2]         # initiator's (egress) side, responder's (ingress) side; -1 for none
    int32_t instance[2]     # by side, as `rule`; always -1 if flows are not kept
    uint8_t verdict
    uint8_t reason
    uint8_t answer          # 0 silent, 1 answered, 2 refused
    uint8_t side_end[2]     # egress, ingress
    uint8_t denied_out      # the initiator's filter denied the opener
    int32_t counted_for     # as in Origin


cdef enum:         # Status
    NOT_REMEMBERED = 0
    IS_OPEN = 1
    IS_OVER = 2             # a filter that remembers it has seen its end
    IS_CUT = 3              # a filter that remembers it has disconnected it
    IS_DENIED = 4           # the second of two filters denied its opener


cdef enum:         # EventKind
    OPENED_EVENT = 0
    DENIED_EVENT = 1
    ENDED_EVENT = 2
    CUT_EVENT = 3


# An event in the life of a connection, for Engine.events (events.pxd).
cdef packed struct EventRow:
    int64_t time_ns         # engine time
    # The place among events of the same time: 0 for a timeout, 2 n for an event of packet n, 2 n + 1 for a change of
    # the policy after packet n.
    uint64_t place
    FlowRow flow
    uint8_t kind            # EventKind
    uint8_t how             # SideEnd, of an end or a cut


# A connection that a filter remembers, for Engine.connections.
cdef packed struct RememberedRow:
    Ends ends
    int32_t rule[2]         # by role, as in FlowRow, like all that follow; -1 for none
    int32_t instance[2]
    int64_t deadline[2]
    uint8_t state[2]        # NO_STATE: the side remembers no connection
    uint8_t status          # Status
    uint8_t denied          # it began with a denied opener
    uint8_t recorded        # the other fields are known, and the ICMP code, too
    uint64_t number         # number of the tuple's first packet
    int64_t first_ns
    uint64_t bytes[2]
    uint64_t packets[2]


cdef struct Events:
    EventRow* rows
    Py_ssize_t count
    Py_ssize_t capacity
    Py_ssize_t most
    uint64_t lost           # events beyond `most`, or without memory
    uint64_t place          # that of an event whose cause the table does not know
    int64_t changed_ns      # the time of the change that is being made


cdef struct Table:
    Slab slab
    Wheel wheel
    ExpiryHeap expiry       # for the wheel's current tick, if the table was full in that tick
    Bucket* buckets
    uint32_t bucket_mask
    uint32_t used           # entries in the index
    uint32_t live
    uint32_t max_live
    uint32_t age_head       # the evictable tuple with the oldest creation
    uint32_t age_tail
    uint32_t mark_head
    uint32_t mark_tail
    uint32_t mark_count
    uint32_t max_marks
    uint8_t keep_marks
    uint8_t marks_expire
    uint8_t keep_flows      # keep a flow record of each tuple
    uint8_t keep_origins    # keep how each tuple began
    uint8_t reports         # Reports
    Events* events          # NULL unless events are wanted
    int64_t marks_until     # engine time in nanoseconds from which on marks are useless
    FlowRow* ended
    Py_ssize_t ended_count
    Py_ssize_t ended_capacity
    Py_ssize_t tallied      # number of ended rows that are already in the tallies
    uint64_t ended_lost     # rows lost for lack of memory
    uint64_t evicted        # tuples evicted that had a live connection on some side
    uint64_t moot_evicted   # tuples evicted that had only the mark of a denied opener


cdef inline bint has_full_index(const Table* t) noexcept nogil:
    return t.used >= (<uint64_t>t.bucket_mask + 1) * FULL_BUCKET


cdef inline bint has_place(const Table* t) noexcept nogil:
    # Whether one more key fits without evicting a tuple or growing the index.
    return t.live < t.max_live and not has_full_index(t)


cdef inline bint same_key(
    const Table* t, uint32_t slot, const Entry* e, const FlowKey* key, uint64_t digest
) noexcept nogil:
    # Whether `e`, the entry at `slot`, has this key.
    if e.digest != digest or e.ports != key.ports or e.protocol != key.protocol or e.kind != key.kind:
        return False
    if likely(not key.kind & KIND_IPV6):
        return True
    return same_addresses(addresses_at(&t.slab, slot), key.addr)


cdef inline uint32_t find_slot(
    const Table* t, const FlowKey* key, uint64_t digest, uint32_t hash_value
) noexcept nogil:
    cdef uint32_t at = hash_value & t.bucket_mask
    cdef uint32_t _tries, mask, slot
    cdef const Bucket* bucket
    for _tries in range(t.bucket_mask + 1):
        bucket = &t.buckets[at]
        mask = match_tag(bucket, hash_value)
        while mask:
            slot = bucket.slots[ctz32(mask)]
            if likely(same_key(t, slot, entry_at(&t.slab, slot), key, digest)):
                return slot
            mask &= mask - 1
        if likely(bucket.overflow == 0):
            return NO_SLOT
        at = (at + 1) & t.bucket_mask
    return NO_SLOT


cdef inline uint32_t guess_slot(const Table* t, uint32_t hash_value) noexcept nogil:
    # Returns the slot that most likely has the key, without reading its entry. The caller must compare the key.
    cdef const Bucket* bucket = &t.buckets[hash_value & t.bucket_mask]
    cdef uint32_t mask = match_tag(bucket, hash_value)
    return bucket.slots[ctz32(mask)] if likely(mask != 0) else <uint32_t>NO_SLOT


cdef inline bint side_connected(const Entry* e, int side, int64_t now) noexcept nogil:
    # Whether a side has a live connection. A connection ends at its deadline (SPEC 4.1).
    return (<uint8_t>(e.state[side] - 1) < MOOT_TCP - 1) & (now < e.deadline[side])


cdef inline int64_t latest_deadline(const Entry* e) noexcept nogil:
    cdef int64_t latest = INT64_MIN
    if e.state[0]:
        latest = e.deadline[0]
    if e.state[1] and e.deadline[1] > latest:
        latest = e.deadline[1]
    return latest


cdef inline void count_packet(Table* t, uint32_t slot, const Packet* p, uint64_t packets) noexcept nogil:
    # Counts a packet, which stands for `packets`, in the tuple's flow record. Flows must be kept.
    cdef FlowRecord* flow = flow_at(&t.slab, slot)
    cdef int way = p.source_high != flow.initiator_high
    if packets == 0 and p.wire == 0:
        return      # it only keeps its connection alive
    flow.last_ns = p.time_ns
    flow.packets[way] += packets
    flow.bytes[way] += p.wire
