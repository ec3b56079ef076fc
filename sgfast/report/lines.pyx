"""``--verdicts`` and ``--connections`` as text (SPEC 10.3, 10.4, 10.8): JSON lines and CSV.

A JSON line is equal to the output of ``json.dumps``. CSV has a line of column names, then one line for each row. An
empty field is null, fields are quoted as in RFC 4180, and lines end with a line feed alone. Both formats have the
columns of ``row_schema``, in that order.
"""

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
from sgfast.report.rows cimport ANSWER_COUNT, FlowRows, PacketRows, Text, keep_text, put_text
from sgfast.rows.text_columns cimport mapped_is_dotted
from sgfast.rows.write_text cimport (
    Leading,
    put_ipv4,
    put_ipv6,
    put_next_number,
    put_number,
    put_short,
    put_time,
    put_word,
)

from sgfast.engine import REASONS, VERDICTS
from sgfast.policy.protocols import protocol_name
from sgfast.rows.row_schema import ANSWERS, CONNECTION_ROWS, ENDS, PACKET_ROWS

# Words ---------------------------------------------------------------------------------------------------------------

cdef struct Words:
    Text protocols[256]
    Text outcomes[VERDICT_COUNT][REASON_COUNT]
    Text answers[ANSWER_COUNT]
    Text ends[SIDE_END_COUNT]


cdef Words json
cdef Words csv
cdef list encoded_texts = []


cdef int fill(Words* words, encode, bytes outcome) except -1:
    # `encode` turns a text, a number or None into bytes; `outcome` is the format for a verdict and its reason.
    cdef int number, reason
    for number in range(256):
        words.protocols[number] = keep_text(encode(protocol_name(number) or number), encoded_texts)
    for number in range(VERDICT_COUNT):
        for reason in range(REASON_COUNT):
            text = outcome % (encode(VERDICTS[number]), encode(REASONS[reason]))
            words.outcomes[number][reason] = keep_text(text, encoded_texts)
    for number in range(ANSWER_COUNT):
        words.answers[number] = keep_text(encode(ANSWERS[number]), encoded_texts)
    for number in range(SIDE_END_COUNT):
        words.ends[number] = keep_text(encode(ENDS[number]), encoded_texts)
    return 0


def _encode_json(value):
    return dumps(value).encode()


def _encode_csv(value):
    if value is None:
        return b""
    text = str(value)
    if not text or any(c in text for c in '",\r\n'):
        text = '"' + text.replace('"', '""') + '"'
    return text.encode("utf-8", "backslashreplace")


fill(&json, _encode_json, b'"verdict": %b, "reason": %b, ')
fill(&csv, _encode_csv, b"%b,%b")


cdef inline char* put_address(char* at, const uint8_t* address, uint8_t family) noexcept nogil:
    return put_ipv6(at, address, mapped_is_dotted) if family == 6 else put_ipv4(at, address)


cdef inline bint has_icmp(const FlowRow* row) noexcept nogil:
    return row.ends.protocol == (PROTO_ICMP if row.ends.family == 4 else PROTO_ICMPV6)


# JSON lines ----------------------------------------------------------------------------------------------------------

cdef inline char* put_quoted_address(char* at, const uint8_t* address, uint8_t family) noexcept nogil:
    at[0] = c'"'
    at = put_address(at + 1, address, family)
    at[0] = c'"'
    return at + 1


cdef inline char* put_number_or_null(char* at, bint there, uint32_t number) noexcept nogil:
    return put_short(at, number) if there else put_word(at, b"null")


cdef inline char* put_header(char* at, const HeaderRow* row, Leading* seconds) noexcept nogil:
    at = put_word(at, b', "time": "')
    at = put_time(at, row.time_ns, seconds)
    if row.family:
        at = put_word(at, b'", "src": ')
        at = put_quoted_address(at, row.src, row.family)
        at = put_word(at, b', "dst": ')
        at = put_quoted_address(at, row.dst, row.family)
        at = put_word(at, b', "protocol": ')
        at = put_text(at, &json.protocols[row.protocol])
    else:
        at = put_word(at, b'", "src": null, "dst": null, "protocol": null')
    if row.has_ports:
        at = put_word(at, b', "sport": ')
        at = put_short(at, row.sport)
        at = put_word(at, b', "dport": ')
        at = put_short(at, row.dport)
    else:
        at = put_word(at, b', "sport": null, "dport": null')
    if row.has_icmp:
        at = put_word(at, b', "icmp_type": ')
        at = put_short(at, row.icmp_type)
        at = put_word(at, b', "icmp_code": ')
        at = put_short(at, row.icmp_code)
        return put_word(at, b", ")
    return put_word(at, b', "icmp_type": null, "icmp_code": null, ')


