# Datagrams that came in fragments (SPEC 9.4): what became of the first fragment becomes of the others.
#
#     first fragment     is judged as a packet is; its result is kept
#     one that follows   gets that result
#     one before it      is held: its result is PENDING until the first one comes, or nobody waits any more
#
# A datagram is forgotten once all of it came, or after 30 seconds; while fragments are held, also after some number of
# packets, so that whoever writes results in packet order has an end of waiting. One whose fragments overlap is spoiled:
# what comes of it until then is denied, the first fragment included; a fragment that came before is no overlap.
#
# All of a data plane's planes share one store. It is touched by one thread at a time: with workers by whoever deals
# out, when they have nothing to do.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sgfast.core.base.types cimport Packet, ResultRow

cdef enum:
    MAX_DATAGRAMS = 4096            # at once
    MAX_FRAGMENTS = 1 << 16            # fragments of all of them
    HELD_PACKETS = 1 << 16          # that may be judged while a fragment is held
    MAX_RESOLVED = 1 << 20          # results that nobody took
    BLOCK_WORDS = 8192 // 64        # a datagram of 65,535 bytes, in bits of 8 bytes each
    NO_DATAGRAM = 0xFFFFFFFF
    NO_HELD = 0xFFFFFFFF

cdef extern from *:
    """
    /* How long a first fragment may take, and a datagram in all. */
    #define SGFAST_FRAGMENT_NS ((int64_t)30 * 1000000000)
    """
    const int64_t FRAGMENT_NS "SGFAST_FRAGMENT_NS"


cdef enum:         # FragmentKind
    FRAGMENT_FIRST = 0                 # to be judged
    FRAGMENT_FOLLOWS = 1               # its datagram's verdict is known
    FRAGMENT_HELD = 2
    FRAGMENT_SPOILED = 3               # of an overlap, or there is no memory
    FRAGMENT_NO_ROOM = 4               # it was not put in: the oldest datagram has to go first


cdef packed struct DatagramKey:     # 40 bytes
    uint64_t addr[4]                # as in FlowKey; words that are not used are 0
    uint32_t identification
    uint8_t protocol                # IPv4
    uint8_t ipv6
    uint8_t source_high
    uint8_t spare


# A fragment that waits for its datagram's first one.
cdef packed struct HeldFragment:
    uint64_t number                 # of the packet
    int64_t time_ns
    uint32_t wire
    uint32_t next
    uint8_t protocol
    uint8_t wanted                  # whoever gave it wants its result


cdef struct Datagram:
    DatagramKey key
    uint64_t number                 # of the earliest fragment
    int64_t deadline
    uint32_t place                  # in the index
    uint32_t chain                  # next of the same place
    uint32_t older[2]               # of all datagrams, and of those that wait
    uint32_t newer[2]
    uint32_t held                   # its held fragments, the latest first; NO_HELD: it does not wait
    uint32_t waiting                # how many those are
    uint32_t fragments               # that are there, copies of one being one
    uint32_t blocks                 # of 8 bytes, that are there
    uint32_t total                  # bytes; 0: the last fragment has not come
    uint32_t end                    # of what is there
    uint8_t known                   # `first` and `row` are what is known of the first fragment
    uint8_t spoiled
    uint8_t tallied                 # its denial is on the list of denials
    void* home                      # the Plane that judged it, and has the connection
    Packet first                    # without its quote
    ResultRow row
    uint64_t there[BLOCK_WORDS]     # a bit a block
    uint64_t starts[BLOCK_WORDS]    # those that a fragment begins with


cdef packed struct ResolvedRow:     # RESOLVED_DTYPE
    uint64_t number
    ResultRow row


cdef struct Fragments:
    Datagram* datagrams             # NULL until there is a fragment
    HeldFragment* held_store
    uint32_t index[MAX_DATAGRAMS]   # by hash of the key
    uint32_t oldest[2]              # by age: of all datagrams, and of those that wait for their first fragment
    uint32_t newest[2]
    uint32_t free_datagrams         # linked by `chain`
    uint32_t free_held              # linked by `next`
    uint32_t fragment_count         # of all datagrams: that are there, or held
    uint8_t wanted                  # results of what is judged now
    ResolvedRow* resolved
    Py_ssize_t resolved_count
    Py_ssize_t resolved_capacity


cdef void init_fragments(Fragments* f) noexcept nogil
cdef void free_fragments(Fragments* f) noexcept nogil

# The oldest datagram, if it has to go before a packet of this time and number is looked at; else NO_DATAGRAM.
cdef uint32_t overdue(const Fragments* f, int64_t now, uint64_t number) noexcept nogil
# A place for a fragment. `datagram`: gets whose it is, or NO_DATAGRAM.
cdef int add_fragment(Fragments* f, const Packet* p, int64_t now, uint64_t secret, uint32_t* datagram) noexcept nogil
cdef bint is_whole(const Datagram* d) noexcept nogil
# Takes the next held fragment out of a datagram, as a packet; False: there is none.
cdef bint take_held(Fragments* f, uint32_t datagram, Packet* p, uint8_t* wanted) noexcept nogil
# Held fragments must have been taken before.
cdef void forget_datagram(Fragments* f, uint32_t datagram) noexcept nogil
# One of a snapshot, younger than those that are there; False: it is there, or has no place.
cdef bint restore_datagram(Fragments* f, const Datagram* saved, uint64_t secret) noexcept nogil
cdef void note_resolved(Fragments* f, uint64_t number, const ResultRow* row) noexcept nogil
