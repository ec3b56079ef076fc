# Frames to integers: from link header to connection key (SPEC 3.1, 3.2, 3.4, 5.1).
#
# Each header is measured once, against the captured bytes and against what the enclosing header claims, and then
# read with plain accessors. "Payload" below is what the IP header claims, by wire lengths; "available" is how much
# of it was captured. A claim that is broken makes a packet malformed; a claim that was only cut makes it truncated.
#
# This layer knows nothing above it: no instance, no rule, no connection.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.frames cimport Frame
from sgfast.core.intrinsics cimport be16, be32, be64, fold, likely, unlikely
from sgfast.core.types cimport (
    KIND_FROM_HIGH,
    KIND_ICMP_QUERY,
    KIND_IPV6,
    KIND_ONE_WAY,
    KIND_PORTS,
    KIND_USED,
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
    READ_TRACKED,
    READ_TRUNCATED,
    STEP_OPEN,
    STEP_REPLY,
    TCP_BAD,
    FlowKey,
    Packet,
)

cdef enum:
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86DD
    ETHERTYPE_NONE = 0          # no IP inside
    ETHERTYPE_CUT = 0x10000     # the link header or a tag is cut short, or claims the wrong IP version

    LINK_NULL = 0
    LINK_ETHERNET = 1
    LINK_RAW_BSD = 12
    LINK_RAW_OPENBSD = 14
    LINK_RAW = 101
    LINK_LOOP = 108
    LINK_SLL = 113
    LINK_IPV4 = 228
    LINK_IPV6 = 229
    LINK_SLL2 = 276

    # TCP flags that decide the step; PSH, ECE and CWR never do (SPEC 5.4).
    TCP_FLAGS_THAT_COUNT = 0x37


cdef struct WireContext:
    uint64_t secret[8]      # of the keyed hash, random per process (SPEC 5.8)
    uint8_t tcp_step[64]    # Step for each combination of TCP flags
    uint8_t exempt          # settings.infrastructure is "exempt" (SPEC 3.2)


cdef inline uint32_t hash_key(const WireContext* context, uint64_t digest, const FlowKey* key) noexcept nogil:
    cdef uint64_t rest = (<uint64_t>key.ports << 16) | (<uint64_t>key.protocol << 8) | key.kind
    cdef uint64_t h = fold(digest ^ context.secret[0], rest ^ context.secret[1])
    h = fold(h ^ context.secret[2], context.secret[3])
    return <uint32_t>(h ^ (h >> 32))


cdef inline uint64_t digest_key(const WireContext* context, const FlowKey* key) noexcept nogil:
    cdef uint64_t h
    if not key.kind & KIND_IPV6:
        return key.addr[0]
    h = fold(key.addr[0] ^ context.secret[4], key.addr[1] ^ context.secret[5])
    return fold(h ^ key.addr[2], key.addr[3] ^ context.secret[6])


cdef inline void set_ipv4(FlowKey* key, uint32_t source, uint32_t destination, uint8_t* source_high) noexcept nogil:
    # Without a branch: half of all packets have the higher source.
    cdef uint32_t high = source > destination
    cdef uint32_t swap = (source ^ destination) & (0 - high)
    source_high[0] = <uint8_t>high
    key.addr[0] = (<uint64_t>(source ^ swap) << 32) | (destination ^ swap)


cdef inline void set_ipv6(
    FlowKey* key, const uint8_t* source, const uint8_t* destination, uint8_t* source_high
) noexcept nogil:
    cdef uint64_t s0 = be64(source)
    cdef uint64_t s1 = be64(source + 8)
    cdef uint64_t d0 = be64(destination)
    cdef uint64_t d1 = be64(destination + 8)
    cdef bint high = s0 > d0 or (s0 == d0 and s1 > d1)
    source_high[0] = high
    key.addr[0] = d0 if high else s0
    key.addr[1] = d1 if high else s1
    key.addr[2] = s0 if high else d0
    key.addr[3] = s1 if high else d1


