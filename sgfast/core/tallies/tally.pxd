# Counts packets and connections by instance, peer, service, reason and rule, for the report: a small hash table with a
# fixed capacity, which never loses a count. A kind that finds no room is counted without its peer, and if there is no
# room for that either, without instance, service and rule.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.intrinsics cimport fold, prefetch

cdef enum:
    TALLY_KINDS = 1 << 16       # more kinds than a person reads
    TALLY_PEERLESS = 3 << 15    # room for kinds without a peer: up to this many rows
    # All others fit: 256 protocols, REASON_COUNT reasons and two directions.
    TALLY_MOST = 7 << 14
    TALLY_INDEX = 1 << 18
    # A place of the index: the row's number and one, and above it bits of the key's hash. 0 is a free place.
    TALLY_ROW_BITS = 17
    TALLY_KEY_BYTES = 32        # the leading bytes of a TallyRow, which are its key
    TALLY_KEY_WORDS = 4


cdef packed struct TallyRow:
    uint8_t peer[16]            # network byte order; IPv4 in the first four bytes
    int32_t instance            # whose filter judged; -1 if that is not told
    uint16_t port_key           # destination port, or ICMP type << 8 | code
    uint8_t protocol
    uint8_t reason
    uint8_t inbound
    uint8_t family              # 0: the peer is not told
    uint8_t has_ports
    uint8_t has_icmp
    int32_t rule                # that decided; -1 if none did
    uint64_t packets
    uint64_t connections
    uint64_t bytes
    int64_t first_ns            # earliest and latest timestamp of its packets
    int64_t last_ns
    uint64_t number             # 1-based number of the first packet; 0 if that is not known


cdef struct Tally:
    TallyRow* rows              # in the order in which they were first used; they never move
    uint32_t* index             # by hash; most look-ups that find nothing read nothing else
    uint32_t count
    uint64_t secret
    uint64_t lost               # packets and connections that are not counted, for lack of memory


cdef inline void init_tally(Tally* tally, uint64_t secret) noexcept nogil:
    tally.rows = NULL           # allocated with the first packet: many engines never deny anything
    tally.index = NULL
    tally.count = 0
    tally.secret = secret | 1
    tally.lost = 0


cdef inline void free_tally(Tally* tally) noexcept nogil:
    free(tally.rows)
    free(tally.index)
    tally.rows = NULL
    tally.index = NULL


cdef inline uint64_t key_hash(const Tally* tally, const TallyRow* key) noexcept nogil:
    cdef uint64_t words[TALLY_KEY_WORDS]
    cdef uint64_t h
    memcpy(words, key, TALLY_KEY_BYTES)
    h = fold(words[0] ^ tally.secret, words[1] ^ (tally.secret >> 7))
    return fold(h ^ words[2], words[3] ^ tally.secret)


cdef inline TallyRow* row_at(const Tally* tally, uint32_t place) noexcept nogil:
    # The row of a place in the index that is not free.
    return &tally.rows[(place & ((1 << TALLY_ROW_BITS) - 1)) - 1]


cdef inline TallyRow* find_kind(Tally* tally, const TallyRow* key, uint64_t h, uint32_t most) noexcept nogil:
    # Finds the row of a key with the hash `h`, or makes it if there are fewer than `most`. NULL otherwise.
    cdef uint32_t tag = <uint32_t>(h >> 32) & ~<uint32_t>((1 << TALLY_ROW_BITS) - 1)
    cdef uint32_t at = <uint32_t>h & (TALLY_INDEX - 1)
    cdef uint32_t place = tally.index[at]
    cdef TallyRow* row
    while place:
        if place >> TALLY_ROW_BITS == tag >> TALLY_ROW_BITS:
            row = row_at(tally, place)
            if memcmp(row, key, TALLY_KEY_BYTES) == 0:
                return row
        at = (at + 1) & (TALLY_INDEX - 1)
        place = tally.index[at]
    if tally.count >= most:
        return NULL
    row = &tally.rows[tally.count]
    tally.count += 1
    tally.index[at] = tag | tally.count
    memcpy(row, key, TALLY_KEY_BYTES)
    return row


cdef enum:
    TALLY_LEVELS = 3


cdef inline uint32_t most_rows(int level) noexcept nogil:
    # How many rows there may be when one of this level is made.
    return TALLY_KINDS if level == 0 else TALLY_PEERLESS if level == 1 else TALLY_MOST


cdef inline void coarsen(TallyRow* key, int level) noexcept nogil:
    # Makes a key of a level one of the next level.
    if level == 0:
        memset(key.peer, 0, sizeof(key.peer))
        key.family = 0
    else:
        key.instance = -1
        key.port_key = 0
        key.has_ports = 0
        key.has_icmp = 0
        key.rule = -1


