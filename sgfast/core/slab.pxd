# Where connection entries live. An entry never moves, so the index, the timer wheel and the age list hold its slot
# number. Entries come in chunks of 2 MiB, one huge page where the system gives them.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    CHUNK_BITS = 15
    CHUNK_SLOTS = 1 << CHUNK_BITS
    NO_SLOT = 0xFFFFFFFF


cdef packed struct Entry:           # 64 bytes, one cache line; asserted in tests
    uint64_t digest                 # Packet.digest of the key
    int64_t deadline[2]             # by side: when it ends, nanoseconds (SPEC 4.1)
    uint32_t rule[2]                # by side: the rule it was opened by
    uint32_t ports                  # FlowKey.ports
    uint32_t hash
    uint32_t wheel_next             # also links free slots
    uint32_t wheel_prev
    uint32_t age_next
    uint32_t age_prev
    uint8_t protocol
    uint8_t kind                    # FlowKey.kind, 0: the slot is free
    uint8_t state[2]                # by side: State
    uint8_t flags[2]                # by side: SideFlag
    uint8_t marks                   # of the whole tuple: TupleMark
    uint8_t present                 # bit s: side s has an instance


cdef struct MarkLink:
    uint32_t next
    uint32_t prev


# What the connection report tells of a tuple; kept only when asked for.
cdef struct FlowRecord:
    uint64_t number                 # of its first packet
    int64_t first_ns
    int64_t last_ns
    uint64_t bytes[2]               # [0] from the initiator, [1] from the responder
    uint64_t packets[2]
    uint32_t rule[2]                # by side, NO_SLOT: none
    int32_t instance[2]             # by side, -1: none
    uint8_t initiator_high
    uint8_t verdict
    uint8_t reason
    uint8_t side_end[2]             # by side: SideEnd
    uint8_t present
    uint16_t icmp                   # type << 8 | code of the opener


cdef struct Slab:
    Entry** entries                 # by chunk
    uint64_t** addresses            # by chunk: 4 words a slot, IPv6 only; NULL until the first
    MarkLink** marks                # by chunk, NULL unless marks are kept
    FlowRecord** flows              # by chunk, NULL unless flows are recorded
    uint32_t chunks
    uint32_t chunk_capacity
    uint32_t fresh                  # slots from here on were never used
    uint32_t free_slots             # head of the free list
    uint8_t with_marks
    uint8_t with_flows
    uint64_t nbytes


cdef inline Entry* entry_at(const Slab* slab, uint32_t slot) noexcept nogil:
    return &slab.entries[slot >> CHUNK_BITS][slot & (CHUNK_SLOTS - 1)]


cdef inline uint64_t* addresses_at(const Slab* slab, uint32_t slot) noexcept nogil:
    return &slab.addresses[slot >> CHUNK_BITS][<uint64_t>(slot & (CHUNK_SLOTS - 1)) * 4]


cdef inline MarkLink* mark_at(const Slab* slab, uint32_t slot) noexcept nogil:
    return &slab.marks[slot >> CHUNK_BITS][slot & (CHUNK_SLOTS - 1)]


cdef inline FlowRecord* flow_at(const Slab* slab, uint32_t slot) noexcept nogil:
    return &slab.flows[slot >> CHUNK_BITS][slot & (CHUNK_SLOTS - 1)]


cdef void init_slab(Slab* slab, bint with_marks, bint with_flows) noexcept nogil
cdef void free_slab(Slab* slab) noexcept nogil
cdef uint32_t take_slot(Slab* slab, bint ipv6) noexcept nogil       # NO_SLOT: no memory
cdef void give_slot(Slab* slab, uint32_t slot) noexcept nogil
cdef void* allocate_pages(size_t nbytes) noexcept nogil             # zeroed, for free(); NULL: no memory
