# The timer wheel finds entries whose deadline has passed, without reading all other entries.
#
#     level   one bucket spans   the level reaches
#     0       67 ms              17 s
#     1       17 s               73 min
#     2       73 min             13 days
#     3       13 days            9 years; what lies beyond waits in the last bucket
#
# An entry is in the bucket of its deadline, at the finest level that reaches the deadline. A packet that prolongs a
# connection only stores the new deadline. When the wheel reaches the old deadline, it arms the entry again. So an
# entry's bucket may be too early, but never too late: code that shortens a deadline must rearm the entry.
#
# No verdict depends on the wheel: look-ups compare the deadline itself. The wheel only frees memory. If time jumps by
# years, an advance still visits at most 256 buckets per level.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from sgfast.core.base.types cimport NO_SLOT
from sgfast.core.conntrack.storage cimport Entry, Slab, entry_at

cdef enum:
    WHEEL_LEVELS = 4
    WHEEL_BITS = 8
    WHEEL_SLOTS = 1 << WHEEL_BITS
    TICK_BITS = 26                  # a tick is 2**26 ns
    BUCKET_FLAG = 0x80000000        # in wheel_prev: this entry is the first one of the bucket in the other bits
    NOT_ARMED = 0xFFFFFFFF


cdef struct Wheel:
    uint64_t tick                   # the current tick; all buckets before it are empty
    uint32_t head[WHEEL_LEVELS * WHEEL_SLOTS]


cdef inline uint64_t tick_of(int64_t time_ns) noexcept nogil:
    # Returns the tick of a time. The sign bit is flipped, so that times before 1970 come first.
    return (<uint64_t>time_ns ^ (<uint64_t>1 << 63)) >> TICK_BITS


cdef inline int64_t end_of_tick(int64_t time_ns) noexcept nogil:
    # Returns the first time, in nanoseconds, that is in a later tick.
    return ((time_ns >> TICK_BITS) + 1) * (<int64_t>1 << TICK_BITS)


cdef inline void init_wheel(Wheel* wheel) noexcept nogil:
    cdef int i
    for i in range(WHEEL_LEVELS * WHEEL_SLOTS):
        wheel.head[i] = NO_SLOT
    wheel.tick = 0


cdef inline void disarm(Wheel* wheel, const Slab* slab, Entry* e) noexcept nogil:
    if e.wheel_prev == NOT_ARMED:
        return
    if e.wheel_prev & BUCKET_FLAG:
        wheel.head[e.wheel_prev & ~<uint32_t>BUCKET_FLAG] = e.wheel_next
    else:
        entry_at(slab, e.wheel_prev).wheel_next = e.wheel_next
    if e.wheel_next != NO_SLOT:
        entry_at(slab, e.wheel_next).wheel_prev = e.wheel_prev
    e.wheel_prev = NOT_ARMED


cdef inline void arm(Wheel* wheel, const Slab* slab, uint32_t slot, Entry* e, int64_t deadline) noexcept nogil:
    # Puts an entry into the bucket of its deadline. The entry must not be armed.
    cdef uint64_t tick = tick_of(deadline)
    cdef uint32_t level = 0
    cdef uint32_t bucket
    if tick <= wheel.tick:
        tick = wheel.tick
    while (tick >> (WHEEL_BITS * level)) - (wheel.tick >> (WHEEL_BITS * level)) >= WHEEL_SLOTS:
        if level == WHEEL_LEVELS - 1:
            tick = wheel.tick + ((<uint64_t>WHEEL_SLOTS - 1) << (WHEEL_BITS * level))
            break
        level += 1
    bucket = level * WHEEL_SLOTS + <uint32_t>((tick >> (WHEEL_BITS * level)) & (WHEEL_SLOTS - 1))
    e.wheel_next = wheel.head[bucket]
    e.wheel_prev = <uint32_t>BUCKET_FLAG | bucket
    if e.wheel_next != NO_SLOT:
        entry_at(slab, e.wheel_next).wheel_prev = slot
    wheel.head[bucket] = slot


# Due entries are returned as chains, linked by wheel_next. The caller must call `release` for each entry before the
# entry can be disarmed, and must then arm or free the entry.

cdef inline uint32_t take_bucket(Wheel* wheel, uint32_t bucket) noexcept nogil:
    # Empties a bucket, and returns the chain of its entries.
    cdef uint32_t chain = wheel.head[bucket]
    wheel.head[bucket] = NO_SLOT
    return chain


cdef inline uint32_t release(const Slab* slab, uint32_t slot) noexcept nogil:
    # Releases an entry. Returns the next entry of the chain.
    cdef Entry* e = entry_at(slab, slot)
    e.wheel_prev = NOT_ARMED
    return e.wheel_next


cdef inline int advance(Wheel* wheel, uint64_t tick, uint32_t* chains) noexcept nogil:
    # Advances to `tick`, which must be later. Writes the chains of due entries, at most WHEEL_LEVELS * WHEEL_SLOTS, and
    # returns their number. A bucket of level 0 is due when it is over. A bucket of a higher level is due when it
    # begins, so that its entries move to finer buckets.
    cdef int count = 0
    cdef int level
    cdef uint64_t old, new, i
    for level in range(WHEEL_LEVELS):
        old = wheel.tick >> (WHEEL_BITS * level)
        new = tick >> (WHEEL_BITS * level)
        if new == old:
            break
        if new - old > WHEEL_SLOTS:
            new = old + WHEEL_SLOTS
        for i in range(old, new):
            chains[count] = take_bucket(
                wheel, level * WHEEL_SLOTS + <uint32_t>((i + (level > 0)) & (WHEEL_SLOTS - 1))
            )
            count += chains[count] != NO_SLOT
    wheel.tick = tick
    return count
