# Parses a frame from the IP header down to the connection key (SPEC 3.2, 3.4, 5.1). link.pxd finds the IP header.
#
# The length of each header is checked once, against the captured bytes and against the length in the enclosing header.
# After that its fields are read without further checks. "Payload" below is the length that the IP header claims, on the
# wire; "available" is the captured part of that length. A packet that contradicts its own lengths is malformed. A
# packet that only the capture cut short is truncated.
#
# This module does not depend on instances, rules or connections.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.frames cimport Frame, RecordCounts, is_of_record
from sgfast.core.base.icmp cimport icmp_is_error, icmp_query
from sgfast.core.base.intrinsics cimport be16, be32, be64, likely, load16, load32, store32, unlikely
from sgfast.core.base.key cimport (
    KIND_FROM_HIGH,
    KIND_ICMP_QUERY,
    KIND_IPV6,
    KIND_ONE_WAY,
    KIND_USED,
    FlowKey,
    digest_key,
    hash_key,
    set_ipv4,
    set_ipv6,
    set_ports,
)
from sgfast.core.base.types cimport (
    CUT_BY_TUNNEL,
    PROTO_DCCP,
    PROTO_ICMP,
    PROTO_ICMPV6,
    PROTO_SCTP,
    PROTO_TCP,
    PROTO_UDP,
    PROTO_UDPLITE,
    READ_BROKEN,
    READ_EXEMPT,
    READ_FRAGMENT,
    READ_ICMP_ERROR,
    READ_MALFORMED,
    READ_NOT_IP,
    READ_SERVER,
    READ_STRAY,
    READ_TRACKED,
    READ_TRUNCATED,
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
from sgfast.core.wire.link cimport find_ip
from sgfast.core.wire.next_header cimport ETHERTYPE_CUT, ETHERTYPE_IPV4, ETHERTYPE_IPV6, LINK_ETHERNET

cdef enum:
    # TCP flags that determine the step. PSH, ECE and CWR do not matter (SPEC 5.4).
    TCP_FLAGS_THAT_COUNT = 0x37

# settings.infrastructure (SPEC 3.2, 3.11). The order and values are those of INFRASTRUCTURES in sgfast.engine.
cdef enum:         # Infrastructure
    FILTERED = 0
    EXEMPTED = 1
    BY_ROLE = 2
    INFRASTRUCTURE_COUNT = 3


cdef struct WireContext:
    uint64_t secret[8]      # key of the hash, random per process (SPEC 5.8)
    uint8_t tcp_step[64]    # Step by combination of TCP flags
    uint8_t infrastructure  # Infrastructure


cdef inline void init_wire(WireContext* context, uint8_t infrastructure, const uint64_t* secret) noexcept nogil:
    # `secret`: eight words.
    cdef int i
    for i in range(8):
        context.secret[i] = secret[i]
    context.secret[3] |= 1
    context.infrastructure = infrastructure
    # SPEC 5.4: the combinations of FIN (1), SYN (2), RST (4), ACK (16) and URG (32) that Linux considers valid.
    for i in range(64):
        context.tcp_step[i] = TCP_BAD
    context.tcp_step[0x02] = TCP_SYN
    context.tcp_step[0x22] = TCP_SYN
    context.tcp_step[0x12] = TCP_SYNACK
    context.tcp_step[0x11] = TCP_FIN
    context.tcp_step[0x31] = TCP_FIN
    context.tcp_step[0x10] = TCP_ACK
    context.tcp_step[0x30] = TCP_ACK
    context.tcp_step[0x04] = TCP_RST
    context.tcp_step[0x14] = TCP_RST


cdef inline bint set_icmp(
    FlowKey* key, uint8_t family, uint8_t protocol, const uint8_t* header, bint source_high
) noexcept nogil:
    # Fills in the key of an ICMP packet that is not an error, from the 8 bytes of its header. Returns whether the
    # packet is a reply.
    cdef bint reply
    cdef int query = icmp_query(family, header[0], &reply)
    key.protocol = protocol
    if query:
        key.kind = KIND_USED | KIND_ICMP_QUERY | family
        key.ports = <uint32_t>be16(header + 4) << 16 | <uint32_t>query
        if source_high != reply:
            key.kind |= KIND_FROM_HIGH
    else:
        key.kind = KIND_USED | KIND_ONE_WAY | family
        key.ports = <uint32_t>header[0] << 16 | header[1]
        if source_high:
            key.kind |= KIND_FROM_HIGH
    return reply


cdef inline uint32_t transport_header_length(bint ipv6, uint8_t protocol) noexcept nogil:
    # The number of transport header bytes that SPEC 3.4 requires to judge a packet.
    if protocol == PROTO_TCP:
        return 20
    if protocol == PROTO_UDP or protocol == PROTO_UDPLITE:
        return 8
    if protocol == (PROTO_ICMPV6 if ipv6 else PROTO_ICMP):
        return 8
    if protocol == PROTO_SCTP or protocol == PROTO_DCCP:
        return 12
    return 0


cdef inline bint to_dhcp_server(const Packet* p) noexcept nogil:
    if p.protocol != PROTO_UDP:
        return False
    return (p.sport == 546 and p.dport == 547) if p.ipv6 else (p.sport == 68 and p.dport == 67)


cdef inline bint from_dhcp_server(const Packet* p) noexcept nogil:
    if p.protocol != PROTO_UDP:
        return False
    return (p.sport == 547 and p.dport == 546) if p.ipv6 else (p.sport == 67 and p.dport == 68)


cdef inline bint asks_infrastructure(const Packet* p) noexcept nogil:
    # Whether the packet is for a DHCP server, or is a router solicitation. An instance may send such packets without a
    # rule, but receives them only if a rule allows it (SPEC 3.11).
    return to_dhcp_server(p) or (p.ipv6 and p.has_icmp and p.port_key >> 8 == 133)


cdef inline void note_infrastructure(const WireContext* context, Packet* p, uint8_t hop_limit) noexcept nogil:
    # Sets the parse result of a packet that needs no filter (SPEC 3.2). Its ports, or ICMP type and code, must be set.
    # The rest of the transport header may be invalid.
    cdef uint8_t icmp_type = p.port_key >> 8
    if context.infrastructure == FILTERED:
        return
    if p.protocol == PROTO_UDP:
        if from_dhcp_server(p):
            p.parse_result = READ_SERVER if context.infrastructure == BY_ROLE else READ_EXEMPT
        elif context.infrastructure == EXEMPTED and to_dhcp_server(p):
            p.parse_result = READ_EXEMPT
    elif p.ipv6 and p.has_icmp:
        if context.infrastructure == BY_ROLE:
            if icmp_type == 134:
                p.parse_result = READ_SERVER
            elif icmp_type == 130 or icmp_type == 135 or icmp_type == 136:
                p.parse_result = READ_EXEMPT
        elif hop_limit == 255 if 133 <= icmp_type <= 137 else (130 <= icmp_type <= 132 or icmp_type == 143):
            p.parse_result = READ_EXEMPT


cdef inline void show_ports(Packet* p, const uint8_t* header, uint32_t available, uint32_t need) noexcept nogil:
    # Reads the available fields of an incomplete transport header, for the verdict rows (SPEC 10.3).
    if need == 8 and (p.protocol == PROTO_ICMP or p.protocol == PROTO_ICMPV6):
        if available >= 2:
            p.has_icmp = True
            p.port_key = be16(header)
    elif available >= 4:
        p.has_ports = True
        p.sport = be16(header)
        p.dport = be16(header + 2)
        p.port_key = p.dport


cdef inline void read_transport(
    const WireContext* context, Packet* p, const uint8_t* header, uint32_t available, uint32_t payload,
    bint first_fragment
) noexcept nogil:
    cdef uint8_t protocol = p.protocol
    cdef uint8_t family = p.ipv6
    cdef uint32_t need = transport_header_length(p.ipv6, protocol)
    cdef uint32_t length
    if unlikely(available < need):
        p.parse_result = READ_MALFORMED if payload < need else READ_TRUNCATED
        show_ports(p, header, available, need)
        return

    p.parse_result = READ_TRACKED
    if need == 0:
        p.key.protocol = protocol
        p.key.kind = KIND_USED | family
        p.key.ports = 0
        p.step = STEP_OPEN
    elif need == 8 and (protocol == PROTO_ICMP or protocol == PROTO_ICMPV6):
        p.has_icmp = True
        p.port_key = be16(header)
        if icmp_is_error(p.ipv6, header[0]):
            p.parse_result = READ_ICMP_ERROR
            p.quote = header + 8
            p.quote_length = available - 8
            return
        p.step = STEP_REPLY if set_icmp(&p.key, family, protocol, header, p.source_high) else STEP_OPEN
    else:
        p.has_ports = True
        p.sport = be16(header)
        p.dport = be16(header + 2)
        p.port_key = p.dport
        set_ports(&p.key, family, protocol, p.sport, p.dport, p.source_high)
        if protocol == PROTO_TCP:
            length = (header[12] >> 4) * 4
            if unlikely(length < 20 or length > payload):
                p.parse_result = READ_MALFORMED
                return
            p.tcp_flags = header[13]
            p.step = context.tcp_step[header[13] & TCP_FLAGS_THAT_COUNT]
        else:
            p.step = STEP_OPEN
            if protocol == PROTO_UDP:
                length = be16(header + 4)
                # In a first fragment the UDP length is that of the whole datagram.
                if unlikely(length < 8 or (length > payload and not first_fragment)):
                    p.parse_result = READ_MALFORMED
                    return
    p.digest = digest_key(context.secret, &p.key)
    p.hash = hash_key(context.secret, p.digest, &p.key)


cdef inline bint read_fragment(
    Packet* p, uint32_t identification, uint32_t at, uint32_t length, bint last, uint32_t max_length
) noexcept nogil:
    # Records the position of a fragment in its datagram: `length` bytes starting at `at`. If the position is
    # impossible, marks the packet malformed and returns False.
    p.parse_result = READ_MALFORMED
    if length == 0 or (length & 7 and not last) or length > max_length or at > max_length - length:
        return False
    p.parse_result = READ_STRAY
    p.fragment_id = identification
    p.fragment_start = at
    p.fragment_end = at + length
    p.fragment_last = last
    return True


cdef inline void read_ipv4(
    const WireContext* context, Packet* p, const uint8_t* ip, uint32_t captured, uint32_t wire
) noexcept nogil:
    cdef uint32_t header_length, total, fragment, available
    if unlikely(captured < 20 or ip[0] >> 4 != 4):
        p.parse_result = READ_BROKEN
        return
    p.ipv6 = False
    p.protocol = ip[9]
    set_ipv4(&p.key, be64(ip + 12), &p.source_high)

    header_length = (ip[0] & 15) * 4
    total = be16(ip + 2)
    if total == 0:
        total = wire            # left 0 by segmentation offload (SPEC 3.4)
    if unlikely(header_length < 20 or total < header_length or total > wire):
        p.parse_result = READ_MALFORMED
        return
    fragment = be16(ip + 6) & 0x3FFF
    available = min(captured, total)
    available = available - header_length if available > header_length else 0
    if unlikely(fragment != 0):
        if not read_fragment(
            p, be16(ip + 4), (fragment & 0x1FFF) * 8, total - header_length, (fragment & 0x2000) == 0,
            0xFFFF - header_length
        ):
            return
    if likely((fragment & 0x1FFF) == 0):
        read_transport(context, p, ip + header_length, available, total - header_length, fragment != 0)
        note_infrastructure(context, p, 0)
    if unlikely(fragment != 0):
        p.fragment_parse_result = p.parse_result
        p.parse_result = READ_FRAGMENT


cdef inline bint is_extension(uint8_t protocol) noexcept nogil:
    # Whether the parser skips this IPv6 header. It does not skip AH and ESP, because rules can name them (SPEC 2.1).
    return (
        protocol == 0 or protocol == 43 or protocol == 44 or protocol == 60
        or protocol == 135 or protocol == 139 or protocol == 140
    )


cdef inline bint read_below_ipv6(
    const WireContext* context, Packet* p, const uint8_t* body, uint32_t available, uint32_t payload, uint8_t hop_limit
) noexcept nogil:
    # Parses the extension headers behind an IPv6 header, then the transport header. Returns whether the packet is a
    # fragment.
    cdef uint32_t length
    cdef uint32_t at = 0
    cdef bint is_fragment = False
    while unlikely(is_extension(p.protocol)):
        # at <= available <= payload holds here
        p.parse_result = READ_MALFORMED
        if payload - at < 8 or (p.protocol == 44 and payload > 0xFFFF):
            return is_fragment      # a jumbogram cannot be a fragment (RFC 2675)
        if available - at < 2:
            p.parse_result = READ_TRUNCATED
            return is_fragment
        length = 8 if p.protocol == 44 else (<uint32_t>body[at + 1] + 1) * 8
        if payload - at < length:
            return is_fragment
        if available - at < length:
            p.parse_result = READ_TRUNCATED
            return is_fragment
        if p.protocol == 44 and be16(body + at + 2) & 0xFFF9:
            if not is_fragment:
                is_fragment = read_fragment(
                    p, be32(body + at + 4), be16(body + at + 2) & 0xFFF8, payload - at - 8, not body[at + 3] & 1, 0xFFFF
                )
                if not is_fragment or p.fragment_start:
                    p.protocol = body[at]
                    return is_fragment    # only the first fragment has more headers to read
            elif be16(body + at + 2) & 0xFFF8:
                p.protocol = body[at]
                p.parse_result = READ_STRAY
                return True     # a first fragment that contains a later fragment of another datagram
        p.protocol = body[at]
        at += length
    read_transport(context, p, body + at, available - at, payload - at, is_fragment)
    note_infrastructure(context, p, hop_limit)
    return is_fragment


cdef inline bint read_jumbo(const uint8_t* header, uint32_t available, uint32_t* length) noexcept nogil:
    # Whether a fully captured hop-by-hop header has the Jumbo Payload option (RFC 2675). Stores the payload length in
    # the option, or 0 if the option is invalid.
    cdef uint32_t end
    cdef uint32_t at = 2
    if available < 8:
        return False
    end = (<uint32_t>header[1] + 1) * 8
    if available < end:
        return False
    while at < end:
        if header[at] == 0xC2:
            length[0] = be32(header + at + 2) if end - at >= 6 and header[at + 1] == 4 else 0
            return True
        if header[at] == 0:     # Pad1, the only option without a length byte
            at += 1
        elif end - at < 2:
            return False
        else:
            at += 2 + <uint32_t>header[at + 1]
    return False


cdef inline void read_ipv6(
    const WireContext* context, Packet* p, const uint8_t* ip, uint32_t captured, uint32_t wire
) noexcept nogil:
    cdef uint32_t payload, jumbo
    if unlikely(captured < 40 or ip[0] >> 4 != 6):
        p.parse_result = READ_BROKEN
        return
    p.ipv6 = True
    p.protocol = ip[6]
    set_ipv6(&p.key, ip + 8, ip + 24, &p.source_high)

    payload = be16(ip + 4)
    if payload == 0:
        payload = wire - 40
    if unlikely(p.protocol == 0 and read_jumbo(ip + 40, captured - 40, &jumbo)):
        # A jumbo length is invalid if the IPv6 header has a length, too, or if that field could hold the length.
        payload = jumbo if be16(ip + 4) == 0 and jumbo > 0xFFFF else 0xFFFFFFFF
    if unlikely(payload > wire - 40):
        p.parse_result = READ_MALFORMED
        return
    if unlikely(read_below_ipv6(context, p, ip + 40, min(captured - 40, payload), payload, ip[7])):
        p.fragment_parse_result = p.parse_result
        p.parse_result = READ_FRAGMENT


# The next functions are faster than read_any_frame, but they read only the most common packets: TCP in IP in Ethernet,
# without fragments, IP options, extension headers and errors. For any other packet they return False, and read_frame
# calls read_any_frame.

cdef inline bint read_plain_header(
    const WireContext* context, const Frame* frame, Packet* p, bint ipv6, const uint8_t* tcp, uint32_t data
) noexcept nogil:
    # `data`: the packet's length without the IP header and the first 20 bytes of the TCP header.
    cdef uint32_t ports = be32(tcp)
    cdef uint8_t flags = tcp[13]
    if <uint32_t>((tcp[12] & 0xF0) >> 2) - 20 > data:       # also catches a claim of less than 20 bytes
        return False
    p.wire = frame.wire
    p.time_ns = frame.time_ns
    store32(&p.port_key, ports)     # also writes p.sport, the next field
    p.dport = <uint16_t>ports
    p.step = context.tcp_step[flags & TCP_FLAGS_THAT_COUNT]
    p.tcp_flags = flags
    # These fields are adjacent in memory.
    p.parse_result = READ_TRACKED
    p.ipv6 = ipv6
    p.protocol = PROTO_TCP
    p.has_ports = True
    p.has_icmp = False
    return True


cdef inline bint read_plain_tcp(const WireContext* context, const Frame* frame, Packet* p) noexcept nogil:
    cdef const uint8_t* data = frame.data
    cdef uint32_t behind        # bytes behind headers of 20 and 20 bytes
    if frame.link_type != LINK_ETHERNET or frame.captured < 54:
        return False
    # Compares bytes in memory order: EtherType 0x0800, version and length 0x45, protocol TCP, and not a fragment.
    if load32(data + 12) & 0xFFFFFF != 0x450008 or load16(data + 20) & 0xFF3F or data[23] != PROTO_TCP:
        return False
    behind = <uint32_t>be16(data + 16) - 40     # a total length below 40 wraps around to a huge number
    if behind > frame.wire - 54 or not read_plain_header(context, frame, p, False, data + 34, behind):
        return False
    set_ipv4(&p.key, be64(data + 26), &p.source_high)
    set_ports(&p.key, 0, PROTO_TCP, p.sport, p.dport, p.source_high)
    p.digest = p.key.addr[0]
    p.hash = hash_key(context.secret, p.digest, &p.key)
    return True


cdef inline bint read_plain_tcp_in_ipv6(const WireContext* context, const Frame* frame, Packet* p) noexcept nogil:
    cdef const uint8_t* data = frame.data
    cdef uint32_t payload
    if frame.link_type != LINK_ETHERNET or frame.captured < 74:
        return False
    if be16(data + 12) != ETHERTYPE_IPV6 or data[14] >> 4 != 6 or data[20] != PROTO_TCP:
        return False
    payload = be16(data + 18)
    if payload < 20 or payload > frame.wire - 54:
        return False
    # The addresses are set before the ports. Otherwise GCC would run out of registers, put the ports on the stack, and
    # wait for them.
    set_ipv6(&p.key, data + 22, data + 38, &p.source_high)
    if not read_plain_header(context, frame, p, True, data + 54, payload - 20):
        return False
    set_ports(&p.key, KIND_IPV6, PROTO_TCP, p.sport, p.dport, p.source_high)
    p.digest = digest_key(context.secret, &p.key)
    p.hash = hash_key(context.secret, p.digest, &p.key)
    return True


cdef inline bint may_be_cut(uint8_t parse_result) noexcept nogil:
    # Whether Packet.cut is set.
    return parse_result == READ_TRUNCATED or parse_result == READ_BROKEN or parse_result == READ_FRAGMENT


cdef inline void read_any_frame(const WireContext* context, const Frame* frame, Packet* p) noexcept nogil:
    cdef uint32_t at = 14
    cdef uint32_t ethertype = 0
    p.has_ports = False
    p.has_icmp = False
    p.tcp_flags = 0
    p.step = TCP_BAD        # until it is read, so that a broken packet opens no connection
    p.port_key = 0
    p.sport = 0
    p.dport = 0
    p.protocol = 0
    p.wire = frame.wire
    p.time_ns = frame.time_ns
    if likely(frame.link_type == LINK_ETHERNET and frame.captured >= 14):
        ethertype = be16(frame.data + 12)
    if unlikely(ethertype != ETHERTYPE_IPV4 and ethertype != ETHERTYPE_IPV6):
        ethertype = find_ip(frame, &at)
        if is_of_record(frame):
            p.count = (<const RecordCounts*>frame.data).packets
            p.wire = (<const RecordCounts*>frame.data).nbytes
            p.is_answer = (<const RecordCounts*>frame.data).is_answer

    if likely(ethertype == ETHERTYPE_IPV4):
        read_ipv4(context, p, frame.data + at, frame.captured - at, frame.wire - at)
    elif ethertype == ETHERTYPE_IPV6:
        read_ipv6(context, p, frame.data + at, frame.captured - at, frame.wire - at)
    elif ethertype == ETHERTYPE_CUT:
        p.parse_result = READ_BROKEN
    else:
        p.parse_result = READ_NOT_IP
    if unlikely(may_be_cut(p.parse_result)):
        p.cut = CUT_BY_TUNNEL if frame.cut_by_tunnel else frame.captured < frame.wire


cdef inline void read_frame(const WireContext* context, const Frame* frame, Packet* p) noexcept nogil:
    if not (likely(read_plain_tcp(context, frame, p)) or read_plain_tcp_in_ipv6(context, frame, p)):
        read_any_frame(context, frame, p)


cdef inline bint read_quote(
    const WireContext* context, const Packet* p, FlowKey* key, uint64_t* digest, uint32_t* hash_value,
    uint8_t* source_high
) noexcept nogil:
    # Fills in the key of the packet that an ICMP error quotes. Returns False if the quote is too short or not valid
    # (SPEC 4.6). Quotes are cut by design, so their length fields are not checked. The quoted packet has the IP version
    # of the error.
    cdef const uint8_t* ip = p.quote
    cdef uint32_t bytes_left = p.quote_length
    cdef uint32_t length, need
    cdef uint8_t protocol
    cdef uint8_t family = p.ipv6
    if family:
        if bytes_left < 40 or ip[0] >> 4 != 6:
            return False
        set_ipv6(key, ip + 8, ip + 24, source_high)
        protocol = ip[6]
        ip += 40
        bytes_left -= 40
        while is_extension(protocol):
            if bytes_left < 8:
                return False
            length = 8 if protocol == 44 else (<uint32_t>ip[1] + 1) * 8
            if bytes_left < length or (protocol == 44 and be16(ip + 2) & 0xFFF8):
                return False
            protocol = ip[0]
            ip += length
            bytes_left -= length
    else:
        if bytes_left < 20 or ip[0] >> 4 != 4:
            return False
        length = (ip[0] & 15) * 4
        if length < 20 or bytes_left < length or be16(ip + 6) & 0x1FFF:
            return False
        set_ipv4(key, be64(ip + 12), source_high)
        protocol = ip[9]
        ip += length
        bytes_left -= length

    need = transport_header_length(family, protocol)
    if need == 0:
        key.protocol = protocol
        key.kind = KIND_USED | family
        key.ports = 0
    elif protocol == (PROTO_ICMPV6 if family else PROTO_ICMP):
        if bytes_left < 8 or icmp_is_error(family, ip[0]):
            return False
        set_icmp(key, family, protocol, ip, source_high[0])
    else:
        if bytes_left < 4:
            return False
        set_ports(key, family, protocol, be16(ip), be16(ip + 2), source_high[0])
    digest[0] = digest_key(context.secret, key)
    hash_value[0] = hash_key(context.secret, digest[0], key)
    return True
