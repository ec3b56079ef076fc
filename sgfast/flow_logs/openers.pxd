# Decides who opened a connection, as far as the records of a flow log tell. No other place does.
#
# A *way* is a direction of the 5-tuple: 0 from the end with the lower address and port, 1 from the other end. The first
# of these that tells anything decides:
#
# 1. A record that names the opener itself, such as Zeek's, which saw the first packet.
# 2. TCP flags: a SYN without ACK is the opener's, a SYN with ACK the other end's.
# 3. Low ports: a port at one end only that clients do not have.
# 4. Uses: a service has clients with many different ports, and a client's port has few services.
# 5. Usual ports: a port at one end only that services usually have. Times may contradict all three.
# 6. Times: the end whose packets come first, if the connection is surely not older than the log.
# 7. Rejections: an end whose packets the cloud first rejected and later accepted did not open the connection. They may
#    contradict ports, uses and times.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.types cimport PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP

cdef enum:
    FIRST_RESERVED = 600    # bindresvport(), and so clients of NFS and RPC, take ports from here on
    FIRST_FREE = 1024       # up to this one
    FIRST_EPHEMERAL = 32768
    FTP_DATA = 20           # the port of the only service whose server opens connections to its clients
    FIN = 1
    SYN = 2
    RST = 4
    ACK = 16
    SEVERAL = 3             # a service has clients with so many times more ports than a client's port has services
    MANY = 8                # the least number of these ports, if the service's own port does not say what it is
    LOW = 4                 # a service's clients have so many times more ports from FIRST_RESERVED on than below
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
    INTERFACES_SHOWN = 3    # the length of `shown_by`


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
    uint8_t is_unsure       # only ports or their uses tell the opener, or only that one end has sent
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
    uint32_t latest         # the place of its latest record while records of one start are sorted
    uint32_t hash
    uint32_t next           # the next conversation in the same place of the index, or the next unused one
    uint32_t pending        # records, and later packets of them, that wait; UNUSED: no conversation is here
    int32_t shown_by[INTERFACES_SHOWN]      # different interfaces of its records; NO_INTERFACE behind the last one
    uint8_t alone           # a value of interfaces.pxd


cdef inline bint is_icmp(const Conversation* c) noexcept nogil:
    return c.protocol == (PROTO_ICMPV6 if c.family == 6 else PROTO_ICMP)


# The signs of each end's address and port.
cdef struct Signs:
    bint usual[2]           # services usually have the port
    int low[2]              # the number of different ports below FIRST_RESERVED at the other ends
    int high[2]             # the same, of higher ones


cdef enum:         # Grade
    NO_PORT = 0             # the ports say nothing
    RANGE = 1               # services have a lower port than clients, as a rule
    USUAL = 2               # services usually have the port
    SURE = 3                # clients do not have the port


cdef inline int grade_of_ports(const Conversation* c, const Signs* signs, int* way) noexcept nogil:
    # Sets the opener's way as the ports tell it, and returns how sure this is. `way` is -1 if they say nothing.
    cdef bint first, second
    way[0] = -1
    if c.protocol == PROTO_TCP and (c.ports[0] == FTP_DATA) != (c.ports[1] == FTP_DATA):
        way[0] = 0 if c.ports[0] == FTP_DATA else 1
        return USUAL
    first, second = c.ports[0] < FIRST_RESERVED, c.ports[1] < FIRST_RESERVED
    if first != second:
        way[0] = 1 if first else 0
        return SURE
    if signs.usual[0] != signs.usual[1]:
        way[0] = 1 if signs.usual[0] else 0
        return USUAL
    first, second = c.ports[0] < FIRST_EPHEMERAL, c.ports[1] < FIRST_EPHEMERAL
    if first != second and min(c.ports[0], c.ports[1]) >= FIRST_FREE:
        way[0] = 1 if first else 0
        return RANGE
    return NO_PORT


