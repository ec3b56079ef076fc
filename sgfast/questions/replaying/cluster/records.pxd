# Packets whose headers are parsed, as bytes that another process judges: the content of a segment of a clustered
# replay.
#
#     Record      48 bytes: a packet's fields, except those that are computed again (the hash is keyed)
#     then        if the packet is IPv6: three more words of addresses
#                 if the packet is a fragment: Piece
#                 if the packet is an ICMP error: the length of its quote (four bytes) and the quote's bytes
#
# A record has the packet's own timestamp, and the time of a clock that began with the input (SPEC 9.1). Its number
# counts within the input. The judging task adds the input's offset in the replay. As the bytes come from a file,
# every length is checked against the block before use, and a record with contradictory fields is not judged.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from sgfast.core.base.clock cimport CLOCK_END
from sgfast.core.base.icmp cimport icmp_is_error
from sgfast.core.base.intrinsics cimport likely, unlikely
from sgfast.core.base.key cimport KIND_PORTS, KIND_USED, FlowKey, digest_key, hash_key
from sgfast.core.base.types cimport (
    PROTO_ICMP,
    PROTO_ICMPV6,
    PROTO_TCP,
    READ_BROKEN,
    READ_FRAGMENT,
    READ_ICMP_ERROR,
    READ_NOT_IP,
    READ_SERVER,
    READ_STRAY,
    READ_TRACKED,
    STEP_COUNT,
    STEP_OPEN,
    STEP_REPLY,
    Packet,
)
from sgfast.core.wire.ip cimport TCP_FLAGS_THAT_COUNT, WireContext, may_be_cut, set_icmp, transport_header_length

cdef enum:         # Record.flags
    RECORD_IPV6 = 1
    RECORD_SOURCE_HIGH = 2
    RECORD_PORTS = 4        # has_ports
    RECORD_ICMP = 8         # has_icmp
    RECORD_CUT = 16         # this times Packet.cut
    RECORD_FLAGS = 47       # the highest value

    # The maximum number of bytes after a record, not counting a quote.
    RECORD_MORE = 24 + 16 + 4


cdef packed struct Record:
    int64_t time_ns         # packet timestamp, nanoseconds
    int64_t now             # time of the input's clock, nanoseconds
    uint64_t addr           # the first word of FlowKey.addr
    uint32_t number         # packet number in the input, from 1
    uint32_t wire
    uint32_t vpc            # as in Frame: 0 for none
    uint32_t ports          # as in FlowKey
    uint16_t port_key
    uint8_t kind            # as in FlowKey
    uint8_t parse_result
    uint8_t step
    uint8_t protocol
    uint8_t tcp_flags
    uint8_t flags


cdef packed struct Piece:
    uint32_t identification
    uint32_t at
    uint32_t end
    uint8_t last
    uint8_t read
    uint16_t spare


cdef inline bint has_quote(const Packet* p) noexcept nogil:
    cdef uint8_t header_result = p.fragment_parse_result if p.parse_result == READ_FRAGMENT else p.parse_result
    return header_result == READ_ICMP_ERROR


cdef inline bint is_keyed(const Packet* p) noexcept nogil:
    cdef uint8_t header_result = p.fragment_parse_result if p.parse_result == READ_FRAGMENT else p.parse_result
    return header_result == READ_TRACKED


cdef inline uint32_t record_size(const Packet* p) noexcept nogil:
    return <uint32_t>sizeof(Record) + RECORD_MORE + (p.quote_length if unlikely(has_quote(p)) else 0)


