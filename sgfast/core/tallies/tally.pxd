# Counts packets by instance, peer, service and reason, for the report: a small hash table with a fixed capacity.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from sgfast.core.base.intrinsics cimport fold, prefetch

cdef enum:
    TALLY_GROUPS = 1 << 16      # more groups than a person reads; the rest is counted as others
    TALLY_CELLS = 1 << 17
    TALLY_KEY_BYTES = 32        # the leading bytes of a TallyRow, which are its key
    TALLY_KEY_WORDS = 4


cdef packed struct TallyRow:
    uint8_t peer[16]            # network byte order; IPv4 in the first four bytes
    int32_t instance            # whose filter judged
    uint16_t port_key           # destination port, or ICMP type << 8 | code
    uint8_t protocol
    uint8_t reason
    uint8_t inbound
    uint8_t family
    uint8_t has_ports
    uint8_t has_icmp
    uint32_t spare
    uint64_t packets            # 0: a free cell
    uint64_t bytes


cdef struct Tally:
    TallyRow* cells
    uint32_t* used              # numbers of the cells in use, in the order in which they were first used
    uint32_t groups             # how many these are
    uint64_t secret
    uint64_t other_packets      # packets of groups that found no room


cdef inline void init_tally(Tally* tally, uint64_t secret) noexcept nogil:
    tally.cells = NULL          # allocated with the first packet: many engines never deny anything
    tally.used = NULL
    tally.groups = 0
    tally.secret = secret | 1
    tally.other_packets = 0


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


cdef inline TallyRow* cell_of(Tally* tally, const TallyRow* key) noexcept nogil:
    # Finds or makes the key's cell. NULL if there is no room.
    cdef uint32_t at
    cdef TallyRow* cell
    if tally.cells == NULL:
        tally.cells = <TallyRow*>calloc(TALLY_CELLS, sizeof(TallyRow))
        tally.used = <uint32_t*>calloc(TALLY_GROUPS, sizeof(uint32_t))
        if tally.cells == NULL or tally.used == NULL:
            free_tally(tally)
            return NULL
    at = first_cell(tally, key)
    while True:
        cell = &tally.cells[at]
        if cell.packets == 0:
            break
        if memcmp(cell, key, TALLY_KEY_BYTES) == 0:
            return cell
        at = (at + 1) & (TALLY_CELLS - 1)
    if tally.groups == TALLY_GROUPS:
        return NULL
    tally.used[tally.groups] = at
    tally.groups += 1
    memcpy(cell, key, TALLY_KEY_BYTES)
    return cell


cdef inline void count_tally(Tally* tally, const TallyRow* key, uint64_t nbytes) noexcept nogil:
    # `key`: a row with counters of 0.
    cdef TallyRow* cell = cell_of(tally, key)
    if cell == NULL:
        tally.other_packets += 1
        return
    cell.packets += 1
    cell.bytes += nbytes


cdef inline bint add_row(Tally* tally, const TallyRow* row) noexcept nogil:
    # Adds a row of another tally with its counters. False if there is no room, or the row is empty.
    cdef TallyRow* cell
    if row.packets == 0:
        return False        # packets == 0 would mark a free cell
    cell = cell_of(tally, row)
    if cell == NULL:
        return False
    cell.packets += row.packets
    cell.bytes += row.bytes
    return True
