"""``--write``, ``--write-denied``, ``--write-allowed``: captures of a replay's packets, byte for byte, times to the
nanosecond.

    pcapng      one section; an interface for each link type, nanoseconds, no snapshot length; enhanced packets
    pcap        nanoseconds; one link type

A packet's comment is its verdict:

    VERDICT (REASON); egress INSTANCE: VERDICT (REASON) by RULE; ingress INSTANCE: VERDICT (REASON) by RULE

without what there is none of. Numbers are little-endian, as every machine sgfast is built for (core/intrinsics.pxd).
"""

import struct

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from sgfast.core.base.frames cimport Frame, FrameBatch
from sgfast.core.base.intrinsics cimport likely, unlikely
from sgfast.core.base.types cimport NO_VERDICT, REASON_COUNT, VERDICT_COUNT, HeaderRow, ResultRow, SideRow
from sgfast.report.rows cimport ROW_BYTES, Piece, RowWriter, header_bytes, keep, names_length, put_piece, result_bytes
from sgfast.report.write_text cimport NS_PER_SECOND, put_word

from sgfast.capture.names import link_type_name, printable
from sgfast.engine import REASONS, VERDICTS
from sgfast.errors import OutputError

cdef enum:
    LINKTYPE_ETHERNET = 1
    MOST_INTERFACES = 64        # readers let eight link types through, each before and after 1970
    MOST_NAME_BYTES = 8192      # four of them and words fit in an option, which has 65535 bytes
    INTERFACE_BYTES = 48        # of an interface description, at most
    PACKET_BYTES = 48           # of a packet block without data and text of the comment, at most

    BLOCK_INTERFACE = 1
    BLOCK_ENHANCED_PACKET = 6
    OPTION_COMMENT = 1
    OPTION_SHB_USERAPPL = 4
    OPTION_IF_TSRESOL = 9
    OPTION_IF_TSOFFSET = 14

    PCAP_RECORD_BYTES = 16

PCAP_NANOSECONDS = 0xA1B23C4D
#: What libpcap takes for a snapshot length that cuts nothing.
PCAP_SNAPLEN = 262144
#: Before 1970 times count from here, so that ticks are no negative number: as far back as readers go.
cdef int64_t EARLY_SECONDS = -4611686018

# Words of a comment --------------------------------------------------------------------------------------------------

cdef Piece[VERDICT_COUNT][REASON_COUNT] outcomes
cdef list words = []


cdef _fill_words():
    cdef int verdict, reason
    for verdict in range(VERDICT_COUNT):
        for reason in range(REASON_COUNT):
            word = f" ({REASONS[reason]})" if REASONS[reason] else ""
            outcomes[verdict][reason] = keep((VERDICTS[verdict] + word).encode(), words)


_fill_words()


def _spell(name):
    # Long ones are cut, not in the middle of a character.
    return printable(name).encode()[:MOST_NAME_BYTES].decode(errors="ignore").encode()


cdef inline char* put_side(
    char* at, const char* side, const SideRow* row, const Piece* instance, const Piece* rule
) noexcept nogil:
    if row.verdict == NO_VERDICT:
        return at
    at = put_word(at, side)
    at = put_piece(at, instance)
    at = put_word(at, b": ")
    at = put_piece(at, &outcomes[row.verdict][row.reason])
    if rule.length:
        at = put_word(at, b" by ")
        at = put_piece(at, rule)
    return at


cdef inline char* put_comment(char* at, const ResultRow* result, const Piece** names) noexcept nogil:
    at = put_piece(at, &outcomes[result.verdict][result.reason])
    at = put_side(at, b"; egress ", &result.egress, names[0], names[1])
    return put_side(at, b"; ingress ", &result.ingress, names[2], names[3])


# Numbers -------------------------------------------------------------------------------------------------------------

cdef inline char* put_u16(char* at, uint16_t n) noexcept nogil:
    memcpy(at, &n, 2)
    return at + 2


cdef inline char* put_u32(char* at, uint32_t n) noexcept nogil:
    memcpy(at, &n, 4)
    return at + 4


