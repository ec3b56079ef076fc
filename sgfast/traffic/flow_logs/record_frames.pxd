# Frames of LINK_RECORD (frames.pxd): what they count, and the headers of an IP packet of their connection.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from sgfast.core.base.frames cimport RecordCounts
from sgfast.core.base.icmp cimport icmp_query
from sgfast.core.base.types cimport PROTO_TCP, PROTO_UDP
from sgfast.core.wire.ip cimport transport_header_length
from sgfast.traffic.flow_logs.openers cimport Conversation, is_icmp

cdef enum:
    FRAME_ROOM = 80         # bytes; the longest frame has counts, and headers of IPv6 and TCP


cdef inline void put16(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>value


cdef inline uint32_t write_record_frame(
    uint8_t* out, const Conversation* c, int way, uint8_t flags, uint64_t packets, uint32_t nbytes
) noexcept nogil:
    # Writes a frame in FRAME_ROOM bytes. `flags`: those of TCP. Returns its length.
    cdef RecordCounts* counts = <RecordCounts*>out
    cdef bint ipv6 = c.family == 6
    cdef uint32_t transport = transport_header_length(ipv6, c.protocol)
    cdef uint8_t* ip = out + sizeof(RecordCounts)
    cdef uint8_t* at = ip + (40 if ipv6 else 20)
    cdef bint reply
    memset(out, 0, FRAME_ROOM)
    counts.packets = packets
    counts.nbytes = nbytes
    counts.is_answer = way != c.opener
    if ipv6:
        ip[0] = 0x60
        put16(ip + 4, transport)
        ip[6] = c.protocol
        ip[7] = 64
        memcpy(ip + 8, &c.ends[16 * way], 16)
        memcpy(ip + 24, &c.ends[16 * (1 - way)], 16)
    else:
        ip[0] = 0x45
        put16(ip + 2, 20 + transport)
        ip[8] = 64
        ip[9] = c.protocol
        memcpy(ip + 12, &c.ends[16 * way], 4)
        memcpy(ip + 16, &c.ends[16 * (1 - way)], 4)
    if is_icmp(c):
        at[0] = c.icmp_type if c.has_icmp else 128 if ipv6 else 8
        at[1] = c.icmp_code
        if way != c.opener and icmp_query(ipv6, at[0], &reply):
            at[0] = 0 if at[0] == 8 else at[0] + 1
    elif transport:
        put16(at, c.ports[way])
        put16(at + 2, c.ports[1 - way])
        if c.protocol == PROTO_TCP:
            at[12] = 5 << 4
            at[13] = flags
        elif c.protocol == PROTO_UDP:
            put16(at + 4, 8)
    return sizeof(RecordCounts) + (40 if ipv6 else 20) + transport
