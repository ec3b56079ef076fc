# The life cycle of tuples in the connection table: creation, refresh, expiry and eviction. The layout and the look-ups
# are in table.pxd. All times are engine time in nanoseconds.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from sgfast.core.base.key cimport FlowKey
from sgfast.core.base.types cimport Packet
from sgfast.core.conntrack.storage cimport Entry
from sgfast.core.conntrack.table cimport Table

cdef int init_table(Table* t, uint32_t max_live, bint keep_marks, bint keep_flows, bint keep_origins) except -1
cdef void free_table(Table* t) noexcept nogil

# Expiry and eviction. `sweep` frees the tuples that ended before the tick of `now`. `make_room` returns whether one
# more tuple may live, and is exact.
cdef void sweep(Table* t, int64_t now) noexcept nogil
cdef bint make_room(Table* t, int64_t now) noexcept nogil
# Ends the tuples of the current tick that have ended by `now`. Call `sweep` first.
cdef void end_expired(Table* t, int64_t now) noexcept nogil
cdef void rearm(Table* t, uint32_t slot, Entry* e) noexcept nogil
# Lists the entries that most likely leave a full table if this many openers arrive, and prefetches them: at most one
# entry for each opener. Returns the number of entries.
cdef int list_displaced(const Table* t, int openers, uint32_t* slots) noexcept nogil
cdef void prefetch_buckets(const Table* t, const uint32_t* slots, int count) noexcept nogil

# Life cycle. `slot` and `e` denote one entry of the index.
cdef uint32_t add_key(Table* t, const FlowKey* key, uint64_t digest, uint32_t hash_value) noexcept nogil
cdef void join_age(Table* t, uint32_t slot, Entry* e) noexcept nogil
cdef void drop_key(Table* t, uint32_t slot) noexcept nogil      # the entry must be in no list
# `counted_for`: as in Origin. `denied_side`: the side that denied the tuple's first packet, or -1.
cdef void begin_tuple(
    Table* t, uint32_t slot, Entry* e, const Packet* p, int32_t counted_for, bint initiator_high, uint8_t verdict,
    uint8_t reason, int denied_side) noexcept nogil
# Sets the instances of the sides whose instance is not in the flow record yet. Flows must be kept.
cdef void name_sides(Table* t, uint32_t slot, const int32_t* instance) noexcept nogil
cdef void set_side(
    Table* t, uint32_t slot, Entry* e, int side, uint8_t state, uint8_t flags, uint32_t rule,
    int64_t deadline) noexcept nogil
cdef void clear_side(Table* t, uint32_t slot, Entry* e, int side, uint8_t side_end) noexcept nogil
cdef void reopen_side(Table* t, uint32_t slot, Entry* e, int side, int64_t now) noexcept nogil
cdef void note_reply(Table* t, Entry* e, int side, bint reset) noexcept nogil
cdef void end_tuple(Table* t, uint32_t slot, Entry* e, int64_t now, uint8_t side_end) noexcept nogil
cdef void mark_opener(Table* t, uint32_t slot, Entry* e) noexcept nogil
# Writes two words for each live tuple: the number of its first packet (0 unless flows are kept) and `where` | its slot.
# Returns the number of tuples.
cdef uint32_t list_live(const Table* t, uint64_t where, uint64_t* out) noexcept nogil
cdef void report_slot(Table* t, uint32_t slot, int64_t now) noexcept nogil
# Reports live tuples from slot `first` on, until about `limit` are reported. Returns the next slot to begin with, or
# NO_SLOT at the end.
cdef uint32_t report_live(Table* t, int64_t now, uint32_t first, uint32_t limit) noexcept nogil