cdef inline void set_ports(
    FlowKey* key, uint8_t family, uint8_t protocol, uint16_t sport, uint16_t dport, bint source_high
) noexcept nogil:
    cdef uint32_t turn = <uint32_t>source_high << 4
    cdef uint32_t ports = <uint32_t>sport << 16 | dport
    key.protocol = protocol
    key.kind = KIND_USED | KIND_PORTS | family
    key.ports = ports >> turn | ports << turn


cdef inline int icmp_query(bint ipv6, uint8_t icmp_type, bint* reply) noexcept nogil:
    # Which kind of query a type belongs to, 1 to 4, or 0 (SPEC 5.6).
    reply[0] = False
    if ipv6:
        if icmp_type == 128 or icmp_type == 129:
            reply[0] = icmp_type == 129
            return 1
        return 0
    if icmp_type == 8 or icmp_type == 0:
        reply[0] = icmp_type == 0
        return 1
    if 13 <= icmp_type <= 18:
        reply[0] = (icmp_type & 1) == 0
        return (icmp_type - 13) // 2 + 2
    return 0


cdef inline bint icmp_is_error(bint ipv6, uint8_t icmp_type) noexcept nogil:
    if ipv6:
        return icmp_type < 128
    return icmp_type == 3 or icmp_type == 4 or icmp_type == 5 or icmp_type == 11 or icmp_type == 12


cdef inline bint set_icmp(
    FlowKey* key, uint8_t family, uint8_t protocol, const uint8_t* header, bint source_high
) noexcept nogil:
    # The key of an ICMP packet that is no error; 8 bytes of header. Returns whether it is a reply.
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
    # Bytes SPEC 3.4 wants before a packet can be judged.
    if protocol == PROTO_TCP:
        return 20
    if protocol == PROTO_UDP or protocol == PROTO_UDPLITE:
        return 8
    if protocol == (PROTO_ICMPV6 if ipv6 else PROTO_ICMP):
        return 8
    if protocol == PROTO_SCTP or protocol == PROTO_DCCP:
        return 12
    return 0


cdef inline bint is_infrastructure(
    const Packet* p, const uint8_t* header, uint32_t available, uint8_t hop_limit
) noexcept nogil:
    # DHCP, neighbour discovery and MLD, by SPEC 3.2.
    cdef uint32_t ports
    cdef uint8_t icmp_type
    if p.protocol == PROTO_UDP:
        if available < 4:
            return False
        ports = be32(header)
        if p.ipv6:
            return ports == (546 << 16 | 547) or ports == (547 << 16 | 546)
        return ports == (68 << 16 | 67) or ports == (67 << 16 | 68)
    if p.ipv6 and p.protocol == PROTO_ICMPV6 and available >= 1:
        icmp_type = header[0]
        if 133 <= icmp_type <= 137:
            return hop_limit == 255
        return 130 <= icmp_type <= 132 or icmp_type == 143
    return False


cdef inline void show_ports(Packet* p, const uint8_t* header, uint32_t available, uint32_t need) noexcept nogil:
    # Of a transport header that is not all there, for whoever reads the verdicts (SPEC 10.3).
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
        p.outcome = READ_MALFORMED if payload < need else READ_TRUNCATED
        show_ports(p, header, available, need)
        return

    p.outcome = READ_TRACKED
    if need == 0:
        p.key.protocol = protocol
        p.key.kind = KIND_USED | family
        p.key.ports = 0
        p.step = STEP_OPEN
    elif need == 8 and (protocol == PROTO_ICMP or protocol == PROTO_ICMPV6):
        p.has_icmp = True
        p.port_key = be16(header)
        if icmp_is_error(p.ipv6, header[0]):
            p.outcome = READ_ICMP_ERROR
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
                p.outcome = READ_MALFORMED
                return
            p.tcp_flags = header[13]
            p.step = context.tcp_step[header[13] & TCP_FLAGS_THAT_COUNT]
        else:
            p.step = STEP_OPEN
            if protocol == PROTO_UDP:
                length = be16(header + 4)
                # A first fragment's UDP length is that of the whole datagram.
                if unlikely(length < 8 or (length > payload and not first_fragment)):
                    p.outcome = READ_MALFORMED
                    return
    p.digest = digest_key(context, &p.key)
    p.hash = hash_key(context, p.digest, &p.key)


