"""Capture writers for ``--write``, ``--write-denied`` and ``--write-allowed``. They copy packets byte for byte and
times to the nanosecond.

    pcapng      one section with enhanced packets; one interface for each link type; nanoseconds; no snapshot length
    pcap        one link type; nanoseconds

The comment of a packet is its verdict:

    VERDICT (REASON); egress INSTANCE: VERDICT (REASON) by RULE; ingress INSTANCE: VERDICT (REASON) by RULE

Parts that do not apply are left out. Numbers are written in native byte order, which is little-endian on every machine
that sgfast supports (core/base/intrinsics.pxd).
"""

import struct

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from sgfast.core.base.frames cimport Frame, FrameBatch
from sgfast.core.base.intrinsics cimport likely, unlikely
from sgfast.core.base.types cimport NO_VERDICT, REASON_COUNT, VERDICT_COUNT, HeaderRow, ResultRow, SideRow
from sgfast.report.rows cimport (
    ROW_BYTES,
    RowWriter,
    Text,
    header_bytes,
    keep_text,
    names_length,
    put_text,
    result_bytes,
)
from sgfast.rows.write_text cimport NS_PER_SECOND, put_word

from sgfast.core.wire.link import link_type_name
from sgfast.base.names import printable
from sgfast.engine import REASONS, VERDICTS
from sgfast.base.errors import OutputError

cdef enum:
    LINKTYPE_ETHERNET = 1
    MOST_INTERFACES = 64        # one for each link type, for times before and after 1970
    MOST_NAME_BYTES = 8192      # four names and some words must fit in an option of 65535 bytes
    INTERFACE_BYTES = 48        # maximum length of an interface description
    PACKET_BYTES = 48           # maximum length of a packet block without data and comment text

    BLOCK_INTERFACE = 1
    BLOCK_ENHANCED_PACKET = 6
    OPTION_COMMENT = 1
    OPTION_SHB_USERAPPL = 4
    OPTION_IF_TSRESOL = 9
    OPTION_IF_TSOFFSET = 14

    PCAP_RECORD_BYTES = 16

PCAP_NANOSECONDS = 0xA1B23C4D
#: The snapshot length that libpcap writes if packets are not cut.
PCAP_SNAPLEN = 262144
#: Time offset of interfaces for packets before 1970, so that their ticks are not negative. Readers of pcapng do not
#: support times before this offset.
cdef int64_t EARLY_SECONDS = -4611686018

# Comments ------------------------------------------------------------------------------------------------------------

cdef Text[VERDICT_COUNT][REASON_COUNT] outcome_texts
cdef list kept_texts = []


cdef _fill_outcome_texts():
    cdef int verdict, reason
    for verdict in range(VERDICT_COUNT):
        for reason in range(REASON_COUNT):
            word = f" ({REASONS[reason]})" if REASONS[reason] else ""
            outcome_texts[verdict][reason] = keep_text((VERDICTS[verdict] + word).encode(), kept_texts)


_fill_outcome_texts()


def _encode_name(name):
    # Long names are cut, but not in the middle of a character.
    return printable(name).encode()[:MOST_NAME_BYTES].decode(errors="ignore").encode()


cdef inline char* put_side(
    char* at, const char* side, const SideRow* row, const Text* instance, const Text* rule
) noexcept nogil:
    if row.verdict == NO_VERDICT:
        return at
    at = put_word(at, side)
    at = put_text(at, instance)
    at = put_word(at, b": ")
    at = put_text(at, &outcome_texts[row.verdict][row.reason])
    if rule.length:
        at = put_word(at, b" by ")
        at = put_text(at, rule)
    return at


