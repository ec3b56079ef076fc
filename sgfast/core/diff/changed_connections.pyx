"""Changed connections of two engines; ``changed_connections.pxd`` defines them."""

import numpy as np

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.frames cimport Frame, FrameBatch, packets_of
from sgfast.core.base.icmp cimport opener_port_key
from sgfast.core.base.intrinsics cimport fold, likely, prefetch
from sgfast.core.base.key cimport KIND_ICMP_QUERY, KIND_ONE_WAY, KIND_PORTS, address_of, write_address
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.base.types cimport (
    ALLOW,
    DENY,
    DENY_RULE,
    MOOT,
    NO_RULE,
    PENDING,
    PROTO_TCP,
    READ_BROKEN,
    READ_FRAGMENT,
    READ_ICMP_ERROR,
    READ_NOT_IP,
    READ_TRACKED,
    STEP_REPLY,
    TCP_SYN,
    TCP_SYNACK,
    WORD_BEGAN,
    WORD_FAST,
    WORD_FOLLOWS,
    WORD_HEARD,
    WORD_HIGH_SHIFT,
    WORD_KNOWN,
    WORD_REASON_SHIFT,
    WORD_VERDICT,
)
from sgfast.core.dataplane cimport DataPlane
from sgfast.core.dtypes cimport bytes_of_rows, copied_rows
from sgfast.core.wire.header_rows cimport write_header_row
from sgfast.core.wire.ip cimport FILTERED, read_frame, read_quote

from sgfast.core.dtypes import HEADER_DTYPE

cdef enum:
    NO_UNIT = 0xFFFFFFFF
    KEY_WORDS = 5               # 64-bit words of a UnitKey
    KIND_WORDS = 6              # 64-bit words of a group's key
    KIND_BYTES = 48
    OUTCOME = 0xFF              # mask of verdict and reason in an result word

CHANGED_DTYPE = np.dtype([
    ("initiator", "u1", (16,)), ("responder", "u1", (16,)), ("port_key", "<u2"), ("protocol", "u1"), ("family", "u1"),
    ("has_ports", "u1"), ("has_icmp", "u1"), ("old", "u1"), ("new", "u1"), ("turned_port", "<u2"), ("turned", "u1"),
    ("inward", "u1"), ("unused", "u1", (4,)), ("connections", "<u8"), ("answered", "<u8"), ("packets", "<u8"),
    ("bytes", "<u8"), ("first_ns", "<i8"), ("last_ns", "<i8"), ("number", "<u8"),
    ("example_packet", "<u8", (EXAMPLES,)),
    ("example_ns", "<i8", (EXAMPLES,)), ("example_port", "<u2", (EXAMPLES,)), ("spare", "<u2"),
])
assert CHANGED_DTYPE.itemsize == sizeof(GroupRow) and sizeof(UnitKey) == 8 * KEY_WORDS
cdef GroupRow laid_out
assert <char*>&laid_out.connections - <char*>&laid_out == KIND_BYTES


cdef inline bint blocked(uint16_t word) noexcept nogil:
    return (word & WORD_VERDICT) == DENY or (word & WORD_VERDICT) == MOOT


cdef inline bint allowed(uint16_t word) noexcept nogil:
    return (word & WORD_VERDICT) == ALLOW


cdef inline uint32_t hash_of(const uint64_t* secret, const void* key, int size) noexcept nogil:
    # `size`: 64-bit words, KEY_WORDS or KIND_WORDS.
    cdef uint64_t words[KIND_WORDS]
    cdef uint64_t h
    words[KEY_WORDS] = 0
    memcpy(words, key, 8 * size)
    h = fold(words[0] ^ secret[4], words[1] ^ secret[5])
    h = fold(h ^ words[2], words[3] ^ secret[6])
    h = fold(h ^ words[4], words[5] ^ secret[3])
    return <uint32_t>(h ^ h >> 32)


cdef inline void count_unit(GroupRow* group, const Unit* unit) noexcept nogil:
    group.connections += 1
    group.answered += unit.answered
    group.packets += unit.packets
    group.bytes += unit.bytes
    if group.connections == 1 or unit.first_ns < group.first_ns:
        group.first_ns = unit.first_ns
    if group.connections == 1 or unit.last_ns > group.last_ns:
        group.last_ns = unit.last_ns
    if group.connections == 1 or unit.first < group.number:
        group.number = unit.first


