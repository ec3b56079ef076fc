# Saves a data plane's state as arrays, and loads the arrays: ``sgfast.engine.snapshot`` makes files of them.
#
# A table is saved as rows in any order. The orders that matter (age list, mark list) are saved as row numbers. Slots,
# index, timer wheel and hash key are not saved: the loading process makes its own, as no verdict depends on them. So no
# value from a file is ever used as a memory location, and every row is checked before it is added.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.conntrack.storage cimport FlowRecord, FlowSides


cdef packed struct TupleRow:
    uint64_t addr[4]        # as in FlowKey
    int64_t deadline[2]
    uint32_t rule[2]
    uint32_t ports
    uint8_t protocol
    uint8_t kind
    uint8_t state[2]
    uint8_t flags[2]
    uint8_t marks
    uint8_t present


cdef struct RecordRow:
    FlowRecord flow
    FlowSides sides


cdef struct OriginRow:
    int32_t counted_for     # counted_for, icmp, reason and ends are as in Origin
    uint16_t icmp
    uint8_t reason
    uint8_t ends
    int32_t rule            # rule of the tally row in which the ending counts
    uint32_t linked         # whether there is such a tally row
    uint8_t attempt[32]     # with ORIGIN_CALLED: the key of the denied attempt's tally row