cdef inline char* put_padding(char* at, size_t length) noexcept nogil:
    # Of what is as long as this, up to a multiple of 4.
    cdef size_t padding = -length & 3
    memset(at, 0, padding)
    return at + padding


# Files ---------------------------------------------------------------------------------------------------------------

def _option(code, value):
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) & 3)


def _section_header(comment):
    options = _option(OPTION_COMMENT, comment.encode()) if comment else b""
    options += _option(OPTION_SHB_USERAPPL, b"sgfast") + _option(0, b"")
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + options
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", 0x0A0D0D0A) + length + body + length


cdef class CaptureWriter(RowWriter):
    """A ``FrameSink`` of packets with certain verdicts. ValueError for arrays of another dtype or length, or frames
    that are not in the batch; IndexError for a row with a number that stands for nothing.
    """

    cdef uint8_t wanted[VERDICT_COUNT]

    cdef int choose(self, verdicts) except -1:
        memset(self.wanted, 0, sizeof(self.wanted))
        for word in verdicts:
            self.wanted[<int>VERDICTS.index(word)] = True
        return 0

    def write(self, FrameBatch batch not None, Py_ssize_t first, headers not None, results not None):
        cdef Py_ssize_t n = header_bytes(headers).shape[0] // <Py_ssize_t>sizeof(HeaderRow)
        cdef const uint8_t[::1] result_rows = result_bytes(results, n)
        cdef const ResultRow* result
        cdef const Piece* names[4]
        cdef Py_ssize_t i
        if first < 0 or n > batch.count - first:
            raise ValueError("the batch has not so many frames")
        self.used = 0
        for i in range(n):
            result = <const ResultRow*>&result_rows[i * sizeof(ResultRow)]
            self.packet_names(result, names)
            self.packets += 1
            if self.wanted[result.verdict]:
                self.end_row(self.put_frame(&batch.frames[first + i], result, names), False)
        if self.used:
            self.flush()

    cdef char* put_frame(self, const Frame* frame, const ResultRow* result, const Piece** names) except NULL:
        return self.data


cdef struct OutInterface:
    uint32_t link_type
    bint early                  # times before 1970


cdef class PcapngWriter(CaptureWriter):
    """``verdicts``: whose packets are written; ``comments``: whether each says what its verdict is. Calls ``write``
    with whole blocks, as bytes; ``close`` when all is written.
    """

    cdef bint comments
    cdef OutInterface interfaces[MOST_INTERFACES]
    cdef uint32_t interface_count
    cdef uint32_t last          # the interface of the packet before

    def __init__(self, write, verdicts=VERDICTS, *, bint comments=False):
        text = "Of each packet's comment: VERDICT (REASON); egress or ingress INSTANCE: VERDICT (REASON) by RULE"
        self.set_up(write, _spell, b"", _section_header(text if comments else ""))
        self.choose(verdicts)
        self.comments = comments
        self.interface_count = 0

    cdef char* put_frame(self, const Frame* frame, const ResultRow* result, const Piece** names) except NULL:
        cdef size_t captured = frame.captured
        cdef char* at = self.room(captured + INTERFACE_BYTES + PACKET_BYTES + ROW_BYTES + names_length(names))
        cdef bint early = frame.time_ns < 0
        cdef uint64_t ticks = <uint64_t>frame.time_ns
        cdef char* block
        cdef char* comment
        if early:
            ticks = 0
            if frame.time_ns > EARLY_SECONDS * NS_PER_SECOND:
                ticks = <uint64_t>(frame.time_ns - EARLY_SECONDS * NS_PER_SECOND)
        at = self.put_interface(at, frame.link_type, early)
        block = at
        at = put_u32(at, BLOCK_ENHANCED_PACKET) + 4
        at = put_u32(at, self.last)
        at = put_u32(at, <uint32_t>(ticks >> 32))
        at = put_u32(at, <uint32_t>ticks)
        at = put_u32(at, frame.captured)
        at = put_u32(at, frame.wire)
        memcpy(at, frame.data, captured)
        at = put_padding(at + captured, captured)
        if self.comments:
            comment = at + 4
            at = put_comment(comment, result, names)
            put_u16(comment - 4, OPTION_COMMENT)
            put_u16(comment - 2, <uint16_t>(at - comment))
            at = put_padding(at, at - comment)
            at = put_u32(at, 0)         # the end of the options
        return end_block(block, at)

    cdef char* put_interface(self, char* at, uint32_t link_type, bint early) except NULL:
        # Described before its first packet.
        cdef OutInterface* interface = &self.interfaces[self.last]
        cdef uint32_t number
        cdef char* block = at
        if likely(self.interface_count and interface.link_type == link_type and interface.early == early):
            return at
        for number in range(self.interface_count):
            interface = &self.interfaces[number]
            if interface.link_type == link_type and interface.early == early:
                self.last = number
                return at
        if self.interface_count == MOST_INTERFACES or link_type > 0xFFFF:
            raise ValueError(f"no interface for link type {link_type}")
        self.last = self.interface_count
        self.interface_count += 1
        interface = &self.interfaces[self.last]
        interface.link_type = link_type
        interface.early = early
        at = put_u32(at, BLOCK_INTERFACE) + 4
        at = put_u32(at, link_type)
        at = put_u32(at, 0)             # no snapshot length
        at = put_u16(at, OPTION_IF_TSRESOL)
        at = put_u16(at, 1)
        at = put_u32(at, 9)
        if early:
            at = put_u16(at, OPTION_IF_TSOFFSET)
            at = put_u16(at, 8)
            memcpy(at, &EARLY_SECONDS, 8)
            at += 8
        at = put_u32(at, 0)             # the end of the options
        return end_block(block, at)


