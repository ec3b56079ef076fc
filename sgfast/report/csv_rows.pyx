"""``--verdicts`` and ``--connections`` as CSV: the fields of the JSON lines, those of a side after a dot.

A line of names, then one for each row; nothing between two commas is null. Fields are quoted as RFC 4180 says, lines
end with a line feed alone.
"""

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

VERDICT_FIELDS = (
    "packet", "time", "src", "dst", "protocol", "sport", "dport", "icmp_type", "icmp_code", "verdict", "reason",
    "egress.instance", "egress.verdict", "egress.reason", "egress.rule",
    "ingress.instance", "ingress.verdict", "ingress.reason", "ingress.rule",
)
CONNECTION_FIELDS = (
    "protocol", "initiator", "initiator_port", "responder", "responder_port", "icmp_type", "icmp_code",
    "first_time", "last_time", "packets_from_initiator", "packets_from_responder", "bytes_from_initiator",
    "bytes_from_responder", "verdict", "reason", "answer",
    "egress.instance", "egress.rule", "egress.ended", "ingress.instance", "ingress.rule", "ingress.ended",
)

# Words ---------------------------------------------------------------------------------------------------------------

cdef Piece[256] protocols
cdef Piece[VERDICT_COUNT][REASON_COUNT] outcomes
cdef Piece[ANSWER_COUNT] answers
cdef Piece[SIDE_END_COUNT] ends
cdef list words = []


cdef _fill_words():
    cdef int number, reason
    for number in range(256):
        protocols[number] = keep((protocol_name(number) or str(number)).encode(), words)
    for number in range(VERDICT_COUNT):
        for reason in range(REASON_COUNT):
            outcomes[number][reason] = keep(f"{VERDICTS[number]},{REASONS[reason] or ''}".encode(), words)
    for number in range(ANSWER_COUNT):
        answers[number] = keep(ANSWERS[number].encode(), words)
    for number in range(SIDE_END_COUNT):
        ends[number] = keep((ENDS[number] or "").encode(), words)


_fill_words()

# Parts of lines ------------------------------------------------------------------------------------------------------

cdef inline char* put_comma(char* at) noexcept nogil:
    at[0] = c","
    return at + 1


cdef inline char* put_address(char* at, const uint8_t* address, uint8_t family) noexcept nogil:
    return put_ipv6(at, address, mapped_is_dotted) if family == 6 else put_ipv4(at, address)


cdef inline char* put_pair(char* at, bint there, uint32_t first, uint32_t second) noexcept nogil:
    # And a comma before and after: ports, or ICMP type and code.
    if not there:
        return put_word(at, b",,,")
    at = put_number(put_comma(at), first)
    at = put_number(put_comma(at), second)
    return put_comma(at)


cdef inline char* put_side(char* at, const SideRow* row, const Piece* instance, const Piece* rule) noexcept nogil:
    if row.verdict == NO_VERDICT:
        return put_word(at, b",,,,")
    at = put_piece(put_comma(at), instance)
    at = put_piece(put_comma(at), &outcomes[row.verdict][row.reason])
    return put_piece(put_comma(at), rule)


cdef inline char* put_end(char* at, uint8_t end, const Piece* instance, const Piece* rule) noexcept nogil:
    if end == SIDE_NONE:
        return put_word(at, b",,,")
    at = put_piece(put_comma(at), instance)
    at = put_piece(put_comma(at), rule)
    return put_piece(put_comma(at), &ends[end])


# Lines ---------------------------------------------------------------------------------------------------------------

def _spell(name):
    if not name or any(c in name for c in '",\r\n'):
        name = '"' + name.replace('"', '""') + '"'
    return name.encode("utf-8", "backslashreplace")


cdef bytes _head(fields):
    return (",".join(fields) + "\n").encode()


cdef class VerdictCsv(PacketRows):
    """A ``PacketSink`` that calls ``write`` with whole lines, as bytes; ``close`` when all is written."""

    def __init__(self, write):
        self.set_up(write, _spell, b"", _head(VERDICT_FIELDS))

    cdef char* put_packet(
        self, char* at, const HeaderRow* header, const ResultRow* result, const Piece** names
    ) noexcept nogil:
        at = put_number(at, self.packets)
        at = put_time(put_comma(at), header.time_ns)
        if header.family:
            at = put_address(put_comma(at), header.src, header.family)
            at = put_address(put_comma(at), header.dst, header.family)
            at = put_piece(put_comma(at), &protocols[header.protocol])
        else:
            at = put_word(at, b",,,")
        at = put_pair(at, header.has_ports, header.sport, header.dport) - 1
        at = put_pair(at, header.has_icmp, header.icmp_type, header.icmp_code)
        at = put_piece(at, &outcomes[result.verdict][result.reason])
        at = put_side(at, &result.egress, names[0], names[1])
        at = put_side(at, &result.ingress, names[2], names[3])
        return put_word(at, b"\n")


cdef class ConnectionCsv(FlowRows):
    """A ``FlowSink`` that calls ``write`` with whole lines, as bytes; ``close`` when all is written."""

    def __init__(self, write):
        self.set_up(write, _spell, b"", _head(CONNECTION_FIELDS))

    cdef char* put_flow(self, char* at, const FlowRow* row, const Piece** names) noexcept nogil:
        cdef bint icmp = row.ends.protocol == (PROTO_ICMP if row.ends.family == 4 else PROTO_ICMPV6)
        at = put_piece(at, &protocols[row.ends.protocol])
        at = put_address(put_comma(at), row.ends.initiator, row.ends.family)
        at = put_comma(at)
        if row.ends.has_ports:
            at = put_number(at, row.ends.ports >> 16)
        at = put_address(put_comma(at), row.ends.responder, row.ends.family)
        at = put_comma(at)
        if row.ends.has_ports:
            at = put_number(at, row.ends.ports & 0xFFFF)
        at = put_pair(at, icmp, row.ends.icmp >> 8, row.ends.icmp & 0xFF)
        at = put_time(at, row.first_ns)
        at = put_time(put_comma(at), row.last_ns)
        at = put_number(put_comma(at), row.packets[0])
        at = put_number(put_comma(at), row.packets[1])
        at = put_number(put_comma(at), row.bytes[0])
        at = put_number(put_comma(at), row.bytes[1])
        at = put_piece(put_comma(at), &outcomes[row.verdict][row.reason])
        at = put_piece(put_comma(at), &answers[row.answer])
        at = put_end(at, row.side_end[0], names[0], names[1])
        at = put_end(at, row.side_end[1], names[2], names[3])
        return put_word(at, b"\n")