cdef inline bint have_rows(Tally* tally) noexcept nogil:
    # False for lack of memory.
    if tally.rows == NULL:
        tally.rows = <TallyRow*>calloc(TALLY_MOST, sizeof(TallyRow))
        tally.index = <uint32_t*>calloc(TALLY_INDEX, sizeof(uint32_t))
        if tally.rows == NULL or tally.index == NULL:
            free_tally(tally)
            return False
    return True


cdef inline void note_times(TallyRow* row, int64_t first_ns, int64_t last_ns, uint64_t number) noexcept nogil:
    if row.packets == 0 and row.connections == 0:
        row.first_ns = first_ns
        row.last_ns = last_ns
        row.number = number
        return
    # Timestamps may run backwards, and fragments are counted when their verdict is known.
    row.first_ns = min(row.first_ns, first_ns)
    row.last_ns = max(row.last_ns, last_ns)
    row.number = min(row.number, number)


cdef inline void add_to(TallyRow* row, const TallyRow* more) noexcept nogil:
    note_times(row, more.first_ns, more.last_ns, more.number)
    row.packets += more.packets
    row.connections += more.connections
    row.bytes += more.bytes


cdef inline bint add_row(Tally* tally, const TallyRow* more) noexcept nogil:
    # Adds a row of another tally with its counters. False for lack of memory, or if nothing was counted in it.
    cdef TallyRow key = more[0]
    cdef TallyRow* row
    cdef int level
    if (more.packets == 0 and more.connections == 0) or not have_rows(tally):
        return False
    for level in range(TALLY_LEVELS):
        row = find_kind(tally, &key, key_hash(tally, &key), most_rows(level))
        if row != NULL:
            add_to(row, more)
            return True
        coarsen(&key, level)
    return False


# Each row that counts something is a cache miss, and so is its place in the index. What is to be counted therefore
# waits in a queue, so that the misses overlap.

cdef enum:
    QUEUED_ROWS = 32


cdef struct TallyQueue:
    TallyRow rows[QUEUED_ROWS]
    Tally* tallies[QUEUED_ROWS]     # where each row counts
    int count


cdef inline void keep_queued(TallyQueue* queue, int n, int to) noexcept nogil:
    if n != to:
        queue.rows[to] = queue.rows[n]
        queue.tallies[to] = queue.tallies[n]


cdef inline void prefetch_queued(const TallyQueue* queue, uint64_t* hashes) noexcept nogil:
    # Fills `hashes`, and prefetches where the rows are likely to be.
    cdef const Tally* tally
    cdef const TallyRow* row
    cdef uint32_t place
    cdef int n
    for n in range(queue.count):
        tally = queue.tallies[n]
        hashes[n] = key_hash(tally, &queue.rows[n])
        prefetch(&tally.index[hashes[n] & (TALLY_INDEX - 1)])
    for n in range(queue.count):
        tally = queue.tallies[n]
        place = tally.index[hashes[n] & (TALLY_INDEX - 1)]
        if place:
            row = row_at(tally, place)
            prefetch(row)
            prefetch(&row.number)       # a row may be in two cache lines


cdef inline void count_queued(TallyQueue* queue) noexcept nogil:
    cdef uint64_t hashes[QUEUED_ROWS]
    cdef TallyRow* row
    cdef int level, n, left
    for level in range(TALLY_LEVELS):
        prefetch_queued(queue, hashes)
        left = 0
        for n in range(queue.count):
            row = find_kind(queue.tallies[n], &queue.rows[n], hashes[n], most_rows(level))
            if row != NULL:
                add_to(row, &queue.rows[n])
            else:
                coarsen(&queue.rows[n], level)
                keep_queued(queue, n, left)
                left += 1
        queue.count = left
    # There is room for all kinds of the last level. Nothing may stay in the queue, even so.
    for n in range(queue.count):
        queue.tallies[n].lost += 1
    queue.count = 0


cdef inline TallyRow* queue_row(TallyQueue* queue, Tally* tally) noexcept nogil:
    # A row for the caller to fill with one packet or one connection. It may be changed until the next one is queued.
    cdef TallyRow* row
    if queue.count == QUEUED_ROWS:
        count_queued(queue)
    row = &queue.rows[queue.count]
    if have_rows(tally):
        queue.tallies[queue.count] = tally
        queue.count += 1
    else:
        tally.lost += 1             # the row is not counted
    memset(row, 0, sizeof(TallyRow))
    return row
