# Decides who opened a connection, as far as the records of a flow log tell. No other place does.
#
# A *way* is a direction of the 5-tuple: 0 from the end with the lower address and port, 1 from the other end. The first
# of these that tells anything decides:
#
# 1. A record that names the opener itself, such as Zeek's, which saw the first packet.
# 2. TCP flags: a SYN without ACK is the opener's, a SYN with ACK the other end's.
# 3. Ports: a port of services at one end only, as SPEC 9.3 reads them in captures. Times may contradict them, and so
#    may the other conversations of either port.
# 4. Times: the end whose packets come first, if the connection is surely not older than the log.
# 5. A refusal: if the cloud rejected one end's packets before it accepted any of them, the other end opened. It may
#    contradict ports and times.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.types cimport PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP

cdef enum:
    FIRST_RESERVED = 512    # rresvport() and NFS clients take ports from 512 to 1023
    FIRST_USUAL = 1024
    FIRST_EPHEMERAL = 32768
    FTP_DATA = 20           # the port of the only service whose server opens connections to its clients
    FIN = 1
    SYN = 2
    RST = 4
    ACK = 16
    SEVERAL = 3             # a service has clients with so many different ports
    REFUSED_MINUTES = 128   # more than records wait
    REFUSED_WORDS = 2       # with a bit for each of these

# The reasons for which a record is undecided. UNDECIDED in record_packets.pyx lists their names in the same order.
cdef enum:         # Cause
    DECIDED = 0
    NO_SIGN = 1             # neither flags, ports nor times tell the opener
    DISPUTED = 2            # ports and times, or two records, contradict each other
    ICMP_WITHOUT_TYPE = 3
    NO_OPENER = 4           # rejected, but perhaps no opener: other causes than rules are as likely
    CAUSES = 5

# Values of a conversation.
cdef enum:
    UNUSED = 0xFFFFFFFF     # `pending`: no conversation is here
    NO_INTERFACE = -2


# Records read so far about one 5-tuple, in both directions.
cdef struct Conversation:
    uint8_t ends[32]        # the lower address, then the higher one, 16 bytes each
    uint16_t ports[2]       # of these ends; 0 without ports
    uint8_t protocol
    uint8_t family
    uint8_t icmp_type       # of a query; only with has_icmp
    uint8_t icmp_code
    uint8_t has_icmp        # 0 without a type; else 1 + the way of what asks, as both ends may ask each other
    uint16_t vpc            # as in Frame
    # Bits by way:
    uint8_t named           # a record says that this end opened
    uint8_t sent_syn
    uint8_t accepted
    uint8_t rejected
    uint8_t finished        # a FIN of this end is in the packets made so far
    # About the packets made so far:
    uint8_t begun           # the connection's first packet
    uint8_t answered        # a packet of the other end
    uint8_t closed          # an RST, or FINs of both ends
    uint8_t known           # `opener` and `cause` are set
    uint8_t opener          # way
    uint8_t cause           # Cause; if it is not DECIDED, there is no opener
    uint8_t is_guess        # only ports tell the opener, and the service is not known
    uint8_t is_counted      # the connection is counted as undecided
    uint8_t is_decided      # the connection is counted as decided
    uint8_t is_retired      # a later connection has the same ends, so that the index no longer has this one
    int32_t interface[2]    # that of each way's records that count; NO_INTERFACE before the first one
    int64_t first_ns[2]     # of each way's accepted records
    int64_t refused_ns[2]   # the first rejected record of each way, and an interface that did it
    int32_t refused_by[2]
    uint64_t refused_minutes[2][REFUSED_WORDS]      # the minutes up to the latest one in which it rejected, as a ring
    int64_t refused_minute[2]                       # that latest minute
    uint8_t flags[2]        # those of each way's accepted records
    int64_t logged_ns       # from this time on, a log surely has the connection
    int64_t last_ns         # the latest end of any record
    int64_t made_ns         # the end of the latest record whose packets were made
    int64_t alive_ns        # the latest packet made, and the opener's
    int64_t asked_ns
    int64_t end_ns[2]       # the end of each way's latest record whose packets were made
    uint64_t marks[6]       # of each way's latest such records, the latest first: three for each way
    uint32_t hash
    uint32_t next           # the next conversation in the same place of the index, or the next unused one
    uint32_t pending        # records, and later packets of them, that wait; UNUSED: no conversation is here


