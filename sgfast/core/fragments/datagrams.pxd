# Fragmented datagrams (SPEC 9.4): all fragments get the verdict of the first fragment.
#
#     first fragment     is judged like any packet; its result is kept
#     after the first    gets the result of the first fragment
#     before the first   is held: its result is PENDING until the first fragment arrives or is given up
#
# A datagram is forgotten when it is complete, or after 30 seconds. A datagram with held fragments is also forgotten
# after HELD_PACKETS packets, so that results can be written in packet order without waiting for ever. A datagram whose
# fragments overlap is spoiled: until it is forgotten, its later fragments are denied, even the first fragment. An exact
# duplicate is no overlap.
#
# All planes of a data plane share one store. Only one thread at a time uses the store: with several workers, the thread
# that judges a block with fragments, while all planes wait for it (workers.pxd).

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.intrinsics cimport ctz64, fold
from sgfast.core.base.types cimport NO_SLOT, READ_STRAY, Packet, ResultRow

cdef enum:
    MAX_DATAGRAMS = 4096            # limit of datagrams at a time
    MAX_FRAGMENTS = 1 << 16         # fragments of all datagrams
    HELD_PACKETS = 1 << 16          # packets that may be judged while a fragment is held
    MAX_RESOLVED = 1 << 20          # limit of results that wait for take_resolved
    BLOCKS = 8192                   # blocks of 8 bytes in 65,535 bytes; also "no such block"
    BLOCK_WORDS = 128               # words of 64 bits with a bit for each block
    USED_WORDS = 2                  # words with a bit for each of the BLOCK_WORDS
    NO_DATAGRAM = 0xFFFFFFFF
    NO_HELD = 0xFFFFFFFF

cdef extern from *:
    """
    /* The time in which the first fragment must arrive, and the datagram must be complete. */
    #define SGFAST_FRAGMENT_NS ((int64_t)30 * 1000000000)
    """
    const int64_t FRAGMENT_NS "SGFAST_FRAGMENT_NS"


cdef enum:          # FragmentKind
    FRAGMENT_FIRST = 0              # the fragment must be judged
    FRAGMENT_FOLLOWS = 1            # the verdict of the datagram is known
    FRAGMENT_HELD = 2
    FRAGMENT_SPOILED = 3            # the datagram is spoiled, or there is no memory
    FRAGMENT_NO_ROOM = 4            # not added: the oldest datagram must be given up first


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
    uint8_t wanted                  # the caller wants the fragment's result


# A set of blocks, one bit each. A word is valid only if its bit in `used` is set. So the time to clear a set, and to
# find the next block in it, does not depend on the length that fragments claim.
cdef struct BlockSet:
    uint64_t used[USED_WORDS]
    uint64_t words[BLOCK_WORDS]


cdef struct Datagram:
    DatagramKey key
    uint64_t number                 # packet number of the earliest fragment
    int64_t deadline
    uint32_t place                  # bucket of the key in the index
    uint32_t chain                  # next datagram in the same bucket
    uint32_t older[2]               # by age: [0] all datagrams, [1] datagrams that wait for their first fragment
    uint32_t newer[2]
    uint32_t held                   # its held fragments, the latest first; NO_HELD if there are none
    uint32_t waiting                # number of held fragments
    uint32_t fragments              # fragments received; duplicates do not count
    uint32_t blocks                 # blocks of 8 bytes received
    uint32_t total                  # length in bytes; 0 until the last fragment has come
    uint32_t end                    # largest end offset received
    uint8_t known                   # the first fragment was judged: `first` and `row` are valid
    uint8_t spoiled
    uint8_t tallied                 # the denial of the first fragment is in the tally
    void* home                      # the Plane that judged the first fragment, and has the connection
    Packet first                    # the first fragment, without the quoted packet
    ResultRow row
    BlockSet starts                 # the first block of each fragment
    BlockSet ends                   # the last block of each fragment


cdef packed struct ResolvedRow:     # RESOLVED_DTYPE
    uint64_t number
    ResultRow row