cdef inline char* put_json_side(char* at, const SideRow* row, const Text* instance, const Text* rule) noexcept nogil:
    if row.verdict == NO_VERDICT:
        return put_word(at, b"null")
    at = put_word(at, b'{"instance": ')
    at = put_text(at, instance)
    at = put_word(at, b", ")
    at = put_text(at, &json.outcomes[row.verdict][row.reason])
    at = put_word(at, b'"rule": ')
    at = put_text(at, rule)
    return put_word(at, b"}")


cdef inline char* put_ends(char* at, const FlowRow* row) noexcept nogil:
    cdef bint icmp = has_icmp(row)
    at = put_word(at, b'{"protocol": ')
    at = put_text(at, &json.protocols[row.ends.protocol])
    at = put_word(at, b', "initiator": ')
    at = put_quoted_address(at, row.ends.initiator, row.ends.family)
    at = put_word(at, b', "initiator_port": ')
    at = put_number_or_null(at, row.ends.has_ports, row.ends.ports >> 16)
    at = put_word(at, b', "responder": ')
    at = put_quoted_address(at, row.ends.responder, row.ends.family)
    at = put_word(at, b', "responder_port": ')
    at = put_number_or_null(at, row.ends.has_ports, row.ends.ports & 0xFFFF)
    at = put_word(at, b', "icmp_type": ')
    at = put_number_or_null(at, icmp, row.ends.icmp >> 8)
    at = put_word(at, b', "icmp_code": ')
    return put_number_or_null(at, icmp, row.ends.icmp & 0xFF)


cdef inline char* put_counts(char* at, const FlowRow* row, Leading* seconds) noexcept nogil:
    at = put_word(at, b', "first_time": "')
    at = put_time(at, row.first_ns, &seconds[0])
    at = put_word(at, b'", "last_time": "')
    at = put_time(at, row.last_ns, &seconds[1])
    at = put_word(at, b'", "packets_from_initiator": ')
    at = put_number(at, row.packets[0])
    at = put_word(at, b', "packets_from_responder": ')
    at = put_number(at, row.packets[1])
    at = put_word(at, b', "bytes_from_initiator": ')
    at = put_number(at, row.bytes[0])
    at = put_word(at, b', "bytes_from_responder": ')
    at = put_number(at, row.bytes[1])
    return put_word(at, b", ")


cdef inline char* put_json_end(char* at, uint8_t end, const Text* instance, const Text* rule) noexcept nogil:
    # `instance` has its groups, too.
    if end == SIDE_NONE:
        return put_word(at, b"null")
    at = put_word(at, b'{"instance": ')
    at = put_text(at, instance)
    at = put_word(at, b', "rule": ')
    at = put_text(at, rule)
    at = put_word(at, b', "ended": ')
    at = put_text(at, &json.ends[end])
    return put_word(at, b"}")


cdef class VerdictLines(PacketRows):
    """A ``PacketSink`` that calls ``write`` with whole lines, as bytes.

    For example:

        with open("verdicts.jsonl", "wb") as file:
            sgfast.replay("pcaps/shop.yaml", "pcaps/shop.pcap", packets=VerdictLines(file.write))
    """

    def __init__(self, write):
        self.set_up(write, _encode_json, b"null", None)

    cdef char* put_packet(
        self, char* at, const HeaderRow* header, const ResultRow* result, const Text** names
    ) noexcept nogil:
        at = put_word(at, b'{"packet": ')
        at = put_next_number(at, self.packets, &self.number)
        at = put_header(at, header, self.seconds)
        at = put_text(at, &json.outcomes[result.verdict][result.reason])
        at = put_word(at, b'"egress": ')
        at = put_json_side(at, &result.egress, names[0], names[1])
        at = put_word(at, b', "ingress": ')
        at = put_json_side(at, &result.ingress, names[2], names[3])
        return put_word(at, b"}\n")


cdef class ConnectionLines(FlowRows):
    """A ``FlowSink`` that calls ``write`` with whole lines, as bytes.

    For example:

        with open("connections.jsonl", "wb") as file:
            sgfast.replay("pcaps/shop.yaml", "pcaps/shop.pcap", flows=ConnectionLines(file.write))
    """

    def __init__(self, write):
        self.set_up_flows(write, _encode_json, b"null", None, b', "groups": ')

    cdef char* put_flow(self, char* at, const FlowRow* row, const Text** names) noexcept nogil:
        at = put_ends(at, row)
        at = put_counts(at, row, self.seconds)
        at = put_text(at, &json.outcomes[row.verdict][row.reason])
        at = put_word(at, b'"answer": ')
        at = put_text(at, &json.answers[row.answer])
        at = put_word(at, b', "egress": ')
        at = put_json_end(at, row.side_end[0], names[0], names[1])
        at = put_word(at, b', "ingress": ')
        at = put_json_end(at, row.side_end[1], names[2], names[3])
        return put_word(at, b"}\n")


