# Moot keys (SPEC 9.2): traffic that would not have happened, because its opener was denied. The mark is stored on the
# side that denied the opener, in the place of the connection that this side does not have.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from sgfast.core.base.types cimport PROTO_TCP, TCP_RST, TCP_SYN, Packet
from sgfast.core.conntrack.lifetime cimport clear_side, set_side
from sgfast.core.conntrack.protocols cimport either_may_call, moot_state
from sgfast.core.conntrack.states cimport MOOT_TCP, NO_STATE
from sgfast.core.conntrack.storage cimport Entry
from sgfast.core.conntrack.table cimport FROM_HIGH, HEARD, REFUSED, SIDE_DENIED, side_connected
from sgfast.core.pipeline.context cimport PacketContext, entry_present, isolated
from sgfast.core.pipeline.filter cimport would_allow
from sgfast.core.pipeline.plane cimport Plane


cdef inline int moot_side(const Entry* e, int64_t now) noexcept nogil:
    # The side whose mark makes the key moot, or -1.
    if e.state[0] >= MOOT_TCP and now < e.deadline[0]:
        return 0
    if e.state[1] >= MOOT_TCP and now < e.deadline[1]:
        return 1
    return -1


cdef inline uint8_t moot_flags(const PacketContext* c) noexcept nogil:
    return FROM_HIGH if c.initiator_high else 0


cdef inline bint from_other_end(const Packet* p, const Entry* e, int side) noexcept nogil:
    # Whether the packet comes from the end that did not send the opener which `side` denied.
    return ((e.flags[side] & FROM_HIGH) != 0) != p.source_high


cdef inline void note_other_end(const Packet* p, Entry* e) noexcept nogil:
    # The other end of a denied opener sent this packet. Even if it is moot or denied, it shows how that end reacted.
    e.marks |= REFUSED if p.protocol == PROTO_TCP and p.step == TCP_RST else HEARD


cdef inline bint make_moot(Plane* plane, const PacketContext* c, int side) noexcept nogil:
    # The mark needs a side without a connection: the denying side, or else the other one. If both have one, the key
    # does not become moot: a tuple that lives at both ends never is (SPEC 6.11).
    cdef const Entry* e = c.entry
    cdef uint8_t state = moot_state(c.packet)
    if side_connected(e, side, c.now):
        side = 1 - side
    if side_connected(e, side, c.now):
        return False
    set_side(&plane.table, c.slot, side, state, moot_flags(c), <uint32_t>c.rule, c.now + plane.timeout[state])
    return True


cdef inline bint lift_moot(Plane* plane, PacketContext* c, int moot) noexcept nogil:
    # An opener of a moot key was allowed: removes the mark. False if the mark stays because the tuple is over:
    # stateless filters allowed the opener, so there is no connection.
    cdef Entry* e = c.entry
    # The mark may be on a side that no longer has an instance.
    e.present = entry_present(c)
    if e.state[moot] < MOOT_TCP:
        return True     # a connection took its place
    if e.state[1 - moot] == NO_STATE:
        return False
    clear_side(&plane.table, c.slot, moot, SIDE_DENIED)
    return True


cdef inline bint may_pass(const Plane* plane, const PacketContext* c) noexcept nogil:
    # Whether all filters would allow the packet. Asking them changes nothing.
    cdef int side
    for side in range(2):
        if c.instance[side] >= 0 and not would_allow(plane, c, side):
            return False
    return not isolated(plane, c)


cdef inline bint follows_denied_opener(Plane* plane, const PacketContext* c, int side) noexcept nogil:
    # Whether the packet is moot, given that `side`'s mark makes its key moot. If it is not, it is a new opener and is
    # judged. Either way it extends the mark's deadline.
    cdef const Packet* p = c.packet
    cdef Entry* e = c.entry
    e.deadline[side] = c.now + plane.timeout[e.state[side]]
    if from_other_end(p, e, side):
        if either_may_call(p) and may_pass(plane, c):
            return False
        note_other_end(p, e)
        return True
    return p.protocol == PROTO_TCP and p.step != TCP_SYN