cdef struct Fragments:
    Datagram* datagrams             # NULL until there is a fragment
    HeldFragment* held_store
    uint32_t index[MAX_DATAGRAMS]   # by hash of the key
    uint32_t oldest[2]              # [0] of all datagrams, [1] of the datagrams that wait for their first fragment
    uint32_t newest[2]
    uint32_t free_datagrams         # linked by `chain`
    uint32_t free_held              # linked by `next`
    uint32_t fragment_count         # received or held, in all datagrams
    uint8_t wanted                  # the results of the packets being judged are wanted
    ResolvedRow* resolved
    Py_ssize_t resolved_count
    Py_ssize_t resolved_capacity

cdef enum:          # lists
    ALL_DATAGRAMS = 0
    WAITING_DATAGRAMS = 1


cdef inline void init_fragments(Fragments* f) noexcept nogil:
    memset(f, 0, sizeof(Fragments))
    memset(f.index, 0xFF, sizeof(f.index))
    memset(f.oldest, 0xFF, sizeof(f.oldest))
    memset(f.newest, 0xFF, sizeof(f.newest))


cdef inline void free_fragments(Fragments* f) noexcept nogil:
    free(f.datagrams)
    free(f.held_store)
    free(f.resolved)


cdef inline bint make_store(Fragments* f) noexcept nogil:
    # Allocates the store, some 11 MiB, when the first fragment arrives. Returns False if there is no memory.
    cdef uint32_t i
    f.datagrams = <Datagram*>calloc(MAX_DATAGRAMS, sizeof(Datagram))
    f.held_store = <HeldFragment*>malloc(MAX_FRAGMENTS * sizeof(HeldFragment))
    if f.datagrams == NULL or f.held_store == NULL:
        free(f.datagrams)
        free(f.held_store)
        f.datagrams = NULL
        f.held_store = NULL
        return False
    for i in range(MAX_DATAGRAMS):
        f.datagrams[i].chain = i + 1 if i + 1 < MAX_DATAGRAMS else <uint32_t>NO_DATAGRAM
    for i in range(MAX_FRAGMENTS):
        f.held_store[i].next = i + 1 if i + 1 < MAX_FRAGMENTS else <uint32_t>NO_HELD
    f.free_datagrams = 0
    f.free_held = 0
    return True


cdef inline void fill_datagram_key(const Packet* p, DatagramKey* key) noexcept nogil:
    memset(key, 0, sizeof(DatagramKey))
    memcpy(key.addr, p.key.addr, 32 if p.ipv6 else 8)
    key.identification = p.fragment_id
    key.protocol = 0 if p.ipv6 else p.protocol      # IPv6: may differ between fragments of one datagram
    key.ipv6 = p.ipv6
    key.source_high = p.source_high


cdef inline uint32_t place_of(const DatagramKey* key, uint64_t secret) noexcept nogil:
    cdef uint64_t h = fold(key.addr[0] ^ secret, key.addr[1] ^ (<uint64_t>key.identification << 32 | 1))
    h = fold(h ^ key.addr[2], key.addr[3] ^ (secret | 1))
    return <uint32_t>(fold(h ^ key.source_high, secret ^ key.protocol) & (MAX_DATAGRAMS - 1))


cdef inline uint32_t overdue(const Fragments* f, int64_t now, uint64_t number) noexcept nogil:
    # Returns the oldest datagram if it must be given up before a packet of this time and number is judged, or else
    # NO_DATAGRAM. Engine time never runs backwards, so the oldest datagram has the earliest deadline.
    cdef uint32_t at = f.oldest[ALL_DATAGRAMS]
    if at != NO_DATAGRAM and now >= f.datagrams[at].deadline:
        return at
    at = f.oldest[WAITING_DATAGRAMS]
    if at != NO_DATAGRAM and number - f.datagrams[at].number > HELD_PACKETS:
        return at
    return NO_DATAGRAM