cdef inline void read_ipv4(
    const WireContext* context, Packet* p, const uint8_t* ip, uint32_t captured, uint32_t wire
) noexcept nogil:
    cdef uint32_t header_length, total, fragment, available
    if unlikely(captured < 20 or ip[0] >> 4 != 4):
        p.outcome = READ_BROKEN
        return
    p.ipv6 = False
    p.protocol = ip[9]
    set_ipv4(&p.key, be32(ip + 12), be32(ip + 16), &p.source_high)

    header_length = (ip[0] & 15) * 4
    total = be16(ip + 2)
    if total == 0:
        total = wire            # segmentation offload (SPEC 3.4)
    if unlikely(header_length < 20 or total < header_length or total > wire):
        p.outcome = READ_MALFORMED
        return
    fragment = be16(ip + 6)
    if unlikely((fragment & 0x1FFF) != 0):
        p.outcome = READ_FRAGMENT
        return
    available = min(captured, total)
    available = available - header_length if available > header_length else 0
    read_transport(context, p, ip + header_length, available, total - header_length, (fragment & 0x2000) != 0)
    if unlikely(context.exempt and is_infrastructure(p, ip + header_length, available, 0)):
        p.outcome = READ_EXEMPT


cdef inline bint is_extension(uint8_t protocol) noexcept nogil:
    # IPv6 headers that are walked over. AH and ESP are not: rules name them (SPEC 2.1).
    return (
        protocol == 0 or protocol == 43 or protocol == 44 or protocol == 60
        or protocol == 135 or protocol == 139 or protocol == 140
    )


cdef inline void read_ipv6(
    const WireContext* context, Packet* p, const uint8_t* ip, uint32_t captured, uint32_t wire
) noexcept nogil:
    cdef uint32_t payload, available, length
    cdef uint32_t at = 0
    cdef bint first_fragment = False
    cdef const uint8_t* body
    if unlikely(captured < 40 or ip[0] >> 4 != 6):
        p.outcome = READ_BROKEN
        return
    p.ipv6 = True
    p.protocol = ip[6]
    set_ipv6(&p.key, ip + 8, ip + 24, &p.source_high)

    body = ip + 40
    payload = be16(ip + 4)
    if payload == 0:
        payload = wire - 40
    if unlikely(payload > wire - 40):
        p.outcome = READ_MALFORMED
        return
    available = min(captured - 40, payload)
    while unlikely(is_extension(p.protocol)):
        # at <= available <= payload holds here
        if payload - at < 8:
            p.outcome = READ_MALFORMED
            return
        if available - at < 2:
            p.outcome = READ_TRUNCATED
            return
        length = 8 if p.protocol == 44 else (<uint32_t>body[at + 1] + 1) * 8
        if payload - at < length:
            p.outcome = READ_MALFORMED
            return
        if available - at < length:
            p.outcome = READ_TRUNCATED
            return
        if p.protocol == 44:
            if be16(body + at + 2) & 0xFFF8:
                p.protocol = body[at]
                p.outcome = READ_FRAGMENT
                return
            first_fragment |= (body[at + 3] & 1) != 0
        p.protocol = body[at]
        at += length
    read_transport(context, p, body + at, available - at, payload - at, first_fragment)
    if unlikely(context.exempt and is_infrastructure(p, body + at, available - at, ip[7])):
        p.outcome = READ_EXEMPT


cdef inline uint32_t ip_version_ethertype(uint8_t first_byte) noexcept nogil:
    if first_byte >> 4 == 4:
        return ETHERTYPE_IPV4
    if first_byte >> 4 == 6:
        return ETHERTYPE_IPV6
    return ETHERTYPE_NONE


cdef inline uint32_t family_ethertype(uint32_t address_family) noexcept nogil:
    # AF_INET is 2 everywhere; AF_INET6 is 10, 24, 28 or 30, by the system that captured.
    if address_family == 2:
        return ETHERTYPE_IPV4
    if address_family == 10 or address_family == 24 or address_family == 28 or address_family == 30:
        return ETHERTYPE_IPV6
    return ETHERTYPE_NONE


