"""``--flow-log``: VPC flow log records, one per interval for each interface, 5-tuple and action.

    AWS, version 2   version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end
                     action log-status; start and end are the seconds of the first and last packet
    OTC, version 1   the same fields with project-id for account-id; start and end are those of the interval

Each instance counts as an interface, and interface-id is its name. The account is ``-``. Each direction of a connection
has a record of its own at each end: a packet between two instances is recorded when it leaves the sender, and again
when it reaches the receiver. Both ports are 0 if a packet has none, as the clouds write it for ICMP. Bytes are those on
the wire.

An instance that exists at the start of an interval but has no packet in it gets a record with the interval's times and
the log-status NODATA. An interval in which no filter judged a packet has no records at all, because the capture may not
have been running.
"""

import os

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.intrinsics cimport fold, load64, unlikely
from sgfast.core.base.types cimport ALLOW, DENY, HeaderRow, ResultRow, SideRow
from sgfast.report.rows cimport ROW_BYTES, RowWriter, Text, header_bytes, put_text, result_bytes
from sgfast.rows.write_text cimport NS_PER_SECOND, put_ipv4, put_ipv6, put_number, put_word

cdef enum:
    KEY_BYTES = 48
    FIRST_RECORDS = 1 << 10

# A packet whose timestamp is up to this much earlier than the clock is late; an even earlier one restarts the clock
# (SPEC 9.1).
cdef int64_t LATE_NS = 60 * <int64_t>NS_PER_SECOND

#: Limit for records in memory. If it is reached, records are written before their interval ends. The sums over the
#: records of an interval stay the same.
MOST_RECORDS = 1 << 20
FORMATS = ("aws", "otc")
LONGEST_INTERVAL_SECONDS = 86400


cdef struct Record:
    # The key, which all packets of a record share.
    uint8_t src[16]
    uint8_t dst[16]
    int32_t instance
    uint16_t sport
    uint16_t dport
    uint8_t protocol
    uint8_t family
    uint8_t rejected
    uint8_t spare[5]
    # The totals of the record's packets.
    uint64_t packets
    uint64_t bytes
    int64_t first_second
    int64_t last_second
    uint32_t slot                   # slot in the index


assert KEY_BYTES == 16 + 16 + 4 + 2 + 2 + 8


cdef inline int64_t floor_div(int64_t number, int64_t divisor) noexcept nogil:
    # Integer division that rounds down even for times before 1970.
    return number // divisor - (number % divisor < 0)


cdef inline char* put_signed(char* at, int64_t number) noexcept nogil:
    if number < 0:
        at[0] = c'-'
        return put_number(at + 1, 0 - <uint64_t>number)
    return put_number(at, number)


cdef inline char* put_address(char* at, const uint8_t* address, uint8_t family) noexcept nogil:
    return put_ipv6(at, address, True) if family == 6 else put_ipv4(at, address)


def _encode_name(name):
    # Names in a policy contain no spaces (SPEC 2.7).
    return name.encode("ascii")


