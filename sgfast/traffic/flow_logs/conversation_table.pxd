# Conversations of records by their ends, and the uses of each end's port.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.clouds.logs.record_row cimport Row
from sgfast.traffic.flow_logs.openers cimport Conversation

cdef enum:
    NO_CONVERSATION = 0xFFFFFFFF
    MOST_CONVERSATIONS = 1 << 20
    USES = 1 << 22                      # the length of `uses`
    PROBES = 8                          # the places of `uses` in which an end may be
    PAIRS = 1 << 20                     # the length of `pairs`
    MOST_COUNTED = 1 << 20              # after so many conversations, the uses are cleared


cdef class ConversationTable:
    cdef Conversation* conversations
    cdef uint32_t* index            # numbers of conversations by hash
    cdef uint32_t count, used, capacity, unused, index_mask
    cdef uint64_t secret
    # The uses of an address and port, by their hash, of which a part is in bits 48 to 63. Bits 0 to 31 and 32 to 47 are
    # marks of the ports at the other ends: of those from FIRST_RESERVED on, and of those below. 0: free.
    cdef uint64_t* uses
    cdef uint64_t* tcp_ports        # the same marks by TCP port, whatever address has it
    cdef uint32_t counted           # the conversations counted since `uses` was cleared
    cdef uint32_t* pairs            # parts of hashes of ends between which an earlier connection has timed out
    cdef uint8_t usual_ports[1 << 13]   # a bit for each of USUAL_PORTS
    cdef uint8_t calling_ports[1 << 13]     # a bit for each of CALLING_PORTS

    cdef Conversation* find(
        self, const uint8_t* src, const uint8_t* dst, int way, const Row* row, uint16_t vpc, uint8_t has_icmp,
        uint8_t icmp_type
    ) noexcept nogil
    cdef Conversation* successor(self, uint32_t number) noexcept nogil
    cdef Conversation* find_ends(self, const Conversation* ends) noexcept nogil
    cdef void remember(self, const Conversation* c) noexcept nogil
    cdef void retire(self, Conversation* c) noexcept nogil
    cdef void unlink(self, uint32_t number) noexcept nogil
    cdef void remove(self, uint32_t number) noexcept nogil
    cdef void decide(self, Conversation* c, bint may_be_older) noexcept nogil
    cdef void count_uses(self, const Conversation* c) noexcept nogil
    cdef uint64_t* uses_of(self, const Conversation* c, int end, bint adds) noexcept nogil
    cdef bint grow(self) noexcept nogil