cdef inline uint32_t read_link(const Frame* frame, uint32_t* offset) noexcept nogil:
    # Link types other than Ethernet: the ethertype that follows, and where.
    cdef uint32_t link = frame.link_type
    cdef const uint8_t* data = frame.data
    cdef uint32_t captured = frame.captured
    cdef uint32_t ethertype
    if link == LINK_RAW or link == LINK_RAW_BSD or link == LINK_RAW_OPENBSD:
        offset[0] = 0
        if captured < 1:
            return ETHERTYPE_CUT
        ethertype = ip_version_ethertype(data[0])
        return ethertype if ethertype else <uint32_t>ETHERTYPE_CUT
    if link == LINK_IPV4 or link == LINK_IPV6:
        offset[0] = 0
        return ETHERTYPE_IPV4 if link == LINK_IPV4 else ETHERTYPE_IPV6
    if link == LINK_NULL or link == LINK_LOOP:
        offset[0] = 4
        if captured < 4:
            return ETHERTYPE_CUT
        ethertype = family_ethertype(be32(data))
        if not ethertype and link == LINK_NULL and (data[1] | data[2] | data[3]) == 0:
            ethertype = family_ethertype(data[0])       # the capturing host's byte order
        return ethertype
    if link == LINK_SLL:
        offset[0] = 16
        return be16(data + 14) if captured >= 16 else <uint32_t>ETHERTYPE_CUT
    if link == LINK_SLL2:
        offset[0] = 20
        return be16(data) if captured >= 20 else <uint32_t>ETHERTYPE_CUT
    return ETHERTYPE_NONE


cdef inline uint32_t peel_tags(const Frame* frame, uint32_t ethertype, uint32_t* offset) noexcept nogil:
    # VLAN, QinQ, then MPLS or PPPoE (SPEC 3.1): the ethertype below them, and where.
    cdef const uint8_t* data = frame.data
    cdef uint32_t captured = frame.captured
    cdef uint32_t at = offset[0]
    cdef bint bottom = False
    while ethertype == 0x8100 or ethertype == 0x88A8 or ethertype == 0x9100 or ethertype == 0x9200:
        if captured - at < 4:
            return ETHERTYPE_CUT
        ethertype = be16(data + at + 2)
        at += 4
    if ethertype == 0x8847 or ethertype == 0x8848:
        while not bottom:
            if captured - at < 4:
                return ETHERTYPE_CUT
            bottom = data[at + 2] & 1
            at += 4
        if captured - at < 1:
            return ETHERTYPE_CUT
        ethertype = ip_version_ethertype(data[at])
    elif ethertype == 0x8864:
        if captured - at < 8:
            return ETHERTYPE_CUT
        ethertype = be16(data + at + 6)
        at += 8
        if ethertype == 0x0021:
            ethertype = ETHERTYPE_IPV4
        elif ethertype == 0x0057:
            ethertype = ETHERTYPE_IPV6
        else:
            ethertype = ETHERTYPE_NONE
    offset[0] = at
    return ethertype


cdef inline uint32_t find_ip(const Frame* frame, uint32_t* at) noexcept nogil:
    # What is below link header and tags (SPEC 3.1), and how many bytes into the frame if that is IP.
    cdef uint32_t ethertype
    at[0] = 14
    if likely(frame.link_type == LINK_ETHERNET):
        ethertype = be16(frame.data + 12) if likely(frame.captured >= 14) else <uint32_t>ETHERTYPE_CUT
    else:
        ethertype = read_link(frame, at)
    if unlikely(ethertype != ETHERTYPE_IPV4 and ethertype != ETHERTYPE_IPV6 and ethertype != ETHERTYPE_CUT):
        ethertype = peel_tags(frame, ethertype, at)
    return ethertype


