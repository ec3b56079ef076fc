# Questions about connections that either end may have opened: what would the policy do in either case (SPEC 10.30)?

from libc.stdint cimport int64_t, uint8_t, uint16_t
from libc.string cimport memcpy

from sgfast.core.base.types cimport PROTO_TCP
from sgfast.traffic.flow_logs.openers cimport ICMP_WITHOUT_TYPE, READINGS_DIFFER, Conversation, is_icmp

# The answers to a question, by their meaning for the connection.
cdef enum:         # Answer
    SAME_VERDICT = 1        # the policy's verdict does not depend on who opened it
    OTHER_VERDICT = 2       # it does
    IS_LIKELIER = 3         # the likelier opener is sure
    IS_OTHER = 4            # the other end is


# A row of QUESTION_DTYPE (connections.pyx). Source is the likelier opener.
cdef packed struct QuestionRow:
    int64_t first_ns        # the start of the connection's first record so far
    int64_t last_ns         # the end of the last one
    uint8_t src[16]
    uint8_t dst[16]
    uint16_t sport
    uint16_t dport
    uint16_t vpc            # as in Frame
    uint8_t family
    uint8_t protocol
    uint8_t icmp_type       # of a query
    uint8_t icmp_code
    uint8_t is_answered     # packets of both ends are in the log, or those of one end show an answer: whoever opened it
    uint8_t has_two_openers     # each end may have opened it, at one filter
    uint8_t has_no_type     # ICMP of which nobody knows what it asks


cdef inline bint is_answered(const Conversation* c) noexcept nogil:
    # An end of TCP that sends nothing but packets without data and options may have refused the connection.
    if c.accepted == 3:
        return c.protocol != PROTO_TCP or c.no_refusal == 3
    return c.protocol == PROTO_TCP and (c.shows_answer & c.accepted) != 0


cdef inline void fill_question(QuestionRow* row, const Conversation* c) noexcept nogil:
    cdef int way = c.opener
    cdef int first = way if c.accepted == 3 else c.accepted >> 1
    row.first_ns = min(c.first_ns[0], c.first_ns[1]) if c.accepted == 3 else c.first_ns[first]
    row.last_ns = max(c.last_ns, row.first_ns)
    memcpy(row.src, &c.ends[16 * way], 16)
    memcpy(row.dst, &c.ends[16 * (1 - way)], 16)
    row.sport, row.dport = c.ports[way], c.ports[1 - way]
    row.vpc = c.vpc
    row.family, row.protocol = c.family, c.protocol
    row.icmp_type = 0
    row.icmp_code = 0
    if is_icmp(c):
        row.icmp_type = c.icmp_type if c.has_icmp else 128 if c.family == 6 else 8
        row.icmp_code = c.icmp_code
    row.is_answered = is_answered(c)
    row.has_two_openers = c.fate == READINGS_DIFFER
    row.has_no_type = c.fate == ICMP_WITHOUT_TYPE