# CSV -----------------------------------------------------------------------------------------------------------------

cdef inline char* put_comma(char* at) noexcept nogil:
    at[0] = c","
    return at + 1


cdef inline char* put_pair(char* at, bint there, uint32_t first, uint32_t second) noexcept nogil:
    # Ports, or ICMP type and code, with a comma before and after.
    if not there:
        return put_word(at, b",,,")
    at = put_short(put_comma(at), first)
    at = put_short(put_comma(at), second)
    return put_comma(at)


cdef inline char* put_csv_side(char* at, const SideRow* row, const Text* instance, const Text* rule) noexcept nogil:
    if row.verdict == NO_VERDICT:
        return put_word(at, b",,,,")
    at = put_text(put_comma(at), instance)
    at = put_text(put_comma(at), &csv.outcomes[row.verdict][row.reason])
    return put_text(put_comma(at), rule)


cdef inline char* put_csv_end(char* at, uint8_t end, const Text* instance, const Text* rule) noexcept nogil:
    if end == SIDE_NONE:
        return put_word(at, b",,,,")
    at = put_text(put_comma(at), instance)
    at = put_text(put_comma(at), rule)
    return put_text(put_comma(at), &csv.ends[end])


cdef bytes line_of_names(rows):
    return (",".join(rows.names) + "\n").encode()


cdef class VerdictCsv(PacketRows):
    """A ``PacketSink`` that calls ``write`` with whole lines, as bytes. Call ``close`` at the end.

    For example:

        with open("verdicts.csv", "wb") as file:
            writer = VerdictCsv(file.write)
            sgfast.replay("pcaps/shop.yaml", "pcaps/shop.pcap", packets=writer)
            writer.close()
    """

    def __init__(self, write):
        self.set_up(write, _encode_csv, b"", line_of_names(PACKET_ROWS))

    cdef char* put_packet(
        self, char* at, const HeaderRow* header, const ResultRow* result, const Text** names
    ) noexcept nogil:
        at = put_next_number(at, self.packets, &self.number)
        at = put_time(put_comma(at), header.time_ns, self.seconds)
        if header.family:
            at = put_address(put_comma(at), header.src, header.family)
            at = put_address(put_comma(at), header.dst, header.family)
            at = put_text(put_comma(at), &csv.protocols[header.protocol])
        else:
            at = put_word(at, b",,,")
        at = put_pair(at, header.has_ports, header.sport, header.dport) - 1
        at = put_pair(at, header.has_icmp, header.icmp_type, header.icmp_code)
        at = put_text(at, &csv.outcomes[result.verdict][result.reason])
        at = put_csv_side(at, &result.egress, names[0], names[1])
        at = put_csv_side(at, &result.ingress, names[2], names[3])
        return put_word(at, b"\n")


cdef class ConnectionCsv(FlowRows):
    """A ``FlowSink`` that calls ``write`` with whole lines, as bytes. Call ``close`` at the end.

    For example:

        with open("connections.csv", "wb") as file:
            writer = ConnectionCsv(file.write)
            sgfast.replay("pcaps/shop.yaml", "pcaps/shop.pcap", flows=writer)
            writer.close()
    """

    def __init__(self, write):
        self.set_up_flows(write, _encode_csv, b"", line_of_names(CONNECTION_ROWS), b",")

    cdef char* put_flow(self, char* at, const FlowRow* row, const Text** names) noexcept nogil:
        at = put_text(at, &csv.protocols[row.ends.protocol])
        at = put_address(put_comma(at), row.ends.initiator, row.ends.family)
        at = put_comma(at)
        if row.ends.has_ports:
            at = put_short(at, row.ends.ports >> 16)
        at = put_address(put_comma(at), row.ends.responder, row.ends.family)
        at = put_comma(at)
        if row.ends.has_ports:
            at = put_short(at, row.ends.ports & 0xFFFF)
        at = put_pair(at, has_icmp(row), row.ends.icmp >> 8, row.ends.icmp & 0xFF)
        at = put_time(at, row.first_ns, &self.seconds[0])
        at = put_time(put_comma(at), row.last_ns, &self.seconds[1])
        at = put_number(put_comma(at), row.packets[0])
        at = put_number(put_comma(at), row.packets[1])
        at = put_number(put_comma(at), row.bytes[0])
        at = put_number(put_comma(at), row.bytes[1])
        at = put_text(put_comma(at), &csv.outcomes[row.verdict][row.reason])
        at = put_text(put_comma(at), &csv.answers[row.answer])
        at = put_csv_end(at, row.side_end[0], names[0], names[1])
        at = put_csv_end(at, row.side_end[1], names[2], names[3])
        return put_word(at, b"\n")