cdef inline bint read_plain_tcp(const WireContext* context, const Frame* frame, Packet* p) noexcept nogil:
    # What most packets are, read without looking left or right: TCP in IPv4 in Ethernet, no IP options, no fragment,
    # nothing wrong with it. False: it is something else, or odd, and nothing was decided.
    cdef const uint8_t* data = frame.data
    cdef uint32_t total, length
    if frame.link_type != LINK_ETHERNET or frame.captured < 54:
        return False
    if be32(data + 12) >> 8 != 0x080045 or be16(data + 20) & 0x3FFF or data[23] != PROTO_TCP:
        return False
    total = be16(data + 16)
    length = (data[46] >> 4) * 4
    if total < 40 or total > frame.wire - 14 or length < 20 or length > total - 20:
        return False
    p.wire = frame.wire
    p.time_ns = frame.time_ns
    p.ipv6 = False
    p.protocol = PROTO_TCP
    p.has_icmp = False
    p.has_ports = True
    p.sport = be16(data + 34)
    p.dport = be16(data + 36)
    p.port_key = p.dport
    p.tcp_flags = data[47]
    p.step = context.tcp_step[data[47] & TCP_FLAGS_THAT_COUNT]
    p.outcome = READ_TRACKED
    set_ipv4(&p.key, be32(data + 26), be32(data + 30), &p.source_high)
    set_ports(&p.key, 0, PROTO_TCP, p.sport, p.dport, p.source_high)
    p.digest = p.key.addr[0]
    p.hash = hash_key(context, p.digest, &p.key)
    return True


cdef inline void read_frame(const WireContext* context, const Frame* frame, Packet* p) noexcept nogil:
    cdef uint32_t at, ethertype
    if likely(read_plain_tcp(context, frame, p)):
        return
    p.has_ports = False
    p.has_icmp = False
    p.tcp_flags = 0
    p.step = TCP_BAD        # until it is known: a broken packet opens nothing
    p.port_key = 0
    p.sport = 0
    p.dport = 0
    p.protocol = 0
    p.wire = frame.wire
    p.time_ns = frame.time_ns
    ethertype = find_ip(frame, &at)
    if likely(ethertype == ETHERTYPE_IPV4):
        read_ipv4(context, p, frame.data + at, frame.captured - at, frame.wire - at)
    elif ethertype == ETHERTYPE_IPV6:
        read_ipv6(context, p, frame.data + at, frame.captured - at, frame.wire - at)
    elif ethertype == ETHERTYPE_CUT:
        p.outcome = READ_BROKEN
    else:
        p.outcome = READ_NOT_IP


cdef inline bint read_quote(
    const WireContext* context, const Packet* p, FlowKey* key, uint64_t* digest, uint32_t* hash_value,
    uint8_t* source_high
) noexcept nogil:
    # The key of the packet that an ICMP error quotes; False when the quote has none (SPEC 4.6). A quote is cut by
    # design, so lengths inside it claim nothing. It is of the error's own IP version.
    cdef const uint8_t* ip = p.quote
    cdef uint32_t left = p.quote_length
    cdef uint32_t length, need
    cdef uint8_t protocol
    cdef uint8_t family = p.ipv6
    if family:
        if left < 40 or ip[0] >> 4 != 6:
            return False
        set_ipv6(key, ip + 8, ip + 24, source_high)
        protocol = ip[6]
        ip += 40
        left -= 40
        while is_extension(protocol):
            if left < 8:
                return False
            length = 8 if protocol == 44 else (<uint32_t>ip[1] + 1) * 8
            if left < length or (protocol == 44 and be16(ip + 2) & 0xFFF8):
                return False
            protocol = ip[0]
            ip += length
            left -= length
    else:
        if left < 20 or ip[0] >> 4 != 4:
            return False
        length = (ip[0] & 15) * 4
        if length < 20 or be16(ip + 6) & 0x1FFF:
            return False
        set_ipv4(key, be32(ip + 12), be32(ip + 16), source_high)
        protocol = ip[9]
        length = min(length, left)      # options may be cut; what needs no ports is told without them
        ip += length
        left -= length

    need = transport_header_length(family, protocol)
    if need == 0:
        key.protocol = protocol
        key.kind = KIND_USED | family
        key.ports = 0
    elif protocol == (PROTO_ICMPV6 if family else PROTO_ICMP):
        if left < 8 or icmp_is_error(family, ip[0]):
            return False
        set_icmp(key, family, protocol, ip, source_high[0])
    else:
        if left < 4:
            return False
        set_ports(key, family, protocol, be16(ip), be16(ip + 2), source_high[0])
    digest[0] = digest_key(context, key)
    hash_value[0] = hash_key(context, digest[0], key)
    return True
