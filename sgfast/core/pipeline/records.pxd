# The flow record of a packet's connection, for the connection report (SPEC 10.4), and the bits about this record in the
# packet's result word.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

from sgfast.core.base.types cimport DENY, WORD_BEGAN, WORD_HEARD, WORD_HIGH_SHIFT, WORD_KNOWN
from sgfast.core.conntrack.lifetime cimport begin_tuple, name_sides
from sgfast.core.conntrack.states cimport NO_STATE
from sgfast.core.conntrack.storage cimport Entry, origin_at
from sgfast.core.conntrack.table cimport FROM_HIGH, HEARD, TUPLE_LIVE, UNBEGUN, Table, count_packet
from sgfast.core.pipeline.judge cimport PacketContext
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.tallies.tally cimport link_origin


cdef inline void set_record_bits(PacketContext* c, const Entry* e) noexcept nogil:
    # Sets the result word's bits about the packet's record, initiator included. For a record that just began,
    # begin_record has set the initiator already. A side that an RST just ended still has its flags.
    cdef int side = e.state[0] == NO_STATE and (e.state[1] != NO_STATE or (e.present & 3) == 2)
    if c.wants_word and e.marks & TUPLE_LIVE and not e.marks & UNBEGUN:
        c.word |= WORD_KNOWN | (WORD_HEARD if e.marks & HEARD else 0)
        if not c.word & WORD_BEGAN:
            c.word |= <uint16_t>((e.flags[side] & FROM_HIGH) << WORD_HIGH_SHIFT)


cdef inline void count_in_record(Plane* plane, const PacketContext* c) noexcept nogil:
    if plane.table.keep_flows and not c.entry.marks & UNBEGUN:
        count_packet(&plane.table, c.slot, c.packet, c.packet.count)
        if c.owners_known:
            name_sides(&plane.table, c.slot, c.instance)


cdef inline void begin_record(
    Plane* plane, Table* t, PacketContext* c, uint32_t slot, Entry* e, uint8_t verdict, uint8_t reason,
    int denied_side
) noexcept nogil:
    # A denied packet without a tallied denial follows a cut. Its record counts for no instance.
    cdef int32_t counted_for = c.instance[denied_side if denied_side >= 0 else 1 - c.initiator_high]
    if verdict == DENY and c.denial == NULL:
        counted_for = -1
    begin_tuple(t, slot, e, c.packet, counted_for, c.initiator_high, verdict, reason, denied_side)
    if c.denial != NULL and t.keep_origins:
        link_origin(&plane.queue, c.denial, origin_at(&t.slab, slot))
    c.word |= <uint16_t>(WORD_BEGAN | c.initiator_high << WORD_HIGH_SHIFT)
