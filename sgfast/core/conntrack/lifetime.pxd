# A tuple's life in the connection table: it begins, is prolonged, ends, and makes room for another one. Layout and
# look-ups are in table.pxd.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from sgfast.core.base.key cimport FlowKey
from sgfast.core.base.types cimport Packet
from sgfast.core.conntrack.table cimport Table

cdef int init_table(Table* t, uint32_t max_live, bint keep_marks, bint keep_flows) except -1
cdef void free_table(Table* t) noexcept nogil

# Memory and time. `sweep` gives back what ended before now's tick; `make_room` is exact.
cdef void sweep(Table* t, int64_t now) noexcept nogil
cdef bint make_room(Table* t, int64_t now) noexcept nogil
# The present tick's, after a sweep: what ended by now.
cdef void end_expired(Table* t, int64_t now) noexcept nogil
cdef void rearm(Table* t, uint32_t slot) noexcept nogil

# A tuple's life. Slots passed in are of entries in the index.
cdef uint32_t add_key(Table* t, const FlowKey* key, uint64_t digest, uint32_t hash_value) noexcept nogil
cdef void join_age(Table* t, uint32_t slot) noexcept nogil
cdef void drop_key(Table* t, uint32_t slot) noexcept nogil      # of an entry in no list
cdef void begin_tuple(
    Table* t, uint32_t slot, const Packet* p, bint initiator_high, uint8_t verdict, uint8_t reason,
    int denied_side) noexcept nogil
# Whose the sides are that the report does not know yet.
cdef void name_sides(Table* t, uint32_t slot, const int32_t* instance) noexcept nogil
cdef void set_side(
    Table* t, uint32_t slot, int side, uint8_t state, uint8_t flags, uint32_t rule, int64_t deadline) noexcept nogil
cdef void clear_side(Table* t, uint32_t slot, int side, uint8_t side_end) noexcept nogil
cdef void reopen_side(Table* t, uint32_t slot, int side, int64_t now, bint first) noexcept nogil
cdef void note_reply(Table* t, uint32_t slot, int side, bint reset) noexcept nogil
cdef void end_tuple(Table* t, uint32_t slot, int64_t now, uint8_t side_end) noexcept nogil
cdef void mark_opener(Table* t, uint32_t slot) noexcept nogil
# Of each live tuple the number of its first packet, where flows are kept, and `where` | its slot; how many there are.
cdef uint32_t list_living(const Table* t, uint64_t where, uint64_t* out) noexcept nogil
cdef void report_slot(Table* t, uint32_t slot, int64_t now) noexcept nogil
# Reports live tuples from slot `first` on, until about `most` were; returns where to go on, NO_SLOT: nowhere.
cdef uint32_t report_living(Table* t, int64_t now, uint32_t first, uint32_t most) noexcept nogil
