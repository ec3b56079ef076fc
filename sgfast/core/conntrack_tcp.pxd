# TCP connections follow the state table of Linux nf_conntrack, without sequence numbers (SPEC 5.4, 5.5).

from libc.stdint cimport uint8_t

cdef enum:         # TcpState
    SYN_SENT = 1
    SYN_RECV = 2
    TCP_ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSED = 8
    SYN_SENT2 = 9
    # Not states but what else a packet may lead to:
    TCP_STAYS = 13      # allowed, state and deadline stay: Linux ignores it, or a retransmitted SYN
    TCP_INVALID = 14
    TCP_REOPENS = 15    # a new opener for a finished connection (SPEC 5.5)


cdef struct TcpTable:
    uint8_t next[2 * 6 * 16]    # [reply direction][Step][state]


cdef inline uint8_t tcp_next(const TcpTable* table, bint reply, uint8_t step, uint8_t state) noexcept nogil:
    return table.next[(reply * 6 + step) * 16 + state]


cdef void fill_tcp_table(TcpTable* table)
