"""The store of datagrams that came in fragments; what for stands in ``fragments.pxd``."""

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.intrinsics cimport fold
from sgfast.core.slab cimport NO_SLOT
from sgfast.core.types cimport READ_FRAGMENT

cdef int64_t FRAGMENT_NS = 30 * 10**9

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
    free(f.pieces)
    free(f.resolved)


cdef bint make_store(Fragments* f) noexcept nogil:
    # Some 11 MiB, of which what is not used is never touched, once there is a fragment at all.
    cdef uint32_t i
    f.datagrams = <Datagram*>calloc(MAX_DATAGRAMS, sizeof(Datagram))
    f.pieces = <HeldPiece*>malloc(MAX_PIECES * sizeof(HeldPiece))
    if f.datagrams == NULL or f.pieces == NULL:
        free(f.datagrams)
        free(f.pieces)
        f.datagrams = NULL
        f.pieces = NULL
        return False
    for i in range(MAX_DATAGRAMS):
        f.datagrams[i].chain = i + 1 if i + 1 < MAX_DATAGRAMS else <uint32_t>NO_DATAGRAM
    for i in range(MAX_PIECES):
        f.pieces[i].next = i + 1 if i + 1 < MAX_PIECES else <uint32_t>NO_PIECE
    f.free_datagrams = 0
    f.free_pieces = 0
    return True


cdef void fill_datagram_key(const Packet* p, DatagramKey* key) noexcept nogil:
    memset(key, 0, sizeof(DatagramKey))
    memcpy(key.addr, p.key.addr, 32 if p.ipv6 else 8)
    key.identification = p.piece_id
    key.protocol = 0 if p.ipv6 else p.protocol      # of IPv6, whoever fragments may say in each what he likes
    key.ipv6 = p.ipv6
    key.source_high = p.source_high


cdef inline uint32_t place_of(const DatagramKey* key, uint64_t secret) noexcept nogil:
    cdef uint64_t h = fold(key.addr[0] ^ secret, key.addr[1] ^ (<uint64_t>key.identification << 32 | 1))
    h = fold(h ^ key.addr[2], key.addr[3] ^ (secret | 1))
    return <uint32_t>(fold(h ^ key.source_high, secret ^ key.protocol) & (MAX_DATAGRAMS - 1))


cdef uint32_t overdue(const Fragments* f, int64_t now, uint64_t number) noexcept nogil:
    # The oldest began first, and time never runs back: if any is overdue, it is.
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
    d.held = NO_PIECE
    d.place = place
    d.chain = f.index[place]
    f.index[place] = at
    join_list(f, ALL, at)
    return at


cdef inline bint bit_of(const uint64_t* bits, uint32_t n) noexcept nogil:
    return bits[n >> 6] >> (n & 63) & 1


cdef bint is_there(const Datagram* d, const Packet* p) noexcept nogil:
    # Whether just this fragment came before.
    cdef uint32_t first = p.piece_at // 8
    cdef uint32_t end = (p.piece_end + 7) // 8
    cdef uint32_t n
    if p.piece_last != (p.piece_end == d.total) or not bit_of(d.starts, first):
        return False
    if d.total and p.piece_end > d.total:
        return False        # though in the same block
    for n in range(first + 1, end):
        if bit_of(d.starts, n) or not bit_of(d.there, n):
            return False
    return end == BLOCK_WORDS * 64 or bit_of(d.starts, end) or not bit_of(d.there, end)