cdef inline bint is_icmp(const Conversation* c) noexcept nogil:
    return c.protocol == (PROTO_ICMPV6 if c.family == 6 else PROTO_ICMP)


cdef inline int way_by_ports(const Conversation* c) noexcept nogil:
    # Returns the opener's way if one port only is a service's and the other is ephemeral, and else -1.
    cdef int end
    cdef bint low, high
    if c.protocol == PROTO_TCP and (c.ports[0] == FTP_DATA) != (c.ports[1] == FTP_DATA):
        return 0 if c.ports[0] == FTP_DATA else 1
    for end in range(2):
        low = c.ports[0] < (FIRST_EPHEMERAL if end else FIRST_USUAL)
        high = c.ports[1] < (FIRST_EPHEMERAL if end else FIRST_USUAL)
        if low != high:
            return 1 if low else 0
    return -1


cdef inline void decide_opener(
    Conversation* c, bint may_be_older, const uint8_t* ports, const uint8_t* peers
) noexcept nogil:
    # Sets `opener`, `cause` and `is_guess`. `may_be_older`: the connection may have begun before the log. `ports`,
    # `peers`: for each end, the number of different ports, and of different addresses and ports, at the other ends of
    # the latest conversations of its address and port; SEVERAL stands for more, too.
    cdef int by_ports = way_by_ports(c)
    cdef int by_time = -1
    cdef int refused = -1
    # Whether the service is known, as clients have different ports. Otherwise its port may as well be a client's: one
    # behind NAT may have any port, an NFS client has one below 1024, and a client may go from one port to many servers.
    cdef bint is_used = by_ports >= 0 and ports[1 - by_ports] == SEVERAL
    cdef bint may_be_client = by_ports >= 0 and not is_used and c.ports[1 - by_ports] >= FIRST_RESERVED
    cdef bint doubtful = may_be_client and peers[by_ports] == SEVERAL and peers[1 - by_ports] <= 1
    cdef bint weak = (
        by_ports >= 0 and not is_used and c.ports[by_ports] < FIRST_EPHEMERAL and c.ports[by_ports] != FTP_DATA
    )
    c.known = True
    c.cause = DECIDED
    c.is_guess = False
    if is_icmp(c) and not c.has_icmp and c.accepted != 3:
        c.cause = ICMP_WITHOUT_TYPE
    elif c.named == 1 or c.named == 2:
        c.opener = c.named >> 1
    elif c.sent_syn == 1 or c.sent_syn == 2:
        c.opener = c.sent_syn >> 1
    elif c.named or c.sent_syn:
        c.cause = DISPUTED
    elif c.accepted == 0:
        c.opener = c.rejected >> 1
        if by_ports == 1 - c.opener and c.rejected != 3:
            # Perhaps a late answer.
            c.cause = NO_OPENER
        elif c.rejected == 3:
            c.cause = DISPUTED
            if by_ports >= 0 and not (doubtful or weak):
                c.cause = DECIDED
                c.opener = by_ports
    elif c.accepted != 3:
        c.opener = c.accepted >> 1
        if by_ports >= 0 and (by_ports != c.opener or doubtful):
            # Only the answers are in the log, or only packets that nobody asked for.
            c.cause = NO_SIGN
        elif may_be_older and (by_ports < 0 or weak):
            c.cause = NO_SIGN
    else:
        if not may_be_older and c.first_ns[0] != c.first_ns[1]:
            by_time = c.first_ns[1] < c.first_ns[0]
        # A later rejection tells nothing: the cloud also rejects packets of connections that it forgot.
        if (c.rejected == 1 or c.rejected == 2) and c.refused_ns[c.rejected >> 1] <= c.first_ns[c.rejected >> 1]:
            refused = c.rejected >> 1
        c.opener = by_ports if by_ports >= 0 else by_time if by_time >= 0 else 1 - refused if refused >= 0 else 0
        if refused >= 0 and not (is_icmp(c) or c.ports[0] or c.ports[1]):
            # Without ports, each end may have opened it at one filter: what one end sent passed its own filter and was
            # rejected at the other's, and the answer passed as an opener of its own.
            c.cause = DISPUTED
        elif by_ports >= 0 or by_time >= 0:
            if c.opener == refused or (by_time >= 0 and by_time != c.opener) or (doubtful and by_time < 0):
                c.cause = DISPUTED
            elif weak and by_time < 0:
                c.cause = NO_SIGN
            c.is_guess = by_time < 0 and may_be_client
        elif refused < 0:
            c.cause = NO_SIGN
