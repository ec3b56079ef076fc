"""Conversations of records by their ends, and the conversations that a port has had lately."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.intrinsics cimport fold, load64
from sgfast.flow_logs.formats.record_row cimport Row
from sgfast.flow_logs.openers cimport NO_INTERFACE, SEVERAL, UNUSED, Conversation, decide_opener

import os

# Any odd numbers with many bits.
cdef uint64_t USES_KEY = 0x9E3779B97F4A7C15
cdef uint64_t MIX = 0xD6E8FEB86659FD93


cdef class ConversationTable:
    def __cinit__(self):
        self.index_mask = 1023
        self.capacity = 512
        self.unused = NO_CONVERSATION
        self.index = <uint32_t*>malloc(1024 * sizeof(uint32_t))
        self.conversations = <Conversation*>calloc(self.capacity, sizeof(Conversation))
        self.uses = <Uses*>calloc(USES, sizeof(Uses))
        if self.index == NULL or self.conversations == NULL or self.uses == NULL:
            raise MemoryError
        memset(self.index, 0xFF, 1024 * sizeof(uint32_t))
        self.secret = int.from_bytes(os.urandom(8), "little") | 1

    def __dealloc__(self):
        free(self.index)
        free(self.conversations)
        free(self.uses)

    cdef Conversation* find(
        self, const uint8_t* src, const uint8_t* dst, int way, const Row* row, uint16_t vpc, uint8_t has_icmp,
        uint8_t icmp_type
    ) noexcept nogil:
        # Finds or makes the conversation of a record. Returns NULL if there is no room.
        cdef const uint8_t* low = dst if way else src
        cdef const uint8_t* high = src if way else dst
        cdef uint16_t low_port = row.dport if way else row.sport
        cdef uint16_t high_port = row.sport if way else row.dport
        cdef uint64_t h
        cdef uint32_t at, number
        cdef Conversation* c
        cdef int end
        if not row.has_ports:
            low_port = high_port = 0
        h = fold(load64(low) ^ self.secret, load64(low + 8) ^ (self.secret >> 9))
        h = fold(h ^ load64(high), load64(high + 8) ^ self.secret)
        h = fold(
            h ^ (<uint64_t>low_port << 16 | high_port | <uint64_t>row.protocol << 32 | <uint64_t>vpc << 40),
            self.secret ^ (<uint64_t>icmp_type << 2 | has_icmp)
        )
        h ^= h >> 32
        at = <uint32_t>h & self.index_mask
        number = self.index[at]
        while number != NO_CONVERSATION:
            c = &self.conversations[number]
            if (
                c.hash == <uint32_t>h and c.ports[0] == low_port and c.ports[1] == high_port
                and c.protocol == row.protocol and c.vpc == vpc and c.has_icmp == has_icmp and c.icmp_type == icmp_type
                and memcmp(c.ends, low, 16) == 0 and memcmp(&c.ends[16], high, 16) == 0
            ):
                return c
            number = c.next
        if self.unused == NO_CONVERSATION and self.count == self.capacity and not self.grow():
            return NULL
        at = <uint32_t>h & self.index_mask
        self.used += 1
        if self.unused != NO_CONVERSATION:
            number = self.unused
            self.unused = self.conversations[number].next
        else:
            number = self.count
            self.count += 1
        c = &self.conversations[number]
        memset(c, 0, sizeof(Conversation))
        memcpy(c.ends, low, 16)
        memcpy(&c.ends[16], high, 16)
        c.ports[0] = low_port
        c.ports[1] = high_port
        c.protocol = <uint8_t>row.protocol
        c.family = row.family
        c.vpc = vpc
        c.has_icmp = has_icmp
        c.icmp_type = icmp_type
        c.interface[0] = c.interface[1] = NO_INTERFACE
        c.last_ns = -(<int64_t>1 << 62)
        c.logged_ns = INT64_MAX
        c.hash = <uint32_t>h
        c.next = self.index[at]
        self.index[at] = number
        if row.has_ports:
            self.used_since += 1
            if self.used_since == MOST_COUNTED:
                self.used_since = 0
                memset(self.uses, 0, USES * sizeof(Uses))
            for end in range(2):
                self.count_use(c, end)
        return c

    cdef void retire(self, Conversation* c) noexcept nogil:
        # Takes a conversation out of the index, so that the next record of its ends begins another one. Records of this
        # one may still wait.
        self.unlink(<uint32_t>(c - self.conversations))
        c.is_retired = True

    cdef void unlink(self, uint32_t number) noexcept nogil:
        cdef Conversation* c = &self.conversations[number]
        cdef uint32_t* link = &self.index[c.hash & self.index_mask]
        while link[0] != number:
            link = &self.conversations[link[0]].next
        link[0] = c.next

    cdef void remove(self, uint32_t number) noexcept nogil:
        cdef Conversation* c = &self.conversations[number]
        if not c.is_retired:
            self.unlink(number)
        c.next = self.unused
        c.pending = UNUSED
        self.unused = number
        self.used -= 1

    cdef Uses* uses_of(self, const Conversation* c, int end) noexcept nogil:
        # Returns the counts for an end's address and port. Two ends may share them. The hash has no secret, because the
        # same log must give the same answer each time. An attacker who makes ends share counts can only make records
        # undecided.
        cdef const uint8_t* address = &c.ends[16 * end]
        cdef uint64_t port = <uint64_t>c.ports[end] | <uint64_t>c.protocol << 16 | <uint64_t>c.vpc << 24
        cdef uint64_t h = fold(load64(address) ^ USES_KEY ^ port * MIX, load64(address + 8) ^ MIX)
        return self.uses + ((h ^ h >> 32) & (USES - 1))

    cdef void decide(self, Conversation* c, bint may_be_older) noexcept nogil:
        cdef uint8_t ports[2]
        cdef uint8_t peers[2]
        cdef Uses* uses
        cdef int end
        for end in range(2):
            uses = self.uses_of(c, end)
            ports[end] = uses.ports & SEVERAL
            peers[end] = uses.peers & SEVERAL
        decide_opener(c, may_be_older, ports, peers)

    cdef void count_use(self, const Conversation* c, int end) noexcept nogil:
        cdef Uses* uses = self.uses_of(c, end)
        cdef uint64_t port = c.ports[1 - end]
        cdef const uint8_t* address = &c.ends[16 * (1 - end)]
        count_new(&uses.ports, port * MIX)
        count_new(&uses.peers, fold(load64(address) ^ USES_KEY ^ port * MIX, load64(address + 8) ^ MIX))

    cdef bint grow(self) noexcept nogil:
        # Doubles the room for conversations, all of which are in use, and the index with it. Returns False if that is
        # not possible.
        cdef uint32_t capacity = 2 * self.capacity
        cdef Conversation* conversations
        cdef uint32_t* index
        cdef uint32_t i, at
        if capacity > MOST_CONVERSATIONS:
            return False
        index = <uint32_t*>malloc(2 * <size_t>capacity * sizeof(uint32_t))
        conversations = <Conversation*>realloc(self.conversations, capacity * sizeof(Conversation))
        if conversations != NULL:
            self.conversations = conversations
        if index == NULL or conversations == NULL:
            free(index)
            return False
        free(self.index)
        self.index = index
        self.index_mask = 2 * capacity - 1
        memset(index, 0xFF, 2 * <size_t>capacity * sizeof(uint32_t))
        for i in range(self.count):
            if conversations[i].is_retired:
                continue
            at = conversations[i].hash & self.index_mask
            conversations[i].next = index[at]
            index[at] = i
        self.capacity = capacity
        return True


cdef inline void count_new(uint16_t* counted, uint64_t h) noexcept nogil:
    # Counts what has this hash, unless it was counted before.
    cdef uint32_t mark = <uint32_t>(h >> 57)
    cdef uint32_t count = counted[0] & SEVERAL
    cdef uint32_t marks = counted[0] >> 2
    if count < SEVERAL and not (count and marks & 127 == mark) and not (count == 2 and marks >> 7 == mark):
        counted[0] = <uint16_t>(counted[0] + 1 | (mark << (2 + 7 * count) if count < 2 else 0))