cdef HeaderRow* opener_rows(openers, Py_ssize_t n) except? NULL:
    return <HeaderRow*>bytes_of_rows(
        openers, HEADER_DTYPE, n, "openers must be a contiguous array of HEADER_DTYPE, as long as the batch"
    )


cdef class ChangedConnections:
    """Collect the changed connections of two planes that judge the same frames; ``old`` is one of the planes.

    Call ``compare`` after each batch and ``finish`` at the end, then read ``rows`` and ``counters``. MemoryError if
    there is no memory.
    """

    def __cinit__(self, DataPlane old not None):
        self.wire = old.planes[0].wire
        self.wire.infrastructure = FILTERED     # one policy may filter the packets that the other exempts
        self.index_mask = 1023
        self.index = <uint32_t*>allocate_pages((self.index_mask + 1) * sizeof(uint32_t))
        self.group_index = <uint32_t*>calloc(GROUP_INDEX, sizeof(uint32_t))
        self.groups = <GroupRow*>calloc(MOST_GROUPS, sizeof(GroupRow))
        self.unit_capacity = 512
        self.units = <Unit*>allocate_pages(self.unit_capacity * sizeof(Unit))
        if self.index == NULL or self.group_index == NULL or self.groups == NULL or self.units == NULL:
            raise MemoryError
        memset(self.index, 0xFF, (self.index_mask + 1) * sizeof(uint32_t))

    def __dealloc__(self):
        free(self.index)
        free(self.group_index)
        free(self.groups)
        free(self.units)

    def compare(
        self, FrameBatch batch not None, const uint16_t[::1] old not None, const uint16_t[::1] new not None,
        openers not None, const uint64_t[::1] numbers=None
    ):
        """Compare both planes' result words (``types.pxd``) for a batch's frames.

        ``openers``: HEADER_DTYPE, as long as the batch; filled with the openers of records that begin with the same
        packet in both planes and that both allow. Return the number of these openers. ``numbers``: the packets'
        numbers, from 1; None if the numbers continue from the last batch.
        """
        cdef Py_ssize_t n = batch.count
        cdef HeaderRow* rows = opener_rows(openers, n)
        cdef const uint64_t* named = NULL
        cdef const uint16_t* mine
        cdef const uint16_t* others
        if old.shape[0] < n or new.shape[0] < n:
            raise ValueError("as many words as there are frames")
        if numbers is not None and numbers.shape[0] < n:
            raise ValueError("as many numbers as there are frames")
        if n == 0:
            return 0
        if numbers is not None:
            named = &numbers[0]
        mine, others = &old[0], &new[0]
        with nogil:
            n = self.compare_frames(batch.frames, n, mine, others, rows, named)
        return n

    cdef Py_ssize_t compare_frames(
        self, const Frame* frames, Py_ssize_t n, const uint16_t* old, const uint16_t* new, HeaderRow* openers,
        const uint64_t* numbers
    ) except -1 nogil:
        cdef Py_ssize_t opener_count = 0
        cdef Py_ssize_t i
        cdef int count = 0
        cdef uint64_t plain = 0
        cdef uint16_t x, y
        for i in range(n):
            x = old[i]
            y = new[i]
            if likely(x & y & WORD_FAST):
                plain += 1
                continue
            if (x & WORD_VERDICT) == PENDING or (y & WORD_VERDICT) == PENDING:
                continue        # `resolve` counts the packet
            self.verdicts[x & WORD_VERDICT][y & WORD_VERDICT] += packets_of(&frames[i])
            if (x | y) & WORD_FOLLOWS:
                continue
            if blocked(x) != blocked(y) or ((self.unit_count or count) and (x | y) & WORD_KNOWN):
                count += self.read_candidate(
                    &frames[i], x, y, self.judged + i + 1 if numbers == NULL else numbers[i], &self.candidates[count]
                )
                if count == AT_ONCE:
                    self.examine_all(count)
                    count = 0
            if x & y & WORD_BEGAN and allowed(x) and allowed(y):
                write_opener(&self.wire, &frames[i], x, &openers[opener_count])
                opener_count += 1
        self.examine_all(count)
        self.verdicts[ALLOW][ALLOW] += plain
        self.judged += n
        return opener_count

    def resolve(self, old not None, new not None):
        """Count packets that were PENDING. ``old``, ``new``: results of ``take_resolved`` for the same packets."""
        if len(old) != len(new) or not (old["number"] == new["number"]).all():
            raise ValueError("the planes have not judged the same frames")
        for x, y in zip(old["result"]["verdict"].tolist(), new["result"]["verdict"].tolist()):
            self.verdicts[<int>x][<int>y] += 1

    cdef bint read_candidate(
        self, const void* frame, uint16_t old, uint16_t new, uint64_t number, Candidate* t
    ) noexcept nogil:
        # Fills a candidate. Returns False if the packet belongs to no connection.
        cdef Packet* p = &t.packet
        read_frame(&self.wire, <const Frame*>frame, p)
        p.count = packets_of(<const Frame*>frame)
        if p.parse_result == READ_FRAGMENT:
            p.parse_result = p.fragment_parse_result
        if p.parse_result == READ_NOT_IP or p.parse_result == READ_BROKEN:
            return False
        t.quotes = False
        if p.parse_result == READ_ICMP_ERROR:
            memset(&t.quoted, 0, sizeof(Packet))
            if read_quote(&self.wire, p, &t.quoted.key, &t.quoted.digest, &t.quoted.hash, &t.quoted.source_high):
                t.quoted.ipv6 = p.ipv6
                t.quoted.protocol = t.quoted.key.protocol
                t.quotes = True
        t.old = old
        t.new = new
        t.number = number
        if t.quotes:
            p = &t.quoted
        fill_key(p, &t.key)
        t.hash = p.hash if p.parse_result == READ_TRACKED else hash_of(self.wire.secret, &t.key, KEY_WORDS)
        prefetch(&self.index[t.hash & self.index_mask])
        return True

    cdef int examine_all(self, int count) except -1 nogil:
        # Examines the first `count` candidates.
        cdef uint32_t unit
        cdef int i
        for i in range(count):
            unit = self.index[self.candidates[i].hash & self.index_mask]
            if unit != NO_UNIT:
                # A unit is longer than a cache line.
                prefetch(&self.units[unit])
                prefetch(&self.units[unit].first_ns)
        for i in range(count):
            self.examine(&self.candidates[i])
        return 0

    cdef int examine(self, const Candidate* t) except -1 nogil:
        cdef const Packet* p = &t.packet
        cdef const Packet* named = &t.quoted if t.quotes else p
        cdef UnitKey key = t.key
        cdef Unit* unit
        cdef uint16_t passing, blocking
        cdef bint changed, recorded
        cdef int way
        for way in range(2):
            passing = t.old if way == CLOSES else t.new
            blocking = t.new if way == CLOSES else t.old
            changed = not blocked(passing) and blocked(blocking)
            key.way = <uint8_t>way
            if not changed and self.unit_count == 0:
                continue
            unit = self.find_or_make(&key, t.hash) if changed else self.find(&key, t.hash)
            if unit == NULL:
                continue
            recorded = allowed(passing)
            if unit.first and (
                (passing if unit.passes_recorded else blocking) & WORD_BEGAN
                or (changed and unit.passes_recorded != recorded)
            ):
                self.end_unit(unit)
            if changed:
                if not unit.first:
                    unit.first = t.number
                    unit.packets = 0
                    unit.bytes = 0
                    unit.answered = False
                    unit.passes_recorded = recorded
                    unit.old = t.old & OUTCOME
                    unit.new = t.new & OUTCOME
                    unit.first_ns = p.time_ns
                    unit.last_ns = p.time_ns
                    unit.ipv6 = p.ipv6
                    set_initiator(named, passing if recorded else blocking, unit)
                    unit.turned = recorded and is_turned(named, blocking, unit)
                    unit.inward = named.source_high != unit.initiator_high ^ unit.turned
                unit.packets += p.count
                unit.bytes += p.wire
                unit.first_ns = min(unit.first_ns, p.time_ns)
                unit.last_ns = max(unit.last_ns, p.time_ns)
            if unit.first and (passing if unit.passes_recorded else blocking) & WORD_HEARD:
                unit.answered = True
        return 0

    cdef Unit* find(self, const UnitKey* key, uint32_t hash_value) noexcept nogil:
        cdef uint32_t at = hash_value & self.index_mask
        cdef Unit* unit
        while self.index[at] != NO_UNIT:
            unit = &self.units[self.index[at]]
            if unit.hash == hash_value and memcmp(&unit.key, key, sizeof(UnitKey)) == 0:
                return unit
            at = (at + 1) & self.index_mask
        return NULL

    cdef Unit* find_or_make(self, const UnitKey* key, uint32_t hash_value) except? NULL nogil:
        cdef Unit* unit = self.find(key, hash_value)
        cdef uint32_t at, i
        if unit != NULL:
            return unit
        if self.unit_count == MAX_UNITS:
            # Any unit might still grow, so all units are ended.
            for i in range(self.unit_count):
                if self.units[i].first:
                    self.cut_short += 1
                    self.end_unit(&self.units[i])
            self.unit_count = 0
            memset(self.index, 0xFF, (self.index_mask + <size_t>1) * sizeof(uint32_t))
        if self.unit_count == self.unit_capacity:
            self.grow()
        at = hash_value & self.index_mask
        while self.index[at] != NO_UNIT:
            at = (at + 1) & self.index_mask
        self.index[at] = self.unit_count
        unit = &self.units[self.unit_count]
        memset(unit, 0, sizeof(Unit))
        unit.key = key[0]
        unit.hash = hash_value
        self.unit_count += 1
        return unit

    cdef int grow(self) except -1 nogil:
        # Doubles the room for units. The index has twice as many places as the maximum number of units.
        cdef uint32_t capacity = 2 * self.unit_capacity
        cdef uint32_t mask = 2 * capacity - 1
        cdef uint32_t i, at
        cdef uint32_t* index = <uint32_t*>allocate_pages((mask + <size_t>1) * sizeof(uint32_t))
        cdef Unit* units = <Unit*>allocate_pages(capacity * sizeof(Unit))
        if index == NULL or units == NULL:
            free(index)
            free(units)
            raise MemoryError
        memcpy(units, self.units, self.unit_count * sizeof(Unit))
        free(self.units)
        self.units = units
        self.unit_capacity = capacity
        memset(index, 0xFF, (mask + <size_t>1) * sizeof(uint32_t))
        for i in range(self.unit_count):
            at = units[i].hash & mask
            while index[at] != NO_UNIT:
                at = (at + 1) & mask
            index[at] = i
        free(self.index)
        self.index = index
        self.index_mask = mask
        return 0

    cdef GroupRow* find_group(self, const GroupRow* key, uint32_t most) noexcept nogil:
        # Finds the key's group, or makes it if there are fewer than `most` groups. Otherwise returns NULL.
        cdef uint32_t at = hash_of(self.wire.secret, key, KIND_WORDS) & (GROUP_INDEX - 1)
        cdef GroupRow* group
        while self.group_index[at]:
            group = &self.groups[self.group_index[at] - 1]
            if memcmp(group, key, KIND_BYTES) == 0:
                return group
            at = (at + 1) & (GROUP_INDEX - 1)
        if self.group_count >= most:
            return NULL
        group = &self.groups[self.group_count]
        group[0] = key[0]
        self.group_count += 1
        self.group_index[at] = self.group_count
        return group

    cdef GroupRow* group_of(self, const GroupRow* key) noexcept nogil:
        # Returns the group in which a connection with this key counts.
        cdef GroupRow coarse
        cdef GroupRow* group = self.find_group(key, GROUPS)
        if group == NULL:
            coarse = key[0]
            memset(coarse.initiator, 0, sizeof(coarse.initiator))
            memset(coarse.responder, 0, sizeof(coarse.responder))
            coarse.family = 0
            coarse.turned = 0
            coarse.turned_port = 0
            coarse.inward = 0
            group = self.find_group(&coarse, ADDRESSLESS)
        if group == NULL:
            coarse.port_key = 0
            coarse.has_ports = 0
            coarse.has_icmp = 0
            group = self.find_group(&coarse, MOST_GROUPS)
        # If MOST_GROUPS is too small, the last group takes all further connections.
        return group if group != NULL else &self.groups[MOST_GROUPS - 1]

    cdef void end_unit(self, Unit* unit) noexcept nogil:
        cdef GroupRow row
        cdef GroupRow* group
        cdef Packet p
        cdef uint32_t at
        memset(&row, 0, sizeof(GroupRow))
        memset(&p, 0, sizeof(Packet))
        p.ipv6 = unit.ipv6
        memcpy(p.key.addr, unit.key.addr, sizeof(p.key.addr))
        write_address(row.initiator, address_of(p.key.addr, p.ipv6, unit.initiator_high), p.ipv6)
        write_address(row.responder, address_of(p.key.addr, p.ipv6, 1 - unit.initiator_high), p.ipv6)
        row.port_key = unit.port_key
        row.protocol = unit.key.protocol
        row.family = 6 if unit.ipv6 else 4
        row.has_ports = (unit.key.kind & KIND_PORTS) != 0
        row.has_icmp = (unit.key.kind & (KIND_ICMP_QUERY | KIND_ONE_WAY)) != 0
        row.old = unit.old
        row.new = unit.new
        row.turned = unit.turned
        row.inward = unit.inward
        if unit.turned and row.has_ports:
            row.turned_port = <uint16_t>(unit.key.ports if unit.initiator_high else unit.key.ports >> 16)
        group = self.group_of(&row)
        count_unit(group, unit)
        if group.family and group.connections <= EXAMPLES:
            at = <uint32_t>group.connections - 1
            group.example_packet[at] = unit.first
            group.example_ns[at] = unit.first_ns
            group.example_port[at] = <uint16_t>(
                (unit.key.ports if unit.initiator_high else unit.key.ports >> 16) if row.has_ports else 0
            )
        unit.first = 0

    def finish(self):
        """End all units, in the order in which they were made."""
        cdef uint32_t i
        with nogil:
            for i in range(self.unit_count):
                if self.units[i].first:
                    self.end_unit(&self.units[i])
            self.unit_count = 0
            memset(self.index, 0xFF, (self.index_mask + <size_t>1) * sizeof(uint32_t))

    @property
    def rows(self):
        """Groups of changed connections, as CHANGED_DTYPE. Groups without addresses have the family 0."""
        return copied_rows(<const uint8_t*>self.groups, self.group_count * sizeof(GroupRow), CHANGED_DTYPE)

    @property
    def counters(self):
        """``packets``: numbers of packets by verdict in OLD, then in NEW. ``cut_short``: units that were ended early
        and may have been counted again.
        """
        return {"packets": [list(self.verdicts[i]) for i in range(VERDICT_COUNT)], "cut_short": self.cut_short}


