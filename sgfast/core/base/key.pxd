# The connection key. Both directions share it, because the lower address comes first (SPEC 5.1).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.intrinsics cimport be32, be64, fold, put_be64

# FlowKey.kind, which is never zero in a valid key, so that a free table entry equals no key.
cdef enum:         # Kind
    KIND_USED = 0x80
    KIND_IPV6 = 0x01
    KIND_PORTS = 0x02       # `ports` holds ports (SPEC 5.1, first row)
    KIND_ICMP_QUERY = 0x04  # `ports` holds the identifier and the query kind
    KIND_ONE_WAY = 0x08     # `ports` holds ICMP type and code; there is no reply direction
    KIND_FROM_HIGH = 0x10   # query or one-way key: the querier or source is the higher address


cdef struct FlowKey:
    uint32_t ports          # port of the lower address << 16 | port of the higher address
    uint8_t protocol
    uint8_t kind
    # IPv4: addr[0] = lower << 32 | higher; the other words are unused. IPv6: lower (high half, low half), then higher.
    uint64_t addr[4]


# One address as two words. IPv4: the address in the low 32 bits of `high`, and `low` is 0.
cdef struct Address:
    uint64_t high
    uint64_t low


cdef inline Address address_of(const uint64_t* addr, bint ipv6, int side) noexcept nogil:
    # Returns one address of a key. `addr`: as in FlowKey. `side`: 0 for the lower address, 1 for the higher one.
    cdef Address address
    if ipv6:
        address.high = addr[2 * side]
        address.low = addr[2 * side + 1]
    else:
        address.high = <uint32_t>(addr[0] >> (0 if side else 32))
        address.low = 0
    return address


cdef inline bint same_addresses(const uint64_t* a, const uint64_t* b) noexcept nogil:
    # Whether two keys of IPv6 have the same addresses.
    return a[0] == b[0] and a[1] == b[1] and a[2] == b[2] and a[3] == b[3]


cdef inline bint same_address(Address a, Address b) noexcept nogil:
    return a.high == b.high and a.low == b.low


cdef inline void write_address(uint8_t* out, Address address, bint ipv6) noexcept nogil:
    # Writes 16 bytes in network byte order. An IPv4 address takes the first four bytes; all others are zero.
    put_be64(out, address.high if ipv6 else address.high << 32)
    put_be64(out + 8, address.low)


cdef inline Address read_address(const uint8_t* written, bint ipv6) noexcept nogil:
    # Reads an address that `write_address` wrote.
    cdef Address address
    address.high = be64(written) if ipv6 else be32(written)
    address.low = be64(written + 8) if ipv6 else 0
    return address


cdef inline bint is_multicast(bint ipv6, uint64_t high) noexcept nogil:
    # Whether an address is multicast or broadcast: no instance as a destination (SPEC 3.3). `high`: as in Address.
    if ipv6:
        return high >> 56 == 0xFF
    return <uint32_t>high >> 28 == 14 or ~<uint32_t>high == 0


cdef inline bint may_have_multicast(const uint64_t* addr, bint ipv6) noexcept nogil:
    # Whether an address of a key may be multicast or broadcast. These are the highest addresses, so the key's higher
    # address tells. `addr`: as in FlowKey.
    if ipv6:
        return addr[2] >> 56 == 0xFF
    return <uint32_t>addr[0] >> 28 >= 14


cdef inline void set_ipv4(FlowKey* key, uint64_t addresses, uint8_t* source_high) noexcept nogil:
    # `addresses`: source << 32 | destination. There is no branch: half of all packets have the higher source, so a
    # branch would be unpredictable.
    cdef uint64_t turned = addresses << 32 | addresses >> 32
    cdef bint high = turned < addresses
    source_high[0] = high
    key.addr[0] = turned if high else addresses


cdef inline void set_ipv6(
    FlowKey* key, const uint8_t* source, const uint8_t* destination, uint8_t* source_high
) noexcept nogil:
    cdef uint64_t s0 = be64(source)
    cdef uint64_t s1 = be64(source + 8)
    cdef uint64_t d0 = be64(destination)
    cdef uint64_t d1 = be64(destination + 8)
    # Without a branch, as in set_ipv4.
    cdef uint64_t high = (s0 > d0) | ((s0 == d0) & (s1 > d1))
    cdef uint64_t swap0 = (s0 ^ d0) & (0 - high)
    cdef uint64_t swap1 = (s1 ^ d1) & (0 - high)
    source_high[0] = <uint8_t>high
    key.addr[0] = s0 ^ swap0
    key.addr[1] = s1 ^ swap1
    key.addr[2] = d0 ^ swap0
    key.addr[3] = d1 ^ swap1


cdef inline void set_ports(
    FlowKey* key, uint8_t family, uint8_t protocol, uint16_t sport, uint16_t dport, bint source_high
) noexcept nogil:
    cdef uint32_t turn = <uint32_t>source_high << 4
    cdef uint32_t ports = <uint32_t>sport << 16 | dport
    key.protocol = protocol
    key.kind = KIND_USED | KIND_PORTS | family
    # Compilers turn this into one rotation.
    key.ports = ports << turn | ports >> (-turn & 31)


# Returns a key's addresses as one word: the addresses themselves for IPv4, a keyed hash for IPv6. `secret`: the eight
# words of WireContext, random for each process by default (SPEC 5.8).
cdef inline uint64_t digest_key(const uint64_t* secret, const FlowKey* key) noexcept nogil:
    cdef uint64_t h
    if not key.kind & KIND_IPV6:
        return key.addr[0]
    h = fold(key.addr[0] ^ secret[4], key.addr[1] ^ secret[5])
    return fold(h ^ key.addr[2], key.addr[3] ^ secret[6])


cdef inline uint32_t hash_key(const uint64_t* secret, uint64_t digest, const FlowKey* key) noexcept nogil:
    cdef uint64_t rest_of_key = (<uint64_t>key.ports << 16) | (<uint64_t>key.protocol << 8) | key.kind
    cdef uint64_t h = fold(digest ^ secret[0], rest_of_key ^ secret[1])
    h = fold(h ^ secret[2], secret[3])
    return <uint32_t>(h ^ (h >> 32))