cdef inline uint32_t write_record(
    uint8_t* out, const Packet* p, int64_t now, uint32_t number, uint32_t vpc
) noexcept nogil:
    # Write a record to `out`, which must have room for `record_size` bytes. Return the record's length.
    cdef Record r
    cdef Piece piece
    cdef uint32_t size = sizeof(Record)
    cdef bint addressed = p.parse_result != READ_NOT_IP and p.parse_result != READ_BROKEN
    r.time_ns = p.time_ns
    r.now = now
    r.number = number
    r.wire = p.wire
    r.vpc = vpc
    r.addr = p.key.addr[0] if addressed else 0
    # Without a key, ports are only reported (SPEC 10.3).
    r.ports = p.key.ports if likely(is_keyed(p)) else <uint32_t>p.sport << 16 | p.dport
    r.kind = p.key.kind if likely(is_keyed(p)) else 0
    r.port_key = p.port_key
    r.parse_result = p.parse_result
    r.step = p.step
    r.protocol = p.protocol
    r.tcp_flags = p.tcp_flags
    r.flags = (
        (RECORD_PORTS if p.has_ports else 0) | (RECORD_ICMP if p.has_icmp else 0)
        | (p.cut * RECORD_CUT if may_be_cut(p.parse_result) else 0)
        | ((RECORD_IPV6 if p.ipv6 else 0) | (RECORD_SOURCE_HIGH if p.source_high else 0) if addressed else 0)
    )
    memcpy(out, &r, sizeof(Record))
    if unlikely(r.flags & RECORD_IPV6):
        memcpy(out + size, &p.key.addr[1], 24)
        size += 24
    if unlikely(p.parse_result == READ_FRAGMENT):
        piece.identification = p.fragment_id
        piece.at = p.fragment_start
        piece.end = p.fragment_end
        piece.last = p.fragment_last
        piece.read = p.fragment_parse_result
        piece.spare = 0
        memcpy(out + size, &piece, sizeof(Piece))
        size += sizeof(Piece)
    if unlikely(has_quote(p)):
        memcpy(out + size, &p.quote_length, 4)
        memcpy(out + size + 4, p.quote, p.quote_length)
        size += 4 + p.quote_length
    return size


cdef inline Py_ssize_t measure_record(const uint8_t* data, Py_ssize_t left, Record* r) noexcept nogil:
    # Return the length of a record in bytes, or 0 if the record is not valid.
    cdef Piece piece
    cdef uint32_t quoted
    cdef Py_ssize_t size = sizeof(Record)
    cdef bint quotes
    if unlikely(left < size):
        return 0
    memcpy(r, data, sizeof(Record))
    if unlikely(
        r.parse_result > READ_FRAGMENT or r.step >= STEP_COUNT or r.flags > RECORD_FLAGS or r.now > CLOCK_END
        or (r.flags >= RECORD_CUT and not may_be_cut(r.parse_result))
    ):
        return 0
    quotes = r.parse_result == READ_ICMP_ERROR
    if unlikely(r.flags & RECORD_IPV6):
        size += 24
    if unlikely(r.parse_result == READ_FRAGMENT):
        if left - size < <Py_ssize_t>sizeof(Piece):
            return 0
        memcpy(&piece, data + size, sizeof(Piece))
        if piece.at >= piece.end or piece.end > 0xFFFF or piece.at & 7 or (piece.end & 7 and not piece.last):
            return 0
        # Only a first fragment contains headers to parse.
        if piece.read > READ_SERVER or (piece.at and piece.read != READ_STRAY):
            return 0
        quotes = piece.read == READ_ICMP_ERROR
        size += sizeof(Piece)
    if unlikely(quotes):
        if left - size < 4:
            return 0
        memcpy(&quoted, data + size, 4)
        size += 4 + <Py_ssize_t>quoted
    return size if likely(size <= left) else 0


cdef inline bint key_agrees(const WireContext* context, const Packet* p) noexcept nogil:
    # Return whether the packet's key and step are those that its headers give (wire/ip.pxd). All later code relies on
    # this: with a key of another IP version it would read addresses that the key's entry does not have.
    cdef FlowKey key
    cdef uint8_t header[8]
    cdef uint8_t family = p.ipv6
    cdef uint8_t step = STEP_OPEN
    cdef uint32_t need = transport_header_length(p.ipv6, p.protocol)
    if need == 0:
        return (
            p.key.kind == (KIND_USED | family) and p.key.ports == 0 and p.step == STEP_OPEN
            and not p.has_ports and not p.has_icmp
        )
    if unlikely(p.protocol == PROTO_ICMP or p.protocol == PROTO_ICMPV6):
        memset(header, 0, sizeof(header))
        header[0] = p.port_key >> 8
        header[1] = p.port_key & 255
        header[4] = p.key.ports >> 24
        header[5] = p.key.ports >> 16 & 255
        if set_icmp(&key, family, p.protocol, header, p.source_high):
            step = STEP_REPLY
        return (
            p.key.kind == key.kind and p.key.ports == key.ports and p.step == step
            and p.has_icmp and not p.has_ports and not icmp_is_error(p.ipv6, header[0])
        )
    if likely(p.protocol == PROTO_TCP):
        step = context.tcp_step[p.tcp_flags & TCP_FLAGS_THAT_COUNT]
    # All conditions are combined into one branch, because they are always true for undamaged records.
    return not (
        (p.key.kind ^ (KIND_USED | KIND_PORTS | family)) | (p.step ^ step) | (p.port_key ^ p.dport)
        | (p.has_ports ^ 1) | p.has_icmp
    )


