# Counts packets and connections by instance, peer, service, reason and rule, for the report: a small hash table with a
# fixed capacity, which never loses a count. A kind that finds no room is counted without its peer, and if there is no
# room for that either, without instance, service and rule.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.bucket cimport Bucket, match_tag, put_in_bucket
from sgfast.core.base.intrinsics cimport ctz32, fold, likely, prefetch, unlikely
from sgfast.core.base.memory cimport map_lazily, unmap_pages

cdef enum:
    TALLY_KINDS = 1 << 16       # more kinds than a person reads
    TALLY_PEERLESS = 3 << 15    # room for kinds without a peer: up to this many rows
    # All others fit: 256 protocols, REASON_COUNT reasons and two directions.
    TALLY_MOST = 7 << 14
    TALLY_BUCKETS = 1 << 14     # of the index, which has 196,608 places for all of them
    TALLY_KEY_BYTES = 32        # the leading bytes of a TallyRow, which are its key


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
    Bucket* index               # most look-ups that find nothing read nothing else
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
    unmap_pages(tally.rows, TALLY_MOST * sizeof(TallyRow))
    unmap_pages(tally.index, TALLY_BUCKETS * sizeof(Bucket))
    tally.rows = NULL
    tally.index = NULL


# The key of a row as four words. They stay in registers while the key is coarsened, hashed and compared. The processor
# would have to wait if it loaded a word right after it had written single bytes of it.
cdef struct TallyKey:
    uint64_t peer[2]
    uint64_t service            # instance, port_key, protocol, reason, from the lowest bits on
    uint64_t rest               # inbound, family, has_ports, has_icmp, rule


cdef inline uint32_t key_hash(const Tally* tally, const TallyKey* key) noexcept nogil:
    cdef uint64_t h = fold(key.peer[0] ^ tally.secret, key.peer[1] ^ (tally.secret >> 7))
    h = fold(h ^ key.service, key.rest ^ tally.secret)
    return <uint32_t>(h ^ (h >> 32))


cdef enum:
    TALLY_LEVELS = 3


cdef inline uint32_t most_rows(int level) noexcept nogil:
    # How many rows there may be when one of this level is made.
    return TALLY_KINDS if level == 0 else TALLY_PEERLESS if level == 1 else TALLY_MOST


cdef inline void coarsen(TallyKey* key, int level) noexcept nogil:
    # Makes a key of a level one of the next level.
    if level == 0:
        key.peer[0] = 0
        key.peer[1] = 0
        key.rest = key.rest & <uint64_t>0xFFFFFFFFFFFF00FF      # no family
    else:
        key.service = key.service & <uint64_t>0xFFFF000000000000 | <uint32_t>0xFFFFFFFF     # no instance and no port
        key.rest = key.rest & 0xFF | <uint64_t>0xFFFFFFFF00000000


cdef inline Bucket* bucket_of(const Tally* tally, uint32_t h) noexcept nogil:
    return &tally.index[h & (TALLY_BUCKETS - 1)]


cdef inline TallyRow* find_kind(Tally* tally, const TallyKey* key, uint32_t h, uint32_t most) noexcept nogil:
    # Finds the row of a key with the hash `h`, or makes it if there are fewer than `most`. NULL otherwise.
    cdef uint32_t _tries, mask
    cdef uint32_t at = h
    cdef const Bucket* bucket
    cdef TallyRow* row
    for _tries in range(TALLY_BUCKETS):
        bucket = bucket_of(tally, at)
        mask = match_tag(bucket, h)
        while unlikely(mask != 0):
            row = &tally.rows[bucket.slots[ctz32(mask)]]
            if memcmp(row, key, TALLY_KEY_BYTES) == 0:
                return row
            mask &= mask - 1
        if likely(bucket.overflow == 0):
            break
        at += 1
    if tally.count >= most:
        return NULL
    row = &tally.rows[tally.count]
    put_in_bucket(tally.index, TALLY_BUCKETS - 1, h, tally.count)
    tally.count += 1
    memcpy(row, key, TALLY_KEY_BYTES)
    return row


cdef inline bint have_rows(Tally* tally) noexcept nogil:
    # False for lack of memory.
    if tally.rows == NULL:
        tally.rows = <TallyRow*>map_lazily(TALLY_MOST * sizeof(TallyRow))
        tally.index = <Bucket*>map_lazily(TALLY_BUCKETS * sizeof(Bucket))
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
    cdef TallyKey key
    cdef TallyRow* row
    cdef int level
    memcpy(&key, more, TALLY_KEY_BYTES)
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


cdef inline void prefetch_kind(const Tally* tally, uint32_t h) noexcept nogil:
    # Prefetches the first row whose tag matches the hash `h`. Call it when the bucket has been prefetched.
    cdef const Bucket* bucket = bucket_of(tally, h)
    cdef uint32_t mask = match_tag(bucket, h)
    cdef const TallyRow* row
    if mask:
        row = &tally.rows[bucket.slots[ctz32(mask)]]
        prefetch(row)
        prefetch(&row.number)       # a row may be in two cache lines


cdef inline void count_row(
    Tally* tally, const TallyRow* more, TallyKey* key, uint32_t h, uint32_t peerless
) noexcept nogil:
    # `h`: the hash of the key; `peerless`: its hash without the peer, or 0 if that is not known yet.
    cdef TallyRow* row
    cdef int level
    for level in range(TALLY_LEVELS):
        row = find_kind(tally, key, h, most_rows(level))
        if row != NULL:
            add_to(row, more)
            return
        coarsen(key, level)
        h = peerless if level == 0 and peerless else key_hash(tally, key)
    # There is room for all kinds of the last level. Nothing may stay in the queue, even so.
    tally.lost += 1


cdef inline void count_queued(TallyQueue* queue) noexcept nogil:
    cdef uint32_t hashes[QUEUED_ROWS]
    cdef uint32_t peerless[QUEUED_ROWS]
    cdef const Tally* tally
    cdef TallyKey key
    cdef int n
    for n in range(queue.count):
        tally = queue.tallies[n]
        memcpy(&key, &queue.rows[n], TALLY_KEY_BYTES)
        hashes[n] = key_hash(tally, &key)
        peerless[n] = 0
        prefetch(bucket_of(tally, hashes[n]))
        if tally.count >= TALLY_KINDS:      # a new kind counts without its peer
            coarsen(&key, 0)
            peerless[n] = key_hash(tally, &key)
            prefetch(bucket_of(tally, peerless[n]))
    for n in range(queue.count):
        tally = queue.tallies[n]
        prefetch_kind(tally, hashes[n])
        if peerless[n]:
            prefetch_kind(tally, peerless[n])
    for n in range(queue.count):
        memcpy(&key, &queue.rows[n], TALLY_KEY_BYTES)
        count_row(queue.tallies[n], &queue.rows[n], &key, hashes[n], peerless[n])
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
