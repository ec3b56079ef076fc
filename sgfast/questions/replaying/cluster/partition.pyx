"""Partition frames into blocks of records by shard: the reading half of a clustered replay. ``records.pyx`` is the
judging half.

A shard gets all packets between the same two addresses, which is coarser than a connection. So ICMP errors are in one
shard with the packets they quote, and fragments with their first fragment, whichever file it is in. An exception is an
ICMP error that is itself fragmented, which no host sends: its first fragment is in one shard with the quoted packet,
but its later fragments may not be. These errors are counted.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory

from sgfast.core.base.clock cimport Clock, advance_clock
from sgfast.core.base.frames cimport Frame, FrameBatch
from sgfast.core.base.intrinsics cimport fold, likely, unlikely
from sgfast.core.base.key cimport FlowKey
from sgfast.core.base.types cimport READ_BROKEN, READ_FRAGMENT, READ_NOT_IP, Packet
from sgfast.questions.replaying.cluster.records cimport has_quote, record_size, write_record
from sgfast.core.wire.ip cimport INFRASTRUCTURE_COUNT, WireContext, init_wire, read_frame, read_quote

#: The version of the saved layout of blocks and of the clock's state. Every new layout gets another number.
RECORD_FORMAT = 5
MAX_PACKETS = 0xFFFFFFFF
#: The maximum number of busiest address pairs of each input. A pair that slows the whole replay down is among them.
MAX_BUSIEST = 16
#: IP version, and two addresses as integers, the lower one first.
Pair = tuple[int, int, int]


cdef struct Bin:
    uint8_t* data
    size_t size
    size_t capacity
    uint32_t count          # records in `data`
    uint64_t packets        # records since the beginning
    # Majority vote for the address pair that may have more than half of the packets: packets of the pair vote for it,
    # all other packets vote against it.
    uint64_t candidate
    uint64_t votes
    uint64_t addr[4]
    uint8_t ipv6


cdef inline bint make_room(Bin* bin, size_t more) noexcept nogil:
    cdef size_t capacity = bin.capacity
    cdef uint8_t* data
    if likely(bin.size + more <= capacity):
        return True
    while capacity < bin.size + more:
        capacity = capacity + capacity // 2 + 4096
    data = <uint8_t*>realloc(bin.data, capacity)
    if data == NULL:
        return False
    bin.data = data
    bin.capacity = capacity
    return True


cdef inline uint64_t hash_pair(
    const uint64_t* addr, bint ipv6, uint32_t vpc, uint64_t seed
) noexcept nogil:
    cdef uint64_t h = fold(addr[0] ^ seed, vpc ^ 0x9E3779B97F4A7C15ULL)
    if ipv6:
        h = fold(h ^ addr[1], addr[2] ^ 0xD6E8FEB86659FD93ULL)
        h = fold(h ^ addr[3], seed | 1)
    return fold(h ^ seed, 0xA0761D6478BD642FULL)


cdef inline void vote(Bin* bin, uint64_t pair, const uint64_t* addr, bint ipv6) noexcept nogil:
    if likely(bin.candidate == pair):
        bin.votes += 1
    elif bin.votes:
        bin.votes -= 1
    else:
        bin.candidate = pair
        bin.votes = 1
        bin.addr[0] = addr[0]
        bin.ipv6 = ipv6
        if ipv6:
            bin.addr[1], bin.addr[2], bin.addr[3] = addr[1], addr[2], addr[3]


cdef class Partitioner:
    """Read the headers of an input's frames and collect them by shard until they are taken.

    ``seed`` has 64 bits that determine the shard of an address pair, the same for all inputs of a replay.
    ``infrastructure`` is as for the data plane. ``began_ns`` is the clock's first time in nanoseconds: that of the
    input before, or None for the first packet's. ``full_bytes`` is the size at which a shard counts as full.
    """

    cdef WireContext wire
    cdef Bin* bins
    cdef uint32_t shards
    cdef uint64_t seed
    cdef size_t full_bytes
    cdef Clock clock
    cdef readonly object began_ns
    cdef readonly uint32_t packets
    cdef readonly uint64_t fragmented_quotes     # number of fragmented ICMP errors

    def __cinit__(self, uint32_t shards, uint64_t seed, *, int infrastructure, size_t full_bytes, began_ns=None):
        cdef uint64_t[8] words
        cdef int i
        if not 1 <= shards <= 65536 or full_bytes < 1 or not 0 <= infrastructure < INFRASTRUCTURE_COUNT:
            raise ValueError("1 to 65536 shards, of some bytes, and a kind of infrastructure")
        for i in range(8):
            words[i] = seed * <uint64_t>(2 * i + 1)
        init_wire(&self.wire, <uint8_t>infrastructure, words)
        self.shards = shards
        self.seed = seed
        self.full_bytes = full_bytes
        self.bins = <Bin*>calloc(shards, sizeof(Bin))
        if self.bins == NULL:
            raise MemoryError
        self.began_ns = began_ns
        if began_ns is not None:
            advance_clock(&self.clock, began_ns)

    def __dealloc__(self):
        cdef uint32_t shard
        for shard in range(self.shards if self.bins != NULL else 0):
            free(self.bins[shard].data)
        free(self.bins)

    def spread(self, FrameBatch batch not None):
        """Distribute a batch's frames over the shards. Return the shards that are now full. Raises MemoryError if there
        is no room."""
        cdef Py_ssize_t spread_count
        cdef uint32_t shard
        if batch.count == 0:
            return []
        if batch.count > <Py_ssize_t>(MAX_PACKETS - self.packets):
            raise OverflowError("more than 4,294,967,295 packets in one file, or range of one")
        if self.began_ns is None:
            advance_clock(&self.clock, batch.frames[0].time_ns)
            self.began_ns = self.clock.now
        with nogil:
            spread_count = self.spread_frames(batch.frames, batch.count)
        if spread_count < batch.count:
            raise MemoryError
        return [shard for shard in range(self.shards) if self.bins[shard].size >= self.full_bytes]

    cdef Py_ssize_t spread_frames(self, const Frame* frames, Py_ssize_t n) noexcept nogil:
        cdef Packet p
        cdef FlowKey quoted
        cdef const uint64_t* addr
        cdef uint64_t digest, pair
        cdef uint32_t hash_value, shard
        cdef uint8_t source_high
        cdef Bin* bin
        cdef Py_ssize_t i
        memset(&p, 0, sizeof(Packet))
        for i in range(n):
            read_frame(&self.wire, &frames[i], &p)
            advance_clock(&self.clock, p.time_ns)
            addr = &p.key.addr[0]
            if unlikely(has_quote(&p)) and read_quote(&self.wire, &p, &quoted, &digest, &hash_value, &source_high):
                addr = &quoted.addr[0]
                self.fragmented_quotes += p.parse_result == READ_FRAGMENT
            if likely(p.parse_result != READ_NOT_IP and p.parse_result != READ_BROKEN):
                pair = hash_pair(addr, p.ipv6, frames[i].vpc, self.seed)
                shard = <uint32_t>(((pair >> 32) * self.shards) >> 32)
                bin = &self.bins[shard]
                vote(bin, pair, addr, p.ipv6)
            else:
                # Such a packet has no connection, so any shard will do.
                bin = &self.bins[self.packets % self.shards]
            if not make_room(bin, record_size(&p)):
                return i
            self.packets += 1
            bin.size += write_record(bin.data + bin.size, &p, self.clock.now, self.packets, frames[i].vpc)
            bin.count += 1
            bin.packets += 1
        return n

    def take(self, uint32_t shard, write):
        """Pass a shard's block to ``write``, and empty the shard. The bytes are valid until ``write`` returns.

        Returns ``(what write returned, number of bytes, number of records)``, or None if the shard is empty.
        """
        cdef Bin* bin
        if shard >= self.shards:
            raise ValueError("no such shard")
        bin = &self.bins[shard]
        if bin.count == 0:
            return None
        written = write(PyMemoryView_FromMemory(<char*>bin.data, <Py_ssize_t>bin.size, PyBUF_READ))
        size, count = bin.size, bin.count
        bin.size = 0
        bin.count = 0
        return written, size, count

    @property
    def busiest(self):
        """A list of ``(shard, votes, pair)``, most votes first: at least ``votes`` of the shard's packets, more than a
        quarter, are between the two addresses of ``pair``. Votes for one pair may be added up over inputs.
        """
        cdef uint32_t shard
        cdef Bin* bin
        answer = []
        for shard in range(self.shards):
            bin = &self.bins[shard]
            if 4 * bin.votes <= bin.packets:
                continue
            if bin.ipv6:
                pair = 6, (<object>bin.addr[0] << 64) | bin.addr[1], (<object>bin.addr[2] << 64) | bin.addr[3]
            else:
                pair = 4, bin.addr[0] >> 32, bin.addr[0] & 0xFFFFFFFFULL
            answer.append((shard, bin.votes, pair))
        return sorted(answer, key=lambda found: found[1], reverse=True)[:MAX_BUSIEST]

    @property
    def clock_state(self):
        """``(now, raw, earliest, latest, late, most_late, restarts)`` of the input's clock: its time, the timestamp of
        the packet that set it, the earliest and latest timestamp, the number of late packets and their maximum delay,
        and the number of restarts. None without packets.
        """
        cdef Clock* clock = &self.clock
        if not self.packets:
            return None
        return (
            clock.now, clock.raw, clock.earliest, max(clock.latest, clock.raw), clock.late, clock.most_late,
            clock.restarts,
        )