cdef inline bint is_whole(const Datagram* d) noexcept nogil:
    return d.total != 0 and not d.spoiled and d.blocks == (d.total + 7) // 8


cdef inline void join_list(Fragments* f, int which, uint32_t at) noexcept nogil:
    cdef Datagram* d = &f.datagrams[at]
    d.newer[which] = NO_DATAGRAM
    d.older[which] = f.newest[which]
    if f.newest[which] == NO_DATAGRAM:
        f.oldest[which] = at
    else:
        f.datagrams[f.newest[which]].newer[which] = at
    f.newest[which] = at


cdef inline void leave_list(Fragments* f, int which, uint32_t at) noexcept nogil:
    cdef Datagram* d = &f.datagrams[at]
    if d.older[which] == NO_DATAGRAM:
        f.oldest[which] = d.newer[which]
    else:
        f.datagrams[d.older[which]].newer[which] = d.newer[which]
    if d.newer[which] == NO_DATAGRAM:
        f.newest[which] = d.older[which]
    else:
        f.datagrams[d.newer[which]].older[which] = d.older[which]


cdef inline uint32_t find_datagram(const Fragments* f, const DatagramKey* key, uint64_t secret) noexcept nogil:
    cdef uint32_t at = f.index[place_of(key, secret)]
    while at != NO_DATAGRAM and memcmp(&f.datagrams[at].key, key, sizeof(DatagramKey)) != 0:
        at = f.datagrams[at].chain
    return at


cdef inline void clear_blocks(BlockSet* blocks) noexcept nogil:
    memset(blocks.used, 0, sizeof(blocks.used))


cdef inline void add_block(BlockSet* blocks, uint32_t n) noexcept nogil:
    cdef uint32_t word = n >> 6
    cdef uint64_t bit = <uint64_t>1 << (word & 63)
    if not blocks.used[word >> 6] & bit:
        blocks.used[word >> 6] |= bit
        blocks.words[word] = 0
    blocks.words[word] |= <uint64_t>1 << (n & 63)


cdef inline uint32_t next_block(const BlockSet* blocks, uint32_t n) noexcept nogil:
    # Returns the first block of the set from `n` on, or BLOCKS if there is none.
    cdef uint32_t word = n >> 6
    cdef uint32_t at = word >> 6
    cdef uint64_t bits
    if blocks.used[at] >> (word & 63) & 1:
        bits = blocks.words[word] >> (n & 63)
        if bits:
            return n + <uint32_t>ctz64(bits)
    # The block may be in a later word. There are two shifts, as a shift by 64 is undefined.
    bits = blocks.used[at] >> (word & 63) >> 1 << 1 << (word & 63)
    while not bits:
        at += 1
        if at == USED_WORDS:
            return BLOCKS
        bits = blocks.used[at]
    word = at * 64 + <uint32_t>ctz64(bits)
    return word * 64 + <uint32_t>ctz64(blocks.words[word])


cdef inline uint32_t last_block(const Packet* p) noexcept nogil:
    return (p.fragment_end - 1) // 8


cdef inline uint32_t make_datagram(
    Fragments* f, const DatagramKey* key, uint64_t number, int64_t deadline, uint64_t secret
) noexcept nogil:
    cdef uint32_t place = place_of(key, secret)
    cdef uint32_t at
    cdef Datagram* d
    if f.datagrams == NULL and not make_store(f):
        return NO_DATAGRAM
    at = f.free_datagrams
    if at == NO_DATAGRAM:
        return NO_DATAGRAM
    d = &f.datagrams[at]
    f.free_datagrams = d.chain
    # Clears all fields but the words of the block sets.
    memset(d, 0, <size_t>(<uint8_t*>&d.starts - <uint8_t*>d))
    clear_blocks(&d.starts)
    clear_blocks(&d.ends)
    d.key = key[0]
    d.number = number
    d.deadline = deadline
    d.held = NO_HELD
    d.place = place
    d.chain = f.index[place]
    f.index[place] = at
    join_list(f, ALL_DATAGRAMS, at)
    return at


