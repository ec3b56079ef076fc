# Conversations of records by their ends, and the conversations that a port has had lately.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.flow_logs.formats.record_row cimport Row
from sgfast.flow_logs.openers cimport Conversation

cdef enum:
    NO_CONVERSATION = 0xFFFFFFFF
    MOST_CONVERSATIONS = 1 << 20
    USES = 1 << 23                      # the length of `uses`
    MOST_COUNTED = 1 << 20              # after so many conversations, the counts are cleared


# The number of different ports, and of different addresses and ports, at the other ends of an address and port. Bits 0
# and 1 count up to SEVERAL. The other bits hold marks of the first two, 7 bits each.
cdef struct Uses:
    uint16_t ports
    uint16_t peers


cdef class ConversationTable:
    cdef Conversation* conversations
    cdef uint32_t* index            # numbers of conversations by hash
    cdef uint32_t count, used, capacity, unused, index_mask
    cdef uint64_t secret
    cdef Uses* uses                 # by the hash of an address and port
    cdef uint32_t used_since        # the conversations counted since the counts were cleared

    cdef Conversation* find(
        self, const uint8_t* src, const uint8_t* dst, int way, const Row* row, uint16_t vpc, uint8_t has_icmp,
        uint8_t icmp_type
    ) noexcept nogil
    cdef void retire(self, Conversation* c) noexcept nogil
    cdef void unlink(self, uint32_t number) noexcept nogil
    cdef void remove(self, uint32_t number) noexcept nogil
    cdef void decide(self, Conversation* c, bint may_be_older) noexcept nogil
    cdef void count_use(self, const Conversation* c, int end) noexcept nogil
    cdef Uses* uses_of(self, const Conversation* c, int end) noexcept nogil
    cdef bint grow(self) noexcept nogil
