# The states of a side's connection, for all protocols, and the timeout of each state (SPEC 5.2). A new protocol needs
# states here, transitions in a file of its own, and a line in the dispatch in protocols.pxd.

from libc.stdint cimport uint8_t

cdef enum:         # State
    NO_STATE = 0            # no connection
    # TCP (tcp.pxd)
    SYN_SENT = 1
    SYN_RECV = 2
    TCP_ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSED = 8
    SYN_SENT2 = 9           # both ends sent a SYN
    SYN_RECV2 = 10          # after SYN_SENT2, one end sent a SYN/ACK
    # ICMP queries and one-way ICMP (generic.pxd)
    ICMP_ALIVE = 11
    # Every other protocol (generic.pxd)
    UNIDIRECTIONAL = 12
    BIDIRECTIONAL = 13
    # Marks of denied openers (SPEC 9.2). There is room for states of other protocols before them.
    MOOT_TCP = 64
    MOOT_OTHER = 65
    MOOT_ICMP = 66
    STATE_COUNT = 67

cdef enum:         # a packet's results other than a state
    KEEPS_DEADLINE = 128    # added to a state: the state changes, but the deadline does not
    STAYS = 253             # the packet is allowed; state and deadline do not change
    NOT_VALID = 254         # the packet is not valid in this state (SPEC 4.5)
    REOPENS = 255           # a new opener for a finished connection (SPEC 5.5)

cdef enum:         # Timeout: the order of DataPlane's `timeouts_ns` and of settings.timeouts
    TIMEOUT_TCP_ESTABLISHED = 0
    TIMEOUT_TCP_FIN_WAIT = 1
    TIMEOUT_TCP_OTHER = 2
    TIMEOUT_ICMP = 3
    TIMEOUT_BIDIRECTIONAL = 4
    TIMEOUT_UNIDIRECTIONAL = 5
    TIMEOUT_COUNT = 6


cdef extern from *:
    """
    /* The Timeout of each state. */
    static const uint8_t sg_timeout_of_state[67] __attribute__((unused)) = {
        [0] = 2, /* no state: never used */
        [1] = 2, [2] = 2, [3] = 0, [4] = 1, [5] = 2, [6] = 2, [7] = 2, [8] = 2, [9] = 2, [10] = 2, /* TCP */
        [11] = 3,               /* ICMP */
        [12] = 5, [13] = 4,     /* other protocols: allowed one way, both ways */
        /* A key stays moot for the timeout of an unanswered connection (SPEC 9.2). For TCP it is the timeout of an
           established connection, as the initiator may retry for minutes. */
        [64] = 0, [65] = 5, [66] = 3,
    };
    """
    const uint8_t* TIMEOUT_OF_STATE "sg_timeout_of_state"
