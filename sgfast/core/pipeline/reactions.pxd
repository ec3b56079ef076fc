# The other end's reaction to a connection or to a denied attempt: whether it answers or refuses (SPEC 10.4), and
# whether packets of both ends were seen (SPEC 10.27). No verdict depends on what this module notes.

from libc.stdint cimport uint8_t

from sgfast.core.base.types cimport Packet
from sgfast.core.conntrack.protocols cimport resets, shows_answer
from sgfast.core.conntrack.storage cimport Entry
from sgfast.core.conntrack.table cimport FROM_HIGH, HEARD, REFUSED, UNSEEN
from sgfast.core.pipeline.judge cimport PacketContext
from sgfast.core.pipeline.plane cimport Plane


cdef inline bint from_other_end(const Packet* p, const Entry* e, int side) noexcept nogil:
    # Whether the packet's sender is not the sender of the opener that `side` denied.
    return ((e.flags[side] & FROM_HIGH) != 0) != p.source_high


cdef inline void note_two_way(Plane* plane, const Entry* e) noexcept nogil:
    # Counts a tuple whose other end sends its first packet. Call it before the packet is marked in the entry.
    if not e.marks & (HEARD | REFUSED):
        plane.counters.two_way += 1


cdef inline void note_one_way(Plane* plane, Entry* e) noexcept nogil:
    # The initiator sent a packet which shows that the other end has answered.
    if not e.marks & (HEARD | REFUSED):
        plane.counters.one_way += 1
        e.marks |= HEARD


cdef inline void note_reaction(
    Plane* plane, const PacketContext* c, Entry* e, int side, bint opener_seen
) noexcept nogil:
    # Notes how the other end reacted to an opener that `side` denied. A packet of the other end shows this, even if it
    # is moot or denied. A later packet of the initiator shows it, too, if that packet makes sense only after an answer.
    cdef const Packet* p = c.packet
    if from_other_end(p, e, side):
        if not e.flags[side] & UNSEEN:
            note_two_way(plane, e)
        e.marks |= REFUSED if resets(p) else HEARD
    elif e.flags[side] & UNSEEN:
        e.flags[side] &= <uint8_t>~UNSEEN
        plane.counters.two_way += 1
    elif opener_seen and shows_answer(p):
        note_one_way(plane, e)


cdef inline void note_early_ack(Plane* plane, const PacketContext* c, Entry* e) noexcept nogil:
    # The filter denies an ACK that the initiator sends while no answer was seen. It shows that there was one.
    cdef int side = 0 if e.state[0] else 1
    if ((e.flags[side] & FROM_HIGH) != 0) == c.packet.source_high and shows_answer(c.packet):
        note_one_way(plane, e)


cdef inline uint8_t denied_flags(const PacketContext* c) noexcept nogil:
    # The flags of the side that denies the first packet of a connection.
    return (FROM_HIGH if c.initiator_high else 0) | (UNSEEN if c.initiator_high != c.packet.source_high else 0)
