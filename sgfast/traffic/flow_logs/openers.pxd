# Decides who opened a connection, as far as the records of a flow log tell. No other place does.
#
# A *way* is a direction of the 5-tuple: 0 from the end with the lower address and port, 1 from the other end. The first
# of these that tells anything decides who is the likelier opener:
#
# 1. A record that names the opener itself, such as Zeek's, which saw the first packet.
# 2. TCP flags: a SYN without ACK is the opener's, a SYN with ACK the other end's.
# 3. Uses: a service has clients with many different ports, and a client's port has few services.
# 4. Ports: a low port at one end only, one that services usually have, or one below those that clients have.
# 5. Times: the end whose packets come first, if the connection is surely not older than the log.
# 6. Rejections: an end whose packets the cloud first rejected and later accepted did not open the connection.
# 7. Whatever is left: the lower port serves; else the end whose records start earlier opens; else the lower address
#    serves.
#
# Where signs contradict each other, or are weak, the opener is *unsure*: then the policy is asked about both readings.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.types cimport PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP

cdef enum:
    FIRST_RESERVED = 512    # clients of NFS, RPC and rsh take ports from here on
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
    REFUSED_MINUTES = 128   # more than those between records noted and released
    REFUSED_WORDS = 2       # with a bit for each of these

# The fates of a connection's records. UNDECIDED in record_packets.pyx lists the words of those between.
cdef enum:         # Fate
    JUDGED = 0
    READINGS_DIFFER = 1     # either end may have opened the connection, and the policy's verdicts differ
    ICMP_WITHOUT_TYPE = 2
    FATES = 3
    NO_OPENER = 3           # rejected, but perhaps no opener: other causes than rules are as likely. They are left out

# The most seconds between the starts of two records whose packets came at one time: AWS writes the start of a record up
# to 60 s late.
cdef enum:
    CLOSE_SECONDS = 60

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
    uint8_t seen            # the cloud accepted packets of this end, perhaps later than what else is noted here
    uint8_t accepted
    uint8_t rejected
    uint8_t finished        # a FIN of this end is in the packets made so far
    # About the packets made so far:
    uint8_t begun           # the connection's first packet
    uint8_t answered        # a packet of the other end
    uint8_t closed          # an RST, or FINs of both ends
    uint8_t known           # `opener` and `cause` are set
    uint8_t opener          # way
    uint8_t fate            # Fate
    uint8_t is_unsure       # either end may be the opener
    uint8_t came_back       # an earlier connection of the same ends, which both sent, has timed out
    uint8_t shows_answer    # bits by way: packets of this end show that the other end answered
    uint8_t no_refusal      # bits by way: records of this end are more than RSTs in answer to openers
    uint8_t no_opener       # bits by way: they are more than openers and their retries
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
    uint32_t question       # 1 + the number of the question about its readings, 0 for none
    uint32_t latest         # the place of its latest record while records of one start are sorted
    uint32_t hash
    uint32_t next           # the next conversation in the same place of the index, or the next unused one
    uint32_t pending        # records, and later packets of them, that wait; UNUSED: no conversation is here
    int32_t shown_by[INTERFACES_SHOWN]      # different interfaces of its records; NO_INTERFACE behind the last one
    uint8_t alone           # a value of interfaces.pxd


cdef inline bint is_icmp(const Conversation* c) noexcept nogil:
    return c.protocol == (PROTO_ICMPV6 if c.family == 6 else PROTO_ICMP)


cdef inline bint is_refused(const Conversation* c) noexcept nogil:
    # Returns whether the records of both ends are an opener with its retries, and refusals (RST), as sizes tell.
    return (
        c.accepted == 3 and not c.no_opener >> c.opener & 1 and not c.no_refusal >> (1 - c.opener) & 1
    )


# The signs of each end's address and port.
cdef struct Signs:
    bint usual[2]           # services usually have the port
    bint calls[2]           # services with this port call their clients, too
    int low[2]              # the number of different ports below FIRST_RESERVED at the other ends
    int high[2]             # the same, of higher ones
    int low_anywhere[2]     # both of TCP, whatever address has the port
    int high_anywhere[2]


cdef enum:         # Grade
    NO_PORT = 0             # the ports say nothing
    RANGE = 1               # services have a lower port than clients, as a rule
    USUAL = 2               # services usually have the port
    FIRM = 3                # clients do not have the port, or services do not have the other one


cdef inline bint is_clients(const Conversation* c, int end) noexcept nogil:
    # Returns whether services do not have the port, unless it is a usual one.
    return c.ports[end] >= FIRST_EPHEMERAL or FIRST_RESERVED <= c.ports[end] < FIRST_FREE


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
        # A scanner may send from a low port, too. But no service opens connections from its own usual port.
        return USUAL if signs.usual[way[0]] else FIRM
    if signs.usual[0] != signs.usual[1]:
        way[0] = 1 if signs.usual[0] else 0
        return FIRM if is_clients(c, way[0]) else USUAL
    first, second = c.ports[0] < FIRST_EPHEMERAL, c.ports[1] < FIRST_EPHEMERAL
    if first != second and min(c.ports[0], c.ports[1]) >= FIRST_FREE:
        way[0] = 1 if first else 0
        return RANGE
    return NO_PORT


cdef inline bint is_service(int high, int low, int others) noexcept nogil:
    # Returns whether a port has many clients: `high` and `low` different ports at the other ends, of which the one in
    # question has `others`. TCP scanners go from one port to many others, too, but they also ask for low ones.
    return high >= SEVERAL * max(1, others) and high >= LOW * low


