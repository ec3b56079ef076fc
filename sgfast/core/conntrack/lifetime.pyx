"""The life cycle of tuples, and the index of the table. ``lifetime.pxd`` explains each function."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from sgfast.core.base.bucket cimport Bucket, match_tag, put_in_bucket
from sgfast.core.base.intrinsics cimport ctz32, prefetch
from sgfast.core.base.key cimport KIND_IPV6
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.base.types cimport DENY, NO_SLOT
from sgfast.core.conntrack.events cimport tell_forgotten
from sgfast.core.conntrack.expiry_heap cimport ExpiryHeap, free_heap, pop_expiry, push_expiry
from sgfast.core.conntrack.flow_rows cimport is_reported, report_tuple
from sgfast.core.conntrack.states cimport MOOT_TCP, NO_STATE
from sgfast.core.conntrack.storage cimport (
    Entry,
    FlowRecord,
    FlowSides,
    MarkLink,
    ORIGIN_DENIED_OUT,
    ORIGIN_HIGH,
    Origin,
    addresses_at,
    entry_at,
    flow_at,
    flow_sides_at,
    free_slab,
    give_slot,
    init_slab,
    mark_at,
    origin_at,
    take_slot,
)
from sgfast.core.conntrack.table cimport (
    ANSWERED,
    EVICTABLE,
    HEARD,
    OPENER_SEEN,
    REFUSED,
    REPLIED,
    SIDE_DENIED,
    SIDE_EVICTED,
    SIDE_OPEN,
    SIDE_REOPENED,
    SIDE_TIMEOUT,
    TUPLE_DENIED,
    TUPLE_LIVE,
    UNBEGUN,
    UNHEARD,
    has_full_index,
    latest_deadline,
    side_connected,
)
from sgfast.core.conntrack.timer_wheel cimport (
    NOT_ARMED,
    WHEEL_LEVELS,
    WHEEL_SLOTS,
    advance,
    arm,
    disarm,
    init_wheel,
    release,
    take_bucket,
    tick_of,
)

cdef enum:
    FIRST_BUCKETS = 1024
    # Even the smallest table remembers this many openers, as they are no connections (SPEC 5.8, 9.3).
    LEAST_MARKS = 1 << 20


cdef int init_table(Table* t, uint32_t max_live, bint keep_marks, bint keep_flows, bint keep_origins) except -1:
    memset(t, 0, sizeof(Table))
    init_slab(&t.slab, keep_marks, keep_flows, keep_origins)
    init_wheel(&t.wheel)
    t.buckets = <Bucket*>allocate_pages(FIRST_BUCKETS * sizeof(Bucket))
    if t.buckets == NULL:
        raise MemoryError
    t.bucket_mask = FIRST_BUCKETS - 1
    t.max_live = max_live
    t.max_marks = max(max_live, <uint32_t>LEAST_MARKS)
    t.age_head = NO_SLOT
    t.age_tail = NO_SLOT
    t.mark_head = NO_SLOT
    t.mark_tail = NO_SLOT
    t.keep_marks = keep_marks
    t.keep_flows = keep_flows
    t.keep_origins = keep_origins
    return 0


cdef void free_table(Table* t) noexcept nogil:
    free_slab(&t.slab)
    free_heap(&t.expiry)
    free(t.buckets)
    free(t.ended)
    memset(t, 0, sizeof(Table))


# The index ------------------------------------------------------------------------------------------------------------

cdef void take_from_bucket(Table* t, uint32_t slot) noexcept nogil:
    cdef uint32_t hash_value = entry_at(&t.slab, slot).hash
    cdef uint32_t at = hash_value & t.bucket_mask
    cdef uint32_t mask, _tries
    cdef Bucket* bucket
    for _tries in range(t.bucket_mask + 1):
        bucket = &t.buckets[at]
        mask = match_tag(bucket, hash_value)
        while mask:
            if bucket.slots[ctz32(mask)] == slot:
                bucket.tags[ctz32(mask)] = 0
                t.used -= 1
                return
            mask &= mask - 1
        if 0 < bucket.overflow < 255:
            bucket.overflow -= 1
        at = (at + 1) & t.bucket_mask


cdef bint grow_index(Table* t) noexcept nogil:
    cdef uint64_t lines = (<uint64_t>t.bucket_mask + 1) * 2
    cdef Bucket* grown
    cdef uint32_t slot
    cdef const Entry* e
    if lines > <uint64_t>1 << 28:
        return False
    grown = <Bucket*>allocate_pages(lines * sizeof(Bucket))
    if grown == NULL:
        return False
    # Entries are visited in slot order, so that they are read sequentially.
    for slot in range(t.slab.fresh):
        e = entry_at(&t.slab, slot)
        if e.kind:
            put_in_bucket(grown, <uint32_t>(lines - 1), e.hash, slot)
    free(t.buckets)
    t.buckets = grown
    t.bucket_mask = <uint32_t>(lines - 1)
    return True


cdef uint32_t add_key(Table* t, const FlowKey* key, uint64_t digest, uint32_t hash_value) noexcept nogil:
    # Adds an entry that has no connection and is not live yet. Returns NO_SLOT if there is no memory.
    cdef uint32_t slot
    cdef Entry* e
    if has_full_index(t) and not grow_index(t):
        return NO_SLOT
    slot = take_slot(&t.slab, (key.kind & KIND_IPV6) != 0)
    if slot == NO_SLOT:
        return NO_SLOT
    e = entry_at(&t.slab, slot)
    memset(e, 0, sizeof(Entry))
    e.digest = digest
    e.ports = key.ports
    e.protocol = key.protocol
    e.kind = key.kind
    e.hash = hash_value
    e.rule[0] = NO_SLOT
    e.rule[1] = NO_SLOT
    e.wheel_prev = NOT_ARMED
    if key.kind & KIND_IPV6:
        memcpy(addresses_at(&t.slab, slot), key.addr, sizeof(key.addr))
    put_in_bucket(t.buckets, t.bucket_mask, hash_value, slot)
    t.used += 1
    return slot


cdef void drop_key(Table* t, uint32_t slot) noexcept nogil:
    take_from_bucket(t, slot)
    give_slot(&t.slab, slot)


# Age list: evictable tuples in order of creation (SPEC 5.8) -----------------------------------------------------------

cdef void leave_age(Table* t, Entry* e) noexcept nogil:
    if not e.marks & EVICTABLE:
        return
    e.marks &= ~EVICTABLE
    if e.age_prev == NO_SLOT:
        t.age_head = e.age_next
    else:
        entry_at(&t.slab, e.age_prev).age_next = e.age_next
    if e.age_next == NO_SLOT:
        t.age_tail = e.age_prev
    else:
        entry_at(&t.slab, e.age_next).age_prev = e.age_prev


cdef void join_age(Table* t, uint32_t slot, Entry* e) noexcept nogil:
    leave_age(t, e)
    e.marks |= EVICTABLE
    e.age_next = NO_SLOT
    e.age_prev = t.age_tail
    if t.age_tail == NO_SLOT:
        t.age_head = slot
    else:
        entry_at(&t.slab, t.age_tail).age_next = slot
    t.age_tail = slot


# Marks: keys whose opener was seen, in order of their latest opener (SPEC 9.3) ----------------------------------------

cdef void leave_marks(Table* t, uint32_t slot, Entry* e) noexcept nogil:
    cdef MarkLink* link
    if not e.marks & OPENER_SEEN:
        return
    e.marks &= ~OPENER_SEEN
    t.mark_count -= 1
    link = mark_at(&t.slab, slot)
    if link.prev == NO_SLOT:
        t.mark_head = link.next
    else:
        mark_at(&t.slab, link.prev).next = link.next
    if link.next == NO_SLOT:
        t.mark_tail = link.prev
    else:
        mark_at(&t.slab, link.next).prev = link.prev


cdef void mark_opener(Table* t, uint32_t slot, Entry* e) noexcept nogil:
    cdef MarkLink* link = mark_at(&t.slab, slot)
    cdef uint32_t oldest
    leave_marks(t, slot, e)
    e.marks |= OPENER_SEEN
    t.mark_count += 1
    link.next = NO_SLOT
    link.prev = t.mark_tail
    if t.mark_tail == NO_SLOT:
        t.mark_head = slot
    else:
        mark_at(&t.slab, t.mark_tail).next = slot
    t.mark_tail = slot
    if not e.marks & TUPLE_LIVE and t.marks_expire and e.wheel_prev == NOT_ARMED:
        arm(&t.wheel, &t.slab, slot, e, t.marks_until)
    if t.mark_count > t.max_marks:
        oldest = t.mark_head
        e = entry_at(&t.slab, oldest)
        leave_marks(t, oldest, e)
        if not e.marks & TUPLE_LIVE:
            disarm(&t.wheel, &t.slab, e)
            drop_key(t, oldest)


# Life cycle of tuples -------------------------------------------------------------------------------------------------

cdef void forget_past(Table* t, uint32_t slot, Entry* e) noexcept nogil:
    # Clears the marks and the flow record of an entry's earlier tuple, because a new tuple begins.
    cdef FlowSides* sides
    e.marks = (e.marks & ~(ANSWERED | REFUSED | HEARD | TUPLE_DENIED)) | UNBEGUN
    if t.keep_flows:
        memset(flow_at(&t.slab, slot), 0, sizeof(FlowRecord))
        sides = flow_sides_at(&t.slab, slot)
        sides.rule[0] = NO_SLOT
        sides.rule[1] = NO_SLOT
        sides.instance[0] = -1
        sides.instance[1] = -1


cdef void set_side(
    Table* t, uint32_t slot, Entry* e, int side, uint8_t state, uint8_t flags, uint32_t rule, int64_t deadline
) noexcept nogil:
    # Begins a connection, or a moot mark, on a side.
    if not e.marks & TUPLE_LIVE:
        forget_past(t, slot, e)
        e.marks |= TUPLE_LIVE
        t.live += 1
    e.state[side] = state
    e.flags[side] = flags
    e.rule[side] = rule
    e.deadline[side] = deadline
    rearm(t, slot, e)
    if t.keep_flows:
        flow_at(&t.slab, slot).side_end[side] = SIDE_DENIED if state >= MOOT_TCP else SIDE_OPEN
        flow_sides_at(&t.slab, slot).rule[side] = rule
    if flags & REPLIED:
        e.marks |= ANSWERED
    if e.marks & ANSWERED and e.state[0] < MOOT_TCP and e.state[1] < MOOT_TCP:
        leave_age(t, e)
    else:
        join_age(t, slot, e)


cdef void clear_side(Table* t, uint32_t slot, Entry* e, int side, uint8_t side_end) noexcept nogil:
    # Ends a side's connection or mark. The entry stays. If neither side has one then, the caller must call end_tuple.
    if e.state[side] == NO_STATE:
        return
    if t.keep_flows and e.state[side] < MOOT_TCP:
        flow_at(&t.slab, slot).side_end[side] = side_end
    e.state[side] = NO_STATE
    if e.state[side ^ 1]:
        rearm(t, slot, e)
    if e.marks & ANSWERED and e.state[side ^ 1] < MOOT_TCP:
        leave_age(t, e)


cdef void reopen_side(Table* t, uint32_t slot, Entry* e, int side, int64_t now) noexcept nogil:
    # Drops a side's finished connection for a new opener (SPEC 4.4).
    if not e.marks & UNBEGUN:       # this packet has not reopened the other side
        report_tuple(t, slot, e, now, SIDE_REOPENED)
        forget_past(t, slot, e)
    e.state[side] = NO_STATE
    if e.state[side ^ 1]:
        rearm(t, slot, e)
    # The other side may deny the opener, or not reopen. If its connection had a reply, that still protects the tuple.
    e.marks &= ~ANSWERED
    if side_connected(e, side ^ 1, now) and e.flags[side ^ 1] & REPLIED:
        e.marks |= ANSWERED
        leave_age(t, e)
    else:
        join_age(t, slot, e)


cdef void note_reply(Table* t, Entry* e, int side, bint reset) noexcept nogil:
    # Call this for the first packet in reply direction that a side allows. `reset`: the packet is an RST.
    e.flags[side] = (e.flags[side] | REPLIED) & ~UNHEARD
    e.marks |= ANSWERED | (REFUSED if reset else HEARD)
    if e.state[0] < MOOT_TCP and e.state[1] < MOOT_TCP:
        leave_age(t, e)


cdef void begin_tuple(
    Table* t, uint32_t slot, Entry* e, const Packet* p, int32_t counted_for, bint initiator_high, uint8_t verdict,
    uint8_t reason, int denied_side
) noexcept nogil:
    # Call this after the tuple's first packet was judged on all its sides.
    cdef FlowRecord* flow
    cdef Origin* origin
    e.marks &= ~UNBEGUN
    if verdict == DENY:
        e.marks |= TUPLE_DENIED
    if t.keep_origins:
        origin = origin_at(&t.slab, slot)
        origin.counted_for = counted_for
        origin.icmp = p.port_key if p.has_icmp else 0
        origin.reason = reason
        origin.ends = (ORIGIN_HIGH if initiator_high else 0) | (
            ORIGIN_DENIED_OUT if denied_side == initiator_high else 0
        )
        origin.endings = NULL
    if not t.keep_flows:
        return
    flow = flow_at(&t.slab, slot)
    flow.number = p.number
    flow.first_ns = p.time_ns
    flow.last_ns = p.time_ns
    flow.initiator_high = initiator_high
    if denied_side >= 0:
        flow.side_end[denied_side] = SIDE_DENIED


cdef void name_sides(Table* t, uint32_t slot, const int32_t* instance) noexcept nogil:
    cdef FlowSides* sides = flow_sides_at(&t.slab, slot)
    cdef int side
    for side in range(2):
        if sides.instance[side] < 0:
            sides.instance[side] = instance[side]


cdef void end_tuple(Table* t, uint32_t slot, Entry* e, int64_t now, uint8_t side_end) noexcept nogil:
    report_tuple(t, slot, e, now, side_end)
    if t.events != NULL:
        tell_forgotten(t, slot, e, now, side_end)
    leave_age(t, e)
    disarm(&t.wheel, &t.slab, e)
    if e.marks & TUPLE_LIVE:
        e.marks &= ~TUPLE_LIVE
        t.live -= 1
    e.state[0] = NO_STATE
    e.state[1] = NO_STATE
    # An entry that ends in a tick stays until the tick is over, as in `settle`.
    if e.marks & OPENER_SEEN and (not t.marks_expire or tick_of(now) <= tick_of(t.marks_until)):
        if t.marks_expire:
            arm(&t.wheel, &t.slab, slot, e, t.marks_until)
        return
    leave_marks(t, slot, e)
    drop_key(t, slot)


# Expiry and eviction --------------------------------------------------------------------------------------------------

cdef void expect_end(Table* t, uint32_t slot, int64_t latest) noexcept nogil:
    # A live tuple that may end in the current tick must have an item in the heap, if the heap is in use.
    cdef ExpiryHeap* heap = &t.expiry
    if heap.tick != t.wheel.tick or tick_of(latest) > t.wheel.tick:
        return
    # With too many stale items, or without memory, invalidates the heap. The heap is refilled when it is needed.
    if heap.count > 2 * <uint64_t>t.live + 1024 or not push_expiry(heap, latest, slot):
        heap.tick = 0


cdef void rearm(Table* t, uint32_t slot, Entry* e) noexcept nogil:
    cdef int64_t latest = latest_deadline(e)
    disarm(&t.wheel, &t.slab, e)
    arm(&t.wheel, &t.slab, slot, e, latest)
    expect_end(t, slot, latest)


cdef void settle(Table* t, uint32_t slot, int64_t now, bint early) noexcept nogil:
    # Handles a disarmed entry whose bucket is due: the entry has ended and is freed, or was prolonged and is armed
    # again. Unless `early`, entries that end in a tick are freed when the tick is over, so that results do not depend
    # on how often the wheel advances (workers.pxd).
    cdef Entry* e = entry_at(&t.slab, slot)
    cdef bint live = e.marks & TUPLE_LIVE
    cdef int64_t due_ns = latest_deadline(e) if live else t.marks_until
    if (live or e.marks & OPENER_SEEN) and (now < due_ns or (tick_of(due_ns) >= t.wheel.tick and not early)):
        arm(&t.wheel, &t.slab, slot, e, due_ns)
    elif live:
        end_tuple(t, slot, e, now, SIDE_TIMEOUT)
    else:
        leave_marks(t, slot, e)
        drop_key(t, slot)


cdef enum:
    SETTLED_TOGETHER = 16


cdef inline int next_due(const Table* t, uint32_t* chain, uint32_t* slots) noexcept nogil:
    # Takes entries from a chain and prefetches their buckets. Returns the number of entries taken. Most entries were
    # made one after another, in neighbouring slots. So a later entry can be guessed and prefetched, too.
    cdef uint32_t slot = chain[0]
    cdef uint32_t later
    cdef int count = 0
    while slot != NO_SLOT and count < SETTLED_TOGETHER:
        prefetch(&t.buckets[entry_at(&t.slab, slot).hash & t.bucket_mask])
        slots[count] = slot
        count += 1
        slot = release(&t.slab, slot)
        later = slot + SETTLED_TOGETHER * (slot - slots[count - 1])
        if later < t.slab.fresh:
            prefetch(entry_at(&t.slab, later))
    chain[0] = slot
    return count


cdef void settle_all(Table* t, uint32_t chain, int64_t now, bint early) noexcept nogil:
    # The bucket of each entry is a cache miss. So it is prefetched while other entries are settled.
    cdef uint32_t slots[2][SETTLED_TOGETHER]
    cdef int this = 0
    cdef int count = next_due(t, &chain, slots[0])
    cdef int following, i
    while count:
        following = next_due(t, &chain, slots[1 - this])
        for i in range(count):
            settle(t, slots[this][i], now, early)
        this = 1 - this
        count = following


cdef void sweep(Table* t, int64_t now) noexcept nogil:
    cdef uint64_t tick = tick_of(now)
    cdef uint32_t chains[WHEEL_LEVELS * WHEEL_SLOTS]
    cdef int i
    if tick > t.wheel.tick:
        for i in range(advance(&t.wheel, tick, chains)):
            settle_all(t, chains[i], now, False)


cdef bint evictable(const Entry* e, int64_t now) noexcept nogil:
    # Whether a tuple of the age list may be evicted. If it was answered, it may be as long as its key is moot.
    return (
        not e.marks & ANSWERED
        or (e.state[0] >= MOOT_TCP and now < e.deadline[0])
        or (e.state[1] >= MOOT_TCP and now < e.deadline[1])
    )


cdef bint fill_expiry(Table* t) noexcept nogil:
    # Fills the heap for the current tick. Returns False if there is no memory.
    cdef uint32_t slot = t.wheel.head[t.wheel.tick & (WHEEL_SLOTS - 1)]
    cdef const Entry* e
    t.expiry.count = 0
    t.expiry.tick = t.wheel.tick
    while slot != NO_SLOT:
        e = entry_at(&t.slab, slot)
        if e.marks & TUPLE_LIVE:
            expect_end(t, slot, latest_deadline(e))
        slot = e.wheel_next
    return t.expiry.tick == t.wheel.tick


cdef void end_expired(Table* t, int64_t now) noexcept nogil:
    # The wheel visits a tick only when the tick is over, so tuples that end in the current tick are found by the heap.
    cdef ExpiryHeap* heap = &t.expiry
    cdef Entry* e
    cdef uint32_t slot
    cdef int64_t latest
    if heap.tick != t.wheel.tick and not fill_expiry(t):
        settle_all(t, take_bucket(&t.wheel, <uint32_t>(t.wheel.tick & (WHEEL_SLOTS - 1))), now, True)
        return
    while heap.count and heap.items[0].deadline <= now:
        slot = pop_expiry(heap)
        e = entry_at(&t.slab, slot)
        if not e.marks & TUPLE_LIVE:
            continue
        latest = latest_deadline(e)
        if now >= latest:
            end_tuple(t, slot, e, now, SIDE_TIMEOUT)
        else:
            expect_end(t, slot, latest)


cdef bint make_room(Table* t, int64_t now) noexcept nogil:
    # Whether one more tuple may live (SPEC 5.8). Evicts a tuple if necessary. The result is exact: tuples that have
    # ended by now never count, even in the current tick.
    cdef Entry* e
    if t.live < t.max_live:
        return True
    sweep(t, now)
    if t.live >= t.max_live:
        end_expired(t, now)
    if t.live < t.max_live:
        return True
    while t.age_head != NO_SLOT:
        e = entry_at(&t.slab, t.age_head)
        if evictable(e, now):
            break
        leave_age(t, e)
    if t.age_head == NO_SLOT:
        return False
    if side_connected(e, 0, now) or side_connected(e, 1, now):
        t.evicted += 1
    else:
        t.moot_evicted += 1
    end_tuple(t, t.age_head, e, now, SIDE_EVICTED)
    return True


cdef int list_displaced(const Table* t, int openers, uint32_t* slots) noexcept nogil:
    cdef bint marks = t.mark_count + <uint32_t>openers > t.max_marks
    cdef uint32_t slot = t.mark_head if marks else t.age_head
    cdef int count = 0
    if not marks and t.live + <uint64_t>openers <= t.max_live:
        return 0
    while slot != NO_SLOT and count < openers:
        prefetch(entry_at(&t.slab, slot))
        slots[count] = slot
        count += 1
        slot = mark_at(&t.slab, slot).next if marks else entry_at(&t.slab, slot).age_next
    return count


cdef void prefetch_buckets(const Table* t, const uint32_t* slots, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        prefetch(&t.buckets[entry_at(&t.slab, slots[i]).hash & t.bucket_mask])


cdef uint32_t list_live(const Table* t, uint64_t where, uint64_t* out) noexcept nogil:
    cdef uint32_t slot
    cdef uint32_t count = 0
    for slot in range(t.slab.fresh):
        if entry_at(&t.slab, slot).kind and entry_at(&t.slab, slot).marks & TUPLE_LIVE:
            out[2 * count] = flow_at(&t.slab, slot).number if t.keep_flows else 0
            out[2 * count + 1] = where | slot
            count += 1
    return count


cdef void report_slot(Table* t, uint32_t slot, int64_t now) noexcept nogil:
    cdef const Entry* e = entry_at(&t.slab, slot)
    report_tuple(t, slot, e, now, SIDE_TIMEOUT if now >= latest_deadline(e) else SIDE_OPEN)


cdef uint32_t report_live(Table* t, int64_t now, uint32_t first, uint32_t limit) noexcept nogil:
    # Reports the tuples that are still in the table at the end of a replay, without ending them.
    cdef uint32_t slot = first
    cdef Py_ssize_t enough = t.ended_count + limit
    cdef Entry* e
    while slot < t.slab.fresh:
        if t.ended_count >= enough:
            return slot
        e = entry_at(&t.slab, slot)
        if is_reported(t, e):
            report_slot(t, slot, now)
        slot += 1
    return NO_SLOT
