# A question to the rules alone: what would become of an opener, and of the first reply to it, if there were no other
# connection? No entry, counter or mark changes. Flow logs ask it about both ends of a connection that either may have
# opened (SPEC 10.30).

from libc.stdint cimport int32_t, uint16_t

from sgfast.core.base.icmp cimport icmp_query
from sgfast.core.base.types cimport (
    ALLOW,
    DENY,
    DENY_RULE,
    EXEMPT,
    INFRASTRUCTURE,
    LOCAL,
    NO_REASON,
    NO_RULE,
    OUT_OF_SCOPE,
    READ_EXEMPT,
    REPLY_DENIED,
    RULE,
    VPC_ISOLATED,
    Packet,
    ResultRow,
    SideRow,
)
from sgfast.core.classify.classifier cimport find_rule, is_stateless
from sgfast.core.conntrack.protocols cimport answers_nothing
from sgfast.core.pipeline.judge cimport PacketContext, begin_packet, clear_row, find_owners, isolated
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.wire.ip cimport BY_ROLE, asks_infrastructure


cdef inline bint ask_side(
    const Plane* plane, const PacketContext* c, int side, bint inbound, uint16_t port_key, SideRow* row
) noexcept nogil:
    # Returns whether the rules of one end allow a packet, and writes down which one decides.
    cdef int32_t rule = find_rule(
        plane.rules, plane.rules.choice[c.instance[side] * 2 + inbound], c.address[1 - side], c.packet.protocol,
        port_key
    )
    cdef bint allowed = rule >= 0 and not plane.rules.denies[rule]
    row.instance = c.instance[side]
    row.rule = rule
    row.verdict = ALLOW if allowed else DENY
    row.reason = NO_RULE if rule < 0 else RULE if allowed else DENY_RULE
    return allowed


cdef inline uint16_t key_of_reply(const Packet* p) noexcept nogil:
    # Returns what rules compare with the ports or types of the first reply to an opener.
    cdef int icmp_type = p.port_key >> 8
    cdef bint is_reply
    if not p.has_icmp:
        return p.sport
    if icmp_query(p.ipv6, icmp_type, &is_reply):
        icmp_type = 0 if icmp_type == 8 else icmp_type + 1
    return <uint16_t>(icmp_type << 8 | p.port_key & 255)


cdef inline void judge_apart(const Plane* plane, const Packet* p, ResultRow* row, int32_t* replies) noexcept nogil:
    # Judges an opener at the filters of both ends, and then its first reply at those that have no connections.
    # `replies` become the rules that allow the reply, at the opener's end and at the other one; -1 for none.
    cdef PacketContext c
    cdef SideRow* sides[2]
    cdef SideRow reply
    cdef bint is_free
    cdef int step, side
    begin_packet(&c, p, row, False, 0)
    clear_row(row)
    replies[0] = replies[1] = -1
    row.verdict = EXEMPT
    row.reason = NO_REASON
    if p.parse_result == READ_EXEMPT:
        return
    find_owners(plane, &c)
    is_free = plane.wire.infrastructure == BY_ROLE and asks_infrastructure(p)
    if is_free and c.instance[1 - p.source_high] < 0:
        return
    if c.instance[0] < 0 and c.instance[1] < 0:
        row.verdict = OUT_OF_SCOPE
        return
    if c.instance[0] == c.instance[1]:
        row.verdict = LOCAL
        return
    row.verdict = DENY
    if isolated(plane, &c):
        row.egress = SideRow(c.instance[p.source_high], -1, DENY, VPC_ISOLATED, 0)
        row.reason = VPC_ISOLATED
        return
    sides[p.source_high], sides[1 - p.source_high] = &row.egress, &row.ingress
    for step in range(2):
        side = p.source_high if step == 0 else 1 - p.source_high
        if c.instance[side] < 0:
            continue
        if step == 0 and is_free:
            row.egress.instance = c.instance[side]
            row.egress.verdict = ALLOW
            row.egress.reason = INFRASTRUCTURE
            continue
        if not ask_side(plane, &c, side, step, p.port_key, sides[side]):
            row.reason = sides[side].reason
            return
    for step in range(0 if answers_nothing(p) else 2):
        side = 1 - p.source_high if step == 0 else p.source_high
        if c.instance[side] < 0 or not is_stateless(plane.rules, c.instance[side]):
            continue
        if not ask_side(plane, &c, side, step, key_of_reply(p), &reply):
            sides[side][0] = reply
            row.reason = sides[side].reason = REPLY_DENIED
            return
        replies[1 - step] = reply.rule
    row.verdict = ALLOW
    row.reason = RULE
