# Events of connections, for Engine.events (SPEC 14.15): rows wait in a list of each plane until they are taken.
# Only the slow path, timeouts and changes of the policy write rows. Flow records must be kept. These functions are not
# inlined, because without events they would only cost the slow path registers.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sgfast.core.conntrack.states cimport MOOT_TCP, NO_STATE
from sgfast.core.conntrack.storage cimport Entry
from sgfast.core.conntrack.table cimport Events, Table

cdef enum:
    # Events that a data plane keeps until they are taken; 150 MB.
    MAX_EVENTS = 1 << 20


cdef inline bint is_connection(uint8_t state) noexcept nogil:
    return NO_STATE < state < MOOT_TCP


cdef inline bint has_connection(const Entry* e) noexcept nogil:
    # Whether a side has a connection, even one that has timed out; moot marks do not count.
    return is_connection(e.state[0]) or is_connection(e.state[1])


# Returns the status of what a filter remembers (SPEC 14.14), or NOT_REMEMBERED.
cdef uint8_t status_of(const Entry* e, int64_t now) noexcept nogil
# Writes an event of the tuple in `slot` of `t`.
cdef void tell(
    Events* events, Table* t, uint32_t slot, int64_t time_ns, uint64_t place, uint8_t kind, uint8_t how
) noexcept nogil
# Tells the end of a connection, unless it was told already.
cdef void tell_over(
    Table* t, uint32_t slot, int64_t time_ns, uint64_t place, uint8_t kind, uint8_t how
) noexcept nogil
# Call this after a packet of a live tuple. `begins`: the packet began the tuple. `creates`: a filter that had no
# connection has one now, and the packet passed. `kind`: the event if either is so.
cdef void tell_packet(
    Table* t, uint32_t slot, const Entry* e, int64_t now, uint64_t number, bint begins, bint creates,
    uint8_t kind) noexcept nogil
# Call this before a tuple ends, or when no filter has its connection any more. `how`: as in `end_tuple`.
cdef void tell_forgotten(Table* t, uint32_t slot, const Entry* e, int64_t now, uint8_t how) noexcept nogil