cdef inline void fill_key(const Packet* p, UnitKey* key) noexcept nogil:
    memset(key, 0, sizeof(UnitKey))
    memcpy(key.addr, p.key.addr, sizeof(key.addr) if p.ipv6 else sizeof(key.addr[0]))
    key.protocol = p.protocol
    if p.parse_result == READ_TRACKED:           # true for a quoted packet, too, as READ_TRACKED is 0
        key.kind = p.key.kind
        key.ports = p.key.ports
        key.protocol = p.key.protocol


cdef inline bint is_turned(const Packet* p, uint16_t blocking, const Unit* unit) noexcept nogil:
    # Whether the other end is the initiator in the blocking engine. If that engine's rules judged the packet itself,
    # the packet's source is the initiator, even if the record of an earlier attempt has another one.
    cdef uint8_t reason = (blocking & OUTCOME) >> WORD_REASON_SHIFT
    if (reason == NO_RULE or reason == DENY_RULE) and (unit.key.protocol != PROTO_TCP or p.step == TCP_SYN):
        return p.source_high != unit.initiator_high
    return blocking & (WORD_KNOWN | WORD_BEGAN) != 0 and (blocking >> WORD_HIGH_SHIFT & 1) != unit.initiator_high


cdef inline void set_initiator(const Packet* p, uint16_t word, Unit* unit) noexcept nogil:
    # Sets the initiator, as far as it is known, and the port key. `word`: result word of the recording engine.
    cdef uint8_t high = p.source_high
    if word & (WORD_KNOWN | WORD_BEGAN):
        high = word >> WORD_HIGH_SHIFT & 1
    elif unit.key.protocol == PROTO_TCP and (
        p.step == TCP_SYNACK or (p.step != TCP_SYN and p.sport < p.dport)
    ):
        high = 1 - high
    unit.initiator_high = high
    unit.port_key = opener_port_key(unit.key.kind, unit.key.ports, high)
    if unit.key.kind & KIND_ICMP_QUERY and p.has_icmp and p.step != STEP_REPLY:
        unit.port_key = p.port_key


cdef inline void write_opener(const void* wire, const Frame* frame, uint16_t word, HeaderRow* row) noexcept nogil:
    # Writes the opener of the record that begins with this frame. The opener may have been inferred (SPEC 9.3).
    cdef Packet p
    cdef uint8_t address[16]
    cdef uint16_t port
    read_frame(<const WireContext*>wire, frame, &p)
    write_header_row(&p, row)
    if (word >> WORD_HIGH_SHIFT & 1) != p.source_high:
        memcpy(address, row.src, 16)
        memcpy(row.src, row.dst, 16)
        memcpy(row.dst, address, 16)
        port = row.sport
        row.sport = row.dport
        row.dport = port
