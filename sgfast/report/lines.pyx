"""``--verdicts`` and ``--connections``: JSON lines (SPEC 10.3, 10.4), each as ``json.dumps`` would write its dict.

Lines are put together in a buffer and written many at a time. A packet costs no Python object: words and names were
escaped once and are only copied.
"""

from ipaddress import IPv6Address
from json import dumps

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from sgfast.core.conntrack cimport SIDE_END_COUNT, SIDE_NONE, FlowRow
from sgfast.core.intrinsics cimport unlikely
from sgfast.core.types cimport (
    NO_VERDICT,
    PROTO_ICMP,
    PROTO_ICMPV6,
    REASON_COUNT,
    VERDICT_COUNT,
    HeaderRow,
    ResultRow,
    SideRow,
)
from sgfast.report.write_text cimport put_ipv4, put_ipv6, put_number, put_time, put_word

from sgfast.core.dtypes import FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import REASONS, VERDICTS
from sgfast.policy.protocols import protocol_name

cdef enum:
    ANSWER_COUNT = 3
    LINE_BYTES = 1024           # more than any line has, names apart; the longest is measured in a test
    WRITE_BYTES = 1 << 18       # written at a time, and a line more

#: By number in a row; the order of ``core/conntrack.pxd``'s SideEnd.
ENDS = (None, "open", "closed", "reset", "timeout", "evicted", "reopened", "denied", "disconnected", "removed")
ANSWERS = ("silent", "answered", "refused")

ROOM_FOR_A_LINE = LINE_BYTES


# Pieces that come up again and again ---------------------------------------------------------------------------------

cdef struct Piece:
    const char* text            # NULL: not made yet
    size_t length


cdef inline char* put_piece(char* at, const Piece* piece) noexcept nogil:
    memcpy(at, piece.text, piece.length)
    return at + piece.length


cdef Piece keep(bytes text, list kept):
    # Good for as long as `kept` is.
    cdef Piece piece
    kept.append(text)
    piece.text = PyBytes_AS_STRING(text)
    piece.length = PyBytes_GET_SIZE(text)
    return piece


cdef Piece json_null
cdef Piece[256] protocols
cdef Piece[VERDICT_COUNT][REASON_COUNT] outcomes
cdef Piece[ANSWER_COUNT] answers
cdef Piece[SIDE_END_COUNT] ends
cdef list words = []


def _fill_words():
    global json_null
    cdef int number, reason
    assert len(VERDICTS) == VERDICT_COUNT and len(REASONS) == REASON_COUNT
    assert len(ANSWERS) == ANSWER_COUNT and len(ENDS) == SIDE_END_COUNT
    json_null = keep(b"null", words)
    for number in range(256):
        protocols[number] = keep(dumps(protocol_name(number) or number).encode(), words)
    for number in range(VERDICT_COUNT):
        for reason in range(REASON_COUNT):
            outcome = f'"verdict": {dumps(VERDICTS[number])}, "reason": {dumps(REASONS[reason])}, '
            outcomes[number][reason] = keep(outcome.encode(), words)
    for number in range(ANSWER_COUNT):
        answers[number] = keep(dumps(ANSWERS[number]).encode(), words)
    for number in range(SIDE_END_COUNT):
        ends[number] = keep(dumps(ENDS[number]).encode(), words)


_fill_words()

# Later versions of Python write ::ffff:1.2.3.4, earlier ones ::ffff:102:304.
cdef bint mapped_is_dotted = str(IPv6Address("::ffff:1.2.3.4")).endswith(".4")


cdef class JsonNames:
    """Names by number, as JSON strings; each is made when it is first needed."""

    cdef object names
    cdef list kept
    cdef Piece* pieces
    cdef Py_ssize_t count

    def __cinit__(self, names):
        self.names = names
        self.kept = []
        self.count = len(names)
        self.pieces = <Piece*>calloc(self.count + 1, sizeof(Piece))
        if self.pieces == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.pieces)

    cdef const Piece* at(self, int32_t number) except NULL:
        # Of a negative number: null.
        if number < 0:
            return &json_null
        if unlikely(number >= self.count):
            raise IndexError(f"there is no name number {number}")
        if unlikely(self.pieces[number].text == NULL):
            self.pieces[number] = keep(dumps(self.names[number]).encode(), self.kept)
        return &self.pieces[number]


# Parts of lines ------------------------------------------------------------------------------------------------------

cdef inline char* put_address(char* at, const uint8_t* address, uint8_t family) noexcept nogil:
    at[0] = c'"'
    at = put_ipv6(at + 1, address, mapped_is_dotted) if family == 6 else put_ipv4(at + 1, address)
    at[0] = c'"'
    return at + 1


cdef inline char* put_where(char* at, bint there, uint32_t number) noexcept nogil:
    return put_number(at, number) if there else put_word(at, b"null")


