# The meaning of each protocol's packets: which packets begin a connection, which state a packet leads to, and what a
# packet shows about its connection. No other module depends on the protocol in this.

from libc.stdint cimport uint8_t

from sgfast.core.base.key cimport KIND_ICMP_QUERY, KIND_ONE_WAY, KIND_PORTS
from sgfast.core.base.types cimport (
    PROTO_TCP,
    STEP_OPEN,
    STEP_REPLY,
    TCP_ACK,
    TCP_BAD,
    TCP_FIN,
    TCP_RST,
    TCP_SYN,
    TCP_SYNACK,
    Packet,
)
from sgfast.core.conntrack.generic cimport generic_next, icmp_next
from sgfast.core.conntrack.states cimport (
    BIDIRECTIONAL,
    CLOSED,
    FIN_WAIT,
    ICMP_ALIVE,
    MOOT_ICMP,
    MOOT_OTHER,
    MOOT_TCP,
    SYN_RECV,
    SYN_RECV2,
    SYN_SENT,
    TCP_ESTABLISHED,
    TIME_WAIT,
    UNIDIRECTIONAL,
)
from sgfast.core.conntrack.tcp cimport tcp_next


cdef inline bint is_of_tcp(const Packet* p) noexcept nogil:
    # Whether a packet with a connection key is a TCP packet.
    return p.step < STEP_OPEN


cdef inline bint can_open(const Packet* p) noexcept nogil:
    # Whether the packet can open a connection by itself (SPEC 4.7).
    return p.step == TCP_SYN or p.step == STEP_OPEN


cdef inline bint opens_nothing(const Packet* p) noexcept nogil:
    # Whether the packet is meaningless without a connection, even without one older than the capture (SPEC 4.7).
    return p.step == STEP_REPLY or p.step == TCP_BAD


cdef inline bint resets(const Packet* p) noexcept nogil:
    # Whether the packet aborts or refuses its connection.
    return p.step == TCP_RST


cdef inline bint shows_answer(const Packet* p) noexcept nogil:
    # Whether a packet of the initiator that comes after its opener shows that the responder answered (SPEC 10.4). Every
    # TCP packet after a handshake acknowledges what the other end sent.
    return p.step == TCP_ACK or p.step == TCP_FIN


cdef inline bint is_icmp_opener(const Packet* p) noexcept nogil:
    return p.step == STEP_OPEN and (p.key.kind & (KIND_ICMP_QUERY | KIND_ONE_WAY)) != 0


cdef inline bint answer_is_known(const Packet* p) noexcept nogil:
    # Whether the packet is an opener whose answer can be told from other packets of its key. In protocols without
    # connections of their own, no field identifies an answer or shows that an opener gets no answer (SPEC 9.2).
    return p.step == TCP_SYN or is_icmp_opener(p)


cdef inline bint answers_nothing(const Packet* p) noexcept nogil:
    # Whether the packet's protocol has no answers: IP in IP, GRE, ESP and AH. Each end opens for itself (SPEC 9.2).
    return p.protocol == 4 or p.protocol == 41 or p.protocol == 47 or p.protocol == 50 or p.protocol == 51


cdef inline bint either_may_call(const Packet* p) noexcept nogil:
    # Whether packets of this key do not show whether they are a request or its answer (SPEC 9.2). Without ports, both
    # port fields are 0.
    return p.step == STEP_OPEN and p.sport == p.dport and not is_icmp_opener(p)


cdef inline bint is_from_service(const Packet* p) noexcept nogil:
    # Whether a packet of TCP most likely comes from the connection's responder, as its port is the lower one.
    return p.protocol == PROTO_TCP and p.step != TCP_SYN and p.sport < p.dport


cdef inline bint infer_initiator(const Packet* p) noexcept nogil:
    # Whether the initiator of a connection older than the capture is the higher address (SPEC 9.3).
    if p.step == TCP_SYNACK or is_from_service(p):
        return not p.source_high
    return p.source_high


cdef inline bint is_finished(uint8_t state) noexcept nogil:
    # Whether a connection in this state is over, although it is still remembered.
    return state == TIME_WAIT or state == CLOSED


cdef inline uint8_t first_state(const Packet* p) noexcept nogil:
    # Returns the first state of a connection that the packet opens.
    if is_of_tcp(p):
        return SYN_SENT
    return ICMP_ALIVE if p.key.kind & (KIND_ICMP_QUERY | KIND_ONE_WAY) else UNIDIRECTIONAL


cdef inline uint8_t inferred_state(const Packet* p) noexcept nogil:
    # Returns the state of a TCP connection older than the capture, given its first packet seen (SPEC 9.3).
    if p.step == TCP_SYNACK:
        return SYN_RECV
    return FIN_WAIT if p.step == TCP_FIN else TCP_ESTABLISHED


cdef inline uint8_t next_state(const Packet* p, bint reply, uint8_t state) noexcept nogil:
    # Returns the state that a packet leads to, perhaps with KEEPS_DEADLINE; or STAYS, NOT_VALID or REOPENS.
    if is_of_tcp(p):
        return tcp_next(reply, p.step, state)
    return icmp_next() if state == ICMP_ALIVE else generic_next(state, reply)


cdef inline uint8_t moot_state(const Packet* p) noexcept nogil:
    # Returns the moot state that a denied opener of the packet's protocol leaves (SPEC 9.2).
    if p.protocol == PROTO_TCP:
        return MOOT_TCP
    return MOOT_ICMP if p.has_icmp else MOOT_OTHER


cdef inline bint can_be_in(uint8_t protocol, uint8_t kind, uint8_t state) noexcept nogil:
    # Whether a connection of this key can be in the state. Used for states read from a file.
    if protocol == PROTO_TCP and kind & KIND_PORTS:
        return SYN_SENT <= state <= SYN_RECV2
    if kind & (KIND_ICMP_QUERY | KIND_ONE_WAY):
        return state == ICMP_ALIVE
    return state == UNIDIRECTIONAL or state == BIDIRECTIONAL
