# Counts packets and connections by instance, peer, service, reason and rule, for the report: a small hash table with a
# fixed capacity, which never loses a count. If there is no room for a new kind, it is counted without its peer. If
# there is no room for that either, it is counted without instance, service and rule.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.bucket cimport Bucket, match_tag, put_in_bucket
from sgfast.core.base.intrinsics cimport ctz32, fold, likely, prefetch, unlikely
from sgfast.core.base.memory cimport map_lazily, unmap_pages
from sgfast.core.conntrack.storage cimport Origin

cdef enum:
    TALLY_KINDS = 1 << 16       # more kinds than a person reads
    TALLY_PEERLESS = 3 << 15    # rows for kinds without a peer are made up to this number of rows
    # All kinds of the last level fit: 256 protocols, REASON_COUNT reasons and two directions.
    TALLY_MOST = 7 << 14
    TALLY_BUCKETS = 1 << 14     # buckets of the index, which has 196,608 places for all rows
    TALLY_KEY_BYTES = 32        # the leading bytes of a TallyRow, which are its key


cdef struct TallyRow:           # without gaps
    uint8_t peer[16]            # network byte order; IPv4 in the first four bytes
    int32_t instance            # instance whose filter judged; -1 if it is not known
    uint16_t port_key           # destination port, or ICMP type << 8 | code
    uint8_t protocol
    uint8_t reason
    uint8_t inbound
    uint8_t family              # 0: the peer is not known
    uint8_t has_ports
    uint8_t has_icmp
    int32_t rule                # deciding rule; -1 for none
    uint64_t packets
    uint64_t connections
    uint64_t bytes
    int64_t first_ns            # earliest and latest timestamp of the row's packets
    int64_t last_ns
    uint64_t number             # 1-based number of the first packet; 0 if it is not known
    # Two counters of how connections ended. In BEGAN they count unanswered connections and refused ones. In DENIALS
    # they count denied attempts that the other end answered, and those of which nobody can tell (SPEC 9.2).
    # If a row has no peer for lack of room, Tally.named counts instead.
    uint64_t endings[2]


cdef struct Tally:
    TallyRow* rows              # in the order in which they were first used; rows never move
    Bucket* index               # most look-ups that find no row read only the index
    uint32_t count
    uint64_t secret
    bint beside_others          # other threads run at the same time
    uint64_t lost               # packets and connections that are not counted, for lack of memory
    # The tallies that count the endings of rows without a peer, with the peer; NULL for none.
    Tally* named[2]


# Numbers of a plane's tallies, in the order of TALLY_NAMES (accounting.pyx).
cdef enum:         # Tallies
    DENIALS = 0             # denied packets, and the attempts that they began
    UNANSWERED = 1          # allowed connections that the responding instance never answered
    REFUSED = 2             # allowed connections that the responding instance refused
    BROKEN = 3              # denied attempts that the other end answered
    BEGAN = 4               # allowed connections, when they begin
    OUTSIDE = 5             # packets out of scope, by the networks of their addresses (SPEC 10.27)
    TALLIES = 6


cdef inline void init_tallies(Tally* tallies, uint64_t secret) noexcept nogil:
    # Rows are allocated with the first packet, as many engines never deny a packet.
    cdef int i
    memset(tallies, 0, TALLIES * sizeof(Tally))
    for i in range(TALLIES):
        tallies[i].secret = secret | 1
    tallies[BEGAN].named[0] = &tallies[UNANSWERED]
    tallies[BEGAN].named[1] = &tallies[REFUSED]
    tallies[DENIALS].named[0] = &tallies[BROKEN]


cdef inline void free_rows(Tally* tally) noexcept nogil:
    unmap_pages(tally.rows, TALLY_MOST * sizeof(TallyRow))
    unmap_pages(tally.index, TALLY_BUCKETS * sizeof(Bucket))
    tally.rows = NULL
    tally.index = NULL


cdef inline void free_tallies(Tally* tallies) noexcept nogil:
    cdef int i
    for i in range(TALLIES):
        free_rows(&tallies[i])


# The key of a row as four words. They stay in registers while the key is made, coarsened, hashed and compared. The
# processor would have to wait if it loaded a word right after single bytes of that word were written.
cdef struct TallyKey:
    uint64_t peer[2]
    uint64_t service            # instance, port_key, protocol, reason, from the lowest bits on
    uint64_t rest               # inbound, family, has_ports, has_icmp, rule