cdef bint fits(const Datagram* d, const Packet* p) noexcept nogil:
    cdef uint32_t n
    if d.total and (p.piece_last or p.piece_end > d.total):
        return False
    if p.piece_last and d.end > p.piece_end:
        return False
    for n in range(p.piece_at // 8, (p.piece_end + 7) // 8):
        if bit_of(d.there, n):
            return False
    return True


cdef void put_in(Datagram* d, const Packet* p) noexcept nogil:
    cdef uint32_t n
    cdef uint32_t first = p.piece_at // 8
    d.starts[first >> 6] |= <uint64_t>1 << (first & 63)
    for n in range(first, (p.piece_end + 7) // 8):
        d.there[n >> 6] |= <uint64_t>1 << (n & 63)
        d.blocks += 1
    d.end = max(d.end, p.piece_end)
    if p.piece_last:
        d.total = p.piece_end


cdef inline uint32_t held_of(const Datagram* d) noexcept nogil:
    # What counts against MAX_PIECES.
    return max(d.pieces, d.waiting)


cdef int add_piece(Fragments* f, const Packet* p, int64_t now, uint64_t secret, uint32_t* datagram) noexcept nogil:
    cdef DatagramKey key
    cdef Datagram* d
    cdef uint32_t at
    cdef bint again = False
    datagram[0] = NO_DATAGRAM
    if f.datagrams == NULL and not make_store(f):
        return PIECE_SPOILED
    fill_datagram_key(p, &key)
    at = find_datagram(f, &key, secret)
    if at != NO_DATAGRAM:
        datagram[0] = at
        d = &f.datagrams[at]
        again = not d.spoiled and is_there(d, p)
        if not d.spoiled and not again and not fits(d, p):
            d.spoiled = True
            f.piece_count -= held_of(d)
            d.pieces = 0
            d.blocks = 0
            d.total = 0
            d.end = 0
            memset(d.there, 0, sizeof(d.there))
            memset(d.starts, 0, sizeof(d.starts))
        if d.spoiled:
            return PIECE_SPOILED
        if again and d.known:
            return PIECE_FOLLOWS
    if f.piece_count >= MAX_PIECES or (at == NO_DATAGRAM and f.free_datagrams == NO_DATAGRAM):
        return PIECE_NO_ROOM
    if at == NO_DATAGRAM:
        at = make_datagram(f, &key, p.number, now + FRAGMENT_NS, secret)
        datagram[0] = at
    d = &f.datagrams[at]
    f.piece_count -= held_of(d)
    if not again:
        put_in(d, p)
        d.pieces += 1
    if p.piece_at != 0 and not d.known:
        hold(f, at, p)
    f.piece_count += held_of(d)
    return PIECE_FOLLOWS if d.known else PIECE_HELD if p.piece_at else PIECE_FIRST


cdef void hold(Fragments* f, uint32_t datagram, const Packet* p) noexcept nogil:
    cdef Datagram* d = &f.datagrams[datagram]
    cdef uint32_t at = f.free_pieces
    cdef HeldPiece* piece = &f.pieces[at]
    if d.held == NO_PIECE:
        join_list(f, WAITING, datagram)
    f.free_pieces = piece.next
    piece.number = p.number
    piece.time_ns = p.time_ns
    piece.wire = p.wire
    piece.protocol = p.protocol
    piece.wanted = f.wanted
    piece.next = d.held
    d.held = at
    d.waiting += 1


cdef bint take_held(Fragments* f, uint32_t datagram, Packet* p, uint8_t* wanted) noexcept nogil:
    cdef Datagram* d = &f.datagrams[datagram]
    cdef uint32_t at = d.held
    cdef HeldPiece* piece
    if at == NO_PIECE:
        return False
    piece = &f.pieces[at]
    memset(p, 0, sizeof(Packet))
    p.hint = NO_SLOT
    p.outcome = READ_FRAGMENT
    memcpy(p.key.addr, d.key.addr, sizeof(p.key.addr))
    p.ipv6 = d.key.ipv6
    p.source_high = d.key.source_high
    p.protocol = piece.protocol
    p.number = piece.number
    p.time_ns = piece.time_ns
    p.wire = piece.wire
    wanted[0] = piece.wanted
    if not d.spoiled:
        f.piece_count -= held_of(d)
    d.waiting -= 1
    if not d.spoiled:
        f.piece_count += held_of(d)
    d.held = piece.next
    piece.next = f.free_pieces
    f.free_pieces = at
    if d.held == NO_PIECE:
        leave_list(f, WAITING, datagram)
    return True


cdef void forget_datagram(Fragments* f, uint32_t datagram) noexcept nogil:
    cdef Datagram* d = &f.datagrams[datagram]
    cdef uint32_t* link = &f.index[d.place]
    while link[0] != datagram:
        link = &f.datagrams[link[0]].chain
    link[0] = d.chain
    leave_list(f, ALL, datagram)
    f.piece_count -= held_of(d)
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
    d.pieces = saved.pieces
    f.piece_count += d.pieces
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
    # Whoever asks for results and never takes these loses the later ones.
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
