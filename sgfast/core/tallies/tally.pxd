# Counts packets and connections by instance, peer, service, reason and rule, for the report: a small hash table with a
# fixed capacity, which never loses a count. A kind that finds no room is counted without its peer, and if there is no
# room for that either, without instance, service and rule.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.intrinsics cimport fold, prefetch

cdef enum:
    TALLY_CELLS = 1 << 17
    TALLY_KINDS = 1 << 16       # more kinds than a person reads
    TALLY_PEERLESS = 3 << 15    # room for kinds without a peer: up to this many cells are used
    # All others fit: 256 protocols, REASON_COUNT reasons and two directions, each with and without a family.
    TALLY_MOST = 7 << 14
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
    uint64_t connections        # a free cell has neither packets nor connections
    uint64_t bytes
    int64_t first_ns            # earliest and latest timestamp of its packets
    int64_t last_ns
    uint64_t number             # 1-based number of the first packet; 0 if that is not known


cdef struct Tally:
    TallyRow* cells
    uint32_t* used              # numbers of the cells in use, in the order in which they were first used
    uint32_t groups             # how many these are
    uint64_t secret
    uint64_t lost               # packets and connections that are not counted, for lack of memory


cdef inline void init_tally(Tally* tally, uint64_t secret) noexcept nogil:
    tally.cells = NULL          # allocated with the first packet: many engines never deny anything
    tally.used = NULL
    tally.groups = 0
    tally.secret = secret | 1
    tally.lost = 0


cdef inline void free_tally(Tally* tally) noexcept nogil:
    free(tally.cells)
    free(tally.used)
    tally.cells = NULL
    tally.used = NULL


cdef inline uint32_t first_cell(const Tally* tally, const TallyRow* key) noexcept nogil:
    cdef uint64_t words[TALLY_KEY_WORDS]
    cdef uint64_t h
    memcpy(words, key, TALLY_KEY_BYTES)
    h = fold(words[0] ^ tally.secret, words[1] ^ (tally.secret >> 7))
    h = fold(h ^ words[2], words[3] ^ tally.secret)
    return <uint32_t>(h ^ (h >> 32)) & (TALLY_CELLS - 1)


cdef inline void prefetch_cell(const Tally* tally, const TallyRow* key) noexcept nogil:
    if tally.cells != NULL:
        prefetch(&tally.cells[first_cell(tally, key)])


cdef inline TallyRow* find_cell(Tally* tally, const TallyRow* key, uint32_t most) noexcept nogil:
    # Finds the key's cell, or makes it if fewer than `most` cells are used. NULL otherwise.
    cdef uint32_t at = first_cell(tally, key)
    cdef TallyRow* cell
    while True:
        cell = &tally.cells[at]
        if cell.packets == 0 and cell.connections == 0:
            break
        if memcmp(cell, key, TALLY_KEY_BYTES) == 0:
            return cell
        at = (at + 1) & (TALLY_CELLS - 1)
    if tally.groups >= most:
        return NULL
    tally.used[tally.groups] = at
    tally.groups += 1
    memcpy(cell, key, TALLY_KEY_BYTES)
    return cell


cdef inline TallyRow* cell_of(Tally* tally, const TallyRow* key) noexcept nogil:
    # The cell in which a key counts. The caller must add a packet or a connection. NULL for lack of memory.
    cdef TallyRow* cell
    cdef TallyRow coarse
    if tally.cells == NULL:
        tally.cells = <TallyRow*>calloc(TALLY_CELLS, sizeof(TallyRow))
        tally.used = <uint32_t*>calloc(TALLY_MOST, sizeof(uint32_t))
        if tally.cells == NULL or tally.used == NULL:
            free_tally(tally)
            return NULL
    cell = find_cell(tally, key, TALLY_KINDS)
    if cell != NULL:
        return cell
    coarse = key[0]
    memset(coarse.peer, 0, sizeof(coarse.peer))
    coarse.family = 0
    cell = find_cell(tally, &coarse, TALLY_PEERLESS)
    if cell != NULL:
        return cell
    coarse.instance = -1
    coarse.port_key = 0
    coarse.has_ports = 0
    coarse.has_icmp = 0
    coarse.rule = -1
    return find_cell(tally, &coarse, TALLY_MOST)


cdef inline void note_times(TallyRow* cell, int64_t first_ns, int64_t last_ns, uint64_t number) noexcept nogil:
    if cell.packets == 0 and cell.connections == 0:
        cell.first_ns = first_ns
        cell.last_ns = last_ns
        cell.number = number
        return
    # Timestamps may run backwards, and fragments are counted when their verdict is known.
    cell.first_ns = min(cell.first_ns, first_ns)
    cell.last_ns = max(cell.last_ns, last_ns)
    cell.number = min(cell.number, number)


cdef inline TallyRow* count_tally(
    Tally* tally, const TallyRow* key, uint64_t packets, uint64_t nbytes, int64_t time_ns, uint64_t number
) noexcept nogil:
    # Counts packets, or one connection if there are none. `key`: a row whose counters are not looked at. Returns the
    # cell, or NULL for lack of memory.
    cdef TallyRow* cell = cell_of(tally, key)
    if cell == NULL:
        tally.lost += 1
        return NULL
    note_times(cell, time_ns, time_ns, number)
    if packets == 0:
        cell.connections += 1
    cell.packets += packets
    cell.bytes += nbytes
    return cell


cdef inline bint add_row(Tally* tally, const TallyRow* row) noexcept nogil:
    # Adds a row of another tally with its counters. False for lack of memory, or if the row is empty.
    cdef TallyRow* cell
    if row.packets == 0 and row.connections == 0:
        return False        # it would mark a free cell
    cell = cell_of(tally, row)
    if cell == NULL:
        return False
    note_times(cell, row.first_ns, row.last_ns, row.number)
    cell.packets += row.packets
    cell.connections += row.connections
    cell.bytes += row.bytes
    return True
