# Storage of connection entries. An entry never moves, so the index, the timer wheel and the age list refer to it by its
# slot number. Entries are allocated in chunks of 2 MiB. Each chunk is one huge page if the system has huge pages.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from sgfast.core.base.intrinsics cimport prefetch
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.base.types cimport NO_SLOT

cdef enum:
    CHUNK_BITS = 15
    CHUNK_SLOTS = 1 << CHUNK_BITS
    # A bit of Entry.present: whether an end is an instance depends on the direction, as a multicast address lies in an
    # instance's prefix. As a destination it is no instance (SPEC 3.3). Such packets take the slow path.
    DIRECTED = 4


cdef packed struct Entry:           # 64 bytes, one cache line; a test asserts it
    uint64_t digest                 # Packet.digest of the key
    int64_t deadline[2]             # by side: when its connection ends, engine time in nanoseconds (SPEC 4.1)
    uint32_t rule[2]                # by side: the rule that opened its connection
    uint32_t ports                  # FlowKey.ports
    uint32_t hash
    uint32_t wheel_next             # also links the free slots
    uint32_t wheel_prev
    uint32_t age_next
    uint32_t age_prev
    uint8_t protocol
    uint8_t kind                    # FlowKey.kind; 0: the slot is free
    uint8_t state[2]                # by side: State
    uint8_t flags[2]                # by side: SideFlag
    uint8_t marks                   # marks of the whole tuple: TupleMark
    uint8_t present                 # bit s: side s has an instance; and DIRECTED


cdef struct MarkLink:
    uint32_t next
    uint32_t prev


# The part of a tuple that only the connection report needs, and that most packets change: one cache line. It is
# allocated only if flows are kept.
cdef struct FlowRecord:             # 64 bytes; a test asserts it
    uint64_t number                 # number of the tuple's first packet
    int64_t first_ns
    int64_t last_ns
    uint64_t bytes[2]               # [0] from the initiator, [1] from the responder
    uint64_t packets[2]
    uint8_t initiator_high          # as in Origin; it is here because most packets read it
    uint8_t side_end[2]             # by side: SideEnd
    uint8_t watched                 # an event of the connection's end is still due (events.pxd)
    uint8_t spare[4]                # always 0


# The rest of a tuple's data for the connection report, which few packets read or write.
cdef struct FlowSides:
    uint32_t rule[2]                # by side; NO_SLOT: none
    int32_t instance[2]             # by side; -1: none


# The beginning of a tuple, for reports. Later changes of the policy do not change it.
cdef struct Origin:                 # 24 bytes
    int32_t counted_for             # instance whose filter denied the opener, or else the responder; -1: no instance
    uint16_t icmp                   # ICMP type << 8 | code of the opener
    uint8_t reason                  # reason of the opener's verdict
    uint8_t ends                    # ORIGIN_ bits
    uint64_t* endings               # counters of how it ends (tally.pxd); NULL: a report row counts it (endings.pxd)
    uint64_t* attempt               # with ORIGIN_CALLED: the counters of the other end's denied attempt


cdef enum:
    ORIGIN_HIGH = 1                 # the initiator is the higher address
    ORIGIN_DENIED_OUT = 2           # the initiator's filter denied the opener
    # The opener came after a denied attempt of the other end, and may be its late answer. Unless the connection is
    # answered, nobody can tell (SPEC 9.2).
    ORIGIN_CALLED = 4


cdef struct Slab:
    Entry nothing                   # no key matches this entry
    Entry** entries                 # by chunk
    uint64_t** addresses            # by chunk: 4 words per slot; NULL until the chunk has an IPv6 entry
    MarkLink** marks                # by chunk, NULL unless marks are kept
    FlowRecord** flows              # by chunk, NULL unless flows are recorded
    FlowSides** flow_sides          # by chunk, NULL unless flows are recorded
    Origin** origins                # by chunk, NULL unless origins are kept
    uint32_t chunks
    uint32_t chunk_capacity
    uint32_t fresh                  # first slot that was never used
    uint32_t free_slots             # head of the free list
    uint8_t with_marks
    uint8_t with_flows
    uint8_t with_origins
    uint64_t nbytes


cdef inline Entry* entry_at(const Slab* slab, uint32_t slot) noexcept nogil:
    return &slab.entries[slot >> CHUNK_BITS][slot & (CHUNK_SLOTS - 1)]


cdef inline uint64_t* addresses_at(const Slab* slab, uint32_t slot) noexcept nogil:
    return &slab.addresses[slot >> CHUNK_BITS][<uint64_t>(slot & (CHUNK_SLOTS - 1)) * 4]


cdef inline void prefetch_addresses(const Slab* slab, uint32_t slot) noexcept nogil:
    # Prefetches the addresses of a guessed slot. The slot may be IPv4, and its chunk may have no addresses.
    if slab.addresses[slot >> CHUNK_BITS] != NULL:
        prefetch(addresses_at(slab, slot))


cdef inline MarkLink* mark_at(const Slab* slab, uint32_t slot) noexcept nogil:
    return &slab.marks[slot >> CHUNK_BITS][slot & (CHUNK_SLOTS - 1)]


cdef inline FlowRecord* flow_at(const Slab* slab, uint32_t slot) noexcept nogil:
    return &slab.flows[slot >> CHUNK_BITS][slot & (CHUNK_SLOTS - 1)]


