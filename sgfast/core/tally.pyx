"""The report's counters; what they count stands in ``tally.pxd``."""

from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from sgfast.core.intrinsics cimport fold, prefetch

cdef enum:
    KEY_BYTES = 32
    KEY_WORDS = 4


cdef int init_tally(Tally* tally, uint64_t secret) except -1:
    tally.cells = NULL          # allocated by the first packet: most replays deny little, many engines nothing
    tally.groups = 0
    tally.secret = secret | 1
    tally.other_packets = 0
    return 0


cdef void free_tally(Tally* tally) noexcept nogil:
    free(tally.cells)
    tally.cells = NULL


cdef inline uint32_t first_cell(const Tally* tally, const TallyRow* key) noexcept nogil:
    cdef uint64_t words[KEY_WORDS]
    cdef uint64_t h
    memcpy(words, key, KEY_BYTES)
    h = fold(words[0] ^ tally.secret, words[1] ^ (tally.secret >> 7))
    h = fold(h ^ words[2], words[3] ^ tally.secret)
    return <uint32_t>(h ^ (h >> 32)) & (TALLY_CELLS - 1)


cdef void prefetch_cell(const Tally* tally, const TallyRow* key) noexcept nogil:
    if tally.cells != NULL:
        prefetch(&tally.cells[first_cell(tally, key)])


cdef TallyRow* cell_of(Tally* tally, const TallyRow* key) noexcept nogil:
    # The key's cell, made if need be; NULL: there is no room.
    cdef uint32_t at
    cdef TallyRow* cell
    if tally.cells == NULL:
        tally.cells = <TallyRow*>calloc(TALLY_CELLS, sizeof(TallyRow))
        if tally.cells == NULL:
            return NULL
    at = first_cell(tally, key)
    while True:
        cell = &tally.cells[at]
        if cell.packets == 0:
            break
        if memcmp(cell, key, KEY_BYTES) == 0:
            return cell
        at = (at + 1) & (TALLY_CELLS - 1)
    if tally.groups == TALLY_GROUPS:
        return NULL
    tally.groups += 1
    memcpy(cell, key, KEY_BYTES)
    return cell


cdef void count(Tally* tally, const TallyRow* key, uint64_t nbytes) noexcept nogil:
    # `key`: a row whose counters are 0.
    cdef TallyRow* cell = cell_of(tally, key)
    if cell == NULL:
        tally.other_packets += 1
        return
    cell.packets += 1
    cell.bytes += nbytes


cdef bint add_row(Tally* tally, const TallyRow* row) noexcept nogil:
    cdef TallyRow* cell
    if row.packets == 0:
        return False        # a free cell's mark
    cell = cell_of(tally, row)
    if cell == NULL:
        return False
    cell.packets += row.packets
    cell.bytes += row.bytes
    return True
