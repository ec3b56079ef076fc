"""Conversations of records by their ends, and the uses of each end's port."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.intrinsics cimport fold, load64, popcount64
from sgfast.core.base.types cimport PROTO_TCP
from sgfast.clouds.logs.record_row cimport Row
from sgfast.traffic.flow_logs.openers cimport FIRST_RESERVED, NO_INTERFACE, UNUSED, Conversation, Signs, decide_opener

import os

# Ports from 512 to 32767 that services usually have, of TCP or UDP (SPEC 10.30). Other ports of this range are as often
# those of clients behind NAT and load balancers.
USUAL_PORTS = (
    # Remote shells, logs, routes, addresses, printers, directories, files, mail
    512, 513, 514, 515, 520, 521, 540, 543, 544, 546, 547, 548, 554, 563, 587, 593, 631, 636, 853, 873, 989, 990, 993,
    995,
    # Proxies, VPNs, lookups, accounting, calls, messages
    1080, 1194, 1701, 1723, 1812, 1813, 1883, 2049, 3128, 3478, 4500, 5060, 5061, 5080, 5222, 5269, 5353, 5355, 5671,
    5672, 6514, 6667, 8883, 15672,
    # Databases, caches, search
    1433, 1434, 1521, 2181, 2483, 2484, 3050, 3306, 5432, 5439, 5984, 6379, 7473, 7474, 7687, 8086, 8123, 8529, 9042,
    9200, 9300, 11211, 16379, 26379, 27017, 27018, 27019, 28015,
    # Storage, remote desktops, management, directories of Windows
    3260, 3268, 3269, 3389, 5900, 5985, 5986, 9389, 9418, 10000, 24007,
    # Containers and clusters
    2375, 2376, 2377, 2379, 2380, 4646, 4647, 4789, 6443, 6783, 7946, 8285, 8300, 8301, 8302, 8472, 8500, 8600, 10250,
    10255, 10256, 10257, 10259,
    # The web and its applications
    3000, 4443, 5000, 5001, 5601, 7001, 8000, 8001, 8008, 8009, 8080, 8081, 8082, 8083, 8088, 8089, 8090, 8091, 8161,
    8180, 8181, 8200, 8443, 8888, 9000, 9001, 9080, 9443,
    # Monitoring and logs
    4317, 4318, 5044, 6831, 8125, 9090, 9091, 9092, 9093, 9094, 9100, 9104, 9115, 9187, 9411, 10050, 10051, 12201,
    14250, 14268, 16686, 19999, 24224,
)

# Usual ports whose services call their clients, even when the connection has timed out: L2TP, STUN, IKE behind NAT,
# SIP, gossip.
CALLING_PORTS = (1701, 3478, 4500, 5060, 5080, 7946, 8301, 8302)

# Any odd numbers with many bits.
cdef uint64_t USES_KEY = 0x9E3779B97F4A7C15
cdef uint64_t MIX = 0xD6E8FEB86659FD93
# Bits of an element of `uses`.
cdef uint64_t MARKS = 0xFFFFFFFFFFFF
cdef uint64_t HIGH_MARKS = 0xFFFFFFFF


cdef class ConversationTable:
    def __cinit__(self):
        self.index_mask = 1023
        self.capacity = 512
        self.unused = NO_CONVERSATION
        self.index = <uint32_t*>malloc(1024 * sizeof(uint32_t))
        self.conversations = <Conversation*>calloc(self.capacity, sizeof(Conversation))
        self.uses = <uint64_t*>calloc(USES, sizeof(uint64_t))
        self.tcp_ports = <uint64_t*>calloc(1 << 16, sizeof(uint64_t))
        self.pairs = <uint32_t*>calloc(PAIRS, sizeof(uint32_t))
        if NULL in (self.index, self.conversations, self.uses, self.tcp_ports, self.pairs):
            raise MemoryError
        memset(self.index, 0xFF, 1024 * sizeof(uint32_t))
        self.secret = int.from_bytes(os.urandom(8), "little") | 1
        for port in USUAL_PORTS:
            self.usual_ports[port >> 3] |= 1 << (port & 7)
        for port in CALLING_PORTS:
            self.calling_ports[port >> 3] |= 1 << (port & 7)

    def __dealloc__(self):
        free(self.index)
        free(self.conversations)
        free(self.uses)
        free(self.tcp_ports)
        free(self.pairs)

    cdef Conversation* find(
        self, const uint8_t* src, const uint8_t* dst, int way, const Row* row, uint16_t vpc, uint8_t has_icmp,
        uint8_t icmp_type
    ) noexcept nogil:
        # Returns the conversation of a record, which may be new. Returns NULL if the table is full.
        cdef Conversation ends
        cdef uint64_t h
        memcpy(ends.ends, dst if way else src, 16)
        memcpy(&ends.ends[16], src if way else dst, 16)
        ends.ports[0] = (row.dport if way else row.sport) if row.has_ports else 0
        ends.ports[1] = (row.sport if way else row.dport) if row.has_ports else 0
        ends.protocol = <uint8_t>row.protocol
        ends.family = row.family
        ends.vpc = vpc
        ends.has_icmp = has_icmp
        ends.icmp_type = icmp_type
        ends.icmp_code = <uint8_t>row.icmp_code if has_icmp else 0
        h = fold(load64(ends.ends) ^ self.secret, load64(&ends.ends[8]) ^ (self.secret >> 9))
        h = fold(h ^ load64(&ends.ends[16]), load64(&ends.ends[24]) ^ self.secret)
        h = fold(
            h ^ (<uint64_t>ends.ports[0] << 16 | ends.ports[1] | <uint64_t>row.protocol << 32 | <uint64_t>vpc << 40),
            self.secret ^ (<uint64_t>icmp_type << 2 | has_icmp)
        )
        ends.hash = <uint32_t>(h ^ h >> 32)
        return self.find_ends(&ends)

    cdef Conversation* successor(self, uint32_t number) noexcept nogil:
        # Returns the conversation that replaces a retired one, which may be new. Returns NULL if the table is full.
        cdef Conversation ends = self.conversations[number]
        return self.find_ends(&ends)

    cdef Conversation* find_ends(self, const Conversation* ends) noexcept nogil:
        # Returns the conversation between the same ends, which may be new. Returns NULL if the table is full.
        cdef uint32_t number = self.index[ends.hash & self.index_mask]
        cdef uint32_t* place
        cdef uint64_t pair
        cdef Conversation* c
        while number != NO_CONVERSATION:
            c = &self.conversations[number]
            if (
                c.hash == ends.hash and c.ports[0] == ends.ports[0] and c.ports[1] == ends.ports[1]
                and c.protocol == ends.protocol and c.vpc == ends.vpc and c.has_icmp == ends.has_icmp
                and c.icmp_type == ends.icmp_type and memcmp(c.ends, ends.ends, 32) == 0
            ):
                return c
            number = c.next
        if self.unused == NO_CONVERSATION and self.count == self.capacity and not self.grow():
            return NULL
        self.used += 1
        if self.unused != NO_CONVERSATION:
            number = self.unused
            self.unused = self.conversations[number].next
        else:
            number = self.count
            self.count += 1
        c = &self.conversations[number]
        memset(c, 0, sizeof(Conversation))
        memcpy(c.ends, ends.ends, 32)
        c.ports = ends.ports
        c.protocol = ends.protocol
        c.family = ends.family
        c.vpc = ends.vpc
        c.has_icmp = ends.has_icmp
        c.icmp_type = ends.icmp_type
        c.icmp_code = ends.icmp_code
        c.interface[0] = c.interface[1] = NO_INTERFACE
        c.shown_by[0] = c.shown_by[1] = c.shown_by[2] = NO_INTERFACE
        c.last_ns = -(<int64_t>1 << 62)
        c.logged_ns = INT64_MAX
        c.hash = ends.hash
        if may_call_again(c):
            pair = hash_of_pair(c)
            c.came_back = self.pairs[pair & (PAIRS - 1)] == <uint32_t>(pair >> 32) | 1
        place = &self.index[c.hash & self.index_mask]
        c.next = place[0]
        place[0] = number
        return c

    cdef void retire(self, Conversation* c) noexcept nogil:
        # Takes a conversation out of the index, so that the next record of its ends begins another one. Records of this
        # one may still wait.
        self.unlink(<uint32_t>(c - self.conversations))
        c.is_retired = True
        self.remember(c)

    cdef void remember(self, const Conversation* c) noexcept nogil:
        # Remembers the ends of a connection of which both sent packets. Of two pairs with the same place, the later one
        # is remembered.
        cdef uint64_t pair
        if c.accepted == 3 and may_call_again(c):
            pair = hash_of_pair(c)
            self.pairs[pair & (PAIRS - 1)] = <uint32_t>(pair >> 32) | 1

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
            self.remember(c)
        c.next = self.unused
        c.pending = UNUSED
        self.unused = number
        self.used -= 1

    cdef void decide(self, Conversation* c, bint may_be_older) noexcept nogil:
        cdef Signs signs
        cdef uint64_t* uses = NULL
        cdef uint64_t anywhere
        cdef int end
        # Where flags tell, uses do not matter.
        for end in range(2):
            uses = self.uses_of(c, end, False) if c.ports[end] >= FIRST_RESERVED and c.sent_syn == 0 else NULL
            signs.high[end] = popcount64(uses[0] & HIGH_MARKS) if uses != NULL else 0
            signs.low[end] = popcount64(uses[0] & MARKS & ~HIGH_MARKS) if uses != NULL else 0
            anywhere = self.tcp_ports[c.ports[end]] if c.protocol == PROTO_TCP else 0
            signs.high_anywhere[end] = popcount64(anywhere & HIGH_MARKS)
            signs.low_anywhere[end] = popcount64(anywhere & ~HIGH_MARKS)
            signs.usual[end] = self.usual_ports[c.ports[end] >> 3] >> (c.ports[end] & 7) & 1
            signs.calls[end] = self.calling_ports[c.ports[end] >> 3] >> (c.ports[end] & 7) & 1
        decide_opener(c, may_be_older, &signs)

    cdef void count_uses(self, const Conversation* c) noexcept nogil:
        # Marks each end's port as one that the other end's port was used with.
        cdef uint64_t* uses
        cdef uint64_t mark
        cdef int end
        self.counted += 1
        if self.counted == MOST_COUNTED:
            self.counted = 0
            memset(self.uses, 0, USES * sizeof(uint64_t))
            memset(self.tcp_ports, 0, (1 << 16) * sizeof(uint64_t))
        for end in range(2):
            mark = c.ports[1 - end] * MIX
            mark = <uint64_t>1 << (32 + (mark >> 60) if c.ports[1 - end] < FIRST_RESERVED else mark >> 59)
            uses = self.uses_of(c, end, True) if c.ports[end] >= FIRST_RESERVED else NULL
            if uses != NULL:
                uses[0] |= mark
            if c.protocol == PROTO_TCP:
                self.tcp_ports[c.ports[end]] |= mark

    cdef uint64_t* uses_of(self, const Conversation* c, int end, bint adds) noexcept nogil:
        # Returns the uses of an end's address and port; NULL if none were counted or, with `adds`, if there is no room.
        # The hash has no random part, so that two runs over one log give the same answer.
        cdef const uint8_t* address = &c.ends[16 * end]
        cdef uint64_t port = <uint64_t>c.ports[end] | <uint64_t>c.protocol << 16 | <uint64_t>c.vpc << 24
        cdef uint64_t h = fold(load64(address) ^ USES_KEY ^ port * MIX, load64(address + 8) ^ MIX)
        cdef uint64_t tag = (h & ~MARKS) | <uint64_t>1 << 63
        cdef uint64_t* uses
        cdef int i
        for i in range(PROBES):
            uses = self.uses + ((h + i) & (USES - 1))
            if uses[0] == 0 and adds:
                uses[0] = tag
            if uses[0] & ~MARKS == tag:
                return uses
            if uses[0] == 0:
                return NULL
        return NULL

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


cdef inline bint may_call_again(const Conversation* c) noexcept nogil:
    # Returns whether either end may open the next connection between the same ends and ports.
    return c.protocol != PROTO_TCP and (c.ports[0] != 0 or c.ports[1] != 0)


cdef inline uint64_t hash_of_pair(const Conversation* c) noexcept nogil:
    # Like that of `uses_of`, this hash has no random part.
    cdef uint64_t h = fold(load64(c.ends) ^ USES_KEY, load64(&c.ends[8]) ^ MIX)
    h = fold(h ^ load64(&c.ends[16]), load64(&c.ends[24]) ^ USES_KEY)
    return fold(
        h ^ (<uint64_t>c.ports[0] << 16 | c.ports[1] | <uint64_t>c.protocol << 32 | <uint64_t>c.vpc << 40), MIX
    )