cdef inline bint agrees_without_key(const Record* r, const Packet* p) noexcept nogil:
    # Check a packet without a connection key, as `key_agrees` checks one with a key.
    if r.kind or (p.has_ports and p.has_icmp):
        return False
    if p.parse_result == READ_NOT_IP or p.parse_result == READ_BROKEN:
        return r.flags % RECORD_CUT == 0
    if has_quote(p):
        return (
            p.has_icmp and p.protocol == (PROTO_ICMPV6 if p.ipv6 else PROTO_ICMP)
            and icmp_is_error(p.ipv6, p.port_key >> 8)
        )
    return True


cdef inline bint in_order(const Packet* p) noexcept nogil:
    # Return whether the key has the lower address first, as all keys do. With equal addresses, `source_high` is false.
    cdef const uint64_t* addr = &p.key.addr[0]
    if unlikely(p.ipv6):
        return addr[0] < addr[2] or (
            addr[0] == addr[2] and (addr[1] < addr[3] or (addr[1] == addr[3] and not p.source_high))
        )
    return (addr[0] >> 32) + p.source_high <= <uint32_t>addr[0]


cdef inline Py_ssize_t read_record(
    const WireContext* context, const uint8_t* data, Py_ssize_t left, Record* r, Packet* p
) noexcept nogil:
    # Measure a record like `measure_record`, and fill `p` from it. Also return 0 if fields contradict each other. The
    # packet's quote stays in `data`.
    cdef Piece piece
    cdef Py_ssize_t size = measure_record(data, left, r)
    if unlikely(size == 0):
        return 0
    p.time_ns = r.time_ns
    p.wire = r.wire
    p.port_key = r.port_key
    p.parse_result = r.parse_result
    p.step = r.step
    p.protocol = r.protocol
    p.tcp_flags = r.tcp_flags
    p.ipv6 = r.flags & RECORD_IPV6
    p.source_high = r.flags & RECORD_SOURCE_HIGH != 0
    p.has_ports = r.flags & RECORD_PORTS != 0
    p.has_icmp = r.flags & RECORD_ICMP != 0
    p.cut = r.flags // RECORD_CUT
    p.sport = 0
    p.dport = 0
    p.key.addr[0] = r.addr
    p.key.ports = r.ports
    p.key.kind = r.kind
    p.key.protocol = r.protocol
    data += sizeof(Record)
    if unlikely(p.ipv6):
        memcpy(&p.key.addr[1], data, 24)
        data += 24
    if unlikely(p.parse_result == READ_FRAGMENT):
        memcpy(&piece, data, sizeof(Piece))
        p.fragment_id = piece.identification
        p.fragment_start = piece.at
        p.fragment_end = piece.end
        p.fragment_last = piece.last != 0
        p.fragment_parse_result = piece.read
        data += sizeof(Piece)
    if unlikely(has_quote(p)):
        memcpy(&p.quote_length, data, 4)
        p.quote = data + 4
    if unlikely(not in_order(p)):
        return 0
    if likely(is_keyed(p)):
        if p.has_ports:
            p.sport = <uint16_t>(r.ports if p.source_high else r.ports >> 16)
            p.dport = <uint16_t>(r.ports >> 16 if p.source_high else r.ports)
        if unlikely(not key_agrees(context, p)):
            return 0
        p.digest = digest_key(context.secret, &p.key)
        p.hash = hash_key(context.secret, p.digest, &p.key)
        return size
    if p.has_ports:
        p.sport = r.ports >> 16
        p.dport = r.ports & 0xFFFF
    return size if agrees_without_key(r, p) else 0