cdef inline char* put_header(char* at, const HeaderRow* row) noexcept nogil:
    at = put_word(at, b', "time": "')
    at = put_time(at, row.time_ns)
    if row.family:
        at = put_word(at, b'", "src": ')
        at = put_address(at, row.src, row.family)
        at = put_word(at, b', "dst": ')
        at = put_address(at, row.dst, row.family)
        at = put_word(at, b', "protocol": ')
        at = put_piece(at, &protocols[row.protocol])
    else:
        at = put_word(at, b'", "src": null, "dst": null, "protocol": null')
    if row.has_ports:
        at = put_word(at, b', "sport": ')
        at = put_number(at, row.sport)
        at = put_word(at, b', "dport": ')
        at = put_number(at, row.dport)
    else:
        at = put_word(at, b', "sport": null, "dport": null')
    if row.has_icmp:
        at = put_word(at, b', "icmp_type": ')
        at = put_number(at, row.icmp_type)
        at = put_word(at, b', "icmp_code": ')
        at = put_number(at, row.icmp_code)
        return put_word(at, b", ")
    return put_word(at, b', "icmp_type": null, "icmp_code": null, ')


cdef inline char* put_side(char* at, const SideRow* row, const Piece* instance, const Piece* rule) noexcept nogil:
    if row.verdict == NO_VERDICT:
        return put_word(at, b"null")
    at = put_word(at, b'{"instance": ')
    at = put_piece(at, instance)
    at = put_word(at, b", ")
    at = put_piece(at, &outcomes[row.verdict][row.reason])
    at = put_word(at, b'"rule": ')
    at = put_piece(at, rule)
    return put_word(at, b"}")


cdef inline char* put_ends(char* at, const FlowRow* row) noexcept nogil:
    cdef bint icmp = row.ends.protocol == (PROTO_ICMP if row.ends.family == 4 else PROTO_ICMPV6)
    at = put_word(at, b'{"protocol": ')
    at = put_piece(at, &protocols[row.ends.protocol])
    at = put_word(at, b', "initiator": ')
    at = put_address(at, row.ends.initiator, row.ends.family)
    at = put_word(at, b', "initiator_port": ')
    at = put_where(at, row.ends.has_ports, row.ends.ports >> 16)
    at = put_word(at, b', "responder": ')
    at = put_address(at, row.ends.responder, row.ends.family)
    at = put_word(at, b', "responder_port": ')
    at = put_where(at, row.ends.has_ports, row.ends.ports & 0xFFFF)
    at = put_word(at, b', "icmp_type": ')
    at = put_where(at, icmp, row.ends.icmp >> 8)
    at = put_word(at, b', "icmp_code": ')
    return put_where(at, icmp, row.ends.icmp & 0xFF)


cdef inline char* put_counts(char* at, const FlowRow* row) noexcept nogil:
    at = put_word(at, b', "first_time": "')
    at = put_time(at, row.first_ns)
    at = put_word(at, b'", "last_time": "')
    at = put_time(at, row.last_ns)
    at = put_word(at, b'", "packets_from_initiator": ')
    at = put_number(at, row.packets[0])
    at = put_word(at, b', "packets_from_responder": ')
    at = put_number(at, row.packets[1])
    at = put_word(at, b', "bytes_from_initiator": ')
    at = put_number(at, row.bytes[0])
    at = put_word(at, b', "bytes_from_responder": ')
    at = put_number(at, row.bytes[1])
    return put_word(at, b", ")


cdef inline char* put_end(char* at, uint8_t end, const Piece* instance, const Piece* rule) noexcept nogil:
    if end == SIDE_NONE:
        return put_word(at, b"null")
    at = put_word(at, b'{"instance": ')
    at = put_piece(at, instance)
    at = put_word(at, b', "rule": ')
    at = put_piece(at, rule)
    at = put_word(at, b', "ended": ')
    at = put_piece(at, &ends[end])
    return put_word(at, b"}")


# Lines ---------------------------------------------------------------------------------------------------------------

cdef const uint8_t[::1] row_bytes(rows, dtype):
    if rows.dtype != dtype or rows.ndim != 1:
        raise ValueError(f"rows are an array of one dimension and of the dtype {dtype}")
    return np.ascontiguousarray(rows).view(np.uint8)


cdef class Lines:
    """What both kinds have in common: the names, and a buffer that goes to ``write`` when it is full."""

    cdef object sink
    cdef JsonNames instances
    cdef JsonNames rules
    cdef char* data
    cdef size_t used
    cdef size_t size

    def __cinit__(self, write):
        self.sink = write
        self.instances = JsonNames(())
        self.rules = JsonNames(())

    def __dealloc__(self):
        free(self.data)

    cdef char* line(self, const Piece** names) except NULL:
        # Where the next line goes, which has these four names.
        cdef size_t need = LINE_BYTES + names[0].length + names[1].length + names[2].length + names[3].length
        cdef size_t size
        cdef char* grown
        if unlikely(self.size - self.used < need):
            size = max(2 * self.size, self.used + need)
            grown = <char*>realloc(self.data, size)
            if grown == NULL:
                raise MemoryError
            self.data = grown
            self.size = size
        return self.data + self.used

    cdef int end_line(self, char* at, bint last) except -1:
        self.used = at - self.data
        if self.used >= WRITE_BYTES or last:
            lines = PyBytes_FromStringAndSize(self.data, self.used)
            self.used = 0
            self.sink(lines)
        return 0