cdef inline TallyKey key_of_kind(
    int32_t instance, uint16_t port_key, uint8_t protocol, uint8_t reason, bint inbound, bint ipv6, bint has_ports,
    bint has_icmp, int32_t rule
) noexcept nogil:
    # Makes a key from fields of TallyRow. The caller must fill in `peer`.
    cdef TallyKey key
    key.service = (
        <uint32_t>instance | <uint64_t>port_key << 32 | <uint64_t>protocol << 48 | <uint64_t>reason << 56
    )
    key.rest = (
        inbound | <uint64_t>(6 if ipv6 else 4) << 8 | <uint64_t>has_ports << 16 | <uint64_t>has_icmp << 24
        | <uint64_t><uint32_t>rule << 32
    )
    return key


cdef inline uint32_t key_hash(const Tally* tally, const TallyKey* key) noexcept nogil:
    cdef uint64_t h = fold(key.peer[0] ^ tally.secret, key.peer[1] ^ (tally.secret >> 7))
    h = fold(h ^ key.service, key.rest ^ tally.secret)
    return <uint32_t>(h ^ (h >> 32))


cdef enum:
    TALLY_LEVELS = 3


cdef inline uint32_t most_rows(int level) noexcept nogil:
    # Returns the number of rows from which on no more rows of this level are made.
    return TALLY_KINDS if level == 0 else TALLY_PEERLESS if level == 1 else TALLY_MOST


cdef inline void coarsen(TallyKey* key, int level) noexcept nogil:
    # Turns a key of a level into a key of the next level.
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
    # Finds the row of a key with the hash `h`, or makes it if there are fewer than `most` rows. Otherwise returns NULL.
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
    # Allocates the rows unless they exist. Returns False if there is no memory.
    if tally.rows == NULL:
        tally.rows = <TallyRow*>map_lazily(TALLY_MOST * sizeof(TallyRow))
        tally.index = <Bucket*>map_lazily(TALLY_BUCKETS * sizeof(Bucket))
        if tally.rows == NULL or tally.index == NULL:
            free_rows(tally)
            return False
        if tally.beside_others:
            # A place in the index is read before it is written. If reading did not give the page its own memory, the
            # first write would have to interrupt all other threads.
            memset(tally.index, 0, TALLY_BUCKETS * sizeof(Bucket))
    return True


cdef inline void note_times(TallyRow* row, int64_t first_ns, int64_t last_ns, uint64_t number) noexcept nogil:
    if row.packets == 0 and row.connections == 0:
        row.first_ns = first_ns
        row.last_ns = last_ns
        row.number = number
        return
    # Timestamps may run backwards, and fragments are counted only when their verdict is known.
    row.first_ns = min(row.first_ns, first_ns)
    row.last_ns = max(row.last_ns, last_ns)
    row.number = min(row.number, number)


cdef inline TallyRow* row_of_kind(
    Tally* tally, TallyKey* key, uint32_t h, uint32_t peerless, int* level
) noexcept nogil:
    # Finds or makes the finest row for which there is room, or returns NULL. `h`: the hash of the key; `peerless`: the
    # hash of the key without the peer, or 0 if it is not known.
    cdef TallyRow* row
    level[0] = 0
    while level[0] < TALLY_LEVELS:
        row = find_kind(tally, key, h, most_rows(level[0]))
        if row != NULL:
            return row
        coarsen(key, level[0])
        h = peerless if level[0] == 0 and peerless else key_hash(tally, key)
        level[0] += 1
    return NULL


cdef inline void count_endings(
    const Tally* tally, const TallyKey* kind, TallyRow* row, bint has_peer, const uint64_t* endings
) noexcept nogil:
    # Counts endings of a kind in its row, or in Tally.named if there was no room for its peer. The keys of the named
    # tallies have no rule, and a reason only if the row counts denials.
    cdef Tally* named
    cdef TallyKey key
    cdef TallyRow* with_peer
    cdef int i, level
    if likely(has_peer):
        row.endings[0] += endings[0]
        row.endings[1] += endings[1]
        return
    for i in range(2):
        named = tally.named[i]
        if endings[i] == 0 or named == NULL:
            continue
        key = kind[0]
        key.rest |= <uint64_t>0xFFFFFFFF << 32
        if tally.named[1] != NULL:
            key.service &= ~(<uint64_t>0xFF << 56)
        with_peer = row_of_kind(named, &key, key_hash(named, &key), 0, &level) if have_rows(named) else NULL
        if with_peer != NULL:
            with_peer.connections += endings[i]
        else:
            named.lost += endings[i]


cdef inline bint add_row(Tally* tally, const TallyRow* more) noexcept nogil:
    # Adds a row of another tally with its counters. Returns False if there is no memory.
    cdef TallyKey kind, key
    cdef TallyRow* row = NULL
    cdef int level
    memcpy(&kind, more, TALLY_KEY_BYTES)
    key = kind
    if have_rows(tally):
        row = row_of_kind(tally, &key, key_hash(tally, &key), 0, &level)
    if row == NULL:
        return False
    if more.packets or more.connections:
        note_times(row, more.first_ns, more.last_ns, more.number)
    row.packets += more.packets
    row.connections += more.connections
    row.bytes += more.bytes
    count_endings(tally, &kind, row, level == 0, more.endings)
    return True


