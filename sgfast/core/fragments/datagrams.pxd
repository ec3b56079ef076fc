# Fragmented datagrams (SPEC 9.4): all fragments get the verdict of the first one.
#
#     first fragment     is judged as a packet is; its result is kept
#     one that follows   gets that result
#     one before it      is held: its result is PENDING until the first one comes or is given up
#
# A datagram is forgotten when it is complete, or after 30 seconds. While it has held fragments, it is also forgotten
# after HELD_PACKETS packets, so that results can be written in packet order without waiting for ever. A datagram whose
# fragments overlap is spoiled: until it is forgotten, its later fragments are denied, the first fragment included. An
# exact duplicate is no overlap.
#
# All planes of a data plane share one store. Only one thread at a time uses it: with workers it is the dispatching
# thread, while the workers are idle.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sgfast.core.base.types cimport Packet, ResultRow

cdef enum:
    MAX_DATAGRAMS = 4096            # at a time
    MAX_FRAGMENTS = 1 << 16         # fragments of all datagrams
    HELD_PACKETS = 1 << 16          # packets that may be judged while a fragment is held
    MAX_RESOLVED = 1 << 20          # limit of results that were not taken
    BLOCK_WORDS = 8192 // 64        # a bitmap of 65,535 bytes, one bit per block of 8 bytes
    NO_DATAGRAM = 0xFFFFFFFF
    NO_HELD = 0xFFFFFFFF

cdef extern from *:
    """
    /* How long a first fragment may take to come, and a datagram to be complete. */
    #define SGFAST_FRAGMENT_NS ((int64_t)30 * 1000000000)
    """
    const int64_t FRAGMENT_NS "SGFAST_FRAGMENT_NS"


cdef enum:         # FragmentKind
    FRAGMENT_FIRST = 0              # to be judged
    FRAGMENT_FOLLOWS = 1            # its datagram's verdict is known
    FRAGMENT_HELD = 2
    FRAGMENT_SPOILED = 3            # its datagram is spoiled, or there is no memory
    FRAGMENT_NO_ROOM = 4            # it was not added: the oldest datagram must be given up first


cdef packed struct DatagramKey:     # 40 bytes
    uint64_t addr[4]                # as in FlowKey; unused words are 0
    uint32_t identification
    uint8_t protocol                # IPv4 only
    uint8_t ipv6
    uint8_t source_high
    uint8_t spare


# A fragment that waits for its datagram's first fragment.
cdef packed struct HeldFragment:
    uint64_t number                 # packet number
    int64_t time_ns
    uint32_t wire
    uint32_t next
    uint8_t protocol
    uint8_t wanted                  # its result is wanted


cdef struct Datagram:
    DatagramKey key
    uint64_t number                 # packet number of the earliest fragment
    int64_t deadline
    uint32_t place                  # its bucket of the index
    uint32_t chain                  # next datagram in the same bucket
    uint32_t older[2]               # by age: [0] all datagrams, [1] those that wait for their first fragment
    uint32_t newer[2]
    uint32_t held                   # its held fragments, the latest first; NO_HELD if it does not wait
    uint32_t waiting                # number of held fragments
    uint32_t fragments              # received ones; duplicates do not count
    uint32_t blocks                 # received blocks of 8 bytes
    uint32_t total                  # length in bytes; 0 until the last fragment has come
    uint32_t end                    # largest end offset received
    uint8_t known                   # the first fragment was judged: `first` and `row` are valid
    uint8_t spoiled
    uint8_t tallied                 # its denial is in the tally
    void* home                      # the Plane that judged it, and has the connection
    Packet first                    # without its quote
    ResultRow row
    uint64_t there[BLOCK_WORDS]     # one bit per block: received
    uint64_t starts[BLOCK_WORDS]    # one bit per block: a fragment begins with it


cdef packed struct ResolvedRow:     # RESOLVED_DTYPE
    uint64_t number
    ResultRow row


cdef struct Fragments:
    Datagram* datagrams             # NULL until there is a fragment
    HeldFragment* held_store
    uint32_t index[MAX_DATAGRAMS]   # by hash of the key
    uint32_t oldest[2]              # [0] of all datagrams, [1] of those that wait for their first fragment
    uint32_t newest[2]
    uint32_t free_datagrams         # linked by `chain`
    uint32_t free_held              # linked by `next`
    uint32_t fragment_count         # received or held, in all datagrams
    uint8_t wanted                  # the results of the packets being judged are wanted
    ResolvedRow* resolved
    Py_ssize_t resolved_count
    Py_ssize_t resolved_capacity


cdef void init_fragments(Fragments* f) noexcept nogil
cdef void free_fragments(Fragments* f) noexcept nogil

# The oldest datagram, if it must be given up before a packet of this time and number is judged; else NO_DATAGRAM.
cdef uint32_t overdue(const Fragments* f, int64_t now, uint64_t number) noexcept nogil
# Adds a fragment to its datagram. Returns its FragmentKind. `datagram` is set to the datagram, or NO_DATAGRAM.
cdef int add_fragment(Fragments* f, const Packet* p, int64_t now, uint64_t secret, uint32_t* datagram) noexcept nogil
cdef bint is_whole(const Datagram* d) noexcept nogil
# Takes the next held fragment out of a datagram, as a packet. False if there is none.
cdef bint take_held(Fragments* f, uint32_t datagram, Packet* p, uint8_t* wanted) noexcept nogil
# Forgets a datagram. It must have no held fragments.
cdef void forget_datagram(Fragments* f, uint32_t datagram) noexcept nogil
# Adds a datagram of a snapshot as the youngest one. False if it exists already, or if there is no room.
cdef bint restore_datagram(Fragments* f, const Datagram* saved, uint64_t secret) noexcept nogil
# Keeps a result for DataPlane.take_resolved.
cdef void note_resolved(Fragments* f, uint64_t number, const ResultRow* row) noexcept nogil