cdef class VerdictLines(Lines):
    """A ``PacketSink`` that calls ``write`` with whole lines, as bytes.

    ValueError for arrays of another dtype or length, IndexError for a row with a number that stands for nothing.
    """

    cdef uint64_t packets

    def begin(self, names):
        self.instances = JsonNames(names.instances)
        self.rules = JsonNames(names.rules)
        self.packets = names.packets

    def write(self, headers not None, results not None):
        cdef const uint8_t[::1] header_bytes = row_bytes(headers, HEADER_DTYPE)
        cdef const uint8_t[::1] result_bytes = row_bytes(results, RESULT_DTYPE)
        cdef Py_ssize_t n = header_bytes.shape[0] // <Py_ssize_t>sizeof(HeaderRow)
        cdef Py_ssize_t i
        if result_bytes.shape[0] != n * <Py_ssize_t>sizeof(ResultRow):
            raise ValueError("results are one row for each header")
        self.used = 0
        for i in range(n):
            self.put_packet(
                <const HeaderRow*>&header_bytes[i * sizeof(HeaderRow)],
                <const ResultRow*>&result_bytes[i * sizeof(ResultRow)],
                i == n - 1,
            )

    cdef int put_packet(self, const HeaderRow* header, const ResultRow* result, bint last) except -1:
        cdef const Piece* names[4]
        cdef char* at
        if unlikely(
            result.verdict >= VERDICT_COUNT or result.reason >= REASON_COUNT
            or not is_known(&result.egress) or not is_known(&result.ingress)
        ):
            raise IndexError("a verdict or reason is out of range")
        names[0] = self.instances.at(result.egress.instance)
        names[1] = self.rules.at(result.egress.rule)
        names[2] = self.instances.at(result.ingress.instance)
        names[3] = self.rules.at(result.ingress.rule)
        at = self.line(names)
        self.packets += 1
        at = put_word(at, b'{"packet": ')
        at = put_number(at, self.packets)
        at = put_header(at, header)
        at = put_piece(at, &outcomes[result.verdict][result.reason])
        at = put_word(at, b'"egress": ')
        at = put_side(at, &result.egress, names[0], names[1])
        at = put_word(at, b', "ingress": ')
        at = put_side(at, &result.ingress, names[2], names[3])
        return self.end_line(put_word(at, b"}\n"), last)


cdef inline bint is_known(const SideRow* row) noexcept nogil:
    return (row.verdict < VERDICT_COUNT and row.reason < REASON_COUNT) or row.verdict == NO_VERDICT


cdef class ConnectionLines(Lines):
    """A ``FlowSink`` that calls ``write`` with whole lines, as bytes.

    ValueError for an array of another dtype, IndexError for a row with a number that stands for nothing.
    """

    def begin(self, names):
        self.instances = JsonNames(names.instances)
        self.rules = JsonNames(names.rules)

    def write(self, flows not None):
        cdef const uint8_t[::1] flow_bytes = row_bytes(flows, FLOW_DTYPE)
        cdef Py_ssize_t n = flow_bytes.shape[0] // <Py_ssize_t>sizeof(FlowRow)
        cdef Py_ssize_t i
        self.used = 0
        for i in range(n):
            self.put_flow(<const FlowRow*>&flow_bytes[i * sizeof(FlowRow)], i == n - 1)

    cdef int put_flow(self, const FlowRow* row, bint last) except -1:
        cdef const Piece* names[4]
        cdef char* at
        if unlikely(
            row.verdict >= VERDICT_COUNT or row.reason >= REASON_COUNT or row.answer >= ANSWER_COUNT
            or row.side_end[0] >= SIDE_END_COUNT or row.side_end[1] >= SIDE_END_COUNT
        ):
            raise IndexError("a verdict, reason, answer or end is out of range")
        names[0] = self.instances.at(row.instance[0])
        names[1] = self.rules.at(row.rule[0])
        names[2] = self.instances.at(row.instance[1])
        names[3] = self.rules.at(row.rule[1])
        at = self.line(names)
        at = put_ends(at, row)
        at = put_counts(at, row)
        at = put_piece(at, &outcomes[row.verdict][row.reason])
        at = put_word(at, b'"answer": ')
        at = put_piece(at, &answers[row.answer])
        at = put_word(at, b', "egress": ')
        at = put_end(at, row.side_end[0], names[0], names[1])
        at = put_word(at, b', "ingress": ')
        at = put_end(at, row.side_end[1], names[2], names[3])
        return self.end_line(put_word(at, b"}\n"), last)