cdef class FlowLogLines(RowWriter):
    """A ``PacketSink`` that calls ``write`` with whole records, as bytes. ``close`` writes the last interval's records.

    ``form`` is one of ``FORMATS``. ``interval_seconds`` is 1 to 86400; intervals begin at its multiples in Unix time.
    The records of an interval are ordered by their first packets. Instances without packets follow.
    ``most_records`` is ``MOST_RECORDS``, or less in tests.

    Raises ValueError for arrays of another dtype or length and for invalid options, IndexError for an instance without
    a name, and MemoryError.
    """

    cdef bytes account
    cdef bint uses_interval_times   # start and end are those of the interval
    cdef int64_t interval_ns
    cdef int64_t interval           # number of the current interval
    cdef int32_t[::1] present       # instances that exist now
    cdef int32_t[::1] expected      # instances that existed when the interval began
    cdef uint8_t[::1] seen          # by instance: whether it has a packet in the interval
    cdef int64_t now_ns
    cdef bint begun
    cdef uint64_t secret[4]
    cdef Record* records
    cdef uint32_t count
    cdef uint32_t capacity
    cdef uint32_t most
    cdef uint32_t* index            # record number + 1, 0: free; at least twice as many slots as records
    cdef uint32_t mask

    def __cinit__(self, write, *, form="aws", interval_seconds=600, most_records=MOST_RECORDS):
        if form not in FORMATS:
            raise ValueError(f"a flow log's format is {' or '.join(FORMATS)}, not {form!r:.80}")
        if not 1 <= interval_seconds <= LONGEST_INTERVAL_SECONDS:
            raise ValueError(f"the interval is 1 to {LONGEST_INTERVAL_SECONDS} seconds, not {interval_seconds}")
        if not 1 <= most_records <= MOST_RECORDS:
            raise ValueError(f"most_records is 1 to {MOST_RECORDS}")
        secret = os.urandom(sizeof(self.secret))
        memcpy(&self.secret[0], PyBytes_AS_STRING(secret), sizeof(self.secret))
        self.set_up(write, _encode_name, b"", None)
        self.uses_interval_times = form == "otc"
        self.account = b"1 - " if self.uses_interval_times else b"2 - "
        self.interval_ns = <int64_t>interval_seconds * NS_PER_SECOND
        self.present = self.expected = np.zeros(0, np.int32)
        self.seen = np.zeros(0, np.uint8)
        self.most = most_records
        self.capacity = min(FIRST_RECORDS, self.most)
        self.records = <Record*>malloc(self.capacity * sizeof(Record))
        self.mask = 2 * FIRST_RECORDS - 1
        self.index = <uint32_t*>calloc(self.mask + 1, sizeof(uint32_t))
        if self.records == NULL or self.index == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.records)
        free(self.index)

    def begin(self, names):
        # Instances keep their numbers, so the current interval can continue.
        cdef uint8_t[::1] has_records = np.zeros(len(names.instances), np.uint8)
        cdef Py_ssize_t known_instances = min(has_records.shape[0], self.seen.shape[0])
        has_records[:known_instances] = self.seen[:known_instances]
        self.seen = has_records
        RowWriter.begin(self, names)
        self.present = np.array(names.present, np.int32)
        if has_records.shape[0] <= max(names.present, default=-1):
            raise IndexError("an instance that is there has no name")

    def write(self, headers not None, results not None):
        cdef const uint8_t[::1] header_rows = header_bytes(headers)
        cdef Py_ssize_t n = header_rows.shape[0] // <Py_ssize_t>sizeof(HeaderRow)
        cdef const uint8_t[::1] result_rows = result_bytes(results, n)
        cdef const HeaderRow* header
        cdef const ResultRow* result
        cdef Py_ssize_t i
        for i in range(n):
            result = <const ResultRow*>&result_rows[i * sizeof(ResultRow)]
            if result.verdict > DENY:
                continue
            header = <const HeaderRow*>&header_rows[i * sizeof(HeaderRow)]
            self.advance(header.time_ns)
            self.add_side(header, &result.egress)
            self.add_side(header, &result.ingress)

    def close(self):
        """Write the remaining records. Raises OutputError if ``write`` does."""
        self.end_interval()
        self.expected = np.zeros(0, np.int32)

    cdef int advance(self, int64_t time_ns) except -1:
        cdef int64_t interval
        if self.begun and self.now_ns - LATE_NS <= time_ns < self.now_ns:
            return 0
        interval = floor_div(time_ns, self.interval_ns)
        if interval != self.interval or not self.begun:
            self.end_interval()
            self.interval = interval
            self.expected = self.present
        self.now_ns = time_ns
        self.begun = True
        return 0

    cdef int add_side(self, const HeaderRow* header, const SideRow* side) except -1:
        cdef Record key
        cdef Record* record
        cdef int64_t second
        if side.verdict > DENY or side.instance < 0:
            return 0
        if unlikely(side.instance >= self.seen.shape[0]):
            raise IndexError(f"there is no instance number {side.instance}")
        self.seen[side.instance] = True
        memset(&key, 0, sizeof(Record))
        memcpy(key.src, header.src, 16)
        memcpy(key.dst, header.dst, 16)
        key.instance = side.instance
        if header.has_ports:
            key.sport = header.sport
            key.dport = header.dport
        key.protocol = header.protocol
        key.family = header.family
        key.rejected = side.verdict != ALLOW
        record = self.find(&key)
        record.packets += 1
        record.bytes += header.wire
        second = floor_div(self.now_ns, NS_PER_SECOND)
        # The clock may have been restarted within the interval.
        record.first_second = second if record.packets == 1 else min(second, record.first_second)
        record.last_second = second if record.packets == 1 else max(second, record.last_second)
        return 0

    cdef Record* find(self, const Record* key) except NULL:
        cdef uint32_t slot = self.slot_of(key)
        cdef Record* record
        if self.index[slot]:
            return &self.records[self.index[slot] - 1]
        if unlikely(self.count == self.most):
            self.put_records()
            slot = self.slot_of(key)
        elif unlikely(self.count == self.capacity):
            self.grow()
            slot = self.slot_of(key)
        record = &self.records[self.count]
        record[0] = key[0]
        record.slot = slot
        self.count += 1
        self.index[slot] = self.count
        return record

    cdef uint32_t slot_of(self, const Record* key) noexcept nogil:
        # Returns the slot that holds the key, or else the free slot for the key. At least half of the slots are free.
        cdef const uint8_t* data = <const uint8_t*>key
        cdef uint64_t h = fold(load64(data) ^ self.secret[0], load64(data + 8) ^ self.secret[1])
        cdef uint32_t slot
        h = fold(h ^ load64(data + 16), load64(data + 24) ^ self.secret[2])
        h = fold(h ^ load64(data + 32), load64(data + 40) ^ self.secret[3])
        slot = <uint32_t>(h ^ h >> 32) & self.mask
        while self.index[slot] and memcmp(&self.records[self.index[slot] - 1], key, KEY_BYTES) != 0:
            slot = (slot + 1) & self.mask
        return slot

    cdef int grow(self) except -1:
        cdef uint32_t capacity = min(2 * self.capacity, self.most)
        cdef uint32_t slots = 2 * (self.mask + 1)
        cdef Record* records = <Record*>realloc(self.records, capacity * sizeof(Record))
        cdef uint32_t* index
        cdef uint32_t n
        if records == NULL:
            raise MemoryError
        self.records = records
        index = <uint32_t*>calloc(slots, sizeof(uint32_t))
        if index == NULL:
            raise MemoryError
        free(self.index)
        self.index = index
        self.mask = slots - 1
        self.capacity = capacity
        for n in range(self.count):
            self.records[n].slot = self.slot_of(&self.records[n])
            self.index[self.records[n].slot] = n + 1
        return 0

    cdef int end_interval(self) except -1:
        cdef Py_ssize_t n
        self.put_records()
        for n in range(self.expected.shape[0]):
            if not self.seen[self.expected[n]]:
                self.put_no_data(self.expected[n])
        self.seen[:] = 0
        return self.flush()

    cdef int put_records(self) except -1:
        cdef uint32_t n
        self.used = 0
        for n in range(self.count):
            self.put_record(&self.records[n])
        for n in range(self.count):
            self.index[self.records[n].slot] = 0
        self.count = 0
        return self.flush()

    cdef char* put_head(self, int32_t instance) except NULL:
        # Writes the fields in front of the addresses.
        cdef const Text* name = self.instances.encoded(instance)
        cdef char* at = self.room(ROW_BYTES + name.length)
        memcpy(at, PyBytes_AS_STRING(self.account), 4)
        return put_word(put_text(at + 4, name), b" ")

    cdef char* put_interval(self, char* at) noexcept nogil:
        cdef int64_t seconds = self.interval_ns // NS_PER_SECOND
        at = put_word(put_signed(at, self.interval * seconds), b" ")
        return put_signed(at, (self.interval + 1) * seconds)

    cdef int put_no_data(self, int32_t instance) except -1:
        cdef char* at = put_word(self.put_head(instance), b"- - - - - - - ")
        return self.end_row(put_word(self.put_interval(at), b" - NODATA\n"), False)

    cdef int put_record(self, const Record* record) except -1:
        cdef char* at = self.put_head(record.instance)
        at = put_word(put_address(at, record.src, record.family), b" ")
        at = put_word(put_address(at, record.dst, record.family), b" ")
        at = put_word(put_number(at, record.sport), b" ")
        at = put_word(put_number(at, record.dport), b" ")
        at = put_word(put_number(at, record.protocol), b" ")
        at = put_word(put_number(at, record.packets), b" ")
        at = put_word(put_number(at, record.bytes), b" ")
        if self.uses_interval_times:
            at = self.put_interval(at)
        else:
            at = put_word(put_signed(at, record.first_second), b" ")
            at = put_signed(at, record.last_second)
        return self.end_row(put_word(at, b" REJECT OK\n") if record.rejected else put_word(at, b" ACCEPT OK\n"), False)
