# A data plane's state as arrays, and back: what ``sgfast.snapshot`` puts into a file.
#
# What a table holds is written as rows, in any order, beside the orders that matter (age, openers seen) as row numbers.
# Slots, index, wheel and hash key are the new process's own: no verdict depends on them. So nothing read from a file
# is ever used as a place in memory, and every row is checked before it is put in.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef packed struct TupleRow:
    uint64_t addr[4]        # FlowKey's
    int64_t deadline[2]
    uint32_t rule[2]
    uint32_t ports
    uint8_t protocol
    uint8_t kind
    uint8_t state[2]
    uint8_t flags[2]
    uint8_t marks
    uint8_t present
