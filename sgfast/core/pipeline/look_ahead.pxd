# Policy look-ups (addresses and rules) for packets without a connection, made for a whole batch before its packets are
# judged in order. Each look-up is a chain of dependent loads, most of which are cache misses; the cache misses of
# different packets overlap. The look-ups do not depend on connections.

from libc.stdint cimport int32_t, uint32_t

from sgfast.core.base.intrinsics cimport prefetch
from sgfast.core.base.key cimport Address, address_of
from sgfast.core.base.types cimport Packet
from sgfast.core.classify.classifier cimport find_address, find_rule
from sgfast.core.pipeline.plane cimport Plane


cdef struct Ahead:
    uint32_t address[2]     # by side: the winning rule in the packet's own direction; -1 for none
    int32_t rule[2]         # by side: the rule that wins in the packet's own direction; -1 for none


cdef inline void look_up_addresses(const Plane* plane, const Packet* p, Ahead* ahead) noexcept nogil:
    # Finds the address numbers, and prefetches the addresses' owners.
    cdef Address address
    cdef int side
    for side in range(2):
        address = address_of(p.key.addr, p.ipv6, side)
        ahead.address[side] = find_address(plane.rules, p.ipv6, address.high, address.low)
        prefetch(&plane.rules.owner[ahead.address[side]])


cdef inline void look_up_rules(const Plane* plane, const Packet* p, Ahead* ahead) noexcept nogil:
    # Finds the rules. Call this after look_up_addresses.
    cdef int32_t instance
    cdef int side
    for side in range(2):
        instance = plane.rules.owner[ahead.address[side]]
        ahead.rule[side] = -1
        if instance >= 0:
            ahead.rule[side] = find_rule(
                plane.rules, plane.rules.choice[instance * 2 + (p.source_high != side)], ahead.address[1 - side],
                p.protocol, p.port_key
            )
            if ahead.rule[side] >= 0:
                prefetch(&plane.rule_counts[ahead.rule[side]])