cdef inline bint is_there(const Datagram* d, const Packet* p) noexcept nogil:
    # Whether exactly this fragment was received before.
    cdef uint32_t first = p.fragment_start // 8
    if p.fragment_last != (p.fragment_end == d.total):
        return False
    if d.total and p.fragment_end > d.total:
        return False        # within the last block, but beyond the end
    return next_block(&d.starts, first) == first and next_block(&d.ends, first) == last_block(p)


cdef inline bint fits(const Datagram* d, const Packet* p) noexcept nogil:
    cdef uint32_t first = p.fragment_start // 8
    cdef uint32_t next_start
    if d.total and (p.fragment_last or p.fragment_end > d.total):
        return False
    if p.fragment_last and d.end > p.fragment_end:
        return False
    # No received fragment begins within this one, and no fragment that began earlier ends within or behind it.
    next_start = next_block(&d.starts, first)
    return next_start > last_block(p) and next_block(&d.ends, first) >= next_start


cdef inline void put_in(Datagram* d, const Packet* p) noexcept nogil:
    cdef uint32_t first = p.fragment_start // 8
    add_block(&d.starts, first)
    add_block(&d.ends, last_block(p))
    d.blocks += last_block(p) - first + 1
    d.end = max(d.end, p.fragment_end)
    if p.fragment_last:
        d.total = p.fragment_end


cdef inline uint32_t held_of(const Datagram* d) noexcept nogil:
    # Returns the number of fragments that a datagram counts against MAX_FRAGMENTS.
    return max(d.fragments, d.waiting)


cdef inline void hold(Fragments* f, uint32_t datagram, const Packet* p) noexcept nogil:
    cdef Datagram* d = &f.datagrams[datagram]
    cdef uint32_t at = f.free_held
    cdef HeldFragment* fragment = &f.held_store[at]
    if d.held == NO_HELD:
        join_list(f, WAITING_DATAGRAMS, datagram)
    f.free_held = fragment.next
    fragment.number = p.number
    fragment.time_ns = p.time_ns
    fragment.wire = p.wire
    fragment.protocol = p.protocol
    fragment.wanted = f.wanted
    fragment.next = d.held
    d.held = at
    d.waiting += 1


cdef inline int add_fragment(
    Fragments* f, const Packet* p, int64_t now, uint64_t secret, uint32_t* datagram
) noexcept nogil:
    # Adds a fragment to its datagram, and sets `datagram` to that or to NO_DATAGRAM. Returns the FragmentKind.
    cdef DatagramKey key
    cdef Datagram* d
    cdef uint32_t at
    cdef bint is_copy = False
    datagram[0] = NO_DATAGRAM
    if f.datagrams == NULL and not make_store(f):
        return FRAGMENT_SPOILED
    fill_datagram_key(p, &key)
    at = find_datagram(f, &key, secret)
    if at != NO_DATAGRAM:
        datagram[0] = at
        d = &f.datagrams[at]
        is_copy = not d.spoiled and is_there(d, p)
        if not d.spoiled and not is_copy and not fits(d, p):
            d.spoiled = True
            f.fragment_count -= held_of(d)
            d.fragments = 0
            d.blocks = 0
            d.total = 0
            d.end = 0
            clear_blocks(&d.starts)
            clear_blocks(&d.ends)
        if d.spoiled:
            return FRAGMENT_SPOILED
        if is_copy and d.known:
            return FRAGMENT_FOLLOWS
    if f.fragment_count >= MAX_FRAGMENTS or (at == NO_DATAGRAM and f.free_datagrams == NO_DATAGRAM):
        return FRAGMENT_NO_ROOM
    if at == NO_DATAGRAM:
        at = make_datagram(f, &key, p.number, now + FRAGMENT_NS, secret)
        datagram[0] = at
    d = &f.datagrams[at]
    f.fragment_count -= held_of(d)
    if not is_copy:
        put_in(d, p)
        d.fragments += 1
    if p.fragment_start != 0 and not d.known:
        hold(f, at, p)
    f.fragment_count += held_of(d)
    return FRAGMENT_FOLLOWS if d.known else FRAGMENT_HELD if p.fragment_start else FRAGMENT_FIRST