cdef inline int way_by_uses(const Conversation* c, const Signs* signs, int by_ports) noexcept nogil:
    # Returns the opener's way if the other end's port has so many clients that it is a service's, and else -1. UDP may
    # go from one port to many others.
    cdef int end
    for end in range(2):
        if (
            c.ports[end] >= FIRST_RESERVED
            and (by_ports == 1 - end or (c.protocol == PROTO_TCP and signs.high[end] >= MANY))
            and is_service(signs.high[end], signs.low[end], signs.high[1 - end] + signs.low[1 - end])
        ):
            return 1 - end
    # Servers of one service have few clients each. Together they have many.
    end = 1 - by_ports
    if by_ports >= 0 and c.ports[end] >= FIRST_RESERVED and is_service(
        signs.high_anywhere[end], signs.low_anywhere[end],
        signs.high_anywhere[1 - end] + signs.low_anywhere[1 - end]
    ):
        return by_ports
    return -1


cdef inline void decide_single_sender(
    Conversation* c, bint may_be_older, int likely_way, bint contradicted
) noexcept nogil:
    # Decides about a connection of which the cloud accepted packets of one end only.
    cdef int sender = c.accepted >> 1
    c.opener = sender if likely_way < 0 else likely_way
    # Only the answers may be in the log, or only packets that nobody asked for.
    c.is_unsure = contradicted or c.opener != sender or (
        likely_way < 0 and may_be_older and (not c.ports[sender] or c.ports[sender] < FIRST_EPHEMERAL)
    ) or (c.named | c.sent_syn) == 3


cdef inline bint is_sure_of_both(
    Conversation* c, bint may_be_older, const Signs* signs, int grade, int likely_way, int by_uses, bint contradicted
) noexcept nogil:
    # Decides about a connection of which the cloud accepted packets of both ends. Returns whether the opener is sure.
    cdef int by_time = -1
    cdef int refused = -1
    cdef bint is_close
    cdef int64_t later_ns = c.first_ns[1] - c.first_ns[0]
    cdef int service
    is_close = -CLOSE_SECONDS * <int64_t>1000000000 <= later_ns <= CLOSE_SECONDS * <int64_t>1000000000
    if not may_be_older and later_ns != 0:
        by_time = later_ns < 0
    # A later rejection tells nothing: the cloud also rejects packets of connections that it forgot.
    if (c.rejected == 1 or c.rejected == 2) and c.refused_ns[c.rejected >> 1] <= c.first_ns[c.rejected >> 1]:
        refused = c.rejected >> 1
    if likely_way >= 0:
        c.opener = likely_way
    elif by_time >= 0:
        c.opener = by_time
    elif refused >= 0:
        c.opener = 1 - refused
    elif c.ports[0] != c.ports[1]:
        c.opener = c.ports[0] < c.ports[1]
    else:
        c.opener = later_ns <= 0
    service = 1 - c.opener
    if refused >= 0 and not (is_icmp(c) or c.ports[0] or c.ports[1]):
        # Each end may have opened it at one filter: what one end sent passed its own filter and was rejected at the
        # other's, and the answer passed as an opener of its own.
        c.fate = READINGS_DIFFER
        return False
    if (c.named | c.sent_syn) == 3 or c.opener == refused:
        return False
    if by_time >= 0 and by_time != c.opener and not is_close:
        return False
    if contradicted:
        # A client's port may be as low as a service's, but many clients confirm a usual one.
        return signs.usual[service]
    if (
        c.came_back and c.first_ns[c.opener] >= c.first_ns[service]
        and (signs.calls[service] or not (signs.usual[service] or c.ports[service] < FIRST_RESERVED))
    ):
        # The service may have called its client again.
        return False
    if (
        c.protocol == PROTO_TCP and c.ports[service] < FIRST_RESERVED
        and FIRST_FREE <= c.ports[c.opener] < FIRST_EPHEMERAL
        and signs.high[c.opener] >= max(SEVERAL, LOW * signs.low[c.opener])
    ):
        # The other port has clients of its own, though few: a scanner may have the low one.
        return False
    if grade == FIRM or (by_uses >= 0 and grade != NO_PORT) or (by_time >= 0 and not is_close):
        return True
    return likely_way < 0 and by_time < 0 and refused >= 0


cdef inline void decide_opener(Conversation* c, bint may_be_older, const Signs* signs) noexcept nogil:
    # Sets `opener`, `fate` and `is_unsure`. `may_be_older`: the connection may have begun before the log.
    cdef int by_ports = -1
    cdef int grade = grade_of_ports(c, signs, &by_ports)
    cdef int by_uses = way_by_uses(c, signs, by_ports)
    cdef bint contradicted = by_uses >= 0 and by_ports >= 0 and by_ports != by_uses
    # The opener's way according to uses, or to ports if uses say nothing.
    cdef int likely_way = by_uses if by_uses >= 0 else by_ports
    c.known = True
    c.fate = JUDGED
    c.is_unsure = False
    if is_icmp(c) and not c.has_icmp and c.accepted != 3:
        c.fate = ICMP_WITHOUT_TYPE
        c.opener = c.accepted >> 1
    elif c.named == 1 or c.named == 2:
        c.opener = c.named >> 1
    elif c.sent_syn == 1 or c.sent_syn == 2:
        c.opener = c.sent_syn >> 1
    elif c.accepted == 0:
        c.opener = max(likely_way, 0) if c.rejected == 3 else c.rejected >> 1
        # Perhaps late answers.
        if likely_way == 1 - c.opener or (c.rejected == 3 and (likely_way < 0 or contradicted)):
            c.fate = NO_OPENER
    elif c.accepted != 3:
        decide_single_sender(c, may_be_older, likely_way, contradicted)
    else:
        c.is_unsure = not is_sure_of_both(c, may_be_older, signs, grade, likely_way, by_uses, contradicted)
