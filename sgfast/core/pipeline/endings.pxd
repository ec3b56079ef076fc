# Counts ended tuples for the summary by the other end's reaction: connections that were allowed but not answered, and
# connections that were denied although the other end answered (SPEC 10.4). The first packets of these tuples are in the
# tallies BEGAN and DENIALS, where most endings are counted, too (Origin.endings). This module counts the endings of
# tuples without such a row: there was no room for their peer, or the key of a denied attempt opened later.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from sgfast.core.base.icmp cimport icmp_query
from sgfast.core.base.types cimport ALLOW, NO_REASON
from sgfast.core.conntrack.flow_rows cimport fill_flow_row
from sgfast.core.conntrack.storage cimport ORIGIN_CALLED, Origin, entry_at, origin_at
from sgfast.core.conntrack.table cimport REPORT_ALL, SIDE_OPEN, TUPLE_DENIED, FlowRow, Table
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.tallies.tally cimport (
    BEGAN,
    BROKEN,
    DENIALS,
    REFUSED,
    TALLY_KEY_BYTES,
    TALLY_KINDS,
    UNANSWERED,
    Tally,
    TallyKey,
    TallyRow,
    find_kind,
    have_rows,
    key_hash,
    key_of_kind,
    queue_kind,
)

cdef enum:
    # Rows of ended tuples that are counted together, while they are still in the cache.
    ENDED_TOGETHER = 32


cdef inline TallyKey key_of_row(const FlowRow* row, uint8_t reason, int32_t rule) noexcept nogil:
    # Returns the key of the tally row in which a tuple's first packet was counted. `reason`, `rule`: in that row.
    cdef bint inbound = not row.denied_out
    cdef uint16_t port_key = <uint16_t>(row.ends.ports & 0xFFFF) if row.ends.has_ports else row.ends.icmp
    cdef TallyKey key
    cdef bint is_reply
    if row.verdict == ALLOW and row.ends.icmp:
        if icmp_query(row.ends.family == 6, <uint8_t>(row.ends.icmp >> 8), &is_reply):
            port_key &= 0xFF00      # as packet_tallies.pxd counts connections when they begin
    key = key_of_kind(
        row.counted_for, port_key, row.ends.protocol, reason, inbound, row.ends.family == 6, row.ends.has_ports,
        row.ends.icmp != 0, rule
    )
    memcpy(key.peer, &row.ends.initiator[0] if inbound else &row.ends.responder[0], 16)
    return key


cdef inline void tally_row(Plane* plane, const FlowRow* row) noexcept nogil:
    # Counts an allowed connection only for its responder, and a denied one for the side that denied it.
    cdef bint allowed = row.verdict == ALLOW
    cdef Tally* tally = &plane.tallies[BROKEN]
    cdef TallyKey key
    if allowed:
        tally = &plane.tallies[REFUSED if row.answer == 2 else UNANSWERED]
    if row.counted_for >= 0:
        key = key_of_row(row, <uint8_t>NO_REASON if allowed else row.reason, -1)
        queue_kind(&plane.queue, tally, &key, 0, 0).connections = 1


cdef inline int32_t rule_of_endings(const Origin* origin) noexcept nogil:
    # Returns the rule of the tally row in which the ending counts. `endings` is the last field of that row, so its
    # address leads to the beginning of the row. The queue must be empty.
    return row_with(origin.endings).rule


cdef inline const TallyRow* row_with(const uint64_t* endings) noexcept nogil:
    # Returns the tally row that has these counters.
    return <const TallyRow*>(<const uint8_t*>endings - sizeof(TallyRow) + 2 * sizeof(uint64_t))


cdef inline void relink(Plane* plane, Plane* first, Table* t, uint32_t slot, int32_t rule) noexcept nogil:
    # Links a tuple of a snapshot to the row in which its ending counts. All rows are loaded into the first plane. A
    # tuple of another plane gets a row with the same key in its own plane. Reports add up the rows of all planes.
    cdef bint denied = entry_at(&t.slab, slot).marks & TUPLE_DENIED
    cdef Tally* tally = &plane.tallies[DENIALS] if denied else &plane.tallies[BEGAN]
    cdef Tally* loaded = &first.tallies[DENIALS] if denied else &first.tallies[BEGAN]
    cdef TallyKey key
    cdef FlowRow row
    cdef uint64_t* endings
    fill_flow_row(t, slot, 0, SIDE_OPEN, &row)
    key = key_of_row(&row, row.reason, rule)
    endings = linked_endings(tally, loaded, &key)
    if endings != NULL:
        origin_at(&t.slab, slot).endings = endings


cdef inline void relink_attempt(
    Plane* plane, Plane* first, Table* t, uint32_t slot, const uint8_t* attempt
) noexcept nogil:
    # Links a tuple of a snapshot to the row of the denied attempt that came before it. `attempt`: the row's key.
    cdef Origin* origin = origin_at(&t.slab, slot)
    cdef TallyKey key
    memcpy(&key, attempt, TALLY_KEY_BYTES)
    origin.attempt = linked_endings(&plane.tallies[DENIALS], &first.tallies[DENIALS], &key)
    if origin.attempt == NULL:
        origin.ends &= <uint8_t>~ORIGIN_CALLED


cdef inline uint64_t* linked_endings(Tally* tally, Tally* loaded, const TallyKey* key) noexcept nogil:
    # Returns the counters of a tally's row with the same key as a loaded row. NULL: no such row was loaded.
    cdef TallyRow* counted
    if loaded.rows == NULL or find_kind(loaded, key, key_hash(loaded, key), 0) == NULL or not have_rows(tally):
        return NULL
    counted = find_kind(tally, key, key_hash(tally, key), TALLY_KINDS)
    return counted.endings if counted != NULL else NULL


cdef inline void count_ended(Plane* plane, Table* t) noexcept nogil:
    # Counts the ended tuples that are not counted yet. Drops their rows, unless flows are kept.
    cdef const FlowRow* row
    while t.tallied < t.ended_count:
        row = &t.ended[t.tallied]
        # Counts the row if the tuple was allowed but not answered, or denied but answered.
        if (row.verdict == ALLOW) != (row.answer == 1):
            tally_row(plane, row)
        t.tallied += 1
    if t.reports != REPORT_ALL:
        t.ended_count = 0
        t.tallied = 0
