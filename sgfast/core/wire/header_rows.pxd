# Conversion between packets and header rows, which are the input of Engine.process and the content of --verdicts.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from sgfast.core.base.intrinsics cimport be32
from sgfast.core.base.key cimport address_of, set_ipv4, set_ipv6, write_address
from sgfast.core.base.types cimport (
    PROTO_ICMP,
    PROTO_ICMPV6,
    PROTO_TCP,
    PROTO_UDP,
    READ_BROKEN,
    READ_NOT_IP,
    TCP_BAD,
    HeaderRow,
    Packet,
)
from sgfast.core.wire.ip cimport WireContext, note_infrastructure, read_transport


cdef inline void write_header_row(const Packet* p, HeaderRow* row) noexcept nogil:
    memset(row, 0, sizeof(HeaderRow))
    row.time_ns = p.time_ns
    row.wire = p.wire
    if p.parse_result == READ_NOT_IP or p.parse_result == READ_BROKEN:
        return
    write_address(row.src, address_of(p.key.addr, p.ipv6, p.source_high), p.ipv6)
    write_address(row.dst, address_of(p.key.addr, p.ipv6, 1 - p.source_high), p.ipv6)
    row.family = 6 if p.ipv6 else 4
    row.protocol = p.protocol
    row.tcp_flags = p.tcp_flags
    row.sport = p.sport
    row.dport = p.dport
    row.has_ports = p.has_ports
    row.has_icmp = p.has_icmp
    if p.has_icmp:
        row.icmp_type = p.port_key >> 8
        row.icmp_code = p.port_key & 255


cdef inline void read_header(const WireContext* context, const HeaderRow* row, Packet* p) noexcept nogil:
    # Reads a header row like a frame in which all lengths are valid.
    cdef uint8_t transport[20]
    cdef uint32_t length = 20
    memset(p, 0, sizeof(Packet))
    p.step = TCP_BAD
    p.time_ns = row.time_ns
    p.wire = row.wire
    p.protocol = row.protocol
    p.ipv6 = row.family == 6
    if row.family != 4 and row.family != 6:
        p.parse_result = READ_NOT_IP
        return
    if p.ipv6:
        set_ipv6(&p.key, row.src, row.dst, &p.source_high)
    else:
        set_ipv4(&p.key, <uint64_t>be32(row.src) << 32 | be32(row.dst), &p.source_high)
    memset(transport, 0, sizeof(transport))
    if row.protocol == (PROTO_ICMPV6 if p.ipv6 else PROTO_ICMP):
        length = 8
        transport[0] = row.icmp_type
        transport[1] = row.icmp_code
        transport[4] = (row.icmp_id >> 8) & 255
        transport[5] = row.icmp_id & 255
    else:
        transport[0] = row.sport >> 8
        transport[1] = row.sport & 255
        transport[2] = row.dport >> 8
        transport[3] = row.dport & 255
        if row.protocol == PROTO_TCP:
            transport[12] = 5 << 4
            transport[13] = row.tcp_flags
        elif row.protocol == PROTO_UDP:
            length = 8
            transport[5] = 8
    read_transport(context, p, transport, length, length, False)
    note_infrastructure(context, p, 255)