cdef inline bint take_held(Fragments* f, uint32_t datagram, Packet* p, uint8_t* wanted) noexcept nogil:
    # Takes the next held fragment out of a datagram, as a packet. Returns False if there is none.
    cdef Datagram* d = &f.datagrams[datagram]
    cdef uint32_t at = d.held
    cdef HeldFragment* held_fragment
    if at == NO_HELD:
        return False
    held_fragment = &f.held_store[at]
    memset(p, 0, sizeof(Packet))
    p.hint = NO_SLOT
    p.parse_result = READ_STRAY
    memcpy(p.key.addr, d.key.addr, sizeof(p.key.addr))
    p.ipv6 = d.key.ipv6
    p.source_high = d.key.source_high
    p.protocol = held_fragment.protocol
    p.number = held_fragment.number
    p.count = 1
    p.time_ns = held_fragment.time_ns
    p.wire = held_fragment.wire
    wanted[0] = held_fragment.wanted
    if not d.spoiled:
        f.fragment_count -= held_of(d)
    d.waiting -= 1
    if not d.spoiled:
        f.fragment_count += held_of(d)
    d.held = held_fragment.next
    held_fragment.next = f.free_held
    f.free_held = at
    if d.held == NO_HELD:
        leave_list(f, WAITING_DATAGRAMS, datagram)
    return True


cdef inline void forget_datagram(Fragments* f, uint32_t datagram) noexcept nogil:
    # Forgets a datagram, which must have no held fragments.
    cdef Datagram* d = &f.datagrams[datagram]
    cdef uint32_t* link = &f.index[d.place]
    while link[0] != datagram:
        link = &f.datagrams[link[0]].chain
    link[0] = d.chain
    leave_list(f, ALL_DATAGRAMS, datagram)
    f.fragment_count -= held_of(d)
    d.chain = f.free_datagrams
    f.free_datagrams = datagram


cdef inline bint restore_datagram(Fragments* f, const Datagram* saved, uint64_t secret) noexcept nogil:
    # Adds a datagram of a snapshot as the youngest one. Returns False if it exists already, or if there is no room.
    cdef uint32_t at
    cdef Datagram* d
    if find_datagram(f, &saved.key, secret) != NO_DATAGRAM:
        return False
    at = make_datagram(f, &saved.key, saved.number, saved.deadline, secret)
    if at == NO_DATAGRAM:
        return False
    d = &f.datagrams[at]
    d.blocks = saved.blocks
    d.starts = saved.starts
    d.ends = saved.ends
    d.fragments = saved.fragments
    f.fragment_count += d.fragments
    d.total = saved.total
    d.end = saved.end
    d.known = saved.known
    d.spoiled = saved.spoiled
    d.tallied = saved.tallied
    d.home = saved.home
    d.first = saved.first
    d.row = saved.row
    return True


cdef inline void note_resolved(Fragments* f, uint64_t number, const ResultRow* row) noexcept nogil:
    # Keeps a result for DataPlane.take_resolved. Beyond MAX_RESOLVED kept results, further results are lost.
    cdef ResolvedRow* rows
    cdef Py_ssize_t capacity
    if f.resolved_count == MAX_RESOLVED:
        return
    if f.resolved_count == f.resolved_capacity:
        capacity = max(2 * f.resolved_capacity, <Py_ssize_t>256)
        rows = <ResolvedRow*>realloc(f.resolved, capacity * sizeof(ResolvedRow))
        if rows == NULL:
            return
        f.resolved = rows
        f.resolved_capacity = capacity
    f.resolved[f.resolved_count].number = number
    f.resolved[f.resolved_count].row = row[0]
    f.resolved_count += 1
