# Digests by which packets are recognized as the same IP packet (SPEC 9.11).

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport be16, fold, load64
from sgfast.core.wire.link cimport find_ip
from sgfast.core.wire.next_header cimport ETHERTYPE_IPV4, ETHERTYPE_IPV6


cdef inline const uint8_t* find_ip_packet(const Frame* frame, bint* ipv6, uint32_t* length) noexcept nogil:
    # Returns the IP packet of a frame and the number of its bytes that were captured, at least 20 or for IPv6 40. NULL
    # if the frame has none, or not its whole header.
    cdef uint32_t at = 0
    cdef uint32_t ethertype = find_ip(frame, &at)
    cdef const uint8_t* ip = frame.data + at
    cdef uint32_t claimed
    if ethertype != ETHERTYPE_IPV4 and ethertype != ETHERTYPE_IPV6:
        return NULL
    length[0] = frame.captured - at
    ipv6[0] = ethertype == ETHERTYPE_IPV6
    # Bytes beyond the claimed end are Ethernet padding, which not every copy has. For a claim of 0 see SPEC 3.4.
    if ethertype == ETHERTYPE_IPV4:
        if length[0] < 20 or ip[0] >> 4 != 4:
            return NULL
        claimed = be16(ip + 2)
        if claimed >= 20:
            length[0] = min(length[0], claimed)
    else:
        if length[0] < 40 or ip[0] >> 4 != 6:
            return NULL
        claimed = be16(ip + 4)
        if claimed != 0:
            length[0] = min(length[0], 40 + claimed)
    return ip


cdef inline uint64_t digest(
    const uint64_t* secret, const uint8_t* ip, uint32_t length, bint ipv6, uint32_t vpc
) noexcept nogil:
    # Digest of an IP packet's first `length` bytes (at least 20), except those that routers change: TTL and header
    # checksum, or the hop limit. It is keyed, so that nobody can craft packets that pass for copies of others.
    cdef uint64_t first = load64(ip)
    cdef uint64_t second = load64(ip + 8)
    cdef uint64_t rest[2]
    cdef uint64_t h
    cdef uint32_t at = 16
    if ipv6:
        first &= 0x00FFFFFFFFFFFFFFULL
    else:
        second &= 0xFFFFFFFF0000FF00ULL
    h = fold(first ^ secret[0], second ^ secret[1])
    while length - at >= 16:
        h = fold(load64(ip + at) ^ secret[2], load64(ip + at + 8) ^ h)
        at += 16
    if at < length:
        rest[0] = 0
        rest[1] = 0
        memcpy(rest, ip + at, length - at)
        h = fold(rest[0] ^ secret[2], rest[1] ^ h)
    return fold(h ^ length ^ <uint64_t>vpc << 32, secret[3])
