"""A sample of a capture that can be compared with those of other captures: what they have in common shows whether their
clocks agree, and whether packets count twice (SPEC 10.27).
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from sgfast.core.base.frames cimport Frame, FrameBatch
from sgfast.core.base.intrinsics cimport be16, be32, store32
from sgfast.core.base.types cimport PROTO_TCP
from sgfast.traffic.preprocess.ip_digest cimport digest, find_ip_packet

cdef enum:
    MOST_ROWS = 2048
    MOST_MASK = 0xFFFFFFFF
    # The length of the beginning of a packet that its digest is made from. It has the headers, with the checksum of the
    # payload, so that longer packets cost no more.
    DIGESTED = 64
    # TCP flags that tell openers from answers: FIN, SYN, RST and ACK.
    FLAGS = 0x17
    SYN = 0x02
    SYN_ACK = 0x12

cdef enum:         # Kind
    OTHER_PACKET
    TCP_PACKET
    SYN_SEEN
    SYN_ACK_SEEN

# The key of digests is the same everywhere, so that samples of several processes can be compared, and a replay says the
# same each time. Packets that were crafted to be alike can at most make it say that the captures are not sound.
cdef uint64_t[4] SECRET = [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D1, 0x082EFA98EC4E6C89]

ROW_DTYPE = np.dtype([("key", "<u8"), ("time_ns", "<i8"), ("vpc", "<u4"), ("kind", "<u4")])


cdef packed struct Row:
    uint64_t key
    int64_t time_ns
    uint32_t vpc
    uint32_t kind


cdef struct Rows:
    # The digests that are kept end in zeros where `mask` has ones. It grows when there is no room, so that the samples
    # of two captures keep the same packets.
    uint64_t mask
    Py_ssize_t count
    Row row[MOST_ROWS]


cdef void add(Rows* rows, uint64_t key, int64_t time_ns, uint32_t vpc, uint32_t kind) noexcept nogil:
    cdef Py_ssize_t kept_rows, i
    # Equal packets stay together. If they fill the sample, it gets no more rows.
    while rows.count == MOST_ROWS and rows.mask < <uint64_t>MOST_MASK and not key & rows.mask:
        rows.mask = rows.mask << 1 | 1
        kept_rows = 0
        for i in range(rows.count):
            if not rows.row[i].key & rows.mask:
                rows.row[kept_rows] = rows.row[i]
                kept_rows += 1
        rows.count = kept_rows
    if rows.count < MOST_ROWS and not key & rows.mask:
        rows.row[rows.count] = Row(key, time_ns, vpc, kind)
        rows.count += 1


cdef uint64_t handshake_key(const uint8_t* ip, bint ipv6, const uint8_t* tcp, bint answers) noexcept nogil:
    # A SYN and the SYN-ACK that answers it have the same key: the ends and the client's initial sequence number.
    cdef uint8_t[44] ends
    cdef uint32_t length = 16 if ipv6 else 4
    cdef const uint8_t* source = ip + (8 if ipv6 else 12)
    memset(ends, 0, sizeof(ends))
    # The digest leaves out byte 7.
    store32(ends, be32(tcp + 8) - 1 if answers else be32(tcp + 4))
    memcpy(ends + 4, tcp + (2 if answers else 0), 2)
    memcpy(ends + 8, tcp + (0 if answers else 2), 2)
    memcpy(ends + 12, source + (length if answers else 0), length)
    memcpy(ends + 28, source + (0 if answers else length), length)
    return digest(SECRET, ends, sizeof(ends), True, 0)


cdef class CaptureSample:
    """Sample of the first ``looked_at`` packets of a capture, whose batches are given to ``look``.

    ``first_ns`` and ``latest_ns``: times of the first and of the latest packet, as far as the first and the last packet
    of each batch show; None without packets. ``packets``: all packets so far.
    """

    cdef Py_ssize_t looked_at
    cdef readonly Py_ssize_t packets
    cdef readonly object first_ns
    cdef readonly object latest_ns
    cdef Rows ip
    cdef Rows handshakes

    def __cinit__(self, Py_ssize_t looked_at):
        self.looked_at = looked_at

    def look(self, FrameBatch batch not None):
        cdef const Frame* frames = batch.frames
        cdef Py_ssize_t count = batch.count
        cdef Py_ssize_t i
        if count == 0:
            return
        if self.first_ns is None:
            self.first_ns = self.latest_ns = frames[0].time_ns
        self.latest_ns = max(self.latest_ns, frames[count - 1].time_ns)
        with nogil:
            for i in range(min(count, self.looked_at - self.packets)):
                self.take(&frames[i])
        self.packets += count

    cdef void take(self, const Frame* frame) noexcept nogil:
        cdef bint ipv6 = False
        cdef uint32_t length = 0
        cdef const uint8_t* ip = find_ip_packet(frame, &ipv6, &length)
        cdef uint32_t header
        cdef uint8_t flags
        cdef bint is_tcp
        if ip == NULL:
            return
        is_tcp = ip[6 if ipv6 else 9] == PROTO_TCP
        add(
            &self.ip, digest(SECRET, ip, min(length, <uint32_t>DIGESTED), ipv6, 0), frame.time_ns, frame.vpc,
            TCP_PACKET if is_tcp else OTHER_PACKET,
        )
        header = 40 if ipv6 else (ip[0] & 15) * 4
        if not is_tcp or header < 20 or length < header + 20 or (not ipv6 and be16(ip + 6) & 0x1FFF):
            return
        flags = ip[header + 13] & FLAGS
        if flags == SYN or flags == SYN_ACK:
            add(
                &self.handshakes, handshake_key(ip, ipv6, ip + header, flags == SYN_ACK), frame.time_ns, frame.vpc,
                SYN_SEEN if flags == SYN else SYN_ACK_SEEN,
            )

    @property
    def rows(self):
        """Rows of ROW_DTYPE as bytes, and the mask of their keys: first those of IP packets, then of handshakes."""
        return bytes_of(&self.ip), bytes_of(&self.handshakes)


cdef tuple bytes_of(const Rows* rows):
    return (<const char*>rows.row)[:rows.count * <Py_ssize_t>sizeof(Row)], rows.mask
