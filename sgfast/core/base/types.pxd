# Types shared by the whole data plane: verdicts, reasons, result words, and a packet's headers as integers.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.key cimport FlowKey

cdef enum:
    NO_SLOT = 0xFFFFFFFF    # slot number that means no entry

# Order and numbers are part of the interface: sgfast.engine names these verdicts and reasons.
cdef enum:         # Verdict
    ALLOW = 0
    DENY = 1
    MOOT = 2
    OUT_OF_SCOPE = 3
    LOCAL = 4
    EXEMPT = 5
    NOT_IP = 6
    PENDING = 7             # a fragment held until its first fragment arrives; see DataPlane.take_resolved (SPEC 9.4)
    VERDICT_COUNT = 8
    NO_VERDICT = 255        # verdict of a side that the packet does not have, or never reached

cdef enum:         # Reason
    NO_REASON = 0
    RULE = 1
    ESTABLISHED = 2
    RELATED = 3
    INFERRED = 4
    NO_RULE = 5
    DENY_RULE = 6
    INVALID = 7
    MIDSTREAM = 8
    DISCONNECTED = 9
    TABLE_FULL = 10
    VPC_ISOLATED = 11
    MALFORMED = 12
    TRUNCATED = 13
    FRAGMENT = 14
    OPENER_DENIED = 15
    INFRASTRUCTURE = 16
    REPLY_DENIED = 17
    REASON_COUNT = 18

# A packet's result in 16 bits, for comparing engines. It is much smaller than a ResultRow, and needs no owner look-up.
# The bits about the packet's record describe the record after the packet was judged.
cdef enum:         # Result word
    WORD_VERDICT = 7            # the verdict
    WORD_REASON_SHIFT = 3       # five bits
    WORD_BEGAN = 1 << 8         # a record of the connection report (SPEC 10.4) begins with this packet
    WORD_KNOWN = 1 << 9         # the packet belongs to such a record, which the next bits describe
    WORD_HIGH_SHIFT = 10        # the initiator is the higher address
    WORD_HEARD = 1 << 11        # the other end answered
    WORD_FAST = 1 << 12         # the packet took the fast path (fast_path.pxd): the record's state did not change
    WORD_FOLLOWS = 1 << 13      # not its datagram's first fragment: no bits about a record are set

# Result of parsing a frame's headers (SPEC 3.1, 3.2, 3.4), before any look-up.
cdef enum:         # Parse result
    READ_TRACKED = 0        # has a connection key
    READ_ICMP_ERROR = 1     # judged by the packet that it quotes (SPEC 4.6)
    READ_TRUNCATED = 2
    READ_MALFORMED = 3      # contradicts itself, but its addresses are known
    READ_STRAY = 4          # a later fragment without a known first one, or a fragment of a contradictory datagram
    READ_EXEMPT = 5         # infrastructure (SPEC 3.2)
    READ_SERVER = 6         # infrastructure that an instance must not send (SPEC 3.11)
    READ_BROKEN = 7         # no readable addresses: malformed, without sides (SPEC 3.1)
    READ_NOT_IP = 8
    READ_FRAGMENT = 9       # a fragment; its own is in Packet.fragment_parse_result (SPEC 9.4)

cdef enum:         # Protocol
    PROTO_ICMP = 1
    PROTO_TCP = 6
    PROTO_UDP = 17
    PROTO_DCCP = 33
    PROTO_ICMPV6 = 58
    PROTO_SCTP = 132
    PROTO_UDPLITE = 136

# The possible effect of a packet on its connection. For TCP: the row in the transition table (conntrack/tcp.pxd).
cdef enum:         # Step
    TCP_SYN = 0
    TCP_SYNACK = 1
    TCP_FIN = 2
    TCP_ACK = 3
    TCP_RST = 4
    TCP_BAD = 5             # a flag combination that Linux calls invalid (SPEC 5.4)
    STEP_OPEN = 6           # not TCP: may open a connection, and is valid in any state
    STEP_REPLY = 7          # an ICMP reply: valid, but opens no connection (SPEC 5.6)
    STEP_COUNT = 8


cdef enum:         # Cut: who has less of a packet than there was
    NOT_CUT_SHORT = 0
    CUT_BY_CAPTURE = 1
    CUT_BY_TUNNEL = 2


# The fields that most packets need fill the first 64 bytes, one cache line.
cdef struct Packet:
    uint64_t digest         # the key's addresses as one word: addr[0] for IPv4, a keyed hash for IPv6
    int64_t time_ns         # capture timestamp
    uint32_t hash           # keyed hash of the whole key
    uint32_t hint           # the slot that an early index probe guessed, or NO_SLOT; the key must still be compared
    uint32_t wire           # original length in bytes
    uint16_t port_key       # value compared with rules' ports: destination port, or ICMP type << 8 | code
    uint16_t sport
    uint16_t dport
    uint8_t step
    uint8_t parse_result    # read as one word together with `step` (fast_path.pxd)
    uint8_t ipv6
    uint8_t protocol
    uint8_t has_ports
    uint8_t has_icmp        # port_key holds ICMP type and code
    uint8_t source_high     # the source is the higher address
    uint8_t tcp_flags
    FlowKey key             # for IPv4, the used words of `addr` are in the first cache line
    uint64_t number         # 1-based packet number; not set on the fast path
    uint64_t count          # the packets that this one stands for: 1, set like `number`, or some of a flow log's record
    const uint8_t* quote    # ICMP errors only: the quoted packet
    uint32_t quote_length
    # Fragments only:
    uint32_t fragment_id            # identification of the datagram
    uint16_t fragment_start         # offset of the fragment's first byte in the datagram
    uint16_t fragment_end           # offset after the last byte
    uint8_t fragment_last           # this fragment is the last one
    uint8_t fragment_parse_result   # that of a first fragment's headers; READ_STRAY for any other fragment
    uint8_t is_answer       # flow logs only: as in RecordCounts
    uint8_t cut             # READ_BROKEN, _TRUNCATED and _FRAGMENT only: Cut
    void* entry             # the entry in slot `hint`, or an entry that no key matches


# One packet's headers as an array row: the input of Engine.process, and the packets in the output of --verdicts.
cdef packed struct HeaderRow:
    int64_t time_ns
    uint8_t src[16]         # network byte order; IPv4 in the first four bytes
    uint8_t dst[16]
    uint32_t wire
    uint16_t sport
    uint16_t dport
    uint8_t family          # 4, 6, or 0 for no addresses
    uint8_t protocol
    uint8_t tcp_flags
    uint8_t icmp_type
    uint8_t icmp_code
    uint8_t has_ports
    uint8_t has_icmp
    uint8_t spare
    uint32_t icmp_id


cdef packed struct SideRow:
    int32_t instance        # index in Policy.instances, -1: no such side
    int32_t rule            # index in Engine.rules, -1: none
    uint8_t verdict         # ALLOW, DENY or NO_VERDICT
    uint8_t reason
    uint16_t spare


cdef packed struct ResultRow:
    uint8_t verdict
    uint8_t reason
    uint16_t spare
    SideRow egress
    SideRow ingress
