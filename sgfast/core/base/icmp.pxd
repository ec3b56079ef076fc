# The meaning of ICMP types for connection tracking (SPEC 4.6, 5.6).

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef inline int icmp_query(bint ipv6, uint8_t icmp_type, bint* reply) noexcept nogil:
    # The query kind of an ICMP type: 1 to 4 (echo, timestamp, information, address mask), or 0 if it is no query.
    # `reply` is set to whether the type is the reply.
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
    # The ICMP type of a query kind's request.
    if ipv6:
        return 128
    return 8 if query == 1 else <uint16_t>(13 + (query - 2) * 2)


cdef inline bint icmp_is_error(bint ipv6, uint8_t icmp_type) noexcept nogil:
    if ipv6:
        return icmp_type < 128
    return icmp_type == 3 or icmp_type == 4 or icmp_type == 5 or icmp_type == 11 or icmp_type == 12


cdef inline bint is_unreachable(bint ipv6, uint16_t port_key) noexcept nogil:
    # Whether an error reports its destination as unreachable. "Fragmentation needed" (type 3, code 4) does not.
    if ipv6:
        return port_key >> 8 == 1
    return port_key >> 8 == 3 and port_key & 255 != 4