cdef inline char* end_block(char* block, char* at) noexcept nogil:
    # Its length, before and after.
    cdef uint32_t total = <uint32_t>(at + 4 - block)
    put_u32(block + 4, total)
    return put_u32(at, total)


cdef class PcapWriter(CaptureWriter):
    """``verdicts``: whose packets are written; ``name``: the file's, for errors. Calls ``write`` with whole records, as
    bytes; ``close`` when all is written. OutputError where pcap cannot hold what pcapng can: a second link type, times
    before 1970 or after 2106.
    """

    cdef object name
    cdef uint32_t link_type
    cdef bint is_empty

    def __init__(self, write, name, verdicts=VERDICTS):
        self.set_up(write, _spell, b"", None)
        self.name = name
        self.choose(verdicts)
        self.take_link_type(LINKTYPE_ETHERNET)      # of a file without packets
        self.is_empty = True

    cdef int take_link_type(self, uint32_t link_type) except -1:
        self.link_type = link_type
        self.head = struct.pack("<IHHiIII", PCAP_NANOSECONDS, 2, 4, 0, 0, PCAP_SNAPLEN, link_type)
        return 0

    cdef char* put_frame(self, const Frame* frame, const ResultRow* result, const Piece** names) except NULL:
        cdef size_t captured = frame.captured
        cdef char* at = self.room(captured + PCAP_RECORD_BYTES)
        cdef int64_t seconds = frame.time_ns // NS_PER_SECOND
        if unlikely(frame.time_ns < 0 or seconds > <int64_t>UINT32_MAX):
            raise OutputError(
                f"{self.name}: pcap has no times before 1970 or after 2106, as packet {self.packets} has; name a "
                "file that ends in .pcapng"
            )
        if self.is_empty:
            self.take_link_type(frame.link_type)
            self.is_empty = False
        if unlikely(frame.link_type != self.link_type):
            raise OutputError(
                f"{self.name}: pcap holds one link type, here {link_type_name(self.link_type)}, and that of packet "
                f"{self.packets} is {link_type_name(frame.link_type)}; name a file that ends in .pcapng"
            )
        at = put_u32(at, <uint32_t>seconds)
        at = put_u32(at, <uint32_t>(frame.time_ns - seconds * NS_PER_SECOND))
        at = put_u32(at, frame.captured)
        at = put_u32(at, frame.wire)
        memcpy(at, frame.data, captured)
        return at + captured