cdef inline char* put_comment(char* at, const ResultRow* result, const Text** names) noexcept nogil:
    at = put_text(at, &outcome_texts[result.verdict][result.reason])
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
    # Pads a field of this length to a multiple of 4 bytes.
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
    """A ``FrameSink`` that writes packets with certain verdicts.

    Raises ValueError for arrays of another dtype or length and for frames that are not in the batch, and IndexError for
    numbers out of range.
    """

    cdef uint8_t wanted[VERDICT_COUNT]

    cdef int choose(self, verdicts) except -1:
        memset(self.wanted, 0, sizeof(self.wanted))
        for word in verdicts:
            self.wanted[<int>VERDICTS.index(word)] = True
        return 0

    def write(self, FrameBatch batch not None, Py_ssize_t first, headers not None, results not None):
        """Write some packets."""
        cdef Py_ssize_t n = header_bytes(headers).shape[0] // <Py_ssize_t>sizeof(HeaderRow)
        cdef const uint8_t[::1] result_rows = result_bytes(results, n)
        cdef const ResultRow* result
        cdef const Text* names[4]
        cdef Py_ssize_t i
        if first < 0 or n > batch.count - first:
            raise ValueError("the batch does not have that many frames")
        self.used = 0
        for i in range(n):
            result = <const ResultRow*>&result_rows[i * sizeof(ResultRow)]
            self.packet_names(result, names)
            self.packets += 1
            if self.wanted[result.verdict]:
                self.end_row(self.put_frame(&batch.frames[first + i], result, names), False)
        if self.used:
            self.flush()

    cdef char* put_frame(self, const Frame* frame, const ResultRow* result, const Text** names) except NULL:
        return self.data


cdef struct OutInterface:
    uint32_t link_type
    bint early                  # for times before 1970


cdef class PcapngWriter(CaptureWriter):
    """A ``FrameSink`` that writes the packets with one of ``verdicts``; ``comments`` adds the verdict as a comment.

    The writer calls ``write`` with whole blocks, as bytes. Call ``close`` at the end.

    For example:

        with open("denied.pcapng", "wb") as file:
            writer = PcapngWriter(file.write, ["deny"], comments=True)
            sgfast.replay("pcaps/shop.yaml", "pcaps/shop.pcap", frames=writer)
            writer.close()
    """

    cdef bint comments
    cdef OutInterface interfaces[MOST_INTERFACES]
    cdef uint32_t interface_count
    cdef uint32_t last          # number of the last packet's interface

    def __init__(self, write, verdicts=VERDICTS, *, bint comments=False):
        text = "Of each packet's comment: VERDICT (REASON); egress or ingress INSTANCE: VERDICT (REASON) by RULE"
        self.set_up(write, _encode_name, b"", _section_header(text if comments else ""))
        self.choose(verdicts)
        self.comments = comments
        self.interface_count = 0

    cdef char* put_frame(self, const Frame* frame, const ResultRow* result, const Text** names) except NULL:
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
        # Selects the packet's interface. Writes the interface's description first if the interface is new.
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
    # Writes the block's length before and after the block's body.
    cdef uint32_t total = <uint32_t>(at + 4 - block)
    put_u32(block + 4, total)
    return put_u32(at, total)


cdef class PcapWriter(CaptureWriter):
    """A ``FrameSink`` that writes the packets with one of ``verdicts``. ``name``: the file's name, for errors.

    The writer calls ``write`` with whole records, as bytes. Call ``close`` at the end. Raises OutputError for packets
    that pcap cannot hold: of a second link type, or with times before 1970 or after 2106.

    For example:

        with open("allowed.pcap", "wb") as file:
            writer = PcapWriter(file.write, "allowed.pcap", ["allow"])
            sgfast.replay("pcaps/shop.yaml", "pcaps/shop.pcap", frames=writer)
            writer.close()
    """

    cdef object name
    cdef uint32_t link_type
    cdef bint is_empty

    def __init__(self, write, name, verdicts=VERDICTS):
        self.set_up(write, _encode_name, b"", None)
        self.name = name
        self.choose(verdicts)
        self.take_link_type(LINKTYPE_ETHERNET)      # for a file without packets
        self.is_empty = True

    cdef int take_link_type(self, uint32_t link_type) except -1:
        self.link_type = link_type
        self.head = struct.pack("<IHHiIII", PCAP_NANOSECONDS, 2, 4, 0, 0, PCAP_SNAPLEN, link_type)
        return 0

    cdef char* put_frame(self, const Frame* frame, const ResultRow* result, const Text** names) except NULL:
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