cdef inline FlowSides* flow_sides_at(const Slab* slab, uint32_t slot) noexcept nogil:
    return &slab.flow_sides[slot >> CHUNK_BITS][slot & (CHUNK_SLOTS - 1)]


cdef inline Origin* origin_at(const Slab* slab, uint32_t slot) noexcept nogil:
    return &slab.origins[slot >> CHUNK_BITS][slot & (CHUNK_SLOTS - 1)]


cdef inline void init_slab(Slab* slab, bint with_marks, bint with_flows, bint with_origins) noexcept nogil:
    memset(slab, 0, sizeof(Slab))
    slab.free_slots = NO_SLOT
    slab.with_marks = with_marks
    slab.with_flows = with_flows
    slab.with_origins = with_origins


cdef inline void free_slab(Slab* slab) noexcept nogil:
    cdef uint32_t i
    for i in range(slab.chunks):
        free(slab.entries[i])
        free(slab.addresses[i])
        free(slab.marks[i])
        free(slab.flows[i])
        free(slab.flow_sides[i])
        free(slab.origins[i])
    free(slab.entries)
    free(slab.addresses)
    free(slab.marks)
    free(slab.flows)
    free(slab.flow_sides)
    free(slab.origins)
    memset(slab, 0, sizeof(Slab))


cdef inline bint grow_directory(Slab* slab) noexcept nogil:
    cdef uint32_t capacity = slab.chunk_capacity * 2 if slab.chunk_capacity else 64
    cdef size_t nbytes = <size_t>capacity * sizeof(void*)
    cdef void* grown
    grown = realloc(slab.entries, nbytes)
    if grown == NULL:
        return False
    slab.entries = <Entry**>grown
    grown = realloc(slab.addresses, nbytes)
    if grown == NULL:
        return False
    slab.addresses = <uint64_t**>grown
    grown = realloc(slab.marks, nbytes)
    if grown == NULL:
        return False
    slab.marks = <MarkLink**>grown
    grown = realloc(slab.flows, nbytes)
    if grown == NULL:
        return False
    slab.flows = <FlowRecord**>grown
    grown = realloc(slab.flow_sides, nbytes)
    if grown == NULL:
        return False
    slab.flow_sides = <FlowSides**>grown
    grown = realloc(slab.origins, nbytes)
    if grown == NULL:
        return False
    slab.origins = <Origin**>grown
    slab.chunk_capacity = capacity
    return True


cdef inline bint add_chunk(Slab* slab) noexcept nogil:
    cdef uint32_t i = slab.chunks
    if i == (<uint32_t>1 << (31 - CHUNK_BITS)):
        return False
    if i == slab.chunk_capacity and not grow_directory(slab):
        return False
    slab.addresses[i] = NULL
    slab.marks[i] = NULL
    slab.flows[i] = NULL
    slab.flow_sides[i] = NULL
    slab.origins[i] = NULL
    slab.entries[i] = <Entry*>allocate_pages(CHUNK_SLOTS * sizeof(Entry))
    if slab.entries[i] == NULL:
        return False
    if slab.with_marks:
        slab.marks[i] = <MarkLink*>allocate_pages(CHUNK_SLOTS * sizeof(MarkLink))
    if slab.with_flows:
        slab.flows[i] = <FlowRecord*>allocate_pages(CHUNK_SLOTS * sizeof(FlowRecord))
        slab.flow_sides[i] = <FlowSides*>allocate_pages(CHUNK_SLOTS * sizeof(FlowSides))
    if slab.with_origins:
        slab.origins[i] = <Origin*>allocate_pages(CHUNK_SLOTS * sizeof(Origin))
    if (slab.with_marks and slab.marks[i] == NULL) or (
        slab.with_flows and (slab.flows[i] == NULL or slab.flow_sides[i] == NULL)
    ) or (slab.with_origins and slab.origins[i] == NULL):
        free(slab.entries[i])
        free(slab.marks[i])
        free(slab.flows[i])
        free(slab.flow_sides[i])
        free(slab.origins[i])
        return False
    slab.nbytes += CHUNK_SLOTS * sizeof(Entry)
    slab.chunks += 1
    return True


cdef inline uint32_t take_slot(Slab* slab, bint ipv6) noexcept nogil:
    cdef uint32_t slot = slab.free_slots
    cdef uint32_t chunk
    if slot == NO_SLOT:
        if slab.fresh == slab.chunks << CHUNK_BITS and not add_chunk(slab):
            return NO_SLOT
        slot = slab.fresh
    chunk = slot >> CHUNK_BITS
    if ipv6 and slab.addresses[chunk] == NULL:
        slab.addresses[chunk] = <uint64_t*>allocate_pages(CHUNK_SLOTS * 32)
        if slab.addresses[chunk] == NULL:
            return NO_SLOT
        slab.nbytes += CHUNK_SLOTS * 32
    if slot == slab.free_slots:
        slab.free_slots = entry_at(slab, slot).wheel_next
    else:
        slab.fresh += 1
    return slot


cdef inline void give_slot(Slab* slab, uint32_t slot) noexcept nogil:
    cdef Entry* e = entry_at(slab, slot)
    e.kind = 0
    e.marks = 0
    e.present = 0
    e.state[0] = 0
    e.state[1] = 0
    e.wheel_next = slab.free_slots
    slab.free_slots = slot
