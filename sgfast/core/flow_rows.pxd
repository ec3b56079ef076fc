# Tuples as rows: what a connection report lists, and what a summary counts. Rows wait in their table until somebody
# takes them (``AccountingPlane.take_flows``), or has counted them.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.conntrack cimport Ends, FlowRow, Table
from sgfast.core.types cimport FlowKey

# The ICMP type that asks, by wire.icmp_query's number.
cdef uint16_t query_type(uint8_t family, uint32_t query) noexcept nogil
cdef void key_of(const Table* t, uint32_t slot, FlowKey* key) noexcept nogil
cdef void spell_ends(const Table* t, uint32_t slot, bint initiator_high, Ends* ends) noexcept nogil
# What the report would say of a tuple if it ended; False: nothing.
cdef bint tell_tuple(Table* t, uint32_t slot, int64_t now, uint8_t side_end, FlowRow* row) noexcept nogil
cdef void report_tuple(Table* t, uint32_t slot, int64_t now, uint8_t side_end) noexcept nogil
# A denied attempt whose key opened after all is over, and a connection begins. `told`: what the report says of it.
cdef void restart_tuple(Table* t, uint32_t slot, const FlowRow* told) noexcept nogil
