# Network interfaces in flow logs: the addresses that all records of an interface share tell whose interface it is.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from sgfast.core.base.intrinsics cimport load64
from sgfast.traffic.flow_logs.conversation_table cimport ConversationTable
from sgfast.clouds.logs.record_row cimport Row
from sgfast.traffic.flow_logs.openers cimport INTERFACES_SHOWN, NO_INTERFACE, Conversation
from sgfast.traffic.flow_logs.record_packets cimport Waiting

cdef enum:
    # Values of Interface.count besides 1 and 2.
    NO_RECORD = 0
    NONE_SHARED = 3
    # As in columns.py.
    INGRESS = 1
    EGRESS = 2

# The roles of interfaces, in the order of ROLES in interfaces.pyx.
cdef enum:         # Role
    ORDINARY = 0
    OUTSIDE = 1             # its own address is no instance's
    OF_OTHER_OWNER = 2      # it had an instance's address at another time
    PERHAPS_OF_OTHER = 3    # that is possible

# The conclusions about a conversation from the interfaces that show it.
cdef enum:         # Conversation.alone
    NOT_LOOKED = 0
    IS_ORDINARY = 1
    IS_TRANSLATED = 2       # a NAT gateway shows a connection again that its client's interface shows
    IS_DOUBTFUL = 3         # it may be that of another owner, or of a NAT gateway
    IS_OUTSIDE = 4          # no instance has an end. If the interface is a NAT gateway's, its clients' show it, too


cdef struct Interface:
    # By IP version, IPv4 first: the addresses that all records have. If there is one, the second element is an address
    # that only some have, or zeros.
    uint8_t shared[2][2][16]
    uint8_t count[2]
    uint8_t role[2]
    uint8_t is_changed      # since it was judged
    int64_t first_ns        # the earliest start and the latest end of its records
    int64_t last_ns
    uint64_t left_out       # records left out because of this interface
    uint64_t doubtful       # judged records of doubtful conversations
    uint64_t translated     # conversations that it shows again
    uint64_t of_clients     # records of an instance's packets to its own address, or of their answers
    uint64_t passed_on      # those that have an equal record of its own address and a peer that is no instance


# An address of an instance that is an interface's own.
cdef struct Home:
    uint8_t address[16]
    int32_t interface
    uint8_t is_taken
    uint8_t is_sure


# The first address of a range that the same instances own.
cdef struct Start:
    uint64_t high
    uint64_t low
    uint8_t is_owned
    uint8_t is_seen         # a record without an interface has an address of the range


cdef class Interfaces:
    cdef ConversationTable table
    cdef object words, owners
    cdef Interface* interfaces
    cdef Py_ssize_t capacity
    cdef bint is_changed, has_other_owners, has_outside, has_perhaps
    cdef Home* homes
    cdef uint64_t home_mask
    cdef Start* starts[2]
    cdef Py_ssize_t start_count[2]
    # Ends of conversations by address and ports: 2 x the number of the conversation + the end. NULL if not made yet.
    cdef uint32_t* end_heads
    cdef uint32_t* end_links
    cdef uint32_t end_mask

    cdef bint grow(self, Py_ssize_t number) noexcept nogil
    cdef void narrow(self, Interface* i, int version, const Row* row) noexcept nogil
    cdef void note_ends(self, const Conversation* c) noexcept nogil
    cdef int keep_homes(self, dict homes) except -1
    cdef list shared_addresses(self, Py_ssize_t number, int version)
    cdef void look_at(self, const Waiting* waiting, Py_ssize_t count) noexcept nogil
    cdef int note_passed_on(self, const Waiting* waiting, Py_ssize_t count) except -1
    cdef int cause_of(self, Conversation* c, const Waiting* w) noexcept nogil
    cdef int32_t other_owner(self, const Conversation* c, const Waiting* w, int version) noexcept nogil
    cdef int look(self, const Conversation* c, const Waiting* w, int version) noexcept nogil
    cdef bint is_unexplained(self, const Conversation* c, int version) noexcept nogil
    cdef Start* start_of(self, const uint8_t* address, int version) noexcept nogil
    cdef const Home* home_of(self, const uint8_t* address) noexcept nogil
    cdef bint has_twin(self, const Conversation* c, int end, const Home* home, const Waiting* w) noexcept nogil
    cdef bint link_ends(self) noexcept nogil
    cdef void forget_ends(self) noexcept nogil

    cdef inline void note_record(self, const Row* row, int64_t end_ns) noexcept nogil:
        # Takes a record's own addresses, which behind NAT are not those of its connection.
        cdef Interface* i
        cdef int version = row.family == 6
        if row.interface < 0 or (row.interface >= self.capacity and not self.grow(row.interface)):
            return
        i = &self.interfaces[row.interface]
        i.first_ns = min(i.first_ns, row.start_ns)
        i.last_ns = max(i.last_ns, end_ns)
        if i.count[version] == NONE_SHARED or (i.count[version] == 1 and has_own(row, i.shared[version][0])):
            return
        self.narrow(i, version, row)


cdef inline bint same_address(const uint8_t* a, const uint8_t* b) noexcept nogil:
    return ((load64(a) ^ load64(b)) | (load64(a + 8) ^ load64(b + 8))) == 0


cdef inline bint has_own(const Row* row, const uint8_t* address) noexcept nogil:
    # Returns whether the address may be that of the record's interface.
    return (
        (row.direction != EGRESS and same_address(row.dst, address))
        or (row.direction != INGRESS and same_address(row.src, address))
    )


cdef inline void note_shown(Conversation* c, int32_t interface) noexcept nogil:
    # Takes the interface of a conversation's record. The latest ones are kept if there are too many.
    cdef int k
    if interface < 0 or c.shown_by[0] == interface:
        return
    for k in range(INTERFACES_SHOWN):
        if c.shown_by[k] == interface:
            return
        if c.shown_by[k] == NO_INTERFACE:
            c.shown_by[k] = interface
            return
    c.shown_by[INTERFACES_SHOWN - 1] = interface
