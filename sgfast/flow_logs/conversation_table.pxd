# Conversations of records by their ends, and the conversations that a port has had lately.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.flow_logs.formats.record_row cimport Row
from sgfast.flow_logs.openers cimport Conversation

cdef enum:
    NO_CONVERSATION = 0xFFFFFFFF
    MOST_CONVERSATIONS = 1 << 20
    USES = 1 << 24                      # places that count the conversations of a port


cdef class ConversationTable:
    cdef Conversation* conversations
    cdef uint32_t* index            # numbers of conversations by hash
    cdef uint32_t count, used, capacity, unused, index_mask
    cdef uint64_t secret
    cdef uint8_t* uses              # counts of the latest conversations of a port of an end, in places by hash
    cdef uint32_t used_since        # the conversations since these counts began

    cdef Conversation* find(
        self, const uint8_t* src, const uint8_t* dst, int way, const Row* row, uint16_t vpc, uint8_t has_icmp,
        uint8_t icmp_type
    ) noexcept nogil
    cdef void remove(self, uint32_t number) noexcept nogil
    cdef void decide(self, Conversation* c, bint may_be_older) noexcept nogil
    cdef uint8_t* uses_of(self, const Conversation* c, int end) noexcept nogil
    cdef bint grow(self) noexcept nogil
