# Adds packets to the tallies from which reports are made. Three kinds of packets are counted: packets out of scope
# (SPEC 10.27), denied packets, and packets that begin a connection (SPEC 10.24). endings.pxd counts how they end.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.icmp cimport opener_port_key
from sgfast.core.base.key cimport KIND_ICMP_QUERY, address_of, write_address
from sgfast.core.base.types cimport DENY_RULE, NO_REASON, REPLY_DENIED, Packet
from sgfast.core.conntrack.protocols cimport is_from_service
from sgfast.core.conntrack.states cimport MOOT_TCP, NO_STATE
from sgfast.core.conntrack.storage cimport Entry, origin_at
from sgfast.core.pipeline.judge cimport PacketContext, find_owners
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.tallies.tally cimport BEGAN, DENIALS, OUTSIDE, Queued, TallyKey, key_of_kind, link_origin, queue_kind


cdef inline void tally_outside(Plane* plane, const Packet* p) noexcept nogil:
    # Counts a packet in the networks of its two addresses, once if both are in the same network.
    cdef TallyKey key = key_of_kind(-1, 0, 0, NO_REASON, False, p.ipv6, False, False, -1)
    cdef uint8_t other[16]
    cdef int length = 8 if p.ipv6 else 3        # of the networks, in bytes
    memset(other, 0, sizeof(other))
    write_address(<uint8_t*>key.peer, address_of(p.key.addr, p.ipv6, 0), p.ipv6)
    write_address(other, address_of(p.key.addr, p.ipv6, 1), p.ipv6)
    memset(<uint8_t*>key.peer + length, 0, 16 - length)
    memset(other + length, 0, 16 - length)
    queue_kind(&plane.queue, &plane.tallies[OUTSIDE], &key, p.time_ns, p.number).packets = <uint32_t>p.count
    if memcmp(key.peer, other, sizeof(other)) != 0:
        memcpy(key.peer, other, sizeof(other))
        queue_kind(&plane.queue, &plane.tallies[OUTSIDE], &key, p.time_ns, p.number).packets = <uint32_t>p.count


cdef inline void tally_denial(
    Plane* plane, PacketContext* c, int side, uint8_t reason, int32_t rule
) noexcept nogil:
    # Tallies a denied packet. If its connection would have been inferred, or if it is a reply, that connection's
    # direction counts, as in endings.pxd.
    cdef const Packet* p = c.packet
    cdef uint16_t port_key = p.port_key
    cdef TallyKey key
    find_owners(plane, c)
    if c.initiator_high != p.source_high:
        port_key = opener_port_key(p.key.kind, p.key.ports, c.initiator_high)
    elif is_from_service(p):
        port_key = p.sport      # so that packets of both directions are one group
    key = key_of_kind(
        c.instance[side], port_key, p.protocol, reason, side != c.initiator_high, p.ipv6, p.has_ports, p.has_icmp,
        rule if reason == DENY_RULE or reason == REPLY_DENIED else -1
    )
    write_address(<uint8_t*>key.peer, address_of(p.key.addr, p.ipv6, 1 - side), p.ipv6)
    c.denial = queue_kind(&plane.queue, &plane.tallies[DENIALS], &key, p.time_ns, p.number)
    c.denial.packets = <uint32_t>p.count
    c.denial.bytes = p.wire


cdef inline void tally_opened(Plane* plane, const PacketContext* c, uint8_t reason) noexcept nogil:
    # Counts a connection at the responder if that is an instance, and else at the initiator.
    cdef const Packet* p = c.packet
    cdef const Entry* e = c.entry
    cdef int judge = 1 - c.initiator_high
    cdef uint16_t port_key = p.port_key
    cdef TallyKey key
    cdef Queued* queued
    cdef int side
    if c.instance[judge] < 0:
        judge = c.initiator_high
    side = judge if NO_STATE < e.state[judge] < MOOT_TCP else 1 - judge
    if p.has_ports and p.source_high != c.initiator_high:
        port_key = p.sport      # the responder's packet, of a connection that was inferred
    elif p.key.kind & KIND_ICMP_QUERY:
        port_key &= 0xFF00      # only the ICMP type, as in the connection report
    key = key_of_kind(
        c.instance[judge], port_key, p.protocol, reason, judge != c.initiator_high, p.ipv6, p.has_ports, p.has_icmp,
        <int32_t>e.rule[side] if NO_STATE < e.state[side] < MOOT_TCP else -1
    )
    write_address(<uint8_t*>key.peer, address_of(p.key.addr, p.ipv6, 1 - judge), p.ipv6)
    queued = queue_kind(&plane.queue, &plane.tallies[BEGAN], &key, p.time_ns, p.number)
    queued.connections = 1
    if judge != c.initiator_high:       # no report counts answers at the initiator
        link_origin(&plane.queue, queued, origin_at(&plane.table.slab, c.slot))
