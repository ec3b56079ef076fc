"""``--verdicts`` and ``--connections``: JSON lines (SPEC 10.3, 10.4), each as ``json.dumps`` would write its dict."""

from json import dumps

from libc.stdint cimport uint8_t, uint32_t

from sgfast.core.base.types cimport (
    NO_VERDICT,
    PROTO_ICMP,
    PROTO_ICMPV6,
    REASON_COUNT,
    VERDICT_COUNT,
    HeaderRow,
    ResultRow,
    SideRow,
)
from sgfast.core.conntrack.table cimport SIDE_END_COUNT, SIDE_NONE, FlowRow
from sgfast.report.rows cimport ANSWER_COUNT, FlowRows, PacketRows, Piece, keep, mapped_is_dotted, put_piece
from sgfast.report.write_text cimport put_ipv4, put_ipv6, put_number, put_time, put_word

from sgfast.engine import REASONS, VERDICTS
from sgfast.policy.protocols import protocol_name
from sgfast.report.rows import ANSWERS, ENDS

# Words ---------------------------------------------------------------------------------------------------------------

cdef Piece[256] protocols
cdef Piece[VERDICT_COUNT][REASON_COUNT] outcomes
cdef Piece[ANSWER_COUNT] answers
cdef Piece[SIDE_END_COUNT] ends
cdef list words = []


cdef _fill_words():
    cdef int number, reason
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

def _spell(name):
    return dumps(name).encode()


cdef class VerdictLines(PacketRows):
    """A ``PacketSink`` that calls ``write`` with whole lines, as bytes."""

    def __init__(self, write):
        self.set_up(write, _spell, b"null", None)

    cdef char* put_packet(
        self, char* at, const HeaderRow* header, const ResultRow* result, const Piece** names
    ) noexcept nogil:
        at = put_word(at, b'{"packet": ')
        at = put_number(at, self.packets)
        at = put_header(at, header)
        at = put_piece(at, &outcomes[result.verdict][result.reason])
        at = put_word(at, b'"egress": ')
        at = put_side(at, &result.egress, names[0], names[1])
        at = put_word(at, b', "ingress": ')
        at = put_side(at, &result.ingress, names[2], names[3])
        return put_word(at, b"}\n")


cdef class ConnectionLines(FlowRows):
    """A ``FlowSink`` that calls ``write`` with whole lines, as bytes."""

    def __init__(self, write):
        self.set_up(write, _spell, b"null", None)

    cdef char* put_flow(self, char* at, const FlowRow* row, const Piece** names) noexcept nogil:
        at = put_ends(at, row)
        at = put_counts(at, row)
        at = put_piece(at, &outcomes[row.verdict][row.reason])
        at = put_word(at, b'"answer": ')
        at = put_piece(at, &answers[row.answer])
        at = put_word(at, b', "egress": ')
        at = put_end(at, row.side_end[0], names[0], names[1])
        at = put_word(at, b', "ingress": ')
        at = put_end(at, row.side_end[1], names[2], names[3])
        return put_word(at, b"}\n")
