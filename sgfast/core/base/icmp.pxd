# The meaning of ICMP types for connection tracking (SPEC 4.6, 5.6).

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from sgfast.core.base.key cimport KIND_ICMP_QUERY, KIND_IPV6, KIND_ONE_WAY


cdef inline int icmp_query(bint ipv6, uint8_t icmp_type, bint* reply) noexcept nogil:
    # Returns the query kind of an ICMP type: 1 to 4 (echo, timestamp, information, address mask), or 0 if it is no
    # query. Sets `reply` to whether the type is that of a reply.
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


cdef inline uint16_t query_type(bint ipv6, uint32_t query) noexcept nogil:
    # Returns the ICMP type of a query kind's request.
    if ipv6:
        return 128
    return 8 if query == 1 else <uint16_t>(13 + (query - 2) * 2)


cdef inline uint16_t opener_port_key(uint8_t kind, uint32_t ports, bint initiator_high) noexcept nogil:
    # Returns the port key of the opener of a connection whose FlowKey has this `kind` and these `ports`: the
    # responder's port, or ICMP type << 8 | code (code 0 for a query).
    if kind & KIND_ICMP_QUERY:
        return query_type((kind & KIND_IPV6) != 0, ports & 0xFFFF) << 8
    if kind & KIND_ONE_WAY:
        return <uint16_t>((ports >> 16) << 8 | (ports & 0xFF))
    return <uint16_t>(ports >> 16 if initiator_high else ports & 0xFFFF)


cdef inline bint icmp_is_error(bint ipv6, uint8_t icmp_type) noexcept nogil:
    if ipv6:
        return icmp_type < 128
    return icmp_type == 3 or icmp_type == 4 or icmp_type == 5 or icmp_type == 11 or icmp_type == 12


cdef inline bint is_unreachable(bint ipv6, uint16_t port_key) noexcept nogil:
    # Whether an ICMP error reports an unreachable destination. "Fragmentation needed" (type 3, code 4) does not count.
    if ipv6:
        return port_key >> 8 == 1
    return port_key >> 8 == 3 and port_key & 255 != 4