cdef inline int way_by_uses(const Conversation* c, const Signs* signs, int by_ports) noexcept nogil:
    # Returns the opener's way if the other end's port has so many clients that it is a service's, and else -1. UDP may
    # go from one port to many others. So may TCP scanners, but they also ask for services with low ports.
    cdef int end
    for end in range(2):
        if (
            (by_ports == 1 - end or (c.protocol == PROTO_TCP and signs.high[end] >= MANY))
            and signs.high[end] >= SEVERAL * max(1, signs.high[1 - end] + signs.low[1 - end])
            and signs.high[end] >= LOW * signs.low[end]
        ):
            return 1 - end
    return -1


cdef inline void decide_opener(Conversation* c, bint may_be_older, const Signs* signs) noexcept nogil:
    # Sets `opener`, `cause` and `is_unsure`. `may_be_older`: the connection may have begun before the log.
    cdef int by_ports = -1
    cdef int grade = grade_of_ports(c, signs, &by_ports)
    cdef int by_uses = way_by_uses(c, signs, by_ports) if grade != SURE else -1
    cdef int by_time = -1
    cdef int refused = -1
    cdef bint contradicted = by_uses >= 0 and grade == USUAL and by_ports != by_uses
    # The opener's way according to uses, or to ports if uses say nothing. `is_told`: it needs no other sign.
    cdef int told = by_uses if by_uses >= 0 else by_ports
    cdef bint is_told = by_uses >= 0 or grade >= USUAL
    c.known = True
    c.cause = DECIDED
    c.is_unsure = False
    if is_icmp(c) and not c.has_icmp and c.accepted != 3:
        c.cause = ICMP_WITHOUT_TYPE
    elif c.named == 1 or c.named == 2:
        c.opener = c.named >> 1
    elif c.sent_syn == 1 or c.sent_syn == 2:
        c.opener = c.sent_syn >> 1
    elif c.named or c.sent_syn:
        c.cause = DISPUTED
    elif c.accepted == 0 and c.rejected != 3:
        c.opener = c.rejected >> 1
        if told == 1 - c.opener:
            # Perhaps a late answer.
            c.cause = NO_OPENER
    elif c.accepted == 0:
        c.opener = max(told, 0)
        if contradicted or not is_told:
            c.cause = DISPUTED
    elif c.accepted != 3:
        c.opener = c.accepted >> 1
        if told == 1 - c.opener or contradicted:
            # Only the answers are in the log, or only packets that nobody asked for.
            c.cause = NO_SIGN
        elif may_be_older and not is_told and (told < 0 or c.ports[c.opener] < FIRST_EPHEMERAL):
            c.cause = NO_SIGN
        # It may have been answered where nobody logged it.
        c.is_unsure = grade < USUAL and (c.ports[0] or c.ports[1])
    else:
        if not may_be_older and c.first_ns[0] != c.first_ns[1]:
            by_time = c.first_ns[1] < c.first_ns[0]
        # A later rejection tells nothing: the cloud also rejects packets of connections that it forgot.
        if (c.rejected == 1 or c.rejected == 2) and c.refused_ns[c.rejected >> 1] <= c.first_ns[c.rejected >> 1]:
            refused = c.rejected >> 1
        c.opener = told if told >= 0 else by_time if by_time >= 0 else 1 - refused if refused >= 0 else 0
        if refused >= 0 and not (is_icmp(c) or c.ports[0] or c.ports[1]):
            # Without ports, each end may have opened it at one filter: what one end sent passed its own filter and was
            # rejected at the other's, and the answer passed as an opener of its own.
            c.cause = DISPUTED
        elif contradicted or (told >= 0 or by_time >= 0) and (
            c.opener == refused or (by_time >= 0 and by_time != c.opener)
        ):
            c.cause = DISPUTED
        elif not is_told and by_time < 0 and refused < 0:
            c.cause = NO_SIGN
        # Many clients confirm a usual port. Alone, they may as well be the ports of an FTP server.
        c.is_unsure = by_time < 0 and ((grade == USUAL) != (by_uses >= 0))