# Each row that counts a packet is a cache miss, and so is the row's place in the index. So packets and connections wait
# in a queue before they are counted, so that the misses overlap.

cdef enum:
    QUEUED_KINDS = 32


# One packet, or one connection.
cdef struct Queued:
    TallyKey key
    Tally* tally                # the tally that counts the packet or connection
    TallyRow* row               # the likely row, or NULL
    Origin* origin              # origin of the tuple, or NULL
    uint64_t endings[2]        # endings of the tuple while it is queued
    int64_t time_ns
    uint64_t number
    uint32_t packets
    uint32_t connections
    uint32_t bytes
    uint32_t hash               # hash of the key
    uint32_t peerless           # hash of the key without the peer, or 0 if it is not needed


cdef struct TallyQueue:
    Queued kinds[QUEUED_KINDS]
    int count


cdef inline TallyRow* likely_row(const Tally* tally, uint32_t h) noexcept nogil:
    # Prefetches the first row whose tag matches the hash `h`, and returns that row, or NULL. The bucket must have been
    # prefetched.
    cdef const Bucket* bucket = bucket_of(tally, h)
    cdef uint32_t mask = match_tag(bucket, h)
    cdef TallyRow* row
    if mask == 0:
        return NULL
    row = &tally.rows[bucket.slots[<uint32_t>ctz32(mask)]]
    prefetch(row)
    prefetch(&row.number)       # a row may be in two cache lines
    return row


cdef inline void count_kind(Queued* q) noexcept nogil:
    cdef TallyRow* row = q.row
    cdef TallyKey key
    cdef int level = 0
    if unlikely(row == NULL or memcmp(row, &q.key, TALLY_KEY_BYTES) != 0):
        key = q.key
        row = row_of_kind(q.tally, &key, q.hash, q.peerless, &level)
    if row != NULL:
        note_times(row, q.time_ns, q.time_ns, q.number)
        row.packets += q.packets
        row.connections += q.connections
        row.bytes += q.bytes
    else:
        # A row is never missing, as the last level has room for all its kinds. Even without one, the queue is emptied.
        q.tally.lost += 1
    if q.origin != NULL:
        count_endings(q.tally, &q.key, row, level == 0, q.endings)
        if q.origin.endings == q.endings:     # otherwise another tuple has begun in the same entry
            q.origin.endings = row.endings if level == 0 else NULL


cdef inline void count_queued(TallyQueue* queue) noexcept nogil:
    cdef Queued* q
    cdef int n
    for n in range(queue.count):
        q = &queue.kinds[n]
        q.row = likely_row(q.tally, q.hash)
        if unlikely(q.peerless):
            likely_row(q.tally, q.peerless)
    for n in range(queue.count):
        count_kind(&queue.kinds[n])
    queue.count = 0


cdef inline Queued* queue_kind(
    TallyQueue* queue, Tally* tally, const TallyKey* key, int64_t time_ns, uint64_t number
) noexcept nogil:
    # Queues one packet or one connection. The caller sets its counts in the returned entry, until the next call.
    # `time_ns`, `number`: those of the packet, or of the connection's first packet; 0 if not known.
    cdef Queued* q
    cdef TallyKey coarse
    # Queued kinds are counted before the tally may become full, so that it is known which kinds have a row.
    if queue.count == QUEUED_KINDS or unlikely(tally.count < TALLY_KINDS <= tally.count + queue.count):
        count_queued(queue)
    q = &queue.kinds[queue.count]
    q.key = key[0]
    q.tally = tally
    q.origin = NULL
    q.time_ns = time_ns
    q.number = number
    q.packets = 0
    q.connections = 0
    q.bytes = 0
    q.peerless = 0
    if unlikely(not have_rows(tally)):
        tally.lost += 1             # the packet or connection is not counted
        return q
    q.hash = key_hash(tally, key)
    prefetch(bucket_of(tally, q.hash))
    if unlikely(tally.count >= TALLY_KINDS):    # a new kind counts without its peer
        coarse = key[0]
        coarsen(&coarse, 0)
        q.peerless = key_hash(tally, &coarse)
        prefetch(bucket_of(tally, q.peerless))
    queue.count += 1
    return q


cdef inline void link_origin(TallyQueue* queue, Queued* q, Origin* origin) noexcept nogil:
    # `q` was queued last, and is the first packet of the tuple with this origin. The tuple's ending is counted in the
    # row of `q`, unless that row has no peer.
    if queue.count and &queue.kinds[queue.count - 1] == q:
        q.origin = origin
        q.endings[0] = 0
        q.endings[1] = 0
        origin.endings = q.endings
