# The shapes of TCP records without flags: whether packets of one end show that the other end answered, although no
# record has an answer, and whether they may be a refused opener or its refusal (SPEC 10.30).

from libc.stdint cimport int16_t, int64_t, uint16_t, uint64_t

from sgfast.traffic.flow_logs.openers cimport ACK, FIN, SYN

cdef enum:
    MOST_OF_SYN = 100       # bytes of an opener, with IPv6 and all options of TCP
    OPTIONS_OF_SYN = 4      # the least bytes of an opener's options; a probe that keeps a connection alive has none
    FEW = 3                 # packets that an opener and its first retries may be, however close they are
    QUICK_RETRIES = 5       # some systems send so many retries a second apart, and the others at doubled times
    # Letters of one end in Zeek's history, as bits (zeek.HISTORY_LETTERS).
    HISTORY_SYN = 1 << 0
    HISTORY_SYNACK = 1 << 1
    HISTORY_ACK = 1 << 2
    HISTORY_DATA = 1 << 3
    HISTORY_FIN = 1 << 4
    HISTORY_RST = 1 << 5


cdef inline uint64_t most_openers(int64_t seconds) noexcept nogil:
    # Returns the most packets that an opener and its retries are in so many seconds.
    cdef uint64_t doublings = 0
    cdef int64_t reached = 1
    while reached <= seconds and doublings < 32:
        reached = 2 * reached + 1
        doublings += 1
    return 1 + <uint64_t>min(seconds, QUICK_RETRIES) + doublings


cdef inline bint shows_answer(
    uint64_t packets, uint64_t nbytes, int64_t seconds, int16_t flags, uint16_t history
) noexcept nogil:
    # `flags`: -1 if they are unknown. `history`: the letters of this end; 0 without them. A scan of single ACKs or FINs
    # shows no answer, and neither does an opener with its retries.
    if history:
        if history & HISTORY_DATA or (history & HISTORY_SYN and history & (HISTORY_ACK | HISTORY_FIN)):
            return True
    elif flags >= 0 and flags & (SYN | FIN | ACK) == SYN | FIN and packets >= FEW:
        return True
    if flags >= 0 and flags & (SYN | FIN) == SYN and packets == 1:
        return False        # with data, which TCP Fast Open allows
    if nbytes > packets * MOST_OF_SYN:
        return True
    return packets > FEW and packets > most_openers(seconds)


cdef inline bint may_be_refusals(uint64_t packets, uint64_t nbytes, bint ipv6) noexcept nogil:
    # Packets of an RST in answer to an opener have neither data nor options; a SYN-ACK has options.
    return nbytes == packets * (60 if ipv6 else 40)


cdef inline bint may_be_openers(uint64_t packets, uint64_t nbytes, int64_t seconds, bint ipv6) noexcept nogil:
    cdef uint64_t headers = 60 if ipv6 else 40
    return (
        packets * (headers + OPTIONS_OF_SYN) <= nbytes <= packets * MOST_OF_SYN
        and packets <= max(<uint64_t>FEW, most_openers(seconds))
    )
