# Conversations of records by their ends, and the conversations that a port has had lately.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.flow_logs.formats.record_row cimport Row
from sgfast.flow_logs.openers cimport Conversation

cdef enum:
    NO_CONVERSATION = 0xFFFFFFFF
    MOST_CONVERSATIONS = 1 << 20
    USES = 1 << 23                      # places that count the conversations of an address and port
    MOST_COUNTED = 1 << 20              # conversations, after which they are counted anew


# The other ends of the latest conversations of an address and port: their number up to SEVERAL, and above it marks of
# the first two.
cdef struct Uses:
    uint16_t ports          # different ports
    uint16_t peers          # different addresses and ports


cdef class ConversationTable:
    cdef Conversation* conversations
    cdef uint32_t* index            # numbers of conversations by hash
    cdef uint32_t count, used, capacity, unused, index_mask
    cdef uint64_t secret
    cdef Uses* uses                 # in places by hash
    cdef uint32_t used_since        # the conversations since these counts began

    cdef Conversation* find(
        self, const uint8_t* src, const uint8_t* dst, int way, const Row* row, uint16_t vpc, uint8_t has_icmp,
        uint8_t icmp_type
    ) noexcept nogil
    cdef void end(self, Conversation* c) noexcept nogil
    cdef void unlink(self, uint32_t number) noexcept nogil
    cdef void remove(self, uint32_t number) noexcept nogil
    cdef void decide(self, Conversation* c, bint may_be_older) noexcept nogil
    cdef void count_use(self, const Conversation* c, int end) noexcept nogil
    cdef Uses* uses_of(self, const Conversation* c, int end) noexcept nogil
    cdef bint grow(self) noexcept nogil
