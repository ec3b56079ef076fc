"""The store of fragmented datagrams; ``datagrams.pxd`` describes it."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.intrinsics cimport fold
from sgfast.core.base.types cimport NO_SLOT, READ_STRAY

cdef enum:          # lists
    ALL = 0
    WAITING = 1

assert sizeof(DatagramKey) == 40


cdef void init_fragments(Fragments* f) noexcept nogil:
    memset(f, 0, sizeof(Fragments))
    memset(f.index, 0xFF, sizeof(f.index))
    memset(f.oldest, 0xFF, sizeof(f.oldest))
    memset(f.newest, 0xFF, sizeof(f.newest))


cdef void free_fragments(Fragments* f) noexcept nogil:
    free(f.datagrams)
    free(f.held_store)
    free(f.resolved)


cdef bint make_store(Fragments* f) noexcept nogil:
    # Allocated with the first fragment: some 11 MiB.
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


cdef void fill_datagram_key(const Packet* p, DatagramKey* key) noexcept nogil:
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


cdef uint32_t overdue(const Fragments* f, int64_t now, uint64_t number) noexcept nogil:
    # Time never runs backwards, so the oldest datagram has the earliest deadline.
    cdef uint32_t at = f.oldest[ALL]
    if at != NO_DATAGRAM and now >= f.datagrams[at].deadline:
        return at
    at = f.oldest[WAITING]
    if at != NO_DATAGRAM and number - f.datagrams[at].number > HELD_PACKETS:
        return at
    return NO_DATAGRAM


cdef bint is_whole(const Datagram* d) noexcept nogil:
    return d.total != 0 and not d.spoiled and d.blocks == (d.total + 7) // 8


cdef void join_list(Fragments* f, int which, uint32_t at) noexcept nogil:
    cdef Datagram* d = &f.datagrams[at]
    d.newer[which] = NO_DATAGRAM
    d.older[which] = f.newest[which]
    if f.newest[which] == NO_DATAGRAM:
        f.oldest[which] = at
    else:
        f.datagrams[f.newest[which]].newer[which] = at
    f.newest[which] = at


cdef void leave_list(Fragments* f, int which, uint32_t at) noexcept nogil:
    cdef Datagram* d = &f.datagrams[at]
    if d.older[which] == NO_DATAGRAM:
        f.oldest[which] = d.newer[which]
    else:
        f.datagrams[d.older[which]].newer[which] = d.newer[which]
    if d.newer[which] == NO_DATAGRAM:
        f.newest[which] = d.older[which]
    else:
        f.datagrams[d.newer[which]].older[which] = d.older[which]


cdef uint32_t find_datagram(const Fragments* f, const DatagramKey* key, uint64_t secret) noexcept nogil:
    cdef uint32_t at = f.index[place_of(key, secret)]
    while at != NO_DATAGRAM and memcmp(&f.datagrams[at].key, key, sizeof(DatagramKey)) != 0:
        at = f.datagrams[at].chain
    return at


cdef uint32_t make_datagram(
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
    memset(d, 0, sizeof(Datagram))
    d.key = key[0]
    d.number = number
    d.deadline = deadline
    d.held = NO_HELD
    d.place = place
    d.chain = f.index[place]
    f.index[place] = at
    join_list(f, ALL, at)
    return at


cdef inline bint bit_of(const uint64_t* bits, uint32_t n) noexcept nogil:
    return bits[n >> 6] >> (n & 63) & 1


cdef bint is_there(const Datagram* d, const Packet* p) noexcept nogil:
    # Whether exactly this fragment was received before.
    cdef uint32_t first = p.fragment_start // 8
    cdef uint32_t end = (p.fragment_end + 7) // 8
    cdef uint32_t n
    if p.fragment_last != (p.fragment_end == d.total) or not bit_of(d.starts, first):
        return False
    if d.total and p.fragment_end > d.total:
        return False        # in the last block, but beyond the end
    for n in range(first + 1, end):
        if bit_of(d.starts, n) or not bit_of(d.there, n):
            return False
    return end == BLOCK_WORDS * 64 or bit_of(d.starts, end) or not bit_of(d.there, end)


cdef bint fits(const Datagram* d, const Packet* p) noexcept nogil:
    cdef uint32_t n
    if d.total and (p.fragment_last or p.fragment_end > d.total):
        return False
    if p.fragment_last and d.end > p.fragment_end:
        return False
    for n in range(p.fragment_start // 8, (p.fragment_end + 7) // 8):
        if bit_of(d.there, n):
            return False
    return True


cdef void put_in(Datagram* d, const Packet* p) noexcept nogil:
    cdef uint32_t n
    cdef uint32_t first = p.fragment_start // 8
    d.starts[first >> 6] |= <uint64_t>1 << (first & 63)
    for n in range(first, (p.fragment_end + 7) // 8):
        d.there[n >> 6] |= <uint64_t>1 << (n & 63)
        d.blocks += 1
    d.end = max(d.end, p.fragment_end)
    if p.fragment_last:
        d.total = p.fragment_end


cdef inline uint32_t held_of(const Datagram* d) noexcept nogil:
    # What a datagram counts against MAX_FRAGMENTS.
    return max(d.fragments, d.waiting)


cdef int add_fragment(Fragments* f, const Packet* p, int64_t now, uint64_t secret, uint32_t* datagram) noexcept nogil:
    cdef DatagramKey key
    cdef Datagram* d
    cdef uint32_t at
    cdef bint again = False
    datagram[0] = NO_DATAGRAM
    if f.datagrams == NULL and not make_store(f):
        return FRAGMENT_SPOILED
    fill_datagram_key(p, &key)
    at = find_datagram(f, &key, secret)
    if at != NO_DATAGRAM:
        datagram[0] = at
        d = &f.datagrams[at]
        again = not d.spoiled and is_there(d, p)
        if not d.spoiled and not again and not fits(d, p):
            d.spoiled = True
            f.fragment_count -= held_of(d)
            d.fragments = 0
            d.blocks = 0
            d.total = 0
            d.end = 0
            memset(d.there, 0, sizeof(d.there))
            memset(d.starts, 0, sizeof(d.starts))
        if d.spoiled:
            return FRAGMENT_SPOILED
        if again and d.known:
            return FRAGMENT_FOLLOWS
    if f.fragment_count >= MAX_FRAGMENTS or (at == NO_DATAGRAM and f.free_datagrams == NO_DATAGRAM):
        return FRAGMENT_NO_ROOM
    if at == NO_DATAGRAM:
        at = make_datagram(f, &key, p.number, now + FRAGMENT_NS, secret)
        datagram[0] = at
    d = &f.datagrams[at]
    f.fragment_count -= held_of(d)
    if not again:
        put_in(d, p)
        d.fragments += 1
    if p.fragment_start != 0 and not d.known:
        hold(f, at, p)
    f.fragment_count += held_of(d)
    return FRAGMENT_FOLLOWS if d.known else FRAGMENT_HELD if p.fragment_start else FRAGMENT_FIRST


cdef void hold(Fragments* f, uint32_t datagram, const Packet* p) noexcept nogil:
    cdef Datagram* d = &f.datagrams[datagram]
    cdef uint32_t at = f.free_held
    cdef HeldFragment* held = &f.held_store[at]
    if d.held == NO_HELD:
        join_list(f, WAITING, datagram)
    f.free_held = held.next
    held.number = p.number
    held.time_ns = p.time_ns
    held.wire = p.wire
    held.protocol = p.protocol
    held.wanted = f.wanted
    held.next = d.held
    d.held = at
    d.waiting += 1


cdef bint take_held(Fragments* f, uint32_t datagram, Packet* p, uint8_t* wanted) noexcept nogil:
    cdef Datagram* d = &f.datagrams[datagram]
    cdef uint32_t at = d.held
    cdef HeldFragment* held
    if at == NO_HELD:
        return False
    held = &f.held_store[at]
    memset(p, 0, sizeof(Packet))
    p.hint = NO_SLOT
    p.outcome = READ_STRAY
    memcpy(p.key.addr, d.key.addr, sizeof(p.key.addr))
    p.ipv6 = d.key.ipv6
    p.source_high = d.key.source_high
    p.protocol = held.protocol
    p.number = held.number
    p.time_ns = held.time_ns
    p.wire = held.wire
    wanted[0] = held.wanted
    if not d.spoiled:
        f.fragment_count -= held_of(d)
    d.waiting -= 1
    if not d.spoiled:
        f.fragment_count += held_of(d)
    d.held = held.next
    held.next = f.free_held
    f.free_held = at
    if d.held == NO_HELD:
        leave_list(f, WAITING, datagram)
    return True


cdef void forget_datagram(Fragments* f, uint32_t datagram) noexcept nogil:
    cdef Datagram* d = &f.datagrams[datagram]
    cdef uint32_t* link = &f.index[d.place]
    while link[0] != datagram:
        link = &f.datagrams[link[0]].chain
    link[0] = d.chain
    leave_list(f, ALL, datagram)
    f.fragment_count -= held_of(d)
    d.chain = f.free_datagrams
    f.free_datagrams = datagram


cdef bint restore_datagram(Fragments* f, const Datagram* saved, uint64_t secret) noexcept nogil:
    cdef uint32_t at, n
    cdef Datagram* d
    if find_datagram(f, &saved.key, secret) != NO_DATAGRAM:
        return False
    at = make_datagram(f, &saved.key, saved.number, saved.deadline, secret)
    if at == NO_DATAGRAM:
        return False
    d = &f.datagrams[at]
    memcpy(d.there, saved.there, sizeof(d.there))
    memcpy(d.starts, saved.starts, sizeof(d.starts))
    for n in range(BLOCK_WORDS * 64):
        d.blocks += bit_of(d.there, n)
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


cdef void note_resolved(Fragments* f, uint64_t number, const ResultRow* row) noexcept nogil:
    # If results are never taken, later ones are lost.
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
